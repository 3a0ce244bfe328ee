//! Whether the agent takes new sessions: its operator may drain it, or announce its replacement. Must
//! never end a session; what is being recorded goes on.

use std::time::Duration;

use super::actor::Actor;
use super::answer::send;
use super::command::{AdmissionOrder, AgentView, Reply, ServingState};
use super::refusal::{Refusal, RefusalKind};
use crate::clock::MonoTime;
use crate::session::machine::Phase;
use crate::session::{Account, SourceState};

/// How long an announced replacement is waited for.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// What the operator, or a signal, said last.
#[derive(Debug, Default)]
pub(super) struct Admission {
    stopping: bool,
    draining: bool,
    handover: Handover,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Handover {
    #[default]
    None,
    /// A replacement was announced, and may come until then.
    Until(MonoTime),
    /// It comes: this daemon ends and its workers stay.
    Begun,
}

impl Admission {
    /// What the agent does.
    pub(super) fn state(&self) -> ServingState {
        match (self.stopping, self.handover, self.draining) {
            (true, _, _) => ServingState::Stopping,
            (false, Handover::Until(_) | Handover::Begun, _) => ServingState::HandingOver,
            (false, Handover::None, true) => ServingState::Draining,
            (false, Handover::None, false) => ServingState::Serving,
        }
    }

    /// Whether a new session may start.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let unavailable = |reason, message| Err(Refusal::new(RefusalKind::Unavailable, reason, message));
        match self.state() {
            ServingState::Serving => Ok(()),
            ServingState::Stopping => Err(Refusal::shutting_down()),
            ServingState::Draining => unavailable(
                "DRAINING",
                "the operator drains this host: it takes no new session; use another host, or run `shutterd undrain`",
            ),
            ServingState::HandingOver => unavailable(
                "HANDING_OVER",
                "the agent is being replaced: it takes no new session; try again in some seconds",
            ),
        }
    }

    /// Every session is being stopped.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Goes back to what was before, when an announced replacement has not come in time.
    pub(super) fn on_time(&mut self, now: MonoTime) {
        if matches!(self.handover, Handover::Until(at) if at <= now) {
            self.handover = Handover::None;
            tracing::warn!("the announced replacement has not come: new sessions are taken as before");
        }
    }

    fn order(&mut self, order: AdmissionOrder, now: MonoTime) {
        match order {
            AdmissionOrder::Drain => self.draining = true,
            AdmissionOrder::Undrain => (self.draining, self.handover) = (false, Handover::None),
            AdmissionOrder::HandOver => self.handover = Handover::Until(now + HANDOVER_TIMEOUT),
        }
    }

    /// The daemon was told to end. True if its replacement was announced: then there is no way back.
    fn leave(&mut self) -> bool {
        let announced = !self.stopping && self.handover != Handover::None;
        if announced {
            self.handover = Handover::Begun;
        }
        announced
    }
}

impl Actor {
    pub(super) fn admission_order(&mut self, order: AdmissionOrder, reply: Reply<AgentView>) {
        if self.admission.state() == ServingState::Stopping || self.admission.handover == Handover::Begun {
            return send(reply, Err(Refusal::shutting_down()));
        }
        self.admission.order(order, self.clock.now());
        tracing::info!(?order, sessions = self.live.len() + self.pending.len(), "told by the operator");
        send(reply, Ok(self.agent()));
    }

    pub(super) fn leave(&mut self, reply: Reply<bool>) {
        send(reply, Ok(self.admission.leave()));
    }

    /// The agent, as callers see it.
    pub(super) fn agent(&self) -> AgentView {
        let working = |phase| phase == Phase::Working;
        let unsettled =
            self.live.values().filter(|live| !working(live.machine.phase()) && !live.machine.is_stuck());
        let sources = || self.live.values().flat_map(|live| &live.account.sources);
        AgentView {
            state: self.admission.state(),
            sessions: self.live.len() + self.pending.len(),
            sessions_max: self.settings.limits.sessions_max,
            unsettled: unsettled.count() + self.pending.len(),
            repairing: self.live.values().filter(|live| live.repair.is_some()).count() + self.unknown.count(),
            sources: sources().count(),
            degraded: sources().filter(|source| source.state == SourceState::Degraded).count(),
            bytes_per_second: self.bytes_per_second(),
            problems: self.problems.iter().cloned().collect(),
            health: self.health(),
        }
    }

    /// Bytes a second that become durable, each session on its own average.
    pub(super) fn bytes_per_second(&self) -> f64 {
        let captures = self.live.values().filter(|live| live.machine.phase() == Phase::Working);
        captures.map(|live| rate(&live.account, live.durable_bytes())).sum()
    }
}

/// Bytes a second of a session so far.
fn rate(account: &Account, durable_bytes: u64) -> f64 {
    if account.captured_seconds > 1.0 { durable_bytes as f64 / account.captured_seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonoTime = MonoTime::from_nanos(7);

    fn after(orders: &[AdmissionOrder]) -> Admission {
        let mut admission = Admission::default();
        for order in orders {
            admission.order(*order, NOW);
        }
        admission
    }

    #[test]
    fn only_an_agent_that_serves_takes_sessions() {
        use AdmissionOrder::{Drain, HandOver, Undrain};
        let cases: [(&[AdmissionOrder], ServingState, Option<&str>); 6] = [
            (&[], ServingState::Serving, None),
            (&[Drain], ServingState::Draining, Some("DRAINING")),
            (&[Drain, Undrain], ServingState::Serving, None),
            (&[HandOver], ServingState::HandingOver, Some("HANDING_OVER")),
            (&[Drain, HandOver], ServingState::HandingOver, Some("HANDING_OVER")),
            (&[HandOver, Undrain], ServingState::Serving, None),
        ];
        for (orders, state, reason) in cases {
            let mut admission = after(orders);
            assert_eq!(admission.state(), state, "{orders:?}");
            assert_eq!(
                admission.check().err().map(|refusal| refusal.reason).as_deref(),
                reason,
                "{orders:?}"
            );
            admission.stop();
            assert_eq!(admission.state(), ServingState::Stopping, "{orders:?}");
        }
    }

    #[test]
    fn a_replacement_that_does_not_come_is_forgotten() {
        for (before, state) in [
            (AdmissionOrder::Undrain, ServingState::Serving),
            (AdmissionOrder::Drain, ServingState::Draining),
        ] {
            let mut admission = after(&[before, AdmissionOrder::HandOver]);
            admission.on_time(NOW + HANDOVER_TIMEOUT - Duration::from_nanos(1));
            assert_eq!(admission.state(), ServingState::HandingOver);
            admission.on_time(NOW + HANDOVER_TIMEOUT);
            assert_eq!(admission.state(), state);
            assert!(!admission.leave());
        }
    }

    #[test]
    fn workers_are_left_only_to_a_replacement_that_was_announced() {
        assert!(!after(&[]).leave());
        assert!(!after(&[AdmissionOrder::Drain]).leave());
        let mut admission = after(&[AdmissionOrder::HandOver]);
        assert!(admission.leave());
        admission.on_time(NOW + HANDOVER_TIMEOUT);
        assert_eq!(admission.state(), ServingState::HandingOver, "there is no way back");
        let mut admission = after(&[AdmissionOrder::HandOver]);
        admission.stop();
        assert!(!admission.leave());
    }
}
