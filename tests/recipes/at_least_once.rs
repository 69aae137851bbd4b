//! What comes out of a queue until somebody has done it.

use crate::world::{World, run, sleep};
use quoin::api::RangeRequest;
use quoin::client::Client;
use quoin::client::recipes::{Claim, Queue, RecipeError, Transaction};

async fn open(client: &Client, ttl: i64) -> Queue {
    let opened = Queue::open(client, "jobs", ttl).await;
    opened.expect("trouble does not last")
}

async fn claims(queue: &mut Queue) -> Option<Claim> {
    queue.try_claim().await.expect("a server")
}

#[test]
fn what_a_claimant_leaves_undone_comes_out_again() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let (mut a, mut b) = (open(&client, 20).await, open(&client, 20).await);
        for job in ["1", "2", "3"] {
            a.put(job).await.expect("a server");
        }
        let first = claims(&mut a).await.expect("it is there");
        let second = claims(&mut b).await.expect("it is there");
        assert_eq!((first.value(), second.value()), (&b"1"[..], &b"2"[..]));
        let third = b.try_take().await.expect("a server");
        assert_eq!(
            third.as_deref(),
            Some(&b"3"[..]),
            "who takes passes what is claimed"
        );
        assert!(claims(&mut b).await.is_none(), "all is claimed");

        let fence = first.fence();
        a.give_back(first).await.expect("a server");
        let again = claims(&mut b).await.expect("it was given back");
        assert_eq!(again.value(), b"1");
        assert!(again.fence() > fence);
        b.done(&again).await.expect("a server");
        let twice = b.done(&again).await;
        assert!(matches!(twice, Err(RecipeError::Removed)), "{twice:?}");

        // Who waits is woken when a claimant is gone.
        let waits = tokio::spawn(async move {
            let claim = a.claim().await.expect("a server");
            assert_eq!(claim.value(), b"2");
            a.done(&claim).await.expect("a server");
            a
        });
        sleep(100).await;
        assert!(!waits.is_finished());
        drop(b);
        let mut a = waits.await.expect("no panic");
        assert!(claims(&mut a).await.is_none(), "all is done");

        // Many claims at the front are passed, page after page.
        for job in 0..70 {
            a.put(job.to_string()).await.expect("a server");
        }
        for job in 0..70 {
            let claim = claims(&mut a).await.expect("it is there");
            assert_eq!(claim.value(), job.to_string().as_bytes());
        }
        assert!(claims(&mut a).await.is_none());
        a.close().await.expect("a server");
        let mut c = open(&client, 20).await;
        assert_eq!(claims(&mut c).await.expect("it is there").value(), b"0");
    });
}

/// Works until it is told that it is over; dies, gives back, and is lost on the way. Returns how
/// often something came out without being done.
async fn work(client: Client, seed: u64) -> usize {
    let mut chance = quoin::chance::Chance::new(seed);
    let (mut queue, mut undone) = (open(&client, 5).await, 0);
    loop {
        let Ok(claim) = queue.claim().await else {
            // Its lease is lost.
            queue = open(&client, 5).await;
            continue;
        };
        let job = String::from_utf8(claim.value().to_vec()).expect("text");
        match chance.below(6) {
            0 if job != "over" => {
                undone += 1;
                queue = open(&client, 5).await;
            }
            1 if job != "over" => {
                undone += 1;
                let _ = queue.give_back(claim).await;
            }
            _ => {
                let key = format!("done/{job}");
                let count = |mut transaction: Transaction| {
                    let key = &key;
                    async move {
                        let before = transaction.get(key).await?.unwrap_or_default();
                        transaction.put(key, [&before[..], b"x"].concat());
                        Ok::<_, RecipeError>(((), transaction))
                    }
                };
                let done = queue.done_with(&claim, count).await;
                if done.is_ok() && job == "over" {
                    return undone;
                }
            }
        }
    }
}

#[test]
fn each_job_is_done_once_whoever_dies() {
    const JOBS: usize = 120;
    const WORKERS: u64 = 3;
    let mut world = World::new();
    run(async {
        let workers: Vec<_> = (0..WORKERS)
            .map(|seed| tokio::spawn(work(world.client(), seed)))
            .collect();
        let client = world.client();
        let producer = tokio::spawn(async move {
            let mut queue = open(&client, 20).await;
            for job in 0..JOBS {
                let put = queue.put(format!("{job:03}")).await;
                put.expect("the lease outlives the trouble");
                sleep(8).await;
            }
        });
        for seed in 60..62 {
            let harm = world.harm(seed);
            sleep(700).await;
            harm.end();
            world.kill();
            world.restart();
        }
        producer.await.expect("no panic");
        let direct = world.direct();
        let all = RangeRequest {
            key: b"done/",
            range_end: b"done0",
            ..RangeRequest::default()
        };
        // Those whose claimant could not say that it goes wait for its lease.
        let mut patience = 400;
        while direct
            .range(all.clone())
            .await
            .expect("a server")
            .body
            .count
            < JOBS as i64
        {
            patience -= 1;
            assert!(patience > 0, "a job never comes out again");
            sleep(100).await;
        }
        let mut queue = open(&direct, 20).await;
        for _ in 0..WORKERS {
            queue.put("over").await.expect("a server");
        }
        let mut undone = 0;
        for worker in workers {
            undone += worker.await.expect("no panic");
        }
        assert!(undone > 5, "{undone}: the test tests nothing");
        assert!(claims(&mut queue).await.is_none(), "something is left");
        for kv in direct.range(all).await.expect("a server").body.kvs {
            let expected = if kv.key == b"done/over" { WORKERS } else { 1 };
            assert_eq!(kv.value.len() as u64, expected, "{kv:?}");
        }
    });
}
