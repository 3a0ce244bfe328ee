//! How loaded the host is.

use std::sync::Mutex;

use sysinfo::{MemoryRefreshKind, System};

/// The host's load at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostLoad {
    /// Processes that want to run, averaged over a minute; 1.0 is one core's worth.
    pub one_minute: f64,
    /// Memory in use, in bytes.
    pub memory_used_bytes: u64,
    /// Memory in all, in bytes.
    pub memory_total_bytes: u64,
}

impl HostLoad {
    /// Reads it from the kernel (`/proc`); zeros where it can't be read.
    pub fn read() -> Self {
        static SYSTEM: Mutex<Option<System>> = Mutex::new(None);
        let mut kept = SYSTEM.lock().expect("no holder of this lock can panic");
        if kept.is_none() {
            *kept = System::new().ok();
        }
        let Some(system) = kept.as_mut() else { return Self::default() };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Self {
            one_minute: System::load_average().map_or(0.0, |load| load.one),
            memory_used_bytes: system.used_memory(),
            memory_total_bytes: system.total_memory(),
        }
    }
}
