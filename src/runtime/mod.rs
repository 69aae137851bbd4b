//! The edges: executors, sockets, the log thread, the clock.

pub mod flags;

pub mod startup;

pub mod data_dir;

pub mod ids;

pub mod logger;

pub mod os;

pub mod queue;
