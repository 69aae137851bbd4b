//! Answers to writes that ask for pairs: bounded like those of reads, and nobody's that leave
//! none for others.

use super::*;
use crate::api::{OwnedKeyValue, RangeResponse, Response, TxnResponse};
use crate::limits::{MIB, OUTPUT_BYTES_KEPT, OUTPUT_BYTES_PER_FRONT};

impl Bench {
    /// Answers every command with a transaction's answer of one pair of so many bytes.
    fn answer_at_length(&mut self, batches: &[ProposalBatch], bytes: usize) {
        for waiter in Bench::waiters(batches) {
            let pair = OwnedKeyValue {
                key: b"key".to_vec(),
                value: vec![b'v'; bytes],
                ..OwnedKeyValue::default()
            };
            let range = RangeResponse {
                kvs: vec![pair],
                count: 1,
                more: false,
            };
            let response = Response::Txn(TxnResponse {
                succeeded: true,
                responses: vec![Response::Range(range)],
            });
            let outcome = Outcome::Done {
                revision: 2,
                response: Box::new(response),
            };
            self.reply(vec![Reply { waiter, outcome }], bytes);
        }
    }

    /// Has somebody leave so much untaken that large answers have no room but `left`.
    fn crowd(&mut self, left: usize) {
        self.front.desk.output_bytes = OUTPUT_BYTES_PER_FRONT - OUTPUT_BYTES_KEPT - left;
    }

    /// All that is proposed, in as many turns as it takes.
    fn proposed(&mut self) -> Vec<ProposalBatch> {
        let mut all = Vec::new();
        while self.front.has_work() {
            all.extend(self.batches());
            self.front.take_touched(&mut Vec::new());
        }
        all
    }

    fn kinds(&mut self, client: &mut Client) -> Vec<String> {
        let answers = client.take(self).into_iter();
        answers.map(|(_, what)| what).collect()
    }
}

impl Client {
    /// Deletes an interval, or a key, and asks for what was there.
    fn take_out(&mut self, key: &[u8], range_end: &[u8], id: u64) {
        let delete = DeleteRangeRequest {
            key,
            range_end,
            prev_kv: true,
        };
        self.raw.request(&Request::DeleteRange(delete), id).unwrap();
    }
}

fn is(error: Error) -> String {
    format!("{:?}", Some(error))
}

#[test]
fn answers_to_writes_that_are_not_taken_are_bounded_and_leave_room_for_others() {
    let mut bench = Bench::new();
    bench.publish(b"key", b"value");
    let bytes = 40 * MIB;
    let mut proposed = Vec::new();
    let mut clients: Vec<_> = (0..12).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.put(b"key", 1);
        client.send(&mut bench);
        proposed.extend(bench.batches());
    }
    bench.answer_at_length(&proposed, bytes);
    let (_, held) = bench.front.waiting();
    assert!(held > 7 * bytes, "{held}: there was room for some");
    let bound = OUTPUT_BYTES_PER_FRONT - OUTPUT_BYTES_KEPT + MIB;
    assert!(held < bound, "{held} bytes are held");

    let mut other = bench.connect();
    other.get(b"key", 1);
    other.take_out(b"key", b"", 2);
    other.send(&mut bench);
    assert_eq!(bench.kinds(&mut other), ["range [value]"]);
    let batches = bench.batches();
    bench.answer_at_length(&batches, 1_000);
    let answers = bench.kinds(&mut other);
    assert!(answers[0].starts_with("Txn"), "{answers:?}");

    // Whoever was told nothing else is told that, and that its write has taken place.
    let last = clients.last_mut().unwrap();
    assert_eq!(bench.kinds(last), [is(Error::ResponseTooLarge)]);
    for client in clients {
        bench.front.disconnect(client.id);
    }
    assert_eq!(bench.front.waiting(), (0, 0));
    assert_eq!(
        bench.front.take_answers_taken(),
        Some(12 * bytes + 1_000),
        "whether they were passed on or not"
    );
    assert_eq!(bench.front.take_answers_taken(), None);
}

