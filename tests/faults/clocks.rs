//! T: clocks that jump or run wrong. Only a machine of its own can have such a clock.

use crate::row::Case::VirtualMachine;
use crate::row::Row;

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "T1", fault: "the wall clock steps by an hour", case: VirtualMachine },
    Row { id: "T2", fault: "the clock is slewed by 500 ppm", case: VirtualMachine },
];
