//! Clients that do not behave.
