//! The actor: the one owner of all session state. It takes commands and notices in turn, feeds them
//! to the machines, and wakes when a deadline has come.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::adopt::complete_receipts;
use super::command::{Command, Notice, SessionView, StopAsked};
use super::find::Unknown;
use super::handle::Handle;
use super::hotplug;
use super::inbox::{Heard, Inbox, Turn};
use super::live::Live;
use super::processes::{OwnProgram, Processes};
use super::removal::Shelf;
use super::scope::Scope;
use super::socket;
use super::start::Pending;
use super::stop::Tombstone;
use super::unsaved::Unsaved;
use super::vitals::HostVitals;
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::config::Settings;
use crate::journal::{Journal, Past};
use crate::library::Library;
use crate::session::health::Health;
use crate::session::machine::{Event, PhaseLimits, StopMode};
use crate::session::{EndReason, Leases, SessionId};

/// Calls that may wait for the actor.
const COMMANDS_MAX: usize = 256;
/// Notices that may wait for the actor.
const NOTICES_MAX: usize = 1024;
/// Changes that a slow watcher may lag behind.
const CHANGES_MAX: usize = 256;
/// The longest time between two looks at the clocks.
const TICK: Duration = Duration::from_secs(1);
/// Problems that are kept for `GetAgent`.
const PROBLEMS_MAX: usize = 20;

/// What the actor works with.
pub struct SupervisorSettings {
    /// The config as used.
    pub settings: Settings,
    /// Group of media files, looked up.
    pub group: Option<u32>,
    /// The link socket.
    pub link_path: PathBuf,
    /// The daemon's memory.
    pub journal: Journal,
    /// What was found of it.
    pub past: Past,
    /// Where the media is.
    pub library: Library,
}

/// What the actor can't do by itself.
pub(super) struct Surroundings {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) processes: Arc<dyn Processes>,
}

/// A running actor.
pub struct Agent {
    /// The way to it.
    pub handle: Handle,
    /// Its task; ends when every [`Handle`] is gone. It gives the journal back, to be closed.
    pub task: JoinHandle<Journal>,
}

pub(super) struct Actor {
    pub(super) settings: Settings,
    pub(super) group: Option<u32>,
    pub(super) link_path: PathBuf,
    pub(super) journal: Journal,
    pub(super) library: Library,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) processes: Arc<dyn Processes>,
    pub(super) leases: Leases,
    pub(super) live: BTreeMap<SessionId, Live>,
    pub(super) pending: BTreeMap<SessionId, Pending>,
    pub(super) tombstones: VecDeque<Tombstone>,
    /// Finished sessions whose receipts the journal has not taken yet.
    pub(super) unsaved: Unsaved,
    /// Directories that the journal doesn't know, until they were looked at.
    pub(super) unknown: Unknown,
    pub(super) change: u64,
    /// The journal has every change up to here.
    pub(super) journalled: u64,
    /// The media of finished sessions.
    pub(super) shelf: Shelf,
    pub(super) admission: Admission,
    pub(super) problems: VecDeque<String>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) changes: broadcast::Sender<Arc<SessionView>>,
    pub(super) tasks: TaskTracker,
    /// When deadlines were looked at last.
    pub(super) looked_at: MonoTime,
    told: watch::Sender<Vec<String>>,
    pub(super) host: HostVitals,
    pub(super) told_health: watch::Sender<Arc<Health>>,
}

/// Starts the actor: takes up what an earlier daemon left unfinished, and listens for workers.
///
/// # Errors
/// The link socket can't be made, or the journal can't be read.
pub async fn start(with: SupervisorSettings) -> anyhow::Result<Agent> {
    let listener = socket::listen(&with.link_path)?;
    let processes = OwnProgram::new(&with.settings, with.link_path.clone());
    let pipes = hotplug::pipes(&with.settings.devices);
    let link = |notices: mpsc::Sender<Notice>| async move {
        tokio::join!(hotplug::watch(pipes, notices.clone()), socket::serve(listener, notices));
    };
    start_in(with, Surroundings { clock: Arc::new(SystemClock), processes: Arc::new(processes) }, link).await
}

