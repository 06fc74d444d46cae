//! Signatures on the messages of nodes over Redis, where anybody who can connect may publish. A signed message is the
//! same JSON with a last field `signature`, so that other programs read it as before. Called by `wire`.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::{fmt, sync::Arc};

/// HMAC with SHA-256, RFC 2104.
type HmacSha256 = Hmac<Sha256>;

/// The label with which the key for signatures is derived from the key of the cookies, so that neither key works in
/// place of the other.
const PURPOSE: &[u8] = b"hark: messages between nodes, version 1";
/// The text before the signature's 64 hexadecimal digits, and the text after them.
const PREFIX: &str = r#","signature":""#;
const SUFFIX: &str = r#""}"#;
const DIGITS: usize = 64;

/// Signs with the first of the nodes' keys, and verifies with any of them. Cheap to clone.
#[derive(Clone)]
pub struct Signer(Arc<[HmacSha256]>);

impl Signer {
    /// A signer with the keys that the nodes share; the first one signs.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let derive = |key: &[u8]| {
            let derived = with_key(key).chain_update(PURPOSE).finalize().into_bytes();
            with_key(&derived)
        };
        let keys: Arc<[HmacSha256]> = keys.into_iter().map(derive).collect();
        assert!(!keys.is_empty(), "a node has a key");
        Self(keys)
    }

    /// Adds the signature to a message for `channel`: a JSON object with at least one field.
    #[must_use]
    pub(super) fn sign(&self, channel: &str, mut json: Vec<u8>) -> Vec<u8> {
        debug_assert!(json.len() > 2 && json.ends_with(b"}"), "a message is an object with fields");
        json.pop();
        let signature = mac_over(&self.0[0], channel, &json).finalize().into_bytes();
        json.extend_from_slice(PREFIX.as_bytes());
        json.extend_from_slice(HEXLOWER.encode(&signature).as_bytes());
        json.extend_from_slice(SUFFIX.as_bytes());
        json
    }

    /// Whether a message on `channel` was signed by a node with one of these keys.
    #[must_use]
    pub(super) fn verifies(&self, channel: &str, message: &[u8]) -> bool {
        let Some(rest) = message.strip_suffix(SUFFIX.as_bytes()) else { return false };
        let Some((rest, digits)) = rest.len().checked_sub(DIGITS).map(|at| rest.split_at(at)) else { return false };
        let Some(signed) = rest.strip_suffix(PREFIX.as_bytes()) else { return false };
        let Ok(signature) = HEXLOWER_PERMISSIVE.decode(digits) else { return false };
        // Compared in constant time, so that the time doesn't tell how much of it is right.
        self.0.iter().any(|key| mac_over(key, channel, signed).verify_slice(&signature).is_ok())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

fn with_key(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The HMAC covers the channel too, or a message about one session could be replayed on the channel of another.
fn mac_over(key: &HmacSha256, channel: &str, signed: &[u8]) -> HmacSha256 {
    key.clone().chain_update(channel).chain_update([0]).chain_update(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_a_node_signed_verifies() {
        let (ours, theirs) = (Signer::new([&b"ours"[..]]), Signer::new([&b"theirs"[..]]));
        let message = ours.sign("a", br#"{"progress":1.5}"#.to_vec());
        assert!(ours.verifies("a", &message));
        assert!(!ours.verifies("b", &message), "on another channel");
        assert!(!theirs.verifies("a", &message), "with another key");
        let read: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(read["progress"], 1.5);
        assert_eq!(read["signature"].as_str().unwrap().len(), DIGITS);
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            // Every byte counts but for the case of hexadecimal digits, which flipping the lowest bit doesn't change.
            assert!(!ours.verifies("a", &changed), "{}", String::from_utf8_lossy(&changed));
            assert!(!ours.verifies("a", &message[..at]));
        }
        assert!(!ours.verifies("a", json!({"progress": 1.5}).to_string().as_bytes()));
    }

    #[test]
    fn an_older_key_still_verifies() {
        let (old, both) = (Signer::new([&b"old"[..]]), Signer::new([&b"new"[..], b"old"]));
        assert!(both.verifies("a", &old.sign("a", br#"{"a":1}"#.to_vec())));
        assert!(!old.verifies("a", &both.sign("a", br#"{"a":1}"#.to_vec())));
    }
}
