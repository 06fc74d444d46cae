//! Helpers for the bodies of server functions: the caller, and errors as a page may see them.

use super::{
    address::ClientAddress,
    audio,
    error::Error,
    http::{
        identity::{
            cookies::{self, Identity},
            link,
        },
        notice::Notice,
        site::site,
    },
    identity::LinkKey,
    keys::set_cookie,
    owner::Owner,
    retention,
    speech::languages,
    state::AppState,
};
use crate::model::{
    ApiError, Filter, SessionId, Timestamp,
    many::{ManyAction, Outcome, failures},
    page::{
        IDENTITY_PAGE, IdentityInfo, LanguageInfo, LinkInfo, MODELS_PAGE, ModelsInfo, OpenInfo, Opens, RENAME,
        SessionList, UploadInfo,
    },
};
use axum::{
    Extension,
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
};
use cookie::Cookie;
use leptos::prelude::{expect_context, use_context};
use leptos_axum::ResponseOptions;
use qrcodegen::{QrCode, QrCodeEcc};
use std::sync::Arc;

/// The caller of a server function, and the node's state.
pub struct Caller {
    pub state: AppState,
    pub owner: Owner,
    pub identity: Identity,
    pub address: Option<ClientAddress>,
}

/// Finds the caller, runs `work`, and gives a failure the HTTP status it should have.
///
/// # Errors
/// What `work` failed with, as a page may see it.
pub async fn answer<T>(work: impl AsyncFnOnce(Caller) -> Result<T, Error>) -> Result<T, ApiError> {
    let state = expect_context::<AppState>();
    let result = match leptos_axum::extract::<(Extension<Owner>, Extension<Identity>)>().await {
        Ok((Extension(owner), Extension(identity))) => {
            let address = use_context::<Parts>().and_then(|request| request.extensions.get().copied());
            let store = state.sessions.store.clone();
            let work = work(Caller { state, owner, identity, address });
            store.unless_away(work).await.unwrap_or(Err(Error::DatabaseAway))
        }
        Err(error) => Err(Error::Internal(format!("a page was rendered without its owner: {error}"))),
    };
    result.map_err(|error| {
        // The answer to a form sent without JavaScript is a redirect to its page, which shows the error.
        if !is_form() {
            set_status(error.status_code());
            if let Some(seconds) = error.retry_after() {
                set_header(header::RETRY_AFTER, &seconds.to_string());
            }
        }
        error.public()
    })
}

fn is_form() -> bool {
    use_context::<Parts>().is_some_and(|request| {
        let accept = request.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        request.method == Method::POST && accept.contains("text/html")
    })
}

/// Leads to `page` if the form was sent without scripts from an address that opens it: otherwise it would be open again.
pub fn leave_open_form(page: &str) {
    let opens = |address: &str| {
        let query = address.split_once('?').map(|(_, query)| query).unwrap_or_default();
        query.split('&').any(|pair| pair.split('=').next() == Some(RENAME))
    };
    let from = use_context::<Parts>()
        .and_then(|request| request.headers.get(header::REFERER)?.to_str().ok().map(str::to_owned));
    if is_form() && from.is_some_and(|from| opens(&from)) {
        leptos_axum::redirect(page);
    }
}

/// The path and error of the failed form that the page being rendered must show; for forms sent without JavaScript.
#[must_use]
pub fn failed_form() -> Option<(String, ApiError)> {
    let notice = use_context::<Parts>()?.extensions.get::<Notice>().cloned()?;
    Some((notice.form, notice.error))
}

/// Sets the HTTP status of the page that is being rendered.
pub fn set_status(status: StatusCode) {
    if let Some(response) = use_context::<ResponseOptions>() {
        response.set_status(status);
    }
}

/// The data of the page of sessions.
///
/// # Errors
/// If a cursor isn't valid, or the store fails.
pub async fn session_list(
    caller: &Caller,
    query: &str,
    cursor: Option<&str>,
    older: Option<&str>,
) -> Result<SessionList, Error> {
    // What somebody has changed in the address and can't be read is left out.
    let filter = Filter::from_query(query);
    caller.state.sessions.list_page(&caller.owner, &filter, cursor, older).await
}

