//! A session's state as an icon and a word, not by colour alone. Shown in rows and on the session page.

use super::{Icon, Symbol};
use crate::{
    app::words,
    model::{State, Status},
};
use leptos::prelude::*;

/// The state of a session.
#[component]
pub fn StateChip(status: Memo<Status>) -> impl IntoView {
    let state = Memo::new(move |_| status.with(|s| s.state));
    let symbol = move || match state.get() {
        State::Queued => Symbol::Waiting,
        State::Processing => Symbol::Working,
        State::Completed => Symbol::Done,
        State::Failed => Symbol::Failed,
        State::Cancelled => Symbol::Cancelled,
    };
    view! {
        <span class="chip" data-testid="state" data-state=move || state.get().as_str()>
            {move || view! { <Icon symbol=symbol()/> }}
            <span inner_html=move || status.with(words::step)></span>
        </span>
    }
}
