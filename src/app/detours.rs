//! Workarounds for flaws in Leptos, where pages differ from the Leptos book. Each is here once; `docs/upstream.md` has its
//! smallest reproduction. It is removed when a release of Leptos fixes the flaw. The app and the pages use these.

use leptos::prelude::*;
use leptos_meta::{ServerMetaContext, Title};

/// The title of a page that sets none, and a formatter that escapes every title of the site: leptos_meta writes `<title>`
/// without escaping its content. Used once, by the app.
#[component]
pub fn SiteTitle() -> impl IntoView {
    // In the browser the title is set as `document.title`, which is text.
    let is_markup = use_context::<ServerMetaContext>().is_some();
    view! { <Title text="Hark" formatter=move |text: String| if is_markup { escape(&text) } else { text }/> }
}

/// Escapes a text for `<title>`, where only these two characters are special (HTML, 13.2.5.2 "RCDATA state").
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A page title that changes. leptos_meta's `Title` reads the text at a time when the server may have dropped the page and its
/// signals, and then the whole response is lost. This component falls back to the first text.
#[component]
pub fn PageTitle(text: Memo<String>) -> impl IntoView {
    let first = text.get_untracked();
    view! { <Title text=move || text.try_get().unwrap_or_else(|| first.clone())/> }
}

/// A view that is made once, when a resource has loaded, and that reads the resource itself afterwards: for parts that stay
/// while the resource reloads, such as the rows of a list. On the server, which renders on several threads, a memo that was
/// made earlier may be read before it is notified that the resource has loaded. A memo made within this view can't be.
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
