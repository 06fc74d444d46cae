//! The lines of a transcript, live. Each begins with a button that shows its time and plays the recording from there.
//! The list scrolls to a new line only while the reader is at the end.

use super::{Icon, Symbol};
use crate::{
    feed::{browser::dom, reduce::View},
    model::{Segment, clock, speaker_label, text},
};
use leptos::{either::Either, html, prelude::*};

/// How many lines before a position are looked at: those of two speakers may overlap.
const OVERLAPPING: usize = 8;

/// The line at a position of the recording, if there is one, counted from the transcript's first.
fn line_at(segments: &[Segment], seconds: f64) -> Option<u32> {
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
    /// The position of the recording while it plays, in seconds.
    position: Signal<Option<f64>>,
    /// Called with the position to play from, in seconds.
    on_play: Callback<f64>,
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
    let current = Memo::new({
        let view = view.get_value();
        move |_| {
            count.track();
            position.get().and_then(|at| view.with_untracked(|v| line_at(&v.segments, at)))
        }
    });

    let list = NodeRef::<html::Div>::new();
    // Marked through the DOM: otherwise each of thousands of lines would have to watch the position.
    Effect::new(move || dom::mark_line(list, current.get()));
    let follows = RwSignal::new(true);
    // The number of lines when the reader was last at the end.
    let seen = RwSignal::new(0);
    Effect::new(move || {
        if follows.get() {
            seen.set(count.get());
        }
    });
    let new_lines = Memo::new(move |_| count.get().saturating_sub(seen.get()));
    let mut first = true;
    Effect::new(move || {
        count.track();
        // A page that has just been opened shows the first lines; it scrolls only when more lines come.
        let wanted = follows.get_untracked() && running.get_untracked();
        if wanted && !std::mem::take(&mut first) {
            dom::scroll_to_end(list);
        }
    });

    let line = move |number: u32| {
        let index = number.saturating_sub(first_line.get_untracked()) as usize;
        let segment = view
            .get_value()
            .with_untracked(|v| v.segments.get(index).map(|s| (s.start, s.text.clone(), s.unsure.clone(), s.speaker)));
        segment.map(|(start, text, unsure, speaker)| {
            let speaker = speaker.map(
                |speaker| view! { <span class="speaker" data-testid="speaker">{speaker_label(speaker)}":"</span>" " },
            );
            view! {
                <li class="line" data-testid="segment">
                    <button
                        class="line-time"
                        type="button"
                        data-testid="segment-time"
                        aria-label=format!("Play from {}", clock(start))
                        on:click=move |_| on_play.run(start)
                    >{clock(start)}</button>
                    <p>{speaker}{marked(&text, &unsure)}</p>
                </li>
            }
        })
    };

    view! {
        <div class="transcript-frame" hidden=move || count.get() == 0 && !running.get()>
            <div
                class="transcript"
                role="group"
                aria-label="Lines"
                tabindex="0"
                data-testid="transcript"
                node_ref=list
                on:scroll=move |_| follows.set(dom::is_at_end(list))
            >
                <ol class="lines">
                    <For each=move || (first_line.get()..).take(count.get()) key=|number| *number children=line/>
                </ol>
                <Show when=move || running.get()>
                    <p class="listening"><span class="listening-dots" aria-hidden="true"></span>
                        {move || if count.get() == 0 { "Lines will appear here as they are heard" } else { "More to come" }}
                    </p>
                </Show>
            </div>
            <Show when=move || running.get() && !follows.get()>
                <button class="button follow" type="button" data-testid="follow" on:click=move |_| {
                    follows.set(true);
                    dom::scroll_to_end(list);
                }>
                    <Icon symbol=Symbol::Down/>
                    "Follow live"
                    {move || (new_lines.get() > 0).then(|| format!(" · {}", text::count(new_lines.get(), "new line")))}
                </button>
            </Show>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_at_finds_the_line_of_a_position() {
        let piece = |index, start, end| Segment {
            index,
            start,
            end,
            text: String::new(),
            confidence: None,
            words: Vec::new(),
            unsure: Vec::new(),
            speaker: None,
        };
        let segments = [piece(0, 1.0, 2.0), piece(1, 2.0, 4.0), piece(2, 6.0, 7.0)];
        let lines = [0.5, 1.0, 2.0, 3.9, 5.0, 6.5, 9.0].map(|at| line_at(&segments, at));
        assert_eq!(lines, [None, Some(0), Some(1), Some(1), None, Some(2), None]);
        assert_eq!(line_at(&[], 1.0), None);
        // The numbers of a transcript that replaces another one don't begin at 0, and lines of two speakers overlap.
        let segments = [piece(7, 1.0, 9.0), piece(8, 2.0, 3.0)];
        assert_eq!([1.5, 2.5, 5.0].map(|at| line_at(&segments, at)), [Some(0), Some(1), Some(0)]);
    }
}
