//! The messages of the JSON gateway: names and kinds of their fields.
#![forbid(unsafe_code)]

use crate::etcd::Method;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `bytes`: base64.
    Bytes,
    /// `string`.
    Text,
    /// `int64`: a string, because JSON's numbers are shorter.
    Signed,
    /// `uint64`: the same.
    Unsigned,
    /// `uint32`: a number.
    Number,
    /// `bool`.
    Bool,
    /// An enum: the names of its numbers, from 0 on.
    Names(&'static [&'static str]),
    /// A message.
    Message(&'static [Field]),
}

/// A field: its number, its name in etcd's files, and what it holds.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The number.
    pub number: u32,
    /// The name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// There may be any number of it.
    pub repeated: bool,
    /// The name of the choice that it belongs to: of its fields a message has one at most.
    pub oneof: Option<&'static str>,
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        repeated: false,
        oneof: None,
    }
}

const fn choice(number: u32, name: &'static str, kind: Kind, of: &'static str) -> Field {
    Field {
        number,
        name,
        kind,
        repeated: false,
        oneof: Some(of),
    }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        repeated: true,
        oneof: None,
    }
}

use Kind::{Bool, Bytes, Message, Names, Number, Signed, Text, Unsigned};

const HEADER: Field = one(
    1,
    "header",
    Message(&[
        one(1, "cluster_id", Unsigned),
        one(2, "member_id", Unsigned),
        one(3, "revision", Signed),
        one(4, "raft_term", Unsigned),
    ]),
);

const PAIR: Kind = Message(&[
    one(1, "key", Bytes),
    one(2, "create_revision", Signed),
    one(3, "mod_revision", Signed),
    one(4, "version", Signed),
    one(5, "value", Bytes),
    one(6, "lease", Signed),
]);

const RANGE: &[Field] = &[
    one(1, "key", Bytes),
    one(2, "range_end", Bytes),
    one(3, "limit", Signed),
    one(4, "revision", Signed),
    one(5, "sort_order", Names(&["NONE", "ASCEND", "DESCEND"])),
    one(
        6,
        "sort_target",
        Names(&["KEY", "VERSION", "CREATE", "MOD", "VALUE"]),
    ),
    one(7, "serializable", Bool),
    one(8, "keys_only", Bool),
    one(9, "count_only", Bool),
    one(10, "min_mod_revision", Signed),
    one(11, "max_mod_revision", Signed),
    one(12, "min_create_revision", Signed),
    one(13, "max_create_revision", Signed),
];

const RANGE_ANSWER: &[Field] = &[
    HEADER,
    many(2, "kvs", PAIR),
    one(3, "more", Bool),
    one(4, "count", Signed),
];

const PUT: &[Field] = &[
    one(1, "key", Bytes),
    one(2, "value", Bytes),
    one(3, "lease", Signed),
    one(4, "prev_kv", Bool),
    one(5, "ignore_value", Bool),
    one(6, "ignore_lease", Bool),
];

const PUT_ANSWER: &[Field] = &[HEADER, one(2, "prev_kv", PAIR)];

const DELETE: &[Field] = &[
    one(1, "key", Bytes),
    one(2, "range_end", Bytes),
    one(3, "prev_kv", Bool),
];

const DELETE_ANSWER: &[Field] = &[HEADER, one(2, "deleted", Signed), many(3, "prev_kvs", PAIR)];

const OPERAND: &str = "etcdserverpb.Compare.target_union";

