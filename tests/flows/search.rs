//! The search for devices, where a driver hangs, crashes or is of another version: what has answered counts.

use std::sync::Arc;

use shutterd::api::proto::{GetAgentRequest, ListDevicesRequest, Session};
use shutterd::link::{LINK_VERSION, ProbeHead, ProbeLine};
use shutterd::session::device::{DeviceKey, FoundDevice, MediaType};
use tonic::Code;

use crate::agent::{Agent, refusal, session};
use crate::site::Site;

fn device(node: &str, media: MediaType) -> FoundDevice {
    FoundDevice {
        key: DeviceKey(format!("{media}:{node}")),
        name: format!("The one at {node}"),
        media,
        node: node.to_owned(),
        bus: String::new(),
        by_path: None,
        by_id: None,
        serial: None,
        formats: Vec::new(),
    }
}

/// What a probe prints that has found two cameras and a microphone, and hangs in the first camera.
fn told() -> String {
    let asking = |what: &str, unasked: Option<FoundDevice>| ProbeLine::Asking {
        what: what.to_owned(),
        unasked: unasked.map(Box::new),
    };
    let answered = |what: &str, device| ProbeLine::Answered { what: what.to_owned(), devices: vec![device] };
    let lines = [
        asking("/dev/video7", Some(device("/dev/video7", MediaType::Video))),
        asking("/dev/video10", Some(device("/dev/video10", MediaType::Video))),
        asking("the sound system", None),
        answered("the sound system", device("hw:CARD=Found,DEV=0", MediaType::Audio)),
        answered("/dev/video10", device("/dev/video10", MediaType::Video)),
    ];
    let json = |line| serde_json::to_string(line).expect("a line is JSON");
    let head = serde_json::to_string(&ProbeHead { link_version: LINK_VERSION }).expect("a line is JSON");
    [head].into_iter().chain(lines.iter().map(json)).map(|line| format!("echo '{line}'\n")).collect()
}

/// A site whose probes do this; its workers are real ones.
fn site(probe: &str) -> Arc<Site> {
    let real = env!("CARGO_BIN_EXE_shutterd");
    let script = format!("case \"$1\" in probe) {probe};; *) exec \"{real}\" \"$@\";; esac");
    crate::versions::site("limits.probe_timeout_ms = 500", &script)
}

/// A session of the device of this name, which is looked for among all of the host.
fn by_name(id: &str, name: &str, kind: &str) -> Session {
    let mut session = session(id, &[if kind == "video" { "cam" } else { "mic" }]);
    session.sources[0].device_id = String::new();
    name.clone_into(&mut session.sources[0].name);
    session
}

#[tokio::test]
async fn a_driver_that_hangs_is_named_and_fails_no_start_whose_device_was_found() {
    let agent = Agent::serve(&site(&format!("{}exec sleep 1000", told()))).await;
    agent.start(by_name("found", "Microphone mic", "audio")).await.expect("its device was found");
    let refused = agent.start(session("missing", &["cam"])).await.expect_err("it was not found");
    let (code, reason, about) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::Internal, "PROBE_FAILED"), "{refused:?}");
    assert_eq!(about.get("device").map(String::as_str), Some("cam"));
    assert!(refused.message().contains("no answer within 0.5 s at /dev/video7"), "{refused:?}");
    let refused = agent.start(by_name("any", "", "video")).await.expect_err("there may be two cameras");
    assert_eq!(refusal(&refused).1, "DEVICE_AMBIGUOUS", "{refused:?}");
    let listed = agent.calls().list_devices(ListDevicesRequest {}).await.expect("what is known is listed");
    let nodes: Vec<String> = listed.into_inner().devices.into_iter().map(|device| device.node).collect();
    assert_eq!(nodes, ["", "/dev/video7", "/dev/video10", "hw:CARD=Found,DEV=0"]);
    let told = agent.calls().get_agent(GetAgentRequest {}).await.expect("it answers").into_inner();
    let [problem] = told.problems.as_slice() else { panic!("one problem, told once: {:?}", told.problems) };
    assert!(problem.contains("/dev/video7") && !problem.contains("/dev/video10"), "{problem}");
}

#[tokio::test]
async fn a_driver_that_crashes_the_search_is_named_and_costs_no_other_device() {
    let agent = Agent::serve(&site(&format!("{}kill -SEGV $$", told()))).await;
    agent.start(by_name("found", "Microphone mic", "audio")).await.expect("its device was found");
    let refused = agent.start(session("missing", &["cam"])).await.expect_err("it was not found");
    assert!(
        refused.message().contains("SIGSEGV") && refused.message().contains("/dev/video7"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_search_of_another_version_or_that_ends_early_is_refused_by_name() {
    for (probe, reason, word) in [
        (r#"echo '{"link_version":99,"devices":[]}'"#, "PROBE_VERSION", "link 99"),
        (r#"echo '{"link_version":1}'"#, "PROBE_FAILED", "exit status: 0"),
        ("echo nonsense", "PROBE_FAILED", "was not understood"),
        ("exec sleep 1000", "PROBE_FAILED", "no answer within 0.5 s"),
    ] {
        let agent = Agent::serve(&site(probe)).await;
        let refused = agent.start(by_name("s", "Microphone mic", "audio")).await.expect_err(probe);
        let (code, told, _) = refusal(&refused);
        assert_eq!((code, told.as_str()), (Code::Internal, reason), "{refused:?}");
        assert!(refused.message().contains(word), "{refused:?}");
        agent.start(session("s", &["mic"])).await.expect("what needs no search starts");
        agent.end().await;
    }
}
