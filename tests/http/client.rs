//! The least HTTP/1.1 client that can read an answer, and where the agent listens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::agent::{Agent, PATIENCE, eventually};

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str) -> u64 {
        let value = self.header(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is no number: {self:?}"))
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Where an agent takes HTTP, and a token for it.
#[derive(Clone, Debug)]
pub struct Door {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    pub token: String,
}

impl Door {
    /// The door of an agent, with the operator's token.
    pub async fn of(agent: &Agent) -> Self {
        let site = &agent.site;
        let ready = |log: &str| log.lines().rev().find(|line| line.contains(" ready ")).map(str::to_owned);
        let pid = agent.pid();
        eventually("the agent says where it listens", || ready(&site.log()).is_some()).await;
        let line = ready(&site.log()).expect("it was there");
        let address = |name: &str| {
            let begin =
                line.find(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{pid}: no {name}: {line}"));
            let text = &line[begin + name.len() + 3..];
            text.split('"').next().expect("a part").parse().expect("an address")
        };
        let token = std::fs::read_to_string(site.dir().join("state/operator.token")).expect("a token");
        Self { http: address("http"), tcp: address("tcp"), token: token.trim_end().to_owned() }
    }

    /// The same door with another token.
    pub fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub fn get(&self, id: &str) -> Answer {
        self.call("GET", &format!("/v1/sessions/{id}"), &[])
    }

    pub fn stop(&self, id: &str) -> Answer {
        self.call("POST", &format!("/v1/sessions/{id}/stop"), &[])
    }

    pub fn stop_with_key(&self, id: &str, key: &str) -> Answer {
        self.call("POST", &format!("/v1/sessions/{id}/stop"), &[("Idempotency-Key", key)])
    }

    /// A call with the token.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers: Vec<_> =
            [("Authorization", bearer.as_str())].into_iter().chain(headers.to_vec()).collect();
        call(self.http, method, path, &headers, "")
    }
}

/// A call with these headers alone.
pub fn call(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = connect(to);
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    // What an agent that refuses the call doesn't read, it needn't get.
    let _ = write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{lines}\r\n{body}");
    read(&mut stream)
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the agent listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream
}

/// Reads one answer. The length of its body is always told.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}; so far: {bytes:?}"));
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("a head is text");
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let mut answer = Answer { code, headers: lines.filter_map(header).collect(), body: String::new() };
    let length = answer.header("content-length").map_or(0, |_| answer.number("content-length"));
    let mut body = vec![0; usize::try_from(length).expect("a short body")];
    stream.read_exact(&mut body).expect("the body is as long as was told");
    answer.body = String::from_utf8(body).expect("a body is text");
    answer
}
