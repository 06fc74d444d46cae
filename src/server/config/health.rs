//! When the health of the sessions is no longer good.

use clap::Args;

/// From when on `/api/v1/health/sessions` says that sessions need somebody: its `status` is then `warning` or
/// `critical`. A session hangs when nothing about it has changed for a minute, or its worker's lease has run out, or it
/// has taken more than ten minutes and three times the recording's length.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// A session that hangs for this long is a warning, in seconds. A long-running one hangs since the time that it should
    /// have taken.
    #[arg(long, env = "HARK_HEALTH_WARNING_SECS", default_value_t = 900, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub health_warning_secs: u32,
    /// A session that hangs for this long is critical, in seconds.
    #[arg(long, env = "HARK_HEALTH_CRITICAL_SECS", default_value_t = 1800, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub health_critical_secs: u32,
    /// So many sessions that hang at once are critical, for however short a time.
    #[arg(long, env = "HARK_HEALTH_CRITICAL_SESSIONS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_critical_sessions: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { health_warning_secs: 900, health_critical_secs: 1800, health_critical_sessions: 3 }
    }
}
