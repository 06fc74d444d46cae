//! The error type of the server. Routes return it as JSON, server functions through `pages`, both with the same code
//! and message. Details of an internal error go to the log, never to the caller.

use super::{
    audio::{AudioError, ProbeError},
    media::MediaError,
    speech::{SpeechError, models::ModelChangeError},
    store::{self, AddUploadError, EnqueueError, LimitScope, QueueFull, ReachedLimit},
};
use crate::model::{
    ApiError, ErrorBody, TitleError, UnknownChannels, UnknownEngine, UnknownTrack, bytes, duration, retry_after,
    text::{count, remaining},
};
use axum::{
    Json,
    extract::multipart::MultipartError,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The line of a proxy that passes `Host` on as the browser has sent it.
pub const HOST_REMEDY: &str = "nginx: 'proxy_set_header Host $http_host;', Caddy: 'header_up Host {http.request.hostport}', \
    Traefik: 'passHostHeader: true', Apache: 'ProxyPreserveHost On'";

/// The methods that Hark knows.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Every error of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("There is no such session, or it isn't yours. It may have been deleted.")]
    NotFound,
    #[error("There is nothing at this address.")]
    NoRoute,
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    InvalidTitle(#[from] TitleError),
    #[error("{0}")]
    UnknownEngine(#[from] UnknownEngine),
    /// A language that the engine doesn't know.
    #[error("{0}")]
    UnknownLanguage(String),
    #[error("{reason} {}", install.as_ref().map(|i| format!("To make it available: {i}")).unwrap_or_default())]
    EngineUnavailable { reason: String, install: Option<String> },
    #[error("The file is too large: {} Send a shorter or more strongly compressed recording.", too_large(*size, *limit))]
    TooLarge { size: Option<u64>, limit: u64 },
    #[error("The disk is almost full: {} are free. Delete old sessions, or make room on the server.", bytes(*free))]
    DiskFull { free: u64 },
    /// The database's disk is full.
    #[error(
        "The server's disk is full, so nothing can be saved at the moment. Delete old sessions, or make room on the server."
    )]
    NothingSaved,
    #[error("{}", queue_full(.0))]
    QueueFull(QueueFull),
    #[error("Your recordings take {} here, and {} are the most that one person may keep. Delete sessions that you no \
        longer need, then send this one again.", bytes(*used), bytes(*limit))]
    Quota { used: u64, limit: u64 },
    #[error("The message is larger than the {} KiB that are accepted here. Send fewer segments or reports at once, or shorter texts.",
        limit / 1024)]
    MessageTooLarge { limit: u64 },
    #[error("There are more than {limit} lines. Send the reports in smaller groups.")]
    TooManyLines { limit: usize },
    #[error("The request is larger than the {} that are accepted here. Send less at once.", bytes(*limit))]
    RequestTooLarge { limit: u64 },
    #[error("The request didn't arrive within {secs} s. Send it again, without a pause in it.")]
    RequestTooSlow { secs: u32 },
    #[error("The upload is too slow: less than {} came in a second. Send it over a faster connection, or send a shorter or more strongly compressed recording.",
        bytes(u64::from(*rate)))]
    UploadTooSlow { rate: u32 },
    #[error("Nothing came of the upload for {secs} s, so it was given up. Check the connection and send it again.")]
    UploadSilent { secs: u64 },
    /// The limit of an owner, or of an address.
    #[error("Too many uploads are under way: {of} limit is {limit} at once. Try again when one of them has ended.")]
    TooManyUploads { limit: u32, of: &'static str },
    #[error("This server receives as many uploads as it can, which is {limit} at once. Try again in a minute.")]
    UploadsFull { limit: u32 },
    #[error("There is no such upload, or it isn't yours. It may have expired; begin it again.")]
    NoUpload,
    #[error("Send the version of the tus protocol that you speak as Tus-Resumable. This server speaks 1.0.0.")]
    WrongTusVersion,
    #[error("Send a part of the file with the Content-Type application/offset+octet-stream.")]
    NoPart,
    #[error("The part doesn't begin where the upload ends, which is at byte {offset}. Go on from there.")]
    WrongOffset { offset: u64 },
    #[error("A part of an upload may have at most {limit} bytes. Send the file in smaller parts.")]
    PartTooLarge { limit: u64 },
    #[error(
        "The part is longer than what the upload still lacks, which is {left} bytes. Begin again with the size of the whole file."
    )]
    BeyondEnd { left: u64 },
    #[error("What has arrived isn't what was sent: its checksum differs. Send it again.")]
    ChecksumMismatch,
    /// The number of uploads in parts that have begun and not ended.
    #[error("{of} uploads have begun and not ended: {limit} are the most. End or cancel some of them first.")]
    TooManyUnfinished { limit: u32, of: &'static str },
    #[error("This server has as many connections or requests open as it may have. Try again in a few seconds.")]
    ConnectionsFull,
    #[error(
        "Your network has too many connections or requests open to this server: its limit is {limit} of each. Close some and try \
         again."
    )]
    TooManyConnections { limit: u32 },
    #[error("There is nothing at this address that can be asked for in this way.")]
    MethodNotAllowed,
    #[error(
        "This server doesn't go by that name. Use the address that its operator has given; HARK_HOSTS has the list."
    )]
    UnknownHost,
    /// With the `Host`, if nothing but that tells where the request comes from.
    #[error("{}", cross_site(origin, host.as_deref()))]
    CrossSite { origin: String, host: Option<String> },
    #[error("Workers outside Hark are switched off here. To switch them on, set HARK_WORKER_TOKEN.")]
    WorkersOff,
    #[error(
        "Your browser didn't send Hark's cookie back, so what you send couldn't be found again. Allow cookies for this \
         site and load the page once more."
    )]
    CookiesBlocked,
    #[error(
        "This link or key opens nothing. A link works once, within ten minutes; a recovery key, until it is replaced. \
         Make a new one where your sessions are."
    )]
    InvalidKey,
    #[error("You have no sessions yet, so there is nothing to open elsewhere. Send a recording first.")]
    NoSessions,
    #[error(
        "Nothing was changed: confirm that you want to leave your sessions. Load the page again if it was open for long."
    )]
    NotConfirmed,
    #[error("Send the worker token of this server as 'Authorization: Bearer …'.")]
    Unauthorised,
    #[error("{0}")]
    InvalidReport(String),
    /// No way to become administrator is set.
    #[error(
        "Nobody is administrator of this server yet. Whoever runs it sets a password there, with: hark admin set-password"
    )]
    AdminOff,
    #[error(
        "Only administrators may do this. Sign in at /admin/sign-in, or send their token as 'Authorization: Bearer …'."
    )]
    NotSignedIn,
    #[error(
        "You are signed in, but not as an administrator of this server. Its operator lists them in HARK_ADMIN_USERS, or \
         names their group in HARK_ADMIN_HEADER."
    )]
    NotAdministrator,
    /// The same where no password is set.
    #[error("That isn't the administrators' password.")]
    WrongPassword,
    #[error("There were too many tries to sign in. Try again in about {}.", remaining(f64::from(*retry_secs)))]
    TooManySignIns { retry_secs: u32 },
    #[error("Too many reports: send one a minute.")]
    TooManyReports,
    /// A request that conflicts with the session's current state; with the error's code and message.
    #[error("{1}")]
    Conflict(&'static str, String),
    #[error("The upload broke off before the file was complete. Please send it again.")]
    BrokenUpload,
    #[error("{0}")]
    Audio(#[from] AudioError),
    #[error("Too many recordings came at once to look at them all. Send this one again in about {}.",
        remaining(f64::from(*retry_secs)))]
    DecodersBusy { retry_secs: u32 },
    #[error("The range asked for lies outside the recording of {0} bytes.")]
    RangeNotSatisfiable(u64),
    #[error("{0}")]
    Model(#[from] ModelChangeError),
    #[error("The speech engine failed: {0}")]
    Speech(#[from] SpeechError),
    /// The log has the cause.
    #[error(
        "The server's database can't be used at the moment, so nothing can be read or saved. Try again in a few seconds."
    )]
    DatabaseAway,
    #[error("the store failed: {0}")]
    Store(sqlx::Error),
    #[error("The recording of this session isn't here.")]
    NoRecording,
    /// No copy for browsers can be made; with the reason.
    #[error("No copy that browsers can play could be made. {0}")]
    NoCopy(String),
    #[error("A copy that browsers can play is being made. Ask again in a few seconds.")]
    CopyUnderWay,
    #[error(
        "Hark already makes {limit} copies of {of} recordings for browsers, which is as many as it makes at once. Try \
        again when one of them is done."
    )]
    TooManyCopies { limit: u32, of: &'static str },
    /// With details for the log.
    #[error("The storage of recordings doesn't work at the moment. Try again in a minute.")]
    Storage(String),
    #[error("{0}")]
    Internal(String),
    /// Logged already.
    #[error("a panic")]
    Panic,
}

