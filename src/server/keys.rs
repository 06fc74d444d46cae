//! The keys of cookies: the first signs, all verify, so that a secret can be changed without anybody losing their
//! sessions. A cookie is named after its key, so that it doesn't overwrite the cookie of another Hark, on another port
//! of the same host or before a backup was restored. Made by `node` at the start; `http::identity`, `http::notice` and
//! `identity` use them.

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, CookieJar, Key, SameSite, time::Duration};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};

/// Bytes of a key's hash in the names of its cookies: enough that two keys hardly ever share a name, and too few to
/// reveal anything.
const NAME_BYTES: usize = 4;
/// The fewest bytes of a secret.
const MIN_BYTES: usize = 64;
/// A browser accepts a cookie with this prefix only over https, for this host alone and for all its paths (RFC 6265bis,
/// 4.1.3.2), so no other host of the domain can set or replace it.
const HOST_PREFIX: &str = "__Host-";

/// The keys; the first one signs.
#[derive(Clone)]
pub struct CookieKeys(Vec<NamedKey>);

#[derive(Clone)]
struct NamedKey {
    key: Key,
    /// A few hexadecimal digits of the key's hash.
    hash: String,
}

/// Whether the browser used https.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Https(pub bool);

impl Https {
    /// As the proxy in front says, because Hark itself serves plain HTTP only.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.get("x-forwarded-proto").is_some_and(|v| v == "https"))
    }
}

/// A cookie whose signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub name: String,
    pub value: String,
}

impl CookieKeys {
    /// A single key; none if it has fewer than 64 bytes.
    #[must_use]
    pub fn one(bytes: &[u8]) -> Option<Self> {
        Some(Self(vec![NamedKey::new(bytes)?]))
    }

    /// Parses a setting that lists keys: each at least 128 hexadecimal digits, separated by commas or white space.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let secrets = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|secret| !secret.is_empty());
        let keys: Option<Vec<NamedKey>> =
            secrets.map(|secret| NamedKey::new(&HEXLOWER_PERMISSIVE.decode(secret.as_bytes()).ok()?)).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self)
    }

    /// The keys themselves, in order, to derive keys for other purposes from.
    pub fn masters(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|named| named.key.master())
    }

    /// Several keys, the first of which signs; none if there are none or one has fewer than 64 bytes.
    #[must_use]
    pub fn several(keys: &[Vec<u8>]) -> Option<Self> {
        let keys: Option<Vec<NamedKey>> = keys.iter().map(|bytes| NamedKey::new(bytes)).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self)
    }

    /// What the keys are compared by, in order: a few digits of a hash of each, which also stand in the names of cookies.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|named| named.hash.clone()).collect()
    }

    fn first(&self) -> &NamedKey {
        &self.0[0]
    }

    /// The name of a new cookie for `purpose`.
    #[must_use]
    pub fn name(&self, purpose: &str, https: Https) -> String {
        self.first().cookie_name(purpose, https)
    }

    /// The cookies for `purpose` with a valid signature, the most trusted first: by the order of the keys, and for each
    /// key first the name that no other host can set. Old cookies, whose name has no key, come last.
    #[must_use]
    pub fn signed(&self, headers: &HeaderMap, purpose: &str) -> Vec<Signed> {
        let jar = jar_of(headers);
        let read = |named: &NamedKey, name: String| {
            let value = jar.signed(&named.key).get(&name)?.value().to_owned();
            Some(Signed { name, value })
        };
        let names = |named| [Https(true), Https(false)].map(|https| NamedKey::cookie_name(named, purpose, https));
        let of_keys = self.0.iter().flat_map(|named| names(named).map(|name| read(named, name)));
        let before = self.0.iter().map(|named| read(named, purpose.to_owned()));
        of_keys.chain(before).flatten().collect()
    }

    /// `value` with a signature. The signature doesn't cover its purpose, so the value must include it.
    #[must_use]
    pub fn sign(&self, value: &str) -> String {
        let mut jar = CookieJar::new();
        jar.signed_mut(&self.first().key).add(Cookie::new("signed", value.to_owned()));
        jar.get("signed").map(|cookie| cookie.value().to_owned()).unwrap_or_default()
    }

    /// The value that was passed to [`CookieKeys::sign`], if the signature is valid with any of the keys.
    #[must_use]
    pub fn verify(&self, signed: &str) -> Option<String> {
        let cookie = Cookie::new("signed", signed.to_owned());
        let jar = CookieJar::new();
        self.0.iter().find_map(|named| Some(jar.signed(&named.key).verify(cookie.clone())?.value().to_owned()))
    }

    /// A cookie with an encrypted value.
    #[must_use]
    pub fn sealed(&self, purpose: &str, value: &str, request: &HeaderMap) -> Cookie<'static> {
        let https = Https::of(request);
        let name = self.name(purpose, https);
        let mut jar = CookieJar::new();
        jar.private_mut(&self.first().key).add(Cookie::new(name.clone(), value.to_owned()));
        let value = jar.get(&name).map(|cookie| cookie.value().to_owned()).unwrap_or_default();
        cookie(name, value, https)
    }

    /// A cookie that removes the one that [`CookieKeys::sealed`] made for `purpose`.
    #[must_use]
    pub fn removal(&self, purpose: &str, request: &HeaderMap) -> Cookie<'static> {
        removal(self.name(purpose, Https::of(request)))
    }

    /// The decrypted value of the request's cookie that [`CookieKeys::sealed`] made for `purpose`.
    #[must_use]
    pub fn unsealed(&self, headers: &HeaderMap, purpose: &str) -> Option<String> {
        let jar = jar_of(headers);
        self.0.iter().find_map(|named| {
            [Https(true), Https(false)].into_iter().find_map(|https| {
                let cookie = jar.private(&named.key).get(&named.cookie_name(purpose, https))?;
                Some(cookie.value().to_owned())
            })
        })
    }
}

