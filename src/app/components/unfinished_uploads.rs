//! The uploads that an earlier page has begun: how much of each is sent, and that it goes on when its file is chosen again. Shown by
//! the upload page.

use crate::{
    app::{
        detours::live_text,
        uploads::{Uploads, forget_id},
    },
    feed::uploads::Unfinished,
};
use leptos::prelude::*;

/// The section with these uploads; nothing if there are none.
#[component]
pub fn UnfinishedUploads() -> impl IntoView {
    let uploads = Uploads::expect();
    view! {
        <Show when=move || !uploads.unfinished.with(Vec::is_empty)>
            <section class="card uploads-section" aria-labelledby="unfinished-heading" data-testid="unfinished">
                <h2 id="unfinished-heading">"Not finished"</h2>
                <p>"Choose a file again, or drop it here, and it goes on from where it was."</p>
                <ul class="chosen">
                    <For each=move || uploads.unfinished.get() key=|upload| upload.key.clone() let(upload)>
                        {
                            let label = live_text(&upload.name);
                            let key = upload.key.clone();
                            let words = move || {
                                let found = |all: &Vec<Unfinished>| all.iter().find(|one| one.key == key).map(Unfinished::words);
                                uploads.unfinished.with(found).unwrap_or_default()
                            };
                            view! {
                                <li>
                                    <bdi inner_html=label.clone()></bdi>
                                    <span class="muted" data-testid="unfinished-share" inner_html=words></span>
                                    <button class="button quiet" type="button" id=forget_id(&upload.key) data-testid="forget" on:click=move |_| uploads.forget(&upload.key)>
                                        <span>"Remove"<span class="hidden">" " <bdi inner_html=label></bdi></span></span>
                                    </button>
                                </li>
                            }
                        }
                    </For>
                </ul>
            </section>
        </Show>
    }
}
