//! The choice of the theme, the same here and on the pages of administrators. `app/theme.js` does what it says, on every page before
//! the app runs; without scripts it isn't shown.

use leptos::prelude::*;

const CONTROL: &str = include_str!("../theme.html");

/// The control. A page has one, by its id.
#[component]
pub fn ThemeSelect() -> impl IntoView {
    view! { <p class="theme" inner_html=CONTROL></p> }
}
