//! One daemon to a state directory and to a runtime directory: a lock on a file that names its holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use thiserror::Error;

/// Another daemon has the directory.
#[derive(Debug, Error)]
#[error(
    "another shutterd ({holder}) uses {}: stop it first, or give this one its own state_dir and runtime_dir",
    dir.display()
)]
pub struct LockHeld {
    /// What it says of itself.
    pub holder: String,
    /// The directory.
    pub dir: PathBuf,
}

/// Held for as long as the daemon runs; the kernel gives it free when the process ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock `name` in `dir`, or says who has it.
    ///
    /// # Errors
    /// [`LockHeld`], or the file can't be made or written.
    pub fn take(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let path = dir.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder writes its name right after taking the lock; without it the message is shorter.
                let _ = file.read_to_string(&mut holder);
                return Err(LockHeld { holder: holder.trim().to_owned(), dir: dir.to_owned() }.into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "pid {}", std::process::id()))
            .with_context(|| format!("cannot write {}: is its disk full?", path.display()))?;
        Ok(Self { _file: file })
    }
}
