//! How long sessions are kept: which are due to be deleted, and the text about it on pages. `jobs` deletes them;
//! `sessions` checks whether one is due.

use super::config::KeepConfig;
use crate::model::{
    Timestamp, bytes, duration,
    text::{count, decimal},
};

/// Seconds in a day.
pub const DAY_SECS: f64 = 86_400.0;

/// Whether a session that ended at `finished_at` is to be deleted.
#[must_use]
pub fn is_due(keep_days: Option<f64>, finished_at: Option<Timestamp>, now: Timestamp) -> bool {
    keep_days.zip(finished_at).is_some_and(|(days, at)| now.seconds_since(at) > days * DAY_SECS)
}

/// The text that tells people how long and how much is kept; none if neither is limited.
#[must_use]
pub fn policy_text(kept: &KeepConfig) -> Option<String> {
    let days = kept.keep_days.map(|days| {
        let long = match days {
            days if days >= 1.0 && days.fract() == 0.0 => count(days as usize, "day"),
            days if days >= 1.0 => format!("{} days", decimal(days, 1)),
            days => duration(days * DAY_SECS),
        };
        format!("Sessions are deleted with their recordings {long} after they have ended.")
    });
    let most = kept.max_bytes_per_owner.map(|most| format!("You can keep recordings of up to {} here.", bytes(most)));
    let sentences: Vec<String> = days.into_iter().chain(most).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_that_ended_long_enough_ago_are_due() {
        let now = Timestamp(10 * 86_400_000);
        let ended = |days_ago: i64| Some(Timestamp(now.0 - days_ago * 86_400_000));
        assert!(is_due(Some(2.0), ended(3), now));
        assert!(!is_due(Some(2.0), ended(2), now));
        assert!(!is_due(Some(2.0), None, now), "it hasn't ended");
        assert!(!is_due(None, ended(10), now), "everything is kept");
    }

    #[test]
    fn the_text_states_the_limits() {
        let policy_text = |keep_days, max_bytes_per_owner| {
            policy_text(&KeepConfig { keep_days, max_bytes_per_owner, keep_copies_days: 30.0 })
        };
        assert_eq!(policy_text(None, None), None);
        assert_eq!(
            policy_text(Some(30.0), Some(10_000_000_000)).unwrap(),
            "Sessions are deleted with their recordings 30 days after they have ended. You can keep recordings of up \
             to 10.0 GB here."
        );
        assert!(policy_text(Some(1.0), None).unwrap().contains("recordings 1 day after"));
        assert!(policy_text(Some(0.5), None).unwrap().contains("recordings 12 h after"));
        assert!(policy_text(Some(1.5), None).unwrap().contains("recordings 1.5 days after"));
    }
}
