//! What workers say, and how their processes end.

use tokio::sync::mpsc;

use super::actor::Actor;
use super::live::{Early, Live};
use super::refusal::{Refusal, RefusalKind};
use crate::clock::MonoTime;
use crate::journal::{StopRecord, WorkerIdentity};
use crate::link::message::{
    Ending, Heard, Hello, Refused, Report, ToWorker, Welcome, from_worker::Body, to_worker,
};
use crate::link::{LINK_VERSION, LastAccount, Sound, SourceSettings, WorkerSettings};
use crate::session::machine::{Event, Phase};
use crate::session::{Account, EndReason, SessionId};

impl Actor {
    /// A worker has dialled in: it is taken on if it is the one that is awaited.
    pub(super) fn on_dialled(
        &mut self,
        hello: &Hello,
        pid: u32,
        connection: u64,
        to_worker: mpsc::Sender<ToWorker>,
    ) {
        let Ok(id) = hello.session_id.parse::<SessionId>() else { return };
        if let Some(live) = self.live.get_mut(&id).filter(|live| !live.identified) {
            let hello = hello.clone();
            live.early = Some(Early { hello, pid, connection, to_worker });
            return;
        }
        let body = match self.take_on(&id, hello, pid) {
            Ok(settings) => to_worker::Body::Welcome(Welcome { link_version: LINK_VERSION, settings }),
            Err(refusal) => {
                tracing::error!(session = %id, pid, reason = refusal.message, "worker refused");
                let message = refusal.message.clone();
                if let Some(live) = self.live.get_mut(&id).filter(|live| {
                    refusal.reason == "WORKER_VERSION" && live.machine.phase() == Phase::Starting
                }) {
                    live.failure = Some(refusal);
                    self.feed(&id, Event::StartFailed);
                }
                // One that is gone needs no answer.
                let _ = to_worker
                    .try_send(ToWorker { body: Some(to_worker::Body::Refused(Refused { message })) });
                return;
            }
        };
        // The channel is new and has room.
        let _ = to_worker.try_send(ToWorker { body: Some(body) });
        let live = self.live.get_mut(&id).expect("it was taken on just now");
        live.link = Some((connection, to_worker));
        live.heard_at = self.clock.now();
        self.feed(&id, Event::Linked);
    }

    /// The journal knows the worker: it may be taken on, if it has dialled in already.
    pub(super) fn on_identified(&mut self, id: &SessionId, worker: &WorkerIdentity) {
        // Another one may have followed it meanwhile.
        let present = |live: &&mut Live| live.record.worker.as_ref() == Some(worker);
        let Some(live) = self.live.get_mut(id).filter(present) else { return };
        live.identified = true;
        if let Some(Early { hello, pid, connection, to_worker }) = live.early.take() {
            self.on_dialled(&hello, pid, connection, to_worker);
        }
    }

    fn take_on(&self, id: &SessionId, hello: &Hello, pid: u32) -> Result<Vec<u8>, Refusal> {
        let live = self.live.get(id).ok_or_else(|| Refusal::not_found(id))?;
        if hello.link_version != LINK_VERSION {
            let message = format!(
                "the worker is shutterd {} and speaks link version {}, this daemon is {} and speaks {LINK_VERSION}: \
                 install one version, or unset worker.path",
                hello.version,
                hello.link_version,
                env!("CARGO_PKG_VERSION"),
            );
            return Err(Refusal::new(RefusalKind::Internal, "WORKER_VERSION", message).about("session", id));
        }
        let expected = live.process.as_ref().map(|process| process.pid());
        if expected != Some(pid) || hello.pid != pid {
            let message = format!("process {pid} says it captures session {id}, but is not its worker");
            return Err(Refusal::new(RefusalKind::FailedPrecondition, "NOT_THE_WORKER", message));
        }
        if hello.configured {
            return Ok(Vec::new());
        }
        let settings = self.worker_settings(id).expect("it is live");
        Ok(serde_json::to_vec(&settings).expect("settings have nothing that JSON can't say"))
    }

    fn worker_settings(&self, id: &SessionId) -> Option<WorkerSettings> {
        let live = self.live.get(id)?;
        let (spec, media, limits) = (&live.record.spec, &self.settings.media, &self.settings.limits);
        let sources =
            spec.sources().iter().zip(&live.record.devices).map(|(source, device)| SourceSettings {
                id: source.id.clone(),
                name: if source.name.is_empty() { device.label.clone() } else { source.name.clone() },
                device: device.clone(),
            });
        Some(WorkerSettings {
            session: id.clone(),
            name: spec.object().get("name").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
            sources: sources.collect(),
            session_dir: self.library.session_dir(id),
            file_mode: media.file_mode,
            dir_mode: media.dir_mode,
            group: self.group,
            segment: media.segment,
            sync_interval: media.sync_interval,
            jpeg_quality: media.jpeg_quality,
            sound: match media.sound {
                crate::config::SoundCodec::Flac => Sound::Flac,
                crate::config::SoundCodec::Pcm => Sound::Pcm,
            },
            queue_bytes_max: media.queue_bytes_max,
            start_timeout: limits.start,
            stall_after: limits.stall_after,
            source_lost_after: limits.source_lost_after,
            orphan_grace: limits.orphan_grace,
            expires_at: live.expires_at,
            anchor: live.record.anchor,
            resumed: live.record.dead.is_some(),
            origin: live.record.origin,
        })
    }

