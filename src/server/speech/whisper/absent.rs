//! The `whisper` engine in a build without Whisper: fails with a message that says so.

use crate::server::speech::pipe::ChildError;
use std::path::Path;

pub(super) const LINKED: bool = false;

pub(in crate::server::speech) fn child(_: &Path, _: Option<&str>) -> Result<(), ChildError> {
    Err(ChildError::new(
        "engine_unavailable",
        "This build of Hark has no Whisper; build it with the feature 'whisper'.",
    ))
}
