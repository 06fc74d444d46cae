//! Clients for requests to other servers.

use reqwest::{Certificate, Client, ClientBuilder};
use std::sync::LazyLock;

/// Mozilla's list of authorities as of this release, if this system has none, as the smallest containers; otherwise empty.
static OWN_AUTHORITIES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    if !rustls_native_certs::load_native_certs().certs.is_empty() {
        return Vec::new();
    }
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
});

/// Begins a client. It believes servers for whose certificate an authority vouches that this system trusts.
pub fn client() -> ClientBuilder {
    match OWN_AUTHORITIES.as_slice() {
        [] => Client::builder(),
        authorities => Client::builder().tls_certs_only(authorities.iter().cloned()),
    }
}
