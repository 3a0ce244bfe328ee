//! Answers: to who waits for a start or a stop, and to who asks what there is.

use std::collections::HashSet;
use std::sync::Arc;

use super::actor::Actor;
use super::command::{DeviceView, Holder, Notice, Reply, SessionView, Stopped, WaitFor};
use super::compose;
use super::refusal::Refusal;
use super::scope::Scope;
use super::search::Found;
use super::vitals::Look;
use crate::session::SessionId;
use crate::session::device::{DeviceKey, FoundDevice, MediaType};
use crate::session::machine::{Phase, StartOutcome};
use crate::session::resolve::{ConfiguredDevice, Place};

/// Answers a caller; one that has gone away needs no answer.
pub(super) fn send<T>(reply: Reply<T>, answer: Result<T, Refusal>) {
    let _ = reply.send(answer);
}

impl Actor {
    /// Answers everybody who waits for the start of `id`. A failed start is answered once what it
    /// left behind is gone.
    pub(super) fn answer_start(&mut self, id: &SessionId, outcome: StartOutcome) {
        let Some(live) = self.live.get_mut(id) else { return };
        if outcome == StartOutcome::Failed && live.machine.phase() == Phase::Discarded {
            return;
        }
        let waiters = std::mem::take(&mut live.start_waiters);
        let answer = match outcome {
            StartOutcome::Working => Ok(Arc::new(live.view())),
            StartOutcome::Stopped => Err(Refusal::stopped_first(id)),
            StartOutcome::Failed => Err(failure(live.failure.as_ref(), id)),
        };
        if let Err(refusal) = &answer {
            live.failure.get_or_insert_with(|| refusal.clone());
        }
        for waiter in waiters {
            send(waiter, answer.clone());
        }
    }

    /// What a failed start left behind is gone, and so is the session.
    pub(super) fn on_discarded(&mut self, id: &SessionId) {
        let Some(live) = self.live.remove(id) else { return };
        let refusal = failure(live.failure.as_ref(), id);
        tracing::warn!(session = %id, reason = refusal.reason, error = refusal.message, "session did not start");
        for waiter in live.start_waiters {
            send(waiter, Err(refusal.clone()));
        }
        for (_, waiter) in live.stop_waiters {
            send(waiter, Err(Refusal::not_found(id)));
        }
    }

    /// Answers who waits for the release of `id`.
    pub(super) fn answer_released(&mut self, id: &SessionId) {
        let Some(live) = self.live.get_mut(id) else { return };
        let (released, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut live.stop_waiters)
            .into_iter()
            .partition(|(wait, _)| *wait == WaitFor::Released);
        live.stop_waiters = rest;
        let view = Arc::new(live.view());
        for (_, waiter) in released {
            send(waiter, Ok(Stopped { view: Arc::clone(&view), already_finished: false }));
        }
    }

    /// Answers everybody who still waits for a stop of `id`, which is finished.
    pub(super) fn answer_finished(&mut self, id: &SessionId) {
        let Some(live) = self.live.get_mut(id) else { return };
        let waiters = std::mem::take(&mut live.stop_waiters);
        let view = Arc::new(live.view());
        for (_, waiter) in waiters {
            send(waiter, Ok(Stopped { view: Arc::clone(&view), already_finished: false }));
        }
    }

    /// Answers everybody who waits for a stop of `id` that its worker can't be ended.
    pub(super) fn answer_stuck(&mut self, id: &SessionId) {
        let Some(live) = self.live.get_mut(id) else { return };
        let refusal = if live.machine.is_released() { Refusal::stuck(id) } else { Refusal::not_released(id) };
        let waiters = std::mem::take(&mut live.stop_waiters);
        self.problem(Some(id), refusal.message.clone());
        for (_, waiter) in waiters {
            send(waiter, Err(refusal.clone()));
        }
    }

    /// Answers with a session that is within `scope`.
    pub(super) fn get(&mut self, id: SessionId, scope: Scope, reply: Reply<Arc<SessionView>>) {
        match self.live.get(&id).filter(|live| scope.holds(&live.record.spec)) {
            Some(live) => send(reply, Ok(Arc::new(self.view(live)))),
            None => self.look_up(id, scope, reply),
        }
    }

    /// Answers from the journal. A session out of scope is looked up too: how long the answer takes
    /// must not tell that there is one.
    fn look_up(&mut self, id: SessionId, scope: Scope, reply: Reply<Arc<SessionView>>) {
        if let Some(record) = self.unsaved.get(&id).filter(|record| scope.holds(&record.spec)) {
            return send(reply, Ok(Arc::new(compose::view_of(record))));
        }
        if scope == Scope::Everybody && self.unknown.has(&id) {
            return send(reply, Err(Refusal::being_found(&id)));
        }
        let found = self.journal.get(id.clone());
        self.tasks.spawn(async move {
            let answer = match found.await {
                Ok(Ok(Some(record))) if scope.holds(&record.spec) => Ok(Arc::new(compose::view_of(&record))),
                Ok(Ok(_)) => Err(Refusal::not_found(&id)),
                Ok(Err(error)) => Err(Refusal::journal(&error)),
                Err(_) => Err(Refusal::gone()),
            };
            send(reply, answer);
        });
    }

