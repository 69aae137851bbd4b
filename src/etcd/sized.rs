//! Answers to ranges in pieces: the length of a message stands before it, so what surrounds the
//! pairs is written from their sizes, and the pairs follow as they are read.
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

/// One message with pairs.
#[derive(Debug, Clone, Copy)]
pub struct SizedRange {
    /// It is one of `RangeStream`.
    pub streamed: bool,
    /// What the last message has besides.
    pub closing: Option<(Header, RangeSummary)>,
    /// Bytes of the pairs, by [`pair_bytes`].
    pub bytes: u64,
}

impl SizedRange {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        if let Some((header, _)) = &self.closing {
            put_message(&mut head, 1, |out| put_header(out, header));
        }
        head
    }

    fn tail(&self) -> Vec<u8> {
        let mut tail = Vec::new();
        if let Some((_, summary)) = &self.closing {
            put_bool(&mut tail, 3, summary.more);
            put_i64(&mut tail, 4, summary.count);
        }
        tail
    }

    /// Writes what stands before the pairs.
    pub fn begin(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let head = self.head();
        let bytes = self.bytes + (head.len() + self.tail().len()) as u64;
        let mut wrapped = Vec::new();
        if self.streamed {
            // Field 1 of a message of the stream is the partial answer.
            let bytes = usize::try_from(bytes).map_err(|_| TooLong)?;
            begin_message(&mut wrapped, 1, bytes);
        }
        let length = bytes + wrapped.len() as u64;
        if length > MESSAGE_BYTES_MAX {
            return Err(TooLong);
        }
        let start = message::begin(out);
        let length = u32::try_from(length).map_err(|_| TooLong)?;
        out[start + 1..].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&wrapped);
        out.extend_from_slice(&head);
        Ok(())
    }

    /// Writes what stands behind them.
    pub fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tail());
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

/// How many pairs the next message of a stream has, after one of so many pairs and bytes. As in
/// etcd: few at first, and about `bytes` in each as soon as possible.
pub fn next_chunk(pairs: usize, bytes: u64, target: u64) -> usize {
    let next = if bytes < target / 2 {
        pairs.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        pairs / 2
    } else {
        pairs
    };
    next.max(1)
}

/// Pairs in the first message of a stream.
pub const FIRST_CHUNK: usize = 10;

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

    fn in_pieces(streamed: bool, closing: Option<(Header, RangeSummary)>) -> Vec<u8> {
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
            streamed,
            closing,
            bytes: sizes.sum(),
        };
        let mut out = Vec::new();
        sized.begin(&mut out).unwrap();
        pairs.iter().for_each(|kv| put_pair(&mut out, &kv.borrow()));
        sized.end(&mut out);
        out
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
        assert_eq!(in_pieces(false, Some((HEADER, summary))), whole);
        let mut read = Vec::new();
        let mut encoder = RangeEncoder::new(&mut read, &HEADER, 1 << 20);
        pairs().iter().for_each(|kv| encoder.push(kv.borrow()));
        encoder.finish(summary).unwrap();
        assert_eq!(read, whole);

        // The same inside a message of a stream.
        let mut wrapped = Vec::new();
        let start = message::begin(&mut wrapped);
        put_message(&mut wrapped, 1, |out| out.extend_from_slice(&whole[5..]));
        message::finish(&mut wrapped, start);
        assert_eq!(in_pieces(true, Some((HEADER, summary))), wrapped);
        let open = in_pieces(true, None);
        let length = u32::from_be_bytes(open[1..5].try_into().unwrap());
        assert_eq!(length as usize, open.len() - 5);
    }

    #[test]
    fn a_message_beyond_what_clients_take_is_not_begun() {
        let sized = SizedRange {
            streamed: true,
            closing: None,
            bytes: i32::MAX as u64,
        };
        let mut out = Vec::new();
        assert_eq!(sized.begin(&mut out), Err(TooLong));
        assert!(out.is_empty());
    }

    #[test]
    fn chunks_grow_and_shrink_towards_the_target() {
        assert_eq!(next_chunk(10, 10, 100), 20);
        assert_eq!(next_chunk(10, 50, 100), 10);
        assert_eq!(next_chunk(10, 200, 100), 10);
        assert_eq!(next_chunk(10, 201, 100), 5);
        assert_eq!(next_chunk(1, 1000, 100), 1);
        assert_eq!(next_chunk(usize::MAX, 1, 100), usize::MAX);
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
