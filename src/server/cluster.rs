//! The cluster that a node belongs to: all nodes on one database have its id, its key and its place of recordings. A node
//! that differs would take sessions from their owners or accept recordings that no other node can read, so it doesn't
//! start. Asked by `node`, `jobs`, `sessions` and `http::health`.

use super::{
    config::{DataConfig, RecordingsUrl},
    keys::CookieKeys,
    media::{MARKER, MediaError, Recordings},
    store::{ClusterRow, SessionFilter, Store},
};
use crate::model::SessionId;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often a node looks whether its place of recordings is still the cluster's.
const INTERVAL: Duration = Duration::from_secs(10);
/// Callers within this time get the same answer, so that nobody can keep a node asking.
const CACHE_TIME: Duration = Duration::from_secs(1);
/// How long a node that starts waits for the marker that another one, which starts at the same time, is writing.
const MARKER_WAIT: Duration = Duration::from_secs(5);
/// How many of the newest sessions are looked for in a place that has no marker yet.
const SAMPLE: u32 = 20;

/// Why a node may not join the cluster of its database, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the database can't be read: {0}")]
    Store(#[from] sqlx::Error),
    #[error(
        "this node has another key than the other nodes on this database: its own have the fingerprints {own}, and the \
         cluster's has {cluster}. With it, this node would take sessions from their owners. Set HARK_SECRET to what the \
         other nodes have; 'hark secret rotate' changes it"
    )]
    OtherKey { own: String, cluster: String },
    #[error(
        "the first key in HARK_SECRET (fingerprint {own}) doesn't sign in this cluster yet, where {cluster} does. Other nodes \
         may not know it. Run 'hark secret rotate' with this HARK_SECRET, which checks that and lets it sign"
    )]
    KeyNotYet { own: String, cluster: String },
    #[error("the place of the recordings, {place}, can't be read: {error}")]
    Unreadable { place: String, error: MediaError },
    #[error(
        "{place} isn't where this cluster keeps its recordings ({known}): the file {MARKER} isn't there. See that it is \
         mounted, or set HARK_RECORDINGS_URL to what the other nodes have. If this is the right place and what it held is \
         lost or was moved elsewhere, put a file {MARKER} there with this line: {id}"
    )]
    NoMarker { place: String, known: String, id: String },
    #[error(
        "{place} has recordings of another Hark: its file {MARKER} says {theirs}, and this database is {id}. Set \
         HARK_RECORDINGS_URL to a place of its own"
    )]
    OtherMarker { place: String, theirs: String, id: String },
    #[error(
        "{place} doesn't have the recordings of the sessions that are in the database, of which the newest were looked for. \
         Set HARK_RECORDINGS_URL to where they are. If they are lost, put a file {MARKER} there with this line: {id}"
    )]
    NoRecordings { place: String, id: String },
}

/// The cluster that this node has joined.
#[derive(Debug)]
pub struct Cluster {
    id: String,
    /// The place of the recordings, for people.
    place: String,
    /// Whether the place has a marker. The data folder of a node with its own database needs none.
    marked: bool,
    /// Why recordings can't be reached now.
    problem: Mutex<Option<String>>,
    /// When they were looked for last. Held meanwhile, so that of several callers one looks.
    last_check: tokio::sync::Mutex<Option<time::Instant>>,
}

impl Cluster {
    /// Joins the cluster of the database, or founds it.
    ///
    /// # Errors
    /// If this node differs from the others, with what to do about it.
    pub async fn join(
        store: &Store,
        keys: &CookieKeys,
        media: &Recordings,
        data: &DataConfig,
    ) -> Result<Self, JoinError> {
        let known = store.cluster(&Uuid::new_v4().to_string()).await?;
        // A node with its own database has nobody to differ from.
        if store.is_shared() {
            check_keys(store, &known, &keys.fingerprints()).await?;
        }
        let place = place_of(data);
        let marked = store.is_shared() || data.recordings_url.is_some();
        if marked {
            check_location(store, &known, media, &place).await?;
        }
        Ok(Self { id: known.id, place, marked, problem: Mutex::default(), last_check: tokio::sync::Mutex::default() })
    }

