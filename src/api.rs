//! Requests, responses and errors: plain types that every front speaks.
//!
//! Requests borrow their bytes from the frame or log entry that carried them.
//! The meaning of each field is etcd's (v3 API); a revision is the global, ever growing number
//! of a write transaction, and the store starts, empty, at revision 1.

mod alarm;

mod lease;

pub use alarm::{Alarm, AlarmAction, AlarmKind, AlarmRequest, AlarmResponse};
pub use lease::{
    GrantedLease, LeaseCheckpointRequest, LeaseExpireRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse,
};

mod watch;

pub use watch::{
    Event, EventKind, OwnedEvent, WatchCreate, WatchRefusal, WatchRequest, WatchResponse,
};

/// A request as a front hands it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Read keys.
    Range(RangeRequest<'a>),
    /// Write one key.
    Put(PutRequest<'a>),
    /// Delete a key or an interval of keys.
    DeleteRange(DeleteRangeRequest<'a>),
    /// Compare, then run one of two lists of operations, atomically.
    Txn(TxnRequest<'a>),
    /// Drop history before a revision.
    Compact(CompactRequest),
    /// Make a lease.
    LeaseGrant(LeaseGrantRequest),
    /// End a lease.
    LeaseRevoke(LeaseRevokeRequest),
    /// Renew a lease.
    LeaseKeepAlive(LeaseKeepAliveRequest),
    /// How long a lease has left, and its keys.
    LeaseTimeToLive(LeaseTimeToLiveRequest<'a>),
    /// Which leases there are.
    Leases,
    /// End leases whose time is over; from the leader alone.
    LeaseExpire(LeaseExpireRequest),
    /// Write down how long leases have left; from the leader alone.
    LeaseCheckpoint(LeaseCheckpointRequest),
    /// Ask about alarms, raise one, or take one back.
    Alarm(AlarmRequest),
}

/// The order of the keys in a range answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// As stored: by key, ascending; with a target other than the key it sorts ascending.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// The field a range answer is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    /// The key itself.
    #[default]
    Key,
    /// How often the key was written since it was created.
    Version,
    /// The revision of its creation.
    Create,
    /// The revision of its last change.
    Mod,
    /// The value's bytes.
    Value,
}

/// Reads the keys of an interval, at the newest or at an older revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeRequest<'a> {
    /// First key; never empty in a valid request.
    pub key: &'a [u8],
    /// Empty: the one key. `[0]`: every key from `key` on. Otherwise the exclusive end.
    pub range_end: &'a [u8],
    /// The most keys to return; 0 or less means all.
    pub limit: i64,
    /// The revision to read at; 0 or less means the newest.
    pub revision: i64,
    /// Order of the answer.
    pub sort_order: SortOrder,
    /// What the answer is ordered by.
    pub sort_target: SortTarget,
    /// Read this member's state as it is, without asking the quorum.
    pub serializable: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return the count alone.
    pub count_only: bool,
    /// Leave out keys changed before this revision; 0 switches the filter off.
    pub min_mod_revision: i64,
    /// Leave out keys changed after this revision; 0 switches the filter off.
    pub max_mod_revision: i64,
    /// Leave out keys created before this revision; 0 switches the filter off.
    pub min_create_revision: i64,
    /// Leave out keys created after this revision; 0 switches the filter off.
    pub max_create_revision: i64,
}

/// Writes one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutRequest<'a> {
    /// The key; never empty in a valid request.
    pub key: &'a [u8],
    /// The new value; may be empty.
    pub value: &'a [u8],
    /// The lease to attach; 0 means none.
    pub lease: i64,
    /// Return the pair as it was.
    pub prev_kv: bool,
    /// Keep the value, change only the rest; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes a key or an interval of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeRequest<'a> {
    /// First key; never empty in a valid request.
    pub key: &'a [u8],
    /// As in [`RangeRequest::range_end`].
    pub range_end: &'a [u8],
    /// Return the deleted pairs.
    pub prev_kv: bool,
}

/// How a compare's field relates to its operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompareResult {
    /// The same.
    #[default]
    Equal,
    /// Larger.
    Greater,
    /// Smaller.
    Less,
    /// Anything else.
    NotEqual,
}

/// The field that a compare looks at, and its operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareTarget<'a> {
    /// The key's version; 0 if it does not exist.
    Version(i64),
    /// Its creation revision; 0 if it does not exist.
    Create(i64),
    /// Its modification revision; 0 if it does not exist.
    Mod(i64),
    /// Its value; never true if it does not exist.
    Value(&'a [u8]),
    /// Its lease; 0 if none or if it does not exist.
    Lease(i64),
}

