//! Judges what was seen of a deployment: each check is well, odd or wrong, with its evidence. No I/O, so that every fault
//! can be tested. Called by `deployment`; `remedies` says what to change.

use super::{
    observations::{Arrival, Certificate, Declared, Deployment, Observations, Target},
    remedies::{Proxy, Remedy},
    watch::{End, Event, Watch},
};
use crate::model::{
    Timestamp,
    text::{bytes, decimal},
};
use serde_json::{Value, json};

/// A page polls when no event has come after so many seconds.
const FIRST_EVENT_SECS: f64 = 4.0;
/// Heartbeats that are later than others by so many seconds are held back on the way. The time that they carry is up to a
/// second old.
const LATE_SECS: f64 = 3.0;
/// After how many seconds a heartbeat must have come: HARK_STREAM_HEARTBEAT_SECS is 30 at most.
const HEARTBEAT_SECS: f64 = 35.0;
/// A stream that is cut so many seconds after its last event was cut because it was silent, and not because of its age.
const SILENCE_SECS: f64 = 1.5;
/// A certificate should be renewed before it has fewer days left than this, and than a fifth of its life.
const DAYS_LEFT: f64 = 14.0;
/// What is smaller needn't be compressed, in bytes.
const SMALL: usize = 1024;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// It works, but costs something or shows more than it needs to.
    Odd,
    /// People notice it, or will.
    Wrong,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Odd => "odd",
            Self::Wrong => "wrong",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The check's name, for programs.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// The numbers behind it, for programs.
    pub(super) evidence: Value,
    pub(super) remedy: Option<Remedy>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>, evidence: Value) -> Self {
        Self { check, verdict: Verdict::Ok, text: text.into(), evidence, remedy: None }
    }

    fn odd(check: &'static str, text: impl Into<String>, evidence: Value, remedy: impl Into<Option<Remedy>>) -> Self {
        Self { check, verdict: Verdict::Odd, text: text.into(), evidence, remedy: remedy.into() }
    }

    fn wrong(check: &'static str, text: impl Into<String>, evidence: Value, remedy: impl Into<Option<Remedy>>) -> Self {
        Self { check, verdict: Verdict::Wrong, text: text.into(), evidence, remedy: remedy.into() }
    }

    /// A check that couldn't be made.
    fn unknown(check: &'static str, why: &str) -> Self {
        Self::odd(check, format!("couldn't be checked: {why}"), json!({}), None)
    }
}

/// Judges everything.
pub(super) fn judge(observed: &Observations) -> Vec<Finding> {
    let target = &observed.target;
    // That nothing answers at the root is no fault of its own then.
    let only_below = observed.sub_path.is_some() && observed.hark.is_none();
    let mut findings: Vec<Finding> = (!only_below).then(|| reachable(observed)).into_iter().collect();
    findings.extend(observed.sub_path.as_ref().map(|below| {
        let path = &below.path;
        Finding::wrong(
            "sub_path",
            format!("Hark answers below {path}, but its pages ask for everything at the root of the host. Give it a host of its own"),
            json!({"path": path}),
            Remedy::SubPath,
        )
    }));
    if observed.unreachable.is_none() {
        findings.extend(tls(observed));
    }
    let Some(hark) = observed.hark.as_deref() else { return findings };
    let proxies = Proxy::guess(observed);
    let forwarded = forwarded_proto(target, hark);
    // One cause has one finding: without this header, cookies and headers are those of plain HTTP.
    let as_https = target.https && forwarded.as_ref().is_none_or(|finding| finding.verdict == Verdict::Ok);
    findings.extend(http_version(target, hark));
    findings.push(host(target, hark));
    findings.extend(forwarded);
    findings.extend(client_address(hark.arrival.as_ref(), !proxies.is_empty()));
    findings.extend(upstream_http(hark.arrival.as_ref()));
    findings.push(headers(hark, as_https));
    findings.extend(server_header(hark));
    findings.push(compression(hark));
    findings.push(file_caching(hark));
    let caching = api_caching(hark);
    let is_cached = caching.verdict == Verdict::Wrong;
    findings.push(caching);
    // A cached answer may have lost its cookie.
    findings.extend((!is_cached).then(|| cookies(hark, as_https)));
    findings.extend(stream(hark));
    findings.extend(uploads(hark));
    findings.push(operators(hark));
    findings
}

fn reachable(observed: &Observations) -> Finding {
    let Target { origin, .. } = &observed.target;
    if let Some(cause) = &observed.unreachable {
        return Finding::wrong("reachable", format!("{origin} doesn't answer: {cause}"), json!({"cause": cause}), None);
    }
    let first = observed.first.clone().unwrap_or_default();
    if observed.hark.is_some() {
        let version = first.json().and_then(|json| Some(json["info"]["version"].as_str()?.to_owned()));
        let version = version.unwrap_or_default();
        let led = if observed.redirected { ", to which http leads" } else { "" };
        return Finding::ok(
            "reachable",
            format!("Hark {version} answers at {origin}{led}"),
            json!({"version": version}),
        );
    }
    let evidence = json!({"status": first.status, "beginning": first.beginning()});
    if first.error_code().as_deref() == Some("unknown_host") {
        let text = format!(
            "Hark answers, but doesn't go by the name that reaches it. Let the proxy pass Host on, and name {} in HARK_HOSTS",
            observed.target.authority
        );
        return Finding::wrong("host", text, evidence, Remedy::Host);
    }
    let text = match first.status {
        502..=504 => format!("the proxy answers with {}, because it can't reach Hark", first.status),
        401 | 407 => {
            format!("something before Hark asks for a password ({}); check from where it doesn't", first.status)
        }
        status => format!(
            "what answers isn't Hark: {origin}/api/openapi.json is answered with {status}, '{}'",
            first.beginning()
        ),
    };
    Finding::wrong("reachable", text, evidence, None)
}

