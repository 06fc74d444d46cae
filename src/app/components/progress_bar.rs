//! A progress bar, also for screen readers. Without a number it shows only that work is going on.

use crate::model::text::decimal;
use leptos::prelude::*;

/// A progress bar.
#[component]
pub fn ProgressBar(
    /// The name of the bar, for screen readers.
    #[prop(into)]
    label: String,
    /// 0 to 100, or none if unknown.
    #[prop(into)]
    percent: Signal<Option<f64>>,
    /// The same as text.
    #[prop(into)]
    words: Signal<String>,
    /// Whether work is going on; if not, a bar without a number isn't animated.
    #[prop(into)]
    busy: Signal<bool>,
    /// The `data-testid` of the bar.
    testid: &'static str,
) -> impl IntoView {
    let width = move || decimal(percent.get().unwrap_or(0.0), 1) + "%";
    view! {
        <div
            class="bar"
            role="progressbar"
            aria-label=label
            aria-valuemin="0"
            aria-valuemax="100"
            aria-valuenow=move || percent.get().map(|p| decimal(p.floor(), 0))
            aria-valuetext=move || words.get()
            data-testid=testid
            data-unknown=move || (percent.get().is_none() && busy.get()).then_some("")
            style=("--progress", width)
        >
            <div class="bar-fill"></div>
        </div>
    }
}
