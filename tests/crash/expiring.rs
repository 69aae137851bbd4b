//! Kill -9 while leases run out under a watch: over all restarts the watch sees each key come and
//! go exactly once, the keys of a lease in one revision that is theirs alone; no lease ends before
//! its time, and none lives on.

use crate::kill::{Chance, from_env};
use crate::server::Server;
use quoin::api::{EventKind, LeaseGrantRequest, OwnedEvent, PutRequest, RangeRequest, WatchCreate};
use quoin::client::{BlockingClient, ClientError, ClientOptions, WatchEnd, WatchNews};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const HOLDERS: i64 = 3;

/// A lease ends at most a tick of the clock early.
const EARLY: Duration = Duration::from_millis(100);

/// Once its time is over a lease ends within so much: half a second after a start or a stall,
/// and what a busy machine takes on top.
const LATE: Duration = Duration::from_secs(5);

/// Why a lease lives: it was asked for at that time, and the answer named that revision.
type Reason = (Instant, i64);

/// A lease as its holder knows it.
#[derive(Debug, Clone)]
struct Lease {
    ttl: Duration,
    /// The grant and the renewals that were acknowledged.
    reasons: Vec<Reason>,
    /// When something was last asked for, acknowledged or not.
    asked: Instant,
    /// Its keys; those whose put was acknowledged with the revision.
    keys: BTreeMap<String, Option<i64>>,
    /// A renewal said that it is gone.
    gone: bool,
}

/// Grants leases, gives them keys and renews some, until the server is gone.
struct Holder {
    next: i64,
    chance: Chance,
    leases: BTreeMap<i64, Lease>,
}

impl Holder {
    fn run(&mut self, address: SocketAddr) {
        let client = BlockingClient::new([address.to_string()], ClientOptions::default());
        while self
            .grant(&client)
            .and_then(|()| self.renew(&client))
            .is_ok()
        {
            thread::sleep(Duration::from_millis(self.chance.below(8)));
        }
    }

    fn grant(&mut self, client: &BlockingClient) -> Result<(), ClientError> {
        let (id, asked) = (self.next, Instant::now());
        self.next += HOLDERS;
        // The shortest that there are.
        let ttl = 2 + self.chance.below(2) as i64;
        let granted = client.lease_grant_with(LeaseGrantRequest { ttl, id })?;
        assert_eq!((granted.body.id, granted.body.ttl), (id, ttl));
        let lease = Lease {
            ttl: Duration::from_secs(ttl as u64),
            reasons: vec![(asked, granted.header.revision)],
            asked,
            keys: BTreeMap::new(),
            gone: false,
        };
        self.leases.insert(id, lease);
        for number in 0..self.chance.below(4) {
            let key = format!("{id}/{number}");
            let lease = self.leases.get_mut(&id).expect("just inserted");
            lease.keys.insert(key.clone(), None);
            let put = PutRequest {
                key: key.as_bytes(),
                lease: id,
                ..PutRequest::default()
            };
            let revision = client.put_with(put)?.header.revision;
            lease.keys.insert(key, Some(revision));
        }
        Ok(())
    }

    /// Renews one of the last leases.
    fn renew(&mut self, client: &BlockingClient) -> Result<(), ClientError> {
        let back = self.chance.below(40) as usize;
        let Some((id, lease)) = self.leases.iter_mut().rev().nth(back) else {
            return Ok(());
        };
        let asked = Instant::now();
        lease.asked = asked;
        let renewed = client.lease_keep_alive(*id)?;
        if renewed.body.ttl == 0 {
            lease.gone = true;
            return Ok(());
        }
        assert!(!lease.gone, "a lease that was gone is renewed");
        lease.reasons.push((asked, renewed.header.revision));
        Ok(())
    }
}

/// One life of the server.
struct Life {
    /// Right before the process began, and once it served.
    begun: Instant,
    served: Instant,
    /// The store's revision before any lease could end.
    revision: i64,
}

/// What the watch was told, and when.
#[derive(Default)]
struct Told {
    events: Vec<(Instant, OwnedEvent)>,
}

impl Told {
    /// The first revision that is not known.
    fn next(&self) -> i64 {
        let last = self.events.last();
        last.map_or(1, |(_, event)| event.kv.mod_revision + 1)
    }

    /// Listens until `done`, as a client that has lost its connection goes on.
    fn listen(&mut self, address: SocketAddr, mut done: impl FnMut(&Told) -> bool) {
        let client = BlockingClient::new([address.to_string()], ClientOptions::default());
        let mut stream = client.watch_stream();
        stream.watch(&WatchCreate {
            key: b"\0",
            range_end: b"\0",
            start_revision: self.next(),
            ..WatchCreate::default()
        });
        while !done(self) {
            match stream.next(Duration::from_millis(20)).expect("a stream") {
                Some(WatchNews::Events { events, .. }) => {
                    let now = Instant::now();
                    self.events.extend(events.into_iter().map(|it| (now, it)));
                }
                Some(WatchNews::Ended { why, .. }) => {
                    assert_eq!(why, WatchEnd::Cancelled, "nobody compacts");
                }
                Some(WatchNews::Created { .. } | WatchNews::Progress { .. }) | None => {}
            }
        }
    }
}

