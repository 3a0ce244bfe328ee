//! A worker as the real one behaves, and as it behaves on bad days: it dials late or never, crashes, hangs,
//! says things twice or on an old connection, or ends before its last word is heard.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::{Ends, Plan, Start};
use super::seeds::Chance;
use super::world::{World, file, millis};
use crate::clock::{Clock, MonoTime};
use crate::link::message::{Finished, Released, StartFailed, Stop, ToWorker, from_worker::Body};
use crate::link::{LAST_ACCOUNT_NAME, WorkerSettings};
use crate::session::device::DeviceKey;
use crate::session::{EndReason, SessionId};
use crate::supervisor::command::Notice;

pub(super) const REDIAL: Duration = Duration::from_millis(200);

/// How a process ends before its time.
pub(super) enum End {
    Killed,
    Crashed,
    Refused,
}

/// Frames of one source.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) captured: u64,
    pub(super) written: u64,
    pub(super) dropped: u64,
    pub(super) lost: u64,
}

pub(super) struct Link {
    pub(super) connection: u64,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) orders: mpsc::Receiver<ToWorker>,
}

pub(super) struct Life {
    pub(super) world: World,
    pub(super) chance: Chance,
    pub(super) plan: Plan,
    pub(super) pid: u32,
    pub(super) session: SessionId,
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) link: Option<Link>,
    /// Connections that were lost and of which the daemon doesn't know yet.
    pub(super) old: Vec<(u64, mpsc::Sender<Notice>)>,
    pub(super) heard_at: Instant,
    pub(super) dialled_at: Option<Instant>,
    pub(super) settings: Option<WorkerSettings>,
    pub(super) stop: Option<Stop>,
    pub(super) terminated: bool,
    pub(super) hanging: bool,
    pub(super) counts: Vec<Counts>,
    pub(super) number: u32,
    pub(super) origin: MonoTime,
    pub(super) working: bool,
    pub(super) ending: Option<(EndReason, u64)>,
    pub(super) released_at: Option<u64>,
    pub(super) complete: bool,
}

/// Lives, and tells how it ended.
pub(super) async fn live(
    world: World,
    mut chance: Chance,
    pid: u32,
    session: SessionId,
    signals: mpsc::Receiver<Signal>,
) -> String {
    let planned = world.facts().plans.pop_front();
    let calm = world.facts().calm;
    let plan = planned.unwrap_or_else(|| Plan::draw(&mut chance, calm));
    let mut life = Life {
        world,
        chance,
        plan,
        pid,
        session,
        signals,
        link: None,
        old: Vec::new(),
        heard_at: Instant::now(),
        dialled_at: None,
        settings: None,
        stop: None,
        terminated: false,
        hanging: false,
        counts: Vec::new(),
        number: 0,
        origin: MonoTime::default(),
        working: false,
        ending: None,
        released_at: None,
        complete: false,
    };
    let end = life.run().await;
    let status = match end {
        Ok(()) => "exit status: 0",
        Err(End::Refused) => "exit status: 1",
        Err(End::Crashed) => "signal: 11 (SIGSEGV)",
        Err(End::Killed) => "signal: 9 (SIGKILL)",
    };
    life.world.close(pid);
    if life.plan.link_goes_first {
        life.hang_up().await;
        status.to_owned()
    } else {
        // The process is reaped while its last words are still on the link.
        let status = status.to_owned();
        tokio::spawn(async move {
            sleep(Duration::from_millis(2)).await;
            life.hang_up().await;
        });
        status
    }
}

