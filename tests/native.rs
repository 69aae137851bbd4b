//! Every key-value call against the real server, over the native protocol: through the client
//! for tokio, the one for threads, and the Python client that was written from PROTOCOL.md alone.

#[allow(
    dead_code,
    reason = "shared with the crash tests, which use more of it"
)]
#[path = "crash/server.rs"]
mod server;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quoin::api::{
    AlarmKind, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, Error,
    LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, Request, RequestOp,
    Response, SortOrder, SortTarget, TxnRequest,
};
use quoin::client::{BlockingClient, Client, ClientError, ClientOptions, LeaseLost};
use server::Server;

fn start() -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    (server, dir)
}

/// Creates a key if it is not there; deletes it, in a nested transaction, if it is.
fn toggle(key: &[u8]) -> TxnRequest<'_> {
    TxnRequest {
        compare: vec![Compare {
            key,
            range_end: b"",
            result: CompareResult::Equal,
            target: CompareTarget::Version(0),
        }],
        success: vec![
            RequestOp::Put(PutRequest {
                key,
                value: b"new",
                ..PutRequest::default()
            }),
            RequestOp::Range(RangeRequest {
                key,
                ..RangeRequest::default()
            }),
        ],
        failure: vec![RequestOp::Txn(TxnRequest {
            success: vec![RequestOp::DeleteRange(DeleteRangeRequest {
                key,
                prev_kv: true,
                ..DeleteRangeRequest::default()
            })],
            ..TxnRequest::default()
        })],
    }
}

/// The keys of `prefix`, largest value first.
fn listed(limit: i64) -> RangeRequest<'static> {
    RangeRequest {
        key: b"list/",
        range_end: b"list0",
        limit,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Value,
        ..RangeRequest::default()
    }
}

