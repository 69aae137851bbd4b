//! How long a client lets a call take, as its headers say it: `grpc-timeout`, and `Grpc-Timeout`
//! of the JSON gateway, which etcd reads by other rules.
#![forbid(unsafe_code)]

use super::status::{Code, Status};

/// The time at which a call is over that may take as long as it likes.
pub const NEVER_NS: u64 = u64::MAX;

/// What a call is told whose time is over.
pub fn exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// The header of a gRPC call, in nanoseconds; the text says what is wrong with it.
pub fn of_call(header: &[u8]) -> Result<u64, String> {
    let quoted = || format!("{:?}", String::from_utf8_lossy(header));
    let malformed = |what: String| Err(format!("malformed grpc-timeout: {what}"));
    let [digits @ .., last] = header else {
        return malformed(format!(
            "transport: timeout string is too short: {}",
            quoted()
        ));
    };
    if digits.is_empty() {
        return malformed(format!(
            "transport: timeout string is too short: {}",
            quoted()
        ));
    }
    if digits.len() > 8 {
        return malformed(format!(
            "transport: timeout string is too long: {}",
            quoted()
        ));
    }
    let Some(unit) = unit_ns(*last) else {
        let what = format!("transport: timeout unit is not recognized: {}", quoted());
        return malformed(what);
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        let digits = String::from_utf8_lossy(digits);
        return malformed(format!(
            "strconv.ParseUint: parsing {digits:?}: invalid syntax"
        ));
    }
    // At most eight digits.
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Ok(value.saturating_mul(unit))
}

/// The header of the gateway, in nanoseconds; `None` if it says nothing. It takes any number of
/// digits and a sign: a time below zero is over.
pub fn of_gateway(header: &[u8]) -> Result<Option<u64>, Status> {
    if header.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(header);
    let read = || {
        let (last, digits) = header.split_last()?;
        let unit = unit_ns(*last)?;
        let value: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(u64::try_from(value).unwrap_or(0).saturating_mul(unit))
    };
    match read() {
        Some(value) => Ok(Some(value)),
        None => Err(Status::new(
            Code::InvalidArgument,
            format!("invalid grpc-timeout: {text}"),
        )),
    }
}

fn unit_ns(unit: u8) -> Option<u64> {
    Some(match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_header_is_read_as_etcd_reads_it() {
        for (header, expected) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("00000001S", 1_000_000_000),
            ("12345678m", 12_345_678_000_000),
            ("7u", 7_000),
            ("1n", 1),
            ("0m", 0),
            // More than fits.
            ("99999999H", u64::MAX),
        ] {
            assert_eq!(of_call(header.as_bytes()), Ok(expected), "{header}");
        }
        for (header, what) in [
            ("", r#"transport: timeout string is too short: """#),
            ("1", r#"transport: timeout string is too short: "1""#),
            ("m", r#"transport: timeout string is too short: "m""#),
            ("1x", r#"transport: timeout unit is not recognized: "1x""#),
            (
                "123456789m",
                r#"transport: timeout string is too long: "123456789m""#,
            ),
            ("-1S", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
            (
                "1.5S",
                r#"strconv.ParseUint: parsing "1.5": invalid syntax"#,
            ),
        ] {
            let text = format!("malformed grpc-timeout: {what}");
            assert_eq!(of_call(header.as_bytes()), Err(text), "{header}");
        }
        assert!(of_call(b"\xff\xffS").is_err());
    }

    #[test]
    fn the_gateways_header_takes_signs_and_many_digits() {
        for (header, expected) in [
            ("", None),
            ("1S", Some(1_000_000_000)),
            ("123456789m", Some(123_456_789_000_000)),
            ("+5n", Some(5)),
            ("-1S", Some(0)),
            ("9223372036854775807H", Some(u64::MAX)),
        ] {
            assert_eq!(of_gateway(header.as_bytes()), Ok(expected), "{header}");
        }
        for header in ["1", "S", "x", "1s", "9223372036854775808n", "- 1S"] {
            let refused = of_gateway(header.as_bytes()).unwrap_err();
            assert_eq!(refused.code, Code::InvalidArgument);
            assert_eq!(refused.message, format!("invalid grpc-timeout: {header}"));
        }
    }
}
