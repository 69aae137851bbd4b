//! etcd's v3 API: protobuf messages and gRPC's framing, as conversions to and from `api`. No
//! sockets, no clocks, no store.
//!
//! Reading order: `pb` is protobuf's wire format, `message` gRPC's framing, `gzip` its compression, `status` how calls
//! fail, `timeout` how long they may take, `method` which calls there are; `request` reads requests in place, `reply` writes answers,
//! `sized` those that are given in pieces, `member` those about the member and its cluster,
//! `watch` those of watches, `election` those of locks and elections; `hash` is etcd's hash of a
//! store's history.
//! `frames` and `hpack` look at HTTP/2 before its codec does.
//! `json` is the JSON gateway's mapping of messages, `http` what else is served over HTTP/1.1.
//! The numbers of the fields are facts of etcd's protocol (`rpc.proto`, `kv.proto`).

pub mod pb;

pub mod message;

pub mod gzip;

mod status;

mod method;

mod request;

mod reply;

pub mod sized;

pub mod member;

pub mod watch;

pub mod election;

pub mod hash;

pub mod maintenance;

pub mod timeout;

pub mod json;

pub mod http;

pub mod frames;

mod hpack;

pub mod fuzz;

#[cfg(test)]
mod tests;

pub use member::{Condition, Member};
pub use method::Method;
pub use reply::{RangeEncoder, TooLong, encode_header_alone, encode_put_response, encode_response};
pub use request::{Decoded, Refused, decode};
pub use status::{Code, Status, code_of};
