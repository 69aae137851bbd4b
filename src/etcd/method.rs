//! The calls by their names.
#![forbid(unsafe_code)]

use super::status::{Code, Status};

/// A call that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `etcdserverpb.KV/Range`
    Range,
    /// `etcdserverpb.KV/RangeStream`; the answer is a stream.
    RangeStream,
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
    /// `etcdserverpb.Maintenance/Hash`
    Hash,
    /// `etcdserverpb.Maintenance/HashKV`
    HashKv,
    /// `etcdserverpb.Auth/AuthStatus`
    AuthStatus,
    /// `etcdserverpb.Auth/AuthDisable`
    AuthDisable,
    /// `etcdserverpb.Auth/UserList`
    UserList,
    /// `etcdserverpb.Auth/RoleList`
    RoleList,
    /// `etcdserverpb.Maintenance/Snapshot`; the answer is a stream.
    Snapshot,
    /// `etcdserverpb.Maintenance/MoveLeader`
    MoveLeader,
    /// `etcdserverpb.Maintenance/Downgrade`
    Downgrade,
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
    /// `grpc.health.v1.Health/List`
    HealthList,
    /// `grpc.health.v1.Health/Watch`; a stream on which the server speaks unasked.
    HealthWatch,
}

impl Method {
    /// Every call.
    pub const ALL: [Method; 35] = [
        Method::Range,
        Method::RangeStream,
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
        Method::Hash,
        Method::HashKv,
        Method::AuthStatus,
        Method::AuthDisable,
        Method::UserList,
        Method::RoleList,
        Method::Snapshot,
        Method::MoveLeader,
        Method::Downgrade,
        Method::HealthCheck,
        Method::Lock,
        Method::Unlock,
        Method::Campaign,
        Method::Proclaim,
        Method::Leader,
        Method::Observe,
        Method::Resign,
        Method::HealthList,
        Method::HealthWatch,
    ];

    /// Whether a client may send any number of messages.
    pub fn is_stream(self) -> bool {
        matches!(
            self,
            Method::LeaseKeepAlive | Method::Watch | Method::HealthWatch
        )
    }

    /// Whether the client may send any number of messages.
    pub fn takes_many(self) -> bool {
        matches!(self, Method::LeaseKeepAlive | Method::Watch)
    }

    /// Whether the server answers each message with one, or ends the call.
    pub fn is_asked(self) -> bool {
        !matches!(self, Method::Watch | Method::HealthWatch)
    }

    /// Whether the server speaks of its own accord.
    pub fn tells(self) -> bool {
        matches!(self, Method::Watch | Method::Observe | Method::HealthWatch)
    }

    /// Whether the answer is any number of messages.
    pub fn gives_many(self) -> bool {
        self.tells() || matches!(self, Method::RangeStream | Method::Snapshot)
    }

    /// Whether a call may wait for long, so that the front has to know when its client gives up.
    pub fn lingers(self) -> bool {
        self.tells()
            || matches!(
                self,
                Method::Lock
                    | Method::Campaign
                    | Method::RangeStream
                    | Method::Hash
                    | Method::HashKv
                    | Method::Snapshot
            )
    }
}

/// A service: its name, the calls that are served, and those of etcd that are not.
type Service = (
    &'static str,
    &'static [(&'static str, Method)],
    &'static [&'static str],
);

/// Users and roles are kept by no release yet: what would need them is answered as by an etcd
/// that does not ask for them.
const AUTH: &str = "etcdserverpb.Auth";

const SERVICES: &[Service] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", Method::Range),
            ("RangeStream", Method::RangeStream),
            ("Put", Method::Put),
            ("DeleteRange", Method::DeleteRange),
            ("Txn", Method::Txn),
            ("Compact", Method::Compact),
        ],
        &[],
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
            ("Hash", Method::Hash),
            ("HashKV", Method::HashKv),
            ("Snapshot", Method::Snapshot),
            ("MoveLeader", Method::MoveLeader),
            ("Downgrade", Method::Downgrade),
        ],
        &[],
    ),
    (
        AUTH,
        &[
            ("AuthStatus", Method::AuthStatus),
            ("AuthDisable", Method::AuthDisable),
            ("UserList", Method::UserList),
            ("RoleList", Method::RoleList),
        ],
        &[
            "AuthEnable",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    (
        "grpc.health.v1.Health",
        &[
            ("Check", Method::HealthCheck),
            ("List", Method::HealthList),
            ("Watch", Method::HealthWatch),
        ],
        &[],
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
            None if service == AUTH && known.contains(&method) => Err(Status::new(
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
            )),
            None if known.contains(&method) => Err(unimplemented(format!(
                "this version of quoin does not serve {service}/{method}"
            ))),
            None => Err(unimplemented(format!(
                "unknown method {method} for service {service}"
            ))),
        }
    }
}

