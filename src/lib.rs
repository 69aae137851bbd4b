//! quoin: a strongly consistent, replicated key-value store.
//!
//! The modules are declared in the order in which a write passes through them;
//! docs/ARCHITECTURE.md tells the whole way.

pub mod wire;

pub mod api;

#[cfg(feature = "server")]
pub mod etcd;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "server")]
pub mod limits;

#[cfg(feature = "server")]
pub mod chance;

#[cfg(feature = "server")]
pub mod propose;

#[cfg(feature = "server")]
pub mod consensus;

#[cfg(feature = "server")]
pub mod apply;

#[cfg(feature = "server")]
pub mod lease;

#[cfg(feature = "server")]
pub mod watch;

#[cfg(feature = "server")]
pub mod node;

#[cfg(feature = "server")]
pub mod runtime;
