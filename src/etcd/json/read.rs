//! Reads JSON as etcd's gateway does, in two steps: Go's reader finds one value and checks how it
//! is written, then protobuf's reader looks at what is in it. Each refuses in its own words.
//!
//! Numbers are never taken for floating-point ones, which would lose digits of 64-bit integers.
#![forbid(unsafe_code)]

use std::borrow::Cow;

/// How deep values may nest, as in Go's reader. It costs a byte for each level.
const DEPTH_MAX: usize = 10_000;

/// So much of a text that is refused is told back.
const QUOTED_MAX: usize = 1024;

const END: &str = "unexpected EOF";

/// The first value of a text, without the space around it; `None` if there is nothing but space.
/// What stands behind the value is not looked at.
pub fn first_value(text: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut scan = Scan { text, at: 0 };
    if scan.next_behind_space().is_none() {
        return Ok(None);
    }
    let begin = scan.at;
    // The braces and brackets that are open.
    let mut open = Vec::new();
    loop {
        // A value begins here.
        let first = scan.next_behind_space().ok_or(END)?;
        match first {
            b'{' | b'[' => {
                if open.len() == DEPTH_MAX {
                    return Err(scan.unexpected(" exceeded max depth"));
                }
                open.push(first);
                scan.at += 1;
                let close = closing(first);
                if scan.next_behind_space() == Some(close) {
                    scan.at += 1;
                    open.pop();
                } else {
                    if first == b'{' {
                        scan.name()?;
                    }
                    continue;
                }
            }
            b'"' => scan.string()?,
            b'-' | b'0'..=b'9' => scan.number()?,
            b't' => scan.literal("true")?,
            b'f' => scan.literal("false")?,
            b'n' => scan.literal("null")?,
            _ => return Err(scan.unexpected(" looking for beginning of value")),
        }
        // It has ended, and with it whatever closes here.
        loop {
            let Some(last) = open.last().copied() else {
                return Ok(Some(&text[begin..scan.at]));
            };
            match scan.next_behind_space().ok_or(END)? {
                b',' => {
                    scan.at += 1;
                    if last == b'{' {
                        scan.name()?;
                    }
                    break;
                }
                byte if byte == closing(last) => {
                    scan.at += 1;
                    open.pop();
                }
                _ if last == b'{' => {
                    return Err(scan.unexpected(" after object key:value pair"));
                }
                _ => return Err(scan.unexpected(" after array element")),
            }
        }
    }
}

fn closing(open: u8) -> u8 {
    match open {
        b'{' => b'}',
        _ => b']',
    }
}

