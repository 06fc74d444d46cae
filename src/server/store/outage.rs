//! Whether the database can be reached, and why not. A node's watch on PostgreSQL (`postgres::watch`) tells; the log says
//! each cause once, and requests stop waiting for a database that is known to be away. An SQLite file is never away.

use crate::model::duration;
use std::sync::Arc;
use tokio::{sync::watch, time};

/// The cause, while the database is away; shared by all clones of a store.
#[derive(Debug)]
pub(super) struct Outage(watch::Sender<Option<Arc<str>>>);

impl Default for Outage {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Outage {
    /// The cause, as a sentence without its full stop; none if the database answers.
    pub(super) fn cause(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Waits until the database is away.
    pub(super) async fn begins(&self) {
        let mut state = self.0.subscribe();
        if state.wait_for(Option::is_some).await.is_err() {
            // Never: this sender outlives the borrow of it.
            std::future::pending::<()>().await;
        }
    }
}

/// Sets the metric that says whether the database answers.
pub(super) fn set_up(up: bool) {
    metrics::gauge!("hark_database_up").set(if up { 1.0 } else { 0.0 });
}

/// Tells an [`Outage`] and the log what each check of the database has found.
pub(super) struct Reporter<'a> {
    outage: &'a Outage,
    since: Option<time::Instant>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(outage: &'a Outage) -> Self {
        Self { outage, since: None }
    }

    /// Notes the result of a check. A cause is logged when it comes up, not with every check.
    pub(super) fn note(&mut self, found: Result<(), String>) {
        set_up(found.is_ok());
        match found {
            Ok(()) => {
                if let Some(since) = self.since.take() {
                    self.outage.0.send_replace(None);
                    let secs = since.elapsed().as_secs_f64();
                    tracing::info!(outage_secs = secs, "the database is back after {}", duration(secs));
                }
            }
            Err(cause) => {
                if self.outage.cause().as_deref() == Some(&*cause) {
                    return;
                }
                if self.since.is_none() {
                    self.since = Some(time::Instant::now());
                    tracing::error!(
                        "the database is away: {cause}. Until it is back, requests are answered with 503, and workers wait"
                    );
                } else {
                    tracing::error!("the database is still away: {cause}");
                }
                self.outage.0.send_replace(Some(cause.into()));
            }
        }
    }
}
