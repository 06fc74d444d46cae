//! How long ago something was, in words. Pure: callers pass the time in, and the days that lie between in the person's time zone.

use super::{Timestamp, text::count};

const MINUTE: i64 = 60;
/// What is yet to come within a minute is now: clocks differ a little.
const SOON: i64 = -MINUTE;
const HOUR: i64 = 60 * MINUTE;
/// What was up to so long ago is told in hours, whatever day it was.
const RECENT: i64 = 6 * HOUR;

/// How long before `now` a time was: `just now`, `5 minutes ago`, `2 hours ago`, `yesterday`, `3 days ago`; none if it was a week
/// ago or more, or is yet to come. `days`: how many days of the calendar before `now` its day is.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp, days: i64) -> Option<String> {
    let before = |n: i64, unit: &str| Some(format!("{} ago", count(usize::try_from(n).unwrap_or_default(), unit)));
    // Rounded down, as people do.
    let secs = (now.0 - at.0).div_euclid(1000);
    match (secs, days) {
        (SOON..MINUTE, _) => Some("just now".to_owned()),
        (MINUTE..HOUR, _) => before(secs / MINUTE, "minute"),
        (HOUR..RECENT, _) | (RECENT.., 0) => before(secs / HOUR, "hour"),
        (RECENT.., 1) => Some("yesterday".to_owned()),
        (RECENT.., 2..7) => before(days, "day"),
        _ => None,
    }
}

/// The same where nobody's time zone is known: none if it was a day ago or more.
#[must_use]
pub fn ago_anywhere(at: Timestamp, now: Timestamp) -> Option<String> {
    if now.0 - at.0 < 24 * HOUR * 1000 { ago(at, now, 0) } else { None }
}

/// How many days of the calendar one time is before another, both with the offset of their time zone from UTC in minutes, east
/// of it positive.
#[must_use]
pub fn days_between((at, offset): (Timestamp, i32), (now, offset_now): (Timestamp, i32)) -> i64 {
    let day = |time: Timestamp, offset: i32| (time.0 + i64::from(offset) * 60_000).div_euclid(24 * HOUR * 1000);
    day(now, offset_now) - day(at, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn what_was_recently_is_told_relative_to_now() {
        let now = at("2026-11-23T14:32:30Z");
        for (then, expected) in [
            ("2026-11-23T14:33:20Z", Some("just now")),
            ("2026-11-23T14:31:31Z", Some("just now")),
            ("2026-11-23T14:31:30Z", Some("1 minute ago")),
            ("2026-11-23T13:32:31Z", Some("59 minutes ago")),
            ("2026-11-23T13:32:30Z", Some("1 hour ago")),
            ("2026-11-23T00:00:00Z", Some("14 hours ago")),
            ("2026-11-22T23:59:59Z", Some("yesterday")),
            ("2026-11-22T00:00:00Z", Some("yesterday")),
            ("2026-11-21T23:59:59Z", Some("2 days ago")),
            ("2026-11-17T00:00:00Z", Some("6 days ago")),
            ("2026-11-16T23:59:59Z", None),
            ("2026-11-23T14:40:00Z", None),
        ] {
            let then = at(then);
            assert_eq!(ago(then, now, days_between((then, 0), (now, 0))).as_deref(), expected, "{then}");
        }
        // Soon after midnight, an hour ago is still an hour ago.
        assert_eq!(ago(at("2026-11-22T23:00:00Z"), at("2026-11-23T00:30:00Z"), 1).as_deref(), Some("1 hour ago"));
    }

    #[test]
    fn days_are_those_of_a_persons_time_zone() {
        let (then, now) = (at("2026-11-22T20:00:00Z"), at("2026-11-23T13:00:00Z"));
        assert_eq!([0, 600, -600].map(|offset| days_between((then, offset), (now, offset))), [1, 0, 1]);
        // In the night in which summer time ends.
        assert_eq!(days_between((at("2026-10-24T22:30:00Z"), 120), (at("2026-10-25T22:30:00Z"), 60)), 0);
    }

    #[test]
    fn without_a_time_zone_only_hours_are_told() {
        let now = at("2026-11-23T14:00:00Z");
        assert_eq!(ago_anywhere(at("2026-11-22T14:00:01Z"), now).as_deref(), Some("23 hours ago"));
        assert_eq!(ago_anywhere(at("2026-11-22T14:00:00Z"), now), None);
    }
}
