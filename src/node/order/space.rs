//! A full disk as an alarm: writes that were refused for want of space are made known to the
//! cluster, and to whoever runs it, until somebody takes the alarm back.

use crate::api::{AlarmAction, AlarmKind, AlarmRequest, Request};
use crate::limits;

/// Whether the alarm is to be raised.
#[derive(Debug, Default)]
pub(super) struct SpaceAlarm {
    /// A write was refused since the alarm was last seen raised.
    wanted: bool,
    /// It was proposed then, and has not been seen yet.
    asked_ns: Option<u64>,
}

impl SpaceAlarm {
    /// A write was refused because the disk is full.
    pub fn refused(&mut self) {
        self.wanted = true;
    }

    /// Whether to propose the alarm now; `raised` says whether it is.
    pub fn due(&mut self, raised: bool, now_ns: u64) -> bool {
        if raised {
            *self = SpaceAlarm::default();
        }
        let retry_ns = limits::ALARM_RETRY_MS * 1_000_000;
        let asked = |at_ns: u64| now_ns < at_ns.saturating_add(retry_ns);
        if !self.wanted || self.asked_ns.is_some_and(asked) {
            return false;
        }
        self.asked_ns = Some(now_ns);
        true
    }
}

/// Raises the alarm of a member.
pub(super) fn raise(member_id: u64) -> Request<'static> {
    Request::Alarm(AlarmRequest {
        action: AlarmAction::Activate,
        member_id,
        alarm: Some(AlarmKind::NoSpace),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_once_until_it_is_seen_and_again_after_it_was_taken_back() {
        let second = limits::ALARM_RETRY_MS * 1_000_000;
        let mut alarm = SpaceAlarm::default();
        assert!(!alarm.due(false, 0), "nothing was refused");
        alarm.refused();
        assert!(alarm.due(false, 5));
        alarm.refused();
        assert!(!alarm.due(false, 6), "it is on its way");
        assert!(alarm.due(false, 5 + second), "it may have been lost");
        assert!(!alarm.due(true, 6 + second));
        assert!(!alarm.due(false, 3 * second), "taken back, nothing refused");
        alarm.refused();
        assert!(alarm.due(false, 3 * second), "refused again");
    }
}
