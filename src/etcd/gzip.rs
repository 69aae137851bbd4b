//! Messages that a client has compressed. Answers never are.
#![forbid(unsafe_code)]

use super::status::{Code, Status};
use flate2::read::MultiGzDecoder;
use std::io::{ErrorKind, Read as _};

/// Bytes before what is compressed.
const HEADER_BYTES: usize = 10;

/// What a compressed message says. Of one that says more than `bytes_max` no more than that is
/// ever held; however long it says that it is, memory is taken as its bytes come.
pub fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Status> {
    let internal = |text: String| Err(Status::new(Code::Internal, text));
    if let Some(what) = header_flaw(packed) {
        return internal(format!("grpc: failed to decompress the message: {what}"));
    }
    let mut message = Vec::new();
    let mut reader = MultiGzDecoder::new(packed).take(bytes_max as u64 + 1);
    if let Err(error) = reader.read_to_end(&mut message) {
        let what = match error.kind() {
            ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            _ => format!("gzip: {error}"),
        };
        return internal(format!("grpc: failed to read decompressed data: {what}"));
    }
    if message.len() > bytes_max {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message after decompression larger than max {bytes_max}"),
        ));
    }
    Ok(message)
}

/// What is wrong with the beginning, which etcd tells apart from the rest.
fn header_flaw(packed: &[u8]) -> Option<&'static str> {
    match packed {
        [] => Some("EOF"),
        short if short.len() < HEADER_BYTES => Some("unexpected EOF"),
        [0x1f, 0x8b, 8, ..] => None,
        _ => Some("gzip: invalid header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn packed(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_message_is_unpacked_in_one_piece_or_several() {
        let text = b"some text, some text, some text";
        assert_eq!(unpack(&packed(text), text.len()).unwrap(), text);
        assert_eq!(unpack(&packed(b""), 0).unwrap(), b"");
        let two = [packed(b"some "), packed(b"text")].concat();
        assert_eq!(unpack(&two, 100).unwrap(), b"some text");
    }

    #[test]
    fn what_says_too_much_is_refused_and_never_held() {
        const MAX: usize = 2 << 20;
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < MAX / 16, "{}", bomb.len());
        let refused = unpack(&bomb, MAX).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert_eq!(
            refused.message,
            "grpc: received message after decompression larger than max 2097152"
        );
        // Also one of very many parts.
        let many = packed(b"").repeat(10_000);
        assert_eq!(unpack(&many, MAX).unwrap(), b"");
        let many = packed(b"abc").repeat(10_000);
        assert_eq!(unpack(&many, MAX).unwrap().len(), 30_000);
        assert!(unpack(&many, 29_999).is_err());
        let exact = packed(&vec![0; MAX]);
        let message = unpack(&exact, MAX).unwrap();
        assert_eq!(message.len(), MAX);
        assert!(message.capacity() <= 2 * MAX, "{}", message.capacity());
        assert!(unpack(&exact, MAX - 1).is_err());
    }

    #[test]
    fn what_cannot_be_unpacked_is_told() {
        let whole = packed(b"some text");
        let told = |bytes: &[u8]| {
            let refused = unpack(bytes, 100).unwrap_err();
            assert_eq!(refused.code, Code::Internal);
            refused.message.into_owned()
        };
        let header = "grpc: failed to decompress the message: ";
        assert_eq!(told(b""), format!("{header}EOF"));
        assert_eq!(told(b"garbage"), format!("{header}unexpected EOF"));
        assert_eq!(
            told(b"longer garbage"),
            format!("{header}gzip: invalid header")
        );
        let data = "grpc: failed to read decompressed data: ";
        for end in HEADER_BYTES..whole.len() {
            assert_eq!(told(&whole[..end]), format!("{data}unexpected EOF"));
        }
        // Whatever else is done to it: it is refused or read, and nothing more happens.
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[at] ^= 1 << bit;
                if let Ok(message) = unpack(&broken, 100) {
                    assert_eq!(message, b"some text", "{at} {bit}");
                }
            }
        }
        let mut wrong = whole.clone();
        let at = wrong.len() - 8;
        wrong[at] ^= 1;
        assert!(told(&wrong).starts_with(data));
        let mut trailing = whole;
        trailing.extend_from_slice(b"abc");
        assert!(told(&trailing).starts_with(data));
    }
}
