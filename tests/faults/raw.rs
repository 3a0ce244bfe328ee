//! A client that writes HTTP/2 by hand (RFC 9113), so that it can do what no library does; and one of gRPC
//! that sends any bytes for a message.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::agent::{Agent, patient};
use crate::codec::Raw;

/// What a client says first, with empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame's type (RFC 9113, section 6).
#[derive(Clone, Copy)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Continuation = 9,
}

/// A frame of up to 16 KiB.
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind as u8, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One header, neither compressed nor remembered (RFC 7541, section 6.2.2).
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A length with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(to: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return to.push(value as u8);
    }
    to.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        to.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    to.push(rest as u8);
}

/// The headers of a call.
pub fn call(path: &str, token: &str) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &bearer),
    ];
    headers.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// A message with its prefix of five bytes.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short message").to_be_bytes();
    [&[0][..], &length, bytes].concat()
}

/// Where an agent listens for TCP, and the operator's token.
pub fn door(agent: &Agent) -> (SocketAddr, String) {
    let log = agent.site.log();
    let line = log.lines().rev().find(|line| line.contains(" ready ")).expect("it is ready").to_owned();
    let text = line.split(" tcp=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an address");
    let token = std::fs::read_to_string(agent.site.dir().join("state/operator.token")).expect("a token");
    (text.parse().expect("an address"), token.trim().to_owned())
}

/// A connection that has said what it has to say first, and was greeted.
pub fn greeted(to: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(crate::agent::PATIENCE))?;
    stream.set_write_timeout(Some(crate::agent::PATIENCE))?;
    stream.write_all(PREFACE)?;
    stream.read_exact(&mut [0; 9])?;
    Ok(stream)
}

/// The refusal of `bytes` as the message of a start.
pub async fn refused(channel: &Channel, bytes: Vec<u8>, compression: Option<CompressionEncoding>) -> Status {
    let mut client = Grpc::new(channel.clone());
    if let Some(encoding) = compression {
        client = client.send_compressed(encoding);
    }
    client.ready().await.expect("the agent is there");
    let path = PathAndQuery::from_static("/shutterd.v1.CaptureAgent/StartSession");
    let answer = patient("a raw call", client.unary(Request::new(bytes), path, Raw)).await;
    answer.expect_err("this is no session")
}
