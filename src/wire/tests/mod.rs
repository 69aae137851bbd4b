//! Tests of the native protocol as a whole.

mod bytes;

mod hostile;

mod samples;

mod leases;

mod alarms;

mod speed;

mod vectors;

mod watches;
