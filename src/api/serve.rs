//! The servers: the same services on a Unix socket and on TCP.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

use super::explain::Explain;
use super::guard::{Guard, Guarded};
use super::limited::limited;
use super::proto::FILE_DESCRIPTOR_SET;
use super::proto::capture_agent_server::CaptureAgentServer;
use super::service::{About, Service};
use crate::access::{PeerRule, Places};
use crate::library::Library;
use crate::supervisor::Handle;

/// Calls that one connection may have under way.
const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// Connections of other users to the Unix socket, who are told no more than the agent's health.
const STRANGERS_MAX: usize = 16;
/// Bytes of a call's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// A silent client is asked whether it is still there, and given this long.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The API can't be served.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The Unix socket can't be made.
    #[error("cannot listen on {}: check that runtime_dir exists and is the agent's own", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TCP port can't be had.
    #[error("cannot listen on {address}: another program has it; set api.tcp to a free port, or to \"off\"")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Sockets that listen.
pub struct Bound {
    unix: UnixListener,
    tcp: Option<TcpListener>,
}

/// What the API serves.
pub struct Api {
    /// The way to the supervisor.
    pub handle: Handle,
    /// Where the media is.
    pub library: Library,
    /// Who may call.
    pub guard: Guard,
    /// What the agent says of itself.
    pub about: About,
    /// The longest message, in bytes.
    pub message_bytes_max: usize,
    /// Connections at once, on each socket.
    pub connections_max: usize,
}

/// Listens on both sockets; `given` is one that listens on `tcp` already.
///
/// # Errors
/// One of them can't be had.
pub async fn bind(
    unix_path: &Path,
    tcp: Option<SocketAddr>,
    given: Option<std::net::TcpListener>,
) -> Result<Bound, ApiError> {
    let failed = |source| ApiError::Unix { path: unix_path.to_owned(), source };
    match std::fs::remove_file(unix_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let unix = UnixListener::bind(unix_path).map_err(failed)?;
    // Whoever connects is told by the kernel; a refusal says more than a connection that fails.
    std::fs::set_permissions(unix_path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    let tcp = match (tcp, given) {
        (Some(address), given) => {
            let listener = match given {
                Some(given) => TcpListener::from_std(given),
                None => TcpListener::bind(address).await,
            };
            Some(listener.map_err(|source| ApiError::Tcp { address, source })?)
        }
        (None, _) => None,
    };
    Ok(Bound { unix, tcp })
}

impl Bound {
    /// The TCP address, once bound.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

impl Api {
    /// Serves until `ending` is cancelled: no new call from then on, those under way come to their end.
    ///
    /// # Errors
    /// A server failed.
    pub async fn serve(
        self,
        bound: Bound,
        health: tonic_health::server::HealthReporter,
        health_service: tonic_health::pb::health_server::HealthServer<
            impl tonic_health::pb::health_server::Health,
        >,
        ending: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let tasks = TaskTracker::new();
        let service = Service {
            handle: self.handle,
            library: self.library,
            about: self.about,
            ending: ending.clone(),
            tasks: tasks.clone(),
        };
        let agent = CaptureAgentServer::new(service)
            .max_decoding_message_size(self.message_bytes_max)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        let routes = || router(agent.clone(), health_service.clone(), &self.guard);
        let (own, strangers) = (Places::new(self.connections_max), Places::new(STRANGERS_MAX));
        let peers = PeerRule::of_this_process();
        let unix = limited(UnixListenerStream::new(bound.unix), move |stream: &UnixStream| {
            let known = stream.peer_cred().is_ok_and(|peer| peers.admits(peer.uid()));
            Arc::clone(if known { &own } else { &strangers })
        });
        let unix = routes().serve_with_incoming_shutdown(unix, ending.clone().cancelled_owned());
        let tcp = async {
            match bound.tcp {
                Some(listener) => {
                    let places = Places::new(self.connections_max);
                    let tcp =
                        limited(TcpListenerStream::new(listener), move |_: &TcpStream| Arc::clone(&places));
                    routes().serve_with_incoming_shutdown(tcp, ending.clone().cancelled_owned()).await
                }
                None => Ok(()),
            }
        };
        let served = tokio::try_join!(unix, tcp);
        drop(health);
        tasks.close();
        tasks.wait().await;
        served.map(|_| ())
    }
}

fn router(
    agent: CaptureAgentServer<Service>,
    health: tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
    guard: &Guard,
) -> Router<Stack<Explain, Identity>> {
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = descriptors().build_v1().expect("the descriptors were compiled by this build");
    let v1alpha = descriptors().build_v1alpha().expect("the descriptors were compiled by this build");
    Server::builder()
        .layer(Explain)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .add_service(Guarded::open(health))
        .add_service(Guarded::new(agent, guard.clone()))
        .add_service(Guarded::new(v1, guard.clone()))
        .add_service(Guarded::new(v1alpha, guard.clone()))
}
