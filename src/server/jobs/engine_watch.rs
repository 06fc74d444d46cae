//! Notices when an engine of this node can't be used any more, such as one whose model file was removed while the node runs,
//! and when it can again. Run by `jobs` with each heartbeat.

use crate::{model::EngineId, server::store::NodeEngine};
use std::collections::HashMap;

/// The engines that could be used at some time since this node's start, and whether they can't any more.
#[derive(Default)]
pub(super) struct EngineWatch(HashMap<EngineId, bool>);

impl EngineWatch {
    /// Compares the engines with those of the last heartbeat, and marks those that are lost. Says once that one is lost, and
    /// once that it is back.
    pub(super) fn check(&mut self, engines: &mut [NodeEngine]) {
        for engine in engines {
            let name = &engine.info.name;
            if engine.is_ready() {
                if self.0.insert(engine.info.id, false) == Some(true) {
                    tracing::info!("{name} can be used on this node again");
                }
            } else if let Some(known) = self.0.get_mut(&engine.info.id) {
                if !std::mem::replace(known, true) {
                    tracing::warn!("{name} can't be used on this node any more. {}", engine.why_not());
                }
                engine.lost = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EngineInfo;

    #[test]
    fn only_what_was_there_can_be_lost() {
        let mut watch = EngineWatch::default();
        let mut lost = |available, waiting: Option<&str>| {
            let info = EngineInfo {
                id: EngineId::Whisper,
                name: "Whisper".to_owned(),
                model: "base".to_owned(),
                available,
                reason: None,
                install: None,
                is_default: true,
                languages: None,
            };
            let mut engines = [NodeEngine { info, waiting: waiting.map(str::to_owned), lost: false }];
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
}
