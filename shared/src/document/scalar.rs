//! Values without structure, and how their texts become typed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

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
