//! The form that transcribes a recording anew with another audio track, or with its channels heard in another way. It works
//! without JavaScript, and asks before it replaces a transcript.

use super::{Icon, Symbol};
use crate::{
    api::sessions::TranscribeAgain,
    app::{
        actions::{Actions, keep_focus},
        effect,
    },
    model::{Channels, Session, Status, Track},
};
use leptos::{form::ActionForm, prelude::*};

/// The form; nothing for a recording that leaves no choice.
#[component]
pub fn AnotherChoice(actions: Actions, session: Memo<Session>, status: Memo<Status>) -> impl IntoView {
    let id = session.with_untracked(|s| s.id);
    let again = ServerAction::<TranscribeAgain>::new();
    effect(move || {
        if let Some(answer) = again.value().get() {
            actions.changed(id, answer);
        }
    });
    // Only what the form shows, so that nothing else makes it anew while somebody uses it.
    let chosen = Memo::new(move |_| {
        session.with(|s| {
            let own = s.is_own() && s.media.bytes > 0;
            own.then_some((s.media.tracks, s.media.channels == 2, s.track, s.channels))
        })
    });
    let form = move || {
        let (tracks, stereo, track, heard) = chosen.get()?;
        (tracks > 1 || stereo).then(|| {
            let selects_track = (tracks > 1).then(|| {
                let all = (1..=tracks).map(Track::Number).chain([Track::Mix]);
                let options = all.map(|choice| {
                    view! { <option value=choice.to_string() selected=track == Some(choice)>{choice.label()}</option> }
                });
                view! {
                    <p class="field">
                        <label for="again-track">"Audio track"</label>
                        <select class="input" id="again-track" name="track" data-testid="again-track">
                            {track.is_none().then(|| view! { <option value="" selected=true>"As now"</option> })}
                            {options.collect_view()}
                        </select>
                    </p>
                }
            });
            let selects_channels = stereo.then(|| {
                let options = Channels::ALL.map(|choice| {
                    view! {
                        <option value=choice.as_str() selected=choice == heard>{choice.label()}</option>
                    }
                });
                view! {
                    <p class="field">
                        <label for="again-channels">"Channels"</label>
                        <select class="input" id="again-channels" name="channels" data-testid="again-channels">
                            {options.into_iter().collect_view()}
                        </select>
                    </p>
                }
            });
            let replaces = Memo::new(move |_| status.with(|s| s.lines() > 0));
            view! {
                <details class="confirm another" data-testid="another-choice">
                    <summary class="button quiet" data-testid="again">
                        <Icon symbol=Symbol::Retry/>
                        <span>{if tracks > 1 { "Choose another track" } else { "Choose other channels" }}</span>
                    </summary>
                    <ActionForm action=again>
                        <input type="hidden" name="id" value=id.to_string()/>
                        {selects_track}
                        {selects_channels}
                        <p inner_html=move || if replaces.get() {
                            "The recording is transcribed anew. The lines that are here now will be gone for good."
                        } else {
                            "The recording is transcribed anew."
                        }></p>
                        <button
                            class="button"
                            class:danger=move || replaces.get()
                            data-testid="confirm-again"
                            disabled=again.pending()
                            on:click=move |_| keep_focus(id)
                            inner_html=move || if replaces.get() { "Replace the transcript" } else { "Start again" }
                        ></button>
                    </ActionForm>
                </details>
            }
        })
    };
    view! { {form} }
}
