//! The quota: what the store holds is measured here, on each member for itself, and writes that
//! would add too much are refused before the log. The first of them has the alarm raised, and from
//! then on the alarm decides, on all members alike, until somebody takes it back.
#![forbid(unsafe_code)]

use super::{Desk, Turn};
use crate::api::{self, AlarmAction, AlarmKind, AlarmRequest, Request};
use crate::apply::{is_raised, validate};
use crate::limits;
use crate::propose::command::CommandKind;
use crate::propose::waiters::WaiterId;
use crate::wire;
use quoin_storage::mvcc::Meta;
use quoin_storage::tree::Reader;

/// The number of nobody: no slab is so large.
const NOBODY: WaiterId = WaiterId(u64::MAX);

/// What a front knows of the store's size.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Bytes of the store as last looked at, and of all that was proposed since.
    store_bytes: u64,
    /// The alarm is raised, as last looked at. A store that cannot be read counts as if it were:
    /// reads will tell of the damage.
    raised: bool,
    /// An alarm was asked for, at this time, and has not been seen yet.
    asked_ns: Option<u64>,
}

impl Desk {
    /// Looks how large the store is.
    pub fn measure_store(&mut self, reader: &Reader) {
        if self.config.quota_bytes.is_none() {
            return;
        }
        let Ok(meta) = Meta::decode(reader.pin().user()) else {
            self.quota.raised = true;
            return;
        };
        self.quota.store_bytes = meta.live_bytes;
        self.quota.raised = is_raised(&meta, AlarmKind::NoSpace);
        if self.quota.raised {
            self.quota.asked_ns = None;
        }
    }

    /// Refuses a write that adds to a store that has reached its quota.
    pub(super) fn check_quota(
        &mut self,
        request: &Request<'_>,
        bytes: usize,
        turn: &Turn<'_>,
    ) -> Result<(), api::Error> {
        match validate::adds_data(request) {
            true => self.check_quota_of(bytes, turn),
            false => Ok(()),
        }
    }

    /// The same for what is known to add something.
    pub(super) fn check_quota_of(
        &mut self,
        bytes: usize,
        turn: &Turn<'_>,
    ) -> Result<(), api::Error> {
        let Some(quota) = self.config.quota_bytes else {
            return Ok(());
        };
        let cost = bytes as u64 + limits::QUOTA_COST_PER_WRITE;
        if self.quota.store_bytes + cost > quota {
            // Perhaps a compaction has made room since.
            self.measure_store(turn.reader);
        }
        if self.quota.store_bytes + cost > quota {
            self.raise_no_space(turn.now_ns);
            return Err(api::Error::NoSpace);
        }
        self.quota.store_bytes += cost;
        Ok(())
    }

    /// Proposes the alarm, unless it was raised when the store was last measured, or was proposed
    /// a moment ago.
    fn raise_no_space(&mut self, now_ns: u64) {
        let retry_ns = limits::ALARM_RETRY_MS * 1_000_000;
        let asked = self.quota.asked_ns;
        if self.quota.raised || asked.is_some_and(|at_ns| now_ns < at_ns + retry_ns) {
            return;
        }
        self.quota.asked_ns = Some(now_ns);
        let request = Request::Alarm(AlarmRequest {
            action: AlarmAction::Activate,
            member_id: self.config.member_id,
            alarm: Some(AlarmKind::NoSpace),
        });
        let mut body = Vec::new();
        let encoded = wire::encode_body(&request, &mut body);
        assert!(encoded.is_ok(), "ten bytes fit a body");
        self.push(NOBODY, CommandKind::Alarm, &body);
    }
}
