//! What a node does right now: what each node tells with its heartbeat (`server::load`), and the counts of all nodes for the
//! dashboard. Shown by pages and returned by the API.

use super::{EngineId, EngineInfo, SessionId, Stage, Timestamp};
use serde::{Deserialize, Serialize};

/// The load of a node at its last heartbeat. What a node can't tell is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct NodeLoad {
    /// Status streams that are open, without those of the dashboard, and how many there may be.
    pub streams: u64,
    pub max_streams: u64,
    /// Events written to streams in a second, since the heartbeat before.
    pub events_per_sec: f64,
    /// The share of its processors that the node itself used since the heartbeat before, engines and decoders not included.
    pub cpu: Option<f64>,
    pub cpus: u32,
    /// Resident memory in bytes, and how much the system allows: that of the control group, or of the machine.
    pub memory: Option<u64>,
    pub memory_limit: Option<u64>,
    /// Open file descriptors, and how many there may be.
    pub files: Option<u64>,
    pub max_files: Option<u64>,
    /// Recordings that are being received.
    pub uploads: u32,
    /// What its workers do.
    pub work: Vec<WorkerLoad>,
    /// Whether changes reach the other nodes over Redis; null without Redis.
    pub bus: Option<bool>,
    /// How long the database took to answer, in milliseconds.
    pub database_ms: Option<f64>,
    /// Bytes that are free where recordings are received.
    pub disk_free: Option<u64>,
}

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct WorkerLoad {
    pub session: SessionId,
    pub engine: EngineId,
    /// When this attempt began.
    pub since: Timestamp,
    pub stage: Option<Stage>,
    /// In percent.
    pub progress: Option<f64>,
    /// Seconds of audio for each second, once that has settled.
    pub speed: Option<f64>,
}

/// A node of the cluster, as it described itself with its last heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct NodeInfo {
    pub name: String,
    /// `serve` or `worker`.
    pub role: String,
    pub version: String,
    /// Whether it was heard of lately.
    pub is_live: bool,
    /// How many sessions it transcribes at once, and how many it does now.
    pub workers: u32,
    pub running: u32,
    pub engines: Vec<NodeEngineInfo>,
    /// By how many milliseconds its clock is ahead of the database's.
    pub clock_ahead_ms: Option<i64>,
    /// Why it isn't ready or claims nothing.
    pub problem: Option<String>,
    pub started_at: Timestamp,
    pub heartbeat_at: Timestamp,
    /// None from a node of a version that doesn't tell.
    pub load: Option<NodeLoad>,
}

/// An engine of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct NodeEngineInfo {
    #[serde(flatten)]
    pub info: EngineInfo,
    /// If its model is on its way: how far that is.
    pub waiting: Option<String>,
}

/// The counts that the dashboard shows live, of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Overview {
    /// When this was counted.
    pub at: Timestamp,
    pub streams: u64,
    pub events_per_sec: f64,
    pub uploads: u64,
    /// Sessions that wait, and how long the one has waited that has waited longest.
    pub queued: u64,
    pub oldest_queued_secs: Option<f64>,
    /// Those of them that no worker can take now.
    pub waiting_for_worker: u64,
    /// Sessions that are transcribed, and those of them that make no progress or take unusually long.
    pub processing: u64,
    pub stalled: u64,
    pub long_running: u64,
    /// Sessions that ended since midnight UTC.
    pub completed_today: u64,
    pub failed_today: u64,
    pub cancelled_today: u64,
    /// Nodes that are running, those of them with a problem, and how many sessions they transcribe at once.
    pub nodes: u32,
    pub nodes_with_problem: u32,
    pub workers: u32,
}