/// Does the same to several sessions, and returns what became of each.
///
/// # Errors
/// If the action or the number of sessions isn't valid. Of a plain form, which has one answer for all, if any of them failed.
pub async fn act_on_sessions(caller: &Caller, action: &str, ids: &[SessionId]) -> Result<Vec<Outcome>, Error> {
    let action: ManyAction = action.parse().map_err(Error::BadRequest)?;
    let sessions = &caller.state.sessions;
    let outcomes = sessions.act_on(&caller.owner, caller.address, action, ids).await?;
    if is_form() {
        let mut failed = Vec::new();
        for outcome in &outcomes {
            if let Some(error) = &outcome.error {
                let session = sessions.get(&caller.owner, outcome.id).await.ok();
                failed.push((session.map(|session| session.title.to_string()), error));
            }
        }
        if let Some(message) = failures(action, outcomes.len(), &failed) {
            return Err(Error::Conflict("some_failed", message));
        }
    }
    Ok(outcomes)
}

/// What the upload page shows.
pub fn upload_info(caller: &Caller) -> UploadInfo {
    let probed = use_context::<Parts>().is_none_or(|request| cookies::has_probed_cookies(&request.uri));
    let engines = caller.state.sessions.engine_list();
    let is_known = |tag: &&str| engines.iter().any(|engine| engine.available && engine.knows(tag));
    let info = |(tag, name): &(&str, &str)| LanguageInfo { tag: (*tag).to_owned(), name: (*name).to_owned() };
    UploadInfo {
        languages: languages::WHISPER.iter().filter(|(tag, _)| is_known(tag)).map(info).collect(),
        engines,
        channels: caller.state.sessions.engines.default_channels(),
        accept: audio::accepted(audio::ffmpeg_available()),
        max_upload_bytes: caller.state.sessions.limits.max_upload_bytes,
        part_bytes: caller.state.resumable.part_bytes(),
        max_duration: caller.state.sessions.limits.max_duration,
        cookies_blocked: !caller.identity.known && probed,
        kept: retention::policy_text(&caller.state.sessions.kept),
    }
}

/// Starts the download of a model.
///
/// # Errors
/// If visitors may not, or it can't be started.
pub fn download_model(caller: &Caller, name: &str) -> Result<(), Error> {
    caller.state.sessions.engines.download_model(name)?;
    leptos_axum::redirect(MODELS_PAGE);
    Ok(())
}

/// Removes a model.
///
/// # Errors
/// If visitors may not, or it can't be removed.
pub async fn remove_model(caller: &Caller, name: String) -> Result<(), Error> {
    let sessions = Arc::clone(&caller.state.sessions);
    let removed = tokio::task::spawn_blocking(move || sessions.engines.remove_model(&name)).await;
    removed.map_err(|e| Error::Internal(e.to_string()))??;
    leptos_axum::redirect(MODELS_PAGE);
    Ok(())
}

/// What the page of models shows.
pub async fn models_info(caller: &Caller) -> ModelsInfo {
    caller.state.sessions.models().await.unwrap_or_default()
}

fn request_headers() -> HeaderMap {
    use_context::<Parts>().map(|request| request.headers).unwrap_or_default()
}

/// Adds cookies to the answer.
fn set_cookies(cookies: impl IntoIterator<Item = Cookie<'static>>) {
    let Some(response) = use_context::<ResponseOptions>() else { return };
    let mut headers = HeaderMap::new();
    cookies.into_iter().for_each(|cookie| set_cookie(&mut headers, &cookie));
    for value in headers.get_all(header::SET_COOKIE) {
        response.append_header(header::SET_COOKIE, value.clone());
    }
}

fn link_info(key: &LinkKey, expires_at: Option<Timestamp>) -> Result<LinkInfo, Error> {
    let site = use_context::<Parts>().map(|request| site(&request.uri, &request.headers));
    let url = link(&site.unwrap_or_default(), key);
    let code = QrCode::encode_text(&url, QrCodeEcc::Medium)
        .map_err(|e| Error::Internal(format!("a link doesn't fit into a QR code: {e}")))?;
    let size = code.size();
    let dark = (0..size).flat_map(|y| (0..size).map(move |x| (x, y))).filter(|(x, y)| code.get_module(*x, *y));
    let qr_path = dark.map(|(x, y)| format!("M{x} {y}h1v1h-1z")).collect();
    Ok(LinkInfo { url, qr_size: size.unsigned_abs(), qr_path, expires_at })
}

