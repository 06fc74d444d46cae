//! Counts queries for the metrics, and measures how long they take. Every query runs through it, nearly all by the macro `on`.

use std::time::Instant;

/// Runs a query, and counts it when it has been answered.
pub(super) async fn measured<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let began = Instant::now();
    let answer = query.await;
    metrics::histogram!("hark_database_query_seconds").record(began.elapsed());
    metrics::counter!("hark_database_queries_total").increment(1);
    // No row is an answer, too.
    if answer.as_ref().is_err_and(|error| !matches!(error, sqlx::Error::RowNotFound)) {
        metrics::counter!("hark_database_errors_total").increment(1);
    }
    answer
}