    pub(super) fn on_said(&mut self, id: &SessionId, connection: u64, body: Body) {
        let now = self.clock.now();
        let present = |live: &&mut Live| live.link.as_ref().is_some_and(|(number, _)| *number == connection);
        let Some(live) = self.live.get_mut(id).filter(present) else { return };
        live.heard_at = now;
        match body {
            Body::Working(working) => {
                live.first_segment = working.first_segment.max(1);
                live.working_since = now;
                if matches!(live.machine.phase(), Phase::Starting | Phase::Working | Phase::Restarting) {
                    // A worker that was taken up says again when it began; no daemon's start prolongs it, and
                    // no new worker does.
                    let begun = MonoTime::from_nanos(working.origin).min(now);
                    let begun = *live.record.origin.get_or_insert(begun);
                    let longest = [live.record.options.max_duration, self.settings.limits.max_duration];
                    live.ends_at = longest.into_iter().flatten().min().map(|length| begun + length);
                }
                self.feed(id, Event::Working);
            }
            Body::StartFailed(said) => {
                let refusal =
                    Refusal::start_failed(id, &said.reason, &said.source_id, &said.device, &said.message);
                if live.machine.phase() == Phase::Restarting {
                    live.account.warn(format!("a new worker could not go on: {}", refusal.message));
                } else {
                    live.failure.get_or_insert(refusal);
                }
                self.feed(id, Event::StartFailed);
            }
            Body::Report(report) => self.on_report(id, &report),
            Body::Released(released) => {
                if live.machine.phase() != Phase::Restarting {
                    live.released_at.get_or_insert(self.clock.wall_at(MonoTime::from_nanos(released.at)));
                }
                self.feed(id, Event::Released);
            }
            Body::Finished(finished) => {
                self.take_account(id, &finished.account);
                self.feed(id, Event::Accounted);
            }
            Body::Ending(ending) => self.on_ending(id, &ending),
            Body::Hello(_) | Body::Opened(_) => {}
        }
    }

    fn on_report(&mut self, id: &SessionId, report: &Report) {
        if let Some((_, to_worker)) = self.live.get(id).and_then(|live| live.link.as_ref()) {
            // One that takes nothing will not miss it.
            let _ = to_worker.try_send(ToWorker { body: Some(to_worker::Body::Heard(Heard {})) });
        }
        self.take_account(id, &report.account);
        let durable_at =
            (report.durable_at > 0).then(|| self.clock.wall_at(MonoTime::from_nanos(report.durable_at)));
        let Some(live) = self.live.get_mut(id) else { return };
        live.record.health_check = durable_at.or(live.record.health_check);
        live.queued_packets = report.queued_packets;
        live.present_bytes = report.durable_bytes;
        live.pending_bytes = report.pending_bytes;
        self.judge_sources(self.clock.now());
        self.tell_watchers(id);
    }

    fn take_account(&mut self, id: &SessionId, json: &[u8]) {
        match serde_json::from_slice::<Account>(json) {
            Ok(account) => {
                if let Some(live) = self.live.get_mut(id) {
                    live.take_account(account);
                }
            }
            Err(error) => tracing::error!(session = %id, %error, "a worker's account can't be read"),
        }
    }

    fn on_ending(&mut self, id: &SessionId, ending: &Ending) {
        let reason = EndReason::from_word(&ending.reason).unwrap_or(EndReason::WorkerFailed);
        let at = MonoTime::from_nanos(ending.stop_at);
        let at_wall = self.clock.wall_at(at);
        let Some(live) = self.live.get_mut(id).filter(|live| !live.machine.is_being_replaced()) else {
            return;
        };
        tracing::warn!(session = %id, %reason, why = ending.message, "the worker ends the session");
        live.record.stop.get_or_insert(StopRecord { reason, abort: false, at, at_wall });
        self.feed(id, Event::WorkerEnds(reason));
    }

    pub(super) fn on_link_lost(&mut self, id: &SessionId, connection: u64) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.link.as_ref().is_some_and(|(number, _)| *number == connection) {
            live.link = None;
            self.feed(id, Event::LinkLost);
            let ended = self.live.get_mut(id).and_then(|live| live.ended.take());
            if let Some((status, last)) = ended {
                self.on_exited(id, status, last);
            }
        }
    }

    /// A worker was reaped. What it said last may still be on the link, and comes first.
    pub(super) fn on_exited(&mut self, id: &SessionId, status: String, last: Option<Box<LastAccount>>) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.link.is_some() {
            live.ended = Some((status, last));
            return;
        }
        tracing::info!(session = %id, status, "worker ended");
        live.process = None;
        match last {
            Some(last) if live.machine.is_being_replaced() => live.take_account(last.account),
            Some(last) => self.hear_last(id, *last),
            None => {}
        }
        self.on_worker_died(id, &status);
        let Some(live) = self.live.get_mut(id) else { return };
        if live.machine.start_is_open() {
            live.failure.get_or_insert_with(|| Refusal::worker_died(id, &status));
        }
        self.feed(id, Event::Exited);
    }

    /// What a worker left beside its media counts as said, where its words did not come through.
    pub(super) fn hear_last(&mut self, id: &SessionId, last: LastAccount) {
        let Some(live) = self.live.get_mut(id).filter(|live| !live.machine.is_accounted()) else { return };
        let same_boot = last.boot_id == self.processes.boot_id();
        let wall = |at: MonoTime| if same_boot { self.clock.wall_at(at) } else { self.clock.wall() };
        live.take_account(last.account);
        live.released_at = last.released_at.map(wall).or(live.released_at);
        // A worker that doesn't say why was told to stop, by a daemon that had no time to write it down.
        let reason = last.reason.unwrap_or(EndReason::StopRequested);
        let (at, at_wall) = (last.stop_at, wall(last.stop_at));
        live.record.stop.get_or_insert(StopRecord { reason, abort: false, at, at_wall });
        self.feed(id, Event::WorkerEnds(reason));
        if last.released_at.is_some() {
            self.feed(id, Event::Released);
        }
        self.feed(id, Event::Accounted);
    }
}
