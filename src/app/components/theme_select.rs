//! The choice of the theme. `app/theme.js` does what it says, on every page before the app runs; without scripts it isn't shown.

use leptos::prelude::*;

/// The control. A page has one, by its id.
#[component]
pub fn ThemeSelect() -> impl IntoView {
    view! {
        <p class="theme">
            <label for="theme">"Theme"</label>
            <select id="theme" autocomplete="off" data-testid="theme">
                <option value="system">"System"</option>
                <option value="light">"Light"</option>
                <option value="dark">"Dark"</option>
            </select>
        </p>
    }
}
