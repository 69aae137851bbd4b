//! Metadata that several change at the same time: each change is made once, on what is there.

use quoin::client::Client;
use quoin::client::recipes::{RecipeError, Transactor};
use std::error::Error;

/// Appends to a list, and moves an entry to another.
pub async fn run(client: &Client) -> Result<(), Box<dyn Error>> {
    let mut transactor = Transactor::open(client, "examples/receipts", 10).await?;

    // One key: a function of its value.
    let revision = transactor
        .update("examples/tables", |old| {
            let mut tables = old.unwrap_or_default();
            tables.extend_from_slice(b"users;");
            Some(tables)
        })
        .await?;
    println!("appended at revision {revision}");

    // Several keys: read what is needed, then say what is to be written.
    let (moved, revision) = transactor
        .transact(|mut tx| async move {
            let tables = tx.get("examples/tables").await?.unwrap_or_default();
            let mut dropped = tx.get("examples/dropped").await?.unwrap_or_default();
            dropped.extend_from_slice(&tables);
            tx.put("examples/dropped", dropped);
            tx.delete("examples/tables");
            Ok::<_, RecipeError>((tables, tx))
        })
        .await?;
    let moved = String::from_utf8_lossy(&moved);
    println!("moved {moved} at revision {revision}");
    transactor.close().await?;
    Ok(())
}
