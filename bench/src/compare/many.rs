//! The rows about many of something on quoin alone: a million idle watches, a thousand stalled
//! ones, a million leases, and a hundred thousand leases that expire within a second.

#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quoin::api::CompactRequest;
use quoin::client::{BlockingClient, ClientOptions};
use quoin::wire::Reply;

use super::clients;
use super::heavy::Heavy;
use super::result::{Row, Unit};
use super::servers::{Server, load};
use super::turns::in_turns;
use crate::options::{Leases, Options, Stop, Target, Workload, fresh_lease_id};
use crate::os::{Poll, connect_narrow};
use crate::report::{digits, grouped, time};
use crate::watching::{Connection, Hear, Kind, Layout, Plan};

/// Bytes that an idle watch, and a live lease, may take.
const BYTES_EACH: f64 = 150.0;

/// Connections that carry the idle watches.
const IDLE_CONNECTIONS: usize = 100;

/// Stalled watches, each on a connection of its own.
const STALLED: usize = 1000;

/// What is written beside idle watches.
const IDLE_WRITES: u64 = 2_000_000;

/// What they may make a server grow by.
const STALLED_BYTES: f64 = (64 << 20) as f64;

/// How long the memory of a server must not shrink before it is taken for settled.
const SETTLED: Duration = Duration::from_secs(5);

impl Heavy<'_> {
    /// Opens many idle watches; takes what they cost in memory, and in the rate of puts.
    pub fn idle_watches(&self) -> Vec<Row> {
        let mut memory = Row::new("idle-watches", "limit 150 B", Unit::Each, Some(1.0));
        let mut puts = Row::new("idle-watches-put", "without them", Unit::Rate, Some(0.9));
        memory.note = format!(
            "RssAnon of {} watches of a key each, beyond their {IDLE_CONNECTIONS} connections",
            grouped(self.many as f64)
        );
        puts.note = format!(
            "puts 50x32 of keys that nobody watches, {} of them, and as many on a server without \
             watches, in turns",
            grouped(IDLE_WRITES as f64)
        );
        self.rounds([memory, puts], |round| {
            let (bytes, rates) = self.idle_round()?;
            eprintln!(
                "idle-watches  round {round}: {} bytes each; {}/s with them, {}/s without",
                digits(bytes),
                grouped(rates.0),
                grouped(rates.1)
            );
            Ok([(bytes, BYTES_EACH), rates])
        })
    }

    /// Bytes of a watch; puts per second with the watches, and without.
    fn idle_round(&self) -> Result<(f64, (f64, f64)), String> {
        let (server, plain) = self.pair()?;
        let address = server.address;
        let watches = self.many / IDLE_CONNECTIONS as u64;
        let plan = |watches: u64| {
            let keys = IDLE_CONNECTIONS as u64 * watches;
            let writes = Options::plain(Target::Quoin, address);
            let each = (IDLE_CONNECTIONS, watches);
            Plan::new(Kind::Idle, writes, each, (1, keys, 1))
        };
        // What the connections cost with a watch each; only what comes on top counts.
        let few = crate::watching::open(&plan(1))?;
        let least = settled(&server)?;
        let many = crate::watching::open(&plan(watches))?;
        let most = settled(&server)?;
        // The connections of `many` are taken for those of `few`, which are closed again.
        drop(few);
        let bytes = most.saturating_sub(least) as f64 / (IDLE_CONNECTIONS as u64 * watches) as f64;
        let rates = in_turns(&server, &plain, IDLE_WRITES)?;
        drop(many);
        Ok((bytes, rates))
    }

    /// Writes much while many watches of all of it take nothing, then lets them go on.
    pub fn stalled_watches(&self) -> Vec<Row> {
        let mut memory = Row::new("stalled-watches", "limit 64 MiB", Unit::Bytes, Some(1.0));
        let mut puts = Row::new("stalled-put", "without them", Unit::Rate, Some(0.95));
        memory.note = format!(
            "growth of RssAnon and of all TCP buffers by {STALLED} watches, each on a connection, \
             beyond {} KiB of each",
            smallest() >> 10
        );
        puts.note = format!(
            "puts 50x32, {} of them, and as many on a server without watches, in turns",
            grouped(self.events as f64)
        );
        self.rounds([memory, puts], |round| {
            let (bytes, rates) = self.stalled_round()?;
            eprintln!(
                "stalled-watches  round {round}: {} MiB; {}/s with them, {}/s without",
                digits(bytes / f64::from(1 << 20)),
                grouped(rates.0),
                grouped(rates.1)
            );
            Ok([(bytes.max(1.0), STALLED_BYTES), rates])
        })
    }

    fn stalled_round(&self) -> Result<(f64, (f64, f64)), String> {
        let (server, plain) = self.pair()?;
        let address = server.address;
        let mut sleepers = Sleepers::open(address, STALLED)?;
        let start = memory(&server)?;
        let rates = in_turns(&server, &plain, self.events)?;
        drop(plain);
        let now = memory(&server)?;
        eprintln!(
            "stalled-watches  RssAnon {} to {} MiB, TCP buffers {} to {} MiB",
            start.0 >> 20,
            now.0 >> 20,
            start.1 >> 20,
            now.1 >> 20
        );
        let grown = now.0.saturating_sub(start.0) + now.1.saturating_sub(start.1);
        // Some see all of it, the others meet a compaction on their way.
        let end = sleepers.wake(address, self.events)?;
        eprintln!("stalled-watches  {end}");
        let beyond = grown.saturating_sub(STALLED as u64 * smallest());
        Ok((beyond as f64, rates))
    }

    /// What a million leases cost in memory.
    pub fn leases(&self) -> Vec<Row> {
        let mut row = Row::new("leases", "limit 150 B", Unit::Each, Some(1.0));
        row.note = format!("RssAnon of {} live leases", grouped(self.many as f64));
        self.rounds([row], |round| {
            let bytes = self.leases_round()?;
            eprintln!("leases  round {round}: {} bytes each", digits(bytes));
            Ok([(bytes, BYTES_EACH)])
        })
    }

    fn leases_round(&self) -> Result<f64, String> {
        let server = self.start(Target::Quoin, false)?;
        let grant = |count: u64| {
            let mut options = load(Target::Quoin, server.address, Workload::KeepAlive, 50, 32);
            options.leases = Leases {
                first: fresh_lease_id(),
                count,
                ttl: 86_400,
                until: None,
            };
            (options.preload, options.stop) = (true, Stop::Total(1));
            clients::ours(&options)
        };
        // So that what grants need besides leases is there.
        grant(self.many / 100)?;
        let before = settled(&server)?;
        grant(self.many)?;
        let after = settled(&server)?;
        Ok(after.saturating_sub(before) as f64 / self.many as f64)
    }

    /// Many leases, each with a key, expire within a second beside puts.
    pub fn expiry(&self) -> Vec<Row> {
        let mut gone = Row::new("expiry", "limit 3 s", Unit::Seconds, Some(1.0));
        let mut puts = Row::new("expiry-put-p99", "usual", Unit::Micros, Some(0.5));
        gone.note = format!(
            "from when the first of {} leases is due until all of their keys are gone",
            grouped(self.expiring as f64)
        );
        puts.note = "puts 64x1: p99 meanwhile, and before".into();
        self.rounds([gone, puts], |round| {
            let server = self.start(Target::Quoin, false)?;
            let plain = Options::plain(Target::Quoin, server.address);
            let plan = crate::expiry::Plan::new(plain, self.expiring);
            let (outcome, effect) = crate::expiry::run(&plan)?;
            if outcome.failed() > 0 {
                return Err(format!("{:?}", outcome.errors));
            }
            let last = outcome.percentile(100.0);
            eprintln!(
                "expiry  round {round}: all gone after {}; puts p99 {} meanwhile, {} before",
                time(last),
                time(effect.during),
                time(effect.before)
            );
            let us = |ns: u64| ns as f64 / 1000.0;
            Ok([
                (last as f64 / 1e9, 3.0),
                (us(effect.during), us(effect.before)),
            ])
        })
    }
}

