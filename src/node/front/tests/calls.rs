//! Calls of etcd's API at the front: the same admission, batches, barriers and bounds.

use super::super::{Answers, HttpVersion};
use super::*;
use crate::etcd::pb::{Fields, Value};
use crate::etcd::{Code, Method, Status, message};
use crate::propose::command::CommandKind;

/// What a client of HTTP/2 says first, and the beginning of a frame.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";

impl Bench {
    /// A connection that has turned out to speak HTTP/2.
    pub(super) fn connect_http(&mut self) -> ConnectionId {
        let id = self.front.connect(self.now_ns).unwrap();
        self.front.received(id, &GREETING[..9], self.now_ns);
        assert_eq!(self.front.verdict(id), Verdict::Open);
        self.front.received(id, &GREETING[9..], self.now_ns);
        assert_eq!(self.front.verdict(id), Verdict::Http(HttpVersion::Two));
        assert_eq!(self.front.take_greeting(id), GREETING);
        id
    }

    fn call(&mut self, id: ConnectionId, stream: u64, method: Method, message: &[u8]) {
        self.front.call(id, stream, method, message, self.now_ns);
    }

    /// Takes the finished calls and sends them.
    fn answers(&mut self, id: ConnectionId) -> Vec<(u64, Result<Vec<u8>, Status>)> {
        let mut answers = Answers::default();
        self.front.take_answers(id, &mut answers);
        self.front.wrote(id, answers.bytes.len(), self.now_ns);
        let mut rest = &answers.bytes[..];
        let mut begin = 0;
        let list = answers.list.into_iter().map(|answer| {
            let (bytes, more) = rest.split_at(answer.end - begin);
            (rest, begin) = (more, answer.end);
            let result = match answer.refused {
                Some(status) => {
                    assert!(bytes.is_empty());
                    Err(status)
                }
                None => Ok(unframed(bytes)),
            };
            (answer.stream, result)
        });
        list.collect()
    }
}

fn unframed(bytes: &[u8]) -> Vec<u8> {
    match message::parse(bytes, usize::MAX) {
        Ok(message::Parsed::Message {
            message, consumed, ..
        }) if consumed == bytes.len() => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A put of `key`: field 1.
fn put(key: u8) -> Vec<u8> {
    vec![0x0a, 1, key, 0x12, 2, b'v', b'v']
}

/// The header that the bench answers with: cluster 1, member 2, a revision.
fn header(revision: u8) -> Vec<u8> {
    vec![0x0a, 6, 8, 1, 16, 2, 24, revision]
}

fn refused(code: Code, text: &'static str) -> Result<Vec<u8>, Status> {
    Err(Status::new(code, text))
}

#[test]
fn a_put_of_either_protocol_is_the_same_command() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    let mut native = bench.connect();
    bench.call(http, 7, Method::Put, &put(b'k'));
    let request = PutRequest {
        key: b"k",
        value: b"vv",
        ..PutRequest::default()
    };
    native.raw.request(&Request::Put(request), 1).unwrap();
    native.send(&mut bench);
    let batches = bench.batches();
    assert_eq!(batches.len(), 1);
    let batch = Batch::decode(&batches[0].bytes).unwrap();
    let commands: Vec<_> = batch.commands().collect();
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[0].kind, CommandKind::Put);
    assert_eq!(commands[0].body, commands[1].body);
    assert!(
        !bench.front.has_answers(http),
        "nothing is acknowledged yet"
    );
    bench.answer(&batches);
    assert!(bench.front.has_answers(http));
    assert_eq!(bench.answers(http), [(7, Ok(header(2)))]);
    assert_eq!(native.take(&mut bench), [(1, "put".to_owned())]);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn a_range_is_answered_from_what_is_published() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    bench.publish(b"k", b"v");
    bench.call(http, 1, Method::Range, &[0x0a, 1, b'k']);
    bench.call(http, 2, Method::Range, &[0x0a, 1, b'x']);
    let kv = [0x12, 12, 0x0a, 1, b'k', 16, 2, 24, 2, 32, 1, 0x2a, 1, b'v'];
    let found = [&header(2)[..], &kv, &[32, 1]].concat();
    assert_eq!(bench.answers(http), [(1, Ok(found)), (2, Ok(header(2)))]);
}

