//! The browser's clock as a signal, for texts relative to now or in local time.
//! It is empty on the server and until the end of hydration, so that both render the same; then it ticks every second.

use crate::{app::effect, feed::browser::dom, model::Timestamp};
use leptos::prelude::*;
use std::time::Duration;

/// The interval of the clock: often enough for times shown in seconds.
const TICK: Duration = Duration::from_secs(1);

/// The clock of the app.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    now: RwSignal<Option<Timestamp>>,
    hydrated: Memo<bool>,
    minute: Memo<Option<Timestamp>>,
}

impl Clock {
    /// Makes the clock and puts it into the context.
    pub(crate) fn provide() -> Self {
        let now = RwSignal::new(None);
        let hydrated = Memo::new(move |_| now.with(Option::is_some));
        let minute = Memo::new(move |_| now.get().map(|now: Timestamp| Timestamp(now.0 - now.0 % 60_000)));
        let clock = Self { now, hydrated, minute };
        provide_context(clock);
        effect(move || {
            now.set(dom::now());
            set_interval(move || now.set(dom::now()), TICK);
        });
        clock
    }

    /// The clock from the context.
    pub(crate) fn expect() -> Self {
        expect_context()
    }

    /// The browser's time, once hydrated.
    pub(crate) fn now(self) -> Option<Timestamp> {
        self.now.get()
    }

    /// The start of this minute by the browser's clock, once hydrated: for texts that change no more often.
    pub(crate) fn minute(self) -> Option<Timestamp> {
        self.minute.get()
    }

    /// Whether the page is hydrated, so that values known only to the browser may be shown.
    pub(crate) fn is_hydrated(self) -> bool {
        self.hydrated.get()
    }
}
