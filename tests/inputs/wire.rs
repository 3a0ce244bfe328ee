//! What comes over the sockets below the level of sessions: bytes that are no message, messages that
//! are too long, callers without the token, reflection and health.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use shutterd::api::proto::{GetAgentRequest, StartSessionRequest};
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::agent::{patient, refusal, session};
use crate::codec::Raw;
use crate::host::Host;
use crate::site::{Site, camera};

const SERVICE: &str = "/shutterd.v1.CaptureAgent/";
const CALLS: [&str; 9] = [
    "StartSession",
    "StopSession",
    "GetSession",
    "ListSessions",
    "WatchSession",
    "WatchAgent",
    "ListDevices",
    "GetAgent",
    "ReadMedia",
];
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

fn site() -> Arc<Site> {
    Site::new("", &[camera("cam")])
}

/// Calls `path` with these bytes, and with this in the header `authorization`.
async fn call(
    channel: &Channel,
    path: &str,
    bytes: Vec<u8>,
    authorization: Option<&str>,
) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the agent is there");
    let mut request = Request::new(bytes);
    if let Some(text) = authorization {
        request.metadata_mut().insert("authorization", text.parse().expect("a header"));
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let answer = patient("a raw call", client.unary(request, path, Raw)).await;
    answer.map(tonic::Response::into_inner)
}

/// The code with which `path` begins to answer an empty message.
async fn begun(channel: &Channel, path: &str, authorization: &str) -> Code {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the agent is there");
    let mut request = Request::new(Vec::new());
    request.metadata_mut().insert("authorization", authorization.parse().expect("a header"));
    let path = PathAndQuery::try_from(path).expect("a path");
    match patient("a raw call", client.server_streaming(request, path, Raw)).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest { service: String::new() };
    let answer = patient("health", HealthClient::new(channel.clone()).check(request)).await;
    answer.expect("everybody may ask for health").into_inner().status()
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_and_the_agent_serves_on() {
    let host = Host::serve(&site()).await;
    let broken: [(&str, &[u8]); 6] = [
        ("garbage", &[0xff; 64]),
        ("a length beyond the end", &[0x0a, 0x7f, 0x01]),
        ("a length beyond measure", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a tag of no kind", &[0x0f]),
        ("a group that never ends", &[0x0b, 0x0b, 0x0b]),
        ("text that is no UTF-8", &[0x0a, 0x04, 0x0a, 0x02, 0xc3, 0x28]),
    ];
    for (what, bytes) in broken {
        for channel in [&host.unix, &host.tcp] {
            let token = format!("Bearer {}", host.token());
            let status = call(channel, &format!("{SERVICE}StartSession"), bytes.to_vec(), Some(&token)).await;
            let status = status.expect_err(what);
            let (code, reason, _) = refusal(&status);
            assert_eq!(
                (code, reason.as_str()),
                (Code::InvalidArgument, "INVALID_MESSAGE"),
                "{what}: {status}"
            );
            assert!(status.message().contains("decode"), "{what}: {status}");
        }
        host.assert_nothing_is_left(what).await;
    }
    for path in [format!("{SERVICE}StartRecording"), "/shutterd.v2.CaptureAgent/StartSession".to_owned()] {
        let status = call(&host.unix, &path, Vec::new(), None).await.expect_err("there is no such call");
        let (code, reason, _) = refusal(&status);
        assert_eq!((code, reason.as_str()), (Code::Unimplemented, "UNIMPLEMENTED"), "{path}: {status:?}");
        assert!(!status.message().is_empty(), "{path}");
    }
    host.end().await;
}

#[tokio::test]
async fn what_is_no_http2_ends_its_own_connection_only() {
    let host = Host::serve(&site()).await;
    let noise: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n",
        &[0; 4096],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ];
    for bytes in noise {
        let (address, socket) = (host.address, host.site.dir().join("run/api.sock"));
        tokio::task::spawn_blocking(move || {
            let tcp = TcpStream::connect(address).expect("the agent listens");
            tcp.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
            ended(tcp, bytes);
            let unix = UnixStream::connect(socket).expect("the agent listens");
            unix.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
            ended(unix, bytes);
        })
        .await
        .expect("the agent ends such a connection");
    }
    assert_eq!(health(&host.tcp).await, ServingStatus::Serving);
    host.end().await;
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let host = Host::serve(&Site::new("api.connections_max = 2", &[camera("cam")])).await;
    let (address, socket) = (host.address, host.site.dir().join("run/api.sock"));
    // Of two places the test's own connection has one.
    let tcp: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("the agent listens")).collect();
    let unix: Vec<_> = (0..3).map(|_| UnixStream::connect(&socket).expect("the agent listens")).collect();
    for address in [format!("http://{address}"), format!("unix:{}", socket.display())] {
        let endpoint = Endpoint::from_shared(address).expect("an address");
        let channel = patient("a connection", endpoint.connect()).await.expect("the agent listens");
        assert_eq!(health(&channel).await, ServingStatus::Serving);
    }
    drop((tcp, unix));
    host.end().await;
}

