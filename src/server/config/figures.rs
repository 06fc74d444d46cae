//! The settings of the figures that are kept for the dashboard.

use clap::Args;

/// What is measured and kept for the dashboard.
#[derive(Args, Clone, Debug)]
pub struct FiguresConfig {
    /// Days for which the figures of the dashboard are kept, by hour. Twice as many days as a range has let it be compared with
    /// the time before.
    #[arg(long, env = "HARK_FIGURES_DAYS", default_value_t = 90.0, value_name = "DAYS", value_parser = kept_days)]
    pub figures_days: f64,
    /// What a million requests cost, in any currency, for what live updates save against polling.
    #[arg(long, env = "HARK_PRICE_PER_MILLION_REQUESTS", value_name = "PRICE", value_parser = price)]
    pub price_per_million_requests: Option<f64>,
    /// What a gigabyte (1,000,000,000 bytes) sent to browsers costs, in the same currency.
    #[arg(long, env = "HARK_PRICE_PER_GB", value_name = "PRICE", value_parser = price)]
    pub price_per_gb: Option<f64>,
}

impl Default for FiguresConfig {
    fn default() -> Self {
        Self { figures_days: 90.0, price_per_million_requests: None, price_per_gb: None }
    }
}

fn kept_days(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 3650.0 => Ok(n),
        _ => Err("must be a number of days above 0, and 3650 at most".to_owned()),
    }
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=1e9).contains(&n) => Ok(n),
        _ => Err("must be a number from 0 to 1000000000; leave the currency out".to_owned()),
    }
}
