//! The filters and the order of the list: fields of the search form, which stand outside of it. They apply as soon as they are
//! changed once the app runs, and by a button otherwise. On a phone they are folded.

use crate::{
    app::{clock::Clock, listing::address},
    feed::browser::list,
    model::{Condition, Filter, Order, page::LanguageInfo},
};
use leptos::{ev, prelude::*};
use leptos_router::components::A;

/// The id of the search form.
pub const SEARCH_FORM: &str = "search";

/// An option: its value and its label.
type Choice = (String, String);

fn choices(first: &str, others: impl IntoIterator<Item = Choice>) -> Vec<Choice> {
    std::iter::once((String::new(), first.to_owned())).chain(others).collect()
}

/// The fields.
#[component]
pub fn ListFilters(
    filter: Memo<Filter>,
    /// The languages that can be chosen.
    languages: Memo<Vec<LanguageInfo>>,
    /// Called with the filter once a field has changed.
    #[prop(into)]
    on_change: Callback<(Filter,)>,
) -> impl IntoView {
    let clock = Clock::expect();
    let changed = move |event: ev::Event| {
        if let Some((name, value)) = list::field(&event) {
            let value = match &*name {
                "since" | "until" => list::moment_of_day(&value, name == "until"),
                _ => value,
            };
            on_change.run((filter.with_untracked(|filter| filter.with(&name, &value)),));
        }
    };
    let select = move |name: &'static str, label: &'static str, choices: Signal<Vec<Choice>>| {
        let id = format!("filter-{name}");
        // Keeps what is chosen when the choices change.
        let options = move || {
            let chosen = filter.with(|filter| filter.value(name).to_owned());
            let option = |(value, label): Choice| {
                let is_chosen = value == chosen;
                view! { <option value=value selected=is_chosen>{label}</option> }
            };
            choices.get().into_iter().map(option).collect_view()
        };
        view! {
            <div class="field">
                <label for=id.clone()>{label}</label>
                <select
                    class="input"
                    id=id.clone()
                    name=name
                    form=SEARCH_FORM
                    autocomplete="off"
                    data-testid=id
                    prop:value=move || filter.with(|filter| filter.value(name).to_owned())
                >
                    {options}
                </select>
            </div>
        }
    };
    let day = move |name: &'static str, label: &'static str| {
        let id = format!("filter-{name}");
        // A moment begins with its day.
        let value =
            move || filter.with(|filter| filter.value(name).chars().take("2026-11-23".len()).collect::<String>());
        view! {
            <div class="field">
                <label for=id.clone()>{label}</label>
                <input
                    class="input"
                    type="date"
                    id=id.clone()
                    name=name
                    form=SEARCH_FORM
                    autocomplete="off"
                    data-testid=id
                    value=value()
                    prop:value=value
                />
            </div>
        }
    };
    let states = choices("All", Condition::ALL.map(|c| (c.as_str().to_owned(), c.label().to_owned())));
    let tags = Memo::new(move |_| {
        let mut known = languages.get();
        // One that no session has any more can be chosen all the same, or nobody would see why the list is empty.
        let chosen = filter.with(|filter| filter.language.clone()).unwrap_or_default();
        if !chosen.is_empty() && known.iter().all(|language| language.tag != chosen) {
            known.push(LanguageInfo { tag: chosen.clone(), name: chosen });
        }
        choices("All", known.into_iter().map(|LanguageInfo { tag, name }| (tag, name)))
    });
    let orders: Vec<Choice> = Order::ALL
        .map(|order| (if order == Order::default() { "" } else { order.as_str() }.to_owned(), order.label().to_owned()))
        .into();
    let count = Memo::new(move |_| filter.with(Filter::conditions));
    let summary = move || match count.get() {
        0 => "Filter and sort".to_owned(),
        n => format!("Filter and sort ({n})"),
    };
    let without = move || {
        let query =
            filter.with(|filter| Filter { query: filter.query.clone(), order: filter.order, ..Filter::default() });
        address(&query, None)
    };
    view! {
        // Only the button: a closed one would hide the fields on wide screens as well.
        <details class="filters-fold"><summary class="button" data-testid="filters" inner_html=summary></summary></details>
        <div class="filters" role="group" aria-label="Filter and sort" on:change=changed>
            {select("state", "State", Signal::derive(move || states.clone()))}
            {select("language", "Language", tags.into())}
            {day("since", "From")}
            {day("until", "To")}
            {select("order", "Order", Signal::derive(move || orders.clone()))}
            <div class="filters-end">
                <button class="button" form=SEARCH_FORM data-testid="apply" hidden=move || clock.is_hydrated()>"Apply"</button>
                <span hidden=move || count.get() == 0>
                    <A href=without attr:class="button quiet" attr:data-testid="clear-filters" scroll=false>"Clear filters"</A>
                </span>
            </div>
        </div>
    }
}
