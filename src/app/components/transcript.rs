//! The lines of a transcript, live. Each begins with a button that shows its time. A click on a line or on one of its words
//! plays the recording from there. The list follows what is played, or the newest line (`feed::follow`).

use super::{Icon, Symbol};
use crate::{
    app::{effect, playback::PlayerControl},
    feed::{
        browser::{dom, player},
        follow::{Aim, Event, Follow},
        reduce::View,
    },
    model::{Segment, clock, speaker_label, text},
};
use leptos::{either::Either, ev, html, prelude::*, task::spawn_local};

/// How many lines before a position are looked at: those of two speakers may overlap.
const OVERLAPPING: usize = 8;
/// The id of the element that scrolls.
const LINES: &str = "transcript";
/// What tells that the reader scrolls, or moves the focus.
const EVENTS: [&str; 6] = ["scroll", "wheel", "touchmove", "pointerdown", "keydown", "focusin"];

/// The line at a position of the recording, if there is one, counted from the transcript's first.
#[must_use]
pub fn line_at(segments: &[Segment], seconds: f64) -> Option<u32> {
    let after = segments.partition_point(|s| s.start <= seconds);
    let line = (0..after).rev().take(OVERLAPPING).find(|line| segments.get(*line).is_some_and(|s| seconds < s.end))?;
    u32::try_from(line).ok()
}

/// A line's text, in which the words that the engine isn't sure of are marked.
fn marked(text: &str, unsure: &[u16]) -> AnyView {
    if unsure.is_empty() {
        return text.to_owned().into_any();
    }
    let words = (0..).zip(text.split_whitespace()).map(|(position, word)| {
        let space = if position > 0 { " " } else { "" };
        if unsure.contains(&position) {
            let word =
                view! { <span class="unsure" title="The engine isn't sure of this word">{word.to_owned()}</span> };
            Either::Left((space, word))
        } else {
            Either::Right(format!("{space}{word}"))
        }
    });
    words.collect_view().into_any()
}

