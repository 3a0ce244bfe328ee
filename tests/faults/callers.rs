//! R: callers that misbehave.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::process::{Resource, getrlimit, prlimit, setrlimit};
use shutterd::api::proto::{ReadMediaRequest, StopMode, StopSessionRequest};
use tokio::task::{JoinSet, spawn_blocking};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::agent::{Agent, drain, patient, refusal, session, worker_state};
use crate::flood;
use crate::raw::{self, END_HEADERS, END_STREAM, Kind, frame, greeted};
use crate::row::Case::{Alone, Here};
use crate::row::{Outcome, Row, Stopped, pid_of};
use crate::scene::{recording, records_on};
use crate::site::{Site, faulty_camera, microphone};

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "R1", fault: "100 stops at once", case: Here(|| Box::pin(r1())) },
    Row { id: "R2", fault: "1000 races of start and stop", case: Here(|| Box::pin(r2())) },
    Row { id: "R3", fault: "a stop of an unknown and of a finished session", case: Here(|| Box::pin(r3())) },
    Row { id: "R4", fault: "a stop with a deadline of 1 ms", case: Here(|| Box::pin(r4())) },
    Row { id: "R5", fault: "a caller that resets in mid-stop", case: Here(|| Box::pin(r5())) },
    Row { id: "R6", fault: "ids with paths, NUL, a megabyte, any script", case: Here(|| Box::pin(r6())) },
    Row { id: "R7", fault: "garbage, huge messages, a gzip bomb", case: Here(|| Box::pin(r7())) },
    Row { id: "R8", fault: "floods of connections, resets and headers", case: Alone(|| Box::pin(r8())) },
    Row { id: "R9", fault: "accept with no descriptor left", case: Here(|| Box::pin(r9())) },
];

async fn r1() -> Outcome {
    let agent = recording("").await;
    let mut stops = JoinSet::new();
    let asked_at = Instant::now();
    for _ in 0..100 {
        let mut calls = agent.calls();
        stops.spawn(async move { calls.stop_session(drain("s")).await });
    }
    let answers = stops.join_all().await;
    let took = asked_at.elapsed();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
    let first = answers[0].get_ref().receipt.clone();
    assert!(answers.iter().all(|answer| answer.get_ref().receipt == first), "equal answers");
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1, "one drain");
    let stopped = Stopped { took, ..Stopped::of(&agent, "s").await };
    stopped.holds_whole("one drain, 100 equal receipts")
}

/// Races, and how many of them at once.
const RACES: usize = 1000;
const RACES_AT_ONCE: usize = 6;

/// A stop that keeps what is durable.
pub fn abort(id: &str) -> StopSessionRequest {
    StopSessionRequest { mode: StopMode::Abort.into(), ..drain(id) }
}

/// An agent with a microphone for each race at once.
pub async fn racing() -> Agent {
    let devices: Vec<_> = (0..RACES_AT_ONCE).map(|at| microphone(&format!("mic{at}"))).collect();
    Agent::serve(&Site::new("", &devices)).await
}

/// Runs [`RACES`] of `race`, each with its number and a microphone that no other has meanwhile.
pub async fn race<F: Future<Output = ()>>(race: impl Fn(usize, String) -> F) {
    let race = &race;
    let lanes = (0..RACES_AT_ONCE).map(|lane| async move {
        for number in (lane..RACES).step_by(RACES_AT_ONCE) {
            race(number, format!("mic{lane}")).await;
        }
    });
    futures_util::future::join_all(lanes).await;
}

/// No session is left, and every microphone is free.
pub async fn are_free(agent: &Agent) {
    assert!(agent.site.workers().is_empty(), "no worker is left");
    for lane in 0..RACES_AT_ONCE {
        let (id, device) = (format!("last{lane}"), format!("mic{lane}"));
        agent.start(session(&id, &[&device])).await.expect("the device is free");
        agent.stop(&id).await.expect("it stops");
    }
}

async fn r2() -> Outcome {
    let agent = racing().await;
    let started = std::cell::Cell::new(0);
    race(|number, device| {
        let (agent, started) = (&agent, &started);
        async move {
            let id = format!("s{number}");
            // From a stop that comes first to one that comes when the session runs.
            let pause = Duration::from_millis((number % 50) as u64 * 5);
            let stop = async {
                tokio::time::sleep(pause).await;
                agent.stop_with(abort(&id)).await
            };
            let (start, stop) = tokio::join!(agent.start(session(&id, &[&device])), stop);
            match (start, stop) {
                (Ok(_), Ok(stopped)) => {
                    started.set(started.get() + 1);
                    assert!(!stopped.receipt.expect("its receipt").released_at.is_empty());
                }
                (Err(refused), Ok(_)) => assert_eq!(refused.code(), Code::Aborted, "{id}: {refused:?}"),
                (Err(refused), Err(unknown)) => {
                    let codes = (refused.code(), unknown.code());
                    assert_eq!(codes, (Code::Aborted, Code::NotFound), "{id}: {refused:?}");
                }
                (Ok(_), Err(unknown)) => panic!("{id} runs, and its stop: {unknown:?}"),
            }
        }
    })
    .await;
    are_free(&agent).await;
    Outcome::holds(format!("{} ran and were stopped, the others never started", started.get()))
}

