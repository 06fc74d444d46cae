//! The built-in alerts, for those who have no Prometheus: looks at the metrics every few seconds, stores which alerts have
//! begun, so that neither a restart nor another node tells of them again, and sends messages when they begin and end. Run by
//! `node` if there is anybody to tell; `hark alerts test` is called by `main`.

mod deliver;
mod email;
pub mod figures;
mod message;
pub mod rules;

use self::{
    deliver::{Channel, GIVE_UP_SECS, Sender, pause_secs},
    figures::{Cluster, Figures, History},
    message::Message,
    rules::{Alerts, Change, DATABASE_FAILING, Rule, Scope, Severity},
};
use super::{
    config::{AlertConfig, AlertThresholds},
    nodes::silent_nodes,
    print, scrape,
    state::AppState,
    store::{self, AlertMessage, AlertRow, Store},
};
use crate::model::Timestamp;
use clap::Subcommand;
use std::{
    collections::{BTreeSet, VecDeque},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the rules are evaluated, and how often messages that wait are looked for, in seconds.
const CHECK_SECS: f64 = 15.0;
const SEND_SECS: f64 = 5.0;
/// The chores of looking at the figures of all nodes and of sending, and the seconds for which a node takes one: longer than it
/// needs until it takes it again.
const CHORE: &str = "alerts";
const CHORE_SECS: f64 = 60.0;
const SENDING: &str = "alert messages";
const SENDING_SECS: f64 = 60.0;

/// `hark alerts`.
#[derive(Subcommand)]
pub enum AlertsArgs {
    /// Send a test message to everybody whom alerts would be told, and say whether it arrived. Exits with 0 if it did.
    Test(Box<AlertConfig>),
}

/// Runs a subcommand of `hark alerts`.
pub async fn run(args: AlertsArgs) -> ExitCode {
    let AlertsArgs::Test(config) = args;
    match test(*config).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Sends a test message. False if it didn't arrive everywhere.
async fn test(mut config: AlertConfig) -> Result<bool, String> {
    config.read_secrets()?;
    if !config.is_on() {
        return Err(
            "nobody would be told: set HARK_ALERT_WEBHOOK, or HARK_ALERT_EMAIL_TO with HARK_ALERT_EMAIL_FROM and \
                    HARK_ALERT_SMTP_URL"
                .to_owned(),
        );
    }
    let sender = Sender::new(&config)?;
    let message = Message::test(config.public_url.as_ref().map(|url| url.as_str()));
    let mut all = true;
    for channel in sender.channels() {
        match sender.send(channel, &message).await {
            Ok(()) => print::line(format_args!("{}: sent", channel.as_str())),
            Err(error) => {
                print::line(format_args!("{}: not sent: {error}", channel.as_str()));
                all = false;
            }
        }
    }
    Ok(all)
}

/// What the alerts of a node need.
pub struct Setup {
    /// This run of the node, as the one that does a chore.
    id: String,
    sender: Sender,
    thresholds: AlertThresholds,
    url: Option<String>,
    /// How many times faster than the clock time runs, for tests.
    pace: f64,
    /// Messages that can't be kept in the database, because it is what they tell of.
    direct: Mutex<VecDeque<Direct>>,
}

/// A message that isn't kept in the database.
struct Direct {
    channel: Channel,
    message: Message,
    failures: u32,
    since: Instant,
    next: Instant,
}

impl Setup {
    /// None if there is nobody to tell.
    ///
    /// # Errors
    /// If a setting can't be used, as a message for the operator.
    pub fn new(config: &AlertConfig, thresholds: AlertThresholds) -> Result<Option<Arc<Self>>, String> {
        if !config.is_on() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            id: Uuid::new_v4().to_string(),
            sender: Sender::new(config)?,
            thresholds,
            url: config.public_url.as_ref().map(ToString::to_string),
            pace: config.alert_pace,
            direct: Mutex::default(),
        })))
    }

    fn real(&self, secs: f64) -> Duration {
        Duration::from_secs_f64(secs / self.pace)
    }

    /// A message for each channel, as it is stored.
    fn for_channels(&self, message: &Message) -> Vec<AlertMessage> {
        let body =
            |message: &Message| serde_json::to_string(message).expect("a message has only fields that JSON knows");
        let channels = self.sender.channels().into_iter();
        channels.map(|channel| (channel.as_str(), body(&Message { id: Uuid::now_v7(), ..message.clone() }))).collect()
    }

    fn lock_direct(&self) -> std::sync::MutexGuard<'_, VecDeque<Direct>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evaluates the rules until `stop`.