#[test]
fn writes_whose_answers_would_not_fit_are_refused_before_they_are_proposed() {
    let mut bench = Bench::new();
    for key in [b"a1", b"a2", b"a3"] {
        bench.publish(key, &vec![b'v'; 5 * MIB]);
    }
    bench.publish(b"b", b"small");
    bench.crowd(6 * MIB);
    let (mut one, mut two) = (bench.connect(), bench.connect());
    one.take_out(b"a", b"b", 1);
    one.take_out(b"a1", b"", 2);
    one.take_out(b"b", b"c", 3);
    one.send(&mut bench);
    let batches = bench.proposed();
    assert_eq!(Bench::waiters(&batches).len(), 2, "what fits is proposed");
    assert_eq!(one.take(&mut bench), [(1, is(Error::TooManyRequests))]);
    // What is set aside for one is not there for another.
    two.take_out(b"a1", b"", 1);
    two.take_out(b"b", b"", 2);
    two.send(&mut bench);
    let others = bench.proposed();
    assert_eq!(Bench::waiters(&others).len(), 1);
    assert_eq!(two.take(&mut bench), [(1, is(Error::TooManyRequests))]);
    // And it is given back.
    bench.answer(&batches);
    bench.answer(&others);
    two.take_out(b"a1", b"", 3);
    two.send(&mut bench);
    let others = bench.proposed();
    assert_eq!(Bench::waiters(&others).len(), 1);
    bench.later(limits::REQUEST_DEADLINE_MS + 100);
    two.take_out(b"a1", b"", 4);
    two.send(&mut bench);
    assert_eq!(Bench::waiters(&bench.proposed()).len(), 1, "by time, too");
    bench.front.disconnect(two.id);
    bench.later(limits::REQUEST_DEADLINE_MS + 100);
    let mut three = bench.connect();
    three.take_out(b"a1", b"", 1);
    three.send(&mut bench);
    assert_eq!(Bench::waiters(&bench.proposed()).len(), 1);
}

#[test]
fn many_small_answers_are_proposed_together_however_many_there_are() {
    let mut bench = Bench::new();
    bench.publish(b"key", b"value");
    let mut client = bench.connect();
    let count = limits::REQUESTS_PER_CONNECTION;
    for id in 1..=count as u64 {
        client.take_out(b"key", if id % 100 == 0 { b"kez" } else { b"" }, id);
    }
    client.send(&mut bench);
    let proposed = bench.proposed();
    assert_eq!(Bench::waiters(&proposed).len(), count);
    assert!(client.take(&mut bench).is_empty(), "none is refused");
}

#[test]
fn what_the_order_actor_has_not_taken_counts_after_nobody_waits_for_it() {
    let mut bench = Bench::new();
    let mut clients: Vec<_> = (0..4).map(|_| bench.connect()).collect();
    let wave = |bench: &mut Bench, clients: &mut [Client]| {
        for client in clients.iter_mut() {
            for id in 1..=15 {
                client.take_out(&vec![b'k'; MIB], b"", id);
            }
            client.send(bench);
            while !bench.front.desk.resumable.is_empty() {
                bench.front.resume(bench.now_ns);
            }
        }
        bench.later(limits::REQUEST_DEADLINE_MS + 100);
        let answers = clients.iter_mut().flat_map(|client| bench.kinds(client));
        let refused = is(Error::TooManyRequests);
        answers.filter(|answer| *answer == refused).count()
    };
    let waves: Vec<_> = (0..5).map(|_| wave(&mut bench, &mut clients)).collect();
    assert_eq!(waves[..4], [0; 4], "240 MiB are taken");
    assert!(waves[4] > 40, "{waves:?}: so are 16 MiB more");
    // The order actor takes them, and there is room again.
    while bench.front.take_batch().is_some() {}
    assert_eq!(wave(&mut bench, &mut clients), 0);
}

#[test]
fn without_any_room_whoever_takes_nothing_is_closed_and_others_are_served() {
    let mut bench = Bench::new();
    bench.publish(b"key", &vec![b'v'; 5_000]);
    let (mut lazy, mut other) = (bench.connect(), bench.connect());
    bench.front.desk.output_bytes = OUTPUT_BYTES_PER_FRONT;
    for id in 1..=3 {
        lazy.get(b"key", id);
        lazy.send(&mut bench);
        bench.front.resume(bench.now_ns);
    }
    // The second did not fit, and its refusal brought little.
    assert_eq!(bench.front.verdict(lazy.id), Verdict::Open);
    for id in 4..=100 {
        lazy.put(b"key", id);
        lazy.send(&mut bench);
        let batches = bench.batches();
        bench.answer(&batches);
    }
    assert_eq!(bench.front.verdict(lazy.id), Verdict::Over);
    for id in 1..=3 {
        other.get(b"key", id);
        other.send(&mut bench);
        let answers = bench.kinds(&mut other);
        assert!(answers[0].starts_with("range [vvv"), "{answers:?}");
    }
}