/// One condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare<'a> {
    /// The key; never empty in a valid request.
    pub key: &'a [u8],
    /// Empty: the one key. Otherwise every key of the interval must satisfy the condition.
    pub range_end: &'a [u8],
    /// The relation asked for.
    pub result: CompareResult,
    /// Field and operand.
    pub target: CompareTarget<'a>,
}

/// Compares, then runs `success` or `failure`, as one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnRequest<'a> {
    /// All must hold for `success` to run; an empty list holds.
    pub compare: Vec<Compare<'a>>,
    /// Run if every compare holds.
    pub success: Vec<RequestOp<'a>>,
    /// Run otherwise.
    pub failure: Vec<RequestOp<'a>>,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOp<'a> {
    /// Read keys; sees the writes before it in the same transaction.
    Range(RangeRequest<'a>),
    /// Write a key.
    Put(PutRequest<'a>),
    /// Delete keys.
    DeleteRange(DeleteRangeRequest<'a>),
    /// A transaction inside the transaction.
    Txn(TxnRequest<'a>),
}

/// Drops the history before `revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactRequest {
    /// The oldest revision that stays readable.
    pub revision: i64,
    /// Answer only when the space is reclaimed.
    pub physical: bool,
}

/// Who answered, and at what point in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The answering member's id.
    pub member_id: u64,
    /// The store's revision when the request was served.
    pub revision: i64,
    /// The Raft term.
    pub raft_term: u64,
}

/// A key with its value, as read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision of its creation.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// How often it was written since it was created.
    pub version: i64,
    /// The value; empty if only keys were asked for.
    pub value: &'a [u8],
    /// The lease it hangs on; 0 means none.
    pub lease: i64,
}

impl KeyValue<'_> {
    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> OwnedKeyValue {
        OwnedKeyValue {
            key: self.key.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.to_vec(),
            lease: self.lease,
        }
    }
}

/// A key with its value, owned; fields as in [`KeyValue`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are those of KeyValue")]
pub struct OwnedKeyValue {
    pub key: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: Vec<u8>,
    pub lease: i64,
}

impl OwnedKeyValue {
    /// The pair, borrowed.
    pub fn borrow(&self) -> KeyValue<'_> {
        KeyValue {
            key: &self.key,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: &self.value,
            lease: self.lease,
        }
    }
}

/// Takes the pairs of a range answer one by one, in the answer's order.
pub trait KvSink {
    /// Takes one pair; its bytes are valid only during the call.
    fn push(&mut self, kv: KeyValue<'_>);

    /// Whether it has taken all that it can: the read then ends with
    /// [`Error::ResponseTooLarge`].
    fn full(&self) -> bool {
        false
    }
}

/// What closes a range answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeSummary {
    /// There are more keys than the limit let through.
    pub more: bool,
    /// Live keys in the interval at that revision, whatever the limit and the filters.
    pub count: i64,
}

/// An answer, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To a range.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact,
    /// To a grant.
    LeaseGrant(LeaseGrantResponse),
    /// To a revocation.
    LeaseRevoke,
    /// To a renewal.
    LeaseKeepAlive(LeaseKeepAliveResponse),
    /// To a question about a lease.
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    /// To the question which leases there are.
    Leases(LeasesResponse),
    /// To a request about alarms.
    Alarm(AlarmResponse),
}

/// The pairs read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse {
    /// In the order asked for; empty if only the count was asked for.
    pub kvs: Vec<OwnedKeyValue>,
    /// There are more keys than the limit let through.
    pub more: bool,
    /// As in [`RangeSummary::count`].
    pub count: i64,
}

impl KvSink for RangeResponse {
    fn push(&mut self, kv: KeyValue<'_>) {
        self.kvs.push(kv.to_owned());
    }
}

/// The answer to a put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutResponse {
    /// The pair before the put, if asked for and if there was one.
    pub prev_kv: Option<OwnedKeyValue>,
}

/// The answer to a delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeResponse {
    /// How many keys were deleted.
    pub deleted: i64,
    /// The deleted pairs, if asked for.
    pub prev_kvs: Vec<OwnedKeyValue>,
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResponse {
    /// Every compare held.
    pub succeeded: bool,
    /// One answer per operation that ran, in order: to a range, put, delete or transaction.
    pub responses: Vec<Response>,
}

