//! From the layered tree to the settings: one line a key, and what a text must look like.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::reader::Reader;
use super::{
    ApiSettings, ConfigError, HealthSettings, HttpSettings, LimitSettings, LogFormat, LogSettings,
    MediaSettings, ProcessSettings, Settings, SoundCodec, devices,
};
use crate::session::RetentionLimits;

/// Bytes of the runtime directory's path: `sun_path` of unix(7) holds 108 with the socket's name.
const RUNTIME_DIR_BYTES_MAX: usize = 80;

/// Reads every key.
pub fn settings(keys: &Reader) -> Result<Settings, ConfigError> {
    let state_dir = keys.path("state_dir")?;
    Ok(Settings {
        runtime_dir: keys.text("runtime_dir", runtime_dir)?,
        media_dir: keys.optional_path("media_dir")?.unwrap_or_else(|| state_dir.join("media")),
        api: ApiSettings {
            tcp: keys.text("api.tcp", tcp)?,
            token_path: keys
                .optional_path("api.token_path")?
                .unwrap_or_else(|| state_dir.join("operator.token")),
            message_bytes_max: keys.size("api.message_bytes_max")?,
            connections_max: keys.size("api.connections_max")?,
        },
        http: HttpSettings {
            listen: keys.text("http.listen", tcp)?,
            connections_max: keys.size("http.connections_max")?,
            calls_max: keys.count("http.calls_max")?,
            window: Duration::from_secs(keys.number("http.window_seconds")?),
        },
        media: media(keys)?,
        limits: limits(keys)?,
        retention: retention(keys)?,
        worker: worker(keys)?,
        health: HealthSettings {
            durable_age: keys.millis("health.durable_age_ms")?,
            low_space: Duration::from_secs(keys.number("health.low_space_seconds")?),
            probe_every: Duration::from_secs(keys.number("health.probe_seconds")?),
        },
        log: LogSettings {
            level: keys.text("log.level", level)?,
            format: keys.text("log.format", log_format)?,
        },
        devices: devices::devices(keys.devices())?,
        state_dir,
    })
}

fn worker(keys: &Reader) -> Result<ProcessSettings, ConfigError> {
    let restarts = keys.number("worker.restarts_max")?;
    Ok(ProcessSettings {
        path: keys.optional_path("worker.path")?,
        restarts_max: u8::try_from(restarts).expect("the schema's range ends at 100"),
        restart_delay: keys.millis("worker.restart_delay_ms")?,
        steady: Duration::from_secs(keys.number("worker.steady_seconds")?),
    })
}

fn media(keys: &Reader) -> Result<MediaSettings, ConfigError> {
    Ok(MediaSettings {
        file_mode: keys.text("media.file_mode", |text| mode(text, 0o600, 0o664))?,
        dir_mode: keys.text("media.dir_mode", |text| mode(text, 0o700, 0o2775))?,
        group: keys.text("media.group", group)?,
        segment: Duration::from_secs(keys.number("media.segment_seconds")?),
        sync_interval: keys.millis("media.sync_ms")?,
        jpeg_quality: u8::try_from(keys.number("media.jpeg_quality")?)
            .expect("the schema's range ends at 100"),
        sound: keys.text("media.sound", sound)?,
        queue_bytes_max: keys.size("media.queue_bytes_max")?,
    })
}

fn limits(keys: &Reader) -> Result<LimitSettings, ConfigError> {
    let max_hours = keys.number("limits.max_duration_hours")?;
    Ok(LimitSettings {
        sessions_max: keys.size("limits.sessions_max")?,
        start: keys.millis("limits.start_timeout_ms")?,
        drain: keys.millis("limits.drain_timeout_ms")?,
        term: keys.millis("limits.term_timeout_ms")?,
        kill: keys.millis("limits.kill_timeout_ms")?,
        repair: keys.millis("limits.repair_timeout_ms")?,
        journal: keys.millis("limits.journal_timeout_ms")?,
        probe: keys.millis("limits.probe_timeout_ms")?,
        orphan_grace: keys.millis("limits.orphan_grace_ms")?,
        worker_silent: keys.millis("limits.worker_silent_ms")?,
        stall_after: keys.millis("limits.stall_after_ms")?,
        source_lost_after: keys.millis("limits.source_lost_after_ms")?,
        max_duration: (max_hours > 0).then(|| Duration::from_secs(max_hours * 3600)),
    })
}

fn retention(keys: &Reader) -> Result<RetentionLimits, ConfigError> {
    let limit = |path| keys.number(path).map(|number| Some(number).filter(|number| *number > 0));
    Ok(RetentionLimits {
        max_age: limit("retention.max_age_hours")?.map(|hours| Duration::from_secs(hours * 3600)),
        max_bytes: limit("retention.max_bytes")?,
        min_free_bytes: limit("retention.min_free_bytes")?,
    })
}

fn runtime_dir(text: &str) -> Result<PathBuf, String> {
    if text.len() > RUNTIME_DIR_BYTES_MAX {
        return Err(format!(
            "use a path of at most {RUNTIME_DIR_BYTES_MAX} bytes, since the path of a Unix socket can't be longer than 107"
        ));
    }
    super::reader::absolute(text)
}

fn tcp(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() || text == "off" {
        return Ok(None);
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "use an address with a port, like \"127.0.0.1:7460\", or \"off\"".to_owned())?;
    if address.ip().is_loopback() {
        Ok(Some(address))
    } else {
        Err("use a loopback address (127.0.0.1 or [::1]): what goes over TCP is not encrypted yet, so it must not \
             leave the host"
            .to_owned())
    }
}

/// Permission bits: all of `least`, none beyond `most`.
fn mode(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode & least == least && mode & !most == 0 => Ok(mode),
        _ => Err(format!(
            "use octal permissions with all of \"{least:04o}\" and nothing beyond \"{most:04o}\""
        )),
    }
}

fn group(text: &str) -> Result<Option<String>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match text {
        "" => Ok(None),
        name if name.len() <= 32 && name.chars().all(plain) => Ok(Some(name.to_owned())),
        _ => Err("use the name of a group: at most 32 letters, digits, '_', '-' and '.'".to_owned()),
    }
}

fn sound(text: &str) -> Result<SoundCodec, String> {
    match text {
        "flac" => Ok(SoundCodec::Flac),
        "pcm" => Ok(SoundCodec::Pcm),
        _ => Err("use \"flac\" or \"pcm\"".to_owned()),
    }
}

/// A lone word that is no level would be taken for a module's name and silence everything else.
fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let named = |part: &str| part.contains(['=', '[']) || LEVELS.contains(&part.to_lowercase().as_str());
    let words = text.contains('[') || text.split(',').all(|part| named(part.trim()));
    if words && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("use a level (error, warn, info, debug, trace, off) or directives like \"info,shutterd::link=debug\"".to_owned())
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        "journal" => Ok(LogFormat::Journal),
        _ => Err("use \"auto\", \"human\", \"json\" or \"journal\"".to_owned()),
    }
}
