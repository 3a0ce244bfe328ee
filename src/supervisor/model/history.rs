//! One history: what callers do, what happens to the host, and the end, at which everything has to be settled.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::calls::{Calls, JOURNAL_MAX};
use super::daemon::{Daemon, Mood};
use super::seeds::Chance;
use super::world::{World, millis};
use crate::clock::Clock;
use crate::config::Settings;
use crate::journal::played::Rows;
use crate::library::Library;
use crate::session::device::{FormatWish, MediaType};
use crate::session::machine::StopMode;
use crate::session::resolve::{ConfiguredDevice, Place};
use crate::session::{SessionId, SessionSpec, StartOptions};
use crate::supervisor::command::{AdmissionOrder, StopRequest, WaitFor};

/// From the last call until everything is settled: every phase of a session, and the journal, at their longest.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(240);

pub(super) struct History {
    pub(super) world: World,
    pub(super) calls: Calls,
    pub(super) chance: Chance,
    pub(super) rows: Rows,
    pub(super) mood: watch::Sender<Mood>,
    pub(super) settings: Settings,
    /// Sessions that somebody has asked to start.
    pub(super) begun: BTreeSet<SessionId>,
}

/// Plays the history of `seed`.
pub(super) fn play(seed: u64) -> Result<(), String> {
    play_with(seed, |history| Box::pin(history.run()))
}

/// Plays what `script` says.
pub(super) fn play_with(
    seed: u64,
    script: impl FnOnce(History) -> Pin<Box<dyn Future<Output = ()>>>,
) -> Result<(), String> {
    let dir = directory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let (wrongs, told) = runtime.block_on(async {
        let world = World::new(seed, Library::new(dir.path().join("media"), 0o640, None));
        std::fs::create_dir(world.library().media_dir()).expect("there is room for a directory");
        let rows = Rows::none();
        let calls = Calls::new(world.clone(), rows.clone());
        let now = Instant::now();
        let mood = watch::channel(Mood { stands_until: now, refuses_until: now, refuses_all: false }).0;
        let chance = Chance::of(seed ^ 0x5eed);
        let settings = settings(&world);
        let history =
            History { world: world.clone(), calls, chance, rows, mood, settings, begun: BTreeSet::new() };
        script(history).await;
        let facts = world.facts();
        (facts.wrongs.clone(), facts.history.clone())
    });
    match wrongs.first() {
        None => Ok(()),
        Some(wrong) => Err(format!("{}\n\n{wrong}", told.join("\n"))),
    }
}

/// In memory, where the host has such a place.
fn directory() -> tempfile::TempDir {
    tempfile::TempDir::new_in("/dev/shm").or_else(|_| tempfile::TempDir::new()).expect("there is room")
}

fn settings(world: &World) -> Settings {
    let media_dir = world.library().media_dir().to_owned();
    let device = |id: &str| ConfiguredDevice {
        id: id.to_owned(),
        name: String::new(),
        media: MediaType::Video,
        place: Place::Synthetic(Vec::new()),
        wish: FormatWish::default(),
    };
    Settings { media_dir, devices: vec![device("one"), device("two")], ..Settings::default() }
}

impl History {
    async fn run(mut self) {
        let mut daemon = self.begin().await;
        for _ in 0..self.chance.within(6..30) {
            let wait = match self.chance.within(0..12) {
                0 => millis(&mut self.chance, 1000..25_000),
                1 => millis(&mut self.chance, 20_000..70_000),
                2..=5 => millis(&mut self.chance, 0..4),
                _ => millis(&mut self.chance, 0..2500),
            };
            sleep(wait).await;
            self.calls.judge_overdue();
            daemon = self.happen(daemon).await;
            if !self.world.facts().wrongs.is_empty() {
                return;
            }
        }
        self.settle(daemon).await;
    }

