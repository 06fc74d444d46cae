//! The page with the list of sessions: filtered, searched with `?q=`, in order, continued with `?cursor=`, live. What a search finds
//! in the texts stands below, continued with `?older=`.
//! Rows are keyed by id, so an update never moves the focus.

use crate::{
    api::sessions::list_sessions,
    app::{
        actions::Actions,
        clock::Clock,
        components::{
            ActionAlert, Alert, Connection, Icon, ListFilters, ListSkeleton, LoadError, Reload, SEARCH_FORM, Selection,
            SelectionBar, SessionRow, Symbol, TrySampleButton, UnfinishedUploads, UploadQueue, retry_on_failure,
            use_announcer,
        },
        deletions::Deletions,
        detours::{PageTitle, live_text, once_loaded},
        effect,
        listing::{KeptListing, LIST_ADDRESS, Listing, address},
        uploads::Uploads,
        words,
    },
    feed::{
        Feed, Mode,
        browser::{dom, list},
        reduce::View,
    },
    model::{ApiError, Filter, State, Status, page::SessionList, text},
};
use leptos::{ev, prelude::*};
use leptos_router::{
    NavigateOptions,
    components::A,
    hooks::{use_navigate, use_query_map},
};
use std::time::Duration;

/// The time without typing after which the list searches.
const SEARCH_DEBOUNCE: Duration = Duration::from_millis(250);

/// Loads a page of the list.
async fn load(filter: Filter, cursor: Option<String>, older: Option<String>) -> Result<SessionList, ApiError> {
    let query = Some(filter.to_query()).filter(|query| !query.is_empty());
    let mut list = list_sessions(query, cursor.clone(), older).await?;
    list.address = address(&filter, cursor.as_deref());
    Ok(list)
}

/// The page.
#[component]
pub fn SessionsPage() -> impl IntoView {
    let params = use_query_map();
    // What can't be read is left out.
    let filter = Memo::new(move |_| params.with(|p| Filter::read(|name| p.get_str(name).map(str::to_owned)).0));
    let cursor = Memo::new(move |_| params.with(|p| p.get_str("cursor").map(str::to_owned)));
    let older = Memo::new(move |_| params.with(|p| p.get_str("older").map(str::to_owned)));
    let title = Memo::new(move |_| {
        filter.with(|filter| match &*filter.query {
            "" => "Sessions · Hark".to_owned(),
            query => format!("Search: {query} · Hark"),
        })
    });
    // The page of a session leads back to it.
    effect(move || dom::keep(LIST_ADDRESS, &filter.with(|filter| address(filter, None))));

    view! {
        <PageTitle text=title/>
        <div class="page-head">
            <h1>"Sessions"</h1>
            <Search filter/>
            <A href="/upload" attr:class="button primary"><Icon symbol=Symbol::Upload/>"New transcription"</A>
        </div>
        <UnfinishedUploads in_list=true/>
        <UploadQueue unfinished=true/>
        <List filter cursor older/>
    }
}

/// Shows the list with another filter, in place of this one in the history.
fn go(navigate: &impl Fn(&str, NavigateOptions), filter: &Filter) {
    navigate(&address(filter, None), NavigateOptions { replace: true, scroll: false, ..NavigateOptions::default() });
}

/// The search field: a plain form, which also searches while one types once it is hydrated.
#[component]
fn Search(filter: Memo<Filter>) -> impl IntoView {
    let query = Memo::new(move |_| filter.with(|filter| filter.query.clone()));
    let typed = RwSignal::new(query.get_untracked());
    let searched = StoredValue::new(query.get_untracked());
    let navigate = use_navigate();
    let search = move || {
        let text = typed.get_untracked().trim().to_owned();
        if text != query.get_untracked() {
            searched.set_value(text.clone());
            go(&navigate, &filter.with_untracked(|filter| filter.with("q", &text)));
        }
    };
    // Back and forward change the field. Its own searches don't, because more may have been typed since.
    effect(move || {
        let query = query.get();
        if searched.with_value(|searched| *searched != query) {
            searched.set_value(query.clone());
            typed.set(query);
        }
    });
    let waiting = StoredValue::new(None::<TimeoutHandle>);
    let cancel_search = move || {
        if let Some(handle) = waiting.try_update_value(Option::take).flatten() {
            handle.clear();
        }
    };
    on_cleanup(cancel_search);
    let (search_later, search_now) = (search.clone(), search);
    view! {
        <form class="search" id=SEARCH_FORM method="get" action="/" role="search" on:submit=move |event| {
            event.prevent_default();
            cancel_search();
            search_now();
        }>
            <label class="hidden" for="q">"Search in titles and texts"</label>
            <Icon symbol=Symbol::Search/>
            <input
                class="input"
                id="q"
                name="q"
                type="search"
                dir="auto"
                placeholder="Search titles and texts"
                autocomplete="off"
                value=query.get_untracked()
                prop:value=move || typed.get()
                data-testid="search"
                on:input=move |event| {
                    typed.set(event_target_value(&event));
                    cancel_search();
                    waiting.set_value(set_timeout_with_handle(search_later.clone(), SEARCH_DEBOUNCE).ok());
                }
            />
        </form>
    }
}

