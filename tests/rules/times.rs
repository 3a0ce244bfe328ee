//! Times: deadlines that are asked about too early, when they are due and too late, and stops that shorten a drain.

use super::*;

const SHORT: Duration = Duration::from_secs(4);
/// Shorter than what an abort leaves a worker in any case.
const SHORTER: Duration = Duration::from_secs(1);

/// What differs by its time, and one of each kind of the rest.
fn occurrences() -> Vec<Occurrence> {
    let kept = |event: &Event| !matches!(event, Event::Degraded(_) | Event::DeadlinePassed);
    let mut all: Vec<Event> = events(&[]).into_iter().filter(kept).collect();
    all.push(Event::WorkerEnds(EndReason::SourceLost));
    for drain in [None, Some(SHORT), Some(SHORTER)] {
        for (reason, mode) in
            [(EndReason::StopRequested, StopMode::Drain), (EndReason::Aborted, StopMode::Abort)]
        {
            all.push(Event::StopRequested { reason, mode, drain });
        }
    }
    let mut all: Vec<Occurrence> = all.into_iter().map(|event| (event, Moment::Begin)).collect();
    all.extend([Moment::Begin, Moment::Due, Moment::Late].map(|moment| (Event::DeadlinePassed, moment)));
    all
}

#[test]
fn every_promise_holds_whenever_deadlines_come_and_however_long_a_drain_may_take() {
    let limits = PhaseLimits { restarts: 1, ..limits() };
    let now = MonoTime::default();
    walk(Life::admit(limits, now), "admitted, with times", &occurrences(), 9);
    let left = Left { cause: None, worker: LeftWorker::Alive, unrepaired: true };
    walk(Life::recover(limits, now, left), "recovered, with times", &occurrences(), 6);
}

#[test]
fn a_stop_shortens_a_drain_and_none_prolongs_it() {
    let mut life = Life::admit(limits(), MonoTime::default());
    let at = |seconds| MonoTime::default() + Duration::from_secs(seconds);
    for event in [Event::StartJournalled, Event::Linked, Event::Working] {
        life.step(at(0), event).expect("promises hold");
    }
    let stop = |mode, drain| Event::StopRequested { reason: EndReason::StopRequested, mode, drain };
    for (now, mode, drain, due) in [
        (100, StopMode::Drain, None, 110),
        (101, StopMode::Drain, Some(SHORT), 105),
        (102, StopMode::Drain, None, 105),
        (102, StopMode::Abort, None, 105),
        (103, StopMode::Abort, Some(SHORTER), 104),
        (103, StopMode::Drain, Some(Duration::from_secs(3600)), 104),
    ] {
        life.step(at(now), stop(mode, drain)).expect("promises hold");
        assert_eq!(life.history.armed, Some(at(due)), "{mode:?} {drain:?} at {now}");
    }
    assert_eq!(life.step(at(103), Event::DeadlinePassed).expect("promises hold"), []);
    let orders = life.step(at(104), Event::DeadlinePassed).expect("promises hold");
    assert!(orders.contains(&Action::Terminate), "{orders:?}");
    life.step(at(105), stop(StopMode::Drain, Some(SHORTER))).expect("promises hold");
    assert_eq!(life.history.armed, Some(at(107)), "what SIGTERM leaves it is not cut short");
}
