//! Says on the pages of queued sessions what they wait for while no worker can take them: a model that is on its way, or
//! a worker with their engine that knows their language. One node at a time does so for all. Run by `jobs`.

use super::{Workers, log_error};
use crate::{
    model::Timestamp,
    server::{
        event::Event,
        registry::{self, Wait},
    },
};
use uuid::Uuid;

/// The name of the chore in the store.
const CHORE: &str = "waits";
/// Seconds for which a node takes the chore with each check: those of a few checks.
const CHORE_SECS: f64 = 6.0;

/// What one node knows of it.
pub(super) struct Waits {
    /// This node, as the one that does the chore.
    node: String,
    /// What the sessions were told last, if this node told them.
    told: Vec<Wait>,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self { node: Uuid::new_v4().to_string(), told: Vec::new() }
    }

    /// Tells the sessions of each engine and language what they wait for, or that they don't.
    pub(super) async fn check(&mut self, workers: &Workers) {
        match self.tell(workers).await {
            Ok(events) => events.iter().for_each(|event| workers.sessions.bus.tell_watchers(event)),
            Err(error) => {
                self.told.clear();
                log_error(&error, "what queued sessions wait for could not be stored; trying again");
            }
        }
    }

    async fn tell(&mut self, workers: &Workers) -> Result<Vec<Event>, sqlx::Error> {
        let sessions = &workers.sessions;
        if sessions.store.is_shared() {
            let now = sessions.store.now().await?;
            if !sessions.store.take_chore(CHORE, &self.node, now, now.plus_seconds(CHORE_SECS)).await? {
                self.told.clear();
                return Ok(Vec::new());
            }
        }
        let queued = sessions.store.queued_languages().await?;
        let waits = sessions.registry.waits(&registry::engines_of(&sessions.engines), queued);
        let mut events = Vec::new();
        for wait in &waits {
            // A session that was queued meanwhile has been told nothing; without a reason there is nothing to tell it.
            if wait.reason.is_none() && self.told.contains(wait) {
                continue;
            }
            let (engine, reason) = (wait.engine, wait.reason.as_deref());
            events.extend(sessions.store.update_needs_model(engine, &wait.languages, reason, Timestamp::now()).await?);
        }
        self.told = waits;
        Ok(events)
    }
}
