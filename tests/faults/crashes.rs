//! K: processes that are killed, hang or panic, and a journal that is damaged.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use shutterd::api::proto::{Receipt, SessionEvent};
use shutterd::clock::{Clock, SystemClock, WallTime};

use crate::agent::{Agent, drain, eventually, launch, patient, refusal, send, session, worker_state};
use crate::media::check;
use crate::row::Case::{Here, VirtualMachine};
use crate::row::{Outcome, Row, Stopped, lost, pid_of};
use crate::scene::{is, logged, recording, records, records_on};
use crate::site::{Site, camera, faulty_camera, microphone};
use crate::tracer::Tracer;

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "K1", fault: "kill -9 of a worker, five times", case: Here(|| Box::pin(k1())) },
    Row { id: "K2", fault: "kill -9 of the daemon", case: Here(|| Box::pin(k2())) },
    Row { id: "K3", fault: "power loss", case: VirtualMachine },
    Row { id: "K5", fault: "two crashes during recovery", case: Here(|| Box::pin(k5())) },
    Row { id: "K6", fault: "SIGTERM twice and SIGINT during a drain", case: Here(|| Box::pin(k6())) },
    Row { id: "K7", fault: "OOM kill of one worker", case: VirtualMachine },
    Row { id: "K8", fault: "SIGSTOP of a worker", case: Here(|| Box::pin(k8())) },
    Row { id: "K9", fault: "SIGSTOP of the daemon under systemd", case: VirtualMachine },
    Row { id: "K10", fault: "a worker that dies at once, each time", case: Here(|| Box::pin(k10())) },
    Row { id: "K11", fault: "a panic in a worker, each time", case: Here(|| Box::pin(k11())) },
    Row { id: "K12", fault: "a journal cut, flipped, garbage, newer", case: Here(|| Box::pin(k12())) },
    Row { id: "K13", fault: "a second daemon", case: Here(|| Box::pin(k13())) },
    Row { id: "K14", fault: "no descriptors, no processes", case: Here(|| Box::pin(k14())) },
];

/// A second session beside `s`, which nothing may happen to.
async fn beside(agent: &Agent) {
    agent.start(session("other", &["cam2", "mic2"])).await.expect("it starts");
}

/// The second session was not touched.
async fn is_untouched(agent: &Agent) {
    let other = Stopped::of(agent, "other").await;
    assert_eq!((other.lost(), other.receipt.forced), (0, false), "{:?}", other.receipt);
    // What the camera's own count misses, a busy host has not taken in time.
    let mut gaps = other.receipt.sources.iter().flat_map(|source| &source.gaps);
    assert!(gaps.all(|gap| gap.reason == "sequence"), "{:?}", other.receipt);
}

/// Devices of `s` and of a second session.
fn four_devices(first: String) -> Vec<String> {
    vec![first, microphone("mic"), camera("cam2"), microphone("mic2")]
}

/// How many files of the session are repaired by now.
fn repaired(event: &SessionEvent) -> usize {
    let files = event.progress.iter().flat_map(|progress| &progress.closed_files);
    files.filter(|file| file.repaired).count()
}

/// Milliseconds of a source that were captured before each of the `kills` and are in no file.
fn lost_ms(receipt: &Receipt, source: usize, kills: &[WallTime]) -> Vec<i128> {
    let ms = |time: &WallTime| time.nanos() / 1_000_000;
    let wall = |text: &str| ms(&text.parse().expect("times are RFC 3339"));
    let firsts = receipt.sources.iter().map(|source| wall(&source.first_timestamp));
    let zero = firsts.min().expect("there are sources");
    let gaps = receipt.sources[source].gaps.iter().filter(|gap| gap.reason == "restart");
    let begins = gaps.map(|gap| zero + (gap.start_seconds * 1000.0) as i128);
    begins.zip(kills).map(|(begin, kill)| ms(kill) - begin).collect()
}

