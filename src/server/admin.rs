//! Administrators: who counts as one, signing in with the password, and signing out. Nobody is one until a password, a
//! header of a trusted proxy or a token is set. The rest of Hark knows no accounts. `http::admin` and every route of
//! administrators call it.

pub mod command;
pub mod password;

use super::{
    address::{ClientAddress, PeerAddress, TrustedProxy, is_proxy},
    config::{AdminConfig, AdminHeader, GROUP_SEPARATORS},
    error::Error,
    keys::{CookieKeys, Https, cookie},
    store::Store,
};
use crate::model::Timestamp;
use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use cookie::{Cookie, time::Duration as CookieDuration};
use data_encoding::HEXLOWER;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use sha2::{Digest, Sha256};
use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, task, time};

/// The cookie's name, before the hash of its key.
const PURPOSE: &str = "hark_admin";
/// The prefix of the signed value, so that no other signed value passes for a sign-in.
const PREFIX: &str = "admin:";
/// Random bytes of a sign-in, which can't be guessed.
const TOKEN_BYTES: usize = 32;
/// The time for which tries to sign in are counted.
const TRIES_PERIOD: Duration = Duration::from_secs(600);
/// How many passwords are hashed at once. Each takes 19 MB and a processor for a moment.
const HASHES_AT_ONCE: usize = 2;
/// How long a try to sign in waits for those before it.
const HASH_WAIT: Duration = Duration::from_secs(5);

/// Somebody who proved to be an administrator. An argument of this type is the guard of a route.
#[derive(Clone, Debug)]
pub struct Administrator {
    name: Arc<str>,
    proof: Proof,
}

/// How somebody proved to be an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// The hash of a sign-in.
    SignIn(Arc<str>),
    Header,
    Token,
}

impl Administrator {
    /// Who it is, for the log: the user whom the proxy names, or which sign-in.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can be signed out here.
    #[must_use]
    pub fn is_signed_in_by_password(&self) -> bool {
        self.sign_in().is_some()
    }

    /// The hash of the sign-in, which can end while a stream is open; none with a header or the token.
    #[must_use]
    pub fn sign_in(&self) -> Option<Arc<str>> {
        match &self.proof {
            Proof::SignIn(hash) => Some(Arc::clone(hash)),
            Proof::Header | Proof::Token => None,
        }
    }
}

/// The ways to become administrator that are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    pub password: bool,
    pub header: bool,
    pub token: bool,
}

impl Ways {
    /// Whether anybody can be an administrator.
    #[must_use]
    pub fn any(self) -> bool {
        self.password || self.header || self.token
    }
}

/// The administrators of a node.
pub struct Admins {
    store: Store,
    keys: Arc<CookieKeys>,
    token: Option<String>,
    header: Option<AdminHeader>,
    users: Vec<String>,
    proxies: Vec<TrustedProxy>,
    sign_in_secs: f64,
    tries_of_address: DefaultKeyedRateLimiter<ClientAddress>,
    tries: DefaultDirectRateLimiter,
    hashing: Arc<Semaphore>,
}

impl Admins {
    /// The administrators that the settings and the store know.
    #[must_use]
    pub fn new(store: Store, keys: Arc<CookieKeys>, config: AdminConfig, proxies: Vec<TrustedProxy>) -> Self {
        let quota = |tries: u32| {
            let tries = NonZeroU32::new(tries).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::with_period(TRIES_PERIOD / tries.get()).expect("a try takes a part of ten minutes");
            quota.allow_burst(tries)
        };
        Self {
            store,
            keys,
            token: config.admin_token,
            header: config.admin_header,
            users: config.admin_users,
            proxies,
            sign_in_secs: config.admin_sign_in_hours * 3600.0,
            tries_of_address: RateLimiter::keyed(quota(config.admin_tries_per_address)),
            tries: RateLimiter::direct(quota(config.admin_tries)),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
        }
    }

