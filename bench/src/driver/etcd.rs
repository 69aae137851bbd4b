//! etcd over gRPC, through its client library: one task for each request in flight.