/// The lines.
#[component]
pub fn TranscriptLines(
    view: ArcRwSignal<View>,
    /// Whether more lines may come.
    running: Memo<bool>,
    /// The player; none if there is no recording.
    control: Option<PlayerControl>,
    /// Set to the element that scrolls.
    list: NodeRef<html::Div>,
    /// The line that is shown at first, counted from the transcript's first.
    start_line: Option<u32>,
) -> impl IntoView {
    let view = ArcStoredValue::new(view);
    let count = Memo::new({
        let view = view.get_value();
        move |_| view.with(|v| v.segments.len())
    });
    // The number of the first line: that of a transcript which replaces another one is higher, so that no line is taken
    // for one of the other.
    let first_line = Memo::new({
        let view = view.get_value();
        move |_| view.with(View::first)
    });
    let playback = move || control.map(PlayerControl::now).unwrap_or_default();
    let current = Memo::new({
        let view = view.get_value();
        move |_| {
            count.track();
            let line = playback().position.and_then(|at| view.with_untracked(|v| line_at(&v.segments, at)));
            line.map_or(Aim::Nothing, Aim::Line)
        }
    });

    // Marked through the DOM: otherwise each of thousands of lines would have to watch the position.
    effect(move || player::mark_line(list, current.get()));
    let aim = Memo::new(move |before: Option<&Aim>| {
        let playing = playback().playing;
        match (current.get(), running.get()) {
            (line @ Aim::Line(_), running) if playing || !running => line,
            // Between two lines.
            (Aim::Nothing, _) if playing => before.copied().unwrap_or_default(),
            (_, true) => Aim::End,
            (_, false) => before.copied().filter(|aim| *aim != Aim::End).unwrap_or_default(),
        }
    });
    let follow = RwSignal::new(Follow::default());
    let happened = move |event| {
        let scroll = follow.try_update(|follow| follow.on(event)).flatten();
        if scroll.is_some_and(|aim| player::scroll_to(list, aim)) {
            follow.update(|follow| {
                follow.on(Event::Begun);
            });
        }
    };
    effect(move || {
        if list.get().is_none() {
            return;
        }
        // A list that has just been made isn't in the document yet.
        request_animation_frame(move || {
            if player::show_line(list, start_line) {
                follow.update(|follow| {
                    follow.on(Event::Begun);
                });
            }
        });
    });
    let scrolled = move || {
        let sees = player::sees(list, aim.get_untracked());
        happened(Event::Scrolled { sees });
    };
    let mut before = None;
    effect(move || {
        let (chosen, asked) = control.map(|c| c.state.with(|player| (player.chosen, player.asked))).unwrap_or_default();
        let now = (aim.get(), chosen, asked);
        let (aim_before, chosen_before, asked_before) = before.replace(now).unwrap_or((Aim::Nothing, chosen, asked));
        if aim_before != now.0 {
            happened(Event::Aim(now.0));
            if now.0 == Aim::End {
                scrolled();
            }
        }
        if chosen_before != chosen {
            happened(Event::Chosen);
        }
        if asked_before != asked {
            happened(Event::Asked);
        }
    });
    // In an effect of its own: Leptos doesn't run one again that reads `aim`, too, which is computed from the same memo.
    effect(move || happened(Event::Lines(count.get())));
    effect(move || {
        let _ = list.get();
        player::prepare_list(list);
    });
    // Lines that fit into the list are scrolled with the page.
    effect(move || {
        player::listen(&EVENTS, true, move |event: ev::Event| {
            let within = player::rove(list, &event);
            match &*event.type_() {
                "scroll" => scrolled(),
                "wheel" | "touchmove" => happened(Event::Touched),
                "keydown" | "pointerdown" if within => happened(Event::Touched),
                _ => {}
            }
        });
    });
    // What the button says that brings the reader back; empty if the reader hasn't left.
    let left = Memo::new(move |_| {
        follow.with(|follow| match (follow.left(), follow.new_lines()) {
            (Aim::Nothing, _) => String::new(),
            (Aim::End, 0) => "Follow live".to_owned(),
            (Aim::End, lines) => format!("Follow live · {}", text::count(lines, "new line")),
            (Aim::Line(_), _) => "Follow the recording".to_owned(),
        })
    });

    let play = {
        let view = view.get_value();
        // Counts the clicks, so that an answer to an earlier one changes nothing.
        let clicks = StoredValue::new(0_u32);
        move |event: ev::MouseEvent| {
            let (Some(control), Some(clicked)) = (control, player::clicked(&event)) else { return };
            let line = view.with_untracked(|v| v.segments.get(clicked.line).map(|line| (line.index, line.start)));
            let Some((index, start)) = line else { return };
            clicks.update_value(|n| *n += 1);
            let click = clicks.get_value();
            if clicked.word == 0 {
                return control.play_from(start);
            }
            spawn_local(async move {
                let starts = player::word_starts(control.id, index).await;
                if clicks.try_get_value() == Some(click) {
                    control.play_from(starts.get(clicked.word).copied().unwrap_or(start));
                }
            });
        }
    };
    let line = move |number: u32| {
        let index = number.saturating_sub(first_line.get_untracked()) as usize;
        let segment = view
            .get_value()
            .with_untracked(|v| v.segments.get(index).map(|s| (s.start, s.text.clone(), s.unsure.clone(), s.speaker)));
        let anchor = format!("line-{number}");
        segment.map(|(start, text, unsure, speaker)| {
            // Apart, so that the direction of the line is that of its text.
            let speaker = speaker.map(
                |speaker| view! { <bdi class="speaker" data-testid="speaker">{speaker_label(speaker)}":"</bdi>" " },
            );
            view! {
                <li class="line" id=anchor data-testid="segment">
                    <button
                        class="line-time"
                        type="button"
                        data-testid="segment-time"
                        // One stop for all lines; `player::rove` moves it.
                        tabindex=if index == 0 { "0" } else { "-1" }
                        aria-label=format!("Play from {}", clock(start))
                    >{clock(start)}</button>
                    <p dir="auto">{speaker}{marked(&text, &unsure)}</p>
                </li>
            }
        })
    };

    view! {
        <div class="transcript-frame" hidden=move || count.get() == 0 && !running.get()>
            <div
                class="transcript"
                id=LINES
                role="group"
                aria-label="Lines"
                tabindex="0"
                data-testid="transcript"
                node_ref=list
            >
                // One listener for all lines.
                <ol class="lines" class:playable=control.is_some() on:click=play>
                    <For each=move || (first_line.get()..).take(count.get()) key=|number| *number children=line/>
                </ol>
                <Show when=move || running.get()>
                    <p class="listening"><span class="listening-dots" aria-hidden="true"></span>
                        <span inner_html=move || if count.get() == 0 { "Lines will appear here as they are heard" } else { "More to come" }></span>
                    </p>
                </Show>
            </div>
            <Show when=move || !left.with(String::is_empty)>
                <div class="follow-place">
                    <button class="button follow" type="button" data-testid="follow" on:click=move |_| {
                        // The button is about to go.
                        dom::focus(LINES);
                        happened(Event::Asked);
                    }>
                        <Icon symbol=Symbol::Down/>
                        <span inner_html=move || left.get()></span>
                    </button>
                </div>
            </Show>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_at_finds_the_line_of_a_position() {
        let piece = |index, start, end| Segment::new(index, start, end, "");
        let segments = [piece(0, 1.0, 2.0), piece(1, 2.0, 4.0), piece(2, 6.0, 7.0)];
        let lines = [0.5, 1.0, 2.0, 3.9, 5.0, 6.5, 9.0].map(|at| line_at(&segments, at));
        assert_eq!(lines, [None, Some(0), Some(1), Some(1), None, Some(2), None]);
        assert_eq!(line_at(&[], 1.0), None);
        // The numbers of a transcript that replaces another one don't begin at 0, and lines of two speakers overlap.
        let segments = [piece(7, 1.0, 9.0), piece(8, 2.0, 3.0)];
        assert_eq!([1.5, 2.5, 5.0].map(|at| line_at(&segments, at)), [Some(0), Some(1), Some(0)]);
    }
}
