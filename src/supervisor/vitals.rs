//! What is measured for the agent's health, and its outcome. The disk, the journal and the devices are
//! looked at beside the actor, each with a deadline: what hangs is told, and holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use super::actor::Actor;
use super::blocking::apart;
use super::command::{Notice, ServingState};
use super::hotplug::Catalog;
use super::live::Live;
use super::refusal::Refusal;
use super::search::Found;
use crate::clock::MonoTime;
use crate::journal::Past;
use crate::session::device::FoundDevice;
use crate::session::health::{
    CaptureStage, DiskVitals, Health, HealthLimits, SessionVitals, SourceVitals, Vitals, evaluate, low_space,
};
use crate::session::machine::{Event, Phase};
use crate::session::{SessionId, SourceState};

/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_secs(5);
/// How often a journal that nobody writes to is tried.
const JOURNAL_EVERY: Duration = Duration::from_secs(30);
/// How often one that has failed is tried.
const FAILED_JOURNAL_EVERY: Duration = Duration::from_secs(5);
/// A worker may be without a link for this long.
const UNLINKED_MAX: Duration = Duration::from_secs(2);
/// Of the room that is low, so many times is enough again.
const ROOM_AGAIN: f64 = 1.25;
/// Searches for devices that may fail in a row on an idle host.
const PROBES_MISSED_MAX: u32 = 3;

/// What was looked at last, and when.
pub(super) struct HostVitals {
    disk: Option<Result<u64, String>>,
    journal: Option<String>,
    /// What was wrong with the journal when this daemon began.
    past: Option<String>,
    probe: Option<String>,
    disk_at: Looked,
    journal_at: Looked,
    probe_at: Looked,
    pub(super) catalog: Catalog,
    /// It was told that the disk is low.
    low_space: bool,
    /// When devices were last found, or held by sessions.
    found_at: MonoTime,
}

/// When something was looked at last.
#[derive(Clone, Copy)]
enum Looked {
    At(MonoTime),
    /// The look is under way.
    Now,
}

/// The outcome of a look.
pub(super) enum Look {
    Disk(Result<u64, String>),
    Journal(Option<String>),
    /// What is wrong with a search for devices, and what it has found if every driver has answered.
    Probe(Option<String>, Option<Vec<FoundDevice>>),
}

impl HostVitals {
    pub(super) fn new(now: MonoTime, past: &Past) -> Self {
        let at = Looked::At(now);
        Self {
            disk: None,
            journal: None,
            past: told(past),
            probe: None,
            disk_at: Looked::At(MonoTime::default()),
            journal_at: at,
            probe_at: at,
            catalog: Catalog::default(),
            low_space: false,
            found_at: now,
        }
    }
}

impl Look {
    /// How a search for devices went.
    pub(super) fn probe(found: &Result<Found, Refusal>) -> Self {
        match found {
            Ok(Found { devices, doubt: None }) => Self::Probe(None, Some(devices.clone())),
            Ok(Found { doubt, .. }) => Self::Probe(doubt.clone(), None),
            Err(refusal) => Self::Probe(Some(refusal.message.clone()), None),
        }
    }
}

impl Looked {
    /// Whether it is time to look again; the look begins then.
    fn is_due(&mut self, now: MonoTime, every: Duration) -> bool {
        let due = matches!(self, Self::At(at) if now.since(*at) >= every);
        if due {
            *self = Self::Now;
        }
        due
    }
}