/// Sends the bytes and reads until the other side has had enough.
fn ended(mut stream: impl Read + Write, bytes: &[u8]) {
    // The other side may have had enough before all of it was sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => assert!(answer.len() < 1024, "{answer:?}"),
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_before_it_is_read() {
    let host = Host::serve(&Site::new("api.message_bytes_max = 200000", &[camera("cam")])).await;
    let mut wanted = session("s1", &["cam"]);
    wanted.extra_json = format!("{{\"x\":\"{}\"}}", "y".repeat(200_000));
    let request = StartSessionRequest { session: Some(wanted), options: None };
    let too_long = (Code::ResourceExhausted, "MESSAGE_TOO_LONG".to_owned());
    let status = host.calls().start_session(request).await.expect_err("the message is too long");
    assert_eq!((refusal(&status).0, refusal(&status).1), too_long, "{status}");
    assert!(status.message().contains("200000"), "{status}");
    // What is small when it comes and large when it is unpacked is too long as well.
    let mut wanted = session("s1", &["cam"]);
    wanted.extra_json = format!("{{\"x\":\"{}\"}}", "y".repeat(2_000_000));
    let request = StartSessionRequest { session: Some(wanted), options: None };
    let mut calls = host.calls().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let status = calls.start_session(request).await.expect_err("the message is too long");
    assert_eq!((refusal(&status).0, refusal(&status).1), too_long, "{status}");
    host.assert_nothing_is_left("long messages").await;
    let empty = StartSessionRequest::default();
    let status = host.calls().start_session(empty).await.expect_err("a start needs a session");
    let (code, reason, about) = refusal(&status);
    assert_eq!(
        (code, reason.as_str(), about["field"].as_str()),
        (Code::InvalidArgument, "INVALID_REQUEST", "session")
    );
    host.end().await;
}

#[tokio::test]
async fn over_tcp_nothing_is_answered_without_the_token() {
    let host = Host::serve(&site()).await;
    let token = host.token();
    let other: String = token.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(token.clone()),
        Some(format!("Basic {token}")),
        Some(format!("Bearer {other}")),
        Some(format!("Bearer {}", &token[..63])),
        Some(format!("Bearer {token}0")),
        Some(format!("Bearer {}", token.to_uppercase())).filter(|_| token.to_uppercase() != token),
        Some(format!("Bearer {token} {token}")),
    ];
    let calls = CALLS.iter().map(|name| format!("{SERVICE}{name}")).chain(REFLECTION.map(str::to_owned));
    for path in calls.collect::<Vec<_>>() {
        for header in &wrong {
            let status = call(&host.tcp, &path, Vec::new(), header.as_deref()).await;
            let status = status.expect_err("nobody is let in like this");
            let (code, reason, _) = refusal(&status);
            assert_eq!(
                (code, reason.as_str()),
                (Code::Unauthenticated, "UNAUTHENTICATED"),
                "{path} {header:?}"
            );
            assert!(!status.message().contains(&token), "the token is not told");
        }
        let code = begun(&host.tcp, &path, &format!("Bearer {token}")).await;
        assert!(matches!(code, Code::Ok | Code::InvalidArgument), "{path} with the token: {code:?}");
    }
    host.assert_nothing_is_left("calls without a token").await;
    assert_eq!(host.site.log().matches(&token).count(), 0, "the token is in no log");
    host.end().await;
}

#[tokio::test]
async fn health_is_open_to_everybody_and_says_when_the_agent_goes() {
    let host = Host::serve(&site()).await;
    let mut client = HealthClient::new(host.tcp.clone());
    for service in ["", "shutterd.v1.CaptureAgent"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.expect("a known service").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest { service: "shutterd.v2.CaptureAgent".to_owned() };
    let status = client.check(request).await.expect_err("no such service");
    assert_eq!((refusal(&status).0, refusal(&status).1.as_str()), (Code::NotFound, "NOT_FOUND"));
    let request = HealthCheckRequest { service: "shutterd.v1.CaptureAgent".to_owned() };
    let mut watched = client.watch(request).await.expect("health can be watched").into_inner();
    let next = patient("the present state", watched.message()).await;
    assert_eq!(next.expect("a state").expect("a state").status(), ServingStatus::Serving);
    let ((), next) = tokio::join!(host.end(), patient("the next state", watched.message()));
    assert_eq!(next.expect("a state").expect("a state").status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_lists_the_services_and_tells_their_messages() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

    let host = Host::serve(&site()).await;
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("shutterd.v1.CaptureAgent".to_owned())),
        ask(MessageRequest::FileContainingSymbol("shutterd.v1.Receipt".to_owned())),
        ask(MessageRequest::FileContainingSymbol("shutterd.v1.Nothing".to_owned())),
    ];
    let mut client = ServerReflectionClient::new(host.unix.clone());
    let answers = client.server_reflection_info(tokio_stream::iter(asked)).await.expect("reflection answers");
    let answers: Vec<_> = patient("reflection", answers.into_inner().collect::<Vec<_>>()).await;
    let mut answers = answers.into_iter().map(|answer| answer.map(|answer| answer.message_response));
    let Some(Ok(Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })))) =
        answers.next()
    else {
        panic!("a list of services");
    };
    let names: Vec<String> = service.into_iter().map(|service| service.name).collect();
    for name in ["shutterd.v1.CaptureAgent", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    for _ in 0..2 {
        let Some(Ok(Some(MessageResponse::FileDescriptorResponse(files)))) = answers.next() else {
            panic!("a file's descriptor");
        };
        let described =
            |name: &str| files.file_descriptor_proto.iter().any(|file| contains(file, name.as_bytes()));
        assert!(described("CaptureAgent") && described("StopSessionRequest"));
    }
    let unknown = match answers.next() {
        Some(Err(status)) => status.code() == Code::NotFound,
        Some(Ok(Some(MessageResponse::ErrorResponse(error)))) => error.error_code == Code::NotFound as i32,
        _ => false,
    };
    assert!(unknown, "what is not there is not found");
    let answer = host.calls().get_agent(GetAgentRequest {}).await.expect("the agent serves on").into_inner();
    assert_eq!(answer.state, "serving");
    host.end().await;
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
