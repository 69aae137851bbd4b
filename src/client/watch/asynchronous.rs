//! Watching for tokio programs.

#![forbid(unsafe_code)]

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::dial::Dial;
use super::state::{State, WatchId, WatchNews};
use crate::api::WatchCreate;
use crate::client::async_client::greet;
use crate::client::error::ClientError;
use crate::client::options::ClientOptions;
use crate::client::raw::Receiver;

/// A stream of watches, on a connection of its own. See [`crate::client`] for an example.
///
/// Nothing happens but inside [`WatchStream::next`]: it opens the connection, asks for the
/// watches, and takes from the socket what the server says, no more at a time than is asked for.
/// It may be dropped at any await, as in a `select!`, without loss.
#[derive(Debug)]
pub struct WatchStream {
    options: ClientOptions,
    state: State,
    dial: Dial,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    receiver: Receiver,
    /// Bytes before `sent` have left.
    out: Vec<u8>,
    sent: usize,
    /// Nothing was heard for a while, and a ping has been sent.
    pinged: bool,
}

impl WatchStream {
    pub(in crate::client) fn new(addresses: Vec<String>, options: ClientOptions) -> WatchStream {
        WatchStream {
            options,
            state: State::default(),
            dial: Dial::new(addresses),
            link: None,
        }
    }

    /// Adds a watch. `watch_id` and `fragment` are the stream's own business.
    pub fn watch(&mut self, create: &WatchCreate<'_>) -> WatchId {
        self.state.add(create)
    }

    /// Ends a watch; [`WatchNews::Ended`] is the last that is told of it.
    pub fn cancel(&mut self, watch: WatchId) {
        self.state.cancel(watch);
    }

    /// Asks how far the watches have come. The server answers by [`WatchNews::Progress`] if all of
    /// them are up to date, and by nothing otherwise.
    pub fn ask_progress(&mut self) {
        self.state.ask_progress();
    }

    /// What comes next. A connection that breaks is opened anew; an error says that this did not
    /// succeed within [`ClientOptions::deadline`], or that the server breaks the protocol. The
    /// stream may be used on after it, and goes on where it was.
    pub async fn next(&mut self) -> Result<WatchNews, ClientError> {
        loop {
            if let Some(news) = self.state.next_news() {
                return Ok(news);
            }
            if self.link.is_none() {
                self.link = Some(self.connect().await?);
                self.state.connected();
                continue;
            }
            if let Err(error) = self.exchange().await {
                self.link = None;
                if error.is_lasting() {
                    return Err(error);
                }
            }
        }
    }

    /// Sends and receives once.
    async fn exchange(&mut self) -> Result<(), ClientError> {
        let link = self.link.as_mut().expect("a connection is open");
        let held_max = self.options.buffers.reply_bytes_max;
        if self.state.take(&mut link.receiver, held_max)? {
            self.dial.heard();
        }
        if self.state.has_news() {
            return Ok(());
        }
        if link.sent == link.out.len() {
            link.out.clear();
            link.sent = 0;
            self.state.send(&mut link.out)?;
        }
        let interest = match link.sent < link.out.len() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let Ok(ready) = timeout(self.options.deadline, link.stream.ready(interest)).await else {
            if std::mem::replace(&mut link.pinged, true) {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.state.ping(&mut link.out);
            return Ok(());
        };
        let ready = ready?;
        if ready.is_writable() {
            match link.stream.try_write(&link.out[link.sent..]) {
                Ok(bytes) => link.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if ready.is_readable() {
            match link.stream.try_read(link.receiver.space()) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(bytes) => {
                    link.receiver.received(bytes);
                    link.pinged = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<Link, ClientError> {
        let deadline = Instant::now() + self.options.deadline;
        loop {
            let address = self.dial.address()?;
            if let Some(pause) = self.dial.pause() {
                sleep_until(deadline.min(pause.into())).await;
            }
            let limit = deadline.min(Instant::now() + self.options.connect_timeout);
            let opened = match timeout_at(limit, greet(address, &self.options)).await {
                Ok(opened) => opened,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            self.dial.tried(&self.options);
            match opened {
                Ok((stream, receiver)) => {
                    return Ok(Link {
                        stream,
                        receiver,
                        out: Vec::new(),
                        sent: 0,
                        pinged: false,
                    });
                }
                Err(error) if !error.is_lost_connection() || Instant::now() >= deadline => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }
}
