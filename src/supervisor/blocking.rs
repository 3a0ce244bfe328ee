//! Work that may block, apart from the actor.

use tokio::task::JoinHandle;

/// Does `work` on a thread that may block. A simulated clock must not run on meanwhile, nor may what happens
/// depend on which thread is first: so tests do it in their turn.
pub(super) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if cfg!(test) { tokio::spawn(async move { work() }) } else { tokio::task::spawn_blocking(work) }
}
