//! Who may do what: every gRPC call and every HTTP route, by every role, with no, a wrong, an expired and
//! a revoked token, and for another user's sessions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use futures_util::StreamExt;
use prost::Message;
use shutterd::access::{Role, TokenFile};
use shutterd::api::proto;
use shutterd::api::proto::capture_agent_client::CaptureAgentClient;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::agent::{Agent, PATIENCE, drain, eventually, patient, refusal, session};
use crate::client::{Door, call};
use crate::site::{Site, camera, microphone};

#[path = "audit.rs"]
mod audit;

/// Every gRPC call and the least role for it.
const GRPC: [(&str, Role); 13] = [
    ("GetSession", Role::Viewer),
    ("ListSessions", Role::Viewer),
    ("WatchSession", Role::Viewer),
    ("WatchAgent", Role::Viewer),
    ("ListDevices", Role::Viewer),
    ("GetAgent", Role::Viewer),
    ("ServerReflectionInfo", Role::Viewer),
    ("ReadMedia", Role::Reader),
    ("StartSession", Role::Operator),
    ("StopSession", Role::Operator),
    ("Drain", Role::Operator),
    ("Undrain", Role::Operator),
    ("Handover", Role::Operator),
];
/// Calls that are about one session.
const OF_ONE: [&str; 5] = ["GetSession", "WatchSession", "ReadMedia", "StartSession", "StopSession"];
/// Calls that hold for the whole host.
const OF_ALL: [&str; 3] = ["Drain", "Undrain", "Handover"];

/// A session of `user`.
fn session_of(user: &str, id: &str, devices: &[&str]) -> proto::Session {
    proto::Session { user: user.to_owned(), ..session(id, devices) }
}

/// Adds the token to every call, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Calls over TCP with a token, or without.
#[derive(Clone)]
pub struct Calls {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Calls {
    pub async fn open(door: &Door) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", door.tcp)).expect("an address");
        Self { channel: endpoint.connect().await.expect("the agent listens"), token: None }
    }

    pub fn with(&self, token: &str) -> Self {
        Self { channel: self.channel.clone(), token: Some(format!("Bearer {token}").parse().expect("text")) }
    }

    fn channel(&self) -> InterceptedService<Channel, Bearer> {
        InterceptedService::new(self.channel.clone(), Bearer(self.token.clone()))
    }

    pub fn agent(&self) -> CaptureAgentClient<InterceptedService<Channel, Bearer>> {
        CaptureAgentClient::new(self.channel())
    }

    async fn make(&self, name: &str, id: &str, user: &str) -> Result<(), Status> {
        patient(name, self.make_it(name, id, user)).await
    }

    async fn make_it(&self, name: &str, id: &str, user: &str) -> Result<(), Status> {
        let mut agent = self.agent();
        let session_id = id.to_owned();
        match name {
            "GetSession" => agent.get_session(proto::GetSessionRequest { session_id }).await.map(drop),
            "ListSessions" => agent.list_sessions(list()).await.map(drop),
            "WatchSession" => {
                ended(agent.watch_session(proto::WatchSessionRequest { session_id }).await?).await
            }
            "WatchAgent" => agent.watch_agent(proto::WatchAgentRequest { since: 0 }).await.map(drop),
            "ListDevices" => agent.list_devices(proto::ListDevicesRequest {}).await.map(drop),
            "GetAgent" => agent.get_agent(proto::GetAgentRequest {}).await.map(drop),
            "ServerReflectionInfo" => self.reflect().await,
            "ReadMedia" => {
                let request =
                    proto::ReadMediaRequest { session_id, file: String::new(), offset: 0, follow: false };
                ended(agent.read_media(request).await?).await
            }
            "StartSession" => {
                let session = Some(session_of(user, id, &["mic"]));
                agent.start_session(proto::StartSessionRequest { session, options: None }).await.map(drop)
            }
            "StopSession" => agent.stop_session(drain(id)).await.map(drop),
            "Drain" => agent.drain(proto::DrainRequest {}).await.map(drop),
            "Undrain" => agent.undrain(proto::UndrainRequest {}).await.map(drop),
            "Handover" => agent.handover(proto::HandoverRequest {}).await.map(drop),
            other => unreachable!("{other} is made above"),
        }
    }

    async fn reflect(&self) -> Result<(), Status> {
        let asked = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = tokio_stream::once(asked);
        let answer = ServerReflectionClient::new(self.channel()).server_reflection_info(requests).await?;
        let first: Option<ServerReflectionResponse> = answer.into_inner().message().await?;
        assert!(first.is_some(), "it tells something");
        Ok(())
    }
}

/// Reads a stream to its end.
async fn ended<M>(answer: tonic::Response<Streaming<M>>) -> Result<(), Status> {
    let mut stream = answer.into_inner();
    while let Some(message) = stream.next().await {
        message?;
    }
    Ok(())
}

fn list() -> proto::ListSessionsRequest {
    proto::ListSessionsRequest { states: Vec::new(), since: 0, page_size: 100 }
}

fn code(made: Result<(), Status>) -> Code {
    made.err().map_or(Code::Ok, |status| status.code())
}

