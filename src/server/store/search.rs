//! The search in the texts of an owner's sessions. SQLite has an index of its own (FTS5), which triggers keep; PostgreSQL has
//! one of the words of each text. Both find a segment as soon as it is stored. Called by `sessions`.

use super::{Db, Dialect, Store, fold::fold, values};
use crate::{
    model::{FoundSession, SearchHit, SessionId, Timestamp},
    server::owner::Owner,
};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// How many lines of a session are returned.
const HITS: usize = 3;
/// How many rows are read at once. A session with more of them costs a query of its own.
const BATCH: usize = 200;
/// How many words of a query count: more narrow nothing down.
const MAX_WORDS: usize = 16;
/// From how many characters on the last word of a query also finds longer ones. Too many words begin with fewer.
const PREFIX_CHARS: usize = 4;
/// In how many of the newest sessions a text is searched that the indexes don't have: of signs, or of a script without
/// spaces.
const SCANNED_SESSIONS: i64 = 500;
/// How much of a line stands before and after what was found, in characters.
const BEFORE: usize = 60;
const AFTER: usize = 120;

/// What is searched, made of any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextQuery {
    /// Lines with all of these, each of which is one word, or several in this order.
    Words { phrases: Vec<Vec<String>>, prefix: bool },
    /// Lines that contain this, because it has no words that an index could have.
    Scan(String),
    /// Nothing is found.
    Nothing,
}

impl TextQuery {
    /// Reads what somebody typed. Words in quotes belong together; other signs have no meaning, so no text is wrong.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text: String = text.nfc().filter(|c| *c != '\0').collect();
        let text = text.trim();
        if text.is_empty() {
            return Self::Nothing;
        }
        if text.chars().any(has_no_spaces) || !text.chars().any(is_of_word) {
            return Self::Scan(text.to_owned());
        }
        let mut phrases = Vec::new();
        let mut left = MAX_WORDS;
        let mut open = false;
        for part in text.split(['"', '“', '”', '„', '«', '»']) {
            // Some signs are several words once they are folded.
            let part = fold(part);
            let words: Vec<String> = spans(&part).map(|(from, to)| part[from..to].to_owned()).take(left).collect();
            left -= words.len();
            if open && !words.is_empty() {
                phrases.push(words);
            } else {
                phrases.extend(words.into_iter().map(|word| vec![word]));
            }
            open = !open;
        }
        // What is still being typed.
        let unfinished = text.chars().last().is_some_and(is_of_word);
        let last = phrases.last().and_then(|phrase| phrase.last());
        let prefix = unfinished && last.is_some_and(|word| word.chars().count() >= PREFIX_CHARS);
        Self::Words { phrases, prefix }
    }

    /// The query in the language of FTS5, for rows with the owner's word.
    fn for_sqlite(&self, owner: &Owner) -> String {
        let Self::Words { phrases, prefix } = self else { return String::new() };
        let phrases = phrases.iter().map(|phrase| format!(" AND \"{}\"", phrase.join(" ")));
        let end = if *prefix { " *" } else { "" };
        // The word of the owner, as the triggers write it. Its id is a number, so it has no quotes.
        format!("\"\u{e000}{}\"{}{end}", owner.as_str().replace('"', ""), phrases.collect::<String>())
    }

    /// The query in the language of `to_tsquery`.
    fn for_postgres(&self) -> String {
        let Self::Words { phrases, prefix } = self else { return String::new() };
        let phrase = |words: &Vec<String>| {
            let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            words.join(" <-> ")
        };
        let end = if *prefix { ":*" } else { "" };
        format!("{}{end}", phrases.iter().map(phrase).collect::<Vec<_>>().join(" & "))
    }

    /// The place in a line that is shown as what was found.
    fn place(&self, text: &str) -> (usize, usize) {
        match self {
            Self::Scan(wanted) => text.find(wanted.as_str()).map(|at| (at, at + wanted.len())),
            Self::Words { phrases, prefix } => {
                let begun = if *prefix { phrases.last().and_then(|phrase| phrase.last()) } else { None };
                let fits = |word: &str| {
                    let word = fold(word);
                    phrases.iter().flatten().any(|wanted| *wanted == word)
                        || begun.is_some_and(|begun| word.starts_with(begun.as_str()))
                };
                spans(text).find(|(from, to)| fits(&text[*from..*to]))
            }
            Self::Nothing => None,
        }
        .unwrap_or((0, 0))
    }
}

