//! The rules of a session's life: every state that any order of events can reach is walked, also orders
//! that no sane world brings, and each step is judged by what the design promises.

#[path = "rules/recovered.rs"]
mod recovered;

#[path = "rules/restarts.rs"]
mod restarts;

#[path = "rules/times.rs"]
mod times;

#[path = "rules/orders.rs"]
mod orders;

#[path = "rules/history.rs"]
mod history;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use history::{Life, require};
use proptest::prelude::*;
use shutterd::clock::MonoTime;
use shutterd::session::device::{Address, DeviceKey, DeviceSpec, FormatWish, MediaType};
use shutterd::session::limits::GAPS_MAX;
use shutterd::session::machine::{
    Action, Event, Left, LeftWorker, Phase, PhaseLimits, StartOutcome, StopMode,
};
use shutterd::session::{EndReason, Gap, GapReason, Leases, SourceReceipt, WorkerState};

/// States of a walk: far more than there are.
const LIVES_MAX: usize = 1_000_000;

/// Whatever state a life is in, it comes to its end, and a stop to its answer.
fn judge_liveness(life: &Life) -> Result<(), String> {
    let gone = [Event::StartJournalled, Event::Exited, Event::Repaired, Event::FinishJournalled];
    let mut by_deadlines = life.clone();
    by_deadlines.exhaust(Event::DeadlinePassed)?;
    let history = &by_deadlines.history;
    require(!history.waiting, "deadlines alone answer a stop")?;
    require(history.recovered || history.start.is_some(), "deadlines alone answer a start")?;

    let mut by_the_world = life.clone();
    by_the_world.step(MonoTime::default(), STOP)?;
    for event in gone.into_iter().chain(gone) {
        by_the_world.step(MonoTime::default(), event)?;
    }
    require(by_the_world.machine.is_over(), "a stopped life whose worker is reaped ends without a deadline")?;

    by_deadlines.step(MonoTime::default(), STOP)?;
    for event in gone.into_iter().chain(gone) {
        by_deadlines.step(MonoTime::default(), event)?;
    }
    require(by_deadlines.machine.is_over(), "a stuck life ends once its worker is reaped")?;

    let mut by_both = life.clone();
    by_both.step(MonoTime::default(), Event::StartJournalled)?;
    for _ in 0..=timeless().restarts {
        by_both.step(MonoTime::default(), Event::Exited)?;
        by_both.exhaust(Event::DeadlinePassed)?;
    }
    require(by_both.machine.is_over(), "a life whose workers go on dying ends by deadlines alone")
}

/// Every event; stops and the worker's own ends with each of `reasons`.
fn events(reasons: &[EndReason]) -> Vec<Event> {
    let mut all = vec![
        Event::StartJournalled,
        Event::StartNotJournalled,
        Event::LaunchFailed,
        Event::Linked,
        Event::LinkLost,
        Event::Working,
        Event::StartFailed,
        Event::Silent,
        Event::Degraded(true),
        Event::Degraded(false),
        Event::StopJournalled,
        Event::Released,
        Event::Accounted,
        Event::Exited,
        Event::Repaired,
        Event::FinishJournalled,
        Event::DeadlinePassed,
    ];
    for reason in reasons.iter().copied() {
        all.push(Event::WorkerEnds(reason));
        for mode in [StopMode::Drain, StopMode::Abort] {
            all.push(Event::StopRequested { reason, mode, drain: None });
        }
    }
    all
}

/// When something happens in a walk.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as the life has begun, so that the times in it are finitely many.
    Begin,
    /// When the time has come that is armed.
    Due,
    /// A while after that.
    Late,
}

impl Moment {
    fn of(self, life: &Life) -> MonoTime {
        let due = life.history.armed.unwrap_or_default();
        match self {
            Self::Begin => MonoTime::default(),
            Self::Due => due,
            Self::Late => due + Duration::from_secs(1),
        }
    }
}

/// What can happen in a walk.
type Occurrence = (Event, Moment);