pub async fn watch(state: AppState, setup: Arc<Setup>, stop: CancellationToken) {
    let mut ticks = time::interval(setup.real(CHECK_SECS));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut watch = Watch::new(state, setup);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(watch.check()).await.is_none() {
            return;
        }
    }
}

/// The figures of one scope and its alerts.
struct Scoped {
    history: History,
    alerts: Alerts,
}

impl Scoped {
    fn new(scope: Scope) -> Self {
        Self { history: History::default(), alerts: Alerts::new(scope) }
    }
}

/// What one node knows.
struct Watch {
    state: AppState,
    setup: Arc<Setup>,
    begun: Instant,
    node: Scoped,
    /// While this node has the chore: the figures of all nodes, and their alerts.
    cluster: Option<(Cluster, Scoped)>,
    /// Errors that are noted in the database already.
    known_errors: BTreeSet<String>,
    /// When the database began to fail. That alert isn't stored there.
    database_failing_since: Option<Timestamp>,
}

impl Watch {
    fn new(state: AppState, setup: Arc<Setup>) -> Self {
        Self {
            state,
            setup,
            begun: Instant::now(),
            node: Scoped::new(Scope::Node),
            cluster: None,
            known_errors: BTreeSet::new(),
            database_failing_since: None,
        }
    }

    async fn check(&mut self) {
        let now = self.begun.elapsed().as_secs_f64() * self.setup.pace;
        let figures = Figures::read(&scrape::metrics(&self.state).await, Timestamp::now());
        self.node.history.push(now, figures.clone());
        let store = self.state.sessions.store.clone();
        let node = self.check_node(&store, now).await;
        let cluster = match &node {
            Ok(()) => self.check_cluster(&store, now, figures).await,
            Err(_) => Ok(()),
        };
        if let Err(error) = node.and(cluster)
            && !store::is_away(&error)
        {
            tracing::warn!(%error, "alerts could not be looked after; trying again");
        }
    }

    /// Evaluates the rules of this node by itself.
    async fn check_node(&mut self, store: &Store, now: f64) -> Result<(), sqlx::Error> {
        let name = self.state.sessions.registry.node_name().to_owned();
        // Without waiting for a database that is known to be away.
        let stored = store.unless_away(begun(store, &name, &self.setup.id)).await;
        let stored = stored.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        if let Ok((_, begun)) = &stored {
            self.node.alerts.take_over(&keys(begun));
        }
        for change in self.node.alerts.check(now, &self.node.history, &self.setup.thresholds) {
            if change.rule.name == DATABASE_FAILING {
                self.tell_directly(&change, &name);
                continue;
            }
            let done = match &stored {
                Ok((at, begun)) => save(&self.setup, store, &change, &name, begun, *at).await,
                // Said below, once.
                Err(_) => Ok(false),
            };
            if !matches!(done, Ok(true)) {
                self.node.alerts.take_back(&change);
            }
            done?;
        }
        stored.map(drop)
    }