/// As [`start`], in these surroundings; `link` passes on what workers say.
pub(super) async fn start_in<L: Future<Output = ()> + Send + 'static>(
    with: SupervisorSettings,
    Surroundings { clock, processes }: Surroundings,
    link: impl FnOnce(mpsc::Sender<Notice>) -> L,
) -> anyhow::Result<Agent> {
    let unfinished = with.journal.unfinished().await??;
    let change = with.journal.last_change().await??;
    complete_receipts(&with.journal, &with.library, with.settings.limits.journal).await?;
    let kept = with.journal.kept().await??;
    let shelf = Shelf::new(kept, &with.library);
    let unknown = Unknown::of(&with.past, &with.journal, &with.library, with.settings.limits.journal).await?;
    let (commands, command_inbox) = mpsc::channel(COMMANDS_MAX);
    let (notices, notice_inbox) = mpsc::channel(NOTICES_MAX);
    let (changes, _) = broadcast::channel(CHANGES_MAX);
    let (told, live) = watch::channel(Vec::new());
    let (told_health, health) = watch::channel(Arc::default());
    let mut actor = Actor {
        settings: with.settings,
        group: with.group,
        link_path: with.link_path,
        journal: with.journal,
        library: with.library,
        processes,
        leases: Leases::default(),
        live: BTreeMap::new(),
        pending: BTreeMap::new(),
        tombstones: VecDeque::new(),
        unsaved: Unsaved::default(),
        unknown,
        change,
        journalled: change,
        shelf,
        admission: Admission::default(),
        problems: VecDeque::new(),
        notices: notices.clone(),
        changes: changes.clone(),
        tasks: TaskTracker::new(),
        looked_at: clock.now(),
        host: HostVitals::new(clock.now(), &with.past),
        clock,
        told,
        told_health,
    };
    actor.tasks.spawn(link(notices));
    for id in unfinished.skipped {
        let problem = format!(
            "the journal's record of session {id} can't be read: its media is in the media directory"
        );
        actor.problem(id.parse().ok().as_ref(), problem);
    }
    for record in unfinished.records {
        actor.take_up(record);
    }
    actor.find_unknown();
    let task = tokio::spawn(actor.run(Inbox {
        commands: command_inbox,
        notices: notice_inbox,
        turn: Turn::default(),
    }));
    Ok(Agent { handle: Handle { commands, changes, live, health, scope: Scope::Everybody }, task })
}

