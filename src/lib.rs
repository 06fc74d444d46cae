//! Hark transcribes recordings and shows the progress live.
//!
//! | module | holds | may use |
//! | --- | --- | --- |
//! | [`model`] | the types of the wire, the calculations on them and the transcript formats, for both sides | no other module |
//! | [`feed`] | live status in the browser: the link, the reducer, the adapters | `model` |
//! | [`app`] | the pages and their components | `feed`, `api`, `model` |
//! | [`api`] | server functions, called by pages | `model`, `feed::browser`; their bodies also `server` |
//! | `dashboard` | the administrators' pages, rendered by the server only | `model` |
//! | `server` | store, media, audio, speech, jobs, streams, the JSON API | `model`, `dashboard`; `router` also `app` |
//!
//! Invariants: `model` does no I/O. SQL occurs only in `server::store`, `web_sys` only in `feed::browser`. `cfg(feature)`
//! occurs only on module declarations, on derives in `model`, in [`hydrate`], where `feed` chooses between `browser` and
//! `inert`, and where `server::page_files` chooses between a folder and the program's own files. Every change of a status is one call of the store, which also returns the event to publish. A page doesn't know
//! which transport is live, a route doesn't know which database is used, and a worker doesn't know who watches.

#![recursion_limit = "256"]

// `cargo fuzz` sets flags of its own and renders no pages.
#[cfg(all(any(feature = "ssr", feature = "hydrate"), not(erase_components), not(fuzzing)))]
compile_error!(
    "Hark must be built with `--cfg erase_components`, for the server and for the browser: otherwise the two sides render \
     pages differently, and a browser loads half as much again. .cargo/config.toml sets it. The variable RUSTFLAGS replaces \
     the flags of that file, so if it is set, it must contain this flag too."
);

pub mod api;
pub mod app;
#[cfg(feature = "ssr")]
pub mod dashboard;
pub mod feed;
pub mod model;
#[cfg(feature = "ssr")]
pub mod server;

/// Hydrates the server-rendered page in the browser, or renders it anew if something has changed its nodes.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    console_error_panic_hook::set_once();
    use feed::browser::dom::{self, Start};
    // Before hydration, back and forward may have changed the address without loading that page.
    if !dom::matches_its_address() {
        return dom::reload();
    }
    match dom::start() {
        Start::Hydrate => leptos::mount::hydrate_body(app::App),
        Start::Anew => {
            dom::clear_body();
            leptos::mount::mount_to_body(app::App);
        }
        Start::Stay => {}
    }
}
