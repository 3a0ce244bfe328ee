//! Callers: each call has to be answered once, in time, and with something that is so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::world::World;
use crate::clock::WallTime;
use crate::journal::played::Rows;
use crate::session::machine::StopMode;
use crate::session::{Receipt, SessionId, SessionSpec, StartOptions};
use crate::supervisor::command::{SessionView, StopRequest, Stopped, WaitFor};
use crate::supervisor::handle::Handle;
use crate::supervisor::refusal::Refusal;

/// The longest that the journal keeps anybody waiting in these histories.
pub(super) const JOURNAL_MAX: Duration = Duration::from_secs(9);
/// What timers and short waits of the model add up to.
const SLACK: Duration = Duration::from_secs(3);

/// What was asked and answered.
#[derive(Clone)]
pub(super) struct Calls {
    world: World,
    rows: Rows,
    answered: Arc<Mutex<Answered>>,
}

#[derive(Default)]
pub(super) struct Answered {
    next: u64,
    /// Calls that wait: what they are, when they have to be answered, and their task.
    waiting: BTreeMap<u64, (String, Instant, Option<AbortHandle>)>,
    /// Sessions that somebody knows to be there.
    pub(super) known: BTreeSet<SessionId>,
    /// Sessions that somebody has asked to stop while they were known to be there.
    pub(super) stopped: BTreeSet<SessionId>,
    /// Receipts of sessions that were called finished.
    pub(super) receipts: BTreeMap<SessionId, Receipt>,
    /// Keys of stops that were answered as the first.
    keys: BTreeSet<(SessionId, String)>,
    /// Sessions whose stop was answered by that their worker is stuck.
    pub(super) stuck: BTreeSet<SessionId>,
    /// How often the daemon has ended.
    kills: u64,
}

impl Answered {
    /// The daemon ends; the next one has to find out what is stuck.
    pub(super) fn lose_daemon(&mut self) {
        self.kills += 1;
        self.stuck.clear();
    }
}

impl Calls {
    pub(super) fn new(world: World, rows: Rows) -> Self {
        Self { world, rows, answered: Arc::default() }
    }

