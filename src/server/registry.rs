//! The nodes of a cluster: what this one says about itself with each heartbeat, and what the others said last. From that
//! follow the engines that uploads may choose and what a session waits for that no worker can take. Announced by `jobs`;
//! asked by `sessions`, `http::health` and `hark nodes`.

use super::{
    clock_watch::ClockOffset,
    speech::Engines,
    store::{NodeEngine, NodeRow, Store},
};
use crate::model::{
    EngineId, EngineInfo, Timestamp,
    load::{NodeEngineInfo, NodeInfo, NodeLoad},
};
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often a node says that it is running.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a node is called and does.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    pub name: String,
    /// Whether it serves pages and streams.
    pub serves: bool,
    /// How many sessions it transcribes at once.
    pub workers: u32,
    /// The fingerprints of its keys, the one that signs first.
    pub cookie_keys: Vec<String>,
}

/// The nodes that are running, as far as this one knows.
#[derive(Debug)]
pub struct Registry {
    id: String,
    node: NodeIdentity,
    started_at: Timestamp,
    /// What this node said with its last heartbeat.
    own: Mutex<Option<NodeRow>>,
    /// The other nodes that are running.
    others: RwLock<Arc<Vec<NodeRow>>>,
    /// Why this node's workers claim nothing.
    problem: Mutex<Option<String>>,
}

impl Registry {
    /// A registry that knows this node only.
    #[must_use]
    pub fn new(node: NodeIdentity) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            node,
            started_at: Timestamp::now(),
            own: Mutex::default(),
            others: RwLock::default(),
            problem: Mutex::default(),
        }
    }

    /// The name of this node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.node.name
    }

    /// Why this node's workers claim nothing, for operators.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores why this node's workers claim nothing, or that they do. Returns what was stored before.
    pub fn set_problem(&self, problem: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.problem.lock().unwrap_or_else(PoisonError::into_inner), problem)
    }

    /// Tells the other nodes that this one is running and what it does, and reads what they said. Without a shared database
    /// there are no others.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn announce(
        &self,
        store: &Store,
        engines: Vec<NodeEngine>,
        running: u32,
        problem: Option<String>,
        clock: Option<ClockOffset>,
        load: NodeLoad,
    ) -> Result<(), sqlx::Error> {
        let asked = Instant::now();
        let now = store.now().await?;
        let load = NodeLoad { database_ms: Some(asked.elapsed().as_secs_f64() * 1000.0), ..load };
        let node = NodeRow {
            id: self.id.clone(),
            name: self.node.name.clone(),
            role: if self.node.serves { "serve" } else { "worker" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: self.node.workers,
            running,
            engines,
            cookie_keys: self.node.cookie_keys.clone(),
            clock_ahead_ms: clock.map(|offset| offset.ahead_ms),
            problem,
            load: Some(load),
            started_at: self.started_at,
            heartbeat_at: now,
        };
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.clone());
        if !store.is_shared() {
            return Ok(());
        }
        store.put_node(&node, now).await?;
        let mut others = store.nodes().await?;
        others.retain(|other| other.id != self.id && other.is_live(now));
        *self.others.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(others);
        Ok(())
    }

    /// The nodes that are running or were until lately, by name. Of a database that isn't shared, this one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn nodes(&self, store: &Store) -> Result<Vec<NodeInfo>, sqlx::Error> {
        let now = store.now().await?;
        let nodes = if store.is_shared() {
            store.nodes().await?
        } else {
            self.own.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
        };
        Ok(nodes.into_iter().map(|node| node.into_info(now)).collect())
    }

    /// Tells the other nodes that this one stops.
    pub async fn leave(&self, store: &Store) {
        if store.is_shared()
            && let Err(error) = store.remove_node(&self.id).await
        {
            tracing::debug!(%error, "the other nodes could not be told that this one stops");
        }
    }

    /// The engines that uploads may choose: those of this node's workers and of all others that are running. A node
    /// without workers offers its own only while no worker is known, so that what is sent waits.
    #[must_use]
    pub fn engines(&self, own: Vec<EngineInfo>) -> Vec<EngineInfo> {
        let others = Arc::clone(&self.others.read().unwrap_or_else(PoisonError::into_inner));
        offered(own, self.node.workers > 0, &others)
    }

    /// For each engine of which no worker can take a session now: what its sessions wait for, as a sentence for people.
    /// `own` are this node's engines.
    #[must_use]
    pub fn waits(&self, own: &[NodeEngine]) -> Vec<(EngineId, Option<String>)> {
        let others = Arc::clone(&self.others.read().unwrap_or_else(PoisonError::into_inner));
        let own = if self.node.workers > 0 && self.problem().is_none() { own } else { &[] };
        let engines = EngineId::ALL.into_iter().filter(|id| *id != EngineId::External);
        engines.map(|id| (id, wait_for(id, own, self.node.workers, &others))).collect()
    }
}

