//! How often a caller may call: a bucket per token, from which each call takes one, and which fills
//! steadily.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::role::Caller;
use crate::clock::MonoTime;

/// Buckets that are kept; beyond it those that are full go, which changes nothing.
const BUCKETS_MAX: usize = 2048;

/// The buckets of all callers.
#[derive(Debug)]
pub struct Quotas {
    calls: u32,
    window: Duration,
    buckets: Mutex<HashMap<[u8; 32], Bucket>>,
}

/// What a caller may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Calls that a full bucket holds.
    pub limit: u32,
    /// Calls that it holds now.
    pub remaining: u32,
    /// Whole seconds until it is full again.
    pub reset_seconds: u64,
    /// Whole seconds in which an empty one fills.
    pub window_seconds: u64,
    /// Whole seconds until it holds a call.
    pub retry_seconds: u64,
}

/// `filled` of the window: a full bucket holds all of it, a call takes its part.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    filled: Duration,
    at: MonoTime,
}

impl Quotas {
    /// Buckets that hold so many calls and fill in `window`.
    pub fn new(calls: u32, window: Duration) -> Self {
        Self { calls: calls.max(1), window, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes a call from the caller's bucket; what it holds then.
    ///
    /// # Errors
    /// It holds none.
    pub fn take(&self, caller: &Caller, now: MonoTime) -> Result<Quota, Quota> {
        let cost = self.window / self.calls;
        let mut buckets = self.buckets.lock().expect("no holder of this lock can panic");
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.fill(now, self.window).filled < self.window);
        }
        let full = Bucket { filled: self.window, at: now };
        let bucket = buckets.entry(caller.identity).or_insert(full);
        *bucket = bucket.fill(now, self.window);
        match bucket.filled.checked_sub(cost) {
            Some(left) => {
                bucket.filled = left;
                Ok(self.quota(left, cost))
            }
            None => Err(self.quota(bucket.filled, cost)),
        }
    }

    fn quota(&self, filled: Duration, cost: Duration) -> Quota {
        let remaining = filled.as_nanos().checked_div(cost.as_nanos()).unwrap_or(0);
        Quota {
            limit: self.calls,
            remaining: u32::try_from(remaining).unwrap_or(self.calls).min(self.calls),
            reset_seconds: ceiled(self.window.saturating_sub(filled)),
            window_seconds: self.window.as_secs(),
            retry_seconds: ceiled(cost.saturating_sub(filled)),
        }
    }
}

impl Bucket {
    fn fill(self, now: MonoTime, window: Duration) -> Self {
        Self { filled: self.filled.saturating_add(now.since(self.at)).min(window), at: now }
    }
}

fn ceiled(length: Duration) -> u64 {
    length.as_secs() + u64::from(length.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> MonoTime {
        MonoTime::from_nanos(1_000) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_full_bucket_gives_its_calls_then_one_as_it_fills() {
        let quotas = Quotas::new(3, Duration::from_secs(6));
        let caller = Caller::of_peer(1);
        let left: Vec<_> =
            (0..4).map(|_| quotas.take(&caller, at(0.0)).map(|quota| quota.remaining)).collect();
        assert_eq!(left[..3], [Ok(2), Ok(1), Ok(0)]);
        let refused = quotas.take(&caller, at(0.5)).expect_err("it is empty");
        let seconds = (refused.reset_seconds, refused.window_seconds, refused.retry_seconds);
        assert_eq!((refused.limit, refused.remaining, seconds), (3, 0, (6, 6, 2)));
        assert!(quotas.take(&caller, at(1.9)).is_err());
        assert_eq!(quotas.take(&caller, at(2.1)).expect("one has come").remaining, 0);
        assert!(quotas.take(&caller, at(2.2)).is_err());
        assert_eq!(quotas.take(&caller, at(1000.0)).expect("it is full").remaining, 2);
    }

    #[test]
    fn callers_have_buckets_of_their_own_and_full_ones_are_forgotten() {
        let quotas = Quotas::new(1, Duration::from_secs(1));
        for uid in 0..10_000 {
            let now = at(f64::from(uid) / 100.0);
            assert!(quotas.take(&Caller::of_peer(uid), now).is_ok());
        }
        let kept = quotas.buckets.lock().expect("nobody panicked").len();
        assert!(kept <= BUCKETS_MAX, "{kept}");
    }
}
