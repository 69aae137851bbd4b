//! quoin-bench: the load tool.
fn main() {}
