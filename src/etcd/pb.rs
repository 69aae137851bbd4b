//! Protobuf's wire format: fields out of bytes, in place, and fields into bytes.
//!
//! Written by hand, because a request's bytes are borrowed from what was received and an answer's
//! go straight into the output; generated code would copy both.
#![forbid(unsafe_code)]

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED32: u64 = 5;

/// How deep groups may nest, as in Go's reader.
const GROUPS_MAX: usize = 10_000;

/// All that etcd says of bytes that are no message.
const INVALID: Malformed = Malformed("proto: cannot parse invalid wire-format data");

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer, a boolean or an enum.
    Varint(u64),
    /// Bytes, a string, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A number of fixed size or a group; no message of etcd has one.
    Other,
}

impl<'a> Value<'a> {
    /// The value as `bytes`; `None` if the field came as another type, and is then unknown.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Varint(_) | Value::Other => None,
        }
    }

    /// The value as `int64` or `uint64`.
    pub fn number(self) -> Option<u64> {
        match self {
            Value::Varint(number) => Some(number),
            Value::Bytes(_) | Value::Other => None,
        }
    }

    /// Sets a field of type `bytes`.
    pub fn set_bytes(self, field: &mut &'a [u8]) {
        if let Some(bytes) = self.bytes() {
            *field = bytes;
        }
    }

    /// Sets a field of type `string`, which has to be one.
    pub fn set_string(self, field: &mut &'a [u8]) -> Result<(), Malformed> {
        if let Some(bytes) = self.bytes() {
            if std::str::from_utf8(bytes).is_err() {
                return Err(Malformed("string field contains invalid UTF-8"));
            }
            *field = bytes;
        }
        Ok(())
    }

    /// Sets a field of type `int64`.
    pub fn set_i64(self, field: &mut i64) {
        if let Some(number) = self.number() {
            *field = number as i64;
        }
    }

    /// Sets a field of type `bool`.
    pub fn set_bool(self, field: &mut bool) {
        if let Some(number) = self.number() {
            *field = number != 0;
        }
    }

    /// Sets a field of an enum's type; numbers are of 32 bits, longer ones are cut, as everywhere.
    pub fn set_enum(self, field: &mut i32) {
        if let Some(number) = self.number() {
            *field = number as i32;
        }
    }
}

/// The fields of a message, in the order of the bytes.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads `message`.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let value = match kind {
            VARINT => Value::Varint(self.varint()?),
            LENGTH => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED64 => {
                self.take(8)?;
                Value::Other
            }
            FIXED32 => {
                self.take(4)?;
                Value::Other
            }
            GROUP => {
                self.skip_group(number)?;
                Value::Other
            }
            _ => return Err(INVALID),
        };
        Ok(Some((number, value)))
    }

    /// Passes over the rest of a group, and of all groups in it.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            let (number, kind) = self.tag()?;
            match kind {
                VARINT => drop(self.varint()?),
                LENGTH => {
                    let length = self.varint()?;
                    self.take(length)?;
                }
                FIXED64 => drop(self.take(8)?),
                FIXED32 => drop(self.take(4)?),
                GROUP if open.len() < GROUPS_MAX => open.push(number),
                GROUP_END if number == *innermost => drop(open.pop()),
                _ => return Err(INVALID),
            }
        }
        Ok(())
    }

    /// A field's number and wire type.
    #[inline]
    fn tag(&mut self) -> Result<(u32, u64), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(INVALID)?;
        Ok((number, tag & 7))
    }

    /// The next of packed numbers; `None` at the end.
    pub fn packed(&mut self) -> Result<Option<u64>, Malformed> {
        match self.rest.is_empty() {
            true => Ok(None),
            false => self.varint().map(Some),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or(INVALID)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                if at == 9 && *byte > 1 {
                    return Err(INVALID);
                }
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(INVALID)
    }
}

/// Whether bytes are a message, whatever it says.
pub fn check(message: &[u8]) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while fields.field()?.is_some() {}
    Ok(())
}

/// Bytes that a varint takes.
#[inline]
pub fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of type `uint64`; 0 is left out.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3 | VARINT);
        put_varint(out, value);
    }
}

/// Appends a field of type `int64`; 0 is left out.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, field: u32, value: i64) {
    put_u64(out, field, value as u64);
}