fn tls(observed: &Observations) -> Option<Finding> {
    let Target { https, is_local, .. } = observed.target;
    if !https {
        let evidence = json!({"https": false});
        let local = "no TLS, which is fine on the machine itself";
        let remote = "no TLS: everybody on the way can read recordings and take over sessions, and browsers keep some of their functions back";
        return Some(match is_local {
            true => Finding::ok("certificate", local, evidence),
            false => Finding::wrong("certificate", remote, evidence, Remedy::Tls),
        });
    }
    let Certificate { problem, is_checked, days_left, days_in_all } = observed.certificate.as_ref()?;
    let evidence =
        json!({"days_left": days_left.map(f64::floor), "days_in_all": days_in_all.map(f64::round), "problem": problem});
    let left = days_left.map_or_else(String::new, |days| format!(", {} days left", days.floor()));
    Some(match (problem, days_left) {
        (Some(problem), _) => Finding::wrong(
            "certificate",
            format!("browsers don't trust the certificate: {problem}{left}"),
            evidence,
            Remedy::Certificate,
        ),
        (None, Some(days)) if *days < 0.0 => Finding::wrong(
            "certificate",
            format!("the certificate has expired {} days ago", -days.floor()),
            evidence,
            Remedy::Certificate,
        ),
        (None, Some(days)) if *days < DAYS_LEFT && days_in_all.is_none_or(|all| *days < all / 5.0) => Finding::odd(
            "certificate",
            format!("the certificate has {} days left; see why it isn't renewed", days.floor()),
            evidence,
            Remedy::Certificate,
        ),
        (None, _) if !is_checked => Finding::ok("certificate", format!("not checked (--insecure){left}"), evidence),
        (None, _) => Finding::ok("certificate", format!("the certificate is valid{left}"), evidence),
    })
}

fn http_version(target: &Target, hark: &Deployment) -> Option<Finding> {
    if !target.https {
        // Browsers speak HTTP/2 only over TLS.
        return None;
    }
    let page = hark.page.as_ref()?;
    let version = format!("{:?}", page.version);
    let http_3 = page.header("alt-svc").is_some_and(|services| services.contains("h3"));
    let evidence = json!({"version": version, "http_3": http_3});
    let also = if http_3 { ", and HTTP/3 is offered" } else { "" };
    Some(match version.as_str() {
        "HTTP/2.0" | "HTTP/3.0" => Finding::ok("http_version", format!("HTTP/2 is spoken{also}"), evidence),
        _ => Finding::odd(
            "http_version",
            format!("only {version} is spoken: a browser then has six connections, of which a stream takes one{also}"),
            evidence,
            Remedy::Http2,
        ),
    })
}

fn host(target: &Target, hark: &Deployment) -> Finding {
    let seen = hark.arrival.as_ref().map(|arrival| arrival.host.clone().unwrap_or_default());
    let evidence = json!({"sent": target.authority, "seen": seen, "same_site": hark.same_site});
    let differs = seen.as_ref().filter(|seen| !seen.eq_ignore_ascii_case(&target.authority));
    match (differs, hark.same_site) {
        (Some(seen), _) => Finding::wrong(
            "host",
            format!(
                "the proxy changes Host from '{}' to '{seen}': Hark takes forms of its own pages for those of another site and refuses them, and links to sessions lead nowhere",
                target.authority
            ),
            evidence,
            Remedy::Host,
        ),
        (None, Some(403)) => Finding::wrong(
            "host",
            "a form of Hark's own pages is refused as one of another site (403), as if Host were changed on the way",
            evidence,
            Remedy::Host,
        ),
        (None, None) if seen.is_none() => Finding::unknown("host", "no request of this kind was answered"),
        (None, _) => Finding::ok("host", "Host reaches Hark as it was sent", evidence),
    }
}

/// Whether the owner's cookie is one that browsers only send over TLS; none if there is no cookie.
fn is_secure_cookie(hark: &Deployment) -> Option<bool> {
    let cookie = owner_cookie(hark)?;
    Some(attributes(&cookie).any(|attribute| attribute.eq_ignore_ascii_case("secure")))
}

fn forwarded_proto(target: &Target, hark: &Deployment) -> Option<Finding> {
    let is_https = match &hark.arrival {
        Some(arrival) => arrival.scheme == "https",
        None => is_secure_cookie(hark)?,
    };
    let evidence = json!({"https": target.https, "seen": if is_https { "https" } else { "http" }});
    let check = "forwarded_proto";
    Some(match (target.https, is_https) {
        (true, true) => Finding::ok(check, "Hark knows that browsers come over https", evidence),
        (true, false) => Finding::wrong(
            check,
            "the proxy doesn't tell Hark that browsers come over https: cookies aren't Secure, and links begin with http",
            evidence,
            Remedy::ForwardedProto,
        ),
        (false, true) => Finding::wrong(
            check,
            "the proxy tells Hark that browsers come over https, but here they don't: they throw its cookies away, so nobody can upload",
            evidence,
            Remedy::ForwardedProto,
        ),
        (false, false) => return None,
    })
}

fn client_address(arrival: Option<&Arrival>, behind_proxy: bool) -> Option<Finding> {
    let client = arrival?.client.as_str();
    let (check, evidence) = ("client_address", json!({"client": client}));
    Some(match client {
        "forwarded" => Finding::ok(check, "Hark knows clients by the address that the proxy names", evidence),
        "ignored" => Finding::wrong(
            check,
            "the proxy names clients, but Hark doesn't trust it: all newcomers behind it share what one address may have",
            evidence,
            Remedy::TrustedProxies,
        ),
        _ if behind_proxy => Finding::wrong(
            check,
            "the proxy doesn't name clients: all newcomers behind it share what one address may have",
            evidence,
            Remedy::ForwardedFor,
        ),
        _ => Finding::ok(check, "Hark knows clients by their own address", evidence),
    })
}

fn upstream_http(arrival: Option<&Arrival>) -> Option<Finding> {
    let http = arrival?.http.as_str();
    let (check, evidence) = ("upstream_http", json!({"version": http}));
    Some(match http {
        "HTTP/1.0" | "HTTP/0.9" => Finding::odd(
            check,
            format!(
                "the proxy speaks {http} to Hark: each request is a connection of its own, and a stream that breaks looks like one that ended"
            ),
            evidence,
            Remedy::UpstreamHttp,
        ),
        _ => Finding::ok(check, format!("the proxy speaks {http} to Hark"), evidence),
    })
}

