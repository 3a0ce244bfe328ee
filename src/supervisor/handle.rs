//! The way to the actor: each call is a message and its answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::command::{
    AdmissionOrder, AgentView, Command, DeviceView, Reply, SessionView, StopRequest, Stopped,
};
use super::refusal::{Refusal, RefusalKind};
use super::removal::Reading;
use super::scope::Scope;
use crate::session::health::Health;
use crate::session::machine::StopMode;
use crate::session::{SessionId, SessionSpec, StartOptions};

/// When a caller that sees the sessions of one user is told that there is none: later than the journal
/// takes to look for it.
const NOT_FOUND_AFTER: Duration = Duration::from_millis(10);

/// Talks to the actor; clones talk to the same one. It reaches the sessions of its scope: others are
/// sessions that there are not, but for [`Handle::list`] and [`Handle::changes`], whose caller has to
/// leave out what [`Handle::sees`] says no to.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) changes: broadcast::Sender<Arc<SessionView>>,
    pub(super) live: watch::Receiver<Vec<String>>,
    pub(super) health: watch::Receiver<Arc<Health>>,
    pub(super) scope: Scope,
}

impl Handle {
    /// A handle that reaches the sessions of `scope` alone.
    #[must_use]
    pub fn within(&self, scope: Scope) -> Self {
        Self { scope, ..self.clone() }
    }

    /// Whether this session is within reach.
    pub fn sees(&self, view: &SessionView) -> bool {
        self.scope.shows(view)
    }

    /// Starts a session; answers once it is working.
    ///
    /// # Errors
    /// Why it doesn't start.
    pub async fn start(&self, spec: SessionSpec, options: StartOptions) -> Result<Arc<SessionView>, Refusal> {
        if !self.scope.holds(&spec) {
            return Err(Refusal::other_user(spec.id()));
        }
        let scope = self.scope.clone();
        self.call(|reply| Command::Start { spec: Box::new(spec), options, scope, reply }).await
    }

    /// Stops a session; answers once it is released, or finished. The stop goes on when nobody waits.
    ///
    /// # Errors
    /// There is no such session, or its devices can't be released.
    pub async fn stop(&self, id: SessionId, request: StopRequest) -> Result<Stopped, Refusal> {
        let scope = self.scope.clone();
        self.not_told_apart(self.call(|reply| Command::Stop { id, request, scope, reply })).await
    }

    /// A session as it is.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn get(&self, id: SessionId) -> Result<Arc<SessionView>, Refusal> {
        let scope = self.scope.clone();
        self.not_told_apart(self.call(|reply| Command::Get { id, scope, reply })).await
    }

    /// A session whose media is to be read: it is not removed as long as the reading is held.
    ///
    /// # Errors
    /// There is no such session, or its media is not kept.
    pub async fn read(&self, id: SessionId) -> Result<(Arc<SessionView>, Reading), Refusal> {
        let scope = self.scope.clone();
        self.not_told_apart(self.call(|reply| Command::Read { id, scope, reply })).await
    }

    /// At most `count` sessions that changed after `since`, oldest change first.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn list(&self, since: u64, count: usize) -> Result<Vec<Arc<SessionView>>, Refusal> {
        self.call(|reply| Command::List { since, count, reply }).await
    }

    /// The JSON of the sessions that are not in [`Handle::list`] yet, since their devices are still being
    /// looked for. Who asks for these first and for the list then misses none.
    ///
    /// # Errors
    /// The agent has ended.
    pub async fn starting(&self) -> Result<Vec<Map<String, Value>>, Refusal> {
        let scope = self.scope.clone();
        self.call(|reply| Command::Starting { scope, reply }).await
    }

    /// The devices of this host.
    ///
    /// # Errors
    /// The host can't be searched.
    pub async fn devices(&self) -> Result<Vec<DeviceView>, Refusal> {
        let scope = self.scope.clone();
        self.call(|reply| Command::Devices { scope, reply }).await
    }

    /// The agent itself.
    ///
    /// # Errors
    /// It has ended.
    pub async fn agent(&self) -> Result<AgentView, Refusal> {
        self.call(|reply| Command::Agent { reply }).await
    }

    /// Drains the agent, or announces its replacement, or takes that back; the agent as it is then.
    ///
    /// # Errors
    /// The agent is shutting down.
    pub async fn order(&self, order: AdmissionOrder) -> Result<AgentView, Refusal> {
        self.call(|reply| Command::Admission { order, reply }).await
    }

    /// The daemon ends: true when its replacement was announced, so that no session is to be stopped.
    pub async fn leave(&self) -> bool {
        // An actor that has ended has no session left.
        self.call(|reply| Command::Leave { reply }).await.unwrap_or(false)
    }

    /// Tells the actor what an operator has to know.
    pub async fn report(&self, problem: String) {
        // An actor that has ended tells nobody.
        let _ = self.commands.send(Command::Report { problem }).await;
    }

    /// Every change of every session from now on. One that lags behind has to ask anew.
    pub fn changes(&self) -> broadcast::Receiver<Arc<SessionView>> {
        self.changes.subscribe()
    }

    /// Takes no new session and stops every one there is.
    pub async fn shut_down(&self, mode: StopMode) {
        // An actor that has ended has no session left.
        let _ = self.commands.send(Command::Shutdown { mode }).await;
    }

    /// How well the agent does what it promises, as it changes.
    pub fn health(&self) -> watch::Receiver<Arc<Health>> {
        self.health.clone()
    }

    /// Who is not finished yet: for each session its id, state and for how long.
    pub fn live(&self) -> watch::Receiver<Vec<String>> {
        self.live.clone()
    }

    /// Holds back the answer that there is no such session until a time that doesn't depend on whether
    /// there is one out of scope.
    async fn not_told_apart<T>(
        &self,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let tell_at = Instant::now() + NOT_FOUND_AFTER;
        let answer = answer.await;
        let is_not_found = |refusal: &Refusal| refusal.kind == RefusalKind::NotFound;
        if self.scope != Scope::Everybody && answer.as_ref().err().is_some_and(is_not_found) {
            sleep_until(tell_at).await;
        }
        answer
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Refusal::gone())?;
        answer.await.map_err(|_| Refusal::gone())?
    }
}
