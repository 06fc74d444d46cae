//! The settings of administrators: how programs and proxies prove that somebody is one, and limits on sign-ins. The
//! password isn't a setting: `hark admin set-password` keeps a hash of it in the database.

use super::check_token;
use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use std::{path::PathBuf, str::FromStr};

/// The fewest characters of the token. A shorter one might be guessed.
const MIN_TOKEN_CHARS: usize = 32;

/// Administrators, who see and change the sessions of everybody at /admin. There are none until a password, a header or
/// a token is set.
#[derive(Args, Clone, Debug)]
pub struct AdminConfig {
    /// The file with the bearer token of programs that act as administrator; at least 32 characters, make one with
    /// `openssl rand -hex 32`. Or set HARK_ADMIN_TOKEN.
    #[arg(long, env = "HARK_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// What that file or HARK_ADMIN_TOKEN holds.
    #[arg(skip)]
    pub admin_token: Option<String>,
    /// The header in which a proxy says who has signed in there: `Remote-User` of Authelia, `X-Forwarded-Email` of
    /// oauth2-proxy, `Cf-Access-Authenticated-User-Email` of Cloudflare Access; HARK_ADMIN_USERS lists those who are
    /// administrators. Or a header with the group of administrators, such as `Remote-Groups: hark-admins`. It counts
    /// only from HARK_TRUSTED_PROXIES, which must remove it from what clients send.
    #[arg(long, env = "HARK_ADMIN_HEADER", value_name = "NAME[: VALUE]")]
    pub admin_header: Option<AdminHeader>,
    /// The users who are administrators, exactly as the proxy writes them in that header.
    #[arg(long, env = "HARK_ADMIN_USERS", value_name = "USER,…", value_delimiter = ',')]
    pub admin_users: Vec<String>,
    /// How long a browser stays signed in after the password was entered, in hours.
    #[arg(long, env = "HARK_ADMIN_SIGN_IN_HOURS", default_value_t = 12.0, value_name = "HOURS", value_parser = sign_in_hours)]
    pub admin_sign_in_hours: f64,
    /// How often one address may try to sign in within ten minutes, where an IPv6 address counts by its /64.
    #[arg(long, env = "HARK_ADMIN_TRIES_PER_ADDRESS", default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub admin_tries_per_address: u32,
    /// How often all addresses together may try to sign in at this node within ten minutes.
    #[arg(long, env = "HARK_ADMIN_TRIES", default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub admin_tries: u32,
}

impl AdminConfig {
    /// Checks what one setting alone doesn't show. `proxies`: whether any proxy is trusted.
    ///
    /// # Errors
    /// If nobody could become administrator in the way that the settings describe, as a sentence without its full stop.
    pub fn check(&self, proxies: bool) -> Result<(), String> {
        match &self.admin_header {
            Some(header) if !proxies => Err(format!(
                "HARK_ADMIN_HEADER names {}, which is believed of trusted proxies only; name them in HARK_TRUSTED_PROXIES",
                header.name
            )),
            Some(AdminHeader { name, group: None }) if self.admin_users.is_empty() => Err(format!(
                "HARK_ADMIN_HEADER names {name} and HARK_ADMIN_USERS doesn't say whose; list the administrators there, or name \
                 a group: '{name}: hark-admins'"
            )),
            Some(AdminHeader { name, group: Some(_) }) if !self.admin_users.is_empty() => Err(format!(
                "HARK_ADMIN_HEADER names a group in {name}, so HARK_ADMIN_USERS has no meaning; leave one of the two out"
            )),
            None if !self.admin_users.is_empty() => {
                Err("HARK_ADMIN_USERS needs HARK_ADMIN_HEADER, the header in which the proxy names the user".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Checks the token of programs.
pub(super) fn check_admin_token(text: &str) -> Result<(), String> {
    check_token(text)?;
    if text.len() < MIN_TOKEN_CHARS {
        return Err(format!(
            "has {} characters and must have at least {MIN_TOKEN_CHARS}; make one with: openssl rand -hex 32",
            text.len()
        ));
    }
    Ok(())
}

/// A header by which a proxy says who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminHeader {
    pub name: HeaderName,
    /// The group whose members are administrators, if the header lists groups and not the user.
    pub group: Option<String>,
}

impl FromStr for AdminHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group.trim())),
            None => (text, None),
        };
        let wrong = || {
            format!(
                "'{text}' is no header; give its name, such as Remote-User, or with a group: 'Remote-Groups: hark-admins'"
            )
        };
        let valid = |group: &str| {
            let alone = !group.is_empty() && !group.contains(GROUP_SEPARATORS);
            (alone && HeaderValue::from_str(group).is_ok()).then(|| group.to_owned())
        };
        let group = group.map(|group| valid(group).ok_or_else(wrong)).transpose()?;
        Ok(Self { name: name.trim().parse().map_err(|_| wrong())?, group })
    }
}

/// What stands between the groups in a header: commas, as Authelia and oauth2-proxy write them, or the bars of
/// authentik.
pub const GROUP_SEPARATORS: [char; 2] = [',', '|'];

fn sign_in_hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 24.0 * 400.0 => Ok(n),
        _ => Err("must be a number of hours above 0, and 9600 at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(header: Option<&str>, users: &[&str]) -> AdminConfig {
        AdminConfig {
            admin_token_file: None,
            admin_token: None,
            admin_header: header.map(|header| header.parse().unwrap()),
            admin_users: users.iter().map(|user| (*user).to_owned()).collect(),
            admin_sign_in_hours: 12.0,
            admin_tries_per_address: 10,
            admin_tries: 100,
        }
    }

    #[test]
    fn headers_are_parsed() {
        let header: AdminHeader = "Remote-Groups: hark-admins".parse().unwrap();
        assert_eq!((header.name.as_str(), header.group.as_deref()), ("remote-groups", Some("hark-admins")));
        let header: AdminHeader = "X-Forwarded-Email".parse().unwrap();
        assert_eq!((header.name.as_str(), header.group), ("x-forwarded-email", None));
        for wrong in ["", "Remote User", "Remote-Groups:", "Remote-Groups: a,b", ": x", "Remote-Groups: a|b"] {
            assert!(wrong.parse::<AdminHeader>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_needs_proxies_and_users_or_a_group() {
        assert_eq!(config(None, &[]).check(false), Ok(()));
        assert_eq!(config(Some("Remote-User"), &["ann"]).check(true), Ok(()));
        assert_eq!(config(Some("Remote-Groups: admins"), &[]).check(true), Ok(()));
        for (wrong, proxies, named) in [
            (config(Some("Remote-User"), &["ann"]), false, "HARK_TRUSTED_PROXIES"),
            (config(Some("Remote-User"), &[]), true, "HARK_ADMIN_USERS"),
            (config(Some("Remote-Groups: admins"), &["ann"]), true, "HARK_ADMIN_USERS"),
            (config(None, &["ann"]), true, "HARK_ADMIN_HEADER"),
        ] {
            assert!(wrong.check(proxies).unwrap_err().contains(named), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_long_and_can_be_sent() {
        assert!(check_admin_token(&"a".repeat(32)).is_ok());
        for wrong in ["a".repeat(31), "a b".repeat(20), "ä".repeat(40)] {
            assert!(check_admin_token(&wrong).is_err(), "{wrong}");
        }
    }
}
