//! A copy of all settings in memory: reading costs no request, and changes arrive by themselves.

use quoin::client::Client;
use quoin::client::recipes::Cache;
use std::error::Error;

/// Reads its own write, and then what anybody has written.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let settings = Cache::prefix(client, "examples/settings/").await?;

    let written = client.put("examples/settings/colour", "green").await?;
    settings.at_least(written.header.revision).await?;
    let colour = settings.get("examples/settings/colour");
    let colour = colour.ok_or("it was written")?;
    assert_eq!(colour.value, b"green");

    // As if it had been read from the server, at the price of one small question.
    settings.fresh().await?;
    for pair in settings.pairs() {
        let (key, value) = (&pair.key, &pair.value);
        let key = String::from_utf8_lossy(key);
        println!("{key} = {}", String::from_utf8_lossy(value));
    }
    println!("as of revision {}", settings.revision());
    Ok(())
}