/// Appends a field of type `bool`; `false` is left out.
#[inline]
pub fn put_bool(out: &mut Vec<u8>, field: u32, value: bool) {
    put_u64(out, field, u64::from(value));
}

/// Appends a field of type `bytes` or `string`; an empty one is left out.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        begin_message(out, field, bytes.len());
        out.extend_from_slice(bytes);
    }
}

/// Appends what stands before a message of a known length.
#[inline]
pub fn begin_message(out: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(out, u64::from(field) << 3 | LENGTH);
    put_varint(out, length as u64);
}

/// Appends a message whose length is known when it is written.
pub fn put_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(field) << 3 | LENGTH);
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(&mut prefix, length as u64);
    out.splice(at..=at, prefix);
}

/// Bytes that [`put_i64`] writes; the field's number is below 16.
#[inline]
pub fn i64_bytes(value: i64) -> usize {
    match value {
        0 => 0,
        value => 1 + varint_bytes(value as u64),
    }
}

/// Bytes that [`put_bytes`] writes; the field's number is below 16.
#[inline]
pub fn bytes_bytes(bytes: &[u8]) -> usize {
    match bytes.len() {
        0 => 0,
        length => 1 + varint_bytes(length as u64) + length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        let mut fields = Fields::of(message);
        let mut all = Vec::new();
        while let Some(field) = fields.field()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn the_examples_of_the_format_are_read() {
        // From the format's documentation: a = 150, and b = "testing".
        assert_eq!(
            fields(&[0x08, 0x96, 0x01]),
            Ok(vec![(1, Value::Varint(150))])
        );
        let text = b"\x12\x07testing";
        assert_eq!(fields(text), Ok(vec![(2, Value::Bytes(b"testing"))]));
        let fixed = [0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            fields(&fixed),
            Ok(vec![(1, Value::Other), (2, Value::Other)])
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x12, 5, 1],
            &[0x00, 0],
            &[0x0f],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            &[0xff; 12],
            &[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            // Groups: without an end, with another's, an end alone, and what is wrong in one.
            &[0x0b],
            &[0x0b, 0x14],
            &[0x0c],
            &[0x0b, 0x00, 1, 0x0c],
            &[0x0b, 0x12, 5, 0x0c],
        ] {
            assert_eq!(fields(bytes), Err(INVALID), "{bytes:?}");
        }
        let mut text = &b"old"[..];
        assert!(Value::Bytes(b"\xff").set_string(&mut text).is_err());
        assert_eq!(Value::Varint(1).set_string(&mut text), Ok(()));
        assert_eq!(text, b"old");
        assert_eq!(
            Value::Bytes("\u{e4}".as_bytes()).set_string(&mut text),
            Ok(())
        );
        assert_eq!(text, "\u{e4}".as_bytes());
    }

    #[test]
    fn groups_are_passed_over() {
        // A number, bytes, numbers of fixed size, and a group of another number, which is empty.
        let group = [
            0x6b, 0x08, 5, 0x12, 1, b'a', 0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x63,
            0x64, 0x6c,
        ];
        let message = [&group[..], &[0x08, 7]].concat();
        assert_eq!(
            fields(&message),
            Ok(vec![(13, Value::Other), (1, Value::Varint(7))])
        );
        let nested = |depth: usize| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert_eq!(fields(&nested(GROUPS_MAX)), Ok(vec![(1, Value::Other)]));
        assert_eq!(fields(&nested(GROUPS_MAX + 1)), Err(INVALID));
        assert_eq!(fields(&vec![0x0b; 1 << 20]), Err(INVALID));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in any::<u64>(), field in 1u32..1000, text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_u64(&mut out, field, number);
            put_bytes(&mut out, field, &text);
            put_message(&mut out, field, |out| out.extend_from_slice(&text));
            let mut expected = Vec::new();
            if number != 0 {
                expected.push((field, Value::Varint(number)));
            }
            if !text.is_empty() {
                expected.push((field, Value::Bytes(&text)));
            }
            expected.push((field, Value::Bytes(&text)));
            prop_assert_eq!(fields(&out), Ok(expected));
            let mut varint = Vec::new();
            put_varint(&mut varint, number);
            prop_assert_eq!(varint.len(), varint_bytes(number));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes);
        }
    }
}
