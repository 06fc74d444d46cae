//! The title of a page whose words change. Leptos' own asks for them when the server has let go of the page, which costs
//! the whole answer; this one has kept the first.

use leptos::prelude::*;
use leptos_meta::Title;

/// The title.
#[component]
pub fn PageTitle(text: Memo<String>) -> impl IntoView {
    // The server writes the title last, when the page and its signals may be gone.
    let first = text.get_untracked();
    view! { <Title text=move || text.try_get().unwrap_or_else(|| first.clone())/> }
}
