//! `--feature-gates`: etcd's names, of which an unknown one is refused, as etcd does.

#![forbid(unsafe_code)]

use super::{FlagError, switch};
use crate::runtime::tally::Feature;

/// A gate of etcd's.
#[derive(Debug)]
struct Gate {
    name: &'static str,
    stage: &'static str,
    /// What it is in etcd unless somebody asks.
    default: bool,
    /// Why it switches nothing: what it is about is there in any case, or is not.
    why: &'static str,
}

const fn alpha(name: &'static str, why: &'static str) -> Gate {
    Gate {
        name,
        stage: "ALPHA",
        default: false,
        why,
    }
}

const fn beta(name: &'static str, default: bool, why: &'static str) -> Gate {
    Gate {
        name,
        stage: "BETA",
        default,
        why,
    }
}

const GATES: &[Gate] = &[
    alpha("AllAlpha", "it stands for the other gates"),
    beta("AllBeta", false, "it stands for the other gates"),
    alpha(
        "CompactHashCheck",
        "a single member has none to compare itself with; every page has a checksum",
    ),
    alpha(
        "InitialCorruptCheck",
        "a single member has none to compare itself with; every page has a checksum",
    ),
    alpha(
        "LeaseCheckpoint",
        "the time that leases have left is always kept",
    ),
    alpha(
        "LeaseCheckpointPersist",
        "the time that leases have left is always kept",
    ),
    alpha(
        "SetMemberLocalAddr",
        "it concerns peers, and this cluster has one member",
    ),
    alpha(
        "StopGRPCServiceOnDefrag",
        "defragmentation does not stop the server",
    ),
    beta(
        "TxnModeWriteWithSharedBuffer",
        true,
        "it tunes etcd's storage engine, which is not quoin's",
    ),
    beta(
        "FastLeaseKeepAlive",
        true,
        "renewals never wait for the log here",
    ),
    alpha(
        "PriorityRequest",
        "leases that end are revoked whatever else waits",
    ),
];

/// A gate that somebody has set: its name, to what, and why it switches nothing.
pub(super) type Set = (&'static str, bool, &'static str);

/// Reads `Name=true,Other=false`.
pub(super) fn read(value: &str) -> Result<Vec<Set>, FlagError> {
    let mut found = Vec::new();
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let refuse = |why: String| Err(FlagError(format!("--feature-gates: {why}")));
        let Some((name, state)) = part.split_once('=') else {
            return refuse(format!("missing bool value for {part}"));
        };
        let Some(gate) = GATES.iter().find(|gate| gate.name == name.trim()) else {
            return refuse(format!("unrecognized feature gate: {}", name.trim()));
        };
        let Some(is_on) = switch(state.trim()) else {
            return refuse(format!("'{part}' is neither true nor false"));
        };
        found.push((gate.name, is_on, gate.why));
    }
    Ok(found)
}

/// Every gate with its stage, and whether it is on: as it was set, else as all of its stage were,
/// else as etcd has it.
pub(super) fn features(set: &[Set]) -> Vec<Feature> {
    let asked = |name: &str| {
        let found = set.iter().rev().find(|(gate, ..)| *gate == name);
        found.map(|(_, is_on, _)| *is_on)
    };
    let feature = |gate: &Gate| {
        let of_stage = match gate.stage {
            "ALPHA" => "AllAlpha",
            _ => "AllBeta",
        };
        let is_on = asked(gate.name).or_else(|| asked(of_stage));
        (gate.name, gate.stage, is_on.unwrap_or(gate.default))
    };
    GATES.iter().map(feature).collect()
}

#[cfg(test)]
mod tests {
    use super::{features, read};

    #[test]
    fn known_gates_are_taken_and_others_refused() {
        let found = read("InitialCorruptCheck=true, LeaseCheckpoint=false").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(read("").unwrap().len(), 0);
        let is_on = |value: &str, name: &str| {
            let features = features(&read(value).unwrap());
            let found = features.iter().find(|(known, ..)| *known == name);
            found.unwrap().2
        };
        assert!(!is_on("", "LeaseCheckpoint") && is_on("", "FastLeaseKeepAlive"));
        assert!(is_on("LeaseCheckpoint=true", "LeaseCheckpoint"));
        assert!(!is_on("AllBeta=false", "FastLeaseKeepAlive"));
        let one = "AllAlpha=true,LeaseCheckpoint=false";
        assert!(!is_on(one, "LeaseCheckpoint") && is_on(one, "PriorityRequest"));
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
