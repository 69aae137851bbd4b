//! How long encoding and decoding take. Prints, asserts nothing:
//! `cargo test --release --no-default-features --lib speed -- --ignored --nocapture`

use std::hint::black_box;
use std::time::Instant;

use super::samples::HEADER;
use crate::api::{KeyValue, KvSink, PutRequest, RangeRequest, RangeSummary, Request};
use crate::wire::{
    Decoded, FrameDecoder, RangeEncoder, RangeScratch, decode_reply, decode_request,
    encode_put_reply, encode_request,
};

fn time(what: &str, mut run: impl FnMut()) {
    const ROUNDS: u32 = 300_000;
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| run());
            start.elapsed() / ROUNDS
        })
        .min();
    println!("{what}: {best:?}");
}

#[test]
#[ignore = "a measurement"]
fn speed_of_puts_and_ranges() {
    let (key, value) = ([b'k'; 24], [b'v'; 256]);
    let put = Request::Put(PutRequest {
        key: &key,
        value: &value,
        ..PutRequest::default()
    });
    let range = Request::Range(RangeRequest {
        key: &key,
        ..RangeRequest::default()
    });
    let mut out = Vec::with_capacity(4096);
    for (name, request) in [("put", &put), ("get", &range)] {
        time(&format!("encode {name}"), || {
            out.clear();
            encode_request(black_box(request), 1, &mut out).expect("small");
        });
        let decoder = FrameDecoder::requests(1 << 20);
        time(&format!("decode {name}"), || {
            let decoded = decoder.decode(black_box(&out));
            let Ok(Decoded::Frame { frame, .. }) = decoded else {
                panic!("well formed")
            };
            black_box(decode_request(frame.kind, frame.body)).expect("well formed");
        });
    }
    time("encode put reply", || {
        out.clear();
        encode_put_reply(black_box(&HEADER), 1, &mut out);
    });
    let decoder = FrameDecoder::replies(1 << 20);
    let read = |out: &[u8]| {
        let decoded = decoder.decode(black_box(out));
        let Ok(Decoded::Frame { frame, .. }) = decoded else {
            panic!("well formed")
        };
        black_box(decode_reply(&frame)).expect("well formed");
    };
    time("decode put reply", || read(&out));
    let mut scratch = RangeScratch::default();
    time("encode get reply", || {
        out.clear();
        let mut encoder = RangeEncoder::new(&mut out, &mut scratch, 1, 1 << 20);
        encoder.push(KeyValue {
            key: &key,
            value: &value,
            ..KeyValue::default()
        });
        encoder
            .finish(black_box(&HEADER), RangeSummary::default())
            .expect("small");
    });
    time("decode get reply", || read(&out));
}
