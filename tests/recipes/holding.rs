//! What is held: locks, leaderships, permits.

use crate::world::{World, run, sleep};
use quoin::api::{PutRequest, RequestOp, TxnRequest};
use quoin::client::recipes::{BlockingRecipes, Election, Lock, LockGuard, RecipeError, Semaphore};
use quoin::client::{Client, ClientOptions, LeaseLost};
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Writes only while the lock is held, as the store sees it; says whether it took place.
async fn fenced(client: &Client, guard: &LockGuard, value: &str) -> bool {
    let put = PutRequest {
        key: b"guarded",
        value: value.as_bytes(),
        ..PutRequest::default()
    };
    let txn = TxnRequest {
        compare: vec![guard.held()],
        success: vec![RequestOp::Put(put)],
        failure: Vec::new(),
    };
    let answer = client.txn(txn).await.expect("a live server");
    answer.body.succeeded
}

/// The lease in a key's name.
fn lease(key: &[u8]) -> i64 {
    let text = std::str::from_utf8(key).expect("text");
    let (_, number) = text.rsplit_once('/').expect("a slash");
    i64::from_str_radix(number, 16).expect("a number")
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(20), work).await;
    done.expect("it happens soon")
}

#[test]
fn a_lock_has_one_holder_at_a_time_whatever_happens_to_connections_and_server() {
    let mut world = World::new();
    let inside = Arc::new(AtomicU64::new(0));
    let highest = Arc::new(AtomicI64::new(0));
    run(async {
        let stop = Arc::new(tokio::sync::Notify::new());
        let mut holders = Vec::new();
        for _ in 0..4 {
            let lock = Lock::new(&world.client(), "locks/one", 20);
            let (inside, highest, stop) = (inside.clone(), highest.clone(), stop.clone());
            holders.push(tokio::spawn(async move {
                let mut rounds = 0;
                let stopped = stop.notified();
                tokio::pin!(stopped);
                loop {
                    let guard = tokio::select! {
                        guard = lock.acquire() => guard.expect("the lease outlives the trouble"),
                        () = &mut stopped => return rounds,
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    let before = highest.swap(guard.fence(), Ordering::SeqCst);
                    assert!(before < guard.fence(), "the fence grows");
                    sleep(3).await;
                    assert!(guard.is_lost().is_none());
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.release().await.expect("trouble does not last");
                    rounds += 1;
                }
            }));
        }
        for seed in 0..3 {
            let harm = world.harm(seed);
            sleep(900).await;
            assert!(harm.end() > 2);
            world.kill();
            world.restart();
            sleep(300).await;
        }
        stop.notify_waiters();
        let mut rounds = 0;
        for holder in holders {
            let one: i32 = soon(holder).await.expect("no panic");
            rounds += one;
        }
        assert!(rounds > 20, "{rounds} rounds");
    });
}

#[test]
fn who_loses_the_lease_loses_the_lock_and_is_told() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let lock = Lock::new(&client, "lock", 6);
        let first = lock.acquire().await.expect("it is free");
        assert!(fenced(&client, &first, "first").await);
        assert!(lock.try_acquire().await.expect("a server").is_none());
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        sleep(300).await;
        assert!(!waiting.is_finished());
        client
            .lease_revoke(lease(first.key()))
            .await
            .expect("it is there");
        let second = soon(waiting).await.expect("no panic").expect("it is free");
        assert!(second.fence() > first.fence());
        assert!(
            !fenced(&client, &first, "late").await,
            "it holds it no more"
        );
        assert!(fenced(&client, &second, "second").await);
        assert!(matches!(soon(first.lost()).await, LeaseLost::Gone));
        assert!(first.is_lost().is_some());
        first.release().await.expect("nothing is left to do");
        // Somebody deletes the key of one who waits.
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        sleep(300).await;
        let keys = client.leases().await.expect("a server").body;
        for id in keys {
            let key = format!("lock/{id:x}");
            if key.as_bytes() != second.key() {
                client.delete(key).await.expect("a server");
            }
        }
        second.release().await.expect("a server");
        // It watched the other's key, and finds its own gone when that one is.
        let waited = soon(waiting).await.expect("no panic");
        assert!(matches!(waited, Err(RecipeError::Removed)), "{waited:?}");
    });
}

