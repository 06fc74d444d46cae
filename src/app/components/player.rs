//! The player of the recording. It reports its position, so that the transcript can mark the line that is played.

use crate::{feed::browser::dom, model::SessionId};
use leptos::{html, prelude::*};

/// The player.
#[component]
pub fn Player(
    id: SessionId,
    /// Set to the element. The lines of the transcript use it to seek.
    audio: NodeRef<html::Audio>,
    /// Called with the position in seconds while the recording plays and after a seek; none before.
    on_position: Callback<Option<f64>>,
) -> impl IntoView {
    let report = move || on_position.run(dom::playback_position(audio));
    view! {
        <audio
            class="player"
            controls
            preload="metadata"
            src=format!("/api/v1/sessions/{id}/audio")
            aria-label="Recording"
            data-testid="player"
            node_ref=audio
            on:timeupdate=move |_| report()
            on:seeked=move |_| report()
        ></audio>
    }
}
