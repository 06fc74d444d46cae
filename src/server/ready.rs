//! `hark ready`: asks the Hark of this machine whether it is ready, for health checks of containers and services. Called by
//! `main`.

use super::{config, outgoing};
use clap::Args;
use reqwest::{StatusCode, Url};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `hark ready`.
#[derive(Args)]
pub struct ReadyArgs {
    /// The address to ask, such as http://127.0.0.1:3000. Without it, that of HARK_MONITOR_ADDR if it is set, else that of
    /// LEPTOS_SITE_ADDR or PORT.
    #[arg(value_name = "URL")]
    url: Option<Url>,
    /// Where the node to ask answers monitoring.
    #[arg(long, env = "HARK_MONITOR_ADDR", value_name = "ADDRESS")]
    monitor_addr: Option<SocketAddr>,
}

/// Asks `/readyz`. Returns what to print.
///
/// # Errors
/// If there is no answer within 5 seconds, or the node isn't ready; with its reason.
pub async fn run(args: ReadyArgs) -> Result<String, String> {
    let base = match (args.url, args.monitor_addr) {
        (Some(url), _) => url,
        (None, Some(addr)) => local(addr)?,
        (None, None) => local(config::leptos_options()?.site_addr)?,
    };
    let url = base.join("/readyz").map_err(|e| format!("{base}: {e}"))?;
    // Not through the proxy of the environment: the node is on this machine.
    let client = outgoing::client().no_proxy().timeout(TIMEOUT).build().map_err(|e| e.to_string())?;
    let answer = client.get(url.clone()).send().await.map_err(|e| match e.is_timeout() {
        true => format!("{url} hasn't answered within {} s", TIMEOUT.as_secs()),
        false => format!("{url} can't be reached: is Hark running there?"),
    })?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if status == StatusCode::OK {
        // It may be ready, but something is worth knowing.
        let told = text.lines().next().filter(|line| line.starts_with("ready"));
        Ok(format!("{base} is {}", told.unwrap_or("ready")))
    } else {
        Err(format!("{base} isn't ready ({status}): {text}"))
    }
}

/// The URL of an address that is listened on, from this machine.
fn local(addr: SocketAddr) -> Result<Url, String> {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let addr = SocketAddr::new(ip, addr.port());
    format!("http://{addr}/").parse().map_err(|e| format!("{addr}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_this_machine_is_asked_by_loopback() {
        let url = |addr: &str| local(addr.parse().unwrap()).unwrap().to_string();
        assert_eq!(url("0.0.0.0:10000"), "http://127.0.0.1:10000/");
        assert_eq!(url("[::]:3000"), "http://[::1]:3000/");
        assert_eq!(url("192.0.2.1:80"), "http://192.0.2.1/");
    }
}