async fn k1() -> Outcome {
    let settings = "worker.restarts_max = 10\nworker.restart_delay_ms = 10";
    let agent = Agent::serve(&Site::new(settings, &four_devices(camera("cam")))).await;
    beside(&agent).await;
    records(&agent).await;
    let (mut kills, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 1..=5 {
        let killed_at = Instant::now();
        kills.push(SystemClock.wall());
        send(agent.site.worker("s"), Signal::KILL);
        agent.until("s", |event| repaired(event) == round).await;
        slowest = slowest.max(killed_at.elapsed());
        records_on(&agent).await;
    }
    let stopped = Stopped::of(&agent, "s").await;
    let (pictures, sound) = (lost_ms(&stopped.receipt, 0, &kills), lost_ms(&stopped.receipt, 1, &kills));
    assert_eq!((pictures.len(), sound.len()), (5, 5), "a gap for each: {:?}", stopped.receipt);
    assert!(pictures.iter().all(|ms| *ms <= 34), "more than a picture is lost, in ms: {pictures:?}");
    assert!(sound.iter().all(|ms| *ms <= 100), "more than a period of sound is lost, in ms: {sound:?}");
    assert!(slowest < Duration::from_secs(1), "repaired and going on after {slowest:?}");
    is_untouched(&agent).await;
    stopped.holds(format!(
        "at most {} ms of sound a kill; repaired in {} ms",
        max(&sound),
        slowest.as_millis()
    ))
}

fn max(values: &[i128]) -> i128 {
    values.iter().copied().max().unwrap_or(0)
}

async fn k2() -> Outcome {
    let agent = recording("limits.orphan_grace_ms = 1500").await;
    let site = Arc::clone(&agent.site);
    let worker = site.worker("s");
    agent.crash().await;
    let agent = Agent::serve(&site).await;
    records_on(&agent).await;
    assert_eq!(site.workers(), [worker], "the same worker goes on");
    let stopped = Stopped::of(&agent, "s").await;
    let whole = stopped.holds_whole("taken up by the next; drained and closed where none comes");
    assert!(stopped.receipt.sources.iter().all(|source| source.gaps.is_empty()), "{:?}", stopped.receipt);

    agent.start(session("alone", &["cam", "mic"])).await.expect("it starts");
    agent.crash().await;
    eventually("the worker ends by itself", || site.workers().is_empty()).await;
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("alone").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), lost(&receipt)), ("orphaned", 0), "{receipt:?}");
    check(&site, &receipt);
    agent.start(session("next", &["cam", "mic"])).await.expect("no device is held");
    whole
}

/// A site whose children are run by a script: repairs wait while there is a file `hold`, workers die while
/// there is a file `dead`, and each launch of a worker is a line of the file `launches`.
fn scripted(settings: &str, devices: &[String]) -> Arc<Site> {
    let site = Site::new(settings, devices);
    let (dir, program) = (site.dir().display(), env!("CARGO_BIN_EXE_shutterd"));
    let script = format!(
        "#!/bin/sh\ncase $1 in\n\
         repair) while [ -e {dir}/hold ]; do [ -d /proc/$PPID ] || exit 1; sleep 0.02; done ;;\n\
         worker) echo >>{dir}/launches; [ -e {dir}/dead ] && exit 1 ;;\n\
         esac\nexec {program} \"$@\"\n"
    );
    let path = site.dir().join("script");
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it can be run");
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, format!("worker.path = \"{}\"\n{text}", path.display())).expect("it is changed");
    site
}

async fn k5() -> Outcome {
    let site = scripted("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    records(&agent).await;
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    std::fs::write(site.dir().join("hold"), []).expect("a file");
    let repairs = || site.processes().iter().any(|it| it.words.iter().any(|word| word == "repair"));
    for _ in 0..2 {
        let mut daemon = launch(&site);
        eventually("a repair runs", repairs).await;
        patient("its end", daemon.kill()).await.expect("it can be killed");
        eventually("the repair ends with it", || !repairs()).await;
    }
    std::fs::remove_file(site.dir().join("hold")).expect("it was there");
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true), "{receipt:?}");
    assert!(receipt.sources[0].written >= 20 && receipt.sources[1].written >= 30_000, "{receipt:?}");
    assert!(receipt.files[0].repaired, "{receipt:?}");
    check(&site, &receipt);
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
    Outcome::holds("the third daemon repairs what the first left; all that was durable is kept")
}

