//! How many connections, streams and uploads a node may have: as configured, or fewer if the system allows too few open
//! files.

use crate::server::{config::ServeConfig, connections::ConnectionLimits, stream::StreamLimits};
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::fs::File;

/// File descriptors that connections leave free for the database, recordings and engines, and those that status streams
/// leave free for other requests; each no more than a quarter of all.
const NODE_FILES: u64 = 256;
const REQUEST_FILES: u64 = 256;

/// The most descriptors that the system's table is made large enough for in advance; each takes 8 bytes.
const MAX_RESERVED: i32 = 1 << 17;

/// How many connections, streams and uploads a node may have.
pub(super) struct Capacity {
    pub(super) connections: ConnectionLimits,
    pub(super) streams: u32,
    pub(super) uploads: u32,
}

impl Capacity {
    /// Raises the limit of open files, and warns if that is too few for what the settings allow. `serves_streams`: whether the
    /// node serves pages and streams; one that only works has hardly any connections.
    pub(super) fn of_system(config: &ServeConfig, serves_streams: bool) -> Self {
        let files = raise_file_limit();
        let capacity = Self::of(files, config);
        if !serves_streams {
            return capacity;
        }
        let requested = config.http.max_connections.unwrap_or_default().max(config.streams.max_streams);
        if capacity.connections.all < requested || capacity.streams < config.streams.max_streams {
            tracing::warn!(
                open_files = files,
                max_streams = config.streams.max_streams,
                max_connections = config.http.max_connections,
                "the limit of open files is too low for these settings: at most {} connections are possible, and {} status \
                 streams among them; raise it with ulimit -n",
                capacity.connections.all,
                capacity.streams
            );
        }
        reserve_files(u64::from(capacity.streams) + NODE_FILES + REQUEST_FILES);
        capacity
    }

    fn of(files: Option<u64>, config: &ServeConfig) -> Self {
        let files = files.unwrap_or(u64::MAX);
        let [node, requests] = [NODE_FILES, REQUEST_FILES].map(|kept| kept.min(files / 4));
        let spare = config.http.spare_connections.min(saturating(files / 16)).max(1);
        let connections =
            saturating(files - node - u64::from(spare)).min(config.http.max_connections.unwrap_or(u32::MAX));
        let streams = saturating(files - node - u64::from(spare) - requests).min(config.streams.max_streams);
        Self {
            connections: ConnectionLimits {
                all: connections.max(1),
                per_address: config.http.max_connections_per_address,
                spare,
            },
            streams: streams.max(1),
            // Each has a scratch file open, and another file while it is probed.
            uploads: saturating(node / 2),
        }
    }

    pub(super) fn streams(&self, config: &ServeConfig) -> StreamLimits {
        let (shares, config) = (&config.shares, &config.streams);
        StreamLimits {
            per_owner: config.max_streams_per_owner,
            per_address: shares.max_streams_per_address,
            newcomers: shares.of_newcomers(self.streams),
            per_node: self.streams,
            lifetime_secs: config.stream_lifetime_secs,
            idle_secs: config.stream_idle_secs,
            heartbeat_secs: config.stream_heartbeat_secs,
        }
    }
}

fn saturating(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Raises the limit of open files to the maximum that the system allows, and returns it; none if there is no limit.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// Makes the system's table of this process's descriptors as large as `files` descriptors need. It doubles when it is full,
/// and each time all who open a file or accept a connection wait for some 10 ms, because a process with several threads
/// must wait until no processor uses the old table (Linux, `expand_fdtable` in fs/file.c).
fn reserve_files(files: u64) {
    let highest = i32::try_from(files).unwrap_or(i32::MAX).min(MAX_RESERVED);
    // A descriptor with a high number makes the table grow, and it stays so.
    let reserved = File::open("/dev/null").and_then(|file| Ok(fcntl_dupfd_cloexec(&file, highest)?));
    if let Err(error) = reserved {
        tracing::debug!(%error, "the table of open files could not be made larger in advance");
    }
}
