//! The page of Whisper's models: which there are and which are here, what each needs, and the commands that fetch and remove
//! them; where the operator allows it, buttons too.

use crate::{
    api::{
        failed_form,
        models::{DownloadModel, ModelInfo, ModelsInfo, RemoveModel, load_models},
    },
    app::{
        components::{Alert, LoadBoundary, ProgressBar, retry_on_failure},
        detours::live_text,
        effect,
    },
    feed::browser::models,
    model::{ModelDownload, bytes},
};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_meta::Title;

/// How often the page is loaded anew without JavaScript, where nothing can be done on it that a reload would disturb. Set as
/// `inner_html`: a browser with JavaScript parses the content of `<noscript>` as text, where hydration would look for
/// elements.
const RELOAD: &str = r#"<meta http-equiv="refresh" content="3"/>"#;

/// The page.
#[component]
pub fn ModelsPage() -> impl IntoView {
    let info = Resource::new(|| (), |()| load_models());
    retry_on_failure(info);
    // What has changed since the data was loaded.
    let live = RwSignal::new(None::<ModelsInfo>);
    let is_running = Memo::new(move |_| info.with(|info| matches!(info, Some(Ok(info)) if info.is_running())));
    effect(move || {
        if !is_running.get() {
            return;
        }
        models::watch(move |new| {
            let here = |info: &ModelsInfo| info.models.iter().filter(|m| m.installed).count();
            let known = info.with_untracked(|info| info.as_ref().and_then(|info| info.as_ref().ok().map(here)));
            // A model has come or gone, or nothing more will happen.
            if !new.is_running() || known != Some(here(&new)) {
                info.refetch();
            }
            live.set(Some(new));
        });
    });
    view! {
        <Title text="Speech models · Hark"/>
        <div class="page-head"><h1>"Speech models"</h1></div>
        <p class="lead">
            "Whisper, which turns speech into text, works with one of these models. Larger ones make fewer mistakes, and need more \
            memory and time."
        </p>
        {failed_form(&[DownloadModel::PATH, RemoveModel::PATH]).map(|error| view! { <Alert message=error.message/> })}
        <LoadBoundary on_retry=move |()| info.refetch()>
            {move || Suspend::new(async move { info.await.map(|info| view! { <Models info live/> }) })}
        </LoadBoundary>
    }
}

/// The models, those that are here first.
#[component]
fn Models(info: ModelsInfo, live: RwSignal<Option<ModelsInfo>>) -> impl IntoView {
    let may_change = info.may_change;
    let is_running = info.is_running();
    let (here, others): (Vec<_>, Vec<_>) = info.models.into_iter().partition(|model| model.installed || model.in_use);
    let fetching = info.fetching;
    let missing = here.iter().find(|model| model.in_use && !model.installed && fetching.is_none());
    let missing = missing.filter(|_| !may_change).map(|model| model.name.clone());
    let none = here.is_empty();
    let list = move |models: Vec<ModelInfo>| {
        models.into_iter().map(|model| view! { <Model model live may_change/> }).collect_view()
    };
    view! {
        <section class="card stack" aria-labelledby="models-here">
            <h2 id="models-here">"On this server"</h2>
            {none.then(|| view! { <p class="muted">"None has been fetched yet."</p> })}
            <ul class="models" data-testid="models-here">{list(here)}</ul>
            {info.own_file.map(|file| view! { <p class="muted">"In use: the file " <code>{file}</code></p> })}
            {fetching.map(|how| {
                let how = move || live.with(|live| live.as_ref().and_then(|live| live.fetching.clone())).unwrap_or(how.clone());
                view! { <p data-testid="model-fetching"><span inner_html=move || live_text(how())></span>"."</p> }
            })}
            {is_running.then(|| view! { <noscript inner_html=RELOAD></noscript> })}
            {missing.map(|name| view! {
                <p>"The model that Hark is set to use isn't here. Whoever runs this server can fetch it:"</p>
                <pre tabindex="0"><code>"hark model get "{name}</code></pre>
            })}
        </section>
        <section class="card stack" aria-labelledby="models-others">
            <h2 id="models-others">"Others that Hark knows"</h2>
            <ul class="models" data-testid="models-others">{list(others)}</ul>
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
fn Model(model: ModelInfo, live: RwSignal<Option<ModelsInfo>>, may_change: bool) -> impl IntoView {
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
    let (seed, of) = (model.download, model.name.clone());
    let download = Memo::new(move |_| {
        live.with(|live| {
            let found = live.as_ref().map(|live| live.models.iter().find(|model| model.name == of));
            found.map_or_else(|| seed.clone(), |found| found.and_then(|model| model.download.clone()))
        })
    });
    let (installed, in_use, shown) = (model.installed, model.in_use, name.clone());
    let change = may_change.then(|| view! { <Change name=name.clone() installed in_use download/> });
    view! {
        <li data-testid="model" data-name=model.name>
            <span class="model-name">{shown}</span>
            {chip}
            <span class="facts">{facts}</span>
            <Download name download/>
            {change}
        </li>
    }
}

/// How far the download of a model is, or why it failed.
#[component]
fn Download(name: String, download: Memo<Option<ModelDownload>>) -> impl IntoView {
    let message =
        Memo::new(move |_| download.with(|download| download.as_ref().map(|d| d.message.clone()).unwrap_or_default()));
    let is_running = Memo::new(move |_| download.with(|download| download.as_ref().is_some_and(|d| !d.failed)));
    let failed = Memo::new(move |_| download.with(|download| download.as_ref().is_some_and(|d| d.failed)));
    let percent = Memo::new(move |_| download.with(|download| download.as_ref().and_then(|d| d.percent)));
    view! {
        <Show when=move || is_running.get()>
            <div class="model-download" data-testid="model-download">
                <ProgressBar
                    label=format!("Download of {name}")
                    percent
                    words=message
                    busy=true
                    testid="model-progress"
                />
                <span class="muted" inner_html=move || live_text(message.get())></span>
            </div>
        </Show>
        <Show when=move || failed.get()>
            <p class="model-download" role="alert" data-testid="model-failure"><span inner_html=move || live_text(message.get())></span>"."</p>
        </Show>
    }
}

/// The buttons that download and remove a model: plain forms, which load the page anew.
#[component]
fn Change(name: String, installed: bool, in_use: bool, download: Memo<Option<ModelDownload>>) -> impl IntoView {
    let is_running = Memo::new(move |_| download.with(|download| download.as_ref().is_some_and(|d| !d.failed)));
    let label = name.clone();
    let get = (!installed).then(|| {
        let (name, label) = (name.clone(), label.clone());
        view! {
            <form method="post" action=DownloadModel::url() hidden=move || is_running.get()>
                <input type="hidden" name="name" value=name/>
                <button class="button quiet" data-testid="model-get">"Download"<span class="hidden">" " {label}</span></button>
            </form>
        }
    });
    let remove = (installed && !in_use).then(|| view! {
        <details class="confirm">
            <summary class="button quiet" data-testid="model-remove">"Remove"<span class="hidden">" " {label}</span></summary>
            <form method="post" action=RemoveModel::url()>
                <input type="hidden" name="name" value=name/>
                <p>"Its file will be gone. It can be downloaded again."</p>
                <button class="button danger" data-testid="confirm-remove">"Remove it"</button>
            </form>
        </details>
    });
    view! { {get} {remove} }
}
