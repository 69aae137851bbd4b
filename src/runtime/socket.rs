//! A connection's task: moves bytes between its socket and the front.

#![forbid(unsafe_code)]

use crate::limits;
use crate::node::front::{ConnectionId, Front, HttpVersion, Verdict};
use crate::runtime::listen::Door;
use crate::runtime::seat::Seat;
use crate::runtime::{http1, http2, os};
use futures_io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::{AcceptedTcpStream, TcpStream};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Starts serving a connection.
pub fn open(seat: &Rc<Seat>, accepted: AcceptedTcpStream, door: Door) {
    let stream = accepted.bind_to_executor();
    let Some(front) = &seat.front else {
        return;
    };
    // Answers are gathered per turn already; a delay would only add to them.
    let _ = stream.set_nodelay(true);
    // Without it the socket would take megabytes for a client that reads nothing.
    let _ = os::bound_unsent(&stream, limits::SOCKET_UNSENT_BYTES);
    if is_local(&stream) {
        let _ = os::send_unpaced(&stream);
    }
    let now_ns = seat.clock.now_ns();
    let connected = match door.is_http_only() {
        true => front.borrow_mut().connect_http(now_ns),
        false => front.borrow_mut().connect(now_ns),
    };
    let Some(id) = connected else {
        crate::log_warn!("a connection was closed: there are too many");
        return;
    };
    let mut socket = Socket {
        place: Place {
            seat: Rc::clone(seat),
            id,
            door,
        },
        stream,
        finished: false,
    };
    glommio::spawn_local(async move {
        match poll_fn(|cx| socket.poll(cx)).await {
            // It is served at another door.
            Some(HttpVersion::One) if door == Door::Calls => {}
            Some(HttpVersion::One) => http1::serve(socket.place, socket.stream).await,
            Some(HttpVersion::Two) => http2::serve(socket.place, socket.stream).await,
            None => {}
        }
    })
    .detach();
}

/// Whether the client is on this machine.
fn is_local(stream: &TcpStream) -> bool {
    match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(own)) => peer.ip().is_loopback() || peer.ip() == own.ip(),
        _ => false,
    }
}

/// A connection's place at its seat, given up when dropped.
pub struct Place {
    /// The seat.
    pub seat: Rc<Seat>,
    /// The connection.
    pub id: ConnectionId,
    /// The door that its client came through.
    pub door: Door,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.close_socket(self.id);
    }
}

struct Socket {
    place: Place,
    stream: TcpStream,
    /// The sending half is closed.
    finished: bool,
}

impl Socket {
    /// Runs until the connection is over, or turns out to speak HTTP.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<HttpVersion>> {
        let (seat, id) = (Rc::clone(&self.place.seat), self.place.id);
        seat.register_socket(id, cx);
        let Some(front) = &seat.front else {
            return Poll::Ready(None);
        };
        if self.send(cx, front).is_err() {
            return Poll::Ready(None);
        }
        loop {
            match front.borrow().verdict(id) {
                Verdict::Over => return Poll::Ready(None),
                Verdict::Http(version) => return Poll::Ready(Some(version)),
                Verdict::Finish => self.finish(cx),
                Verdict::Open => {}
            }
            if !front.borrow().wants_input(id) {
                return Poll::Pending;
            }
            let mut scratch = seat.scratch.borrow_mut();
            match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(0)) => front.borrow_mut().input_over(id),
                Poll::Ready(Ok(count)) => {
                    let now_ns = seat.clock.now_ns();
                    front.borrow_mut().received(id, &scratch[..count], now_ns);
                    seat.request_turn();
                    if count == scratch.len() {
                        // There is more; others come first.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Sends as much as the socket takes.
    fn send(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>) -> std::io::Result<()> {
        loop {
            let sent = {
                let front = front.borrow();
                let output = front.output(self.place.id);
                if output.is_empty() {
                    return Ok(());
                }
                Pin::new(&mut self.stream).poll_write(cx, output)
            };
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(count)) => {
                    let now_ns = self.place.seat.clock.now_ns();
                    front.borrow_mut().wrote(self.place.id, count, now_ns);
                    if front.borrow().has_work() {
                        self.place.seat.request_turn();
                    }
                }
            }
        }
    }

    /// Closes the sending half, so that the client sees all that was said, and then the end.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if !self.finished {
            self.finished = true;
            // Done at once; if it fails the client is gone, which reading will show.
            let _ = Pin::new(&mut self.stream).poll_close(cx);
        }
    }
}
