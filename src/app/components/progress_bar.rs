//! A bar that says how far something is, also to screen readers. Without a number it shows that work goes on.

use crate::model::text::decimal;
use leptos::prelude::*;

/// A progress bar.
#[component]
pub fn ProgressBar(
    /// What it is the progress of, for screen readers.
    #[prop(into)]
    label: String,
    /// 0 to 100, or none where nothing honest can be said.
    #[prop(into)]
    percent: Signal<Option<f64>>,
    /// The same in words.
    #[prop(into)]
    words: Signal<String>,
    /// Whether something is going on; if not, a bar without a number stands still.
    #[prop(into)]
    busy: Signal<bool>,
    /// The test hook.
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
