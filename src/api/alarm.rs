//! Requests and answers about alarms.
//!
//! An alarm is a fact about a member that the whole cluster acts on, until somebody who has looked
//! after it takes the alarm back.

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// It has reached its quota: writes that add are refused.
    NoSpace,
    /// Its data differs from that of others: writes are refused.
    Corrupt,
}

/// What to do about alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlarmAction {
    /// Tell which are raised.
    #[default]
    Get,
    /// Raise one.
    Activate,
    /// Take one back.
    Deactivate,
}

/// Asks about alarms, raises one, or takes one back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AlarmRequest {
    /// What to do.
    pub action: AlarmAction,
    /// Whose alarm; ignored by [`AlarmAction::Get`].
    pub member_id: u64,
    /// Which; `None` means all of them to [`AlarmAction::Get`], and nothing to the others.
    pub alarm: Option<AlarmKind>,
}

/// An alarm of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Which.
    pub kind: AlarmKind,
    /// Whose.
    pub member_id: u64,
}

/// The alarms asked for, the one that is raised, or the one that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlarmResponse {
    /// By kind, then by member.
    pub alarms: Vec<Alarm>,
}
