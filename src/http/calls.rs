//! `GET /v1/sessions/{id}` and `POST /v1/sessions/{id}/stop`. In this order: who calls, how often, what
//! it may do; then the supervisor is asked. A caller that goes away cancels nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::answer::{Problem, json, tell_quota};
use super::health;
use crate::access::{Audit, Call, Caller, Quota, Quotas, Tokens, Visitor, Way, bearer};
use crate::clock::{Clock, SystemClock};
use crate::session::SessionId;
use crate::session::machine::StopMode;
use crate::supervisor::{Handle, StopRequest, WaitFor};

/// Bytes of a body, which no call needs, and how long they may take to come.
const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 255;

/// What the calls need.
pub(super) struct Desk {
    pub(super) handle: Handle,
    pub(super) tokens: Arc<Tokens>,
    pub(super) quotas: Quotas,
}

/// Part of the path: the session's id, or what can't be one.
type IdPath = Result<Path<String>, PathRejection>;

/// Every path there is.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/sessions/{id}", get(get_session))
        .route("/v1/sessions/{id}/stop", post(stop_session))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "The resource doesn't take this method.")
        })
        .with_state(desk)
}

async fn get_session(State(desk): State<Arc<Desk>>, id: IdPath, request: Request) -> Response {
    match desk.admit(&request, None) {
        Ok((caller, quota)) => answer(desk.get(&caller, session_of(id), request).await, Some(&quota)),
        Err((problem, quota)) => answer(Err(problem), quota.as_ref()),
    }
}

async fn stop_session(State(desk): State<Arc<Desk>>, id: IdPath, request: Request) -> Response {
    let mut audit = Audit::begin(Call::StopSession, Way::Http);
    let id = session_of(id);
    if let (Some(audit), Some(id)) = (&audit, &id) {
        audit.session().is(id);
    }
    let answer = match desk.admit(&request, audit.as_mut()) {
        Ok((caller, quota)) => answer(desk.stop(&caller, id, request).await, Some(&quota)),
        Err((problem, quota)) => answer(Err(problem), quota.as_ref()),
    };
    if let Some(audit) = audit {
        audit.end(answer.status().as_str(), None);
    }
    answer
}

impl Desk {
    /// Who calls, and what its bucket holds after this call; or why not, and what it holds then.
    fn admit(
        &self,
        request: &Request,
        audit: Option<&mut Audit>,
    ) -> Result<(Caller, Quota), (Problem, Option<Quota>)> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = self.tokens.caller(bearer(header)).map_err(|denial| (denial.into(), None))?;
        if let Some(audit) = audit {
            audit.called_by(&caller);
        }
        if let Some(visitor) = request.extensions().get::<Visitor>() {
            visitor.know();
        }
        match self.quotas.take(&caller, SystemClock.now()) {
            Ok(quota) => Ok((caller, quota)),
            Err(quota) => {
                tracing::debug!(caller = caller.name, "too many HTTP calls");
                Err((Problem::too_many(&quota), Some(quota)))
            }
        }
    }

    async fn get(
        &self,
        caller: &Caller,
        id: Option<SessionId>,
        request: Request,
    ) -> Result<Map<String, Value>, Problem> {
        let id = permitted(caller, Call::GetSession, id)?;
        pass_over(request).await?;
        let view = self.handle.within(caller.scope()).get(id).await?;
        Ok(view.object.clone())
    }

    async fn stop(
        &self,
        caller: &Caller,
        id: Option<SessionId>,
        request: Request,
    ) -> Result<Map<String, Value>, Problem> {
        let id = permitted(caller, Call::StopSession, id)?;
        let key = key(request.headers())?.map(|key| caller.stop_key(key));
        pass_over(request).await?;
        tracing::info!(session = %id, caller = caller.name, "stop called over HTTP");
        let request = StopRequest { mode: StopMode::Drain, drain: None, wait: WaitFor::Finalized, key };
        let stopped = self.handle.within(caller.scope()).stop(id, request).await?;
        if stopped.already_finished {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "The session is not active."));
        }
        Ok(stopped.view.object.clone())
    }
}

/// The session that the path names, if there can be one.
fn session_of(id: IdPath) -> Option<SessionId> {
    id.ok().and_then(|Path(id)| id.parse().ok())
}

/// The id, if there may be a session for this caller. Who may not act on any is told what holds for an
/// unknown one.
fn permitted(caller: &Caller, call: Call, id: Option<SessionId>) -> Result<SessionId, Problem> {
    id.filter(|_| caller.may(call)).ok_or_else(Problem::not_found)
}

/// What a retry of this call is known by.
fn key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    match (keys.next().map(http::HeaderValue::as_bytes), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key)),
        _ => {
            let message = format!("Idempotency-Key must be one text of 1 to {KEY_BYTES_MAX} bytes.");
            Err(Problem::new(StatusCode::BAD_REQUEST, message))
        }
    }
}

/// Reads the body, so that the connection can go on, and forgets it.
async fn pass_over(request: Request) -> Result<(), Problem> {
    match timeout(BODY_TIMEOUT, axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => {
            let message = format!("The call takes no body; up to {BODY_BYTES_MAX} bytes are passed over.");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The request's body didn't come in time.")),
    }
}

fn answer(session: Result<Map<String, Value>, Problem>, quota: Option<&Quota>) -> Response {
    let mut response = match session {
        Ok(object) => json(StatusCode::OK, &object),
        Err(problem) => problem.into_response(),
    };
    if let Some(quota) = quota {
        tell_quota(&mut response, quota);
    }
    response
}
