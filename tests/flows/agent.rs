//! A real `shutterd serve` on a site of its own. Nothing that a test starts outlives its site, and a
//! test that fails shows what the agent logged.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shutterd::api::proto::capture_agent_client::CaptureAgentClient;
use shutterd::api::proto::{
    GetSessionRequest, GetSessionResponse, ListSessionsRequest, Session, SessionEvent, StartOptions,
    StartSessionRequest, StopMode, StopSessionRequest, StopSessionResponse, WaitFor, WatchSessionRequest,
};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::site::Site;

/// The longest wait for anything: a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Within this time a device that can't be had is refused by name.
pub const SOON: Duration = Duration::from_secs(1);
/// Between two looks at what no event tells.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running `serve`.
pub struct Agent {
    pub site: Arc<Site>,
    child: Child,
    channel: Channel,
}

impl Agent {
    /// Launches an agent on `site` and waits until it serves.
    pub async fn serve(site: &Arc<Site>) -> Self {
        Self::serve_with(site, &[]).await
    }

    /// As [`Agent::serve`], with a camera and a microphone in session `s`, some of which is recorded.
    pub async fn recording(site: &Arc<Site>) -> Self {
        let agent = Self::serve(site).await;
        agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
        agent.recorded("s", 30, 48_000).await;
        agent
    }

