//! Calls about the member and its cluster: answered from what the front knows.
#![forbid(unsafe_code)]

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::{Desk, Turn};
use crate::api::AlarmKind;
use crate::apply::{alarms, is_raised};
use crate::etcd::http::Figures;
use crate::etcd::maintenance;
use crate::etcd::{Code, Condition, Method, Refused, Status, member, pb};
use quoin_storage::mvcc::{Horizon, Meta, View};
use quoin_storage::tree::{Interval, Reader};
use std::sync::Arc;

impl Desk {
    /// Answers a call that is not for the store. Membership does not change in this version, so
    /// that a list of the members needs no barrier.
    pub(super) fn ask_about_member(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, method, message): (u64, Method, &[u8]),
        turn: &mut Turn<'_>,
    ) {
        let Figures {
            condition,
            revision,
            ..
        } = self.figures(turn.reader);
        let header = self.header_at(revision);
        let raised = match method {
            Method::Status => alarms(&turn.reader.pin(), None),
            _ => Ok(Vec::new()),
        };
        let raised = raised.map_err(|failure| self.own_up(&failure, turn.now_ns));
        let (member, has_leader) = (Arc::clone(&self.config.member), self.has_leader);
        // Most of these messages have nothing to say, and have to be messages all the same.
        let unreadable = pb::check(message).err().map(Refused::Malformed);
        self.write(connection, id, turn.now_ns, |connection| {
            if let Some(unreadable) = unreadable {
                return answer::close(connection, stream, Some(unreadable.into()));
            }
            let out = &mut connection.output;
            let written = match method {
                Method::MemberList => {
                    member::encode_member_list(&header, std::slice::from_ref(&*member), out);
                    Ok(())
                }
                Method::Status => raised
                    .map(|raised| member::encode_status(&header, &condition, &raised, out))
                    .map_err(Status::from),
                Method::Defragment => {
                    member::encode_defragment(out);
                    Ok(())
                }
                Method::AuthStatus => {
                    member::encode_auth_status(&header, out);
                    Ok(())
                }
                Method::AuthDisable | Method::UserList | Method::RoleList => {
                    maintenance::encode_nobody(&header, out);
                    Ok(())
                }
                Method::MoveLeader => {
                    let id = header.member_id;
                    maintenance::encode_move_leader(message, id, has_leader, out)
                }
                Method::Downgrade => maintenance::encode_downgrade(message, &header, out),
                Method::HealthList => {
                    member::encode_health_list(has_leader, out);
                    Ok(())
                }
                Method::HealthCheck => member::encode_health(message, has_leader, out),
                other => Err(Status::new(
                    Code::Unimplemented,
                    format!("this version of quoin does not serve {other:?}"),
                )),
            };
            answer::close(connection, stream, written.err());
        });
    }

    /// How many keys there are; the tree has counted them.
    pub fn keys(&self, reader: &Reader) -> u64 {
        let snapshot = reader.pin();
        let all = Interval {
            start: &[],
            end: None,
        };
        Horizon::decode(snapshot.user())
            .and_then(|horizon| View::new(&snapshot, horizon).count_at(all, 0))
            .unwrap_or(0)
    }

    /// What is known of the store and the member.
    pub fn figures(&self, reader: &Reader) -> Figures {
        let meta = Meta::decode(reader.pin().user()).unwrap_or_default();
        let member_id = self.config.member_id;
        let condition = Condition {
            // What is in use is known at once, the rest is looked at once a second. Whoever
            // compares the total with the quota, as etcd's alert does, must not miss what the
            // quota is held against.
            total_bytes: self.total_bytes.max(meta.live_bytes),
            live_bytes: meta.live_bytes,
            quota_bytes: self
                .config
                .quota_bytes
                .map_or(-1, |quota| i64::try_from(quota).unwrap_or(i64::MAX)),
            leader: if self.has_leader { member_id } else { 0 },
            applied_index: meta.applied_index,
            is_out_of_space: is_raised(&meta, AlarmKind::NoSpace),
            is_corrupt: is_raised(&meta, AlarmKind::Corrupt),
        };
        Figures {
            condition,
            member_id,
            revision: meta.revision,
            compacted: meta.compacted,
        }
    }
}
