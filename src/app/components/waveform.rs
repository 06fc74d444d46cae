//! The shape of a recording, filled as far as it has been transcribed. A click plays from there; the player beside it
//! does the same for the keyboard.

use crate::{
    api::sessions::get_waveform,
    feed::browser::dom,
    model::{SessionId, Stage, Status, text::decimal},
};
use leptos::{html, prelude::*, task::spawn_local};

/// Bars drawn: few enough to be told apart on a phone.
const BARS: usize = 160;
/// Height of the drawing; that of the loudest bar.
const HEIGHT: f64 = 100.0;
/// Height of silence, so that it still is a line.
const LEAST: f64 = 4.0;

/// One path with a bar for each part of the recording. Quiet recordings are drawn as high as loud ones.
fn path(peaks: &[u8]) -> String {
    let loudest = f64::from(peaks.iter().copied().max().unwrap_or(0).max(1));
    let bars = BARS.min(peaks.len());
    (0..bars)
        .map(|bar| {
            let part = &peaks[bar * peaks.len() / bars..(bar + 1) * peaks.len() / bars];
            let peak = f64::from(part.iter().copied().max().unwrap_or(0)) / loudest;
            let height = (peak * HEIGHT).max(LEAST);
            format!("M{bar} {}v{}", decimal((HEIGHT - height) / 2.0, 0), decimal(height, 0))
        })
        .collect()
}

/// The part of the recording that has been transcribed, in percent.
fn filled(status: &Status) -> f64 {
    let total = status.duration_total.filter(|total| *total > 0.0);
    total.map_or(0.0, |total| (status.duration_processed / total * 100.0).clamp(0.0, 100.0))
}

/// The shape.
#[component]
pub fn Waveform(
    id: SessionId,
    status: Memo<Status>,
    /// What was known when the page was loaded; see [`get_waveform`].
    peaks: Vec<u8>,
    /// Told from where to play, in seconds.
    on_play: Callback<f64>,
) -> impl IntoView {
    // The whole recording has been decoded before most of it has been transcribed: asked for then, and once more with
    // every tenth of the way until there is one. Not by a resource of its own, which would be read while hydrating.
    let missing = peaks.is_empty();
    let shape = RwSignal::new(peaks);
    let fetch = move || async move {
        if let Ok(peaks) = get_waveform(id).await
            && !peaks.is_empty()
        {
            // The page may have been left meanwhile.
            shape.try_set(peaks);
        }
    };
    Effect::new(move |before: Option<_>| {
        let now =
            status.with(|s| (s.state.is_terminal(), s.stage >= Some(Stage::Transcribing), (filled(s) / 10.0) as u32));
        let news = before.map_or(missing, |before| before != now);
        if news && shape.with_untracked(Vec::is_empty) {
            spawn_local(fetch());
        }
        now
    });
    let frame = NodeRef::<html::Div>::new();
    let play = move |at: f64| {
        if let Some(total) = status.with_untracked(|s| s.duration_total) {
            on_play.run(at * total);
        }
    };
    view! {
        <div
            class="waveform"
            node_ref=frame
            aria-hidden="true"
            data-testid="waveform"
            // A recording that couldn't be decoded has no shape, and won't get one.
            hidden=move || status.with(|s| s.state.is_terminal()) && shape.with(Vec::is_empty)
            style=("--filled", move || decimal(status.with(filled), 2) + "%")
            on:click=move |event| {
                if let Some(at) = dom::position_in(frame, event.client_x()) {
                    play(at);
                }
            }
        >
            {move || shape.with(|peaks| (!peaks.is_empty()).then(|| {
                let bars = BARS.min(peaks.len());
                let shape = path(peaks);
                view! {
                    <svg viewBox=format!("-1 0 {} {}", bars + 1, decimal(HEIGHT, 0)) preserveAspectRatio="none" focusable="false">
                        <path class="wave-ahead" d=shape.clone()></path>
                        <path class="wave-done" d=shape></path>
                    </svg>
                }
            }))}
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_part_as_high_as_its_loudest() {
        assert_eq!(path(&[0, 255]), "M0 48v4M1 0v100");
        assert_eq!(path(&[]), "");
        // Quiet, and more peaks than bars.
        let quiet: Vec<u8> = (0..1000).map(|n| if n == 999 { 10 } else { 5 }).collect();
        let drawn = path(&quiet);
        assert_eq!(drawn.matches('M').count(), BARS);
        assert!(drawn.starts_with("M0 25v50") && drawn.ends_with("M159 0v100"), "{drawn}");
    }
}
