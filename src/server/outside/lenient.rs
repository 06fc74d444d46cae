//! How the fields of a report are read. A worker that was written for another system isn't refused over the form of a
//! field as long as its meaning is clear: `pending`, a time without a zone, a number as a text. Pure. Called by
//! `report` and `redis_reports`.

use crate::{
    model::{Failure, Stage, State, Timestamp},
    server::bus::state_named,
};
use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// The code of a failure that the worker gave none.
pub(super) const WORKER_FAILED: &str = "worker_failed";
/// Times above this are milliseconds since the Unix epoch and not seconds, which would be in the year 5138.
const FIRST_MILLISECONDS: f64 = 1e11;

/// The kind of a value, for errors: the value itself may be a part of somebody's transcript.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A number, also as a text. JSON has no infinite ones.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number: &f64| number.is_finite());
    number.map(Some).ok_or_else(|| D::Error::custom(format!("it must be a number or null, and not {}", kind(&value))))
}

/// A whole number from 0 on, also as a text.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Null => return Ok(None),
        // Some languages write every number with a decimal point.
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e18).contains(n));
            number.map(|number| number as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| D::Error::custom("it must be a whole number from 0 on"))
}

/// A text. A number is one too.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(D::Error::custom(format!("it must be a text, and not {}", kind(&other)))),
    }
}

/// A state, also by a name that other systems have for it.
pub(super) fn state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<State>, D::Error> {
    let Some(name) = text(deserializer)?.filter(|name| !name.trim().is_empty()) else { return Ok(None) };
    let known = "it must be queued (or pending), processing, completed, failed or cancelled";
    state_named(&name).map(Some).ok_or_else(|| D::Error::custom(known))
}

/// A stage: one of Hark's, or the worker's own.
pub(super) fn stage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Stage>, D::Error> {
    Ok(text(deserializer)?.and_then(|name| name.parse().ok()))
}

/// A time, or nothing if it can't be understood: no report is worth less without one.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let time = match Value::deserialize(deserializer)? {
        Value::String(text) => parse_time(text.trim()),
        Value::Number(number) => number.as_f64().map(|number| {
            let ms = if number.abs() < FIRST_MILLISECONDS { number * 1000.0 } else { number };
            Timestamp(ms.round() as i64)
        }),
        _ => None,
    };
    Ok(time.filter(|time| time.is_expressible()))
}

/// A time as in RFC 3339 or ISO 8601. It is in UTC if it names no zone.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let text = text.replacen(' ', "T", 1);
    let zoned = DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f%#z").map(|time| time.timestamp_millis());
    let utc =
        || NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc().timestamp_millis());
    zoned.or_else(|_| utc()).ok().map(Timestamp)
}

/// Why a session failed: `{"code","message"}`, each of which may be missing, or only the message.
pub(super) fn failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Failure>, D::Error> {
    fn part(value: Option<&Value>) -> Option<&str> {
        value.and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }
    let value = Value::deserialize(deserializer)?;
    let (code, message) = match &value {
        Value::Null | Value::Bool(false) => return Ok(None),
        Value::Object(error) => (part(error.get("code")), part(error.get("message"))),
        Value::String(_) => (None, part(Some(&value))),
        other => {
            return Err(D::Error::custom(format!(
                "it must be a text, or an object with a code and a message, and not {}",
                kind(other)
            )));
        }
    };
    if (code, message) == (None, None) {
        return Ok(None);
    }
    let code = code.unwrap_or(WORKER_FAILED).to_owned();
    let message = message.unwrap_or("The worker reported a failure.").to_owned();
    Ok(Some(Failure { code, message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_of_other_systems_are_read() {
        for (given, ms) in [
            (json!("2026-11-27T07:02:09.123Z"), Some(1_795_762_929_123)),
            (json!("2026-11-27T08:02:09.123+01:00"), Some(1_795_762_929_123)),
            // Python's `datetime.utcnow().isoformat()`, and `str` of it.
            (json!("2026-11-27T07:02:09.123456"), Some(1_795_762_929_123)),
            (json!("2026-11-27 07:02:09.123456"), Some(1_795_762_929_123)),
            (json!("2026-11-27T07:02:09"), Some(1_795_762_929_000)),
            (json!("2026-11-27 08:02:09+0100"), Some(1_795_762_929_000)),
            (json!(1_795_762_929.123), Some(1_795_762_929_123)),
            (json!(1_795_762_929_123u64), Some(1_795_762_929_123)),
            (json!("soon"), None),
            // No time that can be written.
            (json!(1e300), None),
            (json!(-1e300), None),
            (json!(253_402_300_799_999u64), Some(253_402_300_799_999)),
            (json!(253_402_300_800_000u64), None),
            (json!("+12026-11-27T07:02:09"), None),
            (json!(null), None),
            (json!({}), None),
        ] {
            assert_eq!(time(&given).unwrap(), ms.map(Timestamp), "{given}");
        }
    }

    #[test]
    fn states_of_other_systems_are_read() {
        for (given, wanted) in [
            (json!("pending"), Some(State::Queued)),
            (json!(" Processing"), Some(State::Processing)),
            (json!("canceled"), Some(State::Cancelled)),
            (json!("FAILED"), Some(State::Failed)),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(state(&given).unwrap(), wanted, "{given}");
        }
        assert!(state(&json!("finished")).is_err());
    }

    #[test]
    fn numbers_may_be_texts() {
        assert_eq!(number(&json!("43.5")).unwrap(), Some(43.5));
        assert_eq!(whole(&json!(3.0)).unwrap(), Some(3));
        assert_eq!(whole(&json!("17")).unwrap(), Some(17));
        assert_eq!((number(&json!(null)).unwrap(), whole(&json!(null)).unwrap()), (None, None));
        for wrong in [json!("half"), json!("inf"), json!([1]), json!(true)] {
            assert!(number(&wrong).is_err() && whole(&wrong).is_err(), "{wrong}");
        }
        assert!(whole(&json!(-1)).is_err() && whole(&json!(1.5)).is_err());
    }

    #[test]
    fn failures_may_be_texts() {
        let wanted = |code: &str, message: &str| Some(Failure { code: code.to_owned(), message: message.to_owned() });
        for (given, wanted) in [
            (json!({"code": "gpu", "message": "It is gone."}), wanted("gpu", "It is gone.")),
            (json!("no speech"), wanted(WORKER_FAILED, "no speech")),
            (json!({"message": "no speech", "trace": []}), wanted(WORKER_FAILED, "no speech")),
            (json!({"code": "gpu"}), wanted("gpu", "The worker reported a failure.")),
            (json!(""), None),
            (json!({}), None),
            (json!(null), None),
        ] {
            assert_eq!(failure(&given).unwrap(), wanted, "{given}");
        }
        assert!(failure(&json!(7)).is_err());
    }

    #[test]
    fn errors_do_not_repeat_what_was_sent() {
        let secret = json!("what somebody said");
        assert!(!number(&secret).unwrap_err().to_string().contains("somebody"));
        assert!(!state(&secret).unwrap_err().to_string().contains("somebody"));
    }
}