impl Error {
    /// The HTTP status of the error.
    #[must_use]
    pub fn status_code(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoRoute | Self::NoRecording | Self::NoUpload => StatusCode::NOT_FOUND,
            Self::WrongTusVersion => StatusCode::PRECONDITION_FAILED,
            Self::NoPart => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            // The protocol's own status.
            Self::ChecksumMismatch => StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST),
            Self::BadRequest(_) | Self::BrokenUpload | Self::NotConfirmed => StatusCode::BAD_REQUEST,
            Self::RequestTooSlow { .. } | Self::UploadTooSlow { .. } | Self::UploadSilent { .. } => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::InvalidTitle(_) | Self::UnknownEngine(_) | Self::UnknownLanguage(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::EngineUnavailable { .. }
            | Self::Storage(_)
            | Self::DatabaseAway
            | Self::UploadsFull { .. }
            | Self::DecodersBusy { .. }
            | Self::CopyUnderWay
            | Self::ConnectionsFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManyLines { .. }
            | Self::RequestTooLarge { .. }
            | Self::PartTooLarge { .. }
            | Self::BeyondEnd { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::CrossSite { .. } => StatusCode::FORBIDDEN,
            Self::WorkersOff | Self::CookiesBlocked | Self::InvalidKey => StatusCode::FORBIDDEN,
            Self::AdminOff | Self::NotAdministrator | Self::WrongPassword => StatusCode::FORBIDDEN,
            Self::Model(ModelChangeError::Off) => StatusCode::FORBIDDEN,
            Self::Model(ModelChangeError::Unknown(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoSessions | Self::Model(_) => StatusCode::CONFLICT,
            Self::Unauthorised | Self::NotSignedIn => StatusCode::UNAUTHORIZED,
            Self::InvalidReport(_) | Self::NoCopy(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyReports
            | Self::TooManySignIns { .. }
            | Self::QueueFull(_)
            | Self::TooManyUploads { .. }
            | Self::TooManyUnfinished { .. }
            | Self::TooManyCopies { .. }
            | Self::TooManyConnections { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Conflict(..) | Self::WrongOffset { .. } => StatusCode::CONFLICT,
            // RFC 4331 uses this status for quotas too.
            Self::DiskFull { .. } | Self::NothingSaved | Self::Quota { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::Audio(AudioError::Io(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            // A wrong value of a field, and not a recording that can't be used.
            Self::Audio(AudioError::NoSuchTrack { .. }) => StatusCode::BAD_REQUEST,
            Self::Audio(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Speech(_) | Self::Store(_) | Self::Internal(_) | Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound | Self::NoRoute | Self::NoRecording | Self::NoUpload => "not_found",
            Self::WrongTusVersion => "wrong_tus_version",
            Self::NoPart => "unsupported_media_type",
            Self::WrongOffset { .. } => "wrong_offset",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::TooManyUnfinished { .. } => "too_many_unfinished",
            Self::NoCopy(_) => "no_copy",
            Self::CopyUnderWay => "copy_under_way",
            Self::TooManyCopies { .. } => "too_many_copies",
            Self::BadRequest(_) => "bad_request",
            Self::BrokenUpload => "broken_upload",
            Self::InvalidTitle(_) => "invalid_title",
            Self::UnknownEngine(_) => "unknown_engine",
            Self::UnknownLanguage(_) => "unknown_language",
            Self::Model(error) => error.code(),
            Self::EngineUnavailable { .. } => "engine_unavailable",
            Self::Storage(_) => "storage_unavailable",
            Self::DatabaseAway => "database_unavailable",
            Self::TooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManyLines { .. }
            | Self::RequestTooLarge { .. }
            | Self::PartTooLarge { .. }
            | Self::BeyondEnd { .. } => "too_large",
            Self::RequestTooSlow { .. } => "request_too_slow",
            Self::UploadTooSlow { .. } | Self::UploadSilent { .. } => "upload_too_slow",
            Self::TooManyUploads { .. } | Self::UploadsFull { .. } => "too_many_uploads",
            Self::ConnectionsFull | Self::TooManyConnections { .. } => "too_many_connections",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownHost => "unknown_host",
            Self::CrossSite { .. } => "cross_site",
            Self::WorkersOff => "workers_off",
            Self::CookiesBlocked => "cookies_blocked",
            Self::InvalidKey => "invalid_key",
            Self::NoSessions => "no_sessions",
            Self::NotConfirmed => "not_confirmed",
            Self::Unauthorised => "unauthorised",
            Self::InvalidReport(_) => "invalid_report",
            Self::AdminOff => "admin_off",
            Self::NotSignedIn => "not_signed_in",
            Self::NotAdministrator => "not_administrator",
            Self::WrongPassword => "wrong_password",
            Self::TooManySignIns { .. } => "too_many_sign_ins",
            Self::TooManyReports => "too_many_reports",
            Self::QueueFull(full) => match full.scope {
                LimitScope::All => "queue_full",
                LimitScope::Owner => "owner_queue_full",
                LimitScope::Address => "address_queue_full",
                LimitScope::Newcomers => "newcomer_queue_full",
            },
            Self::Quota { .. } => "quota_exceeded",
            Self::Conflict(code, _) => code,
            Self::DiskFull { .. } | Self::NothingSaved => "disk_full",
            Self::Audio(AudioError::Io(_)) => "internal",
            Self::Audio(error) => error.code(),
            Self::DecodersBusy { .. } => "decoders_busy",
            Self::RangeNotSatisfiable(_) => "range_not_satisfiable",
            Self::Speech(_) | Self::Store(_) | Self::Internal(_) | Self::Panic => "internal",
        }
    }

    /// Whether a full disk is the reason.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::NothingSaved)
    }

    /// After how many seconds to try again, if known.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::TooManyReports | Self::ConnectionsFull | Self::TooManyConnections { .. } => Some(10),
            Self::TooManyUploads { .. } | Self::UploadsFull { .. } => Some(60),
            Self::QueueFull(full) => Some(retry_after(full.wait_secs, full.measured)),
            Self::DecodersBusy { retry_secs } | Self::TooManySignIns { retry_secs } => Some(*retry_secs),
            Self::DatabaseAway | Self::CopyUnderWay => Some(5),
            Self::TooManyCopies { .. } => Some(30),
            _ => None,
        }
    }

    /// The error as the caller may see it. Logs the details of internal errors.
    #[must_use]
    pub fn public(&self) -> ApiError {
        if self.status_code() == StatusCode::INTERNAL_SERVER_ERROR {
            if !matches!(self, Self::Panic) {
                tracing::error!(error = %self, "a request failed");
            }
            return ApiError::new("internal", "Something went wrong on the server. Try again; its log says more.");
        }
        if let Self::Storage(detail) = self {
            tracing::error!(error = %detail, "a request failed because the storage of recordings failed");
        }
        ApiError::new(self.code(), self.to_string().trim_end())
    }
}

/// The code of the error that an answer holds; in its extensions, for the log.
#[derive(Clone, Copy, Debug)]
pub struct ErrorCode(pub &'static str);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status_code();
        let mut response = (status, Json(ErrorBody { error: self.public() })).into_response();
        response.extensions_mut().insert(ErrorCode(self.code()));
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hark\""));
        }
        if let Self::MethodNotAllowed = self {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
        }
        if let Self::WrongOffset { offset } = self {
            response.headers_mut().insert(HeaderName::from_static("upload-offset"), HeaderValue::from(offset));
        }
        if let Self::RangeNotSatisfiable(size) = self
            && let Ok(value) = format!("bytes */{size}").parse()
        {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

/// How a file compares with the largest that is accepted, in bytes where larger units would be the same.
fn too_large(size: Option<u64>, limit: u64) -> String {
    match size.map(|size| (size, bytes(size), bytes(limit))) {
        None => format!("more than the {} that are accepted.", bytes(limit)),
        Some((size, said, most)) if said == most => format!("{size} bytes, at most {limit} are accepted."),
        Some((_, said, most)) => format!("{said}, at most {most} are accepted."),
    }
}

/// The message about a request that seems to come from another site.
fn cross_site(origin: &str, host: Option<&str>) -> String {
    match host {
        None => {
            "Your browser says that a page of another site sent this, so it was refused. Open Hark's own page and send \
            it from there."
                .to_owned()
        }
        Some(host) => format!(
            "This was refused because it seems to come from another site: it comes from {origin}, and arrived for the host \
             {host}. If {origin} is the address of this Hark, the proxy in front of it has to pass Host on unchanged ({HOST_REMEDY})."
        ),
    }
}

/// The message about a full queue: whose share is full, its limit, the real waiting time, and how much waits.
fn queue_full(full: &QueueFull) -> String {
    let scope = match full.scope {
        LimitScope::All => "The queue",
        LimitScope::Owner => "Your part of the queue",
        LimitScope::Address => "The part of the queue for newcomers at your network address",
        LimitScope::Newcomers => "The part of the queue for newcomers",
    };
    let limit = match full.limit {
        ReachedLimit::Sessions(n) => count(n as usize, "recording"),
        ReachedLimit::Seconds(seconds) => format!("{} of audio", duration(seconds)),
    };
    // Not limited as in `Retry-After`, because a person should know the real waiting time.
    let wait = remaining(full.wait_secs.max(f64::from(retry_after(full.wait_secs.min(1.0), full.measured))));
    let or = if full.scope == LimitScope::Owner { ", or cancel one that waits" } else { "" };
    format!(
        "{scope} is full: its limit is {limit}. Try again in about {wait}{or}. Waiting there: {}, {} of audio.",
        count(full.waiting as usize, "recording"),
        duration(full.waiting_secs)
    )
}

impl From<QueueFull> for Error {
    fn from(full: QueueFull) -> Self {
        Self::QueueFull(full)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if store::is_full(&error) {
            Self::NothingSaved
        } else if store::is_busy(&error) {
            tracing::warn!(%error, "a request failed because another program has locked the database");
            Self::DatabaseAway
        } else if matches!(error, sqlx::Error::PoolTimedOut) {
            // Not while the database is away: whoever makes this error waits by `Store::unless_away`, which ends sooner.
            tracing::warn!("a request failed because no connection to the database was free in time");
            Self::DatabaseAway
        } else if store::is_away(&error) {
            tracing::debug!(%error, "a request failed because the database is away");
            Self::DatabaseAway
        } else {
            Self::Store(error)
        }
    }
}

impl From<UnknownChannels> for Error {
    fn from(error: UnknownChannels) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl From<UnknownTrack> for Error {
    fn from(error: UnknownTrack) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl From<EnqueueError> for Error {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Full(full) => full.into(),
            EnqueueError::Quota { used, limit } => Self::Quota { used, limit },
            EnqueueError::UploadClosed => Self::NoUpload,
            EnqueueError::Store(error) => error.into(),
        }
    }
}

impl From<AddUploadError> for Error {
    fn from(error: AddUploadError) -> Self {
        match error {
            AddUploadError::Owner(limit) => Self::TooManyUnfinished { limit, of: "Too many of your" },
            AddUploadError::Address(limit) => Self::TooManyUnfinished { limit, of: "Too many of your network's" },
            AddUploadError::Quota { used, limit } => Self::Quota { used, limit },
            AddUploadError::Store(error) => error.into(),
        }
    }
}

impl From<ProbeError> for Error {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Audio(error) => Self::Audio(error),
            ProbeError::Busy { retry_secs } => Self::DecodersBusy { retry_secs },
        }
    }
}

impl From<MediaError> for Error {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::Missing => Self::NoRecording,
            MediaError::Full { free } => Self::DiskFull { free },
            MediaError::Storage(detail) => Self::Storage(detail),
            error @ MediaError::Scratch { .. } => Self::Storage(error.to_string()),
        }
    }
}

