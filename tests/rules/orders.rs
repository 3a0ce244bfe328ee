//! What is ordered, and in which order, in lives that are spelt out.

use super::*;

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
