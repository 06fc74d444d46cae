//! The browser's clock as a signal, for all that is told relative to now or in local time.
//! Empty on the server and until hydration is over, so both render the same; then it ticks every second.

use crate::{feed::browser::dom, model::Timestamp};
use leptos::prelude::*;
use std::time::Duration;

/// Often enough for times told in seconds.
const TICK: Duration = Duration::from_secs(1);

/// The clock of the app.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    now: RwSignal<Option<Timestamp>>,
    hydrated: Memo<bool>,
}

impl Clock {
    /// Makes the clock and puts it into the context.
    pub(crate) fn provide() -> Self {
        let now = RwSignal::new(None);
        let clock = Self { now, hydrated: Memo::new(move |_| now.with(Option::is_some)) };
        provide_context(clock);
        Effect::new(move || {
            now.set(dom::now());
            set_interval(move || now.set(dom::now()), TICK);
        });
        clock
    }

    /// The clock of the app, which provides it.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// The browser's time, once hydrated.
    pub(crate) fn now(self) -> Option<Timestamp> {
        self.now.get()
    }

    /// Whether hydration is over, so that the browser's own values may be shown.
    pub(crate) fn is_hydrated(self) -> bool {
        self.hydrated.get()
    }
}
