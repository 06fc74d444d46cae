//! What to change where, for each fault that `findings` knows: the lines for nginx, Caddy, Traefik, Cloudflare and Render, or
//! Hark's own setting. And which of these proxies is there, as far as its answers tell. Called by `findings` and
//! `deployment`.

use super::{answer::Answer, observations::Observations};

/// A proxy that Hark may stand behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proxy {
    Nginx,
    Caddy,
    Traefik,
    Cloudflare,
    Render,
}

impl Proxy {
    pub(super) const ALL: [Self; 5] = [Self::Nginx, Self::Caddy, Self::Traefik, Self::Cloudflare, Self::Render];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Cloudflare => "Cloudflare",
            Self::Render => "Render",
        }
    }

    /// The proxies that answers show. Traefik shows itself only where it answers itself.
    pub(super) fn guess(observed: &Observations) -> Vec<Self> {
        let mut answers: Vec<&Answer> = observed.first.iter().collect();
        if let Some(hark) = &observed.hark {
            answers.extend(hark.page.iter().chain(&hark.statuses).chain(&hark.metrics));
        }
        let has = |name: &str| answers.iter().any(|answer| answer.headers.contains_key(name));
        let says = |name: &str, word: &str| {
            answers.iter().any(|answer| answer.all(name).any(|value| value.to_ascii_lowercase().contains(word)))
        };
        let mut found = Vec::new();
        // OpenResty and Tengine are nginx with more in it.
        if ["nginx", "openresty", "tengine"].iter().any(|word| says("server", word)) {
            found.push(Self::Nginx);
        }
        if says("server", "caddy") || says("via", "caddy") {
            found.push(Self::Caddy);
        }
        if says("server", "traefik") || says("via", "traefik") {
            found.push(Self::Traefik);
        }
        if has("cf-ray") || says("server", "cloudflare") {
            found.push(Self::Cloudflare);
        }
        if has("rndr-id") || has("x-render-origin-server") {
            found.push(Self::Render);
        }
        found
    }
}

/// What can be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    StreamBuffering,
    /// Streams are cut when they are silent.
    StreamIdle,
    /// Streams are cut when they are old.
    StreamLife,
    StreamCompression,
    /// With the size that must pass, in bytes.
    UploadLimit(u64),
    UploadBuffering,
    UploadTime,
    Compression,
    FileCaching,
    HashedFiles,
    ApiCaching,
    UpstreamHttp,
    Host,
    ForwardedProto,
    ForwardedFor,
    TrustedProxies,
    Operators,
    Headers,
    ServerVersion,
    Certificate,
    Tls,
    Http2,
    Cookies,
    SubPath,
}

/// Lines to write, or steps to take, in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The proxy, or Hark.
    pub(super) of: &'static str,
    /// Where in its settings.
    pub(super) place: String,
    pub(super) lines: Vec<String>,
}

/// What to change in these proxies, and in Hark itself.
pub(super) fn changes(remedy: Remedy, proxies: &[Proxy]) -> Vec<Change> {
    let change = |of: &'static str, (place, lines): (&str, String)| Change {
        of,
        place: place.to_owned(),
        lines: lines.lines().map(str::to_owned).collect(),
    };
    let own = hark(remedy).map(|text| change("Hark", text));
    let of_proxies = proxies.iter().filter_map(|proxy| Some(change(proxy.name(), lines(remedy, *proxy)?)));
    own.into_iter().chain(of_proxies).collect()
}

/// Hark's own settings.
fn hark(remedy: Remedy) -> Option<(&'static str, String)> {
    let (place, lines) = match remedy {
        Remedy::StreamIdle => (
            "in its settings, if the proxy's can't be changed",
            "HARK_STREAM_HEARTBEAT_SECS=5    # less than the proxy allows",
        ),
        Remedy::TrustedProxies => {
            ("in its settings", "HARK_TRUSTED_PROXIES=10.0.0.1    # the address or network that the proxy has for Hark")
        }
        Remedy::ForwardedFor => (
            "in its settings, besides",
            "HARK_TRUSTED_PROXIES=10.0.0.1    # the address or network that the proxy has for Hark",
        ),
        Remedy::Operators => {
            ("in its settings, instead of closing the paths in the proxy", "HARK_MONITOR_ADDR=127.0.0.1:9100")
        }
        Remedy::HashedFiles => (
            "on every node",
            "the same release of Hark; if LEPTOS_SITE_ROOT is set, that folder and hash.txt of the same build",
        ),
        _ => return None,
    };
    Some((place, lines.to_owned()))
}