impl From<MultipartError> for Error {
    fn from(error: MultipartError) -> Self {
        if error.status() == StatusCode::BAD_REQUEST && error.body_text().contains("incomplete") {
            return Self::BrokenUpload;
        }
        Self::BadRequest(format!("The form could not be read: {}", error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_reports_the_real_waiting_time() {
        let full = QueueFull {
            scope: LimitScope::All,
            limit: ReachedLimit::Sessions(1000),
            waiting: 1000,
            waiting_secs: 4000.0 * 3600.0,
            wait_secs: 800.0 * 3600.0,
            measured: true,
        };
        let error = Error::from(full);
        assert_eq!((error.code(), error.retry_after()), ("queue_full", Some(86_400)));
        assert_eq!(
            error.to_string(),
            "The queue is full: its limit is 1000 recordings. Try again in about 800 h. Waiting there: 1000 recordings, \
             4000 h of audio."
        );
        let own = QueueFull {
            scope: LimitScope::Owner,
            limit: ReachedLimit::Seconds(7200.0),
            waiting: 1,
            waiting_secs: 7000.0,
            wait_secs: 0.0,
            measured: false,
        };
        let error = Error::from(own);
        assert_eq!((error.code(), error.retry_after()), ("owner_queue_full", Some(60)));
        assert_eq!(
            error.to_string(),
            "Your part of the queue is full: its limit is 2 h of audio. Try again in about 1 min, or cancel one that \
             waits. Waiting there: 1 recording, 1 h 56 min of audio."
        );
    }
}
