//! What both connections to Redis have in common: how long an answer may take, and how long to wait before the next try.

use rand::RngExt;
use redis::RedisError;
use std::time::Duration;
use tokio::time;

/// How long Redis may take to answer before the connection counts as dead.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// First and longest wait before another try to connect; doubled each time, and random up to a half.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long to wait before the next try, and whether to speak of it.
#[derive(Debug, Default)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(RETRY.0, RETRY.1);
        self.0.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Once, until a try succeeds.
    pub(super) fn tell(&self, what: &str, error: &RedisError) {
        if self.0.is_zero() {
            tracing::warn!(%error, "{what}; trying on");
        }
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    match time::timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(silent()),
    }
}

pub(super) fn silent() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "Redis didn't answer in time"))
}

pub(super) fn closed() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "closed by Redis"))
}
