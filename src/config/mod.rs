//! The host's config: defaults, then the file, then the environment, then flags, as the `config` crate
//! layers them; read strictly, so that nothing is coerced and every error says where it was written.
//! Must never read anything but the file and the `SHUTTERD__…` variables.

mod devices;
mod error;
mod layers;
mod reader;
mod schema;
mod settings;
mod table;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::session::RetentionLimits;
use crate::session::resolve::ConfiguredDevice;

pub use error::ConfigError;

/// Read when no other file is named; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/shutterd/shutterd.toml";

/// Everything that a host can set, as it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The journal, the operator token and the instance lock are here.
    pub state_dir: PathBuf,
    /// The sockets are here.
    pub runtime_dir: PathBuf,
    /// A directory per session is made here.
    pub media_dir: PathBuf,
    /// How callers reach the agent.
    pub api: ApiSettings,
    /// How callers reach the HTTP calls.
    pub http: HttpSettings,
    /// How media is written.
    pub media: MediaSettings,
    /// Counts and deadlines.
    pub limits: LimitSettings,
    /// What is kept of finished sessions.
    pub retention: RetentionLimits,
    /// The processes that the daemon starts.
    pub worker: ProcessSettings,
    /// From when on its health is degraded or fails.
    pub health: HealthSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Names for the host's devices, and virtual ones.
    pub devices: Vec<ConfiguredDevice>,
}

/// How callers reach the agent, besides the Unix socket, which is always there.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSettings {
    /// A loopback address to listen on, none for the Unix socket alone; port 0 lets the kernel choose.
    pub tcp: Option<SocketAddr>,
    /// The file with the operator's token.
    pub token_path: PathBuf,
    /// Bytes of one request.
    pub message_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
}

/// How callers reach the HTTP calls.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// A loopback address to listen on, none for no HTTP; port 0 lets the kernel choose.
    pub listen: Option<SocketAddr>,
    /// Connections at once.
    pub connections_max: usize,
    /// Calls that a token may make at once, and within the window.
    pub calls_max: u32,
    /// What the calls are counted in.
    pub window: Duration,
}

/// How media is written.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaSettings {
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
    /// Name of the group that files and directories are given to; the process's own if absent.
    pub group: Option<String>,
    /// A new file is begun after this long.
    pub segment: Duration,
    /// What was written is made durable this often.
    pub sync_interval: Duration,
    /// Quality of JPEG for cameras that deliver raw pictures, 1 to 100.
    pub jpeg_quality: u8,
    /// How sound is stored.
    pub sound: SoundCodec,
    /// Bytes of one session that may wait in memory.
    pub queue_bytes_max: usize,
}

/// How sound is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundCodec {
    /// Compressed without loss.
    Flac,
    /// As it comes.
    Pcm,
}

/// Counts and deadlines.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSettings {
    /// Sessions at once.
    pub sessions_max: usize,
    /// From a start to the first frame of its last source.
    pub start: Duration,
    /// From a stop to the last byte durable, when the stop names no time of its own.
    pub drain: Duration,
    /// From SIGTERM to SIGKILL of a worker past its deadline.
    pub term: Duration,
    /// From SIGKILL until a worker counts as one that can't be reaped.
    pub kill: Duration,
    /// A repair of the files of a worker that died.
    pub repair: Duration,
    /// A write of the journal.
    pub journal: Duration,
    /// A search for devices.
    pub probe: Duration,
    /// A worker that hears no daemon for this long drains and exits.
    pub orphan_grace: Duration,
    /// A worker that captures and says nothing for this long hangs: it is ended, and a new one goes on.
    pub worker_silent: Duration,
    /// A source that delivers nothing for this long is degraded.
    pub stall_after: Duration,
    /// A session all of whose sources are lost for this long ends.
    pub source_lost_after: Duration,
    /// A session that runs for this long ends; none for no such limit.
    pub max_duration: Option<Duration>,
}

/// The processes that the daemon starts.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSettings {
    /// The binary to run as worker, probe and repair; the daemon's own if absent.
    pub path: Option<PathBuf>,
    /// How often in a row the worker of a session that has died is started again.
    pub restarts_max: u8,
    /// The wait before the second start in a row; each further one is twice as long.
    pub restart_delay: Duration,
    /// A worker that has captured for this long has its session's restarts forgotten.
    pub steady: Duration,
}

/// From when on the agent's health is degraded or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// A source nothing of which has become durable for this long has failed.
    pub durable_age: Duration,
    /// A disk that is full sooner than this is degraded, and sessions are warned.
    pub low_space: Duration,
    /// How often an idle host looks for devices.
    pub probe_every: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// A level, or directives such as `info,shutterd::link=debug`.
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As it suits what stderr is: systemd's journal, a terminal, a file.
    Auto,
    /// For people.
    Human,
    /// An object a line.
    Json,
    /// For systemd's journal: a priority in front, no time.
    Journal,
}

/// What the command line sets; it goes before everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--state-dir`; a relative one is taken from the working directory.
    pub state_dir: Option<PathBuf>,
    /// `--runtime-dir`
    pub runtime_dir: Option<PathBuf>,
    /// `--media-dir`
    pub media_dir: Option<PathBuf>,
    /// `--tcp`: an address, or `off`.
    pub tcp: Option<String>,
    /// `--http`: an address, or `off`.
    pub http: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

/// Reads the settings: defaults, the file, the environment of this process, then `overrides`.
/// The file is `path`, which must exist, or else [`DEFAULT_PATH`], which may be absent.
///
/// # Errors
/// The first thing that can't be taken, where it is written, and what would do.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Settings, ConfigError> {
    load_with(path, std::env::vars_os(), overrides)
}

/// As [`load`], with the given environment in place of the process's own.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    overrides: &Overrides,
) -> Result<Settings, ConfigError> {
    let file = layers::FileLayer::read(path)?;
    let environment = layers::environment(environment)?;
    let tree = layers::merge(file, environment, overrides)?;
    settings::settings(&reader::Reader::new(tree))
}

impl Default for Settings {
    /// The settings of a host that sets nothing.
    fn default() -> Self {
        let tree = layers::merge(layers::FileLayer::default(), Vec::new(), &Overrides::default());
        tree.and_then(|tree| settings::settings(&reader::Reader::new(tree)))
            .expect("a test holds that the defaults are valid")
    }
}
