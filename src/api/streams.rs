//! Watching: the present state first, then each change. A watcher that lags is given the present
//! state anew; it misses changes in between, never the last one.

use std::collections::HashMap;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::proto::SessionEvent;
use super::service::{Service, event_of};
use super::status::status;
use crate::session::SessionId;

/// Events that a slow client may have waiting.
const EVENTS_MAX: usize = 16;
/// Sessions that are asked of the journal at once.
const PAGE: usize = 100;

type Events = mpsc::Sender<Result<SessionEvent, Status>>;

/// The changes of one session, until it is finished.
pub(super) async fn watch_session(
    service: &Service,
    id: SessionId,
) -> Result<ReceiverStream<Result<SessionEvent, Status>>, Status> {
    let mut changes = service.handle.changes();
    let mut view = service.handle.get(id.clone()).await.map_err(status)?;
    let (events, stream) = mpsc::channel(EVENTS_MAX);
    let (handle, ending) = (service.handle.clone(), service.ending.clone());
    service.tasks.spawn(async move {
        loop {
            // The id may be another's by now, if the start had failed.
            if !handle.sees(&view) || events.send(Ok(event_of(&view))).await.is_err() || view.finished {
                return;
            }
            // Changes first: at a shutdown the last of them is there before the end is.
            view = tokio::select! {
                biased;
                next = next_of(&mut changes, &id) => match next {
                    Ok(view) => view,
                    Err(RecvError::Closed) => return,
                    Err(RecvError::Lagged(_)) => match handle.get(id.clone()).await {
                        Ok(view) => view,
                        Err(_) => return,
                    },
                },
                () = events.closed() => return,
                () = ending.cancelled() => return,
            };
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn next_of(
    changes: &mut tokio::sync::broadcast::Receiver<std::sync::Arc<crate::supervisor::SessionView>>,
    id: &SessionId,
) -> Result<std::sync::Arc<crate::supervisor::SessionView>, RecvError> {
    loop {
        let view = changes.recv().await?;
        if view.id == *id {
            return Ok(view);
        }
    }
}

/// Every session that changed after `since`, then every change.
pub(super) fn watch_agent(service: &Service, since: u64) -> ReceiverStream<Result<SessionEvent, Status>> {
    let mut changes = service.handle.changes();
    let (events, stream) = mpsc::channel(EVENTS_MAX);
    let (handle, ending) = (service.handle.clone(), service.ending.clone());
    service.tasks.spawn(async move {
        let mut seen = since;
        let mut sent: HashMap<SessionId, u64> = HashMap::new();
        loop {
            if !catch_up(&handle, &events, &mut seen).await {
                return;
            }
            loop {
                let next = tokio::select! {
                    biased;
                    next = changes.recv() => next,
                    () = events.closed() => return,
                    () = ending.cancelled() => return,
                };
                match next {
                    Ok(view) if !handle.sees(&view) => {}
                    Ok(view) => {
                        // What the journal told already comes again here.
                        let known = sent.insert(view.id.clone(), view.change).unwrap_or(0);
                        if view.change < known || (view.finished && view.change <= seen && known == 0) {
                            continue;
                        }
                        if view.finished {
                            sent.remove(&view.id);
                        }
                        seen = seen.max(view.cursor);
                        let event = SessionEvent { change: seen, ..event_of(&view) };
                        if events.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Closed) => return,
                    Err(RecvError::Lagged(_)) => break,
                }
            }
        }
    });
    ReceiverStream::new(stream)
}

/// Sends what changed after `seen`, as the journal has it; false when nobody listens any more.
async fn catch_up(handle: &crate::supervisor::Handle, events: &Events, seen: &mut u64) -> bool {
    loop {
        let views = match handle.list(*seen, PAGE).await {
            Ok(views) => views,
            Err(refusal) => {
                // The client sees why, or has gone away.
                let _ = events.send(Err(status(refusal))).await;
                return false;
            }
        };
        for view in &views {
            *seen = (*seen).max(view.change);
            if handle.sees(view) && events.send(Ok(event_of(view))).await.is_err() {
                return false;
            }
        }
        if views.len() < PAGE {
            return true;
        }
    }
}
