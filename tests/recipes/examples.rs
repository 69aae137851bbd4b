//! The examples of the documentation do what they say, again and again.

use crate::world::{World, run};

#[path = "../../docs/examples/recipes/barrier.rs"]
mod barrier;

#[path = "../../docs/examples/recipes/cache.rs"]
mod cache;

#[path = "../../docs/examples/recipes/election.rs"]
mod election;

#[path = "../../docs/examples/recipes/lock.rs"]
mod lock;

#[path = "../../docs/examples/recipes/queue.rs"]
mod queue;

#[path = "../../docs/examples/recipes/registry.rs"]
mod registry;

#[path = "../../docs/examples/recipes/semaphore.rs"]
mod semaphore;

#[path = "../../docs/examples/recipes/update.rs"]
mod update;

#[test]
fn each_example_runs_twice() {
    let world = World::new();
    run(async {
        let client = world.direct();
        for _ in 0..2 {
            barrier::run(&client).await.expect("barrier");
            cache::run(&client).await.expect("cache");
            election::run(&client).await.expect("election");
            lock::run(&client).await.expect("lock");
            queue::run(&client).await.expect("queue");
            registry::run(&client).await.expect("registry");
            semaphore::run(&client).await.expect("semaphore");
            update::run(&client).await.expect("update");
        }
        let result = client.get("examples/lock-result").await.expect("a server");
        assert_eq!(result.body.expect("it was written").value, b"done");
        let dropped = client.get("examples/dropped").await.expect("a server");
        assert_eq!(dropped.body.expect("it was written").value, b"users;users;");
    });
}
