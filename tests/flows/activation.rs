//! Sockets that a service manager holds for the daemon.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use shutterd::api::proto::StartSessionRequest;
use shutterd::api::proto::capture_agent_client::CaptureAgentClient;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::agent::{drain, eventually, patient, session};
use crate::site::{SITE_VARIABLE, Site, microphone};

/// Does what systemd does for a socket unit: opens as many sockets as it is told to, writes the addresses of
/// the first two into the config, and becomes the daemon.
const MANAGER: &str = r#"
import os, socket, sys
count, config, program = int(sys.argv[1]), sys.argv[2], sys.argv[3]
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
text = open(config).read()
for key, sock in zip(("api.tcp", "http.listen"), held):
    text = text.replace(f'{key} = "127.0.0.1:0"', f'{key} = "127.0.0.1:{sock.getsockname()[1]}"')
open(config, "w").write(text)
spare = [os.dup2(sock.fileno(), 100 + at, inheritable=False) for at, sock in enumerate(held)]
for at, fd in enumerate(spare):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(program, [program, "--config", config, "serve"])
"#;

fn activated(site: &Site, sockets: usize) -> Child {
    let config = site.dir().join("flow.toml");
    let mut command = Command::new("python3");
    command.args(["-c", MANAGER, &sockets.to_string()]).arg(config).arg(env!("CARGO_BIN_EXE_shutterd"));
    let log = site.log_file();
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
    command.env(SITE_VARIABLE, site.dir()).spawn().expect("python3 can be run")
}

/// What the descriptors of a process are.
fn descriptors(pid: u32) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).expect("a process");
    let link = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let target = std::fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), target.display().to_string()))
    };
    entries.filter_map(link).collect()
}

#[tokio::test]
async fn sockets_that_are_held_for_the_daemon_are_served_and_kept_from_workers() {
    let site = Site::new("", &[microphone("mic")]);
    let mut child = activated(&site, 2);
    eventually("it is ready", || site.log().contains(" ready ")).await;
    let config = std::fs::read_to_string(site.dir().join("flow.toml")).expect("the config");
    let given = config.lines().find_map(|line| line.strip_prefix("api.tcp = ")).expect("an address");
    let given = given.trim_matches('"').to_owned();
    assert!(!given.ends_with(":0") && site.log().contains(&format!("tcp=\"{given}\"")), "{}", site.log());
    let mut health = HealthClient::new(
        Endpoint::from_shared(format!("http://{given}"))
            .expect("an address")
            .connect()
            .await
            .expect("it listens"),
    );
    let request = HealthCheckRequest { service: String::new() };
    let answer = patient("health", health.check(request)).await.expect("it answers").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let socket = format!("unix:{}", site.dir().join("run/api.sock").display());
    let mut agent = CaptureAgentClient::connect(socket).await.expect("it listens there as well");
    let request = StartSessionRequest { session: Some(session("s", &["mic"])), options: None };
    patient("a start", agent.start_session(request)).await.expect("it starts");
    let held = descriptors(child.id());
    let held: Vec<&String> =
        held.iter().filter(|(fd, _)| ["3", "4"].contains(&fd.as_str())).map(|(_, to)| to).collect();
    assert_eq!(held.len(), 2);
    let own = descriptors(site.worker("s"));
    assert!(own.iter().all(|(_, to)| !held.contains(&to)), "a worker holds none of them: {own:?}");
    patient("a stop", agent.stop_session(drain("s"))).await.expect("it stops");
    crate::agent::send(child.id(), rustix::process::Signal::TERM);
    assert!(child.wait().expect("it ends").success());
}

#[tokio::test]
async fn a_socket_that_the_config_does_not_name_is_refused_by_its_address() {
    let site: Arc<Site> = Site::new("", &[]);
    let mut child = activated(&site, 3);
    let status = tokio::task::spawn_blocking(move || child.wait());
    let status = patient("its end", status).await.expect("it was waited for").expect("it ends");
    assert!(!status.success());
    let log = site.log();
    assert!(log.contains("the socket unit listens on 127.0.0.1:") && log.contains("api.tcp"), "{log}");
}
