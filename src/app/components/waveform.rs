//! The waveform of a recording, filled up to what has been transcribed, with the position of the player. An invisible slider
//! on top of it moves the position, by pointer, by keys and by what screen readers do to sliders.

use crate::{
    api::sessions::get_waveform,
    app::playback::PlayerControl,
    feed::browser::player,
    model::{Stage, Status, text::decimal},
};
use leptos::{prelude::*, task::spawn_local};

/// The number of bars: few enough to be distinguishable on a phone.
const BARS: usize = 160;
/// The height of the drawing and of the loudest bar.
const HEIGHT: f64 = 100.0;
/// The height of a silent bar, so that it is still visible.
const MIN_HEIGHT: f64 = 4.0;

/// What is over the waveform. What it shows and does is decided by `feed::player`, by the names of the parts.
const OVERLAY: &str = "<span class=\"wave-head\" data-part=\"head\" hidden></span>\
    <input class=\"wave-range\" type=\"range\" min=\"0\" max=\"0\" step=\"any\" value=\"0\" aria-label=\"Position\" \
    data-part=\"position\" data-testid=\"position\"><span class=\"wave-focus\"></span>\
    <span class=\"wave-pointer\" aria-hidden=\"true\" data-part=\"pointer\" data-testid=\"pointer-time\" translate=\"no\"></span>";

/// An SVG path with a bar for each part of the recording. The loudest bar has the full height, even in a quiet recording.
fn path(peaks: &[u8]) -> String {
    let loudest = f64::from(peaks.iter().copied().max().unwrap_or(0).max(1));
    let bars = BARS.min(peaks.len());
    (0..bars)
        .map(|bar| {
            let part = &peaks[bar * peaks.len() / bars..(bar + 1) * peaks.len() / bars];
            let peak = f64::from(part.iter().copied().max().unwrap_or(0)) / loudest;
            let height = (peak * HEIGHT).max(MIN_HEIGHT);
            format!("M{bar} {}v{}", decimal((HEIGHT - height) / 2.0, 0), decimal(height, 0))
        })
        .collect()
}

/// The part of the recording that has been transcribed, in percent.
fn filled(status: &Status) -> f64 {
    let total = status.duration_total.filter(|total| *total > 0.0);
    total.map_or(0.0, |total| (status.duration_processed / total * 100.0).clamp(0.0, 100.0))
}

/// The waveform.
#[component]
pub fn Waveform(
    control: PlayerControl,
    status: Memo<Status>,
    /// The waveform when the page was loaded; see [`get_waveform`].
    peaks: Vec<u8>,
) -> impl IntoView {
    // The recording is completely decoded before most of it is transcribed. So the waveform is fetched when transcribing
    // begins, and again after each tenth of the recording until it is there. A resource would be read during hydration.
    let missing = peaks.is_empty();
    let shape = RwSignal::new(peaks);
    let fetch = move || async move {
        if let Ok(peaks) = get_waveform(control.id).await
            && !peaks.is_empty()
        {
            // The page may have been left since the request.
            shape.try_set(peaks);
        }
    };
    Effect::new(move |before: Option<_>| {
        let now =
            status.with(|s| (s.state.is_terminal(), s.stage >= Some(Stage::Transcribing), (filled(s) / 10.0) as u32));
        let due = before.map_or(missing, |before| before != now);
        if due && shape.with_untracked(Vec::is_empty) {
            spawn_local(fetch());
        }
        now
    });
    view! {
        <div
            class="waveform"
            data-part="wave"
            data-testid="waveform"
            // A recording that couldn't be decoded has no waveform, and won't get one.
            hidden=move || status.with(|s| s.state.is_terminal()) && shape.with(Vec::is_empty)
            style=("--filled", move || decimal(status.with(filled), 2) + "%")
            on:mousemove=move |event| player::point(&event, untrack(|| control.length(status)))
        >
            {move || shape.with(|peaks| (!peaks.is_empty()).then(|| {
                let bars = BARS.min(peaks.len());
                let shape = path(peaks);
                view! {
                    <svg viewBox=format!("-1 0 {} {}", bars + 1, decimal(HEIGHT, 0)) preserveAspectRatio="none" aria-hidden="true" focusable="false">
                        <path class="wave-ahead" d=shape.clone()></path>
                        <path class="wave-done" d=shape></path>
                    </svg>
                }
            }))}
            <div class="as-is" inner_html=OVERLAY></div>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_is_as_high_as_its_loudest_sample() {
        assert_eq!(path(&[0, 255]), "M0 48v4M1 0v100");
        assert_eq!(path(&[]), "");
        // A quiet recording with more peaks than bars.
        let quiet: Vec<u8> = (0..1000).map(|n| if n == 999 { 10 } else { 5 }).collect();
        let drawn = path(&quiet);
        assert_eq!(drawn.matches('M').count(), BARS);
        assert!(drawn.starts_with("M0 25v50") && drawn.ends_with("M159 0v100"), "{drawn}");
    }
}
