//! What pages load before they show anything. One type for all of them: each of its own would be another copy of Leptos'
//! machinery for resources, which a browser has to load.

use crate::{
    api::{
        identity::{IdentityInfo, OpenInfo, load_identity, load_open},
        sessions::{get_session, list_sessions},
        upload::{UploadInfo, load_upload_info},
    },
    model::{ApiError, SessionDetail, SessionId, SessionPage},
};
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

/// What a page asks for. It is asked for again when this changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A page of the list, searched by `query`. `again` grows when the list has changed.
    Sessions { query: String, cursor: Option<String>, again: u64 },
    /// A session; none if the address names none.
    Session(Option<SessionId>),
    /// What the upload form must know.
    Upload,
    /// What there is to take to another device.
    Identity,
    /// What the key of a link opens.
    Open(Option<String>),
}

/// What a page is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Loaded {
    Sessions(SessionPage),
    Session(Box<SessionDetail>),
    Upload(UploadInfo),
    Identity(IdentityInfo),
    Open(OpenInfo),
}

/// What a page asked for, or why it can't be had.
pub type Answer = Result<Loaded, ApiError>;

impl Ask {
    /// Asks.
    pub(crate) async fn load(self) -> Answer {
        match self {
            Self::Sessions { query, cursor, .. } => {
                list_sessions(Some(query).filter(|q| !q.is_empty()), cursor).await.map(Loaded::Sessions)
            }
            Self::Session(Some(id)) => get_session(id).await.map(|detail| Loaded::Session(Box::new(detail))),
            Self::Session(None) => Err(ApiError::new("not_found", "This is no session's address.")),
            Self::Upload => load_upload_info().await.map(Loaded::Upload),
            Self::Identity => load_identity().await.map(Loaded::Identity),
            Self::Open(key) => load_open(key).await.map(Loaded::Open),
        }
    }
}

/// The answer to what a page asks for. The server waits for it while it renders, and the browser reads it in the page.
pub type Page = Resource<Answer>;

/// Loads what `ask` asks for, anew when that changes.
pub fn load(ask: impl Fn() -> Ask + Send + Sync + 'static) -> Page {
    let ask: Box<dyn Fn() -> Ask + Send + Sync> = Box::new(ask);
    Page::new_with_options(ask, Ask::load, false)
}
