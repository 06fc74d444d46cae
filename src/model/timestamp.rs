//! Points in time as they cross the wire: RFC 3339, UTC, always with milliseconds.
//! Read and written by hand: a library for dates would be a tenth of what a browser loads. A test holds both together.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, ops::Range, str::FromStr};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The days of 400 years, after which the calendar repeats.
const CYCLE: i64 = 146_097;
/// From 1 March of year 0, where a cycle begins, to the Unix epoch. Years that begin in March end with their leap day.
const EPOCH: i64 = 719_468;

/// Milliseconds since the Unix epoch; written as RFC 3339 UTC with exactly three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// A text that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time must be as in RFC 3339, such as 2026-11-23T14:32:00.000Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// This time moved by `seconds`, which may be negative.
    #[must_use]
    pub fn plus_seconds(self, seconds: f64) -> Self {
        // A float too large for i64 saturates, which the far future may.
        Self(self.0.saturating_add((seconds * 1000.0).round() as i64))
    }

    /// Seconds from `earlier` to this time; negative if it is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1000.0
    }
}

/// Days since the Unix epoch.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    // Months have 30.6 days on average, from March on.
    cycle * CYCLE + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - EPOCH
}

/// Year, month and day; the inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    // Without the leap days before it, every year has 365 days.
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

/// RFC 3339, in any time zone and with any number of decimals; those below a millisecond are cut off.
fn read(text: &str) -> Option<Timestamp> {
    let text = text.as_bytes();
    let digits = |range: Range<usize>| {
        let digits = text.get(range)?;
        digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let within = |range: Range<usize>, least: i64, most: i64| digits(range).filter(|n| (least..=most).contains(n));
    let sign = |at: usize, allowed: &[u8]| text.get(at).filter(|b| allowed.contains(b)).copied();

    sign(4, b"-").and(sign(7, b"-")).and(sign(10, b"Tt ")).and(sign(13, b":")).and(sign(16, b":"))?;
    let (year, month, day) = (digits(0..4)?, within(5..7, 1, 12)?, within(8..10, 1, 31)?);
    let days = days(year, month, day);
    if date(days) != (year, month, day) {
        return None; // no such day in this month
    }
    // A leap second is counted as the one before.
    let (hour, minute, second) = (within(11..13, 0, 23)?, within(14..16, 0, 59)?, within(17..19, 0, 60)?.min(59));
    let mut at = 19;
    let mut ms = 0;
    if sign(at, b".").is_some() {
        let decimals = text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let kept = decimals.min(3);
        ms = digits(at + 1..at + 1 + kept).filter(|_| kept > 0)? * [1, 100, 10, 1][kept];
        at += 1 + decimals;
    }
    let (ahead, end) = match sign(at, b"Zz+-")? {
        b'Z' | b'z' => (0, at + 1),
        sign_of_zone => {
            sign(at + 3, b":")?;
            let ahead = within(at + 1..at + 3, 0, 23)? * HOUR + within(at + 4..at + 6, 0, 59)? * MINUTE;
            (if sign_of_zone == b'-' { -ahead } else { ahead }, at + 6)
        }
    };
    let time = hour * HOUR + minute * MINUTE + second * SECOND + ms;
    (end == text.len()).then(|| Timestamp(days * DAY + time - ahead))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = date(days);
        if !(0..=9999).contains(&year) {
            return Self(0).fmt(f); // not a time that RFC 3339 can write, nor one that can come up
        }
        let (hour, minute, second) = (ms / HOUR, ms / MINUTE % 60, ms / SECOND % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % SECOND)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or(InvalidTimestamp)
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
    fn always_three_decimals_and_utc() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_700_000_000_120).to_string(), "2023-11-14T22:13:20.120Z");
        assert_eq!("2023-11-14T23:13:20.12+01:00".parse::<Timestamp>().ok(), Some(Timestamp(1_700_000_000_120)));
    }

    #[test]
    fn moves_by_seconds() {
        assert_eq!(Timestamp(1000).plus_seconds(1.5), Timestamp(2500));
        assert_eq!(Timestamp(2500).seconds_since(Timestamp(1000)), 1.5);
        assert_eq!(Timestamp(0).plus_seconds(f64::MAX), Timestamp(i64::MAX));
    }
    #[test]
    fn what_is_no_time() {
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
    fn what_is_rare() {
        for (text, ms) in [
            ("2024-02-29t12:00:00.9999999z", 1_709_208_000_999),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-01-01T00:00:00-12:30", 946_729_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(ms)), "{text}");
        }
        assert_eq!(Timestamp(i64::MAX).to_string(), Timestamp(0).to_string());
    }

    proptest! {
        #[test]
        fn as_a_library_for_dates_has_it(ms in -62_167_219_200_000i64..253_402_300_800_000, minutes in -1439i32..1440) {
            let library = jiff::Timestamp::from_millisecond(ms).expect("within its range");
            let text = format!("{library:.3}");
            prop_assert_eq!(Timestamp(ms).to_string(), &*text);
            prop_assert_eq!(text.parse(), Ok(Timestamp(ms)));
            let zone = jiff::tz::Offset::from_seconds(minutes * 60).expect("within its range");
            let there = library.display_with_offset(zone).to_string();
            if !there.starts_with('-') {
                prop_assert_eq!(there.parse(), Ok(Timestamp(ms)), "{}", there);
            }
        }
    }
}
