//! What was seen of a deployment. Made by `probe`, judged by `findings`; holds no opinion of its own.

use super::{answer::Answer, body::REFUSAL, watch::Watch};
use reqwest::Url;
use serde::Deserialize;
use std::net::IpAddr;

/// All that was seen.
#[derive(Clone, Debug)]
pub(super) struct Observations {
    pub(super) target: Target,
    /// Whether the address began with http and the answer led to https.
    pub(super) redirected: bool,
    /// Why nothing answers.
    pub(super) unreachable: Option<String>,
    /// Only with https.
    pub(super) certificate: Option<Certificate>,
    pub(super) sub_path: Option<SubPath>,
    /// The first answer: Hark's description of its API, or what something else says.
    pub(super) first: Option<Answer>,
    /// The rest, if it is Hark that answers.
    pub(super) hark: Option<Box<Deployment>>,
}

impl Observations {
    /// Whether an answer is Hark's description of its API.
    pub(super) fn is_hark(answer: &Answer) -> bool {
        answer.json().is_some_and(|json| json["info"]["title"] == "Hark")
    }
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Scheme, host and port, as a browser sends them in `Origin`.
    pub(super) origin: String,
    /// Host and port, as a browser sends them in `Host`.
    pub(super) authority: String,
    pub(super) https: bool,
    /// Whether it is this machine, or a name for it.
    pub(super) is_local: bool,
}

impl Target {
    pub(super) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default().to_owned();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        Self {
            origin: url.origin().ascii_serialization(),
            authority: url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
            https: url.scheme() == "https",
            is_local: host == "localhost" || address.is_ok_and(|address| address.is_loopback()),
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Where an answer leads from http to https.
    pub(super) fn redirected(&self, answer: &Answer) -> Option<Self> {
        let to = Url::parse(answer.header("location")?).ok()?;
        let to = Self::of(&to);
        (!self.https && to.https && (300..400).contains(&answer.status)).then_some(to)
    }
}

/// The certificate of a TLS connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificate {
    /// Why it can't be trusted.
    pub(super) problem: Option<String>,
    /// Whether it was checked at all.
    pub(super) is_checked: bool,
    pub(super) days_left: Option<f64>,
    /// How long it is valid from its first day to its last.
    pub(super) days_in_all: Option<f64>,
}

/// Hark answers below a path of the host.
#[derive(Clone, Debug)]
pub(super) struct SubPath {
    pub(super) path: String,
}

/// What was seen of Hark.
#[derive(Clone, Debug, Default)]
pub(super) struct Deployment {
    pub(super) description: Answer,
    pub(super) page: Option<Answer>,
    /// A file of the page with a hash in its name, with that name.
    pub(super) file: Option<(String, Answer)>,
    /// Two polls, one after the other, without a cookie.
    pub(super) statuses: Vec<Answer>,
    pub(super) arrival: Option<Arrival>,
    /// The status of a request that a page of this deployment could have sent.
    pub(super) same_site: Option<u16>,
    pub(super) metrics: Option<Answer>,
    pub(super) health: Option<Answer>,
    /// The stream that pages ask for, for as long as was asked.
    pub(super) stream: Watch,
    /// The stream that programs ask for, to its first event.
    pub(super) plain_stream: Watch,
    /// Sizes of uploads in bytes with what came of them, the wanted one first.
    pub(super) uploads: Vec<(u64, Declared)>,
    pub(super) slow_upload: SlowUpload,
}

/// How a request reached Hark: `GET /api/v1/request`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) http: String,
    pub(super) host: Option<String>,
    pub(super) scheme: String,
    pub(super) client: String,
    pub(super) accept_encoding: Option<String>,
}

/// What came of an upload that Hark would refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Declared {
    /// Nothing.
    #[default]
    Silence,
    /// An answer, with Hark's code if it is Hark's.
    Answered { status: u16, code: Option<String> },
    /// The connection broke.
    Broken(String),
}

impl Declared {
    /// Whether Hark got it, whatever it said.
    pub(super) fn reached_hark(&self) -> bool {
        matches!(self, Self::Answered { code: Some(_), .. })
    }

    /// Whether Hark refused it by the field that is there for that.
    pub(super) fn is_hark_refusal(&self) -> bool {
        matches!(self, Self::Answered { code: Some(code), .. } if code == REFUSAL)
    }

    /// Whether something before Hark didn't let it through.
    pub(super) fn is_refused_on_the_way(&self) -> bool {
        matches!(self, Self::Answered { code: None, .. } | Self::Broken(_))
    }
}

/// An upload that took a while.
#[derive(Clone, Debug, Default)]
pub(super) struct SlowUpload {
    /// How long it should have taken, in seconds.
    pub(super) wanted_secs: u32,
    /// How long it took until its answer or its end.
    pub(super) secs: f64,
    pub(super) came: Declared,
}