async fn k6() -> Outcome {
    let (mut took, mut most) = (Duration::ZERO, 0);
    for further in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let agent = recording("media.sync_ms = 3000").await;
        let site = Arc::clone(&agent.site);
        let worker = site.worker("s");
        send(worker, Signal::STOP);
        let asked_at = Instant::now();
        agent.signal(further[0]);
        logged(&agent, "draining every session").await;
        agent.signal(further[1]);
        let heard = || site.log().lines().any(|line| line.contains("aborting") || line.contains("second"));
        eventually("the second signal is heard", heard).await;
        send(worker, Signal::CONT);
        assert_eq!(agent.exited().await.code(), Some(0));
        took = took.max(asked_at.elapsed());
        let next = Agent::serve(&site).await;
        let receipt = next.get("s").await.expect("it is known").receipt.expect("its receipt");
        check(&site, &receipt);
        // Who sends it twice wants the end now: what is durable is kept, the rest is told.
        assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false), "{receipt:?}");
        most = most.max(lost(&receipt));
    }
    // One signal while a stop drains changes nothing.
    let agent = recording("media.sync_ms = 3000").await;
    let site = Arc::clone(&agent.site);
    let (mut calls, asked_at) = (agent.calls(), Instant::now());
    let stop = tokio::spawn(async move { calls.stop_session(drain("s")).await });
    logged(&agent, "stop accepted").await;
    agent.signal(Signal::TERM);
    let stopped = stop.await.expect("it ran").expect("the stop is answered").into_inner();
    took = took.max(asked_at.elapsed());
    assert_eq!(agent.exited().await.code(), Some(0));
    let receipt = stopped.receipt.expect("its receipt");
    check(&site, &receipt);
    assert_eq!((receipt.end_reason.as_str(), lost(&receipt)), ("stop_requested", 0), "{receipt:?}");
    let seen = "a signal changes nothing; a second one aborts, as documented, and is told".to_owned();
    Outcome::Holds { lost: most, stop: Some(took), seen }
}

async fn k8() -> Outcome {
    let settings = "limits.worker_silent_ms = 3000\nlimits.term_timeout_ms = 500";
    let agent = Agent::serve(&Site::new(settings, &four_devices(camera("cam")))).await;
    beside(&agent).await;
    records(&agent).await;
    let worker = agent.site.worker("s");
    let stopped_at = Instant::now();
    send(worker, Signal::STOP);
    eventually("the worker is ended", || !agent.site.workers().contains(&worker)).await;
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(6), "two periods are 6 s, and it took {took:?}");
    agent.until("s", is("working")).await;
    records_on(&agent).await;
    is_untouched(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    stopped.holds(format!("ended after {} ms (period 3 s), and a new one goes on", took.as_millis()))
}

async fn k10() -> Outcome {
    let settings = "worker.restarts_max = 3\nworker.restart_delay_ms = 10";
    let site = scripted(settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    records(&agent).await;
    std::fs::write(site.dir().join("dead"), []).expect("a file");
    send(site.worker("s"), Signal::KILL);
    let finished = agent.finished("s").await;
    assert_eq!(worker_state(finished.session.as_ref()), "failed");
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "worker_failed", "{receipt:?}");
    check(&site, &receipt);
    let launches = || std::fs::read_to_string(site.dir().join("launches")).expect("a file").lines().count();
    assert_eq!(launches(), 4, "one, and three more");
    let refused = agent.start(session("t", &["cam"])).await.expect_err("its worker dies at once");
    assert_eq!((refusal(&refused).1.as_str(), launches()), ("WORKER_DIED", 5), "{refused:?}");
    std::fs::remove_file(site.dir().join("dead")).expect("it was there");
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
    Outcome::Holds {
        lost: lost(&receipt),
        stop: None,
        seen: "failed after 3 restarts; what was durable plays".to_owned(),
    }
}

async fn k11() -> Outcome {
    let panics = faulty_camera("cam", r#"{ at_frame = 45, frames = 1, fault = "panic" }"#);
    let settings = "worker.restarts_max = 1\nworker.restart_delay_ms = 10";
    let agent = Agent::serve(&Site::new(settings, &four_devices(panics))).await;
    beside(&agent).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.files.len()), ("worker_failed", 2), "{receipt:?}");
    assert!(receipt.sources[0].written >= 60, "{receipt:?}");
    check(&agent.site, &receipt);
    is_untouched(&agent).await;
    let seen = "a new worker, then worker_failed; both files play; the other session whole".to_owned();
    Outcome::Holds { lost: lost(&receipt), stop: None, seen }
}

/// Flips, cuts and replacements of a journal, each with its name.
fn damages(journal: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut damages = vec![
        ("empty".to_owned(), Vec::new()),
        ("garbage".to_owned(), vec![0xA5; journal.len()]),
        ("text".to_owned(), b"no journal at all\n".repeat(100)),
    ];
    for part in 1..12 {
        let at = journal.len() * part / 12 + part * 7;
        damages.push((format!("cut at {at}"), journal[..at].to_vec()));
    }
    // The header, the tables' list and each page's beginning matter most.
    let offsets = [0, 17, 20, 24, 40, 60, 63, 96, 101, 110, 200, 4000, 4097, 4104, 8193, 12290, 16385, 20481];
    for at in offsets.into_iter().filter(|at| *at < journal.len()) {
        let mut flipped = journal.to_vec();
        flipped[at] ^= 0xFF;
        damages.push((format!("flipped at {at}"), flipped));
    }
    damages
}

