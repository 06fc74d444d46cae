//! The player of a recording: what a page shows of it, and what keys and controls do to it. Pure; called by the player's
//! component, whose commands `browser::player` performs.

use crate::model::text::{clock, decimal, length as length_text, spoken};

/// What the element that plays is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playback {
    /// The position in seconds; none before it was played or sought.
    pub position: Option<f64>,
    /// The length in seconds, once the browser knows it.
    pub length: Option<f64>,
    pub playing: bool,
    /// The speed as a factor.
    pub speed: f64,
    /// 0 to 1.
    pub volume: f64,
    pub muted: bool,
    /// Whether there is a picture.
    pub picture: bool,
    /// Whether the browser has found that it can't play the source.
    pub unplayable: bool,
}

impl Default for Playback {
    fn default() -> Self {
        Self {
            position: None,
            length: None,
            playing: false,
            speed: 1.0,
            volume: 1.0,
            muted: false,
            picture: false,
            unplayable: false,
        }
    }
}

/// What of a transcript was clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clicked {
    /// The line, counted from the first.
    pub line: usize,
    /// The word, counted from the line's first where white space divides words, if the click was on the text.
    pub word: usize,
}

/// The speeds that can be chosen, and how they are written: code that writes and reads any number is 20 kB to load.
pub const SPEEDS: [(f64, &str); 9] = [
    (0.5, "0.5"),
    (0.75, "0.75"),
    (1.0, "1"),
    (1.25, "1.25"),
    (1.5, "1.5"),
    (1.75, "1.75"),
    (2.0, "2"),
    (2.5, "2.5"),
    (3.0, "3"),
];
/// Seconds by which the buttons and the arrow keys move the position.
pub const STEP: f64 = 5.0;
/// Seconds by which J and L move it.
pub const SKIP_SECS: f64 = 10.0;
/// Seconds by which the keys for a page move it.
const PAGE: f64 = 60.0;
/// Lines by which the keys for a page move the focus: about those that are in view.
const LINES_PAGE: usize = 10;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// Play or pause.
    Toggle,
    /// Move the position by so many seconds.
    Skip(f64),
    Faster,
    Slower,
    Mute,
    /// Bring the transcript back to the line that is played.
    Follow,
    /// Close the list of keys, or pause.
    Close,
    /// Move to a position, in seconds.
    Seek(f64),
    /// Play from a position, in seconds.
    PlayFrom(f64),
    Speed(f64),
    Volume(f64),
    /// Show the picture on the whole screen.
    FullScreen,
    /// Let keys control the player, or no longer.
    UseKeys(bool),
}

/// The keys and what they do, for people.
pub const KEYS: [(&str, &str); 8] = [
    ("Space, K", "play or pause"),
    ("← →", "5 seconds back or on"),
    ("J, L", "10 seconds back or on"),
    ("<, >", "slower, faster"),
    ("M", "sound off or on"),
    ("F", "follow the text"),
    ("Esc", "close this list, or pause"),
    ("↑ ↓", "in the lines, from time to time; Enter plays"),
];

/// What has the focus when a key is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// An element that takes text, or has keys of its own.
    Input,
    /// A button or a link, which is pressed by space.
    Control,
    /// The slider on the waveform.
    Slider,
    Elsewhere,
}

/// What a key does, if it does anything: the keys of inputs, buttons and links stay theirs. `position` and `length` in seconds.
#[must_use]
pub fn key_command(key: &str, focus: Focus, position: f64, length: f64) -> Option<Command> {
    if focus == Focus::Input {
        return None;
    }
    if focus == Focus::Slider
        && let Some(to) = slide(key, position, length)
    {
        return Some(Command::Seek(to));
    }
    Some(match key {
        " " if focus != Focus::Control => Command::Toggle,
        "k" | "K" => Command::Toggle,
        "ArrowLeft" => Command::Skip(-STEP),
        "ArrowRight" => Command::Skip(STEP),
        "j" | "J" => Command::Skip(-SKIP_SECS),
        "l" | "L" => Command::Skip(SKIP_SECS),
        "<" => Command::Slower,
        ">" => Command::Faster,
        "m" | "M" => Command::Mute,
        "f" | "F" => Command::Follow,
        "Escape" => Command::Close,
        _ => return None,
    })
}

/// The position that a key on the slider leads to. These are the keys that sliders have.
fn slide(key: &str, position: f64, length: f64) -> Option<f64> {
    let to = match key {
        "ArrowLeft" | "ArrowDown" => position - STEP,
        "ArrowRight" | "ArrowUp" => position + STEP,
        "PageDown" => position - PAGE,
        "PageUp" => position + PAGE,
        "Home" => 0.0,
        "End" => length,
        _ => return None,
    };
    Some(to.clamp(0.0, length.max(0.0)))
}

