//! Protobuf's JSON mapping, both ways, driven by the tables of `schema`.
//!
//! Names are taken as in etcd's files or in lowerCamelCase, and written as in the files; 64-bit
//! numbers are strings, bytes are base64, enums are names. Unknown names are passed over; what
//! etcd's readers refuse is refused in their words.
#![forbid(unsafe_code)]

pub mod schema;

mod read;

mod split;

mod pieces;

pub use pieces::TextPieces;
pub use split::Splitter;

use crate::etcd::pb::{Fields, Malformed, Value, put_bytes, put_message, put_u64, put_varint};
use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD as PLAIN, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose::NO_PAD};
use read::{Reader, Token, first_value, integer, leading_number};
use schema::{Field, Kind};
use serde_json::Value as Json;
use std::fmt::Write as _;

/// How deep messages may nest: a transaction in a transaction is two levels. The store takes 32
/// transactions, and says the same of more.
const DEPTH_MAX: usize = 80;

const TOO_DEEP: &str = "etcdserver: too many operations in txn request";

/// The text of a message, in protobuf's bytes. What stands behind the message is not looked at.
pub fn to_message(fields: &[Field], text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    // As etcd has it, no body is a message without fields.
    if let Some(value) = first_value(text)? {
        put_object(&mut out, fields, &mut Reader::of(value), DEPTH_MAX)?;
    }
    Ok(out)
}

fn put_object(
    out: &mut Vec<u8>,
    fields: &[Field],
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let Token::Object = reader.token()? else {
        return Err(reader.unexpected());
    };
    // The numbers of the fields that have come, as bits.
    let mut seen = 0u128;
    // A message has one choice to make at most.
    let mut chosen = false;
    while !reader.takes_close() {
        let Token::Text(name) = reader.token()? else {
            return Err(reader.unexpected());
        };
        let Some(field) = fields.iter().find(|field| is_name(field.name, &name)) else {
            reader.skip_value()?;
            continue;
        };
        let bit = 1u128.checked_shl(field.number).unwrap_or(0);
        if seen & bit != 0 {
            return Err(reader.error(&format!("duplicate field {}", reader.raw())));
        }
        seen |= bit;
        if reader.takes_null() {
            continue;
        }
        if let Some(choice) = field.oneof
            && std::mem::replace(&mut chosen, true)
        {
            let text = format!(
                "error parsing {}, oneof {choice} is already set",
                reader.raw()
            );
            return Err(reader.error(&text));
        }
        if !field.repeated {
            put_value(out, field, reader, depth)?;
            continue;
        }
        let Token::List = reader.token()? else {
            return Err(reader.unexpected());
        };
        while !reader.takes_close() {
            put_value(out, field, reader, depth)?;
        }
    }
    Ok(())
}

/// Whether a name is that of a field: as in etcd's files, or in lowerCamelCase.
fn is_name(field: &str, name: &str) -> bool {
    field == name || camel(field).eq(name.chars())
}

/// The letters of a field's name in lowerCamelCase.
fn camel(field: &str) -> impl Iterator<Item = char> {
    let mut begins = false;
    field.chars().filter_map(move |letter| match letter {
        '_' => {
            begins = true;
            None
        }
        letter if std::mem::take(&mut begins) => Some(letter.to_ascii_uppercase()),
        letter => Some(letter),
    })
}

