//! The way to the agent: which one, over what, with which token. Must never send a token in the clear
//! beyond this host.

use std::error::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::health_client::HealthClient;

use super::args::Global;
use super::exit::{FAILURE, Failure, NOT_PERMITTED, UNAVAILABLE, USAGE, innermost};
use crate::api::proto::capture_agent_client::CaptureAgentClient;
use crate::config::{self, Overrides, Settings};
use crate::daemon::API_SOCKET;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An agent that answers no ping for this long while a call is open counts as gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer: a page of sessions with long receipts.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest token file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Calls that go to the agent with the caller's token.
pub type Calls = InterceptedService<Channel, Bearer>;

/// A connection to an agent.
#[derive(Clone, Debug)]
pub struct Connection {
    calls: Calls,
    address: Address,
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `http://` and a loopback address with a port.
    Tcp(String),
}

/// What becomes of a command whose token can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// It fails.
    Needed,
    /// It asks without one, unless a file was named.
    Welcome,
}

/// Adds the token to every call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Connection {
    /// Connects to the agent that the flags, the environment or the config name.
    ///
    /// # Errors
    /// The config, the address or the token can't be used, or nobody answers there.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        Self::open_with(global, Token::Needed).await
    }

    /// As [`Connection::open`], for what the agent tells everybody: monitoring has no token.
    ///
    /// # Errors
    /// The config or the address can't be used, or nobody answers there.
    pub async fn open_public(global: &Global) -> Result<Self, Failure> {
        Self::open_with(global, Token::Welcome).await
    }

    async fn open_with(global: &Global, token: Token) -> Result<Self, Failure> {
        let settings = || {
            config::load(global.config.as_deref(), &Overrides::default()).map_err(|error| {
                Failure::from(error)
                    .hint("--server unix:/run/shutterd/api.sock reaches a running agent all the same")
            })
        };
        let address = match named(global.server.as_deref()) {
            Some(url) => Address::parse(url)?,
            None => Address::of(&settings()?),
        };
        let bearer = match (&global.token_file, &address, token) {
            (Some(path), _, _) => Some(read_token(path)?),
            (None, Address::Unix(_), _) => None,
            (None, Address::Tcp(_), Token::Needed) => Some(read_token(&settings()?.api.token_path)?),
            (None, Address::Tcp(_), Token::Welcome) => {
                settings().and_then(|settings| read_token(&settings.api.token_path)).ok()
            }
        };
        Self::dial(address, Bearer(bearer)).await
    }

    /// Connects to the agent at the Unix socket `path`.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn open_unix(path: &Path) -> Result<Self, Failure> {
        Self::dial(Address::Unix(path.to_owned()), Bearer(None)).await
    }

    async fn dial(address: Address, bearer: Bearer) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|error| Failure::new(USAGE, format!("{address} is no address: {}", innermost(&error))))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_TIMEOUT)
            .keep_alive_timeout(PING_TIMEOUT);
        match endpoint.connect().await {
            Ok(channel) => Ok(Self { calls: InterceptedService::new(channel, bearer), address }),
            Err(error) => Err(unreachable(&address, &error)),
        }
    }

    /// The agent's calls.
    pub fn agent(&self) -> CaptureAgentClient<Calls> {
        CaptureAgentClient::new(self.calls.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The agent's health.
    pub fn health(&self) -> HealthClient<Calls> {
        HealthClient::new(self.calls.clone())
    }

    /// Where the agent is.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// `message` as a call that waits at most `wait` for its answer.
pub fn within<M>(wait: Duration, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(wait);
    request
}

impl Address {
    /// The Unix socket of the agent with these settings.
    pub fn of(settings: &Settings) -> Self {
        Self::Unix(settings.runtime_dir.join(API_SOCKET))
    }

    fn parse(url: &str) -> Result<Self, Failure> {
        if let Some(path) = url.strip_prefix("unix://").or_else(|| url.strip_prefix("unix:")) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let wrong = || {
            Failure::new(
                USAGE,
                format!("{url:?} is no server: write unix:/run/shutterd/api.sock or http://127.0.0.1:7460"),
            )
        };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let (Some("http"), Some(host), Some(_)) = (uri.scheme_str(), uri.host(), uri.port_u16()) else {
            return Err(wrong());
        };
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        if host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()) {
            Ok(Self::Tcp(url.to_owned()))
        } else {
            Err(Failure::new(
                USAGE,
                format!("{host} is not this host, and what goes over TCP is not encrypted"),
            )
            .hint("forward the port with `ssh -L 7460:127.0.0.1:7460` and name http://127.0.0.1:7460"))
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(url) => f.write_str(url),
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A variable that is set to nothing names nothing.
fn named(url: Option<&str>) -> Option<&str> {
    url.filter(|url| !url.is_empty())
}

fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, Failure> {
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)).map_err(
        |error| {
            Failure::new(NOT_PERMITTED, format!("the token in {} can't be read: {error}", path.display()))
                .hint("name a file that this user may read with --token-file, or use the Unix socket")
        },
    )?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::new(NOT_PERMITTED, format!("{} holds no token", path.display())));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
        Failure::new(
            NOT_PERMITTED,
            format!("{} holds no token: a token is one line of ASCII", path.display()),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(address: &Address, error: &tonic::transport::Error) -> Failure {
    let mut source = error.source();
    let mut kind = None;
    while let Some(cause) = source {
        kind = cause.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        source = cause.source();
    }
    let place = match address {
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp(url) => url.clone(),
    };
    if kind == Some(io::ErrorKind::PermissionDenied) {
        return Failure::new(NOT_PERMITTED, format!("the agent at {place} can't be asked: permission denied"))
            .hint("only root and the agent's own user may use its socket; others name the TCP address by --server, and a token");
    }
    Failure::new(UNAVAILABLE, format!("no agent answers at {place}: {}", innermost(error)))
        .hint(format!("is `shutterd serve` running? looked at {place}"))
}

/// What a connection without a result is told by.
pub fn lost(what: &str) -> Failure {
    Failure::new(FAILURE, format!("the agent's answer holds no {what}: is it the same version?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_loopback_url() {
        let unix = Some(Address::Unix(PathBuf::from("/run/a.sock")));
        let parsed = |url| Address::parse(url).ok();
        assert_eq!(parsed("unix:/run/a.sock"), unix);
        assert_eq!(parsed("unix:///run/a.sock"), unix);
        for url in ["http://127.0.0.1:7460", "http://[::1]:7460", "http://localhost:7460"] {
            assert_eq!(parsed(url), Some(Address::Tcp(url.to_owned())));
        }
        for url in
            ["", "127.0.0.1:7460", "https://127.0.0.1:7460", "http://127.0.0.1", "http://192.0.2.1:7460"]
        {
            assert_eq!(parsed(url), None, "{url}");
        }
    }
}
