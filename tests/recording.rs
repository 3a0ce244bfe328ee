//! A model test of recording: the real recorder, syncer, salvage and repair on a modelled disk, a simulated clock
//! and threads of which one runs at a time. Random histories; each follows from its seed.
//!
//! `SHUTTERD_MODEL_RUNS=n` runs so many, `SHUTTERD_MODEL_SEED=n` the one of a failure.

#[path = "recording/disk.rs"]
mod disk;
#[path = "recording/draw.rs"]
mod draw;
#[path = "recording/found.rs"]
mod found;
#[path = "recording/history.rs"]
mod history;
#[path = "recording/host.rs"]
mod host;
#[path = "recording/inode.rs"]
mod inode;
#[path = "recording/judge.rs"]
mod judge;
#[path = "recording/media.rs"]
mod media;
#[path = "recording/regressions.rs"]
mod regressions;
#[path = "recording/run.rs"]
mod run;
#[path = "recording/threads.rs"]
mod threads;

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use history::{History, histories};

/// Histories of a run.
const RUNS: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The runner whose draws follow from `seed`.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn lived(history: &History) -> Result<(), String> {
    let lived = catch_unwind(AssertUnwindSafe(|| run::live(history)));
    lived.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panics: {}", said.unwrap_or_default()))
    })
}

/// What is wrong with the history of `seed`, and the shortest one with something wrong.
fn fault_of(seed: u64) -> Option<String> {
    let mut runner = runner(seed);
    let tree = histories().new_tree(&mut runner).expect("every draw is a history");
    let first = lived(&tree.current()).err()?;
    let outcome = runner.run_one(tree, |history| lived(&history).map_err(TestCaseError::fail));
    let shortest = match outcome {
        Err(TestError::Fail(reason, history)) => format!("{reason}\n{history:#?}"),
        outcome => format!("it is another one when it is repeated: {outcome:?}"),
    };
    Some(format!("{first}\nreplay it by SHUTTERD_MODEL_SEED={seed}\nthe shortest that fails: {shortest}"))
}

#[test]
fn what_a_recorder_promises_holds_in_every_history() {
    let seeds = match number("SHUTTERD_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHUTTERD_MODEL_RUNS").unwrap_or(RUNS),
    };
    let next = AtomicU64::new(seeds.start);
    let judge = || {
        let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end);
        while let Some(seed) = mine() {
            if let Some(fault) = fault_of(seed) {
                next.store(seeds.end, Ordering::Relaxed);
                return Some(fault);
            }
        }
        None
    };
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let judges: Vec<_> = (0..at_once).map(|_| scope.spawn(judge)).collect();
        judges.into_iter().filter_map(|judge| judge.join().expect("a judge doesn't panic")).collect()
    });
    assert!(faults.is_empty(), "a history goes wrong: {}", faults.join("\n\n"));
}