    /// Answers with sessions in the order of their last change.
    pub(super) fn list(&mut self, since: u64, count: usize, reply: Reply<Vec<Arc<SessionView>>>) {
        if since > self.change {
            return send(reply, Err(Refusal::cursor_ahead(since, self.change)));
        }
        let listed = self.journal.list(since, count);
        let live = self.live.values().map(super::live::Live::view);
        let unsaved = self.unsaved.records().map(compose::view_of);
        let live: Vec<_> = live.chain(unsaved).map(Arc::new).collect();
        self.tasks.spawn(async move {
            let records = match listed.await {
                Ok(Ok(records)) => records.records,
                Ok(Err(error)) => return send(reply, Err(Refusal::journal(&error))),
                Err(_) => return send(reply, Err(Refusal::gone())),
            };
            // The journal says which and in what order; what is live knows more of itself, but not yet
            // that it is finished: whoever asks for later changes would never hear of it.
            let views = records.iter().map(|record| {
                let is_same = |view: &&Arc<SessionView>| {
                    let present = view.change == record.change || view.finished;
                    record.receipt.is_none() && view.id == *record.spec.id() && present
                };
                let same = live.iter().find(is_same);
                same.map_or_else(|| Arc::new(compose::view_of(record)), Arc::clone)
            });
            send(reply, Ok(views.collect()));
        });
    }

    /// Answers with the devices of the host and who holds them.
    pub(super) fn devices(&mut self, scope: &Scope, reply: Reply<Vec<DeviceView>>) {
        let probed = self.processes.probe(self.settings.limits.probe);
        let configured = self.settings.devices.clone();
        let leases = self.leases.clone();
        let within = self.live.iter().filter(|(_, live)| scope.holds(&live.record.spec));
        let within: HashSet<SessionId> = within.map(|(id, _)| id.clone()).collect();
        let holder = move |id: &SessionId| match within.get(id) {
            Some(id) => Holder::Session(id.clone()),
            None => Holder::Hidden,
        };
        let notices = self.notices.clone();
        self.tasks.spawn(async move {
            let probed = probed.await;
            if let Ok(Found { doubt: Some(problem), .. }) = &probed {
                // An actor that has ended has nobody to tell.
                let _ = notices.send(Notice::Troubled { problem: problem.clone() }).await;
            }
            // Nor does it need to know how the search went.
            let _ = notices.send(Notice::HostLooked(Look::probe(&probed))).await;
            let answer = probed.map(|Found { devices: found, .. }| {
                let mut views: Vec<DeviceView> = configured.iter().filter_map(virtual_view).collect();
                views.extend(found.iter().map(|device| found_view(device, &configured)));
                for (view, key) in views.iter_mut().zip(keys(&configured, &found)) {
                    view.held_by = leases.holder(&key).map(&holder);
                }
                views
            });
            send(reply, answer);
        });
    }
}

fn failure(known: Option<&Refusal>, id: &SessionId) -> Refusal {
    known.cloned().unwrap_or_else(|| Refusal::worker_died(id, "nobody knows how"))
}

fn keys(configured: &[ConfiguredDevice], found: &[FoundDevice]) -> Vec<DeviceKey> {
    let virtual_keys = configured.iter().filter_map(ConfiguredDevice::virtual_key);
    virtual_keys.chain(found.iter().map(|device| device.key.clone())).collect()
}

fn virtual_view(device: &ConfiguredDevice) -> Option<DeviceView> {
    let (kind, node) = match &device.place {
        Place::Real(_) => return None,
        Place::Synthetic(_) => ("synthetic", String::new()),
        Place::Replay { path, .. } => ("replay", path.clone()),
        Place::Pipe(path) => ("pipe", path.clone()),
    };
    Some(DeviceView {
        id: device.id.clone(),
        name: if device.name.is_empty() { device.id.clone() } else { device.name.clone() },
        media: device.media,
        kind,
        node,
        bus: String::new(),
        serial: String::new(),
        formats: Vec::new(),
        held_by: None,
    })
}

/// A found device, under the name that the config gives it.
fn found_view(device: &FoundDevice, configured: &[ConfiguredDevice]) -> DeviceView {
    let alias = configured.iter().find(|alias| {
        alias.media == device.media && matches!(&alias.place, Place::Real(traits) if traits.fit(device))
    });
    let named = alias.map(|alias| alias.name.clone()).filter(|name| !name.is_empty());
    DeviceView {
        id: alias.map_or_else(|| device.key.to_string(), |alias| alias.id.clone()),
        name: named.unwrap_or_else(|| device.name.clone()),
        media: device.media,
        kind: match device.media {
            MediaType::Video => "camera",
            MediaType::Audio => "microphone",
        },
        node: device.node.clone(),
        bus: device.bus.clone(),
        serial: device.serial.clone().unwrap_or_default(),
        formats: device.formats.clone(),
        held_by: None,
    }
}
