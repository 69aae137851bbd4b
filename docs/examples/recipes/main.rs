//! Examples of the client's recipes, each against a running server:
//!
//! ```sh
//! cargo run --example recipes -- lock                # of a server at 127.0.0.1:2379
//! cargo run --example recipes -- queue host:port
//! ```

mod barrier;

mod cache;

mod election;

mod lock;

mod queue;

mod registry;

mod semaphore;

mod update;

use quoin::client::{Client, ClientOptions};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let which = args.next().unwrap_or_default();
    let endpoint = args.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let client = Client::new([endpoint], ClientOptions::default());
    match which.as_str() {
        "barrier" => barrier::run(&client).await,
        "cache" => cache::run(&client).await,
        "election" => election::run(&client).await,
        "lock" => lock::run(&client).await,
        "queue" => queue::run(&client).await,
        "registry" => registry::run(&client).await,
        "semaphore" => semaphore::run(&client).await,
        "update" => update::run(&client).await,
        _ => Err(
            "which one? barrier, cache, election, lock, queue, registry, semaphore, update".into(),
        ),
    }
}
