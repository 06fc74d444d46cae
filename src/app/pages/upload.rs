//! The upload page: a plain form, which in the browser becomes a queue with progress for many files.

use crate::{
    api::{
        failed_form,
        upload::{UPLOAD_PATH, UploadInfo, load_upload_info},
    },
    app::{
        components::{
            Alert, ChannelsSelect, EngineHelp, EngineSelect, Icon, LanguageSelect, LoadBoundary, Symbol,
            TrySampleButton, UnfinishedUploads, UploadQueue, retry_on_failure, use_announcer,
        },
        detours::live_text,
        effect,
        uploads::{FILE_INPUT, Uploads},
    },
    feed::{
        browser::{dom, upload},
        uploads::{UploadOptions, too_large},
    },
    model::{self, bytes, duration, text},
};
use leptos::{ev, html, prelude::*};
use leptos_meta::Title;
use leptos_router::hooks::use_navigate;

/// Shown before anything is sent.
const COOKIES_BLOCKED: &str = "Your browser blocks Hark's cookie. Without it nobody could find your recording again, not even \
    you. Allow cookies for this site, then load this page once more.";

/// The page.
#[component]
pub fn UploadPage() -> impl IntoView {
    let info = Resource::new(|| (), |()| load_upload_info());
    retry_on_failure(info);
    view! {
        <Title text="New transcription · Hark"/>
        <div class="page-head"><h1>"New transcription"</h1></div>
        // The error of the form, if it was sent without JavaScript and failed.
        {failed_form(&[UPLOAD_PATH]).map(|error| view! { <Alert message=error.message/> })}
        <LoadBoundary on_retry=move |()| info.refetch()>
            {move || Suspend::new(async move { info.await.map(|info| view! { <UploadForm info/> }) })}
        </LoadBoundary>
        <section class="card aside" aria-labelledby="sample-heading">
            <h2 id="sample-heading">"No recording at hand?"</h2>
            <p>"See Hark at work on a short one that comes with it."</p>
            <TrySampleButton/>
        </section>
    }
}