    /// Evaluates the rules of all nodes together, if no other node does.
    async fn check_cluster(&mut self, store: &Store, now: f64, figures: Figures) -> Result<(), sqlx::Error> {
        let id = &self.setup.id;
        let at = store.now().await?;
        let nodes = if store.is_shared() {
            let json = serde_json::to_string(&figures).map_err(|e| sqlx::Error::Encode(e.into()))?;
            store.put_alert_figures(id, &json, at).await?;
            if !store.take_chore(CHORE, id, at, at.plus_seconds(CHORE_SECS / self.setup.pace)).await? {
                self.cluster = None;
                return Ok(());
            }
            let rows = store.alert_figures(at).await?.into_iter();
            // A node of another version may say something that this one doesn't know.
            rows.filter_map(|(id, json)| Some((id, serde_json::from_str(&json).ok()?))).collect()
        } else {
            vec![(id.clone(), figures)]
        };
        let (sums, scoped) = self.cluster.get_or_insert_with(|| (Cluster::default(), Scoped::new(Scope::Cluster)));
        let mut all = sums.take(nodes, id);
        // A node with a database of its own has nobody who could tell of its end.
        if store.is_shared() {
            for (name, secs) in silent_nodes(&store.nodes().await?, at) {
                all.note_silent_node(name, secs);
            }
        }
        for code in all.failed_codes() {
            if self.known_errors.insert(code.to_owned()) && store.note_error_code(code, at).await? {
                scoped.history.note_new_error(code, now);
            }
        }
        scoped.history.push(now, all);
        let (at, begun) = begun(store, "", id).await?;
        scoped.alerts.take_over(&keys(&begun));
        for change in scoped.alerts.check(now, &scoped.history, &self.setup.thresholds) {
            let done = save(&self.setup, store, &change, "", &begun, at).await;
            if !matches!(done, Ok(true)) {
                scoped.alerts.take_back(&change);
            }
            done?;
        }
        for row in store.abandoned_alerts(at).await? {
            let severity = Rule::named(&row.name).map_or(Severity::Warning, |rule| rule.severity);
            let message = Message::of_gone(&row.name, severity, &row.node, &row.detail, Timestamp(row.since), at);
            store.end_alert(&row, &self.setup.for_channels(&message), at).await?;
        }
        Ok(())
    }

    /// Sends a message that can't be kept in the database.
    fn tell_directly(&mut self, change: &Change, node: &str) {
        let now = Timestamp::now();
        let since = if change.begins { now } else { self.database_failing_since.unwrap_or(now) };
        self.database_failing_since = change.begins.then_some(now);
        let message = Message::of(change, Some(node), self.setup.url.as_deref(), since, now);
        log(&message);
        let at = Instant::now();
        let waiting = self.setup.sender.channels().into_iter();
        let waiting =
            waiting.map(|channel| Direct { channel, message: message.clone(), failures: 0, since: at, next: at });
        self.setup.lock_direct().extend(waiting);
    }
}

/// The time of the database, and the alerts that have begun on a node, or on all together if it has no name.
async fn begun(store: &Store, node: &str, owner: &str) -> Result<(Timestamp, Vec<AlertRow>), sqlx::Error> {
    let at = store.now().await?;
    Ok((at, store.begun_alerts(node, owner, at).await?))
}

fn keys(rows: &[AlertRow]) -> Vec<(String, String)> {
    rows.iter().map(|row| (row.name.clone(), row.detail.clone())).collect()
}

/// Stores a change with the messages about it. False if another node looks after that alert.
async fn save(
    setup: &Setup,
    store: &Store,
    change: &Change,
    node: &str,
    begun: &[AlertRow],
    at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let row = begun.iter().find(|row| row.name == change.rule.name && row.detail == change.detail);
    let since = if change.begins { at } else { row.map_or(at, |row| Timestamp(row.since)) };
    let message = Message::of(change, Some(node).filter(|node| !node.is_empty()), setup.url.as_deref(), since, at);
    let messages = setup.for_channels(&message);
    let row = AlertRow {
        name: change.rule.name.to_owned(),
        node: node.to_owned(),
        detail: change.detail.clone(),
        since: since.0,
    };
    let saved = if change.begins {
        store.begin_alert(&row, &setup.id, &messages, at).await?
    } else {
        store.end_alert(&row, &messages, at).await?
    };
    if saved {
        log(&message);
    }
    Ok(saved)
}

