//! etcd over gRPC, through its client library: one task for each request in flight.
//!
//! In an open loop the client library's clock keeps intended times to a millisecond.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KvClient};
use etcd_client::{LeaseClient, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions};
use etcd_client::{Txn, TxnOp};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

use super::{Phase, Task, Worker, share};
use crate::options::Options;
use crate::record::Failure;
use crate::workload::Op;

/// How often a waiting loop looks up, at least.
const TURN: Duration = Duration::from_millis(50);

/// Keys are loaded in transactions of so many writes: etcd's default takes 128.
const PRELOAD_OPS: usize = 100;

/// ... and of so many bytes: etcd's default takes 1.5 MiB.
const PRELOAD_BYTES: usize = 512 << 10;

/// One worker's connections.
pub struct Etcd {
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Etcd {
    /// Connects worker `worker`'s part of the connections.
    pub fn connect(options: &Options, worker: usize) -> Result<Etcd, String> {
        let count = share(options.connections as u64, worker, options.threads) as usize;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("tokio: {error}"))?;
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let place = number * options.threads + worker;
            let server = options.endpoints[place % options.endpoints.len()];
            clients.push(open(&runtime, server)?);
        }
        Ok(Etcd { runtime, clients })
    }
}

/// Opens one connection.
pub fn open(runtime: &Runtime, server: SocketAddr) -> Result<Client, String> {
    // The library's own error for this does not say why.
    std::net::TcpStream::connect_timeout(&server, Duration::from_secs(5))
        .map_err(|error| format!("cannot reach etcd at {server}: {error}"))?;
    let limits = ConnectOptions::new().with_connect_timeout(Duration::from_secs(5));
    let client = runtime.block_on(async {
        let opened = Client::connect([format!("http://{server}")], Some(limits));
        let mut client = opened.await?;
        // The library connects at the first call.
        let call = client.get("quoin-bench", Some(GetOptions::new().with_count_only()));
        match tokio::time::timeout(Duration::from_secs(5), call).await {
            Ok(answer) => answer.map(|_| client),
            Err(_) => Err(Error::Internal("no answer".into())),
        }
    });
    client.map_err(|error| format!("cannot reach etcd at {server}: {error}"))
}

/// What the tasks of a phase share; they run on one thread.
struct Shared {
    task: Task,
    in_flight: u64,
    /// When the last answer came.
    heard: u64,
    /// Tasks that have not ended.
    running: usize,
}

impl Shared {
    /// Notes the end of a call that stood for requests counting from those times.
    fn done(&mut self, starts: &[u64], outcome: Result<(), Failure>) {
        let now = self.task.now();
        self.in_flight -= starts.len() as u64;
        self.heard = now;
        for start in starts {
            match &outcome {
                Ok(()) => self.task.recorder.good(*start, now),
                Err(failure) => self.task.recorder.bad(now, failure.clone()),
            }
        }
    }
}

