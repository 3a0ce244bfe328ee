//! The daemon as a service manager sees it, and what its operator orders: it says when it is ready and
//! how it is, drains, is replaced without a gap, and leaves no worker behind after a stop.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use shutterd::api::proto::{DrainRequest, GetAgentRequest, HandoverRequest, UndrainRequest};
use tokio::process::Command;
use tonic::Code;

use crate::agent::{Agent, PATIENCE, eventually, patient, refusal, send, session};
use crate::media::check;
use crate::site::{SITE_VARIABLE, Site, camera, microphone, skip};

/// What a service manager is told, message by message.
struct Manager(UnixDatagram);

impl Manager {
    fn of(site: &Site) -> Self {
        let socket = UnixDatagram::bind(site.dir().join("notify.sock")).expect("a socket for the test");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket can be told to wait");
        Self(socket)
    }

    /// Reads until a message has this line; the messages before it are returned with it.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 4096];
        while !lines.iter().any(|line: &String| wanted(line)) {
            let count = loop {
                match self.0.recv(&mut buffer) {
                    Ok(count) => break count,
                    // A child that ends interrupts whoever waits.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => panic!("no such message: {error}; {lines:?}"),
                }
            };
            lines.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
        }
        lines
    }
}

/// An agent's site whose agents believe that a service manager watches them.
fn managed(site: &Site) -> Vec<(String, String)> {
    let path = site.dir().join("notify.sock").display().to_string();
    vec![("NOTIFY_SOCKET".to_owned(), path), ("WATCHDOG_USEC".to_owned(), "2000000".to_owned())]
}

async fn state_of(agent: &Agent) -> String {
    let answer = patient("a look", agent.calls().get_agent(GetAgentRequest {})).await;
    answer.expect("the agent can be asked").into_inner().state
}

async fn end_workers(site: &Site, result: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    command.arg("--config").arg(site.dir().join("flow.toml")).arg("end-workers");
    command.env(SITE_VARIABLE, site.dir()).env("SERVICE_RESULT", result).kill_on_drop(true);
    patient("the end of the workers", command.output()).await.expect("it can be run")
}

#[tokio::test]
async fn a_service_manager_is_told_of_readiness_status_life_and_end() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let manager = Manager::of(&site);
    let agent = Agent::serve_with(&site, &managed(&site)).await;
    let first = manager.until(|line| line == "READY=1");
    assert_eq!(first, ["READY=1"], "nothing is said before");
    manager.until(|line| line.starts_with("STATUS=0 sessions, ") && line.ends_with(" of disk free"));
    manager.until(|line| line == "WATCHDOG=1");
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    manager.until(|line| {
        line.starts_with("STATUS=1 session, 2 sources, 0 degraded, ") && line.ends_with(" of disk left")
    });
    agent.signal(Signal::HUP);
    let reload = manager.until(|line| line == "READY=1");
    assert!(reload.contains(&"RELOADING=1".to_owned()), "{reload:?}");
    let worker = site.worker("s");
    let inherited = std::fs::read(format!("/proc/{worker}/environ")).expect("the worker is there");
    assert!(!String::from_utf8_lossy(&inherited).contains("NOTIFY_SOCKET"), "a worker has nothing to tell");
    send(worker, Signal::STOP);
    agent.signal(Signal::TERM);
    manager.until(|line| line == "STOPPING=1");
    let extended = manager.until(|line| line.starts_with("STATUS=draining: s ("));
    assert!(extended.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{extended:?}");
    send(worker, Signal::CONT);
    assert!(agent.exited().await.success());
}

#[tokio::test]
async fn the_watchdog_starves_when_the_daemon_hangs() {
    let site = Site::new("", &[]);
    let manager = Manager::of(&site);
    let agent = Agent::serve_with(&site, &managed(&site)).await;
    manager.until(|line| line == "WATCHDOG=1");
    agent.signal(Signal::STOP);
    // What was sent before is read first.
    manager.0.set_read_timeout(Some(Duration::from_millis(1500))).expect("a socket can be told to wait");
    let mut buffer = [0; 4096];
    while manager.0.recv(&mut buffer).is_ok() {}
    agent.signal(Signal::CONT);
    manager.0.set_read_timeout(Some(PATIENCE)).expect("a socket can be told to wait");
    manager.until(|line| line == "WATCHDOG=1");
    agent.end().await;
}

#[tokio::test]
async fn a_drained_host_finishes_what_it_has_and_takes_nothing_new() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("old", &["cam"])).await.expect("it starts");
    let drained = agent.calls().drain(DrainRequest {}).await.expect("it drains").into_inner();
    assert_eq!((drained.sessions, state_of(&agent).await.as_str()), (1, "draining"));
    let refused = agent.start(session("new", &["mic"])).await.expect_err("no new session is taken");
    let (code, reason, _) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "DRAINING"));
    agent.start(session("old", &["cam"])).await.expect("a repeated start joins the session that there is");
    agent.recorded("old", 10, 0).await;
    let stopped = agent.stop("old").await.expect("it stops").receipt.expect("its receipt");
    check(&site, &stopped);
    agent.calls().undrain(UndrainRequest {}).await.expect("it serves again");
    assert_eq!(state_of(&agent).await, "serving");
    agent.start(session("new", &["mic"])).await.expect("it starts");
    agent.end().await;
}

