//! Two candidates: one leads, the other follows on when it resigns, and an observer sees both.

use quoin::client::Client;
use quoin::client::recipes::Election;
use std::error::Error;

/// Lets two candidates lead one after the other.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let election = Election::new(client, "examples/election", 10);
    let mut observer = election.observe().await?;
    let mut first = election.campaign("10.0.0.1:7000").await?;
    println!("the first leads, with fence {}", first.fence());

    // A candidate waits in a task of its own; to drop the task is to stand no more.
    let second = tokio::spawn({
        let election = election.clone();
        async move { election.campaign("10.0.0.2:7000").await }
    });

    first.proclaim("10.0.0.1:7000, ready").await?;
    while let Some(leader) = observer.next().await? {
        println!("observed: {}", String::from_utf8_lossy(&leader.value));
        if leader.value.ends_with(b"ready") {
            break;
        }
    }

    first.resign().await?;
    let second = second.await??;
    println!("the second leads, with fence {}", second.fence());
    let leader = election.leader().await?.ok_or("somebody leads")?;
    assert_eq!(leader.key, second.key());
    second.resign().await?;
    Ok(())
}
