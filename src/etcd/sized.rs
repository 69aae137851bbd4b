//! Answers to ranges in pieces: the length of a message stands before it, so what surrounds the
//! pairs of one is written from their sizes, and the pairs follow as they are read. In a stream
//! each piece is a message, whose length is filled in behind it.
#![forbid(unsafe_code)]

use super::message;
use super::pb::{begin_message, put_bool, put_i64, put_message, varint_bytes};
use super::reply::{TooLong, kv_bytes, put_header, put_kv};
use super::status::{Code, Status};
use crate::api::{Header, KeyValue, RangeRequest, RangeSummary, SortOrder, SortTarget};

/// The longest message that a client of etcd takes.
const MESSAGE_BYTES_MAX: u64 = i32::MAX as u64;

/// Bytes that a pair takes in an answer whose value has `value_bytes` bytes.
#[inline]
pub fn pair_bytes(kv: &KeyValue<'_>, value_bytes: usize) -> u64 {
    let value = match value_bytes {
        0 => 0,
        bytes => 1 + varint_bytes(bytes as u64) + bytes,
    };
    let bytes = kv_bytes(&KeyValue { value: &[], ..*kv }) + value;
    (1 + varint_bytes(bytes as u64) + bytes) as u64
}

/// Appends a pair.
#[inline]
pub fn put_pair(out: &mut Vec<u8>, kv: &KeyValue<'_>) {
    put_kv(out, 2, kv);
}

/// An answer of one message.
#[derive(Debug, Clone, Copy)]
pub struct SizedRange {
    /// What it has besides.
    pub closing: (Header, RangeSummary),
    /// Bytes of the pairs, by [`pair_bytes`].
    pub bytes: u64,
}

impl SizedRange {
    /// Writes what stands before the pairs.
    pub fn begin(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let (head, tail) = around(&self.closing);
        let length = self.bytes + (head.len() + tail.len()) as u64;
        if length > MESSAGE_BYTES_MAX {
            return Err(TooLong);
        }
        let length = u32::try_from(length).map_err(|_| TooLong)?;
        let start = message::begin(out);
        out[start + 1..].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&head);
        Ok(())
    }

    /// Writes what stands behind them.
    pub fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&around(&self.closing).1);
    }
}

/// What an answer has before its pairs, and behind them.
fn around((header, summary): &(Header, RangeSummary)) -> (Vec<u8>, Vec<u8>) {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    put_message(&mut head, 1, |out| put_header(out, header));
    put_bool(&mut tail, 3, summary.more);
    put_i64(&mut tail, 4, summary.count);
    (head, tail)
}

/// A message of a stream whose pairs are being written.
#[derive(Debug)]
pub struct Chunk {
    start: usize,
}

impl Chunk {
    /// What stands before the pairs: field 1, with a length of up to 2 MiB.
    const WRAP_BYTES: usize = 1 + 3;

    /// Leaves room for what stands before the pairs.
    pub fn begin(out: &mut Vec<u8>) -> Chunk {
        let start = message::begin(out);
        out.extend_from_slice(&[0; Chunk::WRAP_BYTES]);
        Chunk { start }
    }

    fn pairs(&self) -> usize {
        self.start + message::PREFIX_BYTES + Chunk::WRAP_BYTES
    }

    /// Bytes of the pairs in it.
    pub fn bytes(&self, out: &[u8]) -> usize {
        out.len() - self.pairs()
    }

    /// Takes it back.
    pub fn drop(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }

