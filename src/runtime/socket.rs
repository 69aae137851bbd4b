//! A connection's task: moves bytes between its socket and the front.

#![forbid(unsafe_code)]

use crate::node::front::{ConnectionId, Front, Verdict};
use crate::runtime::seat::Seat;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::{AcceptedTcpStream, TcpStream};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Starts serving a connection.
pub fn open(seat: &Rc<Seat>, accepted: AcceptedTcpStream) {
    let stream = accepted.bind_to_executor();
    let Some(front) = &seat.front else {
        return;
    };
    // Answers are gathered per turn already; a delay would only add to them.
    let _ = stream.set_nodelay(true);
    let connected = front.borrow_mut().connect(seat.clock.now_ns());
    let Some(id) = connected else {
        crate::log_warn!("a connection was closed: there are too many");
        return;
    };
    let mut socket = Socket {
        seat: Rc::clone(seat),
        id,
        stream,
        finished: false,
    };
    glommio::spawn_local(async move {
        poll_fn(|cx| socket.poll(cx)).await;
    })
    .detach();
}

struct Socket {
    seat: Rc<Seat>,
    id: ConnectionId,
    stream: TcpStream,
    /// The sending half is closed.
    finished: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.seat.close_socket(self.id);
    }
}

impl Socket {
    /// Runs until the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.register_socket(self.id, cx);
        let seat = Rc::clone(&self.seat);
        let Some(front) = &seat.front else {
            return Poll::Ready(());
        };
        if self.send(cx, front).is_err() {
            return Poll::Ready(());
        }
        loop {
            match front.borrow().verdict(self.id) {
                Verdict::Over => return Poll::Ready(()),
                Verdict::Finish => self.finish(cx),
                Verdict::Open => {}
            }
            if !front.borrow().wants_input(self.id) {
                return Poll::Pending;
            }
            let mut scratch = seat.scratch.borrow_mut();
            match Pin::new(&mut self.stream).poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(0)) => front.borrow_mut().input_over(self.id),
                Poll::Ready(Ok(count)) => {
                    let now_ns = seat.clock.now_ns();
                    front
                        .borrow_mut()
                        .received(self.id, &scratch[..count], now_ns);
                    seat.request_turn();
                    if count == scratch.len() {
                        // There is more; others come first.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Sends as much as the socket takes.
    fn send(&mut self, cx: &mut Context<'_>, front: &RefCell<Front>) -> std::io::Result<()> {
        loop {
            let sent = {
                let front = front.borrow();
                let output = front.output(self.id);
                if output.is_empty() {
                    return Ok(());
                }
                Pin::new(&mut self.stream).poll_write(cx, output)
            };
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(count)) => {
                    let now_ns = self.seat.clock.now_ns();
                    front.borrow_mut().wrote(self.id, count, now_ns);
                    if front.borrow().has_work() {
                        self.seat.request_turn();
                    }
                }
            }
        }
    }

    /// Closes the sending half, so that the client sees all that was said, and then the end.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if !self.finished {
            self.finished = true;
            // Done at once; if it fails the client is gone, which reading will show.
            let _ = Pin::new(&mut self.stream).poll_close(cx);
        }
    }
}
