//! Fetches the model that a node needs, in the background, and tells how far it is. Called by `Engines`; the `whisper`
//! engine and the queue ask for the state.

use super::{Library, Step};
use crate::{model::bytes, server::config::ModelConfig};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time};

/// The pause after a failure, and the longest after several.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1800);

/// How far the model is. Both sentences are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchState {
    /// It is being fetched.
    Fetching(String),
    /// It couldn't be fetched, and will be tried again.
    Failed(String),
}

/// The state of the fetch of one model; none if there is none.
#[derive(Debug)]
pub(in crate::server::speech) struct Fetch {
    state: Mutex<Option<FetchState>>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

impl Fetch {
    pub(in crate::server::speech) fn new(changed: watch::Sender<()>) -> Self {
        Self { state: Mutex::default(), changed }
    }

    pub(in crate::server::speech) fn state(&self) -> Option<FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: Option<FetchState>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.send_replace(());
    }

    /// Says that the model is going to be fetched.
    pub(in crate::server::speech) fn announce(&self) {
        self.set(Some(FetchState::Fetching("is being fetched".to_owned())));
    }

    /// Fetches a model, again and again until it is there.
    pub(in crate::server::speech) async fn run(&self, library: &Library, name: &str, config: &ModelConfig) {
        self.announce();
        let mut pause = FIRST_PAUSE;
        loop {
            tracing::info!("the speech model '{name}' is not here; fetching it");
            let report = |step| {
                match &step {
                    Step::Source(source, label) => tracing::info!(%source, "asking {label}"),
                    Step::Failed(source, why) => tracing::info!(%source, "it does not have the model: {why}"),
                    _ => {}
                }
                // After a failure there may be nobody to ask, so another try is news only when something arrives.
                let failed = matches!(self.state(), Some(FetchState::Failed(_)));
                if let Some((text, _)) = sentence(&step).filter(|_| !(failed && matches!(step, Step::Source(..)))) {
                    self.set(Some(FetchState::Fetching(text)));
                }
            };
            match library.get(name, None, config, &report).await {
                Ok(got) => {
                    tracing::info!("the speech model '{name}' is at {}", got.path.display());
                    return self.set(None);
                }
                Err(why) => {
                    tracing::warn!(retry_secs = pause.as_secs(), "{why}. To fetch it by hand: hark model get {name}");
                    self.set(Some(FetchState::Failed("could not be fetched yet; trying again".to_owned())));
                }
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What happens to a model, to follow its name in a sentence, and the bytes that have arrived of all; none for a step that
/// changes neither.
pub(super) fn sentence(step: &Step) -> Option<(String, Option<(u64, u64)>)> {
    Some(match *step {
        Step::Source(..) => ("is being fetched".to_owned(), None),
        Step::Received { bytes: received, total: Some(total) } => {
            (format!("is being fetched: {} of {}", bytes(received), bytes(total)), Some((received, total)))
        }
        Step::Received { bytes: received, total: None } => (format!("is being fetched: {}", bytes(received)), None),
        Step::Checking => ("is being checked".to_owned(), None),
        Step::Converting => ("is being converted".to_owned(), None),
        Step::Failed(..) => return None,
    })
}
