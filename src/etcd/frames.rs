//! The frames of HTTP/2 as they go by, before the codec has them: whether one is unfinished, how
//! much work they are, and an `:authority` that the codec would not take (see [`hpack`]).

#![forbid(unsafe_code)]

use super::hpack;

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEAD_BYTES: usize = 9;
/// The longest frame that a client may send, as long as it is not allowed longer ones.
const FRAME_BYTES_MAX: usize = 16 << 10;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What a client sends on one connection.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface, or of the frame that goes by, that are to come.
    rest: usize,
    /// A call's headers go on in the next frame.
    in_headers: bool,
    /// Frames that have begun to go by.
    begun: u64,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            rest: PREFACE_BYTES,
            in_headers: false,
            begun: 0,
        }
    }
}

impl Frames {
    /// Looks at what has come, and returns how much of it may go by. What may not is the beginning
    /// of something that has to be whole, or more than `frames` allow; it must be shown again,
    /// with what comes behind it.
    ///
    /// `frames` goes down with each frame, by two where a call begins. A change of settings is as
    /// much work as there are streams, and takes all.
    pub fn pass(&mut self, bytes: &mut [u8], frames: &mut usize) -> usize {
        let mut at = 0;
        loop {
            let here = self.rest.min(bytes.len() - at);
            at += here;
            self.rest -= here;
            let left = &mut bytes[at..];
            if *frames == 0 {
                return at;
            }
            let Some((head, left)) = left.split_first_chunk_mut::<HEAD_BYTES>() else {
                return at;
            };
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8;
            let length = length | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let ends_headers = flags & END_HEADERS != 0;
            if kind == HEADERS && ends_headers && length <= FRAME_BYTES_MAX {
                let Some(payload) = left.get_mut(..length) else {
                    return at;
                };
                if let Some(block) = header_block(payload, flags) {
                    hpack::mend_authority(block);
                }
            }
            if kind == HEADERS || kind == CONTINUATION {
                self.in_headers = !ends_headers;
            }
            *frames = match kind {
                SETTINGS if flags & ACK == 0 => 0,
                HEADERS => frames.saturating_sub(2),
                _ => *frames - 1,
            };
            self.begun += 1;
            self.rest = HEAD_BYTES + length;
        }
    }

    /// Something has begun to go by and has not ended.
    pub fn is_amid(&self) -> bool {
        self.rest > 0 || self.in_headers
    }

    /// Frames that have begun to go by.
    pub fn begun(&self) -> u64 {
        self.begun
    }
}

/// The headers in a frame of them.
fn header_block(payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let mut begin = 0;
    let mut end = payload.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        begin += 1;
    }
    if flags & PRIORITY != 0 {
        begin += 5;
    }
    payload.get_mut(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// What goes by, if the bytes come in pieces of that size.
    fn passed(bytes: &[u8], size: usize) -> (Vec<u8>, Frames) {
        let mut frames = Frames::default();
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            held.extend_from_slice(piece);
            let count = frames.pass(&mut held, &mut 1_000);
            out.extend(held.drain(..count));
        }
        // What is not whole at the end.
        out.extend(held);
        (out, frames)
    }

    #[test]
    fn an_authority_is_mended_wherever_the_bytes_are_cut() {
        let bad = b"\x83\x86\x41\x08http://x";
        let padded = [&[2][..], bad, &[0, 0]].concat();
        let urgent = [&[0, 0, 0, 0, 7][..], bad].concat();
        let bytes = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, &[]),
            frame(HEADERS, END_HEADERS, bad),
            frame(0, 1, b"\x83\x86\x41\x08http://x"),
            frame(HEADERS, END_HEADERS | PADDED, &padded),
            frame(HEADERS, END_HEADERS | PRIORITY, &urgent),
        ]
        .concat();
        let mut due = bytes.clone();
        for (at, _) in bytes
            .windows(8)
            .enumerate()
            .filter(|(_, w)| w == b"http://x")
        {
            due[at..at + 8].fill(b'x');
        }
        let data = frame(0, 1, b"\x83\x86\x41\x08http://x");
        let at = bytes.windows(data.len()).position(|w| w == data);
        let at = at.expect("it is there");
        due[at..at + data.len()].copy_from_slice(&data);
        for size in 1..bytes.len() {
            // Settings end a turn in life; here a turn is a piece.
            let (out, frames) = passed(&bytes, size);
            if size < 24 {
                assert_eq!(out, due, "pieces of {size}");
                assert!(!frames.is_amid());
            }
        }
    }

    #[test]
    fn what_has_begun_and_not_ended_is_known() {
        let whole = [PREFACE, &frame(SETTINGS, 0, &[])].concat();
        let (out, frames) = passed(&whole, 7);
        assert_eq!((out, frames.is_amid()), (whole.clone(), false));
        assert_eq!(frames.begun(), 1);
        for (rest, amid) in [
            (frame(6, 0, b"pingping")[..12].to_vec(), true),
            (frame(HEADERS, 0, b"\x83"), true),
            (
                [frame(HEADERS, 0, b"\x83"), frame(CONTINUATION, 0, b"\x86")].concat(),
                true,
            ),
            (
                [
                    frame(HEADERS, 0, b"\x83"),
                    frame(CONTINUATION, END_HEADERS, b""),
                ]
                .concat(),
                false,
            ),
        ] {
            let (_, frames) = passed(&[whole.clone(), rest].concat(), 5);
            assert_eq!(frames.is_amid(), amid);
        }
        assert!(Frames::default().is_amid(), "the preface is to come");
    }

    #[test]
    fn no_more_frames_go_by_than_are_allowed() {
        let mut bytes = [PREFACE.to_vec(), frame(6, 0, b"pingping").repeat(10)].concat();
        let mut frames = Frames::default();
        let mut allowed = 4;
        let count = frames.pass(&mut bytes, &mut allowed);
        assert_eq!((count, allowed), (24 + 4 * 17, 0));
        let mut rest = bytes.split_off(count);
        assert_eq!(frames.pass(&mut rest, &mut allowed), 0);
        let mut settings = [frame(SETTINGS, ACK, &[]), frame(SETTINGS, 0, &[]), rest].concat();
        let mut allowed = 100;
        assert_eq!(frames.pass(&mut settings, &mut allowed), 18);
        assert_eq!(allowed, 0);
    }

    #[test]
    fn a_frame_longer_than_allowed_goes_by_for_the_codec_to_refuse() {
        let mut bytes = [
            PREFACE,
            &[0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1, 7],
        ]
        .concat();
        let mut frames = Frames::default();
        assert_eq!(frames.pass(&mut bytes, &mut 9), bytes.len());
        assert!(frames.is_amid());
    }
}
