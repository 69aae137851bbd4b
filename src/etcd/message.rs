//! gRPC's framing: each message behind a byte that says whether it is compressed, and its length.
#![forbid(unsafe_code)]

use super::status::{Code, Status};

/// Bytes before each message.
pub const PREFIX_BYTES: usize = 5;

/// What stands at the beginning of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole message.
    Message {
        /// Its bytes.
        message: &'a [u8],
        /// They are compressed, as the call's headers say.
        packed: bool,
        /// Bytes it takes with its prefix.
        consumed: usize,
    },
    /// More is to come; this many bytes in all, as far as is known.
    NeedMore {
        /// The prefix and the message.
        total: usize,
    },
}

/// Reads the message at the beginning of `bytes`. One of more than `bytes_max` is refused by its
/// prefix alone.
pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Parsed<'_>, Status> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Parsed::NeedMore {
            total: PREFIX_BYTES,
        });
    };
    let [packed, a, b, c, d] = *prefix;
    if packed > 1 {
        return Err(Status::new(
            Code::Internal,
            format!("grpc: received unexpected payload format {packed}"),
        ));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > bytes_max {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({length} vs. {bytes_max})"),
        ));
    }
    Ok(match rest.get(..length) {
        Some(message) => Parsed::Message {
            message,
            packed: packed == 1,
            consumed: PREFIX_BYTES + length,
        },
        None => Parsed::NeedMore {
            total: PREFIX_BYTES + length,
        },
    })
}

/// How many bytes of the last message of a stream are to come behind `piece`, if `left` were to
/// come before it. A piece holds the whole prefix of a message that begins in it.
pub fn left(mut piece: &[u8], mut left: usize) -> usize {
    loop {
        let here = left.min(piece.len());
        piece = &piece[here..];
        left -= here;
        let Some([_, length @ ..]) = piece.first_chunk::<PREFIX_BYTES>() else {
            return left;
        };
        left = PREFIX_BYTES + u32::from_be_bytes(*length) as usize;
    }
}

/// Leaves room for a message's prefix; returns where it begins.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    start
}

/// Writes the prefix of the message that ends here.
///
/// # Panics
/// If it is longer than 4 GiB; answers are bounded far below.
pub fn finish(out: &mut [u8], start: usize) {
    let length = out.len() - start - PREFIX_BYTES;
    let length = u32::try_from(length).expect("answers are bounded far below 4 GiB");
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_back() {
        let mut out = b"before".to_vec();
        let start = begin(&mut out);
        out.extend_from_slice(b"hello");
        finish(&mut out, start);
        assert_eq!(&out[6..], b"\0\0\0\0\x05hello");
        let mut followed = out[6..].to_vec();
        followed.push(9);
        let whole = Parsed::Message {
            message: b"hello",
            packed: false,
            consumed: 10,
        };
        assert_eq!(parse(&followed, 5), Ok(whole));
        for short in 0..10 {
            let total = if short < 5 { 5 } else { 10 };
            assert_eq!(parse(&out[6..6 + short], 5), Ok(Parsed::NeedMore { total }));
        }
    }

    #[test]
    fn what_is_left_of_a_message_is_known() {
        let stream = b"\0\0\0\0\x05hello\0\0\0\0\0\0\0\0\0\x02ab";
        assert_eq!(left(stream, 0), 0);
        assert_eq!(left(&stream[..7], 0), 3);
        assert_eq!(left(&stream[7..10], 3), 0);
        assert_eq!(left(&stream[7..8], 3), 2);
        assert_eq!(left(&stream[..20], 0), 2);
        assert_eq!(left(b"", 4), 4);
    }

    #[test]
    fn what_is_too_long_or_of_no_known_format_is_refused_by_its_prefix() {
        let long = parse(b"\0\0\0\0\x06", 5).unwrap_err();
        assert_eq!(long.code, Code::ResourceExhausted);
        assert_eq!(
            long.message,
            "grpc: received message larger than max (6 vs. 5)"
        );
        let odd = parse(b"\x02\0\0\0\x01", 5).unwrap_err();
        assert_eq!(odd.code, Code::Internal);
        assert_eq!(odd.message, "grpc: received unexpected payload format 2");
        let packed = Parsed::Message {
            message: b"a",
            packed: true,
            consumed: 6,
        };
        assert_eq!(parse(b"\x01\0\0\0\x01a", 5), Ok(packed));
    }
}
