//! What a node may have open: connections, streams and uploads, as far as the system allows so many open files.

use crate::server::{config::ServeConfig, connections::ConnectionLimits, stream::StreamLimits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors kept free of connections, for the database, recordings and engines, and of status streams, for
/// other requests; but no more than a quarter of all for each.
const NODE_FILES: u64 = 256;
const REQUEST_FILES: u64 = 256;

/// What a node may have open: what is set, as far as the system allows so many open files.
pub(super) struct Capacity {
    pub(super) connections: ConnectionLimits,
    pub(super) streams: u32,
    pub(super) uploads: u32,
}

impl Capacity {
    pub(super) fn of_system(config: &ServeConfig) -> Self {
        let files = raise_file_limit();
        let capacity = Self::of(files, config);
        let wanted = config.http.max_connections.unwrap_or_default().max(config.streams.max_streams);
        if capacity.connections.all < wanted || capacity.streams < config.streams.max_streams {
            tracing::warn!(
                open_files = files,
                max_streams = config.streams.max_streams,
                max_connections = config.http.max_connections,
                "the system allows too few open files for so many: there will be {} connections at most, and {} status \
                 streams among them; raise it with ulimit -n",
                capacity.connections.all,
                capacity.streams
            );
        }
        capacity
    }

    fn of(files: Option<u64>, config: &ServeConfig) -> Self {
        let files = files.unwrap_or(u64::MAX);
        let [node, requests] = [NODE_FILES, REQUEST_FILES].map(|kept| kept.min(files / 4));
        let spare = config.http.spare_connections.min(small(files / 16)).max(1);
        let connections = small(files - node - u64::from(spare)).min(config.http.max_connections.unwrap_or(u32::MAX));
        let streams = small(files - node - u64::from(spare) - requests).min(config.streams.max_streams);
        Self {
            connections: ConnectionLimits {
                all: connections.max(1),
                per_address: config.http.max_connections_per_address,
                spare,
            },
            streams: streams.max(1),
            // Each has a scratch file, and another while it is looked at.
            uploads: small(node / 2),
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
        }
    }
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Raises the number of open files to what the system allows at most, and returns it; none if there is no limit.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the number of open files could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}