/// The anonymous memory of a server once it does not shrink any more.
fn settled(server: &Server) -> Result<u64, String> {
    let limit = Instant::now() + Duration::from_secs(60);
    let mut least = (server.anonymous_bytes()?, Instant::now());
    while least.1.elapsed() < SETTLED && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(200));
        let now = server.anonymous_bytes()?;
        if now + (1 << 18) < least.0 {
            least = (now, Instant::now());
        }
    }
    Ok(least.0)
}

/// Anonymous memory of a server, and bytes of the buffers of all TCP sockets of this machine.
fn memory(server: &Server) -> Result<(u64, u64), String> {
    let file = "/proc/net/sockstat";
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit_once(" mem ")?.1.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| format!("{file}: no memory of TCP"))?;
    Ok((server.anonymous_bytes()?, pages * 4096))
}

/// What the kernel holds for a connection at its smallest, bytes: the least send buffer of one
/// end and the least receive buffer of the other.
fn smallest() -> u64 {
    let least = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        let first = text
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok());
        first.unwrap_or(4096)
    };
    least("tcp_wmem") + least("tcp_rmem")
}

/// Watches of all keys that read nothing.
struct Sleepers {
    connections: Vec<Sleeper>,
}

struct Sleeper {
    connection: Connection,
    heard: Heard,
}

