//! Worker binaries that are not this daemon's: silent ones, nonsense, another version of the link.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shutterd::link::message::{FromWorker, Hello, ToWorker, from_worker, to_worker};
use shutterd::link::{Decoder, LINK_VERSION, encode};
use tokio::time::Instant;
use tonic::Code;

use crate::agent::{Agent, PATIENCE, refusal, session};
use crate::media::check;
use crate::site::{Site, microphone};

/// The link and the session of a worker that this test binary plays.
const LINK_VARIABLE: &str = "FLOWS_LINK";
const SESSION_VARIABLE: &str = "FLOWS_SESSION";

/// A site whose workers are this shell script.
pub fn site(settings: &str, script: &str) -> Arc<Site> {
    let path = |site: &Site| site.dir().join("worker");
    let site = Site::unshared(settings, &[microphone("mic")]);
    let config = site.dir().join("flow.toml");
    let text = fs::read_to_string(&config).expect("the config");
    let line = format!("worker.path = \"{}\"\n", path(&site).display());
    fs::write(&config, line + &text).expect("the config can be changed");
    fs::write(path(&site), format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(path(&site), fs::Permissions::from_mode(0o755)).expect("it can be run");
    Arc::new(site)
}

#[tokio::test]
async fn a_worker_that_never_answers_is_killed_and_the_start_fails_by_its_deadline() {
    let settings = "limits.start_timeout_ms = 300\nlimits.term_timeout_ms = 200";
    let site = site(settings, "trap '' TERM INT HUP\nexec sleep 1000");
    let agent = Agent::serve(&site).await;
    let asked_at = Instant::now();
    let failed = agent.start(session("s", &["mic"])).await.expect_err("it never answers");
    let took = asked_at.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let (code, reason, _) = refusal(&failed);
    assert_eq!((code, reason.as_str()), (Code::Internal, "WORKER_TIMEOUT"), "{failed:?}");
    let sleeps = |words: &[String]| words.iter().any(|word| word == "sleep");
    assert!(!site.processes().iter().any(|process| sleeps(&process.words)), "it was killed");
    assert!(agent.list().await.is_empty());
    let again = agent.start(session("s", &["mic"])).await.expect_err("the id and the device are free");
    assert_eq!(refusal(&again).1, "WORKER_TIMEOUT");
}

#[tokio::test]
async fn a_stop_ends_a_worker_that_never_answers() {
    let settings = "limits.drain_timeout_ms = 300\nlimits.term_timeout_ms = 200\nlimits.repair_timeout_ms = 1000\n\
                    limits.start_timeout_ms = 60000";
    let site = site(settings, "trap '' TERM INT HUP\nexec sleep 1000");
    let agent = Agent::serve(&site).await;
    let (started, stopped) = tokio::join!(agent.start(session("s", &["mic"])), async {
        crate::agent::eventually("it runs", || site.processes().len() > 1).await;
        agent.stop("s").await
    });
    assert_eq!(refusal(&started.expect_err("it was stopped")).0, Code::Aborted);
    let receipt = stopped.expect("the stop is answered").receipt.expect("its receipt");
    assert!(receipt.forced && receipt.files.is_empty(), "{receipt:?}");
    assert!(!receipt.released_at.is_empty());
}

#[tokio::test]
async fn a_worker_that_only_talks_nonsense_fails_the_start_at_once() {
    let agent = Agent::serve(&site("", "echo nonsense; echo more >&2; exit 3")).await;
    let failed = agent.start_soon(session("s", &["mic"])).await.expect_err("it is no worker");
    let (code, reason, _) = refusal(&failed);
    assert_eq!((code, reason.as_str()), (Code::Internal, "WORKER_DIED"), "{failed:?}");
    assert!(failed.message().contains('3'), "how it ended is told: {failed:?}");
    assert!(!agent.site.session_dir("s").exists());
}

#[tokio::test]
async fn a_worker_that_is_not_there_fails_the_start_at_once() {
    let site = site("", "exit 0");
    let agent = Agent::serve(&site).await;
    fs::remove_file(site.dir().join("worker")).expect("it can be removed");
    let failed = agent.start_soon(session("s", &["mic"])).await.expect_err("there is no worker");
    assert_eq!(refusal(&failed).1, "WORKER_NOT_LAUNCHED", "{failed:?}");
    assert!(failed.message().contains("worker.path"), "{failed:?}");
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused_by_name() {
    let own = std::env::current_exe().expect("this binary has a path");
    let script = format!(
        "{LINK_VARIABLE}=\"$3\" {SESSION_VARIABLE}=\"$5\" exec \"{}\" --exact --ignored \
         versions::this_binary_as_a_worker_of_another_version",
        own.display()
    );
    let agent = Agent::serve(&site("", &script)).await;
    let failed = agent.start(session("s", &["mic"])).await.expect_err("it is of another version");
    let (code, reason, about) = refusal(&failed);
    assert_eq!((code, reason.as_str()), (Code::Internal, "WORKER_VERSION"), "{failed:?}");
    assert!(failed.message().contains("99.9") && failed.message().contains("worker.path"), "{failed:?}");
    assert_eq!(about.get("session").map(String::as_str), Some("s"));
    assert!(agent.list().await.is_empty());
    assert!(agent.site.workers().is_empty());
}

#[tokio::test]
async fn a_process_that_is_not_the_worker_cannot_take_its_place() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let link = site.dir().join("run/link.sock");
    let hello = Hello {
        link_version: LINK_VERSION,
        session_id: "s".to_owned(),
        pid: site.worker("s"),
        ..Default::default()
    };
    let hello = encode(&FromWorker { body: Some(from_worker::Body::Hello(hello)) });
    let nonsense = vec![0xA5; 64 * 1024];
    let answers = tokio::task::spawn_blocking(move || [hello, nonsense].map(|bytes| dial(&link, &bytes)));
    let [refused, closed] = answers.await.expect("both were answered");
    let mut decoder = Decoder::default();
    decoder.push(&refused);
    let refused: Option<ToWorker> = decoder.next_message().expect("the daemon speaks the link's language");
    let body = refused.and_then(|message| message.body);
    assert!(matches!(&body, Some(to_worker::Body::Refused(_))), "{body:?}");
    assert!(closed.is_empty(), "nonsense gets no answer");
    agent.recorded("s", 0, 30_000).await;
    let receipt = agent.stop("s").await.expect("the session goes on").receipt.expect("its receipt");
    assert!(!receipt.forced && receipt.sources[0].gaps.is_empty(), "{receipt:?}");
    check(&site, &receipt);
}

/// Everything that the daemon answers to `bytes` until it hangs up, or for as long as it may.
fn dial(link: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(link).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    // A daemon that has heard enough hangs up before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it hangs up: {error}"),
        _ => answer,
    }
}

#[test]
#[ignore = "no test: what the test above runs as its worker"]
fn this_binary_as_a_worker_of_another_version() {
    let (Ok(link), Ok(session)) = (std::env::var(LINK_VARIABLE), std::env::var(SESSION_VARIABLE)) else {
        return;
    };
    let mut stream = UnixStream::connect(link).expect("the daemon listens");
    let hello = Hello {
        link_version: LINK_VERSION + 98,
        version: "99.9.9".to_owned(),
        session_id: session,
        pid: std::process::id(),
        ..Default::default()
    };
    let message = FromWorker { body: Some(from_worker::Body::Hello(hello)) };
    stream.write_all(&encode(&message)).expect("the daemon reads");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket has timeouts");
    // The refusal; a real worker ends after it.
    let _ = stream.read(&mut [0; 1024]);
}
