//! What can be wrong with a config, each with the place where it is written.

use std::path::PathBuf;

use thiserror::Error;

/// A config that can't be used. `place` is `file:line`, a variable of the environment or a flag.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("config file {} can't be read: {source}; name another with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is too long to be a config.
    #[error("config file {} is longer than {bytes_max} bytes: it can't be a config", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The file isn't TOML.
    #[error("{place}: this is not TOML: {problem}")]
    Syntax {
        /// Where.
        place: String,
        /// What the parser says.
        problem: String,
    },
    /// A key that doesn't exist.
    #[error("{place}: there is no key {key}: {known}")]
    UnknownKey {
        /// Where.
        place: String,
        /// The key, with its section.
        key: String,
        /// What there is.
        known: String,
    },
    /// A key that must be given is absent.
    #[error("{place}: {key} is missing: {expected}")]
    MissingKey {
        /// Where it belongs.
        place: String,
        /// The key.
        key: String,
        /// What to write.
        expected: String,
    },
    /// A value of another type; nothing is converted.
    #[error("{place}: {key} is {found}: write {expected}")]
    WrongType {
        /// Where.
        place: String,
        /// The key.
        key: String,
        /// The value and its type.
        found: String,
        /// What to write.
        expected: String,
    },
    /// A value of the right type that can't be taken.
    #[error("{place}: {key} is {found}: {advice}")]
    Refused {
        /// Where.
        place: String,
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// What to write, and why.
        advice: String,
    },
    /// Two devices have one id.
    #[error("{place}: device id {id:?} is there twice, first at {first}: give each device its own id")]
    DuplicateDevice {
        /// The second.
        place: String,
        /// The first.
        first: String,
        /// The id.
        id: String,
    },
    /// The layers don't fit together.
    #[error("the config can't be put together: {0}")]
    Layers(#[from] config::ConfigError),
}
