//! The log of a session's stages: when it entered each one, and so how long it spent there.
//! The store writes the log, and the page appends to it with every status it gets.

use super::{Stage, State, Status, Timestamp};
use serde::{Deserialize, Serialize};

/// When a session entered which stage, in order. None stands for no stage: the session was queued, or had ended. Each attempt
/// repeats the stages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageLog(pub Vec<(Timestamp, Option<Stage>)>);

impl StageLog {
    /// Takes in a status. A status in the same stage as the last one changes nothing.
    pub fn note(&mut self, status: &Status) {
        let stage = status.stage.filter(|_| status.state == State::Processing);
        let last = self.0.last();
        if last.is_none_or(|(at, known)| *known != stage && *at <= status.timestamp) {
            self.0.push((status.timestamp, stage));
        }
    }

    /// Seconds spent in a stage until `now`, the time of the newest status. None if the stage was never entered.
    #[must_use]
    pub fn spent(&self, stage: Stage, now: Timestamp) -> Option<f64> {
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let visits = self.0.iter().zip(ends).filter(|((_, entered), _)| *entered == Some(stage));
        visits.map(|((from, _), to)| to.seconds_since(*from).max(0.0)).reduce(|sum, seconds| sum + seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;
    use uuid::Uuid;

    #[test]
    fn attempts_add_up_and_time_in_the_queue_counts_for_no_stage() {
        let mut log = StageLog::default();
        let steps = [
            (0, State::Queued, None),
            (1_000, State::Processing, Some(Stage::Decoding)),
            (2_000, State::Processing, Some(Stage::Transcribing)),
            (3_000, State::Processing, Some(Stage::Transcribing)),
            (5_000, State::Queued, None),
            (60_000, State::Processing, Some(Stage::Decoding)),
            (61_500, State::Processing, Some(Stage::Transcribing)),
            (70_000, State::Completed, Some(Stage::Saving)),
        ];
        for (at, state, stage) in steps {
            log.note(&Status::new(SessionId(Uuid::nil()), state, stage, Timestamp(at)));
        }
        assert_eq!(log.0.len(), 7);
        let spent = |stage| log.spent(stage, Timestamp(99_000));
        assert_eq!(spent(Stage::Decoding), Some(2.5));
        assert_eq!(spent(Stage::Transcribing), Some(11.5));
        assert_eq!(spent(Stage::Saving), None);
    }
}
