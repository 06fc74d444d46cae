//! `hark migrate`, `hark sessions list` and `delete`: completes the tables, lists and deletes sessions of all owners for an
//! operator. They work beside
//! running nodes, on the same database and recordings; the nodes find the changes in the store. Called by `main`, and by
//! `stuck`, which has the other subcommand.

use super::{
    config::{RecordingsUrl, read_database_url},
    folders,
    media::{CopyName, Recordings},
    owner::Owner,
    print,
    store::{DATABASE_FILE, MigrateResult, SessionFilter, Store},
};
use crate::model::{
    Session, SessionId, State, Timestamp, bytes, duration,
    text::{count, date_time},
};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The number of sessions read at once.
const PAGE: u32 = 200;

/// Where the sessions are stored that an operator manages.
#[derive(Args)]
pub struct StoreArgs {
    /// The data folder of the Hark that has the sessions.
    #[arg(long, env = "HARK_DATA_DIR", default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The file with the address of its PostgreSQL database, if it has one. Or set DATABASE_URL.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The address of the PostgreSQL database; none if the sessions are in an SQLite file of the data folder.
    ///
    /// # Errors
    /// If it can't be read or is no such address, as a message for the operator.
    pub fn database_url(&self) -> Result<Option<String>, String> {
        read_database_url(self.database_url_file.as_deref())
    }

    /// The SQLite file of the data folder, which must exist.
    ///
    /// # Errors
    /// If it doesn't, as a message for the operator.
    pub fn database_file(&self) -> Result<PathBuf, String> {
        let path = self.data_dir.join(DATABASE_FILE);
        // Otherwise a mistyped folder would get an empty database.
        if !path.exists() {
            return Err(format!(
                "there is no database {}. Name the folder with HARK_DATA_DIR, or the database with DATABASE_URL",
                path.display()
            ));
        }
        Ok(path)
    }

    /// Opens the database, which must exist.
    ///
    /// # Errors
    /// If it doesn't exist or can't be opened, as a message for the operator.
    pub async fn open(&self) -> Result<Store, String> {
        let opened = match self.database_url()? {
            Some(url) => Store::connect(&url).await,
            None => Store::open(&self.database_file()?).await,
        };
        opened.map_err(|e| format!("the database can't be opened: {e}"))
    }
}

/// `hark migrate`: makes or completes the tables, and says what was done.
///
/// # Errors
/// If that isn't possible, as a message for the operator.
pub async fn migrate(args: &StoreArgs) -> Result<(), String> {
    let migrated = match args.database_url()? {
        Some(url) => Store::migrate(&url).await,
        None => {
            let folder = &args.data_dir;
            folders::make_folder(folder).map_err(|e| folders::unusable(folder, folder, &e))?;
            folders::check_user(folder, "hark migrate")?;
            Store::migrate_file(&folder.join(DATABASE_FILE)).await
        }
    };
    let MigrateResult { before, after } = migrated.map_err(|e| format!("the database can't be migrated: {e}"))?;
    print::line(match before {
        None => format!("the database's tables were made, in version {after}"),
        Some(before) if before == after => {
            format!("the database's tables have version {after} already; nothing was changed")
        }
        Some(before) => format!("the database's tables were brought from version {before} to {after}"),
    });
    Ok(())
}

/// A table with columns as wide as their content.
pub(super) fn columns<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = [heads.map(str::to_owned)].into_iter().chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `hark sessions list`.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only those of this owner.
    #[arg(long, value_name = "ID")]
    owner: Option<String>,
    /// Only those in this state: queued, processing, completed, failed or cancelled.
    #[arg(long, value_name = "STATUS")]
    status: Option<State>,
    /// One JSON object a line, with all that is known of each session but its text.
    #[arg(long)]
    json: bool,
}

/// `hark sessions delete`.
#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where its recordings are, if not in the data folder; with the same `AWS_*` variables.
    #[arg(long, env = "HARK_RECORDINGS_URL", value_name = "URL")]
    recordings_url: Option<RecordingsUrl>,
    /// These sessions.
    #[arg(value_name = "SESSION", conflicts_with_all = ["owner", "older_than"])]
    ids: Vec<SessionId>,
    /// Those of this owner.
    #[arg(long, value_name = "ID", required_unless_present_any = ["ids", "older_than"])]
    owner: Option<String>,
    /// Those that ended more than this many days ago.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    older_than: Option<u32>,
    /// Delete them. Without it they are only listed.
    #[arg(long)]
    yes: bool,
}

/// A session with its owner, as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    owner: &'a str,
    #[serde(flatten)]
    session: &'a Session,
}

/// Lists sessions, newest first.
///
/// # Errors
/// If the database can't be read, as a message for the operator.
pub async fn list(args: &ListArgs) -> Result<(), String> {
    let store = args.store.open().await?;
    let which =
        SessionFilter { owner: args.owner.clone().map(Owner::from_store), state: args.status, ended_before: None };
    let (mut found, mut before) = (0, None);
    loop {
        let page = store.sessions_of_all(&which, before, PAGE).await.map_err(broken)?;
        if !args.json && found == 0 && !page.is_empty() {
            print::line(header_line());
        }
        found += page.len();
        let lines = page.iter().map(|(session, owner)| {
            if args.json {
                let listed = Listed { owner: owner.as_str(), session };
                serde_json::to_string(&listed).map_err(|e| format!("a session can't be written as JSON: {e}"))
            } else {
                Ok(row(session, owner))
            }
        });
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        if !lines.is_empty() {
            print::line(lines.join("\n"));
        }
        // Stops when the reader has closed the pipe, as `head` does.
        if print::is_closed() {
            break;
        }
        before = page.last().map(|(session, _)| session.id);
        if page.len() < PAGE as usize {
            if !args.json {
                print::line(format!("found: {}", count(found, "session")));
            }
            break;
        }
    }
    store.close().await;
    Ok(())
}

