//! Watches against the real server, through both clients: what they tell, and that nothing is
//! missed or told twice when the server is killed under load and comes back.

#[allow(
    dead_code,
    reason = "shared with the crash tests, which use more of it"
)]
#[path = "crash/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quoin::api::{CompactRequest, DeleteRangeRequest, EventKind, OwnedEvent, WatchCreate};
use quoin::client::{
    BlockingClient, BlockingWatchStream, Client, ClientOptions, WatchEnd, WatchNews,
};
use server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

fn client(address: SocketAddr) -> BlockingClient {
    let options = ClientOptions {
        deadline: Duration::from_secs(2),
        backoff_max: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    BlockingClient::new([address.to_string()], options)
}

fn next(stream: &mut BlockingWatchStream) -> WatchNews {
    let news = stream.next(PATIENCE).expect("a live server");
    news.expect("it has something to tell")
}

fn events(news: WatchNews) -> Vec<OwnedEvent> {
    match news {
        WatchNews::Events { events, .. } => events,
        other => panic!("{other:?}"),
    }
}

fn all(start_revision: i64) -> WatchCreate<'static> {
    WatchCreate {
        key: b"",
        range_end: b"\0",
        start_revision,
        ..WatchCreate::default()
    }
}

#[test]
fn a_watch_tells_of_changes_and_ends_for_a_reason() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    let client = client(server.address);
    let first = client.put("a", "1").expect("a write").header.revision;
    let mut stream = client.watch_stream();
    let watch = stream.watch(&WatchCreate {
        prev_kv: true,
        ..all(0)
    });
    let created = WatchNews::Created {
        watch,
        revision: first,
    };
    assert_eq!(next(&mut stream), created);
    client.put("a", "2").expect("a write");
    let told = events(next(&mut stream));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kv.value, b"2");
    assert_eq!(told[0].prev_kv.as_ref().expect("asked for").value, b"1");
    let delete = DeleteRangeRequest {
        key: b"a",
        ..DeleteRangeRequest::default()
    };
    let deleted = client.delete_range(delete).expect("a write").header;
    let told = events(next(&mut stream));
    assert_eq!(told[0].kind, EventKind::Delete);
    assert_eq!(told[0].kv.mod_revision, deleted.revision);
    assert_eq!(told[0].prev_kv.as_ref().expect("asked for").value, b"2");

    stream.ask_progress();
    let WatchNews::Progress { watches, revision } = next(&mut stream) else {
        panic!("progress was asked for")
    };
    assert_eq!((watches, revision), (vec![watch], deleted.revision));
    stream.cancel(watch);
    let why = WatchEnd::Cancelled;
    assert_eq!(next(&mut stream), WatchNews::Ended { watch, why });
    client.put("a", "3").expect("a write");

    let compact = CompactRequest {
        revision: deleted.revision,
        physical: true,
    };
    client.compact(compact).expect("a compaction");
    let past = stream.watch(&all(first));
    let readable = stream.watch(&all(deleted.revision));
    let refused = stream.watch(&WatchCreate {
        key: b"b",
        range_end: b"a",
        ..WatchCreate::default()
    });
    let mut heard = BTreeMap::new();
    let mut told = Vec::new();
    while heard.len() < 2 || told.len() < 2 {
        match next(&mut stream) {
            WatchNews::Ended { watch, why } => {
                heard.insert(watch, why);
            }
            WatchNews::Events { watches, events } => {
                assert_eq!(watches, [readable]);
                told.extend(events);
            }
            WatchNews::Created { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let revision = deleted.revision;
    assert_eq!(heard[&past], WatchEnd::Compacted { revision });
    let reason = "mvcc: watcher range is empty".to_owned();
    assert_eq!(heard[&refused], WatchEnd::Refused { reason });
    assert_eq!(told[0].kind, EventKind::Delete, "kept for who begins there");
    assert_eq!(told[1].kv.value, b"3");
}

#[test]
fn a_slow_consumer_holds_back_nobody_and_misses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    let client = client(server.address);
    let mut slow = client.watch_stream();
    slow.watch(&all(0));
    let WatchNews::Created { revision, .. } = next(&mut slow) else {
        panic!("created first")
    };
    let value = vec![b'v'; 20_000];
    for number in 0..1_000u32 {
        client.put(number.to_string(), &value).expect("a write");
    }
    let mut told = Vec::new();
    while told.len() < 1_000 {
        told.extend(events(next(&mut slow)));
    }
    for (at, event) in (1i64..).zip(&told) {
        assert_eq!(event.kv.mod_revision, revision + at);
    }
    let quiet = slow.next(Duration::from_millis(50)).expect("a live server");
    assert_eq!(quiet, None);
}

#[test]
fn the_stream_for_tokio_may_be_dropped_at_any_await() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let client = Client::new([server.address.to_string()], ClientOptions::default());
    runtime.expect("a runtime").block_on(async {
        let mut stream = client.watch_stream();
        let watch = stream.watch(&all(0));
        let writer = {
            let client = client.clone();
            async move {
                for number in 0..200u32 {
                    client.put(number.to_string(), "v").await.expect("a write");
                }
            }
        };
        let mut told = Vec::new();
        match stream.next().await.expect("a live server") {
            WatchNews::Created { watch: created, .. } => assert_eq!(created, watch),
            other => panic!("{other:?}"),
        }
        let writer = tokio::spawn(writer);
        while told.len() < 200 {
            // Given up again and again.
            let soon = Duration::from_micros(200);
            if let Ok(news) = tokio::time::timeout(soon, stream.next()).await {
                told.extend(events(news.expect("a live server")));
            }
        }
        writer.await.expect("no panic");
        let revisions: Vec<_> = told.iter().map(|event| event.kv.mod_revision).collect();
        let first = revisions[0];
        assert_eq!(revisions, (first..first + 200).collect::<Vec<_>>());
    });
}

