//! Every key there is, with its default and, for numbers, its range and unit. `config/shutterd.toml`
//! documents the same list; a test holds the two together.

/// One key.
pub struct Key {
    /// `section.key`, or `key` outside any section.
    pub path: &'static str,
    /// What holds when nobody sets it, and what may be set.
    pub rule: Rule,
}

/// What a key takes.
pub enum Rule {
    /// A whole number.
    Number {
        /// What holds when nobody sets it.
        default: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// What it counts.
        unit: &'static str,
    },
    /// A text; what it must look like is checked where it is read.
    Text {
        /// What holds when nobody sets it.
        default: &'static str,
        /// What to write, for errors.
        expected: &'static str,
    },
}

impl Rule {
    /// What to write, for errors.
    pub fn expected(&self) -> String {
        match self {
            Self::Number { min, max, unit, .. } => format!("a whole number, {min} to {max} ({unit})"),
            Self::Text { expected, .. } => (*expected).to_owned(),
        }
    }
}

/// Every key but `devices`.
pub const KEYS: [Key; 44] = [
    text("state_dir", "/var/lib/shutterd", "an absolute path"),
    text("runtime_dir", "/run/shutterd", "an absolute path"),
    text("media_dir", "", "an absolute path"),
    text("api.tcp", "127.0.0.1:7460", "a loopback address with a port, like \"127.0.0.1:7460\", or \"off\""),
    text("api.token_path", "", "an absolute path"),
    number("api.message_bytes_max", 1 << 20, 128 << 10, 64 << 20, "bytes"),
    number("api.connections_max", 256, 1, 10_000, "connections"),
    text(
        "http.listen",
        "127.0.0.1:7461",
        "a loopback address with a port, like \"127.0.0.1:7461\", or \"off\"",
    ),
    number("http.connections_max", 64, 1, 10_000, "connections"),
    number("http.calls_max", 120, 1, 1_000_000, "calls"),
    number("http.window_seconds", 60, 1, 3_600, "seconds"),
    text("media.file_mode", "0640", "octal permissions in quotes, like \"0640\""),
    text("media.dir_mode", "0750", "octal permissions in quotes, like \"0750\""),
    text("media.group", "", "the name of a group, or \"\" for the daemon's own"),
    number("media.segment_seconds", 600, 10, 86_400, "seconds"),
    number("media.sync_ms", 250, 10, 10_000, "milliseconds"),
    number("media.jpeg_quality", 85, 1, 100, "percent"),
    text("media.sound", "flac", "\"flac\" or \"pcm\""),
    number("media.queue_bytes_max", 64 << 20, 1 << 20, 4 << 30, "bytes"),
    number("limits.sessions_max", 16, 1, 256, "sessions"),
    number("limits.start_timeout_ms", 10_000, 100, 600_000, "milliseconds"),
    number("limits.drain_timeout_ms", 10_000, 100, 600_000, "milliseconds"),
    number("limits.term_timeout_ms", 2_000, 100, 60_000, "milliseconds"),
    number("limits.kill_timeout_ms", 2_000, 100, 60_000, "milliseconds"),
    number("limits.repair_timeout_ms", 60_000, 1_000, 3_600_000, "milliseconds"),
    number("limits.journal_timeout_ms", 5_000, 100, 60_000, "milliseconds"),
    number("limits.probe_timeout_ms", 3_000, 100, 60_000, "milliseconds"),
    number("limits.orphan_grace_ms", 15_000, 1_000, 600_000, "milliseconds"),
    number("limits.worker_silent_ms", 10_000, 3_000, 600_000, "milliseconds"),
    number("limits.stall_after_ms", 250, 50, 60_000, "milliseconds"),
    number("limits.source_lost_after_ms", 60_000, 1_000, 86_400_000, "milliseconds"),
    number("limits.max_duration_hours", 24, 0, 8_760, "hours, 0 for no limit"),
    number("retention.max_age_hours", 0, 0, 876_000, "hours, 0 for no limit"),
    number("retention.max_bytes", 0, 0, 1 << 60, "bytes, 0 for no limit"),
    number("retention.min_free_bytes", 0, 0, 1 << 60, "bytes, 0 for no limit"),
    text("worker.path", "", "an absolute path, or \"\" for the daemon's own binary"),
    number("worker.restarts_max", 5, 0, 100, "restarts, 0 to end the session when its worker dies"),
    number("worker.restart_delay_ms", 1_000, 10, 60_000, "milliseconds"),
    number("worker.steady_seconds", 60, 1, 3_600, "seconds"),
    number("health.durable_age_ms", 10_000, 1_000, 3_600_000, "milliseconds"),
    number("health.low_space_seconds", 1_800, 1, 6_000_000, "seconds"),
    number("health.probe_seconds", 300, 10, 86_400, "seconds"),
    text(
        "log.level",
        "info",
        "a level (error, warn, info, debug, trace, off) or directives like \"info,shutterd::link=debug\"",
    ),
    text("log.format", "auto", "\"auto\", \"human\", \"json\" or \"journal\""),
];

/// The key at `path`.
pub fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `name` is a section.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.path.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The keys beside `path`, for the error that it is none of them.
pub fn known_beside(path: &str) -> String {
    let section = path.split_once('.').map_or("", |(section, _)| section);
    let inside = |key: &&Key| key.path.split_once('.').map_or("", |(section, _)| section) == section;
    let names: Vec<&str> = KEYS.iter().filter(inside).map(|key| key.path).collect();
    if section.is_empty() || names.is_empty() {
        return "there are state_dir, runtime_dir, media_dir, the sections api, http, media, limits, retention, worker, health, log, and [[devices]]"
            .to_owned();
    }
    format!("there are {}", names.join(", "))
}

const fn text(path: &'static str, default: &'static str, expected: &'static str) -> Key {
    Key { path, rule: Rule::Text { default, expected } }
}

const fn number(path: &'static str, default: u64, min: u64, max: u64, unit: &'static str) -> Key {
    Key { path, rule: Rule::Number { default, min, max, unit } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../config/shutterd.toml");

    /// The lines of `section`, before the devices.
    fn lines(section: &str) -> Vec<&'static str> {
        let keys = SHIPPED.split("# Devices:").next().expect("a split has a first part");
        let mut inside = "";
        let mut lines = Vec::new();
        for line in keys.lines() {
            if let Some(name) = line.strip_prefix('[') {
                inside = name.trim_end_matches(']');
            } else if inside == section {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn the_shipped_file_documents_every_key_with_its_range() {
        for key in &KEYS {
            let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
            let lines = lines(section);
            let at = lines.iter().position(|line| line.starts_with(&format!("#{name} = ")));
            let at = at.unwrap_or_else(|| panic!("{} is not in the shipped file", key.path));
            let comment: Vec<&str> =
                lines[..at].iter().rev().take_while(|line| line.starts_with("# ")).copied().collect();
            assert!(!comment.is_empty(), "{} has no comment", key.path);
            if let Rule::Number { min, max, .. } = key.rule {
                let range = format!("{min} to {max}");
                assert!(comment.iter().any(|line| line.contains(&range)), "{} lacks {range}", key.path);
            }
        }
    }

    #[test]
    fn every_default_is_within_its_range() {
        for key in &KEYS {
            if let Rule::Number { default, min, max, .. } = key.rule {
                assert!((min..=max).contains(&default), "{}", key.path);
            }
        }
    }
}