/// The list of sessions. Its rows stay while it is loaded again, even if that fails.
#[component]
fn List(filter: Memo<Filter>, cursor: Memo<Option<String>>, older: Memo<Option<String>>) -> impl IntoView {
    let feed = Feed::expect();
    // Loaded again when a session appears that isn't in the list, and when the page has heard nothing for a while.
    let source = move || (filter.get(), cursor.get(), older.get(), feed.unknown.get());
    let list = Resource::new(source, |(filter, cursor, older, _)| load(filter, cursor, older));
    retry_on_failure(list);
    let clock = Clock::expect();
    let navigate = use_navigate();
    let on_filter = move |filter: Filter| go(&navigate, &filter);
    // Somebody came back with the browser's button, and not by a link to the list.
    let came_back = list::is_at(&untrack(|| address(&filter.get(), cursor.get().as_deref())));
    view! {
        <Transition fallback=ListSkeleton>
            {once_loaded(list, move || {
                let found = Memo::new(move |before: Option<&String>| match list.get() {
                    Some(Ok(list)) => list.found,
                    _ => before.cloned().unwrap_or_default(),
                });
                let languages = Memo::new(move |before: Option<&Vec<_>>| match list.get() {
                    Some(Ok(list)) => list.languages,
                    _ => before.cloned().unwrap_or_default(),
                });
                effect(move || {
                    if let Some(now) = clock.minute().filter(|_| found.with(|found| !found.is_empty())) {
                        list::show_found_times(dom::to_server_time(now));
                    }
                });
                view! {
                <ErrorBoundary fallback=move |errors| view! { <LoadError errors on_retry=move |()| list.refetch()/> }>
                    {move || list.get().map(|list| list.map(|_| ()))}
                </ErrorBoundary>
                <ListFilters filter languages on_change=on_filter.clone()/>
                <Rows list filter cursor older has_found=Memo::new(move |_| found.with(|found| !found.is_empty())) came_back/>
                // Made by the server. Kept while it is loaded again.
                <div inner_html=move || found.get()></div>
            }})}
        </Transition>
    }
}

