//! The bounded queue between threads: many senders, one receiver, which takes everything that
//! waits at once.
//!
//! A receiver is either a thread, which blocks, or a task of an executor, which is woken. One
//! wake-up serves all that has gathered: a sender wakes only a receiver that has gone to sleep.
//!
//! What asks for something has to find room, and is held back or dropped otherwise. What answers
//! may not be lost and cannot wait; its number is bounded by that of the questions, which the queue
//! holds it to. docs/ARCHITECTURE.md says for each queue why it is bounded.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

struct Inner<T> {
    items: VecDeque<T>,
    bounds: Bounds,
    /// What the items weigh, as their senders say.
    bytes: usize,
    /// The receiver is gone; what is sent is lost, and nobody misses it.
    closed: bool,
    /// A thread sleeps on `arrived`.
    sleeping: bool,
    /// A task sleeps.
    waker: Option<Waker>,
}

struct Shared<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing under the lock can panic half-way through a change.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Where items go in.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Where they come out.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// The queue is full; here is the item back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// What a queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items, beyond which there is no room for questions.
    pub questions: usize,
    /// Bytes of items sent with [`Sender::answer_weighing`], beyond which there is none either.
    pub bytes: usize,
    /// Items on top, which are answers. More are a broken invariant: somebody was answered who had
    /// not asked.
    pub answers: usize,
}

impl Bounds {
    /// Of a queue whose items weigh nothing.
    pub const fn items(questions: usize, answers: usize) -> Bounds {
        Bounds {
            questions,
            bytes: usize::MAX,
            answers,
        }
    }
}

impl<T> Inner<T> {
    fn drain(&mut self, into: &mut Vec<T>) {
        self.bytes = 0;
        into.extend(self.items.drain(..));
    }

    fn has_room(&self) -> bool {
        self.items.len() < self.bounds.questions && self.bytes < self.bounds.bytes
    }
}

/// A queue within these bounds.
pub fn bounded<T>(bounds: Bounds) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner {
            items: VecDeque::new(),
            bounds,
            bytes: 0,
            closed: false,
            sleeping: false,
            waker: None,
        }),
        arrived: Condvar::new(),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    (sender, Receiver { shared })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Sender<T> {
    /// Sends unless the queue is full. An item for a receiver that is gone is dropped.
    pub fn try_send(&self, item: T) -> Result<(), Full<T>> {
        let inner = self.shared.lock();
        if !inner.has_room() && !inner.closed {
            return Err(Full(item));
        }
        self.push(inner, item, 0);
        Ok(())
    }

    /// Whether there is room for a question. Others may take it before it is sent.
    pub fn has_room(&self) -> bool {
        let inner = self.shared.lock();
        inner.closed || inner.has_room()
    }

    /// Sends even where there is no room for questions: for answers, whose number is bounded by
    /// that of the questions, and for what the sender holds back itself while
    /// [`Sender::has_room`] says no.
    pub fn answer(&self, item: T) {
        self.push(self.shared.lock(), item, 0);
    }

    /// The same for an item that takes so many bytes of memory.
    pub fn answer_weighing(&self, item: T, bytes: usize) {
        self.push(self.shared.lock(), item, bytes);
    }

    fn push(&self, mut inner: MutexGuard<'_, Inner<T>>, item: T, bytes: usize) {
        if inner.closed {
            return;
        }
        let Bounds {
            questions, answers, ..
        } = inner.bounds;
        assert!(
            inner.items.len() < questions.saturating_add(answers),
            "a queue between threads holds more answers than there were questions"
        );
        inner.items.push_back(item);
        inner.bytes += bytes;
        let waker = inner.waker.take();
        let sleeping = std::mem::take(&mut inner.sleeping);
        drop(inner);
        if sleeping {
            self.shared.arrived.notify_one();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// Moves everything that waits to the end of `into`; says whether there was anything.
    pub fn take(&self, into: &mut Vec<T>) -> bool {
        let mut inner = self.shared.lock();
        let any = !inner.items.is_empty();
        inner.drain(into);
        any
    }

    /// As [`Receiver::take`]; if nothing waits, the task is woken when something does.
    pub fn poll_take(&self, cx: &Context<'_>, into: &mut Vec<T>) -> Poll<()> {
        let mut inner = self.shared.lock();
        if inner.items.is_empty() {
            match &inner.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => inner.waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        inner.drain(into);
        Poll::Ready(())
    }

    /// Blocks until something waits, at most so long, and takes it all; says whether there was
    /// anything.
    pub fn wait_take(&self, into: &mut Vec<T>, at_most: Option<Duration>) -> bool {
        let mut inner = self.shared.lock();
        while inner.items.is_empty() {
            inner.sleeping = true;
            inner = match at_most {
                None => self
                    .shared
                    .arrived
                    .wait(inner)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(limit) => {
                    let (mut inner, timed_out) = self
                        .shared
                        .arrived
                        .wait_timeout(inner, limit)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if timed_out.timed_out() && inner.items.is_empty() {
                        inner.sleeping = false;
                        return false;
                    }
                    inner
                }
            };
        }
        inner.sleeping = false;
        inner.drain(into);
        true
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.closed = true;
        let lost = std::mem::take(&mut inner.items);
        drop(inner);
        drop(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Full, bounded};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_bound_holds_for_questions_and_not_for_answers() {
        let (sender, receiver) = bounded(Bounds::items(2, 1));
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(Full(3)));
        assert!(!sender.has_room());
        sender.answer(4);
        let mut got = Vec::new();
        assert!(receiver.take(&mut got));
        assert_eq!(got, [1, 2, 4]);
        drop(receiver);
        assert_eq!(sender.try_send(5), Ok(()));
    }

    #[test]
    #[should_panic(expected = "more answers than there were questions")]
    fn answers_to_nobody_are_a_broken_invariant() {
        let (sender, _receiver) = bounded(Bounds::items(2, 1));
        (0..4).for_each(|item| sender.answer(item));
    }

    #[test]
    fn bytes_leave_no_room_until_they_are_taken() {
        let (sender, receiver) = bounded(Bounds {
            questions: 10,
            bytes: 100,
            answers: 10,
        });
        sender.answer_weighing(1, 99);
        assert!(sender.has_room());
        sender.answer_weighing(2, 50);
        assert!(!sender.has_room());
        assert_eq!(sender.try_send(3), Err(Full(3)));
        assert!(receiver.take(&mut Vec::new()));
        assert!(sender.has_room());
    }

    #[test]
    fn a_sleeping_task_is_woken_once_for_all_that_gathers() {
        let (sender, receiver) = bounded(Bounds::items(10, 0));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut got = Vec::new();
        assert_eq!(receiver.poll_take(&cx, &mut got), Poll::Pending);
        for item in 0..3 {
            sender.answer(item);
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(receiver.poll_take(&cx, &mut got), Poll::Ready(()));
        assert_eq!(got, [0, 1, 2]);
    }

    #[test]
    fn a_thread_takes_everything_in_order() {
        let (sender, receiver) = bounded(Bounds::items(0, 10_000));
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            while got.len() < 10_000 {
                receiver.wait_take(&mut got, None);
            }
            assert!(!receiver.wait_take(&mut got, Some(Duration::from_millis(1))));
            got
        });
        for item in 0..10_000 {
            sender.answer(item);
        }
        assert_eq!(thread.join().unwrap(), (0..10_000).collect::<Vec<_>>());
    }
}
