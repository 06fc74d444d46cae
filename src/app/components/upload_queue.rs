//! The uploads of this visit: all of them together, and each. Shown by the upload page, and by the list until they are sessions.

use super::{ProgressBar, UploadItem};
use crate::{
    app::{
        detours::live_text,
        uploads::{UNFINISHED, Uploads},
    },
    feed::uploads::Total,
};
use leptos::prelude::*;
use leptos_router::components::A;

/// The section with the uploads; nothing if there are none.
#[component]
pub fn UploadQueue(
    /// Only those that aren't sessions yet: in a list that shows the sessions themselves.
    #[prop(optional)]
    unfinished: bool,
) -> impl IntoView {
    let uploads = Uploads::expect();
    let keys = Memo::new(move |_| {
        uploads.queue.with(|queue| {
            let shown = queue.uploads.iter().filter(|u| !(unfinished && u.is_session()));
            shown.map(|upload| upload.key).collect::<Vec<_>>()
        })
    });
    // One upload says itself how far it is.
    let total = Memo::new(move |_| uploads.queue.with(|queue| queue.total().filter(|total| total.files > 1)));
    let words = move || total.get().as_ref().map(Total::words).unwrap_or_default();
    view! {
        <Show when=move || !keys.with(Vec::is_empty)>
            <section class="card uploads-section" id=unfinished.then_some(UNFINISHED) aria-labelledby="uploads-heading">
                <h2 id="uploads-heading">"Uploads"</h2>
                <Show when=move || total.with(Option::is_some)>
                    <div class="uploads-total">
                        <ProgressBar
                            label="All uploads"
                            percent=move || total.get().map(|total| total.percent)
                            words
                            busy=true
                            testid="uploads-progress"
                        />
                        <p class="upload-details" data-testid="uploads-total" inner_html=move || live_text(words())></p>
                    </div>
                </Show>
                <ul class="uploads" data-testid="uploads">
                    <For each=move || keys.get() key=|key| *key let(key)><UploadItem uploads key/></For>
                </ul>
                {(!unfinished).then(|| view! { <p><A href="/">"All sessions"</A></p> })}
            </section>
        </Show>
    }
}
