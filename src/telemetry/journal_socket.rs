//! Lines to systemd's journal by its own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>), which
//! unlike a stream carries fields: each field of an event is `SHUTTERD_` and its name. Must never hold
//! up its caller for long, nor lose a line because the journal is gone.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::journal_line::{SESSION, in_lines, priority, text};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// How long a line may wait for a journal that is behind.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);
/// Bytes of a value. All of a line has to fit into a datagram, of which the kernel takes some 200 KiB.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a field's name that the journal takes.
const NAME_BYTES_MAX: usize = 64;

/// Sends every event to the journal. What it doesn't get there goes to `stream`, as lines.
pub(super) struct JournalSocket<W> {
    socket: UnixDatagram,
    path: PathBuf,
    /// The session that this whole process is for.
    session: Option<String>,
    stream: W,
    /// Lines that the journal didn't take in time, and that no later line has told of yet.
    lost: AtomicU64,
}

impl<W> JournalSocket<W> {
    /// A way to the journal that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn open(path: &Path, session: Option<String>, stream: W) -> io::Result<Self> {
        // By its address each time: the socket may be another one after an upgrade of the journal.
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket, path: path.to_owned(), session, stream, lost: AtomicU64::new(0) })
    }
}

impl<S, W> Layer<S> for JournalSocket<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        extensions.insert(FormattedFields::<DefaultFields>::new(formatted(attributes)));
        extensions.insert(Values::of(attributes));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(known) = extensions.get_mut::<FormattedFields<DefaultFields>>() {
            known.fields.push_str(&format!(" {}", formatted(values)));
        }
        if let Some(known) = extensions.get_mut::<Values>() {
            values.record(known);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Ok(mut message) = text(event, context.event_scope(event), self.session.as_deref()) else {
            return;
        };
        let mut values = Values::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<Values>() {
                values.0.extend(of_span.0.iter().cloned());
            }
        }
        event.record(&mut values);
        if let Some(session) = self.session.as_ref().filter(|_| !values.have(SESSION)) {
            values.0.push((SESSION, session.clone()));
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            message.push_str(&format!(" (before this, the journal didn't take {lost} lines in time)"));
            values.0.push(("lines_lost", lost.to_string()));
        }
        match self.socket.send_to(&datagram(event, &message, &values), &self.path) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            }
            Err(_) => {
                let mut lines = String::new();
                // A text takes every line, and nobody is left to tell that the stream doesn't.
                let _ = in_lines(&message, *event.metadata().level(), &mut lines);
                let _ = self.stream.make_writer().write_all(lines.as_bytes());
            }
        }
    }
}

fn formatted(fields: impl RecordFields) -> String {
    let mut text = String::new();
    // A text takes everything.
    let _ = DefaultFields::new().format_fields(Writer::new(&mut text), fields);
    text
}

/// Fields with their values, but for the message.
#[derive(Default)]
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn of(attributes: &Attributes<'_>) -> Self {
        let mut values = Self::default();
        attributes.record(&mut values);
        values
    }

    fn have(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            self.0.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// An event in the journal's protocol.
fn datagram(event: &Event<'_>, message: &str, values: &Values) -> Vec<u8> {
    let metadata = event.metadata();
    let mut datagram = Vec::with_capacity(512);
    put(&mut datagram, "PRIORITY", &priority(*metadata.level()).to_string());
    put(&mut datagram, "SYSLOG_IDENTIFIER", "shutterd");
    put(&mut datagram, "MESSAGE", message);
    put(&mut datagram, "SHUTTERD_TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut datagram, "CODE_FILE", file);
        put(&mut datagram, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &values.0 {
        put(&mut datagram, &name_of(name), value);
    }
    datagram
}

/// What the journal calls a field: capitals, digits and underscores.
fn name_of(field: &str) -> String {
    let sane = |byte: u8| match byte.to_ascii_uppercase() {
        byte @ (b'A'..=b'Z' | b'0'..=b'9') => char::from(byte),
        _ => '_',
    };
    "SHUTTERD_".chars().chain(field.bytes().map(sane)).take(NAME_BYTES_MAX).collect()
}

/// Adds a field: `NAME=value`, or with the value's length where it has more than one line.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests;