/// Writes until told to stop; returns what was acknowledged, by revision.
fn write(client: &BlockingClient, stop: &AtomicBool) -> BTreeMap<i64, String> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key/{}", number % 50);
        let value = number.to_string();
        number += 1;
        if let Ok(answer) = client.put(&key, &value) {
            acknowledged.insert(answer.header.revision, value);
        }
    }
    acknowledged
}

/// Follows until the event that puts `last`.
fn follow(mut stream: BlockingWatchStream, start: i64, last: &str) -> Vec<OwnedEvent> {
    stream.watch(&WatchCreate {
        prev_kv: true,
        ..all(start)
    });
    let mut told = Vec::new();
    let give_up = Instant::now() + 3 * PATIENCE;
    while Instant::now() < give_up {
        match stream.next(Duration::from_millis(200)) {
            Ok(Some(WatchNews::Events { events, .. })) => told.extend(events),
            Ok(Some(WatchNews::Ended { why, .. })) => panic!("{why:?}"),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
        if told
            .last()
            .is_some_and(|event| event.kv.key == last.as_bytes())
        {
            return told;
        }
    }
    panic!("the watch never heard of the last event");
}

fn restart(server: Server, data: &Path, flags: &[&str]) -> Server {
    server.kill();
    Server::start_with(data, flags)
}

#[test]
fn a_watch_goes_on_over_kills_without_gap_or_double() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    let address = server.address;
    let url = format!("http://{address}");
    let flags = ["--listen-client-urls", &url];
    let stop = AtomicBool::new(false);
    let (_server, acknowledged, followed) = thread::scope(|scope| {
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let stream = client(address).watch_stream();
                scope.spawn(move || follow(stream, 2, "last"))
            })
            .collect();
        let writer = client(address);
        let stop = &stop;
        let writer = scope.spawn(move || write(&writer, stop));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(700));
            server = restart(server, &data, &flags);
        }
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writer.join().expect("no panic");
        let last = client(address);
        while last.put("last", "").is_err() {}
        let followed = followers.into_iter();
        let followed: Vec<_> = followed.map(|one| one.join().expect("no panic")).collect();
        (server, acknowledged, followed)
    });
    // The history as it is now, read once more from its beginning.
    let history = follow(client(address).watch_stream(), 2, "last");
    let revisions: Vec<_> = history.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!(revisions, (2..2 + history.len() as i64).collect::<Vec<_>>());
    for told in followed {
        assert_eq!(told.len(), history.len());
        assert!(told == history, "told what happened, in order, once");
    }
    assert!(acknowledged.len() > 100, "{} writes", acknowledged.len());
    for (revision, value) in acknowledged {
        let event = &history[revision as usize - 2];
        assert_eq!(event.kv.value, value.as_bytes());
    }
    let mut live: BTreeMap<&[u8], &OwnedEvent> = BTreeMap::new();
    for event in &history {
        let before = live.insert(&event.kv.key, event);
        let before = before.map(|before| before.kv.clone());
        assert_eq!(event.prev_kv, before, "the pair before is right");
    }
}
