//! A service with two instances, and a caller that always knows which are there.

use quoin::client::Client;
use quoin::client::recipes::{Endpoints, Registry};
use std::error::Error;

/// Registers two instances, and withdraws one.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let registry = Registry::new(client, "examples/services");
    // The caller keeps a copy of the list: to look at it costs no request.
    let endpoints = registry.endpoints("thumbnails").await?;

    let one = registry
        .register("thumbnails", "one", "10.0.0.1:80", 10)
        .await?;
    let two = registry
        .register("thumbnails", "two", "10.0.0.2:80", 10)
        .await?;
    wait_for(&endpoints, 2).await?;

    // An instance that withdraws, or dies, is listed no more.
    two.withdraw().await?;
    wait_for(&endpoints, 1).await?;
    one.withdraw().await?;
    wait_for(&endpoints, 0).await
}

async fn wait_for(endpoints: &Endpoints, instances: usize) -> Result<(), Box<dyn Error>> {
    loop {
        let seen = endpoints.changed_at();
        let list = endpoints.list();
        if list.len() == instances {
            for endpoint in &list {
                let value = String::from_utf8_lossy(&endpoint.value);
                let instance = String::from_utf8_lossy(&endpoint.instance);
                println!("{instance} is at {value}");
            }
            println!("{instances} in all, as of revision {seen}");
            return Ok(());
        }
        endpoints.changed(seen).await?;
    }
}
