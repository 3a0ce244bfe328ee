//! The log, written as it suits what stderr is: systemd's journal, a terminal, a file. Must never fail or
//! panic because nobody reads it.

mod chain;
mod journal_line;
mod journal_socket;

use std::io::{IsTerminal, Stderr, stderr};
use std::path::Path;

use rustix::fs::fstat;
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

pub use chain::chain;
use journal_line::JournalLine;
use journal_socket::JournalSocket;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it suits what stderr is.
    Auto,
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    Human,
    /// An object a line.
    Json,
    /// For systemd's journal: with its fields where stderr is the journal and that can be reached, else `<N>`
    /// with the priority of `syslog(3)` in front (see `sd-daemon(3)`). No time, since the journal has its own.
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
/// The variable that tells a process of ours which session it is for.
pub const CHILD_SESSION: &str = "SHUTTERD_CHILD_SESSION";

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
/// people. In the journal each of its lines names the session that it is for.
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
    start(format, level, std::env::var(CHILD_SESSION).ok())
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
    start(format, level, None)
}

fn start(format: Format, level: &str, session: Option<String>) -> Result<(), TelemetryError> {
    match Outlet::choose(format, stderr_is_the_journal(), Path::new(journal_socket::SOCKET), session) {
        Outlet::Socket(socket) => {
            registry().with(filter(level)?).with(socket).try_init()?;
            log_panics();
        }
        Outlet::Stream(format, session) => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = if stderr().is_terminal() && !no_colour { Colour::Coloured } else { Colour::Plain };
            subscriber((format, session), colour, level, stderr)?.try_init()?;
        }
    }
    Ok(())
}

/// Where lines go.
enum Outlet {
    /// To the journal, with their fields.
    Socket(JournalSocket<fn() -> Stderr>),
    /// To stderr; with the session that this whole process is for.
    Stream(Format, Option<String>),
}

impl Outlet {
    fn choose(format: Format, is_journal: bool, socket: &Path, session: Option<String>) -> Self {
        if !matches!(format, Format::Auto | Format::Journal) || !is_journal {
            return Self::Stream(format, session);
        }
        match JournalSocket::open(socket, session.clone(), stderr as fn() -> Stderr) {
            Ok(socket) => Self::Socket(socket),
            Err(_) => Self::Stream(Format::Journal, session),
        }
    }
}

/// Has a panic told as the line of the log that it is, with a priority and the session.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(tracing::field::display);
        let thread = std::thread::current();
        tracing::error!(thread = thread.name(), at, why = panic.payload_as_str(), "a thread panics");
    }));
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(level).map_err(|source| TelemetryError::Level { level: level.to_owned(), source })
}

fn subscriber<W>(
    (format, session): (Format, Option<String>),
    colour: Colour,
    level: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter(level)?;
    // Without this a failed write is told on stderr, which panics when stderr is what failed.
    let lines = fmt::layer().log_internal_errors(false).with_writer(writer);
    let lines = match format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Journal => lines.with_ansi(false).event_format(JournalLine { session }).boxed(),
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
    use std::os::unix::net::UnixDatagram;
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
        let form = (format, Some("s0".to_owned()));
        let subscriber = subscriber(form, colour, level, Arc::clone(&lines)).expect("a valid level");
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
            tracing::debug!(target: "t", session = "s2", "d");
        });
        let span = "t: session{id=\"s1\"}: ";
        let expected = format!(
            "<3>{span}first\n<3>second device=\"front\" session=s0\n<4>{span}w session=s0\n\
             <6>{span}i session=s0\n<7>{span}d session=\"s2\"\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_journal_is_asked_for_fields_where_stderr_is_the_journal_and_it_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let (there, gone) = (dir.path().join("there"), dir.path().join("gone"));
        let _journal = UnixDatagram::bind(&there).expect("a socket");
        let chosen = |format, is_journal, socket: &Path| match Outlet::choose(
            format,
            is_journal,
            socket,
            Some("s0".to_owned()),
        ) {
            Outlet::Socket(_) => None,
            Outlet::Stream(format, session) => Some((format, session.expect("it is kept"))),
        };
        let stream = |format| Some((format, "s0".to_owned()));
        assert_eq!(chosen(Format::Auto, true, &there), None);
        assert_eq!(chosen(Format::Journal, true, &there), None);
        assert_eq!(chosen(Format::Auto, true, &gone), stream(Format::Journal));
        assert_eq!(chosen(Format::Auto, false, &there), stream(Format::Auto));
        assert_eq!(chosen(Format::Journal, false, &there), stream(Format::Journal));
        for format in [Format::Human, Format::Json] {
            assert_eq!(chosen(format, true, &there), stream(format), "as the config wants it");
        }
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
        let error = subscriber((Format::Human, None), Colour::Plain, "a=b=c", stderr).err();
        assert!(matches!(error, Some(TelemetryError::Level { .. })), "{error:?}");
    }
}