/// Whether an agent starts, and why not.
async fn starts(site: &Site) -> Result<(), String> {
    let logged = site.log().len();
    let mut daemon = launch(site);
    let mut ended = false;
    eventually("the agent serves, or says why not", || {
        ended = daemon.try_wait().expect("a child can be asked").is_some();
        ended || site.log()[logged..].contains(" ready ")
    })
    .await;
    patient("its end", daemon.kill()).await.expect("it can be killed");
    let said = site.log()[logged..].to_owned();
    if ended { Err(said.lines().last().unwrap_or("nothing was said").to_owned()) } else { Ok(()) }
}

async fn k12() -> Outcome {
    let agent = recording("").await;
    let site = Arc::clone(&agent.site);
    let receipt = Stopped::of(&agent, "s").await.receipt;
    agent.end().await;
    let path = site.dir().join("state/journal.sqlite");
    let journal = std::fs::read(&path).expect("the journal");
    let damages = damages(&journal);
    let mut refused = Vec::new();
    for (name, bytes) in &damages {
        for end in ["-wal", "-shm"] {
            // Most often there is none.
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
        std::fs::write(&path, bytes).expect("it can be replaced");
        if let Err(why) = starts(&site).await {
            refused.push(format!("{name}: {why}"));
        }
    }
    let (of, first) = (damages.len(), refused.first());
    assert!(refused.is_empty(), "no start for {} of {of} damages, such as {first:?}", refused.len());
    std::fs::write(&path, [0xA5; 8192]).expect("it can be replaced");
    let agent = Agent::serve(&site).await;
    let found = loop {
        match agent.get("s").await {
            Ok(found) => break found,
            Err(status) => assert!(status.message().contains("is being looked at"), "{status:?}"),
        }
    };
    assert_eq!(found.receipt, Some(receipt));
    Outcome::holds(format!("{of} damages: every start served"))
}

async fn k13() -> Outcome {
    let agent = recording("").await;
    let mut fastest = Duration::MAX;
    // What a start takes here depends on what else runs: the fastest says what it needs.
    for _ in 0..5 {
        let (logged, asked_at) = (agent.site.log().len(), Instant::now());
        let status = patient("the second", launch(&agent.site).wait()).await.expect("it can be waited for");
        fastest = fastest.min(asked_at.elapsed());
        let said = agent.site.log()[logged..].to_owned();
        assert!(!status.success() && said.contains(&format!("pid {}", agent.pid())), "{said}");
    }
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    let seen = format!("refused after {} ms, naming the first's pid", fastest.as_millis());
    Stopped::of(&agent, "s").await.holds_whole(seen)
}

async fn k14() -> Outcome {
    let devices = [camera("cam"), microphone("mic"), camera("cam2")];
    let agent = Agent::serve(&Site::new("", &devices)).await;
    records(&agent).await;
    let daemon = agent.pid();
    let open = std::fs::read_dir(format!("/proc/{daemon}/fd")).expect("it is there").count() as u64;
    let limited = Rlimit { current: Some(open), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid_of(daemon)), Resource::Nofile, limited).expect("limits can be set");
    let refused = agent.start(session("t", &["cam2"])).await.expect_err("there is no descriptor left");
    let reason = refusal(&refused).1;
    records_on(&agent).await;
    prlimit(Some(pid_of(daemon)), Resource::Nofile, before).expect("and set back");
    // A limit on processes doesn't bind root; to the daemon its answer is the same.
    let Some(tracer) = Tracer::hold(daemon, &["clone,clone3,fork,vfork:error=EAGAIN"]) else {
        return Outcome::untraceable();
    };
    let unforked = agent.start(session("t", &["cam2"])).await.expect_err("there is no process left");
    let seen = format!("{reason}, {}; then starts again; the running session whole", refusal(&unforked).1);
    records_on(&agent).await;
    drop(tracer);
    agent.start(session("t", &["cam2"])).await.expect("there is room again");
    Stopped::of(&agent, "s").await.holds_whole(seen)
}
