//! An agent on both of its sockets, and what must hold after a request was refused.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::Signal;
use shutterd::api::proto::capture_agent_client::CaptureAgentClient;
use shutterd::api::proto::{
    Device, GetSessionRequest, GetSessionResponse, ListDevicesRequest, ListSessionsRequest, Receipt, Session,
    SessionEvent, StartOptions, StartSessionRequest, StopSessionResponse, WatchSessionRequest,
};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::agent::{PATIENCE, SOON, drain, patient, refusal, send, until};
use crate::site::{SITE_VARIABLE, Site};

/// A running `serve` that listens on a Unix socket and on a TCP port of the kernel's choice.
pub struct Host {
    pub site: Arc<Site>,
    pub address: SocketAddr,
    pub unix: Channel,
    pub tcp: Channel,
    child: Child,
}

impl Host {
    pub async fn serve(site: &Arc<Site>) -> Self {
        Self::serve_with(site, &[]).await
    }

    /// As [`Host::serve`], with further variables in the agent's environment.
    pub async fn serve_with(site: &Arc<Site>, variables: &[(&str, &OsStr)]) -> Self {
        let mut command = command(site, &["serve", "--tcp", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        Self::serve_by(site, command).await
    }

    /// As [`Host::serve`], by this command, which has the site's config.
    pub async fn serve_by(site: &Arc<Site>, mut command: Command) -> Self {
        let logged = site.log().len();
        let mut child = command
            .stdout(site.log_file())
            .stderr(site.log_file())
            .spawn()
            .expect("the agent can be launched");
        let deadline = Instant::now() + PATIENCE;
        let address = loop {
            if let Some(address) = ready_address(&site.log()[logged..]) {
                break address;
            }
            let ended = child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the agent ended before it served: {ended:?}");
            assert!(Instant::now() < deadline, "the agent does not serve");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        let unix = connect(&format!("unix:{}", site.dir().join("run/api.sock").display())).await;
        let tcp = connect(&format!("http://{address}")).await;
        Self { site: Arc::clone(site), address, unix, tcp, child }
    }

    /// The operator's token.
    pub fn token(&self) -> String {
        let path = self.site.dir().join("state/operator.token");
        std::fs::read_to_string(path).expect("the agent has made a token").trim().to_owned()
    }

    /// The agent's calls over the Unix socket.
    pub fn calls(&self) -> CaptureAgentClient<Channel> {
        CaptureAgentClient::new(self.unix.clone()).max_decoding_message_size(64 << 20)
    }

    pub async fn start(&self, session: Session) -> Result<Session, Status> {
        self.start_with(session, None).await
    }

    pub async fn start_with(
        &self,
        session: Session,
        options: Option<StartOptions>,
    ) -> Result<Session, Status> {
        let request = StartSessionRequest { session: Some(session), options };
        let answer = patient("a start", self.calls().start_session(request)).await?;
        Ok(answer.into_inner().session.expect("an answer has its session"))
    }

    /// A start whose caller waits no longer than a second, which is enough for every refusal.
    pub async fn start_soon(
        &self,
        session: Session,
        options: Option<StartOptions>,
    ) -> Result<Session, Status> {
        let mut request = Request::new(StartSessionRequest { session: Some(session), options });
        request.set_timeout(SOON);
        let answer = patient("a start", self.calls().start_session(request)).await?;
        Ok(answer.into_inner().session.expect("an answer has its session"))
    }

    pub async fn stop(&self, id: &str) -> StopSessionResponse {
        let answer = patient("a stop", self.calls().stop_session(drain(id))).await;
        answer.expect("the session can be stopped").into_inner()
    }

    /// Stops a session and gives its receipt.
    pub async fn receipt(&self, id: &str) -> Receipt {
        self.stop(id).await.receipt.expect("a finished session has its receipt")
    }

    pub async fn get(&self, id: &str) -> GetSessionResponse {
        let request = GetSessionRequest { session_id: id.to_owned() };
        let answer = patient("a look", self.calls().get_session(request)).await;
        answer.expect("the session is there").into_inner()
    }

    pub async fn watch(&self, id: &str) -> Streaming<SessionEvent> {
        let request = WatchSessionRequest { session_id: id.to_owned() };
        self.calls().watch_session(request).await.expect("the session can be watched").into_inner()
    }

    /// Waits until each of these sources has at least this much that is durable.
    pub async fn recorded(&self, id: &str, least: &[(&str, u64)]) {
        let events = &mut self.watch(id).await;
        until(events, |event| {
            let sources = event.progress.as_ref().map_or(&[][..], |progress| &progress.sources);
            let written = |id: &str| sources.iter().find(|it| it.id == id).map_or(0, |it| it.written);
            least.iter().all(|(id, units)| written(id) >= *units)
        })
        .await;
    }

    pub async fn devices(&self) -> Vec<Device> {
        let answer = patient("the devices", self.calls().list_devices(ListDevicesRequest {})).await;
        answer.expect("devices can be listed").into_inner().devices
    }

    pub async fn list(&self) -> Vec<GetSessionResponse> {
        let request = ListSessionsRequest { page_size: 100, ..Default::default() };
        let answer = patient("a list", self.calls().list_sessions(request)).await;
        answer.expect("sessions can be listed").into_inner().sessions
    }

    /// What was refused has left nothing: no session, no media, no device that is held, no process.
    pub async fn assert_nothing_is_left(&self, after: &str) {
        let sessions = self.list().await;
        assert!(sessions.is_empty(), "{sessions:?} after {after}");
        let entries = std::fs::read_dir(self.site.media_dir()).expect("the media directory is there");
        let names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        assert!(names.is_empty(), "{names:?} in the media directory after {after}");
        let held = self.devices().await.into_iter().find(|device| !device.held_by.is_empty());
        assert!(held.is_none(), "{held:?} after {after}");
        assert!(self.site.workers().is_empty(), "workers after {after}");
    }

    /// Ends the agent by SIGTERM, in good order.
    pub async fn end(mut self) {
        send(self.child.id().expect("it was not waited for"), Signal::TERM);
        let status = patient("the agent's end", self.child.wait()).await.expect("a child can be waited for");
        assert!(status.success(), "the agent ended with {status}");
    }
}

/// The binary with the site's config and these words.
pub fn command(site: &Site, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHUTTERD_")) {
        command.env_remove(name);
    }
    command.arg("--config").arg(site.dir().join("flow.toml")).args(words).stdin(Stdio::null());
    command.env(SITE_VARIABLE, site.dir()).process_group(0).kill_on_drop(true);
    command
}

/// A refusal has this code and reason, names what it is about, and says something to a person.
pub fn assert_refused(what: &str, status: &Status, code: Code, reason: &str, about: &[(&str, &str)]) {
    let (got, why, metadata) = refusal(status);
    assert_eq!((got, why.as_str()), (code, reason), "{what}: {}", status.message());
    for (key, value) in about {
        assert_eq!(metadata.get(*key).map(String::as_str), Some(*value), "{what}: {key} of {metadata:?}");
    }
    assert!(status.message().len() > 20 && status.message().len() <= 1100, "{what}: {}", status.message());
}

/// The address in the last line that says that the agent is ready.
fn ready_address(log: &str) -> Option<SocketAddr> {
    let line = log.lines().rfind(|line| line.contains(" ready "))?;
    line.split_once("tcp=\"")?.1.split_once('"')?.0.parse().ok()
}

async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address");
    patient("a connection", endpoint.connect()).await.expect("the agent listens")
}
