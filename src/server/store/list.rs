//! The list of an owner's sessions: filtered, in each order, a page at a time; with the first words of their texts and the
//! languages that they have. Called by `listing`.

use super::{Db, Dialect, Store, fold::fold, rows::SessionRow, values};
use crate::{
    model::{Filter, Order, Session, SessionId},
    server::{owner::Owner, speech::languages},
};
use data_encoding::BASE64URL_NOPAD;
use sqlx::{Database, Encode, Pool, QueryBuilder, Type};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// How many characters of a text its beginning has.
const BEGINNING: usize = 120;
/// How many lines are read for it. Few lines are shorter than a sentence.
const BEGINNING_LINES: i64 = 6;

/// Where a list goes on: behind a session. Callers pass its text back.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    id: SessionId,
    key: Key,
}

/// What a list is ordered by, besides the id.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    Newest,
    Oldest,
    /// The length in seconds, below 0 if it isn't known.
    Longest(f64),
    /// The folded title.
    Title(String),
}

/// Why a text isn't a cursor in the wanted order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCursor {
    /// It isn't a cursor at all.
    Unreadable,
    /// It is one in this other order.
    Of(Order),
}

/// The length of a session whose length isn't known, which comes after all others.
const UNKNOWN_LENGTH: f64 = -1.0;

impl Cursor {
    /// Behind this session.
    #[must_use]
    pub fn behind(session: &Session, order: Order) -> Self {
        let key = match order {
            Order::Newest => Key::Newest,
            Order::Oldest => Key::Oldest,
            Order::Longest => Key::Longest(session.status.duration_total.unwrap_or(UNKNOWN_LENGTH)),
            Order::Title => Key::Title(fold(session.title.as_str())),
        };
        Self { id: session.id, key }
    }

    /// Reads a cursor in the wanted order.
    ///
    /// # Errors
    /// If the text isn't one, or belongs to another order.
    pub fn parse(text: &str, wanted: Order) -> Result<Self, InvalidCursor> {
        let cursor = Self::read(text).ok_or(InvalidCursor::Unreadable)?;
        let order = cursor.order();
        if order == wanted { Ok(cursor) } else { Err(InvalidCursor::Of(order)) }
    }

    fn read(text: &str) -> Option<Self> {
        // The newest come first in releases that have no other order, whose cursor is only the id.
        let Some((order, rest)) = text.split_once('.') else {
            return Some(Self { id: text.parse().ok()?, key: Key::Newest });
        };
        let (key, id) = rest.rsplit_once('.').unwrap_or(("", rest));
        let key = match order.parse().ok()? {
            Order::Newest => return None,
            Order::Oldest => Key::Oldest,
            Order::Longest => {
                let length = f64::from_bits(u64::from_str_radix(key, 16).ok()?);
                Key::Longest(Some(length).filter(|length| length.is_finite())?)
            }
            Order::Title => {
                let title = String::from_utf8(BASE64URL_NOPAD.decode(key.as_bytes()).ok()?).ok()?;
                // PostgreSQL's texts can't have this character.
                Key::Title(Some(title).filter(|title| !title.contains('\0'))?)
            }
        };
        Some(Self { id: id.parse().ok()?, key })
    }