/// Holds what was told against what the holders know; returns how many leases with keys ended.
fn check(told: &Told, leases: &BTreeMap<i64, Lease>, lives: &[Life]) -> usize {
    let mut live: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut ended = BTreeSet::new();
    let by_revision = told
        .events
        .chunk_by(|a, b| a.1.kv.mod_revision == b.1.kv.mod_revision);
    let mut before = 0;
    for events in by_revision {
        let revision = events[0].1.kv.mod_revision;
        assert!(revision > before, "revision {revision} after {before}");
        before = revision;
        let mut owners = BTreeSet::new();
        for (_, event) in events {
            let key = std::str::from_utf8(&event.kv.key).expect("a key of ours");
            let (id, _) = key.split_once('/').expect("a key of ours");
            let id: i64 = id.parse().expect("a key of ours");
            let lease = leases.get(&id).expect("a lease of ours");
            owners.insert(id);
            if event.kind == EventKind::Put {
                let acknowledged = lease.keys.get(key).expect("a key that was sent");
                assert!(acknowledged.is_none_or(|at| at == revision), "{key}");
                assert!(seen.insert(key), "{key} came twice");
                assert!(!ended.contains(&id), "{key} came after its lease was over");
                live.entry(id).or_default().insert(key);
            } else {
                let here = live.get_mut(&id).is_some_and(|keys| keys.remove(key));
                assert!(here, "{key} went and was not there, or twice");
            }
        }
        assert_eq!(
            owners.len(),
            1,
            "leases {owners:?} share revision {revision}"
        );
        let (at, event) = &events[0];
        if event.kind == EventKind::Delete {
            let id = *owners.first().expect("it has one");
            assert!(
                live.remove(&id).is_some_and(|keys| keys.is_empty()),
                "{id}: not all keys"
            );
            assert!(ended.insert(id), "{id} ended twice");
            check_time(&leases[&id], *at, revision, lives);
        }
    }
    assert_eq!(live, BTreeMap::new(), "keys that never went");
    for lease in leases.values() {
        let lost = lease
            .keys
            .iter()
            .find(|(key, at)| at.is_some() && !seen.contains(key.as_str()));
        assert_eq!(lost, None, "a put that was acknowledged and never told");
    }
    ended.len()
}

/// A lease was seen to end at a time, in that revision.
fn check_time(lease: &Lease, at: Instant, revision: i64, lives: &[Life]) {
    for (asked, answered) in &lease.reasons {
        assert!(
            *answered < revision,
            "renewed after its end at {revision}: {lease:?}"
        );
        let lived = at - *asked;
        assert!(
            lived + EARLY >= lease.ttl,
            "{lived:?}: too early: {lease:?}"
        );
    }
    // Each restart gives a short lease its whole time.
    let granted = lease.reasons[0].0;
    let life = lives.iter().rfind(|life| life.revision < revision);
    let life = life.expect("the first begins with nothing");
    if granted < life.begun {
        let lived = at - life.begun;
        assert!(
            lived + EARLY >= lease.ttl,
            "{lived:?} after a restart: too early: {lease:?}"
        );
    }
    let restarts = lives.iter().map(|life| life.served);
    let last = restarts.filter(|served| *served <= at).max();
    let last = last
        .expect("it was told by somebody")
        .max(lease.asked.min(at));
    assert!(at - last <= lease.ttl + LATE, "too late: {lease:?}");
}

fn start(data: &Path, lives: &mut Vec<Life>) -> (Server, BlockingClient) {
    let begun = Instant::now();
    let server = Server::start(data);
    let served = Instant::now();
    let client = BlockingClient::new([server.address.to_string()], ClientOptions::default());
    let revision = all(&client).0;
    lives.push(Life {
        begun,
        served,
        revision,
    });
    (server, client)
}

/// The store's revision, and how many keys there are.
fn all(client: &BlockingClient) -> (i64, i64) {
    let all = RangeRequest {
        key: b"\0",
        range_end: b"\0",
        count_only: true,
        ..RangeRequest::default()
    };
    let answer = client.range(all).expect("a read");
    (answer.header.revision, answer.body.count)
}

#[test]
fn leases_that_run_out_between_kills_end_once_and_in_time() {
    let rounds = from_env("QUOIN_CRASH_ROUNDS", 24).div_ceil(3);
    let seed = from_env("QUOIN_CRASH_SEED", 20_261_122);
    println!("QUOIN_CRASH_SEED={seed} QUOIN_CRASH_ROUNDS={rounds}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut chance = Chance::new(seed);
    let mut holders: Vec<Holder> = (0..HOLDERS)
        .map(|number| Holder {
            next: number + 1,
            chance: Chance::new(seed ^ (number as u64 + 1)),
            leases: BTreeMap::new(),
        })
        .collect();
    let (mut told, mut lives) = (Told::default(), Vec::new());
    for round in 0..rounds {
        let (server, _) = start(&data, &mut lives);
        let address = server.address;
        // Half of them long enough that leases run out.
        let longest = if round % 2 == 0 { 2_500 } else { 600 };
        let pause = Duration::from_millis(longest / 2 + chance.below(longest));
        thread::scope(|scope| {
            for holder in &mut holders {
                scope.spawn(move || holder.run(address));
            }
            let begun = Instant::now();
            told.listen(address, |_| begun.elapsed() >= pause);
            server.kill();
        });
    }
    // Whatever is left ends now.
    let (server, client) = start(&data, &mut lives);
    let begun = Instant::now();
    let mut revision = i64::MAX;
    told.listen(server.address, |told| {
        if revision == i64::MAX && client.leases().expect("a list").body.is_empty() {
            revision = all(&client).0;
        }
        assert!(
            begun.elapsed() < 2 * LATE,
            "leases never end, or their ends are not told"
        );
        told.next() > revision
    });
    assert_eq!(all(&client), (revision, 0));
    let leases = holders
        .into_iter()
        .flat_map(|holder| holder.leases)
        .collect();
    let ended = check(&told, &leases, &lives);
    println!("{ended} leases with keys ended once and in time, over {rounds} kills");
    assert!(
        ended > 50 * rounds as usize,
        "only {ended}: the test tests nothing"
    );
}
