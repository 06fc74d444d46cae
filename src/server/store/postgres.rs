//! PostgreSQL: opening a database and migrating it (also by several nodes at once), finding out why it can't be used, and
//! its way of locking the queue.

use super::{
    Dialect,
    cluster::{self, ClusterRow},
    outage::{Outage, Reporter},
    schema::{Applied, DatabaseOpenError, MigrateResult, Schema, Tables},
};
use crate::model::Timestamp;
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{io, str::FromStr, time::Duration};
use tokio::time;

/// The tables as this program needs them.
static MIGRATOR: Migrator = sqlx::migrate!("src/server/store/migrations/postgres");

/// How many connections to PostgreSQL a node may have, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Connections for statements. Open streams hold none, so few are enough.
    pub max: u32,
    /// How long a statement waits for one that is free.
    pub wait: Duration,
    /// After what silence the server counts as away.
    pub silence: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self { max: 10, wait: Duration::from_secs(10), silence: Duration::from_millis(1500) }
    }
}

/// How long a start waits for a server that may just be starting, too.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server has for a connection that is made to find out whether it can be used.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts to connect at the start, and between two checks while the node runs.
const START_PAUSE: Duration = Duration::from_millis(500);
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// For how long all connections must be in use before that is logged, and how often at most.
const BUSY_TIME: Duration = Duration::from_secs(5);
const BUSY_WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Makes PostgreSQL end the transaction of a node that was frozen or cut off within it, because its locks would block
/// all other nodes. Hark's transactions take milliseconds.
const IDLE_TIMEOUT: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// The advisory lock of transactions that add to the queue: a number that nothing else in this database uses.
const QUEUE_LOCK: i64 = 0x6861_726b_0001;

/// PostgreSQL's error codes for a full disk, for a server or transaction that is read-only, and for a lack of rights.
pub(super) const DISK_FULL: &str = "53100";
pub(super) const READ_ONLY: &str = "25006";
const NO_RIGHT: &str = "42501";
/// A server that starts or stops, or has all the connections that it may have.
const CANNOT_CONNECT_NOW: &str = "57P03";
const TOO_MANY_CONNECTIONS: &str = "53300";

/// Whether a code says that there is no connection, or that none is made: class 08 (connection), 57P (the server stops or
/// starts), 28 (who connects isn't let in), no such database, too many connections.
pub(super) fn is_connection_code(code: &str) -> bool {
    ["08", "57P", "28"].iter().any(|class| code.starts_with(class)) || ["3D000", TOO_MANY_CONNECTIONS].contains(&code)
}

fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name("hark"))
}

/// Why no connection could be made.
struct Unreachable {
    /// A sentence without its full stop.
    cause: String,
    /// Whether the server may just be starting.
    passing: bool,
}

/// Makes a connection. Not through a pool, because a pool tries again and in the end reports only that time is up.
async fn connect(options: &PgConnectOptions, limit: Duration) -> Result<PgConnection, Unreachable> {
    let found = time::timeout(limit, PgConnection::connect_with(options)).await;
    let error = match found {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error,
        Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
    };
    let passing = match &error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| [CANNOT_CONNECT_NOW, TOO_MANY_CONNECTIONS].contains(&&*code))
        }
        _ => false,
    };
    Err(Unreachable { cause: cause(options, &error), passing })
}

/// What an operator is told of a connection that couldn't be made.
fn cause(options: &PgConnectOptions, error: &sqlx::Error) -> String {
    let server = match options.get_socket() {
        Some(socket) => format!("PostgreSQL at {}", socket.display()),
        None => format!("PostgreSQL at {}:{}", options.get_host(), options.get_port()),
    };
    let role = options.get_username();
    match error {
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("{server} refuses connections"),
            io::ErrorKind::TimedOut => format!("{server} does not answer"),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                format!("{server} closes connections")
            }
            _ => format!("{server} can't be reached ({error})"),
        },
        sqlx::Error::Tls(error) => format!("{server} can't be reached with TLS ({error})"),
        sqlx::Error::Database(error) => {
            let (code, message) = (error.code().unwrap_or_default(), error.message());
            match &*code {
                "28P01" => format!("{server} refuses the password of the role '{role}'"),
                "28000" => format!("{server} doesn't let the role '{role}' in ({message})"),
                "3D000" => {
                    format!("{server} has no such database: '{}'", options.get_database().unwrap_or(role))
                }
                TOO_MANY_CONNECTIONS => format!("{server} has no connection left ({message})"),
                CANNOT_CONNECT_NOW => format!("{server} doesn't take connections now ({message})"),
                _ => format!("{server} refuses the connection ({message}, {code})"),
            }
        }
        error => format!("{server} can't be used ({error})"),
    }
}

