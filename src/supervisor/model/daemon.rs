//! A daemon of a history: how it begins, is killed or ends, its journal, and one who watches it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::calls::Calls;
use super::history::{History, SETTLED_AFTER};
use super::world::{World, millis};
use crate::journal::Past;
use crate::journal::played::Waiting;
use crate::session::SessionId;
use crate::session::machine::StopMode;
use crate::supervisor::actor::{Agent, SupervisorSettings, Surroundings, start_in};
use crate::supervisor::command::SessionView;

/// How the journal does.
#[derive(Clone, Copy)]
pub(super) struct Mood {
    pub(super) stands_until: Instant,
    pub(super) refuses_until: Instant,
    pub(super) refuses_all: bool,
}

pub(super) struct Daemon {
    pub(super) agent: Agent,
    pub(super) journal: JoinHandle<()>,
    pub(super) watcher: JoinHandle<()>,
}

impl History {
    /// A daemon that can't start is started again.
    pub(super) async fn begin(&self) -> Daemon {
        loop {
            match self.try_to_begin().await {
                Ok(daemon) => return daemon,
                Err(error) => self.world.tell(format!("the daemon can't start: {error}")),
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn try_to_begin(&self) -> anyhow::Result<Daemon> {
        let (journal, waiting) = self.rows.journal();
        let journal_task = tokio::spawn(journal_thread(waiting, self.mood.subscribe()));
        let world = self.world.clone();
        let link = move |notices: tokio::sync::mpsc::Sender<_>| async move {
            world.facts().link = Some(notices.clone());
            notices.closed().await;
        };
        let with = SupervisorSettings {
            settings: self.settings.clone(),
            group: None,
            link_path: "/nowhere".into(),
            journal,
            past: Past::Closed,
            library: self.world.library().clone(),
        };
        let surroundings =
            Surroundings { clock: Arc::new(self.world.clone()), processes: Arc::new(self.world.clone()) };
        let agent = start_in(with, surroundings, link).await?;
        let watcher =
            tokio::spawn(watch_changes(self.world.clone(), self.calls.clone(), agent.handle.changes()));
        self.world.tell("a daemon begins");
        Ok(Daemon { agent, journal: journal_task, watcher })
    }

    /// SIGKILL: what it had not done is not done.
    pub(super) async fn kill(&mut self, daemon: Daemon) {
        self.world.tell("the daemon is killed");
        self.calls.answered().lose_daemon();
        self.world.facts().link = None;
        if self.mood.borrow().refuses_until > Instant::now() {
            self.world.forget_accounts();
        }
        daemon.journal.abort();
        daemon.agent.task.abort();
        drop(daemon.agent.handle);
        // It ends by being killed.
        let _ = daemon.agent.task.await;
        let _ = daemon.watcher.await;
    }

    /// SIGTERM: every session is drained, and then the daemon ends.
    pub(super) async fn end(&mut self, daemon: Daemon) {
        let Daemon { agent, journal, watcher } = daemon;
        self.world.tell("the daemon is told to end");
        agent.handle.shut_down(StopMode::Drain).await;
        let mut live = agent.handle.live();
        let settled = timeout(SETTLED_AFTER, live.wait_for(Vec::is_empty)).await.is_ok();
        self.world.require(settled, || format!("{:?} are left after a shutdown", *live.borrow()));
        drop(live);
        if !self.world.facts().calm {
            sleep(millis(&mut self.chance, 0..20_000)).await;
        }
        self.world.facts().link = None;
        self.calls.answered().lose_daemon();
        drop(agent.handle);
        let ended = timeout(SETTLED_AFTER, agent.task).await;
        self.world.require(matches!(ended, Ok(Ok(_))), || "the daemon doesn't end".to_owned());
        drop(ended);
        // Both end with the daemon.
        let (closed, told) = (timeout(SETTLED_AFTER, journal).await, timeout(SETTLED_AFTER, watcher).await);
        self.world
            .require(matches!((closed, told), (Ok(Ok(())), Ok(Ok(())))), || "a task is left".to_owned());
    }
}

/// Answers as the journal's mood is.
async fn journal_thread(mut waiting: Waiting, mood: watch::Receiver<Mood>) {
    while waiting.wait().await {
        let now = *mood.borrow();
        sleep(Duration::from_millis(1)).await;
        sleep_until(now.stands_until).await;
        let refuses = Instant::now() < now.refuses_until && (now.refuses_all || waiting.writes());
        if refuses { waiting.refuse() } else { waiting.perform() }
    }
}

/// A watcher sees each session move on, and never back.
async fn watch_changes(world: World, calls: Calls, mut changes: Receiver<Arc<SessionView>>) {
    let rank = |state: &str| ["active", "processing", "finished"].iter().position(|it| *it == state);
    let mut seen: BTreeMap<SessionId, Option<usize>> = BTreeMap::new();
    loop {
        let view = match changes.recv().await {
            Ok(view) => view,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let state = view.object.get("state").and_then(|state| state.as_str()).unwrap_or_default();
        let before = seen.insert(view.id.clone(), rank(state)).flatten();
        world.require(before <= rank(state), || format!("{} was seen to go back to {state}", view.id));
        let discarded = view.finished && view.receipt.as_ref().is_none_or(|it| it.finalized_at.is_none());
        if discarded {
            seen.remove(&view.id);
        } else {
            calls.see(&view);
        }
    }
}
