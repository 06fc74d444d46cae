//! `GET /api/v1/request`: how the caller's own request reached this node, so that an operator can see from outside what a
//! proxy in front makes of requests. `hark doctor URL` asks it.

use crate::server::{
    address::{self, Forwarded, PeerAddress},
    http::site,
    keys::Https,
    state::AppState,
};
use axum::{
    Extension, Json,
    extract::{OriginalUri, State},
    http::{HeaderMap, Version, header},
};
use serde::Serialize;
use utoipa::ToSchema;

/// How a request reached this node.
#[derive(Serialize, ToSchema)]
pub(super) struct Arrival {
    /// The version of HTTP that whatever is in front of this node used: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    http: String,
    /// The host that the request names.
    host: Option<String>,
    /// `https` if `X-Forwarded-Proto` says so, else `http`.
    scheme: &'static str,
    /// Where the client's address comes from: `forwarded` from a proxy that is trusted; `peer` from the connection,
    /// because no proxy names one; `ignored` from the connection, because the proxy that names one isn't trusted.
    client: &'static str,
    /// The `Accept-Encoding` of the request.
    accept_encoding: Option<String>,
}

/// How the caller's own request reached this node: what a proxy in front has made of it.
#[utoipa::path(get, path = "/api/v1/request", responses((status = 200, body = Arrival)))]
pub(super) async fn arrival(
    State(state): State<AppState>,
    peer: Option<Extension<PeerAddress>>,
    version: Version,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Json<Arrival> {
    let network = &state.settings.network;
    let client = peer.map_or(Forwarded::Absent, |Extension(PeerAddress(peer))| {
        address::forwarded(peer, &headers, &network.trusted_proxies, network.forwarded_header)
    });
    Json(Arrival {
        http: format!("{version:?}"),
        host: site::host(&uri, &headers),
        scheme: if Https::of(&headers).0 { "https" } else { "http" },
        client: match client {
            Forwarded::Believed => "forwarded",
            Forwarded::Ignored => "ignored",
            Forwarded::Absent => "peer",
        },
        accept_encoding: headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).map(str::to_owned),
    })
}