/// What the page about the caller's identity shows. The answer must not be cached.
///
/// # Errors
/// If the store fails.
pub async fn identity_info(caller: &Caller) -> Result<IdentityInfo, Error> {
    set_header(header::CACHE_CONTROL, "no-store");
    let (identities, keys, headers) = (&caller.state.identities, &caller.state.cookie_keys, request_headers());
    let made = match cookies::link_from_cookie(keys, &headers) {
        Some(made) if identities.is_valid_link(&caller.owner, &made).await? => Some(made),
        _ => None,
    };
    let recovery_made_at = identities.recovery_key(&caller.owner).await?;
    let recovery = cookies::recovery_key(keys, &headers).map(|(key, removal)| {
        set_cookies([removal]);
        key
    });
    Ok(IdentityInfo {
        sessions: identities.sessions(&caller.owner).await?,
        link: made.map(|made| link_info(&made.key, Some(made.expires_at))).transpose()?,
        recovery: recovery.map(|key| link_info(&key, None)).transpose()?,
        recovery_made_at,
        leave_token: identities.leave_token(&caller.owner),
    })
}

/// What the page behind a link shows.
///
/// # Errors
/// If the store fails.
pub async fn open_info(caller: &Caller, key: Option<&str>) -> Result<OpenInfo, Error> {
    set_header(header::CACHE_CONTROL, "no-store");
    // The address has the key, so it must not be sent as `Referer`. `no-referrer` isn't used, because browsers then
    // send forms with `Origin: null`, which is refused as another site's.
    set_header(header::REFERRER_POLICY, "strict-origin");
    let identities = &caller.state.identities;
    let (opens, invalid) = match key.map(str::trim).filter(|key| !key.is_empty()) {
        Some(key) => match identities.find_owner(key).await {
            Ok((key, owner)) => {
                let sessions = identities.sessions(&owner).await?;
                (Some(Opens { key: key.reveal().to_owned(), sessions, same: owner == caller.owner }), false)
            }
            Err(Error::InvalidKey) => (None, true),
            Err(error) => return Err(error),
        },
        None => (None, false),
    };
    Ok(OpenInfo {
        own_sessions: identities.sessions(&caller.owner).await?,
        own_recovery: identities.recovery_key(&caller.owner).await?.is_some(),
        opens,
        invalid,
    })
}

/// Creates a link, and a cookie that lets the page show it.
///
/// # Errors
/// [`Error::NoSessions`] if there is nothing to open.
pub async fn make_link(caller: &Caller) -> Result<(), Error> {
    let made = caller.state.identities.make_link(&caller.owner).await?;
    set_cookies([cookies::link_cookie(&made, &caller.state.cookie_keys, &request_headers())]);
    leptos_axum::redirect(IDENTITY_PAGE);
    Ok(())
}

/// Creates a recovery key, and a cookie that lets the page show it once.
///
/// # Errors
/// [`Error::NoSessions`] if there is nothing to open.
pub async fn make_recovery_key(caller: &Caller) -> Result<(), Error> {
    let key = caller.state.identities.make_recovery_key(&caller.owner).await?;
    set_cookies([cookies::recovery_key_cookie(&key, &caller.state.cookie_keys, &request_headers())]);
    leptos_axum::redirect(IDENTITY_PAGE);
    Ok(())
}

/// Removes the recovery key.
///
/// # Errors
/// If the store fails.
pub async fn revoke_recovery_key(caller: &Caller) -> Result<(), Error> {
    caller.state.identities.revoke_recovery_key(&caller.owner).await?;
    leptos_axum::redirect(IDENTITY_PAGE);
    Ok(())
}

/// Opens the sessions of a key in the caller's browser.
///
/// # Errors
/// [`Error::InvalidKey`] if it opens none.
pub async fn open_identity(caller: &Caller, key: &str) -> Result<(), Error> {
    let owner = caller.state.identities.open(&caller.owner, key).await?;
    set_cookies(cookies::switch_cookies(&caller.state.cookie_keys, &request_headers(), &owner));
    leptos_axum::redirect("/");
    Ok(())
}

/// Removes the caller's cookie, so that the browser forgets its sessions.
///
/// # Errors
/// [`Error::NotConfirmed`] if the caller hasn't confirmed it.
pub async fn leave_identity(caller: &Caller, token: &str, sure: bool) -> Result<(), Error> {
    if !sure {
        return Err(Error::NotConfirmed);
    }
    caller.state.identities.check_leave_token(&caller.owner, token)?;
    caller.state.identities.leave(&caller.owner);
    set_cookies(cookies::removal_cookies(&caller.state.cookie_keys, &request_headers()));
    leptos_axum::redirect("/");
    Ok(())
}

/// Sets a header of the page that is being rendered.
pub fn set_header(name: HeaderName, value: &str) {
    if let (Some(response), Ok(value)) = (use_context::<ResponseOptions>(), value.parse()) {
        response.insert_header(name, value);
    }
}
