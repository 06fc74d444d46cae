//! What the dashboard shows: the figures of a range, the counts of this moment, the nodes, and what to change. Loaded once for
//! all who ask within a second, and published every two seconds to those who watch. Called by `http::admin` and by `node`.

use super::{error::Error, hours::Hours, overview, sessions::Sessions, stream::Hub, telemetry::samples};
use crate::model::{
    advice::{Advice, advice},
    dashboard::Dashboard,
    figures::{Figures, Range},
    load::{NodeInfo, Overview},
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// Requests within this time get the same.
const CACHE_TIME: Duration = Duration::from_secs(1);
/// How often those who watch hear of a change.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);

/// Everything that the dashboard shows of a range.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub figures: Arc<Figures>,
    pub now: Overview,
    pub nodes: Vec<NodeInfo>,
    pub advice: Vec<Advice>,
}

/// What the dashboard shows is made from these, and what was made last.
pub struct Dashboards {
    sessions: Arc<Sessions>,
    hours: Hours,
    hub: Arc<Hub>,
    metrics: PrometheusHandle,
    started: Instant,
    loaded: Mutex<Vec<(Instant, Arc<Loaded>)>>,
}

impl Dashboards {
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, hours: Hours, hub: Arc<Hub>, metrics: PrometheusHandle) -> Self {
        Self { sessions, hours, hub, metrics, started: Instant::now(), loaded: Mutex::default() }
    }

    /// Loads what the dashboard shows of a range.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn load(&self, range: Range) -> Result<Arc<Loaded>, Error> {
        // Held while it is loaded, so that of several callers one does it.
        let mut cache = self.loaded.lock().await;
        cache.retain(|(at, _)| at.elapsed() < CACHE_TIME);
        if let Some((_, loaded)) = cache.iter().find(|(_, loaded)| loaded.figures.range == range) {
            return Ok(Arc::clone(loaded));
        }
        let store = &self.sessions.store;
        let figures = self.hours.figures(store, range).await?;
        let (now, nodes) = overview::read(&self.sessions).await?;
        let models = self.sessions.models().await?;
        let advice = advice(&figures, &now, &nodes, &models, self.redis_errors_per_hour());
        let loaded = Arc::new(Loaded { figures, now, nodes, advice });
        cache.push((Instant::now(), Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// How often Redis had no answer for this node; none without Redis. A node that just started counts as an hour old,
    /// because one restart of Redis is no habit.
    fn redis_errors_per_hour(&self) -> Option<f64> {
        self.sessions.bus.is_connected()?;
        let hours = (self.started.elapsed().as_secs_f64() / 3600.0).max(1.0);
        Some(samples::sum(&self.metrics.render(), "hark_redis_errors_total") / hours)
    }

    /// Publishes what the dashboard shows of a range now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn publish(&self, range: Range) -> Result<(), Error> {
        let loaded = self.load(range).await?;
        self.hub.publish_dashboard(Dashboard::new(&loaded.figures, &loaded.now, &loaded.advice));
        Ok(())
    }

    /// Publishes what changes to the streams of administrators, until `stop`. Does nothing while nobody watches.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut ticks = time::interval(PUBLISH_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for range in self.hub.watched_dashboards() {
                // Not while the database is away, which the log says already, because waiting for a connection would hold up
                // who asks for the same.
                let publish = self.sessions.store.unless_away(self.publish(range));
                if let Some(Some(Err(Error::Store(error)))) = stop.run_until_cancelled(publish).await {
                    tracing::warn!(%error, "the dashboard could not be loaded for those who watch it");
                }
            }
        }
    }
}