    async fn happen(&mut self, daemon: Daemon) -> Daemon {
        let handle = daemon.agent.handle.clone();
        match self.chance.within(0..40) {
            0..=13 => {
                let (spec, options) = self.session();
                for _ in 0..self.times() {
                    self.calls.start(&handle, spec.clone(), options.clone());
                }
            }
            14..=24 => {
                let id = self.started_id();
                for _ in 0..self.times() {
                    let request = self.stop_request();
                    self.calls.stop(&handle, id.clone(), request);
                }
            }
            25..=27 => {
                let id = self.id();
                self.calls.get(&handle, id);
            }
            28 => self.calls.list(&handle),
            29..=30 => self.calls.look_at_agent(&handle),
            31 => self.calls.abandon_one(),
            32..=34 => self.trouble_journal(),
            35 => {
                let order = self.chance.one_of(&[
                    AdmissionOrder::Drain,
                    AdmissionOrder::Undrain,
                    AdmissionOrder::HandOver,
                ]);
                self.world.tell(format!("order {order:?}"));
                // One that is going takes no order.
                let _ = handle.order(order).await;
            }
            36 => {
                let hours = i128::from(self.chance.within(0..5)) - 2;
                self.world.tell(format!("the wall clock is set by {hours} h"));
                self.world.facts().wall_step += hours * 3_600_000_000_000;
            }
            37 if self.chance.once_in(3) => {
                drop(handle);
                self.end(daemon).await;
                return self.begin_again().await;
            }
            _ if self.chance.once_in(2) => {
                drop(handle);
                self.kill(daemon).await;
                return self.begin_again().await;
            }
            _ => {}
        }
        daemon
    }

    async fn begin_again(&mut self) -> Daemon {
        let down = if self.chance.once_in(4) { 0..40_000 } else { 0..900 };
        sleep(millis(&mut self.chance, down)).await;
        self.begin().await
    }

    fn times(&mut self) -> u64 {
        if self.chance.once_in(5) { self.chance.within(2..5) } else { 1 }
    }

    /// Mostly of a session that was begun: a stop of another one keeps it from starting.
    fn started_id(&mut self) -> SessionId {
        let begun: Vec<SessionId> = self.begun.iter().cloned().collect();
        if begun.is_empty() || self.chance.once_in(12) { self.id() } else { self.chance.one_of(&begun) }
    }

    fn id(&mut self) -> SessionId {
        let number = self.chance.within(0..5);
        format!("s{number}").parse().expect("an id")
    }

    fn session(&mut self) -> (SessionSpec, StartOptions) {
        let id = self.id();
        self.begun.insert(id.clone());
        let device = |chance: &mut Chance| chance.one_of(&["one", "one", "two", "camera:0", "camera:1"]);
        let mut sources = vec![
            json!({ "id": "a", "type": "video", "device": "local_camera", "deviceId": device(&mut self.chance) }),
        ];
        if self.chance.once_in(3) {
            sources.push(json!({ "id": "b", "type": "video", "device": "local_camera", "deviceId": device(&mut self.chance) }));
        }
        let mut session = json!({ "_id": id, "sources": sources });
        if self.chance.once_in(8) {
            let expires = self.world.wall() + millis(&mut self.chance, 0..20_000);
            session["meta"] = json!({ "expires": expires });
        }
        let max_duration = self.chance.once_in(8).then(|| millis(&mut self.chance, 1..20_000));
        (
            SessionSpec::from_json(session).expect("a session"),
            StartOptions { max_duration, ..StartOptions::default() },
        )
    }

    fn stop_request(&mut self) -> StopRequest {
        StopRequest {
            mode: self.chance.one_of(&[StopMode::Drain, StopMode::Drain, StopMode::Drain, StopMode::Abort]),
            drain: self.chance.once_in(4).then(|| millis(&mut self.chance, 1..15_000)),
            wait: self.chance.one_of(&[WaitFor::Finalized, WaitFor::Finalized, WaitFor::Released]),
            key: self.chance.one_of(&[None, Some("k".to_owned()), Some("l".to_owned())]),
        }
    }

