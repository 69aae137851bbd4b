//! The client library over [`crate::wire`]: [`Client`] for tokio programs, [`BlockingClient`] for
//! threads, and [`raw`] for programs with an event loop of their own.
//!
//! A [`WatchStream`] tells of changes, over reconnects, with none missed and none told twice:
//!
//! ```no_run
//! # async fn watches() -> Result<(), quoin::client::ClientError> {
//! use quoin::api::WatchCreate;
//! use quoin::client::{Client, ClientOptions, WatchNews};
//! let client = Client::new(["localhost:2379"], ClientOptions::default());
//! let mut stream = client.watch_stream();
//! stream.watch(&WatchCreate { key: b"a", range_end: b"b", ..WatchCreate::default() });
//! loop {
//!     match stream.next().await? {
//!         WatchNews::Events { events, .. } => println!("{events:?}"),
//!         WatchNews::Ended { why, .. } => println!("over: {why:?}"),
//!         WatchNews::Created { .. } | WatchNews::Progress { .. } => {}
//!     }
//! }
//! # }
//! ```
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

mod keeper;

pub mod recipes;

mod watch;

pub use async_client::Client;
pub use blocking::{BlockingClient, Submitted};
pub use calls::Answer;
pub use error::ClientError;
pub use keeper::{BlockingLeaseKeeper, LeaseKeeper, LeaseLost};
pub use options::ClientOptions;
pub use watch::{BlockingWatchStream, WatchEnd, WatchId, WatchNews, WatchStream};
