//! `--feature-gates`: etcd's names, of which an unknown one is refused, as etcd does.

#![forbid(unsafe_code)]

use super::{FlagError, switch};

/// What is there in any case, or is not, whatever a gate says; the text says why.
const GATES: &[(&str, &str)] = &[
    ("AllAlpha", "it stands for the other gates"),
    ("AllBeta", "it stands for the other gates"),
    (
        "CompactHashCheck",
        "a single member has none to compare itself with; every page has a checksum",
    ),
    (
        "InitialCorruptCheck",
        "a single member has none to compare itself with; every page has a checksum",
    ),
    (
        "LeaseCheckpoint",
        "the time that leases have left is always kept",
    ),
    (
        "LeaseCheckpointPersist",
        "the time that leases have left is always kept",
    ),
    (
        "SetMemberLocalAddr",
        "it concerns peers, and this cluster has one member",
    ),
    (
        "StopGRPCServiceOnDefrag",
        "defragmentation does not stop the server",
    ),
    (
        "TxnModeWriteWithSharedBuffer",
        "it tunes etcd's storage engine, which is not quoin's",
    ),
    ("FastLeaseKeepAlive", "renewals never wait for the log here"),
    (
        "PriorityRequest",
        "leases that end are revoked whatever else waits",
    ),
];

/// Reads `Name=true,Other=false`; each gate that is named, with why it switches nothing.
pub(super) fn read(value: &str) -> Result<Vec<(&'static str, &'static str)>, FlagError> {
    let mut found = Vec::new();
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let refuse = |why: String| Err(FlagError(format!("--feature-gates: {why}")));
        let Some((name, state)) = part.split_once('=') else {
            return refuse(format!("missing bool value for {part}"));
        };
        let Some(gate) = GATES.iter().find(|(known, _)| *known == name.trim()) else {
            return refuse(format!("unrecognized feature gate: {}", name.trim()));
        };
        if switch(state.trim()).is_none() {
            return refuse(format!("'{part}' is neither true nor false"));
        }
        found.push(*gate);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn known_gates_are_taken_and_others_refused() {
        let found = read("InitialCorruptCheck=true, LeaseCheckpoint=false").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(read("").unwrap().len(), 0);
        for (text, why) in [
            ("Nonsense=true", "unrecognized feature gate: Nonsense"),
            ("LeaseCheckpoint", "missing bool value"),
            ("LeaseCheckpoint=perhaps", "neither true nor false"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.0.contains(why), "{refused}");
        }
    }
}
