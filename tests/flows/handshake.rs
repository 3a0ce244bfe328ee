//! Workers whose daemon is of another version: neither end works with one that it may not understand, and what was
//! captured is told all the same.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::JoinHandle;

use shutterd::api::proto::GetSessionResponse;
use shutterd::link::message::{FromWorker, Hello, Refused, ToWorker, Welcome, from_worker, to_worker};
use shutterd::link::{Decoder, LINK_VERSION, encode};

use crate::agent::{Agent, PATIENCE, eventually, patient, session};
use crate::media::check;
use crate::site::{Site, camera, microphone};

const OTHER_VERSION: u32 = LINK_VERSION + 98;

/// What plays the other end of a link, beside the test.
fn aside(play: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name("other end".to_owned()).spawn(play).expect("a thread can be made")
}

/// Listens in the place of a daemon.
fn listen(path: &Path) -> UnixListener {
    // The one before has left its socket.
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).expect("a socket for the test")
}

/// The next worker that dials, and how it says who it is.
fn hello(listener: &UnixListener) -> (UnixStream, Hello) {
    let (mut worker, _) = listener.accept().expect("a worker dials");
    worker.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 4096]);
    loop {
        match decoder.next_message().expect("the worker speaks the link's language") {
            Some(FromWorker { body: Some(from_worker::Body::Hello(hello)) }) => return (worker, hello),
            Some(other) => panic!("its first message says who it is, not {other:?}"),
            None => {
                let count = worker.read(&mut buffer).expect("the worker says something");
                assert!(count > 0, "it hung up");
                decoder.push(&buffer[..count]);
            }
        }
    }
}

/// Says `body` to the worker, and hears what it says until it hangs up.
fn answer(mut worker: UnixStream, body: to_worker::Body) {
    worker.write_all(&encode(&ToWorker { body: Some(body) })).expect("the worker reads");
    // One that ends without reading all has hung up too.
    let _ = std::io::copy(&mut worker, &mut std::io::sink());
}

/// A session that records, and whose agent has crashed.
async fn orphan(site: &Arc<Site>) -> u32 {
    let agent = Agent::serve(site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    let worker = site.worker("s");
    agent.crash().await;
    worker
}

fn assert_drained(site: &Site, finished: GetSessionResponse) {
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("orphaned", false), "{receipt:?}");
    assert!(!receipt.released_at.is_empty());
    assert!(receipt.sources[0].written >= 30 && receipt.sources[1].written >= 48_000, "{receipt:?}");
    for source in &receipt.sources {
        assert_eq!((source.lost, source.dropped, source.at_least), (0, 0, false), "{source:?}");
    }
    assert!(!receipt.files[0].repaired, "{receipt:?}");
    check(site, &receipt);
}

#[tokio::test]
async fn a_worker_of_a_daemon_of_another_version_ends_before_it_touches_a_device() {
    let site = Site::new("", &[camera("cam")]);
    let link = site.dir().join("link.sock");
    let listener = listen(&link);
    let mut command = tokio::process::Command::from(site.shutterd());
    command.arg("worker").arg("--link").arg(&link).args(["--session", "s"]).stderr(Stdio::piped());
    let worker = command.kill_on_drop(true).spawn().expect("the binary runs");
    let settings = br#"{"settings": "of a version that is not known"}"#.to_vec();
    let daemon = aside(move || {
        let (worker, hello) = hello(&listener);
        assert_eq!((hello.link_version, hello.configured), (LINK_VERSION, false));
        answer(worker, to_worker::Body::Welcome(Welcome { link_version: OTHER_VERSION, settings }));
    });
    let ended = patient("the worker's end", worker.wait_with_output()).await.expect("it can be waited for");
    daemon.join().expect("the daemon has answered");
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("link versions differ") && said.contains(&OTHER_VERSION.to_string()), "{said}");
}

/// Plays a daemon of another version that answers the next worker by `body`, until that worker hangs up.
fn other_daemon(site: &Site, body: to_worker::Body) -> JoinHandle<()> {
    let listener = listen(&site.dir().join("run/link.sock"));
    aside(move || {
        let (worker, hello) = hello(&listener);
        assert_eq!((hello.session_id.as_str(), hello.configured), ("s", true));
        answer(worker, body);
    })
}

#[tokio::test]
async fn a_worker_that_a_daemon_of_another_version_finds_drains_and_its_receipt_is_told() {
    let welcome = Welcome { link_version: OTHER_VERSION, settings: Vec::new() };
    let refused = Refused { message: "this daemon speaks another version".to_owned() };
    for body in [to_worker::Body::Welcome(welcome), to_worker::Body::Refused(refused)] {
        // So long that the worker can't have ended for want of a daemon.
        let site = Site::new("limits.orphan_grace_ms = 600000", &[camera("cam"), microphone("mic")]);
        orphan(&site).await;
        let daemon = other_daemon(&site, body);
        eventually("the worker ends by itself", || site.workers().is_empty()).await;
        daemon.join().expect("the daemon was dialled");
        assert_drained(&site, Agent::serve(&site).await.finished("s").await);
    }
}

#[tokio::test]
async fn a_worker_of_another_version_that_the_next_agent_finds_drains_and_its_receipt_is_told() {
    let site = Site::new("limits.orphan_grace_ms = 600000", &[camera("cam"), microphone("mic")]);
    let worker = orphan(&site).await;
    // The next agent has a runtime directory of its own, so that the worker finds what stands between them.
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, text.replace("/run\"", "/next\"")).expect("the config can be changed");
    let api = site.dir().join("run/api.sock");
    std::fs::remove_file(&api).expect("the one before has left it");
    std::os::unix::fs::symlink(site.dir().join("next/api.sock"), &api).expect("a link to the next one's");
    let agent = Agent::serve(&site).await;
    assert_eq!(site.workers(), [worker], "it goes on");
    let listener = listen(&site.dir().join("run/link.sock"));
    let next = site.dir().join("next/link.sock");
    let between = aside(move || {
        let (mut worker, hello) = hello(&listener);
        let other = Hello { link_version: OTHER_VERSION, version: "99.9.9".to_owned(), ..hello };
        let mut daemon = UnixStream::connect(next).expect("the agent listens");
        let hello = FromWorker { body: Some(from_worker::Body::Hello(other)) };
        daemon.write_all(&encode(&hello)).expect("the agent reads");
        let mut heard = daemon.try_clone().expect("a socket can be cloned");
        let said = worker.try_clone().expect("a socket can be cloned");
        let back = aside(move || {
            let mut said = said;
            // The worker may have hung up by then.
            let _ = std::io::copy(&mut heard, &mut said);
        });
        let _ = std::io::copy(&mut worker, &mut daemon);
        daemon.shutdown(std::net::Shutdown::Both).expect("it is connected");
        back.join().expect("nothing is left to pass on");
    });
    let finished = agent.finished("s").await;
    between.join().expect("it was dialled");
    assert!(site.log().contains("99.9.9"), "who was refused is logged");
    assert_drained(&site, finished);
}