/// Walks all that `first` can become, breadth first, so that a broken promise comes with the shortest
/// way to it. `phases` is how many phases it can come to.
#[expect(clippy::print_stdout, reason = "how far a walk went is its result")]
fn walk(first: Life, name: &str, events: &[Occurrence], phases: usize) {
    let mut lives = vec![(first.clone(), None)];
    let mut known = HashMap::from([(first, 0)]);
    let mut next = 0;
    while next < lives.len() {
        assert!(next < LIVES_MAX, "{name}: the states must be finitely many");
        let life = lives[next].0.clone();
        let way = |last: Option<Occurrence>, lives: &[(Life, Option<(usize, Occurrence)>)]| {
            let mut way: Vec<Occurrence> = last.into_iter().collect();
            let mut at = next;
            while let Some((before, event)) = lives[at].1 {
                way.push(event);
                at = before;
            }
            way.reverse();
            way
        };
        if let Err(promise) = judge_liveness(&life) {
            panic!("{name}: {promise}, after {:?}\n{life:#?}", way(None, &lives));
        }
        for (event, moment) in events.iter().copied() {
            let mut after = life.clone();
            if let Err(promise) = after.step(moment.of(&life), event) {
                panic!("{name}: {promise}, after {:?}\n{life:#?}", way(Some((event, moment)), &lives));
            }
            if !known.contains_key(&after) {
                known.insert(after.clone(), lives.len());
                lives.push((after, Some((next, (event, moment)))));
            }
        }
        next += 1;
    }
    println!("{name}: {} states, {} transitions", lives.len(), lives.len() * events.len());
    let reached: HashSet<Phase> = lives.iter().map(|(life, _)| life.machine.phase()).collect();
    assert_eq!(reached.len(), phases, "{name}: {reached:?}");
}

/// No time passes: whatever is armed has come, and the states are finitely many.
fn timeless() -> PhaseLimits {
    let zero = Duration::ZERO;
    let (start, drain, term, kill, repair, close) = (zero, zero, zero, zero, zero, zero);
    PhaseLimits { start, drain, term, kill, repair, close, backoff: zero, steady: zero, restarts: 2 }
}

/// Every event, while no time passes.
fn at_once() -> Vec<Occurrence> {
    events(&EndReason::ALL).into_iter().map(|event| (event, Moment::Begin)).collect()
}

#[test]
fn every_promise_holds_in_every_state_that_an_admitted_session_can_reach() {
    walk(Life::admit(timeless(), MonoTime::default()), "admitted", &at_once(), 9);
}

#[test]
fn every_promise_holds_in_every_state_that_a_recovered_session_can_reach() {
    for worker in [LeftWorker::Alive, LeftWorker::Gone] {
        for unrepaired in [false, true] {
            let left = Left { cause: None, worker, unrepaired };
            walk(Life::recover(timeless(), MonoTime::default(), left), &format!("{left:?}"), &at_once(), 6);
        }
    }
    for cause in EndReason::ALL {
        let left = Left { cause: Some(cause), worker: LeftWorker::Alive, unrepaired: true };
        walk(Life::recover(timeless(), MonoTime::default(), left), &format!("{left:?}"), &at_once(), 4);
    }
}

/// Limits that all differ, so that a mix-up shows.
fn limits() -> PhaseLimits {
    let [start, drain, term, kill, repair, close, backoff, steady] =
        [15, 10, 3, 2, 30, 5, 1, 20].map(Duration::from_secs);
    PhaseLimits { start, drain, term, kill, repair, close, backoff, steady, restarts: 3 }
}

fn any_event() -> impl Strategy<Value = Event> {
    let reason = || prop::sample::select(&EndReason::ALL[..]);
    let mode = prop::sample::select(&[StopMode::Drain, StopMode::Abort][..]);
    let drain = prop::option::of((0..30_000_u64).prop_map(Duration::from_millis));
    prop_oneof![
        16 => prop::sample::select(events(&[])),
        2 => (reason(), mode, drain)
            .prop_map(|(reason, mode, drain)| Event::StopRequested { reason, mode, drain }),
        1 => reason().prop_map(Event::WorkerEnds),
    ]
}

