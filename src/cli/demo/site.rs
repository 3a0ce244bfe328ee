//! Where a demo takes place: its directory, its config, and the session that it records.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::{Clock, SystemClock};
use crate::daemon::API_SOCKET;

use super::super::exit::{FAILURE, Failure};

/// Longest runtime directory that the config takes, since the path of a Unix socket is short.
const RUNTIME_DIR_BYTES_MAX: usize = 80;
/// How long the session would live if nobody stopped it.
const LIFE: Duration = Duration::from_secs(3600);

/// The place of a demo.
pub struct Site {
    /// Everything is below it, and stays.
    pub dir: PathBuf,
    /// The agent's config.
    pub config_path: PathBuf,
    /// The agent's output.
    pub log_path: PathBuf,
    /// The agent's socket.
    pub socket_path: PathBuf,
    /// Made for the sockets alone, because `dir` is too long for them.
    short_dir: Option<PathBuf>,
}

impl Site {
    /// Makes the place: in `dir`, or in a new directory for temporary files.
    ///
    /// # Errors
    /// A directory or the config can't be made.
    pub fn prepare(dir: Option<&Path>) -> Result<Self, Failure> {
        let dir = match dir {
            Some(dir) => existing(dir)?,
            None => fresh(&std::env::temp_dir(), "shutterd-demo")?,
        };
        let (runtime_dir, short_dir) = match dir.join("run") {
            long if long.as_os_str().len() > RUNTIME_DIR_BYTES_MAX => {
                let short = fresh(Path::new("/tmp"), "shutterd")?;
                (short.clone(), Some(short))
            }
            run => (run, None),
        };
        let config_path = dir.join("demo.toml");
        fs::write(&config_path, config(&dir, &runtime_dir)?)
            .map_err(|error| unmakeable(&config_path, &error))?;
        Ok(Self {
            log_path: dir.join("serve.log"),
            socket_path: runtime_dir.join(API_SOCKET),
            config_path,
            short_dir,
            dir,
        })
    }

    /// Removes what nobody needs after the demo.
    pub fn clear(&self) {
        if let Some(dir) = &self.short_dir
            && let Err(error) = fs::remove_dir_all(dir)
        {
            super::out::note(&format!("note: {} can't be removed: {error}", dir.display()));
        }
    }
}

/// A session of the contract's shape, one hour long, with the two devices of [`config()`].
pub fn session() -> Result<Map<String, Value>, Failure> {
    let now = SystemClock.wall();
    let session = json!({
        "_id": hex(&random::<12>()?),
        "name": "Demo",
        "type": "live_analysis",
        "state": "active",
        "timestamp": now.to_string(),
        "duration": 0,
        "config": { "removeMedia": false },
        "sources": [
            { "id": uuid()?, "name": "Integrated Webcam", "type": "video", "device": "local_camera" },
            { "id": uuid()?, "name": "Built-in Microphone", "type": "audio", "device": "local_microphone" },
        ],
        "meta": { "expires": (now + LIFE).to_string() },
        "product": hex(&random::<12>()?),
        "user": hex(&random::<12>()?),
        "version": 3,
    });
    match session {
        Value::Object(object) => Ok(object),
        _ => unreachable!("an object was written above"),
    }
}

/// The agent's config, as TOML.
fn config(dir: &Path, runtime_dir: &Path) -> Result<String, Failure> {
    let config = json!({
        "state_dir": dir.join("state"),
        "runtime_dir": runtime_dir,
        "media_dir": dir.join("media"),
        "api": { "tcp": "off" },
        "http": { "listen": "off" },
        "devices": [
            { "id": "demo-camera", "name": "Integrated Webcam", "kind": "synthetic", "media": "video" },
            { "id": "demo-microphone", "name": "Built-in Microphone", "kind": "synthetic", "media": "audio" },
        ],
    });
    toml::to_string(&config).map_err(|error| {
        Failure::new(
            FAILURE,
            format!("{} can't be written into a config: {error}; name another --dir", dir.display()),
        )
    })
}

fn existing(dir: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(dir).and_then(|()| dir.canonicalize()).map_err(|error| unmakeable(dir, &error))
}

/// A new directory below `parent` that only this user may enter.
fn fresh(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    let dir = parent.join(format!("{name}-{}", hex(&random::<4>()?)));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|error| unmakeable(&dir, &error))?;
    Ok(dir)
}

fn unmakeable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(FAILURE, format!("{} can't be made: {error}", path.display()))
        .hint("name another place with --dir")
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(FAILURE, format!("the kernel gives no random bytes: {error}")))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> Result<String, Failure> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
