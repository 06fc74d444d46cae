//! The client's address: the peer's own, or, if the peer is a proxy that the operator trusts, the one that it names.
//! Newcomers are counted by it. Called by the accept loop, which knows the peer, and by `router`, which puts a
//! [`ClientAddress`] into every request.

use axum::http::{HeaderMap, HeaderName, header};
use clap::ValueEnum;
use ipnet::IpNet;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// The header that most proxies set; no RFC defines it.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Providers give a household or a server a whole /64 of IPv6 addresses (RFC 6177, 2), so a /64 counts as one address.
const IPV6_PREFIX: u8 = 64;

/// The other end of a request's connection. Put into every request by the accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// The client's address, which limits are counted by: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The part of the address that counts: IPv4-mapped IPv6 becomes IPv4, and IPv6 keeps its first 64 bits.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpNet::new_assert(v6.into(), IPV6_PREFIX).network()),
            v4 => Self(v4),
        }
    }

    /// The address, or the one that all share whose address isn't known.
    #[must_use]
    pub fn or_unknown(address: Option<Self>) -> Self {
        address.unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/{IPV6_PREFIX}"),
        }
    }
}

/// A network of proxies that are trusted to name the client's address: an address, or one with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl TrustedProxy {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| {
            format!("'{text}' is no address or network; give one like 10.0.0.1, 172.16.0.0/12 or fd00::/8")
        })
    }
}

/// Whether a peer is one of these proxies.
#[must_use]
pub fn is_proxy(peer: IpAddr, trusted: &[TrustedProxy]) -> bool {
    trusted.iter().any(|proxy| proxy.contains(peer))
}

/// The header that trusted proxies set. Only this one is read, because a proxy may pass the other one on as the client
/// sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, as nginx, Caddy, HAProxy, Cloudflare and load balancers write it.
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

/// What became of the address that a proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// A trusted proxy names one.
    Believed,
    /// One is named, but not by a trusted proxy, or not in the header that is read.
    Ignored,
    /// None is named.
    Absent,
}

/// Whether the address that a request names as its client's counts.
#[must_use]
pub fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[TrustedProxy], header: ForwardedHeader) -> Forwarded {
    let read = match header {
        ForwardedHeader::XForwardedFor => &X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => &header::FORWARDED,
    };
    if is_proxy(peer, trusted) && headers.contains_key(read) {
        Forwarded::Believed
    } else if headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED) {
        Forwarded::Ignored
    } else {
        Forwarded::Absent
    }
}

/// The client of a request that came from `peer`.
#[must_use]
pub fn find_client(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[TrustedProxy],
    header: ForwardedHeader,
) -> ClientAddress {
    warn_about_proxy(peer, headers, trusted);
    ClientAddress::of(client(peer, headers, trusted, header))
}

/// Warns once that a request seems to come through a proxy that isn't trusted, because all clients behind it count as
/// one. Only for peers in private networks, because anybody can send the header.
fn warn_about_proxy(peer: IpAddr, headers: &HeaderMap, trusted: &[TrustedProxy]) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let is_local = match peer.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    };
    let forwarded = headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
    if is_local && forwarded && !trusted.iter().any(|proxy| proxy.contains(peer)) && !WARNED.swap(true, Relaxed) {
        tracing::warn!(
            %peer,
            "a request came through a proxy that isn't in HARK_TRUSTED_PROXIES, so all clients behind it count as one address; add the proxy's address there"
        );
    }
}

/// The client's address: from the peer backwards through the trusted proxies, the first address that isn't one of them.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[TrustedProxy], header: ForwardedHeader) -> IpAddr {
    let is_trusted = |address: IpAddr| is_proxy(address, trusted);
    let mut client = peer;
    if !is_trusted(client) {
        return client;
    }
    let hops: Vec<Option<IpAddr>> = match header {
        ForwardedHeader::XForwardedFor => elements(headers, &X_FORWARDED_FOR).map(parse_hop).collect(),
        ForwardedHeader::Forwarded => elements(headers, &header::FORWARDED).map(forwarded_for).collect(),
    };
    for hop in hops.into_iter().rev() {
        // An unreadable entry was added by the last trusted proxy, so the entries before it can't be trusted.
        let Some(address) = hop else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// The elements of a list header, over all its lines.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim)
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        // A single colon separates the port of an IPv4 address; several mean an IPv6 address.
        None => text.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(text, |(address, _)| address),
    };
    bare.parse().ok()
}