impl Actor {
    async fn run(mut self, mut inbox: Inbox) -> Journal {
        let mut tick = Instant::now() + TICK;
        loop {
            let wake = self.next_wake().min(tick);
            if let Ok(heard) = tokio::time::timeout_at(wake, inbox.next()).await {
                match heard {
                    Heard::Command(command) => self.on_command(command),
                    Heard::Notice(notice) => self.on_notice(*notice),
                    Heard::End => break,
                }
            }
            // However many messages come, the clock is looked at.
            if Instant::now() >= wake {
                self.on_time();
                tick = Instant::now() + TICK;
            }
            self.tell_who_is_live();
            self.tell_health();
        }
        drop(inbox);
        self.tasks.close();
        self.tasks.wait().await;
        self.journal
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Start { spec, options, scope, reply } => self.start(*spec, options, scope, reply),
            Command::Stop { id, request, scope, reply } => self.stop(id, StopAsked { request, scope, reply }),
            Command::Get { id, scope, reply } => self.get(id, scope, reply),
            Command::Read { id, scope, reply } => self.read(id, scope, reply),
            Command::List { since, count, reply } => self.list(since, count, reply),
            Command::Starting { scope, reply } => self.starting(&scope, reply),
            Command::Devices { scope, reply } => self.devices(&scope, reply),
            Command::Agent { reply } => super::answer::send(reply, Ok(self.agent())),
            Command::Admission { order, reply } => self.admission_order(order, reply),
            Command::Leave { reply } => self.leave(reply),
            Command::Report { problem } => self.problem(None, problem),
            Command::Shutdown { mode } => self.shut_down(mode),
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Prepared { id, known, devices } => self.on_prepared(id, known, devices),
            Notice::Troubled { problem } => self.problem(None, problem),
            Notice::Journalled { id, worker, kept, change, events, outcome } => {
                if outcome.is_ok() {
                    self.shelf.add(kept, &self.library);
                }
                self.on_journalled(&id, change, events, outcome);
                self.remove_what_is_due();
                if let Some(worker) = worker {
                    self.on_identified(&id, &worker);
                }
            }
            Notice::Dialled { hello, pid, connection, to_worker } => {
                self.on_dialled(&hello, pid, connection, to_worker);
            }
            Notice::Said { id, connection, body } => self.on_said(&id, connection, body),
            Notice::LinkLost { id, connection } => self.on_link_lost(&id, connection),
            Notice::Exited { id, status, last } => self.on_exited(&id, status, last),
            Notice::Repaired { id, report } => self.on_repaired(&id, report),
            Notice::Found { id, found } => self.on_looked_at(&id, found),
            Notice::Removal(notice) => self.on_removal(notice),
            Notice::Discarded { id } => self.on_discarded(&id),
            Notice::DevicesChanged => self.on_devices_changed(),
            Notice::HostLooked(look) => self.on_look(look),
            Notice::Looked { id, asked, known } => self.on_looked(id, *asked, known),
        }
    }

    /// Feeds an event to a session's machine and carries out what it decides.
    pub(super) fn feed(&mut self, id: &SessionId, event: Event) {
        let now = self.clock.now();
        if let Some(live) = self.live.get_mut(id) {
            let actions = live.machine.step(now, event);
            self.perform(id, actions);
        }
    }

    fn next_wake(&self) -> Instant {
        let now = self.clock.now();
        let deadlines = self.live.values().flat_map(|live| [live.deadline, live.ends_at]).flatten();
        let next = deadlines.min().map_or(TICK, |deadline| deadline.since(now).min(TICK));
        // The timer has a granularity of a millisecond; waking early would spin.
        Instant::now() + next + Duration::from_millis(1)
    }

    fn on_time(&mut self) {
        let (now, boot) = (self.clock.now(), self.clock.boot());
        self.look_for_silence(now);
        self.look_at_host(now);
        self.judge_sources(now);
        let ids: Vec<SessionId> = self.live.keys().cloned().collect();
        for id in ids {
            let Some(live) = self.live.get(&id) else { continue };
            let expired = live.expires_at.is_some_and(|at| at <= boot);
            let over_long = live.ends_at.is_some_and(|at| at <= now);
            let overdue = live.deadline.is_some_and(|at| at <= now);
            if expired {
                self.end(&id, EndReason::Expired, StopMode::Drain);
            } else if over_long {
                self.end(&id, EndReason::MaxDuration, StopMode::Drain);
            }
            if overdue {
                self.feed(&id, Event::DeadlinePassed);
            }
        }
        self.save_again();
        self.measure_room();
        self.remove_what_is_due();
        self.admission.on_time(now);
        self.tombstones.retain(|tombstone| now.since(tombstone.at) < crate::session::limits::TOMBSTONE);
    }

    /// Something other than a caller ends a session.
    pub(super) fn end(&mut self, id: &SessionId, reason: EndReason, mode: StopMode) {
        self.accept_stop(id, reason, mode, None);
    }

    fn shut_down(&mut self, mode: StopMode) {
        self.admission.stop();
        let ids: Vec<SessionId> = self.live.keys().cloned().collect();
        for id in ids {
            self.end(&id, EndReason::AgentShutdown, mode);
        }
    }

    /// Remembers what an operator has to know.
    pub(super) fn problem(&mut self, session: Option<&SessionId>, problem: String) {
        tracing::error!(session = session.map(tracing::field::display), problem, "operator needed");
        self.problems.retain(|known| *known != problem);
        if self.problems.len() == PROBLEMS_MAX {
            self.problems.pop_front();
        }
        self.problems.push_back(problem);
    }

    pub(super) fn limits(&self) -> PhaseLimits {
        let limits = &self.settings.limits;
        PhaseLimits {
            start: limits.start + START_MARGIN,
            drain: limits.drain,
            term: limits.term,
            kill: limits.kill,
            repair: limits.repair,
            close: limits.journal,
            backoff: self.settings.worker.restart_delay,
            steady: self.settings.worker.steady,
            restarts: self.settings.worker.restarts_max,
        }
    }

    fn tell_who_is_live(&mut self) {
        let now = self.clock.now();
        let waiting = |live: &Live| !live.machine.is_stuck();
        let mut names: Vec<String> = self
            .live
            .iter()
            .filter(|(_, live)| waiting(live))
            .map(|(id, live)| {
                let since = live.record.stop.as_ref().map_or(live.started_at, |stop| stop.at);
                format!(
                    "{id} ({} for {:.0} s)",
                    live.machine.worker_state().as_str(),
                    now.since(since).as_secs_f64()
                )
            })
            .chain(self.pending.keys().map(|id| format!("{id} (starting)")))
            .collect();
        names.sort();
        self.told.send_if_modified(|told| std::mem::replace(told, names.clone()) != names);
    }
}

/// The worker's own deadline for a start comes first, since it can name the silent device.
const START_MARGIN: Duration = Duration::from_secs(2);