#[test]
fn a_holder_without_a_server_knows_when_its_time_is_over() {
    let mut world = World::new();
    run(async {
        let lock = Lock::new(&world.direct(), "lock", 3);
        let guard = lock.acquire().await.expect("it is free");
        world.kill();
        let killed = Instant::now();
        let good_until = guard.good_until();
        assert!(guard.is_lost().is_none());
        let lost = soon(guard.lost()).await;
        assert!(matches!(lost, LeaseLost::Unconfirmed { .. }), "{lost:?}");
        let told = Instant::now();
        assert!(told >= good_until && told < good_until + Duration::from_secs(2));
        assert!(good_until < killed + Duration::from_secs(3));
        world.restart();
        // It is the next one's when the server has ended the lease.
        let again = soon(lock.acquire()).await.expect("it becomes free");
        assert!(again.fence() > guard.fence());
    });
}

#[test]
fn a_line_is_left_by_dropping_and_kept_in_order() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let lock = Lock::new(&client, "lock", 10);
        let guard = lock.acquire().await.expect("it is free");
        let (tell, mut told) = tokio::sync::mpsc::channel(8);
        let mut waiting = Vec::new();
        for number in 0..4 {
            let (lock, tell) = (lock.clone(), tell.clone());
            waiting.push(tokio::spawn(async move {
                let guard = lock.acquire().await.expect("it becomes free");
                tell.send(number).await.expect("somebody listens");
                guard.release().await.expect("a server");
            }));
            sleep(50).await;
        }
        // The second goes away before it is its turn.
        waiting[1].abort();
        sleep(100).await;
        drop(guard);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(soon(told.recv()).await.expect("somebody tells"));
        }
        assert_eq!(order, [0, 2, 3]);
    });
}

#[test]
fn leaders_follow_each_other_and_observers_hear_of_all() {
    let mut world = World::new();
    run(async {
        let client = world.direct();
        let election = Election::new(&client, "election", 10);
        let mut observer = election.observe().await.expect("a server");
        assert!(observer.next().await.expect("a server").is_none());
        let mut first = election.campaign("a").await.expect("nobody leads");
        let told = soon(observer.next())
            .await
            .expect("a server")
            .expect("one leads");
        assert_eq!(
            (&told.value[..], told.create_revision),
            (&b"a"[..], first.fence())
        );
        let second = tokio::spawn({
            let election = Election::new(&world.client(), "election", 10);
            async move { election.campaign("b").await }
        });
        first.proclaim("a, busy").await.expect("it leads");
        let told = soon(observer.next())
            .await
            .expect("a server")
            .expect("one leads");
        assert_eq!(told.value, b"a, busy");
        world.kill();
        world.restart();
        // A connection that is harmed: an outcome that is unknown is found out.
        let harm = world.harm(7);
        sleep(500).await;
        harm.end();
        first.proclaim("a, again").await.expect("it leads");
        let told = soon(observer.next())
            .await
            .expect("a server")
            .expect("one leads");
        assert_eq!(told.value, b"a, again");
        first.resign().await.expect("a server");
        let second = soon(second).await.expect("no panic").expect("nobody leads");
        let told = loop {
            if let Some(told) = soon(observer.next()).await.expect("a server") {
                break told;
            }
        };
        assert_eq!(
            (&told.value[..], told.create_revision),
            (&b"b"[..], second.fence())
        );
        let asked = election
            .leader()
            .await
            .expect("a server")
            .expect("one leads");
        assert_eq!(asked.key, second.key());
        drop(second);
        assert!(soon(observer.next()).await.expect("a server").is_none());
    });
}

