//! Settings of uploads that come in parts.

use clap::Args;

/// Bytes of the unit in which the size of parts is set.
const MIB: u64 = 1024 * 1024;

/// Uploads that come in parts.
#[derive(Args, Clone, Debug)]
pub struct ResumableConfig {
    /// The largest part of an upload, in MiB. Smaller than what the proxies in front accept: 100 MB are usual.
    #[arg(long, env = "HARK_UPLOAD_PART_MB", default_value_t = 8, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub upload_part_mb: u32,
    /// An upload of which no part came for so many hours is removed with its parts.
    #[arg(long, env = "HARK_UPLOAD_KEEP_HOURS", default_value_t = 24.0, value_name = "HOURS", value_parser = kept_hours)]
    pub upload_keep_hours: f64,
    /// How many uploads of one owner may have begun and not ended.
    #[arg(long, env = "HARK_MAX_UNFINISHED_UPLOADS_PER_OWNER", default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_unfinished_uploads_per_owner: u32,
    /// How many uploads of the newcomers at one address may have begun and not ended.
    #[arg(long, env = "HARK_MAX_UNFINISHED_UPLOADS_PER_ADDRESS", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_unfinished_uploads_per_address: u32,
}

impl ResumableConfig {
    /// The largest part, in bytes.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        u64::from(self.upload_part_mb) * MIB
    }

    /// How long an upload is kept after its last part, in seconds.
    #[must_use]
    pub fn keep_secs(&self) -> f64 {
        self.upload_keep_hours * 3600.0
    }
}

fn kept_hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 8760.0 => Ok(n),
        _ => Err("must be a number of hours above 0, and 8760 at most".to_owned()),
    }
}
