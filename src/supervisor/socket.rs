//! The daemon's end of the link: workers dial in, say who they are, and are passed on to the actor.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::command::Notice;
use crate::link::message::{FromWorker, Hello, ToWorker, from_worker};
use crate::link::{Decoder, FrameError, encode};
use crate::session::SessionId;

/// How long a worker may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages to a worker that may wait.
const MESSAGES_MAX: usize = 16;

/// Makes the link socket at `path`, in place of one that an earlier daemon left.
pub(super) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Takes workers on until the actor has ended.
pub(super) async fn serve(listener: UnixListener, notices: mpsc::Sender<Notice>) {
    let (tasks, number) = (TaskTracker::new(), AtomicU64::new(0));
    let own = rustix::process::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = notices.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: workers dial again, so wait for some to come free.
                tracing::warn!(%error, "no worker can dial in");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => {
                let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
                let number = number.fetch_add(1, Ordering::Relaxed) + 1;
                tasks.spawn(talk(stream, pid, number, notices.clone()));
            }
            _ => tracing::warn!("a process of another user has dialled the link; it is refused"),
        }
    }
}

async fn talk(mut stream: UnixStream, pid: u32, number: u64, notices: mpsc::Sender<Notice>) {
    let mut decoder = Decoder::default();
    let hello = tokio::time::timeout(HELLO_TIMEOUT, receive(&mut stream, &mut decoder)).await;
    let Ok(Ok(Some(FromWorker { body: Some(from_worker::Body::Hello(hello)) }))) = hello else {
        return tracing::warn!(pid, "a process has dialled the link and didn't say who it is");
    };
    let Ok(id) = hello.session_id.parse::<SessionId>() else {
        return tracing::warn!(pid, "a worker has no session");
    };
    let (to_worker, mut messages) = mpsc::channel(MESSAGES_MAX);
    if notices.send(dialled(hello, pid, number, to_worker)).await.is_err() {
        return;
    }
    loop {
        let step = tokio::select! {
            received = receive(&mut stream, &mut decoder) => match received {
                Ok(Some(FromWorker { body: Some(body) })) => {
                    notices.send(Notice::Said { id: id.clone(), connection: number, body }).await.is_ok()
                }
                Ok(Some(FromWorker { body: None })) => true,
                Ok(None) => false,
                Err(error) => {
                    tracing::warn!(session = %id, pid, %error, "a worker is not understood");
                    false
                }
            },
            message = messages.recv() => match message {
                Some(message) => stream.write_all(&encode(&message)).await.is_ok(),
                None => false,
            },
        };
        if !step {
            break;
        }
    }
    // What the worker said before it went is still to be heard.
    while let Ok(Some(FromWorker { body: Some(body) })) = receive(&mut stream, &mut decoder).await {
        if notices.send(Notice::Said { id: id.clone(), connection: number, body }).await.is_err() {
            return;
        }
    }
    // An actor that has ended needs no notice.
    let _ = notices.send(Notice::LinkLost { id, connection: number }).await;
    // A peer that has only ended its own side still gets its answer. The actor lets go of it by then.
    while let Some(message) = messages.recv().await {
        if stream.write_all(&encode(&message)).await.is_err() {
            return;
        }
    }
}

fn dialled(hello: Hello, pid: u32, connection: u64, to_worker: mpsc::Sender<ToWorker>) -> Notice {
    Notice::Dialled { hello, pid, connection, to_worker }
}

/// The next message; `None` at the end. Cancelling it loses nothing: what was read is in the decoder.
async fn receive(stream: &mut UnixStream, decoder: &mut Decoder) -> Result<Option<FromWorker>, FrameError> {
    let mut buffer = [0; 8192];
    loop {
        if let Some(message) = decoder.next_message::<FromWorker>()? {
            return Ok(Some(message));
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => decoder.push(&buffer[..count]),
        }
    }
}
