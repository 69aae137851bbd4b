//! Copies that are kept fresh, and the registry on top of them.

use crate::world::{World, run, sleep};
use quoin::api::{CompactRequest, OwnedKeyValue, RangeRequest};
use quoin::client::Client;
use quoin::client::recipes::{Cache, CacheChange, Follower, Registry};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Pairs = BTreeMap<Vec<u8>, OwnedKeyValue>;

async fn read(client: &Client, revision: i64) -> Pairs {
    let all = RangeRequest {
        key: b"k/",
        range_end: b"k0",
        revision,
        ..RangeRequest::default()
    };
    let pairs = client.range(all).await.expect("a server").body.kvs;
    pairs.into_iter().map(|kv| (kv.key.clone(), kv)).collect()
}

fn copy(pairs: &[Arc<OwnedKeyValue>]) -> Pairs {
    let pairs = pairs.iter();
    pairs.map(|kv| (kv.key.clone(), (**kv).clone())).collect()
}

async fn write(client: &Client, chance: &mut quoin::chance::Chance) -> i64 {
    let key = format!("k/{}", chance.below(30));
    let done = match chance.one_in(3) {
        true => client.delete(&key).await.map(|done| done.header),
        false => {
            let value = chance.below(1000).to_string();
            client.put(&key, value).await.map(|done| done.header)
        }
    };
    done.expect("a server").revision
}

#[test]
fn a_copy_is_the_state_of_its_revision_and_shows_what_was_written() {
    let world = World::new();
    run(async {
        let direct = world.direct();
        let cache = Cache::prefix(&world.client(), "k/")
            .await
            .expect("a server");
        assert!(cache.is_empty());
        let harm = world.harm(51);
        let mut chance = quoin::chance::Chance::new(51);
        let mut last = 0;
        for round in 0..400 {
            let revision = write(&direct, &mut chance).await;
            assert!(cache.revision() >= last, "it never goes back");
            if round % 20 == 0 {
                cache.at_least(revision).await.expect("it catches up");
                last = cache.revision();
                assert_eq!(copy(&cache.pairs()), read(&direct, last).await);
                // Nothing changes what it covers, and still it comes to know.
                let other = direct.put("other", "x").await.expect("a server");
                cache.fresh().await.expect("it catches up");
                assert!(cache.revision() >= other.header.revision);
                assert!(cache.changed_at() <= revision);
            }
        }
        assert!(harm.end() > 2);
        assert!(cache.trouble().is_none(), "{:?}", cache.trouble());
    });
}

#[test]
fn a_copy_goes_on_after_a_compaction_that_it_slept_through() {
    let mut world = World::new();
    run(async {
        let client = world.client();
        let mut chance = quoin::chance::Chance::new(61);
        for _ in 0..50 {
            write(&world.direct(), &mut chance).await;
        }
        let mut follower = Follower::new(&client, "k/", "k0");
        let mut mirror = Pairs::new();
        let mut relisted = 0;
        for round in 0..6 {
            // Nobody pulls meanwhile, and the connection is cut before anything is told on it.
            if round % 2 == 1 {
                world.cut();
                sleep(50).await;
            }
            let direct = world.direct();
            let mut revision = 0;
            for _ in 0..60 {
                revision = write(&direct, &mut chance).await;
            }
            if round % 2 == 1 {
                let compact = CompactRequest {
                    revision,
                    physical: true,
                };
                direct.compact(compact).await.expect("a server");
                world.kill();
                world.restart();
            }
            loop {
                let news = follower.next().await.expect("trouble does not last");
                relisted += u32::from(news.listed && round > 0);
                for change in news.changes {
                    match change {
                        CacheChange::Put(kv) => {
                            mirror.insert(kv.key.clone(), (*kv).clone());
                        }
                        CacheChange::Deleted(before) => {
                            let was = mirror.remove(&before.key);
                            assert_eq!(was.as_ref(), Some(&*before), "it was there, and so");
                        }
                    }
                }
                assert_eq!(
                    mirror,
                    copy(&follower.pairs()),
                    "the changes are the difference"
                );
                if news.revision >= revision {
                    break;
                }
                follower.ask_progress();
            }
            assert_eq!(mirror, read(&world.direct(), 0).await);
        }
        assert_eq!(relisted, 3, "three compactions were slept through");
    });
}

#[test]
fn a_large_interval_is_copied_page_by_page_at_one_revision() {
    let world = World::new();
    run(async {
        let client = world.direct();
        for number in 0..2500 {
            client
                .put(format!("k/{number:05}"), "v")
                .await
                .expect("a server");
        }
        let stop = AtomicBool::new(false);
        let writer = async {
            let mut chance = quoin::chance::Chance::new(71);
            while !stop.load(Ordering::Relaxed) {
                write(&client, &mut chance).await;
            }
        };
        let opener = async {
            for _ in 0..3 {
                let cache = Cache::prefix(&client, "k/").await.expect("a server");
                let (pairs, revision) = (copy(&cache.pairs()), cache.revision());
                if cache.revision() == revision {
                    assert_eq!(pairs, read(&client, revision).await);
                }
            }
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(writer, opener);
    });
}

#[test]
fn instances_are_listed_while_they_live() {
    let mut world = World::new();
    run(async {
        let direct = world.direct();
        let registry = Registry::new(&world.client(), "services");
        let endpoints = registry.endpoints("db").await.expect("a server");
        let names = |list: &quoin::client::recipes::Endpoints| -> Vec<String> {
            let list = list.list().into_iter();
            list.map(|one| String::from_utf8_lossy(&one.instance).into_owned())
                .collect()
        };
        assert!(names(&endpoints).is_empty());
        let a = registry.register("db", "a", "10.0.0.1:5432", 2).await;
        let a = a.expect("a server");
        let b = registry.register("db", "b", "10.0.0.2:5432", 2).await;
        let b = b.expect("a server");
        let other = registry.register("web", "a", "10.0.0.3:80", 2).await;
        let _other = other.expect("a server");
        while names(&endpoints) != ["a", "b"] {
            endpoints
                .changed(endpoints.changed_at())
                .await
                .expect("a server");
        }
        a.update("10.0.0.9:5432").await.expect("a server");
        while endpoints.list()[0].value != b"10.0.0.9:5432" {
            endpoints
                .changed(endpoints.changed_at())
                .await
                .expect("a server");
        }
        b.withdraw().await.expect("a server");
        endpoints.cache().fresh().await.expect("a server");
        assert_eq!(names(&endpoints), ["a"]);
        // The server is away for longer than leases live, and ends them when it is back; the
        // instance lives, and comes back.
        world.kill();
        sleep(2500).await;
        world.restart();
        let leases = direct.leases().await.expect("a server").body;
        for lease in leases {
            // It may have expired, or have been given up, by now.
            let _ = direct.lease_revoke(lease).await;
        }
        let back = async {
            loop {
                let key = "services/db/a";
                let now = direct.get(key).await.expect("a server").body;
                if now.is_some_and(|kv| kv.value == b"10.0.0.9:5432" && kv.version == 1) {
                    return;
                }
                sleep(20).await;
            }
        };
        let done = tokio::time::timeout(std::time::Duration::from_secs(20), back).await;
        done.expect("it registers anew");
        endpoints.cache().fresh().await.expect("a server");
        assert_eq!(names(&endpoints), ["a"]);
        // One that is dropped goes soon.
        drop(a);
        while !names(&endpoints).is_empty() {
            endpoints
                .changed(endpoints.changed_at())
                .await
                .expect("a server");
        }
    });
}
