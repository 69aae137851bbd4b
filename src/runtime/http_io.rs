//! A socket as the codecs of HTTP see it: output gathers and leaves in one write per turn.

#![forbid(unsafe_code)]

use crate::limits;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

struct State {
    stream: TcpStream,
    /// Received before the codec was there; the first `early_used` bytes are gone.
    early: Vec<u8>,
    early_used: usize,
    /// The socket had nothing more in this turn.
    dry: bool,
    /// To send; the first `sent` bytes are gone.
    out: Vec<u8>,
    sent: usize,
}

/// Shared between the codec, which owns what it reads and writes, and the connection's task.
#[derive(Clone)]
pub struct Io(Rc<RefCell<State>>);

impl Io {
    /// A socket, and what was already received from it.
    pub fn new(stream: TcpStream, early: Vec<u8>) -> Io {
        Io(Rc::new(RefCell::new(State {
            stream,
            early,
            early_used: 0,
            dry: false,
            out: Vec::new(),
            sent: 0,
        })))
    }

    /// The socket may be read again.
    pub fn begin_turn(&self) {
        self.0.borrow_mut().dry = false;
    }

    /// The socket should take something before more is written.
    pub fn is_full(&self) -> bool {
        let state = self.0.borrow();
        state.out.len() - state.sent >= limits::SOCKET_OUTPUT_BYTES
    }

    /// Sends what has gathered; ready when all of it is sent.
    pub fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().send(cx)
    }
}

impl State {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let unsent = &self.out[self.sent..];
            match Pin::new(&mut self.stream).poll_write(cx, unsent) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(count)) => self.sent += count,
            }
        }
        self.sent = 0;
        if self.out.capacity() > limits::POOLED_BUFFER_BYTES {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        let early = &state.early[state.early_used..];
        if !early.is_empty() {
            let count = early.len().min(buf.remaining());
            buf.put_slice(&early[..count]);
            state.early_used += count;
            if state.early_used == state.early.len() {
                state.early = Vec::new();
                state.early_used = 0;
            }
            return Poll::Ready(Ok(()));
        }
        if state.dry {
            return Poll::Pending;
        }
        let unfilled = buf.initialize_unfilled();
        match Pin::new(&mut state.stream).poll_read(cx, unfilled) {
            Poll::Pending => {
                state.dry = true;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(count)) => {
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        if state.out.len() - state.sent >= limits::SOCKET_OUTPUT_BYTES {
            match state.send(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        state.out.extend_from_slice(bytes);
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
