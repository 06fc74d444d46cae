//! The page with the list of sessions: newest first, searched with `?q=`, continued with `?cursor=`, live. What a search finds in
//! the texts stands below, continued with `?older=`.
//! Rows are keyed by id, so an update never moves the focus.

use crate::{
    api::sessions::list_sessions,
    app::{
        actions::Actions,
        components::{
            ActionAlert, Alert, Connection, Icon, ListSkeleton, LoadError, Reload, SessionRow, Symbol, TrySampleButton,
            UploadQueue, retry_on_failure, use_announcer,
        },
        detours::{PageTitle, live_text, once_loaded},
        effect,
        uploads::Uploads,
    },
    feed::{Feed, Mode},
    model::{ApiError, SessionPage, page::SessionList, text},
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

/// The address of the list with this search and cursor.
fn address(query: &str, cursor: Option<&str>) -> String {
    let part = |name: &str, value: &str| format!("{name}={}", text::percent_encode(value));
    let query = (!query.is_empty()).then(|| part("q", query));
    let parts: Vec<String> = query.into_iter().chain(cursor.map(|cursor| part("cursor", cursor))).collect();
    if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&")) }
}

/// Loads a page of the list.
async fn load(query: String, cursor: Option<String>, older: Option<String>) -> Result<SessionList, ApiError> {
    list_sessions(Some(query).filter(|query| !query.is_empty()), cursor, older).await
}

/// The page.
#[component]
pub fn SessionsPage() -> impl IntoView {
    let params = use_query_map();
    let query = Memo::new(move |_| params.with(|p| p.get_str("q").unwrap_or_default().trim().to_owned()));
    let cursor = Memo::new(move |_| params.with(|p| p.get_str("cursor").map(str::to_owned)));
    let older = Memo::new(move |_| params.with(|p| p.get_str("older").map(str::to_owned)));
    let title = Memo::new(move |_| {
        if query.with(String::is_empty) {
            "Sessions · Hark".to_owned()
        } else {
            format!("Search: {} · Hark", query.get())
        }
    });

    view! {
        <PageTitle text=title/>
        <div class="page-head">
            <h1>"Sessions"</h1>
            <Search query/>
            <A href="/upload" attr:class="button primary"><Icon symbol=Symbol::Upload/>"New transcription"</A>
        </div>
        <UploadQueue unfinished=true/>
        <List query cursor older/>
    }
}

/// The search field: a plain form, which also searches while one types once it is hydrated.
#[component]
fn Search(query: Memo<String>) -> impl IntoView {
    let typed = RwSignal::new(query.get_untracked());
    let searched = StoredValue::new(query.get_untracked());
    let navigate = use_navigate();
    let search = move || {
        let text = typed.get_untracked().trim().to_owned();
        if text != query.get_untracked() {
            searched.set_value(text.clone());
            navigate(
                &address(&text, None),
                NavigateOptions { replace: true, scroll: false, ..NavigateOptions::default() },
            );
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
        <form class="search" method="get" action="/" role="search" on:submit=move |event| {
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
fn List(query: Memo<String>, cursor: Memo<Option<String>>, older: Memo<Option<String>>) -> impl IntoView {
    let feed = Feed::expect();
    // Loaded again when a session appears that isn't in the list.
    let source = move || (query.get(), cursor.get(), older.get(), feed.unknown.get());
    let list = Resource::new(source, |(query, cursor, older, _)| load(query, cursor, older));
    retry_on_failure(list);
    view! {
        <Transition fallback=ListSkeleton>
            {once_loaded(list, move || {
                let found = Memo::new(move |before: Option<&String>| match list.get() {
                    Some(Ok(list)) => list.found,
                    _ => before.cloned().unwrap_or_default(),
                });
                view! {
                <ErrorBoundary fallback=move |errors| view! { <LoadError errors on_retry=move |()| list.refetch()/> }>
                    {move || list.get().map(|list| list.map(|_| ()))}
                </ErrorBoundary>
                <Rows list query cursor/>
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
    query: Memo<String>,
    cursor: Memo<Option<String>>,
) -> impl IntoView {
    let feed = Feed::expect();
    let actions = Actions::new();
    // The last page that was loaded without an error.
    let page = Memo::new(move |before: Option<&Option<SessionPage>>| match list.get() {
        Some(Ok(list)) => Some(list.page),
        _ => before.cloned().flatten(),
    });
    // Further pages, which the browser appends. Without JavaScript the link opens them as separate pages.
    let more = RwSignal::new(None::<SessionPage>);
    Effect::new(move |before: Option<()>| {
        query.track();
        cursor.track();
        if before.is_some() {
            more.set(None);
        }
    });
    let announce = use_announcer();
    let load_more = Action::new(|(query, cursor): &(String, String)| {
        let (query, cursor) = (query.clone(), cursor.clone());
        async move { load(query.clone(), Some(cursor), None).await.map(|list| (query, list.page)) }
    });
    effect(move || {
        let Some(Ok((searched, page))) = load_more.value().get() else { return };
        // The search may have changed since the request.
        if query.with_untracked(|query| *query == searched) {
            announce(format!("{} more", text::count(page.sessions.len(), "session")));
            more.update(|more| match more {
                Some(more) => {
                    more.sessions.extend(page.sessions);
                    more.next_cursor = page.next_cursor;
                }
                None => *more = Some(page),
            });
        }
    });
    let more_error = move || load_more.value().get().and_then(Result::err);
    // A loaded status may be newer than the one that a row shows.
    effect(move || {
        if let Some(page) = page.get() {
            for session in page.sessions {
                if feed.view(session.id).is_some() {
                    feed.status(session.status);
                }
            }
        }
    });

    let sessions = Memo::new(move |_| {
        let mut sessions = page.get().map(|page| page.sessions).unwrap_or_default();
        // A session made since moves the others down, so the next page repeats some of them.
        for session in more.get().map(|more| more.sessions).unwrap_or_default() {
            if sessions.iter().all(|known| known.id != session.id) {
                sessions.push(session);
            }
        }
        sessions.retain(|s| !feed.is_deleted(s.id));
        sessions
    });
    let running = Memo::new(move |_| sessions.with(|s| s.iter().any(|session| !session.status.state.is_terminal())));
    // What is under way stands above the list, which isn't empty then.
    let uploads = Uploads::expect().queue;
    let under_way = move || query.with(String::is_empty) && uploads.with(|queue| queue.has_unfinished());
    let next = move || more.get().or_else(|| page.get())?.next_cursor;
    let on_more = move |event: ev::MouseEvent, cursor: String| {
        if event.button() == 0 && !(event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key()) {
            event.prevent_default();
            load_more.dispatch((query.get_untracked(), cursor));
        }
    };

    view! {
        <ActionAlert actions/>
        <Reload
            running
            address=Signal::derive(move || query.with(|query| cursor.with(|cursor| address(query, cursor.as_deref()))))
        />
        <Show when=move || cursor.with(Option::is_some)>
            <p><A href=move || query.with(|q| address(q, None))>"Back to the newest"</A></p>
        </Show>
        // The element keeps its space, so that nothing moves when the text appears.
        <Show when=move || sessions.with(|s| !s.is_empty())>
            <div class="list-connection">
                <Show when=move || feed.mode.get() != Mode::Off><Connection/></Show>
            </div>
        </Show>
        <ul class="rows" data-testid="rows">
            <For each=move || sessions.get() key=|session| session.id let(session)>
                <SessionRow session actions/>
            </For>
        </ul>
        <Show when=move || page.with(Option::is_some) && sessions.with(Vec::is_empty) && !under_way()>
            <Empty query/>
        </Show>
        {move || next().map(|cursor| {
            let href = query.with(|q| address(q, Some(&cursor)));
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

/// Shown instead of an empty list.
#[component]
fn Empty(query: Memo<String>) -> impl IntoView {
    let searched = Memo::new(move |_| !query.with(String::is_empty));
    view! {
        <section class="empty" data-testid="empty">
            <svg class="empty-art" viewBox="0 0 120 40" aria-hidden="true" focusable="false">
                <path d="M4 20h8M20 14v12M30 6v28M40 12v16M50 3v34M60 16v8M70 9v22M80 14v12M90 17v6M104 20h12"></path>
            </svg>
            <Show when=move || searched.get()>
                <h2>"No title fits"</h2>
                // `bdi` ends any direction marks in the typed text.
                <p>"No session has “" <bdi inner_html=move || live_text(query.get())></bdi> "” in its title."</p>
                <p class="empty-actions"><A href="/" attr:class="button">"Show all sessions"</A></p>
            </Show>
            <Show when=move || !searched.get()>
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_contain_search_and_cursor() {
        assert_eq!(address("", None), "/");
        assert_eq!(address("a b&ü", None), "/?q=a%20b%26%C3%BC");
        assert_eq!(address("x", Some("1+/=")), "/?q=x&cursor=1%2B%2F%3D");
        assert_eq!(address("", Some("c")), "/?cursor=c");
    }
}
