//! Whole numbers as Go's flag package reads them: `128`, `0x80`, `0o200`, `0200`, `1_000`.

#![forbid(unsafe_code)]

use super::FlagError;

/// Reads a number of the type that a setting has.
pub(super) fn number<N: TryFrom<i128>>(name: &str, value: &str) -> Result<N, FlagError> {
    let number = check(name, value)?;
    N::try_from(number).map_err(|_| {
        FlagError(format!(
            "--{name}: '{value}' is out of the numbers it takes"
        ))
    })
}

/// Refuses what is no number.
pub(super) fn check(name: &str, value: &str) -> Result<i128, FlagError> {
    read(value).ok_or_else(|| FlagError(format!("--{name} takes a whole number, not '{value}'")))
}

fn read(value: &str) -> Option<i128> {
    let (negative, digits) = match value.as_bytes().first()? {
        b'-' => (true, &value[1..]),
        b'+' => (false, &value[1..]),
        _ => (false, value),
    };
    let lower = digits.to_ascii_lowercase();
    // As in Go, a 0 in front alone means the base eight.
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    let has_prefix = digits.len() < lower.len();
    // An underscore stands between two digits, or behind what tells the base.
    let bare = digits.strip_prefix('_').filter(|_| has_prefix);
    let parts = bare.unwrap_or(digits).split('_');
    let digits = parts.map(|part| match part.is_empty() {
        true => None,
        false => Some(part),
    });
    let digits: String = digits.collect::<Option<String>>()?;
    // Nor does a second sign.
    let is_number = digits.chars().all(|c| c.is_digit(radix));
    let number = i128::from_str_radix(&digits, radix)
        .ok()
        .filter(|_| is_number)?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::{number, read};

    #[test]
    fn gos_numbers_are_read_and_others_refused() {
        for (text, number) in [
            ("0", 0),
            ("128", 128),
            ("-1", -1),
            ("+5", 5),
            ("0x10", 16),
            ("0X_1f", 31),
            ("010", 8),
            ("0o10", 8),
            ("0b101", 5),
            ("1_000", 1_000),
        ] {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in [
            "", "-", "+-1", "--1", "x", "1x", "_1", "1_", "1__0", "08", "0x", "0x+1", "1.5", " 1",
            "1e3",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(number("max-txn-ops", "7"), Ok(7usize));
        let refused = number::<u32>("max-txn-ops", "-1").unwrap_err();
        assert!(refused.0.contains("--max-txn-ops"), "{refused}");
    }
}
