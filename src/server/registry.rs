//! The nodes of a cluster: what this one says about itself with each heartbeat, and what the others said last. From that
//! follow the engines that uploads may choose and what a session waits for that no worker can take. Announced by `jobs`;
//! asked by `sessions`, `http::health` and `hark nodes`.

use super::{
    clock_watch::ClockOffset,
    speech::{Engines, languages},
    store::{NodeEngine, NodeRow, ReadyEngine, Store},
};
use crate::model::{
    EngineId, EngineInfo, Timestamp,
    load::{NodeEngineInfo, NodeInfo, NodeLoad},
};
use std::{
    cmp::Reverse,
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

    /// The engine that this node's workers lost so that it isn't ready, as of the last heartbeat; for operators.
    #[must_use]
    pub fn lost_engine(&self) -> Option<String> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(NodeRow::lost_engine)
    }

    /// That this node's workers can't use the default engine, which they haven't had since its start and which isn't on its
    /// way, as of the last heartbeat; for operators.
    #[must_use]
    pub fn missing_engine(&self) -> Option<String> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(NodeRow::missing_engine)
    }

    /// Whether this node serves pages and streams.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.node.serves
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

    /// The engines that uploads may choose: those of this node's workers and of all others that are running, with what they
    /// know together. A node without workers offers its own only while no worker is known, so that what is sent waits.
    #[must_use]
    pub fn engines(&self, own: Vec<NodeEngine>) -> Vec<EngineInfo> {
        let others = Arc::clone(&self.others.read().unwrap_or_else(PoisonError::into_inner));
        offered(own, self.node.workers > 0, &others)
    }

    /// What queued sessions wait for that no worker can take now. `own` are this node's engines, `queued` the engines and
    /// languages of the sessions, as [`Store::queued_languages`] has them.
    #[must_use]
    pub fn waits(&self, own: &[NodeEngine], queued: Vec<(EngineId, String)>) -> Vec<Wait> {
        let others = Arc::clone(&self.others.read().unwrap_or_else(PoisonError::into_inner));
        let own = if self.node.workers > 0 && self.problem().is_none() { own } else { &[] };
        let mut waits: Vec<Wait> = Vec::new();
        for (engine, language) in queued {
            let reason = wait_for(engine, &language, own, self.node.workers, &others);
            match waits.iter_mut().find(|wait| wait.engine == engine && wait.reason == reason) {
                Some(wait) => wait.languages.push(language),
                None => waits.push(Wait { engine, languages: vec![language], reason }),
            }
        }
        waits
    }
}

/// What queued sessions of an engine wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub engine: EngineId,
    /// The languages of these sessions, as they name them; empty for those that name none.
    pub languages: Vec<String>,
    /// A sentence for people; none if a worker can take the sessions.
    pub reason: Option<String>,
}

impl NodeRow {
    /// What is wrong with the node, for operators: why it claims nothing, or else why it isn't ready although it does. A
    /// worker whose clock is wrong goes on with its work, because leases are counted by the database's, and one that lacks or
    /// has lost an engine goes on with the others.
    #[must_use]
    pub fn shown_problem(&self) -> Option<String> {
        let clock = || self.clock_ahead_ms.map(|ahead_ms| ClockOffset { ahead_ms }).filter(|offset| offset.is_wrong());
        let engine = || self.lost_engine().or_else(|| self.missing_engine());
        self.problem.clone().or_else(|| clock().map(ClockOffset::sentence)).or_else(engine)
    }

    /// The engine that the node's workers lost, if it is the one of sessions that don't choose or none is left.
    fn lost_engine(&self) -> Option<String> {
        let none_is_left = !self.engines.iter().any(NodeEngine::is_ready);
        let lost = self.engines.iter().find(|engine| engine.lost && (engine.info.is_default || none_is_left))?;
        Some(format!("{} can't be used on this node any more. {}", lost.info.name, lost.why_not()))
    }

    /// The default engine, if the node's workers can't use it.
    fn missing_engine(&self) -> Option<String> {
        // Without workers nobody uses it.
        self.engines.iter().filter(|_| self.workers > 0).find_map(NodeEngine::missing_default)
    }

