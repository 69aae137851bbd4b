//! Tests of the native protocol as a whole.

mod bytes;

mod samples;
