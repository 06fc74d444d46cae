//! The rows that the page of sessions shows, from the pages of the list as they were loaded. Pure. And what the app keeps of them
//! while another page is open, so that somebody who comes back finds everything where it was.

use crate::model::{
    Filter, SessionId,
    page::{ListedSession, SessionList},
    text,
};
use leptos::prelude::*;

/// The key under which a tab keeps the address of the list, to which the pages of sessions lead back.
pub(crate) const LIST_ADDRESS: &str = "hark-list";

/// The address of the list with this filter and cursor.
pub(crate) fn address(filter: &Filter, cursor: Option<&str>) -> String {
    let query = Some(filter.to_query()).filter(|query| !query.is_empty());
    let cursor = cursor.map(|cursor| format!("cursor={}", text::percent_encode(cursor)));
    let parts: Vec<String> = query.into_iter().chain(cursor).collect();
    if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&")) }
}

/// The rows. Those that ran or waited when they were loaded stand on top, and stay there after they have ended: nothing moves
/// under somebody's hand.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Listing {
    /// The page's address, which says what was filtered and how it is ordered.
    address: String,
    top: Vec<ListedSession>,
    rest: Vec<ListedSession>,
    next_cursor: Option<String>,
    /// Whether further pages were added.
    is_extended: bool,
}

fn has(rows: &[ListedSession], id: SessionId) -> bool {
    rows.iter().any(|row| row.session.id == id)
}

fn add(rows: &mut Vec<ListedSession>, more: impl IntoIterator<Item = ListedSession>) {
    for row in more {
        if !has(rows, row.session.id) {
            rows.push(row);
        }
    }
}

impl Listing {
    /// The rows once the list has been loaded, after those that were there before.
    pub(crate) fn refreshed(before: Option<&Self>, list: SessionList) -> Self {
        let before = before.filter(|before| before.address == list.address);
        let SessionList { address, active, sessions, next_cursor, .. } = list;
        let is_whole = next_cursor.is_none();
        let newest = |row: &ListedSession| {
            let is_same = |new: &&ListedSession| new.session.id == row.session.id;
            active.iter().chain(&sessions).find(is_same).cloned().or_else(|| (!is_whole).then(|| row.clone()))
        };
        let mut top: Vec<_> = before.iter().flat_map(|before| &before.top).filter_map(newest).collect();
        let is_extended = !is_whole && before.is_some_and(|before| before.is_extended);
        // What is missing before a row that is still there was deleted elsewhere. In other orders than the newest first it may
        // have moved, to where further pages have been loaded already.
        let may_have_moved = is_extended && address.contains("order=");
        let rest_before = before.map_or(&[][..], |before| &before.rest[..]);
        let last_there = rest_before.iter().rposition(|row| has(&sessions, row.session.id)).filter(|_| !may_have_moved);
        // A new session pushes others off the first page, which are shown all the same.
        let pushed_off: Vec<_> = rest_before[last_there.unwrap_or_default()..].iter().filter_map(newest).collect();
        let next_cursor =
            if is_extended { before.and_then(|before| before.next_cursor.clone()) } else { next_cursor.clone() };
        add(&mut top, active.iter().cloned());
        let mut rest = sessions.clone();
        add(&mut rest, pushed_off);
        rest.retain(|row| !has(&top, row.session.id));
        Self { address, top, rest, next_cursor, is_extended }
    }

    /// Adds a further page. Adding it again changes nothing but what comes next.
    pub(crate) fn extend(&mut self, page: SessionList) {
        let top = &self.top;
        let new = page.sessions.into_iter().filter(|row| !has(top, row.session.id));
        add(&mut self.rest, new);
        (self.next_cursor, self.is_extended) = (page.next_cursor, true);
    }

    /// The page's address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// All rows, from the top.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &ListedSession> {
        self.top.iter().chain(&self.rest)
    }

    /// The cursor of the next page.
    pub(crate) fn next_cursor(&self) -> Option<&str> {
        self.next_cursor.as_deref()
    }
}

/// What is kept of the list that was shown last, and how far down it was scrolled, in pixels.
#[derive(Clone, Copy)]
pub(crate) struct KeptListing {
    pub(crate) listing: StoredValue<Listing>,
    pub(crate) scrolled: StoredValue<f64>,
}