    /// The node as operators are shown it, at a time of the database's clock.
    #[must_use]
    pub fn into_info(self, now: Timestamp) -> NodeInfo {
        NodeInfo {
            is_live: self.is_live(now),
            problem: self.shown_problem(),
            name: self.name,
            role: self.role,
            version: self.version,
            workers: self.workers,
            running: self.running,
            engines: self
                .engines
                .into_iter()
                .map(|NodeEngine { info, waiting, .. }| NodeEngineInfo { info, waiting })
                .collect(),
            clock_ahead_ms: self.clock_ahead_ms,
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
    engines.list().into_iter().map(|info| NodeEngine { waiting: waits(info.id), info, lost: false }).collect()
}

/// The engines of this node that can be used now.
#[must_use]
pub fn ready_engines(engines: &Engines) -> Vec<ReadyEngine> {
    let ready = engines_of(engines).into_iter().filter(NodeEngine::is_ready);
    ready.map(|NodeEngine { info, .. }| ReadyEngine { id: info.id, languages: info.languages }).collect()
}

/// The workers among nodes that can claim sessions.
fn workers(nodes: &[NodeRow]) -> impl Iterator<Item = &NodeRow> {
    nodes.iter().filter(|node| node.workers > 0 && node.problem.is_none())
}

fn offered(own: Vec<NodeEngine>, has_workers: bool, others: &[NodeRow]) -> Vec<EngineInfo> {
    if !has_workers && workers(others).next().is_none() {
        return own.into_iter().map(|engine| engine.info).collect();
    }
    let offer = |own: NodeEngine| {
        let theirs = workers(others).flat_map(|node| &node.engines).filter(|engine| engine.info.id == own.info.id);
        let all = theirs.chain(has_workers.then_some(&own)).filter(|engine| engine.info.available);
        match together(all.collect()) {
            Some(info) => EngineInfo { is_default: own.info.is_default, ..info },
            None if !has_workers => {
                let reason = Some(format!("No worker has {} at the moment.", own.info.name));
                EngineInfo { available: false, reason, install: None, ..own.info }
            }
            None => own.info,
        }
    };
    own.into_iter().map(offer).collect()
}

/// What several workers have of one engine: any of them may take a session, and each takes only languages that it knows.
/// Whatever the nodes are called, each says the same of it.
fn together(mut engines: Vec<&NodeEngine>) -> Option<EngineInfo> {
    // Those that are ready before those whose models are on their way, then by how much they know.
    engines.sort_by_key(|engine| {
        let known = engine.info.languages.as_ref().map_or(usize::MAX, Vec::len);
        (engine.waiting.is_some(), Reverse(known), &engine.info.model)
    });
    let first = *engines.first()?;
    let mut models: Vec<&str> = Vec::new();
    for engine in engines.iter().filter(|engine| engine.waiting.is_some() == first.waiting.is_some()) {
        if !models.contains(&&*engine.info.model) {
            models.push(&engine.info.model);
        }
    }
    // Sessions may wait for a model that is on its way, so its languages count.
    let known: Option<Vec<&Vec<String>>> = engines.iter().map(|engine| engine.info.languages.as_ref()).collect();
    let languages = known.map(|known| {
        let mut all: Vec<String> = Vec::new();
        for tag in known.into_iter().flatten() {
            if !all.contains(tag) {
                all.push(tag.clone());
            }
        }
        all
    });
    Some(EngineInfo { model: models.join(", "), languages, ..first.info.clone() })
}

/// Whether an engine may know the language of a session; one that names none suits every engine.
fn knows(engine: &NodeEngine, language: &str) -> bool {
    let info = &engine.info;
    language.is_empty() || info.languages.is_none() || languages::base(language).is_some_and(|base| info.knows(base))
}

fn wait_for(id: EngineId, language: &str, own: &[NodeEngine], own_workers: u32, others: &[NodeRow]) -> Option<String> {
    let all = || own.iter().chain(workers(others).flat_map(|node| &node.engines)).filter(|engine| engine.info.id == id);
    let able = || all().filter(|engine| knows(engine, language));
    if able().any(NodeEngine::is_ready) {
        return None;
    }
    if let Some(waiting) = able().find_map(|engine| engine.waiting.clone()) {
        return Some(waiting);
    }
    if own_workers == 0 && others.iter().all(|node| node.workers == 0) {
        return Some("Waiting for a worker: none is running".to_owned());
    }
    if all().any(NodeEngine::is_ready) {
        let name = languages::name(language).unwrap_or("its language");
        return Some(format!("Waiting for a worker with {} for {name}", id.label()));
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
        NodeEngine { info, waiting: waiting.map(str::to_owned), lost: false }
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

    fn knowing(engine: NodeEngine, languages: &[&str]) -> NodeEngine {
        let languages = Some(languages.iter().map(|tag| (*tag).to_owned()).collect());
        NodeEngine { info: EngineInfo { languages, ..engine.info }, ..engine }
    }

    #[test]
    fn uploads_may_choose_what_workers_have() {
        use EngineId::{Pocketsphinx, Whisper};
        let own = |available| vec![engine(Whisper, "base", available, None), engine(Pocketsphinx, "en-us", true, None)];
        let large = || node(1, None, vec![engine(Whisper, "large", true, None)]);
        let shown = |own, has_workers, others: &[NodeRow]| {
            let found = offered(own, has_workers, others).into_iter();
            found.map(|info| (info.model, info.available, info.is_default)).collect::<Vec<_>>()
        };
        let line = |model: &str, available, is_default| (model.to_owned(), available, is_default);
        let whisper = |model, available| line(model, available, true);
        // A node without workers offers what others have, and no more.
        assert_eq!(shown(own(false), false, &[large()]), [whisper("large", true), line("en-us", false, false)]);
        // A node with workers offers its own too.
        assert_eq!(shown(own(true), true, &[large()]), [whisper("base, large", true), line("en-us", true, false)]);
        assert_eq!(shown(own(false), true, &[large()]), [whisper("large", true), line("en-us", true, false)]);
        assert_eq!(shown(own(true), true, &[]), [whisper("base", true), line("en-us", true, false)]);
        // Without any worker, what is sent waits for one.
        let serving = node(0, None, vec![engine(Whisper, "large", true, None)]);
        let ill = node(1, Some("no disk"), vec![engine(Whisper, "large", true, None)]);
        assert_eq!(shown(own(true), false, &[serving, ill]), [whisper("base", true), line("en-us", true, false)]);
    }

    #[test]
    fn uploads_may_name_the_languages_of_all_workers() {
        use EngineId::Whisper;
        let english = |model| knowing(engine(Whisper, model, true, None), &["en"]);
        let base = || knowing(engine(Whisper, "base", true, None), &["de", "en", "fr"]);
        let fetching = || knowing(engine(Whisper, "large", true, Some("Waiting for a model")), &["en", "yue"]);
        let worker = |engine| node(1, None, vec![engine]);
        let shown = |own, has_workers, others: &[NodeRow]| {
            let info = offered(vec![own], has_workers, others).remove(0);
            (info.model, info.languages.map(|tags| tags.join(" ")))
        };
        let line = |model: &str, languages: &str| (model.to_owned(), Some(languages.to_owned()));
        let both = line("base, tiny.en", "de en fr");
        // Whichever node comes first, and whichever is asked.
        let orders = [[worker(english("tiny.en")), worker(base())], [worker(base()), worker(english("tiny.en"))]];
        for others in orders {
            assert_eq!(shown(english("base.en"), false, &others), both);
        }
        assert_eq!(shown(english("tiny.en"), true, &[worker(base())]), both);
        assert_eq!(shown(base(), true, &[worker(english("tiny.en"))]), both);
        // Two of a kind are one model.
        assert_eq!(shown(base(), true, &[worker(base())]), line("base", "de en fr"));
        // Sessions may wait for a model that is on its way.
        assert_eq!(shown(english("tiny.en"), true, &[worker(fetching())]), line("tiny.en", "en yue"));
        assert_eq!(shown(base(), false, &[worker(fetching())]), line("large", "en yue"));
        // One that may know any language.
        let any = engine(Whisper, "own", true, None);
        assert_eq!(shown(base(), true, &[worker(any)]), ("own, base".to_owned(), None));
        // One whose node claims nothing doesn't count.
        let ill = node(1, Some("no disk"), vec![base()]);
        assert_eq!(shown(english("tiny.en"), true, &[ill]), line("tiny.en", "en"));
    }

    #[test]
    fn a_wrong_clock_is_a_problem_that_keeps_no_worker_from_its_work() {
        let with_clock = |problem, ahead_ms| NodeRow {
            clock_ahead_ms: Some(ahead_ms),
            ..node(1, problem, vec![engine(EngineId::Whisper, "base", true, None)])
        };
        let shown = |problem, ahead_ms| with_clock(problem, ahead_ms).into_info(Timestamp(0)).problem;
        assert_eq!([shown(None, 9_999), shown(None, -9_999)], [None, None]);
        assert_eq!(shown(None, 40_000).unwrap(), "this machine's clock is 40 s ahead of the database's");
        assert_eq!(shown(None, -10_000).unwrap(), "this machine's clock is 10 s behind the database's");
        assert_eq!(shown(Some("no disk"), 40_000).unwrap(), "no disk");
        let wait = |node| wait_for(EngineId::Whisper, "", &[], 0, &[node]);
        assert_eq!(wait(with_clock(None, 40_000)), None);
        assert!(wait(with_clock(Some("no disk"), 0)).is_some());
    }

    #[test]
    fn a_lost_engine_is_a_problem_if_it_is_the_default_or_the_last() {
        use EngineId::{Command, Pocketsphinx, Whisper};
        let ready = |id| engine(id, "model", true, None);
        let missing = |id| engine(id, "model", false, None);
        let lost = |id| NodeEngine { lost: true, ..missing(id) };
        let problem = |engines| node(1, None, engines).into_info(Timestamp(0)).problem;
        let whisper = Some("Whisper can't be used on this node any more. It isn't here.".to_owned());
        assert_eq!(problem(vec![lost(Whisper), ready(Pocketsphinx)]), whisper);
        assert_eq!(problem(vec![ready(Whisper), lost(Pocketsphinx)]), None);
        let last = Some("PocketSphinx can't be used on this node any more. It isn't here.".to_owned());
        let fetching = || engine(Whisper, "model", true, Some("Waiting for a model"));
        assert_eq!(problem(vec![fetching(), lost(Pocketsphinx), missing(Command)]), last);
        // It goes on with what it has.
        let worker = [node(1, None, vec![lost(Whisper), ready(Pocketsphinx)])];
        let waits = [Whisper, Pocketsphinx].map(|id| wait_for(id, "", &[], 0, &worker));
        assert_eq!(waits, [Some("Waiting for a worker with Whisper".to_owned()), None]);
    }

    #[test]
    fn a_missing_default_engine_is_a_problem_of_workers_unless_its_model_is_on_its_way() {
        use EngineId::{Pocketsphinx, Whisper};
        let ready = || engine(Pocketsphinx, "model", true, None);
        let shown = |workers, engines| node(workers, None, engines).into_info(Timestamp(0)).problem;
        let missing = || {
            let whisper = engine(Whisper, "base", false, None);
            NodeEngine {
                info: EngineInfo { install: Some("hark model get base".to_owned()), ..whisper.info },
                ..whisper
            }
        };
        let said = "Whisper, the default engine, can't be used on this node. It isn't here. To make it available: hark model get \
                    base";
        assert_eq!(shown(1, vec![missing(), ready()]).as_deref(), Some(said));
        // One that couldn't be fetched waits, too, for the next try.
        let failed = NodeEngine { waiting: Some("Waiting for a model".to_owned()), ..missing() };
        assert_eq!(shown(1, vec![failed, ready()]).as_deref(), Some(said));
        assert_eq!(shown(1, vec![engine(Whisper, "base", true, Some("Waiting for a model")), ready()]), None);
        assert_eq!(shown(0, vec![missing(), ready()]), None);
        assert_eq!(
            shown(1, vec![engine(Whisper, "base", true, None), engine(Pocketsphinx, "model", false, None)]),
            None
        );
        // It goes on with what it has.
        assert_eq!(wait_for(Pocketsphinx, "", &[], 0, &[node(1, None, vec![missing(), ready()])]), None);
    }

    #[test]
    fn sessions_that_nobody_can_take_say_what_they_wait_for() {
        use EngineId::{Pocketsphinx, Whisper};
        let ready = || vec![engine(Whisper, "base", true, None)];
        let fetching = || vec![engine(Whisper, "base", true, Some("Waiting for a model"))];
        let missing = || vec![engine(Whisper, "base", false, None)];
        let wait = |own: Vec<NodeEngine>, others: &[NodeRow]| wait_for(Whisper, "", &own, own.len() as u32, others);
        assert_eq!(wait(ready(), &[]), None);
        assert_eq!(wait(missing(), &[node(1, None, ready())]), None);
        assert_eq!(wait(fetching(), &[node(1, None, ready())]), None);
        assert_eq!(wait(fetching(), &[node(1, None, missing())]), Some("Waiting for a model".to_owned()));
        let named = Some("Waiting for a worker with Whisper".to_owned());
        assert_eq!(wait(missing(), &[node(1, None, missing())]), named);
        assert_eq!(wait(missing(), &[]), Some("Waiting for Whisper. It isn't here.".to_owned()));
        assert_eq!(wait(vec![], &[node(1, Some("no disk"), ready())]), named);
        assert_eq!(wait(vec![], &[node(0, None, ready())]), Some("Waiting for a worker: none is running".to_owned()));
        let other = wait_for(Pocketsphinx, "", &ready(), 1, &[]);
        assert_eq!(other, Some("Waiting for a worker with PocketSphinx".to_owned()));
    }

    #[test]
    fn sessions_wait_for_a_worker_that_knows_their_language() {
        use EngineId::Whisper;
        let english = || vec![knowing(engine(Whisper, "tiny.en", true, None), &["en"])];
        let base = |waiting| node(1, None, vec![knowing(engine(Whisper, "base", true, waiting), &["de", "en", "no"])]);
        let wait = |language: &str, others: &[NodeRow]| wait_for(Whisper, language, &english(), 1, others);
        for language in ["", "en", "en-GB", "eng"] {
            assert_eq!(wait(language, &[]), None, "{language}");
        }
        let named = |name: &str| Some(format!("Waiting for a worker with Whisper for {name}"));
        assert_eq!([wait("de-AT", &[]), wait("nb", &[])], [named("German"), named("Norwegian")]);
        assert_eq!(wait("tlh", &[base(None)]), named("its language"));
        assert_eq!([wait("de-AT", &[base(None)]), wait("nb-NO", &[base(None)])], [None, None]);
        let fetching = base(Some("Waiting for a model"));
        assert_eq!(wait("de", std::slice::from_ref(&fetching)), Some("Waiting for a model".to_owned()));
        assert_eq!(wait("en", &[fetching]), None);
        // Without any Whisper its languages don't matter.
        let missing = [engine(Whisper, "base", false, None)];
        let other = node(1, None, vec![]);
        assert_eq!(
            wait_for(Whisper, "de", &missing, 1, &[other]),
            Some("Waiting for a worker with Whisper".to_owned())
        );

        // Those that wait for the same are told together.
        let identity = NodeIdentity { name: "node".to_owned(), serves: true, workers: 1, cookie_keys: Vec::new() };
        let queued = ["", "de", "de-AT", "en", "fr"].map(|language| (Whisper, language.to_owned()));
        let waits = Registry::new(identity).waits(&english(), queued.to_vec());
        let told: Vec<_> = waits.into_iter().map(|wait| (wait.languages.join(" "), wait.reason)).collect();
        let german = ("de de-AT".to_owned(), named("German"));
        assert_eq!(told, [(" en".to_owned(), None), german, ("fr".to_owned(), named("French"))]);
    }
}
