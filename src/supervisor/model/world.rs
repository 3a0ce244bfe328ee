//! The host of one history: its clock, its processes, who has which device open, and what is in the files.
//! What it sees is the truth that the daemon is judged by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::plan::Plan;
use super::seeds::Chance;
use super::worker;
use crate::clock::{Clock, MonoTime, WallTime};
use crate::journal::WorkerIdentity;
use crate::library::Library;
use crate::link::{RepairReport, RepairedFile};
use crate::session::device::{DeviceKey, FoundDevice, MediaType};
use crate::session::{MediaFile, SessionId};
use crate::supervisor::command::Notice;
use crate::supervisor::processes::{Outcome, Processes, RepairOrder, Worker};
use crate::supervisor::refusal::{Refusal, RefusalKind};
use crate::supervisor::search::Found;

const BOOT: &str = "boot";

/// Shared by all that lives on the host.
#[derive(Clone)]
pub(super) struct World(Arc<Shared>);

struct Shared {
    begun: Instant,
    facts: Mutex<Facts>,
    pub(super) library: Library,
}

/// What is so.
pub(super) struct Facts {
    pub(super) chance: Chance,
    /// What happened, a line each.
    pub(super) history: Vec<String>,
    /// What must not have happened.
    pub(super) wrongs: Vec<String>,
    /// By how much the wall clock was set, in nanoseconds.
    pub(super) wall_step: i128,
    /// The link socket, while a daemon listens.
    pub(super) link: Option<mpsc::Sender<Notice>>,
    pub(super) connections: u64,
    processes: BTreeMap<u32, Process>,
    /// Who has a device open.
    pub(super) open: BTreeMap<DeviceKey, u32>,
    pub(super) media: BTreeMap<SessionId, Media>,
    /// What is stuck in the kernel may end.
    pub(super) healed: watch::Sender<bool>,
    /// What the next workers will do, where that is not left to chance.
    pub(super) plans: VecDeque<Plan>,
    /// The journal has refused something.
    pub(super) refused: bool,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    /// Repairs that gave no report.
    pub(super) unrepaired: BTreeSet<SessionId>,
}

struct Process {
    session: SessionId,
    signals: mpsc::Sender<Signal>,
    ended: watch::Receiver<Option<String>>,
}

/// What became of a session's frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Media {
    /// Handed over by the driver, by the source.
    pub(super) captured: BTreeMap<String, u64>,
    /// In the files, by the source.
    pub(super) files: BTreeMap<u32, BTreeMap<String, u64>>,
    /// A worker has said something of it that is not so, or could not be understood.
    pub(super) lied: bool,
}

impl Media {
    pub(super) fn written(&self, source: &str) -> u64 {
        self.files.values().filter_map(|units| units.get(source)).sum()
    }
}

impl World {
    pub(super) fn new(seed: u64, library: Library) -> Self {
        let facts = Facts {
            chance: Chance::of(seed),
            history: Vec::new(),
            wrongs: Vec::new(),
            wall_step: 0,
            link: None,
            connections: 0,
            processes: BTreeMap::new(),
            open: BTreeMap::new(),
            media: BTreeMap::new(),
            healed: watch::channel(false).0,
            plans: VecDeque::new(),
            refused: false,
            calm: false,
            unrepaired: BTreeSet::new(),
        };
        Self(Arc::new(Shared { begun: Instant::now(), facts: Mutex::new(facts), library }))
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.facts.lock().expect("no holder of this lock panics")
    }

    pub(super) fn library(&self) -> &Library {
        &self.0.library
    }

    pub(super) fn tell(&self, what: impl std::fmt::Display) {
        let seconds = self.0.begun.elapsed().as_secs_f64();
        self.facts().history.push(format!("{seconds:>9.3}  {what}"));
    }

    /// What must not be.
    pub(super) fn wrong(&self, what: impl std::fmt::Display) {
        self.tell(format!("WRONG: {what}"));
        self.facts().wrongs.push(what.to_string());
    }

