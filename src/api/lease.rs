//! Requests and answers about leases.
//!
//! A lease is a promise with a clock: unless its holder renews it, it expires, and every key that
//! hangs on it is deleted with it, in one revision. Times are whole seconds.

/// Asks for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseGrantRequest {
    /// Seconds to live; too small a number is raised to the least that the server grants.
    pub ttl: i64,
    /// Its id; 0 leaves the choice to the server.
    pub id: i64,
}

/// Ends a lease, and deletes every key that hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseRevokeRequest {
    /// Its id.
    pub id: i64,
}

/// Renews a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseKeepAliveRequest {
    /// Its id.
    pub id: i64,
}

/// Asks how long a lease has left to live, and for its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseTimeToLiveRequest<'a> {
    /// Its id.
    pub id: i64,
    /// Return the keys, too.
    pub keys: bool,
    /// The most keys to return; 0 or less means all.
    pub limit: i64,
    /// Only keys behind this one; empty means from the first.
    pub after: &'a [u8],
}

/// A lease as one grant has made it: an id may be granted again after a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantedLease {
    /// Its id.
    pub id: i64,
    /// The index of the log entry that granted it.
    pub granted_at: u64,
}

/// Ends leases whose time is over. The leader's own: no client may send it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseExpireRequest {
    /// Each becomes one revision, in this order; those that are gone are passed over.
    pub leases: Vec<GrantedLease>,
}

/// Writes down how long leases have left. The leader's own: no client may send it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseCheckpointRequest {
    /// Each lease with the seconds it has left; 0 stands for all that it was granted for. Those
    /// that are gone are passed over.
    pub leases: Vec<(GrantedLease, i64)>,
}

/// The answer to a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseGrantResponse {
    /// The lease's id.
    pub id: i64,
    /// The seconds that it was granted for.
    pub ttl: i64,
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseKeepAliveResponse {
    /// The lease's id.
    pub id: i64,
    /// The seconds that it has from now on; 0 if there is no such lease.
    pub ttl: i64,
}

/// The answer to a question about a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseTimeToLiveResponse {
    /// The lease's id.
    pub id: i64,
    /// The seconds that it has left, rounded down; -1 if there is no such lease.
    pub ttl: i64,
    /// The seconds that it was granted for; 0 if there is no such lease.
    pub granted_ttl: i64,
    /// Its keys, ascending, if asked for.
    pub keys: Vec<Vec<u8>>,
    /// There are more keys than the limit let through.
    pub more: bool,
}

/// The answer to the question which leases there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeasesResponse {
    /// Their ids; the first expires first.
    pub ids: Vec<i64>,
}
