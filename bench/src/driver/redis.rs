//! Redis over RESP: `SET` and `GET`, pipelined.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::stream::Codec;
use crate::record::Failure;
use crate::workload::Op;

/// One connection's state: Redis answers in the order of the requests.
#[derive(Debug, Default)]
pub struct Resp {
    waiting: VecDeque<u32>,
}

impl Codec for Resp {
    const NAME: &'static str = "Redis";

    fn encode(&mut self, id: u32, op: &Op<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match op {
            Op::Put { key, value, .. } => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                bulk(key, out);
                bulk(value, out);
            }
            Op::Get { key, .. } => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                bulk(key, out);
            }
            _ => {
                return Err("Redis has no such request".into());
            }
        }
        self.waiting.push_back(id);
        Ok(())
    }

    fn decode(
        &mut self,
        input: &[u8],
        done: &mut dyn FnMut(u32, Result<(), Failure>),
    ) -> Result<usize, String> {
        let mut at = 0;
        while let Some((length, answer)) = answer(&input[at..])? {
            at += length;
            let id = self
                .waiting
                .pop_front()
                .ok_or("an answer that nobody asked for")?;
            done(id, answer);
        }
        Ok(at)
    }
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    decimal(bytes.len(), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn decimal(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The length of an answer and how the request ended.
type Answer = (usize, Result<(), Failure>);

/// The answer at the start of `input`; `None` if it is not
/// complete.
fn answer(input: &[u8]) -> Result<Option<Answer>, String> {
    let Some(newline) = input.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = input[..newline]
        .strip_suffix(b"\r")
        .ok_or("a line without CR")?;
    let text = String::from_utf8_lossy(&line[1.min(line.len())..]);
    let after = newline + 1;
    match line.first() {
        Some(b'+' | b':') => Ok(Some((after, Ok(())))),
        // The first word is the kind of error: ERR, LOADING, MISCONF, OOM...
        Some(b'-') => {
            let kind = text.split(' ').next().unwrap_or_default().to_string();
            Ok(Some((after, Err(format!("Redis: {kind}").into()))))
        }
        Some(b'$') => match text.parse::<i64>() {
            Ok(-1) => Ok(Some((after, Err("key not found".into())))),
            Ok(length @ 0..=0x4000_0000) => {
                let end = after + length as usize + 2;
                Ok((input.len() >= end).then_some((end, Ok(()))))
            }
            _ => Err(format!("a value of length '{text}'")),
        },
        _ => Err(format!("an answer that starts with {:?}", line.first())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_resp() {
        let (mut resp, mut out) = (Resp::default(), Vec::new());
        resp.encode(
            0,
            &Op::Put {
                key: b"k",
                value: b"0123456789",
                lease: 0,
            },
            &mut out,
        )
        .unwrap();
        resp.encode(
            1,
            &Op::Get {
                key: b"key",
                serializable: false,
            },
            &mut out,
        )
        .unwrap();
        let expected = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n\
                        *2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn answers_are_matched_in_order_however_they_are_cut() {
        let bytes = b"+OK\r\n$5\r\nab\r\nc\r\n$-1\r\n-LOADING wait\r\n";
        for cut in 0..bytes.len() {
            let (mut resp, mut out) = (Resp::default(), Vec::new());
            for id in 0..4 {
                resp.encode(
                    id,
                    &Op::Get {
                        key: b"k",
                        serializable: false,
                    },
                    &mut out,
                )
                .unwrap();
            }
            let mut seen = Vec::new();
            let used = resp
                .decode(&bytes[..cut], &mut |id, end| seen.push((id, end)))
                .unwrap();
            let rest = resp
                .decode(&bytes[used..], &mut |id, end| seen.push((id, end)))
                .unwrap();
            assert_eq!(used + rest, bytes.len());
            assert_eq!(seen[0], (0, Ok(())));
            assert_eq!(seen[1], (1, Ok(())));
            assert_eq!(seen[2], (2, Err("key not found".into())));
            assert_eq!(seen[3], (3, Err("Redis: LOADING".into())));
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut resp = Resp::default();
        assert!(resp.decode(b"+OK\r\n", &mut |_, _| ()).is_err());
        resp.waiting.push_back(0);
        assert!(resp.decode(b"HTTP/1.1 400\r\n", &mut |_, _| ()).is_err());
        assert!(resp.decode(b"$999999999999\r\n", &mut |_, _| ()).is_err());
        assert!(resp.decode(b"\n", &mut |_, _| ()).is_err());
    }
}
