//! The calls by their names.
#![forbid(unsafe_code)]

use super::status::{Code, Status};

/// A call that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `etcdserverpb.KV/Range`
    Range,
    /// `etcdserverpb.KV/Put`
    Put,
    /// `etcdserverpb.KV/DeleteRange`
    DeleteRange,
    /// `etcdserverpb.KV/Txn`
    Txn,
    /// `etcdserverpb.KV/Compact`
    Compact,
    /// `etcdserverpb.Lease/LeaseGrant`
    LeaseGrant,
    /// `etcdserverpb.Lease/LeaseRevoke`
    LeaseRevoke,
    /// `etcdserverpb.Lease/LeaseKeepAlive`; a stream of requests and answers.
    LeaseKeepAlive,
    /// `etcdserverpb.Lease/LeaseTimeToLive`
    LeaseTimeToLive,
    /// `etcdserverpb.Lease/LeaseLeases`
    LeaseLeases,
    /// `etcdserverpb.Watch/Watch`; a stream on which the server speaks unasked.
    Watch,
    /// `etcdserverpb.Cluster/MemberList`
    MemberList,
    /// `etcdserverpb.Maintenance/Alarm`
    Alarm,
    /// `etcdserverpb.Maintenance/Status`
    Status,
    /// `etcdserverpb.Maintenance/Defragment`
    Defragment,
    /// `etcdserverpb.Auth/AuthStatus`
    AuthStatus,
    /// `grpc.health.v1.Health/Check`
    HealthCheck,
    /// `v3lockpb.Lock/Lock`; may wait for long.
    Lock,
    /// `v3lockpb.Lock/Unlock`
    Unlock,
    /// `v3electionpb.Election/Campaign`; may wait for long.
    Campaign,
    /// `v3electionpb.Election/Proclaim`
    Proclaim,
    /// `v3electionpb.Election/Leader`
    Leader,
    /// `v3electionpb.Election/Observe`; the server goes on speaking.
    Observe,
    /// `v3electionpb.Election/Resign`
    Resign,
}

impl Method {
    /// Every call.
    pub const ALL: [Method; 24] = [
        Method::Range,
        Method::Put,
        Method::DeleteRange,
        Method::Txn,
        Method::Compact,
        Method::LeaseGrant,
        Method::LeaseRevoke,
        Method::LeaseKeepAlive,
        Method::LeaseTimeToLive,
        Method::LeaseLeases,
        Method::Watch,
        Method::MemberList,
        Method::Alarm,
        Method::Status,
        Method::Defragment,
        Method::AuthStatus,
        Method::HealthCheck,
        Method::Lock,
        Method::Unlock,
        Method::Campaign,
        Method::Proclaim,
        Method::Leader,
        Method::Observe,
        Method::Resign,
    ];

    /// Whether a client may send any number of messages.
    pub fn is_stream(self) -> bool {
        matches!(self, Method::LeaseKeepAlive | Method::Watch)
    }

    /// Whether the server answers each message with one, or ends the call.
    pub fn is_asked(self) -> bool {
        self != Method::Watch
    }

    /// Whether the server speaks of its own accord.
    pub fn tells(self) -> bool {
        matches!(self, Method::Watch | Method::Observe)
    }

    /// Whether a call may wait for long, so that the front has to know when its client gives up.
    pub fn lingers(self) -> bool {
        self.tells() || matches!(self, Method::Lock | Method::Campaign)
    }
}

/// A service: its name, the calls that are served, and those of etcd that are not.
type Service = (
    &'static str,
    &'static [(&'static str, Method)],
    &'static [&'static str],
);

const SERVICES: &[Service] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", Method::Range),
            ("Put", Method::Put),
            ("DeleteRange", Method::DeleteRange),
            ("Txn", Method::Txn),
            ("Compact", Method::Compact),
        ],
        &["RangeStream"],
    ),
    ("etcdserverpb.Watch", &[("Watch", Method::Watch)], &[]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", Method::LeaseGrant),
            ("LeaseRevoke", Method::LeaseRevoke),
            ("LeaseKeepAlive", Method::LeaseKeepAlive),
            ("LeaseTimeToLive", Method::LeaseTimeToLive),
            ("LeaseLeases", Method::LeaseLeases),
        ],
        &[],
    ),
    (
        "etcdserverpb.Cluster",
        &[("MemberList", Method::MemberList)],
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", Method::Alarm),
            ("Status", Method::Status),
            ("Defragment", Method::Defragment),
        ],
        &["Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[("AuthStatus", Method::AuthStatus)],
        &[
            "AuthEnable",
            "AuthDisable",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    (
        "grpc.health.v1.Health",
        &[("Check", Method::HealthCheck)],
        &["List", "Watch"],
    ),
    (
        "v3lockpb.Lock",
        &[("Lock", Method::Lock), ("Unlock", Method::Unlock)],
        &[],
    ),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", Method::Campaign),
            ("Proclaim", Method::Proclaim),
            ("Leader", Method::Leader),
            ("Observe", Method::Observe),
            ("Resign", Method::Resign),
        ],
        &[],
    ),
];

impl Method {
    /// Finds a call by the path of its HTTP/2 request, `/service/method`.
    pub fn from_path(path: &str) -> Result<Method, Status> {
        let unimplemented = |text: String| Status::new(Code::Unimplemented, text);
        let parts = path
            .strip_prefix('/')
            .and_then(|path| path.rsplit_once('/'));
        let Some((service, method)) = parts else {
            return Err(unimplemented(format!("malformed method name: {path:?}")));
        };
        let Some((_, served, known)) = SERVICES.iter().find(|(name, ..)| *name == service) else {
            return Err(unimplemented(format!("unknown service {service}")));
        };
        match served.iter().find(|(name, _)| *name == method) {
            Some((_, found)) => Ok(*found),
            None if known.contains(&method) => Err(unimplemented(format!(
                "this version of quoin does not serve {service}/{method}"
            ))),
            None => Err(unimplemented(format!(
                "unknown method {method} for service {service}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        assert_eq!(Method::from_path("/etcdserverpb.KV/Put"), Ok(Method::Put));
        for (path, text) in [
            (
                "/etcdserverpb.KV/Get",
                "unknown method Get for service etcdserverpb.KV",
            ),
            ("/etcd.KV/Put", "unknown service etcd.KV"),
            ("/Put", "malformed method name: \"/Put\""),
            ("", "malformed method name: \"\""),
            (
                "/etcdserverpb.Auth/UserAdd",
                "this version of quoin does not serve etcdserverpb.Auth/UserAdd",
            ),
        ] {
            let refused = Method::from_path(path).unwrap_err();
            assert_eq!(
                (refused.code, &*refused.message),
                (Code::Unimplemented, text)
            );
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        for (service, served, known) in SERVICES {
            let mut names: Vec<&str> = served.iter().map(|(name, _)| *name).collect();
            names.extend(*known);
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{service}");
        }
    }
}
