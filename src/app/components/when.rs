//! What is there while a condition holds. Leptos' own `Show` is there once for each condition and each view, to be loaded by
//! every browser; this one has one type.

use crate::app::reactive::memo;
use leptos::prelude::*;

/// Shows its children while a condition holds, and makes them anew when it holds again.
#[component]
pub fn When(
    /// The condition.
    #[prop(into)]
    holds: Signal<bool>,
    children: ChildrenFn,
) -> impl IntoView {
    let holds = memo(move |_| holds.get());
    move || holds.get().then(|| children())
}
