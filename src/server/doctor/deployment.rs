//! `hark doctor URL`: checks a deployment from outside, as a stranger's browser sees it, and prints what is wrong with the
//! lines to change in the proxy in front. `probe` asks, `findings` judges, `remedies` knows the proxies. Called by `doctor`.

mod answer;
mod body;
mod findings;
mod observations;
mod probe;
mod remedies;
mod watch;

use crate::server::print;
use clap::Args;
use findings::{Finding, Verdict, judge};
use observations::Observations;
use probe::Asked;
use remedies::{Change, Proxy, changes};
use reqwest::{Certificate, Url};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

/// The exit code if something isn't as it should be, for monitoring scripts.
const EXIT_PROBLEM: u8 = 3;

/// What `hark doctor` needs to check a deployment.
#[derive(Args, Clone, Debug)]
pub struct DeploymentArgs {
    /// The address of a deployment, such as `https://hark.example.org`. It is checked from outside, as a stranger's browser
    /// sees it, and this machine isn't looked at. Of the settings only HARK_MAX_UPLOAD_BYTES counts. Exits with 0 if all is
    /// well, with 3 otherwise.
    #[arg(value_name = "URL", value_parser = deployment_url)]
    pub(super) url: Option<Url>,
    /// How long a stream is watched, and an upload takes, in seconds: what cuts them later isn't found.
    #[arg(long, requires = "url", default_value_t = 70, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: u32,
    /// A file with certificates, in PEM, that are trusted besides those of the system.
    #[arg(long, requires = "url", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Doesn't check the certificate.
    #[arg(long, requires = "url")]
    insecure: bool,
    /// One JSON object a line, for programs.
    #[arg(long, requires = "url")]
    json: bool,
}

fn deployment_url(text: &str) -> Result<Url, String> {
    let help = "give the whole address, such as https://hark.example.org";
    let url = Url::parse(text).map_err(|_| format!("'{text}' is no address; {help}"))?;
    let fits = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    if fits { Ok(url) } else { Err(format!("'{text}' doesn't begin with https:// or http://; {help}")) }
}

/// Checks the deployment at `url` and prints the findings. `upload_bytes`: the largest recording that Hark accepts there.
pub(super) async fn run(url: &Url, args: &DeploymentArgs, upload_bytes: u64) -> ExitCode {
    let asked = authorities(args).map(|authorities| Asked {
        url: url.clone(),
        wait_secs: args.wait,
        authorities,
        insecure: args.insecure,
        upload_bytes,
    });
    let observed = match asked {
        Ok(asked) => {
            if !args.json {
                print::error(format_args!("This takes some {} s.", args.wait));
            }
            probe::observe(&asked).await
        }
        Err(message) => Err(message),
    };
    let observed = match observed {
        Ok(observed) => observed,
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            return ExitCode::FAILURE;
        }
    };
    let (findings, proxies) = (judge(&observed), Proxy::guess(&observed));
    let shown = if proxies.is_empty() { &Proxy::ALL[..] } else { &proxies };
    if args.json {
        for finding in &findings {
            print::line(as_json(finding, shown));
        }
    } else {
        print::text(report(&observed, &findings, &proxies, shown));
    }
    let well = findings.iter().all(|finding| finding.verdict == Verdict::Ok);
    if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_PROBLEM) }
}

fn authorities(args: &DeploymentArgs) -> Result<Vec<Certificate>, String> {
    let Some(file) = &args.ca else { return Ok(Vec::new()) };
    let pem = std::fs::read(file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} holds no certificate in PEM", file.display())),
    }
}

fn remedy(finding: &Finding, proxies: &[Proxy]) -> Vec<Change> {
    finding.remedy.map(|remedy| changes(remedy, proxies)).unwrap_or_default()
}

fn as_json(finding: &Finding, proxies: &[Proxy]) -> serde_json::Value {
    let changes: Vec<_> = remedy(finding, proxies)
        .into_iter()
        .map(|change| json!({"of": change.of, "place": change.place, "lines": change.lines}))
        .collect();
    json!({
        "check": finding.check,
        "verdict": finding.verdict.as_str(),
        "text": finding.text,
        "evidence": finding.evidence,
        "changes": changes,
    })
}

/// The findings for people: a line for each, and below those that aren't well what to change.
fn report(observed: &Observations, findings: &[Finding], proxies: &[Proxy], shown: &[Proxy]) -> String {
    let mut text = String::new();
    if observed.hark.is_some() {
        let names: Vec<&str> = proxies.iter().map(|proxy| proxy.name()).collect();
        text += &match names[..] {
            [] => {
                "no proxy shows itself, so lines for all of them follow where something is to be changed\n".to_owned()
            }
            _ => format!("by its answers, in front of it: {}\n", names.join(", ")),
        };
    }
    for finding in findings {
        text += &format!("{:<8} {}\n", finding.verdict.as_str(), finding.text);
        for change in remedy(finding, shown) {
            text += &format!("         {}, {}:\n", change.of, change.place);
            for line in change.lines {
                text += &format!("             {line}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_its_scheme() {
        assert!(deployment_url("https://hark.example.org").is_ok() && deployment_url("http://127.0.0.1:3000/").is_ok());
        for wrong in ["hark.example.org", "ftp://hark.example.org", "https://", "localhost:3000", ""] {
            assert!(deployment_url(wrong).unwrap_err().contains("https://hark.example.org"), "{wrong}");
        }
    }
}
