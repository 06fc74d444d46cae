//! The player: the waveform with the position, buttons, and keys. The browser's own player is underneath; without JavaScript,
//! and until the page is hydrated, it is shown with its own controls. The parts have names in `data-part`, by which
//! `feed::player` tells what they do and show: two listeners and one effect for all of them are much less code to load.

use super::{Symbol, Waveform};
use crate::{
    app::{
        detours::live_text,
        effect,
        playback::{PlayerControl, Source, copy_address},
    },
    feed::{
        browser::player,
        player::{KEYS, SPEEDS, shown},
    },
    model::{
        Media, SessionId, Status,
        playback::{CopyForm, kind, plays},
        text,
    },
};
use leptos::{ev, html, prelude::*};

/// The containers that may hold a picture.
const WITH_PICTURE: [&str; 3] = ["mp4", "webm", "mkv"];
/// The events of the element that plays after which the player shows something else. They don't bubble.
const MEDIA_EVENTS: [&str; 10] = [
    "timeupdate",
    "seeking",
    "play",
    "pause",
    "ended",
    "error",
    "loadedmetadata",
    "durationchange",
    "ratechange",
    "volumechange",
];
/// The events of keys and controls.
const CONTROL_EVENTS: [&str; 5] = ["keydown", "click", "input", "change", "pointerup"];

/// The browser's own player, as HTML. Its parts never change, and what is written here is safe in HTML.
fn element(id: SessionId, media: &Media) -> String {
    const ALL: &str = "class=\"media\" data-part=\"media\" aria-label=\"Recording\" controls";
    let name = player::MEDIA;
    let src = format!("/api/v1/sessions/{id}/audio");
    if !plays(media) {
        // Without JavaScript the browser asks for the copy itself, and waits for it.
        let sources = CopyForm::ALL
            .map(|form| format!("<source src=\"{}\" type=\"{}\">", copy_address(id, form), form.media_type()));
        return format!("<audio id=\"{name}\" {ALL} preload=\"none\">{}</audio>", sources.concat());
    }
    if WITH_PICTURE.contains(&&*media.format) {
        let unknown = if media.format == "mp4" { "" } else { " data-unknown" };
        return format!("<video id=\"{name}\" {ALL} preload=\"metadata\" src=\"{src}\" playsinline{unknown}></video>");
    }
    format!("<audio id=\"{name}\" {ALL} preload=\"metadata\" src=\"{src}\"></audio>")
}

/// The controls, as HTML: they never change, and a view has a type for each attribute, all of which would be code to load.
fn controls(length: Option<f64>, with_picture: bool) -> String {
    let button = |part: &str, label: &str, title: &str, content: &str| {
        let look = if part == "play" { "" } else { "quiet" };
        format!(
            "<button class=\"button {look} {part}\" type=\"button\" data-part=\"{part}\" data-testid=\"{part}\" \
             aria-label=\"{label}\" title=\"{title}\">{content}</button>"
        )
    };
    let icons = |symbols: &[Symbol]| symbols.iter().map(|symbol| symbol.svg()).collect::<String>();
    let play = button("play", "Play", "Play or pause (space, K)", &icons(&[Symbol::Play, Symbol::Pause]));
    let back = button("back", "5 seconds back", "5 seconds back (left arrow)", "−5");
    let on = button("on", "5 seconds on", "5 seconds on (right arrow)", "+5");
    let mute = button("mute", "Mute", "Sound off or on (M)", &icons(&[Symbol::Sound, Symbol::NoSound]));
    let screen = if with_picture {
        button("full-screen", "Full screen", "Full screen", &icons(&[Symbol::Screen]))
    } else {
        String::new()
    };
    let time = length.map(|length| format!("0:00 / {}", text::length(length))).unwrap_or_default();
    let speeds: String = SPEEDS.iter().map(|(_, name)| format!("<option value=\"{name}\">{name}x</option>")).collect();
    let keys = KEYS.iter().map(|(keys, what)| format!("<div><dt>{}</dt><dd>{what}</dd></div>", live_text(keys)));
    let (keys, keyboard) = (keys.collect::<String>(), Symbol::Keyboard.svg());
    format!(
        "<div class=\"player-bar\">{play}{back}{on}\
         <span class=\"player-time\" data-part=\"time\" data-testid=\"player-time\" translate=\"no\">{time}</span>\
         <select class=\"input player-speed\" data-part=\"speed\" data-testid=\"speed\" aria-label=\"Speed\" \
         title=\"Speed (&lt; and &gt;)\">{speeds}</select>{mute}\
         <input class=\"player-volume\" type=\"range\" min=\"0\" max=\"1\" step=\"0.05\" value=\"1\" data-part=\"volume\" \
         data-testid=\"volume\" aria-label=\"Volume\">{screen}\
         <details class=\"keys\">\
         <summary class=\"button quiet\" aria-label=\"Keys\" title=\"Keys\" data-testid=\"keys\">{keyboard}</summary>\
         <div class=\"keys-list\" data-testid=\"keys-list\"><dl>{keys}</dl>\
         <label><input type=\"checkbox\" data-part=\"use-keys\" data-testid=\"use-keys\">Use single keys on this device</label>\
         </div></details></div>"
    )
}

