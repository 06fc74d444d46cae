//! The downloads of a transcript, as links, so that they also work without JavaScript; and the settings of the files, which then
//! are a form that loads the page again.

use crate::{
    app::detours::live_text,
    feed::browser::dom,
    model::{
        SessionId, State, Status,
        transcript::{Format, LineLimits},
    },
};
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use std::ops::RangeInclusive;

/// The formats by what they are for.
const GROUPS: [(&str, &[Format]); 3] = [
    ("To read", &[Format::Docx, Format::Md, Format::Txt]),
    ("Subtitles", &[Format::Srt, Format::Vtt]),
    ("Tables and programs", &[Format::Csv, Format::Json]),
];

fn label(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Docx => ("Word", "Word document with paragraphs (DOCX)"),
        Format::Md => ("Markdown", "Markdown with paragraphs"),
        Format::Txt => ("Text", "Plain text, line by line"),
        Format::Srt => ("SRT", "SubRip subtitles"),
        Format::Vtt => ("VTT", "WebVTT subtitles"),
        Format::Csv => ("CSV", "Table for spreadsheets, with times and confidence"),
        Format::Json => ("JSON", "Everything, with the times of words"),
    }
}

/// The links as HTML, because elements of their own would make the app larger.
fn links(id: SessionId, settings: &str) -> String {
    let query = live_text(settings);
    let link = |format: &Format| {
        let ext = format.extension();
        let (name, about) = label(*format);
        format!(
            "<li><a class=\"button\" href=\"/api/v1/sessions/{id}/transcript.{ext}?{query}\" rel=\"external\" download \
             data-testid=\"download-{ext}\" title=\"{about}\">{name}</a></li>"
        )
    };
    let group = |(heading, formats): &(&str, &[Format])| {
        format!("<h3>{heading}</h3><ul class=\"downloads-list\">{}</ul>", formats.iter().map(link).collect::<String>())
    };
    GROUPS.iter().map(group).collect()
}

/// The links and the settings.
#[component]
pub fn Downloads(
    id: SessionId,
    status: Memo<Status>,
    /// Whether the transcript has lines.
    has_lines: Memo<bool>,
) -> impl IntoView {
    let complete = Memo::new(move |_| status.with(|s| s.state == State::Completed));
    let none = Memo::new(move |_| !has_lines.get() && !complete.get());
    let partial = Memo::new(move |_| !complete.get() && (has_lines.get() || status.with(|s| !s.state.is_terminal())));
    let ready = RwSignal::new(false);
    Effect::new(move || ready.set(true));
    let given = use_query_map().get_untracked();
    let standard = LineLimits::default();
    let number = |name, range: RangeInclusive<u8>, standard: u8| {
        given.get_str(name).and_then(|n| n.parse().ok()).filter(|n| range.contains(n)).unwrap_or(standard)
    };
    let times = given.get_str("times") == Some("true");
    let lines = number("lines", LineLimits::LINES, standard.lines);
    let chars = number("chars", LineLimits::CHARS, standard.chars);
    let first = if times { "times=true&" } else { "" };
    let settings = RwSignal::new(format!("{first}lines={lines}&chars={chars}"));
    let number_input = |id: &'static str, name: &'static str, value: u8, range: RangeInclusive<u8>| {
        view! {
            <label for=id>{name}</label>
            <input
                class="input"
                type="number"
                id=id
                name=id
                min=range.start().to_string()
                max=range.end().to_string()
                value=value.to_string()
                data-testid=format!("setting-{id}")
            />
        }
    };
    view! {
        <section class="card downloads" aria-labelledby="downloads-heading">
            <h2 id="downloads-heading">
                "Download"
                <span inner_html=move || if partial.get() { " what is there so far" } else { "" }></span>
            </h2>
            <div class="downloads-groups" hidden=move || none.get()>
                <div inner_html=move || settings.with(|settings| links(id, settings))></div>
                <details class="downloads-settings">
                    <summary data-testid="download-settings">"Settings"</summary>
                    // What can't be a setting leaves the links as they were.
                    <form method="get" on:input=move |event| {
                        if let Some(new) = dom::values(&event, &["times", "lines", "chars"]) {
                            settings.set(new);
                        }
                    }>
                        <label class="check">
                            <input
                                type="checkbox"
                                name="times"
                                value="true"
                                checked=times
                                data-testid="setting-times"
                            />
                            "Times in Word, Markdown and text"
                        </label>
                        {number_input("lines", "Lines of a subtitle", lines, LineLimits::LINES)}
                        {number_input("chars", "Characters of a line", chars, LineLimits::CHARS)}
                        // Once the app runs, the links change as one types.
                        <button class="button" hidden=move || ready.get()>"Apply"</button>
                    </form>
                </details>
            </div>
            <p class="muted" hidden=move || !none.get()>
                "There is nothing to download"<span inner_html=move || if partial.get() { " yet" } else { "" }></span>"."
            </p>
        </section>
    }
}