    /// Ends it behind its last pair; the last message of a stream has something besides.
    pub fn finish(self, out: &mut Vec<u8>, closing: Option<(Header, RangeSummary)>) {
        let (head, tail) = closing.as_ref().map(around).unwrap_or_default();
        let mut before = Vec::with_capacity(Chunk::WRAP_BYTES + head.len());
        begin_message(&mut before, 1, head.len() + self.bytes(out) + tail.len());
        before.extend_from_slice(&head);
        let pairs = self.pairs();
        out.splice(pairs - Chunk::WRAP_BYTES..pairs, before);
        out.extend_from_slice(&tail);
        message::finish(out, self.start);
    }
}
/// Why a range cannot be streamed, if it cannot. A target without an order is passed over: etcd
/// takes it, and would then page by the wrong key.
pub fn streams_not(range: &RangeRequest<'_>) -> Option<Status> {
    let by_key = range.sort_target == SortTarget::Key;
    let ordered = match range.sort_order {
        SortOrder::None => true,
        SortOrder::Ascend => by_key,
        SortOrder::Descend => false,
    };
    let filtered = range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0;
    let what = match (ordered, filtered) {
        (false, _) => "RangeStream does not support custom sort orders",
        (true, true) => "RangeStream does not support revision filters",
        (true, false) => return None,
    };
    Some(Status::new(Code::Unimplemented, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{KvSink, OwnedKeyValue, RangeResponse, Response};
    use crate::etcd::{RangeEncoder, encode_response};

    const HEADER: Header = Header {
        cluster_id: 1,
        member_id: 2,
        revision: 300,
        raft_term: 4,
    };

    fn pairs() -> Vec<OwnedKeyValue> {
        let pair = |n: i64| OwnedKeyValue {
            key: vec![b'k'; n as usize],
            create_revision: n,
            mod_revision: n << 30,
            version: n,
            value: vec![b'v'; 40 * n as usize],
            lease: -n,
        };
        [1, 2, 3, 100, 1000].map(pair).to_vec()
    }

    fn in_pieces(closing: (Header, RangeSummary)) -> Vec<u8> {
        let pairs = pairs();
        let sizes = pairs.iter().map(|kv| {
            let bytes = kv.value.len();
            let unknown = KeyValue {
                value: b"",
                ..kv.borrow()
            };
            pair_bytes(&unknown, bytes)
        });
        let sized = SizedRange {
            closing,
            bytes: sizes.sum(),
        };
        let mut out = Vec::new();
        sized.begin(&mut out).unwrap();
        pairs.iter().for_each(|kv| put_pair(&mut out, &kv.borrow()));
        sized.end(&mut out);
        out
    }

    fn chunk(pairs: &[OwnedKeyValue], closing: Option<(Header, RangeSummary)>) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let chunk = Chunk::begin(&mut out);
        pairs.iter().for_each(|kv| put_pair(&mut out, &kv.borrow()));
        chunk.finish(&mut out, closing);
        out.split_off(b"before".len())
    }

    #[test]
    fn an_answer_in_pieces_is_the_answer() {
        let summary = RangeSummary {
            more: true,
            count: 777,
        };
        let response = RangeResponse {
            kvs: pairs(),
            more: true,
            count: 777,
        };
        let mut whole = Vec::new();
        encode_response(&HEADER, &Response::Range(response), &mut whole);
        assert_eq!(in_pieces((HEADER, summary)), whole);
        let mut read = Vec::new();
        let mut encoder = RangeEncoder::new(&mut read, &HEADER, 1 << 20);
        pairs().iter().for_each(|kv| encoder.push(kv.borrow()));
        encoder.finish(summary).unwrap();
        assert_eq!(read, whole);

        // The same inside a message of a stream.
        assert_eq!(
            chunk(&pairs(), Some((HEADER, summary))),
            wrapped(&whole[5..])
        );
    }

    /// A message of a stream around an answer.
    fn wrapped(answer: &[u8]) -> Vec<u8> {
        let mut wrapped = Vec::new();
        let start = message::begin(&mut wrapped);
        put_message(&mut wrapped, 1, |out| out.extend_from_slice(answer));
        message::finish(&mut wrapped, start);
        wrapped
    }

    #[test]
    fn a_chunk_of_any_length_says_how_long_it_is() {
        assert_eq!(chunk(&[], None), wrapped(b""));
        for bytes in [1, 100, 127, 128, 20_000, 1 << 20, 1 << 21, 3 << 20] {
            let pair = OwnedKeyValue {
                value: vec![b'v'; bytes],
                ..pairs()[0].clone()
            };
            let mut answer = Vec::new();
            put_pair(&mut answer, &pair.borrow());
            assert!(chunk(&[pair], None) == wrapped(&answer), "{bytes}");
        }
        let mut out = b"before".to_vec();
        let chunk = Chunk::begin(&mut out);
        put_pair(&mut out, &pairs()[1].borrow());
        assert_eq!(chunk.bytes(&out), {
            let kv = &pairs()[1];
            pair_bytes(&kv.borrow(), kv.value.len()) as usize
        });
        chunk.drop(&mut out);
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_message_beyond_what_clients_take_is_not_begun() {
        let summary = RangeSummary {
            more: false,
            count: 1,
        };
        let sized = SizedRange {
            closing: (HEADER, summary),
            bytes: i32::MAX as u64,
        };
        let mut out = Vec::new();
        assert_eq!(sized.begin(&mut out), Err(TooLong));
        assert!(out.is_empty());
    }

    #[test]
    fn what_cannot_be_streamed_is_named() {
        let range = |sort_order, sort_target| RangeRequest {
            sort_order,
            sort_target,
            ..RangeRequest::default()
        };
        let text = |range: &RangeRequest<'_>| streams_not(range).map(|status| status.message);
        assert_eq!(text(&range(SortOrder::Ascend, SortTarget::Key)), None);
        assert_eq!(text(&range(SortOrder::None, SortTarget::Mod)), None);
        let sorted = text(&range(SortOrder::Ascend, SortTarget::Mod));
        assert_eq!(
            sorted.as_deref(),
            Some("RangeStream does not support custom sort orders")
        );
        assert!(text(&range(SortOrder::Descend, SortTarget::Key)).is_some());
        let filtered = RangeRequest {
            max_create_revision: 1,
            ..RangeRequest::default()
        };
        assert_eq!(
            text(&filtered).as_deref(),
            Some("RangeStream does not support revision filters")
        );
    }
}
