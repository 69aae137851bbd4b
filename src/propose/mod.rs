//! Admission, and batching of many requests into one log entry.
