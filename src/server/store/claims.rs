//! What workers do with sessions: claim them from the queue, write their progress, and end them or put them back.
//! Called by `jobs`.

use super::{Db, Dialect, Store, VERSION_GAP, json_list, rows::SessionRow, segments::words, status, values};
use crate::{
    model::{DetectedLanguage, EngineId, Failure, Segment, Session, SessionId, State, Status, Timestamp},
    server::{event::Event, owner::Owner, speech::languages},
};

/// Claims the next session of the queue (for its order see `queue`) for which `$able`, a subquery on the JSON array `$6`,
/// has what [`ReadyEngine::able`] makes of an engine: the session's engine with its language, which `$language` is without
/// script and region; its engine alone if it has no language; or its engine for every language. The subquery doesn't depend
/// on the session, so that it is read once for the whole queue. `$lock` is appended to the subquery that selects the session.
macro_rules! claim_sql {
    ($able:literal, $language:literal, $lock:literal) => {
        concat!(
            "UPDATE sessions SET status = ",
            state!(processing),
            ", stage = 'decoding', progress = NULL, \
             message = 'Reading the recording', attempt = attempt + 1, version = version + $4, worker = $1, \
             needs_room = NULL, needs_model = NULL, lease_until = $3, started_at = COALESCE(started_at, $2), updated_at = $2, \
             estimated_completion = NULL, processing_speed = NULL \
             WHERE status = ",
            state!(queued),
            " AND id = (SELECT id FROM sessions WHERE status = ",
            state!(queued),
            " AND engine <> ",
            engine!(external),
            " \
             AND (engine || COALESCE(' ' || ",
            $language,
            ", '') IN (",
            $able,
            ") OR engine || ' *' IN (",
            $able,
            ")) AND bytes <= $5 ORDER BY turn, queued_at, id LIMIT 1",
            $lock,
            ") RETURNING id"
        )
    };
}

/// The statement of [`Store::claim`] on SQLite and on PostgreSQL. On PostgreSQL a worker skips rows that another one has
/// locked.
const CLAIM: [&str; 2] = [
    claim_sql!("SELECT value FROM json_each($6)", "lower(substr(language, 1, instr(language || '-', '-') - 1))", ""),
    claim_sql!(
        "SELECT jsonb_array_elements_text(CAST($6 AS jsonb))",
        "lower(split_part(language, '-', 1))",
        " FOR UPDATE SKIP LOCKED"
    ),
];

/// Stores why the sessions of an engine wait whose languages `$languages`, a subquery on the JSON array `$4`, selects.
macro_rules! needs_model_sql {
    ($languages:literal) => {
        concat!(
            "UPDATE sessions SET needs_model = $1, version = version + 1, updated_at = $2 WHERE status = ",
            state!(queued),
            " AND engine = $3 AND needs_model IS DISTINCT FROM $1 AND COALESCE(language, '') IN (",
            $languages,
            ") RETURNING id"
        )
    };
}

/// What people read of a session that fails because its workers stopped, of which the row has counted all but the last.
macro_rules! worker_lost_message {
    () => {
        "'The worker stopped ' || CAST(crashes + 1 AS text) || CASE WHEN crashes = 0 THEN ' time' ELSE ' times' END || \
         ' while working on this recording, so Hark gave up. What was transcribed is kept; Retry goes on from there.'"
    };
}

