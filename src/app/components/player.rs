//! The recording, to be listened to. Tells where it stands, so that the transcript can follow.

use crate::{feed::browser::dom, model::SessionId};
use leptos::{html, prelude::*};

/// The player.
#[component]
pub fn Player(
    id: SessionId,
    /// Filled with the element, through which lines of the transcript seek.
    audio: NodeRef<html::Audio>,
    /// Told the position in seconds while it plays and when it is moved; none before.
    on_position: Callback<Option<f64>>,
) -> impl IntoView {
    let tell = move || on_position.run(dom::playback_position(audio));
    view! {
        <audio
            class="player"
            controls
            preload="metadata"
            src=format!("/api/v1/sessions/{id}/audio")
            aria-label="Recording"
            data-testid="player"
            node_ref=audio
            on:timeupdate=move |_| tell()
            on:seeked=move |_| tell()
        ></audio>
    }
}