    /// Why recordings can't be reached now, for operators; none if they can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the place of the recordings is still the cluster's, and whether this node can use the folders of those that
    /// come in, unless that was done within [`CACHE_TIME`], and returns what is wrong. Logs when that changes.
    pub async fn check(&self, media: &Recordings) -> Option<String> {
        let last_check = self.last_check.lock().await;
        if last_check.is_some_and(|at| at.elapsed() < CACHE_TIME) {
            return self.problem();
        }
        drop(last_check);
        self.check_now(media).await
    }

    /// The same, however lately that was done: after something failed that worked then.
    pub async fn check_now(&self, media: &Recordings) -> Option<String> {
        let mut last_check = self.last_check.lock().await;
        let place = &self.place;
        let found = match self.problem_of_place(media).await {
            // Each upload passes through this node's own folders, wherever recordings are kept.
            None => media.unusable_folder().await,
            problem => problem,
        };
        let before =
            std::mem::replace(&mut *self.problem.lock().unwrap_or_else(PoisonError::into_inner), found.clone());
        *last_check = Some(time::Instant::now());
        match (&before, &found) {
            (None, Some(problem)) => {
                tracing::error!(
                    "the place of the recordings failed: {problem}. Until it is back this node takes no work and no uploads"
                );
            }
            (Some(_), None) => tracing::info!("the place of the recordings, {place}, is back"),
            _ => {}
        }
        found
    }

    /// What is wrong with the place of the recordings, as its marker tells.
    async fn problem_of_place(&self, media: &Recordings) -> Option<String> {
        if !self.marked {
            return None;
        }
        let place = &self.place;
        match media.marker().await {
            Ok(Some(id)) if id == self.id => None,
            Ok(Some(_)) => Some(format!("{place} has the recordings of another Hark")),
            Ok(None) => Some(format!("{place} isn't there: its file {MARKER} is missing; see that it is mounted")),
            Err(error) => Some(format!("{place} can't be read: {error}")),
        }
    }

    /// Looks regularly until `stop`.
    pub async fn run(&self, media: &Recordings, stop: &CancellationToken) {
        let mut interval = time::interval(INTERVAL);
        interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.check(media).await;
        }
    }
}

/// The place of the recordings, for people.
fn place_of(data: &DataConfig) -> String {
    match &data.recordings_url {
        Some(url @ RecordingsUrl::Folder(_)) => format!("the folder {url}"),
        Some(url @ RecordingsUrl::Bucket { .. }) => format!("the bucket {url}"),
        None => {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("the data folder {} of {host}, as HARK_RECORDINGS_URL isn't set", data.data_dir.display())
        }
    }
}

/// How this node differs from the cluster of a database, for `hark doctor`. Changes nothing.
pub async fn differences(known: &ClusterRow, keys: Option<&CookieKeys>, data: &DataConfig) -> Vec<JoinError> {
    let of_keys = keys.and_then(|keys| compare_keys(known, known.cookie_key.as_deref()?, &keys.fingerprints()).err());
    let place = place_of(data);
    let found = match Recordings::attach(&data.data_dir, data.recordings_url.as_ref()).await {
        Ok(media) => media.marker().await,
        // The data folder is made at the first start.
        Err(_) if data.recordings_url.is_none() => Ok(None),
        Err(error) => Err(MediaError::Storage(error.to_string())),
    };
    let of_place = match found {
        // Nobody has stored a recording yet.
        Ok(None) if known.recordings.is_none() => None,
        Ok(marker) => compare_marker(known, &place, marker).err(),
        Err(error) => Some(unreadable(&place, error)),
    };
    of_keys.into_iter().chain(of_place).collect()
}

/// Checks that this node signs with the cluster's key, or with the one before, and can verify what the cluster's key
/// signed.
fn compare_keys(known: &ClusterRow, current: &str, own: &[String]) -> Result<(), JoinError> {
    let cluster = current.to_owned();
    let first = own.first().map(String::as_str).unwrap_or_default();
    if !own.contains(&cluster) {
        return Err(JoinError::OtherKey { own: own.join(", "), cluster });
    }
    if first != current && known.cookie_key_before.as_deref() != Some(first) {
        return Err(JoinError::KeyNotYet { own: first.to_owned(), cluster });
    }
    Ok(())
}