fn log(message: &Message) {
    let (line, summary) = (message.line(), &message.summary);
    if message.ended_at.is_some() {
        tracing::info!(alert = message.alert, "alert {line}: {summary}");
    } else {
        tracing::warn!(alert = message.alert, "alert {line}: {summary}; see {}", message.runbook);
    }
}

/// Sends the messages that wait, until `stop`.
pub async fn send(state: AppState, setup: Arc<Setup>, stop: CancellationToken) {
    let mut ticks = time::interval(setup.real(SEND_SECS));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let store = &state.sessions.store;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let sending = async {
            send_direct(&setup).await;
            if store.outage().is_none()
                && let Err(error) = send_stored(store, &setup).await
                && !store::is_away(&error)
            {
                tracing::warn!(%error, "messages about alerts could not be read; trying again");
            }
        };
        if stop.run_until_cancelled(sending).await.is_none() {
            return;
        }
    }
}

async fn send_direct(setup: &Setup) {
    for channel in setup.sender.channels() {
        loop {
            let due = {
                let mut waiting = setup.lock_direct();
                let first = waiting.iter().position(|direct| direct.channel == channel);
                // Messages are sent in order: behind one that has to wait, the others wait too.
                first.filter(|at| waiting[*at].next <= Instant::now()).and_then(|at| waiting.remove(at))
            };
            let Some(mut direct) = due else { break };
            let Err(error) = setup.sender.send(channel, &direct.message).await else { continue };
            direct.failures += 1;
            log_failure(channel, &direct.message, direct.failures, &error);
            if direct.since.elapsed().as_secs_f64() > GIVE_UP_SECS {
                log_given_up(channel, &direct.message.line());
                continue;
            }
            direct.next = Instant::now() + setup.real(pause_secs(direct.failures));
            setup.lock_direct().push_front(direct);
            break;
        }
    }
}

async fn send_stored(store: &Store, setup: &Setup) -> Result<(), sqlx::Error> {
    for channel in setup.sender.channels() {
        loop {
            let at = store.now().await?;
            if !store.take_chore(SENDING, &setup.id, at, at.plus_seconds(SENDING_SECS / setup.pace)).await? {
                return Ok(());
            }
            let Some(row) = store.next_alert_message(channel.as_str()).await? else { break };
            let message = serde_json::from_str::<Message>(&row.body);
            let old = at.seconds_since(Timestamp(row.created_at)) > GIVE_UP_SECS;
            let message = match message {
                Ok(message) if !old => message,
                message => {
                    log_given_up(channel, &message.map_or_else(|e| e.to_string(), |message| message.line()));
                    store.remove_alert_message(&row.id).await?;
                    continue;
                }
            };
            if row.next_at > at.0 {
                break;
            }
            let Err(error) = setup.sender.send(channel, &message).await else {
                store.remove_alert_message(&row.id).await?;
                continue;
            };
            let failures = u32::try_from(row.failures).unwrap_or(u32::MAX).saturating_add(1);
            log_failure(channel, &message, failures, &error);
            let pause = pause_secs(failures) / setup.pace;
            store.alert_message_failed(&row.id, store.now().await?.plus_seconds(pause)).await?;
            break;
        }
    }
    Ok(())
}

/// Logs the first failure of a message; the others only for those who look.
fn log_failure(channel: Channel, message: &Message, failures: u32, error: &str) {
    let (channel, line) = (channel.as_str(), message.line());
    if failures == 1 {
        tracing::warn!(channel, "the message '{line}' could not be sent: {error}; trying again");
    } else {
        tracing::debug!(channel, failures, "the message '{line}' could not be sent: {error}");
    }
}

fn log_given_up(channel: Channel, message: &str) {
    tracing::error!(channel = channel.as_str(), "a message about an alert was given up after a day: {message}");
}
