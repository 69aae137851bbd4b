//! A message as text that is written while the message comes, in pieces of whole fields.
#![forbid(unsafe_code)]

use super::schema::Field;
use super::{put_name, put_text_value};
use crate::etcd::pb::{Fields, Malformed};

/// A message of which a part is written. Its fields come in the order of the table, those of one
/// number in a row.
#[derive(Debug)]
pub struct TextPieces {
    fields: &'static [Field],
    begun: bool,
    /// No field is written yet.
    first: bool,
    /// The field whose list is open.
    list: Option<u32>,
}

impl TextPieces {
    /// A message with these fields.
    pub fn new(fields: &'static [Field]) -> TextPieces {
        TextPieces {
            fields,
            begun: false,
            first: true,
            list: None,
        }
    }

    /// Appends a piece to `text`.
    pub fn put(&mut self, text: &mut String, piece: &[u8]) -> Result<(), Malformed> {
        self.begin(text);
        let mut reader = Fields::of(piece);
        while let Some((number, value)) = reader.field()? {
            let Some(field) = self.fields.iter().find(|field| field.number == number) else {
                continue;
            };
            match self.list == Some(number) {
                true => text.push(','),
                false => {
                    self.close_list(text);
                    put_name(text, field, &mut self.first);
                    if field.repeated {
                        text.push('[');
                        self.list = Some(number);
                    }
                }
            }
            put_text_value(text, field, value)?;
        }
        Ok(())
    }

    /// Appends what closes the message.
    pub fn end(&mut self, text: &mut String) {
        self.begin(text);
        self.close_list(text);
        text.push('}');
    }

    fn begin(&mut self, text: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            text.push('{');
        }
    }

    fn close_list(&mut self, text: &mut String) {
        if self.list.take().is_some() {
            text.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{put_text, schema::PATHS};
    use super::*;
    use crate::api::{Header, OwnedKeyValue, RangeResponse, Response};
    use crate::etcd::{encode_response, message};

    /// Where the fields of a message end.
    fn ends(message: &[u8]) -> Vec<usize> {
        let whole = |end: &usize| {
            let mut fields = Fields::of(&message[..*end]);
            loop {
                match fields.field() {
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        };
        (0..=message.len()).filter(whole).collect()
    }

    #[test]
    fn a_message_in_pieces_is_the_text_of_the_whole() {
        let (_, _, _, fields) = PATHS.iter().find(|path| path.0 == "/kv/range").unwrap();
        let header = Header {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        };
        let pair = |n: u8| OwnedKeyValue {
            key: vec![b'k', n],
            value: vec![n; usize::from(n)],
            version: 1,
            ..OwnedKeyValue::default()
        };
        for pairs in [0, 1, 5] {
            let response = Response::Range(RangeResponse {
                kvs: (0..pairs).map(pair).collect(),
                more: pairs > 1,
                count: i64::from(pairs),
            });
            let mut framed = Vec::new();
            encode_response(&header, &response, &mut framed);
            let message = &framed[message::PREFIX_BYTES..];
            let mut expected = String::new();
            put_text(&mut expected, fields, message).unwrap();
            let ends = ends(message);
            assert!(ends.len() > usize::from(pairs) + 1);
            for (at, first) in ends.iter().enumerate() {
                for second in &ends[at..] {
                    let (mut text, mut pieces) = (String::new(), TextPieces::new(fields));
                    pieces.put(&mut text, &message[..*first]).unwrap();
                    pieces.put(&mut text, &message[*first..*second]).unwrap();
                    pieces.put(&mut text, &message[*second..]).unwrap();
                    pieces.end(&mut text);
                    assert_eq!(text, expected);
                }
            }
        }
        assert!(
            TextPieces::new(fields)
                .put(&mut String::new(), &[0x0a])
                .is_err()
        );
    }
}
