//! Sessions that the next daemon takes up; leases and accounts.

use super::*;

/// A session whose worker is still there.
fn recovered(cause: Option<EndReason>) -> Life {
    let left = Left { cause, worker: LeftWorker::Alive, unrepaired: false };
    Life::recover(timeless(), MonoTime::default(), left)
}

#[test]
fn a_recovered_session_whose_worker_ended_in_good_order_needs_no_repair() {
    let life = recovered(None);
    let past = [Event::WorkerEnds(EndReason::Orphaned), Event::Released, Event::Accounted, Event::Exited];
    let (life, orders) = after(life, &past);
    assert!(orders.contains(&Action::JournalFinish));
    assert!(!life.machine.is_forced());
}

#[test]
fn a_recovered_session_whose_worker_is_gone_is_repaired() {
    for cause in [None, Some(EndReason::StopRequested)] {
        let left = Left { cause, worker: LeftWorker::Gone, unrepaired: false };
        let life = Life::recover(timeless(), MonoTime::default(), left);
        let (life, orders) = after(life, &[Event::Exited]);
        assert!(orders.contains(&Action::ReleaseLeases) && orders.contains(&Action::Repair));
        assert_eq!(life.machine.cause(), cause.or(Some(EndReason::WorkerFailed)));
    }
}

#[test]
fn a_recovered_session_that_was_still_starting_ends_with_its_failed_start() {
    let life = recovered(None);
    let (life, _) = after(life, &[Event::Linked, Event::StartFailed]);
    assert_eq!(life.machine.cause(), Some(EndReason::StartFailed));
    assert_eq!(life.machine.phase(), Phase::Ending);
}

#[test]
fn a_recovered_abort_is_ordered_as_an_abort() {
    let life = recovered(Some(EndReason::Aborted));
    let (_, orders) = after(life, &[Event::Linked]);
    assert_eq!(orders, [Action::SendStop(StopMode::Abort)]);
}

fn camera(key: &str) -> DeviceSpec {
    DeviceSpec {
        key: DeviceKey(key.to_owned()),
        label: key.to_owned(),
        media: MediaType::Video,
        address: Address::Synthetic { faults: Vec::new() },
        wish: FormatWish::default(),
    }
}

#[test]
fn a_session_gets_every_device_it_needs_or_none() {
    let mut leases = Leases::default();
    let [first, second] = ["first", "second"].map(|id| id.parse().expect("an id"));
    leases.acquire(&first, &[camera("a"), camera("b")]).expect("both are free");
    leases.acquire(&first, &[camera("a")]).expect("its own device is no conflict");
    let conflict = leases.acquire(&second, &[camera("c"), camera("b")]).expect_err("one is held");
    assert_eq!((conflict.device.as_str(), &conflict.holder), ("b", &first));
    assert_eq!(leases.holder(&DeviceKey("c".to_owned())), None);
    assert_eq!(leases.release(&second), 0);
    assert_eq!(leases.release(&first), 2);
    leases.acquire(&second, &[camera("c"), camera("b")]).expect("everything is free again");
}

#[test]
fn a_launch_that_failed_after_a_stop_leaves_nothing_to_repair() {
    let (life, orders) = after(admitted(), &[Event::StartJournalled, STOP, Event::LaunchFailed]);
    assert!(orders.contains(&Action::JournalFinish));
    assert!(!life.machine.is_forced());
}

#[test]
fn a_worker_that_closed_its_devices_unasked_is_no_longer_working() {
    let past = [Event::StartJournalled, Event::Linked, Event::Working, Event::Released];
    let (life, orders) = after(admitted(), &past);
    assert!(orders.contains(&Action::ReleaseLeases));
    assert_eq!(life.machine.worker_state(), WorkerState::Finalizing);
}