/// Why a request was refused; the text and the class are etcd's, and clients match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Error {
    /// The key is empty.
    EmptyKey = 1,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or an empty operation.
    KeyNotFound = 2,
    /// A value beside `ignore_value`.
    ValueProvided = 3,
    /// A lease beside `ignore_lease`.
    LeaseProvided = 4,
    /// A transaction with more operations than allowed.
    TooManyOps = 5,
    /// A transaction that writes one key twice.
    DuplicateKey = 6,
    /// A sort order or target that does not exist.
    InvalidSortOption = 7,
    /// A request over the size limit.
    RequestTooLarge = 8,
    /// The revision has been compacted.
    Compacted = 9,
    /// The revision does not exist yet.
    FutureRevision = 10,
    /// No space for writes.
    NoSpace = 11,
    /// More requests in flight than allowed.
    TooManyRequests = 12,
    /// No such lease.
    LeaseNotFound = 13,
    /// Stored data does not match its checksum.
    Corrupt = 14,
    /// There is no leader now.
    NoLeader = 15,
    /// The leader changed while the request waited; a write's outcome is unknown.
    LeaderChanged = 16,
    /// The server is stopping; a write's outcome is unknown.
    Stopped = 17,
    /// The request waited too long; a write's outcome is unknown.
    Timeout = 18,
    /// The call exists but is not served.
    Unimplemented = 19,
    /// The answer is larger than any may be; a write it belongs to has taken place.
    ResponseTooLarge = 20,
    /// A lease of that id exists.
    LeaseExists = 21,
    /// A lease for longer than any may be granted.
    LeaseTtlTooLarge = 22,
}

impl Error {
    /// Every error, in the order of the codes.
    pub const ALL: [Error; 22] = [
        Error::EmptyKey,
        Error::KeyNotFound,
        Error::ValueProvided,
        Error::LeaseProvided,
        Error::TooManyOps,
        Error::DuplicateKey,
        Error::InvalidSortOption,
        Error::RequestTooLarge,
        Error::Compacted,
        Error::FutureRevision,
        Error::NoSpace,
        Error::TooManyRequests,
        Error::LeaseNotFound,
        Error::Corrupt,
        Error::NoLeader,
        Error::LeaderChanged,
        Error::Stopped,
        Error::Timeout,
        Error::Unimplemented,
        Error::ResponseTooLarge,
        Error::LeaseExists,
        Error::LeaseTtlTooLarge,
    ];

    /// The number that stands for this error on the native wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The error with that number.
    pub fn from_code(code: u16) -> Option<Error> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// The exact text that etcd's clients know.
    pub fn message(self) -> &'static str {
        match self {
            Error::EmptyKey => "etcdserver: key is not provided",
            Error::KeyNotFound => "etcdserver: key not found",
            Error::ValueProvided => "etcdserver: value is provided",
            Error::LeaseProvided => "etcdserver: lease is provided",
            Error::TooManyOps => "etcdserver: too many operations in txn request",
            Error::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Error::InvalidSortOption => "etcdserver: invalid sort option",
            Error::RequestTooLarge => "etcdserver: request is too large",
            Error::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Error::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Error::NoSpace => "etcdserver: mvcc: database space exceeded",
            Error::TooManyRequests => "etcdserver: too many requests",
            Error::LeaseNotFound => "etcdserver: requested lease not found",
            Error::Corrupt => "etcdserver: corrupt cluster",
            Error::NoLeader => "etcdserver: no leader",
            Error::LeaderChanged => "etcdserver: leader changed",
            Error::Stopped => "etcdserver: server stopped",
            Error::Timeout => "etcdserver: request timed out",
            Error::Unimplemented => "etcdserver: not implemented",
            Error::ResponseTooLarge => "etcdserver: response is too large",
            Error::LeaseExists => "etcdserver: lease already exists",
            Error::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
        }
    }

    /// Whether a write refused with this error may still have taken place.
    pub fn outcome_unknown(self) -> bool {
        matches!(
            self,
            Error::LeaderChanged | Error::Stopped | Error::Timeout | Error::ResponseTooLarge
        )
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn every_code_names_its_own_error() {
        for (at, error) in Error::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(error.code()), at + 1);
            assert_eq!(Error::from_code(error.code()), Some(error));
        }
        assert_eq!(Error::from_code(0), None);
        assert_eq!(Error::from_code(Error::ALL.len() as u16 + 1), None);
    }
}