/// The form.
#[component]
fn UploadForm(info: UploadInfo) -> impl IntoView {
    let uploads = Uploads::expect();
    let limit = info.max_upload_bytes;
    uploads.learn(&info);
    let input = NodeRef::<html::Input>::new();
    let [title, vocabulary, track] = [(); 3].map(|()| NodeRef::<html::Input>::new());
    let [language, engine, channels] = [(); 3].map(|()| NodeRef::<html::Select>::new());
    let chosen = uploads.chosen;
    let several = Memo::new(move |_| chosen.with(|c| c.len() > 1));
    // Without JavaScript each form sends one file.
    let hydrated = RwSignal::new(false);
    effect(move || {
        hydrated.set(true);
        // Files may have been chosen before hydration, or kept by the browser over a reload.
        uploads.choose(upload::add_chosen(input));
    });
    // Also those that were dropped on another page.
    effect(move || {
        chosen.track();
        upload::show_chosen(input);
    });

    // A single upload opens its session, as the plain form does; several are listed.
    let navigate = use_navigate();
    uploads.created.set(None);
    effect(move || {
        let Some(id) = uploads.created.get() else { return };
        if uploads.queue.with_untracked(|queue| queue.uploads.len() == 1) {
            uploads.queue.set(Default::default());
            navigate(&format!("/sessions/{id}"), Default::default());
        }
    });

    let on_submit = move |event: ev::SubmitEvent| {
        event.prevent_default();
        let single = chosen.with_untracked(|chosen| chosen.len() == 1);
        // Read from the elements, because a browser may have filled them in before hydration.
        let value = |select: NodeRef<html::Select>| select.get_untracked().map(|s| s.value()).unwrap_or_default();
        let text = |input: NodeRef<html::Input>| input.get_untracked().map(|i| i.value()).unwrap_or_default();
        let options = UploadOptions {
            title: if single { text(title).trim().to_owned() } else { String::new() },
            language: value(language),
            engine: value(engine),
            vocabulary: text(vocabulary),
            channels: value(channels),
            track: text(track).trim().to_owned(),
            again: false,
        };
        uploads.add(&options);
    };
    // The chosen engine and language. Empty until hydration, when a browser may have filled them in.
    let choice = RwSignal::new((String::new(), String::new()));
    let read_choice = move |()| {
        let value = |select: NodeRef<html::Select>| select.get_untracked().map(|s| s.value()).unwrap_or_default();
        choice.set((value(engine), value(language)));
    };
    effect(move || read_choice(()));
    let engines = StoredValue::new(info.engines.clone());
    let chosen_engine =
        move |id: &str| engines.with_value(|engines| engines.iter().find(|engine| engine.id.as_str() == id).cloned());
    let knows =
        move |(tag,): (String,)| choice.with(|(id, _)| chosen_engine(id)).is_none_or(|engine| engine.knows(&tag));
    let languages = StoredValue::new(info.languages.clone());
    // Why the server would refuse the upload.
    let mismatch = Memo::new(move |_| {
        let (engine, tag) = choice.get();
        let engine = chosen_engine(&engine)?;
        let name = languages.with_value(|all| all.iter().find(|l| l.tag == tag).map(|l| l.name.clone()))?;
        engines.with_value(|engines| engine.unknown_language(engines, &tag, &name))
    });
    let has_engine = info.engines.iter().any(|e| e.available);
    let can_submit = has_engine && !info.cookies_blocked;

    view! {
        {info.cookies_blocked.then(|| view! { <Alert message=COOKIES_BLOCKED/> })}
        {(!has_engine).then(|| view! { <Alert message="No speech engine can be used yet. Below is how to add one."/> })}
        <UnfinishedUploads/>
        <form
            class="card upload-form"
            method="post"
            enctype="multipart/form-data"
            action=UPLOAD_PATH
            data-testid="upload-form"
            on:submit=on_submit
        >
            <label class="drop" for=FILE_INPUT>
                <Icon symbol=Symbol::Upload/>
                <span class="drop-title">"Choose a recording"<span class:hidden=move || !hydrated.get()>", or drop it here"</span></span>
                <span class="muted">
                    {format!("Audio or video, up to {} and {}", text::unbroken(&bytes(limit)), text::unbroken(&duration(info.max_duration)))}
                </span>
            </label>
            {info.kept.map(|kept| view! { <p class="muted" data-testid="kept">{kept}</p> })}
            <Chosen uploads limit/>
            // These fields come before the file, so that the server can refuse them before it receives the file.
            <div class="fields">
                <p class="field" hidden=move || several.get()>
                    <label for="title">"Title"</label>
                    <input
                        class="input"
                        id="title"
                        name="title"
                        dir="auto"
                        maxlength=model::Title::MAX_CHARS.to_string()
                        placeholder="The file's name if left empty"
                        autocomplete="off"
                        data-testid="title-input"
                        node_ref=title
                    />
                </p>
                <p class="field">
                    <label for="language">"Language"</label>
                    <LanguageSelect languages=info.languages.clone() knows on_change=read_choice select=language/>
                </p>
                <p class="field">
                    <label for="engine">"Engine"</label>
                    <EngineSelect engines=info.engines.clone() on_change=read_choice select=engine/>
                </p>
                <p class="field">
                    <label for="vocabulary">"Names and terms"</label>
                    <input
                        class="input"
                        id="vocabulary"
                        name="vocabulary"
                        dir="auto"
                        maxlength="1000"
                        placeholder="Ada Lovelace, Babbage, …"
                        autocomplete="off"
                        data-testid="vocabulary-input"
                        node_ref=vocabulary
                    />
                </p>
                <p class="field">
                    <label for="channels">"Channels"</label>
                    <ChannelsSelect default=info.channels select=channels/>
                </p>
                <p class="field">
                    <label for="track">"Audio track"</label>
                    <input
                        class="input"
                        id="track"
                        name="track"
                        aria-describedby="track-hint"
                        pattern=" *([1-9][0-9]*|mix) *"
                        title="A number from 1, or mix for all tracks"
                        autocomplete="off"
                        data-testid="track-input"
                        node_ref=track
                    />
                    // Longer than a field is wide.
                    <span class="hint" id="track-hint">"A number, or mix; the main one if left empty"</span>
                </p>
            </div>
            {move || mismatch.get().map(|message| view! { <Alert message/> })}
            <input
                class="file-input"
                id=FILE_INPUT
                type="file"
                name="file"
                accept=info.accept
                required
                multiple=move || hydrated.get()
                data-testid="file-input"
                node_ref=input
                on:change=move |_| uploads.choose(upload::add_chosen(input))
            />
            <button
                class="button primary"
                data-testid="upload-submit"
                disabled=move || !can_submit || mismatch.with(Option::is_some)
                inner_html=move || match chosen.with(Vec::len) {
                    0 | 1 => "Transcribe".to_owned(),
                    n => format!("Transcribe {}", text::count(n, "file")),
                }
            ></button>
        </form>
        <UploadQueue/>
        <EngineHelp engines=info.engines/>
    }
}

/// The files that are chosen and haven't been sent yet.
#[component]
fn Chosen(uploads: Uploads, limit: u64) -> impl IntoView {
    let chosen = uploads.chosen;
    let announce = use_announcer();
    let remove = move |key: u32, name: &str| {
        // The button that has the focus goes: the next one gets it, or the one before, or what chooses files.
        let neighbour = chosen.with_untracked(|chosen| {
            let at = chosen.iter().position(|file| file.key == key).unwrap_or_default();
            chosen.get(at + 1).or_else(|| chosen.get(at.checked_sub(1)?)).map(|file| remove_id(file.key))
        });
        chosen.set(upload::unchoose(key));
        dom::focus(&neighbour.unwrap_or_else(|| FILE_INPUT.to_owned()));
        announce(format!("{name} removed"));
    };
    view! {
        <Show when=move || !chosen.with(Vec::is_empty)>
            <ul class="chosen" data-testid="chosen">
                <For each=move || chosen.get() key=|file| file.key let(file)>
                    {
                        let problem = too_large(file.bytes, limit)
                            .map(|message| view! { <span class="problem" role="alert" inner_html=live_text(message)></span> });
                        let (key, name) = (file.key, file.name);
                        let label = live_text(&name);
                        view! {
                            <li>
                                <bdi inner_html=label.clone()></bdi>
                                <span class="muted" inner_html=bytes(file.bytes)></span>
                                {problem}
                                <button class="button quiet" type="button" id=remove_id(key) data-testid="unchoose" on:click=move |_| remove(key, &name)>
                                    <span>"Remove"<span class="hidden">" " <bdi inner_html=label></bdi></span></span>
                                </button>
                            </li>
                        }
                    }
                </For>
            </ul>
        </Show>
    }
}

/// The id of the button that removes a chosen file.
fn remove_id(key: u32) -> String {
    format!("unchoose-{key}")
}