    fn order(&self) -> Order {
        match self.key {
            Key::Newest => Order::Newest,
            Key::Oldest => Order::Oldest,
            Key::Longest(_) => Order::Longest,
            Key::Title(_) => Order::Title,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (order, id) = (self.order().as_str(), self.id);
        match &self.key {
            Key::Newest => write!(f, "{id}"),
            Key::Oldest => write!(f, "{order}.{id}"),
            Key::Longest(length) => write!(f, "{order}.{:x}.{id}", length.to_bits()),
            Key::Title(title) => write!(f, "{order}.{}.{id}", BASE64URL_NOPAD.encode(title.as_bytes())),
        }
    }
}

/// Begins a statement for this database.
fn begin<DB: Database>(_: &Pool<DB>, sql: &'static str) -> QueryBuilder<DB> {
    QueryBuilder::new(sql)
}

/// Adds the conditions of a filter to a statement on `sessions s`. `tags`: what the filter's language is stored as.
fn push_conditions<DB: Database>(query: &mut QueryBuilder<DB>, owner: &Owner, filter: &Filter, tags: &[String])
where
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    query.push(" WHERE s.owner = ").push_bind(owner.as_str().to_owned());
    if !filter.query.is_empty() {
        query.push(" AND s.title_folded LIKE ").push_bind(contains_pattern(&fold(&filter.query))).push(" ESCAPE '\\'");
    }
    if let Some(condition) = filter.condition {
        let names = condition.states().iter().map(|state| state.as_str().to_owned());
        push_list(query, " AND s.status IN (", names);
    }
    if filter.language.is_some() {
        push_list(query, " AND COALESCE(s.language, s.detected_language, '') IN (", tags.iter().cloned());
    }
    if let Some(at) = filter.created_after() {
        query.push(" AND s.created_at >= ").push_bind(at.0);
    }
    if let Some(at) = filter.created_before() {
        query.push(" AND s.created_at <= ").push_bind(at.0);
    }
}

/// Adds a list of texts, which may not be empty, and closes the parenthesis before it.
fn push_list<DB: Database>(query: &mut QueryBuilder<DB>, before: &'static str, texts: impl Iterator<Item = String>)
where
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    query.push(before);
    let mut list = query.separated(", ");
    texts.for_each(|text| {
        list.push_bind(text);
    });
    query.push(")");
}

/// Adds the order, and the condition that only what comes behind a cursor is wanted. `title`: the folded title, to be compared
/// character by character.
fn push_order<DB: Database>(query: &mut QueryBuilder<DB>, order: Order, behind: Option<&Cursor>, title: &'static str)
where
    String: for<'q> Encode<'q, DB> + Type<DB>,
    f64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let length = format!("COALESCE(s.duration_total, {UNKNOWN_LENGTH:?})");
    if let Some(Cursor { id, key }) = behind {
        let id = id.to_string();
        match key {
            Key::Newest => query.push(" AND s.id < ").push_bind(id),
            Key::Oldest => query.push(" AND s.id > ").push_bind(id),
            Key::Longest(than) => query
                .push(format_args!(" AND ({length}, s.id) < ("))
                .push_bind(*than)
                .push(", ")
                .push_bind(id)
                .push(")"),
            Key::Title(than) => query
                .push(format_args!(" AND ({title}, s.id) > ("))
                .push_bind(than.clone())
                .push(", ")
                .push_bind(id)
                .push(")"),
        };
    }
    match order {
        Order::Newest => query.push(" ORDER BY s.id DESC"),
        Order::Oldest => query.push(" ORDER BY s.id"),
        Order::Longest => query.push(format_args!(" ORDER BY {length} DESC, s.id DESC")),
        Order::Title => query.push(format_args!(" ORDER BY {title}, s.id")),
    };
}

/// A language tag without its region, in one form for all ways to write it.
fn language_of(tag: &str) -> String {
    languages::base(tag).map_or_else(|| languages::code(tag), str::to_owned)
}

impl Store {
    /// Lists the owner's sessions that a filter lets through, in its order, from behind a cursor on. Titles are compared as
    /// `fold` defines.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(
        &self,
        owner: &Owner,
        filter: &Filter,
        behind: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<Session>, sqlx::Error> {
        let Some(tags) = self.tags_of(owner, filter).await? else { return Ok(Vec::new()) };
        let rows: Vec<SessionRow> = on!(self, |pool| {
            let mut query = begin(pool, concat!("SELECT ", session_columns!(), " FROM sessions s"));
            push_conditions(&mut query, owner, filter, &tags);
            push_order(&mut query, filter.order, behind, pool.pick("s.title_folded", "s.title_folded COLLATE \"C\""));
            query.push(" LIMIT ").push_bind(i64::from(limit));
            query.build_query_as().fetch_all(pool).await
        })?;
        rows.into_iter().map(|row| row.into_session().map(|(session, _)| session)).collect()
    }

