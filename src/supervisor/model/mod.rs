//! The real actor in random histories: its clock, its workers, its journal and its callers are played, and
//! what is promised is checked as it goes. A failure prints its history, and the seed that replays it.
//!
//! Not played: the sockets (`tests/model/link.rs` and the flows have them), files that fail, a journal that
//! has lost something, retention.

mod calls;
mod cases;
mod daemon;
mod history;
mod plan;
#[path = "../../../tests/model/seeds.rs"]
mod seeds;
mod talk;
mod worker;
mod world;

/// Histories in a usual run.
const RUNS: u64 = 1000;

#[test]
fn whatever_happens_the_actor_keeps_its_promises() {
    seeds::try_histories(RUNS, history::play);
}
