//! Tests of the native protocol as a whole.

mod bytes;

mod hostile;

mod samples;

mod leases;

mod speed;

mod vectors;

mod watches;