fn any_life() -> impl Strategy<Value = Life> {
    let cause = prop::option::of(prop::sample::select(&EndReason::ALL[..]));
    prop_oneof![
        3 => Just(Life::admit(limits(), MonoTime::default())),
        1 => (cause, any::<bool>()).prop_map(|(cause, unrepaired)| {
            Life::recover(limits(), MonoTime::default(), Left { cause, worker: LeftWorker::Alive, unrepaired })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_promise_holds_at_any_times_and_a_stop_is_answered_within_the_sum_of_its_deadlines(
        mut life in any_life(),
        past in prop::collection::vec((0..8_000_u64, any_event()), 0..60),
        drain in prop::option::of((0..30_000_u64).prop_map(Duration::from_millis)),
    ) {
        let mut now = MonoTime::from_nanos(0);
        for (pause_ms, event) in past {
            now = now + Duration::from_millis(pause_ms);
            for action in life.step(now, event).map_err(TestCaseError::fail)? {
                if let Action::Arm(at) = action {
                    prop_assert!((now..=now + Duration::from_secs(30)).contains(&at), "{at:?} at {now:?}");
                }
            }
        }
        if life.machine.is_over() {
            return Ok(());
        }
        let stop = Event::StopRequested { reason: EndReason::Expired, mode: StopMode::Drain, drain };
        life.step(now, stop).map_err(TestCaseError::fail)?;
        let PhaseLimits { drain: usual, term, kill, repair, close, .. } = limits();
        let asked = now + drain.unwrap_or(usual);
        let ending = life.machine.phase() == Phase::Ending && !life.history.terminated;
        prop_assert!(!ending || life.history.armed.is_some_and(|armed| armed <= asked));
        let last = asked + term + kill + repair + close;
        while life.history.waiting {
            now = life.history.armed.expect("who waits for a stop waits for a deadline").max(now);
            prop_assert!(now <= last, "still waiting at {now:?}, {last:?} was the last deadline");
            life.step(now, Event::DeadlinePassed).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn an_account_adds_up_after_any_crash(mut source in any_source(), written in any::<u64>()) {
        let before = source.clone();
        source.settle_after_crash(written);
        prop_assert!(source.adds_up());
        prop_assert!(source.at_least);
        prop_assert_eq!(source.written, written);
        prop_assert!(source.captured >= before.captured);
        prop_assert!(source.dropped <= before.dropped);
    }

    #[test]
    fn a_plausible_account_loses_no_count_in_a_crash(
        written in 0..1_u64 << 40,
        unwritten in 0..1_u64 << 40,
        dropped in 0..1_u64 << 40,
    ) {
        let mut source = silent_source();
        source.captured = written + unwritten + dropped;
        source.dropped = dropped;
        source.settle_after_crash(written);
        prop_assert_eq!((source.written, source.dropped, source.lost), (written, dropped, unwritten));
    }

    #[test]
    fn gaps_are_listed_up_to_the_limit_and_all_are_counted(missed in prop::collection::vec(any::<u64>(), 0..1200)) {
        let mut source = silent_source();
        for (at, missed) in missed.iter().enumerate() {
            let start_seconds = f64::from(u32::try_from(at).expect("few gaps"));
            source.add_gap(Gap { start_seconds, duration_seconds: 1.0, missed: *missed, reason: GapReason::Stalled });
        }
        prop_assert_eq!(source.gaps.len(), missed.len().min(GAPS_MAX));
        let sum = missed.iter().fold(0_u64, |sum, missed| sum.saturating_add(*missed));
        prop_assert_eq!(source.missed, sum);
    }
}

fn silent_source() -> SourceReceipt {
    SourceReceipt {
        id: "camera".to_owned(),
        media: MediaType::Video,
        device: String::new(),
        format: String::new(),
        captured: 0,
        written: 0,
        dropped: 0,
        lost: 0,
        missed: 0,
        filled: 0,
        corrupt: 0,
        drift_ppm: None,
        at_least: false,
        first_timestamp: None,
        last_timestamp: None,
        timestamp_source: None,
        gaps: Vec::new(),
        restarts: 0,
    }
}

fn any_source() -> impl Strategy<Value = SourceReceipt> {
    let count = || prop_oneof![any::<u64>(), 0..1000_u64, Just(u64::MAX)];
    (count(), count(), count(), count()).prop_map(|(captured, written, dropped, lost)| SourceReceipt {
        captured,
        written,
        dropped,
        lost,
        ..silent_source()
    })
}

#[test]
fn an_account_that_overflows_does_not_add_up() {
    let source = SourceReceipt { written: u64::MAX, lost: 1, ..silent_source() };
    assert!(!source.adds_up());
}

/// A life after `past`, and what its last event ordered.
fn after(life: Life, past: &[Event]) -> (Life, Vec<Action>) {
    past.iter().fold((life, Vec::new()), |(mut life, _), event| {
        let orders = life.step(MonoTime::default(), *event).expect("promises hold");
        (life, orders)
    })
}

fn admitted() -> Life {
    Life::admit(timeless(), MonoTime::default())
}

const STOP: Event =
    Event::StopRequested { reason: EndReason::StopRequested, mode: StopMode::Drain, drain: None };
const ABORT: Event = Event::StopRequested { reason: EndReason::Aborted, mode: StopMode::Abort, drain: None };
