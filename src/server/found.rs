//! What a search has found in texts, as HTML for the page of sessions, where it is shown as it is. Made here and not by components,
//! because those would be a tenth of what a browser loads for the first page. Pure; called by `listing`.

use crate::model::{Filter, FoundSession, SearchHit, SearchPage, SessionId, clock, find::matches, text};
use std::fmt::Write;

/// The sessions with their lines, which lead to their place in the recording, and a link to the older ones; empty if nothing was
/// found. Their dates are in UTC, and say so, until the page puts them into the person's time zone.
#[must_use]
pub fn html(filter: &Filter, found: &SearchPage) -> String {
    if found.sessions.is_empty() && found.next_cursor.is_none() {
        return String::new();
    }
    let query = &filter.query;
    let sessions: String = found.sessions.iter().map(|found| session(found, query)).collect();
    let sessions = match &*sessions {
        "" => "<p class=\"muted\">Nothing in the newest sessions.</p>".to_owned(),
        sessions => format!("<ul>{sessions}</ul>"),
    };
    let mut html = format!(
        "<section class=\"found\" aria-labelledby=\"found-heading\" data-testid=\"found\">\
         <h2 id=\"found-heading\">In the texts</h2>{sessions}"
    );
    if let Some(cursor) = &found.next_cursor {
        let (filter, cursor) = (escape(&filter.to_query()), text::percent_encode(cursor));
        let _ = write!(
            html,
            "<p class=\"more\"><a class=\"button\" href=\"/?{filter}&amp;older={cursor}\">Older ones</a></p>"
        );
    }
    html + "</section>"
}

fn session(found: &FoundSession, query: &str) -> String {
    let id = found.session_id;
    let (title, at) = (escape(&found.title), found.created_at);
    let hits: String = found.hits.iter().map(|hit| line(id, hit, query)).collect();
    let more = if found.more { "<p class=\"muted\">More lines fit.</p>" } else { "" };
    format!(
        "<li class=\"found-session\" data-testid=\"found-session\"><h3><a href=\"/sessions/{id}\"><bdi>{title}</bdi></a></h3>\
         <p class=\"facts\"><time datetime=\"{at}\">{}</time></p><ul class=\"found-lines\">{hits}</ul>{more}</li>",
        text::date_time(at)
    )
}

fn line(id: SessionId, hit: &SearchHit, query: &str) -> String {
    let [before, found, after] = [&hit.before, &hit.found, &hit.after].map(|part| escape(part));
    format!(
        "<li><a href=\"{}\" data-testid=\"found-line\"><span class=\"found-time\">{}</span> \
         <span dir=\"auto\">{before}<mark>{found}</mark>{after}</span></a></li>",
        escape(&address(id, hit, query)),
        clock(hit.start)
    )
}

/// The address of a line: the page goes to its second, and to the line without JavaScript, and marks what was searched, or the
/// word that was found if the line doesn't have all words in this order.
fn address(id: SessionId, hit: &SearchHit, query: &str) -> String {
    let plain = query.trim_matches('"');
    let line = [hit.before.as_str(), &hit.found, &hit.after].concat().to_lowercase();
    let find = text::percent_encode(if matches(&line, &plain.to_lowercase()).is_empty() { &hit.found } else { plain });
    format!("/sessions/{id}?t={}&find={find}#line-{}", text::decimal((hit.start * 100.0).ceil() / 100.0, 2), hit.index)
}

/// Escapes a text for the content of an element and for an attribute in double quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_hit_leads_to_its_line_and_to_what_is_marked_there() {
        let id: SessionId = "019ab1c2-0000-7000-8000-000000000001".parse().unwrap();
        let hit = SearchHit {
            index: 7,
            start: 61.234,
            before: "the ".into(),
            found: "old".into(),
            after: " <b> gate".into(),
        };
        for (query, find) in [("old", "old"), ("\"the old\"", "the%20old"), ("gate old", "old")] {
            assert_eq!(address(id, &hit, query), format!("/sessions/{id}?t=61.24&find={find}#line-7"));
        }
        let found = FoundSession {
            session_id: id,
            title: "\"a\" & <b>".into(),
            created_at: Timestamp(0),
            hits: vec![hit],
            more: true,
        };
        let mut page = SearchPage { sessions: vec![found], next_cursor: None };
        let searched = |query: &str| Filter { query: query.to_owned(), ..Filter::default() };
        let shown = html(&searched("old"), &page);
        assert!(shown.contains("<bdi>&quot;a&quot; &amp; &lt;b&gt;</bdi>") && !shown.contains("Older"), "{shown}");
        assert!(
            shown.contains(">1:01</span> <span dir=\"auto\">the <mark>old</mark> &lt;b&gt; gate</span>"),
            "{shown}"
        );
        page.next_cursor = Some("c/d".into());
        let filter = searched("a&b").with("order", "oldest");
        assert!(html(&filter, &page).contains("href=\"/?q=a%26b&amp;order=oldest&amp;older=c%2Fd\""));
        assert_eq!(html(&searched("old"), &SearchPage::default()), "");
    }
}
