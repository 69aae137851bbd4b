//! Protobuf's JSON mapping, both ways, driven by the tables of `schema`.
//!
//! Names are taken as in etcd's files or in lowerCamelCase, and written as in the files; 64-bit
//! numbers are strings, bytes are base64, enums are names. Unknown names are passed over.
#![forbid(unsafe_code)]

pub mod schema;

mod split;

mod pieces;

pub use pieces::TextPieces;
pub use split::Splitter;

use crate::etcd::pb::{Fields, Malformed, Value, put_bytes, put_message, put_u64};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose::NO_PAD};
use schema::{Field, Kind};
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Reads base64 with or without padding.
const LENIENT: GeneralPurposeConfig =
    NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The text of a message, in protobuf's bytes.
pub fn to_message(fields: &[Field], text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    // As etcd has it, no body is a message without fields.
    if !text.iter().all(u8::is_ascii_whitespace) {
        let json: Json = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        put_object(&mut out, fields, &json)?;
    }
    Ok(out)
}

fn put_object(out: &mut Vec<u8>, fields: &[Field], json: &Json) -> Result<(), String> {
    let Json::Object(members) = json else {
        return Err(format!("proto: unexpected token {json}"));
    };
    for (name, value) in members {
        let Some(field) = fields.iter().find(|field| is_name(field.name, name)) else {
            continue;
        };
        match value {
            Json::Null => {}
            Json::Array(items) if field.repeated => {
                for item in items {
                    put_value(out, field, item)?;
                }
            }
            value if !field.repeated => put_value(out, field, value)?,
            value => return Err(invalid(field, value)),
        }
    }
    Ok(())
}

/// Whether a name is that of a field: as in etcd's files, or in lowerCamelCase.
fn is_name(field: &str, name: &str) -> bool {
    field == name || field.contains('_') && camel(field) == name
}

fn camel(field: &str) -> String {
    let mut parts = field.split('_');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

fn invalid(field: &Field, value: &Json) -> String {
    format!("proto: invalid value for field {}: {value}", field.name)
}

fn put_value(out: &mut Vec<u8>, field: &Field, value: &Json) -> Result<(), String> {
    let refuse = || invalid(field, value);
    match (field.kind, value) {
        (Kind::Bytes, Json::String(text)) => {
            let bytes = decode_base64(text).ok_or_else(refuse)?;
            put_element(out, field, &bytes);
        }
        (Kind::Text, Json::String(text)) => put_element(out, field, text.as_bytes()),
        (Kind::Signed, value) => {
            let number = match value {
                Json::String(text) => text.parse().ok(),
                value => value.as_i64(),
            };
            put_number(out, field, number.ok_or_else(refuse)? as u64);
        }
        (Kind::Unsigned, value) => {
            let number = match value {
                Json::String(text) => text.parse().ok(),
                value => value.as_u64(),
            };
            put_number(out, field, number.ok_or_else(refuse)?);
        }
        (Kind::Number, value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            put_number(out, field, u64::from(number.ok_or_else(refuse)?));
        }
        (Kind::Bool, Json::Bool(value)) => put_number(out, field, u64::from(*value)),
        (Kind::Names(names), Json::String(text)) => {
            // A name that is not known is passed over, like a field.
            if let Some(number) = names.iter().position(|name| name == text) {
                put_number(out, field, number as u64);
            }
        }
        (Kind::Names(_), value) => {
            let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
            put_number(out, field, i64::from(number.ok_or_else(refuse)?) as u64);
        }
        (Kind::Message(fields), value) => {
            let mut message = Vec::new();
            put_object(&mut message, fields, value)?;
            put_message(out, field.number, |out| out.extend_from_slice(&message));
        }
        _ => return Err(refuse()),
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, field: &Field, number: u64) {
    put_u64(out, field.number, number);
}

fn put_element(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    match field.repeated {
        true => put_message(out, field.number, |out| out.extend_from_slice(bytes)),
        false => put_bytes(out, field.number, bytes),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let alphabet = match text.contains(['-', '_']) {
        true => base64::alphabet::URL_SAFE,
        false => base64::alphabet::STANDARD,
    };
    GeneralPurpose::new(&alphabet, LENIENT).decode(text).ok()
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