/// The `for` of an element of `Forwarded`: RFC 7239, 4 and 6.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })?;
    parse_hop(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(peer: &str, header: ForwardedHeader, lines: &[(&'static str, &str)]) -> String {
        let trusted: Vec<TrustedProxy> = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(|t| t.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        client(address(peer), &headers, &trusted, header).to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        use ForwardedHeader::XForwardedFor as X;
        assert_eq!(found("192.0.2.1", X, &[("x-forwarded-for", "203.0.113.9")]), "192.0.2.1");
        assert_eq!(found("127.0.0.1", X, &[("x-forwarded-for", "203.0.113.9")]), "203.0.113.9");
        // Forged entries in front of those that the proxies added.
        assert_eq!(found("127.0.0.1", X, &[("x-forwarded-for", "10.9.9.9, 203.0.113.9, 10.0.0.2")]), "203.0.113.9");
        assert_eq!(
            found("127.0.0.1", X, &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")]),
            "203.0.113.9"
        );
        assert_eq!(found("127.0.0.1", X, &[("x-forwarded-for", "1.1.1.1, unknown")]), "127.0.0.1");
        assert_eq!(found("127.0.0.1", X, &[]), "127.0.0.1");
        assert_eq!(found("127.0.0.1", X, &[("forwarded", "for=203.0.113.9")]), "127.0.0.1");
        assert_eq!(found("::ffff:10.0.0.1", X, &[("x-forwarded-for", "203.0.113.9:5555")]), "203.0.113.9");
    }

    #[test]
    fn forwarded_is_parsed_by_its_rfc() {
        use ForwardedHeader::Forwarded as F;
        let lines = [("forwarded", "for=\"[2001:db8:cafe::17]:4711\";proto=https, For=10.0.0.5")];
        assert_eq!(found("fd00::1", F, &lines), "2001:db8:cafe::17");
        assert_eq!(found("fd00::1", F, &[("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43")]), "192.0.2.60");
        assert_eq!(found("fd00::1", F, &[("forwarded", "for=_hidden")]), "fd00::1");
        assert_eq!(found("fd00::1", F, &[("x-forwarded-for", "192.0.2.60")]), "fd00::1");
    }

    #[test]
    fn a_named_client_counts_if_a_trusted_proxy_names_it_in_the_right_header() {
        use ForwardedHeader::{Forwarded as F, XForwardedFor as X};
        let trusted: Vec<TrustedProxy> = vec!["10.0.0.0/8".parse().unwrap()];
        let of = |peer: &str, read: ForwardedHeader, sent: Option<&'static str>| {
            let sent = sent.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("192.0.2.1")));
            forwarded(address(peer), &HeaderMap::from_iter(sent), &trusted, read)
        };
        assert_eq!(of("10.0.0.1", X, Some("x-forwarded-for")), Forwarded::Believed);
        assert_eq!(of("10.0.0.1", F, Some("forwarded")), Forwarded::Believed);
        assert_eq!(of("10.0.0.1", F, Some("x-forwarded-for")), Forwarded::Ignored);
        assert_eq!(of("172.16.0.1", X, Some("x-forwarded-for")), Forwarded::Ignored);
        assert_eq!(of("10.0.0.1", X, None), Forwarded::Absent);
    }

    #[test]
    fn an_ipv6_client_counts_by_its_network() {
        let of = |text: &str| ClientAddress::of(address(text));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn a_wrong_setting_shows_valid_forms() {
        assert!("10.0.0.1".parse::<TrustedProxy>().is_ok());
        assert!("proxy.example".parse::<TrustedProxy>().unwrap_err().contains("172.16.0.0/12"));
    }
}