/// The nonce of a page's Content-Security-Policy.
fn nonce(policy: &str) -> Option<&str> {
    let (_, rest) = policy.split_once("'nonce-")?;
    rest.split_once('\'').map(|(nonce, _)| nonce)
}

fn headers(hark: &Deployment, as_https: bool) -> Finding {
    let check = "headers";
    let Some(page) = &hark.page else { return Finding::unknown(check, "the first page isn't answered") };
    let mut problems = Vec::new();
    if page.status != 200 {
        problems.push(format!("the first page is answered with {}", page.status));
    }
    for (name, answer) in [("the page", page), ("the API", &hark.description)] {
        if !answer.header("x-content-type-options").is_some_and(|value| value.eq_ignore_ascii_case("nosniff")) {
            problems.push(format!("{name} lacks X-Content-Type-Options: nosniff"));
        }
    }
    let policies: Vec<&str> = page.all("content-security-policy").collect();
    match policies[..] {
        [] => problems.push("the page has no Content-Security-Policy".to_owned()),
        [policy] => match nonce(policy) {
            None => problems.push("the page's Content-Security-Policy isn't Hark's".to_owned()),
            Some(nonce) if !page.text().contains(nonce) => {
                problems.push("the page isn't the one that its Content-Security-Policy was made for".to_owned());
            }
            Some(_) => {}
        },
        _ => problems.push("the page has a second Content-Security-Policy, and browsers obey both".to_owned()),
    }
    if as_https && page.header("strict-transport-security").is_none() {
        problems.push("Strict-Transport-Security is missing".to_owned());
    }
    let evidence = json!({"problems": problems});
    if problems.is_empty() {
        let hsts = if as_https { ", Strict-Transport-Security" } else { "" };
        return Finding::ok(
            check,
            format!("nosniff, Content-Security-Policy{hsts} arrive as Hark sends them"),
            evidence,
        );
    }
    let text = format!("headers don't arrive as Hark sends them: {}", problems.join("; "));
    Finding::wrong(check, text, evidence, Remedy::Headers)
}

fn server_header(hark: &Deployment) -> Option<Finding> {
    let server = hark.description.header("server")?;
    let evidence = json!({"server": server});
    Some(if server.contains(|c: char| c.is_ascii_digit()) {
        let text = format!("the header Server tells everybody the proxy's version: {server}");
        Finding::odd("server_header", text, evidence, Remedy::ServerVersion)
    } else {
        Finding::ok("server_header", format!("the header Server tells no version: {server}"), evidence)
    })
}

fn compression(hark: &Deployment) -> Finding {
    let file = hark.file.as_ref().map(|(name, answer)| (name.as_str(), answer));
    let all = [("the page", hark.page.as_ref()), ("the API", Some(&hark.description))];
    let all = all.into_iter().filter_map(|(name, answer)| Some((name, answer?))).chain(file);
    let mut plain: Vec<String> = Vec::new();
    for (name, answer) in all.filter(|(_, answer)| answer.status == 200) {
        if answer.header("content-encoding").is_none() && answer.body.len() > SMALL {
            plain.push(format!("{name} ({})", bytes(answer.body.len() as u64)));
        }
    }
    let asked = hark.arrival.as_ref().map(|arrival| arrival.accept_encoding.clone());
    let evidence = json!({"plain": plain, "accept_encoding_seen": asked});
    if plain.is_empty() {
        return Finding::ok("compression", "pages, files and the API come compressed", evidence);
    }
    let cause = match asked {
        Some(None) => ": the proxy takes Accept-Encoding away, so Hark compresses nothing",
        _ => "",
    };
    let text = format!("{} came uncompressed though this asked for gzip{cause}", plain.join(", "));
    Finding::wrong("compression", text, evidence, Remedy::Compression)
}

fn file_caching(hark: &Deployment) -> Finding {
    let check = "file_caching";
    let Some((name, file)) = &hark.file else {
        let text = "the page names no file with a hash in its name, so browsers ask for its files again and again: hash.txt is missing beside the program";
        return Finding::odd(check, text, json!({}), Remedy::HashedFiles);
    };
    let control = file.header("cache-control").unwrap_or_default();
    let evidence = json!({"file": name, "status": file.status, "cache_control": control});
    if file.status != 200 {
        let text = format!("{name}, a file of the page, is answered with {}", file.status);
        return Finding::wrong(check, text, evidence, Remedy::HashedFiles);
    }
    if control.contains("immutable") {
        return Finding::ok(check, "browsers keep files whose names have a hash", evidence);
    }
    let text = format!("browsers don't keep {name}, though its name has a hash: its Cache-Control is '{control}'");
    Finding::odd(check, text, evidence, Remedy::FileCaching)
}

fn api_caching(hark: &Deployment) -> Finding {
    let check = "api_caching";
    let [first, second] = &hark.statuses[..] else { return Finding::unknown(check, "polls aren't answered") };
    let cookie =
        |answer: &super::answer::Answer| answer.all("set-cookie").find(|c| c.contains("hark_owner")).map(str::to_owned);
    let times = [first, second].map(|answer| answer.header("hark-time").map(str::to_owned));
    let hit = ["x-cache", "cf-cache-status", "x-cache-status", "x-proxy-cache"]
        .into_iter()
        .find_map(|name| Some((name, second.header(name).filter(|value| value.to_ascii_uppercase().contains("HIT"))?)));
    let control = second.header("cache-control").unwrap_or_default();
    let evidence = json!({"times": times, "cache_control": control, "age": second.header("age")});
    let problem = if cookie(first).is_some() && cookie(first) == cookie(second) {
        "two strangers were given the same cookie, so they see each other's sessions: the proxy keeps answers of the API".to_owned()
    } else if times[0].is_some() && times[0] == times[1] {
        "two polls were given the very same answer: the proxy keeps answers of the API".to_owned()
    } else if let Some((name, value)) = hit {
        format!("the proxy keeps answers of the API: {name} is {value}")
    } else if second.header("age").is_some_and(|age| age != "0") {
        "the proxy keeps answers of the API: they have an Age".to_owned()
    } else if !control.contains("no-store") {
        format!("answers of the API may be kept by caches: their Cache-Control is '{control}' and not no-store")
    } else {
        return Finding::ok(check, "no answer of the API is kept on the way", evidence);
    };
    Finding::wrong(check, problem, evidence, Remedy::ApiCaching)
}

