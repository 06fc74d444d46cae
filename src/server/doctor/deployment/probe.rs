//! Asks a deployment what `findings` needs to know, as a stranger without a cookie. Everything is bounded in time and in
//! bytes, and nothing stays behind: no session is made, and streams are closed. Called by `deployment`.

use super::{
    answer::{Answer, reason},
    body::{CONTENT_TYPE, Pieces},
    observations::{Arrival, Certificate, Declared, Deployment, Observations, SlowUpload, SubPath, Target},
    watch::{Until, watch},
};
use crate::server::outgoing;
use reqwest::{Body, Client, RequestBuilder, Response, Url, redirect::Policy, tls::TlsInfo};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use x509_parser::parse_x509_certificate;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long Hark may take to refuse an upload by its first lines. It does so at once; a proxy that waits for all of the
/// upload first doesn't.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the first event of a stream may take until this stops waiting.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Bytes a second of the slow upload: above Hark's HARK_MIN_UPLOAD_RATE, and less than a megabyte over the default wait.
const SLOW_RATE: usize = 8 * 1024;
/// How much longer than it takes to send it the slow upload may take to be answered.
const SLOW_GRACE: Duration = Duration::from_secs(20);
/// How often the limit of uploads is halved to find it: the last two sizes are then within 2% of each other.
const HALVINGS: u32 = 10;
/// The size that any proxy lets through, in bytes.
const SMALL_UPLOAD: u64 = 64 * 1024;

/// What to check.
pub(super) struct Asked {
    pub(super) url: Url,
    /// How long the stream is watched and the slow upload takes, in seconds.
    pub(super) wait_secs: u32,
    /// Certificates that are believed besides those of the system.
    pub(super) authorities: Vec<reqwest::Certificate>,
    pub(super) insecure: bool,
    /// The largest upload that must pass, in bytes.
    pub(super) upload_bytes: u64,
}

/// Asks a deployment everything.
///
/// # Errors
/// If this program can't make requests at all.
pub(super) async fn observe(asked: &Asked) -> Result<Observations, String> {
    let mut target = Target::of(&asked.url);
    let (mut client, mut redirected) = (client(asked, asked.insecure)?, false);
    let mut problem = None;
    let mut first = try_get(&client, &target, "/api/openapi.json").await;
    if let Err(cause) = &first
        && target.https
        && !asked.insecure
        && is_about_certificate(cause)
    {
        problem = Some(cause.clone());
        client = self::client(asked, true)?;
        first = try_get(&client, &target, "/api/openapi.json").await;
    }
    if let Ok((answer, _)) = &first
        && let Some(https) = target.redirected(answer)
    {
        (target, redirected) = (https, true);
        first = try_get(&client, &target, "/api/openapi.json").await;
        if let Err(cause) = &first
            && !asked.insecure
            && is_about_certificate(cause)
        {
            problem = Some(cause.clone());
            client = self::client(asked, true)?;
            first = try_get(&client, &target, "/api/openapi.json").await;
        }
    }
    let mut observed = Observations {
        target,
        redirected,
        unreachable: None,
        certificate: None,
        sub_path: None,
        first: None,
        hark: None,
    };
    let probe = |target: &Target| Probe { client: client.clone(), target: target.clone() };
    match first {
        Err(cause) => observed.unreachable = Some(cause),
        Ok((answer, certificate)) => {
            observed.certificate = observed.target.https.then(|| Certificate {
                problem,
                is_checked: !asked.insecure,
                ..certificate.unwrap_or_default()
            });
            let probe = probe(&observed.target);
            observed.sub_path = probe.sub_path(asked.url.path()).await;
            if Observations::is_hark(&answer) {
                observed.hark = Some(Box::new(probe.deployment(asked).await));
            }
            observed.first = Some(answer);
        }
    }
    Ok(observed)
}

