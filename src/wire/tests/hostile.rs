//! Truncated, flipped, lying and hostile bytes.

use proptest::prelude::*;

use super::samples::{HEADER, requests, responses};
use super::watches;
use crate::api::{Error, PutRequest, Request, RequestOp, TxnRequest};
use crate::wire::fuzz::fuzz_frame;
use crate::wire::layout::{CRC_AT, FLAGS_AT, ID_AT, KIND_AT, LENGTH_AT, ZERO_AT};
use crate::wire::{
    BODY_BYTES_MAX, Decoded, FRAME_HEADER_BYTES, FrameDecoder, HelloStatus, Kind, Malformed,
    ServerHello, Sniff, TXN_DEPTH_MAX, TXN_OPS_MAX, Unencodable, client_preamble, decode_reply,
    decode_request, decode_watch, encode_error, encode_ping, encode_request, encode_response,
    encode_status, encode_status_reply, encode_watch, is_watch, read_client_preamble,
    read_server_preamble, refusal, refused_status, server_preamble, sniff,
};

/// Every sample as a frame, with the decoder of the side that takes it.
fn frames() -> Vec<(FrameDecoder, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut add = |replies: bool, write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        let decoder = match replies {
            true => FrameDecoder::replies(1 << 20),
            false => FrameDecoder::requests(1 << 20),
        };
        frames.push((decoder, frame));
    };
    for request in requests() {
        add(false, &|out| {
            encode_request(&request, 3, out).expect("small")
        });
    }
    add(false, &|out| encode_ping(3, out));
    add(false, &|out| encode_status(3, out));
    for response in responses() {
        add(true, &|out| {
            encode_response(&HEADER, &response, 3, out).expect("small")
        });
    }
    for (_, request) in watches::requests() {
        add(false, &|out| encode_watch(&request, 3, out).expect("small"));
    }
    for (_, response) in watches::responses() {
        add(true, &|out| watches::encode(&HEADER, &response, 3, out));
    }
    add(true, &|out| encode_status_reply(&HEADER, "1.2.3", 3, out));
    add(true, &|out| encode_error(&HEADER, Error::NoSpace, 3, out));
    frames
}

