//! Whole numbers in as few bytes as they need.
//!
//! Seven bits a byte, the lowest first; the highest bit of a byte says that more follow. Each
//! number has one form: the shortest.

/// The most bytes of a number.
pub(super) const NUMBER_MAX: usize = 10;

/// Bytes of a small record, filled from front to back; there is room for `N`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    pub fn new() -> Self {
        Bytes {
            bytes: [0; N],
            len: 0,
        }
    }

    #[inline]
    pub fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    pub fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Takes a byte off the front.
#[inline]
pub(super) fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Takes a number off the front; `None` if none is there, or not in its shortest form.
#[inline]
pub(super) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let first = take_byte(bytes)?;
    if first < 0x80 {
        return Some(first.into());
    }
    let mut number = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = take_byte(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return (byte != 0).then_some(number);
        }
    }
    None
}

/// A number of at most 32 bits; as [`take_number`].
#[inline]
pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take_number(bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(number: u64) -> Vec<u8> {
        let mut out = Bytes::<NUMBER_MAX>::new();
        out.number(number);
        out.as_slice().to_vec()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [0x7f]);
        assert_eq!(encoded(128), [0x80, 0x01]);
        assert_eq!(encoded(300), [0xac, 0x02]);
        assert_eq!(encoded(u64::MAX).len(), NUMBER_MAX);
    }

    #[test]
    fn longer_forms_and_larger_numbers_are_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0x80, 0],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0,
            ],
        ] {
            assert_eq!(take_number(&mut &*bytes), None, "{bytes:?}");
        }
        assert_eq!(take_u32(&mut &encoded(1 << 32)[..]), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, shift in 0..64u32, tail: u8) {
            let number = number >> shift;
            let mut bytes = encoded(number);
            bytes.push(tail);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_number(&mut rest), Some(number));
            prop_assert_eq!(rest, &[tail]);
        }

        #[test]
        fn what_is_read_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = &bytes[..];
            if let Some(number) = take_number(&mut rest) {
                prop_assert_eq!(&encoded(number)[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