impl NamedKey {
    fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = (bytes.len() >= MIN_BYTES).then_some(bytes)?;
        let hash = Sha256::new().chain_update("the name of a cookie key").chain_update(bytes).finalize();
        let hash = HEXLOWER.encode(&hash[..NAME_BYTES]);
        Some(Self { key: Key::from(bytes), hash })
    }

    fn cookie_name(&self, purpose: &str, https: Https) -> String {
        let prefix = if https.0 { HOST_PREFIX } else { "" };
        format!("{prefix}{purpose}_{}", self.hash)
    }
}

/// A cookie with the attributes that all of Hark's have: for every path, hidden from scripts, and not sent with other
/// sites' forms.
#[must_use]
pub fn cookie(name: String, value: String, https: Https) -> Cookie<'static> {
    Cookie::build((name, value)).path("/").http_only(true).secure(https.0).same_site(SameSite::Lax).build()
}

/// A cookie that removes the one of this name.
#[must_use]
pub fn removal(name: String) -> Cookie<'static> {
    // Browsers accept a name with the prefix only from a secure cookie, for its removal too.
    let https = Https(name.starts_with(HOST_PREFIX));
    let mut cookie = cookie(name, String::new(), https);
    cookie.set_max_age(Duration::ZERO);
    cookie
}

/// Adds `Set-Cookie` to the headers of an answer.
pub fn set_cookie(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    if let Ok(value) = HeaderValue::try_from(cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}

fn jar_of(headers: &HeaderMap) -> CookieJar {
    let mut jar = CookieJar::new();
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    for cookie in lines.flat_map(|line| Cookie::split_parse(line.to_owned())).flatten() {
        jar.add_original(cookie);
    }
    jar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[u8]) -> CookieKeys {
        let list: Vec<String> = secrets.iter().map(|n| format!("{n:02x}").repeat(MIN_BYTES)).collect();
        CookieKeys::parse(&list.join(", ")).unwrap()
    }

    fn request(cookies: &[(String, String)]) -> HeaderMap {
        let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(line.join("; ")).unwrap())])
    }

    fn values(keys: &CookieKeys, cookies: &[(String, String)]) -> Vec<String> {
        keys.signed(&request(cookies), "who").into_iter().map(|signed| signed.value).collect()
    }

    #[test]
    fn settings_list_keys() {
        let secret = "a5".repeat(64);
        let name = |text: &str| CookieKeys::parse(text).map(|keys| keys.name("who", Https(false)));
        let alone = name(&secret).unwrap();
        assert_eq!(alone.len(), "who_".len() + 8);
        let other = "5a".repeat(64);
        for list in [format!("{secret},{other}"), format!(" {secret}\n{other}\n"), format!("{secret} , {other}")] {
            assert_eq!(name(&list), Some(alone.clone()), "{list}");
        }
        assert_ne!(name(&other), Some(alone));
        for bad in ["", " , ", "a5", &secret[1..], &format!("{secret},x"), &"zz".repeat(64)] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_verify_and_the_first_signs() {
        let (old, new, both) = (keys(&[1]), keys(&[2]), keys(&[2, 1]));
        let cookie = |keys: &CookieKeys, value: &str| (keys.name("who", Https(false)), keys.sign(value));
        let (of_old, of_new) = (cookie(&old, "ann"), cookie(&new, "bob"));
        assert_eq!(values(&both, &[of_old.clone(), of_new.clone()]), ["bob", "ann"]);
        assert_eq!(values(&both, std::slice::from_ref(&of_old)), ["ann"]);
        assert_eq!(values(&new, std::slice::from_ref(&of_old)), [""; 0]);
        assert_eq!(cookie(&both, "x"), cookie(&new, "x"));
        // A value that was signed with one key isn't valid under the name of another.
        assert_eq!(values(&both, &[(of_new.0.clone(), of_old.1.clone())]), [""; 0]);
        // An old cookie, whose name has no key.
        assert_eq!(values(&both, &[("who".to_owned(), of_old.1), of_new]), ["bob", "ann"]);
        assert_eq!(both.verify(&old.sign("x")), Some("x".to_owned()));
        assert_eq!(new.verify(&old.sign("x")), None);
    }

    #[test]
    fn the_cookie_that_no_other_host_can_set_comes_first() {
        let keys = keys(&[1]);
        let cookies = [Https(false), Https(true)].map(|https| {
            let value = keys.sign(if https.0 { "safe" } else { "plain" });
            (keys.name("who", https), value)
        });
        assert!(cookies[1].0.starts_with("__Host-who_"));
        assert_eq!(values(&keys, &cookies), ["safe", "plain"]);
        let set = cookie(keys.name("who", Https(true)), "x".to_owned(), Https(true)).to_string();
        assert!(set.contains("; Secure") && set.contains("; Path=/") && !set.contains("Domain"), "{set}");
        let gone = removal(keys.name("who", Https(true))).to_string();
        assert!(gone.contains("; Secure") && gone.contains("Max-Age=0"), "{gone}");
    }

    #[test]
    fn only_its_key_decrypts_a_sealed_cookie() {
        let (old, new, both) = (keys(&[1]), keys(&[2]), keys(&[2, 1]));
        let sealed = old.sealed("note", "a secret", &HeaderMap::new());
        assert!(!sealed.value().contains("secret"));
        let headers = request(&[(sealed.name().to_owned(), sealed.value().to_owned())]);
        assert_eq!(both.unsealed(&headers, "note"), Some("a secret".to_owned()));
        assert_eq!(new.unsealed(&headers, "note"), None);
        assert_eq!(both.unsealed(&headers, "other"), None);
    }
}