fn put_value(
    out: &mut Vec<u8>,
    field: &Field,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<(), String> {
    if let Kind::Message(fields) = field.kind {
        let mut message = Vec::new();
        put_object(&mut message, fields, reader, depth)?;
        put_message(out, field.number, |out| out.extend_from_slice(&message));
        return Ok(());
    }
    let token = reader.token()?;
    let put = match (field.kind, &token) {
        (Kind::Bytes, Token::Text(text)) => {
            decode_base64(text).map(|bytes| put_element(out, field, &bytes))
        }
        (Kind::Text, Token::Text(text)) => {
            put_element(out, field, text.as_bytes());
            Some(())
        }
        (Kind::Signed, token) => {
            number::<i64>(token).map(|number| put_number(out, field, number as u64))
        }
        (Kind::Unsigned, token) => {
            number::<u64>(token).map(|number| put_number(out, field, number))
        }
        (Kind::Number, token) => {
            number::<u32>(token).map(|number| put_number(out, field, u64::from(number)))
        }
        (Kind::Bool, Token::Bool(value)) => {
            put_number(out, field, u64::from(*value));
            Some(())
        }
        (Kind::Names(names), Token::Text(text)) => {
            // A name that is not known is passed over, like a field.
            if let Some(number) = names.iter().position(|name| name == text) {
                put_number(out, field, number as u64);
            }
            Some(())
        }
        (Kind::Names(_), Token::Number(_)) => {
            number::<i32>(&token).map(|number| put_number(out, field, i64::from(number) as u64))
        }
        _ => None,
    };
    put.ok_or_else(|| {
        let kind = match field.kind {
            Kind::Bytes => "bytes",
            Kind::Text => "string",
            Kind::Signed => "int64",
            Kind::Unsigned => "uint64",
            Kind::Number => "uint32",
            Kind::Bool => "bool",
            Kind::Names(_) => "enum",
            Kind::Message(_) => "message",
        };
        let (name, raw) = (camel(field.name).collect::<String>(), reader.raw());
        reader.error(&format!("invalid value for {kind} field {name}: {raw}"))
    })
}

/// An integer, which may stand in a text.
fn number<T: std::str::FromStr>(token: &Token<'_>) -> Option<T> {
    let number = match token {
        Token::Number(number) => number,
        Token::Text(text) if text.trim().len() == text.len() => leading_number(text)?,
        _ => return None,
    };
    integer(number)?.parse().ok()
}

/// 0 is what a field holds that is not there, unless there may be several of it.
fn put_number(out: &mut Vec<u8>, field: &Field, number: u64) {
    if field.repeated {
        put_varint(out, u64::from(field.number) << 3);
        put_varint(out, number);
    } else {
        put_u64(out, field.number, number);
    }
}

fn put_element(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    match field.repeated {
        true => put_message(out, field.number, |out| out.extend_from_slice(bytes)),
        false => put_bytes(out, field.number, bytes),
    }
}

/// Base64 of either alphabet: with its padding if its length is a multiple of four, else without.
/// As in Go, ends of lines are passed over, and so are bits that fill up the last letter.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let alphabet: &Alphabet = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &PLAIN,
    };
    let padding = match text.len() % 4 {
        0 => DecodePaddingMode::RequireCanonical,
        _ => DecodePaddingMode::RequireNone,
    };
    let config: GeneralPurposeConfig = NO_PAD
        .with_decode_padding_mode(padding)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(alphabet, config);
    match text.contains(['\r', '\n']) {
        true => engine.decode(text.replace(['\r', '\n'], "")).ok(),
        false => engine.decode(text).ok(),
    }
}

/// A message in protobuf's bytes as text, appended to `text`.
pub fn put_text(text: &mut String, fields: &[Field], message: &[u8]) -> Result<(), Malformed> {
    let mut values = Vec::new();
    let mut reader = Fields::of(message);
    while let Some(value) = reader.field()? {
        values.push(value);
    }
    text.push('{');
    let mut first = true;
    for field in fields {
        let mut of_field = values.iter().filter(|(number, _)| *number == field.number);
        if field.repeated {
            let mut items = of_field.peekable();
            if items.peek().is_none() {
                continue;
            }
            put_name(text, field, &mut first);
            for (at, (_, value)) in items.enumerate() {
                text.push(if at == 0 { '[' } else { ',' });
                put_text_value(text, field, *value)?;
            }
            text.push(']');
        } else if let Some((_, value)) = of_field.next_back() {
            put_name(text, field, &mut first);
            put_text_value(text, field, *value)?;
        }
    }
    text.push('}');
    Ok(())
}

fn put_name(text: &mut String, field: &Field, first: &mut bool) {
    if !std::mem::take(first) {
        text.push(',');
    }
    // Writing to a string does not fail, here and below.
    let _ = write!(text, "\"{}\":", field.name);
}

