//! How sessions are taken to another browser, kept for later, and left: links that work once, recovery keys, and what it
//! takes to leave. For the JSON API and the pages alike. A link's key is seen by whoever made it and by nobody else: the
//! store has its hash, and the log nothing.

use super::{bus::Bus, error::Error, keys::CookieKeys, owner::Owner, store::Store};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};

/// How long a link works, in seconds: enough to take up another device, too short for what is left lying about.
pub const LINK_SECS: f64 = 600.0;
/// Random bytes of a key: 160 bits, which nobody guesses however often they try.
const KEY_BYTES: usize = 20;
/// How long a page on which one may leave is good for, in seconds.
const LEAVE_SECS: f64 = 3600.0;
/// What a signed value begins with that proves that somebody has read what leaving means.
const LEAVE: &str = "leave:";

/// What opens somebody's sessions in another browser.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkKey(String);

impl LinkKey {
    /// A new one, unlike any other.
    #[must_use]
    pub fn fresh() -> Self {
        Self(hex(&rand::random::<[u8; KEY_BYTES]>()))
    }

    /// A key as it was typed, with whatever blanks and hyphens, or the whole link it stands in.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.rsplit_once("key=").map_or(text, |(_, key)| key);
        let key: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        let key = key.to_ascii_lowercase();
        (key.len() == KEY_BYTES * 2 && key.bytes().all(|b| b.is_ascii_hexdigit())).then_some(Self(key))
    }

    /// The key, to be shown to its owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn hash(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A link as the cookie of whoever made it holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MadeLink {
    pub key: LinkKey,
    pub expires_at: Timestamp,
}

/// What can be done with an identity.
pub struct Identities {
    store: Store,
    bus: Bus,
    /// They sign the proof that somebody has read what leaving means.
    keys: Arc<CookieKeys>,
}

impl Identities {
    /// Those of the sessions in `store`.
    #[must_use]
    pub fn new(store: Store, bus: Bus, keys: Arc<CookieKeys>) -> Self {
        Self { store, bus, keys }
    }

    /// How many sessions an owner has.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sessions(&self, owner: &Owner) -> Result<u64, Error> {
        Ok(self.store.count(owner).await?)
    }

    /// Makes a link that opens the owner's sessions once, within [`LINK_SECS`]. One that was made before stops working.
    ///
    /// # Errors
    /// [`Error::NoSessions`] if there is nothing to open.
    pub async fn make_link(&self, owner: &Owner) -> Result<MadeLink, Error> {
        let now = Timestamp::now();
        let made = MadeLink { key: LinkKey::fresh(), expires_at: now.plus_seconds(LINK_SECS) };
        self.add(owner, &made.key, Some(made.expires_at), now).await?;
        Ok(made)
    }

    /// Makes a key that opens the owner's sessions until it is replaced or revoked. One that was made before stops working.
    ///
    /// # Errors
    /// [`Error::NoSessions`] if there is nothing to open.
    pub async fn make_recovery_key(&self, owner: &Owner) -> Result<LinkKey, Error> {
        let key = LinkKey::fresh();
        self.add(owner, &key, None, Timestamp::now()).await?;
        Ok(key)
    }

    async fn add(
        &self,
        owner: &Owner,
        key: &LinkKey,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Error> {
        // So that strangers who come and go can't fill the table.
        if self.sessions(owner).await? == 0 {
            return Err(Error::NoSessions);
        }
        Ok(self.store.replace_link(owner, &key.hash(), expires_at, now).await?)
    }

    /// When the owner's recovery key was made, if there is one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn recovery_key(&self, owner: &Owner) -> Result<Option<Timestamp>, Error> {
        Ok(self.store.recovery_key(owner).await?)
    }

    /// Takes the owner's recovery key away.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn revoke_recovery_key(&self, owner: &Owner) -> Result<(), Error> {
        Ok(self.store.revoke_recovery_key(owner).await?)
    }

    /// Whether a link that was made for this owner still works.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn still_opens(&self, owner: &Owner, made: &MadeLink) -> Result<bool, Error> {
        let whose = self.store.link(&made.key.hash(), Timestamp::now()).await?;
        Ok(whose.is_some_and(|(whose, _)| whose == *owner))
    }

    /// Whose sessions a key opens. Changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it opens none.
    pub async fn look(&self, key: &str) -> Result<(LinkKey, Owner), Error> {
        let key = LinkKey::parse(key).ok_or(Error::InvalidKey)?;
        let found = self.store.link(&key.hash(), Timestamp::now()).await?;
        let (owner, _) = found.ok_or(Error::InvalidKey)?;
        Ok((key, owner))
    }

    /// Whose sessions a key opens, and uses it up if it is a link's. The streams of `before`, who the browser was, end: its
    /// other tabs come back as who it is now.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it opens none.
    pub async fn open(&self, before: &Owner, key: &str) -> Result<Owner, Error> {
        let key = LinkKey::parse(key).ok_or(Error::InvalidKey)?;
        let owner = self.store.take_link(&key.hash(), Timestamp::now()).await?.ok_or(Error::InvalidKey)?;
        tracing::info!(?owner, "somebody's sessions were opened in another browser");
        self.bus.log_out(before);
        Ok(owner)
    }

    /// Proof that the page which says what leaving means was made for this owner.
    #[must_use]
    pub fn leave_token(&self, owner: &Owner) -> String {
        let value = format!("{LEAVE}{}.{}", owner.as_str(), Timestamp::now().0);
        self.keys.sign(&value)
    }

    /// Checks such a proof.
    ///
    /// # Errors
    /// [`Error::NotConfirmed`] if it is another's, or old.
    pub fn check_leave_token(&self, owner: &Owner, token: &str) -> Result<(), Error> {
        let value = self.keys.verify(token);
        let said = value.as_deref().and_then(|value| value.strip_prefix(LEAVE)?.rsplit_once('.'));
        let (whose, at) = said.ok_or(Error::NotConfirmed)?;
        let at = at.parse().map(Timestamp).map_err(|_| Error::NotConfirmed)?;
        let fresh = Timestamp::now().seconds_since(at) <= LEAVE_SECS;
        if whose == owner.as_str() && fresh { Ok(()) } else { Err(Error::NotConfirmed) }
    }

    /// Ends the owner's status streams. The rest is forgetting the cookie.
    pub fn leave(&self, owner: &Owner) {
        self.bus.log_out(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_copy_them() {
        let key = LinkKey::fresh();
        let text = key.reveal().to_owned();
        assert_eq!(text.len(), 40);
        let (a, b) = text.split_at(20);
        for typed in [
            text.clone(),
            format!("  {}-{} \n", a.to_uppercase(), b),
            format!("https://hark.example/identity/open?key={text}"),
        ] {
            assert_eq!(LinkKey::parse(&typed), Some(key.clone()), "{typed}");
        }
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace(char::is_alphanumeric, "g")] {
            assert_eq!(LinkKey::parse(wrong), None, "{wrong}");
        }
        assert_ne!(LinkKey::fresh(), key);
        assert!(!format!("{key:?} {}", key.hash()).contains(&text));
    }
}
