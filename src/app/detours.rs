//! Workarounds for flaws in Leptos, where pages differ from the Leptos book. Each is here once; `docs/upstream.md` has its
//! smallest reproduction. It is removed when a release of Leptos fixes the flaw. The app and the pages use these.

use crate::model::page::AppFiles;
use leptos::{nonce::use_nonce, prelude::*};
use leptos_meta::{ServerMetaContext, Title};

/// The title of a page that sets none, and a formatter that escapes every title of the site: leptos_meta writes `<title>`
/// without escaping its content. Used once, by the app.
#[component]
pub fn SiteTitle() -> impl IntoView {
    // In the browser the title is set as `document.title`, which is text.
    let is_markup = use_context::<ServerMetaContext>().is_some();
    view! { <Title text="Hark" formatter=move |text: String| if is_markup { escape(&text) } else { text }/> }
}

/// Escapes a text for the content of an element, where only these two characters are special (HTML, 13.2.5.1 "Data state" and
/// 13.2.5.2 "RCDATA state", which is that of `<title>`).
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A text that changes, as the `inner_html` of an element of its own. A text as a child is a text node that Leptos keeps and
/// writes to. Translators put elements with other nodes in its place and dictionaries split it, and then the page would show the
/// old text for good. This replaces whatever the element holds by then.
pub(crate) fn live_text(text: impl AsRef<str>) -> String {
    escape(text.as_ref())
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

/// The scripts that load and start the app: Leptos' `HydrationScripts`, but with the WebAssembly requested by a script instead
/// of a preload, which WebKit doesn't use and so fetches the file a second time. The request begins as early as a preload.
/// Used once, by the document around the app.
#[component]
pub fn StartScripts(files: AppFiles) -> impl IntoView {
    let AppFiles { script, wasm, .. } = files;
    let nonce = use_nonce();
    view! {
        <link rel="modulepreload" href=script.clone()/>
        <script nonce=nonce.clone()>{format!("const app = fetch(\"{wasm}\")")}</script>
        // A module is run when the whole page has been read, which hydration needs.
        <script type="module" nonce=nonce>
            {format!("import(\"{script}\").then(m => m.default({{ module_or_path: app }}).then(() => m.hydrate()))")}
        </script>
    }
}
