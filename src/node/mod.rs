//! The pure actors, and the closed enums that cross cores.
//!
//! `Front` serves clients, `Order` puts writes into one order and applies them. Both are
//! `step(input) -> outputs`: time, chance and I/O come in as values. `LogDriver` makes entries
//! durable, through the log and its disk, and is driven turn by turn, too.

pub mod messages;

pub mod front;

pub mod order;

pub mod log_driver;
