//! A socket as the codecs of HTTP see it: output gathers and leaves in one write per turn, and a
//! turn takes so much input and no more, whatever the client sends.

#![forbid(unsafe_code)]

mod output;

use crate::etcd::frames::Frames;
use crate::limits;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use output::Output;
use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at a time behind something that has to be whole.
const HELD_READ_BYTES: usize = 4 * limits::KIB;

/// How long a client may take to read the last that was said.
const LINGER: Duration = Duration::from_millis(limits::CLOSE_DEADLINE_MS);
/// What is passed over at a time.
const LINGER_READ_BYTES: usize = 16 * limits::KIB;

struct State {
    stream: TcpStream,
    /// To be given to the codec; the first `early_used` bytes are gone.
    early: Vec<u8>,
    early_used: usize,
    /// Received, and not yet to be given to the codec.
    held: Vec<u8>,
    /// Looks at what is received, if it is HTTP/2.
    frames: Option<Frames>,
    /// Bytes and frames that this turn may still take.
    bytes_left: usize,
    frames_left: usize,
    /// The socket had nothing more in this turn.
    dry: bool,
    /// Since when something is unfinished, as far as this side can tell.
    since_ns: Option<u64>,
    /// Frames that had begun by then.
    begun: u64,
    now_ns: u64,
    output: Output,
}

/// Shared between the codec, which owns what it reads and writes, and the connection's task.
#[derive(Clone)]
pub struct Io(Rc<RefCell<State>>);

impl Io {
    /// A socket that speaks HTTP/1.1, and what was already received from it.
    pub fn new(stream: TcpStream, early: Vec<u8>) -> Io {
        Io(Rc::new(RefCell::new(State {
            stream,
            early,
            early_used: 0,
            held: Vec::new(),
            frames: None,
            bytes_left: 0,
            frames_left: 0,
            dry: false,
            since_ns: None,
            begun: 0,
            now_ns: 0,
            output: Output::default(),
        })))
    }

    /// The same for HTTP/2.
    pub fn framed(stream: TcpStream, early: Vec<u8>) -> Io {
        let io = Io::new(stream, Vec::new());
        let mut state = io.0.borrow_mut();
        state.held = early;
        state.frames = Some(Frames::default());
        drop(state);
        io
    }

    /// The socket may be read again.
    pub fn begin_turn(&self, now_ns: u64) {
        let state = &mut *self.0.borrow_mut();
        state.dry = false;
        state.now_ns = now_ns;
        state.bytes_left = limits::READ_BYTES_PER_TURN;
        state.frames_left = limits::FRAMES_PER_TURN;
    }

    /// Since when a frame, or the headers of a call, have not been complete.
    pub fn unfinished_since(&self) -> Option<u64> {
        let state = &mut *self.0.borrow_mut();
        let frames = state.frames.as_ref()?;
        let amid = frames.is_amid() || !state.held.is_empty();
        let begun = std::mem::replace(&mut state.begun, frames.begun());
        state.since_ns = match (amid, state.since_ns) {
            (false, _) => None,
            (true, Some(since_ns)) if begun == frames.begun() => Some(since_ns),
            (true, _) => Some(state.now_ns),
        };
        state.since_ns
    }

    /// Since when bytes have come, for HTTP/1.1; `None` if none have since [`Io::forget_bytes`].
    pub fn bytes_since(&self) -> Option<u64> {
        self.0.borrow().since_ns
    }

    /// What has come was of use.
    pub fn forget_bytes(&self) {
        self.0.borrow_mut().since_ns = None;
    }

    /// Has the client read what was said, even while it still sends: closes this half, and passes
    /// over what comes until the client closes the other, for a while. A socket that is closed
    /// with something unread takes back what was said before.
    pub async fn linger(&self) {
        let mut enough = pin!(glommio::timer::sleep(LINGER));
        let mut scratch = vec![0; LINGER_READ_BYTES];
        poll_fn(|cx| {
            if enough.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let stream = &mut self.0.borrow_mut().stream;
            // Done at once; if it fails the client is gone, which reading will show.
            let _ = Pin::new(&mut *stream).poll_close(cx);
            match Pin::new(stream).poll_read(cx, &mut scratch) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_) | Ok(0)) => Poll::Ready(()),
                Poll::Ready(Ok(_)) => {
                    // There may be more; others come first.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// The socket should take something before more is written.
    pub fn is_full(&self) -> bool {
        self.0.borrow().output.is_full()
    }

    /// Whether what has gathered may wait for company: see [`Output`].
    pub fn may_wait(&self) -> bool {
        self.0.borrow().output.may_wait()
    }

    /// Sends what has gathered; ready when all of it is sent.
    pub fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().send(cx)
    }
}

impl State {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.unsent().is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.output.unsent()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(count)) => self.output.sent(count),
            }
        }
        self.output.clear();
        Poll::Ready(Ok(()))
    }

    /// Reads more behind what is held.
    fn read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begin = self.held.len();
        let room = HELD_READ_BYTES.min(self.bytes_left);
        self.held.resize(begin + room, 0);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut self.held[begin..]);
        let count = match &polled {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.held.truncate(begin + count);
        self.bytes_left -= count;
        self.dry = polled.is_pending();
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => {
                // The codec is to see where it ended.
                self.frames = None;
                self.early = std::mem::take(&mut self.held);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
        }
    }

    /// Gives the codec more.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let early = &self.early[self.early_used..];
            if !early.is_empty() {
                let count = early.len().min(buf.remaining());
                buf.put_slice(&early[..count]);
                self.since_ns.get_or_insert(self.now_ns);
                self.early_used += count;
                if self.early_used == self.early.len() {
                    self.early = Vec::new();
                    self.early_used = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(frames) = &mut self.frames
                && !self.held.is_empty()
            {
                let count = frames.pass(&mut self.held, &mut self.frames_left);
                if count > 0 {
                    let rest = self.held.split_off(count);
                    self.early = std::mem::replace(&mut self.held, rest);
                    continue;
                }
            }
            let enough = self.bytes_left == 0 || self.frames_left == 0;
            let more = !self.dry || (self.frames_left == 0 && !self.held.is_empty());
            if enough && more {
                // Others come first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.dry {
                return Poll::Pending;
            }
            if !self.held.is_empty() {
                match self.read_held(cx) {
                    Poll::Ready(Ok(())) => continue,
                    other => return other,
                }
            }
            let unfilled = buf.initialize_unfilled();
            let room = unfilled.len().min(self.bytes_left);
            let unfilled = &mut unfilled[..room];
            match Pin::new(&mut self.stream).poll_read(cx, unfilled) {
                Poll::Pending => {
                    self.dry = true;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(count)) => {
                    self.bytes_left -= count;
                    let Some(frames) = &mut self.frames else {
                        self.since_ns.get_or_insert(self.now_ns);
                        buf.advance(count);
                        return Poll::Ready(Ok(()));
                    };
                    let received = &mut unfilled[..count];
                    let passed = frames.pass(received, &mut self.frames_left);
                    self.held.extend_from_slice(&received[passed..]);
                    buf.advance(passed);
                    if passed > 0 || count == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        if state.output.is_full() {
            match state.send(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        state.output.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// The task sends at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        match state.send(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut state.stream).poll_close(cx),
            other => other,
        }
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = [0; 8 * limits::KIB];
        let count = scratch.len().min(buf.remaining());
        let mut read = ReadBuf::new(&mut scratch[..count]);
        let polled = AsyncRead::poll_read(self, cx, &mut read);
        buf.put_slice(read.filled());
        polled
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }
}