    pub(super) fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// Processes of the session that have not ended.
    pub(super) fn living(&self, session: &SessionId) -> Vec<u32> {
        let facts = self.facts();
        let own =
            facts.processes.iter().filter(|(_, it)| it.session == *session && it.ended.borrow().is_none());
        own.map(|(pid, _)| *pid).collect()
    }

    /// Devices that the session's processes have open.
    pub(super) fn held(&self, session: &SessionId) -> Vec<DeviceKey> {
        let living = self.living(session);
        let facts = self.facts();
        facts.open.iter().filter(|(_, pid)| living.contains(pid)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn open(&self, pid: u32, keys: &[DeviceKey]) {
        for key in keys {
            let other = self.facts().open.insert(key.clone(), pid);
            if let Some(other) = other {
                self.wrong(format!("process {pid} opens {key}, which process {other} has open"));
            }
        }
    }

    pub(super) fn close(&self, pid: u32) {
        self.facts().open.retain(|_, holder| *holder != pid);
    }

    /// The journal has refused what dead workers have left, and the daemon that knew it is gone: the next one
    /// can't tell all that was captured.
    pub(super) fn forget_accounts(&self) {
        let mut facts = self.facts();
        let sessions: Vec<SessionId> = facts.media.keys().cloned().collect();
        facts.media.values_mut().for_each(|media| media.lied = true);
        facts.unrepaired.extend(sessions);
    }

    /// Lets everything that is stuck come free.
    pub(super) fn heal(&self) {
        self.facts().calm = true;
        self.facts().healed.send_replace(true);
    }
}

/// Time as tokio's paused clock has it.
impl Clock for World {
    fn now(&self) -> MonoTime {
        MonoTime::from_nanos(1_000_000_000) + self.0.begun.elapsed()
    }

    fn wall(&self) -> WallTime {
        let passed = i128::try_from(self.0.begun.elapsed().as_nanos()).expect("histories are short");
        WallTime::from_nanos(1_800_000_000_000_000_000 + passed + self.facts().wall_step)
    }

    fn boot(&self) -> u64 {
        self.now().nanos()
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// A worker, as its daemon has hold of it.
struct Held {
    pid: u32,
    signals: mpsc::Sender<Signal>,
}

impl Worker for Held {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn identity(&self) -> WorkerIdentity {
        WorkerIdentity { pid: self.pid, start_time: u64::from(self.pid), boot_id: BOOT.to_owned() }
    }

    fn signal(&self, _session: &str, signal: Signal) {
        // One that has ended needs none.
        let _ = self.signals.try_send(signal);
    }
}

async fn end_of(mut ended: watch::Receiver<Option<String>>) -> String {
    let status = ended.wait_for(Option::is_some).await;
    status.ok().and_then(|status| status.clone()).unwrap_or_else(|| "ended".to_owned())
}

fn failed(reason: &str) -> Refusal {
    Refusal::new(RefusalKind::Internal, reason, "the model made it fail")
}

impl Processes for World {
    fn boot_id(&self) -> String {
        BOOT.to_owned()
    }

    fn launch(&self, session: &SessionId) -> std::io::Result<(Box<dyn Worker>, Outcome<String>)> {
        let mut facts = self.facts();
        let fails = !facts.calm && facts.chance.once_in(40);
        let chance = Chance::of(facts.chance.any());
        let pid = 100 + u32::try_from(facts.processes.len()).expect("processes are few");
        let (signals, inbox) = mpsc::channel(8);
        let (told, ended) = watch::channel(None);
        if !fails {
            let process =
                Process { session: session.clone(), signals: signals.clone(), ended: ended.clone() };
            facts.processes.insert(pid, process);
        }
        drop(facts);
        if fails {
            self.tell(format!("no worker can be made for {session}"));
            return Err(std::io::Error::other("the model made it fail"));
        }
        self.tell(format!("{session}: worker {pid} is made"));
        let world = self.clone();
        let session = session.clone();
        tokio::spawn(async move {
            let status = worker::live(world.clone(), chance, pid, session.clone(), inbox).await;
            world.close(pid);
            world.tell(format!("{session}: worker {pid} has ended: {status}"));
            // Nobody may wait for it.
            let _ = told.send(Some(status));
        });
        Ok((Box::new(Held { pid, signals }), Box::pin(end_of(ended))))
    }

    fn adopt(
        &self,
        session: &SessionId,
        known: Option<&WorkerIdentity>,
    ) -> Option<(Box<dyn Worker>, Outcome<String>)> {
        let running = self.living(session);
        let known = known.map(|identity| identity.pid).filter(|pid| running.contains(pid));
        let pid = known.or_else(|| running.first().copied())?;
        let facts = self.facts();
        let process = facts.processes.get(&pid)?;
        let held = Held { pid, signals: process.signals.clone() };
        Some((Box::new(held), Box::pin(end_of(process.ended.clone()))))
    }

    fn probe(&self, timeout: Duration) -> Outcome<Result<Found, Refusal>> {
        let mut facts = self.facts();
        let calm = facts.calm;
        let (fails, hangs) = (facts.chance.once_in(25) && !calm, facts.chance.once_in(25) && !calm);
        let takes = millis(&mut facts.chance, 1..400);
        drop(facts);
        Box::pin(async move {
            sleep(if hangs { timeout } else { takes }).await;
            if fails || hangs { Err(failed("PROBE_FAILED")) } else { Ok(found()) }
        })
    }

    fn repair(&self, order: RepairOrder, timeout: Duration) -> Outcome<Result<RepairReport, Refusal>> {
        let (world, mut facts) = (self.clone(), self.facts());
        let calm = facts.calm;
        let (fails, hangs) = (facts.chance.once_in(12) && !calm, facts.chance.once_in(12) && !calm);
        let takes = millis(&mut facts.chance, 1..2000);
        drop(facts);
        world.tell(format!("{}: a repair begins, before {:?}", order.session, order.before));
        Box::pin(async move {
            // The machine's deadline comes first, or the process is given up: never both at once.
            sleep(if hangs { timeout + Duration::from_millis(7) } else { takes }).await;
            if fails || hangs {
                world.facts().unrepaired.insert(order.session.clone());
                world.tell(format!("{}: a repair fails", order.session));
                return Err(failed("REPAIR_FAILED"));
            }
            Ok(world.report(&order))
        })
    }
}

impl World {
    /// What a repair finds.
    fn report(&self, order: &RepairOrder) -> RepairReport {
        let facts = self.facts();
        let files = facts.media.get(&order.session).map(|media| media.files.clone()).unwrap_or_default();
        let before =
            files.into_iter().filter(|(number, _)| order.before.is_none_or(|before| *number < before));
        let files = before.map(|(number, units)| RepairedFile {
            file: file(self.library(), &order.session, number, true),
            units: units.into_iter().collect(),
            cut_bytes: 0,
            ends: Vec::new(),
            tracks: Vec::new(),
        });
        RepairReport { files: files.collect(), failures: Vec::new() }
    }
}

/// A media file, as it is told.
pub(super) fn file(library: &Library, session: &SessionId, number: u32, repaired: bool) -> MediaFile {
    let path = library.session_dir(session).join(format!("{session}-{number:04}.mkv"));
    MediaFile {
        path: path.display().to_string(),
        bytes: 1000,
        blake3: String::new(),
        duration_seconds: 1.0,
        repaired,
    }
}

/// The cameras that a search finds.
fn found() -> Found {
    let camera = |number: u32| FoundDevice {
        key: DeviceKey(format!("camera:{number}")),
        name: format!("Camera {number}"),
        media: MediaType::Video,
        node: format!("/dev/video{number}"),
        bus: String::new(),
        by_path: None,
        by_id: None,
        serial: None,
        formats: Vec::new(),
    };
    Found { devices: vec![camera(0), camera(1)], doubt: None }
}

/// So many milliseconds.
pub(super) fn millis(chance: &mut Chance, range: Range<u64>) -> Duration {
    Duration::from_millis(chance.within(range))
}
