//! Barriers.

use crate::world::{World, run, sleep};
use quoin::client::recipes::{Barrier, DoubleBarrier};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_gate_holds_back_until_it_is_opened() {
    let mut world = World::new();
    run(async {
        let gate = Barrier::new(&world.direct(), "gate");
        gate.wait().await.expect("no key is an open gate");
        gate.close().await.expect("a server");
        gate.close().await.expect("it is closed");
        let passed = Arc::new(AtomicUsize::new(0));
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let gate = Barrier::new(&world.client(), "gate");
            let passed = passed.clone();
            waiting.push(tokio::spawn(async move {
                gate.wait().await.expect("trouble does not last");
                passed.fetch_add(1, Ordering::SeqCst);
            }));
        }
        let harm = world.harm(3);
        sleep(400).await;
        harm.end();
        world.kill();
        world.restart();
        sleep(300).await;
        assert_eq!(passed.load(Ordering::SeqCst), 0);
        gate.open().await.expect("a server");
        for one in waiting {
            one.await.expect("no panic");
        }
        gate.wait().await.expect("it stays open");
    });
}

#[test]
fn parties_begin_together_and_end_together_round_after_round() {
    const PARTIES: usize = 4;
    const ROUNDS: usize = 5;
    let mut world = World::new();
    run(async {
        let begun: Arc<[AtomicUsize; ROUNDS]> = Arc::default();
        let ended: Arc<[AtomicUsize; ROUNDS]> = Arc::default();
        let mut parties = Vec::new();
        for party in 0..PARTIES {
            let meeting = DoubleBarrier::new(&world.client(), "meeting", PARTIES as u32, 20);
            let (begun, ended) = (begun.clone(), ended.clone());
            parties.push(tokio::spawn(async move {
                let mut rounds = Vec::new();
                for round in 0..ROUNDS {
                    sleep((party * 17 % 50) as u64).await;
                    begun[round].fetch_add(1, Ordering::SeqCst);
                    let together = meeting.enter().await.expect("trouble does not last");
                    assert_eq!(begun[round].load(Ordering::SeqCst), PARTIES);
                    rounds.push(together.round());
                    sleep((party * 29 % 40) as u64).await;
                    ended[round].fetch_add(1, Ordering::SeqCst);
                    together.leave().await.expect("trouble does not last");
                    assert_eq!(ended[round].load(Ordering::SeqCst), PARTIES);
                }
                rounds
            }));
        }
        let harm = world.harm(5);
        sleep(600).await;
        harm.end();
        world.kill();
        world.restart();
        let mut rounds = Vec::new();
        for party in parties {
            rounds.push(party.await.expect("no panic"));
        }
        rounds.dedup();
        assert_eq!(
            rounds.len(),
            1,
            "all took part in the same rounds: {rounds:?}"
        );
        assert!(rounds[0].is_sorted_by(|a, b| a < b));
    });
}

#[test]
fn a_party_that_dies_is_waited_for_no_longer() {
    let world = World::new();
    run(async {
        let client = world.direct();
        let meeting = DoubleBarrier::new(&client, "meeting", 2, 10);
        // One that came and died is not there: two more are needed.
        let dead = tokio::spawn({
            let meeting = meeting.clone();
            async move { meeting.enter().await.map(|_| ()) }
        });
        sleep(300).await;
        dead.abort();
        sleep(300).await;
        let one = tokio::spawn({
            let meeting = meeting.clone();
            async move { meeting.enter().await }
        });
        sleep(300).await;
        assert!(!one.is_finished());
        let other = meeting.enter().await.expect("a server");
        let one = one.await.expect("no panic").expect("a server");
        // One that dies inside has gone, and the other ends the round alone.
        drop(other);
        one.leave().await.expect("a server");
        // Nothing of the round is left to be in the way of the next.
        let ready = client.get("meeting/ready").await.expect("a server");
        assert_eq!(ready.body, None);
    });
}
