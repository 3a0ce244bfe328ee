//! What can be asked: sessions by pages and states, devices with their holders, the agent itself.

use std::collections::BTreeSet;

use shutterd::api::proto::{
    GetAgentRequest, ListSessionsRequest, ListSessionsResponse, SourceFormat, StartOptions,
};
use tonic::Code;

use crate::agent::{drain, session, state, until};
use crate::host::{Host, assert_refused};
use crate::site::{Site, camera, microphone};

fn listed(answer: &ListSessionsResponse) -> Vec<(&str, &str)> {
    let sessions = answer.sessions.iter().filter_map(|it| it.session.as_ref());
    sessions.map(|session| (session.id.as_str(), session.state.as_str())).collect()
}

async fn list(host: &Host, states: &[&str], since: u64, page_size: u32) -> ListSessionsResponse {
    let states = states.iter().map(|state| (*state).to_owned()).collect();
    let request = ListSessionsRequest { states, since, page_size };
    host.calls().list_sessions(request).await.expect("sessions can be listed").into_inner()
}

#[tokio::test]
async fn sessions_are_listed_by_pages_and_states_in_the_order_of_their_changes() {
    let devices: Vec<String> = (1..=5).map(|at| camera(&format!("cam{at}"))).collect();
    let host = Host::serve(&Site::new("", &devices)).await;
    assert_eq!(list(&host, &[], 0, 0).await, ListSessionsResponse::default());
    for at in 1..=5 {
        host.start(session(&format!("s{at}"), &[&format!("cam{at}")])).await.expect("the session starts");
    }
    host.stop("s2").await;
    host.stop("s4").await;
    let all = list(&host, &[], 0, 0).await;
    let expected =
        [("s1", "active"), ("s3", "active"), ("s5", "active"), ("s2", "finished"), ("s4", "finished")];
    assert_eq!(listed(&all), expected);
    assert!(!all.has_more);
    let receipts: Vec<bool> = all.sessions.iter().map(|session| session.receipt.is_some()).collect();
    assert_eq!(receipts, [false, false, false, true, true]);

    let (mut since, mut pages) = (0, Vec::new());
    loop {
        let page = list(&host, &[], since, 2).await;
        since = page.next_since;
        pages.push(listed(&page).iter().map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>());
        if !page.has_more {
            break;
        }
    }
    assert_eq!(pages, [vec!["s1", "s3"], vec!["s5", "s2"], vec!["s4"]]);
    let rest = list(&host, &[], since, 2).await;
    assert_eq!((listed(&rest), rest.next_since, rest.has_more), (vec![], since, false));

    let active = list(&host, &["active"], 0, 0).await;
    assert_eq!(listed(&active), &expected[..3]);
    let finished = list(&host, &["finished"], 0, 1).await;
    assert_eq!((listed(&finished), finished.has_more), (vec![expected[3]], true));
    assert_eq!(listed(&list(&host, &["finished", "active"], 0, 0).await).len(), 5);
    assert_eq!(listed(&list(&host, &["lost"], 0, 0).await), []);

    for ahead in [since + 1, u64::MAX] {
        let request = ListSessionsRequest { since: ahead, ..Default::default() };
        let status = host.calls().list_sessions(request).await.expect_err("no change has this count");
        assert_refused(
            "another journal's cursor",
            &status,
            Code::OutOfRange,
            "CURSOR_AHEAD",
            &[("field", "since")],
        );
    }

    // A caller that keeps its cursor is told of the next finish, and of nothing else.
    host.stop("s3").await;
    assert_eq!(listed(&list(&host, &[], since, 0).await), [("s3", "finished")]);
    host.end().await;
}

#[tokio::test]
async fn a_caller_that_polls_with_its_cursor_is_told_of_every_finish() {
    let devices: Vec<String> = (0..4).map(|at| camera(&format!("cam{at}"))).collect();
    let host = Host::serve(&Site::new("", &devices)).await;
    for at in 0..4 {
        host.start(session(&format!("s{at}"), &[&format!("cam{at}")])).await.expect("the session starts");
    }
    let stops = async {
        for at in 0..4 {
            host.stop(&format!("s{at}")).await;
        }
    };
    let poll = async {
        let (mut since, mut finished) = (0, BTreeSet::new());
        while finished.len() < 4 {
            let page = list(&host, &[], since, 0).await;
            assert!(page.next_since >= since, "the cursor never goes back");
            since = page.next_since;
            let now = listed(&page).into_iter().filter(|(_, state)| *state == "finished");
            finished.extend(now.map(|(id, _)| id.to_owned()));
        }
    };
    let both = async { tokio::join!(stops, poll) };
    tokio::time::timeout(crate::agent::PATIENCE, both).await.expect("every finish is told");
    host.end().await;
}

