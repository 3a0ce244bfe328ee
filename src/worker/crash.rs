//! A worker whose invariants are broken writes nothing more: the daemon repairs what it left, and tells.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `work`; ends the whole process at once if it panics, so that no thread goes on beside a broken one.
pub(super) fn or_crash<T>(what: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(what, "a thread panicked; this is an error of shutterd");
        crash()
    })
}

#[expect(clippy::disallowed_methods, reason = "a worker whose invariants are broken must write nothing more")]
fn crash() -> ! {
    std::process::abort()
}
