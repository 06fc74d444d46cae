//! Reloads a page on which something is going on if there is no JavaScript, unless the reader has paused that.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;

/// The query with which a page doesn't reload.
pub(super) const OFF: &str = "reload=off";

/// Whether the page's address has it.
pub(super) fn paused() -> impl Fn() -> bool + Copy {
    let params = use_query_map();
    move || params.with(|params| params.get_str("reload") == Some("off"))
}

/// What reloads the page every 3 seconds, and the link that pauses it: a form that one is filling in would be lost.
#[component]
pub fn Reload(
    /// Whether something is going on.
    running: Memo<bool>,
    /// The page's address.
    #[prop(into)]
    address: Signal<String>,
) -> impl IntoView {
    let paused = paused();
    let html = move || {
        // Whatever somebody has typed is percent-encoded in an address.
        let address = address.get().replace('&', "&amp;");
        if paused() {
            format!(r#"<p class="notice">Reloading is paused. <a href="{address}">Go on</a></p>"#)
        } else {
            let sign = if address.contains('?') { "&amp;" } else { "?" };
            format!(
                r#"<meta http-equiv="refresh" content="3"><p class="notice">This page reloads every 3 seconds. <a href="{address}{sign}{OFF}">Pause it</a> before you type or select anything.</p>"#
            )
        }
    };
    // Set as `inner_html`: a browser with JavaScript parses the content of `<noscript>` as text, where hydration would look for
    // elements.
    view! { <Show when=move || running.get()><noscript inner_html=html></noscript></Show> }
}