/// What an event of one of the player's controls does. `number`: what the control holds; of a list, the number of what is
/// chosen, and of a box, 1 if it is checked.
#[must_use]
pub fn control_command(event: &str, control: &str, number: f64) -> Option<Command> {
    Some(match (event, control) {
        ("click", "play" | "media") => Command::Toggle,
        ("click", "back") => Command::Skip(-STEP),
        ("click", "on") => Command::Skip(STEP),
        ("click", "mute") => Command::Mute,
        ("click", "full-screen") => Command::FullScreen,
        ("input", "volume") => Command::Volume(number),
        ("input", "position") => Command::Seek(number),
        // Also where the slider stands already, for which there is no other event.
        ("pointerup", "position") => Command::PlayFrom(number),
        ("change", "speed") => Command::Speed(SPEEDS.get(number as usize)?.0),
        ("change", "use-keys") => Command::UseKeys(number > 0.0),
        _ => return None,
    })
}

/// A change of a part of the page: the part, an attribute, property or style of it, and the value; none to remove it.
pub type Shown = (&'static str, &'static str, Option<String>);

/// What the parts of the player show. `length` of the recording in seconds, if it is known.
#[must_use]
pub fn shown(now: &Playback, length: Option<f64>) -> Vec<Shown> {
    let at = now.position.unwrap_or(0.0);
    let total = length.unwrap_or(0.0);
    let share = if total > 0.0 { (at / total * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let of = |at: String, between: &str, write: fn(f64) -> String| match length {
        Some(length) => at + between + &write(length),
        None => at,
    };
    let flag = |on: bool| on.then(String::new);
    let silent = now.muted || now.volume == 0.0;
    let volume = if now.muted { 0.0 } else { now.volume };
    vec![
        ("recording", "data-native", None),
        ("recording", "data-playing", flag(now.playing)),
        ("recording", "data-picture", flag(now.picture)),
        ("media", "controls", None),
        ("play", "aria-label", Some(if now.playing { "Pause" } else { "Play" }.to_owned())),
        ("time", "textContent", Some(of(clock(at), " / ", length_text))),
        ("speed", "value", Some(speed_name(now.speed).to_owned())),
        ("mute", "aria-pressed", Some(if silent { "true" } else { "false" }.to_owned())),
        ("volume", "value", Some(decimal(volume, 2))),
        ("head", "hidden", flag(now.position.is_none())),
        ("head", "--at", Some(decimal(share, 3) + "%")),
        // Before the value, which is kept within it.
        ("position", "max", Some(decimal(total, 3))),
        ("position", "value", Some(decimal(at, 3))),
        ("position", "aria-valuetext", Some(of(spoken(at), " of ", |length| spoken(length.round())))),
    ]
}

/// The line to which a key moves the focus from that with number `at`, of so many lines.
#[must_use]
pub fn line_after(key: &str, at: usize, lines: usize) -> Option<usize> {
    let to = match key {
        "ArrowUp" => at.saturating_sub(1),
        "ArrowDown" => at + 1,
        "PageUp" => at.saturating_sub(LINES_PAGE),
        "PageDown" => at + LINES_PAGE,
        "Home" => 0,
        "End" => lines,
        _ => return None,
    };
    Some(to.min(lines.saturating_sub(1)))
}

/// The next speed above the given one, or below it.
#[must_use]
pub fn next_speed(speed: f64, faster: bool) -> f64 {
    let next = if faster {
        SPEEDS.iter().find(|(other, _)| *other > speed)
    } else {
        SPEEDS.iter().rev().find(|(other, _)| *other < speed)
    };
    next.map_or(speed, |(other, _)| *other)
}

/// A speed as it is written; empty for one that can't be chosen.
#[must_use]
pub fn speed_name(speed: f64) -> &'static str {
    SPEEDS.iter().find(|(other, _)| (*other - speed).abs() < 0.01).map_or("", |(_, name)| name)
}

/// The speed that is written so.
#[must_use]
pub fn speed_named(name: &str) -> Option<f64> {
    SPEEDS.iter().find(|(_, other)| *other == name).map(|(speed, _)| *speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_inputs_buttons_and_links_stay_theirs() {
        use Focus::{Control, Elsewhere, Input, Slider};
        for (key, focus, wanted) in [
            (" ", Elsewhere, Some(Command::Toggle)),
            (" ", Control, None),
            ("k", Control, Some(Command::Toggle)),
            ("k", Input, None),
            ("Escape", Input, None),
            ("ArrowLeft", Elsewhere, Some(Command::Skip(-5.0))),
            ("ArrowRight", Control, Some(Command::Skip(5.0))),
            ("J", Elsewhere, Some(Command::Skip(-10.0))),
            ("l", Elsewhere, Some(Command::Skip(10.0))),
            // These scroll the page.
            ("ArrowDown", Elsewhere, None),
            ("PageDown", Elsewhere, None),
            ("Enter", Elsewhere, None),
            ("Tab", Control, None),
            ("ArrowUp", Slider, Some(Command::Seek(25.0))),
            (" ", Slider, Some(Command::Toggle)),
            ("j", Slider, Some(Command::Skip(-10.0))),
        ] {
            assert_eq!(key_command(key, focus, 20.0, 60.0), wanted, "{key} {focus:?}");
        }
    }

    #[test]
    fn the_slider_stays_within_the_recording() {
        assert_eq!(slide("ArrowLeft", 3.0, 60.0), Some(0.0));
        assert_eq!(slide("ArrowUp", 58.0, 60.0), Some(60.0));
        assert_eq!(slide("PageDown", 100.0, 300.0), Some(40.0));
        assert_eq!((slide("Home", 9.0, 60.0), slide("End", 9.0, 60.0)), (Some(0.0), Some(60.0)));
        assert_eq!(slide("k", 9.0, 60.0), None);
    }

    #[test]
    fn controls_do_what_they_say() {
        for (event, control, number, wanted) in [
            ("click", "back", 0.0, Some(Command::Skip(-5.0))),
            ("click", "media", 0.0, Some(Command::Toggle)),
            ("change", "speed", 7.0, Some(Command::Speed(2.5))),
            ("change", "speed", -1.0, Some(Command::Speed(0.5))),
            ("change", "speed", 99.0, None),
            ("change", "use-keys", 0.0, Some(Command::UseKeys(false))),
            ("input", "position", 3.5, Some(Command::Seek(3.5))),
            ("pointerup", "position", 3.5, Some(Command::PlayFrom(3.5))),
            // The value counts, and not the click on it.
            ("click", "speed", 0.0, None),
            ("click", "volume", 0.5, None),
        ] {
            assert_eq!(control_command(event, control, number), wanted, "{event} {control} {number}");
        }
    }

    #[test]
    fn the_parts_show_what_plays() {
        let value = |shown: &[Shown], part: &str, name: &str| {
            shown.iter().find(|(p, n, _)| (*p, *n) == (part, name)).and_then(|(_, _, value)| value.clone())
        };
        let before = shown(&Playback::default(), None);
        assert_eq!(value(&before, "time", "textContent").as_deref(), Some("0:00"));
        assert_eq!(value(&before, "head", "hidden").as_deref(), Some(""));
        assert_eq!(value(&before, "play", "aria-label").as_deref(), Some("Play"));
        let now = Playback { position: Some(15.0), playing: true, muted: true, speed: 1.5, ..Playback::default() };
        // Rounded, as it is told elsewhere on the page.
        let now = shown(&now, Some(59.6));
        for (part, name, wanted) in [
            ("time", "textContent", Some("0:15 / 1:00")),
            ("play", "aria-label", Some("Pause")),
            ("head", "hidden", None),
            ("head", "--at", Some("25.168%")),
            ("position", "aria-valuetext", Some("15 seconds of 1 minute")),
            ("mute", "aria-pressed", Some("true")),
            ("volume", "value", Some("0.00")),
            ("speed", "value", Some("1.5")),
        ] {
            assert_eq!(value(&now, part, name).as_deref(), wanted, "{part} {name}");
        }
    }

    #[test]
    fn the_focus_stays_within_the_lines() {
        let to = ["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", "Tab"].map(|key| line_after(key, 3, 8));
        assert_eq!(to, [Some(2), Some(4), Some(0), Some(7), Some(0), Some(7), None]);
        assert_eq!([line_after("ArrowUp", 0, 1), line_after("End", 0, 0)], [Some(0), Some(0)]);
    }

    #[test]
    fn speeds_end_at_the_fastest_and_the_slowest() {
        assert_eq!((next_speed(1.0, true), next_speed(1.0, false)), (1.25, 0.75));
        assert_eq!((next_speed(3.0, true), next_speed(0.5, false)), (3.0, 0.5));
        // A speed that the browser's own menu has set.
        assert_eq!((next_speed(1.1, true), next_speed(1.1, false)), (1.25, 1.0));
        assert_eq!((speed_name(2.5), speed_name(1.1)), ("2.5", ""));
        for (speed, name) in SPEEDS {
            assert_eq!((speed_named(speed_name(speed)), name.parse()), (Some(speed), Ok(speed)));
        }
        assert_eq!(speed_named("fast"), None);
    }
}
