//! Watching for programs made of threads.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::dial::Dial;
use super::state::{State, WatchId, WatchNews};
use crate::api::WatchCreate;
use crate::client::blocking::greet;
use crate::client::error::ClientError;
use crate::client::options::ClientOptions;
use crate::client::raw::Receiver;

/// A stream of watches, on a connection of its own, for programs made of threads; see
/// [`super::WatchStream`].
#[derive(Debug)]
pub struct BlockingWatchStream {
    options: ClientOptions,
    state: State,
    dial: Dial,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    receiver: Receiver,
    /// When bytes last came, or a ping was sent.
    heard: Instant,
    pinged: bool,
}

impl BlockingWatchStream {
    pub(in crate::client) fn new(addresses: Vec<String>, options: ClientOptions) -> Self {
        BlockingWatchStream {
            options,
            state: State::default(),
            dial: Dial::new(addresses),
            link: None,
        }
    }

    /// As [`super::WatchStream::watch`].
    pub fn watch(&mut self, create: &WatchCreate<'_>) -> WatchId {
        self.state.add(create)
    }

    /// As [`super::WatchStream::cancel`].
    pub fn cancel(&mut self, watch: WatchId) {
        self.state.cancel(watch);
    }

    /// As [`super::WatchStream::ask_progress`].
    pub fn ask_progress(&mut self) {
        self.state.ask_progress();
    }

    /// What comes next; `None` if nothing has come within `patience`. For errors see
    /// [`super::WatchStream::next`].
    pub fn next(&mut self, patience: Duration) -> Result<Option<WatchNews>, ClientError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(news) = self.state.next_news() {
                return Ok(Some(news));
            }
            let step = match &mut self.link {
                None => self.connect(until),
                Some(link) => link.exchange(&mut self.state, &self.options, until),
            };
            match step {
                Ok(heard) if heard => self.dial.heard(),
                Ok(_) => {}
                Err(error) => {
                    self.link = None;
                    if error.is_lasting() {
                        return Err(error);
                    }
                }
            }
            if Instant::now() >= until && !self.state.has_news() {
                return Ok(None);
            }
        }
    }

    /// Tries to open a connection once; pauses before, if the last was of no use.
    fn connect(&mut self, until: Instant) -> Result<bool, ClientError> {
        let address = self.dial.address()?;
        let now = Instant::now();
        if let Some(pause) = self.dial.pause()
            && pause > now
        {
            thread::sleep(pause.min(until) - now);
            if pause > until {
                return Ok(false);
            }
        }
        let limit = Instant::now() + self.options.connect_timeout;
        let opened = greet(address, &self.options, limit);
        self.dial.tried(&self.options);
        let (stream, receiver) = opened?;
        self.link = Some(Link {
            stream,
            receiver,
            heard: Instant::now(),
            pinged: false,
        });
        self.state.connected();
        Ok(false)
    }
}

impl Link {
    /// Sends what is to be sent, and receives once; says whether a reply came.
    fn exchange(
        &mut self,
        state: &mut State,
        options: &ClientOptions,
        until: Instant,
    ) -> Result<bool, ClientError> {
        let heard = state.take(&mut self.receiver, options.buffers.reply_bytes_max)?;
        if state.has_news() {
            return Ok(heard);
        }
        let mut out = Vec::new();
        state.send(&mut out)?;
        let now = Instant::now();
        if now - self.heard >= options.deadline {
            if std::mem::replace(&mut self.pinged, true) {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.heard = now;
            state.ping(&mut out);
        }
        self.stream.write_all(&out)?;
        let wait = (self.heard + options.deadline).min(until);
        let wait = wait.saturating_duration_since(now);
        self.stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match self.stream.read(self.receiver.space()) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(bytes) => {
                self.receiver.received(bytes);
                self.heard = Instant::now();
                self.pinged = false;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(heard)
    }
}
