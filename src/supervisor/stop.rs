//! The way of a stop: one instant, one drain, however many ask for it.

use std::sync::Arc;
use std::time::Duration;

use super::actor::Actor;
use super::answer::send;
use super::command::{Notice, StopAsked, Stopped};
use super::compose;
use super::refusal::Refusal;
use super::scope::Scope;
use crate::clock::MonoTime;
use crate::journal::{JournalError, Record, StopRecord};
use crate::session::limits::{STOP_KEYS_MAX, TOMBSTONE, TOMBSTONES_MAX};
use crate::session::machine::{Event, StopMode};
use crate::session::{EndReason, SessionId, SessionSpec};

/// A stop that found no session: a start of this id that comes late is refused.
pub(super) struct Tombstone {
    id: SessionId,
    scope: Scope,
    pub(super) at: MonoTime,
}

impl Tombstone {
    /// Whether this start comes too late.
    pub(super) fn bars(&self, spec: &SessionSpec, now: MonoTime) -> bool {
        self.id == *spec.id() && self.scope.holds(spec) && now.since(self.at) < TOMBSTONE
    }
}

impl Actor {
    pub(super) fn stop(&mut self, id: SessionId, asked: StopAsked) {
        if let Some(pending) = self.pending.get_mut(&id).filter(|pending| asked.scope.holds(&pending.spec)) {
            return pending.stops.push(asked);
        }
        if let Some(live) = self.live.get_mut(&id).filter(|live| asked.scope.holds(&live.record.spec)) {
            let StopAsked { request, reply, .. } = asked;
            live.stop_waiters.push((request.wait, reply));
            let reason = match request.mode {
                StopMode::Drain => EndReason::StopRequested,
                StopMode::Abort => EndReason::Aborted,
            };
            let journalled = live.record.stop.is_some();
            let remembered = request.key.is_some_and(|key| remember(&mut live.record.stop_keys, key));
            self.accept_stop(&id, reason, request.mode, request.drain);
            if journalled && remembered {
                self.journal_keys(&id);
            }
            return;
        }
        let found = self.journal.get(id.clone());
        let notices = self.notices.clone();
        self.tasks.spawn(async move {
            let known = found.await.unwrap_or(Err(JournalError::Closed));
            // An actor that has ended drops the reply, which tells the caller.
            let _ = notices.send(Notice::Looked { id, asked: Box::new(asked), known }).await;
        });
    }

    /// The stop of a session that wasn't live: finished long ago, never heard of, or out of scope,
    /// which must not be told apart.
    pub(super) fn on_looked(
        &mut self,
        id: SessionId,
        asked: StopAsked,
        known: Result<Option<Record>, JournalError>,
    ) {
        let live = self.live.get(&id).map(|live| &live.record.spec);
        let begun = live.or_else(|| self.pending.get(&id).map(|pending| &pending.spec));
        if begun.is_some_and(|spec| asked.scope.holds(spec)) {
            return self.stop(id, asked);
        }
        let StopAsked { request, scope, reply } = asked;
        let known = self.unsaved.get(&id).map_or(known, |record| Ok(Some(record.clone())));
        match known {
            // Whatever the journal lacks, nothing is called finished without its receipt.
            Ok(Some(record)) if scope.holds(&record.spec) && !record.is_finished() => {
                send(reply, Err(Refusal::receipt_not_saved(&id)));
            }
            Ok(Some(record)) if scope.holds(&record.spec) => {
                let is_retry = request.key.is_some_and(|key| record.stop_keys.contains(&key));
                let view = Arc::new(compose::view_of(&record));
                send(reply, Ok(Stopped { view, already_finished: !is_retry }));
            }
            Ok(None) if scope == Scope::Everybody && self.unknown.has(&id) => {
                send(reply, Err(Refusal::being_found(&id)));
            }
            Ok(_) => {
                self.bury(&id, scope);
                send(reply, Err(Refusal::not_found(&id)));
            }
            Err(error) => send(reply, Err(Refusal::journal(&error))),
        }
    }

    /// Accepts a stop: from this instant on nothing is kept, unless an earlier stop came first.
    pub(super) fn accept_stop(
        &mut self,
        id: &SessionId,
        reason: EndReason,
        mode: StopMode,
        drain: Option<Duration>,
    ) {
        let (at, at_wall) = (self.clock.now(), self.clock.wall());
        let Some(live) = self.live.get_mut(id) else { return };
        if live.machine.is_over() {
            return;
        }
        if live.record.stop.is_none() {
            tracing::info!(session = %id, %reason, "stop accepted");
            live.record.stop = Some(StopRecord { reason, abort: false, at, at_wall });
        }
        if let Some(stop) = live.record.stop.as_mut().filter(|_| mode == StopMode::Abort) {
            stop.abort = true;
        }
        // What has passed must not be found again at the next look at the clock.
        (live.expires_at, live.ends_at) = (None, None);
        self.feed(id, Event::StopRequested { reason, mode, drain });
    }

    /// A start of this id that comes late is refused.
    fn bury(&mut self, id: &SessionId, scope: Scope) {
        if self.tombstones.len() == TOMBSTONES_MAX {
            self.tombstones.pop_front();
        }
        self.tombstones.push_back(Tombstone { id: id.clone(), scope, at: self.clock.now() });
    }

    /// Has the journal keep the keys of a session whose stop it has been told already.
    fn journal_keys(&mut self, id: &SessionId) {
        if let Some(live) = self.live.get(id) {
            let record = live.record.clone();
            self.put(record, Vec::new());
        }
    }
}

/// Keeps `key`, if there is room; whether it is new.
fn remember(keys: &mut Vec<String>, key: String) -> bool {
    let is_new = keys.len() < STOP_KEYS_MAX && !keys.contains(&key);
    if is_new {
        keys.push(key);
    }
    is_new
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(id: &str, user: &str) -> SessionSpec {
        let source = json!({ "id": "v", "type": "video", "device": "local_camera" });
        let session = json!({ "_id": id, "user": user, "sources": [source] });
        SessionSpec::from_json(session).expect("the test wrote a session")
    }

    #[test]
    fn a_start_is_barred_for_a_minute_after_the_stop_that_overtook_it() {
        let at = MonoTime::from_nanos(7);
        let bars = |scope, spec: &SessionSpec, after_ms| {
            let id = "s".parse().expect("the test wrote an id");
            Tombstone { id, scope, at }.bars(spec, at + Duration::from_millis(after_ms))
        };
        let late = spec("s", "u");
        assert!(bars(Scope::Everybody, &late, 0) && bars(Scope::Everybody, &late, 59_900));
        assert!(!bars(Scope::Everybody, &late, 60_000));
        assert!(!bars(Scope::Everybody, &spec("other", "u"), 0));
        let own = || Scope::User("u".to_owned());
        assert!(bars(own(), &late, 59_900) && !bars(own(), &late, 60_000));
        assert!(!bars(own(), &spec("s", "another"), 0), "nobody bars what is another user's");
    }
}