fn owner_cookie(hark: &Deployment) -> Option<String> {
    let cookies = hark.statuses.iter().flat_map(|answer| answer.all("set-cookie"));
    cookies.into_iter().find(|cookie| cookie.contains("hark_owner_")).map(str::to_owned)
}

fn attributes(cookie: &str) -> impl Iterator<Item = &str> {
    cookie.split(';').skip(1).map(str::trim)
}

fn cookies(hark: &Deployment, as_https: bool) -> Finding {
    let check = "cookies";
    let Some(cookie) = owner_cookie(hark) else {
        let text = "no cookie arrives, so nobody finds their sessions again";
        return Finding::wrong(check, text, json!({}), Remedy::Cookies);
    };
    let name = cookie.split('=').next().unwrap_or_default();
    let has = |wanted: &str| attributes(&cookie).any(|attribute| attribute.eq_ignore_ascii_case(wanted));
    let mut wanted = vec!["HttpOnly", "SameSite=Lax", "Path=/"];
    if as_https {
        wanted.push("Secure");
    }
    let mut problems: Vec<String> = wanted.into_iter().filter(|w| !has(w)).map(|w| format!("{w} is missing")).collect();
    if as_https && !name.starts_with("__Host-") {
        problems.push("its name doesn't begin with __Host-".to_owned());
    }
    if let Some(domain) = attributes(&cookie).find(|a| a.to_ascii_lowercase().starts_with("domain=")) {
        problems.push(format!("it has a {domain}"));
    }
    let shown: Vec<&str> = attributes(&cookie).collect();
    let evidence = json!({"name": name, "attributes": shown, "problems": problems});
    if problems.is_empty() {
        let host = if as_https { ", Secure and of this host alone" } else { "" };
        return Finding::ok(check, format!("the cookie is HttpOnly and SameSite=Lax{host}"), evidence);
    }
    let text = format!("the cookie doesn't arrive as Hark sets it: {}", problems.join("; "));
    Finding::wrong(check, text, evidence, Remedy::Cookies)
}

/// How much later than the quickest each heartbeat came, in seconds, by the server's time in it.
fn lateness(events: &[Event]) -> Vec<f64> {
    let delays = events.iter().filter(|event| event.kind == "heartbeat").filter_map(|event| {
        let data: Value = serde_json::from_str(&event.data).ok()?;
        let sent: Timestamp = serde_json::from_value(data["timestamp"].clone()).ok()?;
        Some(event.secs - sent.0 as f64 / 1000.0)
    });
    let delays: Vec<f64> = delays.collect();
    let least = delays.iter().copied().fold(f64::INFINITY, f64::min);
    delays.into_iter().map(|delay| delay - least).collect()
}

/// The longest time without an event between the first and the last, in seconds.
fn longest_silence(events: &[Event]) -> Option<f64> {
    events.windows(2).map(|two| two[1].secs - two[0].secs).reduce(f64::max)
}

fn seconds(secs: f64) -> String {
    format!("{} s", decimal(secs, if secs < 10.0 { 2 } else { 1 }))
}

fn stream(hark: &Deployment) -> Vec<Finding> {
    let mut findings = vec![stream_start(hark)];
    if findings[0].verdict != Verdict::Ok {
        return findings;
    }
    let plain = hark.plain_stream.head.as_ref();
    findings.push(match plain.and_then(|head| head.header("content-encoding")) {
        Some(coding) => Finding::odd(
            "stream_compression",
            format!("something on the way compresses streams ({coding}), though Hark says that they must stay as they are (no-transform): events may wait until a block is full"),
            json!({"content_encoding": coding}),
            Remedy::StreamCompression,
        ),
        None => Finding::ok("stream_compression", "streams come as Hark sends them", json!({})),
    });
    findings.push(stream_end(&hark.stream));
    findings.extend(stream_delay(&hark.stream));
    findings
}

fn stream_start(hark: &Deployment) -> Finding {
    let check = "stream_start";
    let mut slowest = 0.0_f64;
    for watch in [&hark.stream, &hark.plain_stream] {
        let Some(head) = &watch.head else {
            let evidence = json!({"secs": watch.secs});
            return match &watch.end {
                End::Broken(cause) => {
                    Finding::wrong(check, format!("a stream can't be opened: {cause}"), evidence, None)
                }
                _ => Finding::wrong(
                    check,
                    format!(
                        "nothing came of a stream for {}: something on the way keeps it back, so pages poll",
                        seconds(watch.secs)
                    ),
                    evidence,
                    Remedy::StreamBuffering,
                ),
            };
        };
        let kind = head.header("content-type").unwrap_or_default();
        if head.status != 200 || !kind.starts_with("text/event-stream") {
            let evidence = json!({"status": head.status, "content_type": kind});
            let text = format!("a stream is answered with {} and '{kind}' instead of text/event-stream", head.status);
            return Finding::wrong(check, text, evidence, None);
        }
        if watch.end == End::Bye("limit".to_owned()) {
            return Finding::unknown(
                check,
                "Hark has too many streams open, in all or from this address; try again later",
            );
        }
        if watch.end == End::Bye("polling".to_owned()) {
            return Finding::unknown(check, "Hark has streams switched off, so pages poll; see HARK_STREAMS");
        }
        match watch.events.first() {
            Some(first) => slowest = slowest.max(first.secs),
            None => {
                return Finding::wrong(
                    check,
                    format!(
                        "no event of a stream came within {}, though it was answered: something on the way keeps events back, so pages poll",
                        seconds(watch.secs)
                    ),
                    json!({"secs": watch.secs}),
                    Remedy::StreamBuffering,
                );
            }
        }
    }
    let evidence = json!({"secs": slowest});
    if slowest > FIRST_EVENT_SECS {
        let text = format!(
            "the first event of a stream came after {}; pages poll when none has come after 4 s",
            seconds(slowest)
        );
        return Finding::wrong(check, text, evidence, Remedy::StreamBuffering);
    }
    Finding::ok(check, format!("the first event of a stream came after {}", seconds(slowest)), evidence)
}

