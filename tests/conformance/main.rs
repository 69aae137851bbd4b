//! etcd's API over a real server: through etcd's own clients, and through bare HTTP/2.

#[allow(
    dead_code,
    reason = "shared with the crash tests, which use more of it"
)]
#[path = "../crash/server.rs"]
mod server;

mod abuse;

mod clients;

mod crate_client;

mod crate_kills;

mod differential;
mod elections;

mod gateway;

mod hashes;

mod http1;

mod http2;

mod metrics;

mod kills;

mod ranges;

mod raw;

mod snapshots;

mod unix;

use server::Server;

fn start() -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"));
    (server, dir)
}
