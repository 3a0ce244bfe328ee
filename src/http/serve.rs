//! The listener: connections, each with its limits, until the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::calls::{self, Desk};
use crate::access::{Place, Places, Quotas, Tokens};
use crate::supervisor::Handle;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of a request, and bytes of its head.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may leave an answer unread.
const UNREAD_TIMEOUT_MS: u32 = 10_000;
/// How long connections may take to end once the server does.
const ENDING_TIMEOUT: Duration = Duration::from_secs(1);
/// Before the next attempt when no connection can be taken, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTP can't be served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The port can't be had.
    #[error("cannot listen on {address}: {source}; set http.listen to a free port, or to \"off\"")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A socket that listens, if one was asked for.
pub struct Bound(Option<TcpListener>);

/// What HTTP serves.
pub struct Http {
    /// The way to the supervisor.
    pub handle: Handle,
    /// Who may call.
    pub tokens: Arc<Tokens>,
    /// How often.
    pub quotas: Quotas,
    /// Connections at once; a further one gets the place of one that nobody knows, or waits.
    pub connections_max: usize,
}

/// Listens on `address`, if there is one; `given` is a socket that does so already.
///
/// # Errors
/// It can't be had.
pub async fn bind(
    address: Option<SocketAddr>,
    given: Option<std::net::TcpListener>,
) -> Result<Bound, HttpError> {
    let Some(address) = address else { return Ok(Bound(None)) };
    let listener = match given {
        Some(given) => TcpListener::from_std(given),
        None => TcpListener::bind(address).await,
    };
    listener.map(|listener| Bound(Some(listener))).map_err(|source| HttpError::Listen { address, source })
}

impl Bound {
    /// The address, once bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref()?.local_addr().ok()
    }
}

impl Http {
    /// Serves until `ending` is cancelled: no new call from then on, those under way come to their end.
    pub async fn serve(self, bound: Bound, ending: CancellationToken) {
        let Some(listener) = bound.0 else { return };
        let desk = Desk { handle: self.handle, tokens: self.tokens, quotas: self.quotas };
        let router = calls::router(Arc::new(desk));
        let places = Places::new(self.connections_max);
        let connections = TaskTracker::new();
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let place = places.take().await;
                        connections.spawn(converse(stream, router.clone(), place, ending.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an HTTP connection can't be taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let never: Option<Infallible> = ending.run_until_cancelled(accept).await;
        debug_assert!(never.is_none());
        connections.close();
        connections.wait().await;
    }
}

/// Serves one connection.
async fn converse(stream: TcpStream, router: Router, place: Place, ending: CancellationToken) {
    let limited =
        stream.set_nodelay(true).and_then(|()| Ok(set_tcp_user_timeout(&stream, UNREAD_TIMEOUT_MS)?));
    if limited.is_err() {
        // Its peer has gone already.
        return;
    }
    let visitor = place.visitor().clone();
    // The desk says whether it knows who calls.
    let router = router.map_request(move |mut request: http::Request<_>| {
        request.extensions_mut().insert(visitor.clone());
        request
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        // How a connection ends is its client's business.
        _ = connection.as_mut() => return,
        () = place.lost() => return,
        () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // The same.
    let _ = timeout(ENDING_TIMEOUT, connection).await;
    drop(place);
}