impl Life {
    async fn run(&mut self) -> Result<(), End> {
        self.pause(self.plan.dials_after).await?;
        self.be_taken_on().await?;
        let keys = self.sources(DeviceKey::clone);
        self.world.open(self.pid, &keys);
        let dir = self.world.library().session_dir(&self.session);
        std::fs::create_dir_all(&dir).expect("there is room for it");
        // What an earlier worker said of its end is not this one's. Mostly there is nothing.
        let _ = std::fs::remove_file(dir.join(LAST_ACCOUNT_NAME));
        self.counts = vec![Counts::default(); keys.len()];
        self.pause(self.plan.works_after).await?;
        match self.plan.start {
            Start::Fails => {
                self.world.close(self.pid);
                self.say(Body::StartFailed(StartFailed {
                    reason: "DEVICE_MISSING".to_owned(),
                    message: "the model made it fail".to_owned(),
                    ..StartFailed::default()
                }))
                .await;
                self.pause(Duration::from_millis(3)).await?;
                return Err(End::Refused);
            }
            Start::Crashes => return Err(End::Crashed),
            Start::Hangs => self.hang().await?,
            Start::Works | Start::WrongVersion | Start::NeverDials => {}
        }
        if self.stop.is_none() && !self.terminated {
            self.begin().await;
            self.capture().await?;
        }
        self.drain().await
    }

    /// Waits, and minds signals, orders and the link meanwhile. A stop or SIGTERM ends the wait.
    async fn pause(&mut self, length: Duration) -> Result<(), End> {
        let until = Instant::now() + length;
        let was = (self.stop.is_some(), self.terminated);
        while Instant::now() < until && was == (self.stop.is_some(), self.terminated) {
            self.hear(until).await?;
        }
        Ok(())
    }