impl Actor {
    /// Looks at what is due.
    pub(super) fn look_at_host(&mut self, now: MonoTime) {
        let notices = self.notices.clone();
        let tell = move |look: Look| async move {
            // An actor that has ended needs to know nothing.
            let _ = notices.send(Notice::HostLooked(look)).await;
        };
        if self.host.disk_at.is_due(now, DISK_EVERY) {
            let (library, tell) = (self.library.clone(), tell.clone());
            self.tasks.spawn(async move {
                let space = apart(move || library.space());
                let looked = match tokio::time::timeout(DISK_EVERY, space).await {
                    Ok(Ok(Ok((free, _)))) => Ok(free),
                    Ok(Ok(Err(error))) => Err(format!("media_dir can't be read: {error}; check its disk")),
                    Ok(Err(_)) | Err(_) => Err("the disk of media_dir gives no answer".to_owned()),
                };
                tell(Look::Disk(looked)).await;
            });
        }
        let every = if self.host.journal.is_some() { FAILED_JOURNAL_EVERY } else { JOURNAL_EVERY };
        if self.host.journal_at.is_due(now, every) {
            let (checked, limit, tell) = (self.journal.check(), self.settings.limits.journal, tell.clone());
            self.tasks.spawn(async move {
                let problem = match tokio::time::timeout(limit, checked).await {
                    Ok(Ok(Err(error))) => Some(Refusal::journal(&error).message),
                    Ok(Ok(Ok(())) | Err(_)) => None,
                    Err(_) => Some("the journal gives no answer: check the disk of state_dir".to_owned()),
                };
                tell(Look::Journal(problem)).await;
            });
        }
        let idle = self.live.is_empty() && self.pending.is_empty();
        if !idle {
            // No search is asked for while sessions hold devices: its age counts from their end on.
            self.host.found_at = now;
        }
        let every = match self.host.catalog.is_due(now) {
            true => Duration::ZERO,
            false if idle => self.settings.health.probe_every,
            false => Duration::MAX,
        };
        if self.host.probe_at.is_due(now, every) {
            self.host.catalog.searched();
            let probed = self.processes.probe(self.settings.limits.probe);
            self.tasks.spawn(async move {
                tell(Look::probe(&probed.await)).await;
            });
        }
    }

    pub(super) fn on_look(&mut self, look: Look) {
        let now = self.clock.now();
        match look {
            Look::Disk(disk) => {
                self.host.disk_at = Looked::At(now);
                self.host.disk = Some(disk);
                self.look_for_low_space();
            }
            Look::Journal(problem) => {
                self.host.journal_at = Looked::At(now);
                self.host.journal = problem;
            }
            Look::Probe(problem, found) => {
                self.note_probe(problem);
                if let Some(found) = found {
                    self.renew_catalog(found);
                }
            }
        }
    }

    /// Warns the log, once, and each session, once, while little room is left.
    fn look_for_low_space(&mut self) {
        let Some(Ok(free_bytes)) = self.host.disk else { return };
        let limit = self.settings.health.low_space;
        let left = DiskVitals { free_bytes }.seconds_left(self.bytes_per_second());
        if left >= limit.as_secs_f64() {
            // The rate of a session changes: not each of its changes is worth a line.
            self.host.low_space &= left < limit.as_secs_f64() * ROOM_AGAIN;
            return;
        }
        let warning = low_space(limit);
        if !std::mem::replace(&mut self.host.low_space, true) {
            tracing::warn!(free_bytes, seconds_left = left.round(), warning, "the disk is low");
        }
        for live in self.live.values_mut().filter(|live| live.machine.phase() == Phase::Working) {
            live.account.warn(warning.clone());
        }
    }

    /// A search for devices has ended, whoever asked for it.
    fn note_probe(&mut self, problem: Option<String>) {
        let now = self.clock.now();
        self.host.probe_at = Looked::At(now);
        if problem.is_none() {
            self.host.found_at = now;
        }
        self.host.probe = problem;
    }

    /// The journal has taken a record, or has not.
    pub(super) fn note_journal(&mut self, problem: Option<String>) {
        self.host.journal_at = Looked::At(self.clock.now());
        self.host.journal = problem;
    }

