//! The titles of pages: the one that every page has unless it sets its own, and one whose words change. Leptos writes
//! `<title>` without escaping what is in it, so [`SiteTitle`] escapes all titles on the server: see docs/upstream.md.

use leptos::prelude::*;
use leptos_meta::{ServerMetaContext, Title};

/// The title of a page that sets none, and the formatter that every title of the site passes. Used once, by the app.
#[component]
pub fn SiteTitle() -> impl IntoView {
    // The browser sets `document.title`, which takes text.
    let is_markup = use_context::<ServerMetaContext>().is_some();
    view! { <Title text="Hark" formatter=move |text: String| if is_markup { escape(&text) } else { text }/> }
}

/// A text as it may stand in `<title>`, where these two begin something else (HTML, 13.2.5.2 "RCDATA state").
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The title of a page whose words change. Leptos' own asks for them when the server has let go of the page, which costs
/// the whole answer; this one has kept the first.
#[component]
pub fn PageTitle(text: Memo<String>) -> impl IntoView {
    // The server writes the title last, when the page and its signals may be gone.
    let first = text.get_untracked();
    view! { <Title text=move || text.try_get().unwrap_or_else(|| first.clone())/> }
}
