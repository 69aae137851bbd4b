//! The edges: executors, sockets, the log thread, the clock.
//!
//! Reading order: `server` puts everything together; `seat` is the loop of one executor, `socket`
//! a connection's task beside it, `http2` that of one that speaks gRPC, `http1` that of one that asks in text; `log_thread` and `checkpoint_thread` write, `scrub_thread` reads what nobody asks for.

pub mod flags;

pub mod startup;

pub mod data_dir;

pub mod ids;

pub mod restore;

pub mod server;

pub mod placement;

pub mod seat;

pub mod socket;

mod http_io;

mod http1;

mod http2;

mod process;

mod metrics;

pub mod tally;

pub mod listen;

pub mod access;

mod alarms;

pub mod log_thread;

pub mod checkpoint_thread;

pub mod scrub_thread;

pub mod queue;

pub mod clock;

pub mod logger;

pub mod notify;

pub mod version;

pub mod os;
