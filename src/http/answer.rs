//! Answers: JSON with the headers that every answer has, and the one form of an error.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::access::{Denial, Quota};
use crate::supervisor::{Refusal, RefusalKind};

/// A call that was not carried out.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// There is no such thing, or not for this caller.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "The requested resource was not found.")
    }

    /// The token has made too many calls.
    pub(super) fn too_many(quota: &Quota) -> Self {
        let message = format!("There were too many requests: try again in {} s.", quota.retry_seconds);
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        let message = match denial {
            Denial::NoToken => "There is no token: send the header Authorization: Bearer TOKEN.",
            Denial::NotValid => "The token is not valid.",
            Denial::Expired => "The token has expired.",
        };
        Self::new(StatusCode::UNAUTHORIZED, message)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::NotFound | RefusalKind::PermissionDenied => return Self::not_found(),
            RefusalKind::InvalidArgument | RefusalKind::OutOfRange => StatusCode::BAD_REQUEST,
            RefusalKind::AlreadyExists | RefusalKind::FailedPrecondition | RefusalKind::Aborted => {
                StatusCode::CONFLICT
            }
            RefusalKind::ResourceExhausted | RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, refusal.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Told {
            error: bool,
            status: u16,
            message: String,
        }
        let told = Told { error: true, status: self.status.as_u16(), message: self.message };
        let mut response = json(self.status, &told);
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750, section 3.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer with this body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("what is answered has text keys alone");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds what the caller's bucket holds, as draft-ietf-httpapi-ratelimit-headers-03 has it.
pub(super) fn tell_quota(response: &mut Response, quota: &Quota) {
    let mut tell = |name: &'static str, value: String| {
        let value = HeaderValue::try_from(value).expect("numbers are a header's value");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    };
    tell("ratelimit-limit", quota.limit.to_string());
    tell("ratelimit-remaining", quota.remaining.to_string());
    tell("ratelimit-reset", quota.reset_seconds.to_string());
    tell("ratelimit-policy", format!("{};w={}", quota.limit, quota.window_seconds));
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(quota.retry_seconds));
    }
}
