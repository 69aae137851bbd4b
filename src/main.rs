//! quoin: the server.
fn main() {}
