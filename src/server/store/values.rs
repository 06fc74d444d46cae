//! Conversion of column values into the model's types.

use std::{fmt, str::FromStr};

/// Parses a value that is stored as text. It may have been written by another version of Hark and not parse.
pub(super) fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|e: T::Err| sqlx::Error::Decode(e.to_string().into()))
}

/// Converts a count, which SQL stores as a signed 64-bit number. Values out of range become 0 or the maximum.
pub(super) fn to_u32(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })
}

/// The same for a small count.
pub(super) fn to_u16(n: i64) -> u16 {
    u16::try_from(n).unwrap_or(if n < 0 { 0 } else { u16::MAX })
}
