//! Random histories, each told by its seed alone: what a seed leads to is the same on every machine.
//!
//! `SHUTTERD_MODEL_SEED=n` tries that one alone, `SHUTTERD_MODEL_RUNS=n` tries so many instead of the usual
//! number.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names the one seed to try.
const SEED: &str = "SHUTTERD_MODEL_SEED";
/// Says how many seeds to try.
const RUNS: &str = "SHUTTERD_MODEL_RUNS";

/// Chances, all decided by a seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    /// The chances of `seed`.
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.any() % (range.end - range.start)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.within(0..times) == 0
    }

    /// One of `all`.
    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.within(0..all.len() as u64) as usize].clone()
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: give a number")))
}

/// Tries `history` with `runs` seeds. It tells what was wrong, with all that led there.
pub fn try_histories(runs: u64, history: impl Fn(u64) -> Result<(), String> + Sync) {
    let seeds = match (number(SEED), number(RUNS)) {
        (Some(seed), _) => seed..seed + 1,
        (None, given) => 0..given.unwrap_or(runs),
    };
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let try_some = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if let Err(wrong) = history(seed) {
                failed.store(true, Ordering::Relaxed);
                panic!("{wrong}\n{SEED}={seed} replays this");
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let tries: Vec<_> = (0..threads).map(|_| scope.spawn(try_some)).collect();
        let outcomes: Vec<_> = tries.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        for outcome in outcomes {
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
