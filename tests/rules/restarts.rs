//! Workers that die while their session goes on.

use super::*;

const DUE: Event = Event::DeadlinePassed;

/// A session that captures.
fn working() -> Life {
    after(admitted(), &[Event::StartJournalled, Event::Linked, Event::Working]).0
}

#[test]
fn a_dead_worker_is_replaced_and_its_files_are_repaired_once_the_new_one_works() {
    let (life, orders) = after(working(), &[Event::Exited]);
    assert_eq!(orders, [Action::Arm(MonoTime::default()), Action::Publish]);
    assert_eq!(life.machine.worker_state(), WorkerState::Degraded);
    let (life, orders) = after(life, &[DUE]);
    assert!(orders.contains(&Action::Launch) && !orders.contains(&Action::ReleaseLeases));
    let (life, orders) = after(life, &[Event::Linked, Event::Working]);
    assert!(orders.contains(&Action::Repair));
    let (life, _) = after(life, &[Event::Repaired, STOP, Event::Released, Event::Accounted]);
    let (life, orders) = after(life, &[Event::Exited]);
    assert!(orders.contains(&Action::JournalFinish) && !orders.contains(&Action::Repair));
    assert!(!life.machine.is_forced(), "the session ended in good order");
}

#[test]
fn a_session_whose_workers_go_on_dying_fails_once_its_restarts_are_used_up() {
    let mut life = working();
    for _ in 0..timeless().restarts {
        life = after(life, &[Event::Exited, DUE]).0;
        assert_eq!(life.machine.cause(), None);
    }
    let (life, orders) = after(life, &[Event::Exited]);
    assert!(orders.contains(&Action::ReleaseLeases) && orders.contains(&Action::Repair));
    assert_eq!(life.machine.cause(), Some(EndReason::WorkerFailed));
}

#[test]
fn a_worker_that_has_lasted_has_the_restarts_forgotten() {
    let mut life = working();
    for _ in 0..4 * timeless().restarts {
        life = after(life, &[Event::Exited, DUE, Event::Working, Event::Repaired, DUE]).0;
        assert_eq!(life.machine.phase(), Phase::Working);
    }
}

#[test]
fn the_first_new_worker_comes_at_once_and_each_further_one_after_a_longer_wait() {
    let mut life = Life::admit(limits(), MonoTime::default());
    let mut now = MonoTime::from_nanos(0);
    for event in [Event::StartJournalled, Event::Working] {
        life.step(now, event).expect("promises hold");
    }
    let mut waits = Vec::new();
    for _ in 0..limits().restarts {
        life.step(now, Event::Exited).expect("promises hold");
        let due = life.history.armed.expect("a new worker comes");
        waits.push(due.since(now).as_secs());
        now = due;
        life.step(now, DUE).expect("promises hold");
    }
    assert_eq!(waits, [0, 1, 2]);
}

#[test]
fn a_silent_worker_is_ended_by_force_and_replaced() {
    let (life, orders) = after(working(), &[Event::Silent]);
    assert!(orders.contains(&Action::Terminate) && life.machine.is_being_replaced());
    // What it says while it is ended is not why the session would end.
    let said = [Event::WorkerEnds(EndReason::AgentShutdown), Event::Released, Event::Accounted];
    let (life, orders) = after(life, &said);
    assert!(orders.is_empty() && life.machine.cause().is_none());
    let (life, orders) = after(life, &[DUE]);
    assert!(orders.contains(&Action::Kill));
    let (life, orders) = after(life, &[Event::Exited, DUE]);
    assert!(orders.contains(&Action::Launch));
    assert!(!life.machine.is_being_replaced());
}

#[test]
fn a_silent_worker_that_cannot_be_ended_ends_the_session_and_keeps_its_devices() {
    let (life, orders) = after(working(), &[Event::Silent, DUE, DUE]);
    assert!(orders.contains(&Action::AnswerStuck) && orders.contains(&Action::JournalStop));
    assert!(life.machine.is_stuck() && !life.machine.is_released());
}

#[test]
fn a_stop_between_two_workers_releases_at_once_and_repairs() {
    let (life, orders) = after(working(), &[Event::Exited, STOP]);
    assert!(orders.contains(&Action::ReleaseLeases) && orders.contains(&Action::Repair));
    assert!(!orders.contains(&Action::Launch));
    let (_, orders) = after(life, &[Event::StopJournalled, Event::Repaired, Event::FinishJournalled]);
    assert!(orders.contains(&Action::AnswerFinished));
}

#[test]
fn a_stop_reaches_a_new_worker_that_still_opens_its_devices() {
    let (life, orders) = after(working(), &[Event::Exited, DUE, Event::Linked, STOP]);
    assert!(orders.contains(&Action::SendStop(StopMode::Drain)));
    let (_, orders) = after(life, &[Event::Released, Event::Accounted, Event::Exited]);
    assert!(orders.contains(&Action::Repair), "the dead worker's files are still to be repaired");
}
