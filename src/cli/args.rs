//! The command line as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit;
use super::text::parse_duration;
use crate::access::Role;

/// Records the cameras and microphones of a session, drains on stop, and says what it kept
#[derive(Debug, Parser)]
#[command(name = "shutterd", version, after_help = exit::HELP, arg_required_else_help = true)]
pub struct Arguments {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
pub struct Global {
    /// Config file [default: /etc/shutterd/shutterd.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people, failures too
    #[arg(long, global = true)]
    pub json: bool,
    /// The agent: unix:PATH or http://127.0.0.1:PORT [default: the config's Unix socket]
    #[arg(long, global = true, value_name = "URL", env = "SHUTTERD_SERVER", hide_env_values = true)]
    pub server: Option<String>,
    /// File with the token for a TCP server [default: the config's operator token]
    #[arg(long, global = true, value_name = "FILE", env = "SHUTTERD_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: capture the sessions that callers hand over
    Serve(ServeArguments),
    /// Record synthetic devices for a few seconds with an agent of its own, and show what came out
    Demo(DemoArguments),
    /// List this host's cameras and microphones, and who holds them
    Devices,
    /// Start, stop and look at sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Stop everything that is being recorded on this host, now
    StopAll,
    /// Take no new session; those there are go on to their end
    Drain,
    /// Take new sessions again, and expect no replacement
    Undrain,
    /// Announce a replacement: told to end, the agent leaves its sessions recording for the next one
    Handover,
    /// Ask whether the agent is well, for monitoring
    Health,
    /// Say who may call over TCP, and take it back
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make recordings whole that a crash has cut off; what is whole stays as it is
    Repair(RepairArguments),
    /// Check the journal and all media against each other, and repair what is wrong; no agent may run
    Fsck(FsckArguments),
    /// Check the config without running anything
    CheckConfig,
    /// Capture one session (started by the agent)
    #[command(hide = true)]
    Worker {
        /// The agent's link socket.
        #[arg(long, value_name = "PATH")]
        link: PathBuf,
        /// The session's id.
        #[arg(long, value_name = "ID")]
        session: String,
    },
    /// End the workers that a stopped agent has left (run by systemd once it has ended)
    #[command(hide = true)]
    EndWorkers,
    /// Look for devices (started by the agent)
    #[command(hide = true)]
    Probe,
}

/// What `serve` takes beside the config; it goes before the file.
#[derive(Args, Debug)]
pub struct ServeArguments {
    /// Directory of the journal and the operator's token
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the sockets
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Directory of the recordings
    #[arg(long, value_name = "DIR")]
    pub media_dir: Option<PathBuf>,
    /// Loopback address to listen on besides the Unix socket, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub tcp: Option<String>,
    /// Loopback address of the HTTP calls and probes, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// What is logged: error, warn, info, debug, trace, off
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What `repair` takes.
#[derive(Args, Debug)]
pub struct RepairArguments {
    /// Recordings, or directories of sessions
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only say what would be done
    #[arg(long, conflicts_with = "known")]
    pub check: bool,
    /// JSON of the files that were finished: they are counted only. By this the agent's own repair of a dead
    /// worker's files is known.
    #[arg(long, hide = true)]
    pub known: Option<String>,
    /// Number of the file with which the session goes on: it and later ones are left alone.
    #[arg(long, hide = true, requires = "known")]
    pub before: Option<u32>,
}

/// What `fsck` takes.
#[derive(Args, Debug)]
pub struct FsckArguments {
    /// Only say what is wrong
    #[arg(long)]
    pub check: bool,
}

/// What `demo` takes.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// How long to record
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Where to put everything [default: a new directory below $TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; only its hash is kept
    Add(TokenAddArguments),
    /// List the tokens that there are
    List,
    /// Take a token back
    Revoke {
        /// What the token is called.
        name: String,
    },
}

/// What `token add` takes.
#[derive(Args, Debug)]
pub struct TokenAddArguments {
    /// What to call the token
    pub name: String,
    /// viewer: see sessions; reader: and read media; operator: and start and stop
    #[arg(long, value_name = "ROLE")]
    pub role: Role,
    /// Only for sessions of this user
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Until then: a time like 2027-05-01T12:00:00Z, or how long from now, like 30d
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Start a session: answers once every source delivers
    Start {
        /// The session's JSON, as the product's API hands it over; `-` reads standard input
        file: PathBuf,
        /// Stop by itself after this long, like 30m
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        max_duration: Option<Duration>,
    },
    /// Stop a session: answers once its media is final
    Stop(StopArguments),
    /// Show a session, with its receipt once it is finished
    Show {
        /// The session's id.
        id: String,
    },
    /// List sessions, oldest change first
    List {
        /// Only sessions in this state: active, processing, finished; may be repeated
        #[arg(long, value_name = "STATE")]
        state: Vec<String>,
        /// Only what changed after this cursor, as an earlier --json list told it
        #[arg(long, value_name = "CURSOR", default_value_t = 0)]
        since: u64,
    },
    /// Follow a session until it is finished
    Watch {
        /// The session's id.
        id: String,
    },
}

/// What `session stop` takes.
#[derive(Args, Debug)]
pub struct StopArguments {
    /// The session's id.
    pub id: String,
    /// Keep what is durable and discard what waits in memory
    #[arg(long)]
    pub abort: bool,
    /// End the worker by force after this long, like 5s [default: the agent's config]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Option<Duration>,
    /// Answer when the devices are released, or when the media is final
    #[arg(long, value_enum, default_value_t = Wait::Finalized)]
    pub wait: Wait,
}

/// When a stop is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// The devices are released: nothing is collected any more.
    Released,
    /// The media is final.
    Finalized,
}
