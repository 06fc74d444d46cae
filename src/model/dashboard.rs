//! What the stream of the dashboard sends: what can change from one moment to the next. The page that gets it loads the rest
//! again; programs read the rest with `GET /api/v1/admin/figures`.

use super::{
    Timestamp,
    advice::Advice,
    figures::{Figures, Point, Promise, Range},
    load::Overview,
};
use serde::{Deserialize, Serialize};

/// One event `overview`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Dashboard {
    pub range: Range,
    pub now: Overview,
    pub promises: Vec<Promise>,
    /// The step of the range that is under way.
    pub step: Option<Point>,
    pub advice: Vec<Advice>,
}

impl Dashboard {
    /// The parts of these figures and counts that can change from one moment to the next.
    #[must_use]
    pub fn new(figures: &Figures, now: &Overview, advice: &[Advice]) -> Self {
        Self {
            range: figures.range,
            now: now.clone(),
            promises: figures.promises.clone(),
            step: figures.points.last().cloned(),
            advice: advice.to_vec(),
        }
    }

    /// Whether it says the same as another, whenever that was counted.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let without_time = |dashboard: &Self| {
            let mut dashboard = dashboard.clone();
            dashboard.now.at = Timestamp(0);
            // Grows while somebody waits. That one waits is what matters, to a tenth of a minute.
            dashboard.now.oldest_queued_secs = dashboard.now.oldest_queued_secs.map(|secs| (secs / 6.0).floor());
            dashboard
        };
        without_time(self) == without_time(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_has_passed() {
        let dashboard = |at, queued, wait| {
            let now = Overview { at: Timestamp(at), queued, oldest_queued_secs: Some(wait), ..Overview::default() };
            Dashboard::new(&Figures::default(), &now, &[])
        };
        assert!(dashboard(1, 3, 61.0).says_the_same(&dashboard(2000, 3, 62.0)));
        assert!(!dashboard(1, 3, 61.0).says_the_same(&dashboard(1, 4, 61.0)));
        assert!(!dashboard(1, 3, 61.0).says_the_same(&dashboard(1, 3, 67.0)));
    }
}
