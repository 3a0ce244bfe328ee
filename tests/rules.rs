//! The rules of a session's life: every state that any order of events can reach is walked, also orders
//! that no sane world brings, and each step is judged by what the design promises.

#[path = "rules/recovered.rs"]
mod recovered;

#[path = "rules/restarts.rs"]
mod restarts;

#[path = "rules/times.rs"]
mod times;

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

#[test]
fn a_healthy_session_is_journalled_launched_stopped_released_accounted_and_answered_in_this_order() {
    let mut life = admitted();
    let (at, armed) = (MonoTime::default(), Action::Arm(MonoTime::default()));
    let mut expect = |event, orders: &[Action]| {
        assert_eq!(life.step(at, event).expect("promises hold"), orders, "{event:?}");
    };
    expect(Event::StartJournalled, &[Action::Launch]);
    expect(Event::Linked, &[]);
    let working = Action::AnswerStart(StartOutcome::Working);
    expect(Event::Working, &[Action::Disarm, working, Action::Publish]);
    let stop = Action::SendStop(StopMode::Drain);
    expect(STOP, &[stop, Action::JournalStop, armed, Action::Publish]);
    expect(STOP, &[]);
    expect(Event::StopJournalled, &[]);
    expect(Event::Released, &[Action::ReleaseLeases, Action::AnswerReleased, Action::Publish]);
    expect(Event::Accounted, &[]);
    expect(Event::Exited, &[Action::JournalFinish, armed]);
    let end = [Action::AnswerReleased, Action::Disarm, Action::AnswerFinished, Action::Publish];
    expect(Event::FinishJournalled, &end);
    assert_eq!(life.machine.worker_state(), WorkerState::Stopped);
    assert!(!life.machine.is_forced());
}

#[test]
fn a_stop_of_a_start_that_failed_already_keeps_the_session() {
    let (life, orders) =
        after(admitted(), &[Event::StartJournalled, Event::Linked, Event::StartFailed, STOP]);
    assert!(orders.contains(&Action::AnswerStart(StartOutcome::Stopped)));
    assert!(orders.contains(&Action::JournalStop), "a daemon killed now must finish the stop");
    let (life, orders) = after(life, &[Event::Exited]);
    assert!(orders.contains(&Action::JournalFinish));
    assert_eq!(life.machine.cause(), Some(EndReason::StartFailed));
}

#[test]
fn a_start_that_was_killed_at_its_deadline_is_repaired_if_it_was_stopped_too() {
    let past = [Event::StartJournalled, Event::Linked, Event::DeadlinePassed, STOP, Event::Exited];
    let (life, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::Repair));
    assert_eq!(life.machine.phase(), Phase::Repairing);
}

#[test]
fn a_start_that_was_killed_at_its_deadline_is_discarded() {
    let past = [Event::StartJournalled, Event::DeadlinePassed, Event::DeadlinePassed, Event::Exited];
    let (_, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::Discard));
    assert!(orders.contains(&Action::AnswerStart(StartOutcome::Failed)));
}

#[test]
fn a_stop_before_its_start_is_durable_says_released_only_with_the_receipt() {
    let (life, orders) = after(admitted(), &[STOP]);
    assert!(!orders.contains(&Action::AnswerReleased));
    let (life, orders) = after(life, &[Event::StartJournalled]);
    assert!(orders.is_empty(), "a start that is durable late launches nothing");
    let (_, orders) = after(life, &[Event::FinishJournalled]);
    assert!(orders.contains(&Action::AnswerReleased));
}

#[test]
fn an_abort_reaches_a_worker_that_ends_by_itself() {
    let past = [Event::StartJournalled, Event::Linked, Event::WorkerEnds(EndReason::Expired), ABORT];
    let (life, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::SendStop(StopMode::Abort)));
    assert_eq!(life.machine.cause(), Some(EndReason::Expired));
}

/// A session with [`limits`] that captures at 0 s, and then takes these stops, each at its second; when
/// it is ended by force.
fn forced_at(stops: &[(u64, StopMode, Option<u64>)]) -> u64 {
    let mut life = Life::admit(limits(), MonoTime::default());
    for event in [Event::StartJournalled, Event::Linked, Event::Working] {
        life.step(MonoTime::default(), event).expect("promises hold");
    }
    for (at, mode, drain) in stops {
        let drain = drain.map(Duration::from_secs);
        let stop = Event::StopRequested { reason: EndReason::StopRequested, mode: *mode, drain };
        life.step(MonoTime::default() + Duration::from_secs(*at), stop).expect("promises hold");
    }
    let armed = life.history.armed.expect("a stop has a deadline");
    let orders = life.step(armed, Event::DeadlinePassed).expect("promises hold");
    assert!(orders.contains(&Action::Terminate), "{orders:?}");
    armed.since(MonoTime::default()).as_secs()
}

#[test]
fn an_abort_shortens_a_drain_and_no_stop_prolongs_one() {
    let (drain, abort) = (StopMode::Drain, StopMode::Abort);
    assert_eq!(forced_at(&[(0, drain, None)]), 10);
    assert_eq!(
        forced_at(&[(0, drain, None), (1, abort, None)]),
        4,
        "what SIGTERM is given, from the abort on"
    );
    assert_eq!(forced_at(&[(0, drain, Some(60)), (20, abort, Some(50))]), 23);
    assert_eq!(forced_at(&[(0, abort, None)]), 3);
    assert_eq!(forced_at(&[(0, drain, None), (9, abort, None)]), 10, "it comes too late to shorten");
    assert_eq!(forced_at(&[(0, abort, None), (1, abort, None)]), 3, "a second abort is no respite");
    assert_eq!(forced_at(&[(0, abort, None), (1, drain, Some(30))]), 3);
    assert_eq!(forced_at(&[(0, drain, None), (1, drain, Some(2))]), 3);
}

#[test]
fn a_stop_during_a_repair_is_journalled_and_answered_as_released() {
    let gone = Left { cause: None, worker: LeftWorker::Gone, unrepaired: false };
    let recovered = Life::recover(timeless(), MonoTime::default(), gone);
    let (life, orders) = after(recovered, &[Event::Exited, STOP]);
    assert!(orders.contains(&Action::JournalStop));
    let (life, orders) = after(life, &[Event::StopJournalled]);
    assert_eq!(orders, [Action::AnswerReleased]);
    assert_eq!(life.machine.cause(), Some(EndReason::WorkerFailed));
}

#[test]
fn a_stop_of_a_stuck_worker_whose_devices_are_closed_hears_that_they_are() {
    let due = Event::DeadlinePassed;
    let past =
        [Event::StartJournalled, Event::Linked, STOP, Event::StopJournalled, Event::Released, due, due, due];
    let (life, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::AnswerStuck));
    let (life, orders) = after(life, &[STOP]);
    assert_eq!(orders, [Action::AnswerReleased, Action::AnswerStuck]);
    assert!(life.machine.is_stuck() && life.machine.is_released());
}

#[test]
fn a_stuck_worker_keeps_its_devices_until_the_kernel_lets_go() {
    let due = Event::DeadlinePassed;
    let past = [Event::StartJournalled, Event::Linked, STOP, due, due, due];
    let (life, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::AnswerStuck) && !life.machine.is_released());
    let (_, orders) = after(life, &[Event::Exited]);
    assert!(orders.contains(&Action::ReleaseLeases));
}
