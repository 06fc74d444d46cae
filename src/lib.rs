//! Hark turns recordings into text and shows every step while it happens.
//!
//! | module | holds | may use |
//! | --- | --- | --- |
//! | [`model`] | what both sides share: types of the wire, their arithmetic, transcript formats | nothing here |
//! | [`feed`] | live status in the browser: the link, the reducer, the adapters | `model` |
//! | [`app`] | the pages and their components | `feed`, `api`, `model` |
//! | [`api`] | server functions, called by pages | `model`, the seam in `feed`; its bodies also `server` |
//! | `server` | store, media, audio, speech, jobs, streams, the JSON API | `model`; `router` also `app` |
//!
//! Invariants: `model` does no I/O. SQL only under `server::store`. `web_sys` only under `feed::browser`.
//! `cfg(feature)` only on module lines, on derives in `model`, in [`hydrate`] and at the seam in `feed`. Every change
//! of a status is one call of the store that also returns the event to publish. A page never knows which transport is
//! live, a route never knows which database, a worker never knows who watches.

#![recursion_limit = "256"]

// `cargo fuzz` sets flags of its own, and renders no page.
#[cfg(all(any(feature = "ssr", feature = "hydrate"), not(erase_components), not(fuzzing)))]
compile_error!(
    "Hark is built with `--cfg erase_components`, the server and the browser's half alike: otherwise a page renders \
     differently on the two sides, and a browser loads half as much again. .cargo/config.toml sets it; the variable \
     RUSTFLAGS replaces what is set there, so it must contain it as well."
);

pub mod api;
pub mod app;
pub mod feed;
pub mod model;
#[cfg(feature = "ssr")]
pub mod server;

/// Wakes the server-rendered page up in the browser.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    console_error_panic_hook::set_once();
    // Back and forward, while the page slept, may have led to one that it isn't.
    if feed::browser::dom::is_of_its_address() {
        leptos::mount::hydrate_body(app::App);
    } else {
        feed::browser::dom::reload();
    }
}