fn stream_end(watch: &Watch) -> Finding {
    let check = "stream_idle";
    let beats = watch.events.iter().filter(|event| event.kind == "heartbeat").count();
    let silence = longest_silence(&watch.events);
    let idle = watch.secs - watch.last_bytes_secs;
    let evidence = json!({"secs": watch.secs, "heartbeats": beats, "longest_silence_secs": silence, "idle_secs": idle});
    let open = |how: &str| {
        let silence = silence.map_or_else(String::new, |secs| format!(", with silences of up to {}", seconds(secs)));
        let advice = if watch.secs < HEARTBEAT_SECS {
            "; to see cut-offs later than that, watch longer with --wait"
        } else {
            ""
        };
        Finding::ok(
            check,
            format!("a stream stayed open for {}{how}{silence}{advice}", seconds(watch.secs)),
            evidence.clone(),
        )
    };
    match &watch.end {
        End::Open if beats < 2 && watch.secs >= HEARTBEAT_SECS => Finding::wrong(
            "stream_delay",
            format!(
                "no heartbeat came in the {} after the first event: something on the way keeps events back",
                seconds(idle)
            ),
            evidence,
            Remedy::StreamBuffering,
        ),
        End::Open => open(", until this stopped watching; heartbeats keep it alive"),
        End::Bye(reason) => open(&format!(", until Hark ended it ({reason}), as it does after a while")),
        End::Closed | End::Broken(_) if idle >= SILENCE_SECS => Finding::wrong(
            check,
            format!(
                "a stream was cut {} after its last event, sooner than Hark's next heartbeat (15 s, HARK_STREAM_HEARTBEAT_SECS): something on the way ends what is silent",
                seconds(idle)
            ),
            evidence,
            Remedy::StreamIdle,
        ),
        End::Closed | End::Broken(_) => Finding::wrong(
            check,
            format!(
                "a stream was cut after {} in all, though events came until then: something on the way limits how long a request may take",
                seconds(watch.secs)
            ),
            evidence,
            Remedy::StreamLife,
        ),
    }
}

fn stream_delay(watch: &Watch) -> Option<Finding> {
    let late = lateness(&watch.events);
    let most = late.iter().copied().fold(0.0, f64::max);
    if late.len() < 2 {
        return None;
    }
    let (check, evidence) = ("stream_delay", json!({"late_secs": late}));
    Some(if most > LATE_SECS {
        let text = format!(
            "events come in bunches: of {} heartbeats one was {} later than another, by the server's own time in them",
            late.len(),
            seconds(most)
        );
        Finding::wrong(check, text, evidence, Remedy::StreamBuffering)
    } else {
        Finding::ok(check, "events come when they are sent", evidence)
    })
}

fn uploads(hark: &Deployment) -> Vec<Finding> {
    let Some((wanted, came)) = hark.uploads.first() else { return Vec::new() };
    let mut findings = Vec::new();
    let is_limited = came.is_refused_on_the_way();
    if is_limited {
        let refused = hark.uploads.iter().filter(|(_, came)| came.is_refused_on_the_way()).map(|(size, _)| *size).min();
        let refused = refused.unwrap_or(*wanted);
        let passed = hark.uploads.iter().filter(|(_, came)| !came.is_refused_on_the_way()).map(|(size, _)| *size).max();
        let takes = passed.map_or_else(String::new, |passed| format!(" and takes {}", bytes(passed)));
        let how = match came {
            Declared::Answered { status, .. } => format!("with {status}"),
            Declared::Broken(cause) => format!("by closing the connection ({cause})"),
            Declared::Silence => "without a word".to_owned(),
        };
        findings.push(Finding::wrong(
            "upload_limit",
            format!(
                "something before Hark refuses uploads of {} {how}{takes}; Hark takes {}",
                bytes(refused),
                bytes(*wanted)
            ),
            json!({"wanted_bytes": wanted, "refused_bytes": refused, "passed_bytes": passed}),
            Remedy::UploadLimit(*wanted),
        ));
    } else {
        let text = format!("uploads of {} pass", bytes(*wanted));
        findings.push(Finding::ok("upload_limit", text, json!({"wanted_bytes": wanted})));
    }
    // The largest that wasn't refused tells whether Hark gets the first bytes before the last ones were sent.
    let passed = hark.uploads.iter().filter(|(_, came)| !came.is_refused_on_the_way()).max_by_key(|(size, _)| *size);
    findings.extend(passed.map(|(size, came)| {
        let evidence = json!({"bytes": size});
        if came.reached_hark() {
            return Finding::ok("upload_buffering", "uploads reach Hark while they are sent", evidence);
        }
        Finding::odd(
            "upload_buffering",
            format!(
                "uploads reach Hark only when all of them have been sent (of {} nothing had come after 6 s): the proxy keeps them on its own disk first, and what Hark refuses is sent in vain",
                bytes(*size)
            ),
            evidence,
            Remedy::UploadBuffering,
        )
    }));
    findings.extend(slow_upload(hark, is_limited));
    findings
}

