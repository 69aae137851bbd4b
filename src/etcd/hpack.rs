//! Just enough of HPACK (RFC 7541) to find the `:authority` among a request's headers and to put
//! another of the same size in its place.
//!
//! The HTTP/2 codec resets a call whose `:authority` is no host, as some clients write a URL or a
//! path there. Nobody here asks whom a call was addressed to, so such a text becomes a host
//! before the codec sees it. It keeps its length, coded and plain: the tables of headers that
//! both sides keep count plain bytes, and the frame's length counts coded ones.

#![forbid(unsafe_code)]

/// The place of `:authority` in the static table.
const AUTHORITY: usize = 1;

/// Makes each `:authority` of a block of headers one that names a host. What cannot be understood
/// is left to the codec to refuse.
pub fn mend_authority(block: &mut [u8]) {
    let mut at = 0;
    while at < block.len() {
        let Some(next) = mend_field(block, at) else {
            return;
        };
        at = next;
    }
}

/// Looks at the field that begins at `at`; where the next one begins.
fn mend_field(block: &mut [u8], at: usize) -> Option<usize> {
    let first = *block.get(at)?;
    let prefix_bits = match first {
        // Both name and value stand in a table.
        0x80.. => return Some(number(block, at, 7)?.1),
        0x40.. => 6,
        // Another size of the table.
        0x20.. => return Some(number(block, at, 5)?.1),
        _ => 4,
    };
    let (name, mut at) = number(block, at, prefix_bits)?;
    if name == 0 {
        at = text(block, at)?.1;
    }
    let coded = *block.get(at)? & 0x80 != 0;
    let (value, next) = text(block, at)?;
    if name == AUTHORITY {
        let value = block.get_mut(value)?;
        match coded {
            true => mend_coded(value),
            false if names_host(value.iter().copied()) => {}
            false => value.fill(b'x'),
        }
    }
    Some(next)
}

/// A number that begins in the last bits of a byte, and where what follows it begins.
fn number(block: &[u8], at: usize, prefix_bits: u32) -> Option<(usize, usize)> {
    let most = (1 << prefix_bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    let mut at = at + 1;
    if value < most {
        return Some((value, at));
    }
    // No text here is longer than a frame, so longer numbers mean nothing.
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(at)?);
        at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Where a text stands, and where what follows it begins.
fn text(block: &[u8], at: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let (length, begin) = number(block, at, 7)?;
    let end = begin + length;
    (end <= block.len()).then_some((begin..end, end))
}

/// Whether a text is a name or an address, with or without a port, as every codec takes it. It
/// may say no to an unusual one.
fn names_host(text: impl Iterator<Item = u8>) -> bool {
    let (mut length, mut port) = (0, false);
    for byte in text {
        length += 1;
        match byte {
            b':' if !port && length > 1 => port = true,
            b'0'..=b'9' => {}
            b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'-' if !port => {}
            _ => return false,
        }
    }
    length > 0
}

/// The same for a text in Huffman's code.
fn mend_coded(value: &mut [u8]) {
    let mut symbols = Symbols::of(value);
    let is_host = names_host(&mut symbols);
    // To the end, however it was judged.
    symbols.by_ref().for_each(drop);
    let (length, bits) = (symbols.count, symbols.bits);
    // It goes with symbols of five, six and seven bits.
    let Some(more) = bits.checked_sub(5 * length) else {
        return;
    };
    if symbols.failed || (is_host && length > 0) || more > 2 * length {
        return;
    }
    let mut writer = Writer { value, at: 0 };
    for n in 0..length {
        match more.saturating_sub(2 * n) {
            0 => writer.put(A),
            1 => writer.put(B),
            _ => writer.put(X),
        }
    }
}

/// A symbol's code and its bits.
type Code = (u32, u32);
const A: Code = (0x03, 5);
const B: Code = (0x23, 6);
const X: Code = (0x79, 7);

/// Writes codes over a text; the padding behind them stays.
struct Writer<'a> {
    value: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, (code, bits): Code) {
        for bit in (0..bits).rev() {
            let Some(byte) = self.value.get_mut(self.at / 8) else {
                return;
            };
            let mask = 0x80 >> (self.at % 8);
            *byte = match code >> bit & 1 {
                1 => *byte | mask,
                _ => *byte & !mask,
            };
            self.at += 1;
        }
    }
}

/// The symbols of a text in Huffman's code, as far as it is one.
struct Symbols<'a> {
    value: &'a [u8],
    at: usize,
    /// Symbols so far, and their bits.
    count: usize,
    bits: usize,
    /// It is no such text.
    failed: bool,
}

impl<'a> Symbols<'a> {
    fn of(value: &'a [u8]) -> Symbols<'a> {
        Symbols {
            value,
            at: 0,
            count: 0,
            bits: 0,
            failed: false,
        }
    }
}

impl Iterator for Symbols<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (mut code, mut padding) = (0_u32, true);
        for (length, of_length) in CODES.iter().enumerate().skip(1) {
            let Some(byte) = self.value.get(self.at / 8) else {
                // What is left of the last byte is filled with ones.
                self.failed |= !padding || length > 8;
                return None;
            };
            let bit = byte >> (7 - self.at % 8) & 1;
            self.at += 1;
            code = code << 1 | u32::from(bit);
            padding &= bit == 1;
            let place = code.checked_sub(of_length.first);
            if let Some(place) = place.filter(|place| *place < of_length.count) {
                self.count += 1;
                self.bits += length;
                return Some(SYMBOLS[(of_length.place + place) as usize]);
            }
        }
        self.failed = true;
        // Nothing can be read behind it.
        self.at = self.value.len() * 8;
        None
    }
}

