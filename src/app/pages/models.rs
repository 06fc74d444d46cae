//! The page of Whisper's models: which there are and which are here, what each needs, and the commands that fetch and remove
//! them.

use crate::{
    api::models::{ModelInfo, ModelsInfo, load_models},
    app::components::{LoadBoundary, retry_on_failure},
    model::bytes,
};
use leptos::prelude::*;
use leptos_meta::Title;
use std::time::Duration;

/// How often the page looks how far a model is.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// The same without JavaScript, where nothing can be done on this page that a reload would disturb. Set as `inner_html`: a
/// browser with JavaScript parses the content of `<noscript>` as text, where hydration would look for elements.
const RELOAD: &str = r#"<meta http-equiv="refresh" content="3"/>"#;

/// The page.
#[component]
pub fn ModelsPage() -> impl IntoView {
    let info = Resource::new(|| (), |()| load_models());
    retry_on_failure(info);
    // While a model is on its way, the page loads its data again and again.
    Effect::new(move || {
        if info.with(|info| matches!(info, Some(Ok(ModelsInfo { fetching: Some(_), .. }))))
            && let Ok(timer) = set_timeout_with_handle(move || info.refetch(), REFRESH_INTERVAL)
        {
            on_cleanup(move || timer.clear());
        }
    });
    view! {
        <Title text="Speech models · Hark"/>
        <div class="page-head"><h1>"Speech models"</h1></div>
        <p class="lead">
            "Whisper, which turns speech into text, works with one of these models. Larger ones make fewer mistakes, and need more \
            memory and time."
        </p>
        <LoadBoundary on_retry=move |()| info.refetch()>
            {move || Suspend::new(async move { info.await.map(|info| view! { <Models info/> }) })}
        </LoadBoundary>
    }
}

/// The models, those that are here first.
#[component]
fn Models(info: ModelsInfo) -> impl IntoView {
    let (here, others): (Vec<_>, Vec<_>) = info.models.into_iter().partition(|model| model.installed || model.in_use);
    let fetching = info.fetching;
    let missing = here.iter().find(|model| model.in_use && !model.installed && fetching.is_none());
    let missing = missing.map(|model| model.name.clone());
    let none = here.is_empty();
    view! {
        <section class="card stack" aria-labelledby="models-here">
            <h2 id="models-here">"On this server"</h2>
            {none.then(|| view! { <p class="muted">"None has been fetched yet."</p> })}
            <ul class="models" data-testid="models-here">{here.into_iter().map(|model| view! { <Model model/> }).collect_view()}</ul>
            {info.own_file.map(|file| view! { <p class="muted">"In use: the file " <code>{file}</code></p> })}
            {fetching.map(|how| view! {
                <p data-testid="model-fetching">{how}"."</p>
                <noscript inner_html=RELOAD></noscript>
            })}
            {missing.map(|name| view! {
                <p>"The model that Hark is set to use isn't here. Whoever runs this server can fetch it:"</p>
                <pre tabindex="0"><code>"hark model get "{name}</code></pre>
            })}
        </section>
        <section class="card stack" aria-labelledby="models-others">
            <h2 id="models-others">"Others that Hark knows"</h2>
            <ul class="models" data-testid="models-others">{others.into_iter().map(|model| view! { <Model model/> }).collect_view()}</ul>
            <p>
                "Whoever runs this server adds one with " <code>"hark model get NAME"</code> ", and chooses it with "
                <code>"HARK_WHISPER_MODEL=NAME"</code> ". Files of whisper.cpp and folders of faster-whisper can be imported: "
                <code>"hark model import"</code> "."
            </p>
            <p class="muted">"The models are OpenAI's, under the MIT licence."</p>
        </section>
    }
}

#[component]
fn Model(model: ModelInfo) -> impl IntoView {
    let (state, label) = match (model.installed, model.in_use) {
        (true, true) => (Some("completed"), "in use"),
        (true, false) => (Some("queued"), "installed"),
        (false, true) => (Some("failed"), "missing"),
        (false, false) => (None, ""),
    };
    let name = model.name.clone();
    let chip = state.map(|state| view! { <span class="chip" data-state=state>{label}</span> });
    let languages = model.languages.map(|count| match count {
        1 => "English only".to_owned(),
        count => format!("{count} languages"),
    });
    let facts = [
        model.bytes.map(bytes),
        languages,
        model.memory_bytes.map(|memory| format!("{} of memory", bytes(memory))),
        model.speed.map(|speed| format!("{speed} times real time on one processor")),
    ];
    let facts = facts.into_iter().flatten().map(|fact| view! { <span>{fact}</span> }).collect_view();
    view! {
        <li data-testid="model" data-name=model.name>
            <span class="model-name">{name}</span>
            {chip}
            <span class="facts">{facts}</span>
        </li>
    }
}