/// What people should know of what they hear, as HTML.
fn note(id: SessionId, said: &str) -> String {
    let hidden = if said.is_empty() { "hidden" } else { "" };
    let said = live_text(said);
    format!(
        "<p class=\"player-note\" data-part=\"note\" data-testid=\"player-note\" {hidden}>\
         <span role=\"status\" data-part=\"said\">{said}</span> \
         <span data-part=\"percent\" data-testid=\"copy-percent\" translate=\"no\"></span> \
         <a href=\"/api/v1/sessions/{id}/audio\" rel=\"external\" download>Download the recording</a></p>"
    )
}

/// The player.
#[component]
pub fn Player(
    control: PlayerControl,
    status: Memo<Status>,
    media: Media,
    /// The waveform when the page was loaded.
    peaks: Vec<u8>,
) -> impl IntoView {
    let id = control.id;
    let recording = NodeRef::<html::Div>::new();
    // Whether the parts are in the document, where they are found by their names. On a page that was loaded they are; on one
    // that was reached within the app they come after the effects.
    let there = RwSignal::new(false);
    effect(move || {
        let _ = recording.get();
        player::once_in_document(recording, move || {
            untrack(|| control.begin());
            there.set(true);
        });
    });
    effect(move || {
        player::listen(&MEDIA_EVENTS, true, move |_| control.report());
        player::listen(&CONTROL_EVENTS, false, move |event: ev::Event| {
            let keys = control.state.with_untracked(|player| player.keys);
            let command = player::command_of(&event, untrack(|| control.length(status)), keys);
            if let Some(command) = command {
                control.perform(command);
            }
        });
        on_cleanup(|| player::mark_player(false));
    });
    let with_picture = WITH_PICTURE.contains(&&*media.format);
    let kind = kind(&media);
    let said = control.state.with_untracked(|player| player.source.note(&kind, with_picture));
    let mut before = Vec::new();
    effect(move || {
        if !there.get() {
            return;
        }
        let length = control.length(status);
        let (mut parts, source) = control.state.with(|player| (shown(&player.now, length), player.source.clone()));
        let said = source.note(&kind, with_picture);
        let percent = match source {
            Source::Making(Some(percent)) => text::percentage(percent),
            _ => String::new(),
        };
        parts.push(("note", "hidden", said.is_empty().then(String::new)));
        parts.push(("said", "textContent", Some(said)));
        parts.push(("percent", "textContent", Some(percent)));
        player::show(&before, &parts);
        before = parts;
    });
    let length_shown = status.with_untracked(|s| s.duration_total);
    view! {
        <div class="recording" data-part="recording" data-native="" node_ref=recording>
            <div class="as-is" inner_html=element(id, &media)></div>
            <div class="player" role="group" aria-label="Player" data-testid="player">
                <div class="as-is" inner_html=controls(length_shown, with_picture) + &note(id, &said)></div>
                <Waveform control status peaks/>
            </div>
        </div>
    }
}