/// Checks how a text is written.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next_behind_space(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.next() {
            self.at += 1;
        }
        self.next()
    }

    /// What is said of the next byte, or of the end.
    fn unexpected(&self, place: &str) -> String {
        match self.next() {
            None => END.to_owned(),
            Some(byte) => format!("invalid character '{}'{place}", as_go_writes(byte)),
        }
    }

    /// A name and the colon behind it.
    fn name(&mut self) -> Result<(), String> {
        if self.next_behind_space() != Some(b'"') {
            return Err(self.unexpected(" looking for beginning of object key string"));
        }
        self.string()?;
        if self.next_behind_space() != Some(b':') {
            return Err(self.unexpected(" after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.next() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {}
                        Some(b'u') => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.next().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(
                                        self.unexpected(" in \\u hexadecimal character escape")
                                    );
                                }
                            }
                        }
                        _ => return Err(self.unexpected(" in string escape code")),
                    }
                }
                Some(0x20..) => {}
                _ => return Err(self.unexpected(" in string literal")),
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), String> {
        if self.next() == Some(b'-') {
            self.at += 1;
        }
        match self.next() {
            Some(b'0') => self.at += 1,
            _ => self.digits(" in numeric literal")?,
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits(" after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.next() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.next() {
                self.at += 1;
            }
            self.digits(" in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected(place));
        }
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for letter in word.bytes() {
            if self.next() != Some(letter) {
                let expected = char::from(letter);
                return Err(
                    self.unexpected(&format!(" in literal {word} (expecting '{expected}')"))
                );
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// A byte, taken for a letter, as Go's reader writes it.
fn as_go_writes(byte: u8) -> String {
    match byte {
        b'\'' => "\\'".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0x07 => "\\a".to_owned(),
        0x08 => "\\b".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\n' => "\\n".to_owned(),
        0x0b => "\\v".to_owned(),
        0x0c => "\\f".to_owned(),
        b'\r' => "\\r".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        // Not to be seen.
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        byte => char::from(byte).to_string(),
    }
}

/// A piece of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Token<'a> {
    /// `{`.
    Object,
    /// `[`.
    List,
    /// `}` or `]`.
    Close,
    /// A text, or a name.
    Text(Cow<'a, str>),
    /// A number, as it is written.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Goes through a value that [`first_value`] has found.
#[derive(Debug)]
pub struct Reader<'a> {
    value: &'a [u8],
    at: usize,
    /// Where the last token begins, and where it ends.
    token: usize,
    token_end: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of a value.
    pub fn of(value: &'a [u8]) -> Reader<'a> {
        Reader {
            value,
            at: 0,
            token: 0,
            token_end: 0,
        }
    }

    fn peek(&mut self) -> Option<u8> {
        // Where commas and colons stand has been checked.
        while let Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') = self.value.get(self.at) {
            self.at += 1;
        }
        self.value.get(self.at).copied()
    }

    /// Whether `null` comes next; it is taken if so, and the last token stays that before it.
    pub fn takes_null(&mut self) -> bool {
        let is_null = self.peek() == Some(b'n');
        if is_null {
            self.at += 4;
        }
        is_null
    }

    /// The same for the end of a list or an object.
    pub fn takes_close(&mut self) -> bool {
        let closes = matches!(self.peek(), Some(b'}' | b']'));
        self.at += usize::from(closes);
        closes
    }

    /// The next token.
    pub fn token(&mut self) -> Result<Token<'a>, String> {
        let first = self.peek().ok_or("proto: unexpected EOF")?;
        (self.token, self.token_end) = (self.at, self.at);
        self.at += 1;
        let token = match first {
            b'{' => Token::Object,
            b'[' => Token::List,
            b'}' | b']' => Token::Close,
            b'"' => Token::Text(self.string()?),
            _ => {
                let rest = &self.value[self.token..];
                let ends = |byte: &u8| {
                    matches!(
                        byte,
                        b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'}' | b']'
                    )
                };
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                self.at = self.token + length;
                match &rest[..length] {
                    b"null" => Token::Null,
                    b"true" => Token::Bool(true),
                    b"false" => Token::Bool(false),
                    number => Token::Number(number),
                }
            }
        };
        self.token_end = self.at;
        Ok(token)
    }

    /// The rest of a text whose quote has been taken.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let begin = self.at;
        let mut escaped = false;
        loop {
            match self.value.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                }
                Some(_) => {}
                None => return Err("proto: unexpected EOF".to_owned()),
            }
            self.at += 1;
        }
        let inner = &self.value[begin..self.at];
        self.at += 1;
        let text =
            std::str::from_utf8(inner).map_err(|_| self.syntax_error("invalid UTF-8 in string"))?;
        match escaped {
            false => Ok(Cow::Borrowed(text)),
            true => unescape(text)
                .map(Cow::Owned)
                .ok_or_else(|| self.syntax_error("invalid escape code in string")),
        }
    }

    /// Passes over a value; its texts have to be texts all the same.
    pub fn skip_value(&mut self) -> Result<(), String> {
        let mut depth = 0usize;
        loop {
            match self.token()? {
                Token::Object | Token::List => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A position as the reader of protobuf tells it: lines and letters from 1 on.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.value.get(..at).unwrap_or(self.value);
        let line = before.split(|byte| *byte == b'\n').next_back();
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let letters = String::from_utf8_lossy(line.unwrap_or(b"")).chars().count();
        (lines + 1, letters + 1)
    }

    /// The last token, as it is written.
    pub fn raw(&self) -> String {
        let raw = self.value.get(self.token..self.token_end);
        let raw = raw.unwrap_or(b"");
        let shown = &raw[..raw.len().min(QUOTED_MAX)];
        let more = if shown.len() < raw.len() { "..." } else { "" };
        format!("{}{more}", String::from_utf8_lossy(shown))
    }

    /// What is wrong with the last token.
    pub fn error(&self, text: &str) -> String {
        let (line, letter) = self.position(self.token);
        format!("proto: (line {line}:{letter}): {text}")
    }

    fn syntax_error(&self, text: &str) -> String {
        let (line, letter) = self.position(self.token);
        format!("proto: syntax error (line {line}:{letter}): {text}")
    }

    /// The last token is of a kind that cannot stand there.
    pub fn unexpected(&self) -> String {
        self.syntax_error(&format!("unexpected token {}", self.raw()))
    }
}

/// A text without its escapes; `None` if half of a letter stands alone.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        plain.push(match letter {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = take_hex(&mut rest)?;
                let letter = match first {
                    0xd800..0xdc00 => {
                        rest = rest.strip_prefix("\\u")?;
                        let second = take_hex(&mut rest)?;
                        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                        0x10000 + ((first - 0xd800) << 10) + low
                    }
                    letter => letter,
                };
                char::from_u32(letter)?
            }
            letter => letter,
        });
    }
    plain.push_str(rest);
    Some(plain)
}

fn take_hex(rest: &mut &str) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(4)?;
    *rest = behind;
    u32::from_str_radix(digits, 16).ok()
}

