//! The page that a link or recovery key opens. It says what opening will do to this browser, and does it only after a click.
//! Loading the page changes nothing.

use crate::{
    api::{
        failed_form,
        identity::{IDENTITY_PAGE, OpenIdentity, OpenInfo, Opens, load_open},
    },
    app::components::{Alert, LoadBoundary, retry_on_failure},
    model::text,
};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_meta::Title;
use leptos_router::{components::A, hooks::use_query_map};

/// The page.
#[component]
pub fn OpenPage() -> impl IntoView {
    let params = use_query_map();
    let key = move || params.with(|params| params.get_str("key").map(str::to_owned));
    let info = Resource::new(key, load_open);
    retry_on_failure(info);
    let failed = failed_form(&[OpenIdentity::PATH]);
    let has_failed = failed.is_some();
    view! {
        <Title text="Open your sessions here · Hark"/>
        <div class="page-head"><h1>"Open your sessions here"</h1></div>
        {failed.map(|error| view! { <Alert message=error.message/> })}
        <LoadBoundary on_retry=move |()| info.refetch()>
            {move || Suspend::new(async move { info.await.map(|info| view! { <Offer info has_failed/> }) })}
        </LoadBoundary>
    }
}

fn sessions(count: u64) -> String {
    text::count(usize::try_from(count).unwrap_or(usize::MAX), "session")
}

/// What the key opens, and what this browser has already.
#[component]
fn Offer(
    info: OpenInfo,
    /// Whether the page already shows an error for a key that opened nothing.
    has_failed: bool,
) -> impl IntoView {
    const INVALID: &str = "This link or key opens nothing. A link works once, within ten minutes; a recovery key, until it is \
        replaced. Make a new one where your sessions are.";
    let alert = (info.invalid && !has_failed).then(|| view! { <Alert message=INVALID/> });
    let (own, saved) = (info.own_sessions, info.own_recovery);
    let content = match info.opens {
        Some(Opens { same: true, .. }) => view! {
            <section class="card stack" data-testid="open-same">
                <h2>"They are open already"</h2>
                <p>"This link leads to the sessions that this browser has."</p>
                <p><A href="/" attr:class="button primary">"Show them"</A></p>
            </section>
        }
        .into_any(),
        Some(Opens { key, sessions: count, .. }) => view! {
            <section class="card stack" data-testid="open-confirm">
                <h2>{format!("Open {} in this browser?", sessions(count))}</h2>
                <p>"Only do so if you made this link yourself: what you send from here on will belong to whoever made it, too."</p>
                <OwnSessions own saved/>
                <form method="post" action=OpenIdentity::url()>
                    <input type="hidden" name="key" value=key/>
                    <button class="button primary" data-testid="open">"Open here"</button>
                </form>
            </section>
        }
        .into_any(),
        None => view! {
            <section class="card stack" data-testid="open-typed">
                <h2>"Type in a link or a recovery key"</h2>
                <OwnSessions own saved/>
                <form class="open-form" method="post" action=OpenIdentity::url()>
                    <p class="field">
                        <label for="key">"Link or key"</label>
                        <input class="input" id="key" name="key" required autocomplete="off" spellcheck="false" data-testid="open-key"/>
                    </p>
                    <button class="button primary" data-testid="open">"Open"</button>
                </form>
            </section>
        }
        .into_any(),
    };
    view! { {alert} {content} }
}

/// Says what happens to the sessions that this browser has already.
#[component]
fn OwnSessions(own: u64, saved: bool) -> impl IntoView {
    (own > 0).then(|| {
        let what = format!("This browser has {} of its own, which won't be seen here any more.", sessions(own));
        view! {
            <div class="alert" data-testid="open-left">
                <p>
                    {what} " "
                    {if saved { "Your recovery key for them brings them back." } else { "Keep a way back to them first: " }}
                    {(!saved).then(|| view! { <a href=IDENTITY_PAGE rel="external">"make a recovery key"</a>"." })}
                </p>
            </div>
        }
    })
}