impl KeptListing {
    /// Puts it into the context.
    pub(crate) fn provide() {
        provide_context(Self { listing: StoredValue::default(), scrolled: StoredValue::new(0.0) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Channels, EngineId, Media, Session, State, Status, Timestamp, Title};
    use uuid::Uuid;

    fn row(n: u128) -> ListedSession {
        let id = SessionId(Uuid::from_u128(n));
        let session = Session {
            id,
            title: Title::new(&n.to_string()).expect("a title"),
            created_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            engine: EngineId::Whisper,
            model: None,
            language: None,
            detected_language: None,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media::default(),
            status: Status::new(id, State::Completed, None, Timestamp(0)),
        };
        ListedSession { session, beginning: String::new() }
    }

    fn list(active: &[u128], sessions: &[u128], next: Option<&str>) -> SessionList {
        let rows = |ids: &[u128]| ids.iter().map(|n| row(*n)).collect();
        SessionList {
            address: "/".to_owned(),
            active: rows(active),
            sessions: rows(sessions),
            next_cursor: next.map(str::to_owned),
            ..SessionList::default()
        }
    }

    fn shown(listing: &Listing) -> Vec<u128> {
        listing.rows().map(|row| row.session.id.0.as_u128()).collect()
    }

    #[test]
    fn addresses_contain_the_filter_and_the_cursor() {
        let filter = |query: &str| Filter { query: query.to_owned(), ..Filter::default() };
        assert_eq!(address(&filter(""), None), "/");
        assert_eq!(address(&filter("a b&ü"), None), "/?q=a%20b%26%C3%BC");
        assert_eq!(address(&filter("x").with("order", "title"), Some("1+/=")), "/?q=x&order=title&cursor=1%2B%2F%3D");
        assert_eq!(address(&filter(""), Some("c")), "/?cursor=c");
    }

    #[test]
    fn what_runs_stands_on_top_and_stays_there() {
        let first = Listing::refreshed(None, list(&[2, 5], &[6, 5, 4], Some("c")));
        assert_eq!(shown(&first), [2, 5, 6, 4]);
        // 2 has ended, 7 has begun.
        let next = Listing::refreshed(Some(&first), list(&[5, 7], &[7, 6, 5], Some("c")));
        assert_eq!(shown(&next), [2, 5, 7, 6, 4]);
    }

    #[test]
    fn further_pages_outlast_a_reload_without_a_gap() {
        let mut listing = Listing::refreshed(None, list(&[], &[9, 8, 7], Some("7")));
        listing.extend(list(&[], &[7, 6, 5], Some("5")));
        assert_eq!((shown(&listing), listing.next_cursor()), (vec![9, 8, 7, 6, 5], Some("5")));
        let again = Listing::refreshed(Some(&listing), list(&[], &[11, 10, 9], Some("9")));
        assert_eq!((shown(&again), again.next_cursor()), (vec![11, 10, 9, 8, 7, 6, 5], Some("5")));
        let mut twice = again.clone();
        twice.extend(list(&[], &[7, 6, 5], Some("5")));
        assert_eq!(twice, again);
        // The whole list fits on one page: what isn't on it is gone.
        let whole = Listing::refreshed(Some(&again), list(&[], &[11, 5], None));
        assert_eq!((shown(&whole), whole.next_cursor()), (vec![11, 5], None));
    }

    #[test]
    fn what_was_deleted_elsewhere_goes_with_a_reload() {
        let mut listing = Listing::refreshed(None, list(&[], &[9, 8, 7], Some("7")));
        assert_eq!(shown(&Listing::refreshed(Some(&listing), list(&[], &[9, 7, 6], Some("6")))), [9, 7, 6]);
        listing.extend(list(&[], &[6, 5, 4], Some("4")));
        let again = Listing::refreshed(Some(&listing), list(&[], &[8, 7, 6], Some("6")));
        assert_eq!((shown(&again), again.next_cursor()), (vec![8, 7, 6, 5, 4], Some("4")));
        // Renamed, and not deleted: it moved among the rows of further pages.
        let by_title = |list: SessionList| SessionList { address: "/?order=title".to_owned(), ..list };
        let mut listing = Listing::refreshed(None, by_title(list(&[], &[1, 2, 3], Some("3"))));
        listing.extend(list(&[], &[4, 5], Some("5")));
        let again = Listing::refreshed(Some(&listing), by_title(list(&[], &[2, 3, 4], Some("4"))));
        assert_eq!(shown(&again), [2, 3, 4, 1, 5]);
    }

    #[test]
    fn a_list_of_another_address_begins_anew() {
        let before = Listing::refreshed(None, list(&[1], &[2], Some("2")));
        let other = SessionList { address: "/?q=x".to_owned(), ..list(&[], &[3], Some("3")) };
        assert_eq!(shown(&Listing::refreshed(Some(&before), other)), [3]);
    }
}
