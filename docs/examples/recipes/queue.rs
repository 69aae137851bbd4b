//! Jobs that are put in by one and taken out by another, the urgent ones first.

use quoin::client::Client;
use quoin::client::recipes::Queue;
use std::error::Error;

/// Puts four jobs in and takes them out.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let mut producer = Queue::open(client, "examples/queue", 10).await?;
    for job in ["resize 1", "resize 2", "resize 3"] {
        producer.put(job).await?;
    }
    producer.put_first(0, "urgent").await?;

    let mut consumer = Queue::open(client, "examples/queue", 10).await?;
    let first = consumer.take().await?;
    println!("took {}", String::from_utf8_lossy(&first));
    assert_eq!(first, b"urgent");
    // `take` waits for more; `try_take` tells that there is nothing.
    while let Some(job) = consumer.try_take().await? {
        println!("took {}", String::from_utf8_lossy(&job));
    }

    // Who may die over a job claims it. It comes out again unless it is done.
    producer.put("resize 4").await?;
    let claim = consumer.claim().await?;
    println!("does {}", String::from_utf8_lossy(claim.value()));
    consumer.done(&claim).await?;
    producer.close().await?;
    consumer.close().await?;
    Ok(())
}
