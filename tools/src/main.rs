//! quoinctl: the operator tool.
fn main() {}