    /// A session whose media doesn't become durable is degraded, whatever its worker says.
    pub(super) fn judge_sources(&mut self, now: MonoTime) {
        let limit = self.settings.health.durable_age;
        let judged: Vec<(SessionId, bool)> = self
            .live
            .iter()
            .filter(|(_, live)| live.machine.phase() == Phase::Working)
            .map(|(id, live)| {
                let stale = live.account.sources.iter().any(|source| {
                    source.state != SourceState::Released && live.durable_age(source, now) > limit
                });
                (id.clone(), stale || live.account.is_degraded())
            })
            .collect();
        for (id, degraded) in judged {
            self.feed(&id, Event::Degraded(degraded));
        }
    }

    /// Tells who follows the agent's health, if it has changed.
    pub(super) fn tell_health(&self) {
        let health = self.health();
        self.told_health.send_if_modified(|told| {
            let news = **told != health;
            if news {
                *told = Arc::new(health.clone());
            }
            news
        });
    }

    /// How well the agent does what it promises.
    pub(super) fn health(&self) -> Health {
        let settings = &self.settings.health;
        let limits = HealthLimits {
            durable_age: settings.durable_age,
            unlinked: UNLINKED_MAX,
            low_space: settings.low_space,
            probe_age: settings.probe_every * PROBES_MISSED_MAX,
        };
        evaluate(&self.vitals(self.clock.now()), &limits)
    }

    fn vitals(&self, now: MonoTime) -> Vitals {
        let state = self.admission.state();
        let stuck = self.live.iter().filter(|(_, live)| live.machine.is_stuck());
        let stuck = stuck.map(|(id, live)| {
            let released = live.machine.is_released();
            let refusal = if released { Refusal::stuck(id) } else { Refusal::not_released(id) };
            (id.clone(), refusal.message)
        });
        let mut unsaved: Vec<SessionId> =
            self.unsaved.records().map(|record| record.spec.id().clone()).collect();
        let mut sessions: Vec<SessionVitals> =
            self.live.iter().map(|(id, live)| live.vitals(id, now)).collect();
        // What is told must not change by itself.
        unsaved.sort();
        sessions.sort_by(|one, other| one.id.cmp(&other.id));
        Vitals {
            stopping: state == ServingState::Stopping,
            closed: (state != ServingState::Serving).then(|| state.reason().to_owned()),
            sessions,
            stuck: stuck.collect(),
            unsaved,
            unremoved: self.shelf.unremoved(),
            journal: self.host.journal.clone(),
            past: self.host.past.clone(),
            disk: self.host.disk.clone().map(|disk| disk.map(|free_bytes| DiskVitals { free_bytes })),
            bytes_per_second: self.bytes_per_second(),
            probe_age: now.since(self.host.found_at),
            probe: self.host.probe.clone(),
        }
    }
}

/// What an operator has to know of the journal that was found.
fn told(past: &Past) -> Option<String> {
    let what = match past {
        Past::Closed | Past::CutOff | Past::First => return None,
        Past::Missing => "there was no journal beside the media".to_owned(),
        Past::Damaged(damage) => format!(
            "the journal was damaged ({}) and is kept as {}: {} records were carried over, {} can't be read{}",
            damage.problem,
            damage.kept_path.display(),
            damage.carried,
            damage.unreadable.len(),
            if damage.has_more { ", and more may be lost" } else { "" }
        ),
    };
    Some(format!("{what}; sessions are found again by their media. A restart takes this note away"))
}

impl Live {
    fn vitals(&self, id: &SessionId, now: MonoTime) -> SessionVitals {
        let stage = match self.machine.phase() {
            Phase::Working => CaptureStage::Working,
            Phase::Restarting => CaptureStage::Restarting,
            _ => CaptureStage::Changing,
        };
        let sources = self.account.sources.iter().map(|source| SourceVitals {
            device: source.receipt.device.clone(),
            state: source.state,
            reason: source.reason.clone(),
            durable_age: self.durable_age(source, now),
        });
        let unlinked = self.link.is_none().then(|| now.since(self.heard_at));
        SessionVitals { id: id.clone(), stage, unlinked, sources: sources.collect() }
    }
}
