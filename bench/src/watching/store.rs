//! Where keys are in their histories, asked of the store itself.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use quoin::api::{RangeRequest, Request, Response, SortOrder, SortTarget};
use quoin::client::{BlockingClient, ClientOptions};

use super::ledger::{Layout, Place};
use crate::options::Target;

/// Keys that one request asks for.
const PAGE: i64 = 10_000;

/// A key and its place.
type Found = (Vec<u8>, Place);

/// The places of all keys of a layout, by number; zeros for those that do not exist.
pub fn places(target: Target, server: SocketAddr, layout: &Layout) -> Result<Vec<Place>, String> {
    let mut places = vec![Place::default(); layout.keys as usize];
    let mut end = layout.key(layout.keys - 1);
    end.push(0);
    let mut from = layout.key(0);
    let mut pages: Box<dyn Pages> = match target {
        Target::Quoin => {
            let options = ClientOptions::default();
            Box::new(BlockingClient::new([server.to_string()], options))
        }
        #[cfg(feature = "etcd")]
        Target::Etcd => Box::new(Etcd::open(server)?),
        _ => return Err("this target has no versions".into()),
    };
    loop {
        let (page, more) = pages.page(&from, &end)?;
        let Some((last, _)) = page.last() else { break };
        from = [last, &[0][..]].concat();
        for (key, place) in &page {
            let number = layout.number(key).filter(|number| *number < layout.keys);
            let number = number.ok_or("the store has a key that nobody wrote")?;
            places[number as usize] = *place;
        }
        if !more {
            break;
        }
    }
    Ok(places)
}

/// The ids of all leases.
pub fn leases(target: Target, server: SocketAddr) -> Result<Vec<i64>, String> {
    match target {
        Target::Quoin => {
            let client = BlockingClient::new([server.to_string()], ClientOptions::default());
            let answer = client.request(&Request::Leases);
            match answer.map_err(|error| error.to_string())?.body {
                Response::Leases(leases) => Ok(leases.ids),
                other => Err(format!("no list of leases: {other:?}")),
            }
        }
        #[cfg(feature = "etcd")]
        Target::Etcd => {
            let mut etcd = Etcd::open(server)?;
            let answer = etcd.runtime.block_on(etcd.client.leases());
            let answer = answer.map_err(|error| error.to_string())?;
            Ok(answer.leases().iter().map(|lease| lease.id()).collect())
        }
        _ => Err("this target has no leases".into()),
    }
}

/// Reads keys in pages.
trait Pages {
    /// The first keys of an interval, ascending, and whether there are more.
    fn page(&mut self, from: &[u8], end: &[u8]) -> Result<(Vec<Found>, bool), String>;
}

impl Pages for BlockingClient {
    fn page(&mut self, from: &[u8], end: &[u8]) -> Result<(Vec<Found>, bool), String> {
        let request = RangeRequest {
            key: from,
            range_end: end,
            limit: PAGE,
            sort_order: SortOrder::Ascend,
            sort_target: SortTarget::Key,
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer = self.range(request).map_err(|error| error.to_string())?;
        let kvs = answer.body.kvs.into_iter().map(|kv| {
            let place = Place {
                version: kv.version,
                revision: kv.mod_revision,
            };
            (kv.key.to_vec(), place)
        });
        Ok((kvs.collect(), answer.body.more))
    }
}

#[cfg(feature = "etcd")]
struct Etcd {
    runtime: tokio::runtime::Runtime,
    client: etcd_client::Client,
}

#[cfg(feature = "etcd")]
impl Etcd {
    fn open(server: SocketAddr) -> Result<Etcd, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("tokio: {error}"))?;
        let client = crate::driver::etcd::open(&runtime, server)?;
        Ok(Etcd { runtime, client })
    }
}

#[cfg(feature = "etcd")]
impl Pages for Etcd {
    fn page(&mut self, from: &[u8], end: &[u8]) -> Result<(Vec<Found>, bool), String> {
        let options = etcd_client::GetOptions::new()
            .with_range(end)
            .with_limit(PAGE)
            .with_keys_only();
        let asked = self.client.get(from, Some(options));
        let answer = self.runtime.block_on(asked);
        let answer = answer.map_err(|error| error.to_string())?;
        let kvs = answer.kvs().iter().map(|kv| {
            let place = Place {
                version: kv.version(),
                revision: kv.mod_revision(),
            };
            (kv.key().to_vec(), place)
        });
        Ok((kvs.collect(), answer.more()))
    }
}
