//! Watching for tokio programs.

#![forbid(unsafe_code)]

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::state::{State, WatchId, WatchNews};
use crate::api::WatchCreate;
use crate::client::error::ClientError;
use crate::client::options::ClientOptions;
use crate::client::raw::Receiver;
use crate::wire;

/// A stream of watches, on a connection of its own. See [`crate::client`] for an example.
///
/// Nothing happens but inside [`WatchStream::next`]: it opens the connection, asks for the
/// watches, and takes from the socket what the server says, no more at a time than is asked for.
/// It may be dropped at any await, as in a `select!`, without loss.
#[derive(Debug)]
pub struct WatchStream {
    addresses: Vec<String>,
    options: ClientOptions,
    state: State,
    link: Option<Link>,
    tried: usize,
    failures: u32,
    /// Not to be tried before.
    pause: Option<Instant>,
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
            addresses,
            options,
            state: State::default(),
            link: None,
            tried: 0,
            failures: 0,
            pause: None,
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
                if !error.is_lost_connection() || matches!(error, ClientError::Malformed(_)) {
                    return Err(error);
                }
            }
        }
    }

    /// Sends and receives once.
    async fn exchange(&mut self) -> Result<(), ClientError> {
        let link = self.link.as_mut().expect("a connection is open");
        let heard = link.receive(&mut self.state, &self.options)?;
        if heard {
            self.failures = 0;
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
        if self.addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no endpoints given");
            return Err(none.into());
        }
        let deadline = Instant::now() + self.options.deadline;
        loop {
            if let Some(pause) = self.pause {
                sleep_until(pause.min(deadline)).await;
            }
            let at = self.tried % self.addresses.len();
            let limit = deadline.min(Instant::now() + self.options.connect_timeout);
            let opened = match timeout_at(limit, open(&self.addresses[at], &self.options)).await {
                Ok(opened) => opened,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            // A connection that breaks before it was of use asks for a pause, too.
            self.tried = self.tried.wrapping_add(1);
            self.failures = self.failures.saturating_add(1);
            self.pause = Some(Instant::now() + self.options.backoff(self.failures));
            match opened {
                Ok(link) => return Ok(link),
                Err(error) if !error.is_lost_connection() || Instant::now() >= deadline => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }
}

impl Link {
    /// Takes what has been received until there is news; says whether there was anything.
    fn receive(&mut self, state: &mut State, options: &ClientOptions) -> Result<bool, ClientError> {
        let mut heard = false;
        while !state.has_news()
            && let Some(reply) = self.receiver.next_reply()?
        {
            heard = true;
            state.hear(&reply, options.buffers.reply_bytes_max)?;
        }
        Ok(heard)
    }
}

async fn open(address: &str, options: &ClientOptions) -> Result<Link, ClientError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::client_preamble()).await?;
    let mut receiver = Receiver::new(&options.buffers);
    while !receiver.greeted()? {
        match stream.read(receiver.space()).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            bytes => receiver.received(bytes),
        }
    }
    Ok(Link {
        stream,
        receiver,
        out: Vec::new(),
        sent: 0,
        pinged: false,
    })
}