/// Gives a changed frame a checksum that matches.
fn reseal(frame: &mut [u8]) {
    let crc = crc32fast::hash(&frame[LENGTH_AT..]);
    frame[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_truncated_frame_needs_more() {
    for (decoder, frame) in frames() {
        for length in 0..frame.len() {
            let total = if length < FRAME_HEADER_BYTES {
                FRAME_HEADER_BYTES
            } else {
                frame.len()
            };
            let decoded = decoder.decode(&frame[..length]);
            assert_eq!(decoded, Ok(Decoded::NeedMore { total }));
        }
        assert!(matches!(decoder.decode(&frame), Ok(Decoded::Frame { .. })));
    }
}

#[test]
fn no_flipped_bit_passes() {
    for (decoder, frame) in frames() {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decoder.decode(&flipped) {
                Err(Malformed::BadCrc | Malformed::TooLong { .. }) => {}
                Ok(Decoded::NeedMore { .. }) => {
                    assert!(
                        (LENGTH_AT..KIND_AT).contains(&(bit / 8)),
                        "only a larger length waits"
                    )
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_sealed_flip_is_refused_or_means_something_else() {
    for (_, frame) in frames() {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            reseal(&mut flipped);
            // Holds that whatever is accepted is the only encoding of what it means.
            fuzz_frame(&flipped);
        }
    }
}

#[test]
fn every_shortened_or_lengthened_body_is_refused() {
    let mut accepted = Vec::new();
    for (_, frame) in frames() {
        let Some(kind) = Kind::from_u8(frame[KIND_AT]) else {
            panic!("a sample's kind")
        };
        let body = &frame[FRAME_HEADER_BYTES..];
        let read = |body: &[u8]| match kind {
            Kind::Ping | Kind::Status => crate::wire::decode_empty(body).is_ok(),
            kind if is_watch(kind) => decode_watch(kind, body).is_ok(),
            kind if kind.is_reply() => {
                decode_reply(&crate::wire::Frame { kind, id: 1, body }).is_ok()
            }
            kind => decode_request(kind, body).is_ok(),
        };
        assert!(read(body));
        for cut in 0..body.len() {
            if read(&body[..cut]) || read(&body[cut + 1..]) {
                accepted.push((kind, cut));
            }
        }
        for slack in [vec![0], vec![0; 8], vec![0xff; 48]] {
            assert!(!read(&[&slack, body].concat()), "{kind:?}: slack in front");
            assert!(!read(&[body, &slack].concat()), "{kind:?}: slack behind");
        }
    }
    assert_eq!(accepted, []);
}

#[test]
fn each_broken_rule_has_its_name() {
    let decoder = FrameDecoder::requests(1 << 20);
    let mut good = Vec::new();
    encode_ping(3, &mut good);
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        reseal(&mut frame);
        decoder.decode(&frame).map(|_| ())
    };
    assert_eq!(broken(&|_| {}), Ok(()));
    assert_eq!(
        broken(&|frame| frame[KIND_AT] = 0x7e),
        Err(Malformed::UnknownKind(0x7e))
    );
    assert_eq!(
        broken(&|frame| frame[KIND_AT] = 0x90),
        Err(Malformed::UnknownKind(0x90))
    );
    assert_eq!(
        broken(&|frame| frame[FLAGS_AT] = 1),
        Err(Malformed::UnknownFlags(1))
    );
    assert_eq!(
        broken(&|frame| frame[ZERO_AT + 1] = 1),
        Err(Malformed::NonZeroReserved)
    );
    assert_eq!(broken(&|frame| frame[ID_AT] = 0), Err(Malformed::ZeroId));
    let mut long = good.clone();
    long[LENGTH_AT..KIND_AT].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Malformed::TooLong {
        bytes: u64::from(u32::MAX) + 20,
        limit: 1 << 20,
    };
    assert_eq!(decoder.decode(&long), Err(refused));
    let unlimited = FrameDecoder::requests(usize::MAX);
    let limit = (BODY_BYTES_MAX + FRAME_HEADER_BYTES) as u64;
    let refused = Malformed::TooLong {
        bytes: u64::from(u32::MAX) + 20,
        limit,
    };
    assert_eq!(unlimited.decode(&long), Err(refused));
    assert_eq!(
        decode_request(Kind::Ping, &[]),
        Err(Malformed::UnknownKind(0x10))
    );
    assert_eq!(
        decode_request(Kind::Put, &[0; 24]),
        Err(Malformed::BadArchive)
    );
    let mut put = Vec::new();
    encode_request(&Request::Put(PutRequest::default()), 1, &mut put).expect("small");
    // A byte that belongs to nothing: valid for rkyv, but not the one arrangement.
    let slack = [&[0], &put[FRAME_HEADER_BYTES..]].concat();
    assert_eq!(
        decode_request(Kind::Put, &slack),
        Err(Malformed::NotCanonical)
    );
    put[FRAME_HEADER_BYTES + 24] = 0x80;
    let refused = decode_request(Kind::Put, &put[FRAME_HEADER_BYTES..]);
    assert_eq!(refused, Err(Malformed::BadValue("options")));
}

fn nested(depth: usize) -> TxnRequest<'static> {
    let mut txn = TxnRequest::default();
    for _ in 1..depth {
        txn = TxnRequest {
            success: vec![RequestOp::Txn(txn)],
            ..TxnRequest::default()
        };
    }
    txn
}

/// A transaction's body nested to any depth, written without the encoder's checks.
fn nested_body(depth: usize) -> Vec<u8> {
    // Three empty vectors, each offset pointing back to the struct's start.
    let vec = |offset: i32, len: u32| [offset.to_le_bytes(), len.to_le_bytes()].concat();
    let mut body = [vec(0, 0), vec(-8, 0), vec(-16, 0)].concat();
    for _ in 1..depth {
        let inner = body.len();
        body.extend(vec(-(inner as i32), inner as u32));
        body.push(Kind::Txn.number());
        let compare_at = inner as i32 + 9;
        body.extend(vec(-compare_at, 0));
        body.extend(vec(-9 - 8, 1));
        body.extend(vec(-16, 0));
    }
    body
}

#[test]
fn nesting_is_bounded() {
    let mut body = Vec::new();
    let deepest = Request::Txn(nested(TXN_DEPTH_MAX));
    assert_eq!(crate::wire::encode_body(&deepest, &mut body), Ok(Kind::Txn));
    assert_eq!(decode_request(Kind::Txn, &body), Ok(deepest));
    let deeper = Request::Txn(nested(TXN_DEPTH_MAX + 1));
    assert_eq!(
        crate::wire::encode_body(&deeper, &mut body),
        Err(Unencodable::TooDeep)
    );
    assert_eq!(
        nested_body(TXN_DEPTH_MAX),
        body,
        "written by hand as by the encoder"
    );
    let body = nested_body(TXN_DEPTH_MAX + 1);
    assert_eq!(decode_request(Kind::Txn, &body), Err(Malformed::TooDeep));
}

#[test]
fn the_deepest_nesting_fits_a_small_stack() {
    let body = |depth| {
        let mut body = Vec::new();
        crate::wire::encode_body(&Request::Txn(nested(depth)), &mut body).expect("allowed");
        body
    };
    let body = body(TXN_DEPTH_MAX);
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let handle = thread.spawn(move || decode_request(Kind::Txn, &body).is_ok());
    assert!(handle.expect("a thread").join().expect("no overflow"));
}

#[test]
fn operations_are_counted_over_all_levels() {
    let half = TXN_OPS_MAX / 2;
    let inner = TxnRequest {
        success: vec![RequestOp::Put(PutRequest::default()); half],
        ..TxnRequest::default()
    };
    let mut txn = TxnRequest {
        success: vec![RequestOp::Put(PutRequest::default()); half - 1],
        failure: vec![RequestOp::Txn(inner)],
        ..TxnRequest::default()
    };
    let mut body = Vec::new();
    crate::wire::encode_body(&Request::Txn(txn.clone()), &mut body).expect("exactly the limit");
    assert!(decode_request(Kind::Txn, &body).is_ok());
    txn.success.push(RequestOp::Put(PutRequest::default()));
    let refused = crate::wire::encode_body(&Request::Txn(txn), &mut body);
    assert_eq!(refused, Err(Unencodable::TooManyOps));
}

#[test]
fn the_first_bytes_tell_protocols_apart() {
    assert_eq!(sniff(&client_preamble()), Sniff::Native);
    assert_eq!(sniff(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), Sniff::Http2);
    assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniff::Http1);
    assert_eq!(sniff(b"PUT /v3/kv HTTP/1.1\r\n"), Sniff::Http1);
    assert_eq!(sniff(&[0x16, 0x03, 0x01, 0x02]), Sniff::Tls);
    for whole in [
        &client_preamble()[..8],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT ",
        b"PATCH ",
    ] {
        for length in 0..whole.len() {
            assert_eq!(
                sniff(&whole[..length]),
                Sniff::NeedMore,
                "{length} of {whole:?}"
            );
        }
    }
    for other in [
        b"PRI * HTTP/1.1\r\n" as &[u8],
        b"\x91quoim\r\n",
        b"\0",
        b"QUIT\r\n",
        b"get / ",
    ] {
        assert_eq!(sniff(other), Sniff::Unknown);
    }
    assert_eq!(refusal(Sniff::Tls)[0], 0x15, "an alert");
}

#[test]
fn preambles_come_back_and_bad_ones_do_not() {
    let good = client_preamble();
    assert_eq!(read_client_preamble(&good), Ok(Some(())));
    let status = HelloStatus::Busy;
    let hello = ServerHello {
        status,
        frame_bytes_max: 1,
        in_flight_max: 2,
        cluster_id: 3,
        member_id: 4,
    };
    let answer = server_preamble(&hello);
    assert_eq!(read_server_preamble(&answer), Ok(Some(hello)));
    for length in 0..good.len() {
        assert_eq!(read_client_preamble(&good[..length]), Ok(None));
    }
    for length in 0..answer.len() {
        assert_eq!(read_server_preamble(&answer[..length]), Ok(None));
    }
    for bit in 0..good.len() * 8 {
        let mut flipped = good;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_client_preamble(&flipped).is_err());
    }
    for bit in 0..answer.len() * 8 {
        let mut flipped = answer;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_server_preamble(&flipped).is_err());
    }
    let mut newer = good;
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..].copy_from_slice(&crc.to_le_bytes());
    let refused = Malformed::UnknownVersion(2);
    assert_eq!(read_client_preamble(&newer), Err(refused));
    assert_eq!(refused_status(refused), HelloStatus::VersionRefused);
    assert_eq!(refused_status(Malformed::BadCrc), HelloStatus::Malformed);
}

/// A short seeded run of what the fuzz target does for long.
#[test]
fn mutated_frames_break_nothing() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let frames = frames();
    for _ in 0..30_000 {
        let mut bytes = frames[random(frames.len())].1.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => drop(bytes.drain(at..bytes.len().min(at + 1 + random(12)))),
                3 => bytes.insert(at, random(256) as u8),
                _ => {
                    let from = random(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + 8)].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.len() < FRAME_HEADER_BYTES {
                break;
            }
        }
        if bytes.len() >= FRAME_HEADER_BYTES {
            let length = (bytes.len() - FRAME_HEADER_BYTES) as u32;
            bytes[LENGTH_AT..KIND_AT].copy_from_slice(&length.to_le_bytes());
            reseal(&mut bytes);
        }
        fuzz_frame(&bytes);
    }
}

proptest! {
    #[test]
    fn any_bytes_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_frame(&bytes);
    }

    #[test]
    fn any_body_breaks_nothing(kind in prop::sample::select(Kind::ALL.to_vec()),
                               body in prop::collection::vec(0u8..40, 0..120)) {
        let mut bytes = vec![kind.number()];
        bytes.extend(body);
        fuzz_frame(&bytes);
    }
}
