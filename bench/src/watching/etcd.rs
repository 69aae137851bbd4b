//! Watches of etcd through its client library: one connection and one stream for each task.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::ledger::{Ledger, Place};
use super::{Plan, Until, Watcher};

/// The streams of watches; a watch's id is its place on the stream.
pub struct Etcd {
    runtime: Runtime,
    /// Dropped, a connection is closed.
    streams: Vec<(Client, WatchStream)>,
    watches: u64,
}

impl Etcd {
    /// Connects, and opens all watches.
    pub fn open(plan: &Plan) -> Result<Etcd, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("tokio: {error}"))?;
        let mut streams = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let server = plan.writes.endpoints[number % plan.writes.endpoints.len()];
            let mut client = crate::driver::etcd::open(&runtime, server)?;
            let first = number as u64 * plan.watches;
            let opened = async {
                let limit = plan.writes.timeout + Duration::from_secs(60);
                let opening = begin(&mut client, plan, first);
                let opened = tokio::time::timeout(limit, opening).await;
                opened.map_err(|_| "the server does not confirm the watches".to_string())?
            };
            let stream = runtime.block_on(opened)?;
            streams.push((client, stream));
        }
        Ok(Etcd {
            runtime,
            streams,
            watches: plan.watches,
        })
    }
}

/// Opens the watches of a connection on one stream.
async fn begin(client: &mut Client, plan: &Plan, first: u64) -> Result<WatchStream, String> {
    let layout = plan.layout();
    let describe = |error: etcd_client::Error| format!("a watch cannot be opened: {error}");
    let ask = |watch: u64| {
        let (key, end) = layout.interval(watch);
        let options = (!end.is_empty()).then(|| WatchOptions::new().with_range(end));
        (key, options)
    };
    let (key, options) = ask(first);
    let mut stream = client.watch(key, options).await.map_err(describe)?;
    confirmed(&mut stream, 0).await?;
    // So many are asked for at once: the library keeps a hundred requests.
    const ASKED: u64 = 64;
    let mut watch = 1;
    while watch < plan.watches {
        let some = (plan.watches - watch).min(ASKED);
        for next in watch..watch + some {
            let (key, options) = ask(first + next);
            stream.watch(key, options).await.map_err(describe)?;
        }
        for next in watch..watch + some {
            confirmed(&mut stream, next).await?;
        }
        watch += some;
    }
    Ok(stream)
}

async fn confirmed(stream: &mut WatchStream, watch: u64) -> Result<(), String> {
    match stream.message().await {
        Ok(Some(said)) if said.created() && said.watch_id() == watch as i64 => Ok(()),
        other => Err(format!("watch {watch} is not confirmed: {other:?}")),
    }
}

impl Watcher for Etcd {
    fn run(&mut self, ledger: Ledger, until: &Until) -> Result<Ledger, String> {
        let shared = Rc::new(RefCell::new(Shared {
            ledger,
            until: until.clone(),
            failed: None,
        }));
        let local = LocalSet::new();
        let mut first = 0;
        for (client, stream) in std::mem::take(&mut self.streams) {
            let shared = shared.clone();
            let base = first;
            first += self.watches;
            local.spawn_local(async move {
                let failed = listen(stream, base, &shared).await;
                shared.borrow_mut().failed.get_or_insert(failed);
                drop(client);
            });
        }
        let watched = shared.clone();
        local.block_on(&self.runtime, async move {
            while watched.borrow_mut().go_on() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        // With it go the tasks, and their hold on what they share.
        drop(local);
        let shared = Rc::into_inner(shared).ok_or("a task outlived its time")?;
        let shared = shared.into_inner();
        match shared.failed {
            Some(failed) => Err(failed),
            None => Ok(shared.ledger),
        }
    }
}

struct Shared {
    ledger: Ledger,
    until: Until,
    failed: Option<String>,
}

impl Shared {
    fn go_on(&mut self) -> bool {
        let now = self.until.now();
        self.ledger.turn(now);
        self.failed.is_none() && !self.until.over(&self.ledger, now)
    }

    fn take(&mut self, first: u64, said: &WatchResponse) -> Result<(), String> {
        if said.created() || said.canceled() {
            return Err(format!("a watch is over, or worse: {said:?}"));
        }
        let now = self.until.now();
        let watch = first.wrapping_add(said.watch_id() as u64);
        for event in said.events() {
            let Some(kv) = event.kv() else {
                return Err("an event without its key".into());
            };
            let put = event.event_type() == EventType::Put;
            let place = Place {
                version: if put { kv.version() } else { 0 },
                revision: kv.mod_revision(),
            };
            match self.ledger.read(kv.key(), place, put.then_some(kv.value())) {
                Ok(seen) => self.ledger.told([watch].into_iter(), &seen, now),
                Err(wrong) => self.ledger.wrong(now, wrong),
            }
        }
        Ok(())
    }
}

/// Takes what a stream says, until it is over; returns why.
async fn listen(mut stream: WatchStream, first: u64, shared: &RefCell<Shared>) -> String {
    loop {
        match stream.message().await {
            Ok(Some(said)) => {
                if let Err(wrong) = shared.borrow_mut().take(first, &said) {
                    return wrong;
                }
            }
            Ok(None) => return "the server ended a stream of watches".into(),
            Err(error) => return format!("a stream of watches is lost: {error}"),
        }
    }
}