/// One script for both clients: `$call` is `await` or nothing.
macro_rules! all_calls {
    ($client:ident, $($call:tt)*) => {{
        let hello = $client.ping()$($call)*.expect("a live server");
        let status = $client.status()$($call)*.expect("a live server");
        assert_eq!(status.body, env!("CARGO_PKG_VERSION"));
        assert_eq!(status.header.member_id, hello.member_id);
        assert_ne!(hello.cluster_id, 0);

        let none = $client.get("k")$($call)*.expect("a read");
        assert_eq!(none.body, None);
        let first = $client.put("k", "one")$($call)*.expect("a write");
        assert_eq!(first.body.prev_kv, None);
        let put = PutRequest { key: b"k", value: b"two", prev_kv: true, ..PutRequest::default() };
        let second = $client.put_with(put)$($call)*.expect("a write");
        assert_eq!(second.header.revision, first.header.revision + 1);
        assert_eq!(second.body.prev_kv.expect("there was one").value, b"one");
        let pair = $client.get("k")$($call)*.expect("a read").body.expect("it exists");
        assert_eq!((pair.value.as_slice(), pair.version), (b"two".as_slice(), 2));
        assert_eq!(pair.create_revision, first.header.revision);
        assert_eq!(pair.mod_revision, second.header.revision);
        let at = RangeRequest {
            key: b"k",
            revision: first.header.revision,
            serializable: true,
            ..RangeRequest::default()
        };
        let old = $client.range(at.clone())$($call)*.expect("a read");
        assert_eq!(old.body.kvs[0].value, b"one");

        for (key, value) in [("list/a", "1"), ("list/b", "3"), ("list/c", "2")] {
            $client.put(key, value)$($call)*.expect("a write");
        }
        let list = $client.range(listed(2))$($call)*.expect("a read").body;
        let values: Vec<_> = list.kvs.iter().map(|kv| kv.value.as_slice()).collect();
        assert_eq!(values, [b"3", b"2"]);
        assert_eq!((list.count, list.more), (3, true));
        let delete = DeleteRangeRequest { key: b"list/", range_end: b"list/c", prev_kv: true };
        let deleted = $client.delete_range(delete)$($call)*.expect("a write").body;
        assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (2, 2));
        assert_eq!($client.delete("list/c")$($call)*.expect("a write").body.deleted, 1);

        let created = $client.txn(toggle(b"t"))$($call)*.expect("a write").body;
        assert!(created.succeeded);
        let Response::Range(seen) = &created.responses[1] else { panic!("a range's answer") };
        assert_eq!(seen.kvs[0].value, b"new");
        let removed = $client.txn(toggle(b"t"))$($call)*.expect("a write").body;
        assert!(!removed.succeeded);
        let Response::Txn(nested) = &removed.responses[0] else { panic!("a txn's answer") };
        let Response::DeleteRange(delete) = &nested.responses[0] else { panic!("a delete's") };
        assert_eq!(delete.prev_kvs[0].value, b"new");

        let revision = second.header.revision;
        let compact = CompactRequest { revision, physical: true };
        let header = $client.compact(compact)$($call)*.expect("an old revision");
        assert!(header.revision >= revision);
        let refused = $client.range(at)$($call)*;
        assert!(matches!(refused, Err(ClientError::Refused(Error::Compacted))), "{refused:?}");
        let refused = $client.put("", "v")$($call)*;
        assert!(matches!(refused, Err(ClientError::Refused(Error::EmptyKey))), "{refused:?}");
        let leased = PutRequest { key: b"k", lease: 5, ..PutRequest::default() };
        let refused = $client.put_with(leased)$($call)*;
        assert!(matches!(refused, Err(ClientError::Refused(Error::LeaseNotFound))), "{refused:?}");

        let lease = $client.lease_grant(0)$($call)*.expect("a grant").body;
        assert!(lease.id > 0);
        assert_eq!(lease.ttl, 2, "the least with the usual time-outs");
        let other = LeaseGrantRequest { ttl: 500, id: 77 };
        $client.lease_grant_with(other)$($call)*.expect("a grant");
        let refused = $client.lease_grant_with(other)$($call)*;
        assert!(matches!(refused, Err(ClientError::Refused(Error::LeaseExists))), "{refused:?}");
        let listed = $client.leases()$($call)*.expect("a list").body;
        assert_eq!(listed, [lease.id, 77]);
        for (key, id) in [("on/a", lease.id), ("on/b", lease.id), ("on/c", 77)] {
            let put = PutRequest { key: key.as_bytes(), lease: id, ..PutRequest::default() };
            $client.put_with(put)$($call)*.expect("a write");
        }
        let ask = |id| LeaseTimeToLiveRequest { id, keys: true, ..Default::default() };
        let left = $client.lease_time_to_live(ask(77))$($call)*.expect("an answer").body;
        assert!((490..=500).contains(&left.ttl), "{}", left.ttl);
        assert_eq!((left.granted_ttl, left.keys), (500, vec![b"on/c".to_vec()]));
        let kept = $client.lease_keep_alive(lease.id)$($call)*.expect("an answer").body;
        assert_eq!((kept.id, kept.ttl), (lease.id, 2));
        let renewed = Instant::now();
        let before = $client.ping()$($call)*.expect("a live server").revision;
        let all = RangeRequest { key: b"on/", range_end: b"on0", ..RangeRequest::default() };
        loop {
            let answer = $client.range(all.clone())$($call)*.expect("a read");
            let since = renewed.elapsed();
            if answer.body.count == 1 {
                assert!(since >= Duration::from_millis(1990), "early, after {since:?}");
                assert_eq!(answer.header.revision, before + 1, "both keys in one revision");
                break;
            }
            assert_eq!(answer.body.count, 3);
            assert!(since < Duration::from_secs(20), "it never expires");
            thread::sleep(Duration::from_millis(20));
        }
        let kept = $client.lease_keep_alive(lease.id)$($call)*.expect("an answer").body;
        assert_eq!(kept.ttl, 0);
        let gone = $client.lease_time_to_live(ask(lease.id))$($call)*.expect("an answer").body;
        assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
        $client.lease_revoke(77)$($call)*.expect("a revocation");
        let refused = $client.lease_revoke(77)$($call)*;
        assert!(matches!(refused, Err(ClientError::Refused(Error::LeaseNotFound))), "{refused:?}");
        assert_eq!($client.range(all)$($call)*.expect("a read").body.count, 0);

        let long = vec![7; 1 << 20];
        $client.put(&long, &long[..100_000])$($call)*.expect("keys may be long");
        let pair = $client.get(&long)$($call)*.expect("a read").body.expect("it exists");
        assert_eq!((pair.key, pair.value.len()), (long, 100_000));
    }};
}

