//! Signatures on what nodes of Hark tell each other over Redis, which anybody may publish on who can reach it. A signed
//! message is the JSON it was, with a last field `signature`, so that other programs read it as before. Called by `wire`.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::{fmt, sync::Arc};

/// HMAC with SHA-256, RFC 2104.
type HmacSha256 = Hmac<Sha256>;

/// What the key for signatures is derived with from the key of the cookies, so that neither can stand in for the other.
const PURPOSE: &[u8] = b"hark: messages between nodes, version 1";
/// What stands before the signature's 64 hexadecimal digits, and after them.
const BEFORE: &str = r#","signature":""#;
const AFTER: &str = r#""}"#;
const DIGITS: usize = 64;

/// Signs with the first of the nodes' keys, and verifies with all. Cheap to clone.
#[derive(Clone)]
pub struct Signer(Arc<[HmacSha256]>);

impl Signer {
    /// A signer with the keys that the nodes share; the first signs.
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
        let signature = over(&self.0[0], channel, &json).finalize().into_bytes();
        json.extend_from_slice(BEFORE.as_bytes());
        json.extend(signature.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        json.extend_from_slice(AFTER.as_bytes());
        json
    }

    /// Whether a message on `channel` was signed by a node with one of these keys.
    #[must_use]
    pub(super) fn verifies(&self, channel: &str, message: &[u8]) -> bool {
        let Some(rest) = message.strip_suffix(AFTER.as_bytes()) else { return false };
        let Some((rest, digits)) = rest.len().checked_sub(DIGITS).map(|at| rest.split_at(at)) else { return false };
        let Some(signed) = rest.strip_suffix(BEFORE.as_bytes()) else { return false };
        let Some(signature) = bytes(digits) else { return false };
        // In a time that doesn't tell how much of it is right.
        self.0.iter().any(|key| over(key, channel, signed).verify_slice(&signature).is_ok())
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

/// The channel counts too, or what was said of one session could be repeated of another.
fn over(key: &HmacSha256, channel: &str, signed: &[u8]) -> HmacSha256 {
    key.clone().chain_update(channel).chain_update([0]).chain_update(signed)
}

fn bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks_exact(2).map(|pair| Some(digit(&pair[0])? << 4 | digit(&pair[1])?)).collect()
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
            // The case of a hexadecimal digit is the only thing that doesn't count.
            assert!(!ours.verifies("a", &changed), "{}", String::from_utf8_lossy(&changed));
            assert!(!ours.verifies("a", &message[..at]));
        }
        assert!(!ours.verifies("a", json!({"progress": 1.5}).to_string().as_bytes()));
    }

    #[test]
    fn an_older_key_goes_on_to_verify() {
        let (old, both) = (Signer::new([&b"old"[..]]), Signer::new([&b"new"[..], b"old"]));
        assert!(both.verifies("a", &old.sign("a", br#"{"a":1}"#.to_vec())));
        assert!(!old.verifies("a", &both.sign("a", br#"{"a":1}"#.to_vec())));
    }
}
