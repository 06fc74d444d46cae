//! The use cases of lists: the owner's sessions, filtered and in order, what a search finds in their texts, and what is done to
//! several at once. Called by `http` and `pages`.

use super::{
    address::ClientAddress,
    error::Error,
    found,
    owner::Owner,
    sessions::Sessions,
    speech::languages,
    store::{Cursor, InvalidCursor, MAX_PAGE, PAGE, TextQuery},
};
use crate::model::{
    Filter, Order, SearchPage, Session, SessionId, SessionPage, Title,
    many::{ManyAction, Outcome},
    page::{LanguageInfo, ListedSession, SessionList},
};

/// How many sessions a page of a search in their texts has by default, and at the most.
const SEARCH_PAGE: u32 = 20;
pub const MAX_SEARCH_PAGE: u32 = 50;
/// How many pages of a search are looked through for sessions that a filter lets through, for one page that is shown.
const MAX_SEARCHES: usize = 10;

fn unreadable() -> Error {
    Error::BadRequest("The cursor must be the next_cursor of an earlier page.".to_owned())
}

fn parse_cursor(cursor: Option<&str>, order: Order) -> Result<Option<Cursor>, Error> {
    let cursor = cursor.filter(|cursor| !cursor.is_empty()).map(|cursor| Cursor::parse(cursor, order)).transpose();
    cursor.map_err(|error| match error {
        InvalidCursor::Unreadable => unreadable(),
        InvalidCursor::Of(other) => Error::BadRequest(format!(
            "This cursor belongs to the order '{}', and the request asks for '{}'. Ask for the same order, or begin without a \
             cursor.",
            other.as_str(),
            order.as_str()
        )),
    })
}

