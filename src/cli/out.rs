//! What is printed: results on standard output, everything else on standard error. A reader that goes
//! away ends the command without noise.

use std::io::{self, Write};

use serde::Serialize;

use super::exit::{FAILURE, Failure};

/// Prints `text` and a line's end on standard output.
///
/// # Errors
/// The output can't be written; silent when its reader went away.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(FAILURE),
        _ => Failure::new(FAILURE, format!("standard output can't be written: {error}")),
    })
}

/// Prints `value` as indented JSON on standard output.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(unprintable)?)
}

/// Prints `value` as one line of JSON on standard output.
///
/// # Errors
/// As [`line()`].
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(unprintable)?)
}

/// Prints a line on standard error. When nobody reads that, there is nobody to tell.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn unprintable(error: serde_json::Error) -> Failure {
    Failure::new(FAILURE, format!("the answer can't be written as JSON: {error}"))
}
