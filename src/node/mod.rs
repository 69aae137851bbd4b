//! The pure actors, and the closed enums that cross cores.
//!
//! `Front` serves clients, `Order` puts writes into one order and applies them. Both are
//! `step(input) -> outputs`: time, chance and I/O come in as values.

pub mod messages;

pub mod front;

pub mod order;
