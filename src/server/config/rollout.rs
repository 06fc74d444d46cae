//! Who is given live updates, as set with `HARK_STREAMS`; `arms` assigns browsers by it.

use clap::Args;
use std::{fmt, str::FromStr};

/// Who is given streams, who polls to compare, and how much is measured.
#[derive(Args, Clone, Debug)]
pub struct RolloutConfig {
    /// Which browsers are given live updates: `on` for all, `off` for none, or a percentage. The others poll every 3
    /// seconds. Open pages follow within a minute of the restart. With `off`, programs are refused streams too. Set it alike
    /// on all nodes.
    #[arg(long = "streams", env = "HARK_STREAMS", default_value = "on", value_name = "on|off|PERCENT")]
    pub streams_for: StreamShare,
    /// How many percent of the browsers poll, as the control group that live updates are compared with. Which ones follows
    /// from their cookies, so it stays the same over restarts and nodes. Set it alike on all nodes.
    #[arg(long, env = "HARK_CONTROL_PERCENT", default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub control_percent: u32,
    /// How many reports a minute are taken of all the pages at one address (of IPv6, one /64). A page that is being looked at
    /// sends one a minute.
    #[arg(long, env = "HARK_MAX_REPORTS_PER_ADDRESS", default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_reports_per_address: u32,
}

/// The share of the browsers that are given streams, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamShare(pub u32);

impl FromStr for StreamShare {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(100)),
            "off" => Ok(Self(0)),
            _ => text
                .parse()
                .ok()
                .filter(|percent| *percent <= 100)
                .map(Self)
                .ok_or("must be on, off or a percentage from 0 to 100"),
        }
    }
}

impl fmt::Display for StreamShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            100 => f.write_str("on"),
            0 => f.write_str("off"),
            percent => percent.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_on_off_or_a_percentage() {
        for (text, percent) in [("on", 100), ("off", 0), ("0", 0), ("25", 25), ("100", 100)] {
            assert_eq!(text.parse(), Ok(StreamShare(percent)), "{text}");
        }
        for wrong in ["", "ON", "true", "-1", "101", "2.5", "5%"] {
            assert!(wrong.parse::<StreamShare>().is_err(), "{wrong}");
        }
        assert_eq!(
            ["on", "off", "25"].map(|text| text.parse::<StreamShare>().unwrap().to_string()),
            ["on", "off", "25"]
        );
    }
}
