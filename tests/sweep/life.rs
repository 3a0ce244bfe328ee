//! What a caller does with a daemon that something happens to, and what it is told meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shutterd::api::proto::capture_agent_client::CaptureAgentClient;
use shutterd::api::proto::{Receipt, StartSessionRequest, StopSessionResponse, WatchSessionRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::agent::{drain, session};
use crate::site::Site;
use crate::traced::Traced;

/// The longest wait for an answer: every limit of the site's config is shorter.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How long is captured: a worker tells twice meanwhile what is durable.
const CAPTURE: Duration = Duration::from_millis(1200);
/// How often a call is made whose connection breaks.
const TRIES: usize = 4;

/// What a caller was told, and relies on.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The start was answered with the session.
    pub started: bool,
    /// Units that were called durable, by source.
    pub written: BTreeMap<String, u64>,
    /// The stop's answer.
    pub receipt: Option<Receipt>,
    /// Nobody has a session's device after its stop was answered, or its start refused.
    pub devices_free: Option<String>,
    /// What should not have happened whatever went wrong.
    pub problems: Vec<String>,
}

/// The calls of one caller to a daemon that may end at any time.
struct Caller<'a> {
    site: &'a Site,
    traced: &'a Traced,
    claims: Arc<Mutex<Claims>>,
}

/// Records a session from its start to its stop, as far as the daemon gets.
pub async fn records(site: &Site, traced: &Traced) -> Claims {
    let caller = Caller { site, traced, claims: Arc::default() };
    caller.start().await;
    caller.stop().await;
    caller.end()
}

/// Stops the session that a daemon finds when it starts.
pub async fn recovers(site: &Site, traced: &Traced) -> Claims {
    let caller = Caller { site, traced, claims: Arc::default() };
    caller.stop().await;
    caller.end()
}

impl Caller<'_> {
    fn end(&self) -> Claims {
        self.claims.lock().expect("no holder can panic").clone()
    }

    fn claim(&self, change: impl FnOnce(&mut Claims)) {
        change(&mut self.claims.lock().expect("no holder can panic"));
    }

    fn has_ended(&self) -> bool {
        self.traced.told().ended.is_some()
    }

    /// The daemon once it serves; `None` if it ends before.
    async fn connect(&self) -> Option<Channel> {
        let socket = format!("unix:{}", self.site.dir().join("run/api.sock").display());
        let endpoint = Endpoint::from_shared(socket).expect("a socket's path is an address");
        let deadline = Instant::now() + ANSWER;
        while !self.has_ended() {
            if let Ok(channel) = endpoint.connect().await {
                let request = HealthCheckRequest { service: String::new() };
                let answer = timeout(ANSWER, HealthClient::new(channel.clone()).check(request)).await;
                if answer
                    .is_ok_and(|it| it.is_ok_and(|it| it.into_inner().status() == ServingStatus::Serving))
                {
                    return Some(channel);
                }
            }
            if Instant::now() > deadline {
                self.claim(|claims| claims.problems.push("the daemon neither serves nor ends".to_owned()));
                return None;
            }
            sleep(LOOK).await;
        }
        None
    }

    /// Makes a call until it is answered, or the daemon is gone. A refusal says what is wrong.
    async fn ask<T, F>(&self, what: &str, call: impl Fn(CaptureAgentClient<Channel>) -> F) -> Option<T>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        for _ in 0..TRIES {
            let channel = self.connect().await?;
            match timeout(ANSWER, call(CaptureAgentClient::new(channel))).await {
                Ok(Ok(answer)) => return Some(answer.into_inner()),
                Ok(Err(status)) if status.get_details_error_info().is_some() => {
                    if status.message().is_empty() {
                        self.claim(|claims| claims.problems.push(format!("{what} is refused by {status:?}")));
                    }
                    return None;
                }
                // The connection broke.
                Ok(Err(_)) => sleep(LOOK).await,
                Err(_) => {
                    self.claim(|claims| claims.problems.push(format!("{what} is not answered")));
                    return None;
                }
            }
        }
        if !self.has_ended() {
            self.claim(|claims| claims.problems.push(format!("{what} breaks its connection each time")));
        }
        None
    }

    async fn start(&self) {
        let request = || StartSessionRequest { session: Some(session("s", &["cam", "mic"])), options: None };
        let answer =
            self.ask("the start", |mut calls| async move { calls.start_session(request()).await }).await;
        if answer.is_none() {
            return self.look_at_devices("the start is refused").await;
        }
        self.claim(|claims| claims.started = true);
        let watched = tokio::spawn(watch(self.connect().await, Arc::clone(&self.claims)));
        sleep(CAPTURE).await;
        watched.abort();
    }

    async fn stop(&self) {
        let answer =
            self.ask("the stop", |mut calls| async move { calls.stop_session(drain("s")).await }).await;
        let Some(StopSessionResponse { receipt, .. }) = answer else { return };
        if receipt.is_none() {
            self.claim(|claims| claims.problems.push("the stop is answered without a receipt".to_owned()));
        }
        self.claim(|claims| claims.receipt = receipt);
        self.look_at_devices("the stop is answered").await;
    }

    /// Who has the device open that is a file, while nobody should.
    async fn look_at_devices(&self, when: &str) {
        if self.has_ended() {
            return;
        }
        let holders = holders(self.site);
        if !holders.is_empty() {
            self.claim(|claims| claims.devices_free = Some(format!("{when}, and {holders:?} has a device")));
        }
    }
}

/// Hears what is called durable.
async fn watch(channel: Option<Channel>, claims: Arc<Mutex<Claims>>) {
    let Some(channel) = channel else { return };
    let request = WatchSessionRequest { session_id: "s".to_owned() };
    let Ok(events) = CaptureAgentClient::new(channel).watch_session(request).await else { return };
    let mut events = events.into_inner();
    while let Ok(Some(event)) = events.message().await {
        let mut claims = claims.lock().expect("no holder can panic");
        for source in event.progress.iter().flat_map(|progress| &progress.sources) {
            let most = claims.written.entry(source.id.clone()).or_default();
            *most = source.written.max(*most);
        }
    }
}

/// The processes of a site that have the microphone's file open.
pub fn holders(site: &Site) -> Vec<u32> {
    let device = site.dir().join(super::run::DEVICE);
    let has_it = |pid: u32| {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|it| std::fs::read_link(it.path()).is_ok_and(|target| target == device))
    };
    site.processes().into_iter().map(|process| process.pid).filter(|pid| has_it(*pid)).collect()
}
