//! A gate that holds workers back until everything is prepared, and a meeting at which workers
//! begin and end together.

use quoin::client::Client;
use quoin::client::recipes::{Barrier, DoubleBarrier, RecipeError};
use std::error::Error;

/// Lets three workers through a gate, and compute together.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let gate = Barrier::new(client, "examples/gate");
    gate.close().await?;
    let mut workers = Vec::new();
    for worker in 0..3 {
        let gate = gate.clone();
        let meeting = DoubleBarrier::new(client, "examples/meeting", 3, 10);
        workers.push(tokio::spawn(async move {
            gate.wait().await?;
            println!("worker {worker} is through the gate");
            let together = meeting.enter().await?;
            println!("worker {worker} computes in round {}", together.round());
            together.leave().await?;
            println!("worker {worker} knows that all are done");
            Ok::<(), RecipeError>(())
        }));
    }
    println!("everything is prepared");
    gate.open().await?;
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