impl Worker for Etcd {
    fn run(&mut self, task: Task, phase: Phase) -> Result<(), String> {
        let depth = match phase {
            Phase::Load | Phase::Leases => task.options.in_flight,
            Phase::Keys => 1,
        };
        let timeout = task.options.timeout.as_nanos() as u64;
        let heard = task.now();
        let running = self.clients.len() * depth;
        let shared = Rc::new(RefCell::new(Shared {
            task,
            in_flight: 0,
            heard,
            running,
        }));
        // Who holds the turn waits for the next intended time; the others queue behind.
        let turn = Rc::new(Mutex::new(()));
        let local = LocalSet::new();
        for client in &self.clients {
            for _ in 0..depth {
                let (caller, shared, turn) = (Caller::new(client), shared.clone(), turn.clone());
                local.spawn_local(async move {
                    match phase {
                        Phase::Load | Phase::Leases => requests(caller, &shared, &turn).await,
                        Phase::Keys => load_keys(caller.kv, &shared).await,
                    }
                    shared.borrow_mut().running -= 1;
                });
            }
        }
        // Returning drops the tasks, those too that still wait for an answer.
        let watched = shared.clone();
        local.block_on(&self.runtime, async move {
            while watch(&watched, timeout) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut shared = shared.borrow_mut();
        let task = &mut shared.task;
        let now = task.now();
        for due in task.pace.unsent(now) {
            task.recorder.unsent(due, now);
        }
        task.recorder.flush(now);
        Ok(())
    }
}

/// Keeps the records going; false once all tasks have ended or the server has fallen silent.
fn watch(shared: &RefCell<Shared>, timeout: u64) -> bool {
    let mut shared = shared.borrow_mut();
    let now = shared.task.now();
    shared.task.recorder.turn(now);
    if shared.in_flight == 0 {
        shared.heard = now;
    }
    if now.saturating_sub(shared.heard) > timeout {
        for _ in 0..shared.in_flight {
            shared.task.recorder.bad(now, "timed out".into());
        }
        return false;
    }
    shared.running > 0
}

/// One request after the other.
async fn requests(mut caller: Caller, shared: &RefCell<Shared>, turn: &Mutex<()>) {
    while let Some((start, call)) = next_call(shared, turn).await {
        let outcome = call.run(&mut caller).await;
        shared.borrow_mut().done(&[start], outcome);
    }
}

/// Waits until a request may be sent; `None` if no more will.
async fn next_call(shared: &RefCell<Shared>, turn: &Mutex<()>) -> Option<(u64, Call)> {
    let _turn = turn.lock().await;
    loop {
        let wait = {
            let shared = &mut *shared.borrow_mut();
            let now = shared.task.now();
            if let Some(start) = shared.task.pace.take(now) {
                shared.in_flight += 1;
                return Some((start, Call::new(shared.task.generator.next(start))));
            }
            if shared.task.pace.over(now) {
                return None;
            }
            let due = shared.task.pace.next_due(now)?;
            Duration::from_nanos(due.saturating_sub(now)).min(TURN)
        };
        tokio::time::sleep(wait).await;
    }
}

/// Writes keys, many in one transaction.
async fn load_keys(mut kv: KvClient, shared: &RefCell<Shared>) {
    loop {
        let (mut starts, mut puts, mut bytes) = (Vec::new(), Vec::new(), 0);
        {
            let shared = &mut *shared.borrow_mut();
            let now = shared.task.now();
            while puts.len() < PRELOAD_OPS && bytes < PRELOAD_BYTES {
                let Some(start) = shared.task.pace.take(now) else {
                    break;
                };
                let Op::Put { key, value, lease } = shared.task.generator.next(start) else {
                    break;
                };
                bytes += key.len() + value.len();
                puts.push(TxnOp::put(key, value, leased(lease)));
                starts.push(start);
            }
            shared.in_flight += starts.len() as u64;
        }
        if puts.is_empty() {
            return;
        }
        let outcome = kv.txn(Txn::new().and_then(puts)).await;
        shared
            .borrow_mut()
            .done(&starts, outcome.map(|_| ()).map_err(failure));
    }
}

/// Where a task sends its requests.
struct Caller {
    kv: KvClient,
    leases: LeaseClient,
    /// The stream on which it renews a lease: always the same one, for the library's streams
    /// know one lease each, and to open one costs more than a renewal.
    renewals: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
}

impl Caller {
    fn new(client: &Client) -> Caller {
        Caller {
            kv: client.kv_client(),
            leases: client.lease_client(),
            renewals: None,
        }
    }

    /// Renews a lease: that one if it is the first, that one again otherwise.
    async fn renew(&mut self, id: i64) -> Result<(), Failure> {
        let Some((keeper, stream)) = &mut self.renewals else {
            // The answer to the first renewal has come when the stream is there.
            let opened = self.leases.keep_alive(id).await.map_err(failure)?;
            self.renewals = Some(opened);
            return Ok(());
        };
        keeper.keep_alive().await.map_err(failure)?;
        match stream.message().await.map_err(failure)? {
            Some(kept) if kept.id() != keeper.id() => Err("the answer of another lease".into()),
            Some(kept) if kept.ttl() > 0 => Ok(()),
            Some(_) => Err("the lease is gone".into()),
            None => Err("the stream of renewals ended".into()),
        }
    }
}

fn leased(lease: i64) -> Option<PutOptions> {
    (lease != 0).then(|| PutOptions::new().with_lease(lease))
}

/// A request with its own copy of keys and values, as the library wants it.
enum Call {
    Put(Vec<u8>, Vec<u8>, i64),
    Delete(Vec<u8>),
    Grant(i64, i64),
    KeepAlive(i64),
    Get(Vec<u8>, GetOptions),
    Txn(Txn),
}

impl Call {
    fn new(op: Op<'_>) -> Call {
        let read = |serializable| match serializable {
            true => GetOptions::new().with_serializable(),
            false => GetOptions::new(),
        };
        match op {
            Op::Put { key, value, lease } => Call::Put(key.to_vec(), value.to_vec(), lease),
            Op::Delete { key } => Call::Delete(key.to_vec()),
            Op::Grant { id, ttl } => Call::Grant(id, ttl),
            Op::KeepAlive { id } => Call::KeepAlive(id),
            Op::Get { key, serializable } => Call::Get(key.to_vec(), read(serializable)),
            Op::Range {
                key,
                end,
                limit,
                serializable,
            } => {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let options = read(serializable).with_range(end).with_limit(limit);
                Call::Get(key.to_vec(), options)
            }
            Op::Txn { key, value } => Call::Txn(
                Txn::new()
                    .when([Compare::version(key, CompareOp::Greater, -1)])
                    .and_then([TxnOp::put(key, value, None), TxnOp::get(key, None)]),
            ),
        }
    }

    async fn run(self, caller: &mut Caller) -> Result<(), Failure> {
        let kv = &mut caller.kv;
        match self {
            Call::Put(key, value, lease) => {
                kv.put(key, value, leased(lease)).await.map_err(failure)?;
            }
            Call::Delete(key) => {
                kv.delete(key, None).await.map_err(failure)?;
            }
            Call::Grant(id, ttl) => {
                let options = LeaseGrantOptions::new().with_id(id);
                let leases = &mut caller.leases;
                leases.grant(ttl, Some(options)).await.map_err(failure)?;
            }
            Call::KeepAlive(id) => caller.renew(id).await?,
            Call::Get(key, options) => {
                let answer = kv.get(key, Some(options)).await.map_err(failure)?;
                if answer.kvs().is_empty() {
                    return Err("key not found".into());
                }
            }
            Call::Txn(txn) => {
                let answer = kv.txn(txn).await.map_err(failure)?;
                if !answer.succeeded() {
                    return Err("the condition did not hold".into());
                }
            }
        }
        Ok(())
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()).into(),
        other => other.to_string().into(),
    }
}
