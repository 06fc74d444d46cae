//! Stands in for `feed/browser/player.rs` on the server, while it renders: its functions do nothing.

use crate::{
    feed::{
        follow::Aim,
        player::{Clicked, Command, Playback, Shown},
    },
    model::SessionId,
};
use leptos::{ev::Event, html, prelude::NodeRef};

/// The id of the element that plays.
pub const MEDIA: &str = "recording";

/// Nothing plays.
#[must_use]
pub fn playback() -> Playback {
    Playback::default()
}

/// Does nothing.
pub fn play(_on: bool) {}

/// Does nothing.
pub fn seek(_seconds: f64) {}

/// Does nothing.
pub fn set_speed(_speed: f64) {}

/// None: the browser keeps it.
#[must_use]
pub fn kept_speed() -> Option<f64> {
    None
}

/// Does nothing.
pub fn set_volume(_volume: f64) {}

/// Does nothing.
pub fn load(_source: &str) {}

/// False: there is no browser.
#[must_use]
pub fn can_play(_media_type: &str) -> bool {
    false
}

/// Does nothing.
pub fn mute(_off: bool) {}

/// Does nothing.
pub fn full_screen() {}

/// True, as for somebody who hasn't switched them off.
#[must_use]
pub fn keys_on() -> bool {
    true
}

/// Does nothing.
pub fn keep_keys(_on: bool) {}

/// Does nothing: there is no document.
pub fn once_in_document(_element: NodeRef<html::Div>, _then: impl FnOnce() + 'static) {}

/// Does nothing.
pub fn mark_player(_shown: bool) {}

/// Does nothing.
pub fn show_keys(_on: bool) {}

/// Does nothing.
pub fn listen(_events: &'static [&'static str], _capture: bool, _handle: impl Fn(Event) + 'static) {}

/// None: nobody does anything.
#[must_use]
pub fn command_of(_event: &Event, _length: Option<f64>, _keys: bool) -> Option<Command> {
    None
}

/// Does nothing.
pub fn show(_before: &[Shown], _now: &[Shown]) {}

/// Does nothing.
pub fn point(_event: &Event, _length: Option<f64>) {}

/// False: it isn't open.
#[must_use]
pub fn close_keys() -> bool {
    false
}

/// None: nobody clicks.
#[must_use]
pub fn clicked(_event: &Event) -> Option<Clicked> {
    None
}

/// False: nobody does anything.
pub fn rove(_list: NodeRef<html::Div>, _event: &Event) -> bool {
    false
}

/// Does nothing.
pub fn prepare_list(_list: NodeRef<html::Div>) {}

/// None: nobody clicks.
pub async fn word_starts(_id: SessionId, _index: u32) -> Vec<f64> {
    Vec::new()
}

/// Does nothing.
pub fn mark_line(_list: NodeRef<html::Div>, _current: Aim) {}

/// True: nothing is scrolled.
#[must_use]
pub fn sees(_list: NodeRef<html::Div>, _aim: Aim) -> bool {
    true
}

/// False: nothing is scrolled.
#[must_use]
pub fn scroll_to(_list: NodeRef<html::Div>, _aim: Aim) -> bool {
    false
}

/// False: nothing is scrolled.
#[must_use]
pub fn show_line(_list: NodeRef<html::Div>, _number: Option<u32>) -> bool {
    false
}