#[tokio::test]
async fn devices_are_listed_with_the_session_that_holds_them() {
    let host = Host::serve(&Site::new("", &[camera("cam"), camera("spare"), microphone("mic")])).await;
    let own = |devices: Vec<shutterd::api::proto::Device>| {
        let own = devices.into_iter().filter(|device| device.kind == "synthetic");
        own.map(|device| (device.id, device.name, device.r#type, device.held_by)).collect::<Vec<_>>()
    };
    let device = |id: &str, name: &str, kind: &str, holder: &str| {
        (id.to_owned(), format!("{name} {id}"), kind.to_owned(), holder.to_owned())
    };
    let free = [
        device("cam", "Camera", "video", ""),
        device("spare", "Camera", "video", ""),
        device("mic", "Microphone", "audio", ""),
    ];
    assert_eq!(own(host.devices().await), free);
    host.start(session("s1", &["cam", "mic"])).await.expect("the session starts");
    let held = [
        device("cam", "Camera", "video", "s1"),
        device("spare", "Camera", "video", ""),
        device("mic", "Microphone", "audio", "s1"),
    ];
    assert_eq!(own(host.devices().await), held);
    let busy = host.start_soon(session("s2", &["spare", "mic"]), None).await;
    let status = busy.expect_err("the microphone is held");
    let about = [("device", "Microphone mic"), ("holder", "s1")];
    assert_refused("a busy device", &status, Code::FailedPrecondition, "DEVICE_BUSY", &about);
    assert_eq!(own(host.devices().await), held, "all or nothing");
    host.stop("s1").await;
    assert_eq!(own(host.devices().await), free);
    host.start(session("s2", &["spare", "mic"])).await.expect("what was held is free");
    host.stop("s2").await;
    host.end().await;
}

#[tokio::test]
async fn the_agent_tells_of_itself() {
    let site = Site::new("limits.sessions_max = 2", &[camera("cam"), camera("spare"), camera("third")]);
    let host = Host::serve(&site).await;
    for (at, device) in ["cam", "spare"].iter().enumerate() {
        host.start(session(&format!("s{at}"), &[device])).await.expect("the session starts");
    }
    let agent = host.calls().get_agent(GetAgentRequest {}).await.expect("the agent answers").into_inner();
    assert_eq!((agent.sessions, agent.sessions_max, agent.state.as_str()), (2, 2, "serving"));
    assert_eq!(agent.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(agent.media_dir, site.media_dir().display().to_string());
    assert!(agent.disk_total_bytes >= agent.disk_free_bytes && agent.disk_free_bytes > 0, "{agent:?}");
    assert!(agent.memory_total_bytes > agent.memory_used_bytes && agent.memory_used_bytes > 0, "{agent:?}");
    assert!(agent.started_at.ends_with('Z') && !agent.hostname.is_empty(), "{agent:?}");
    assert!(agent.problems.is_empty(), "{agent:?}");
    let status = host.start(session("s2", &["third"])).await.expect_err("there is no room");
    assert_refused("a third", &status, Code::ResourceExhausted, "TOO_MANY_SESSIONS", &[]);
    host.end().await;
}

#[tokio::test]
async fn a_format_that_is_asked_for_is_the_one_that_is_captured() {
    let host = Host::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    let formats = vec![
        SourceFormat {
            source_id: "cam".to_owned(),
            width: Some(160),
            height: Some(120),
            frame_rate: Some(15.0),
            pixel_format: Some("NV12".to_owned()),
            ..Default::default()
        },
        SourceFormat {
            source_id: "mic".to_owned(),
            sample_rate: Some(16_000),
            channels: Some(2),
            ..Default::default()
        },
    ];
    let max_duration = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let options = StartOptions { max_duration, formats };
    host.start_with(session("s1", &["cam", "mic"]), Some(options.clone())).await.expect("the session starts");
    let other = StartOptions { max_duration: None, ..options.clone() };
    let status =
        host.start_with(session("s1", &["cam", "mic"]), Some(other)).await.expect_err("other options");
    assert_refused("other options", &status, Code::AlreadyExists, "SESSION_EXISTS", &[("session", "s1")]);
    let last = until(&mut host.watch("s1").await, |event| state(event) == "finished").await;
    let receipt = last.receipt.expect("a receipt");
    assert_eq!(receipt.end_reason, "max_duration");
    let formats: Vec<_> = receipt.sources.iter().map(|source| source.format.as_str()).collect();
    assert_eq!(formats, ["NV12 160x120 at 15.00/s", "S16 16000 Hz, 2 channels"]);
    crate::media::check(&host.site, &receipt);
    let again = host.calls().stop_session(drain("s1")).await.expect("a finished session").into_inner();
    assert!(again.already_finished && again.receipt == Some(receipt));
    host.end().await;
}
