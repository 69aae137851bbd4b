//! Which streams of a connection can move again. The codec wakes each by itself, so that a turn
//! looks at those alone and not at all that are open.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// The streams that were woken since they were last looked at.
#[derive(Default)]
pub struct Ready {
    shared: Arc<Shared>,
}

// Wakers may go to other threads by their type, though these never do.
#[derive(Default)]
struct Shared {
    keys: Mutex<Vec<usize>>,
    task: Mutex<Option<Waker>>,
    /// The connection's task runs, and looks at what was woken before it ends.
    running: AtomicBool,
}

struct Nudge {
    key: usize,
    listed: AtomicBool,
    shared: Arc<Shared>,
}

impl Ready {
    /// The connection's task begins to run; it is woken by `task`.
    pub fn begin(&self, task: &Waker) {
        let mut slot = lock(&self.shared.task);
        match &*slot {
            Some(known) if known.will_wake(task) => {}
            _ => *slot = Some(task.clone()),
        }
        self.shared.running.store(true, Ordering::Relaxed);
    }

    /// The connection's task stops running.
    pub fn end(&self) {
        self.shared.running.store(false, Ordering::Relaxed);
        if !self.is_empty() {
            self.shared.wake();
        }
    }

    /// Whether no stream was woken.
    pub fn is_empty(&self) -> bool {
        lock(&self.shared.keys).is_empty()
    }

    /// Moves the keys of the streams that were woken to the end of `into`.
    pub fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut lock(&self.shared.keys));
    }

    /// Something that wakes the stream of that key.
    pub fn nudge(&self, key: usize) -> Nudged {
        let nudge = Arc::new(Nudge {
            key,
            listed: AtomicBool::new(false),
            shared: Arc::clone(&self.shared),
        });
        Nudged {
            waker: Waker::from(Arc::clone(&nudge)),
            nudge,
        }
    }
}

/// A stream that can be woken.
pub struct Nudged {
    /// For the codec.
    pub waker: Waker,
    nudge: Arc<Nudge>,
}

impl Nudged {
    /// It is being looked at: from now on it may be woken again.
    pub fn look(&self) {
        self.nudge.listed.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(task) = &*lock(&self.task) {
            task.wake_by_ref();
        }
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::Relaxed) {
            return;
        }
        lock(&self.shared.keys).push(self.key);
        if !self.shared.running.load(Ordering::Relaxed) {
            self.shared.wake();
        }
    }
}

/// Nothing is done under these locks that could leave a half of something.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter(std::sync::atomic::AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_is_listed_once_and_its_task_woken_unless_it_runs() {
        let counter = Arc::new(Counter::default());
        let woken = || counter.0.load(Ordering::Relaxed);
        let task = Waker::from(Arc::clone(&counter));
        let ready = Ready::default();
        let (a, b) = (ready.nudge(3), ready.nudge(5));
        ready.begin(&task);
        a.waker.wake_by_ref();
        a.waker.wake_by_ref();
        assert_eq!(woken(), 0);
        let mut keys = Vec::new();
        ready.take(&mut keys);
        assert_eq!(keys, [3]);
        assert!(ready.is_empty());
        ready.end();
        assert_eq!(woken(), 0);
        a.waker.wake_by_ref();
        assert!(ready.is_empty(), "it was not looked at");
        a.look();
        a.waker.wake_by_ref();
        b.waker.wake_by_ref();
        assert_eq!(woken(), 2);
        // What comes while the task runs, and is not looked at, wakes it at its end.
        ready.take(&mut keys);
        a.look();
        ready.begin(&task);
        a.waker.wake_by_ref();
        ready.end();
        assert_eq!(woken(), 3);
    }
}
