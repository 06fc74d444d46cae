//! Timeouts and retries of both connections to Redis.

use rand::RngExt;
use redis::RedisError;
use std::time::Duration;
use tokio::time;

/// How long Redis may take to answer before the connection counts as dead.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The first and the longest wait before another try to connect. It doubles each time, and is reduced at random by up
/// to a half.
pub(super) const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The wait before the next try; zero until a try has failed.
#[derive(Debug, Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(RETRY_WAIT.0, RETRY_WAIT.1);
        self.0.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Logs the first failure only, until a try succeeds.
    pub(super) fn warn_once(&self, what: &str, error: &RedisError) {
        if self.0.is_zero() {
            tracing::warn!(%error, "{what}; trying again");
        }
    }
}

/// Counts a failure of a connection to Redis.
pub(super) fn count_error() {
    metrics::counter!("hark_redis_errors_total").increment(1);
}

/// Waits for an answer, for [`RESPONSE_TIMEOUT`] at most.
pub(super) async fn with_timeout<T>(request: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    match time::timeout(RESPONSE_TIMEOUT, request).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out()),
    }
}

pub(super) fn timed_out() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "Redis didn't answer in time"))
}

pub(super) fn connection_closed() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "closed by Redis"))
}