/// The codes of a length: they follow each other, in the order of their symbols.
#[derive(Clone, Copy)]
struct OfLength {
    first: u32,
    count: u32,
    /// The first one's place among all symbols.
    place: u32,
}

const BITS_MAX: usize = 30;

/// Bits of each byte's code (RFC 7541, appendix B). The codes follow from them: a shorter one
/// comes before a longer one, and of equal ones the smaller byte first.
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

static CODES: [OfLength; BITS_MAX + 1] = codes();
static SYMBOLS: [u8; 256] = symbols();

const fn codes() -> [OfLength; BITS_MAX + 1] {
    let none = OfLength {
        first: 0,
        count: 0,
        place: 0,
    };
    let mut codes = [none; BITS_MAX + 1];
    let mut byte = 0;
    while byte < 256 {
        codes[BITS[byte] as usize].count += 1;
        byte += 1;
    }
    let mut length = 1;
    while length <= BITS_MAX {
        let before = codes[length - 1];
        codes[length].first = (before.first + before.count) << 1;
        codes[length].place = before.place + before.count;
        length += 1;
    }
    codes
}

const fn symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let (mut length, mut place) = (1, 0);
    while length <= BITS_MAX {
        let mut byte = 0;
        while byte < 256 {
            if BITS[byte] as usize == length {
                symbols[place] = byte as u8;
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &[u8]) -> Vec<u8> {
        let bits: usize = text.iter().map(|b| usize::from(BITS[*b as usize])).sum();
        let mut value = vec![0xff; bits.div_ceil(8)];
        let mut writer = Writer {
            value: &mut value,
            at: 0,
        };
        for byte in text {
            let length = u32::from(BITS[usize::from(*byte)]);
            let of_length = &CODES[length as usize];
            let place = SYMBOLS.iter().position(|symbol| symbol == byte);
            let place = place.expect("every byte has a code") as u32;
            writer.put((of_length.first + place - of_length.place, length));
        }
        value
    }

    fn decode(value: &[u8]) -> Option<Vec<u8>> {
        let mut symbols = Symbols::of(value);
        let text = symbols.by_ref().collect();
        (!symbols.failed).then_some(text)
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // Appendix C.4.1 and C.6.1.
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
        ] {
            let value = code(text.as_bytes());
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, coded);
            assert_eq!(decode(&value).expect("a text"), text.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&code(&all)).expect("a text"), all);
        // Padding of zeros, padding of a whole byte, and the code that ends a text.
        assert_eq!(decode(&[0b0001_1000]), None);
        assert_eq!(decode(&[0xff]), None);
        assert_eq!(decode(&[0xff; 5]), None);
    }

    fn field(first: &[u8], value: &[u8], coded: bool) -> Vec<u8> {
        let text = if coded { code(value) } else { value.to_vec() };
        let mark = if coded { 0x80 } else { 0 };
        assert!(text.len() < 127, "a short text");
        [first, &[mark | text.len() as u8], &text].concat()
    }

    #[test]
    fn an_authority_that_is_no_host_becomes_one_of_the_same_size() {
        for coded in [false, true] {
            for text in [
                "http://127.0.0.1:2379",
                "endpoint://client-2d0a/[::1]:2379",
                "unix:///run/etcd.sock",
                "/",
                "a b",
                "a:b:c",
                "%2Frun%2Fetcd.sock",
            ] {
                let mut block = [
                    vec![0x83, 0x86, 0x3f, 0xe1, 0x1f],
                    field(&[0x44], b"/etcdserverpb.KV/Range", true),
                    field(&[0x41], text.as_bytes(), coded),
                    field(&[0x40, 1, b'x'], b"http://not.looked/at", coded),
                    field(&[0x0f, 0x01], b"http://neither", coded),
                ]
                .concat();
                let before = block.clone();
                mend_authority(&mut block);
                assert_eq!(block.len(), before.len());
                let differ = (0..block.len()).filter(|at| block[*at] != before[*at]);
                let places: Vec<usize> = differ.collect();
                assert!(!places.is_empty(), "{text} stayed");
                let begin = 5 + field(&[0x44], b"/etcdserverpb.KV/Range", true).len();
                let size = field(&[0x41], text.as_bytes(), coded).len();
                assert!(
                    places
                        .iter()
                        .all(|at| (begin + 2..begin + size).contains(at))
                );
                let value = &block[begin + 2..begin + size];
                let value = if coded {
                    decode(value).expect("a text")
                } else {
                    value.to_vec()
                };
                assert_eq!(value.len(), text.len(), "the tables would differ");
                assert!(names_host(value.iter().copied()), "{value:?}");
            }
        }
    }

    #[test]
    fn hosts_stay_and_so_does_what_cannot_be_read() {
        for coded in [false, true] {
            for text in ["127.0.0.1:2379", "localhost", "etcd-0.etcd.svc:2379", "X1"] {
                let mut block = field(&[0x41], text.as_bytes(), coded);
                let before = block.clone();
                mend_authority(&mut block);
                assert_eq!(block, before);
            }
        }
        for bad in [
            &[0x41][..],
            &[0x41, 0x05, b'/'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff],
            &[0x7f, 0xff],
            &[0x41, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x41, 0x00],
            &[0x00, 0x7f],
        ] {
            let mut block = bad.to_vec();
            mend_authority(&mut block);
            assert_eq!(block, bad);
        }
    }
}
