//! The way of a start up to its machine: who has this id, what the host has, who holds it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::actor::Actor;
use super::answer::send;
use super::blocking::apart;
use super::command::{Notice, Reply, ServingState, SessionView, StopAsked};
use super::compose;
use super::live::Live;
use super::refusal::{Refusal, RefusalKind};
use super::scope::Scope;
use super::search::Found;
use super::vitals::Look;
use crate::clock::Anchor;
use crate::journal::{JournalError, Record};
use crate::library::Library;
use crate::session::device::DeviceSpec;
use crate::session::machine::Machine;
use crate::session::resolve::{needs_no_search, resolve};
use crate::session::{PublicState, SessionId, SessionSpec, StartOptions, WorkerState, present};

/// A start whose devices are still being looked for.
pub(super) struct Pending {
    pub(super) spec: SessionSpec,
    options: StartOptions,
    scope: Scope,
    waiters: Vec<Reply<Arc<SessionView>>>,
    pub(super) stops: Vec<StopAsked>,
}

impl Actor {
    pub(super) fn start(
        &mut self,
        spec: SessionSpec,
        options: StartOptions,
        scope: Scope,
        reply: Reply<Arc<SessionView>>,
    ) {
        let id = spec.id().clone();
        if let Some(live) = self.live.get_mut(&id) {
            if !live.record.spec.asks_the_same(&spec) || live.record.options != options {
                return send(reply, Err(already_exists(&id, "with another specification")));
            }
            if live.machine.start_is_open()
                || live.machine.phase() == crate::session::machine::Phase::Discarded
            {
                return live.start_waiters.push(reply);
            }
            let answer = live.failure.clone().map_or_else(|| Ok(Arc::new(live.view())), Err);
            return send(reply, answer);
        }
        if let Some(pending) = self.pending.get_mut(&id) {
            if !pending.spec.asks_the_same(&spec) || pending.options != options {
                return send(reply, Err(already_exists(&id, "with another specification")));
            }
            return pending.waiters.push(reply);
        }
        if let Err(refusal) = self.may_start(&spec, &options) {
            return send(reply, Err(refusal));
        }
        self.look_for_devices(&spec);
        self.pending.insert(id, Pending { spec, options, scope, waiters: vec![reply], stops: Vec::new() });
    }

    /// Answers with the JSON of the sessions within `scope` whose devices are still being looked for: no
    /// list has them yet.
    pub(super) fn starting(&self, scope: &Scope, reply: Reply<Vec<Map<String, Value>>>) {
        let within = self.pending.values().filter(|pending| scope.holds(&pending.spec));
        let shown = |pending: &Pending| {
            present(&pending.spec, PublicState::Active, WorkerState::Starting, None, None)
        };
        send(reply, Ok(within.map(shown).collect()));
    }

    fn may_start(&self, spec: &SessionSpec, options: &StartOptions) -> Result<(), Refusal> {
        self.admission.check()?;
        spec.check_start(self.clock.wall())?;
        options.check(spec.sources())?;
        let now = self.clock.now();
        if self.tombstones.iter().any(|tombstone| tombstone.bars(spec, now)) {
            return Err(Refusal::stopped_first(spec.id()));
        }
        let sessions_max = self.settings.limits.sessions_max;
        if self.live.len() + self.pending.len() >= sessions_max {
            let message = format!(
                "{sessions_max} sessions run already, and limits.sessions_max allows no more: stop one first"
            );
            return Err(Refusal::new(RefusalKind::ResourceExhausted, "TOO_MANY_SESSIONS", message));
        }
        Ok(())
    }

    fn look_for_devices(&mut self, spec: &SessionSpec) {
        let (id, known) = (spec.id().clone(), self.journal.get(spec.id().clone()));
        let search = !needs_no_search(spec.sources(), &self.settings.devices);
        let probed = search.then(|| self.processes.probe(self.settings.limits.probe));
        let (notices, library) = (self.notices.clone(), self.library.clone());
        self.tasks.spawn(async move {
            let devices = match probed {
                Some(probed) => probed.await,
                None => Ok(Found::default()),
            };
            let known =
                known.await.unwrap_or(Err(JournalError::Closed)).map_err(|error| Refusal::journal(&error));
            let known = match known {
                Ok(None) => no_media(library, id.clone()).await.map(|()| None),
                known => known,
            };
            // An actor that has ended starts nothing.
            let _ = notices.send(Notice::Prepared { id, known, devices }).await;
        });
    }

