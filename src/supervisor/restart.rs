//! Workers that die or hang while their session goes on, and the repair of what they left.

use std::time::Duration;

use super::actor::Actor;
use super::command::Notice;
use super::compose;
use super::processes::RepairOrder;
use super::refusal::Refusal;
use crate::clock::MonoTime;
use crate::link::RepairReport;
use crate::session::SessionId;
use crate::session::machine::{Event, Phase};

/// Deadlines are looked at every second. When they were not for so long, this daemon was stopped, and its
/// workers may have spoken to nobody.
const OWN_SILENCE: Duration = Duration::from_secs(2);

impl Actor {
    /// A worker that captures and says nothing for too long hangs.
    pub(super) fn look_for_silence(&mut self, now: MonoTime) {
        let limit = self.settings.limits.worker_silent;
        let asleep = now.since(self.looked_at) > OWN_SILENCE;
        self.looked_at = now;
        let mut silent = Vec::new();
        for (id, live) in &mut self.live {
            if asleep {
                live.heard_at = now;
            } else if live.machine.phase() == Phase::Working && now.since(live.heard_at) > limit {
                silent.push(id.clone());
            }
        }
        for id in silent {
            let seconds = limit.as_secs_f64();
            tracing::error!(session = %id, seconds, "the worker says nothing: it is ended, and a new one goes on");
            self.warn(&id, format!("the worker said nothing for {seconds} s: it was ended"));
            self.feed(&id, Event::Silent);
        }
    }

    /// A worker was reaped that its session still needed.
    pub(super) fn on_worker_died(&mut self, id: &SessionId, status: &str) {
        let Some(live) = self.live.get_mut(id) else { return };
        if matches!(live.machine.phase(), Phase::Working | Phase::Restarting) {
            live.orphan("its worker has died; a new one is on its way");
            tracing::error!(session = %id, status, "a worker that was still needed has died");
            self.warn(id, format!("a worker died ({status}): see the gaps of the sources"));
        }
    }

    /// A new worker is about to go on where a dead one ended.
    pub(super) fn bury_worker(&mut self, id: &SessionId) {
        if let Some(live) = self.live.get_mut(id).filter(|live| live.machine.phase() == Phase::Restarting) {
            live.bury_worker();
        }
    }

    /// Repairs what dead workers left: all of it, or what lies before the files of the one that goes on.
    pub(super) fn repair(&mut self, id: &SessionId) {
        let dir = self.library.session_dir(id);
        let Some(live) = self.live.get_mut(id) else { return };
        let before = (live.machine.phase() == Phase::Working).then_some(live.first_segment);
        let dead = live.record.dead.as_ref().filter(|_| before.is_some());
        let known = dead.map_or(&live.account, |dead| &dead.account).files.clone();
        let order = RepairOrder { session: id.clone(), dir, known, before };
        let repaired = self.processes.repair(order, self.settings.limits.repair);
        let (own, notices) = (id.clone(), self.notices.clone());
        tracing::warn!(session = %id, before, "a worker left no account: its files are being repaired");
        let task = self.tasks.spawn(async move {
            let report = repaired.await;
            // An actor that has ended leaves the rest to the next daemon.
            let _ = notices.send(Notice::Repaired { id: own, report }).await;
        });
        live.repair = Some((task.abort_handle(), before));
    }

    pub(super) fn on_repaired(&mut self, id: &SessionId, report: Result<RepairReport, Refusal>) {
        let Some(live) = self.live.get_mut(id) else { return };
        let beside = live.repair.take().is_some_and(|(_, before)| before.is_some());
        live.uncounted |= report.as_ref().map_or(true, |report| !report.failures.is_empty());
        match report {
            Ok(report) if beside => live.settle_dead(|dead| compose::settle_dead(dead, &report)),
            Ok(report) => compose::settle(&mut live.account, &report),
            Err(refusal) => {
                tracing::error!(session = %id, error = refusal.message, "the files can't be repaired");
                let message =
                    format!("{}; run `shutterd repair` on the session's directory", refusal.message);
                live.account.warn(message);
                if beside {
                    live.settle_dead(|dead| compose::settle_unrepaired(&mut dead.account));
                } else {
                    compose::settle_unrepaired(&mut live.account);
                }
            }
        }
        // The next daemon need not repair again.
        self.settle(id, Vec::new(), beside);
        self.feed(id, Event::Repaired);
    }

    pub(super) fn cancel_repair(&mut self, id: &SessionId) {
        if let Some(live) = self.live.get_mut(id) {
            live.uncounted = true;
            live.account.warn(
                "the repair took too long; run `shutterd repair` on the session's directory".to_owned(),
            );
            compose::settle_unrepaired(&mut live.account);
            if let Some((repair, _)) = live.repair.take() {
                repair.abort();
            }
        }
    }

    fn warn(&mut self, id: &SessionId, warning: String) {
        if let Some(live) = self.live.get_mut(id) {
            live.account.warn(warning);
        }
    }
}