/// What a sleeper was told when it was let go on.
#[derive(Default)]
struct Heard {
    /// The newest revision.
    newest: i64,
    events: u64,
    /// The revision to begin at again, once a compaction has ended the watch.
    compacted: Option<i64>,
}

impl Hear for Heard {
    fn hear(&mut self, _first: u64, reply: &Reply<'_>) -> Result<(), String> {
        match reply {
            Reply::WatchEvents { events, .. } => {
                for event in events.iter() {
                    let revision = event.kv.mod_revision;
                    // Each put is a revision of its own.
                    if self.newest != 0 && revision != self.newest + 1 {
                        return Err(format!("a gap: {revision} after {}", self.newest));
                    }
                    self.newest = revision;
                    self.events += 1;
                }
                Ok(())
            }
            Reply::WatchCancelled {
                compact_revision, ..
            } if *compact_revision > self.newest => {
                self.compacted = Some(*compact_revision);
                Ok(())
            }
            other => Err(format!("unexpected: {other:?}")),
        }
    }
}

/// Sleepers that see all of history when they go on.
const SEE_ALL: usize = 5;

impl Sleepers {
    /// Opens so many watches of all keys that puts write.
    fn open(server: SocketAddr, count: usize) -> Result<Sleepers, String> {
        let SocketAddr::V4(narrow) = server else {
            return Err("not an IPv4 address".into());
        };
        crate::os::raise_open_files();
        let keys = Options::plain(Target::Quoin, server).keys;
        let layout = Layout {
            prefix: String::new(),
            key_size: 24,
            keys,
            span: keys,
            points: false,
        };
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let socket = connect_narrow(narrow)
                .map_err(|error| format!("cannot reach quoin at {server}: {error}"))?;
            let mut connection = Connection::begin(socket, server, &layout, number as u64, 1)?;
            let mut heard = Heard::default();
            let limit = Instant::now() + Duration::from_secs(10);
            while connection.created == 0 {
                connection.turn(&mut heard)?;
                if Instant::now() > limit {
                    return Err("a watch is not confirmed".into());
                }
            }
            connections.push(Sleeper { connection, heard });
        }
        Ok(Sleepers { connections })
    }

    /// Lets all go on, some before a compaction; each must see a gapless history of `events` or
    /// a gapless beginning of it and a cancel. Says what they saw.
    fn wake(&mut self, server: SocketAddr, events: u64) -> Result<String, String> {
        let (some, others) = self.connections.split_at_mut(SEE_ALL);
        let begin = Instant::now();
        listen(some, |heard| {
            heard.events == events && heard.compacted.is_none()
        })?;
        let took = begin.elapsed();
        let client = BlockingClient::new([server.to_string()], ClientOptions::default());
        let revision = some[0].heard.newest;
        client
            .compact(CompactRequest {
                revision,
                physical: false,
            })
            .map_err(|error| format!("the compaction: {error}"))?;
        listen(others, |heard| {
            heard.events == events || heard.compacted.is_some()
        })?;
        let cancelled = others.iter().filter(|one| one.heard.compacted.is_some());
        Ok(format!(
            "{SEE_ALL} saw all {} events in {}; of {} others {} were told of a compaction",
            grouped(events as f64),
            time(took.as_nanos() as u64),
            others.len(),
            cancelled.count()
        ))
    }
}

/// Reads until each sleeper is done, at most for a while after the last word.
fn listen(sleepers: &mut [Sleeper], done: impl Fn(&Heard) -> bool) -> Result<(), String> {
    use std::os::fd::AsFd;
    let failed = |error: std::io::Error| format!("epoll: {error}");
    let mut poll = Poll::new(sleepers.len()).map_err(failed)?;
    for (number, sleeper) in sleepers.iter().enumerate() {
        crate::os::widen(sleeper.connection.socket()).map_err(failed)?;
        poll.add(sleeper.connection.socket().as_fd(), number)
            .map_err(failed)?;
    }
    let mut limit = Instant::now() + Duration::from_secs(20);
    let mut left = sleepers.len();
    while left > 0 {
        if Instant::now() > limit {
            let last = sleepers.iter().find(|one| !done(&one.heard));
            let events = last.map_or(0, |one| one.heard.events);
            return Err(format!(
                "{left} hear nothing more, one after {events} events"
            ));
        }
        let woken: Vec<usize> = poll
            .wait(Duration::from_millis(50))
            .map_err(failed)?
            .collect();
        for number in woken {
            let sleeper = &mut sleepers[number];
            let was = done(&sleeper.heard);
            sleeper.connection.turn(&mut sleeper.heard)?;
            left -= usize::from(!was && done(&sleeper.heard));
            limit = Instant::now() + Duration::from_secs(20);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_sockets_is_that_of_the_kernel() {
        // The least buffers are pages, not megabytes.
        assert!((4096..1 << 20).contains(&smallest()), "{}", smallest());
    }
}
