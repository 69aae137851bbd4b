//! The recipes for threads without a runtime.

#![forbid(unsafe_code)]

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::client::async_client::Client;
use crate::client::options::ClientOptions;

/// Runs recipes for threads without a runtime: one thread of its own keeps leases alive and caches
/// fresh; the others wait for what they ask. Threads may share it.
///
/// ```no_run
/// # fn locked() -> Result<(), Box<dyn std::error::Error>> {
/// use quoin::client::ClientOptions;
/// use quoin::client::recipes::{BlockingRecipes, Lock};
/// let recipes = BlockingRecipes::new(["localhost:2379"], ClientOptions::default())?;
/// let lock = Lock::new(recipes.client(), "jobs/nightly", 10);
/// let guard = recipes.wait(lock.acquire())?;
/// recipes.wait(guard.release())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlockingRecipes {
    client: Client,
    runtime: Handle,
    /// Its end is what the thread waits for.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BlockingRecipes {
    /// Starts the thread. For the arguments see [`Client::new`].
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> io::Result<BlockingRecipes> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // An error is the end that it waits for.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new()
            .name("quoin-recipes".to_owned())
            .spawn(run)?;
        Ok(BlockingRecipes {
            client: Client::new(endpoints, options),
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The client to make recipes with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until something is done. Panics if called from inside a runtime, where waiting would
    /// keep others from their work.
    pub fn wait<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }
}

impl Drop for BlockingRecipes {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}
