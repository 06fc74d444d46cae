//! Reloads a page on which something is going on if there is no JavaScript, unless the reader has paused that.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;

/// What reloads the page every 3 seconds, and the link that pauses it: a form that one is filling in would be lost.
#[component]
pub fn Reload(
    /// Whether something is going on.
    running: Memo<bool>,
    /// The page's address.
    #[prop(into)]
    address: Signal<String>,
) -> impl IntoView {
    let params = use_query_map();
    let paused = move || params.with(|p| p.get_str("reload") == Some("off"));
    let html = move || {
        // Whatever somebody has typed is percent-encoded in an address.
        let address = address.get().replace('&', "&amp;");
        if paused() {
            format!(r#"<p class="notice">Reloading is paused. <a href="{address}">Go on</a></p>"#)
        } else {
            let sign = if address.contains('?') { "&amp;" } else { "?" };
            format!(
                r#"<meta http-equiv="refresh" content="3"><p class="notice">This page reloads every 3 seconds. <a href="{address}{sign}reload=off">Pause it</a> before you type or select anything.</p>"#
            )
        }
    };
    // Set as `inner_html`: a browser with JavaScript parses the content of `<noscript>` as text, where hydration would look for
    // elements.
    view! { <Show when=move || running.get()><noscript inner_html=html></noscript></Show> }
}