    /// The ways to become administrator that are set.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn ways(&self) -> Result<Ways, Error> {
        let password = self.store.admin_password().await?.is_some();
        Ok(Ways { password, header: self.header.is_some(), token: self.token.is_some() })
    }

    /// The administrator who sent a request. `peer` is the other end of its connection.
    ///
    /// # Errors
    /// [`Error::NotSignedIn`] if it comes from nobody, [`Error::NotAdministrator`] from somebody else, and
    /// [`Error::AdminOff`] if there are no administrators.
    pub async fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Administrator, Error> {
        if self.has_token(headers) {
            return Ok(Administrator { name: "with the token".into(), proof: Proof::Token });
        }
        let named = self.named_by_proxy(headers, peer);
        if let Some(Some(name)) = &named {
            return Ok(Administrator { name: name.as_str().into(), proof: Proof::Header });
        }
        if let Some(hash) = self.sign_in_of(headers)
            && self.store.is_signed_in(&hash, Timestamp::now()).await?
        {
            return Ok(Administrator { name: sign_in_name(&hash).into(), proof: Proof::SignIn(hash.into()) });
        }
        match named {
            Some(_) => Err(Error::NotAdministrator),
            None if self.ways().await?.any() => Err(Error::NotSignedIn),
            None => Err(Error::AdminOff),
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        match (&self.token, given) {
            // Compared in constant time, so that the time doesn't tell where the two differ.
            (Some(token), Some(given)) => given.as_bytes().ct_eq(token.as_bytes()).into(),
            _ => false,
        }
    }

    /// Whom a trusted proxy names: an administrator, or somebody else (none within). None if no trusted proxy names
    /// anybody.
    fn named_by_proxy(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Option<String>> {
        let header = self.header.as_ref()?;
        if !is_proxy(peer?, &self.proxies) {
            return None;
        }
        let mut lines = headers.get_all(&header.name).iter();
        let value = lines.next()?;
        // Of two lines, one may come from the client.
        if lines.next().is_some() {
            return Some(None);
        }
        Some(match &header.group {
            Some(group) => {
                let text = value.to_str().unwrap_or_default();
                let is_member = text.split(GROUP_SEPARATORS).any(|member_of| member_of.trim() == group);
                is_member.then(|| format!("of the group {group}"))
            }
            None => self.users.iter().find(|user| user.as_bytes() == value.as_bytes()).cloned(),
        })
    }

    /// The hash of the sign-in that the request's cookie holds.
    fn sign_in_of(&self, headers: &HeaderMap) -> Option<String> {
        let signed = self.keys.signed(headers, PURPOSE).into_iter();
        signed.filter_map(|signed| Some(hash(signed.value.strip_prefix(PREFIX)?))).next()
    }

    /// Signs a browser in, and returns the cookie for it.
    ///
    /// # Errors
    /// [`Error::TooManySignIns`] if that was tried too often, [`Error::WrongPassword`] if it isn't the password or none is
    /// set, after the same time.
    pub async fn sign_in(
        &self,
        password: String,
        address: Option<ClientAddress>,
        request: &HeaderMap,
    ) -> Result<Cookie<'static>, Error> {
        self.count_try(address)?;
        let busy = || Error::TooManySignIns { retry_secs: HASH_WAIT.as_secs() as u32 };
        let waiting = time::timeout(HASH_WAIT, Arc::clone(&self.hashing).acquire_owned()).await;
        let permit = waiting.map_err(|_| busy())?.map_err(|_| busy())?;
        let stored = self.store.admin_password().await?;
        let wanted = stored.as_ref().map(|stored| stored.hash.clone());
        let from = address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        let verifying = task::spawn_blocking(move || {
            // Held until the hash is done, even if the browser is gone.
            let _permit = permit;
            password::verify(&password, wanted.as_deref())
        });
        let is_right = verifying.await.map_err(|e| Error::Internal(format!("a password can't be checked: {e}")))?;
        let Some(stored) = stored.filter(|_| is_right) else {
            tracing::warn!(address = %from, "somebody tried to sign in as administrator from {from}, with a wrong password");
            return Err(Error::WrongPassword);
        };
        let token = HEXLOWER.encode(&rand::random::<[u8; TOKEN_BYTES]>());
        let hash = hash(&token);
        let now = Timestamp::now();
        self.store.add_sign_in(&hash, &stored.id, now, now.plus_seconds(self.sign_in_secs)).await?;
        let name = sign_in_name(&hash);
        tracing::info!(administrator = %name, address = %from, "administrator {name} signed in from {from}");
        let https = Https::of(request);
        let value = self.keys.sign(&format!("{PREFIX}{token}"));
        let mut cookie = cookie(self.keys.name(PURPOSE, https), value, https);
        cookie.set_max_age(CookieDuration::seconds_f64(self.sign_in_secs));
        Ok(cookie)
    }

    fn count_try(&self, address: Option<ClientAddress>) -> Result<(), Error> {
        // Addresses whose tries are long ago need no entry.
        if self.tries_of_address.len() > 10_000 {
            self.tries_of_address.retain_recent();
        }
        // The address first, so that one address doesn't use up the tries of all.
        let of_address = address.map_or(Ok(()), |address| self.tries_of_address.check_key(&address));
        let refused = of_address.and_then(|()| self.tries.check());
        refused.map_err(|not_until| {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            tracing::warn!("somebody tried too often to sign in as administrator");
            Error::TooManySignIns { retry_secs: u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX) }
        })
    }

    /// Signs a browser out, and returns the cookie that removes its own.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sign_out(&self, administrator: &Administrator, request: &HeaderMap) -> Result<Cookie<'static>, Error> {
        if let Proof::SignIn(hash) = &administrator.proof {
            self.store.end_sign_in(hash).await?;
            let name = administrator.name();
            tracing::info!(administrator = %name, "administrator {name} signed out");
        }
        Ok(self.keys.removal(PURPOSE, request))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Administrator
where
    Arc<Admins>: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let peer = parts.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| *peer);
        Arc::<Admins>::from_ref(state).identify(&parts.headers, peer).await
    }
}

/// What a sign-in is called in the log: a few digits of its hash, which reveal nothing.
fn sign_in_name(hash: &str) -> String {
    format!("sign-in {}", hash.get(..6).unwrap_or_default())
}

fn hash(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}
