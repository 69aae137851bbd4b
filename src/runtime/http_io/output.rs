//! What a socket of HTTP is to send.

#![forbid(unsafe_code)]

use crate::limits;

/// Bytes on their way to a socket.
///
/// Answers to the pings of HTTP/2 that are alone may wait for company. Clients in Go and C++ send a
/// ping behind what they receive, to measure the way; a packet of its own for each answer to one
/// costs both sides as much as a call does.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// The first so many are gone.
    sent: usize,
    /// They are answers to pings, and nothing else.
    only_pongs: bool,
}

/// What an answer to a ping begins with: its length, kind, flag and stream.
const PONG: [u8; 9] = [0, 0, 8, 6, 1, 0, 0, 0, 0];
const PONG_BYTES: usize = PONG.len() + 8;
/// Behind so many bytes at once come more, mostly: a piece of a long answer.
const LARGE: usize = 8 * limits::KIB;
/// So many of them may wait; more are a flood, which is answered at once.
const PONGS_WAITING: usize = 4;

impl Output {
    /// Adds what the codec writes. It writes small frames whole, one or several at once; a piece of
    /// another that looked like an answer to a ping would wait a moment, no more.
    pub fn push(&mut self, bytes: &[u8]) {
        let pong = bytes.len() == PONG_BYTES && bytes.starts_with(&PONG);
        self.only_pongs = pong && (self.only_pongs || self.bytes.is_empty());
        if self.bytes.is_empty() && bytes.len() >= LARGE {
            // The first of many: a buffer that grows would be copied again and again.
            self.bytes.reserve(limits::PIECE_BYTES + 4 * LARGE);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nobody waits for it.
    pub fn may_wait(&self) -> bool {
        self.only_pongs && self.bytes.len() <= PONGS_WAITING * PONG_BYTES
    }

    /// The socket should take something before more is added.
    pub fn is_full(&self) -> bool {
        self.unsent().len() >= limits::SOCKET_OUTPUT_BYTES
    }

    /// What is left to send.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many bytes of it are gone.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Everything is gone.
    pub fn clear(&mut self) {
        self.sent = 0;
        self.only_pongs = false;
        if self.bytes.capacity() > limits::POOLED_BUFFER_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, PONG, PONG_BYTES};

    #[test]
    fn answers_to_pings_wait_alone_and_only_a_few() {
        let pong = [&PONG[..], &[7; 8]].concat();
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0], &[7; 8][..]].concat();
        let may_wait = |pieces: &[&[u8]]| {
            let mut output = Output::default();
            pieces.iter().for_each(|piece| output.push(piece));
            output.may_wait()
        };
        assert_eq!(pong.len(), PONG_BYTES);
        assert!(!may_wait(&[]));
        assert!(may_wait(&[&pong]));
        assert!(may_wait(&[&pong, &pong, &pong, &pong]));
        assert!(!may_wait(&[&pong, &pong, &pong, &pong, &pong]));
        assert!(!may_wait(&[&pong, b"headers"]));
        assert!(!may_wait(&[b"headers", &pong]));
        assert!(!may_wait(&[&pong, b"headers", &pong]));
        assert!(!may_wait(&[&[&pong[..], b"headers"].concat()]));
        assert!(!may_wait(&[&ping]));
        let mut output = Output::default();
        output.push(b"headers");
        output.clear();
        output.push(&pong);
        assert!(output.may_wait());
    }
}
