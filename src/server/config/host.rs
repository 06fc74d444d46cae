//! An allowed host name, as `HARK_HOSTS` lists them; `guard` checks requests against them.

use axum::http::uri::Authority;
use std::str::FromStr;

/// An allowed host name, with a port if only that port is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether a request for `asked` is for this name.
    #[must_use]
    pub fn matches(&self, asked: &Authority) -> bool {
        // A request without a port is for the scheme's default port, and a proxy may hide the scheme.
        let matches = |port: u16| asked.port_u16().map_or(port == 80 || port == 443, |asked| asked == port);
        self.name == normalise(asked.host()) && self.port.is_none_or(matches)
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<Authority>() {
            Ok(authority) if is_host(&authority) => {
                Ok(Self { name: normalise(authority.host()), port: authority.port_u16() })
            }
            _ => Err(format!("'{text}' is no host; give one like hark.example.org, 192.0.2.7:3000 or [2001:db8::7]")),
        }
    }
}

/// Normalises a host name: case doesn't matter, nor does a final dot.
fn normalise(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether it has a host, no user before it, and nothing but a port after it.
pub(in crate::server) fn is_host(authority: &Authority) -> bool {
    let text = authority.as_str();
    let rest = text.strip_prefix(authority.host()).unwrap_or("?");
    !authority.host().is_empty() && (rest.is_empty() || authority.port_u16().is_some()) && !text.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_names() {
        let matches = |allowed: &str, asked: &str| {
            let allowed: AllowedHost = allowed.parse().unwrap();
            allowed.matches(&asked.parse().unwrap())
        };
        for (allowed, asked) in [
            ("hark.example.org", "hark.example.org"),
            ("hark.example.org", "HARK.example.org.:8080"),
            ("Hark.example.org:3000", "hark.example.org:3000"),
            ("hark.example.org:443", "hark.example.org"),
            ("[2001:db8::7]", "[2001:db8::7]:3000"),
        ] {
            assert!(matches(allowed, asked), "{allowed} {asked}");
        }
        for (allowed, asked) in [
            ("hark.example.org", "hark.example.org.evil.example"),
            ("hark.example.org", "evil.example"),
            ("hark.example.org:3000", "hark.example.org:3001"),
            ("hark.example.org:3000", "hark.example.org"),
        ] {
            assert!(!matches(allowed, asked), "{allowed} {asked}");
        }
        for bad in ["", "user@host", "http://host", "a b", "host/path", "host:port"] {
            assert!(bad.parse::<AllowedHost>().is_err(), "{bad}");
        }
    }
}
