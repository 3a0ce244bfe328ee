//! The log, written to stderr as it suits what stderr is: systemd's journal, a terminal, a file.
//! Must never fail or panic because nobody reads it.

mod chain;
mod journal_line;

use std::io::{IsTerminal, stderr};

use rustix::fs::fstat;
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

pub use chain::chain;
use journal_line::JournalLine;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it suits what stderr is.
    Auto,
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    Human,
    /// An object a line.
    Json,
    /// For systemd's journal: `<N>` with the priority of `syslog(3)` in front (see `sd-daemon(3)`), no
    /// time, since the journal has its own.
    Journal,
}

/// The log can't be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directives can't be read.
    #[error(
        "log level {level:?} is not valid: use error, warn, info, debug, trace, off, or directives like info,shutterd::link=debug"
    )]
    Level {
        /// As given.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// It is set up already.
    #[error("the log is already set up in this process: call init once")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The variable that tells a process of ours how the daemon logs.
pub const CHILD_LOG: &str = "SHUTTERD_CHILD_LOG";

/// The value of [`CHILD_LOG`] for a daemon that logs like this.
pub fn child_log(format: Format, level: &str) -> String {
    let word = match format {
        Format::Auto => "auto",
        Format::Human => "human",
        Format::Json => "json",
        Format::Journal => "journal",
    };
    format!("{word}:{level}")
}

/// Sets up the log of a worker, probe or repair: like the daemon that started it, else warnings for
/// people.
///
/// # Errors
/// As [`init`].
pub fn init_child() -> Result<(), TelemetryError> {
    let told = std::env::var(CHILD_LOG).unwrap_or_default();
    let (word, level) = told.split_once(':').unwrap_or(("auto", "warn"));
    let format = match word {
        "human" => Format::Human,
        "json" => Format::Json,
        "journal" => Format::Journal,
        _ => Format::Auto,
    };
    init(format, level)
}

/// Colours for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Coloured,
    Plain,
}

/// Sets up the log of this process: `level` is a level or directives, as in the config.
///
/// # Errors
/// Directives that can't be read, and a second call.
pub fn init(format: Format, level: &str) -> Result<(), TelemetryError> {
    let format = match format {
        Format::Auto if stderr_is_the_journal() => Format::Journal,
        Format::Auto => Format::Human,
        given => given,
    };
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = if stderr().is_terminal() && !no_colour { Colour::Coloured } else { Colour::Plain };
    subscriber(format, colour, level, stderr)?.try_init()?;
    Ok(())
}

fn subscriber<W>(
    format: Format,
    colour: Colour,
    level: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level)
        .map_err(|source| TelemetryError::Level { level: level.to_owned(), source })?;
    // Without this a failed write is told on stderr, which panics when stderr is what failed.
    let lines = fmt::layer().log_internal_errors(false).with_writer(writer);
    let lines = match format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Journal => lines.with_ansi(false).event_format(JournalLine).boxed(),
        Format::Auto | Format::Human => lines.with_ansi(colour == Colour::Coloured).boxed(),
    };
    Ok(registry().with(filter).with(lines))
}

/// `JOURNAL_STREAM` holds device and inode of the stream to the journal; it may be inherited by a process
/// whose stderr goes elsewhere (`systemd.exec(5)`).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    /// Where a test's lines go.
    #[derive(Default)]
    struct Lines(Mutex<Vec<u8>>);

    impl io::Write for &Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, colour: Colour, level: &str, log: impl FnOnce()) -> String {
        let lines = Arc::new(Lines::default());
        let subscriber = subscriber(format, colour, level, Arc::clone(&lines)).expect("a valid level");
        with_default(subscriber, log);
        let text = lines.0.lock().expect("no test panics with it").clone();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn the_journal_gets_priorities_and_one_prefix_a_line() {
        let text = logged(Format::Journal, Colour::Plain, "trace", || {
            let span = tracing::info_span!("session", id = "s1");
            let _inside = span.enter();
            tracing::error!(target: "t", device = "front", "first\nsecond");
            tracing::warn!(target: "t", "w");
            tracing::info!(target: "t", "i");
            tracing::debug!(target: "t", "d");
        });
        let span = "t: session{id=\"s1\"}: ";
        let expected =
            format!("<3>{span}first\n<3>second device=\"front\"\n<4>{span}w\n<6>{span}i\n<7>{span}d\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_an_object_a_line_with_its_fields() {
        let text = logged(Format::Json, Colour::Plain, "info", || {
            tracing::info!(session = "s1", frames = 3, "started");
            tracing::debug!("not at this level");
        });
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&line["level"], &line["session"], &line["frames"]),
            (&"INFO".into(), &"s1".into(), &3.into())
        );
        assert_eq!(line["message"], "started");
    }

    #[test]
    fn people_get_colours_only_where_they_were_asked_for() {
        let log = || tracing::warn!("low on disk");
        assert!(!logged(Format::Human, Colour::Plain, "info", log).contains('\u{1b}'));
        assert!(logged(Format::Human, Colour::Coloured, "info", log).contains('\u{1b}'));
    }

    #[test]
    fn a_level_that_cannot_be_read_is_an_error() {
        let error = subscriber(Format::Human, Colour::Plain, "a=b=c", stderr).err();
        assert!(matches!(error, Some(TelemetryError::Level { .. })), "{error:?}");
    }
}