/// Whether a character is part of a word, as both indexes see it.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c)
}

/// Whether a character belongs to a script that puts no spaces between words.
fn has_no_spaces(c: char) -> bool {
    // Thai, Lao, Burmese and Khmer; Chinese and Japanese.
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Where the words of a text are.
fn spans(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let from = rest + text[rest..].find(is_of_word)?;
        let to = text[from..].find(|c| !is_of_word(c)).map_or(text.len(), |length| from + length);
        rest = to;
        Some((from, to))
    })
}

/// A row of what was found.
#[derive(sqlx::FromRow)]
struct FoundRow {
    session_id: String,
    title: String,
    created_at: i64,
    idx: i64,
    start_s: f64,
    text: String,
}

impl FoundRow {
    fn into_hit(self, query: &TextQuery) -> SearchHit {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (from, to) = query.place(&text);
        SearchHit {
            index: values::to_u32(self.idx),
            start: self.start_s,
            before: shorten_start(&text[..from]),
            found: text[from..to].to_owned(),
            after: shorten_end(&text[to..]),
        }
    }
}

/// The end of a text, from a word on.
fn shorten_start(text: &str) -> String {
    let Some((cut, _)) = text.char_indices().rev().nth(BEFORE) else { return text.to_owned() };
    let end = &text[cut..];
    let from = end.find(' ').map_or(0, |space| space + 1);
    format!("… {}", &end[from..])
}

/// The start of a text, up to a word.
fn shorten_end(text: &str) -> String {
    let Some((cut, _)) = text.char_indices().nth(AFTER) else { return text.to_owned() };
    let start = &text[..cut];
    format!("{} …", &start[..start.rfind(' ').unwrap_or(cut)])
}

/// What belongs to each row is looked up by subqueries of one table, and not joined: the planner's figures may be of a time when
/// there was one session, and then it goes through whole tables for each row instead of asking their keys.
const SQLITE: &str = "WITH found AS MATERIALIZED (SELECT r, (SELECT session_id FROM search_sessions WHERE num = r >> 24) AS id, \
     16777215 - (r & 16777215) AS line FROM (\
     SELECT rowid AS r FROM segment_search WHERE segment_search MATCH $1 AND rowid < CASE WHEN $2 = '' \
     THEN 9223372036854775807 ELSE COALESCE((SELECT num FROM search_sessions WHERE session_id = $2), \
     (SELECT MAX(num) + 1 FROM search_sessions WHERE session_id < $2), 0) << 24 END ORDER BY rowid DESC LIMIT $3)) \
     SELECT f.id AS session_id, (SELECT title FROM sessions WHERE id = f.id) AS title, \
     (SELECT created_at FROM sessions WHERE id = f.id) AS created_at, f.line AS idx, \
     (SELECT start_s FROM segments WHERE session_id = f.id AND idx = f.line) AS start_s, \
     (SELECT text FROM segments WHERE session_id = f.id AND idx = f.line) AS text \
     FROM found f WHERE (SELECT owner FROM sessions WHERE id = f.id) = $4 ORDER BY f.r DESC";

const POSTGRES: &str = "SELECT g.session_id, s.title, s.created_at, g.idx, g.start_s, g.text FROM segments g \
     JOIN sessions s ON s.id = g.session_id WHERE s.owner = $4 \
     AND search_words(g.text) @@ to_tsquery('pg_catalog.simple', $1) AND ($2 = '' OR g.session_id < $2) \
     ORDER BY g.session_id DESC, g.idx LIMIT $3";