/// The number that a text begins with, if it is written as JSON has it and nothing clings to it.
/// Like protobuf's reader this looks at no more of the text.
pub fn leading_number(text: &str) -> Option<&[u8]> {
    let text = text.as_bytes();
    let mut scan = Scan { text, at: 0 };
    scan.number().ok()?;
    match scan.next() {
        Some(b'-' | b'+' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9') => None,
        _ => Some(&text[..scan.at]),
    }
}

/// The digits of a number that is an integer, with its sign, whatever its fraction and its
/// exponent look like; `None` if it is none, or has more digits than any integer of 64 bits.
pub fn integer(number: &[u8]) -> Option<String> {
    const DIGITS_MAX: usize = 20;
    let number = std::str::from_utf8(number).ok()?;
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (number, None),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent < 0 {
        let kept = whole.len().checked_sub(shift)?;
        let (kept, gone) = whole.split_at_checked(kept)?;
        let is_whole = fraction.is_empty() && gone.bytes().all(|digit| digit == b'0');
        return (is_whole && kept.len() <= DIGITS_MAX).then(|| format!("{sign}{kept}"));
    }
    let zeros = shift.checked_sub(fraction.len())?;
    if whole.len().checked_add(shift)? > DIGITS_MAX {
        return None;
    }
    Some(format!("{sign}{whole}{fraction}{}", "0".repeat(zeros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_found_and_what_is_behind_it_left_alone() {
        for (text, value) in [
            (
                " {\"a\" : [1, {}, []] , \"b\":null}] trailing",
                "{\"a\" : [1, {}, []] , \"b\":null}",
            ),
            ("{}{}", "{}"),
            ("\n-1.5e+7 x", "-1.5e+7"),
            ("\"\\u00e9\\\"}\" ", "\"\\u00e9\\\"}\""),
            ("true", "true"),
        ] {
            let found = first_value(text.as_bytes());
            assert_eq!(found, Ok(Some(value.as_bytes())), "{text}");
        }
        assert_eq!(first_value(b" \t\r\n"), Ok(None));
    }

    /// What etcd 3.7.3 answers.
    #[test]
    fn what_is_badly_written_is_refused_in_gos_words() {
        for (text, said) in [
            ("{", "unexpected EOF"),
            ("{\"a", "unexpected EOF"),
            ("[1", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "{bad",
                "invalid character 'b' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":01}",
                "invalid character '1' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            (
                "[tru]",
                "invalid character ']' in literal true (expecting 'e')",
            ),
            ("[-]", "invalid character ']' in numeric literal"),
            (
                "[1.]",
                "invalid character ']' after decimal point in numeric literal",
            ),
            (
                "[1e]",
                "invalid character ']' in exponent of numeric literal",
            ),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            (
                "\"\\u00g0\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (
                "\u{b}{}",
                "invalid character '\\v' looking for beginning of value",
            ),
            (
                "{'a'",
                "invalid character '\\'' looking for beginning of object key string",
            ),
        ] {
            assert_eq!(first_value(text.as_bytes()), Err(said.to_owned()), "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(first_value(deep(10_000).as_bytes()).is_ok());
        assert!(first_value(deep(10_001).as_bytes()).is_err());
    }

    #[test]
    fn integers_are_found_in_whatever_way_they_are_written() {
        for (text, number) in [
            ("1.0", Some("1")),
            ("1e0", Some("1")),
            ("9.9e1", Some("99")),
            ("-0", Some("0")),
            ("-0.00", Some("0")),
            ("0e99999999999999999999", Some("0")),
            ("0.01e3", Some("010")),
            ("-100e-2", Some("-1")),
            ("1000000000000000000000e-21", Some("1")),
            ("92233720368547758070e-1", Some("9223372036854775807")),
            ("1e19", Some("10000000000000000000")),
            ("1e20", None),
            ("1e99999999999999999999", None),
            ("1.5", None),
            ("1e-1", None),
            ("15e-1", None),
            ("0.5e-1", None),
        ] {
            assert_eq!(integer(text.as_bytes()).as_deref(), number, "{text}");
        }
        let lead = |text| leading_number(text).map(|number| number.len());
        for text in ["", "+1", "01", ".5", "1.", "0x1", "1e", "-", "x", "1_"] {
            assert_eq!(lead(text), None, "{text}");
        }
        assert_eq!(
            (lead("-1.5e3"), lead("1 2"), lead("1]")),
            (Some(6), Some(1), Some(1))
        );
    }

    #[test]
    fn texts_are_read_with_their_escapes() {
        let read = |text: &'static str| Reader::of(text.as_bytes()).token();
        let plain = |text: &str| Ok(Token::Text(Cow::Owned(text.to_owned())));
        assert_eq!(read(r#""a\n\"\/\u00e9\ud83d\ude00""#), plain("a\n\"/é😀"));
        for half in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83d\n""#,
            r#""\ud83dx\ude00""#,
        ] {
            assert!(read(half).is_err(), "{half}");
        }
        let wrong = Reader::of(b"\"\xff\"").token();
        let said = "proto: syntax error (line 1:1): invalid UTF-8 in string";
        assert_eq!(wrong, Err(said.to_owned()));
        let mut reader = Reader::of(b"[1,[{\"a\":\"]\"},null],2]");
        assert_eq!(reader.skip_value(), Ok(()));
        assert!(reader.token().is_err());
    }
}