#[test]
fn a_semaphore_lets_in_so_many_and_all_in_the_end() {
    let mut world = World::new();
    let inside = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    run(async {
        let mut users = Vec::new();
        for user in 0..8 {
            let semaphore = Semaphore::new(&world.client(), "semaphore", 3, 20);
            let (inside, most) = (inside.clone(), most.clone());
            users.push(tokio::spawn(async move {
                for round in 0..6u64 {
                    let permit = semaphore.acquire().await.expect("it becomes free");
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(now <= 3, "{now} hold it");
                    most.fetch_max(now, Ordering::SeqCst);
                    sleep(5 + (user * 7 + round * 13) % 30).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    match round % 2 {
                        0 => permit.release().await.expect("trouble does not last"),
                        _ => drop(permit),
                    }
                }
            }));
        }
        let harm = world.harm(11);
        sleep(700).await;
        harm.end();
        world.kill();
        world.restart();
        for user in users {
            soon(user).await.expect("no panic");
        }
        assert_eq!(most.load(Ordering::SeqCst), 3, "all permits are used");
        let semaphore = Semaphore::new(&world.direct(), "semaphore", 1, 5);
        let one = soon(semaphore.acquire()).await.expect("it is free");
        assert!(semaphore.try_acquire().await.expect("a server").is_none());
        one.release().await.expect("a server");
        let one = semaphore.try_acquire().await.expect("a server");
        assert!(one.is_some());
    });
}

#[test]
fn threads_without_a_runtime_may_hold_a_lock() {
    let world = World::new();
    let endpoint = [world.address.to_string()];
    let recipes = BlockingRecipes::new(endpoint, ClientOptions::default()).expect("a thread");
    let inside = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let lock = Lock::new(recipes.client(), "lock", 10);
                for _ in 0..5 {
                    let guard = recipes.wait(lock.acquire()).expect("it becomes free");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    recipes.wait(guard.release()).expect("a server");
                }
            });
        }
    });
    let lock = Lock::new(recipes.client(), "lock", 3);
    let guard = recipes.wait(lock.acquire()).expect("it is free");
    // Longer than the lease lives: the thread behind it renews it.
    std::thread::sleep(Duration::from_millis(4000));
    assert!(guard.is_lost().is_none());
}

/// `etcdctl lock` on the same name; `None`, and a word about it, if there is no etcdctl.
fn etcdctl(world: &World, args: &[&str]) -> Option<std::process::Child> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/build/bin/etcdctl");
    if !std::path::Path::new(program).exists() {
        eprintln!("the lock shared with etcdctl skipped: build/bin/etcdctl is not there");
        return None;
    }
    let child = std::process::Command::new(program)
        .args(["--endpoints", &world.address.to_string()])
        .args(["lock", "--ttl", "2", "shared"])
        .args(args)
        .stdout(std::process::Stdio::piped())
        .spawn();
    Some(child.expect("etcdctl starts"))
}

#[test]
fn a_lock_may_be_shared_with_etcds_clients() {
    let world = World::new();
    let Some(mut theirs) = etcdctl(&world, &[]) else {
        return;
    };
    let mut said = BufReader::new(theirs.stdout.take().expect("it is piped"));
    let mut key = String::new();
    said.read_line(&mut key).expect("it says that it holds");
    assert!(key.starts_with("shared/"), "{key}");
    run(async {
        let lock = Lock::new(&world.direct(), "shared", 5);
        assert!(lock.try_acquire().await.expect("a server").is_none());
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        sleep(300).await;
        assert!(!waiting.is_finished());
        // It dies, and its lease with it.
        theirs.kill().expect("it is ours");
        theirs.wait().expect("it is ours");
        let ours = soon(waiting).await.expect("no panic").expect("it is free");
        let mut theirs = etcdctl(&world, &["echo", "they hold it"]).expect("it was there");
        sleep(500).await;
        assert!(theirs.try_wait().expect("it is ours").is_none(), "it waits");
        ours.release().await.expect("a server");
        let done = tokio::task::spawn_blocking(move || theirs.wait_with_output());
        let done = soon(done).await.expect("no panic").expect("it is ours");
        assert_eq!(done.stdout, b"they hold it\n");
    });
}
