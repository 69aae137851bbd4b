//! The edges: executors, sockets, the log thread, the clock.
