//! The administrators' pages. They are Leptos views that only the server renders: nothing of them is in what a browser loads
//! for the app, and they work without JavaScript. A small script in the page (`live.js`) keeps them up to date. Called by
//! `server::http::admin`, whose handlers load the data.

pub mod access;
pub mod charts;
pub mod nodes;
pub mod overview;
pub mod page;
pub mod savings;
pub mod scale;
pub mod sessions;