    /// Lists the sessions among them that run or wait: first those that run, then the others by their turn.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn active(&self, owner: &Owner, filter: &Filter, limit: u32) -> Result<Vec<Session>, sqlx::Error> {
        let Some(tags) = self.tags_of(owner, filter).await? else { return Ok(Vec::new()) };
        let rows: Vec<SessionRow> = on!(self, |pool| {
            let mut query = begin(pool, concat!("SELECT ", session_columns!(), " FROM sessions s"));
            push_conditions(&mut query, owner, filter, &tags);
            query.push(concat!(" AND s.status IN ", state!(active)));
            query.push(concat!(" ORDER BY CASE WHEN s.status = ", state!(processing), " THEN 0 ELSE 1 END"));
            query.push(", s.turn, s.queued_at, s.id LIMIT ").push_bind(i64::from(limit));
            query.build_query_as().fetch_all(pool).await
        })?;
        rows.into_iter().map(|row| row.into_session().map(|(session, _)| session)).collect()
    }

    /// Returns which of these sessions the owner has and the filter lets through, whatever its order.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fitting(
        &self,
        owner: &Owner,
        filter: &Filter,
        ids: &[SessionId],
    ) -> Result<Vec<SessionId>, sqlx::Error> {
        let Some(tags) = self.tags_of(owner, filter).await?.filter(|_| !ids.is_empty()) else { return Ok(Vec::new()) };
        let rows: Vec<(String,)> = on!(self, |pool| {
            let mut query = begin(pool, "SELECT s.id FROM sessions s");
            push_conditions(&mut query, owner, filter, &tags);
            push_list(&mut query, " AND s.id IN (", ids.iter().map(ToString::to_string));
            query.build_query_as().fetch_all(pool).await
        })?;
        rows.into_iter().map(|(id,)| values::parse(&id)).collect()
    }

    /// What the filter's language is stored as; none if no session of the owner has it.
    async fn tags_of(&self, owner: &Owner, filter: &Filter) -> Result<Option<Vec<String>>, sqlx::Error> {
        let Some(wanted) = filter.language.as_deref().map(language_of) else { return Ok(Some(Vec::new())) };
        let mut tags = self.tags(owner).await?;
        tags.retain(|tag| language_of(tag) == wanted);
        Ok(Some(tags).filter(|tags| !tags.is_empty()))
    }

    async fn tags(&self, owner: &Owner) -> Result<Vec<String>, sqlx::Error> {
        let rows: Vec<(String,)> = on!(self, |pool| sqlx::query_as(
            "SELECT DISTINCT COALESCE(language, detected_language, '') FROM sessions WHERE owner = $1"
        )
        .bind(owner.as_str())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(|(tag,)| tag).filter(|tag| !tag.is_empty()).collect())
    }

    /// Returns the languages that the owner's sessions have, requested or found: tags without regions, each once.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn languages(&self, owner: &Owner) -> Result<Vec<String>, sqlx::Error> {
        let mut tags: Vec<String> = self.tags(owner).await?.iter().map(|tag| language_of(tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// Returns the first words of these sessions' texts: about 120 characters, with an ellipsis if there are more. A session
    /// without a text is left out.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn beginnings(&self, sessions: &[&Session]) -> Result<HashMap<SessionId, String>, sqlx::Error> {
        let with_text = sessions.iter().filter(|session| session.status.lines() > 0);
        // Each once: a session that is given twice, as running and as one of a page, would have each of its lines twice.
        let wanted: BTreeMap<_, _> =
            with_text.map(|session| (session.id.to_string(), i64::from(session.status.first_segment))).collect();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        // Two more, so that what was cut off can be told.
        let chars = (BEGINNING + 2) as i64;
        let rows: Vec<(String, String)> = on!(self, |pool| {
            let mut query = begin(pool, "WITH wanted (id, first_idx) AS (");
            query.push_values(&wanted, |mut row, (id, first)| {
                row.push_bind(id.clone()).push_bind(*first);
            });
            // A cross join, so that SQLite looks the lines up by their key, whatever its figures of the tables say.
            query.push(") SELECT g.session_id, substr(g.text, 1, CAST(").push_bind(chars);
            query.push(" AS INTEGER)) FROM wanted w CROSS JOIN segments g WHERE g.session_id = w.id");
            query.push(" AND g.idx >= w.first_idx AND g.idx < w.first_idx + ").push_bind(BEGINNING_LINES);
            query.push(" ORDER BY g.session_id, g.idx");
            query.build_query_as().fetch_all(pool).await
        })?;
        let mut beginnings: HashMap<SessionId, String> = HashMap::new();
        for (id, text) in rows {
            let beginning = beginnings.entry(values::parse(&id)?).or_default();
            if !beginning.is_empty() {
                beginning.push(' ');
            }
            beginning.push_str(text.trim());
        }
        beginnings.values_mut().for_each(|beginning| *beginning = shortened(beginning));
        beginnings.retain(|_, beginning| !beginning.is_empty());
        Ok(beginnings)
    }
}

