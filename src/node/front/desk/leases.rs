//! What clients ask about leases: gathered in each turn for the order actor, which alone knows
//! how long a lease has left; the rest of the answers is read here, from the published root.
#![forbid(unsafe_code)]

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::requests::Ask;
use super::{Desk, Turn, Waiter};
use crate::api::{
    self, LeaseKeepAliveResponse, LeaseTimeToLiveResponse, LeasesResponse, Request, Response,
};
use crate::apply;
use crate::limits;
use crate::node::messages::{FrontId, LeaseAsks, LeaseTimeAsk};
use crate::wire::{self, Kind};
use quoin_storage::tree::Reader;

/// What is for the next message.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    asks: Option<LeaseAsks>,
}

impl Gathered {
    pub fn is_empty(&self) -> bool {
        self.asks.is_none()
    }

    fn count(&self) -> usize {
        self.asks.as_ref().map_or(0, |asks| {
            asks.keep_alives.len() + asks.times.len() + asks.lists.len()
        })
    }

    fn asks(&mut self, front: FrontId) -> &mut LeaseAsks {
        self.asks.get_or_insert_with(|| LeaseAsks {
            front,
            keep_alives: Vec::new(),
            times: Vec::new(),
            lists: Vec::new(),
        })
    }
}

impl Desk {
    /// Remembers who asked what about leases.
    pub(super) fn ask_about_leases(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        ask: &Ask<'_>,
        request: &Request<'_>,
        now_ns: u64,
    ) -> Result<(), api::Error> {
        // The order actor may be away for longer than clients wait.
        if self.lease_asks.count() >= limits::REQUESTS_PER_FRONT {
            return Err(api::Error::TooManyRequests);
        }
        let mut body = Vec::new();
        if let Request::LeaseTimeToLive(_) = request {
            ask.copy_body(request, &mut body)?;
        }
        let waiter = self.wait(connection, id, ask, now_ns)?;
        let asks = self.lease_asks.asks(self.config.front);
        match request {
            Request::LeaseKeepAlive(renew) => asks.keep_alives.push((waiter, renew.id)),
            Request::LeaseTimeToLive(lease) => asks.times.push(LeaseTimeAsk {
                waiter,
                id: lease.id,
                body,
            }),
            _ => asks.lists.push(waiter),
        }
        Ok(())
    }

    pub fn take_lease_asks(&mut self) -> Option<LeaseAsks> {
        self.lease_asks.asks.take()
    }

    pub fn answer_keep_alive(
        &mut self,
        connection: &mut Connection,
        waiter: &Waiter,
        kept: LeaseKeepAliveResponse,
        revision: i64,
        now_ns: u64,
    ) {
        let response = Response::LeaseKeepAlive(kept);
        self.answer(connection, waiter, revision, &response, now_ns);
    }

    /// Answers how long a lease has left, and with which keys.
    pub fn answer_time_to_live(
        &mut self,
        connection: &mut Connection,
        waiter: &Waiter,
        (ask, ttl): (&LeaseTimeAsk, i64),
        reader: &Reader,
        now_ns: u64,
    ) {
        let Ok(Request::LeaseTimeToLive(request)) =
            wire::decode_request(Kind::LeaseTimeToLive, &ask.body)
        else {
            unreachable!("the body was read when it came");
        };
        let mut turn = Turn::new(reader, now_ns);
        let room = self.room(connection);
        let read = turn.view().map_err(apply::Failure::from).and_then(|view| {
            let revision = view.horizon().revision;
            let response = if ttl < 0 {
                LeaseTimeToLiveResponse {
                    id: request.id,
                    ttl,
                    ..Default::default()
                }
            } else {
                apply::time_to_live(view.tree(), &request, ttl, room)?
            };
            Ok((revision, response))
        });
        let served = match read {
            Ok((revision, response)) => {
                let response = Response::LeaseTimeToLive(response);
                self.answer(connection, waiter, revision, &response, now_ns);
                Ok(())
            }
            Err(failure) => Err(self.own_up_within(&failure, room, now_ns)),
        };
        self.served(
            connection,
            waiter.connection,
            waiter.request,
            served,
            now_ns,
        );
    }

    pub fn answer_leases(
        &mut self,
        connection: &mut Connection,
        waiter: &Waiter,
        ids: &[i64],
        revision: i64,
        now_ns: u64,
    ) {
        if size_of_val(ids) > self.room(connection).min(limits::RESPONSE_BYTES_MAX) {
            let error = api::Error::TooManyRequests;
            self.refuse(connection, waiter.connection, waiter.request, error, now_ns);
            return;
        }
        let response = Response::Leases(LeasesResponse { ids: ids.to_vec() });
        self.answer(connection, waiter, revision, &response, now_ns);
    }

    fn answer(
        &mut self,
        connection: &mut Connection,
        waiter: &Waiter,
        revision: i64,
        response: &Response,
        now_ns: u64,
    ) {
        let header = self.header_at(revision);
        self.write(connection, waiter.connection, now_ns, |connection| {
            answer::response(connection, &header, response, waiter.request);
        });
    }
}