    pub(super) fn on_prepared(
        &mut self,
        id: SessionId,
        known: Result<Option<Record>, Refusal>,
        found: Result<Found, Refusal>,
    ) {
        // A session of virtual devices needs no search, which tells nothing then.
        if !matches!(&found, Ok(found) if found.devices.is_empty() && found.doubt.is_none()) {
            self.on_look(Look::probe(&found));
        }
        if let Ok(Found { doubt: Some(doubt), .. }) = &found {
            self.problem(None, doubt.clone());
        }
        let Some(pending) = self.pending.remove(&id) else { return };
        let admitted = self.admit(&id, &pending, known, found);
        let Pending { waiters, stops, .. } = pending;
        match admitted {
            Ok(actions) => {
                let live = self.live.get_mut(&id).expect("it was admitted just now");
                live.start_waiters = waiters;
                self.perform(&id, actions);
                for asked in stops {
                    self.stop(id.clone(), asked);
                }
            }
            Err(refusal) => {
                tracing::warn!(session = %id, reason = refusal.reason, error = refusal.message, "start refused");
                for waiter in waiters {
                    send(waiter, Err(refusal.clone()));
                }
                for asked in stops {
                    self.stop(id.clone(), asked);
                }
            }
        }
    }

    fn admit(
        &mut self,
        id: &SessionId,
        pending: &Pending,
        known: Result<Option<Record>, Refusal>,
        found: Result<Found, Refusal>,
    ) -> Result<Vec<crate::session::machine::Action>, Refusal> {
        if known?.is_some() {
            return Err(already_exists(id, "and is finished"));
        }
        if self.admission.state() == ServingState::Stopping {
            return Err(Refusal::shutting_down());
        }
        let (spec, options) = (&pending.spec, &pending.options);
        let found = found?;
        let devices = resolve(spec.sources(), options, &self.settings.devices, &found.devices)
            .map_err(|error| found.qualify(error.into()))?;
        self.leases.acquire(id, &devices).map_err(|conflict| {
            let holder = self.live.get(&conflict.holder);
            if holder.is_none_or(|holder| pending.scope.holds(&holder.record.spec)) {
                Refusal::from(conflict)
            } else {
                Refusal::held_by_another_user(&conflict.device)
            }
        })?;
        let now = self.clock.now();
        let (machine, actions) = Machine::admit(self.limits(), now);
        let mut live = Live::new(machine, self.record(spec, options, devices), now);
        let wall = self.clock.wall();
        live.expires_at = spec.expires().map(|at| self.clock.boot().saturating_add(at.nanos_since(wall)));
        self.live.insert(id.clone(), live);
        tracing::info!(session = %id, "session admitted");
        Ok(actions)
    }

    fn record(&self, spec: &SessionSpec, options: &StartOptions, devices: Vec<DeviceSpec>) -> Record {
        Record {
            account: Some(compose::empty_account(spec, &devices)),
            anchor: Some(Anchor::now(self.clock.as_ref())),
            change: self.change,
            ..Record::new(spec.clone(), options.clone(), devices, self.clock.wall())
        }
    }
}

/// What lies in a session's directory before its start is nobody's to touch: no failed start may
/// delete it.
async fn no_media(library: Library, id: SessionId) -> Result<(), Refusal> {
    let dir = library.session_dir(&id);
    let looked = apart(move || match dir.read_dir() {
        Ok(mut entries) => (entries.next().is_some(), dir),
        Err(error) => (error.kind() != std::io::ErrorKind::NotFound, dir),
    });
    match looked.await {
        Ok((false, _)) => Ok(()),
        Ok((true, dir)) => {
            let message = format!(
                "{} is there already, though the journal doesn't know the session: move it away, or use a new id",
                dir.display()
            );
            Err(Refusal::new(RefusalKind::AlreadyExists, "MEDIA_EXISTS", message).about("session", &id))
        }
        Err(_) => Err(Refusal::gone()),
    }
}

fn already_exists(id: &SessionId, how: &str) -> Refusal {
    let message = format!("session {id} exists already {how}: give a new session a new id");
    Refusal::new(RefusalKind::AlreadyExists, "SESSION_EXISTS", message).about("session", id)
}
