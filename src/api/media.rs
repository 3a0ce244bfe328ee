//! Reading media: the bytes of a session's files as they become durable.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::proto::{ReadMediaRequest, ReadMediaResponse};
use super::service::Service;
use super::status::status;
use crate::session::SessionId;
use crate::supervisor::{Refusal, RefusalKind, SessionView};

/// Bytes of one message.
const PIECE_BYTES: usize = 64 * 1024;
/// Messages that a slow client may have waiting.
const PIECES_MAX: usize = 4;
/// A reader who takes nothing for so long is ended: nobody holds a removal up for ever.
const TAKEN_WITHIN: Duration = Duration::from_secs(600);
/// The longest time without a look at what is durable by now.
const LOOK: Duration = Duration::from_millis(500);

type Pieces = mpsc::Sender<Result<ReadMediaResponse, Status>>;

/// A file and how far it can be read.
struct Readable {
    name: String,
    durable_bytes: u64,
    complete: bool,
}

/// Streams a file, and with `follow` those that come after it.
pub(super) async fn read(
    service: &Service,
    id: SessionId,
    reader: String,
    request: ReadMediaRequest,
) -> Result<ReceiverStream<Result<ReadMediaResponse, Status>>, Status> {
    let (view, reading) = service.handle.read(id.clone()).await.map_err(status)?;
    let files = readable(service, &id, &view).await?;
    let at = if request.file.is_empty() {
        0
    } else {
        files.iter().position(|it| it.name == request.file).unwrap_or(usize::MAX)
    };
    let Some(file) = files.get(at) else {
        let message = format!("session {id} has no media file {:?}", request.file);
        let refusal = Refusal::new(RefusalKind::NotFound, "MEDIA_NOT_FOUND", message);
        return Err(status(refusal.about("session", &id)));
    };
    if request.offset > file.durable_bytes {
        let message = format!(
            "{} has {} durable bytes, and {} is beyond them",
            file.name, file.durable_bytes, request.offset
        );
        return Err(status(
            Refusal::new(RefusalKind::OutOfRange, "OFFSET_BEYOND_END", message).about("session", &id),
        ));
    }
    let (pieces, stream) = mpsc::channel(PIECES_MAX);
    let service = service.clone();
    let tasks = service.tasks.clone();
    tasks.spawn(async move {
        let mut bytes = 0;
        let streamed = stream_files(&service, &id, &request, at, &pieces, &mut bytes).await;
        // Until here the media is not removed. Who takes nothing doesn't take the error either.
        drop(reading);
        let error = streamed.as_ref().err().map(Status::message);
        let left = pieces.is_closed();
        tracing::info!(session = %id, caller = reader, bytes, error, left, "media read");
        if let Err(error) = streamed {
            // The client sees why, or has gone away.
            let _ = pieces.send(Err(error)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn stream_files(
    service: &Service,
    id: &SessionId,
    request: &ReadMediaRequest,
    mut at: usize,
    pieces: &Pieces,
    bytes: &mut u64,
) -> Result<(), Status> {
    let mut changes = service.handle.changes();
    let mut offset = request.offset;
    loop {
        let view = service.handle.get(id.clone()).await.map_err(status)?;
        let files = readable(service, id, &view).await?;
        let Some(file) = files.get(at) else { return Ok(()) };
        while offset < file.durable_bytes {
            let count = usize::try_from(file.durable_bytes - offset).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let content = read_piece(service, id, &file.name, offset, count).await?;
            if content.is_empty() {
                break;
            }
            let length = content.len() as u64;
            let piece = ReadMediaResponse { file: file.name.clone(), offset, content };
            match hand_over(pieces, piece, TAKEN_WITHIN).await {
                Ok(()) => {}
                Err(NotTaken::Gone) => return Ok(()),
                Err(NotTaken::Waiting) => return Err(stalled(id)),
            }
            offset += length;
            *bytes += length;
        }
        if file.complete && request.follow && at + 1 < files.len() {
            (at, offset) = (at + 1, 0);
            continue;
        }
        if !request.follow || view.finished {
            return Ok(());
        }
        tokio::select! {
            change = changes.recv() => if matches!(change, Err(RecvError::Closed)) { return Ok(()) },
            () = tokio::time::sleep(LOOK) => {}
            () = pieces.closed() => return Ok(()),
            () = service.ending.cancelled() => return Ok(()),
        }
    }
}

/// Why a reader has not taken a piece.
#[derive(Debug, PartialEq, Eq)]
enum NotTaken {
    Gone,
    Waiting,
}

async fn hand_over(pieces: &Pieces, piece: ReadMediaResponse, within: Duration) -> Result<(), NotTaken> {
    match pieces.send_timeout(Ok(piece), within).await {
        Ok(()) => Ok(()),
        Err(SendTimeoutError::Closed(_)) => Err(NotTaken::Gone),
        Err(SendTimeoutError::Timeout(_)) => Err(NotTaken::Waiting),
    }
}

/// The session's files; the last one of a running session grows.
async fn readable(service: &Service, id: &SessionId, view: &SessionView) -> Result<Vec<Readable>, Status> {
    let (library, session) = (service.library.clone(), id.clone());
    let names = tokio::task::spawn_blocking(move || library.files(&session)).await;
    let names = names.map_err(|_| unreadable(id))?.map_err(|_| unreadable(id))?;
    let closed = |name: &str| {
        view.account
            .files
            .iter()
            .find(|file| file.path.rsplit('/').next() == Some(name))
            .map(|file| file.bytes)
    };
    let closed_bytes: u64 = view.account.files.iter().map(|file| file.bytes).sum();
    Ok(names
        .into_iter()
        .rev()
        .enumerate()
        .map(|(from_last, name)| {
            let bytes = closed(&name);
            // Between two files the older one is still being made final: it is told once it is.
            let growing = if from_last == 0 { view.durable_bytes.saturating_sub(closed_bytes) } else { 0 };
            Readable { durable_bytes: bytes.unwrap_or(growing), complete: bytes.is_some(), name }
        })
        .rev()
        .collect())
}

async fn read_piece(
    service: &Service,
    id: &SessionId,
    name: &str,
    offset: u64,
    count: usize,
) -> Result<Vec<u8>, Status> {
    let (library, session, name) = (service.library.clone(), id.clone(), name.to_owned());
    let read = tokio::task::spawn_blocking(move || library.read(&session, &name, offset, count)).await;
    read.map_err(|_| unreadable(id))?.map_err(|_| unreadable(id))
}

fn stalled(id: &SessionId) -> Status {
    let minutes = TAKEN_WITHIN.as_secs() / 60;
    let message = format!("nothing was taken for {minutes} min: read on from the offset that was reached");
    status(Refusal::new(RefusalKind::Aborted, "READER_STALLED", message).about("session", id))
}

fn unreadable(id: &SessionId) -> Status {
    let message = format!("the media of session {id} can't be read: check the disk of the media directory");
    status(Refusal::new(RefusalKind::Internal, "MEDIA_UNREADABLE", message).about("session", id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_who_takes_nothing_is_not_waited_for_for_ever() {
        let (pieces, mut taken) = mpsc::channel(1);
        let within = Duration::from_millis(1);
        let piece = |offset| ReadMediaResponse { file: "s-0001.mkv".to_owned(), offset, content: vec![1] };
        assert_eq!(hand_over(&pieces, piece(0), within).await, Ok(()));
        assert_eq!(hand_over(&pieces, piece(1), within).await, Err(NotTaken::Waiting));
        let first = taken.recv().await.expect("it was handed over").expect("a piece");
        assert_eq!(first.offset, 0);
        assert_eq!(hand_over(&pieces, piece(1), within).await, Ok(()));
        drop(taken);
        assert_eq!(hand_over(&pieces, piece(2), within).await, Err(NotTaken::Gone));
    }
}