const SCAN: &str = "SELECT g.session_id, s.title, s.created_at, g.idx, g.start_s, g.text FROM sessions s \
     JOIN segments g ON g.session_id = s.id WHERE s.owner = $4 AND s.id IN (SELECT id FROM sessions \
     WHERE owner = $4 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $5) AND g.text LIKE $1 ESCAPE '\\' \
     ORDER BY g.session_id DESC, g.idx LIMIT $3";

impl Store {
    /// Finds sessions of this owner whose text fits, newest first, added before `before`. Returns at most `limit`, and
    /// whether there are more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn search(
        &self,
        owner: &Owner,
        query: &TextQuery,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<(Vec<FoundSession>, bool), sqlx::Error> {
        let mut found: Vec<FoundSession> = Vec::new();
        let mut before = before.map(|id| id.to_string()).unwrap_or_default();
        loop {
            let rows = self.search_rows(owner, query, &before).await?;
            let is_last = rows.len() < BATCH;
            // The last session may have more rows than were read.
            let last = rows.last().map(|row| row.session_id.clone()).unwrap_or_default();
            let of_last = rows.iter().filter(|row| row.session_id == last).count();
            let again = !is_last && of_last <= HITS;
            for row in rows {
                if again && row.session_id == last {
                    break;
                }
                let session_id: SessionId = values::parse(&row.session_id)?;
                match found.last_mut().filter(|session| session.session_id == session_id) {
                    Some(session) if session.hits.len() < HITS => session.hits.push(row.into_hit(query)),
                    Some(session) => session.more = true,
                    None => {
                        let (title, created_at) = (row.title.clone(), Timestamp(row.created_at));
                        let hits = vec![row.into_hit(query)];
                        found.push(FoundSession { session_id, title, created_at, hits, more: false });
                    }
                }
            }
            if is_last || found.len() > limit {
                let more = found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            before = found.last().map(|session| session.session_id.to_string()).unwrap_or_default();
        }
    }

    /// Returns the next lines that fit, as many as one batch has, in the order of sessions and lines.
    async fn search_rows(&self, owner: &Owner, query: &TextQuery, before: &str) -> Result<Vec<FoundRow>, sqlx::Error> {
        on!(self, |pool| match query {
            TextQuery::Nothing => Ok(Vec::new()),
            TextQuery::Words { .. } => {
                let wanted = match &self.db {
                    Db::Sqlite(_) => query.for_sqlite(owner),
                    Db::Postgres(_) => query.for_postgres(),
                };
                sqlx::query_as(pool.pick(SQLITE, POSTGRES))
                    .bind(wanted)
                    .bind(before)
                    .bind(BATCH as i64)
                    .bind(owner.as_str())
                    .fetch_all(pool)
                    .await
            }
            TextQuery::Scan(text) => {
                sqlx::query_as(SCAN)
                    .bind(super::list::contains_pattern(text))
                    .bind(before)
                    .bind(BATCH as i64)
                    .bind(owner.as_str())
                    .bind(SCANNED_SESSIONS)
                    .fetch_all(pool)
                    .await
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::store::sqlite;
    use proptest::prelude::*;

    fn words(phrases: &[&[&str]], prefix: bool) -> TextQuery {
        let phrase = |words: &&[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        TextQuery::Words { phrases: phrases.iter().map(phrase).collect(), prefix }
    }

    #[test]
    fn any_text_is_a_query() {
        for (text, expected) in [
            ("", TextQuery::Nothing),
            (" \0 ", TextQuery::Nothing),
            ("Apple TREE", words(&[&["apple"], &["tree"]], true)),
            ("tree ", words(&[&["tree"]], true)),
            ("tree.", words(&[&["tree"]], false)),
            ("the", words(&[&["the"]], false)),
            ("say \"old gate\" now!", words(&[&["say"], &["old", "gate"], &["now"]], false)),
            ("\"old gate", words(&[&["old", "gate"]], true)),
            ("don't AND NOT (x* OR y)", words(&[&["don"], &["t"], &["and"], &["not"], &["x"], &["or"], &["y"]], false)),
            ("E\u{301}cole", words(&[&["école"]], true)),
            ("हिन्दी", words(&[&["हिन्दी"]], true)),
            ("ﷺ", words(&[&["صلى"], &["الله"], &["عليه"], &["وسلم"]], true)),
            ("😀 !", TextQuery::Scan("😀 !".to_owned())),
            ("50% 天気", TextQuery::Scan("50% 天気".to_owned())),
        ] {
            assert_eq!(TextQuery::parse(text), expected, "{text}");
        }
        let TextQuery::Words { phrases, .. } = TextQuery::parse(&"word ".repeat(100)) else { panic!() };
        assert_eq!(phrases.len(), MAX_WORDS);
    }

    #[tokio::test]
    async fn old_figures_of_the_planner_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hark.sqlite");
        sqlite::migrate_at(&file).await.unwrap();
        let open = || async { sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap() };
        let pool = open().await;
        // As they are after a stop with one session.
        let figures = "ANALYZE; INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('sessions', 'sessions_by_turn', '1 1 1 1 1'), \
             ('sessions', 'sessions_by_owner', '1 1 1'), ('sessions', 'sqlite_autoindex_sessions_1', '1 1'), \
             ('search_sessions', 'sqlite_autoindex_search_sessions_1', '1 1'), ('segments', 'segments', '2 2 1')";
        sqlx::raw_sql(figures).execute(&pool).await.unwrap();
        pool.close().await;
        let query = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {SQLITE}"));
        let plan = sqlx::query_as(query).bind("x").bind("").bind(1).bind("o").fetch_all(&open().await).await.unwrap();
        let steps = plan.into_iter().map(|(_, _, _, step): (i64, i64, i64, String)| step);
        // Every row of what was found is read, and none of a table.
        let mut scans = steps.filter(|step| step.starts_with("SCAN ") && !step.contains("VIRTUAL"));
        assert!(scans.all(|step| step == "SCAN f" || step.starts_with("SCAN (subquery")));
    }

    #[test]
    fn a_hit_is_shown_with_the_words_around_it() {
        let hit = |text: &str, query: &str| {
            let row = FoundRow {
                session_id: String::new(),
                title: String::new(),
                created_at: 0,
                idx: 0,
                start_s: 1.5,
                text: text.to_owned(),
            };
            let hit = row.into_hit(&TextQuery::parse(query));
            format!("{}[{}]{}", hit.before, hit.found, hit.after)
        };
        assert_eq!(hit("The old  GATE stood open.", "gate"), "The old [GATE] stood open.");
        assert_eq!(hit("The gates stood.", "gates gate"), "The [gates] stood.");
        assert_eq!(hit("今日は天気", "天気"), "今日は[天気]");
        let long = format!("{}gate{}", "before ".repeat(20), " after".repeat(40));
        let shown = hit(&long, "gate");
        assert!(shown.starts_with("… before ") && shown.contains("[gate]") && shown.ends_with(" after …"), "{shown}");
        assert!(shown.chars().count() < BEFORE + AFTER + 12, "{shown}");
        // An index may find what isn't the same letter by letter.
        assert_eq!(hit("something else", "gate"), "[]something else");
    }

    proptest! {
        #[test]
        fn queries_never_leave_their_quotes(text in any::<String>()) {
            let owner = Owner::from_store("0123".to_owned());
            let query = TextQuery::parse(&text);
            if let TextQuery::Words { phrases, .. } = &query {
                prop_assert!(phrases.iter().flatten().all(|word| !word.is_empty() && !word.contains(['"', '\'', '\\', ' '])));
                prop_assert_eq!(query.for_sqlite(&owner).matches('"').count(), 2 + 2 * phrases.len());
            }
        }
    }
}
