//! Downloads of models that visitors of the page of models have asked for, one at a time, and why the last ones failed.
//! Called by `Engines`, where the operator allows it.

use super::{Library, ModelChangeError, fetch::sentence};
use crate::{
    model::{ModelDownload, percent},
    server::config::ModelConfig,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::watch, task::JoinHandle};

/// The models that are being downloaded or couldn't be, by name.
type States = Arc<Mutex<BTreeMap<String, ModelDownload>>>;

/// The downloads of this node.
#[derive(Debug)]
pub(in crate::server::speech) struct Downloads {
    library: Library,
    config: ModelConfig,
    states: States,
    /// Told of every change.
    changed: watch::Sender<()>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Downloads {
    pub(in crate::server::speech) fn new(library: Library, config: ModelConfig, changed: watch::Sender<()>) -> Self {
        Self { library, config, states: States::default(), changed, task: Mutex::default() }
    }

    /// How far the download of each model is, or why it failed.
    pub(in crate::server::speech) fn states(&self) -> BTreeMap<String, ModelDownload> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the download of a model. Does nothing if it is under way.
    ///
    /// # Errors
    /// If that of another model is under way.
    pub(in crate::server::speech) fn start(&self, name: &str) -> Result<(), ModelChangeError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((running, _)) = states.iter().find(|(_, state)| !state.failed) {
            return if running == name { Ok(()) } else { Err(ModelChangeError::Busy(running.clone())) };
        }
        let state = ModelDownload { message: "is being fetched".to_owned(), percent: None, failed: false };
        states.insert(name.to_owned(), state);
        drop(states);
        self.changed.send_replace(());
        let (library, config, name) = (self.library.clone(), self.config.clone(), name.to_owned());
        let (states, changed) = (Arc::clone(&self.states), self.changed.clone());
        // A task of its own, which goes on when the visitor leaves.
        let task = tokio::spawn(async move {
            let set = |state: Option<ModelDownload>| {
                let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
                match state {
                    Some(state) => states.insert(name.clone(), state),
                    None => states.remove(&name),
                };
                drop(states);
                changed.send_replace(());
            };
            tracing::info!("a visitor has asked for the speech model '{name}'; fetching it");
            let report = |step| {
                if let Some((message, share)) = sentence(&step) {
                    let percent = share.and_then(|(received, total)| percent(received as f64, Some(total as f64)));
                    set(Some(ModelDownload { message, percent, failed: false }));
                }
            };
            match library.get(&name, None, &config, &report).await {
                Ok(got) => {
                    tracing::info!("the speech model '{name}' is at {}", got.path.display());
                    set(None);
                }
                Err(why) => {
                    tracing::warn!("{why}");
                    set(Some(ModelDownload { message: without_folder(&library, &why), percent: None, failed: true }));
                }
            }
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    /// Removes a model that is here, and what has arrived of it.
    ///
    /// # Errors
    /// If it is being downloaded, or can't be removed.
    pub(in crate::server::speech) fn remove(&self, name: &str) -> Result<(), ModelChangeError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if states.get(name).is_some_and(|state| !state.failed) {
            return Err(ModelChangeError::Busy(name.to_owned()));
        }
        states.remove(name);
        drop(states);
        let removed = self.library.remove(name);
        self.changed.send_replace(());
        removed.map_err(|why| ModelChangeError::NotRemoved(without_folder(&self.library, &why)))
    }
}

/// A sentence without the name of the folder of models: where files are concerns nobody else.
fn without_folder(library: &Library, text: &str) -> String {
    text.replace(&library.folder().display().to_string(), "the folder of models")
}

impl Drop for Downloads {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}
