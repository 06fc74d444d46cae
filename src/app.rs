//! The document, the router and what all pages share. Rendered on the server, hydrated in the browser.
//! The pages are in `pages`, their parts in `components`; the other modules are shared by both.

pub mod actions;
mod clock;
pub mod components;
mod deletions;
pub mod detours;
mod listing;
pub mod pages;
pub mod playback;
pub mod uploads;
mod words;

use crate::{
    api::provide_failed_form,
    feed::{Feed, browser::dom},
    model::{Timestamp, page::AppFiles},
};
use components::{Announcer, DropTarget, Footer, Header, UndoNotice, provide_announcer, use_announcer};
use detours::{SiteTitle, StartScripts};
use leptos::{nonce::use_nonce, prelude::*};
use leptos_meta::{MetaTags, provide_meta_context};
use leptos_router::{
    SsrMode,
    components::{FlatRoutes, Route, Router},
    hooks::use_location,
    path,
};
use pages::{IdentityPage, ModelsPage, NotFoundPage, OpenPage, SessionPage, SessionsPage, UploadPage};

/// The id of the element that contains the page.
const MAIN: &str = "main";

/// The script for browsers that run scripts but not the app: the browser has no WebAssembly, the app's files can't be loaded,
/// or the app has crashed. A page that wasn't hydrated then works as without JavaScript, and says so: the content of its
/// `<noscript>` elements is put into the page. A hydrated page is loaded again, once. Both happen 3 s after an error, which is the
/// interval at which pages without JavaScript reload, or after 60 s if no error was reported.
///
/// The script also stores the address that the page was rendered for in `data-address`; notices what translators and extensions
/// do to the page before the app starts, which then renders the page anew; and puts the comments back that they remove afterwards.
const FALLBACK: &str = include_str!("app/fallback.js");

/// The colours of the dark theme, in the head so that no page is light first.
const DARK: &str = include_str!("../style/dark.css");

/// The script that applies the chosen theme before the first paint.
const THEME: &str = include_str!("app/theme.js");

/// Starts the service worker (public/service-worker.js), once the page has loaded what it needs itself.
const INSTALL: &str =
    "addEventListener(\"load\", () => navigator.serviceWorker?.register(\"/service-worker.js\").catch(() => {}))";

/// The timeouts of the pages' connection that differ from the defaults: see [`crate::feed::link::Timing`]. The server provides
/// them; tests make them short.
#[derive(Clone, Debug)]
pub struct LinkTiming(pub String);

/// When the page is rendered, by the server's clock. The browser estimates that clock from it, to measure the delays of
/// updates. The server provides it.
#[derive(Clone, Copy, Debug)]
pub struct RenderedAt(pub Timestamp);

/// The token that the page sends with its streams, polls and reports, and whether its browser is assigned to polling. The
/// server provides it.
#[derive(Clone, Debug)]
pub struct PageToken {
    pub token: String,
    pub polls: bool,
}

/// The document around the app. The server provides [`AppFiles`] and what else it names.
pub fn shell(options: LeptosOptions) -> impl IntoView {
    let files: AppFiles = expect_context();
    let timing = use_context::<LinkTiming>().map(|timing| view! { <meta name="hark-link" content=timing.0/> });
    let time = use_context::<RenderedAt>().map(|at| view! { <meta name="hark-time" content=at.0.0.to_string()/> });
    let page = use_context::<PageToken>().map(|page| {
        view! {
            <meta name="hark-page" content=page.token/>
            {page.polls.then(|| view! { <meta name="hark-streams" content="off"/> })}
        }
    });
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <meta name="theme-color" data-only="light" media="(prefers-color-scheme: light)" content="#f7f6f3"/>
                <meta name="theme-color" data-only="dark" media="(prefers-color-scheme: dark)" content="#16181b"/>
                <style nonce=use_nonce() data-only="dark" media="(prefers-color-scheme: dark)">{DARK}</style>
                <script nonce=use_nonce()>{THEME}</script>
                <meta name="description" content="Turns recordings into text and shows every step while it happens."/>
                {timing}
                {time}
                {page}
                <link rel="icon" href="/favicon.svg" type="image/svg+xml"/>
                <link rel="apple-touch-icon" href="/icon-maskable-512.png"/>
                // With cookies, which a proxy that asks for a login wants to see.
                <link rel="manifest" href="/manifest.webmanifest" crossorigin="use-credentials"/>
                <link rel="stylesheet" id="style" href=files.style.clone()/>
                <AutoReload options/>
                <StartScripts files/>
                <script nonce=use_nonce()>{FALLBACK}</script>
                <script nonce=use_nonce()>{INSTALL}</script>
                <MetaTags/>
            </head>
            <body><App/></body>
        </html>
    }
}

/// The app: a header, and the page of the URL.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    provide_failed_form();
    Feed::provide();
    clock::Clock::provide();
    provide_announcer();
    uploads::Uploads::provide(use_announcer());
    listing::KeptListing::provide();
    deletions::Deletions::provide(use_announcer());
    // Effects run after hydration.
    effect(dom::mark_hydrated);
    view! {
        <SiteTitle/>
        <Router>
            <a class="skip" href="#main" rel="external">"Skip to the content"</a>
            <Announcer/>
            <Header/>
            <main id=MAIN tabindex="-1">
                <UndoNotice/>
                // The server waits for a page's data, so that it is complete without JavaScript and has the right HTTP status.
                <FlatRoutes fallback=NotFoundPage>
                    <Route path=path!("/") view=SessionsPage ssr=SsrMode::Async/>
                    <Route path=path!("/upload") view=UploadPage ssr=SsrMode::Async/>
                    <Route path=path!("/sessions/:id") view=SessionPage ssr=SsrMode::Async/>
                    <Route path=path!("/models") view=ModelsPage ssr=SsrMode::Async/>
                    <Route path=path!("/identity") view=IdentityPage ssr=SsrMode::Async/>
                    <Route path=path!("/identity/open") view=OpenPage ssr=SsrMode::Async/>
                </FlatRoutes>
            </main>
            <Footer/>
            <DropTarget/>
            <FocusOnNavigation/>
        </Router>
    }
}

/// Calls `run` once the page is hydrated, and again whenever a signal changes that it read. Leptos compiles `Effect::new` anew for
/// each closure, a kilobyte of code; this is compiled once for all that don't need what they returned before.
pub(crate) fn effect(run: impl FnMut() + 'static) {
    effect_of(Box::new(run));
}

fn effect_of(run: Box<dyn FnMut()>) {
    Effect::new(run);
}

/// Moves the focus to the new page, as a browser does when it loads one.
#[component]
fn FocusOnNavigation() -> impl IntoView {
    let path = use_location().pathname;
    Effect::new(move |before: Option<String>| {
        let path = path.get();
        if before.is_some_and(|before| before != path) {
            dom::focus(MAIN);
        }
        path
    });
}