/// Puts sessions whose lease has run out back into the queue, or fails them after too many crashes, with the reason in the
/// same write: whoever has read a version doesn't read it again. Leaves out those that `$running`, a subquery on the JSON
/// array `$5`, selects.
macro_rules! reap_sql {
    ($running:literal) => {
        concat!(
            "UPDATE sessions SET \
             status = CASE WHEN crashes + 1 >= $3 THEN ",
            state!(failed),
            " ELSE ",
            state!(queued),
            " END, \
             stage = CASE WHEN crashes + 1 >= $3 THEN stage ELSE NULL END, \
             finished_at = CASE WHEN crashes + 1 >= $3 THEN $1 ELSE NULL END, \
             error_code = CASE WHEN crashes + 1 >= $3 THEN 'worker_lost' ELSE NULL END, \
             error_message = CASE WHEN crashes + 1 >= $3 THEN ",
            worker_lost_message!(),
            " ELSE NULL END, \
             message = CASE WHEN crashes + 1 >= $3 THEN ",
            worker_lost_message!(),
            " ELSE message END, \
             progress = CASE WHEN crashes + 1 >= $3 THEN progress ELSE NULL END, \
             address = CASE WHEN crashes + 1 >= $3 THEN NULL ELSE address END, \
             crashes = crashes + 1, version = version + $4, updated_at = $1, worker = NULL, lease_until = NULL, \
             estimated_completion = NULL, processing_speed = NULL \
             WHERE status = ",
            state!(processing),
            " AND engine <> ",
            engine!(external),
            " \
             AND ($2 OR lease_until IS NULL OR lease_until < $1) AND id NOT IN (",
            $running,
            ") RETURNING id"
        )
    };
}

/// The condition on which a worker writes: `$1` is the session and `$2` the attempt of its claim, which is over as soon as
/// the session isn't being processed any more. The attempt alone grows only with the next claim.
macro_rules! is_claimed {
    () => {
        concat!(" id = $1 AND attempt = $2 AND status = ", state!(processing))
    };
}

/// Stores the waveform `$3` of a claimed session. `$lock` is appended to the subquery that selects the session.
macro_rules! save_waveform_sql {
    ($lock:literal) => {
        concat!(
            "INSERT INTO waveforms (session_id, peaks) SELECT id, $3 FROM sessions WHERE",
            is_claimed!(),
            $lock,
            " ON CONFLICT (session_id) DO UPDATE SET peaks = excluded.peaks"
        )
    };
}

/// Runs a statement that writes for a claim, with more parameters from `$3` on. Evaluates to whether the claim is still
/// valid: if it isn't, nothing is written.
macro_rules! write_claimed {
    ($store:expr, $claim:expr, |$pool:ident| $sql:expr $(, $value:expr)*) => {{
        let claim: &Claim = $claim;
        on!($store, |$pool| sqlx::query($sql)
            .bind(claim.session.id.to_string())
            .bind(i64::from(claim.session.status.attempt))
            $(.bind($value))*
            .execute($pool)
            .await
            .map(|done| done.rows_affected() > 0))
    }};
}

/// Writes a claimed session's status if the claim is still valid and the version doesn't fall. Evaluates to whether it
/// did.
macro_rules! save_status {
    ($executor:expr, $claim:expr, $status:expr) => {{
        let (claim, status): (&Claim, &Status) = ($claim, $status);
        let query = sqlx::query(concat!(
            "UPDATE sessions SET segments = $3",
            set_status!(),
            " WHERE",
            is_claimed!(),
            " AND version <= $8"
        ));
        let query = query
            .bind(claim.session.id.to_string())
            .bind(i64::from(claim.session.status.attempt))
            .bind(i64::from(status.segments));
        status::bind(query, status).execute($executor).await.map(|done| done.rows_affected() > 0)
    }};
}

/// The right to work on a session, until the lease runs out or somebody takes it away. Writes with a claim that is no
/// longer valid change nothing, because each is conditional on the attempt and on the session still being processed.
#[derive(Clone, Debug)]
pub struct Claim {
    pub session: Session,
    pub owner: Owner,
    /// How many attempts crashed before this one.
    pub crashes: u32,
}

/// An engine that a worker can use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyEngine {
    pub id: EngineId,
    /// The languages that it knows, by the tags of [`languages::WHISPER`]; none if it may know any.
    pub languages: Option<Vec<String>>,
}

