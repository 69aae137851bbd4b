//! Many workers, and a service that takes two callers at a time.

use quoin::client::Client;
use quoin::client::recipes::Semaphore;
use std::error::Error;
use std::time::Duration;

/// Lets five workers take turns.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let semaphore = Semaphore::new(client, "examples/semaphore", 2, 10);
    let mut workers = Vec::new();
    for worker in 0..5 {
        let semaphore = semaphore.clone();
        workers.push(tokio::spawn(async move {
            let permit = semaphore.acquire().await?;
            println!("worker {worker} calls");
            tokio::time::sleep(Duration::from_millis(100)).await;
            println!("worker {worker} is done");
            permit.release().await?;
            Ok::<(), quoin::client::recipes::RecipeError>(())
        }));
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
