//! `/api/v1/admin/sessions`, and the page with the same: the sessions of everybody that run, wait or failed, and what
//! administrators do to them.

use super::{
    guard::{PageAdministrator, target},
    head, show, show_failure,
};
use crate::{
    dashboard::{
        page::{Head, Section},
        sessions::{self as view, Asked},
    },
    model::{AdminAction, AdminOutcome, AdminSessionPage, ErrorBody, SessionId, text::count},
    server::{
        admin::Administrator,
        error::Error,
        http::{Query, Whole},
        keys::set_cookie,
        oversight::{self, OversightQuery},
        state::AppState,
        store::MAX_PAGE,
    },
};
use axum::{
    Form, Json,
    extract::{
        State,
        rejection::{FormRejection, JsonRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use cookie::time::Duration;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The cookie, before the hash of its key, that carries what became of an action to the page that shows it.
const OUTCOME: &str = "hark_admin_outcome";
/// How long it waits for that page.
const OUTCOME_AGE: Duration = Duration::minutes(5);
/// The longest such message, in characters: a cookie may have 4096 bytes (RFC 6265bis, 5.6).
const MAX_OUTCOME_CHARS: usize = 400;

#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct OversightParams {
    /// States with commas between, of `queued`, `processing`, `completed`, `failed`, `cancelled`, `stalled` and
    /// `long_running`; `queued,processing,failed` if left out.
    #[serde(default)]
    state: String,
    /// Only sessions that were created at least so many seconds ago.
    #[serde(default)]
    min_age_secs: String,
    /// Only sessions that were created at the most so many seconds ago.
    #[serde(default)]
    max_age_secs: String,
    /// Only sessions that a worker of the node with this name works on.
    #[serde(default)]
    node: String,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many; 50 if left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<Whole<1, MAX_PAGE>>,
}

impl OversightParams {
    fn query(self) -> Result<OversightQuery, Error> {
        // A form sends a field that was left empty.
        let seconds = |name: &str, text: &str| match text.trim() {
            "" => Ok(None),
            text => match text.parse::<f64>() {
                Ok(n) if (0.0..=1e10).contains(&n) => Ok(Some(n)),
                _ => Err(Error::BadRequest(format!("{name} must be a number of seconds, such as 900."))),
            },
        };
        Ok(OversightQuery {
            min_age_secs: seconds("min_age_secs", &self.min_age_secs)?,
            max_age_secs: seconds("max_age_secs", &self.max_age_secs)?,
            state: self.state,
            node: Some(self.node),
            cursor: self.cursor,
            limit: self.limit.map(|Whole(limit)| limit),
        })
    }
}

/// The sessions of everybody that run, wait, hang or failed, newest first.
#[utoipa::path(get, path = "/api/v1/admin/sessions", params(OversightParams), security(("admin_token" = [])),
    responses((status = 200, body = AdminSessionPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(in super::super) async fn list(
    _: Administrator,
    State(state): State<AppState>,
    Query(params): Query<OversightParams>,
) -> Result<Json<AdminSessionPage>, Error> {
    Ok(Json(oversight::list(&state.sessions, &params.query()?).await?))
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct AdminActions {
    action: AdminAction,
    /// 1 to 200 sessions.
    ids: Vec<SessionId>,
}

#[derive(Serialize, ToSchema)]
pub(in super::super) struct AdminOutcomes {
    /// In the order of the request.
    outcomes: Vec<AdminOutcome>,
}

/// Does the same to several sessions, whoever owns them. The answer says what became of each.
#[utoipa::path(post, path = "/api/v1/admin/sessions/actions", request_body = AdminActions, security(("admin_token" = [])),
    responses((status = 200, body = AdminOutcomes), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
pub(in super::super) async fn act(
    administrator: Administrator,
    State(state): State<AppState>,
    actions: Result<Json<AdminActions>, JsonRejection>,
) -> Result<Json<AdminOutcomes>, Error> {
    let wrong = |e: JsonRejection| {
        Error::BadRequest(format!(
            "Send the action and the sessions as JSON, such as {{\"action\":\"retry\",\"ids\":[…]}}: {}",
            e.body_text()
        ))
    };
    let Json(AdminActions { action, ids }) = actions.map_err(wrong)?;
    Ok(Json(AdminOutcomes { outcomes: oversight::act(&state.sessions, &administrator, action, &ids).await? }))
}

/// The page.
pub(super) async fn page(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    headers: HeaderMap,
    params: Result<Query<OversightParams>, Error>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(error) => return show_failure(&state, &error),
    };
    let asked = Asked {
        state: params.state.clone(),
        min_age_secs: params.min_age_secs.clone(),
        node: params.node.clone(),
        cursor: params.cursor.clone(),
    };
    let listed = match params.query() {
        Ok(query) => oversight::list(&state.sessions, &query).await,
        Err(error) => Err(error),
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return show_failure(&state, &error),
    };
    let outcome = state.cookie_keys.unsealed(&headers, OUTCOME);
    let has_outcome = outcome.is_some();
    let head = Head { refresh_secs: Some(5), ..head(&state, "Sessions", Section::Sessions, &administrator) };
    let mut response = show(StatusCode::OK, head, view::list(listed, asked, outcome));
    if has_outcome {
        set_cookie(response.headers_mut(), &state.cookie_keys.removal(OUTCOME, &headers));
    }
    response
}

/// The form on the page: `action`, any number of `id`, and `to`, the address of the page.
pub(super) async fn submit(
    State(state): State<AppState>,
    PageAdministrator(administrator): PageAdministrator,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(e) => {
            return show_failure(&state, &Error::BadRequest(format!("The form can't be read: {}", e.body_text())));
        }
    };
    let all =
        |name: &str| form.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    let ids: Vec<SessionId> = all("id").into_iter().filter_map(|id| id.parse().ok()).collect();
    let done = match all("action").first().unwrap_or(&"").parse::<AdminAction>() {
        Ok(action) => {
            let acted = oversight::act(&state.sessions, &administrator, action, &ids).await;
            acted.map(|outcomes| summary(action, &outcomes))
        }
        Err(message) => Err(Error::BadRequest(message)),
    };
    let message = done.unwrap_or_else(|error| error.public().message);
    let to = target(all("to").first().unwrap_or(&""));
    let mut response =
        Redirect::to(if to == super::HOME { Section::Sessions.path() } else { to.as_str() }).into_response();
    let mut cookie = state.cookie_keys.sealed(OUTCOME, &shortened(&message), &headers);
    cookie.set_max_age(OUTCOME_AGE);
    set_cookie(response.headers_mut(), &cookie);
    response
}

/// What became of an action, for people.
fn summary(action: AdminAction, outcomes: &[AdminOutcome]) -> String {
    let done = outcomes.iter().filter(|outcome| outcome.done).count();
    let were = if done == 1 { "was" } else { "were" };
    let mut text = match done {
        0 => format!("No session was {}.", action.done()),
        _ => format!("{} {were} {}.", count(done, "session"), action.done()),
    };
    let failed: Vec<&str> =
        outcomes.iter().filter_map(|outcome| outcome.error.as_ref()).map(|error| error.message.as_str()).collect();
    if let Some(first) = failed.first() {
        match failed.len() {
            1 => text.push_str(&format!(" One wasn't: {first}")),
            n if failed.iter().all(|message| message == first) => text.push_str(&format!(" {n} weren't: {first}")),
            n => text.push_str(&format!(" {n} weren't, the first because: {first}")),
        }
    }
    text
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_OUTCOME_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_OUTCOME_CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ApiError;

    #[test]
    fn an_action_is_summed_up() {
        let id = SessionId(uuid::Uuid::nil());
        let done = AdminOutcome { id, done: true, error: None };
        let failed = |message: &str| AdminOutcome { id, done: false, error: Some(ApiError::new("x", message)) };
        let of = |outcomes: &[AdminOutcome]| summary(AdminAction::Retry, outcomes);
        assert_eq!(of(std::slice::from_ref(&done)), "1 session was queued again.");
        assert_eq!(of(&[done.clone(), done.clone()]), "2 sessions were queued again.");
        assert_eq!(of(&[failed("Gone.")]), "No session was queued again. One wasn't: Gone.");
        assert_eq!(of(&[done, failed("Gone."), failed("Gone.")]), "1 session was queued again. 2 weren't: Gone.");
        assert_eq!(
            of(&[failed("Gone."), failed("Full.")]),
            "No session was queued again. 2 weren't, the first because: Gone."
        );
        assert_eq!(shortened(&"ä".repeat(500)).chars().count(), MAX_OUTCOME_CHARS + 1);
    }
}
