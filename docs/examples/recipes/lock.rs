//! A job that must not run twice at the same time: it runs under a lock, stops when the lock is
//! lost, and what it writes is fenced.

use quoin::api::{PutRequest, RequestOp, TxnRequest};
use quoin::client::Client;
use quoin::client::recipes::Lock;
use std::error::Error;
use std::time::Duration;

/// Runs the job once.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let lock = Lock::new(client, "examples/lock", 10);
    println!("waiting for the lock");
    let guard = lock.acquire().await?;
    println!("held by {}", String::from_utf8_lossy(guard.key()));

    // Beside the work, watch for the loss of the lock: from then on another may hold it.
    let result = tokio::select! {
        lost = guard.lost() => return Err(lost.into()),
        result = work() => result,
    };

    // What if it was lost just now? The condition has the store decide.
    let written = client
        .txn(TxnRequest {
            compare: vec![guard.held()],
            success: vec![RequestOp::Put(PutRequest {
                key: b"examples/lock-result",
                value: result.as_bytes(),
                ..PutRequest::default()
            })],
            failure: Vec::new(),
        })
        .await?;
    match written.body.succeeded {
        true => println!("written at revision {}", written.header.revision),
        false => println!("not written: the lock was lost"),
    }

    // Another store would be given guard.fence() with each write, and refuse smaller ones.
    println!("fence {}", guard.fence());
    guard.release().await?;
    Ok(())
}

async fn work() -> String {
    tokio::time::sleep(Duration::from_millis(200)).await;
    "done".to_owned()
}
