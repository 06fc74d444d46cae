//! Times as they go over the wire: RFC 3339, UTC, always with milliseconds. chrono reads and writes them.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr};

/// Milliseconds since the Unix epoch; written as RFC 3339 UTC with exactly three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// The error for a text that isn't a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time must be as in RFC 3339, such as 2026-11-23T14:32:00.000Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// This time moved by `seconds`, which may be negative.
    #[must_use]
    pub fn plus_seconds(self, seconds: f64) -> Self {
        // The cast saturates if the float is too large for i64.
        Self(self.0.saturating_add((seconds * 1000.0).round() as i64))
    }

    /// Seconds from `earlier` to this time; negative if it is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1000.0
    }

    /// Whether RFC 3339 can express it: from the year 0 to 9999.
    #[must_use]
    pub fn is_expressible(self) -> bool {
        DateTime::from_timestamp_millis(self.0).is_some_and(|time| (0..=9999).contains(&time.year()))
    }

    /// The time as a chrono date. Years before 0 and after 9999, which RFC 3339 can't express, become the epoch.
    pub(super) fn calendar(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).filter(|_| self.is_expressible()).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.calendar().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Accepts any time zone and any number of decimals; decimals below a millisecond are dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| InvalidTimestamp)?;
        Ok(Self(time.timestamp_millis()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(feature = "ssr")]
impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime)))
            .into()
    }
}

#[cfg(feature = "ssr")]
impl utoipa::ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_in_utc_with_three_decimals() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_700_000_000_120).to_string(), "2023-11-14T22:13:20.120Z");
        assert_eq!("2023-11-14T23:13:20.12+01:00".parse::<Timestamp>().ok(), Some(Timestamp(1_700_000_000_120)));
    }

    #[test]
    fn times_are_moved_by_seconds() {
        assert_eq!(Timestamp(1000).plus_seconds(1.5), Timestamp(2500));
        assert_eq!(Timestamp(2500).seconds_since(Timestamp(1000)), 1.5);
        assert_eq!(Timestamp(0).plus_seconds(f64::MAX), Timestamp(i64::MAX));
    }
    #[test]
    fn texts_that_are_not_times_are_refused() {
        for text in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20Zz",
            "2023-11-14T22:13:20+1:00",
            "2023-11-14T24:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "+023-01-01T00:00:00Z",
            "2023-01-01T00:00:00\u{e9}",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn unusual_times_are_read() {
        for (text, ms) in [
            ("2024-02-29t12:00:00.9999999z", 1_709_208_000_999),
            // A leap second is the first second of the next minute, as in POSIX.
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-01-01T00:00:00-12:30", 946_729_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(ms)), "{text}");
        }
        assert_eq!(Timestamp(i64::MAX).to_string(), Timestamp(0).to_string());
    }

    proptest! {
        #[test]
        fn written_times_are_read_back_in_any_time_zone(
            ms in -62_167_219_200_000i64..253_402_207_200_000, minutes in -1439i32..1440,
        ) {
            prop_assert_eq!(Timestamp(ms).to_string().parse(), Ok(Timestamp(ms)));
            let zone = chrono::FixedOffset::east_opt(minutes * 60).expect("within its range");
            let there = Timestamp(ms).calendar().with_timezone(&zone).to_rfc3339();
            // Years before 0 and after 9999 have a sign.
            if !there.starts_with(['-', '+']) {
                prop_assert_eq!(there.parse(), Ok(Timestamp(ms)), "{}", there);
            }
        }
    }
}
