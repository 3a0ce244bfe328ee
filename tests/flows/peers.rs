//! Users of the host at the agent's Unix socket: the kernel says who they are.

use std::sync::Arc;

use rustix::process::getuid;
use serde_json::Value;

use crate::agent::{Agent, patient, session};
use crate::site::{Site, camera, skip};

const ROOT: u32 = 0;
const OWN: u32 = 65_533;
const STRANGER: u32 = 65_534;

/// The exit code and the last line of a command that `user` gives over the Unix socket.
async fn told(agent: &Agent, user: u32, words: &[&str]) -> (Option<i32>, Value) {
    let mut command = agent.site.shutterd_as(user);
    command.arg("--json").arg("--server").arg(format!("unix:{}/run/api.sock", agent.site.dir().display()));
    command.args(words);
    let output = patient("a command", tokio::process::Command::from(command).output()).await;
    let output = output.expect("the binary runs");
    let said = if output.status.success() { &output.stdout } else { &output.stderr };
    (output.status.code(), serde_json::from_slice(said).expect("it says what came of it"))
}

#[tokio::test]
async fn the_unix_socket_serves_root_and_the_agents_own_user_and_nobody_else() {
    if !getuid().is_root() {
        return skip("this needs processes of several users, which only root can start");
    }
    for own in [ROOT, OWN] {
        let mut site = Site::unshared("", &[camera("cam")]);
        site.belongs_to(own);
        let agent = Agent::serve(&Arc::new(site)).await;
        agent.start(session("s", &["cam"])).await.expect("root is served");
        for user in [ROOT, own] {
            let (code, shown) = told(&agent, user, &["session", "show", "s"]).await;
            assert_eq!((code, &shown["session"]["_id"]), (Some(0), &"s".into()), "{user} of {own}: {shown}");
        }
        for words in [&["session", "stop", "s"][..], &["session", "list"], &["devices"], &["stop-all"]] {
            let (code, failed) = told(&agent, STRANGER, words).await;
            let error = &failed["error"];
            assert_eq!(
                (code, &error["reason"]),
                (Some(6), &"PEER_UID".into()),
                "{words:?} of {own}: {failed}"
            );
        }
        let (code, health) = told(&agent, STRANGER, &["health"]).await;
        assert_eq!(code, Some(0), "monitoring may ask: {health}");
        agent.recorded("s", 10, 0).await;
        let (code, stopped) = told(&agent, own, &["session", "stop", "s"]).await;
        assert_eq!(
            (code, &stopped["receipt"]["endReason"]),
            (Some(0), &"stop_requested".into()),
            "{stopped}"
        );
    }
}
