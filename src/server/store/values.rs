//! Values as the columns keep them, read back as the model has them.

use std::{fmt, str::FromStr};

/// A value kept as text. What was written by another version of Hark may not parse.
pub(super) fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|e: T::Err| sqlx::Error::Decode(e.to_string().into()))
}

/// A count, which SQL keeps as a signed 64-bit number.
pub(super) fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })
}
