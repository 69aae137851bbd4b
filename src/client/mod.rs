//! The client library over the native protocol.