    pub(super) async fn hear(&mut self, until: Instant) -> Result<(), End> {
        let orders = async {
            match &mut self.link {
                Some(link) => link.orders.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => return self.on_signal(signal).await,
            order = orders => match order.and_then(|order| order.body) {
                Some(body) => return self.on_order(body),
                None => self.lose_link(),
            },
            () = sleep_until(until) => {}
        }
        Ok(())
    }

    async fn on_signal(&mut self, signal: Signal) -> Result<(), End> {
        self.world.tell(format!("{}: worker {} gets {signal:?}", self.session, self.pid));
        if signal == Signal::TERM {
            self.terminated |= self.plan.minds_term || !self.hanging;
            return Ok(());
        }
        match self.plan.outlives_kill {
            Some(length) => sleep(length).await,
            None => {
                self.world.tell(format!("{}: worker {} is stuck in the kernel", self.session, self.pid));
                let mut healed = self.world.facts().healed.subscribe();
                // The world outlives its workers.
                let _ = healed.wait_for(|healed| *healed).await;
            }
        }
        Err(End::Killed)
    }

    pub(super) fn sources<T>(&self, of: impl Fn(&DeviceKey) -> T) -> Vec<T> {
        let settings = self.settings.as_ref().expect("it was taken on");
        settings.sources.iter().map(|source| of(&source.device.key)).collect()
    }

    /// Every source has delivered.
    async fn begin(&mut self) {
        let settings = self.settings.clone().expect("it was taken on");
        self.number = {
            let mut facts = self.world.facts();
            let media = facts.media.entry(self.session.clone()).or_default();
            let number = media.files.keys().max().map_or(1, |last| last + 1);
            media.files.insert(number, BTreeMap::new());
            number
        };
        let path = file(self.world.library(), &self.session, self.number, false).path;
        std::fs::write(path, b"").expect("there is room for a file");
        self.origin = settings.origin.unwrap_or_else(|| self.world.now());
        self.working = true;
        self.say_working().await;
    }

    async fn hang(&mut self) -> Result<(), End> {
        self.hanging = true;
        while !self.terminated {
            self.hear(Instant::now() + Duration::from_secs(5)).await?;
        }
        self.hanging = false;
        Ok(())
    }

    pub(super) fn end(&mut self, reason: EndReason) {
        if self.ending.is_none() && self.stop.is_none() {
            self.world.tell(format!("{}: worker {} ends by itself: {reason}", self.session, self.pid));
            let at = self.world.now().nanos();
            self.ending = Some((reason, at));
            self.stop = Some(Stop { stop_at: at, abort: false });
        }
    }

    async fn capture(&mut self) -> Result<(), End> {
        let begun = Instant::now();
        let due = |after: Option<Duration>| after.is_some_and(|after| begun.elapsed() >= after);
        let grace = self.settings.as_ref().map_or(REDIAL, |settings| settings.orphan_grace);
        while self.stop.is_none() && !self.terminated {
            self.take_frames();
            self.report().await;
            let pace = millis(&mut self.chance, 180..900);
            self.pause(pace).await?;
            if self.link.is_none() {
                self.dial().await;
            }
            if due(self.plan.loses_link_after) {
                self.plan.loses_link_after = None;
                self.lose_link();
            }
            if due(self.plan.crashes_after) {
                return Err(End::Crashed);
            }
            if due(self.plan.hangs_after) {
                self.hang().await?;
            }
            if self.heard_at.elapsed() > grace {
                self.end(EndReason::Orphaned);
                self.tell_again().await;
            }
            if let Some((_, reason)) = self.plan.ends_after.filter(|(after, _)| due(Some(*after))) {
                self.end(reason);
                self.tell_again().await;
            }
        }
        Ok(())
    }

    /// Frames come, most become durable, some are refused by the queue.
    fn take_frames(&mut self) {
        let ids: Vec<String> = self.source_ids();
        for (counts, id) in self.counts.iter_mut().zip(ids) {
            let (came, dropped) = (self.chance.within(1..30), self.chance.within(0..2));
            counts.captured += came + dropped;
            counts.dropped += dropped;
            let waiting = counts.captured - counts.dropped - counts.written;
            let durable = self.chance.within(0..waiting + 1);
            counts.written += durable;
            let mut facts = self.world.facts();
            let media = facts.media.entry(self.session.clone()).or_default();
            *media.captured.entry(id.clone()).or_default() += came + dropped;
            *media.files.entry(self.number).or_default().entry(id).or_default() += durable;
        }
    }

    pub(super) fn source_ids(&self) -> Vec<String> {
        let settings = self.settings.as_ref().expect("it was taken on");
        settings.sources.iter().map(|source| source.id.clone()).collect()
    }

    async fn drain(&mut self) -> Result<(), End> {
        if self.stop.is_none() {
            self.end(EndReason::AgentShutdown);
            self.tell_again().await;
        }
        match self.plan.end {
            Ends::Hangs if !self.terminated => self.hang().await?,
            Ends::Crashes => return Err(End::Crashed),
            _ => {}
        }
        self.pause_through(self.plan.drains_for).await?;
        self.world.close(self.pid);
        let at = self.world.now().nanos();
        self.released_at = Some(at);
        self.say(Body::Released(Released { at })).await;
        self.pause_through(self.plan.drains_for / 4).await?;
        if self.plan.end == Ends::CrashesReleased {
            return Err(End::Crashed);
        }
        self.settle();
        if self.plan.end == Ends::Unheard {
            self.hang_up().await;
        }
        self.leave_account();
        let account = serde_json::to_vec(&self.account()).expect("an account is JSON");
        self.say(Body::Finished(Finished { account })).await;
        self.pause_through(Duration::from_millis(3)).await
    }

    /// Waits also through further stops and SIGTERM.
    async fn pause_through(&mut self, length: Duration) -> Result<(), End> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            if self.terminated && self.plan.minds_term {
                return Ok(());
            }
            if self.link.is_none() && self.plan.end != Ends::Unheard {
                self.dial().await;
            }
            self.hear(until.min(Instant::now() + REDIAL)).await?;
        }
        Ok(())
    }

    /// What waits becomes durable, or is discarded by an abort.
    fn settle(&mut self) {
        let ids = self.source_ids();
        let abort = self.stop.as_ref().is_some_and(|stop| stop.abort);
        for (counts, id) in self.counts.iter_mut().zip(ids) {
            let waiting = counts.captured - counts.dropped - counts.written;
            if abort {
                counts.lost = waiting;
                continue;
            }
            counts.written += waiting;
            if waiting > 0 {
                let mut facts = self.world.facts();
                let media = facts.media.entry(self.session.clone()).or_default();
                *media.files.entry(self.number).or_default().entry(id).or_default() += waiting;
            }
        }
        self.complete = self.number > 0;
    }
}
