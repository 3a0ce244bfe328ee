//! Floods of everything that an HTTP/2 server takes, each told by how much of it was sent.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::raw::{self, END_HEADERS, Kind, frame, greeted};

/// Who opens connections: a kernel whose queue is full lets each of them wait for a second.
const OPENERS: usize = 20;
const CONNECTIONS_EACH: usize = 500;
/// Connections that reset their calls, and the calls of each.
const RESETTING: usize = 100;
const RESETS_EACH: u32 = 100;
/// Connections whose headers never end, and the frames of each, of 16 KB.
const ENDLESS: usize = 20;
const FRAMES_EACH: usize = 100;

/// Opens connections and leaves them open, each with the beginning of what it has to say, and no more.
pub fn connections(to: SocketAddr) -> JoinHandle<usize> {
    let open = move || -> Vec<TcpStream> {
        let slow = || TcpStream::connect(to).and_then(|mut it| it.write_all(b"PRI * HT").map(|()| it));
        (0..CONNECTIONS_EACH).filter_map(|_| slow().ok()).collect()
    };
    tokio::spawn(async move {
        let openers: JoinSet<_> = (0..OPENERS).map(|_| spawn_blocking(open)).collect();
        openers.join_all().await.into_iter().flatten().flatten().count()
    })
}

/// Begins calls and resets them at once.
pub fn resets(to: SocketAddr, token: &str) -> JoinHandle<usize> {
    let headers = raw::call("/grpc.health.v1.Health/Check", token);
    let pair = move |at: u32| {
        let stream = 2 * at + 1;
        [frame(Kind::Headers, END_HEADERS, stream, &headers), frame(Kind::Reset, 0, stream, &[0; 4])].concat()
    };
    spawn_blocking(move || {
        let connections = (0..RESETTING).filter_map(|_| greeted(to).ok());
        // The agent hangs up on who does this too often.
        connections
            .map(|mut it| (0..RESETS_EACH).take_while(|at| it.write_all(&pair(*at)).is_ok()).count())
            .sum()
    })
}

/// Begins headers that never end.
pub fn headers(to: SocketAddr) -> JoinHandle<usize> {
    spawn_blocking(move || {
        let piece = raw::header("x", &"y".repeat(16_000));
        let kind = |at| if at == 0 { Kind::Headers } else { Kind::Continuation };
        let send = |it: &mut TcpStream, at| it.write_all(&frame(kind(at), 0, 1, &piece)).is_ok();
        let connections = (0..ENDLESS).filter_map(|_| greeted(to).ok());
        connections.map(|mut it| (0..FRAMES_EACH).take_while(|at| send(&mut it, *at)).count()).sum()
    })
}