/// The rows of the loaded page and of further pages.
#[component]
fn Rows(
    list: Resource<Result<SessionList, ApiError>>,
    filter: Memo<Filter>,
    cursor: Memo<Option<String>>,
    older: Memo<Option<String>>,
    /// Whether a search has found something in texts.
    has_found: Memo<bool>,
    /// Whether the rows and the place of the last visit are wanted back.
    came_back: bool,
) -> impl IntoView {
    let feed = Feed::expect();
    let actions = Actions::new();
    let kept = expect_context::<KeptListing>();
    // Further pages, which the browser adds. Without JavaScript the link opens them as separate pages.
    let more = RwSignal::new(Vec::<(String, SessionList)>::new());
    let listing = Memo::new(move |before: Option<&Listing>| {
        let mut listing = match list.get() {
            Some(Ok(list)) => match before {
                Some(before) => Listing::refreshed(Some(before), list),
                None => kept.listing.with_value(|kept| Listing::refreshed(Some(kept), list)),
            },
            _ => before.cloned().unwrap_or_default(),
        };
        more.with(|more| {
            for (address, page) in more {
                if address == listing.address() && listing.next_cursor().is_some() {
                    listing.extend(page.clone());
                }
            }
        });
        listing
    });
    effect(move || kept.listing.set_value(listing.get()));
    keep_place(kept, came_back);
    let announce = use_announcer();
    let load_more = Action::new(|(address, filter, cursor): &(String, Filter, String)| {
        let (address, filter, cursor) = (address.clone(), filter.clone(), cursor.clone());
        async move { load(filter, Some(cursor), None).await.map(|page| (address, page)) }
    });
    effect(move || {
        if let Some(Ok((address, page))) = load_more.value().get() {
            // The filter may have changed since the request.
            if listing.with_untracked(|listing| listing.address() == address) {
                announce(format!("{} more", text::count(page.sessions.len(), "session")));
            }
            more.update(|more| more.push((address, page)));
        }
    });
    let more_error = move || load_more.value().get().and_then(Result::err);
    // A loaded title or status may be newer than the one that a row shows.
    effect(move || {
        if let Some(Ok(list)) = list.get() {
            for row in list.active.into_iter().chain(list.sessions) {
                feed.loaded_title(row.session.id, row.session.title.as_str());
                if feed.view(row.session.id).is_some() {
                    feed.status(row.session.status);
                }
            }
        }
    });

    let deletions = Deletions::expect();
    let is_there = move |id| !feed.is_deleted(id) && !deletions.hides(id);
    let selection = Selection::default();
    let rows = Memo::new(move |_| {
        listing.with(|listing| listing.rows().filter(|row| is_there(row.session.id)).cloned().collect::<Vec<_>>())
    });
    // Whoever can't see that the list has changed hears what it has now.
    let told = StoredValue::new(None::<(String, Option<String>)>);
    effect(move || {
        let Some(Ok(list)) = list.get() else { return };
        let now = (list.address, older.get_untracked());
        if told.try_update_value(|told| told.replace(now.clone())).flatten().is_some_and(|before| before != now) {
            let more = listing.with_untracked(|listing| listing.next_cursor().is_some());
            announce(words::listed(rows.with_untracked(Vec::len), more, list.found_lines, list.found_more));
        }
    });
    // What is under way stands above the list, which isn't empty then.
    let uploads = Uploads::expect();
    let under_way = move || {
        filter.with(|filter| filter.query.is_empty() && filter.conditions() == 0)
            && (uploads.queue.with(|queue| queue.has_unfinished()) || !uploads.unfinished.with(Vec::is_empty))
    };
    let has_rows = Memo::new(move |_| rows.with(|rows| !rows.is_empty()));
    // Until the rows are watched, their sessions count as they were loaded.
    let watched = Trigger::new();
    effect(move || {
        for row in rows.get() {
            feed.watch(View::new(row.session.status));
        }
        watched.notify();
    });
    let work = Memo::new(move |_| {
        watched.track();
        let (mut running, mut waiting, mut arrivals) = (0, 0, Vec::new());
        let mut count = |status: &Status| {
            match status.state {
                State::Processing => running += 1,
                State::Queued => waiting += 1,
                _ => return,
            }
            arrivals.push(status.estimated_completion);
        };
        for row in rows.get() {
            match feed.view(row.session.id) {
                Some(view) => view.with(|view| count(&view.status)),
                None => count(&row.session.status),
            }
        }
        // Unknown if it is for one of them.
        let last = arrivals.into_iter().collect::<Option<Vec<_>>>().and_then(|arrivals| arrivals.into_iter().max());
        (running, waiting, last)
    });
    let running = Memo::new(move |_| work.with(|(running, waiting, _)| running + waiting > 0));
    let clock = Clock::expect();
    let work_words = Memo::new(move |_| {
        let (running, waiting, last) = work.get();
        let left = last.and_then(|last| clock.now().map(|now| last.seconds_since(dom::to_server_time(now))));
        words::work(running, waiting, left)
    });
    let next = move || listing.with(|listing| listing.next_cursor().map(str::to_owned));
    let load_behind = move |cursor: String| {
        let address = listing.with_untracked(|listing| listing.address().to_owned());
        load_more.dispatch((address, filter.get_untracked(), cursor));
    };
    let on_more = move |event: ev::MouseEvent, cursor: String| {
        if event.button() == 0 && !(event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key()) {
            event.prevent_default();
            load_behind(cursor);
        }
    };
    // Whoever deletes all that is shown gets what comes next.
    effect(move || {
        let is_shown = filter.with(|filter| cursor.with(|cursor| address(filter, cursor.as_deref())));
        let is_shown = listing.with(|listing| listing.address() == is_shown);
        if let Some(cursor) = next().filter(|_| is_shown && !has_rows.get() && !load_more.pending().get_untracked()) {
            load_behind(cursor);
        }
    });

    view! {
        <ActionAlert actions/>
        <Reload
            running
            address=Signal::derive(move || filter.with(|filter| cursor.with(|cursor| address(filter, cursor.as_deref()))))
        />
        <Show when=move || cursor.with(Option::is_some)>
            <p><A href=move || filter.with(|filter| address(filter, None))>"Back to the first page"</A></p>
        </Show>
        // The element keeps its space, so that nothing moves when the text appears.
        <Show when=move || has_rows.get()>
            <div class="list-connection">
                <span class="work" data-testid="work" inner_html=move || work_words.get()></span>
                <Show when=move || feed.mode.get() != Mode::Off><Connection/></Show>
            </div>
        </Show>
        <Show when=move || has_rows.get()><SelectionBar selection rows actions/></Show>
        <ul class="rows" data-testid="rows">
            <For each=move || rows.get() key=|row| row.session.id let(row)>
                {
                    let id = row.session.id;
                    // The text may begin while the row is shown.
                    let beginning = Memo::new(move |_| rows.with(|rows| {
                        let row = rows.iter().find(|row| row.session.id == id);
                        row.map(|row| row.beginning.clone()).unwrap_or_default()
                    }));
                    view! { <SessionRow session=row.session beginning selection actions/> }
                }
            </For>
        </ul>
        <Show when=move || matches!(list.get(), Some(Ok(_))) && !has_rows.get() && next().is_none() && !under_way()>
            <Empty filter has_found/>
        </Show>
        {move || next().map(|cursor| {
            let href = filter.with(|filter| address(filter, Some(&cursor)));
            view! {
                <p class="more">
                    <a class="button" href=href data-testid="load-more" on:click=move |event| on_more(event, cursor.clone())>
                        <span inner_html=move || if load_more.pending().get() { "Loading" } else { "Load more" }></span>
                    </a>
                </p>
            }
        })}
        {move || more_error().map(|error| view! { <Alert message=error.message/> })}
    }
}

