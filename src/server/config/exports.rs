//! How much may be exported at once.

use clap::Args;

/// Exports of several transcripts as one file.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportConfig {
    /// How many sessions may be exported as one ZIP file.
    #[arg(long, env = "HARK_MAX_EXPORT_SESSIONS", default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_export_sessions: u32,
    /// How large the transcripts of one ZIP file may be together, in bytes as they are stored, for each format.
    #[arg(long, env = "HARK_MAX_EXPORT_BYTES", default_value_t = 500_000_000, value_name = "BYTES")]
    pub max_export_bytes: u64,
}