async fn r3() -> Outcome {
    let agent = recording("").await;
    let unknown = agent.stop("nobody").await.expect_err("there is none");
    assert_eq!(refusal(&unknown).0, Code::NotFound);
    let stopped = Stopped::of(&agent, "s").await;
    let again = agent.stop("s").await.expect("it is known");
    assert!(again.already_finished);
    assert_eq!(again.receipt.as_ref(), Some(&stopped.receipt));
    stopped.holds_whole("NOT_FOUND; the same receipt again")
}

async fn r4() -> Outcome {
    let agent = recording("").await;
    let mut request = tonic::Request::new(drain("s"));
    request.set_timeout(Duration::from_millis(1));
    let cut = agent.calls().stop_session(request).await.expect_err("no drain takes a millisecond");
    assert!(matches!(cut.code(), Code::DeadlineExceeded | Code::Cancelled), "{cut:?}");
    let stopped = Stopped::of(&agent, "s").await;
    stopped.holds_whole(format!("{:?}, then the receipt", cut.code()))
}

async fn r5() -> Outcome {
    // The call for frame 30 never returns: the drain takes a while.
    let hangs = faulty_camera("cam", r#"{ at_frame = 30, frames = 1000000, fault = "hang" }"#);
    let agent = Agent::serve(&Site::new("", &[hangs, microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 25, 48_000).await;
    let (address, token) = raw::door(&agent);
    let body = raw::message(&drain("s").encode_to_vec());
    let stop = [
        frame(Kind::Headers, END_HEADERS, 1, &raw::call("/shutterd.v1.CaptureAgent/StopSession", &token)),
        frame(Kind::Data, END_STREAM, 1, &body),
    ]
    .concat();
    let mut events = agent.watch("s").await;
    let mut callers = [greeted(address), greeted(address)].map(|it| it.expect("the agent listens"));
    for caller in &mut callers {
        caller.write_all(&stop).expect("it is taken");
    }
    let draining = |event: &_| draining(event);
    crate::agent::until(&mut events, draining).await;
    let [mut one, other] = callers;
    one.write_all(&frame(Kind::Reset, 0, 1, &8_u32.to_be_bytes())).expect("it is taken");
    rustix::net::sockopt::set_socket_linger(&other, Some(Duration::ZERO)).expect("its end is a reset");
    drop(other);
    let stopped = Stopped::of(&agent, "s").await;
    assert_eq!(stopped.receipt.end_reason, "stop_requested");
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1, "one drain");
    stopped.holds_whole("the drain went on, and the next call got its receipt")
}

fn draining(event: &shutterd::api::proto::SessionEvent) -> bool {
    worker_state(event.session.as_ref()) == "draining"
}

async fn r6() -> Outcome {
    let agent = recording("").await;
    let listed = || {
        let names =
            |dir| std::fs::read_dir(dir).expect("it can be listed").map(|it| it.expect("a name").file_name());
        let mut all: Vec<_> =
            names(agent.site.dir().to_owned()).chain(names(agent.site.media_dir())).collect();
        all.sort();
        all
    };
    let before = listed();
    let mut ids: Vec<String> = [
        "",
        ".",
        "..",
        "../x",
        "/etc/x",
        "a/b",
        "s/../../x",
        "a\0b",
        "-a",
        "_a",
        "a b",
        "a\n",
        "%2e%2e",
        "ä",
        "日本",
        "\u{202e}a",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.push("x".repeat(65));
    ids.push("x".repeat(1_000_000));
    for id in &ids {
        let calls = [
            agent.start(session(id, &["cam"])).await.err(),
            agent.stop(id).await.err(),
            agent.get(id).await.err(),
        ];
        for status in calls {
            let status = status.expect("this is no id");
            let shown: String = id.chars().take(20).collect();
            assert!(
                [Code::InvalidArgument, Code::ResourceExhausted].contains(&status.code()),
                "{shown:?}: {status:?}"
            );
        }
    }
    for file in ["../../state/operator.token", "/etc/passwd", "..", "s-0001.mkv\0", "receipt.json"] {
        let request =
            ReadMediaRequest { session_id: "s".to_owned(), file: file.to_owned(), ..Default::default() };
        let read = async { agent.calls().read_media(request).await?.into_inner().message().await };
        read.await.expect_err("this is no media file");
    }
    assert_eq!(listed(), before, "nothing was made outside");
    Stopped::of(&agent, "s")
        .await
        .holds_whole(format!("{} ids refused by all calls, nothing made", ids.len()))
}

/// A line of `/proc/PID/status`, in KiB.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

async fn connected(agent: &Agent) -> Channel {
    let socket = format!("unix:{}", agent.site.dir().join("run/api.sock").display());
    let endpoint = Endpoint::from_shared(socket).expect("an address");
    patient("a connection", endpoint.connect()).await.expect("the agent listens")
}

async fn r7() -> Outcome {
    let agent = recording("").await;
    let (channel, daemon) = (connected(&agent).await, agent.pid());
    let before = memory_kib(daemon, "VmRSS");
    // The highest use is counted anew.
    std::fs::write(format!("/proc/{daemon}/clear_refs"), "5").expect("it can be reset");
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 1..=200 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .take(length)
        .collect();
        let status = raw::refused(&channel, bytes, None).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let huge = raw::refused(&connected(&agent).await, vec![0x0a; 64 << 20], None).await;
    assert_eq!(huge.code(), Code::ResourceExhausted, "{huge:?}");
    let bomb =
        raw::refused(&connected(&agent).await, vec![0; 32 << 20], Some(CompressionEncoding::Gzip)).await;
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb:?}");
    let grown = memory_kib(daemon, "VmHWM").saturating_sub(before);
    assert!(grown < 8 << 10, "the daemon has grown by {grown} KiB");
    records_on(&agent).await;
    let seen = format!("refused each time; the daemon grew by {grown} KiB at most");
    Stopped::of(&agent, "s").await.holds_whole(seen)
}

async fn r8() -> Outcome {
    let agent = recording("").await;
    let (address, token) = raw::door(&agent);
    let mut own = getrlimit(Resource::Nofile);
    own.current = own.maximum;
    setrlimit(Resource::Nofile, own).expect("a limit can be raised to its maximum");
    let floods = (flood::connections(address), flood::resets(address, &token), flood::headers(address));
    let flood = async { tokio::join!(floods.0, floods.1, floods.2) };
    tokio::pin!(flood);
    let mut waits = Vec::new();
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let sent = loop {
        let look = async {
            looks.tick().await;
            let asked_at = Instant::now();
            (agent.health().await, asked_at.elapsed())
        };
        tokio::select! {
            done = &mut flood => break done,
            (health, wait) = look => {
                assert_eq!(health, Some(ServingStatus::Serving));
                waits.push(wait);
            }
        }
    };
    let sent = [sent.0, sent.1, sent.2].map(|sent| sent.expect("it was tried"));
    assert!(sent[0] > 9_000 && sent[1] > 1_000 && sent[2] > 100, "no flood: {sent:?}");
    waits.sort();
    let p99 = waits[waits.len() * 99 / 100].as_millis();
    assert!(p99 < 250, "health p99 of {} looks: {p99} ms", waits.len());
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    let missed: u64 = stopped.receipt.sources.iter().map(|source| source.missed + source.filled).sum();
    assert_eq!(missed, 0, "{:?}", stopped.receipt);
    stopped.holds_whole(format!("{sent:?} connections, resets, header frames; health p99 {p99} ms"))
}

async fn r9() -> Outcome {
    let agent = recording("").await;
    let (site, daemon) = (Arc::clone(&agent.site), agent.pid());
    let open = std::fs::read_dir(format!("/proc/{daemon}/fd")).expect("it is there").count() as u64;
    let limited = rustix::process::Rlimit { current: Some(open), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid_of(daemon)), Resource::Nofile, limited).expect("limits can be set");
    let (address, _) = raw::door(&agent);
    let waiting: Vec<_> =
        (0..20).map(|_| TcpStream::connect(address).expect("the kernel takes it")).collect();
    let unix = site.dir().join("run/api.sock");
    let more: Vec<_> =
        (0..20).map(|_| std::os::unix::net::UnixStream::connect(&unix).expect("as above")).collect();
    records_on(&agent).await;
    assert_eq!(agent.health().await, Some(ServingStatus::Serving), "it lives");
    prlimit(Some(pid_of(daemon)), Resource::Nofile, before).expect("and set back");
    drop((waiting, more));
    let next = spawn_blocking(move || greeted(address).map(drop));
    patient("a greeting", next).await.expect("it was tried").expect("it accepts again");
    connected(&agent).await;
    Stopped::of(&agent, "s").await.holds_whole("it lives, records, and accepts again")
}
