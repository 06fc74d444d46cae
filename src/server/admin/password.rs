//! The password of administrators: what it must be like, and its hash by argon2id. Called by `admin` and by
//! `hark admin set-password`.

use crate::server::store::StoredPassword;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use uuid::Uuid;

/// The fewest and the most characters of a password. A shorter one is guessed too easily by those who read the
/// database, a longer one isn't entered by a person.
const MIN_CHARS: usize = 12;
const MAX_CHARS: usize = 1000;
/// The hash of a password that nobody knows. It is compared where none is set, so that the time of the answer doesn't
/// tell.
const NONE_SET: &str = "$argon2id$v=19$m=19456,t=2,p=1$UmFuZG9tIHNhbHQgMTZCLg$\
    R2lnYW50aWMgcmFuZG9tIGhhc2ggbm9ib2R5IGtub3c";

/// Hashes a new password.
///
/// # Errors
/// If it is too short or too long, as a sentence without its full stop.
pub fn new(password: &str) -> Result<StoredPassword, String> {
    match password.chars().count() {
        n if n < MIN_CHARS => {
            return Err(format!("the password has {n} characters and must have at least {MIN_CHARS}"));
        }
        n if n > MAX_CHARS => {
            return Err(format!("the password has {n} characters and may have {MAX_CHARS} at most"));
        }
        _ => {}
    }
    let salt: [u8; 16] = rand::random();
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    let hash = hash.map_err(|e| format!("the password can't be hashed: {e}"))?.to_string();
    Ok(StoredPassword { id: Uuid::new_v4().simple().to_string(), hash })
}

/// Whether a password is the one of this hash; never if there is none. Takes the same time either way, and keeps the
/// processor busy for it.
#[must_use]
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    let is_right = Argon2::default().verify_password(password.as_bytes(), hash.unwrap_or(NONE_SET)).is_ok();
    is_right && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::Params;

    #[test]
    fn only_the_password_fits_its_hash() {
        let stored = new("correct horse battery").unwrap();
        assert!(stored.hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", stored.hash);
        assert!(verify("correct horse battery", Some(&stored.hash)));
        for wrong in ["correct horse batterz", "correct horse batter", "Correct horse battery", ""] {
            assert!(!verify(wrong, Some(&stored.hash)), "{wrong}");
        }
        assert!(!verify("correct horse battery", Some("not a hash")));
        assert_ne!(new("correct horse battery").unwrap().hash, stored.hash, "the salt differs");
        assert_ne!(new("correct horse battery").unwrap().id, stored.id);
    }

    #[test]
    fn a_password_has_a_length() {
        assert!(new("elevenchars").is_err());
        assert!(new("twelve chars").is_ok());
        assert!(new(&"x".repeat(1001)).is_err());
    }

    #[test]
    fn where_none_is_set_as_much_is_calculated() {
        let none: PasswordHash = NONE_SET.parse().unwrap();
        let made: PasswordHash = new("correct horse battery").unwrap().hash.parse().unwrap();
        assert_eq!(Params::try_from(&none).unwrap(), Params::try_from(&made).unwrap());
        assert_eq!((none.algorithm, none.version), (made.algorithm, made.version));
        assert_eq!(none.hash.unwrap().len(), made.hash.unwrap().len());
        assert_eq!(none.salt.unwrap().len(), made.salt.unwrap().len());
        assert!(!verify("correct horse battery", None));
    }
}
