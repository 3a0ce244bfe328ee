//! Places of a listener: how many connections it has at once. Whoever has not said who it is can't keep
//! others out: when every place is taken, the oldest such connection loses its own to the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const SILENT: u8 = 0;
const HEARD: u8 = 1;
const KNOWN: u8 = 2;

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    max: usize,
    /// In the order in which they came.
    taken: Mutex<VecDeque<Visitor>>,
    freed: Notify,
}

/// A connection's place. Whoever drops it gives it free.
#[derive(Debug)]
pub struct Place {
    visitor: Visitor,
    places: Arc<Places>,
}

/// What is known of a connection, for its calls to add to.
#[derive(Clone, Debug)]
pub struct Visitor(Arc<Standing>);

#[derive(Debug, Default)]
struct Standing {
    heard: AtomicU8,
    closing: CancellationToken,
}

impl Places {
    /// So many places.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default(), freed: Notify::new() })
    }

    /// A place for a new connection: a free one, else that of the oldest connection that is not known.
    /// While all are known it waits for one of them to end.
    pub async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(visitor) = self.try_take() {
                return Place { visitor, places: Arc::clone(self) };
            }
            freed.await;
        }
    }

    fn try_take(&self) -> Option<Visitor> {
        let mut taken = self.taken.lock().expect("no holder of this lock can panic");
        if taken.len() >= self.max {
            let unknown = taken.iter().position(|visitor| !visitor.is_known())?;
            if let Some(visitor) = taken.remove(unknown) {
                visitor.0.closing.cancel();
            }
        }
        let visitor = Visitor(Arc::default());
        taken.push_back(visitor.clone());
        Some(visitor)
    }
}

impl Place {
    /// Who has it.
    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }

    /// Ends when another connection has got this place: this one is to be closed.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.visitor.0.closing.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().expect("no holder of this lock can panic");
        taken.retain(|visitor| !Arc::ptr_eq(&visitor.0, &self.visitor.0));
        self.places.freed.notify_one();
    }
}

impl Visitor {
    /// It has made a call that is open to everybody.
    pub fn hear(&self) {
        self.0.heard.fetch_max(HEARD, Ordering::Relaxed);
    }

    /// It has said who it is, and that is true: its place is its own.
    pub fn know(&self) {
        self.0.heard.store(KNOWN, Ordering::Relaxed);
    }

    /// Whether it has made any call that was let in.
    pub fn is_heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed) != SILENT
    }

    fn is_known(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed) == KNOWN
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_oldest_connection_that_is_not_known_makes_room_for_the_next() {
        let places = Places::new(3);
        let (known, open, silent) = (places.take().await, places.take().await, places.take().await);
        known.visitor().know();
        open.visitor().hear();
        let _next = places.take().await;
        assert_eq!([&known, &open, &silent].map(is_lost), [false, true, false]);
        let _last = places.take().await;
        assert_eq!([&known, &silent].map(is_lost), [false, true]);
    }

    #[tokio::test]
    async fn connections_that_are_known_keep_their_places_and_the_next_waits_for_one_to_end() {
        let places = Places::new(2);
        let (first, second) = (places.take().await, places.take().await);
        for place in [&first, &second] {
            place.visitor().know();
        }
        let mut next = Box::pin(places.take());
        assert!((&mut next).now_or_never().is_none());
        drop(first);
        next.await.visitor().know();
        assert!(!is_lost(&second));
    }

    #[tokio::test]
    async fn a_connection_that_lost_its_place_gives_none_free_a_second_time() {
        let places = Places::new(1);
        let first = places.take().await;
        let second = places.take().await;
        second.visitor().know();
        drop(first);
        assert!(places.take().now_or_never().is_none());
        drop(second);
        assert!(places.take().now_or_never().is_some());
    }
}
