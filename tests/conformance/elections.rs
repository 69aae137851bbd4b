//! Locks and elections over gRPC: names, order, texts, and clients that give up, as in etcd.

use super::raw::{
    self, RANGE, call, connect, field, finished, framed, get, number, open, request, run,
};
use super::start;
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use quoin::etcd::pb::{Fields, Value};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";

type Client = SendRequest<Bytes>;

/// The last value of a field that holds bytes.
fn bytes_of(message: &[u8], wanted: u32) -> Vec<u8> {
    let mut found = Vec::new();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field().expect("a message") {
        if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
            found = bytes.to_vec();
        }
    }
    found
}

/// The last value of a field that holds a number.
fn number_of(message: &[u8], wanted: u32) -> i64 {
    let mut found = 0;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field().expect("a message") {
        if let (true, Value::Varint(value)) = (number == wanted, value) {
            found = value as i64;
        }
    }
    found
}

/// The message of an answer that is well.
fn well(answer: &raw::Answer) -> Vec<u8> {
    assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
    answer.bytes[5..].to_vec()
}

/// The revision in the header of an answer.
fn revision_of(message: &[u8]) -> i64 {
    number_of(&bytes_of(message, 1), 3)
}

fn refused(answer: &raw::Answer, text: &str) {
    let told = (answer.status.as_deref(), answer.message.as_deref());
    assert_eq!(told, (Some("2"), Some(text)));
}

async fn grant(client: &Client, lease: i64) {
    let message = framed(&[number(1, 600), number(2, lease as u64)].concat());
    well(&call(client, GRANT, message).await);
}

fn named(name: &[u8], lease: i64) -> Vec<u8> {
    [field(1, name), number(2, lease as u64)].concat()
}

async fn ask(client: &Client, path: &str, message: &[u8]) -> raw::Answer {
    call(client, path, framed(message)).await
}

/// Begins a call and does not wait for its answer; what is returned second keeps it open.
async fn begin(client: &Client, path: &str, message: &[u8]) -> (ResponseFuture, SendStream<Bytes>) {
    let (response, mut stream) = open(client, request(path)).await;
    stream
        .send_data(framed(message).into(), true)
        .expect("open");
    (response, stream)
}

/// The keys under `name/`, oldest first.
async fn keys(client: &Client, name: &str) -> Vec<String> {
    let interval = [
        field(1, format!("{name}/").as_bytes()),
        field(2, format!("{name}0").as_bytes()),
        number(5, 1),
        number(6, 2),
    ];
    let found = well(&ask(client, RANGE, &interval.concat()).await);
    let mut keys = Vec::new();
    let mut fields = Fields::of(&found);
    while let Some((number, value)) = fields.field().expect("a message") {
        if let (2, Value::Bytes(pair)) = (number, value) {
            keys.push(String::from_utf8(bytes_of(pair, 1)).expect("text"));
        }
    }
    keys
}

/// Waits until the keys under a name are these.
async fn until_keys(client: &Client, name: &str, expected: &[&str]) {
    while keys(client, name).await != expected {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_lock_is_held_by_one_and_passed_on_in_order() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for lease in [100, -255, 7] {
            grant(&client, lease).await;
        }
        let answer = well(&ask(&client, LOCK, &named(b"lock", 100)).await);
        assert_eq!(bytes_of(&answer, 2), b"lock/64");
        assert_eq!(revision_of(&answer), 2);
        // Whoever holds it takes it again.
        let again = well(&ask(&client, LOCK, &named(b"lock", 100)).await);
        assert_eq!(
            (bytes_of(&again, 2), revision_of(&again)),
            (b"lock/64".to_vec(), 2)
        );

        let (second, _keep) = begin(&client, LOCK, &named(b"lock", -255)).await;
        until_keys(&client, "lock", &["lock/64", "lock/-ff"]).await;
        let (third, _keep) = begin(&client, LOCK, &named(b"lock", 7)).await;
        until_keys(&client, "lock", &["lock/64", "lock/-ff", "lock/7"]).await;
        well(&ask(&client, UNLOCK, &field(1, b"lock/64")).await);
        let second = well(&finished(second).await);
        assert_eq!(bytes_of(&second, 2), b"lock/-ff");
        assert_eq!(
            revision_of(&second),
            5,
            "the state that it was found free in"
        );
        // What holds a lock may also end with its lease.
        well(&ask(&client, REVOKE, &number(1, -255i64 as u64)).await);
        assert_eq!(bytes_of(&well(&finished(third).await), 2), b"lock/7");

        let missing = ask(&client, UNLOCK, &field(1, b"lock/64")).await;
        assert_eq!(revision_of(&well(&missing)), 6);
        refused(
            &ask(&client, UNLOCK, b"").await,
            "etcdserver: key is not provided",
        );
        let unknown = ask(&client, LOCK, &named(b"lock", 77)).await;
        refused(&unknown, "etcdserver: requested lease not found");
        let granted = well(&ask(&client, LOCK, &field(1, b"other")).await);
        let key = bytes_of(&granted, 2);
        let lease = std::str::from_utf8(&key[6..]).expect("text");
        let lease = i64::from_str_radix(lease, 16).expect("a lease");
        let left = number(1, lease as u64);
        let left = ask(&client, "/etcdserverpb.Lease/LeaseTimeToLive", &left).await;
        assert_eq!(number_of(&well(&left), 4), 60);
    });
}

