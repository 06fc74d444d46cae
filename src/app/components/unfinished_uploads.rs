//! The uploads that an earlier page has begun: how much of each is sent, and that it goes on when its file is chosen again. Shown by
//! the upload page and by the list.

use crate::{
    app::{
        MAIN,
        detours::live_text,
        uploads::{FILE_INPUT, Uploads, forget_id},
    },
    feed::uploads::Unfinished,
};
use leptos::prelude::*;
use leptos_router::components::A;

/// The section with these uploads; nothing if there are none.
#[component]
pub fn UnfinishedUploads(
    /// Whether it is shown by the list, where no files are chosen.
    #[prop(optional)]
    in_list: bool,
) -> impl IntoView {
    let uploads = Uploads::expect();
    view! {
        <Show when=move || !uploads.unfinished.with(Vec::is_empty)>
            <section class="card uploads-section" aria-labelledby="unfinished-heading" data-testid="unfinished">
                <h2 id="unfinished-heading">"Not finished"</h2>
                <p>
                    {if in_list { view! { <A href="/upload">"Choose a file again"</A> }.into_any() } else { "Choose a file again".into_any() }}
                    ", or drop it here, and it goes on from where it was, unless another tab is sending it."
                </p>
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
                                    <button class="button quiet" type="button" id=forget_id(&upload.key) data-testid="forget" on:click=move |_| uploads.forget(&upload.key, if in_list { MAIN } else { FILE_INPUT })>
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
