//! Numbers formatted for people: positions, durations, sizes and times, in English only and without locale data. Also text
//! encoded for addresses.

use super::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};

/// All characters but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a text for use in an address or a header: every reserved character becomes `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Decodes a value of an address' query. What isn't UTF-8 is replaced.
#[must_use]
pub fn percent_decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A position in a recording: `0:07`, `12:30`, `1:02:03`. Fractions of a second are dropped.
#[must_use]
pub fn clock(seconds: f64) -> String {
    let s = whole(seconds.floor());
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

/// The length of a recording, to the nearest second: `0:32`.
#[must_use]
pub fn length(seconds: f64) -> String {
    clock(seconds.round())
}

/// A position in a recording, in words to be heard: `7 seconds`, `12 minutes 30 seconds`, `1 hour 2 minutes 3 seconds`.
#[must_use]
pub fn spoken(seconds: f64) -> String {
    let s = whole(seconds.floor());
    let parts = [(s / 3600, "hour"), (s / 60 % 60, "minute"), (s % 60, "second")];
    let said = parts.into_iter().filter(|(n, unit)| *n > 0 || (s == 0 && *unit == "second"));
    said.map(|(n, unit)| count(n as usize, unit)).collect::<Vec<_>>().join(" ")
}

/// A duration in at most two units: `45 s`, `2 min 5 s`, `1 h 30 min`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let s = whole(seconds.round());
    match s {
        0..60 => format!("{s} s"),
        60..3600 if s.is_multiple_of(60) => format!("{} min", s / 60),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ if (s / 60).is_multiple_of(60) => format!("{} h", s / 3600),
        _ => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// A short duration, with tenths below ten seconds: `0.4 s`, `12 s`, `2 min 5 s`.
#[must_use]
pub fn lapse(seconds: f64) -> String {
    if (seconds * 10.0).round() < 100.0 { format!("{} s", decimal(seconds, 1)) } else { duration(seconds) }
}

/// A size in decimal units (SI): `812 B`, `1.4 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0 of the smaller unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", decimal(value, 1), UNITS[unit])
}

/// The same text, kept on one line: a unit alone at the beginning of a line says nothing.
#[must_use]
pub fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// A date and time in UTC: `23 Nov 2026, 14:32 UTC`. The same on the server and in any browser.
#[must_use]
pub fn date_time(at: Timestamp) -> String {
    at.calendar().format("%-d %b %Y, %H:%M UTC").to_string()
}

/// A time of day in UTC: `14:32 UTC`. The same on the server and in any browser.
#[must_use]
pub fn time_of_day(at: Timestamp) -> String {
    at.calendar().format("%H:%M UTC").to_string()
}

/// A day of the year in UTC: `23 Nov`.
#[must_use]
pub fn day(at: Timestamp) -> String {
    at.calendar().format("%-d %b").to_string()
}

/// A time of day in UTC without saying so: `14:32`. For labels that stand side by side.
#[must_use]
pub fn hour_minute(at: Timestamp) -> String {
    at.calendar().format("%H:%M").to_string()
}

/// A speed relative to real time: `2.3x`, `14x`.
#[must_use]
pub fn speed(factor: f64) -> String {
    format!("{}x", decimal(factor, if factor >= 9.95 { 0 } else { 1 }))
}

/// A percentage without decimals, never rounded up to 100: `43%`.
#[must_use]
pub fn percentage(progress: f64) -> String {
    format!("{}%", whole(progress.clamp(0.0, 100.0).floor()))
}

/// A remaining time, rounded as coarsely as estimates are: `a few seconds`, `40 s`, `2 min`, `1 h 5 min`.
#[must_use]
pub fn remaining(seconds: f64) -> String {
    match seconds {
        s if s < 5.0 => "a few seconds".to_owned(),
        s if s < 55.0 => format!("{} s", whole((s / 5.0).round()) * 5),
        s => {
            let minutes = whole((s / 60.0).round()).max(1);
            match (minutes / 60, minutes % 60) {
                (0, m) => format!("{m} min"),
                (h, 0) => format!("{h} h"),
                (h, m) => format!("{h} h {m} min"),
            }
        }
    }
}

/// A sample rate: `44.1 kHz`, `8 kHz`.
#[must_use]
pub fn sample_rate(hertz: u32) -> String {
    let khz = decimal(f64::from(hertz) / 1000.0, 2);
    format!("{} kHz", khz.trim_end_matches('0').trim_end_matches('.'))
}

/// A number of channels: `mono`, `stereo`, `6 channels`.
#[must_use]
pub fn channels(n: u16) -> String {
    match n {
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        n => format!("{n} channels"),
    }
}

/// A number with its noun: `1 line`, `2 lines`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A number with `places` decimals. Negative numbers and NaN become zero.
#[must_use]
pub fn decimal(number: f64, places: usize) -> String {
    format!("{:.places$}", number.max(0.0))
}

fn whole(seconds: f64) -> u64 {
    // A cast saturates: negative numbers and NaN become 0, infinity becomes the largest integer.
    seconds as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_have_minutes_and_seconds() {
        for (s, text) in
            [(0.0, "0:00"), (7.9, "0:07"), (750.0, "12:30"), (3723.0, "1:02:03"), (-1.0, "0:00"), (f64::NAN, "0:00")]
        {
            assert_eq!(clock(s), text);
        }
        assert_eq!([length(31.6), length(31.4), length(3599.5)], ["0:32", "0:31", "1:00:00"]);
    }

    #[test]
    fn positions_are_spoken_in_words() {
        for (s, text) in [
            (0.4, "0 seconds"),
            (61.9, "1 minute 1 second"),
            (120.0, "2 minutes"),
            (3723.0, "1 hour 2 minutes 3 seconds"),
            (f64::NAN, "0 seconds"),
        ] {
            assert_eq!(spoken(s), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (s, text) in
            [(44.6, "45 s"), (60.0, "1 min"), (125.0, "2 min 5 s"), (3600.0, "1 h"), (5400.0, "1 h 30 min")]
        {
            assert_eq!(duration(s), text);
        }
    }

    #[test]
    fn decimals_are_rounded_and_never_negative() {
        for (number, places, text) in [
            (0.0, 0, "0"),
            (99.96, 1, "100.0"),
            (0.049, 1, "0.0"),
            (3.058, 2, "3.06"),
            (43.0, 2, "43.00"),
            (2.6, 0, "3"),
            (-7.0, 1, "0.0"),
            (f64::NAN, 1, "0.0"),
        ] {
            assert_eq!(decimal(number, places), text);
        }
    }

    #[test]
    fn sizes_have_decimal_units() {
        for (n, text) in
            [(999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (1_400_000, "1.4 MB"), (u64::MAX, "18446744.1 TB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn dates_and_times_are_in_utc() {
        let at: Timestamp = "2026-11-23T14:32:59.999Z".parse().expect("a time");
        assert_eq!(date_time(at), "23 Nov 2026, 14:32 UTC");
        assert_eq!(time_of_day(at), "14:32 UTC");
        assert_eq!([day(at), hour_minute(at)], ["23 Nov", "14:32"]);
        assert_eq!(date_time(Timestamp(0)), "1 Jan 1970, 00:00 UTC");
    }

    #[test]
    fn speeds_and_percentages() {
        assert_eq!([speed(0.44), speed(2.3), speed(9.94), speed(14.4)], ["0.4x", "2.3x", "9.9x", "14x"]);
        assert_eq!([percentage(0.0), percentage(99.9), percentage(100.0)], ["0%", "99%", "100%"]);
    }

    #[test]
    fn remaining_times_are_coarse() {
        for (s, text) in [
            (-3.0, "a few seconds"),
            (38.0, "40 s"),
            (57.0, "1 min"),
            (130.0, "2 min"),
            (3600.0, "1 h"),
            (3900.0, "1 h 5 min"),
        ] {
            assert_eq!(remaining(s), text);
        }
    }

    #[test]
    fn sample_rates_channels_and_counts() {
        assert_eq!([sample_rate(44_100), sample_rate(8000), sample_rate(11_025)], ["44.1 kHz", "8 kHz", "11.03 kHz"]);
        assert_eq!([channels(1), channels(2), channels(6)], ["mono", "stereo", "6 channels"]);
        assert_eq!([count(1, "line"), count(0, "line")], ["1 line", "0 lines"]);
    }
}