#[test]
fn whoever_gives_up_waiting_leaves_the_queue() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let (other, task) = connect(server.address, &Builder::new()).await;
        for lease in 1..=5 {
            grant(&client, lease).await;
        }
        well(&ask(&client, LOCK, &named(b"l", 1)).await);
        let (_second, mut stream) = begin(&client, LOCK, &named(b"l", 2)).await;
        until_keys(&client, "l", &["l/1", "l/2"]).await;
        let (_third, _keep) = begin(&other, LOCK, &named(b"l", 3)).await;
        until_keys(&client, "l", &["l/1", "l/2", "l/3"]).await;
        let (fourth, _keep) = begin(&client, LOCK, &named(b"l", 4)).await;
        until_keys(&client, "l", &["l/1", "l/2", "l/3", "l/4"]).await;
        // One resets its stream, one's connection goes.
        stream.send_reset(h2::Reason::CANCEL);
        until_keys(&client, "l", &["l/1", "l/3", "l/4"]).await;
        task.abort();
        until_keys(&client, "l", &["l/1", "l/4"]).await;
        well(&ask(&client, UNLOCK, &field(1, b"l/1")).await);
        assert_eq!(bytes_of(&well(&finished(fourth).await), 2), b"l/4");

        // One whose lease ends while it waits is told so when its turn has come.
        let (fifth, _keep) = begin(&client, LOCK, &named(b"l", 5)).await;
        until_keys(&client, "l", &["l/4", "l/5"]).await;
        well(&ask(&client, REVOKE, &number(1, 5)).await);
        well(&ask(&client, UNLOCK, &field(1, b"l/4")).await);
        refused(&finished(fifth).await, "mutex: session is expired");
        until_keys(&client, "l", &[]).await;
    });
}

#[test]
fn whoever_waits_longer_than_its_time_leaves_the_queue() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for lease in 1..=4 {
            grant(&client, lease).await;
        }
        let timed = async |path: &str, message: &[u8]| {
            let request = request(path).header("grpc-timeout", "1S");
            raw::ask(&client, request, framed(message)).await
        };
        let over = |answer: &raw::Answer| {
            let told = (answer.status.as_deref(), answer.message.as_deref());
            assert_eq!(told, (Some("4"), Some("context deadline exceeded")));
        };
        well(&timed(LOCK, &named(b"l", 1)).await);
        let (third, _keep) = begin(&client, LOCK, &named(b"l", 3)).await;
        until_keys(&client, "l", &["l/1", "l/3"]).await;
        over(&timed(LOCK, &named(b"l", 2)).await);
        until_keys(&client, "l", &["l/1", "l/3"]).await;
        well(&timed(CAMPAIGN, &campaign(1, b"v")).await);
        over(&timed(CAMPAIGN, &campaign(4, b"v")).await);
        until_keys(&client, "e", &["e/1"]).await;
        over(&timed(OBSERVE, &field(1, b"nobody")).await);
        well(&ask(&client, UNLOCK, &field(1, b"l/1")).await);
        assert_eq!(bytes_of(&well(&finished(third).await), 2), b"l/3");
    });
}

#[test]
fn many_wait_for_a_lock_and_each_gets_it_once() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let mut waiting = Vec::new();
        for lease in 1..=300 {
            grant(&client, lease).await;
            waiting.push(begin(&client, LOCK, &named(b"l", lease)).await);
        }
        while keys(&client, "l").await.len() < 300 {
            tokio::task::yield_now().await;
        }
        let mut last = 0;
        for (lease, (response, _keep)) in (1..).zip(waiting) {
            let answer = well(&finished(response).await);
            assert_eq!(bytes_of(&answer, 2), format!("l/{lease:x}").as_bytes());
            assert!(revision_of(&answer) > last);
            last = revision_of(&answer);
            assert_eq!(keys(&client, "l").await.len(), 301 - lease);
            well(&ask(&client, UNLOCK, &bytes_of(&answer, 2).as_field()).await);
        }
    });
}

trait AsField {
    fn as_field(&self) -> Vec<u8>;
}

impl AsField for Vec<u8> {
    fn as_field(&self) -> Vec<u8> {
        field(1, self)
    }
}

fn campaign(lease: i64, value: &[u8]) -> Vec<u8> {
    [named(b"e", lease), field(3, value)].concat()
}

