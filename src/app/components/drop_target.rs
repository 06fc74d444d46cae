//! The window as a target for files: while some are dragged over it, it says so; dropped, they are chosen on the upload page, where
//! options can still be set. Without it, a file dropped beside a form's input would take the place of the page.

use super::{Icon, Symbol, use_announcer};
use crate::{
    app::{effect, uploads::Uploads},
    feed::browser::upload,
    model::text,
};
use leptos::{ev, prelude::*};
use leptos_router::hooks::{use_location, use_navigate};
use std::time::Duration;

/// The page that sends recordings.
const UPLOAD_PAGE: &str = "/upload";

/// How long nothing may be heard of a drag that goes on: browsers tell several times a second where it is. It may end without a
/// word, such as when what it was over has gone.
const QUIET: Duration = Duration::from_secs(2);

/// What lies over the page while files are dragged over the window. Once for the whole app.
#[component]
pub fn DropTarget() -> impl IntoView {
    let uploads = Uploads::expect();
    let over = RwSignal::new(false);
    let (navigate, path) = (use_navigate(), use_location().pathname);
    let announce = use_announcer();
    let quiet = StoredValue::new(None::<TimeoutHandle>);
    let on_drag = move |event: ev::DragEvent| {
        let now = upload::over_window(&event);
        if over.get_untracked() != now {
            over.set(now);
        }
        if let Some(before) = quiet.try_update_value(Option::take).flatten() {
            before.clear();
        }
        if now {
            let end = move || {
                upload::end_drag();
                over.set(false);
            };
            quiet.set_value(set_timeout_with_handle(end, QUIET).ok());
        }
        // A text or a link that is dragged belongs to the browser.
        if !upload::brings_files(&event) {
            return;
        }
        event.prevent_default();
        if event.type_() == "drop" {
            let chosen = upload::add_dropped(&event);
            announce(format!("{} chosen", text::count(chosen.len(), "file")));
            uploads.choose(chosen);
            if path.get_untracked() != UPLOAD_PAGE {
                navigate(UPLOAD_PAGE, Default::default());
            }
        }
    };
    effect(move || {
        window_event_listener(ev::dragenter, on_drag.clone());
        window_event_listener(ev::dragover, on_drag.clone());
        window_event_listener(ev::dragleave, on_drag.clone());
        window_event_listener(ev::drop, on_drag.clone());
    });
    view! {
        <div class="drop-target" role="status" hidden=move || !over.get() data-testid="drop-target">
            <p><Icon symbol=Symbol::Upload/>"Drop to transcribe"</p>
        </div>
    }
}