/// An agent with a finished session of the users u1 and u2 each.
struct Scene {
    agent: Agent,
    door: Door,
    calls: Calls,
}

impl Scene {
    async fn set() -> Self {
        let devices = [camera("cam"), microphone("mic")];
        let agent = Agent::serve(&Site::new("http.calls_max = 100000", &devices)).await;
        for (user, id) in [("u1", "mine"), ("u2", "theirs")] {
            agent.start(session_of(user, id, &["mic"])).await.expect("it starts");
            agent.stop(id).await.expect("it stops");
        }
        let door = Door::of(&agent).await;
        let calls = Calls::open(&door).await;
        Self { agent, door, calls }
    }

    fn file(&self) -> PathBuf {
        self.agent.site.dir().join("state/tokens.json")
    }

    fn add(&self, name: &str, role: Role, user: Option<&str>, expires: Option<&str>) -> String {
        let expires = expires.map(|at| at.parse().expect("a time"));
        let mut file = TokenFile::lock(&self.file()).expect("the file");
        file.add(name, role, user.map(str::to_owned), expires).expect("it is added")
    }

    async fn known(&self, token: &str) {
        eventually("the token is read", || self.door.with(token).get("x").code == 404).await;
    }

    async fn refused(&self, token: &str) {
        eventually("the token is refused", || self.door.with(token).get("x").code == 401).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_nothing_is_let_in() {
    let scene = Scene::set().await;
    let revoked = scene.add("revoked", Role::Operator, None, None);
    let expired = scene.add("expired", Role::Operator, None, Some("2020-01-01T00:00:00Z"));
    scene.known(&revoked).await;
    assert_eq!(code(scene.calls.with(&revoked).make("GetAgent", "", "").await), Code::Ok);
    TokenFile::lock(&scene.file()).and_then(|mut file| file.revoke("revoked")).expect("it is revoked");
    scene.refused(&revoked).await;
    let wrong = "0123456789abcdef".repeat(4);
    let bearers = [None, Some(wrong.as_str()), Some(&expired), Some(&revoked), Some("")];
    for bearer in bearers {
        let calls = bearer.map_or_else(|| scene.calls.clone(), |token| scene.calls.with(token));
        for (name, _) in GRPC {
            let refused = calls.make(name, "mine", "u1").await.expect_err("it is refused");
            assert_eq!(refused.code(), Code::Unauthenticated, "{name}");
            assert_eq!(refusal(&refused).1, "UNAUTHENTICATED", "{name}");
        }
        let header = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = header.iter().map(|value| ("Authorization", value.as_str())).collect();
        let made = |method, path| call(scene.door.http, method, path, &headers, "").code;
        assert_eq!(made("GET", "/v1/sessions/mine"), 401);
        assert_eq!(made("POST", "/v1/sessions/mine/stop"), 401);
        assert_eq!((made("GET", "/healthz"), made("GET", "/readyz")), (200, 200));
    }
    let told = scene.calls.with(&expired).make("GetAgent", "", "").await.expect_err("it is refused");
    assert!(told.message().contains("expired"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_for_its_least_role_and_for_the_sessions_of_its_user() {
    let scene = Scene::set().await;
    let roles = [Role::Viewer, Role::Reader, Role::Operator];
    let mut tokens = Vec::new();
    for role in roles {
        for user in [None, Some("u1"), Some("u3")] {
            let name = format!("{role}-{}", user.unwrap_or("all"));
            tokens.push((role, user, scene.add(&name, role, user, None)));
        }
    }
    scene.known(&tokens[tokens.len() - 1].2).await;
    let operator = scene.calls.with(&scene.door.token);
    for (role, user, token) in tokens {
        let calls = scene.calls.with(&token);
        for (name, least) in GRPC {
            let for_all = OF_ALL.contains(&name);
            let wanted = match (role >= least && !(for_all && user.is_some()), user, name) {
                (false, _, _) | (true, Some("u3"), "StartSession") => Code::PermissionDenied,
                (true, Some("u3"), name) if OF_ONE.contains(&name) => Code::NotFound,
                // Both are finished, so that nothing changes.
                (true, _, "StartSession") => Code::AlreadyExists,
                (true, _, _) => Code::Ok,
            };
            let made = calls.make(name, "mine", "u1").await;
            assert_eq!(code(made.clone()), wanted, "{role} of {user:?}: {name}: {made:?}");
            if for_all {
                operator.make("Undrain", "", "").await.expect("all is as it was");
            }
        }
        let door = scene.door.with(&token);
        let seen = if user == Some("u3") { 404 } else { 200 };
        assert_eq!(door.get("mine").code, seen, "{role} of {user:?}");
        let stopped = if role == Role::Operator && user != Some("u3") { 400 } else { 404 };
        assert_eq!(door.stop("mine").code, stopped, "{role} of {user:?}");
        let theirs = if user.is_none() { 200 } else { 404 };
        assert_eq!(door.get("theirs").code, theirs, "{role} of {user:?}");
    }
}

#[test]
fn the_table_has_every_call_that_the_proto_has() {
    let descriptors =
        prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let calls: BTreeSet<String> =
        services.flat_map(|service| &service.method).map(|it| it.name().to_owned()).collect();
    let known = GRPC.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name != "ServerReflectionInfo");
    assert_eq!(calls, known.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_to_a_user_hears_of_nobody_else() {
    let scene = Scene::set().await;
    let token = scene.add("one", Role::Operator, Some("u1"), None);
    scene.known(&token).await;
    let held = scene.calls.with(&token);
    let mut calls = held.agent();
    let listed = calls.list_sessions(list()).await.expect("it is listed").into_inner().sessions;
    let ids: Vec<String> = listed.into_iter().filter_map(|it| it.session).map(|it| it.id).collect();
    assert_eq!(ids, ["mine"]);
    let request = proto::WatchAgentRequest { since: 0 };
    let mut events = calls.watch_agent(request).await.expect("it is watched").into_inner();
    scene.agent.start(session_of("u2", "theirs-2", &["cam"])).await.expect("it starts");
    let devices =
        calls.list_devices(proto::ListDevicesRequest {}).await.expect("they are listed").into_inner();
    let holders: Vec<String> = devices.devices.into_iter().map(|device| device.held_by).collect();
    assert_eq!(holders.iter().filter(|holder| *holder == "(another user)").count(), 1, "{holders:?}");
    assert!(!holders.contains(&"theirs-2".to_owned()));
    let session = Some(session_of("u1", "mine-2", &["cam"]));
    let busy = calls.start_session(proto::StartSessionRequest { session, options: None }).await;
    let busy = busy.expect_err("the camera is held");
    let (code, reason, about) = refusal(&busy);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "DEVICE_BUSY"));
    assert_eq!(about.get("holder").map(String::as_str), Some("another user"));
    assert!(!busy.message().contains("theirs-2"), "{busy:?}");
    scene.agent.stop("theirs-2").await.expect("it stops");
    let session = Some(session_of("u1", "mine-3", &["mic"]));
    calls.start_session(proto::StartSessionRequest { session, options: None }).await.expect("it starts");
    loop {
        let event = timeout(PATIENCE, events.message()).await.expect("it comes").expect("it goes on");
        let session = event.and_then(|event| event.session).expect("a session");
        assert_eq!(session.user, "u1", "{}", session.id);
        if session.id == "mine-3" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_another_users_session_leaves_no_trace() {
    let scene = Scene::set().await;
    let token = scene.add("one", Role::Operator, Some("u1"), None);
    scene.known(&token).await;
    let door = scene.door.with(&token);
    scene.agent.start(session_of("u2", "live", &["cam"])).await.expect("it starts");
    assert_eq!((door.stop("live").code, door.get("live").code), (404, 404));
    assert_eq!(scene.door.get("live").json()["state"], "active");
    // A stop that overtakes a start counts for the caller's own sessions alone.
    assert_eq!((door.stop("later").code, door.stop("own").code), (404, 404));
    scene.agent.start(session_of("u2", "later", &["mic"])).await.expect("it starts");
    let late = scene.agent.start(session_of("u1", "own", &["mic"])).await.expect_err("it was stopped");
    assert_eq!(late.code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_added_listed_and_revoked_by_command() {
    let scene = Scene::set().await;
    let config = scene.agent.site.dir().join("flow.toml");
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
        let ended = command.arg("--config").arg(&config).args(words).output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (ended.status.code(), text(ended.stdout), text(ended.stderr))
    };
    let (code, token, _) =
        run(&["token", "add", "api", "--role", "operator", "--user", "u1", "--expires", "30d"]);
    let token = token.trim_end();
    assert_eq!((code, token.len()), (Some(0), 64));
    scene.known(token).await;
    assert_eq!(
        (scene.door.with(token).get("mine").code, scene.door.with(token).get("theirs").code),
        (200, 404)
    );
    let (_, listed, _) = run(&["token", "list"]);
    assert!(listed.contains("api") && listed.contains("operator") && listed.contains("u1"), "{listed}");
    let (_, listed, _) = run(&["token", "list", "--json"]);
    assert!(!listed.contains(token) && listed.contains("\"isExpired\": false"), "{listed}");
    let log = scene.agent.site.log();
    assert!(!log.contains(token) && !log.contains(&scene.door.token), "no token is in the log");
    assert_eq!(run(&["token", "add", "api", "--role", "viewer"]).0, Some(4), "the name is taken");
    for wrong in [["a b", "viewer"], ["operator", "viewer"], ["x", "admin"]] {
        assert_eq!(run(&["token", "add", wrong[0], "--role", wrong[1]]).0, Some(2), "{wrong:?}");
    }
    assert_eq!(
        run(&["token", "add", "x", "--role", "viewer", "--expires", "2020-01-01T00:00:00Z"]).0,
        Some(2)
    );
    assert_eq!(run(&["token", "revoke", "api"]).0, Some(0));
    scene.refused(token).await;
    assert_eq!(run(&["token", "revoke", "api"]).0, Some(3));
}
