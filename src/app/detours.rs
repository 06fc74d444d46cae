//! What is done differently than Leptos' book has it, because Leptos itself has a flaw there. Each stands here once, with
//! its smallest case in `docs/upstream.md`; when a release mends it, it goes. Pages and the app use these.

use leptos::prelude::*;
use leptos_meta::{ServerMetaContext, Title};

/// The title of a page that sets none, and the formatter that every title of the site passes: leptos_meta writes
/// `<title>` without escaping what is in it. Used once, by the app.
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

/// The title of a page whose words change. leptos_meta's `Title` asks for them when the server may have let go of the
/// page and its signals, and then the whole answer is lost; this one has kept the first.
#[component]
pub fn PageTitle(text: Memo<String>) -> impl IntoView {
    let first = text.get_untracked();
    view! { <Title text=move || text.try_get().unwrap_or_else(|| first.clone())/> }
}

/// A view that is made when a resource is there, once, and reads it by itself from then on: for what outlives a reload,
/// such as the rows of a list. On the server, which renders on several threads, a memo that was made earlier may be read
/// before it has heard that the resource has loaded; within this view it can't have been.
pub fn once_loaded<T, V>(resource: Resource<T>, view: impl FnOnce() -> V + Send + 'static) -> Suspend<V>
where
    T: Clone + Send + Sync + 'static,
    V: IntoView + 'static,
{
    Suspend::new(async move {
        drop(resource.await);
        view()
    })
}