impl NodeRow {
    /// The node as operators are shown it, at a time of the database's clock.
    #[must_use]
    pub fn into_info(self, now: Timestamp) -> NodeInfo {
        NodeInfo {
            is_live: self.is_live(now),
            name: self.name,
            role: self.role,
            version: self.version,
            workers: self.workers,
            running: self.running,
            engines: self
                .engines
                .into_iter()
                .map(|NodeEngine { info, waiting }| NodeEngineInfo { info, waiting })
                .collect(),
            clock_ahead_ms: self.clock_ahead_ms,
            problem: self.problem,
            started_at: self.started_at,
            heartbeat_at: self.heartbeat_at,
            load: self.load,
        }
    }
}

/// The engines of this node, with what those wait for whose model is on its way.
#[must_use]
pub fn engines_of(engines: &Engines) -> Vec<NodeEngine> {
    let waiting = engines.waiting();
    let waits = |id| waiting.as_ref().filter(|(engine, _)| *engine == id).map(|(_, sentence)| sentence.clone());
    engines.list().into_iter().map(|info| NodeEngine { waiting: waits(info.id), info }).collect()
}

/// The engines of this node that can be used now.
#[must_use]
pub fn ready_engines(engines: &Engines) -> Vec<EngineId> {
    engines_of(engines).iter().filter(|engine| engine.is_ready()).map(|engine| engine.info.id).collect()
}

/// The workers among nodes that can claim sessions.
fn workers(nodes: &[NodeRow]) -> impl Iterator<Item = &NodeRow> {
    nodes.iter().filter(|node| node.workers > 0 && node.problem.is_none())
}

fn offered(own: Vec<EngineInfo>, has_workers: bool, others: &[NodeRow]) -> Vec<EngineInfo> {
    if !has_workers && workers(others).next().is_none() {
        return own;
    }
    let theirs = |id: EngineId| {
        let engines = workers(others).flat_map(|node| &node.engines).filter(move |engine| engine.info.id == id);
        // One that is ready before one whose model is on its way.
        engines.filter(|engine| engine.info.available).min_by_key(|engine| engine.waiting.is_some())
    };
    let offer = |own: EngineInfo| match theirs(own.id) {
        Some(engine) if !(has_workers && own.available) => {
            EngineInfo { is_default: own.is_default, ..engine.info.clone() }
        }
        None if !has_workers => {
            let reason = Some(format!("No worker has {} at the moment.", own.name));
            EngineInfo { available: false, reason, install: None, ..own }
        }
        _ => own,
    };
    own.into_iter().map(offer).collect()
}