#[test]
fn a_range_waits_for_its_barrier() {
    let mut bench = Bench::new();
    bench.front.step(FrontInput::LocalReads(false), 0);
    let http = bench.connect_http();
    bench.call(http, 1, Method::Range, &[0x0a, 1, b'k']);
    assert_eq!(bench.answers(http), []);
    let token = bench.front.take_barrier().unwrap();
    bench.call(http, 2, Method::Range, &[0x0a, 1, b'k']);
    let lost = bench.front.take_barrier().unwrap();
    bench
        .front
        .step(FrontInput::ReadReady { token, ok: true }, 0);
    let failed = FrontInput::ReadReady {
        token: lost,
        ok: false,
    };
    bench.front.step(failed, 0);
    assert_eq!(
        bench.answers(http),
        [
            (1, Ok(header(1))),
            (2, refused(Code::Unavailable, "etcdserver: leader changed"))
        ]
    );
    // A serializable one does not wait.
    bench.call(http, 3, Method::Range, &[0x0a, 1, b'k', 0x38, 1]);
    assert_eq!(bench.answers(http), [(3, Ok(header(1)))]);
}

#[test]
fn refusals_have_the_code_and_the_text_of_etcd() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    let mut ask = |method, message: &[u8]| {
        bench.call(http, 9, method, message);
        let answers = bench.answers(http);
        assert_eq!(answers.len(), 1);
        answers[0].1.clone()
    };
    let invalid = Code::InvalidArgument;
    let empty = refused(invalid, "etcdserver: key is not provided");
    assert_eq!(ask(Method::Put, b""), empty);
    assert_eq!(ask(Method::Range, &[0x28, 7]), empty);
    let sort = refused(invalid, "etcdserver: invalid sort option");
    assert_eq!(ask(Method::Range, &[0x0a, 1, b'k', 0x28, 7]), sort);
    let no_op = refused(invalid, "etcdserver: key not found");
    assert_eq!(ask(Method::Txn, &[0x12, 0]), no_op);
    let many = refused(invalid, "etcdserver: too many operations in txn request");
    assert_eq!(ask(Method::Txn, &[0x12, 0].repeat(129)), many);
    let future = refused(
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    assert_eq!(ask(Method::Range, &[0x0a, 1, b'k', 0x20, 9]), future);
    let broken = refused(
        Code::Internal,
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
    );
    assert_eq!(ask(Method::Put, &[0x0a, 9]), broken);
}

#[test]
fn a_call_without_an_answer_times_out() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    bench.call(http, 1, Method::Put, &put(b'k'));
    let batches = bench.batches();
    bench.later(limits::REQUEST_DEADLINE_MS + 100);
    let timeout = refused(Code::Unavailable, "etcdserver: request timed out");
    assert_eq!(bench.answers(http), [(1, timeout)]);
    bench.answer(&batches);
    assert_eq!(bench.answers(http), [], "the late answer reaches nobody");
}