    pub(super) fn answered(&self) -> MutexGuard<'_, Answered> {
        self.answered.lock().expect("no holder of this lock panics")
    }

    /// Makes a call that must be answered within `longest`.
    fn call<T: Send + 'static>(
        &self,
        what: String,
        longest: Duration,
        call: impl Future<Output = Result<T, Refusal>> + Send + 'static,
        judge: impl FnOnce(&Self, Result<T, Refusal>) + Send + 'static,
    ) {
        let number = {
            let mut answered = self.answered();
            answered.next += 1;
            answered.next
        };
        self.world.tell(format!("#{number} {what}"));
        let (calls, asked_at) = (self.clone(), Instant::now());
        let kills = self.answered().kills;
        self.answered().waiting.insert(number, (what, asked_at + longest, None));
        let task = tokio::spawn(async move {
            let answer = call.await;
            let taken = calls.answered().waiting.remove(&number);
            let (what, due, _) = taken.expect("a call is answered once");
            let outcome = answer.as_ref().map_or_else(|refusal| refusal.reason.clone(), |_| "ok".to_owned());
            calls.world.tell(format!("#{number} is answered: {outcome}"));
            calls
                .world
                .require(Instant::now() <= due, || format!("#{number} {what} took {:?}", asked_at.elapsed()));
            let gone = matches!(&answer, Err(refusal) if refusal.reason == "AGENT_GONE");
            let killed = calls.answered().kills > kills;
            calls.world.require(!gone || killed, || format!("#{number} {what} was not answered"));
            if !gone {
                judge(&calls, answer);
            }
        });
        if let Some((_, _, kept)) = self.answered().waiting.get_mut(&number) {
            *kept = Some(task.abort_handle());
        }
    }

    /// One caller goes away.
    pub(super) fn abandon_one(&self) {
        let gone = self.answered().waiting.pop_last();
        if let Some((number, (_, _, Some(task)))) = gone {
            self.world.tell(format!("#{number}: its caller goes away"));
            task.abort();
        }
    }

    /// Calls that nobody has answered although their time is over.
    pub(super) fn judge_overdue(&self) {
        let overdue: Vec<String> = {
            let answered = self.answered();
            let late = answered.waiting.iter().filter(|(_, (_, due, _))| *due < Instant::now());
            late.map(|(number, (what, _, _))| format!("#{number} {what} is not answered")).collect()
        };
        for what in overdue {
            self.world.wrong(what);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.answered().waiting.len()
    }

    pub(super) fn start(&self, handle: &Handle, spec: SessionSpec, options: StartOptions) {
        const REASONS: [&str; 20] = [
            "SESSION_EXISTS",
            "MEDIA_EXISTS",
            "DEVICE_BUSY",
            "DEVICE_MISSING",
            "PROBE_FAILED",
            "SHUTTING_DOWN",
            "DRAINING",
            "HANDING_OVER",
            "STOPPED_BEFORE_START",
            "TOO_MANY_SESSIONS",
            "JOURNAL_FAILED",
            "WORKER_NOT_LAUNCHED",
            "WORKER_DIED",
            "WORKER_TIMEOUT",
            "WORKER_VERSION",
            "DEVICE_NOT_RELEASED",
            "WORKER_STUCK",
            "SESSION_EXPIRED",
            "DEVICE_TWICE",
            "AGENT_GONE",
        ];
        // The search, the journal twice, the start and the ladder that ends it, and its removal.
        let longest = Duration::from_secs(3 + 12 + 2 + 2 + 2) + JOURNAL_MAX * 4 + SLACK;
        let (own, id) = (handle.clone(), spec.id().clone());
        let what = format!("start {id}");
        let call = async move { own.start(spec, options).await };
        self.call(what, longest, call, move |calls, answer| match answer {
            Ok(view) => {
                let began = calls.world.facts().media.contains_key(&id);
                calls
                    .world
                    .require(began || view.finished, || format!("{id} was called started and never began"));
                calls.answered().known.insert(id.clone());
                calls.see(&view);
            }
            Err(refusal) => calls.judge_refusal("start", &id, &refusal, &REASONS),
        });
    }

    pub(super) fn stop(&self, handle: &Handle, id: SessionId, request: StopRequest) {
        const REASONS: [&str; 4] =
            ["SESSION_NOT_FOUND", "DEVICE_NOT_RELEASED", "WORKER_STUCK", "JOURNAL_FAILED"];
        let drain = request.drain.unwrap_or(Duration::from_secs(10));
        let ladder = match request.mode {
            StopMode::Drain => drain,
            StopMode::Abort => drain.min(Duration::from_secs(2)),
        } + Duration::from_secs(4);
        let found = Duration::from_secs(3) + JOURNAL_MAX * 2 + SLACK;
        let longest = match request.wait {
            WaitFor::Released => found + ladder + JOURNAL_MAX,
            WaitFor::Finalized => found + ladder + Duration::from_secs(60 + 5),
        };
        let StopRequest { mode, drain, wait, key } = request.clone();
        let what = format!("stop {id} ({mode:?}, {drain:?}, {wait:?}, {key:?})");
        if self.answered().known.contains(&id) {
            self.answered().stopped.insert(id.clone());
        }
        let own = handle.clone();
        let asked = (id.clone(), request.clone());
        let call = async move { own.stop(asked.0, asked.1).await };
        self.call(what, longest, call, move |calls, answer| match answer {
            Ok(stopped) => calls.judge_stopped(&id, &request, &stopped),
            Err(refusal) => {
                calls.judge_refusal("stop", &id, &refusal, &REASONS);
                if refusal.reason == "DEVICE_NOT_RELEASED" {
                    calls.answered().stuck.insert(id.clone());
                }
            }
        });
    }

    fn judge_stopped(&self, id: &SessionId, request: &StopRequest, stopped: &Stopped) {
        let held = self.world.held(id);
        self.world.require(held.is_empty(), || format!("{id} was called stopped and has {held:?} open"));
        self.answered().known.insert(id.clone());
        self.see(&stopped.view);
        if request.wait == WaitFor::Released && !stopped.view.finished {
            let is_durable = self.rows.record(id).is_some_and(|record| record.stop.is_some());
            let may_lack = self.world.facts().refused;
            return self.world.require(is_durable || may_lack, || {
                format!("{id} was called released, and the journal knows nothing of its stop")
            });
        }
        self.world.require(stopped.view.finished, || format!("{id} was called final and is not finished"));
        if let Some(key) = &request.key {
            let own = (id.clone(), key.clone());
            let was_first = self.answered().keys.contains(&own);
            self.world.require(!was_first || !stopped.already_finished, || {
                format!("a retry of the stop {key} of {id} was told that it came too late")
            });
            // What only the journal has is lost with a daemon that it has refused all the time.
            let is_durable = self.rows.record(id).is_some_and(|record| record.is_finished());
            if !stopped.already_finished && is_durable {
                self.answered().keys.insert(own);
            }
        }
    }

    /// What is said of a session holds from then on.
    pub(super) fn see(&self, view: &SessionView) {
        let id = &view.id;
        let state = view.object.get("state").and_then(|state| state.as_str()).unwrap_or_default().to_owned();
        let said = self.answered().receipts.get(id).cloned();
        if !view.finished {
            self.world.require(said.is_none(), || format!("{id} was finished and is {state}"));
            return;
        }
        let Some(receipt) = &view.receipt else {
            return self.world.wrong(format!("{id} is finished without a receipt"));
        };
        match said {
            None => {
                self.judge_receipt(id, receipt);
                self.answered().receipts.insert(id.clone(), receipt.clone());
            }
            Some(said) => self.world.require(said == to_the_millisecond(receipt), || {
                format!("{id} had this receipt: {said:?}, and has now {receipt:?}")
            }),
        }
        let said = to_the_millisecond(receipt);
        self.answered().receipts.insert(id.clone(), said);
    }

    fn judge_receipt(&self, id: &SessionId, receipt: &Receipt) {
        let living = self.world.living(id);
        self.world.require(living.is_empty(), || format!("{id} is finished, and {living:?} still run"));
        self.world.require(receipt.released_at.is_some(), || format!("{id} is finished, and not released"));
        let (media, unrepaired) = {
            let facts = self.world.facts();
            (facts.media.get(id).cloned().unwrap_or_default(), facts.unrepaired.contains(id))
        };
        let given_up = receipt.warnings.iter().any(|warning| warning.contains("repair"));
        if !unrepaired && !given_up {
            let (told, there) = (receipt.files.len(), media.files.len());
            self.world.require(told == there, || format!("{id} has {there} files, its receipt {told}"));
        }
        for source in media.captured.keys() {
            let is_told = receipt.sources.iter().any(|it| it.id == *source);
            self.world.require(is_told, || format!("the receipt of {id} has nothing of {source}"));
        }
        for source in &receipt.sources {
            let name = format!("{id}, {}", source.id);
            self.world
                .require(source.adds_up(), || format!("the account of {name} doesn't add up: {source:?}"));
            let (captured, written) =
                (media.captured.get(&source.id).copied().unwrap_or(0), media.written(&source.id));
            let sure = !unrepaired && !given_up;
            self.world.require(source.written == written || (!sure && source.written <= written), || {
                format!("{name}: {written} are in the files, its receipt has {} ({source:?})", source.written)
            });
            self.world.require(source.captured <= captured, || {
                format!("{name}: {captured} were captured, its receipt has {}", source.captured)
            });
            self.world.require(source.at_least || media.lied || source.captured == captured, || {
                format!("{name}: {captured} were captured, its receipt has {} and is sure", source.captured)
            });
        }
    }

    fn judge_refusal(&self, call: &str, id: &SessionId, refusal: &Refusal, allowed: &[&str]) {
        let reason = refusal.reason.as_str();
        self.world.require(allowed.contains(&reason), || format!("{call} {id} was refused by {refusal:?}"));
        let known = self.answered().known.contains(id);
        self.world.require(!(known && reason == "SESSION_NOT_FOUND"), || {
            format!("{call}: {id} is not known any more")
        });
    }

    pub(super) fn get(&self, handle: &Handle, id: SessionId) {
        let own = (handle.clone(), id.clone());
        let call = async move { own.0.get(own.1).await };
        self.call(format!("get {id}"), JOURNAL_MAX + SLACK, call, move |calls, answer| match answer {
            Ok(view) => calls.see(&view),
            Err(refusal) => {
                calls.judge_refusal("get", &id, &refusal, &["SESSION_NOT_FOUND", "JOURNAL_FAILED"]);
            }
        });
    }

    pub(super) fn list(&self, handle: &Handle) {
        let own = handle.clone();
        let call = async move { own.list(0, 100).await };
        self.call("list".to_owned(), JOURNAL_MAX + SLACK, call, |calls, answer| match answer {
            Ok(views) => {
                let ordered = views.windows(2).all(|two| two[0].change < two[1].change);
                calls.world.require(ordered, || "a list is in the order of changes".to_owned());
                for view in views {
                    calls.see(&view);
                }
            }
            Err(refusal) => {
                calls.world.require(refusal.reason == "JOURNAL_FAILED", || refusal.message.clone());
            }
        });
    }

    pub(super) fn look_at_agent(&self, handle: &Handle) {
        let own = handle.clone();
        let call = async move { own.agent().await };
        self.call("agent".to_owned(), SLACK, call, |calls, answer| {
            let Ok(agent) = answer else { return calls.world.wrong("the agent doesn't answer") };
            let stuck = calls.answered().stuck.clone();
            for id in stuck.iter().filter(|id| !calls.world.held(id).is_empty()) {
                calls.world.require(agent.health.status() == "failed", || {
                    format!("a worker of {id} can't be ended, and health is {}", agent.health.status())
                });
            }
        });
    }
}

/// A receipt as the journal keeps its times.
fn to_the_millisecond(receipt: &Receipt) -> Receipt {
    let cut = |at: Option<WallTime>| at.map(|at| at.to_string().parse().expect("a time is written as one"));
    Receipt {
        requested_at: cut(receipt.requested_at),
        released_at: cut(receipt.released_at),
        finalized_at: cut(receipt.finalized_at),
        ..receipt.clone()
    }
}
