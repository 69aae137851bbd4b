//! What must happen exactly once, though outcomes are unknown and requests come late.

use crate::world::{World, run, sleep};
use quoin::client::recipes::{Lock, Queue, RecipeError, Transactor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn number(bytes: &[u8]) -> i64 {
    let text = std::str::from_utf8(bytes).expect("text");
    text.parse().expect("a number")
}

#[test]
fn updates_of_one_key_are_neither_lost_nor_done_twice() {
    let mut world = World::new();
    run(async {
        let stop = Arc::new(AtomicBool::new(false));
        let mut counters = Vec::new();
        for _ in 0..4 {
            let (client, stop) = (world.client(), stop.clone());
            counters.push(tokio::spawn(async move {
                let opened = Transactor::open(&client, "receipts", 20).await;
                let mut transactor = opened.expect("trouble does not last");
                let mut counted = 0;
                while !stop.load(Ordering::Relaxed) {
                    let one_more = |old: Option<Vec<u8>>| {
                        let old = old.map_or(0, |old| number(&old));
                        Some((old + 1).to_string().into_bytes())
                    };
                    let done = transactor.update("count", one_more).await;
                    done.expect("the lease outlives the trouble");
                    counted += 1;
                }
                transactor.close().await.expect("a server");
                counted
            }));
        }
        for seed in 20..24 {
            let harm = world.harm(seed);
            sleep(700).await;
            harm.end();
            world.kill();
            world.restart();
        }
        sleep(200).await;
        stop.store(true, Ordering::Relaxed);
        let mut counted = 0;
        for counter in counters {
            counted += counter.await.expect("no panic");
        }
        let client = world.direct();
        let count = client.get("count").await.expect("a server").body;
        let count = number(&count.expect("it was counted").value);
        assert_eq!(count, counted, "each update once");
        assert!(counted > 50, "{counted} updates");
    });
}

#[test]
fn money_moves_and_is_never_made_or_lost() {
    const ACCOUNTS: u64 = 5;
    let world = World::new();
    run(async {
        let direct = world.direct();
        for account in 0..ACCOUNTS {
            let put = direct.put(format!("account/{account}"), "100").await;
            put.expect("a server");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut movers = Vec::new();
        for mover in 0..3u64 {
            let (client, stop) = (world.client(), stop.clone());
            movers.push(tokio::spawn(async move {
                let opened = Transactor::open(&client, "receipts", 20).await;
                let mut transactor = opened.expect("trouble does not last");
                let mut chance = quoin::chance::Chance::new(mover);
                let mut moved = 0;
                while !stop.load(Ordering::Relaxed) {
                    let from = chance.below(ACCOUNTS);
                    let to = (from + 1 + chance.below(ACCOUNTS - 1)) % ACCOUNTS;
                    let [from, to] = [from, to].map(|number| format!("account/{number}"));
                    let move_one = |mut tx: quoin::client::recipes::Transaction| {
                        let (from, to) = (&from, &to);
                        async move {
                            let has = number(&tx.get(from).await?.expect("an account"));
                            let other = number(&tx.get(to).await?.expect("an account"));
                            if has > 0 {
                                tx.put(from, (has - 1).to_string());
                                tx.put(to, (other + 1).to_string());
                            }
                            Ok::<_, RecipeError>(((), tx))
                        }
                    };
                    let done = transactor.transact(move_one).await;
                    done.expect("the lease outlives the trouble");
                    moved += 1;
                }
                moved
            }));
        }
        // Who reads in a transaction sees all of a change or nothing of it.
        let mut reader = Transactor::open(&direct, "receipts", 20)
            .await
            .expect("a server");
        let harm = world.harm(31);
        for round in 0..20 {
            let sum = |mut tx: quoin::client::recipes::Transaction| async move {
                let mut sum = 0;
                for account in 0..ACCOUNTS {
                    let has = tx.get(format!("account/{account}")).await?;
                    sum += number(&has.expect("an account"));
                }
                Ok::<_, RecipeError>((sum, tx))
            };
            let (sum, revision) = reader.transact(sum).await.expect("a server");
            assert_eq!(sum, 100 * ACCOUNTS as i64);
            if round % 5 == 4 {
                // Also when history goes under its feet.
                let compact = quoin::api::CompactRequest {
                    revision,
                    physical: false,
                };
                direct.compact(compact).await.expect("a server");
            }
            sleep(100).await;
        }
        harm.end();
        stop.store(true, Ordering::Relaxed);
        let mut moved = 0;
        for mover in movers {
            moved += mover.await.expect("no panic");
        }
        assert!(moved > 50, "{moved} moves");
    });
}

#[test]
fn a_transaction_may_be_fenced_by_a_lock() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let opened = Transactor::open(&client, "receipts", 10).await;
        let mut transactor = opened.expect("a server");
        let guard = Lock::new(&client, "lock", 10).acquire().await;
        let guard = guard.expect("it is free");
        let (key, fence) = (guard.key().to_vec(), guard.fence());
        let write = |mut tx: quoin::client::recipes::Transaction| {
            tx.put("guarded", "x");
            tx.while_held(&key, fence);
            std::future::ready(Ok::<_, RecipeError>(((), tx)))
        };
        transactor.transact(write).await.expect("it is held");
        guard.release().await.expect("a server");
        let late = transactor.transact(write).await;
        assert!(matches!(late, Err(RecipeError::Removed)), "{late:?}");
        let receipts = client.get("guarded").await.expect("a server").body;
        assert_eq!(receipts.expect("it was written").version, 1);
    });
}