fn slow_upload(hark: &Deployment, is_limited: bool) -> Option<Finding> {
    let slow = &hark.slow_upload;
    let (check, evidence) = ("long_requests", json!({"wanted_secs": slow.wanted_secs, "secs": slow.secs}));
    let took = seconds(slow.secs);
    Some(match &slow.came {
        came if came.is_hark_refusal() => Finding::ok(check, format!("an upload that took {took} passed"), evidence),
        Declared::Answered { code: Some(code), .. } => {
            Finding::unknown(check, &format!("Hark refused the upload that should take a while ({code})"))
        }
        Declared::Answered { status: 413, .. } if is_limited => return None,
        Declared::Answered { status, .. } => Finding::wrong(
            check,
            format!("an upload that should have taken {} s was ended with {status} after {took}", slow.wanted_secs),
            evidence,
            Remedy::UploadTime,
        ),
        Declared::Broken(_) if is_limited && slow.secs < 1.0 => return None,
        Declared::Broken(cause) => Finding::wrong(
            check,
            format!("an upload that should have taken {} s was cut after {took} ({cause})", slow.wanted_secs),
            evidence,
            Remedy::UploadTime,
        ),
        Declared::Silence => Finding::wrong(
            check,
            format!("an upload that took {} s wasn't answered within {took}", slow.wanted_secs),
            evidence,
            Remedy::UploadTime,
        ),
    })
}

fn operators(hark: &Deployment) -> Finding {
    let metrics = hark.metrics.as_ref().is_some_and(|answer| answer.status == 200 && answer.text().contains("hark_"));
    let health = hark
        .health
        .as_ref()
        .is_some_and(|answer| answer.status == 200 && answer.json().is_some_and(|json| json.get("queued").is_some()));
    let open: Vec<&str> = [(metrics, "/metrics"), (health, "/api/v1/health/sessions")]
        .into_iter()
        .filter_map(|(open, path)| open.then_some(path))
        .collect();
    let evidence = json!({"open": open});
    if open.is_empty() {
        return Finding::ok("operators", "what is for operators is closed to strangers", evidence);
    }
    let text = format!(
        "{} answered to strangers: how much goes on here is for operators only",
        match open[..] {
            [one] => format!("{one} is"),
            _ => format!("{} are", open.join(" and ")),
        }
    );
    Finding::odd("operators", text, evidence, Remedy::Operators)
}