#[test]
fn every_call_through_the_blocking_client() {
    let (server, _dir) = start();
    let client = BlockingClient::new([server.address.to_string()], ClientOptions::default());
    all_calls!(client,);

    thread::scope(|scope| {
        for number in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..100 {
                    let key = format!("many/{number}/{round}");
                    client.put(&key, &key).expect("a write");
                }
            });
        }
    });
    let keys: Vec<_> = (0..1000)
        .map(|number| format!("pipelined/{number}"))
        .collect();
    let submitted: Vec<_> = keys
        .iter()
        .map(|key| {
            let key = key.as_bytes();
            let put = PutRequest {
                key,
                value: key,
                ..PutRequest::default()
            };
            client
                .submit(&Request::Put(put))
                .expect("there is room in time")
        })
        .collect();
    let lease = client.lease_grant(2).expect("a grant").body.id;
    let keeper = client.keep_lease(lease).expect("it is there");
    assert!(keeper.lost(Duration::from_millis(4500)).is_none());
    assert_eq!(client.leases().expect("a list").body, [lease]);
    drop(keeper);
    let begun = Instant::now();
    while !client.leases().expect("a list").body.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody keeps it");
        thread::sleep(Duration::from_millis(50));
    }
    let lease = client.lease_grant(2).expect("a grant").body.id;
    let keeper = client.keep_lease(lease).expect("it is there");

    let mut revisions: Vec<_> = submitted
        .into_iter()
        .map(|one| one.wait().expect("a write").header.revision)
        .collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(
        revisions.len(),
        1000,
        "each write has a revision of its own"
    );
    let all = RangeRequest {
        key: b"m",
        range_end: b"q",
        count_only: true,
        ..RangeRequest::default()
    };
    assert_eq!(client.range(all).expect("a read").body.count, 1400);

    // Without a server, the holder learns in time that it can rely on nothing.
    server.kill();
    let lost = keeper.lost(Duration::from_secs(20));
    assert!(
        matches!(lost, Some(LeaseLost::Unconfirmed { .. })),
        "{lost:?}"
    );
}

