//! The title of a page whose words change.

use leptos::prelude::*;
use leptos_meta::Title;

/// The title.
#[component]
pub fn PageTitle(text: Memo<String>) -> impl IntoView {
    // The server writes the title last, when the page and its signals may be gone.
    let first = text.get_untracked();
    view! { <Title text=move || text.try_get().unwrap_or_else(|| first.clone())/> }
}
