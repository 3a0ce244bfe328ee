//! What the transport refuses by itself, in the form of every other refusal: a call that there is not, bytes
//! that are no message, a message that is too long.

use std::task::{Context, Poll};

use futures_util::future::{MapOk, TryFutureExt};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status::bare;

/// How the transport begins to say that bytes are no message (`prost::DecodeError`).
const NO_MESSAGE: &str = "failed to decode Protobuf message";

/// Gives a reason to what is refused without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Explain;

impl<S> Layer<S> for Explain {
    type Service = Explained<S>;

    fn layer(&self, service: S) -> Explained<S> {
        Explained(service)
    }
}

/// A service whose refusals all have a reason.
#[derive(Clone, Debug)]
pub(super) struct Explained<S>(S);

impl<S> Service<http::Request<Body>> for Explained<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(S::Response) -> S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(explain)
    }
}

/// The answer, with a reason if it is a refusal that has none.
pub(super) fn explain(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
            reasoned(&status).into_http()
        }
        _ => response,
    }
}

fn reasoned(status: &Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::Internal if message.starts_with(NO_MESSAGE) => {
            bare(Code::InvalidArgument, "INVALID_MESSAGE", message)
        }
        Code::OutOfRange | Code::ResourceExhausted => {
            bare(Code::ResourceExhausted, "MESSAGE_TOO_LONG", message)
        }
        Code::Unimplemented if message.is_empty() => bare(
            Code::Unimplemented,
            "UNIMPLEMENTED",
            "there is no such call: compare the versions of both sides",
        ),
        Code::Unimplemented => bare(Code::Unimplemented, "UNIMPLEMENTED", message),
        Code::NotFound => bare(Code::NotFound, "NOT_FOUND", message),
        code => bare(code, "TRANSPORT", message),
    }
}
