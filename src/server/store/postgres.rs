//! What is particular to PostgreSQL: opening a database (migrated, also by several nodes at once).
//! Called by `Store`.

use super::Dialect;
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{io, str::FromStr, time::Duration};
use tokio::time;

/// Connections of one node. No connection is held while a stream is open, so few serve many.
const CONNECTIONS: u32 = 10;
/// How long a request waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(10);

/// Ends the transaction of a node that was frozen or cut off within it, and with it the locks that would hold up all
/// others. Transactions here take milliseconds.
const IDLE_TIMEOUT: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// The advisory lock of those who add to the queue; any number that nothing else in this database uses.
const QUEUE_LOCK: i64 = 0x6861_726b_0001;

/// PostgreSQL's codes for a disk without room, and for a server or transaction that only reads.
pub(super) const DISK_FULL: &str = "53100";
pub(super) const READ_ONLY: &str = "25006";

fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name("hark"))
}

/// See `Store::probe`. Not by a pool, which tries on and then only says that time is up.
pub(super) async fn probe(url: &str) -> Result<(), sqlx::Error> {
    let options = options(url)?;
    match time::timeout(ACQUIRE, PgConnection::connect_with(&options)).await {
        Ok(connection) => connection?.close().await,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

pub(super) async fn open(url: &str) -> Result<PgPool, sqlx::Error> {
    let options = options(url)?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        // A statement and no start-up parameter, which PgBouncer would refuse.
        .after_connect(|connection, _| Box::pin(async move { connection.execute(IDLE_TIMEOUT).await.map(|_| ()) }))
        .connect_with(options)
        .await?;
    // Takes a lock, so of several nodes that start one migrates and the others wait.
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
        // In a statement of its own: the next one sees what those before have committed.
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(QUEUE_LOCK).execute(&mut *tx).await?;
        Ok(tx)
    }

    fn pick(&self, _sqlite: &'static str, postgres: &'static str) -> &'static str {
        postgres
    }
}
