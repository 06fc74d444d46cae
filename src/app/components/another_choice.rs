//! The form that transcribes a recording anew with another audio track, or with its channels heard in another way. It works
//! without JavaScript, and asks before it replaces a transcript.

use super::{Icon, Symbol};
use crate::{
    api::sessions::TranscribeAgain,
    app::{actions::Actions, effect},
    model::{Channels, Session, Status, Track},
};
use leptos::{form::ActionForm, prelude::*};

/// The form; nothing for a recording that leaves no choice.
#[component]
pub fn AnotherChoice(actions: Actions, session: Signal<Session>, status: Memo<Status>) -> impl IntoView {
    let again = ServerAction::<TranscribeAgain>::new();
    effect(move || {
        if let Some(answer) = again.value().get() {
            actions.started_again(session.with_untracked(|s| s.id), answer);
        }
    });
    let form = move || {
        let session = session.get();
        let own = session.is_own() && session.media.bytes > 0;
        let (tracks, stereo) = (session.media.tracks, session.media.channels == 2);
        (own && (tracks > 1 || stereo)).then(|| {
            let selects_track = (tracks > 1).then(|| {
                let all = (1..=tracks).map(Track::Number).chain([Track::Mix]);
                let options = all.map(|track| {
                    view! { <option value=track.to_string() selected=session.track == Some(track)>{track.label()}</option> }
                });
                view! {
                    <p class="field">
                        <label for="again-track">"Audio track"</label>
                        <select class="input" id="again-track" name="track" data-testid="again-track">
                            {session.track.is_none().then(|| view! { <option value="" selected=true>"As now"</option> })}
                            {options.collect_view()}
                        </select>
                    </p>
                }
            });
            let selects_channels = stereo.then(|| {
                let options = Channels::ALL.map(|choice| {
                    view! {
                        <option value=choice.as_str() selected=choice == session.channels>{choice.label()}</option>
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
                        <input type="hidden" name="id" value=session.id.to_string()/>
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
                            inner_html=move || if replaces.get() { "Replace the transcript" } else { "Start again" }
                        ></button>
                    </ActionForm>
                </details>
            }
        })
    };
    view! { {form} }
}
