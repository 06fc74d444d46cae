//! PostgreSQL: opening a database and migrating it (also by several nodes at once), and its way of locking the queue.

use super::{
    Dialect,
    cluster::{self, ClusterRow},
};
use crate::model::Timestamp;
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{io, str::FromStr, time::Duration};
use tokio::time;

/// Connections of one node. Open streams hold none, so few are enough.
const CONNECTIONS: u32 = 10;
/// How long a request waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(10);

/// Makes PostgreSQL end the transaction of a node that was frozen or cut off within it, because its locks would block
/// all other nodes. Hark's transactions take milliseconds.
const IDLE_TIMEOUT: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// The advisory lock of transactions that add to the queue: a number that nothing else in this database uses.
const QUEUE_LOCK: i64 = 0x6861_726b_0001;

/// PostgreSQL's error codes for a full disk, and for a server or transaction that is read-only.
pub(super) const DISK_FULL: &str = "53100";
pub(super) const READ_ONLY: &str = "25006";

fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name("hark"))
}

/// Reads the database's clock, in milliseconds since the Unix epoch.
pub(super) const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// See `Store::probe`. Connects without a pool, because a pool retries and then reports only a timeout.
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
    match time::timeout(ACQUIRE, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

pub(super) async fn open(url: &str) -> Result<PgPool, sqlx::Error> {
    let options = options(url)?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        // A statement, because PgBouncer would refuse it as a start-up parameter.
        .after_connect(|connection, _| Box::pin(async move { connection.execute(IDLE_TIMEOUT).await.map(|_| ()) }))
        .connect_with(options)
        .await?;
    // The migration takes a lock, so one of several starting nodes migrates while the others wait.
    sqlx::migrate!("src/server/store/migrations/postgres").run(&pool).await?;
    Ok(pool)
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
