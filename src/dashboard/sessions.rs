//! The page of sessions: those of everybody that run, wait or failed, with filters and actions. Forms without scripts; live
//! where scripts run.

use crate::model::{AdminAction, AdminSession, AdminSessionPage, State, duration, text};
use leptos::prelude::*;

/// What was asked for, as it stands in the address.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub state: String,
    pub min_age_secs: String,
    pub node: String,
    pub cursor: Option<String>,
}

impl Asked {
    /// The address of the page with another cursor.
    fn address(&self, cursor: Option<&str>) -> String {
        let part = |name: &str, value: &str| format!("{name}={}", text::percent_encode(value));
        let filters = [("state", &self.state), ("min_age_secs", &self.min_age_secs), ("node", &self.node)];
        let filters = filters.into_iter().filter(|(_, value)| !value.is_empty());
        let parts: Vec<String> =
            filters.map(|(name, value)| part(name, value)).chain(cursor.map(|cursor| part("cursor", cursor))).collect();
        if parts.is_empty() { "/admin/sessions".to_owned() } else { format!("/admin/sessions?{}", parts.join("&")) }
    }
}

/// The choices of the filters: the value and its name.
const STATES: [(&str, &str); 8] = [
    ("", "Running, waiting, failed"),
    ("processing", "Running"),
    ("queued", "Waiting"),
    ("stalled,long_running", "Hanging"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
    ("completed", "Done"),
    ("queued,processing,failed,cancelled,completed", "All"),
];
const AGES: [(&str, &str); 5] = [
    ("", "Any"),
    ("600", "10 minutes or more"),
    ("3600", "An hour or more"),
    ("86400", "A day or more"),
    ("604800", "A week or more"),
];

/// The page.
#[must_use]
pub fn list(
    page: AdminSessionPage,
    asked: Asked,
    // What became of the last action.
    outcome: Option<String>,
) -> impl IntoView {
    let here = asked.address(asked.cursor.as_deref());
    let next = page.next_cursor.as_deref().map(|cursor| asked.address(Some(cursor)));
    let newest = asked.cursor.is_some().then(|| asked.address(None));
    let none = page.sessions.is_empty();
    let shown = text::count(page.sessions.len(), "session");
    let rows = page.sessions.into_iter().map(row).collect_view();
    view! {
        <div class="page-head"><h1>"Sessions"</h1></div>
        {outcome.map(|outcome| view! { <p class="outcome" role="status" data-testid="outcome">{outcome}</p> })}
        <form class="filters" method="get" action="/admin/sessions" data-testid="filters">
            {choice("state", "State", &STATES, &asked.state)}
            {choice("min_age_secs", "Age", &AGES, &asked.min_age_secs)}
            <p class="field">
                <label for="node">"Node"</label>
                <input class="input" id="node" name="node" value=asked.node.clone() placeholder="Any" autocomplete="off"/>
            </p>
            <button class="button" data-testid="filter">"Show"</button>
        </form>
        {newest.map(|address| view! { <p><a href=address>"Back to the newest"</a></p> })}
        <form method="post" action="/admin/sessions" data-testid="actions">
            <input type="hidden" name="to" value=here/>
            <fieldset class="actions">
                <legend>"With those that are ticked"</legend>
                {button(AdminAction::Retry, "Retry")}
                {button(AdminAction::Requeue, "Requeue")}
                {button(AdminAction::Cancel, "Cancel")}
                {button(AdminAction::Fail, "Fail")}
                <details class="confirm">
                    <summary class="button quiet" data-testid="delete">"Delete"</summary>
                    <div class="confirmation">
                        <p>"The recordings and texts of others will be gone for good."</p>
                        <button class="button danger" name="action" value="delete" data-testid="confirm-delete">
                            "Delete for good"
                        </button>
                    </div>
                </details>
            </fieldset>
            <div id="sessions" data-live="">
                <p class="muted" data-testid="shown">{if none { "There is none.".to_owned() } else { shown }}</p>
                <ul class="rows" data-testid="admin-rows">{rows}</ul>
            </div>
        </form>
        {next.map(|address| view! { <p class="more"><a class="button" href=address data-testid="next">"Older"</a></p> })}
    }
}

fn choice(
    name: &'static str,
    label: &'static str,
    choices: &[(&'static str, &'static str)],
    chosen: &str,
) -> impl IntoView {
    let known = choices.iter().any(|(value, _)| *value == chosen);
    // One that was written into the address by hand stays.
    let own = (!known).then(|| view! { <option value=chosen.to_owned() selected="">{chosen.to_owned()}</option> });
    let options = choices.iter().map(|&(value, label)| {
        let selected = (value == chosen).then_some("");
        view! { <option value=value selected=selected>{label}</option> }
    });
    view! {
        <p class="field">
            <label for=name>{label}</label>
            <select class="input" id=name name=name>{own}{options.collect_view()}</select>
        </p>
    }
}

fn button(action: AdminAction, label: &'static str) -> impl IntoView {
    view! {
        <button class="button" name="action" value=action.as_str() data-testid=action.as_str()>{label}</button>
    }
}

/// One session.
fn row(shown: AdminSession) -> impl IntoView {
    let AdminSession { session, owner, node, stalled, long_running, unchanged_secs, .. } = shown;
    let status = &session.status;
    let id = session.id.to_string();
    let (state, word) = match (status.state, &status.stage) {
        (State::Queued, _) => ("queued", "Waiting"),
        (State::Processing, Some(stage)) => ("processing", stage.label()),
        (State::Processing, None) => ("processing", "Running"),
        (State::Completed, _) => ("completed", "Done"),
        (State::Failed, _) => ("failed", "Failed"),
        (State::Cancelled, _) => ("cancelled", "Cancelled"),
    };
    let word = word.to_owned();
    let hangs = match (stalled, long_running) {
        (true, true) => Some("Stalled, and too long"),
        (true, false) => Some("Stalled"),
        (false, true) => Some("Too long"),
        (false, false) => None,
    };
    let running = status.state == State::Processing;
    let facts = [
        Some(format!("created {}", text::date_time(session.created_at))),
        Some(format!("owner {owner}")),
        Some(session.engine.label().to_owned()),
        status.duration_total.map(duration),
        node.map(|node| format!("on {node}")),
        (status.attempt > 1).then(|| format!("attempt {}", status.attempt)),
        status.progress.filter(|_| running).map(text::percentage),
        status.queue_position.map(|ahead| format!("{ahead} ahead")),
        hangs.map(|_| format!("unchanged for {}", text::lapse(unchanged_secs))),
    ];
    let facts = facts.into_iter().flatten().map(|fact| view! { <span class="fact">{fact}</span> }).collect_view();
    let error = status.error.as_ref().map(|error| {
        view! { <p class="row-error" data-testid="error-message">{error.message.clone()} " (" <code>{error.code.clone()}</code> ")"</p> }
    });
    let (pick, value, shown_id) = (format!("pick-{id}"), id.clone(), id.clone());
    view! {
        <li class="row" data-testid="admin-row" data-session=id data-state=state>
            <p class="pick">
                <input type="checkbox" name="id" value=value id=pick.clone() data-testid="pick"/>
                <label for=pick><bdi>{session.title.to_string()}</bdi></label>
                <span class="chip" data-state=state data-testid="state">{word}</span>
                {hangs.map(|hangs| view! { <span class="chip" data-state="failed" data-testid="hangs">{hangs}</span> })}
            </p>
            <p class="facts">{facts}</p>
            {error}
            <p class="facts"><code class="fact">{shown_id}</code></p>
        </li>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_what_was_asked_for() {
        let asked = Asked { state: "stalled,long_running".to_owned(), node: "a b".to_owned(), ..Asked::default() };
        assert_eq!(asked.address(None), "/admin/sessions?state=stalled%2Clong_running&node=a%20b");
        assert_eq!(Asked::default().address(Some("c")), "/admin/sessions?cursor=c");
        assert_eq!(Asked::default().address(None), "/admin/sessions");
    }
}
