//! A limit on connections: each has a place, loses it to another one while nobody knows who it is, and
//! doesn't keep it for long without a call.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::access::{Place, Places, Visitor};

/// How long the first byte of a connection may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// And its first call that is let in; from then on HTTP/2's pings find who is gone.
const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that gives its place free when it is dropped.
pub(super) struct Limited<S> {
    io: S,
    place: Place,
    /// Ends when it has lost its place.
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Runs until it has made a call; first until it has said anything.
    patience: Option<Pin<Box<Sleep>>>,
    accepted_at: Instant,
}

/// What a call learns of its connection.
#[derive(Clone)]
pub(super) struct Limit<I> {
    /// What the socket says.
    pub(super) peer: I,
    /// For the guard to say whether it is known.
    pub(super) visitor: Visitor,
}

/// The connections of `incoming`, as many at once as there are places of their kind.
pub(super) fn limited<S: Send + 'static>(
    incoming: impl Stream<Item = io::Result<S>> + Send + 'static,
    places: impl Fn(&S) -> Arc<Places> + Send + 'static,
) -> impl Stream<Item = io::Result<Limited<S>>> + Send + 'static {
    futures_util::stream::unfold((Box::pin(incoming), places), |(mut incoming, places)| async move {
        let io = match incoming.next().await? {
            Ok(io) => io,
            Err(error) => return Some((Err(error), (incoming, places))),
        };
        let place = places(&io).take().await;
        let limited = Limited {
            io,
            lost: Box::pin(place.lost()),
            place,
            patience: Some(Box::pin(sleep(GREETING_TIMEOUT))),
            accepted_at: Instant::now(),
        };
        Some((Ok(limited), (incoming, places)))
    })
}

impl<S: Connected> Connected for Limited<S> {
    type ConnectInfo = Limit<S::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Limit { peer: self.io.connect_info(), visitor: self.place.visitor().clone() }
    }
}

impl<S> Limited<S> {
    /// Whether its time is up. Reads are polled as long as the connection is there.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.lost.as_mut().poll(context).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, into);
        if read.is_ready() {
            let until = self.accepted_at + FIRST_CALL_TIMEOUT;
            if let Some(patience) = self.patience.as_mut().filter(|patience| patience.deadline() != until) {
                patience.as_mut().reset(until);
            }
        }
        if self.place.visitor().is_heard() {
            self.patience = None;
        }
        match self.poll_over(context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => read,
        }
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