    /// As [`Agent::serve`], with these variables in its environment.
    pub async fn serve_with(site: &Arc<Site>, variables: &[(String, String)]) -> Self {
        let mut child = launch_with(site, variables);
        let socket = format!("unix:{}", site.dir().join("run/api.sock").display());
        let endpoint = Endpoint::from_shared(socket).expect("a socket's path is an address");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("the agent ended before it served: {status}");
            }
            if let Ok(channel) = endpoint.connect().await
                && health(&channel).await == Some(ServingStatus::Serving)
            {
                return Self { site: Arc::clone(site), child, channel };
            }
            assert!(Instant::now() < deadline, "the agent does not serve");
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// The agent's calls.
    pub fn calls(&self) -> CaptureAgentClient<Channel> {
        CaptureAgentClient::new(self.channel.clone())
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    pub async fn health(&self) -> Option<ServingStatus> {
        health(&self.channel).await
    }

    /// Waits until it tells this of itself.
    pub async fn is_healthy(&self, wanted: ServingStatus) {
        let deadline = Instant::now() + PATIENCE;
        while self.health().await != Some(wanted) {
            assert!(Instant::now() < deadline, "health never became {wanted:?}");
            sleep(LOOK_INTERVAL).await;
        }
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

    /// A start whose caller waits no longer than a second, which is enough for every refusal of a device.
    pub async fn start_soon(&self, session: Session) -> Result<Session, Status> {
        let mut request = Request::new(StartSessionRequest { session: Some(session), options: None });
        request.set_timeout(SOON);
        let answer = patient("a start", self.calls().start_session(request)).await?;
        Ok(answer.into_inner().session.expect("an answer has its session"))
    }

    pub async fn stop(&self, id: &str) -> Result<StopSessionResponse, Status> {
        self.stop_with(drain(id)).await
    }

    pub async fn stop_with(&self, request: StopSessionRequest) -> Result<StopSessionResponse, Status> {
        Ok(patient("a stop", self.calls().stop_session(request)).await?.into_inner())
    }

    pub async fn get(&self, id: &str) -> Result<GetSessionResponse, Status> {
        let request = GetSessionRequest { session_id: id.to_owned() };
        Ok(patient("a look", self.calls().get_session(request)).await?.into_inner())
    }

    /// Every session there is.
    pub async fn list(&self) -> Vec<GetSessionResponse> {
        let request = ListSessionsRequest { states: Vec::new(), since: 0, page_size: 100 };
        let answer = patient("a list", self.calls().list_sessions(request)).await;
        answer.expect("sessions can be listed").into_inner().sessions
    }

    pub async fn watch(&self, id: &str) -> Streaming<SessionEvent> {
        let request = WatchSessionRequest { session_id: id.to_owned() };
        self.calls().watch_session(request).await.expect("the session can be watched").into_inner()
    }

    /// The first event of the session for which `wanted` holds.
    pub async fn until(&self, id: &str, wanted: impl Fn(&SessionEvent) -> bool) -> SessionEvent {
        until(&mut self.watch(id).await, wanted).await
    }

    /// Waits until every source of the session has this much in the file.
    pub async fn recorded(&self, id: &str, video_frames: u64, audio_samples: u64) {
        let least = |id: &str| if is_audio(id) { audio_samples } else { video_frames };
        self.until(id, |event| {
            let progress = event.progress.as_ref();
            progress.is_some_and(|it| it.sources.iter().all(|source| source.written >= least(&source.id)))
        })
        .await;
    }

    /// The session once it is finished.
    pub async fn finished(&self, id: &str) -> GetSessionResponse {
        let event = self.until(id, |event| state(event) == "finished").await;
        GetSessionResponse { session: event.session, receipt: event.receipt }
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// How it ended.
    pub async fn exited(mut self) -> ExitStatus {
        let status = patient("the agent's end", self.child.wait()).await;
        status.expect("a child can be waited for")
    }

    /// Ends it by SIGTERM, in good order.
    pub async fn end(self) {
        self.signal(Signal::TERM);
        let status = self.exited().await;
        assert!(status.success(), "the agent ended with {status}");
    }

    /// Ends it as a crash would.
    pub async fn crash(self) {
        self.signal(Signal::KILL);
        assert_eq!(self.exited().await.signal(), Some(9));
    }
}

/// Launches `serve` without waiting for anything.
pub fn launch(site: &Site) -> Child {
    launch_with(site, &[])
}

fn launch_with(site: &Site, variables: &[(String, String)]) -> Child {
    let mut command = Command::from(site.shutterd());
    command.arg("--config").arg(site.dir().join("flow.toml")).arg("serve");
    let log = site.log_file();
    command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
    command.process_group(0).kill_on_drop(true);
    command.envs(variables.iter().cloned());
    command.spawn().expect("the agent can be launched")
}

/// A session of these configured devices. Devices whose name begins with `mic` deliver sound.
pub fn session(id: &str, devices: &[&str]) -> Session {
    let sources = devices.iter().map(|device| shutterd::api::proto::Source {
        id: (*device).to_owned(),
        name: format!("The {device}"),
        r#type: if is_audio(device) { "audio" } else { "video" }.to_owned(),
        device: if is_audio(device) { "local_microphone" } else { "local_camera" }.to_owned(),
        device_id: (*device).to_owned(),
        ..Default::default()
    });
    Session {
        id: id.to_owned(),
        name: format!("Visit {id}"),
        sources: sources.collect(),
        ..Default::default()
    }
}

/// The usual stop.
pub fn drain(id: &str) -> StopSessionRequest {
    StopSessionRequest {
        session_id: id.to_owned(),
        drain_timeout: None,
        mode: StopMode::Drain.into(),
        wait_for: WaitFor::Finalized.into(),
    }
}

pub fn is_audio(device: &str) -> bool {
    device.starts_with("mic")
}

pub fn state(event: &SessionEvent) -> &str {
    event.session.as_ref().map_or("", |session| session.state.as_str())
}

pub fn worker_state(session: Option<&Session>) -> &str {
    session.and_then(|session| session.meta.as_ref()).map_or("", |meta| meta.worker_state.as_str())
}

/// The code and the reason of a refusal, and what it is about.
pub fn refusal(status: &Status) -> (Code, String, std::collections::HashMap<String, String>) {
    let info = status.get_details_error_info().expect("every refusal carries its reason");
    (status.code(), info.reason, info.metadata)
}

pub async fn until(
    events: &mut Streaming<SessionEvent>,
    wanted: impl Fn(&SessionEvent) -> bool,
) -> SessionEvent {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        match timeout_at(deadline, events.message()).await {
            Ok(Ok(Some(event))) if wanted(&event) => return event,
            Ok(Ok(Some(event))) => last = Some(event),
            other => panic!("the awaited event did not come ({other:?}); the last was {last:#?}"),
        }
    }
}

/// Waits for something that no event tells.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(LOOK_INTERVAL).await;
    }
}

pub async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}

async fn health(channel: &Channel) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel.clone()).check(request).await.ok()?;
    Some(answer.into_inner().status())
}
