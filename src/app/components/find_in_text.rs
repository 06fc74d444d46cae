//! The search within a transcript: marks what is typed, and goes to the next and the previous place. The browser's own search is
//! left alone.

use super::{Icon, Symbol};
use crate::{app::effect, feed::browser::find};
use leptos::{ev, html, prelude::*};

/// The field and its buttons, which work once the app runs.
#[component]
pub fn FindInText(
    /// The element with the lines.
    list: NodeRef<html::Div>,
    /// How many lines there are.
    #[prop(into)]
    count: Signal<usize>,
    /// What is searched at first.
    wanted: String,
    /// The line, counted from the first, that the page leads to: its place is the current one at first.
    start_line: Option<u32>,
) -> impl IntoView {
    let ready = RwSignal::new(false);
    Effect::new(move || ready.set(true));
    let wanted = RwSignal::new(wanted);
    let found = RwSignal::new(0);
    let current = RwSignal::new(0);
    let mut before = None;
    effect(move || {
        // New lines are searched, too.
        count.track();
        let text = wanted.get();
        if list.get().is_none() {
            return;
        }
        let all = find::mark(list, &text);
        found.set(all);
        let typed = before.as_ref().is_some_and(|before| *before != text);
        let place = match before {
            // What came with the address leads to a line of its own.
            None => start_line.map_or(0, find::first_from),
            Some(_) if typed => 0,
            Some(_) => current.get_untracked().min(all.saturating_sub(1)),
        };
        current.set(place);
        find::make_current(place, typed);
        before = Some(text);
    });
    on_cleanup(find::clear);
    let step = move |forward: bool| {
        let all = found.get_untracked();
        if all > 0 {
            current.update(|n| *n = if forward { *n + 1 } else { *n + all - 1 } % all);
            find::make_current(current.get_untracked(), true);
        }
    };
    let on_key = move |event: ev::KeyboardEvent| match event.key().as_str() {
        "Enter" => {
            event.prevent_default();
            step(!event.shift_key());
        }
        "Escape" => wanted.set(String::new()),
        _ => {}
    };
    let words = move || match (wanted.with(|text| text.trim().is_empty()), found.get()) {
        (true, _) => String::new(),
        (false, 0) => "Not found".to_owned(),
        (false, all) => format!("{} of {all}", current.get() + 1),
    };
    let none = move || found.get() == 0;
    let button =
        move |label: &'static str, title: &'static str, testid: &'static str, symbol: Symbol, forward: bool| {
            view! {
                <button class="button quiet" type="button" aria-label=label title=title data-testid=testid
                    disabled=none on:click=move |_| step(forward)
                ><Icon symbol/></button>
            }
        };
    view! {
        <div class="find" role="search" hidden=move || !ready.get() || count.get() == 0>
            <label class="hidden" for="find">"Search in the transcript"</label>
            <input
                class="input"
                type="search"
                id="find"
                dir="auto"
                placeholder="Search in the text"
                autocomplete="off"
                data-testid="find"
                prop:value=move || wanted.get()
                on:input=move |event| wanted.set(event_target_value(&event))
                on:keydown=on_key
            />
            <span class="muted" role="status" data-testid="find-count" inner_html=words></span>
            {button("Previous place", "Previous (Shift+Enter)", "find-previous", Symbol::Up, false)}
            {button("Next place", "Next (Enter)", "find-next", Symbol::Down, true)}
        </div>
    }
}
