//! Takes messages off a body that holds any number of them, one behind the other, as it comes.
#![forbid(unsafe_code)]

/// What has come of a body.
#[derive(Debug, Default)]
pub struct Splitter {
    text: Vec<u8>,
    /// So much of it is gone: messages that were taken, and space between them.
    begin: usize,
    /// So much of it has been looked at.
    scanned: usize,
    /// How many braces and brackets are open.
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Splitter {
    /// Adds what has come.
    pub fn push(&mut self, text: &[u8]) {
        self.text.drain(..self.begin);
        self.scanned -= self.begin;
        self.begin = 0;
        self.text.extend_from_slice(text);
    }

    /// Bytes that are kept.
    pub fn len(&self) -> usize {
        self.text.len() - self.begin
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next message, once all of it is there, or text that is none. Each byte is looked at
    /// once, in however small pieces it comes, and however small the messages are.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        while let Some(byte) = self.text.get(self.scanned) {
            self.scanned += 1;
            if self.quoted {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.quoted = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'"' if self.depth > 0 => self.quoted = true,
                b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => self.begin = self.scanned,
                // The end of a message, or what no message begins with.
                b'}' | b']' => return Some(self.take_scanned()),
                _ if self.depth == 0 => return Some(self.take_scanned()),
                _ => {}
            }
        }
        None
    }

    /// What is left when the body has ended.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let mut left = std::mem::take(self);
        left.text.split_off(left.begin)
    }

    fn take_scanned(&mut self) -> Vec<u8> {
        let message = self.text[self.begin..self.scanned].to_vec();
        self.begin = self.scanned;
        self.depth = 0;
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let mut splitter = Splitter::default();
        let mut messages = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            while let Some(message) = splitter.next_message() {
                messages.push(String::from_utf8(message).unwrap());
            }
        }
        (messages, splitter.take_rest())
    }

    #[test]
    fn messages_are_found_in_whatever_pieces_they_come() {
        let body = br#" {"a":{"b":["}\"{\\"]}}{}
            {"c":1} {"d":"#;
        let expected = [r#"{"a":{"b":["}\"{\\"]}}"#, "{}", r#"{"c":1}"#];
        let rest = br#"{"d":"#.to_vec();
        let whole = split(&[body]);
        assert_eq!(whole, (expected.map(str::to_owned).to_vec(), rest));
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(split(&bytes), whole);
    }

    #[test]
    fn many_small_messages_and_much_space_take_no_longer_than_their_bytes() {
        // Work that grows with the square of a body would take minutes.
        let body = [vec![b' '; 4 << 20], b"{} ".repeat(1 << 20)].concat();
        let (messages, rest) = split(&[&body]);
        assert_eq!((messages.len(), rest.len()), (1 << 20, 0));
    }

    #[test]
    fn what_is_no_message_is_given_as_it_is() {
        assert_eq!(split(&[b"x{}"]).0, ["x", "{}"]);
        assert_eq!(split(&[b"}"]).0, ["}"]);
        assert_eq!(split(&[b"\"{}\""]).0[0], "\"");
    }
}