/// The first words of a text.
fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((cut, _)) = text.char_indices().nth(BEGINNING) else { return text };
    let start = &text[..cut];
    // A text without spaces is cut anywhere.
    let words = start.rfind(' ').filter(|_| !text[cut..].starts_with(' ')).map_or(start, |space| &start[..space]);
    format!("{words} …")
}

/// Returns a LIKE pattern that finds a text anywhere, with its wildcards escaped.
pub(super) fn contains_pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn a_place_is_read_from_its_text(id in any::<u128>(), length in -1.0..1e9_f64, title in "[^\0]*") {
            let id = SessionId(Uuid::from_u128(id));
            for key in [Key::Newest, Key::Oldest, Key::Longest(length), Key::Title(title)] {
                let cursor = Cursor { id, key };
                for order in Order::ALL {
                    let read = Cursor::parse(&cursor.to_string(), order);
                    let expected = if order == cursor.order() { Ok(cursor.clone()) } else { Err(InvalidCursor::Of(cursor.order())) };
                    prop_assert_eq!(read, expected);
                }
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in any::<String>()) {
            if let Some(cursor) = Cursor::read(&text) {
                prop_assert_eq!(Cursor::read(&cursor.to_string()), Some(cursor));
            }
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let id = "019ab1c2-0000-7000-8000-000000000001";
        for text in ["x", "", "oldest.", "newest.019ab1c2-0000-7000-8000-000000000001", "none.1.2"] {
            assert_eq!(Cursor::parse(text, Order::Newest), Err(InvalidCursor::Unreadable), "{text}");
        }
        // Not a number, and a character that PostgreSQL refuses.
        for text in [format!("longest.7ff8000000000000.{id}"), format!("longest.{id}"), format!("title.AA.{id}")] {
            assert_eq!(Cursor::read(&text), None, "{text}");
        }
    }

    #[test]
    fn a_beginning_ends_with_a_word() {
        assert_eq!(shortened(" one \n two "), "one two");
        let exact = format!("{} {}", "a".repeat(60), "b".repeat(59));
        assert_eq!(shortened(&exact), exact);
        assert_eq!(shortened(&format!("{exact} c")), format!("{exact} …"));
        assert_eq!(shortened(&format!("{exact}bb")), format!("{} …", "a".repeat(60)));
        assert_eq!(shortened(&"天".repeat(130)), format!("{} …", "天".repeat(120)));
    }
}