fn put_text_value(text: &mut String, field: &Field, value: Value<'_>) -> Result<(), Malformed> {
    let number = value.number().unwrap_or(0);
    let bytes = value.bytes().unwrap_or(b"");
    let _ = match field.kind {
        Kind::Bytes => {
            text.push('"');
            STANDARD.encode_string(bytes, text);
            text.push('"');
            Ok(())
        }
        Kind::Text => write!(text, "{}", quoted(&String::from_utf8_lossy(bytes))),
        Kind::Signed => write!(text, "\"{}\"", number as i64),
        Kind::Unsigned => write!(text, "\"{number}\""),
        Kind::Number => write!(text, "{}", number as u32),
        Kind::Bool => write!(text, "{}", number != 0),
        Kind::Names(names) => match usize::try_from(number).ok().and_then(|at| names.get(at)) {
            Some(name) => write!(text, "\"{name}\""),
            None => write!(text, "{}", number as i32),
        },
        Kind::Message(fields) => return put_text(text, fields, bytes),
    };
    Ok(())
}

/// A text as JSON has it, with its quotes.
pub fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::schema::PATHS;
    use super::*;
    use crate::etcd::decode;

    fn path(name: &str) -> &'static schema::Path {
        PATHS.iter().find(|(path, ..)| *path == name).unwrap()
    }

    #[test]
    fn both_spellings_of_names_and_numbers_are_read() {
        let (_, method, fields, _) = path("/kv/range");
        let read = |text: &str| to_message(fields, text.as_bytes());
        let snake = read(
            r#"{"key":"Zm9v","range_end":"_w","limit":"5","sort_order":"DESCEND","keys_only":true,"x":[1]}"#,
        );
        let camel = read(
            r#"{"keysOnly":true,"sortOrder":2,"limit":5,"rangeEnd":"/w==","key":"Zm9v","sort_target":"NEW"}"#,
        );
        let decoded = |message: &[u8]| format!("{:?}", decode(*method, message).unwrap());
        assert_eq!(decoded(&snake.unwrap()), decoded(&camel.unwrap()));
        assert_eq!(read(" "), Ok(Vec::new()));
        for wrong in [
            "{",
            "[]",
            r#"{"key":"%"}"#,
            r#"{"key":1}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":[1]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let trailing = read(r#" {"limit":5} trailing"#);
        assert_eq!(trailing, read(r#"{"limit":5}"#));
    }

    #[test]
    fn numbers_and_bytes_are_read_as_etcd_reads_them() {
        let (_, method, fields, _) = path("/kv/put");
        let put = |text: String| -> Result<(Vec<u8>, i64), String> {
            let message = to_message(fields, text.as_bytes())?;
            match decode(*method, &message).unwrap().unwrap().request {
                crate::api::Request::Put(put) => Ok((put.key.to_vec(), put.lease)),
                other => panic!("{other:?}"),
            }
        };
        for (text, number) in [
            ("1.0", 1),
            ("1e0", 1),
            (r#""1.0""#, 1),
            ("9.9e1", 99),
            ("-0", 0),
            ("0.0", 0),
            (r#""-0""#, 0),
            (r#""1 2""#, 1),
            (r#""\u0031""#, 1),
            ("9.223372036854775807e18", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            let lease = put(format!(r#"{{"lease":{text}}}"#)).map(|(_, lease)| lease);
            assert_eq!(lease, Ok(number), "{text}");
        }
        for text in [
            r#""+1""#,
            r#""01""#,
            r#"" 1""#,
            r#""1\n""#,
            r#""""#,
            "1.5",
            "9223372036854775808",
            "1e19",
            "true",
        ] {
            let said = put(format!(r#"{{"lease":{text}}}"#));
            let expected =
                format!("proto: (line 1:10): invalid value for int64 field lease: {text}");
            assert_eq!(said, Err(expected));
        }
        for (text, bytes) in [
            ("YR==", &b"a"[..]),
            ("Zm9", b"fo"),
            ("Zm8=", b"fo"),
            ("Zm9v\\n", b"foo"),
            ("Zm\\r\\n9v", b"foo"),
            ("-_8", b"\xfb\xff"),
            ("+/8=", b"\xfb\xff"),
            ("", b""),
        ] {
            let key = put(format!(r#"{{"key":"{text}"}}"#)).map(|(key, _)| key);
            assert_eq!(key, Ok(bytes.to_vec()), "{text}");
        }
        for text in [
            "Zg=", "Z", "-/+_", "====", "Zm 9v", "Zg==Zg==", "Zm9v====", "é",
        ] {
            assert!(put(format!(r#"{{"key":"{text}"}}"#)).is_err(), "{text}");
        }
    }

    /// What etcd 3.7.3 answers.
    #[test]
    fn a_message_says_each_thing_once() {
        let said = |name: &str, text: &str| {
            let (_, _, fields, _) = path(name);
            to_message(fields, text.as_bytes()).map(|_| ())
        };
        for (name, text, expected) in [
            (
                "/kv/put",
                r#"{"key":"Zm9v","key":"YQ=="}"#,
                r#"proto: (line 1:15): duplicate field "key""#,
            ),
            (
                "/kv/put",
                "{\"é\":[1],\n \"prev_kv\":null,\"prevKv\":null}",
                r#"proto: (line 2:17): duplicate field "prevKv""#,
            ),
            (
                "/kv/txn",
                r#"{"success":[{"request_put":{},"request_range":{}}]}"#,
                r#"proto: (line 1:31): error parsing "request_range", oneof etcdserverpb.RequestOp.request is already set"#,
            ),
            (
                "/kv/txn",
                r#"{"compare":[{"version":0,"value":""}]}"#,
                r#"proto: (line 1:26): error parsing "value", oneof etcdserverpb.Compare.target_union is already set"#,
            ),
            (
                "/watch",
                r#"{"create_request":{},"progress_request":{}}"#,
                r#"proto: (line 1:22): error parsing "progress_request", oneof etcdserverpb.WatchRequest.request_union is already set"#,
            ),
            (
                "/kv/txn",
                r#"{"success":{}}"#,
                "proto: syntax error (line 1:12): unexpected token {",
            ),
            (
                "/kv/put",
                " null",
                "proto: syntax error (line 1:1): unexpected token null",
            ),
        ] {
            assert_eq!(said(name, text), Err(expected.to_owned()));
        }
        for (name, text) in [
            (
                "/kv/txn",
                r#"{"success":[{"request_put":{},"request_range":null}]}"#,
            ),
            ("/kv/put", r#"{"x":{"a":1,"a":[[]]},"x":2}"#),
        ] {
            assert_eq!(said(name, text), Ok(()), "{text}");
        }
        let numbers = |fields: &[Field]| fields.iter().map(|field| field.number).max();
        assert!(
            PATHS
                .iter()
                .filter_map(|(_, _, fields, _)| numbers(fields))
                .max()
                < Some(128)
        );
    }

    #[test]
    fn a_filter_whose_number_is_nought_is_kept() {
        let (_, _, fields, _) = path("/watch");
        let text = br#"{"create_request":{"filters":["NOPUT",1.0]}}"#;
        let message = to_message(fields, text);
        assert_eq!(message, Ok(b"\x0a\x04\x28\0\x28\x01".to_vec()));
    }

    #[test]
    fn nested_messages_go_both_ways() {
        let (_, _, fields, _) = path("/kv/txn");
        let text = r#"{"compare":[{"result":"GREATER","key":"aw==","value":""}],"success":[{"request_txn":{"failure":[{"request_put":{"key":"aw==","value":"dg==","lease":"-7"}}]}},{"request_range":{}}]}"#;
        let message = to_message(fields, text.as_bytes()).unwrap();
        let mut back = String::new();
        put_text(&mut back, fields, &message).unwrap();
        assert_eq!(back, text.replace(r#","value":"""#, ""));
        let deep = format!(
            "{}{}",
            r#"{"success":[{"request_txn":"#.repeat(200),
            "}]}".repeat(200)
        );
        assert!(to_message(fields, deep.as_bytes()).is_err());
    }

    #[test]
    fn answers_are_text() {
        let (_, _, _, answer) = path("/maintenance/alarm");
        let mut text = String::new();
        let message =
            b"\x0a\x02\x18\x05\x12\x0d\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x01";
        put_text(&mut text, answer, message).unwrap();
        assert_eq!(
            text,
            r#"{"header":{"revision":"5"},"alarms":[{"memberID":"18446744073709551615","alarm":"NOSPACE"}]}"#
        );
        assert!(put_text(&mut text, answer, &[0x0a]).is_err());
        assert_eq!(quoted("a\"\n"), r#""a\"\n""#);
    }
}
