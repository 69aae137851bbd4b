//! Commands of the order actor's own: nobody waits for their answers.

use super::OrderConfig;
use crate::api::Request;
use crate::limits;
use crate::propose::command::{BatchBuilder, CommandKind};
use crate::wire;
use bytes::Bytes;

/// The number under which such batches are built; no front has it.
const OWN_FRONT: u16 = u16::MAX;
const _: () = assert!(limits::FRONTS_MAX < OWN_FRONT);

/// Gathers them until they leave as one batch.
#[derive(Debug)]
pub(super) struct OwnCommands {
    batch: BatchBuilder,
}

impl OwnCommands {
    pub fn new(config: &OrderConfig) -> OwnCommands {
        OwnCommands {
            batch: BatchBuilder::new(
                config.core.member,
                config.boot,
                OWN_FRONT,
                limits::BATCH_BYTES_MAX,
                limits::BATCH_COMMANDS_MAX as u32,
            ),
        }
    }

    /// Adds a command. There are few in a turn, and all are small: a few hundred leases, two dozen
    /// bytes each.
    pub fn add(&mut self, request: &Request<'_>) {
        let mut body = Vec::new();
        let kind = wire::encode_body(request, &mut body).expect("far shorter than a body may be");
        let kind = CommandKind::from_wire(kind).expect("it is a command");
        let pushed = self.batch.push(0, kind, &body);
        assert!(pushed.is_ok(), "a few small commands fit a batch");
    }

    /// What has gathered.
    pub fn take(&mut self) -> Option<Bytes> {
        Some(self.batch.take()?.bytes)
    }
}