impl ReadyEngine {
    /// An engine that may know any language.
    #[must_use]
    pub fn any(id: EngineId) -> Self {
        Self { id, languages: None }
    }

    /// What it is able to do, in the words of [`claim_sql`]: `whisper` and `whisper de`, or `openai *`.
    fn able(&self) -> Vec<String> {
        let id = self.id;
        let Some(tags) = &self.languages else { return vec![format!("{id} *")] };
        let known = tags.iter().flat_map(|tag| languages::spellings(tag)).map(|tag| format!("{id} {tag}"));
        std::iter::once(id.to_string()).chain(known).collect()
    }
}

/// How an attempt at a claimed session ends.
#[derive(Clone, Debug)]
pub enum Ending {
    Completed,
    Failed(Failure),
    /// Back into the queue without counting a crash, because the worker is shutting down or has no room.
    HandedBack,
}

impl Store {
    /// Claims the next session of the queue whose recording is no larger than `room` bytes and whose engine is among
    /// `engines` and knows its language, if there is one, and leases it to `worker` until `lease_until`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn claim(
        &self,
        worker: &str,
        now: Timestamp,
        lease_until: Timestamp,
        room: u64,
        engines: &[ReadyEngine],
    ) -> Result<Option<(Claim, Event)>, sqlx::Error> {
        let able = json_list(&engines.iter().flat_map(ReadyEngine::able).collect::<Vec<_>>())?;
        let [sqlite, postgres] = CLAIM;
        let row: Option<SessionRow> = on!(self, |pool| {
            // A session that is claimed and can't be read would be without a worker until its lease runs out, and then have
            // one crash more. So both happen or neither.
            let mut tx = pool.begin_write().await?;
            // Selects and updates in one statement, so that no other worker can claim the same session in between.
            let claimed: Option<(String,)> = sqlx::query_as(pool.pick(sqlite, postgres))
                .bind(worker)
                .bind(now.0)
                .bind(lease_until.0)
                .bind(VERSION_GAP)
                .bind(i64::try_from(room).unwrap_or(i64::MAX))
                .bind(&able)
                .fetch_optional(&mut *tx)
                .await?;
            let row = match claimed {
                Some((id,)) => {
                    let row =
                        sqlx::query_as(concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.id = $1"));
                    Some(row.bind(id).fetch_one(&mut *tx).await?)
                }
                None => None,
            };
            tx.commit().await?;
            Ok(row)
        })?;
        let Some(row) = row else { return Ok(None) };
        let crashes = row.crashes();
        let (session, owner) = row.into_session()?;
        let event = Event::status(owner.clone(), session.status.clone());
        Ok(Some((Claim { session, owner, crashes }, event)))
    }

    /// Stores for each queued session whether its recording is larger than `room`, the bytes that a free worker has for
    /// one, so that its page can say what it waits for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_needs_room(&self, room: u64, now: Timestamp) -> Result<Vec<Event>, sqlx::Error> {
        let ids: Vec<(String,)> = on!(self, |pool| {
            sqlx::query_as(concat!(
                "UPDATE sessions SET needs_room = CASE WHEN bytes > $1 THEN bytes END, version = version + 1, \
             updated_at = $2 WHERE status = ",
                state!(queued),
                " AND engine <> ",
                engine!(external),
                " AND (bytes > $1) <> (needs_room IS NOT NULL) RETURNING id"
            ))
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
            .bind(now.0)
            .fetch_all(pool)
            .await
        })?;
        self.events(ids).await
    }

    /// What the queued sessions ask for: their engines, each with the languages as the sessions name them, of which one is
    /// empty if a session names none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn queued_languages(&self) -> Result<Vec<(EngineId, String)>, sqlx::Error> {
        let rows: Vec<(String, String)> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT DISTINCT engine, COALESCE(language, '') AS language FROM sessions WHERE status = ",
            state!(queued),
            " AND engine <> ",
            engine!(external),
            " ORDER BY engine, language"
        ))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|(engine, language)| Ok((values::parse(&engine)?, language))).collect()
    }

    /// Stores for the queued sessions of an engine with one of these languages, as [`Store::queued_languages`] has them, why
    /// no worker can take them, or that one can, so that their pages can say it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_needs_model(
        &self,
        engine: EngineId,
        languages: &[String],
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let languages = json_list(languages)?;
        let ids: Vec<(String,)> = on!(self, |pool| {
            sqlx::query_as(pool.pick(
                needs_model_sql!("SELECT value FROM json_each($4)"),
                needs_model_sql!("SELECT jsonb_array_elements_text(CAST($4 AS jsonb))"),
            ))
            .bind(reason)
            .bind(now.0)
            .bind(engine.as_str())
            .bind(&languages)
            .fetch_all(pool)
            .await
        })?;
        self.events(ids).await
    }

    /// Extends the lease of a claim. False if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn renew(&self, claim: &Claim, lease_until: Timestamp) -> Result<bool, sqlx::Error> {
        let sql = concat!("UPDATE sessions SET lease_until = $3 WHERE", is_claimed!());
        write_claimed!(self, claim, |pool| sql, lease_until.0)
    }

    /// Writes the status of a claimed session. Returns none if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save(&self, claim: &Claim, status: &Status) -> Result<Option<Event>, sqlx::Error> {
        let saved = on!(self, |pool| save_status!(pool, claim, status))?;
        Ok(saved.then(|| Event::status(claim.owner.clone(), status.clone())))
    }

    /// Adds a segment and writes the status that counts it, both or neither. The event carries that status if its
    /// version is `new`; otherwise the next status reports the segment. Returns none if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails, or the segment's index is taken.
    pub async fn append(
        &self,
        claim: &Claim,
        segment: &Segment,
        status: &Status,
        new: bool,
    ) -> Result<Option<Event>, sqlx::Error> {
        let words = words(segment)?;
        let saved = on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            if !save_status!(&mut *tx, claim, status)? {
                return Ok(false);
            }
            insert_segment!(&mut *tx, claim.session.id, segment, &words)?;
            tx.commit().await?;
            Ok(true)
        })?;
        if !saved {
            return Ok(None);
        }
        let owner = claim.owner.clone();
        Ok(Some(if new {
            Event::segment(owner, segment, status.clone())
        } else {
            Event::bare_segment(owner, status.session_id, segment)
        }))
    }

    /// Stores which model transcribes a claimed session. False if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save_model(&self, claim: &Claim, model: &str) -> Result<bool, sqlx::Error> {
        let sql = concat!("UPDATE sessions SET model = $3 WHERE", is_claimed!());
        write_claimed!(self, claim, |pool| sql, model)
    }

    /// Stores the language that the engine of a claimed session has found. False if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save_detected_language(&self, claim: &Claim, found: &DetectedLanguage) -> Result<bool, sqlx::Error> {
        let sql = concat!("UPDATE sessions SET detected_language = $3, detected_probability = $4 WHERE", is_claimed!());
        write_claimed!(self, claim, |pool| sql, &found.language, found.probability.map(f64::from))
    }

    /// Stores the waveform of a claimed session's recording. False if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save_waveform(&self, claim: &Claim, peaks: &[u8]) -> Result<bool, sqlx::Error> {
        // On PostgreSQL, the lock keeps whoever ends the claim waiting until the waveform is there to be deleted.
        write_claimed!(
            self,
            claim,
            |pool| pool.pick(save_waveform_sql!(""), save_waveform_sql!(" FOR NO KEY UPDATE")),
            peaks
        )
    }

    /// Ends the attempt at a claimed session, with `status` as its worker's last one. Returns none if the claim is no
    /// longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end(&self, claim: &Claim, mut status: Status, ending: Ending) -> Result<Option<Event>, sqlx::Error> {
        let now = status.timestamp;
        status.estimated_completion = None;
        let finished_at = match ending {
            Ending::Completed => {
                status.state = State::Completed;
                status.progress = Some(100.0);
                Some(now.0)
            }
            Ending::Failed(failure) => {
                status.state = State::Failed;
                status.message = failure.message.clone();
                status.error = Some(failure);
                Some(now.0)
            }
            Ending::HandedBack => {
                status.state = State::Queued;
                status.stage = None;
                status.progress = None;
                status.processing_speed = None;
                None
            }
        };
        let saved = on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            if !save_status!(&mut *tx, claim, &status)? {
                return Ok(false);
            }
            sqlx::query(concat!(
                "UPDATE sessions SET finished_at = $2, worker = NULL, lease_until = NULL, \
                 address = CASE WHEN status = ",
                state!(queued),
                " THEN address END WHERE id = $1"
            ))
            .bind(claim.session.id.to_string())
            .bind(finished_at)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(true)
        })?;
        // Read back, because the status of a queued session contains its position, which is counted.
        self.event_if(saved, claim.session.id).await
    }

    /// Puts back into the queue every session whose lease ran out before `now`, or with `all` every session that is
    /// being processed: for the start, when no other worker can be running. Leaves out the sessions in `running`, on
    /// which the caller itself works; it knows them without a clock. A session that crashed `max_attempts` times fails.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reap(
        &self,
        now: Timestamp,
        all: bool,
        running: &[SessionId],
        max_attempts: u32,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let running = json_list(running)?;
        let ids: Vec<(String,)> = on!(self, |pool| sqlx::query_as(pool.pick(
            reap_sql!("SELECT value FROM json_each($5)"),
            reap_sql!("SELECT jsonb_array_elements_text(CAST($5 AS jsonb))"),
        ))
        .bind(now.0)
        .bind(all)
        .bind(i64::from(max_attempts))
        .bind(VERSION_GAP)
        .bind(&running)
        .fetch_all(pool)
        .await)?;
        self.events(ids).await
    }

    /// Puts a claimed session back into the queue after its engine crashed, and counts the crash. Returns none if the
    /// claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn requeue_crashed(&self, claim: &Claim, now: Timestamp) -> Result<Option<Event>, sqlx::Error> {
        let sql = concat!(
            "UPDATE sessions SET status = ",
            state!(queued),
            ", stage = NULL, progress = NULL, crashes = crashes + 1, \
             version = version + $3, updated_at = $4, worker = NULL, lease_until = NULL, estimated_completion = NULL, \
             processing_speed = NULL WHERE",
            is_claimed!()
        );
        let changed = write_claimed!(self, claim, |pool| sql, VERSION_GAP, now.0)?;
        self.event_if(changed, claim.session.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Channels, Media, Title},
        server::store::{NewSession, sqlite},
    };
    use std::path::Path;
    use uuid::Uuid;

    #[test]
    fn an_engine_is_able_to_do_its_languages_in_all_their_spellings() {
        let able = |languages: Option<&[&str]>| {
            let languages = languages.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect());
            ReadyEngine { id: EngineId::Whisper, languages }.able()
        };
        assert_eq!(able(None), ["whisper *"]);
        assert_eq!(able(Some(&[])), ["whisper"]);
        assert_eq!(able(Some(&["en", "no"])), ["whisper", "whisper en", "whisper eng", "whisper no", "whisper nb"]);
    }

    /// A database in a folder, and connections of the test's own to it.
    async fn sqlite_store(folder: &Path) -> (Store, sqlx::SqlitePool) {
        let file = folder.join("hark.sqlite");
        let store = Store::open(&file).await.unwrap();
        (store, sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap())
    }

    async fn add(store: &Store) -> SessionId {
        let new = NewSession {
            id: SessionId(Uuid::now_v7()),
            owner: Owner::from_store("me".to_owned()),
            title: Title::new("talk").unwrap(),
            engine: EngineId::Whisper,
            language: None,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media::default(),
            duration_total: None,
            lease_until: None,
            address: None,
            recording_hash: None,
            upload: None,
        };
        store.insert(&new, Timestamp(1)).await.unwrap().0.id
    }

    async fn claim(store: &Store) -> Result<Option<(Claim, Event)>, sqlx::Error> {
        let engines = [ReadyEngine::any(EngineId::Whisper)];
        store.claim("worker", Timestamp(2), Timestamp(3), u64::MAX, &engines).await
    }

    /// Who reads a version once doesn't read it again, so a session never fails without its explanation, not even for a moment.
    #[tokio::test]
    async fn sessions_whose_workers_are_lost_fail_with_the_reason_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (store, pool) = sqlite_store(folder.path()).await;
        let without_reason = "CREATE TRIGGER without_reason AFTER UPDATE ON sessions \
             WHEN NEW.status = 'failed' AND (NEW.error_message IS NULL OR NEW.message <> NEW.error_message) \
             BEGIN SELECT RAISE(ABORT, 'failed without the reason'); END";
        sqlx::query(without_reason).execute(&pool).await.unwrap();
        let mut ids = [add(&store).await, add(&store).await, add(&store).await];
        ids.sort_unstable();
        for crashes in 1..=2 {
            while claim(&store).await.unwrap().is_some() {}
            let events = store.reap(Timestamp(4), false, &[], 2).await.unwrap();
            let told: Vec<&Status> = events.iter().map(|event| event.new_status().unwrap()).collect();
            assert_eq!(told.iter().map(|status| status.session_id).collect::<Vec<_>>(), ids);
            for status in told {
                let error = status.error.as_ref().map(|error| (error.code.as_str(), error.message.as_str()));
                let expected = "The worker stopped 2 times while working on this recording, so Hark gave up. What was \
                     transcribed is kept; Retry goes on from there.";
                assert_eq!(error, (crashes == 2).then_some(("worker_lost", expected)));
            }
        }
    }

    /// If the session that was claimed can't be read, it is as it was before, and loses no attempt.
    #[tokio::test]
    async fn a_session_is_claimed_and_read_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let (store, pool) = sqlite_store(folder.path()).await;
        let id = add(&store).await;
        for (tracks, can_be_read) in [("'unreadable'", false), ("1", true)] {
            let query = sqlx::AssertSqlSafe(format!("UPDATE sessions SET tracks = {tracks}"));
            sqlx::query(query).execute(&pool).await.unwrap();
            let claimed = claim(&store).await;
            assert_eq!(claimed.is_ok(), can_be_read, "{claimed:?}");
            let stored: (String, i64, Option<String>) =
                sqlx::query_as("SELECT status, attempt, worker FROM sessions").fetch_one(&pool).await.unwrap();
            let expected = if can_be_read { ("processing", 1, Some("worker")) } else { ("queued", 0, None) };
            assert_eq!((stored.0.as_str(), stored.1, stored.2.as_deref()), expected);
        }
        assert!(claim(&store).await.unwrap().is_none(), "{id} is claimed");
    }

    /// Workers ask for a session every two seconds and after each attempt: the queue is read in its order, until the first
    /// session that fits, and what the engines are able to do isn't read again for each.
    #[tokio::test]
    async fn a_claim_reads_the_queue_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hark.sqlite");
        sqlite::migrate_at(&file).await.unwrap();
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let query = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", CLAIM[0]));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(query).fetch_all(&pool).await.unwrap();
        let steps: Vec<&str> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
        assert!(steps.contains(&"SEARCH sessions USING INDEX sessions_by_turn (status=?)"), "{steps:?}");
        assert!(steps.iter().all(|step| !step.contains("ORDER BY") && !step.contains("CORRELATED")), "{steps:?}");
    }
}
