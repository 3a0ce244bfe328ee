//! Lines for systemd's journal: what a person reads there, and the form of `sd-daemon(3)`, by which a stream
//! carries a line's priority.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// The field that every line about a session has.
pub(super) const SESSION: &str = "session";

/// `<priority>target: span{fields}: message fields`
pub(super) struct JournalLine {
    /// The session that this whole process is for.
    pub(super) session: Option<String>,
}

impl<S> FormatEvent<S, DefaultFields> for JournalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let text = text(event, context.event_scope(), self.session.as_deref())?;
        in_lines(&text, *event.metadata().level(), &mut writer)
    }
}

/// What a person reads: `target: span{fields}: message fields`, with the session that this whole process is
/// for, unless the event names one itself.
pub(super) fn text<S>(
    event: &Event<'_>,
    scope: Option<Scope<'_, S>>,
    session: Option<&str>,
) -> Result<String, fmt::Error>
where
    S: for<'a> LookupSpan<'a>,
{
    let mut text = format!("{}: ", event.metadata().target());
    for span in scope.into_iter().flat_map(Scope::from_root) {
        let extensions = span.extensions();
        let fields = extensions.get::<FormattedFields<DefaultFields>>().map_or("", |fields| fields.as_str());
        text.push_str(span.name());
        if !fields.is_empty() {
            text.push_str(&format!("{{{fields}}}"));
        }
        text.push_str(": ");
    }
    DefaultFields::new().format_fields(Writer::new(&mut text), event)?;
    if let Some(session) = session.filter(|_| event.metadata().fields().field(SESSION).is_none()) {
        text.push_str(&format!(" {SESSION}={session}"));
    }
    Ok(text)
}

/// Writes `text` as a stream to the journal carries it. The journal makes a record of each line: every
/// one needs its priority.
pub(super) fn in_lines(text: &str, level: Level, writer: &mut impl fmt::Write) -> fmt::Result {
    let priority = priority(level);
    text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
}

/// The priority of `syslog(3)`.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
