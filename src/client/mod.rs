//! The client library over [`crate::wire`]: [`Client`] for tokio programs, [`BlockingClient`] for
//! threads, and [`raw`] for programs with an event loop of their own.
//!
//! Nothing here repeats a write that may have left: what became of it is then unknown, and said
//! so by [`ClientError::OutcomeUnknown`].

mod error;

mod options;

pub mod raw;

mod pending;

mod calls;

mod async_client;

mod blocking;

pub use async_client::Client;
pub use blocking::{BlockingClient, Submitted};
pub use calls::Answer;
pub use error::ClientError;
pub use options::ClientOptions;
