//! HTTP/1.1: the JSON gateway, health, version and metrics; one task per connection.
//!
//! hyper takes the protocol apart. It asks for one answer at a time; a call waits until the front
//! has finished it, which wakes the connection's task.

#![forbid(unsafe_code)]

mod lines;

mod pieces;

use crate::etcd::http::{self as pages, Check, Route};
use crate::etcd::json::schema::Path;
use crate::etcd::timeout::{self, NEVER_NS};
use crate::etcd::{Code, Method, Status, message};
use crate::limits;
use crate::node::front::{self, Front, Verdict};
use crate::runtime::access::misdirected_text;
use crate::runtime::http_io::Io;
use crate::runtime::listen::Door;
use crate::runtime::server::VERSION;
use crate::runtime::socket::Place;
use crate::runtime::{metrics, seat::Seat};
use bytes::Bytes;
use glommio::net::TcpStream;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, ORIGIN,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use lines::Lines;
use pieces::{Broken, Pieces};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Answers to a call: a message with its prefix, or a piece of one, and whether there is more; or
/// why it is refused.
type Answers = VecDeque<Result<(Bytes, bool), Status>>;

/// Serves a connection until it is over.
pub async fn serve(place: Place, stream: TcpStream) {
    let seat = Rc::clone(&place.seat);
    let Some(front) = &seat.front else {
        return;
    };
    let early = front.borrow_mut().take_greeting(place.id);
    let io = Io::new(stream, early);
    let desk = Rc::new(Desk {
        place,
        next: Cell::new(1),
        serving: Cell::new(0),
        turned: Cell::new(false),
        gave: Cell::new(false),
        streams: RefCell::new(HashMap::new()),
    });
    let server = Rc::clone(&desk);
    let service = service_fn(move |request| answer(Rc::clone(&server), request));
    let connection = Builder::new()
        .max_buf_size(limits::HTTP_BUFFER_BYTES)
        .serve_connection(io.clone(), service);
    let mut connection = pin!(connection);
    let mut leaving = false;
    let (mut over, mut well) = (false, false);
    poll_fn(|cx| {
        seat.register_socket(desk.place.id, cx);
        io.begin_turn(seat.clock.now_ns());
        desk.gave.set(false);
        desk.take_answers(front);
        if seat.is_stopping() && !leaving {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        over = over || connection.as_mut().poll(cx).is_ready();
        desk.note_unfinished(front, &io);
        match io.send(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) if over => {
                well = true;
                return Poll::Ready(());
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match front.borrow().verdict(desk.place.id) {
            Verdict::Over => Poll::Ready(()),
            Verdict::Open | Verdict::Http(_) | Verdict::Finish => Poll::Pending,
        }
    })
    .await;
    if well && !leaving {
        io.linger().await;
    }
}

/// What a connection's answers need.
struct Desk {
    place: Place,
    next: Cell<u64>,
    /// Requests between their heads and the ends of their answers.
    serving: Cell<usize>,
    /// One of them began or ended in this turn.
    turned: Cell<bool>,
    /// A piece of a long answer was written in this turn.
    gave: Cell<bool>,
    /// Calls that go on, and the answers to them that nobody has picked up yet.
    streams: RefCell<HashMap<u64, Answers>>,
}

impl Desk {
    fn seat(&self) -> &Seat {
        &self.place.seat
    }

    /// Tells the front since when a request's head has been incomplete. What comes while one is
    /// served is looked at by whoever serves it.
    fn note_unfinished(&self, front: &RefCell<Front>, io: &Io) {
        let turned = self.turned.take();
        if self.serving.get() > 0 || turned {
            io.forget_bytes();
        }
        if self.serving.get() == 0 {
            let mut front = front.borrow_mut();
            front.receives_since(self.place.id, io.bytes_since());
        }
    }

    fn take_answers(&self, front: &RefCell<Front>) {
        let mut answers = front::Answers::default();
        front.borrow_mut().take_answers(self.place.id, &mut answers);
        for (answer, message) in answers.into_messages() {
            let bytes = message.len();
            let result = answer.refused.map_or(Ok((message, answer.more)), Err);
            match self.streams.borrow_mut().get_mut(&answer.stream) {
                Some(answers) => answers.push_back(result),
                None => self.pay(bytes),
            }
        }
    }

    /// What came first of the answers to a call that nobody has picked up yet.
    fn next_answer(&self, number: u64) -> Option<Result<(Bytes, bool), Status>> {
        let mut streams = self.streams.borrow_mut();
        streams.get_mut(&number).and_then(VecDeque::pop_front)
    }

    /// A call is over, whatever else there is of it.
    fn forget_call(&self, number: u64) {
        let left = self.streams.borrow_mut().remove(&number);
        let left = left.into_iter().flatten().flatten();
        self.pay(left.map(|(framed, _)| framed.len()).sum());
    }

    /// Whether a piece of a long answer may be written in this turn: one, and then others come
    /// first. hyper asks for more as long as the socket takes it.
    fn may_give(&self, cx: &Context<'_>) -> bool {
        let gave = self.gave.replace(true);
        if gave {
            cx.waker().wake_by_ref();
        }
        !gave
    }

    fn take_number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// So many bytes of answers have left, or never will.
    fn pay(&self, bytes: usize) {
        let Some(front) = &self.seat().front else {
            return;
        };
        if bytes > 0 {
            let mut front = front.borrow_mut();
            front.wrote(self.place.id, bytes, self.seat().clock.now_ns());
            if front.has_work() {
                // Somebody waited for that.
                self.seat().request_turn();
            }
        }
    }

    /// Whether that time has come; if not, the task is woken then.
    fn is_over(&self, deadline_ns: u64) -> bool {
        if deadline_ns == NEVER_NS {
            return false;
        }
        let over = self.seat().clock.now_ns() >= deadline_ns;
        if !over {
            self.seat().wake_at(self.place.id, deadline_ns);
        }
        over
    }

    /// Has the front serve a call, for as long as there is time.
    async fn call(
        self: &Rc<Self>,
        method: Method,
        message: &[u8],
        deadline_ns: u64,
    ) -> Result<Answered, Status> {
        let number = self.take_number();
        let Some(front) = &self.seat().front else {
            return Err(crate::api::Error::Stopped.into());
        };
        if self.is_over(deadline_ns) {
            return Err(timeout::exceeded());
        }
        self.streams.borrow_mut().insert(number, Answers::new());
        let now_ns = self.seat().clock.now_ns();
        front
            .borrow_mut()
            .call(self.place.id, number, method, message, now_ns);
        self.seat().request_turn();
        self.take_answers(front);
        let answered = poll_fn(|_| match self.next_answer(number) {
            Some(answered) => Poll::Ready(Some(answered)),
            None if self.is_over(deadline_ns) => Poll::Ready(None),
            // The task is woken when the front has an answer.
            None => Poll::Pending,
        });
        let answered = answered.await.unwrap_or_else(|| {
            // As when the client gives up.
            front.borrow_mut().end_call(self.place.id, number);
            self.seat().request_turn();
            Err(timeout::exceeded())
        });
        if !matches!(answered, Ok((_, true))) {
            self.forget_call(number);
        }
        let (framed, more) = answered?;
        let owed = Owed {
            desk: Rc::clone(self),
            bytes: framed.len(),
        };
        Ok(Answered {
            message: framed.slice(message::PREFIX_BYTES..),
            owed,
            more: more.then_some(number),
        })
    }

    /// Whether some state can be read: this member's, or the newest.
    async fn read(self: &Rc<Self>, serializable: bool) -> Result<(), String> {
        // A range of one key: field 1 is the key, 3 the limit, 8 leaves the values out.
        let mut message = b"\x0a\x06health\x18\x01\x40\x01".to_vec();
        if serializable {
            // Field 7.
            message.extend_from_slice(&[0x38, 1]);
        }
        match self.call(Method::Range, &message, NEVER_NS).await {
            Ok(_) => Ok(()),
            Err(status) => Err(status.message.into_owned()),
        }
    }

    fn figures(&self) -> pages::Figures {
        let front = self.seat().front.as_ref();
        front.map_or_else(Default::default, |front| front.borrow().figures())
    }
}

/// The answer to a call, or its first piece.
struct Answered {
    message: Bytes,
    owed: Owed,
    /// How the front knows the call, if it has more of the answer.
    more: Option<u64>,
}

/// A request that is served.
struct Serving(Rc<Desk>);

impl Serving {
    fn begin(desk: &Rc<Desk>) -> Serving {
        desk.serving.set(desk.serving.get() + 1);
        desk.turned.set(true);
        if let Some(front) = &desk.seat().front {
            front.borrow_mut().receives_since(desk.place.id, None);
        }
        Serving(Rc::clone(desk))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get() - 1);
        self.0.turned.set(true);
    }
}

/// Bytes of an answer that the front counts until they have left.
struct Owed {
    desk: Rc<Desk>,
    bytes: usize,
}

impl Owed {
    fn pay(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.desk.pay(bytes);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.pay(self.bytes);
    }
}

/// A body to send, in pieces.
struct Body {
    rest: Bytes,
    owed: Option<Owed>,
    /// What comes behind it.
    lines: Option<Lines>,
    /// Or what is written as it comes.
    pieces: Option<Pieces>,
    serving: Option<Serving>,
}

impl From<Lines> for Body {
    fn from(lines: Lines) -> Body {
        Body {
            rest: Bytes::new(),
            owed: None,
            lines: Some(lines),
            pieces: None,
            serving: None,
        }
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Body {
        Body {
            rest: Bytes::new(),
            owed: None,
            lines: None,
            pieces: Some(pieces),
            serving: None,
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body {
            rest: text.into(),
            owed: None,
            lines: None,
            pieces: None,
            serving: None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(pieces) = &mut self.pieces {
            let piece = pieces.poll_piece(cx);
            return piece.map(|piece| piece.map(|piece| piece.map(Frame::data)));
        }
        if let Some(lines) = &mut self.lines {
            let line = match lines.poll_line(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => None,
                Poll::Ready(Some(Ok(line))) => return Poll::Ready(Some(Ok(Frame::data(line)))),
                Poll::Ready(Some(Err(status))) => Some(pages::refused_line(&status)),
            };
            self.lines = None;
            return Poll::Ready(line.map(|line| Ok(Frame::data(line.into()))));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let count = self.rest.len().min(limits::STREAM_SEND_BYTES);
        let piece = self.rest.split_to(count);
        let rest = self.rest.len();
        if let Some(owed) = &mut self.owed {
            // The text is longer than the message; it is paid as the text leaves.
            owed.pay(if rest == 0 { usize::MAX } else { count / 2 });
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.is_open() {
            true => http_body::SizeHint::default(),
            false => http_body::SizeHint::with_exact(self.rest.len() as u64),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.is_open() && self.rest.is_empty()
    }
}

impl Body {
    /// How long it will be is not known.
    fn is_open(&self) -> bool {
        self.lines.is_some() || self.pieces.is_some()
    }
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

fn say(code: u16, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if kind == PLAIN {
        // A text may quote what a page of another site has sent.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// An answer that says nothing but its headers.
fn say_nothing(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(String::new().into());
    *response.status_mut() = status;
    response
}

/// An answer to a call, with what etcd's gateway passes on of the answer behind it.
fn say_called(body: impl Into<Body>) -> Response<Body> {
    let mut response = say(200, JSON, body);
    let name = HeaderName::from_static("grpc-metadata-content-type");
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(name, kind);
    response
}

/// What is wrong with the headers that say which host is meant: there has to be one.
fn host_problem(head: &Parts) -> Option<Response<Body>> {
    let what = match head.headers.get_all(HOST).iter().count() {
        0 if head.version == Version::HTTP_11 => "400 Bad Request: missing required Host header",
        0 | 1 => return None,
        _ => "400 Bad Request",
    };
    let mut response = say(400, PLAIN, what.to_owned());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    Some(response)
}

/// Where a path leads that is not written in the shortest way, or lacks its slash.
fn moved(head: &Parts, route: Route) -> Option<Response<Body>> {
    let mut leads = match route {
        Route::Gateway => "/v3/".to_owned(),
        Route::Nothing | Route::NoCall => pages::shorter(head.uri.path())?,
        _ => return None,
    };
    if let Some(query) = head.uri.query() {
        leads.push('?');
        leads.push_str(query);
    }
    let mut response = say_nothing(StatusCode::TEMPORARY_REDIRECT);
    let leads = HeaderValue::from_str(&leads).ok()?;
    response.headers_mut().insert(LOCATION, leads);
    Some(response)
}

fn refuse(status: &Status) -> Response<Body> {
    let code = pages::http_status(status.code);
    say(code, JSON, pages::refusal(status))
}

/// Answers a request, if it may ask at all, and says whose pages may read the answer.
async fn answer(desk: Rc<Desk>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let serving = Serving::begin(&desk);
    let mut response = answer_whom(&desk, request).await;
    response.body_mut().serving = Some(serving);
    Ok(response)
}

async fn answer_whom(desk: &Rc<Desk>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Some(response) = host_problem(&head) {
        return response;
    }
    if desk.place.door == Door::Metrics {
        return respond(desk, &head, body).await;
    }
    let access = Arc::clone(&desk.seat().access);
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(name) = access.misdirected(text(HOST).unwrap_or_default()) {
        return say(421, PLAIN, misdirected_text(name));
    }
    let origin = access.allowed_origin(text(ORIGIN));
    let origin = origin.and_then(|origin| HeaderValue::from_str(origin).ok());
    let mut response = respond(desk, &head, body).await;
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

async fn respond(desk: &Rc<Desk>, head: &Parts, body: Incoming) -> Response<Body> {
    let query = head.uri.query();
    let route = pages::route(head.method.as_str(), head.uri.path());
    let route = offered(&desk.place, route);
    if let Some(response) = moved(head, route) {
        return response;
    }
    match route {
        Route::Call(path) if path.1.is_stream() || path.1.gives_many() => {
            let deadline_ns = match deadline(desk, head) {
                Ok(deadline_ns) => deadline_ns,
                Err(status) => return refuse(&status),
            };
            let mut lines = Lines::new(desk, path, body, deadline_ns);
            match poll_fn(|cx| lines.poll_first(cx)).await {
                Ok(()) => say_called(lines),
                Err(status) => {
                    let code = pages::http_status(status.code);
                    say(code, JSON, pages::refused_line(&status))
                }
            }
        }
        Route::Call(path) => match call(desk, path, head, body).await {
            Ok(body) => say_called(body),
            Err(status) => refuse(&status),
        },
        Route::Refused(name) => match Method::from_path(name) {
            Err(status) => refuse(&status),
            // It is served by now, and not through the gateway.
            Ok(_) => refuse(&Status::new(Code::NotFound, "Not Found")),
        },
        Route::Health => health(desk, query).await,
        Route::Checks(checks, of_life) => check(desk, (checks, of_life), query).await,
        Route::Version => say(200, JSON, pages::version(VERSION)),
        Route::Metrics => say(200, metrics::CONTENT_TYPE, metrics::text(desk.seat())),
        Route::Preflight(_) => say_nothing(StatusCode::OK),
        Route::NoCall | Route::Gateway => refuse(&Status::new(Code::NotFound, "Not Found")),
        Route::CallWithoutPost => refuse(&Status::new(Code::Unimplemented, "Method Not Allowed")),
        Route::Nothing => say(404, PLAIN, "404 page not found\n".to_owned()),
        Route::WrongMethod => {
            let mut response = say(405, PLAIN, "Method Not Allowed\n".to_owned());
            let get = HeaderValue::from_static("GET");
            response.headers_mut().insert(ALLOW, get);
            response
        }
    }
}

/// What of a route is served at the door that the client came through.
fn offered(place: &Place, route: Route) -> Route {
    let gateway = match route {
        Route::Call(_)
        | Route::Refused(_)
        | Route::NoCall
        | Route::Gateway
        | Route::CallWithoutPost => true,
        Route::Health | Route::Checks(..) | Route::Metrics => return route,
        // There, it is one more method that is not served.
        Route::Preflight(true) if place.door == Door::Metrics => return Route::WrongMethod,
        Route::Version | Route::Preflight(_) | Route::Nothing | Route::WrongMethod => false,
    };
    let is_off = gateway && !place.seat.access.gateway;
    match place.door == Door::Metrics || is_off {
        true => Route::Nothing,
        false => route,
    }
}

/// Until when a call through the gateway may take.
fn deadline(desk: &Desk, head: &Parts) -> Result<u64, Status> {
    let Some(header) = head.headers.get("grpc-timeout") else {
        return Ok(NEVER_NS);
    };
    let timeout_ns = timeout::of_gateway(header.as_bytes())?;
    let now_ns = desk.seat().clock.now_ns();
    Ok(timeout_ns.map_or(NEVER_NS, |timeout_ns| now_ns.saturating_add(timeout_ns)))
}

/// A call through the gateway.
async fn call(
    desk: &Rc<Desk>,
    path: &'static Path,
    head: &Parts,
    body: Incoming,
) -> Result<Body, Status> {
    let deadline_ns = deadline(desk, head)?;
    let text = receive(desk, body).await?;
    let (_, method, _, _) = path;
    let bytes_max = match &desk.seat().front {
        Some(front) => front.borrow().message_bytes_max(),
        None => 0,
    };
    let message = pages::message(path, &text.bytes, bytes_max)?;
    drop(text);
    let (seat, streams) = (desk.seat(), method.is_stream() || method.gives_many());
    let counted = seat.counted.calls(*method);
    counted.started.add(1);
    counted.received.add(1);
    // As in etcd, what comes through the gateway says no version.
    seat.counted.clients[0][usize::from(streams)].add(1);
    let began_ns = seat.clock.now_ns();
    let answered = desk.call(*method, &message, deadline_ns).await;
    let code = answered
        .as_ref()
        .err()
        .map_or(Code::Ok, |status| status.code);
    counted.note_end(code, seat.clock.now_ns().saturating_sub(began_ns));
    let answered = answered?;
    counted.sent.add(1);
    if let Some(number) = answered.more {
        return Ok(Pieces::new(desk, path, number, answered).into());
    }
    Ok(Body {
        rest: pages::answer(path, &answered.message)?.into(),
        owed: Some(answered.owed),
        lines: None,
        pieces: None,
        serving: None,
    })
}

/// A request's body, which the front counts.
struct Text {
    desk: Rc<Desk>,
    bytes: Vec<u8>,
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Some(front) = &self.desk.seat().front {
            let mut front = front.borrow_mut();
            front.keeps_input(0, self.bytes.len());
            front.receives_since(self.desk.place.id, None);
        }
    }
}

async fn receive(desk: &Rc<Desk>, mut body: Incoming) -> Result<Text, Status> {
    let mut text = Text {
        desk: Rc::clone(desk),
        bytes: Vec::new(),
    };
    let Some(front) = &desk.seat().front else {
        return Ok(text);
    };
    let now_ns = desk.seat().clock.now_ns();
    front
        .borrow_mut()
        .receives_since(desk.place.id, Some(now_ns));
    // Base64 takes four bytes for three.
    let bytes_max = front.borrow().message_bytes_max() * 2;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Status::new(Code::Canceled, "the body is incomplete"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if text.bytes.len() + data.len() > bytes_max {
            return Err(Status::new(
                Code::ResourceExhausted,
                "grpc: received message larger than max",
            ));
        }
        if !front.borrow_mut().keeps_input(data.len(), 0) {
            return Err(crate::api::Error::TooManyRequests.into());
        }
        text.bytes.extend_from_slice(&data);
    }
    Ok(text)
}

async fn health(desk: &Rc<Desk>, query: Option<&str>) -> Response<Body> {
    let condition = desk.figures().condition;
    let counts = |name| !pages::query(query, "exclude").any(|alarm| alarm == name);
    let serializable = pages::query(query, "serializable").any(|value| value == "true");
    let reason = if condition.is_corrupt && counts("CORRUPT") {
        Some("ALARM CORRUPT".to_owned())
    } else if condition.is_out_of_space && counts("NOSPACE") {
        Some("ALARM NOSPACE".to_owned())
    } else if condition.leader == 0 && !serializable {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let read = desk.read(serializable).await;
        read.err().map(|reason| format!("RANGE ERROR:{reason}"))
    };
    let counted = &desk.seat().counted;
    let code = match reason {
        None => {
            counted.well.add(1);
            200
        }
        Some(_) => {
            counted.unwell.add(1);
            503
        }
    };
    say(code, PLAIN, pages::health(reason.as_deref()))
}

async fn check(
    desk: &Rc<Desk>,
    (checks, of_life): (&[Check], bool),
    query: Option<&str>,
) -> Response<Body> {
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        if pages::query(query, "exclude").any(|name| name == check.name()) {
            continue;
        }
        let result = match check {
            Check::SerializableRead => desk.read(true).await,
            Check::LinearizableRead => desk.read(false).await,
            Check::DataCorruption if desk.figures().condition.is_corrupt => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            // What nobody has noted ends the process or fails the reads; every member votes.
            Check::DataCorruption | Check::NonLearner => Ok(()),
        };
        let counted = &desk.seat().counted.checks[*check as usize][usize::from(of_life)];
        counted[usize::from(result.is_err())].add(1);
        results.push((*check, result));
    }
    let verbose = pages::query(query, "verbose").next().is_some();
    let (well, text) = pages::checked(&results, verbose);
    say(if well { 200 } else { 503 }, PLAIN, text)
}
