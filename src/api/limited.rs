//! A limit on connections: whoever comes beyond it waits or is closed, and whoever says nothing loses
//! its place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// How long the first byte of a connection may take; from then on HTTP/2's pings find who is gone.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that gives its place free when it is dropped.
pub(super) struct Limited<S> {
    io: S,
    /// Runs until the first byte has come.
    greeting: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Which places a connection may have, and what becomes of it when they are taken.
pub(super) enum Places {
    /// It is let wait in the kernel's queue, with all who come after it.
    Waiting(Arc<Semaphore>),
    /// It is closed at once, so that it keeps nobody out.
    Closing(Arc<Semaphore>),
}

/// The connections of `incoming`, as many at once as there are places of their kind.
pub(super) fn limited<S: Send + 'static>(
    incoming: impl Stream<Item = io::Result<S>> + Send + 'static,
    places: impl Fn(&S) -> Places + Send + 'static,
) -> impl Stream<Item = io::Result<Limited<S>>> + Send + 'static {
    futures_util::stream::unfold((Box::pin(incoming), places), |(mut incoming, places)| async move {
        loop {
            let io = match incoming.next().await? {
                Ok(io) => io,
                Err(error) => return Some((Err(error), (incoming, places))),
            };
            let place = match places(&io) {
                // The semaphore is never closed.
                Places::Waiting(places) => places.acquire_owned().await.ok()?,
                Places::Closing(places) => match places.try_acquire_owned() {
                    Ok(place) => place,
                    Err(_) => continue,
                },
            };
            let greeting = Some(Box::pin(sleep(GREETING_TIMEOUT)));
            return Some((Ok(Limited { io, greeting, _place: place }), (incoming, places)));
        }
    })
}

impl<S: Connected> Connected for Limited<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, into);
        match (&read, &mut self.greeting) {
            (Poll::Ready(_), greeting) => *greeting = None,
            (Poll::Pending, Some(greeting)) => {
                if greeting.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            (Poll::Pending, None) => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