#[test]
fn answers_count_until_they_have_left() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    let value = vec![b'v'; 1 << 20];
    bench.publish(b"k", &value);
    let mut calls = 0;
    while bench.front.takes_calls(http) {
        bench.call(http, calls, Method::Range, &[0x0a, 1, b'k']);
        calls += 1;
        assert!(calls < 100, "the bound never comes");
    }
    assert_eq!(calls, (limits::STREAMED_BYTES_PER_CONNECTION >> 20) as u64);
    let mut answers = Answers::default();
    bench.front.take_answers(http, &mut answers);
    assert_eq!(answers.list.len() as u64, calls);
    assert!(!bench.front.takes_calls(http), "taken is not sent");
    let total = answers.bytes.len();
    assert_eq!(bench.front.waiting().1, total);
    bench.front.wrote(http, total, 0);
    assert!(bench.front.takes_calls(http));
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn a_call_that_stalls_keeps_its_watches_waiting_and_no_others() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    // A watch of `k`: field 1 of a request to create one.
    let create = [0x0a, 3, 0x0a, 1, b'k'];
    for stream in [1, 2] {
        bench.call(http, stream, Method::Watch, &create);
    }
    assert_eq!(bench.answers(http).len(), 2);
    let streams = |answers: Vec<(u64, Result<Vec<u8>, Status>)>| -> Vec<u64> {
        answers.into_iter().map(|(stream, _)| stream).collect()
    };
    let value = vec![b'v'; 100 << 10];
    bench.front.stalls(http, 1, true);
    for _ in 0..10 {
        bench.publish(b"k", &value);
        bench.show();
        assert_eq!(streams(bench.answers(http)), [2]);
    }
    // What waits for the client in the one stream does not count against the others.
    bench.publish(b"k", &value);
    bench.show();
    let mut answers = Answers::default();
    bench.front.take_answers(http, &mut answers);
    let mut more = 0;
    for _ in 0..5 {
        bench.front.waits(http, answers.bytes.len());
        bench.publish(b"k", &value);
        bench.show();
        more += bench.answers(http).len();
    }
    assert_eq!(more, 5);
    bench.front.wrote(http, answers.bytes.len(), 0);
    bench.front.stalls(http, 1, false);
    let mut bytes = 0;
    for _ in 0..30 {
        bench.show();
        for (stream, message) in bench.answers(http) {
            assert_eq!(stream, 1);
            bytes += message.unwrap().len();
        }
    }
    assert!(
        (16 * value.len()..17 * value.len()).contains(&bytes),
        "{bytes}"
    );
    // With a call ends its watch, and no other.
    bench.front.end_call(http, 1);
    assert_eq!(bench.front.counts().watches, 1);
    bench.publish(b"k", b"v");
    bench.show();
    assert_eq!(streams(bench.answers(http)), [2]);
    bench.front.disconnect(http);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn all_parts_of_a_revision_but_the_last_say_that_more_follow() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    // Every key from `k` on; field 8 asks for parts.
    let create = [0x0a, 8, 0x0a, 1, b'k', 0x12, 1, 0, 0x40, 1];
    bench.call(http, 1, Method::Watch, &create);
    assert_eq!(bench.answers(http).len(), 1);
    let value = vec![1; 1 << 20];
    let mut meta = Meta::decode(bench.writer.user()).unwrap();
    let mut txn = bench.writer.begin();
    let mut write = WriteTxn::begin(&mut txn, &mut meta);
    for key in [b"k1", b"k2", b"k3"] {
        write.put(key, &value, 0).unwrap();
    }
    write.finish();
    txn.commit(&meta.encode());
    bench.show();
    let mut parts = Vec::new();
    for (_, message) in bench.answers(http) {
        let message = message.unwrap();
        let (mut more, mut events) = (false, 0);
        let mut fields = Fields::of(&message);
        while let Some((number, value)) = fields.field().unwrap() {
            match (number, value) {
                (7, Value::Varint(number)) => more = number == 1,
                (11, Value::Bytes(_)) => events += 1,
                _ => {}
            }
        }
        parts.push((events, more));
    }
    assert_eq!(parts, [(1, true), (1, true), (1, false)]);
}

#[test]
fn whoever_takes_no_answer_or_never_ends_a_message_is_closed() {
    let mut bench = Bench::new();
    let (stalled, slow, idle) = (
        bench.connect_http(),
        bench.connect_http(),
        bench.connect_http(),
    );
    bench.call(stalled, 1, Method::Range, &[0x0a, 1, b'k']);
    bench.front.receives_since(slow, Some(0));
    bench.later(limits::FRAME_DEADLINE_MS.max(limits::STALLED_READER_DEADLINE_MS) + 100);
    assert_eq!(bench.front.verdict(stalled), Verdict::Over);
    assert_eq!(bench.front.verdict(slow), Verdict::Over);
    assert_eq!(bench.front.verdict(idle), Verdict::Http(HttpVersion::Two));
    bench.front.disconnect(stalled);
    assert_eq!(bench.front.waiting(), (0, 0));
}

#[test]
fn a_stop_refuses_new_calls_and_finishes_old_ones() {
    let mut bench = Bench::new();
    let http = bench.connect_http();
    bench.call(http, 1, Method::Put, &put(b'k'));
    let batches = bench.batches();
    bench.front.stop(bench.now_ns);
    bench.call(http, 2, Method::Put, &put(b'k'));
    let stopped = refused(Code::Unavailable, "etcdserver: server stopped");
    assert_eq!(bench.answers(http), [(2, stopped)]);
    assert!(!bench.front.is_quiet());
    assert_eq!(bench.front.verdict(http), Verdict::Open);
    bench.answer(&batches);
    assert_eq!(bench.answers(http), [(1, Ok(header(2)))]);
    assert!(bench.front.is_quiet());
    assert_eq!(bench.front.verdict(http), Verdict::Finish);
}

#[test]
fn parts_of_messages_have_a_bound() {
    let mut bench = Bench::new();
    assert!(bench.front.keeps_input(limits::INPUT_BYTES_PER_FRONT, 0));
    assert!(!bench.front.keeps_input(1, 0));
    assert!(bench.front.keeps_input(0, 1));
    assert!(bench.front.keeps_input(1, 0));
}