/// Keeps how far the page is scrolled, and scrolls there again if somebody comes back.
fn keep_place(kept: KeptListing, came_back: bool) {
    let place = kept.scrolled.get_value();
    effect(move || {
        if came_back && place > 0.0 {
            // The rows aren't in the document yet.
            request_animation_frame(move || list::scroll_to(place));
        }
        let scrolling = window_event_listener(ev::scroll, move |_| kept.scrolled.set_value(list::scrolled()));
        on_cleanup(move || scrolling.remove());
    });
}

/// Shown instead of an empty list.
#[component]
fn Empty(filter: Memo<Filter>, has_found: Memo<bool>) -> impl IntoView {
    let query = Memo::new(move |_| filter.with(|filter| filter.query.clone()));
    let filtered = Memo::new(move |_| filter.with(|filter| filter.conditions() > 0));
    let searched = Memo::new(move |_| !query.with(String::is_empty));
    // What was found in texts stands below and says more.
    let quiet = Memo::new(move |_| searched.get() && has_found.get());
    let heading = move || if filtered.get() { "Nothing fits" } else { "Nothing found" };
    view! {
        <Show when=move || quiet.get()>
            // `bdi` ends any direction marks in the typed text.
            <p class="muted" data-testid="no-title">"No title has “"<bdi inner_html=move || live_text(query.get())></bdi>"”."</p>
        </Show>
        <section class="empty" data-testid="empty" hidden=move || quiet.get()>
            <svg class="empty-art" viewBox="0 0 120 40" aria-hidden="true" focusable="false">
                <path d="M4 20h8M20 14v12M30 6v28M40 12v16M50 3v34M60 16v8M70 9v22M80 14v12M90 17v6M104 20h12"></path>
            </svg>
            <Show when=move || searched.get() || filtered.get()>
                <h2 inner_html=heading></h2>
                <p hidden=move || !searched.get()>
                    "No title and no text has “" <bdi inner_html=move || live_text(query.get())></bdi> "”."
                </p>
                <p hidden=move || !filtered.get()>"The filters may leave out what you look for."</p>
                <p class="empty-actions"><A href="/" attr:class="button">"Show all sessions"</A></p>
            </Show>
            <Show when=move || !searched.get() && !filtered.get()>
                <h2>"Nothing transcribed yet"</h2>
                <p>"Upload a recording and watch it turn into text, line by line. Or see it work on a sample first."</p>
                <div class="empty-actions">
                    <A href="/upload" attr:class="button primary"><Icon symbol=Symbol::Upload/>"Upload a recording"</A>
                    <TrySampleButton/>
                </div>
            </Show>
        </section>
    }
}