/// The next message of an observer: the header's revision, the leader's key and value.
async fn observed(body: &mut RecvStream) -> (i64, String) {
    let chunk = body.data().await.expect("it goes on").expect("open");
    let _ = body.flow_control().release_capacity(chunk.len());
    let message = &chunk[5..];
    let pair = bytes_of(message, 2);
    let text = |number| String::from_utf8(bytes_of(&pair, number)).expect("text");
    (revision_of(message), format!("{}={}", text(1), text(5)))
}

#[test]
fn an_election_has_one_leader_who_may_proclaim_and_resign() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        grant(&client, 100).await;
        grant(&client, 101).await;
        refused(
            &ask(&client, LEADER, &field(1, b"e")).await,
            "election: no leader",
        );
        let (response, _keep) = begin(&client, OBSERVE, &field(1, b"e")).await;
        let won = well(&ask(&client, CAMPAIGN, &campaign(100, b"v")).await);
        assert_eq!(revision_of(&won), 2);
        let leader = bytes_of(&won, 2);
        let expected = [
            field(1, b"e"),
            field(2, b"e/64"),
            number(3, 2),
            number(4, 100),
        ];
        assert_eq!(leader, expected.concat());
        let mut observer = response.await.expect("headers").into_body();
        assert_eq!(observed(&mut observer).await, (2, "e/64=v".to_owned()));

        // The leader's campaign is over at once, and says what it says.
        let again = well(&ask(&client, CAMPAIGN, &campaign(100, b"w")).await);
        assert_eq!(
            (revision_of(&again), bytes_of(&again, 2)),
            (2, leader.clone())
        );
        assert_eq!(observed(&mut observer).await, (3, "e/64=w".to_owned()));
        let (second, _keep) = begin(&client, CAMPAIGN, &campaign(101, b"x")).await;
        until_keys(&client, "e", &["e/64", "e/65"]).await;
        let proclaim = [field(1, &leader), field(2, b"y")].concat();
        assert_eq!(
            revision_of(&well(&ask(&client, PROCLAIM, &proclaim).await)),
            5
        );
        assert_eq!(observed(&mut observer).await, (5, "e/64=y".to_owned()));
        let told = well(&ask(&client, LEADER, &field(1, b"e")).await);
        assert_eq!(bytes_of(&bytes_of(&told, 2), 5), b"y");

        let wrong = [
            field(1, b"e"),
            field(2, b"e/64"),
            number(3, 1),
            number(4, 100),
        ]
        .concat();
        let proclaim = [field(1, &wrong), field(2, b"z")].concat();
        refused(
            &ask(&client, PROCLAIM, &proclaim).await,
            "election: not leader",
        );
        assert_eq!(
            revision_of(&well(&ask(&client, RESIGN, &field(1, &wrong)).await)),
            5
        );
        for path in [PROCLAIM, RESIGN] {
            refused(
                &ask(&client, path, b"").await,
                "\"leader\" field must be provided",
            );
        }
        refused(
            &ask(&client, RESIGN, &field(1, b"")).await,
            "etcdserver: key is not provided",
        );
        assert_eq!(
            revision_of(&well(&ask(&client, RESIGN, &field(1, &leader)).await)),
            6
        );
        let second = well(&finished(second).await);
        assert_eq!(revision_of(&second), 4, "that of its key");
        assert_eq!(bytes_of(&bytes_of(&second, 2), 2), b"e/65");
        assert_eq!(observed(&mut observer).await, (6, "e/65=x".to_owned()));
        let unknown = ask(&client, CAMPAIGN, &campaign(5, b"v")).await;
        refused(&unknown, "etcdserver: requested lease not found");

        // Whoever gives up is out of the race.
        grant(&client, 102).await;
        let (_third, mut stream) = begin(&client, CAMPAIGN, &campaign(102, b"z")).await;
        until_keys(&client, "e", &["e/65", "e/66"]).await;
        stream.send_reset(h2::Reason::CANCEL);
        until_keys(&client, "e", &["e/65"]).await;
        let own = well(&call(&client, RANGE, get(b"e/66")).await);
        assert_eq!(number_of(&own, 4), 0, "no such key");
    });
}

#[test]
fn a_stop_does_not_wait_for_locks() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        grant(&client, 1).await;
        grant(&client, 2).await;
        well(&ask(&client, LOCK, &named(b"l", 1)).await);
        let (response, _keep) = begin(&client, LOCK, &named(b"l", 2)).await;
        until_keys(&client, "l", &["l/1", "l/2"]).await;
        let stop = tokio::task::spawn_blocking(|| server.terminate());
        let answer = finished(response).await;
        assert_eq!(
            answer.message.as_deref(),
            Some("etcdserver: server stopped")
        );
        let (status, _) = stop.await.expect("it stops");
        assert!(status.success());
    });
}
