//! Opening sessions in another browser, with links that work once or with a recovery key; and leaving them. For the
//! JSON API and the pages alike. Only the person who made a key sees it: the store has its hash, and the log has
//! nothing.

use super::{bus::Bus, error::Error, keys::CookieKeys, owner::Owner, store::Store};
use crate::model::Timestamp;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};

/// How long a link works, in seconds: long enough to reach for another device, short enough that a forgotten link is
/// harmless.
pub const LINK_SECS: f64 = 600.0;
/// Random bytes of a key: 160 bits, which can't be guessed.
const KEY_BYTES: usize = 20;
/// How long the form for leaving is valid, in seconds.
const LEAVE_TOKEN_SECS: f64 = 3600.0;
/// The prefix of the signed value which proves that the page about leaving was shown.
const LEAVE_PREFIX: &str = "leave:";

/// The key that opens an owner's sessions in another browser.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkKey(String);

impl LinkKey {
    /// A new random key.
    #[must_use]
    pub fn fresh() -> Self {
        Self(HEXLOWER.encode(&rand::random::<[u8; KEY_BYTES]>()))
    }

    /// Parses a key as it was typed, with any blanks and hyphens, or the whole link that has it.
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
        HEXLOWER.encode(&Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

/// A new link, as the cookie of the person who made it holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewLink {
    pub key: LinkKey,
    pub expires_at: Timestamp,
}

/// The use cases of identities.
pub struct Identities {
    store: Store,
    bus: Bus,
    /// The keys that sign the proof that the page about leaving was shown.
    keys: Arc<CookieKeys>,
}

impl Identities {
    /// The identities of the sessions in `store`.
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
    pub async fn make_link(&self, owner: &Owner) -> Result<NewLink, Error> {
        let now = Timestamp::now();
        let made = NewLink { key: LinkKey::fresh(), expires_at: now.plus_seconds(LINK_SECS) };
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
        // Requires a session, so that visitors without any can't fill the table.
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

    /// Removes the owner's recovery key.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn revoke_recovery_key(&self, owner: &Owner) -> Result<(), Error> {
        Ok(self.store.revoke_recovery_key(owner).await?)
    }

    /// Whether a link of this owner still works.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_valid_link(&self, owner: &Owner, made: &NewLink) -> Result<bool, Error> {
        let found = self.store.link(&made.key.hash(), Timestamp::now()).await?;
        Ok(found.is_some_and(|(found, _)| found == *owner))
    }

    /// The owner whose sessions a key opens. Doesn't use the key up.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it opens none.
    pub async fn find_owner(&self, key: &str) -> Result<(LinkKey, Owner), Error> {
        let key = LinkKey::parse(key).ok_or(Error::InvalidKey)?;
        let found = self.store.link(&key.hash(), Timestamp::now()).await?;
        let (owner, _) = found.ok_or(Error::InvalidKey)?;
        Ok((key, owner))
    }

    /// The owner whose sessions a key opens; uses the key up if it is a link's. Ends the streams of `before`, the
    /// browser's owner until now, so that its other tabs reconnect as the new owner.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it opens none.
    pub async fn open(&self, before: &Owner, key: &str) -> Result<Owner, Error> {
        let key = LinkKey::parse(key).ok_or(Error::InvalidKey)?;
        let owner = self.store.take_link(&key.hash(), Timestamp::now()).await?.ok_or(Error::InvalidKey)?;
        tracing::info!(?owner, "the sessions of an owner were opened in another browser");
        self.bus.log_out(before);
        Ok(owner)
    }

    /// A signed proof that the page about leaving was shown to this owner.
    #[must_use]
    pub fn leave_token(&self, owner: &Owner) -> String {
        let value = format!("{LEAVE_PREFIX}{}.{}", owner.as_str(), Timestamp::now().0);
        self.keys.sign(&value)
    }

    /// Checks a proof that [`Identities::leave_token`] made.
    ///
    /// # Errors
    /// [`Error::NotConfirmed`] if it is another owner's, or too old.
    pub fn check_leave_token(&self, owner: &Owner, token: &str) -> Result<(), Error> {
        let value = self.keys.verify(token);
        let parts = value.as_deref().and_then(|value| value.strip_prefix(LEAVE_PREFIX)?.rsplit_once('.'));
        let (token_owner, at) = parts.ok_or(Error::NotConfirmed)?;
        let at = at.parse().map(Timestamp).map_err(|_| Error::NotConfirmed)?;
        let fresh = Timestamp::now().seconds_since(at) <= LEAVE_TOKEN_SECS;
        if token_owner == owner.as_str() && fresh { Ok(()) } else { Err(Error::NotConfirmed) }
    }

    /// Ends the owner's status streams. The caller removes the cookie.
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