#[cfg(test)]
mod tests {
    use super::{super::answer::Answer, super::observations::SlowUpload, *};
    use axum::http::{HeaderName, HeaderValue, Version};

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        Answer { status, version: Version::HTTP_2, headers: headers.collect(), body: body.as_bytes().to_vec() }
    }

    fn heartbeat(secs: f64, sent_secs: f64) -> Event {
        let sent = Timestamp(1_700_000_000_000 + (sent_secs * 1000.0) as i64);
        let data = json!({"timestamp": sent}).to_string();
        Event { secs, kind: "heartbeat".to_owned(), data }
    }

    fn watch(events: Vec<Event>, end: End, secs: f64) -> Watch {
        let last_bytes_secs = events.last().map_or(0.0, |event| event.secs);
        let head = answer(200, &[("content-type", "text/event-stream")], "");
        Watch { head: Some(head), events, end, secs, last_bytes_secs }
    }

    /// A deployment where all is well, behind nginx with TLS.
    fn well() -> Observations {
        let large = "x".repeat(5000);
        let packed = ("content-encoding", "gzip");
        let nosniff = ("x-content-type-options", "nosniff");
        let description = answer(
            200,
            &[nosniff, packed, ("server", "nginx")],
            &json!({"info": {"title": "Hark", "version": "1.2.3"}, "more": large}).to_string(),
        );
        let page = answer(
            200,
            &[
                nosniff,
                packed,
                ("content-security-policy", "script-src 'nonce-abc'"),
                ("strict-transport-security", "max-age=1"),
            ],
            &format!("<script nonce=\"abc\">{large}"),
        );
        let status = |time: &str, owner: &str| {
            let cookie = format!("__Host-hark_owner_1234={owner}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=1");
            answer(200, &[("cache-control", "no-store"), ("hark-time", time), ("set-cookie", &cookie)], "{}")
        };
        let refused = || Declared::Answered { status: 422, code: Some("unknown_engine".to_owned()) };
        let hark = Deployment {
            description: description.clone(),
            page: Some(page),
            file: Some((
                "/pkg/hark.1.css".to_owned(),
                answer(200, &[packed, ("cache-control", "public, max-age=31536000, immutable")], &large),
            )),
            statuses: vec![status("1", "a"), status("2", "b")],
            arrival: Some(Arrival {
                http: "HTTP/1.1".to_owned(),
                host: Some("hark.example.org".to_owned()),
                scheme: "https".to_owned(),
                client: "forwarded".to_owned(),
                accept_encoding: Some("gzip".to_owned()),
            }),
            same_site: Some(400),
            metrics: Some(answer(403, &[], "")),
            health: Some(answer(403, &[], "")),
            stream: watch(
                (0..5).map(|n| heartbeat(f64::from(n) * 15.0 + 0.1, f64::from(n) * 15.0)).collect(),
                End::Open,
                70.0,
            ),
            plain_stream: watch(vec![heartbeat(0.1, 0.0)], End::Open, 0.1),
            uploads: vec![(2_000_000_000, refused())],
            slow_upload: SlowUpload { wanted_secs: 70, secs: 70.1, came: refused() },
        };
        Observations {
            target: Target {
                origin: "https://hark.example.org".to_owned(),
                authority: "hark.example.org".to_owned(),
                https: true,
                is_local: false,
            },
            redirected: false,
            unreachable: None,
            certificate: Some(Certificate {
                problem: None,
                is_checked: true,
                days_left: Some(60.0),
                days_in_all: Some(90.0),
            }),
            sub_path: None,
            first: Some(description),
            hark: Some(Box::new(hark)),
        }
    }

    fn faults(observed: &Observations) -> Vec<&'static str> {
        judge(observed).into_iter().filter(|found| found.verdict != Verdict::Ok).map(|found| found.check).collect()
    }

    /// The faults after a change, and the text of the first.
    fn changed(change: impl FnOnce(&mut Observations)) -> (Vec<&'static str>, String) {
        let mut observed = well();
        change(&mut observed);
        let first = judge(&observed).into_iter().find(|found| found.verdict != Verdict::Ok);
        (faults(&observed), first.map(|found| found.text).unwrap_or_default())
    }

    fn of_hark(change: impl FnOnce(&mut Deployment)) -> (Vec<&'static str>, String) {
        changed(|observed| change(observed.hark.as_mut().unwrap()))
    }

    fn set(answer: &mut Answer, name: &'static str, value: &str) {
        answer.headers.insert(name, value.parse().unwrap());
    }

    #[test]
    fn where_all_is_well_nothing_is_found() {
        assert_eq!(faults(&well()), Vec::<&str>::new());
        let names: Vec<&str> = judge(&well()).iter().map(|found| found.check).collect();
        assert_eq!(names.len(), 21, "{names:?}");
    }

    #[test]
    fn a_certificate_is_judged_by_its_days() {
        let with = |problem: Option<&str>, left: f64, all: f64| {
            changed(|o| {
                o.certificate = Some(Certificate {
                    problem: problem.map(str::to_owned),
                    is_checked: true,
                    days_left: Some(left),
                    days_in_all: Some(all),
                });
            })
        };
        assert_eq!(with(None, 10.0, 90.0).0, ["certificate"]);
        // One that lives for six days is well with five left, and isn't with one.
        assert_eq!(with(None, 5.0, 6.0).0, Vec::<&str>::new());
        assert_eq!(with(None, 1.0, 6.0).0, ["certificate"]);
        assert!(with(None, -3.5, 90.0).1.contains("expired 4 days ago"));
        assert!(with(Some("invalid peer certificate: Expired"), -3.0, 90.0).1.contains("Expired"));
    }

    #[test]
    fn without_tls_it_matters_where() {
        let plain = |is_local: bool| {
            changed(|o| {
                o.target.https = false;
                o.target.is_local = is_local;
                let hark = o.hark.as_mut().unwrap();
                hark.arrival.as_mut().unwrap().scheme = "http".to_owned();
            })
            .0
        };
        assert_eq!(plain(true), Vec::<&str>::new());
        assert_eq!(plain(false), ["certificate"]);
    }

    #[test]
    fn what_hark_is_told_of_a_request_is_compared_with_what_was_sent() {
        let arrived = |change: fn(&mut Arrival)| of_hark(|hark| change(hark.arrival.as_mut().unwrap())).0;
        assert_eq!(arrived(|a| a.http = "HTTP/1.0".to_owned()), ["upstream_http"]);
        assert_eq!(arrived(|a| a.host = Some("hark".to_owned())), ["host"]);
        assert_eq!(arrived(|a| a.host = Some("HARK.example.org".to_owned())), Vec::<&str>::new());
        assert_eq!(arrived(|a| a.client = "ignored".to_owned()), ["client_address"]);
        assert_eq!(arrived(|a| a.client = "peer".to_owned()), ["client_address"]);
        // Without the header, everything else is as over http, and that isn't found once more.
        let as_http = of_hark(|hark| {
            hark.arrival.as_mut().unwrap().scheme = "http".to_owned();
            hark.page.as_mut().unwrap().headers.remove("strict-transport-security");
            for status in &mut hark.statuses {
                let cookie = status.header("set-cookie").unwrap().replace("__Host-", "").replace("Secure; ", "");
                set(status, "set-cookie", &cookie);
            }
        });
        assert_eq!(as_http.0, ["forwarded_proto"]);
        // The same of a Hark that doesn't say how requests arrive.
        let older = of_hark(|hark| {
            hark.arrival = None;
            hark.page.as_mut().unwrap().headers.remove("strict-transport-security");
            for status in &mut hark.statuses {
                let time = status.header("hark-time").unwrap().to_owned();
                set(status, "set-cookie", &format!("hark_owner_1={time}; HttpOnly; SameSite=Lax; Path=/"));
            }
        });
        assert_eq!(older.0, ["forwarded_proto"]);
        assert_eq!(of_hark(|hark| hark.same_site = Some(403)).0, ["host"]);
    }

    #[test]
    fn caches_are_found_by_what_they_give_twice() {
        let second = |change: &dyn Fn(&mut Answer)| of_hark(|hark| change(&mut hark.statuses[1]));
        let first = well().hark.unwrap().statuses[0].clone();
        let same_cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(second(&|s| set(s, "set-cookie", &same_cookie)).1.contains("same cookie"));
        assert!(second(&|s| set(s, "hark-time", "1")).1.contains("very same answer"));
        assert!(second(&|s| set(s, "cf-cache-status", "HIT")).1.contains("cf-cache-status is HIT"));
        assert!(second(&|s| set(s, "age", "7")).1.contains("Age"));
        assert!(second(&|s| set(s, "cache-control", "max-age=60")).1.contains("max-age=60"));
        assert_eq!(second(&|s| set(s, "cache-control", "max-age=60")).0, ["api_caching"]);
        assert_eq!(
            of_hark(|hark| set(&mut hark.file.as_mut().unwrap().1, "cache-control", "no-cache")).0,
            ["file_caching"]
        );
        assert_eq!(of_hark(|hark| hark.file = None).0, ["file_caching"]);
    }

    #[test]
    fn headers_and_cookies_are_compared_with_hark_s_own() {
        let page = |change: &dyn Fn(&mut Answer)| of_hark(|hark| change(hark.page.as_mut().unwrap()));
        let none = page(&|p| drop(p.headers.remove("content-security-policy")));
        assert_eq!(none.0, ["headers"]);
        let second = page(&|p| assert!(p.headers.append("content-security-policy", "default-src *".parse().unwrap())));
        assert!(second.1.contains("second Content-Security-Policy"));
        assert!(page(&|p| set(p, "content-security-policy", "script-src 'nonce-xyz'")).1.contains("isn't the one"));
        assert_eq!(page(&|p| drop(p.headers.remove("strict-transport-security"))).0, ["headers"]);
        assert_eq!(page(&|p| drop(p.headers.remove("content-encoding"))).0, ["compression"]);
        assert_eq!(page(&|p| p.version = Version::HTTP_11).0, ["http_version"]);
        assert_eq!(of_hark(|hark| set(&mut hark.description, "server", "nginx/1.22.1")).0, ["server_header"]);
        let cookies = of_hark(|hark| {
            for status in &mut hark.statuses {
                let cookie = status.header("set-cookie").unwrap().replace("HttpOnly; ", "");
                set(status, "set-cookie", &cookie);
            }
        });
        assert_eq!(cookies.0, ["cookies"]);
        assert!(cookies.1.contains("HttpOnly is missing"));
        let open = of_hark(|hark| hark.metrics = Some(answer(200, &[], "# TYPE hark_streams_open gauge\n")));
        assert_eq!(open.0, ["operators"]);
        // A sign-in page in front of them is no open door.
        assert_eq!(of_hark(|hark| hark.metrics = Some(answer(200, &[], "<html>sign in"))).0, Vec::<&str>::new());
    }

    #[test]
    fn a_stream_is_judged_by_when_its_events_come() {
        let with = |watch: Watch| of_hark(|hark| hark.stream = watch);
        let beats =
            |times: &[(f64, f64)]| -> Vec<Event> { times.iter().map(|(came, sent)| heartbeat(*came, *sent)).collect() };
        let nothing = with(Watch { secs: 70.0, ..Watch::default() });
        assert_eq!(nothing.0, ["stream_start"]);
        assert_eq!(with(watch(vec![], End::Open, 70.0)).0, ["stream_start"]);
        let late = with(watch(beats(&[(5.0, 0.0), (20.0, 15.0)]), End::Open, 30.0));
        assert!(late.0 == ["stream_start"] && late.1.contains("after 5.00 s"), "{late:?}");
        let bunches = with(watch(beats(&[(0.1, 0.0), (45.1, 15.0), (45.1, 30.0), (45.1, 45.0)]), End::Open, 70.0));
        assert!(bunches.0 == ["stream_delay"] && bunches.1.contains("30.0 s later"), "{bunches:?}");
        let silent = with(watch(beats(&[(0.1, 0.0)]), End::Open, 70.0));
        assert!(silent.0 == ["stream_delay"] && silent.1.contains("no heartbeat"), "{silent:?}");
        // Too short to have seen one.
        assert_eq!(with(watch(beats(&[(0.1, 0.0)]), End::Open, 10.0)).0, Vec::<&str>::new());
        let idle = with(watch(beats(&[(0.1, 0.0)]), End::Closed, 10.1));
        assert!(idle.0 == ["stream_idle"] && idle.1.contains("cut 10.0 s after its last event"), "{idle:?}");
        let old = with(watch(beats(&[(0.1, 0.0), (15.0, 15.0), (30.0, 30.0)]), End::Broken("reset".to_owned()), 30.4));
        assert!(old.0 == ["stream_idle"] && old.1.contains("cut after 30.4 s in all"), "{old:?}");
        assert_eq!(
            with(watch(beats(&[(0.1, 0.0), (15.1, 15.0)]), End::Bye("lifetime".to_owned()), 20.0)).0,
            Vec::<&str>::new()
        );
        let refused = with(watch(beats(&[(0.1, 0.0)]), End::Bye("limit".to_owned()), 0.1));
        assert!(refused.0 == ["stream_start"] && refused.1.contains("couldn't be checked"), "{refused:?}");
        let packed = of_hark(|hark| set(hark.plain_stream.head.as_mut().unwrap(), "content-encoding", "gzip"));
        assert_eq!(packed.0, ["stream_compression"]);
    }

    #[test]
    fn uploads_are_judged_by_who_answers() {
        let answered = |status, code: Option<&str>| Declared::Answered { status, code: code.map(str::to_owned) };
        let first = |came: Declared| of_hark(|hark| hark.uploads = vec![(2_000_000_000, came)]);
        // Whatever Hark itself says, the upload has reached it.
        assert_eq!(first(answered(413, Some("too_large"))).0, Vec::<&str>::new());
        assert_eq!(first(answered(429, Some("queue_full"))).0, Vec::<&str>::new());
        assert_eq!(first(Declared::Silence).0, ["upload_buffering"]);
        let limited = of_hark(|hark| {
            hark.uploads = vec![
                (2_000_000_000, answered(413, None)),
                (1_000_000, answered(422, Some("unknown_engine"))),
                (1_100_000, answered(413, None)),
            ];
        });
        assert_eq!(limited.0, ["upload_limit"]);
        assert!(limited.1.contains("refuses uploads of 1.1 MB with 413 and takes 1.0 MB"), "{}", limited.1);
        let slow = |came: Declared| of_hark(|hark| hark.slow_upload = SlowUpload { wanted_secs: 70, secs: 60.0, came });
        assert_eq!(slow(answered(408, None)).0, ["long_requests"]);
        assert!(slow(Declared::Broken("reset".to_owned())).1.contains("cut after 60.0 s (reset)"));
        assert!(slow(answered(429, Some("queue_full"))).1.contains("couldn't be checked"));
    }

    #[test]
    fn what_isnt_hark_is_told_apart() {
        let other = |status: u16, body: &str| {
            changed(|o| {
                o.first = Some(answer(status, &[], body));
                o.hark = None;
            })
        };
        assert!(other(502, "<html>Bad Gateway").1.contains("can't reach Hark"));
        assert!(other(401, "").1.contains("asks for a password"));
        assert!(other(200, "hello  world").1.contains("'hello world'"));
        assert_eq!(other(421, r#"{"error":{"code":"unknown_host","message":"…"}}"#).0, ["host"]);
        let away = changed(|o| {
            o.unreachable = Some("Connection refused".to_owned());
            o.hark = None;
        });
        assert!(away.0 == ["reachable"] && away.1.contains("Connection refused"));
        let below = changed(|o| {
            o.sub_path = Some(super::super::observations::SubPath { path: "/hark".to_owned() });
            o.hark = None;
        });
        assert_eq!(below.0, ["sub_path"]);
    }
}
