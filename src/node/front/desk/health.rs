//! Who wants to be told whether the server serves: gRPC's own health service.
#![forbid(unsafe_code)]

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::Desk;
use crate::etcd::member::Health;
use crate::etcd::{Method, Refused};

/// A call of `grpc.health.v1.Health/Watch`.
#[derive(Debug)]
pub(super) struct Watcher {
    connection: ConnectionId,
    stream: u64,
    /// As last told.
    told: Health,
}

impl Desk {
    /// Tells how a service is, and remembers who wants to know.
    pub(super) fn watch_health(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, message): (u64, &[u8]),
        now_ns: u64,
    ) {
        let asked = |watcher: &Watcher| (watcher.connection, watcher.stream) == (id, stream);
        if self.health.iter().any(asked) {
            // One question is all that the call has.
            return;
        }
        match Health::of(message, self.has_leader) {
            Ok(told) => {
                self.health.push(Watcher {
                    connection: id,
                    stream,
                    told,
                });
                self.say_health(connection, id, (stream, told), now_ns);
            }
            Err(malformed) => self.write(connection, id, now_ns, |connection| {
                let refused = Refused::Malformed(malformed).on(Method::HealthWatch);
                answer::close(connection, stream, Some(refused));
            }),
        }
    }

    /// Tells how a service is.
    pub fn say_health(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, health): (u64, Health),
        now_ns: u64,
    ) {
        self.write(connection, id, now_ns, |connection| {
            health.encode(&mut connection.output);
            answer::close_unasked(connection, stream);
        });
    }

    /// Who has to be told something new, and what.
    pub fn changed_health(&mut self) -> Vec<(ConnectionId, u64, Health)> {
        let now = match self.has_leader {
            true => Health::Serving,
            false => Health::NotServing,
        };
        let watchers = self.health.iter_mut();
        let changed = watchers.filter_map(|watcher| {
            if watcher.told == now || watcher.told == Health::Unknown {
                return None;
            }
            watcher.told = now;
            Some((watcher.connection, watcher.stream, now))
        });
        changed.collect()
    }

    /// The call is over.
    pub fn end_health(&mut self, id: ConnectionId, stream: u64) {
        let ended = |watcher: &Watcher| (watcher.connection, watcher.stream) == (id, stream);
        self.health.retain(|watcher| !ended(watcher));
    }

    /// The connection is gone.
    pub(in super::super) fn forget_health(&mut self, id: ConnectionId) {
        self.health.retain(|watcher| watcher.connection != id);
    }
}
