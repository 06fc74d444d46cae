//! Notices when an engine of this node can't be used any more, such as one whose model file was removed while the node runs,
//! when it can again, and that the default engine can't be used from the start. Run by `jobs` with each heartbeat.

use crate::{model::EngineId, server::store::NodeEngine};
use std::collections::HashMap;

/// What is known of the engines since this node's start; nothing of one that wasn't ready and isn't the default.
#[derive(Default)]
pub(super) struct EngineWatch(HashMap<EngineId, Seen>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Ready,
    /// It was ready, and can't be used any more.
    Lost,
    /// It is the default, and hasn't been ready yet.
    Missing,
}

impl EngineWatch {
    /// Compares the engines with those of the last heartbeat, and marks those that are lost. Returns what the log should say:
    /// once that one is lost, once that it is back, and once that the default was never there.
    pub(super) fn check(&mut self, engines: &mut [NodeEngine]) -> Vec<Change> {
        let mut changes = Vec::new();
        for engine in engines {
            let id = engine.info.id;
            let before = self.0.get(&id).copied();
            let now = match before {
                _ if engine.is_ready() => Seen::Ready,
                Some(Seen::Ready | Seen::Lost) => Seen::Lost,
                Some(Seen::Missing) => Seen::Missing,
                // Of a fetch that failed the log knows already.
                None if engine.missing_default().is_some() && engine.waiting.is_none() => Seen::Missing,
                None => continue,
            };
            let name = &engine.info.name;
            changes.extend(match (before, now) {
                (Some(Seen::Lost), Seen::Ready) => Some(Change::Back(format!("{name} can be used on this node again"))),
                (Some(Seen::Missing), Seen::Ready) => {
                    Some(Change::Back(format!("{name} can be used on this node now")))
                }
                (Some(Seen::Ready), Seen::Lost) => {
                    Some(Change::Gone(format!("{name} can't be used on this node any more. {}", engine.why_not())))
                }
                (None, Seen::Missing) => engine.missing_default().map(Change::Gone),
                _ => None,
            });
            engine.lost = now == Seen::Lost;
            self.0.insert(id, now);
        }
        changes
    }
}

/// What has changed about an engine, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Gone(String),
    Back(String),
}

impl Change {
    pub(super) fn log(&self) {
        match self {
            Self::Gone(text) => tracing::warn!("{text}"),
            Self::Back(text) => tracing::info!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EngineInfo;

    fn engine(id: EngineId, available: bool, waiting: Option<&str>) -> NodeEngine {
        let info = EngineInfo {
            id,
            name: id.label().to_owned(),
            model: "base".to_owned(),
            available,
            reason: (!available).then(|| "It isn't here.".to_owned()),
            install: None,
            is_default: id == EngineId::Whisper,
            languages: None,
        };
        NodeEngine { info, waiting: waiting.map(str::to_owned), lost: false }
    }

    #[test]
    fn only_what_was_there_can_be_lost() {
        let mut watch = EngineWatch::default();
        let mut lost = |available, waiting: Option<&str>| {
            let mut engines = [engine(EngineId::Whisper, available, waiting)];
            watch.check(&mut engines);
            engines[0].lost
        };
        // It has never been there.
        assert!(!lost(false, None) && !lost(true, Some("Waiting for a model")));
        assert!(!lost(true, None) && !lost(true, None));
        assert!(lost(false, None) && lost(false, None) && lost(true, Some("Waiting for a model")));
        assert!(!lost(true, None));
        assert!(lost(false, None));
    }

    #[test]
    fn a_default_engine_that_was_never_there_is_told_once() {
        use EngineId::{Pocketsphinx, Whisper};
        let mut watch = EngineWatch::default();
        let mut said = |engine| watch.check(&mut [engine]);
        let fetching = || engine(Whisper, true, Some("Waiting for a model"));
        let failed = || engine(Whisper, false, Some("Waiting for a model"));
        assert_eq!(said(engine(Pocketsphinx, false, None)), []);
        // The fetch itself tells how it goes.
        assert_eq!([said(fetching()), said(failed())].concat(), []);
        let missing = "Whisper, the default engine, can't be used on this node. It isn't here.";
        assert_eq!(said(engine(Whisper, false, None)), [Change::Gone(missing.to_owned())]);
        assert_eq!([said(engine(Whisper, false, None)), said(fetching())].concat(), []);
        assert_eq!(
            said(engine(Whisper, true, None)),
            [Change::Back("Whisper can be used on this node now".to_owned())]
        );
        let lost = "Whisper can't be used on this node any more. It isn't here.";
        assert_eq!(said(engine(Whisper, false, None)), [Change::Gone(lost.to_owned())]);
    }
}
