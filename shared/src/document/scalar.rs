//! Values without structure, and how their texts become typed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::time::Ttl;

/// A single value as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar<'d> {
    /// A text, with or without quotes.
    Text(&'d str),
    /// A number, as it was written.
    Number(&'d str),
    /// `true` or `false`; nothing else is a boolean.
    Boolean(bool),
}

/// Reads a value through its type's own parser.
pub fn text<T>(scalar: Scalar<'_>) -> Result<T, String>
where
    T: FromStr<Err: Display>,
{
    match scalar {
        Scalar::Text(text) | Scalar::Number(text) => {
            text.parse().map_err(|error: T::Err| error.to_string())
        }
        Scalar::Boolean(value) => Err(format!("is {value}; write a text, in quotes if need be")),
    }
}

/// Reads a whole number in decimal notation.
pub fn number<T: FromStr>(scalar: Scalar<'_>) -> Result<T, String> {
    let (written, is_number) = match scalar {
        Scalar::Number(written) => (written, true),
        Scalar::Text(written) => (written, false),
        Scalar::Boolean(true) => ("true", false),
        Scalar::Boolean(false) => ("false", false),
    };
    let digits = written.strip_prefix('-').unwrap_or(written);
    // Of 010 some readers make 8 and others 10.
    let is_plain = digits == "0" || !digits.starts_with('0');
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || !is_plain || !is_decimal {
        return Err(format!(
            "is `{written}`; write a whole number, without quotes or leading zeros"
        ));
    }
    written.parse().map_err(|_| format!("is {written}, which is out of range"))
}

/// Makes a reader of whole numbers within `range`.
pub fn number_in<T>(range: RangeInclusive<T>) -> impl Fn(Scalar<'_>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |scalar| {
        let value = number(scalar)?;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(format!("is {value}; write a number from {} to {}", range.start(), range.end()))
        }
    }
}

/// Reads `true` or `false`.
pub fn boolean(scalar: Scalar<'_>) -> Result<bool, String> {
    match scalar {
        Scalar::Boolean(value) => Ok(value),
        Scalar::Text(written) | Scalar::Number(written) => {
            Err(format!("is `{written}`; write true or false"))
        }
    }
}

/// Reads a span of time: `90s`, `15m`, `12h`, `7d`.
pub fn span(scalar: Scalar<'_>) -> Result<Ttl, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let written: String = text(scalar)?;
    let not_a_span = || format!("is `{written}`; write a span of time such as 90s, 15m, 12h or 7d");
    let (unit, secs) =
        UNITS.into_iter().find(|(unit, _)| written.ends_with(*unit)).ok_or_else(not_a_span)?;
    let count = written.strip_suffix(unit).unwrap_or_default();
    let is_plain = count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse::<u64>().ok().filter(|_| is_plain).ok_or_else(not_a_span)?;
    Ttl::from_secs(count.saturating_mul(secs)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_by_their_unit() {
        for (written, secs) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(span(Scalar::Text(written)).unwrap().as_secs(), secs);
        }
        for written in ["", "s", "90", "-1s", "+1s", "1.5h", "1 h", "7days", "1hh", "0s", "4000d"] {
            span(Scalar::Text(written)).expect_err(written);
        }
        span(Scalar::Number("90")).unwrap_err();
        span(Scalar::Text("99999999999999999d")).unwrap_err();
    }
}
