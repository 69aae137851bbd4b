//! Kill -9 with leases: acknowledged grants, keys and revocations are there after each restart,
//! and what nobody renews ends.

use crate::server::Server;
use quoin::api::{LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest};
use quoin::client::{BlockingClient, ClientOptions};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

fn client(server: &Server) -> BlockingClient {
    BlockingClient::new([server.address.to_string()], ClientOptions::default())
}

fn put(client: &BlockingClient, key: &str, lease: i64) {
    let put = PutRequest {
        key: key.as_bytes(),
        lease,
        ..PutRequest::default()
    };
    client.put_with(put).expect("a write");
}

#[test]
fn leases_survive_what_kills_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    // Id -> its keys, as acknowledged.
    let mut leases: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    for round in 0..4 {
        let server = Server::start(&data);
        let client = client(&server);
        let mut listed = client.leases().expect("a list").body;
        listed.sort_unstable();
        assert_eq!(listed, leases.keys().copied().collect::<Vec<_>>());
        for (id, keys) in &leases {
            let ask = LeaseTimeToLiveRequest {
                id: *id,
                keys: true,
                ..Default::default()
            };
            let left = client.lease_time_to_live(ask).expect("an answer").body;
            assert!((500..=600).contains(&left.ttl), "{left:?}");
            assert_eq!((left.granted_ttl, &left.keys), (600, keys));
        }
        for number in 0..20 {
            let id = 1 + round * 100 + number;
            let grant = LeaseGrantRequest { ttl: 600, id };
            client.lease_grant_with(grant).expect("a grant");
            let names: Vec<_> = (0..number % 4).map(|n| format!("{id:04}/{n}")).collect();
            for name in &names {
                put(&client, name, id);
            }
            leases.insert(id, names.into_iter().map(String::into_bytes).collect());
        }
        let revoked = 1 + round * 100 + 7;
        client.lease_revoke(revoked).expect("a revocation");
        leases.remove(&revoked);
        let moved = 1 + round * 100 + 11;
        put(&client, &format!("{moved:04}/0"), 0);
        leases.get_mut(&moved).expect("granted above").remove(0);
        // Short, and over while the server is down, if time went on.
        let short = client.lease_grant(2).expect("a grant").body.id;
        put(&client, &format!("short/{round}"), short);
        server.kill();
        thread::sleep(Duration::from_millis(300));

        let server = Server::start(&data);
        let client = self::client(&server);
        let begun = Instant::now();
        let all = RangeRequest {
            key: b"short/",
            range_end: b"short0",
            ..RangeRequest::default()
        };
        while client.range(all.clone()).expect("a read").body.count > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never ends");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(begun.elapsed() >= Duration::from_millis(1500), "too early");
        server.kill();
    }
}

#[test]
fn a_process_that_is_paused_takes_renewals_before_it_ends_leases() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    let client = client(&server);
    for id in [1, 2] {
        let grant = LeaseGrantRequest { ttl: 3, id };
        client.lease_grant_with(grant).expect("a grant");
        put(&client, &format!("{id}"), id);
    }
    let there = || [b"1", b"2"].map(|key| client.get(key).expect("a read").body.is_some());
    server.signal(libc::SIGSTOP);
    let renewed = thread::scope(|scope| {
        let asked = scope.spawn(|| client.lease_keep_alive(1).expect("an answer").body.ttl);
        // Longer than both leases.
        thread::sleep(Duration::from_secs(4));
        server.signal(libc::SIGCONT);
        asked.join().expect("no panic")
    });
    let begun = Instant::now();
    assert_eq!(renewed, 3);
    while there()[1] {
        assert!(begun.elapsed() < Duration::from_secs(2), "it never ends");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(there()[0], "it was renewed");
    while there()[0] {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never ends");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "too early");
}