fn wait_for(id: EngineId, own: &[NodeEngine], own_workers: u32, others: &[NodeRow]) -> Option<String> {
    let all = || own.iter().chain(workers(others).flat_map(|node| &node.engines)).filter(|engine| engine.info.id == id);
    if all().any(NodeEngine::is_ready) {
        return None;
    }
    if let Some(waiting) = all().find_map(|engine| engine.waiting.clone()) {
        return Some(waiting);
    }
    if own_workers == 0 && others.iter().all(|node| node.workers == 0) {
        return Some("Waiting for a worker: none is running".to_owned());
    }
    // An operator of one node can do something about the reason.
    let alone = others.is_empty().then(|| own.iter().find(|engine| engine.info.id == id)).flatten();
    match alone.and_then(|engine| engine.info.reason.as_deref()) {
        Some(reason) => Some(format!("Waiting for {}. {reason}", id.label())),
        None => Some(format!("Waiting for a worker with {}", id.label())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(id: EngineId, model: &str, available: bool, waiting: Option<&str>) -> NodeEngine {
        let info = EngineInfo {
            id,
            name: id.label().to_owned(),
            model: model.to_owned(),
            available,
            reason: (!available).then(|| "It isn't here.".to_owned()),
            install: None,
            is_default: id == EngineId::Whisper,
            languages: None,
        };
        NodeEngine { info, waiting: waiting.map(str::to_owned) }
    }

    fn node(workers: u32, problem: Option<&str>, engines: Vec<NodeEngine>) -> NodeRow {
        NodeRow {
            id: "node".to_owned(),
            name: "node".to_owned(),
            role: "worker".to_owned(),
            version: "1".to_owned(),
            workers,
            running: 0,
            engines,
            cookie_keys: Vec::new(),
            clock_ahead_ms: None,
            problem: problem.map(str::to_owned),
            load: None,
            started_at: Timestamp(0),
            heartbeat_at: Timestamp(0),
        }
    }

    #[test]
    fn uploads_may_choose_what_workers_have() {
        use EngineId::{Pocketsphinx, Whisper};
        let own = |available| {
            vec![engine(Whisper, "base", available, None).info, engine(Pocketsphinx, "en-us", true, None).info]
        };
        let large = || node(1, None, vec![engine(Whisper, "large", true, None)]);
        let shown = |own, has_workers, others: &[NodeRow]| {
            let found = offered(own, has_workers, others).into_iter();
            found.map(|info| (info.model, info.available, info.is_default)).collect::<Vec<_>>()
        };
        let line = |model: &str, available, is_default| (model.to_owned(), available, is_default);
        let whisper = |model, available| line(model, available, true);
        // A node without workers offers what others have, and no more.
        assert_eq!(shown(own(false), false, &[large()]), [whisper("large", true), line("en-us", false, false)]);
        // A node with workers offers its own first.
        assert_eq!(shown(own(true), true, &[large()]), [whisper("base", true), line("en-us", true, false)]);
        assert_eq!(shown(own(false), true, &[large()]), [whisper("large", true), line("en-us", true, false)]);
        // Without any worker, what is sent waits for one.
        let serving = node(0, None, vec![engine(Whisper, "large", true, None)]);
        let ill = node(1, Some("no disk"), vec![engine(Whisper, "large", true, None)]);
        assert_eq!(shown(own(true), false, &[serving, ill]), [whisper("base", true), line("en-us", true, false)]);
    }

    #[test]
    fn sessions_that_nobody_can_take_say_what_they_wait_for() {
        use EngineId::{Pocketsphinx, Whisper};
        let ready = || vec![engine(Whisper, "base", true, None)];
        let fetching = || vec![engine(Whisper, "base", true, Some("Waiting for a model"))];
        let missing = || vec![engine(Whisper, "base", false, None)];
        let wait = |own: Vec<NodeEngine>, others: &[NodeRow]| wait_for(Whisper, &own, own.len() as u32, others);
        assert_eq!(wait(ready(), &[]), None);
        assert_eq!(wait(missing(), &[node(1, None, ready())]), None);
        assert_eq!(wait(fetching(), &[node(1, None, ready())]), None);
        assert_eq!(wait(fetching(), &[node(1, None, missing())]), Some("Waiting for a model".to_owned()));
        let named = Some("Waiting for a worker with Whisper".to_owned());
        assert_eq!(wait(missing(), &[node(1, None, missing())]), named);
        assert_eq!(wait(missing(), &[]), Some("Waiting for Whisper. It isn't here.".to_owned()));
        assert_eq!(wait(vec![], &[node(1, Some("no disk"), ready())]), named);
        assert_eq!(wait(vec![], &[node(0, None, ready())]), Some("Waiting for a worker: none is running".to_owned()));
        let other = wait_for(Pocketsphinx, &ready(), 1, &[]);
        assert_eq!(other, Some("Waiting for a worker with PocketSphinx".to_owned()));
    }
}