#[test]
fn what_is_put_into_a_queue_comes_out_once_and_in_order() {
    const PRODUCERS: usize = 3;
    const ITEMS: usize = 60;
    let mut world = World::new();
    run(async {
        let taken = Arc::new(AtomicUsize::new(0));
        let mut producers = Vec::new();
        for producer in 0..PRODUCERS {
            let client = world.client();
            producers.push(tokio::spawn(async move {
                let mut queue = Queue::open(&client, "jobs", 20).await.expect("a server");
                for item in 0..ITEMS {
                    let put = queue.put(format!("{producer}:{item}")).await;
                    put.expect("the lease outlives the trouble");
                    sleep(10).await;
                }
                queue.close().await.expect("a server");
            }));
        }
        let mut consumers = Vec::new();
        for _ in 0..3 {
            let (client, taken) = (world.client(), taken.clone());
            consumers.push(tokio::spawn(async move {
                let mut queue = Queue::open(&client, "jobs", 20).await.expect("a server");
                let mut got = Vec::new();
                loop {
                    let item = queue.take().await.expect("the lease outlives the trouble");
                    if item == b"over" {
                        return got;
                    }
                    taken.fetch_add(1, Ordering::SeqCst);
                    got.push(String::from_utf8(item).expect("text"));
                }
            }));
        }
        for seed in 40..42 {
            let harm = world.harm(seed);
            sleep(800).await;
            harm.end();
            world.kill();
            world.restart();
        }
        for producer in producers {
            producer.await.expect("no panic");
        }
        let mut queue = Queue::open(&world.direct(), "jobs", 20)
            .await
            .expect("a server");
        for _ in 0..3 {
            queue.put("over").await.expect("a server");
        }
        let mut all = Vec::new();
        for consumer in consumers {
            let got = consumer.await.expect("no panic");
            // One consumer takes what one producer put in the order in which it did.
            let mut last: BTreeMap<&str, i64> = BTreeMap::new();
            for item in &got {
                let (producer, item) = item.split_once(':').expect("as it was put");
                let item = number(item.as_bytes());
                let before = last.insert(producer, item);
                assert!(before.is_none_or(|before| before < item), "{got:?}");
            }
            all.extend(got);
        }
        assert_eq!(all.len(), PRODUCERS * ITEMS, "nothing is lost or doubled");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), PRODUCERS * ITEMS, "each once");
        assert_eq!(queue.try_take().await.expect("a server"), None);
    });
}

#[test]
fn smaller_priorities_come_out_first() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let mut queue = Queue::open(&client, "jobs", 20).await.expect("a server");
        queue.put("c").await.expect("a server");
        queue.put_first(9, "b").await.expect("a server");
        queue.put_first(0, "a").await.expect("a server");
        queue.put("d").await.expect("a server");
        let mut order = Vec::new();
        while let Some(item) = queue.try_take().await.expect("a server") {
            order.push(item);
        }
        assert_eq!(order, [b"a", b"b", b"c", b"d"]);
    });
}
