//! Health: each thing that can be wrong, alone, and what every probe says of it.

use std::time::Duration;

use shutterd::session::health::{
    CaptureStage, DiskVitals, HealthLimits, Level, SessionVitals, SourceVitals, Subject, Vitals, evaluate,
};
use shutterd::session::{SessionId, SourceState};

const S: Duration = Duration::from_secs(1);

fn limits() -> HealthLimits {
    HealthLimits { durable_age: 10 * S, unlinked: 2 * S, low_space: 600 * S, probe_age: 900 * S }
}

fn source(state: SourceState, reason: &str, durable_age: Duration) -> SourceVitals {
    SourceVitals { device: "Integrated Webcam".to_owned(), state, reason: reason.to_owned(), durable_age }
}

fn session(sources: Vec<SourceVitals>) -> SessionVitals {
    let id = "one".parse().expect("an id");
    SessionVitals { id, stage: CaptureStage::Working, unlinked: None, sources }
}

/// A host on which one session captures and all is well.
fn busy() -> Vitals {
    Vitals {
        sessions: vec![session(vec![source(SourceState::Working, "", S)])],
        disk: Some(Ok(DiskVitals { free_bytes: 1 << 40 })),
        bytes_per_second: 1e6,
        ..Vitals::default()
    }
}

fn with_source(state: SourceState, reason: &str, durable_age: Duration) -> Vitals {
    Vitals { sessions: vec![session(vec![source(state, reason, durable_age)])], ..busy() }
}

#[test]
fn a_host_on_which_all_is_well_has_no_finding() {
    let health = evaluate(&busy(), &limits());
    assert_eq!((health.status(), health.is_serving(), health.findings.len()), ("ok", true, 0));
}

#[test]
fn an_idle_host_and_a_drained_one_are_well_by_design() {
    let idle = Vitals { sessions: Vec::new(), ..busy() };
    let drained = Vitals { closed: Some("the operator drains this host".to_owned()), ..idle.clone() };
    for vitals in [idle, drained] {
        let health = evaluate(&vitals, &limits());
        assert_eq!((health.status(), health.is_serving()), ("ok", true));
        assert_eq!(health.findings[0].level, Level::Absent);
    }
}

#[test]
fn each_thing_that_is_wrong_has_its_level_subject_and_reason() {
    let id = || "one".parse().expect("an id");
    let mut unlinked = busy();
    unlinked.sessions[0].unlinked = Some(3 * S);
    let mut restarting = busy();
    restarting.sessions[0].stage = CaptureStage::Restarting;
    let idle = Vitals { sessions: Vec::new(), ..busy() };
    let cases = [
        (
            with_source(SourceState::Degraded, "no frames", 5 * S),
            Level::Degraded,
            Subject::Source,
            "no frames",
        ),
        (
            with_source(SourceState::Degraded, "no frames", 11 * S),
            Level::Failed,
            Subject::Source,
            "no frames",
        ),
        (with_source(SourceState::Working, "muted", S), Level::Degraded, Subject::Source, "muted"),
        (with_source(SourceState::Working, "", 11 * S), Level::Failed, Subject::Source, "durable"),
        (unlinked, Level::Degraded, Subject::Worker, "no link"),
        (restarting, Level::Degraded, Subject::Worker, "a new one"),
        (Vitals { stuck: vec![(id(), "held".to_owned())], ..busy() }, Level::Failed, Subject::Device, "held"),
        (Vitals { unsaved: vec![id()], ..busy() }, Level::Failed, Subject::Journal, "receipt"),
        (Vitals { journal: Some("slow".to_owned()), ..busy() }, Level::Failed, Subject::Journal, "slow"),
        (Vitals { disk: Some(Err("gone".to_owned())), ..busy() }, Level::Failed, Subject::Disk, "gone"),
        (
            Vitals { disk: Some(Ok(DiskVitals { free_bytes: 1 << 20 })), ..busy() },
            Level::Failed,
            Subject::Disk,
            "full",
        ),
        (
            Vitals { disk: Some(Ok(DiskVitals { free_bytes: 500_000_000 })), ..busy() },
            Level::Degraded,
            Subject::Disk,
            "less than 600 s",
        ),
        (
            Vitals { probe: Some("a device hangs".to_owned()), ..busy() },
            Level::Degraded,
            Subject::Probe,
            "a device hangs",
        ),
        (
            Vitals { probe_age: 901 * S, probe: Some("a device hangs".to_owned()), ..idle },
            Level::Failed,
            Subject::Probe,
            "a device hangs",
        ),
    ];
    for (vitals, level, subject, word) in cases {
        let health = evaluate(&vitals, &limits());
        let found = &health.findings[0];
        assert_eq!((found.level, found.subject), (level, subject), "{health:?}");
        assert!(found.message.contains(word), "{found:?}");
        let of_session = matches!(subject, Subject::Source | Subject::Worker | Subject::Device);
        let of_session = of_session || word == "receipt";
        assert_eq!(found.session.as_ref().map(SessionId::as_str), of_session.then_some("one"), "{found:?}");
        assert_eq!(health.is_serving(), level != Level::Failed, "{health:?}");
        assert_eq!(health.status(), level.as_str(), "{health:?}");
    }
}

#[test]
fn a_host_that_records_needs_no_search_for_devices() {
    let health = evaluate(&Vitals { probe_age: 9000 * S, ..busy() }, &limits());
    assert_eq!(health.status(), "ok");
}

#[test]
fn a_source_that_has_come_to_its_end_and_a_session_that_starts_are_as_they_should_be() {
    let mut starting = with_source(SourceState::Starting, "", 60 * S);
    starting.sessions[0].stage = CaptureStage::Changing;
    for vitals in [with_source(SourceState::Released, "", 60 * S), starting] {
        assert_eq!(evaluate(&vitals, &limits()).status(), "ok");
    }
}

#[test]
fn the_worst_comes_first_and_everything_is_told() {
    let mut vitals = with_source(SourceState::Degraded, "no frames", 5 * S);
    vitals.journal = Some("slow".to_owned());
    let health = evaluate(&vitals, &limits());
    let levels: Vec<Level> = health.findings.iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Failed, Level::Degraded]);
}

#[test]
fn an_agent_that_ends_does_not_serve_whatever_its_health() {
    let health = evaluate(&Vitals { stopping: true, ..busy() }, &limits());
    assert_eq!((health.status(), health.is_serving()), ("ok", false));
}