/// Checks what was found in a place of recordings that should be the cluster's.
fn compare_marker(known: &ClusterRow, place: &str, marker: Option<String>) -> Result<(), JoinError> {
    let (place, id) = (place.to_owned(), known.id.clone());
    match marker {
        Some(marker) if marker == id => Ok(()),
        Some(theirs) => Err(JoinError::OtherMarker { place, theirs, id }),
        None => Err(JoinError::NoMarker { place, known: known.recordings.clone().unwrap_or_default(), id }),
    }
}

async fn check_keys(store: &Store, known: &ClusterRow, own: &[String]) -> Result<(), JoinError> {
    let first = own.first().map(String::as_str).unwrap_or_default();
    let mut current = known.cookie_key.clone();
    if current.is_none() && !store.change_cookie_key(None, first).await? {
        // Another node was faster.
        current = store.cluster(&known.id).await?.cookie_key;
    }
    current.map_or(Ok(()), |current| compare_keys(known, &current, own))
}

async fn check_location(store: &Store, known: &ClusterRow, media: &Recordings, place: &str) -> Result<(), JoinError> {
    let found = marker_of(media, place).await?;
    if found.is_none() && known.recordings.is_none() {
        if !has_newest(store, media, place).await? {
            return Err(JoinError::NoRecordings { place: place.to_owned(), id: known.id.clone() });
        }
        if store.claim_recordings_place(place).await? {
            return media.put_marker(&known.id).await.map_err(|error| unreadable(place, error));
        }
    }
    let mut compared = compare_marker(known, place, found);
    let until = time::Instant::now() + MARKER_WAIT;
    // Another node may be writing it at this moment.
    while matches!(compared, Err(JoinError::NoMarker { .. })) && time::Instant::now() < until {
        time::sleep(MARKER_WAIT / 20).await;
        let known = store.cluster(&known.id).await?;
        compared = compare_marker(&known, place, marker_of(media, place).await?);
    }
    compared?;
    store.claim_recordings_place(place).await?;
    Ok(())
}

/// Whether at least one of the newest sessions has its recording here; also if there are no sessions with one.
async fn has_newest(store: &Store, media: &Recordings, place: &str) -> Result<bool, JoinError> {
    let newest = store.sessions_of_all(&SessionFilter::default(), None, SAMPLE).await?;
    let with_recording: Vec<SessionId> =
        newest.iter().filter(|(session, _)| session.media.bytes > 0).map(|(session, _)| session.id).collect();
    if with_recording.is_empty() {
        return Ok(true);
    }
    for id in with_recording {
        if media.has(id).await.map_err(|error| unreadable(place, error))? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn marker_of(media: &Recordings, place: &str) -> Result<Option<String>, JoinError> {
    media.marker().await.map_err(|error| unreadable(place, error))
}

fn unreadable(place: &str, error: MediaError) -> JoinError {
    JoinError::Unreadable { place: place.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> ClusterRow {
        ClusterRow {
            id: "one".to_owned(),
            cookie_key: Some("new".to_owned()),
            cookie_key_before: Some("old".to_owned()),
            recordings: Some("the folder file:///srv/recordings".to_owned()),
        }
    }

    #[test]
    fn a_node_accepts_what_others_sign_and_signs_what_they_accept() {
        let compared = |own: &[&str]| {
            let own: Vec<String> = own.iter().map(|key| (*key).to_owned()).collect();
            compare_keys(&known(), "new", &own).map_err(|error| error.to_string())
        };
        // During a change some nodes still sign with the key before.
        for own in [&["new"][..], &["new", "old"], &["old", "new"]] {
            assert_eq!(compared(own), Ok(()), "{own:?}");
        }
        assert!(compared(&["old"]).unwrap_err().contains("own have the fingerprints old, and the cluster's has new."));
        assert!(
            compared(&["next", "new"]).unwrap_err().contains("(fingerprint next) doesn't sign in this cluster yet")
        );
    }

    #[test]
    fn a_place_has_the_marker_of_its_cluster() {
        let compared = |marker: Option<&str>| {
            compare_marker(&known(), "the folder file:///mnt", marker.map(str::to_owned))
                .map_err(|error| error.to_string())
        };
        assert_eq!(compared(Some("one")), Ok(()));
        let missing = compared(None).unwrap_err();
        assert!(
            missing.contains("(the folder file:///srv/recordings)") && missing.ends_with("with this line: one"),
            "{missing}"
        );
        assert!(compared(Some("two")).unwrap_err().contains("says two, and this database is one"));
    }
}