/// Reads the database's clock, in milliseconds since the Unix epoch.
pub(super) const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// See `Store::probe`.
pub(super) async fn probe(url: &str) -> Result<(Timestamp, Option<ClusterRow>), sqlx::Error> {
    let options = options(url)?;
    let asked = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let (now,) = sqlx::query_as(NOW).fetch_one(&mut connection).await?;
        // A new database has no such table.
        let cluster = sqlx::query_as(cluster::SELECT).fetch_optional(&mut connection).await.unwrap_or_default();
        connection.close().await?;
        Ok((Timestamp(now), cluster))
    };
    match time::timeout(CONNECT_TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// The pool of a node, and what is needed to find out why it has no connections.
#[derive(Clone, Debug)]
pub(super) struct Server {
    options: PgConnectOptions,
    silence: Duration,
}

impl Server {
    /// Watches the server over a connection of its own, so that a node whose connections are all in use doesn't take the
    /// server for away. Never returns.
    pub(super) async fn watch(&self, pool: &PgPool, outage: &Outage) {
        let mut reporter = Reporter::new(outage);
        let mut connection = None;
        let mut saturation = Saturation::default();
        loop {
            reporter.note(self.check(&mut connection).await);
            if outage.cause().is_none() {
                saturation.note(pool);
            }
            time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Half of the silence is for the connection that there is, and half for a new one, because the old one may have
    /// been cut by something on the way.
    async fn check(&self, connection: &mut Option<PgConnection>) -> Result<(), String> {
        let limit = self.silence / 2;
        if let Some(open) = connection
            && let Ok(Ok(())) = time::timeout(limit, open.ping()).await
        {
            return Ok(());
        }
        *connection = None;
        match connect(&self.options, limit).await {
            Ok(fresh) => {
                *connection = Some(fresh);
                Ok(())
            }
            Err(unreachable) => Err(unreachable.cause),
        }
    }
}

/// Tells when all connections of a node are in use for long, which otherwise shows only as slow requests.
#[derive(Default)]
struct Saturation {
    since: Option<time::Instant>,
    logged: Option<time::Instant>,
}

impl Saturation {
    fn note(&mut self, pool: &PgPool) {
        let max = pool.options().get_max_connections();
        if pool.size() < max || pool.num_idle() > 0 {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(time::Instant::now);
        if since.elapsed() >= BUSY_TIME && self.logged.is_none_or(|at| at.elapsed() >= BUSY_WARN_INTERVAL) {
            self.logged = Some(time::Instant::now());
            tracing::warn!(
                connections = max,
                "all {max} connections to PostgreSQL have been in use for {} s, so requests wait for one; look for slow \
                 statements, or raise HARK_DATABASE_CONNECTIONS",
                BUSY_TIME.as_secs()
            );
        }
    }
}

/// Opens a database, and makes or completes its tables if that is needed and the role may.
pub(super) async fn open(url: &str, connections: Connections) -> Result<(PgPool, Server), DatabaseOpenError> {
    let options = options(url)?;
    let mut connection = connect_at_start(&options).await?;
    migrate(&mut connection, &options).await?;
    connection.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(connections.max)
        .acquire_timeout(connections.wait)
        // A statement, because PgBouncer would refuse it as a start-up parameter.
        .after_connect(|connection, _| Box::pin(async move { connection.execute(IDLE_TIMEOUT).await.map(|_| ()) }))
        .connect_with(options.clone())
        .await?;
    Ok((pool, Server { options, silence: connections.silence }))
}

/// Waits for a server that may just be starting, as after a power cut, and says so.
async fn connect_at_start(options: &PgConnectOptions) -> Result<PgConnection, DatabaseOpenError> {
    let deadline = time::Instant::now() + START_TIMEOUT;
    let mut logged = false;
    loop {
        let left = deadline.saturating_duration_since(time::Instant::now());
        match connect(options, CONNECT_TIMEOUT.min(left)).await {
            Ok(connection) => return Ok(connection),
            Err(Unreachable { cause, passing }) if passing && left > START_PAUSE => {
                if !logged {
                    let secs = START_TIMEOUT.as_secs();
                    tracing::warn!("the database is away: {cause}; trying again for up to {secs} s");
                    logged = true;
                }
                time::sleep(START_PAUSE).await;
            }
            Err(Unreachable { cause, .. }) => return Err(DatabaseOpenError::Away(cause)),
        }
    }
}

/// See `Store::migrate`.
pub(super) async fn migrate_at(url: &str) -> Result<MigrateResult, DatabaseOpenError> {
    let options = options(url)?;
    let mut connection = connect_at_start(&options).await?;
    let result = migrate(&mut connection, &options).await;
    connection.close().await?;
    result
}

/// Completes the tables if they aren't complete. Without a change nothing is written, so that a role without the right to
/// make tables can do this, too.
async fn migrate(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<MigrateResult, DatabaseOpenError> {
    let before = match schema(connection).await? {
        Schema::Current(version) => return Ok(MigrateResult { before: Some(version), after: version }),
        Schema::Behind { has, .. } => has,
    };
    // A pool of its own, because the lock of a migration that failed goes only with its connection. By the lock one of
    // several starting nodes migrates while the others wait.
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let result = MIGRATOR.run(&pool).await;
    pool.close().await;
    match result {
        Ok(()) => Ok(MigrateResult { before, after: Tables::of(&MIGRATOR).version() }),
        Err(error) if super::schema::database_code(&error).is_some_and(|code| code == NO_RIGHT) => {
            Err(DatabaseOpenError::no_right(before, &Tables::of(&MIGRATOR), options.get_username()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Compares the tables with what this program needs.
async fn schema(connection: &mut PgConnection) -> Result<Schema, DatabaseOpenError> {
    let (exists,): (bool,) =
        sqlx::query_as("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let applied: Vec<Applied> = if exists {
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await?
    } else {
        Vec::new()
    };
    Tables::of(&MIGRATOR).compare(&applied)
}

/// See `Store::examine`.
pub(super) async fn examine(url: &str) -> Result<Schema, DatabaseOpenError> {
    let options = options(url)?;
    let mut connection = connect(&options, CONNECT_TIMEOUT).await.map_err(|e| DatabaseOpenError::Away(e.cause))?;
    let found = schema(&mut connection).await;
    let found = match found {
        Ok(Schema::Behind { has, .. }) if !may_migrate(&mut connection).await? => {
            Err(DatabaseOpenError::no_right(has, &Tables::of(&MIGRATOR), options.get_username()))
        }
        found => found,
    };
    connection.close().await?;
    found
}

/// Whether the role may make tables, and change those that there are.
async fn may_migrate(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (may,): (bool,) = sqlx::query_as(
        "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AND coalesce((
            SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('sessions')), true)",
    )
    .fetch_one(connection)
    .await?;
    Ok(may)
}

impl Dialect for PgPool {
    type Database = Postgres;

    async fn begin_write(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin().await
    }

    async fn begin_enqueue(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut tx = self.begin().await?;
        // In a separate statement, so that the next one sees what earlier transactions have committed.
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(QUEUE_LOCK).execute(&mut *tx).await?;
        Ok(tx)
    }

    fn pick(&self, _sqlite: &'static str, postgres: &'static str) -> &'static str {
        postgres
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_name_the_server_and_what_is_wrong() {
        let of = |kind: io::ErrorKind| {
            let options = options("postgres://hark:secret@db.example.org:5433/transcripts").expect("an address");
            cause(&options, &sqlx::Error::Io(kind.into()))
        };
        let causes = [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof].map(of);
        assert_eq!(
            causes,
            [
                "PostgreSQL at db.example.org:5433 refuses connections",
                "PostgreSQL at db.example.org:5433 does not answer",
                "PostgreSQL at db.example.org:5433 closes connections",
            ]
        );
    }

    #[test]
    fn errors_of_a_connection_are_told_from_others() {
        assert!(["08006", "57P01", "57P03", "28P01", "3D000", "53300"].into_iter().all(is_connection_code));
        assert!(!["23505", "42501", "53100", "40001", "57014"].into_iter().any(is_connection_code));
    }
}
