//! The choice of speech engine, and how to install the engines that are missing.

use crate::model::EngineInfo;
use leptos::{html, prelude::*};
use leptos_router::components::A;

/// The select element. Engines that can't be used are shown, and can't be chosen.
#[component]
pub fn EngineSelect(
    engines: Vec<EngineInfo>,
    /// Called when another engine was chosen.
    #[prop(into)]
    on_change: Callback<()>,
    /// Set to the element.
    select: NodeRef<html::Select>,
) -> impl IntoView {
    // Where the default can't be used, a person chooses: the first of the others would be another engine than was meant.
    let choose = !engines.iter().any(|engine| engine.is_default && engine.available);
    let options = engines.into_iter().map(|engine| {
        let label = if engine.available {
            format!("{}, {}", engine.name, engine.model)
        } else {
            format!("{}, not installed", engine.name)
        };
        view! {
            <option value=engine.id.as_str() disabled=!engine.available selected=engine.is_default && engine.available>
                {label}
            </option>
        }
    });
    view! {
        <select
            class="input"
            id="engine"
            name="engine"
            data-testid="engine-select"
            node_ref=select
            required=choose
            on:change=move |_| on_change.run(())
        >
            {choose.then(|| view! { <option value="" selected=true>"Choose an engine"</option> })}
            {options.collect_view()}
        </select>
    }
}

/// Why some engines can't be used, and the commands that install them.
#[component]
pub fn EngineHelp(engines: Vec<EngineInfo>) -> impl IntoView {
    let missing: Vec<_> = engines.into_iter().filter(|engine| !engine.available).collect();
    let summary = match missing.len() {
        1 => "1 more engine can be added".to_owned(),
        n => format!("{n} more engines can be added"),
    };
    (!missing.is_empty()).then(|| {
        let items = missing.into_iter().map(|engine| {
            view! {
                <dt>{engine.name}</dt>
                <dd>
                    {engine.reason.map(|reason| view! { <p>{reason}</p> })}
                    {engine.install.map(|command| view! { <pre tabindex="0"><code>{command}</code></pre> })}
                </dd>
            }
        });
        view! { <details class="engine-help"><summary>{summary}</summary><dl>{items.collect_view()}</dl><p><A href="/models">"Models of Whisper"</A></p></details> }
    })
}
