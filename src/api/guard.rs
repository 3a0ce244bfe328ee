//! Who may call: on the Unix socket the peer's uid decides, on TCP a bearer token; and what, by access's
//! table. A call that the table doesn't know is refused. The calls find their caller in the request.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::AUTHORIZATION;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};
use tower::Service;

use super::limited::Limit;
use super::status::{forbidden, stranger, unauthenticated};
use crate::access::{Call, Caller, Denial, PeerRule, Role, Tokens, Visitor, bearer};

/// Lets calls in or refuses them, before anything else looks at them.
#[derive(Clone)]
pub struct Guard {
    tokens: Arc<Tokens>,
    peers: PeerRule,
}

impl Guard {
    /// A guard that knows these tokens, and lets this process's own user and root in.
    pub fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens, peers: PeerRule::of_this_process() }
    }

    fn admit<B>(&self, request: &http::Request<B>) -> Result<Caller, Status> {
        let caller = match request.extensions().get::<Limit<UdsConnectInfo>>() {
            Some(limit) => self.peer(&limit.peer)?,
            None => {
                self.bearer(request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()))?
            }
        };
        // Whatever it may do, its connection's place is its own.
        if let Some(visitor) = visitor_of(request) {
            visitor.know();
        }
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let may = match Call::named(name) {
            Some(call) => caller.may(call),
            // Whoever may do everything is told by the service that there is no such call.
            None => caller.role == Role::Operator && caller.user.is_none(),
        };
        if may { Ok(caller) } else { Err(forbidden(&caller, name)) }
    }

    fn peer(&self, peer: &UdsConnectInfo) -> Result<Caller, Status> {
        match peer.peer_cred.map(|peer| peer.uid()) {
            Some(uid) if self.peers.admits(uid) => Ok(Caller::of_peer(uid)),
            uid => {
                tracing::warn!(?uid, "a call over the Unix socket was refused");
                Err(stranger())
            }
        }
    }

    fn bearer(&self, header: Option<&str>) -> Result<Caller, Status> {
        self.tokens.caller(bearer(header)).map_err(|denial| {
            unauthenticated(match denial {
                Denial::NoToken => "no token: send the metadata `authorization: Bearer TOKEN`",
                Denial::NotValid => {
                    "the token is not valid: use the one in the agent's operator.token, or one of `shutterd token add`"
                }
                Denial::Expired => "the token has expired: ask the operator for a new one",
            })
        })
    }
}

/// The connection over which a request has come.
fn visitor_of<B>(request: &http::Request<B>) -> Option<&Visitor> {
    let (unix, tcp) = (request.extensions().get(), request.extensions().get());
    unix.map(|limit: &Limit<UdsConnectInfo>| &limit.visitor)
        .or_else(|| tcp.map(|limit: &Limit<TcpConnectInfo>| &limit.visitor))
}

/// A service behind the guard, or one that is open to everybody.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    service: S,
    guard: Option<Guard>,
}

impl<S> Guarded<S> {
    pub(super) fn new(service: S, guard: Guard) -> Self {
        Self { service, guard: Some(guard) }
    }

    pub(super) fn open(service: S) -> Self {
        Self { service, guard: None }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(guard) = &self.guard else {
            if let Some(visitor) = visitor_of(&request) {
                visitor.hear();
            }
            return Either::Left(self.service.call(request));
        };
        match guard.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.service.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

/// Who makes this call.
pub(super) fn caller_of<M>(request: &Request<M>) -> Caller {
    request.extensions().get::<Caller>().expect("the guard stands before every call").clone()
}