    fn trouble_journal(&mut self) {
        let now = Instant::now();
        let longest = u64::try_from(JOURNAL_MAX.as_millis()).unwrap_or(0) - 1000;
        let mut mood = *self.mood.borrow();
        if self.chance.once_in(2) {
            let stands = millis(&mut self.chance, 0..longest);
            self.world.tell(format!("the journal stands for {stands:?}"));
            mood.stands_until = now + stands;
        } else {
            let refuses = millis(&mut self.chance, 0..20_000);
            mood.refuses_all = self.chance.once_in(3);
            let what = if mood.refuses_all { "everything" } else { "writes" };
            self.world.tell(format!("the journal refuses {what} for {refuses:?}"));
            mood.refuses_until = now + refuses;
            self.world.facts().refused = true;
        }
        self.mood.send_replace(mood);
    }

    /// The faults end. Everything that was begun has to come to its end; what was said has to hold.
    pub(super) async fn settle(mut self, daemon: Daemon) {
        self.world.tell("the faults end");
        self.world.heal();
        let now = Instant::now();
        self.mood.send_replace(Mood { stands_until: now, refuses_until: now, refuses_all: false });
        let until = Instant::now() + SETTLED_AFTER;
        let health = daemon.agent.handle.health();
        let unsettled = |history: &Self| {
            history.calls.waiting() > 0 || !history.unfinished().is_empty() || !health.borrow().is_serving()
        };
        while Instant::now() < until && unsettled(&self) {
            sleep(Duration::from_millis(500)).await;
        }
        self.calls.judge_overdue();
        let waiting = self.calls.waiting();
        self.world.require(waiting == 0, || format!("{waiting} calls are not answered"));
        let agent = daemon.agent.handle.agent().await;
        self.world.require(agent.as_ref().is_ok_and(|agent| agent.health.is_serving()), || {
            format!("nothing is wrong any more, and health says {agent:?}")
        });
        self.judge_stopped();
        self.end(daemon).await;
        let daemon = self.begin().await;
        self.judge_survival(&daemon).await;
        self.end(daemon).await;
        // The repair of a daemon that was killed may still run.
        sleep(SETTLED_AFTER).await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        self.world.require(tasks == 0, || format!("{tasks} tasks are left"));
    }

    /// Whoever was told of a session that is to stop finds it finished.
    fn judge_stopped(&self) {
        let known = self.calls.answered().known.clone();
        for id in &known {
            self.world.require(self.rows.record(id).is_some(), || format!("the journal doesn't know {id}"));
        }
        let unfinished = self.unfinished();
        self.world.require(unfinished.is_empty(), || {
            format!("{unfinished:?} were stopped, and the journal has no receipt of them")
        });
    }

    /// Sessions that were stopped, and are not finished by the journal.
    fn unfinished(&self) -> Vec<SessionId> {
        let is_finished = |id: &SessionId| self.rows.record(id).is_some_and(|record| record.is_finished());
        let stopped = self.calls.answered().stopped.clone();
        stopped.into_iter().filter(|id| !is_finished(id)).collect()
    }

    /// The next daemon says the same, every device is free, and nothing runs.
    async fn judge_survival(&self, daemon: &Daemon) {
        let known = self.calls.answered().known.clone();
        for id in known {
            match daemon.agent.handle.get(id.clone()).await {
                Ok(view) => {
                    self.world.require(view.finished, || format!("{id} goes on after a shutdown"));
                    self.calls.see(&view);
                }
                Err(refusal) => self.world.wrong(format!("{id}: {refusal}")),
            }
        }
        let devices = daemon.agent.handle.devices().await.unwrap_or_default();
        self.world.require(devices.len() == 4, || format!("these devices are found: {devices:?}"));
        let held: Vec<_> = devices.iter().filter(|device| device.held_by.is_some()).collect();
        self.world.require(held.is_empty(), || format!("these devices are leased: {held:?}"));
        let open = self.world.facts().open.clone();
        self.world.require(open.is_empty(), || format!("these devices are open: {open:?}"));
    }
}