fn error_of(error: ClientError) -> Error {
    match error {
        ClientError::Refused(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn every_call_through_the_client_for_tokio() {
    let (server, dir) = start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let options = ClientOptions {
        connections: 3,
        ..ClientOptions::default()
    };
    // The endpoint stays the same over the restart below.
    let address = server.address;
    let client = Client::new([format!("http://{address}")], options);
    runtime.expect("a runtime").block_on(async {
        all_calls!(client, .await);

        let tasks: Vec<_> = (0..1000)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.put(format!("many/{number}"), "v").await })
            })
            .collect();
        let mut revisions = Vec::new();
        for task in tasks {
            let answer = task.await.expect("no panic").expect("a write");
            revisions.push(answer.header.revision);
        }
        let last = revisions[revisions.len() - 1];
        revisions.sort_unstable();
        revisions.dedup();
        assert_eq!(
            revisions.len(),
            1000,
            "each write has a revision of its own"
        );

        // A lease outlives its time while it is kept, and ends when it is not.
        let lease = client.lease_grant(2).await.expect("a grant").body.id;
        let keeper = client.keep_lease(lease).await.expect("it is there");
        tokio::time::sleep(Duration::from_millis(4500)).await;
        assert!(keeper.is_lost().is_none());
        assert_eq!(client.leases().await.expect("a list").body, [lease]);
        client.lease_revoke(lease).await.expect("a revocation");
        let lost = tokio::time::timeout(Duration::from_secs(20), keeper.lost()).await;
        assert!(matches!(lost, Ok(LeaseLost::Gone)), "{lost:?}");
        let unknown = client.keep_lease(lease).await;
        let refused = Err(Error::LeaseNotFound);
        assert_eq!(unknown.map(|_| ()).map_err(error_of), refused);

        // A server that comes back is found again, with all that it acknowledged.
        server.kill();
        let url = format!("http://{address}");
        let data = dir.path().join("data");
        let again =
            thread::spawn(move || Server::start_with(&data, &["--listen-client-urls", &url]));
        let answer = client
            .get("many/999")
            .await
            .expect("the client waits for the server");
        assert_eq!(answer.body.expect("acknowledged").mod_revision, last);
        drop(again.join().expect("it serves"));
    });
}

/// Writes until the server says that it is full; returns how often it took a write.
fn fill(client: &BlockingClient) -> usize {
    for number in 0..1000 {
        match client.put(format!("fill/{}", number % 10), [7; 1000]) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error_of(error), Error::NoSpace);
                return number;
            }
        }
    }
    panic!("it is never full");
}

#[test]
fn a_full_store_stays_closed_to_what_adds_until_the_alarm_is_taken_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let flags = ["--quota-backend-bytes", "200000"];
    let server = Server::start_with(&data, &flags);
    let client = BlockingClient::new([server.address.to_string()], ClientOptions::default());
    let lease = client.lease_grant(500).expect("there is room").body.id;
    let written = fill(&client);
    assert!((100..200).contains(&written), "{written}");
    let begun = Instant::now();
    while client.alarms().expect("an answer").body.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no alarm");
    }
    server.kill();

    let server = Server::start_with(&data, &flags);
    let client = BlockingClient::new([server.address.to_string()], ClientOptions::default());
    let alarms = client.alarms().expect("an answer");
    let alarm = alarms.body[0];
    assert_eq!((alarms.body.len(), alarm.kind), (1, AlarmKind::NoSpace));
    assert_eq!(alarm.member_id, alarms.header.member_id);
    let grant = client.lease_grant(500);
    assert_eq!(grant.map(|_| ()).map_err(error_of), Err(Error::NoSpace));
    assert_eq!(
        client.lease_keep_alive(lease).expect("an answer").body.ttl,
        500
    );
    let delete = DeleteRangeRequest {
        key: b"fill/",
        range_end: b"fill0",
        prev_kv: false,
    };
    let deleted = client.delete_range(delete).expect("deletes go on");
    let compact = CompactRequest {
        revision: deleted.header.revision,
        physical: true,
    };
    client.compact(compact).expect("compaction goes on");
    // There is room now, and still the alarm decides.
    let put = client.put("k", "v").map(|_| ());
    assert_eq!(put.map_err(error_of), Err(Error::NoSpace));
    assert!(client.disarm(alarm).expect("an answer").body);
    assert!(!client.disarm(alarm).expect("an answer").body);
    client.put("k", "v").expect("there is room");
    assert!(fill(&client) > 100);
}

#[test]
fn the_python_client_agrees() {
    let Ok(version) = Command::new("python3").arg("--version").output() else {
        // Nothing else here needs Python; whoever has none is told what was left out.
        println!("NOT RUN: there is no python3 on this machine");
        return;
    };
    assert!(version.status.success());
    let (server, _dir) = start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/test_protocol.py");
    let output = Command::new("python3")
        .args(["-B", script])
        .env("QUOIN_ADDRESS", server.address.to_string())
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("OK") && !said.contains("skipped"), "{said}");
}