/// The place and the lines for a proxy; none if nothing can be set there.
fn lines(remedy: Remedy, proxy: Proxy) -> Option<(&'static str, String)> {
    match proxy {
        Proxy::Nginx => nginx(remedy),
        Proxy::Caddy => caddy(remedy),
        Proxy::Traefik => traefik(remedy),
        Proxy::Cloudflare => cloudflare(remedy),
        Proxy::Render => render(remedy),
    }
}

const NGINX_STREAMS: &str = "in a location for the streams, ~ ^/api/v1/(?:sessions/[^/]+/)?status/stream$";
const NGINX_SERVER: &str = "in the server block, and in each location that has a line of this kind of its own";

fn nginx(remedy: Remedy) -> Option<(&'static str, String)> {
    let (place, lines) = match remedy {
        Remedy::StreamBuffering => (
            NGINX_STREAMS,
            "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_buffering off;\nproxy_cache off;\n# and no line 'proxy_ignore_headers X-Accel-Buffering;'".to_owned(),
        ),
        Remedy::StreamIdle => (NGINX_STREAMS, "proxy_read_timeout 60s;\nsend_timeout 60s;".to_owned()),
        Remedy::StreamLife => return None,
        Remedy::StreamCompression => (NGINX_STREAMS, "gzip off;\n# or take text/event-stream out of gzip_types".to_owned()),
        Remedy::UploadLimit(bytes) => (
            "in the server block, and in the location of uploads if it has this line",
            format!("client_max_body_size {}m;", bytes.div_ceil(1024 * 1024) + 1),
        ),
        Remedy::UploadBuffering => {
            (NGINX_SERVER, "proxy_http_version 1.1;\nproxy_request_buffering off;".to_owned())
        }
        Remedy::UploadTime => (
            NGINX_SERVER,
            "client_body_timeout 60s;\nproxy_send_timeout 60s;\nproxy_read_timeout 120s;".to_owned(),
        ),
        Remedy::Compression => (
            NGINX_SERVER,
            "proxy_set_header Accept-Encoding $http_accept_encoding;    # in place of one that takes it away".to_owned(),
        ),
        Remedy::FileCaching => (
            "in the location of /pkg/",
            "proxy_pass_header Cache-Control;\n# and no lines 'expires' or 'add_header Cache-Control'".to_owned(),
        ),
        Remedy::ApiCaching => (
            "in a location for /api/",
            "proxy_cache off;\n# and no lines 'expires', 'add_header Cache-Control' or 'proxy_ignore_headers Cache-Control'".to_owned(),
        ),
        Remedy::UpstreamHttp => {
            (NGINX_SERVER, "proxy_http_version 1.1;\nproxy_set_header Connection \"\";".to_owned())
        }
        Remedy::Host => (NGINX_SERVER, "proxy_set_header Host $http_host;".to_owned()),
        Remedy::ForwardedProto => (
            NGINX_SERVER,
            "proxy_set_header X-Forwarded-Proto $scheme;    # if another proxy ends TLS: $http_x_forwarded_proto".to_owned(),
        ),
        Remedy::ForwardedFor => {
            (NGINX_SERVER, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;".to_owned())
        }
        Remedy::Operators => {
            ("in the server block", "location ~ ^/(metrics|readyz|healthz|api/v1/health/) { deny all; }".to_owned())
        }
        Remedy::Headers => (
            "in the server block and its locations",
            "# no lines 'add_header' or 'proxy_hide_header' with names of these headers, and no 'sub_filter'".to_owned(),
        ),
        Remedy::ServerVersion => ("in the http block", "server_tokens off;".to_owned()),
        Remedy::Certificate => (
            "in the server block",
            "ssl_certificate /path/fullchain.pem;    # with the certificates that vouch for it\nssl_certificate_key /path/privkey.pem;\n# then: nginx -s reload, also after each renewal".to_owned(),
        ),
        Remedy::Tls => ("as a whole", "# deploy/nginx-tls.conf of Hark's repository".to_owned()),
        Remedy::Http2 => {
            ("in the server block", "http2 on;    # before nginx 1.25.1: listen 443 ssl http2;".to_owned())
        }
        Remedy::Cookies => (
            "in the server block and its locations",
            "# no lines 'proxy_cookie_path', 'proxy_cookie_domain', 'proxy_cookie_flags' or 'proxy_hide_header Set-Cookie'".to_owned(),
        ),
        Remedy::SubPath => (
            "in the http block",
            "server {\n    listen 443 ssl http2;\n    server_name hark.example.org;\n    location / { proxy_pass http://hark; }    # the rest as in deploy/nginx-tls.conf\n}".to_owned(),
        ),
        Remedy::TrustedProxies | Remedy::HashedFiles => return None,
    };
    Some((place, lines))
}

fn caddy(remedy: Remedy) -> Option<(&'static str, String)> {
    let (place, lines) = match remedy {
        Remedy::StreamBuffering => {
            ("in the site's reverse_proxy", "flush_interval -1\n# and no line 'response_buffers'")
        }
        Remedy::StreamIdle => ("in the site's reverse_proxy", "transport http {\n    read_timeout 60s    # or none\n}"),
        Remedy::StreamLife => ("in the global options", "servers {\n    timeouts {\n        write 0\n    }\n}"),
        Remedy::StreamCompression => ("in the site", "# no line 'encode': Hark compresses by itself"),
        Remedy::UploadLimit(bytes) => {
            return Some((
                "in the site",
                format!("request_body {{\n    max_size {}MiB\n}}", bytes.div_ceil(1024 * 1024) + 1),
            ));
        }
        Remedy::UploadBuffering => ("in the site's reverse_proxy", "# no line 'request_buffers'"),
        Remedy::UploadTime => {
            ("in the global options", "servers {\n    timeouts {\n        read_body 0\n        write 0\n    }\n}")
        }
        Remedy::Compression => ("in the site's reverse_proxy", "# no line 'header_up -Accept-Encoding'"),
        Remedy::FileCaching | Remedy::ApiCaching => {
            ("in the site", "# no line 'header' that sets Cache-Control, and no 'cache' for /api/*")
        }
        Remedy::Host => ("in the site's reverse_proxy", "header_up Host {http.request.hostport}"),
        Remedy::ForwardedProto => (
            "in the site's reverse_proxy",
            "header_up X-Forwarded-Proto {scheme}    # if another proxy ends TLS, name it in trusted_proxies instead",
        ),
        Remedy::ForwardedFor => {
            ("in the site's reverse_proxy", "# no line 'header_up -X-Forwarded-For': Caddy sets it by itself")
        }
        Remedy::Operators => (
            "in the site, before reverse_proxy",
            "@operators path /metrics /readyz /healthz /api/v1/health/*\nrespond @operators 403",
        ),
        Remedy::Headers => ("in the site", "# no line 'header' with names of these headers"),
        Remedy::ServerVersion => ("in the site", "header -Server"),
        Remedy::Certificate => (
            "as the site's address",
            "hark.example.org    # the name alone: Caddy gets and renews the certificate; ports 80 and 443 must be open",
        ),
        Remedy::Tls => ("as a whole site", "hark.example.org {\n    reverse_proxy 127.0.0.1:3000\n}"),
        Remedy::Http2 => ("in the global options", "servers {\n    protocols h1 h2 h3\n}"),
        Remedy::Cookies => ("in the site's reverse_proxy", "# no line 'header_down' with Set-Cookie"),
        Remedy::SubPath => ("as a site of its own", "hark.example.org {\n    reverse_proxy 127.0.0.1:3000\n}"),
        Remedy::UpstreamHttp | Remedy::TrustedProxies | Remedy::HashedFiles => return None,
    };
    Some((place, lines.to_owned()))
}

fn traefik(remedy: Remedy) -> Option<(&'static str, String)> {
    const TIMEOUTS: &str = "in the static configuration, for the entry point that has TLS";
    let (place, lines) = match remedy {
        Remedy::StreamBuffering => {
            ("in the dynamic configuration, for Hark's router", "# no middleware with 'buffering'")
        }
        Remedy::StreamIdle => (
            "in the static configuration",
            "# nothing: Traefik cuts no silent stream by itself; look at what stands before and behind it",
        ),
        Remedy::StreamLife => {
            (TIMEOUTS, "entryPoints:\n  websecure:\n    transport:\n      respondingTimeouts:\n        writeTimeout: 0")
        }
        Remedy::StreamCompression => (
            "in the dynamic configuration",
            "# no middleware with 'compress' on Hark's router, or:\nhttp:\n  middlewares:\n    compressed:\n      compress:\n        excludedContentTypes: [text/event-stream]",
        ),
        Remedy::UploadLimit(_) | Remedy::UploadBuffering => (
            "in the dynamic configuration, for Hark's router",
            "# no middleware with 'buffering': its maxRequestBodyBytes limits uploads, and it keeps them until they are complete",
        ),
        Remedy::UploadTime => (
            TIMEOUTS,
            "entryPoints:\n  websecure:\n    transport:\n      respondingTimeouts:\n        readTimeout: 0    # 60 s by default since version 3",
        ),
        Remedy::Compression => {
            ("in the dynamic configuration", "# no middleware with customRequestHeaders that empties Accept-Encoding")
        }
        Remedy::FileCaching | Remedy::ApiCaching | Remedy::Headers | Remedy::Cookies => (
            "in the dynamic configuration",
            "# no middleware with customResponseHeaders that sets or empties this header, and none that caches",
        ),
        Remedy::Host => (
            "in the dynamic configuration",
            "http:\n  services:\n    hark:\n      loadBalancer:\n        passHostHeader: true\n# and no middleware with customRequestHeaders that sets Host",
        ),
        Remedy::ForwardedProto => (
            "in the static configuration, if another proxy ends TLS",
            "entryPoints:\n  web:\n    forwardedHeaders:\n      trustedIPs: [10.0.0.1/32]    # that proxy",
        ),
        Remedy::ForwardedFor => {
            ("in the dynamic configuration", "# no middleware with customRequestHeaders that empties X-Forwarded-For")
        }
        Remedy::Operators => (
            "in the dynamic configuration, for Hark's router",
            "rule: Host(`hark.example.org`) && !PathPrefix(`/metrics`) && !PathPrefix(`/readyz`) && !PathPrefix(`/healthz`) && !PathPrefix(`/api/v1/health/`)",
        ),
        Remedy::Certificate => (
            "in the static configuration",
            "certificatesResolvers:\n  le:\n    acme:\n      email: you@example.org\n      storage: /letsencrypt/acme.json\n      tlsChallenge: {}\n# and for Hark's router: tls: { certResolver: le }",
        ),
        Remedy::Tls => (
            "in the static configuration",
            "entryPoints:\n  web:\n    address: \":80\"\n    http:\n      redirections:\n        entryPoint: { to: websecure, scheme: https }\n  websecure:\n    address: \":443\"",
        ),
        Remedy::Http2 => ("in the dynamic configuration", "# no TLS option with alpnProtocols that lacks h2"),
        Remedy::SubPath => (
            "in the dynamic configuration, for Hark's router",
            "rule: Host(`hark.example.org`)    # in place of PathPrefix and stripPrefix",
        ),
        Remedy::UpstreamHttp | Remedy::ServerVersion | Remedy::TrustedProxies | Remedy::HashedFiles => return None,
    };
    Some((place, lines.to_owned()))
}

fn cloudflare(remedy: Remedy) -> Option<(&'static str, String)> {
    let (place, lines) = match remedy {
        Remedy::StreamBuffering => (
            "in its dashboard",
            "Network > Response Buffering: off (Enterprise; elsewhere it is off)\nCaching > Cache Rules: bypass cache where URI Path starts with /api/\nwith cloudflared: a named tunnel, since quick tunnels (trycloudflare.com) hold events back",
        ),
        Remedy::StreamIdle | Remedy::StreamLife => (
            "in its dashboard",
            "nothing: it cuts only what is silent for some 100 s, and Hark isn't; look at what stands between it and Hark",
        ),
        Remedy::StreamCompression => {
            ("in its dashboard", "Rules > Compression Rules: disable compression where URI Path ends with /stream")
        }
        Remedy::UploadLimit(_) => (
            "in its dashboard",
            "Network > Maximum Upload Size: the largest of your plan (100 MB, with Business 200 MB, with Enterprise 500 MB)\nfor more than that, DNS > Records: set Hark's host to 'DNS only', so that uploads don't pass through Cloudflare",
        ),
        Remedy::UploadBuffering => (
            "in its dashboard",
            "nothing: it keeps uploads until they are complete; DNS > Records: 'DNS only' for Hark's host avoids that",
        ),
        Remedy::UploadTime => (
            "in its dashboard",
            "DNS > Records: 'DNS only' for Hark's host, or see what stands between Cloudflare and Hark",
        ),
        Remedy::Compression => ("in its dashboard", "Rules > Compression Rules: default for all of Hark's host"),
        Remedy::FileCaching => {
            ("in its dashboard", "Caching > Configuration > Browser Cache TTL: Respect Existing Headers")
        }
        Remedy::ApiCaching => (
            "in its dashboard",
            "Caching > Cache Rules: bypass cache where URI Path starts with /api/\nCaching > Configuration > Browser Cache TTL: Respect Existing Headers",
        ),
        Remedy::Host => ("in its dashboard", "Rules > Origin Rules: no Host Header override for Hark's host"),
        Remedy::ForwardedProto => (
            "in its dashboard",
            "SSL/TLS > Overview: Full (strict); and let the proxy between Cloudflare and Hark pass X-Forwarded-Proto on",
        ),
        Remedy::Operators => (
            "in its dashboard, Security > WAF > Custom rules, action Block",
            "(http.request.uri.path in {\"/metrics\" \"/readyz\" \"/healthz\"}) or starts_with(http.request.uri.path, \"/api/v1/health/\")",
        ),
        Remedy::Headers => (
            "in its dashboard",
            "Rules > Transform Rules: none that changes these headers\nSpeed > Optimization: Rocket Loader off; Scrape Shield: Email Address Obfuscation off (they change pages)",
        ),
        Remedy::Certificate | Remedy::Tls => {
            ("in its dashboard", "SSL/TLS > Edge Certificates: Universal SSL on, Always Use HTTPS on")
        }
        Remedy::Http2 => ("in its dashboard", "Speed > Optimization > Protocol: HTTP/2 on"),
        Remedy::Cookies => ("in its dashboard", "Rules > Transform Rules: none that changes Set-Cookie"),
        Remedy::SubPath => ("in its dashboard", "DNS > Records: a host name for Hark alone"),
        Remedy::UpstreamHttp
        | Remedy::ForwardedFor
        | Remedy::ServerVersion
        | Remedy::TrustedProxies
        | Remedy::HashedFiles => return None,
    };
    Some((place, lines.to_owned()))
}

fn render(remedy: Remedy) -> Option<(&'static str, String)> {
    let (place, lines) = match remedy {
        Remedy::StreamBuffering
        | Remedy::StreamIdle
        | Remedy::StreamLife
        | Remedy::StreamCompression
        | Remedy::UploadTime => (
            "in its dashboard",
            "nothing can be set: Render passes streams as they come; look at what else stands in between, such as a CDN of your own",
        ),
        Remedy::UploadLimit(_) | Remedy::UploadBuffering => (
            "in its dashboard",
            "nothing can be set: Render's own edge limits requests; send larger recordings from a machine of your own",
        ),
        Remedy::FileCaching | Remedy::ApiCaching => {
            ("in its dashboard", "Settings > Edge Caching: off for the service")
        }
        Remedy::ForwardedFor | Remedy::TrustedProxies => {
            ("in its dashboard, Environment", "HARK_TRUSTED_PROXIES=10.0.0.0/8    # Render's own network")
        }
        Remedy::Operators => ("in its dashboard, Environment", "HARK_MONITOR_ADDR=127.0.0.1:9100"),
        Remedy::Certificate | Remedy::Tls => {
            ("in its dashboard", "Settings > Custom Domains: verify the name; Render gets and renews the certificate")
        }
        Remedy::SubPath => (
            "in its dashboard",
            "Settings > Custom Domains: a host name for Hark alone, without a rewrite from another service",
        ),
        _ => return None,
    };
    Some((place, lines.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMEDIES: [Remedy; 24] = [
        Remedy::StreamBuffering,
        Remedy::StreamIdle,
        Remedy::StreamLife,
        Remedy::StreamCompression,
        Remedy::UploadLimit(2_000_000_000),
        Remedy::UploadBuffering,
        Remedy::UploadTime,
        Remedy::Compression,
        Remedy::FileCaching,
        Remedy::HashedFiles,
        Remedy::ApiCaching,
        Remedy::UpstreamHttp,
        Remedy::Host,
        Remedy::ForwardedProto,
        Remedy::ForwardedFor,
        Remedy::TrustedProxies,
        Remedy::Operators,
        Remedy::Headers,
        Remedy::ServerVersion,
        Remedy::Certificate,
        Remedy::Tls,
        Remedy::Http2,
        Remedy::Cookies,
        Remedy::SubPath,
    ];

    #[test]
    fn something_can_be_done_about_every_fault() {
        for remedy in REMEDIES {
            assert!(!changes(remedy, &Proxy::ALL).is_empty(), "{remedy:?}");
        }
    }

    #[test]
    fn only_the_proxies_that_are_there_are_named() {
        let of = |proxies: &[Proxy]| -> Vec<&str> {
            changes(Remedy::Operators, proxies).into_iter().map(|change| change.of).collect()
        };
        assert_eq!(of(&[Proxy::Caddy]), ["Hark", "Caddy"]);
        assert_eq!(of(&Proxy::ALL), ["Hark", "nginx", "Caddy", "Traefik", "Cloudflare", "Render"]);
    }

    #[test]
    fn nginx_is_told_a_size_that_lets_the_recording_and_its_form_pass() {
        let changes = changes(Remedy::UploadLimit(2_000_000_000), &[Proxy::Nginx]);
        assert_eq!(changes[0].lines, ["client_max_body_size 1909m;"]);
    }
}
