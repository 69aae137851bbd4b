//! The native protocol: frames and messages; bytes in, values out, no sockets.
