//! Who may call: on the Unix socket the peer's uid decides, on TCP a bearer token; and what, by access's
//! table. A call that the table doesn't know is refused. The calls find their caller in the request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::Service;

use super::explain::explain;
use super::limited::Limit;
use super::status::{code_word, forbidden, stranger, unauthenticated};
use crate::access::{
    Audit, AuditedSession, Call, Caller, Denial, PeerRule, Role, Tokens, Visitor, Way, bearer,
};

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

    fn admit<B>(&self, request: &http::Request<B>, mut audit: Option<&mut Audit>) -> Result<Caller, Status> {
        let caller = match request.extensions().get::<Limit<UdsConnectInfo>>() {
            Some(limit) => {
                let uid = limit.peer.peer_cred.map(|peer| peer.uid());
                if let (Some(audit), Some(uid)) = (audit.as_deref_mut(), uid) {
                    audit.called_from(uid);
                }
                self.peer(uid)?
            }
            None => {
                self.bearer(request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()))?
            }
        };
        if let Some(audit) = audit {
            audit.called_by(&caller);
        }
        // Whatever it may do, its connection's place is its own.
        if let Some(visitor) = visitor_of(request) {
            visitor.know();
        }
        let name = call_name(request);
        let may = match Call::named(name) {
            Some(call) => caller.may(call),
            // Whoever may do everything is told by the service that there is no such call.
            None => caller.role == Role::Operator && caller.user.is_none(),
        };
        if may { Ok(caller) } else { Err(forbidden(&caller, name)) }
    }

    /// The line of this call in the audit log, if it gets one.
    fn audit<B>(request: &http::Request<B>) -> Option<Audit> {
        let way = match request.extensions().get::<Limit<UdsConnectInfo>>() {
            Some(_) => Way::Unix,
            None => Way::Tcp,
        };
        Audit::begin(Call::named(call_name(request))?, way)
    }

    fn peer(&self, uid: Option<u32>) -> Result<Caller, Status> {
        match uid {
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

fn call_name<B>(request: &http::Request<B>) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

/// Writes the line of a call that has been answered. An answer that fails has its status in the head.
fn end_audit(audit: Option<Audit>, response: &http::Response<Body>) {
    let Some(audit) = audit else { return };
    match Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
        Some(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason);
            audit.end(code_word(status.code()), reason.as_deref());
        }
        None => audit.end("OK", None),
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
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(guard) = &self.guard else {
            if let Some(visitor) = visitor_of(&request) {
                visitor.hear();
            }
            return Box::pin(self.service.call(request));
        };
        let mut audit = Guard::audit(&request);
        let answered = match guard.admit(&request, audit.as_mut()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(audit.as_ref().map(Audit::session).unwrap_or_default());
                Ok(self.service.call(request))
            }
            Err(status) => Err(status.into_http()),
        };
        Box::pin(async move {
            let response = match answered {
                Ok(answer) => explain(answer.await?),
                Err(refused) => refused,
            };
            end_audit(audit, &response);
            Ok(response)
        })
    }
}

/// Who makes this call.
pub(super) fn caller_of<M>(request: &Request<M>) -> Caller {
    request.extensions().get::<Caller>().expect("the guard stands before every call").clone()
}

/// Says which session this call is about, for the audit log.
pub(super) fn audited<M>(request: &Request<M>) -> AuditedSession {
    request.extensions().get::<AuditedSession>().expect("the guard stands before every call").clone()
}