impl Method {
    /// The service that it belongs to, and its name there.
    pub fn name(self) -> (&'static str, &'static str) {
        for (service, served, _) in SERVICES {
            if let Some((name, _)) = served.iter().find(|(_, method)| *method == self) {
                return (service, name);
            }
        }
        unreachable!("{self:?} stands in no service")
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
                "/etcdserverpb.Cluster/MemberAdd",
                "this version of quoin does not serve etcdserverpb.Cluster/MemberAdd",
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
    fn what_needs_users_is_answered_as_where_authentication_is_off() {
        let refused = Method::from_path("/etcdserverpb.Auth/UserAdd").unwrap_err();
        assert_eq!(refused.code, Code::FailedPrecondition);
        assert_eq!(refused.message, "etcdserver: authentication is not enabled");
    }

    #[test]
    fn every_method_has_a_name_and_its_own_place() {
        for (place, method) in Method::ALL.into_iter().enumerate() {
            let (service, name) = method.name();
            assert_eq!(Method::from_path(&format!("/{service}/{name}")), Ok(method));
            assert_eq!(method as usize, place);
        }
    }

    /// The calls of etcd 3.7, by service, as its files list them.
    const OF_ETCD: &[(&str, &[&str])] = &[
        (
            "KV",
            &[
                "Range",
                "RangeStream",
                "Put",
                "DeleteRange",
                "Txn",
                "Compact",
            ],
        ),
        ("Watch", &["Watch"]),
        (
            "Lease",
            &[
                "LeaseGrant",
                "LeaseRevoke",
                "LeaseKeepAlive",
                "LeaseTimeToLive",
                "LeaseLeases",
            ],
        ),
        (
            "Cluster",
            &[
                "MemberAdd",
                "MemberRemove",
                "MemberUpdate",
                "MemberList",
                "MemberPromote",
            ],
        ),
        (
            "Maintenance",
            &[
                "Alarm",
                "Status",
                "Defragment",
                "Hash",
                "HashKV",
                "Snapshot",
                "MoveLeader",
                "Downgrade",
            ],
        ),
        (
            "Auth",
            &[
                "AuthEnable",
                "AuthDisable",
                "AuthStatus",
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
        ("Health", &["Check", "List", "Watch"]),
        ("Lock", &["Lock", "Unlock"]),
        (
            "Election",
            &["Campaign", "Proclaim", "Leader", "Observe", "Resign"],
        ),
    ];

    #[test]
    fn the_page_on_compatibility_lists_every_call_as_it_is() {
        let page = include_str!("../../docs/compatibility.md");
        let (_, table) = page.split_once("| call | | |").expect("the table");
        let (table, _) = table.split_once("\n\n").expect("its end");
        let mut listed = Vec::new();
        for row in table.lines().skip(2) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (call, state, why) = (cells[1].trim_matches('`'), cells[2], cells[3]);
            assert!(
                ["same", "better", "not yet", "not"].contains(&state),
                "{row}"
            );
            assert!(
                state == "same" || !why.is_empty(),
                "without a reason: {row}"
            );
            let (service, name) = call.split_once('/').expect("a call");
            let known = SERVICES
                .iter()
                .find(|(known, ..)| known.rsplit('.').next() == Some(service));
            let (_, served, _) = known.expect("a service");
            let is_served = served.iter().any(|(known, _)| *known == name);
            assert_eq!(is_served, !state.starts_with("not"), "{row}");
            listed.push((service, name));
        }
        let all = |names: &mut Vec<(&'static str, &'static str)>| {
            names.sort_unstable();
            names.clone()
        };
        let mut of_etcd: Vec<_> = OF_ETCD
            .iter()
            .flat_map(|(service, names)| names.iter().map(|name| (*service, *name)))
            .collect();
        let mut of_code: Vec<_> = SERVICES
            .iter()
            .flat_map(|(service, served, known)| {
                let service = service.rsplit('.').next().unwrap_or_default();
                let names = served.iter().map(|(name, _)| *name);
                names
                    .chain(known.iter().copied())
                    .map(move |name| (service, name))
            })
            .collect();
        listed.sort_unstable();
        assert_eq!(all(&mut of_code), all(&mut of_etcd));
        assert_eq!(listed, of_etcd);
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
