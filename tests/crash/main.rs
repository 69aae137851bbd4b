//! Real processes: killed under load again and again, started in every wrong way, and spoken to
//! by clients that do not behave.
//!
//! `QUOIN_CRASH_ROUNDS` sets how often the server is killed (default 24), `QUOIN_CRASH_SEED` what
//! the clients do and when it is killed.

mod link;

mod server;

mod journal;

mod abuse;

mod kill;

mod expiring;

mod leases;

mod startup;

mod sandbox;

mod damage;
