//! What a worker says, hears and leaves behind.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::plan::Start;
use super::worker::{End, Life, Link, REDIAL};
use super::world::file;
use crate::clock::{Clock, MonoTime};
use crate::link::message::{Ending, Hello, Released, Report, Working, from_worker::Body, to_worker};
use crate::link::{LAST_ACCOUNT_NAME, LINK_VERSION, LastAccount};
use crate::session::{Account, EndReason, SourceAccount, SourceReceipt, SourceState};
use crate::supervisor::command::Notice;

const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

impl Life {
    pub(super) fn on_order(&mut self, body: to_worker::Body) -> Result<(), End> {
        self.heard_at = Instant::now();
        match body {
            to_worker::Body::Welcome(welcome) if self.settings.is_none() => {
                self.settings =
                    Some(serde_json::from_slice(&welcome.settings).expect("the daemon writes JSON"));
            }
            to_worker::Body::Refused(_) if self.settings.is_none() => return Err(End::Refused),
            to_worker::Body::Refused(_) => self.end(EndReason::Orphaned),
            to_worker::Body::Stop(stop) if !self.hanging => {
                self.world.tell(format!("{}: worker {} is told to stop", self.session, self.pid));
                self.stop.get_or_insert(stop);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn lose_link(&mut self) {
        self.old.extend(self.link.take().map(|link| (link.connection, link.notices)));
    }

    /// The daemon learns that the connections are gone.
    pub(super) async fn hang_up(&mut self) {
        self.lose_link();
        for (connection, notices) in std::mem::take(&mut self.old) {
            let id = self.session.clone();
            // A daemon that has ended needs no notice.
            let _ = notices.send(Notice::LinkLost { id, connection }).await;
        }
    }

    /// Dials, if a daemon listens.
    pub(super) async fn dial(&mut self) {
        let notices = self.world.facts().link.clone();
        let soon = self.dialled_at.is_some_and(|at| at.elapsed() < REDIAL);
        let Some(notices) = notices.filter(|_| !soon) else { return };
        self.dialled_at = Some(Instant::now());
        let connection = {
            let mut facts = self.world.facts();
            facts.connections += 1;
            facts.connections
        };
        let (to_worker, orders) = mpsc::channel(16);
        let wrong = self.plan.start == Start::WrongVersion;
        let hello = Hello {
            link_version: LINK_VERSION + u32::from(wrong),
            version: String::new(),
            session_id: self.session.to_string(),
            pid: self.pid,
            start_time: u64::from(self.pid),
            boot_id: self.world_boot(),
            configured: self.settings.is_some(),
        };
        if notices.send(Notice::Dialled { hello, pid: self.pid, connection, to_worker }).await.is_ok() {
            self.link = Some(Link { connection, notices, orders });
            self.tell_again().await;
        }
        if self.chance.once_in(2) {
            self.speak_on_old_links().await;
        }
    }

    pub(super) fn world_boot(&self) -> String {
        use crate::supervisor::processes::Processes;
        self.world.boot_id()
    }

    /// What was still under way on a connection that has ended comes after the new one was made.
    pub(super) async fn speak_on_old_links(&mut self) {
        for (connection, notices) in self.old.clone() {
            let account = serde_json::to_vec(&Account::default()).expect("an account is JSON");
            let id = self.session.clone();
            let body = Body::Report(Report { account, ..Report::default() });
            // A daemon that has ended hears nothing.
            let _ = notices.send(Notice::Said { id, connection, body }).await;
        }
        let link = self.link.take();
        self.hang_up().await;
        self.link = link;
    }

    pub(super) async fn tell_again(&mut self) {
        if self.working {
            self.say_working().await;
        }
        if let Some((reason, stop_at)) = self.ending {
            let (reason, message) = (reason.to_string(), "the model ends it".to_owned());
            self.say(Body::Ending(Ending { reason, message, stop_at })).await;
        }
        if let Some(at) = self.released_at {
            self.say(Body::Released(Released { at })).await;
        }
    }

    pub(super) async fn say_working(&mut self) {
        let (origin, first_segment) = (self.origin.nanos(), self.number);
        self.say(Body::Working(Working { origin, first_segment })).await;
    }

    pub(super) async fn say(&mut self, body: Body) {
        let times = 1 + u64::from(self.plan.repeats && self.chance.once_in(3));
        for _ in 0..times {
            let Some(link) = &self.link else { return };
            let (id, connection, body) = (self.session.clone(), link.connection, body.clone());
            if link.notices.send(Notice::Said { id, connection, body }).await.is_err() {
                self.lose_link();
            }
        }
    }

    pub(super) async fn be_taken_on(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + WELCOME_TIMEOUT;
        let never = self.plan.start == Start::NeverDials;
        while self.settings.is_none() {
            if Instant::now() >= deadline && !never || self.terminated {
                return Err(End::Refused);
            }
            if self.link.is_none() && !never {
                self.dial().await;
            }
            self.hear(Instant::now() + REDIAL).await?;
        }
        Ok(())
    }

    pub(super) fn account(&self) -> Account {
        let settings = self.settings.as_ref().expect("it was taken on");
        let state = if self.released_at.is_some() { SourceState::Released } else { SourceState::Working };
        let sources = settings.sources.iter().zip(&self.counts).map(|(source, counts)| {
            let mut receipt =
                SourceReceipt::of(source.id.clone(), source.device.media, source.device.key.to_string());
            receipt.captured = counts.captured;
            receipt.written = counts.written;
            receipt.dropped = counts.dropped;
            receipt.lost = counts.lost;
            SourceAccount { receipt, state, reason: String::new(), durable_at: Some(self.world.now()) }
        });
        let own = self.complete.then(|| file(self.world.library(), &self.session, self.number, false));
        Account {
            sources: sources.collect(),
            files: own.into_iter().collect(),
            captured_seconds: 1.0,
            warnings: Vec::new(),
        }
    }

    pub(super) async fn report(&mut self) {
        let mut account = serde_json::to_vec(&self.account()).expect("an account is JSON");
        if self.plan.lies && self.chance.once_in(6) {
            self.world.facts().media.entry(self.session.clone()).or_default().lied = true;
            account = b"{\"sources\":7}".to_vec();
        }
        let durable_at = self.world.now().nanos();
        self.say(Body::Report(Report { account, durable_at, ..Report::default() })).await;
    }

    pub(super) fn leave_account(&self) {
        let settings = self.settings.as_ref().expect("it was taken on");
        let last = LastAccount {
            account: self.account(),
            reason: self.ending.map(|(reason, _)| reason),
            stop_at: MonoTime::from_nanos(self.stop.as_ref().map_or(0, |stop| stop.stop_at)),
            released_at: self.released_at.map(MonoTime::from_nanos),
            boot_id: self.world_boot(),
            pid: Some(self.pid),
        };
        let json = serde_json::to_vec(&last).expect("an account is JSON");
        // A session that never began has no directory.
        let _ = std::fs::write(settings.session_dir.join(LAST_ACCOUNT_NAME), json);
    }
}
