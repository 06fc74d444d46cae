//! The tokens that bind what a page reports to what the server saw of it. The document of each page has its own, signed with
//! the nodes' keys for the owner; the page sends it with its streams, polls and reports. Made by `router`, read by `http`.

use super::owner::Owner;
use crate::model::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// HMAC with SHA-256, RFC 2104.
type HmacSha256 = Hmac<Sha256>;

/// The label with which the key is derived from the key of the cookies, so that neither key works in place of the other.
const PURPOSE: &[u8] = b"hark: page tokens, version 1";
/// Bytes of the signature that a token has. Forging one takes 2^63 requests on average.
const SIGNATURE: usize = 8;
/// Hexadecimal digits of a token: 4 bytes for the page, 4 for the time, and the signature.
const DIGITS: usize = 2 * (4 + 4 + SIGNATURE);
/// How long a token is valid, in seconds: 7 days. A page that stays open for longer isn't counted until it is loaded again.
const MAX_AGE_SECS: f64 = 7.0 * 86_400.0;
/// How far the clock of the node that made a token may be ahead, in seconds.
const MAX_AHEAD_SECS: f64 = 60.0;

/// A page as one document: a page that is loaded again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// A random number. Two pages of a week may have the same by chance; then they are counted as one.
    pub id: u32,
    /// When its document was made.
    pub made: Timestamp,
}

/// Makes and reads tokens.
#[derive(Clone)]
pub struct PageTokens(Vec<HmacSha256>);

impl PageTokens {
    /// With the keys that the nodes share; the first one signs.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let derive = |key: &[u8]| with_key(&with_key(key).chain_update(PURPOSE).finalize().into_bytes());
        let keys: Vec<_> = keys.into_iter().map(derive).collect();
        assert!(!keys.is_empty(), "a node has a key");
        Self(keys)
    }

    /// A token for a new page of this owner.
    #[must_use]
    pub fn issue(&self, owner: &Owner, now: Timestamp) -> String {
        let secs = u32::try_from(now.0 / 1000).unwrap_or_default();
        let page = u64::from(rand::random::<u32>()) << 32 | u64::from(secs);
        let signature = mac(&self.0[0], page, owner).finalize().into_bytes();
        let signature = signature[..SIGNATURE].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        format!("{page:016x}{signature:016x}")
    }

    /// The page of a token that a node has made for this owner; none if it isn't valid or too old.
    #[must_use]
    pub fn read(&self, token: &str, owner: &Owner, now: Timestamp) -> Option<Page> {
        if token.len() != DIGITS || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let bytes = u128::from_str_radix(token, 16).ok()?.to_be_bytes();
        let (page, signature) = bytes.split_at(bytes.len() - SIGNATURE);
        let page = page.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        // Compared in constant time, so that the time doesn't tell how much of it is right.
        let valid = self.0.iter().any(|key| mac(key, page, owner).verify_truncated_left(signature).is_ok());
        let made = Timestamp(i64::from(page as u32) * 1000);
        let age = now.seconds_since(made);
        (valid && (-MAX_AHEAD_SECS..=MAX_AGE_SECS).contains(&age)).then_some(Page { id: (page >> 32) as u32, made })
    }
}

impl fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageTokens(…)")
    }
}

fn with_key(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(key: &HmacSha256, page: u64, owner: &Owner) -> HmacSha256 {
    key.clone().chain_update(page.to_be_bytes()).chain_update(owner.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_500);

    fn owner(id: &str) -> Owner {
        Owner::from_store(id.to_owned())
    }

    #[test]
    fn only_what_a_node_made_for_this_owner_is_read() {
        let (ours, theirs) = (PageTokens::new([&b"ours"[..]]), PageTokens::new([&b"theirs"[..]]));
        let token = ours.issue(&owner("ann"), NOW);
        assert_eq!(ours.read(&token, &owner("ann"), NOW).unwrap().made, Timestamp(1_790_000_000_000));
        assert_eq!(ours.read(&token, &owner("bob"), NOW), None, "of another owner");
        assert_eq!(theirs.read(&token, &owner("ann"), NOW), None, "with another key");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(ours.read(&String::from_utf8(changed).unwrap(), &owner("ann"), NOW), None, "{at}");
        }
        for wrong in ["", &token[1..], &format!("{token}0"), "+0000000000000000000000000000000", &"é".repeat(16)] {
            assert_eq!(ours.read(wrong, &owner("ann"), NOW), None, "{wrong}");
        }
        assert_ne!(ours.issue(&owner("ann"), NOW), token, "each page has its own");
    }

    #[test]
    fn a_token_is_valid_for_a_week_and_after_a_change_of_keys() {
        let (old, both) = (PageTokens::new([&b"old"[..]]), PageTokens::new([&b"new"[..], b"old"]));
        let token = old.issue(&owner("ann"), NOW);
        let after = |secs: f64| both.read(&token, &owner("ann"), NOW.plus_seconds(secs)).is_some();
        assert!(after(0.0) && after(6.9 * 86_400.0) && after(-30.0));
        assert!(!after(7.1 * 86_400.0) && !after(-90.0));
    }
}
