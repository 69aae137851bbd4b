//! The recipes against the real server: while connections are harmed, while the server is killed
//! and comes back, and when leases are lost.

#[allow(
    dead_code,
    reason = "shared with the crash tests, which use more of it"
)]
#[path = "../crash/server.rs"]
mod server;

mod world;

mod at_least_once;

mod caches;

mod examples;

mod exactly_once;

mod holding;

mod meeting;