impl Sessions {
    /// The owner's sessions that a filter lets through, in its order.
    ///
    /// # Errors
    /// If the cursor isn't valid in this order, or the store fails.
    pub async fn list(
        &self,
        owner: &Owner,
        filter: &Filter,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<SessionPage, Error> {
        let behind = parse_cursor(cursor, filter.order)?;
        let limit = limit.unwrap_or(PAGE).min(MAX_PAGE);
        let query = filter.query.trim().chars().take(Title::MAX_CHARS).collect();
        let filter = Filter { query, ..filter.clone() };
        let mut sessions = self.store.list(owner, &filter, behind.as_ref(), limit + 1).await?;
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let last = sessions.last().filter(|_| more);
        let next_cursor = last.map(|last| Cursor::behind(last, filter.order).to_string());
        Ok(SessionPage { sessions, next_cursor })
    }

    /// The owner's sessions whose text has what is searched, newest first.
    ///
    /// # Errors
    /// If the cursor isn't valid, or the store fails.
    pub async fn search(
        &self,
        owner: &Owner,
        query: &str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<SearchPage, Error> {
        let before: Option<SessionId> =
            cursor.filter(|c| !c.is_empty()).map(str::parse).transpose().map_err(|_| unreadable())?;
        let limit = limit.unwrap_or(SEARCH_PAGE).min(MAX_SEARCH_PAGE) as usize;
        let query: String = query.chars().take(Title::MAX_CHARS).collect();
        let (sessions, more) = self.store.search(owner, &TextQuery::parse(&query), before, limit).await?;
        let next_cursor = if more { sessions.last().map(|found| found.session_id.to_string()) } else { None };
        Ok(SearchPage { sessions, next_cursor })
    }

    /// What the page of sessions shows. `cursor`: of its rows; `older`: of what a search has found in texts.
    ///
    /// # Errors
    /// If a cursor isn't valid, or the store fails.
    pub async fn list_page(
        &self,
        owner: &Owner,
        filter: &Filter,
        cursor: Option<&str>,
        older: Option<&str>,
    ) -> Result<SessionList, Error> {
        let is_first = cursor.is_none();
        let page = self.list(owner, filter, cursor, None).await?;
        let active = match filter.condition {
            None if is_first => self.store.active(owner, filter, MAX_PAGE).await?,
            _ => Vec::new(),
        };
        let all: Vec<&Session> = active.iter().chain(&page.sessions).collect();
        let beginnings = self.store.beginnings(&all).await?;
        let listed = |session: Session| {
            let beginning = beginnings.get(&session.id).cloned().unwrap_or_default();
            ListedSession { session, beginning }
        };
        let searches = !filter.query.is_empty() && (is_first || older.is_some());
        let found = if searches { self.found(owner, filter, older).await? } else { SearchPage::default() };
        Ok(SessionList {
            address: String::new(),
            active: active.into_iter().map(listed).collect(),
            sessions: page.sessions.into_iter().map(listed).collect(),
            next_cursor: page.next_cursor,
            languages: self.languages(owner).await?,
            found: found::html(filter, &found),
            found_lines: found.sessions.iter().map(|session| session.hits.len()).sum(),
            found_more: found.next_cursor.is_some() || found.sessions.iter().any(|session| session.more),
        })
    }

    /// The languages of the owner's sessions, by name.
    async fn languages(&self, owner: &Owner) -> Result<Vec<LanguageInfo>, Error> {
        let named = |tag: String| {
            let name = languages::name(&tag).map_or_else(|| tag.clone(), str::to_owned);
            LanguageInfo { tag, name }
        };
        let mut languages: Vec<_> = self.store.languages(owner).await?.into_iter().map(named).collect();
        languages.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(languages)
    }

    /// What a search has found in the texts of the sessions that the filter lets through.
    async fn found(&self, owner: &Owner, filter: &Filter, older: Option<&str>) -> Result<SearchPage, Error> {
        let mut found = self.search(owner, &filter.query, older, None).await?;
        if filter.conditions() > 0 {
            let others = Filter { query: String::new(), ..filter.clone() };
            self.keep_fitting(owner, &others, &mut found).await?;
            for _ in 1..MAX_SEARCHES {
                let Some(cursor) = found.next_cursor.take_if(|_| found.sessions.is_empty()) else { break };
                found = self.search(owner, &filter.query, Some(&cursor), None).await?;
                self.keep_fitting(owner, &others, &mut found).await?;
            }
        }
        Ok(found)
    }

    /// Does the same to several of the owner's sessions, and returns what became of each.
    ///
    /// # Errors
    /// If there are none or too many. What fails for one of them is in its outcome.
    pub async fn act_on(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        action: ManyAction,
        ids: &[SessionId],
    ) -> Result<Vec<Outcome>, Error> {
        match ids.len() {
            0 => return Err(Error::BadRequest("Select at least one session.".to_owned())),
            n if n > ManyAction::MAX_SESSIONS => {
                return Err(Error::BadRequest(format!(
                    "{n} sessions are too many for one request; select {} at the most.",
                    ManyAction::MAX_SESSIONS
                )));
            }
            _ => {}
        }
        let mut outcomes = Vec::with_capacity(ids.len());
        for &id in ids {
            let done = match action {
                ManyAction::Retry => self.retry(owner, address, id).await.map(Some),
                ManyAction::Cancel => self.cancel(owner, id).await.map(Some),
                ManyAction::Delete => self.delete(owner, id).await.map(|()| None),
            };
            let (session, error) = match done {
                Ok(session) => (session, None),
                Err(error) => (None, Some(error.public())),
            };
            outcomes.push(Outcome { id, session, error });
        }
        Ok(outcomes)
    }

    async fn keep_fitting(&self, owner: &Owner, filter: &Filter, found: &mut SearchPage) -> Result<(), Error> {
        let ids: Vec<SessionId> = found.sessions.iter().map(|found| found.session_id).collect();
        let fitting = self.store.fitting(owner, filter, &ids).await?;
        found.sessions.retain(|found| fitting.contains(&found.session_id));
        Ok(())
    }
}