#[tokio::test]
async fn a_replacement_that_was_announced_takes_the_recording_up_without_a_gap() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    let worker = site.worker("s");
    let announced = agent.calls().handover(HandoverRequest {}).await.expect("it is announced").into_inner();
    assert_eq!(announced.sessions, 1);
    assert_eq!(announced.expires_after.map(|wait| wait.seconds), Some(60));
    assert_eq!(state_of(&agent).await, "handing_over");
    let refused = agent.start(session("late", &["mic"])).await.expect_err("no new session is taken");
    assert_eq!(refusal(&refused).1, "HANDING_OVER");
    agent.end().await;
    assert_eq!(site.workers(), [worker], "it records on");
    let left = end_workers(&site, "success").await;
    assert!(left.status.success(), "{left:?}");
    assert_eq!(site.workers(), [worker], "what is handed over is not ended");

    let next = Agent::serve(&site).await;
    assert_eq!(state_of(&next).await, "serving");
    next.recorded("s", 60, 90_000).await;
    assert_eq!(site.worker("s"), worker);
    let receipt = next.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(
        (receipt.end_reason.as_str(), receipt.forced, receipt.files.len()),
        ("stop_requested", false, 1)
    );
    assert!(
        receipt.sources.iter().all(|it| it.gaps.is_empty() && it.missed == 0 && it.lost == 0),
        "{receipt:?}"
    );
    check(&site, &receipt);
    next.end().await;
    assert!(site.processes().is_empty());
}

#[tokio::test]
async fn a_handover_waits_for_a_session_that_ends() {
    let site = Site::new("limits.drain_timeout_ms = 20000", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    for (id, device) in [("ends", "cam"), ("stays", "mic")] {
        agent.start(session(id, &[device])).await.expect("it starts");
    }
    agent.recorded("ends", 5, 0).await;
    let worker = site.worker("ends");
    send(worker, Signal::STOP);
    let mut calls = agent.calls();
    let stop = tokio::spawn(async move { calls.stop_session(crate::agent::drain("ends")).await });
    eventually("the stop is accepted", || site.log().contains("stop accepted")).await;
    agent.calls().handover(HandoverRequest {}).await.expect("it is announced");
    agent.signal(Signal::TERM);
    eventually("the handover begins", || site.log().contains("the workers record on")).await;
    send(worker, Signal::CONT);
    let answer = patient("the stop", stop).await.expect("the call ran").expect("it is answered");
    check(&site, &answer.into_inner().receipt.expect("its receipt"));
    assert!(agent.exited().await.success());
    assert_eq!(site.workers().len(), 1, "only the other records on");
}

#[tokio::test]
async fn workers_are_ended_after_a_stop_and_left_alone_after_a_crash() {
    let site = Site::new("limits.drain_timeout_ms = 1000", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    for (id, device) in [("one", "cam"), ("two", "mic")] {
        agent.start(session(id, &[device])).await.expect("it starts");
    }
    agent.recorded("one", 10, 0).await;
    agent.recorded("two", 0, 10_000).await;
    agent.crash().await;
    let two = site.worker("two");
    for result in ["signal", "watchdog"] {
        let left = end_workers(&site, result).await;
        assert!(left.status.success() && site.workers().len() == 2, "{result}: {left:?}");
    }
    // One that answers no signal but the last.
    send(two, Signal::STOP);
    let ended = end_workers(&site, "success").await;
    assert!(ended.status.success(), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("a worker is left after the stop session=\"two\""), "{told}");
    assert!(site.workers().is_empty());
    let next = Agent::serve(&site).await;
    for (id, reason) in [("one", "agent_shutdown"), ("two", "worker_failed")] {
        let receipt = next.finished(id).await.receipt.expect("its receipt");
        assert_eq!(receipt.end_reason, reason, "{id}");
        check(&site, &receipt);
    }
    next.end().await;
}

#[tokio::test]
async fn where_stderr_is_the_journal_every_line_of_a_worker_and_a_repair_has_its_priority_and_its_session() {
    if Path::new("/run/systemd/journal/socket").exists() {
        return skip("lines would go to the journal of this host");
    }
    let site = Site::new("worker.restart_delay_ms = 100", &[camera("cam"), microphone("mic")]);
    let stream = site.log_file().metadata().expect("the log is there");
    let variables = [
        ("JOURNAL_STREAM".to_owned(), format!("{}:{}", stream.dev(), stream.ino())),
        ("SHUTTERD__LOG__FORMAT".to_owned(), "auto".to_owned()),
    ];
    let agent = Agent::serve_with(&site, &variables).await;
    agent.start(session("one", &["cam"])).await.expect("it starts");
    agent.start(session("two", &["mic"])).await.expect("it starts");
    agent.recorded("one", 5, 0).await;
    send(site.worker("one"), Signal::KILL);
    eventually("it is repaired", || site.log().contains("a file of the dead worker is kept")).await;
    for id in ["one", "two"] {
        agent.stop(id).await.expect("it stops");
    }
    agent.end().await;
    let log = site.log();
    for line in log.lines() {
        assert!(line.starts_with('<') && line.get(2..3) == Some(">"), "{line}");
    }
    let of = |id: &str, what: &str| {
        let own = |line: &&str| line.contains(what) && line.contains(&format!("session={id}"));
        log.lines().filter(own).count()
    };
    for what in ["session admitted", "recording", "stop accepted", "draining", "every device is closed"] {
        assert!(of("one", what) > 0 && of("two", what) > 0, "{what}: {log}");
    }
    assert_eq!((of("one", "a file of the dead worker is kept"), of("two", "dead worker")), (1, 0), "{log}");
    let worker_lines = log.lines().filter(|line| line.contains("shutterd::worker"));
    assert!(worker_lines.clone().count() > 8, "{log}");
    for line in worker_lines {
        assert!(line.contains(" session=one") || line.contains(" session=two"), "{line}");
    }
}