fn client(asked: &Asked, insecure: bool) -> Result<Client, String> {
    let client = outgoing::client()
        .user_agent(concat!("hark-doctor/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        // The way from here to the deployment is what is examined.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_info(true)
        .tls_danger_accept_invalid_certs(insecure)
        .tls_certs_merge(asked.authorities.iter().cloned());
    client.build().map_err(|error| format!("no request can be made from here: {}", reason(&error)))
}

fn is_about_certificate(cause: &str) -> bool {
    cause.contains("certificate")
}

/// A first request, with the certificate that came with its answer.
async fn try_get(client: &Client, target: &Target, path: &str) -> Result<(Answer, Option<Certificate>), String> {
    let request = client.get(target.url(path)).header("accept-encoding", "gzip");
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let response = match timeout_at(deadline, request.send()).await {
        Err(_) => return Err(format!("it didn't answer within {} s", ANSWER_TIMEOUT.as_secs())),
        Ok(response) => response.map_err(|error| reason(&error))?,
    };
    let certificate = response.extensions().get::<TlsInfo>().and_then(|tls| read_certificate(tls.peer_certificate()?));
    let answer = timeout_at(deadline, read(response)).await.map_err(|_| "its answer didn't end".to_owned())?;
    Ok((answer?, certificate))
}

/// The dates of a certificate.
fn read_certificate(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    let day = 86_400.0;
    let now = crate::server::clock::machine_time() as f64 / 1000.0;
    let (begin, end) = (validity.not_before.timestamp() as f64, validity.not_after.timestamp() as f64);
    Some(Certificate {
        days_left: Some((end - now) / day),
        days_in_all: Some((end - begin) / day),
        ..Certificate::default()
    })
}

/// Reads an answer, as much of it as is needed.
async fn read(mut response: Response) -> Result<Answer, String> {
    let (status, version, headers) = (response.status().as_u16(), response.version(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    Ok(Answer::new(status, version, headers, &body))
}

struct Probe {
    client: Client,
    target: Target,
}

impl Probe {
    async fn deployment(&self, asked: &Asked) -> Deployment {
        let wait = Duration::from_secs(asked.wait_secs.into());
        let stream = |query: &str| self.target.url(&format!("/api/v1/status/stream{query}"));
        // As pages ask for it, and as programs do. At the same time as everything else, because they take longest.
        let packed = watch(&self.client, stream("?compress=gzip"), "gzip", Until::For(wait));
        let plain = watch(&self.client, stream(""), "gzip", Until::FirstEvent(FIRST_EVENT_TIMEOUT.min(wait)));
        let slow = self.slow_upload(asked.wait_secs);
        let (mut deployment, packed, plain, slow) = tokio::join!(self.quick(asked.upload_bytes), packed, plain, slow);
        (deployment.stream, deployment.plain_stream, deployment.slow_upload) = (packed, plain, slow);
        deployment
    }

    /// What is answered at once.
    async fn quick(&self, upload_bytes: u64) -> Deployment {
        let description = self.get("/api/openapi.json").await;
        let page = self.send(self.request("/").header("accept", "text/html")).await;
        let file = match page.as_ref().and_then(|page| hashed_file(&page.text())) {
            Some(name) => self.get(&name).await.map(|answer| (name, answer)),
            None => None,
        };
        let statuses = [self.get("/api/v1/status").await, self.get("/api/v1/status").await];
        let arrival = self.get("/api/v1/request").await;
        let form = self.client.post(self.target.url("/api/v1/logout"));
        // Refused in any case: by Hark because nothing is confirmed, or before that as a request of another site.
        let form = form.header("origin", self.target.origin.clone()).json(&serde_json::json!({"confirm": false}));
        let same_site = self.send(form).await;
        Deployment {
            page,
            file,
            statuses: statuses.into_iter().flatten().collect(),
            arrival: arrival.and_then(|answer| serde_json::from_slice::<Arrival>(&answer.body).ok()),
            same_site: same_site.map(|answer| answer.status),
            metrics: self.get("/metrics").await,
            health: self.get("/api/v1/health/sessions").await,
            uploads: self.upload_limit(upload_bytes).await,
            description: description.unwrap_or_default(),
            ..Deployment::default()
        }
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.client.get(self.target.url(path)).header("accept-encoding", "gzip")
    }

    async fn get(&self, path: &str) -> Option<Answer> {
        self.send(self.request(path)).await
    }

    async fn send(&self, request: RequestBuilder) -> Option<Answer> {
        timeout(ANSWER_TIMEOUT, async { read(request.send().await.ok()?).await.ok() }).await.ok()?
    }

    /// Whether Hark answers below a path, if the address has one.
    async fn sub_path(&self, path: &str) -> Option<SubPath> {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return None;
        }
        let below = self.get(&format!("{path}/api/openapi.json")).await?;
        let is_hark = Observations::is_hark(&below);
        is_hark.then(|| SubPath { path: path.to_owned() })
    }

    /// Finds out how large an upload may be: sizes with what came of them, the wanted one first.
    async fn upload_limit(&self, wanted: u64) -> Vec<(u64, Declared)> {
        let mut tried = vec![(wanted, self.declare(wanted).await)];
        if !tried[0].1.is_refused_on_the_way() {
            return tried;
        }
        let (mut passes, mut refused) = (SMALL_UPLOAD as f64, wanted as f64);
        for _ in 0..HALVINGS {
            let size = (passes * refused).sqrt();
            let came = self.declare(size as u64).await;
            if came.is_refused_on_the_way() {
                refused = size
            } else {
                passes = size
            }
            tried.push((size as u64, came));
        }
        tried
    }

    /// Says that so many bytes will come, and sends the first of them.
    async fn declare(&self, bytes: u64) -> Declared {
        let sent = self.upload(Pieces::declared(bytes)).send();
        match timeout(REFUSAL_TIMEOUT, sent).await {
            Err(_) => Declared::Silence,
            Ok(Err(error)) => Declared::Broken(reason(&error)),
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let answer = timeout(REFUSAL_TIMEOUT, read(response)).await;
                let code = answer.ok().and_then(|answer| answer.ok()?.error_code());
                Declared::Answered { status, code }
            }
        }
    }

    fn upload(&self, body: Pieces) -> RequestBuilder {
        let request = self.client.post(self.target.url("/api/v1/sessions"));
        request.header("content-type", CONTENT_TYPE).header("accept", "application/json").body(Body::wrap(body))
    }

    /// Sends an upload over so many seconds.
    async fn slow_upload(&self, secs: u32) -> SlowUpload {
        let begun = Instant::now();
        let limit = Duration::from_secs(secs.into()) + SLOW_GRACE;
        let sent = async {
            let response = self.upload(Pieces::slow(secs, SLOW_RATE)).send().await.map_err(|error| reason(&error))?;
            read(response).await
        };
        let came = match timeout(limit, sent).await {
            Err(_) => Declared::Silence,
            Ok(Err(cause)) => Declared::Broken(cause),
            Ok(Ok(answer)) => Declared::Answered { status: answer.status, code: answer.error_code() },
        };
        SlowUpload { wanted_secs: secs, secs: begun.elapsed().as_secs_f64(), came }
    }
}

/// The first file that a page names whose name has a hash of its content.
fn hashed_file(page: &str) -> Option<String> {
    let names = page.match_indices("/pkg/").filter_map(|(at, _)| {
        let rest = &page[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)))?;
        Some(&rest[..end])
    });
    let mut names = names.filter(|name| name.matches('.').count() >= 2);
    names.find(|name| name.ends_with(".css") || name.ends_with(".js")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashed_file_of_a_page_is_found() {
        let page = r#"<link href="/pkg/hark.css"><link rel="stylesheet" href="/pkg/hark.Ab-12_x.css"><script>"/pkg/hark.1.js"</script>"#;
        assert_eq!(hashed_file(page).as_deref(), Some("/pkg/hark.Ab-12_x.css"));
        assert_eq!(hashed_file(r#"<link href="/pkg/hark.css">"#), None);
    }
}