const COMPARE: &[Field] = &[
    one(
        1,
        "result",
        Names(&["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]),
    ),
    one(
        2,
        "target",
        Names(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]),
    ),
    one(3, "key", Bytes),
    choice(4, "version", Signed, OPERAND),
    choice(5, "create_revision", Signed, OPERAND),
    choice(6, "mod_revision", Signed, OPERAND),
    choice(7, "value", Bytes, OPERAND),
    choice(8, "lease", Signed, OPERAND),
    one(64, "range_end", Bytes),
];

const REQUEST: &str = "etcdserverpb.RequestOp.request";

static OP: [Field; 4] = [
    choice(1, "request_range", Message(RANGE), REQUEST),
    choice(2, "request_put", Message(PUT), REQUEST),
    choice(3, "request_delete_range", Message(DELETE), REQUEST),
    choice(4, "request_txn", Message(&TXN), REQUEST),
];

static TXN: [Field; 3] = [
    many(1, "compare", Message(COMPARE)),
    many(2, "success", Message(&OP)),
    many(3, "failure", Message(&OP)),
];

static OP_ANSWER: [Field; 4] = [
    one(1, "response_range", Message(RANGE_ANSWER)),
    one(2, "response_put", Message(PUT_ANSWER)),
    one(3, "response_delete_range", Message(DELETE_ANSWER)),
    one(4, "response_txn", Message(&TXN_ANSWER)),
];

static TXN_ANSWER: [Field; 3] = [
    HEADER,
    one(2, "succeeded", Bool),
    many(3, "responses", Message(&OP_ANSWER)),
];

const HEADER_ALONE: &[Field] = &[HEADER];

const LEASE: &[Field] = &[one(1, "ID", Signed)];

const LEASE_ANSWER: &[Field] = &[
    HEADER,
    one(2, "ID", Signed),
    one(3, "TTL", Signed),
    one(4, "error", Text),
];

const ALARM: Kind = Names(&["NONE", "NOSPACE", "CORRUPT"]);

/// A call of the gateway: its path behind `/v3`, the call, its message and its answer.
pub type Path = (&'static str, Method, &'static [Field], &'static [Field]);

/// Every call of the gateway.
pub static PATHS: &[Path] = &[
    ("/kv/range", Method::Range, RANGE, RANGE_ANSWER),
    ("/kv/put", Method::Put, PUT, PUT_ANSWER),
    (
        "/kv/deleterange",
        Method::DeleteRange,
        DELETE,
        DELETE_ANSWER,
    ),
    ("/kv/txn", Method::Txn, &TXN, &TXN_ANSWER),
    (
        "/kv/compaction",
        Method::Compact,
        &[one(1, "revision", Signed), one(2, "physical", Bool)],
        HEADER_ALONE,
    ),
    (
        "/lease/grant",
        Method::LeaseGrant,
        &[one(1, "TTL", Signed), one(2, "ID", Signed)],
        LEASE_ANSWER,
    ),
    ("/lease/revoke", Method::LeaseRevoke, LEASE, HEADER_ALONE),
    ("/kv/lease/revoke", Method::LeaseRevoke, LEASE, HEADER_ALONE),
    (
        "/lease/keepalive",
        Method::LeaseKeepAlive,
        LEASE,
        LEASE_ANSWER,
    ),
    (
        "/lease/timetolive",
        Method::LeaseTimeToLive,
        TIME_TO_LIVE,
        TIME_TO_LIVE_ANSWER,
    ),
    (
        "/kv/lease/timetolive",
        Method::LeaseTimeToLive,
        TIME_TO_LIVE,
        TIME_TO_LIVE_ANSWER,
    ),
    ("/lease/leases", Method::LeaseLeases, &[], LEASES_ANSWER),
    ("/kv/lease/leases", Method::LeaseLeases, &[], LEASES_ANSWER),
    (
        "/cluster/member/list",
        Method::MemberList,
        &[one(1, "linearizable", Bool)],
        &[
            HEADER,
            many(
                2,
                "members",
                Message(&[
                    one(1, "ID", Unsigned),
                    one(2, "name", Text),
                    many(3, "peerURLs", Text),
                    many(4, "clientURLs", Text),
                    one(5, "isLearner", Bool),
                ]),
            ),
        ],
    ),
    (
        "/maintenance/alarm",
        Method::Alarm,
        &[
            one(1, "action", Names(&["GET", "ACTIVATE", "DEACTIVATE"])),
            one(2, "memberID", Unsigned),
            one(3, "alarm", ALARM),
        ],
        &[
            HEADER,
            many(
                2,
                "alarms",
                Message(&[one(1, "memberID", Unsigned), one(2, "alarm", ALARM)]),
            ),
        ],
    ),
    (
        "/maintenance/status",
        Method::Status,
        &[],
        &[
            HEADER,
            one(2, "version", Text),
            one(3, "dbSize", Signed),
            one(4, "leader", Unsigned),
            one(5, "raftIndex", Unsigned),
            one(6, "raftTerm", Unsigned),
            one(7, "raftAppliedIndex", Unsigned),
            many(8, "errors", Text),
            one(9, "dbSizeInUse", Signed),
            one(10, "isLearner", Bool),
            one(11, "storageVersion", Text),
            one(12, "dbSizeQuota", Signed),
            one(
                13,
                "downgradeInfo",
                Message(&[one(1, "enabled", Bool), one(2, "targetVersion", Text)]),
            ),
        ],
    ),
    (
        "/maintenance/defragment",
        Method::Defragment,
        &[],
        HEADER_ALONE,
    ),
    (
        "/watch",
        Method::Watch,
        &[
            choice(1, "create_request", WATCH_CREATE, WATCH),
            choice(2, "cancel_request", WATCH_CANCEL, WATCH),
            choice(3, "progress_request", Message(&[]), WATCH),
        ],
        &[
            HEADER,
            one(2, "watch_id", Signed),
            one(3, "created", Bool),
            one(4, "canceled", Bool),
            one(5, "compact_revision", Signed),
            one(6, "cancel_reason", Text),
            one(7, "fragment", Bool),
            many(
                11,
                "events",
                Message(&[
                    one(1, "type", Names(&["PUT", "DELETE"])),
                    one(2, "kv", PAIR),
                    one(3, "prev_kv", PAIR),
                ]),
            ),
        ],
    ),
    (
        "/election/observe",
        Method::Observe,
        ELECTION,
        LEADER_ANSWER,
    ),
    (
        "/lock/lock",
        Method::Lock,
        &[one(1, "name", Bytes), one(2, "lease", Signed)],
        &[HEADER, one(2, "key", Bytes)],
    ),
    (
        "/lock/unlock",
        Method::Unlock,
        &[one(1, "key", Bytes)],
        HEADER_ALONE,
    ),
    (
        "/election/campaign",
        Method::Campaign,
        &[
            one(1, "name", Bytes),
            one(2, "lease", Signed),
            one(3, "value", Bytes),
        ],
        &[HEADER, one(2, "leader", LEADER)],
    ),
    (
        "/election/proclaim",
        Method::Proclaim,
        &[one(1, "leader", LEADER), one(2, "value", Bytes)],
        HEADER_ALONE,
    ),
    ("/election/leader", Method::Leader, ELECTION, LEADER_ANSWER),
    (
        "/election/resign",
        Method::Resign,
        &[one(1, "leader", LEADER)],
        HEADER_ALONE,
    ),
    (
        "/maintenance/hash",
        Method::Hash,
        &[],
        &[HEADER, one(2, "hash", Number)],
    ),
    (
        "/maintenance/hashkv",
        Method::HashKv,
        &[one(1, "revision", Signed)],
        &[
            HEADER,
            one(2, "hash", Number),
            one(3, "compact_revision", Signed),
            one(4, "hash_revision", Signed),
        ],
    ),
    (
        "/maintenance/transfer-leadership",
        Method::MoveLeader,
        &[one(1, "targetID", Unsigned)],
        &[],
    ),
    (
        "/maintenance/downgrade",
        Method::Downgrade,
        &[
            one(1, "action", Names(&["VALIDATE", "ENABLE", "CANCEL"])),
            one(2, "version", Text),
        ],
        &[HEADER, one(2, "version", Text)],
    ),
    (
        "/maintenance/snapshot",
        Method::Snapshot,
        &[],
        &[
            HEADER,
            one(2, "remaining_bytes", Unsigned),
            one(3, "blob", Bytes),
            one(4, "version", Text),
        ],
    ),
    ("/auth/disable", Method::AuthDisable, &[], HEADER_ALONE),
    (
        "/auth/user/list",
        Method::UserList,
        &[],
        &[HEADER, many(2, "users", Text)],
    ),
    (
        "/auth/role/list",
        Method::RoleList,
        &[],
        &[HEADER, many(2, "roles", Text)],
    ),
    (
        "/auth/status",
        Method::AuthStatus,
        &[],
        &[
            HEADER,
            one(2, "enabled", Bool),
            one(3, "authRevision", Unsigned),
        ],
    ),
];

const WATCH: &str = "etcdserverpb.WatchRequest.request_union";

const WATCH_CANCEL: Kind = Message(&[one(1, "watch_id", Signed)]);

const WATCH_CREATE: Kind = Message(&[
    one(1, "key", Bytes),
    one(2, "range_end", Bytes),
    one(3, "start_revision", Signed),
    one(4, "progress_notify", Bool),
    many(5, "filters", Names(&["NOPUT", "NODELETE"])),
    one(6, "prev_kv", Bool),
    one(7, "watch_id", Signed),
    one(8, "fragment", Bool),
]);

const ELECTION: &[Field] = &[one(1, "name", Bytes)];

const LEADER: Kind = Message(&[
    one(1, "name", Bytes),
    one(2, "key", Bytes),
    one(3, "rev", Signed),
    one(4, "lease", Signed),
]);

const LEADER_ANSWER: &[Field] = &[HEADER, one(2, "kv", PAIR)];

/// Calls of etcd's gateway that are refused, and their names; what their messages say does not
/// matter.
pub static REFUSED: &[(&str, &str)] = &[
    ("/cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    (
        "/cluster/member/remove",
        "/etcdserverpb.Cluster/MemberRemove",
    ),
    (
        "/cluster/member/update",
        "/etcdserverpb.Cluster/MemberUpdate",
    ),
    (
        "/cluster/member/promote",
        "/etcdserverpb.Cluster/MemberPromote",
    ),
    ("/auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("/auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("/auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("/auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("/auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    (
        "/auth/user/changepw",
        "/etcdserverpb.Auth/UserChangePassword",
    ),
    ("/auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("/auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("/auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("/auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("/auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("/auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    (
        "/auth/role/revoke",
        "/etcdserverpb.Auth/RoleRevokePermission",
    ),
];

const TIME_TO_LIVE: &[Field] = &[one(1, "ID", Signed), one(2, "keys", Bool)];

const TIME_TO_LIVE_ANSWER: &[Field] = &[
    HEADER,
    one(2, "ID", Signed),
    one(3, "TTL", Signed),
    one(4, "grantedTTL", Signed),
    many(5, "keys", Bytes),
];

const LEASES_ANSWER: &[Field] = &[HEADER, many(2, "leases", Message(&[one(1, "ID", Signed)]))];