/// Deletes sessions with their recordings, or lists them without `--yes`. True if all of them were deleted.
///
/// # Errors
/// If the database or the recordings can't be reached, as a message for the operator.
pub async fn delete(args: &DeleteArgs) -> Result<bool, String> {
    let store = args.store.open().await?;
    let media = if args.yes {
        let opened = Recordings::attach(&args.store.data_dir, args.recordings_url.as_ref()).await;
        Some(opened.map_err(|e| format!("the recordings can't be reached: {e}"))?)
    } else {
        None
    };
    let days_ago = |days: u32| Timestamp::now().plus_seconds(-f64::from(days) * 86_400.0);
    let which = SessionFilter {
        owner: args.owner.clone().map(Owner::from_store),
        state: None,
        ended_before: args.older_than.map(days_ago),
    };
    let (mut done, mut freed, mut not_deleted) = (0, 0, 0);
    let mut before = None;
    loop {
        let page = if args.ids.is_empty() {
            store.sessions_of_all(&which, before, PAGE).await.map_err(broken)?
        } else {
            store.find_many(&args.ids).await.map_err(broken)?
        };
        for (session, owner) in &page {
            let Some(media) = &media else {
                print::line(row(session, owner));
                (done, freed) = (done + 1, freed + session.media.bytes);
                continue;
            };
            match remove(&store, media, session, owner).await {
                Ok(()) => {
                    print::line(format!("{} is deleted", session.id));
                    (done, freed) = (done + 1, freed + session.media.bytes);
                }
                Err(message) => {
                    print::error(format_args!("hark: {} was left: {message}", session.id));
                    not_deleted += 1;
                }
            }
        }
        for id in args.ids.iter().filter(|id| !page.iter().any(|(session, _)| session.id == **id)) {
            print::error(format_args!("hark: there is no session {id}"));
            not_deleted += 1;
        }
        before = page.last().map(|(session, _)| session.id);
        if !args.ids.is_empty() || page.len() < PAGE as usize {
            break;
        }
    }
    store.close().await;
    let sum = format!("{}, {} of recordings", count(done, "session"), bytes(freed));
    print::line(if args.yes { format!("deleted: {sum}") } else { format!("to delete: {sum}; --yes does it") });
    Ok(not_deleted == 0)
}

/// Deletes one session in the same order as for its owner: the worker loses it, then the recording is removed, then the
/// rest.
async fn remove(store: &Store, media: &Recordings, session: &Session, owner: &Owner) -> Result<(), String> {
    let id = session.id;
    store.cancel(owner, id, Timestamp::now()).await.map_err(broken)?;
    let copies = CopyName::all(id, session.track, session.media.tracks);
    media.remove(id, &copies).await.map_err(|e| format!("its recording can't be removed: {e}"))?;
    store.delete(owner, id).await.map_err(broken)?;
    Ok(())
}

fn broken(error: sqlx::Error) -> String {
    format!("the database doesn't answer: {error}")
}

/// Formats one line in columns of fixed width, because long lists are written while they are read.
fn format_line(cells: [&str; 8]) -> String {
    let [id, owner, status, created, ended, length, size, title] = cells;
    format!("{id:36}  {owner:32}  {status:10}  {created:22}  {ended:22}  {length:>12}  {size:>9}  {title}")
}

fn header_line() -> String {
    format_line(["SESSION", "OWNER", "STATUS", "CREATED", "ENDED", "LENGTH", "SIZE", "TITLE"])
}

fn row(session: &Session, owner: &Owner) -> String {
    let none = || "-".to_owned();
    format_line([
        &session.id.to_string(),
        owner.as_str(),
        session.status.state.as_str(),
        &date_time(session.created_at),
        &session.finished_at.map_or_else(none, date_time),
        &session.status.duration_total.map_or_else(none, duration),
        &bytes(session.media.bytes),
        &printable(session.title.as_str()),
    ])
}

/// A title that is safe for a terminal: characters that move the cursor or change the direction of text are escaped.
fn printable(title: &str) -> String {
    let bidi = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    title.chars().fold(String::new(), |mut text, c| {
        if c.is_control() || bidi(c) {
            text.extend(c.escape_default())
        } else {
            text.push(c)
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Channels, EngineId, Media, Status, Title};

    #[test]
    fn a_session_is_one_line_whatever_its_title() {
        let id = SessionId(uuid::Uuid::nil());
        let session = Session {
            id,
            title: Title::new("a\u{1b}[31m\u{202e}b\u{9b}c").unwrap(),
            created_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            engine: EngineId::Pocketsphinx,
            model: None,
            language: None,
            detected_language: None,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media { bytes: 1_400_000, ..Media::default() },
            status: Status { duration_total: Some(90.0), ..Status::new(id, State::Queued, None, Timestamp(0)) },
        };
        let owner = Owner::from_store("0123456789abcdef0123456789abcdef".to_owned());
        assert_eq!(
            header_line(),
            "SESSION                               OWNER                             STATUS      CREATED                 ENDED                         LENGTH       SIZE  TITLE"
        );
        assert_eq!(
            row(&session, &owner),
            "00000000-0000-0000-0000-000000000000  0123456789abcdef0123456789abcdef  queued      1 Jan 1970, 00:00 UTC   -                         1 min 30 s     1.4 MB  a [31m\\u{202e}b c"
        );
        let listed = serde_json::to_value(Listed { owner: owner.as_str(), session: &session }).unwrap();
        assert_eq!((&listed["owner"], &listed["id"]), (&owner.as_str().into(), &id.to_string().into()));
        assert_eq!(listed["status"]["status"], "queued");
    }
}
