//! The protocol, read back by a journal of the test's own.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tracing::subscriber::with_default;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use super::*;

/// As a file that takes lines.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A journal of a test, and what logs to it.
struct Scene {
    dir: TempDir,
    journal: UnixDatagram,
    stream: Stream,
}

impl Scene {
    fn set() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = UnixDatagram::bind(dir.path().join("socket")).expect("a socket");
        journal.set_nonblocking(true).expect("a socket can be asked without waiting");
        Self { dir, journal, stream: Stream::default() }
    }

    fn log(&self, session: Option<&str>, log: impl FnOnce()) {
        let stream = self.stream.clone();
        let path = self.dir.path().join("socket");
        let layer = JournalSocket::open(&path, session.map(str::to_owned), move || stream.clone());
        with_default(registry().with(layer.expect("it listens")), log);
    }

    /// The next record's fields.
    fn next(&self) -> Option<Vec<(String, String)>> {
        let mut bytes = vec![0; 1 << 20];
        let length = self.journal.recv(&mut bytes).ok()?;
        Some(fields(&bytes[..length]))
    }
}

/// Reads what the journal's protocol says.
fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|byte| b"=\n".contains(byte)).expect("a name has an end");
        let (name, rest) = (&datagram[..end], &datagram[end + 1..]);
        let (value, rest) = if datagram[end] == b'=' {
            rest.split_at(rest.iter().position(|byte| *byte == b'\n').expect("a value has an end"))
        } else {
            let (length, rest) = rest.split_at(8);
            rest.split_at(u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize)
        };
        assert_eq!(rest[0], b'\n');
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        fields.push((text(name), text(value)));
        datagram = &rest[1..];
    }
    fields
}

fn value<'a>(record: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = record.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is there once: {record:?}");
    value
}

#[test]
fn an_event_is_a_record_with_its_fields_and_a_message_that_can_be_read_alone() {
    let scene = Scene::set();
    scene.log(None, || {
        tracing::info!(target: "t", session = %"s1", frames = 3, "at.x-y" = "é", none = None::<u8>, "stop");
    });
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "MESSAGE"), Some("t: stop session=s1 frames=3 at.x-y=\"é\""));
    let known = [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "shutterd"),
        ("SHUTTERD_TARGET", "t"),
        ("SHUTTERD_SESSION", "s1"),
        ("SHUTTERD_FRAMES", "3"),
        ("SHUTTERD_AT_X_Y", "é"),
    ];
    for (name, expected) in known {
        assert_eq!(value(&record, name), Some(expected), "{name}");
    }
    assert_eq!(value(&record, "SHUTTERD_NONE"), None);
    assert_eq!(value(&record, "SHUTTERD_MESSAGE"), None);
    assert!(value(&record, "CODE_FILE").is_some_and(|file| file.ends_with("tests.rs")));
    assert_eq!(scene.next(), None, "one record for one event");
}

#[test]
fn levels_are_the_priorities_of_syslog() {
    let scene = Scene::set();
    scene.log(None, || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
    });
    for expected in ["3", "4", "6", "7", "7"] {
        assert_eq!(value(&scene.next().expect("a record"), "PRIORITY"), Some(expected));
    }
}

#[test]
fn every_line_of_a_process_that_is_for_one_session_names_it_once() {
    let scene = Scene::set();
    scene.log(Some("s0"), || {
        tracing::warn!(target: "t", device = "front", "degraded");
        tracing::warn!(target: "t", session = "s1", "of another");
    });
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_SESSION"), Some("s0"));
    assert_eq!(value(&record, "MESSAGE"), Some("t: degraded device=\"front\" session=s0"));
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_SESSION"), Some("s1"));
    assert_eq!(value(&record, "MESSAGE"), Some("t: of another session=\"s1\""));
}

#[test]
fn the_fields_of_spans_are_the_records_too() {
    let scene = Scene::set();
    scene.log(None, || {
        let span = tracing::info_span!("capture", session = "s1", late = tracing::field::Empty);
        let _inside = span.enter();
        span.record("late", 2);
        tracing::info!(target: "t", "begun");
    });
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_SESSION"), Some("s1"));
    assert_eq!(value(&record, "SHUTTERD_LATE"), Some("2"));
    assert_eq!(value(&record, "MESSAGE"), Some("t: capture{session=\"s1\" late=2}: begun"));
}

#[test]
fn a_value_of_several_lines_stays_one_and_a_long_one_is_cut() {
    let scene = Scene::set();
    scene.log(None, || {
        tracing::error!(target: "t", error = "first\nMESSAGE=forged\n", "it failed");
        tracing::error!(target: "t", error = "é".repeat(100_000), "it failed");
    });
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_ERROR"), Some("first\nMESSAGE=forged\n"));
    assert_eq!(value(&record, "MESSAGE"), Some(r#"t: it failed error="first\nMESSAGE=forged\n""#));
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_ERROR"), Some("é".repeat(VALUE_BYTES_MAX / 2).as_str()));
}

#[test]
fn a_journal_that_has_gone_loses_no_line_and_is_used_once_it_is_back() {
    let mut scene = Scene::set();
    let path = scene.dir.path().join("socket");
    let layer = JournalSocket::open(&path, Some("s0".to_owned()), {
        let stream = scene.stream.clone();
        move || stream.clone()
    });
    with_default(registry().with(layer.expect("it listens")), || {
        std::fs::remove_file(&path).expect("it was there");
        tracing::warn!(target: "t", "kept");
        scene.journal = UnixDatagram::bind(&path).expect("a socket");
        tracing::warn!(target: "t", "seen");
    });
    assert_eq!(*scene.stream.0.lock().expect("no test panics with it"), b"<4>t: kept session=s0\n");
    assert_eq!(value(&scene.next().expect("a record"), "MESSAGE"), Some("t: seen session=s0"));
}

#[test]
fn a_journal_that_is_behind_holds_nobody_up_and_the_next_line_says_what_it_missed() {
    let scene = Scene::set();
    let path = scene.dir.path().join("socket");
    let full = UnixDatagram::unbound().expect("a socket");
    full.set_nonblocking(true).expect("it needn't wait");
    while full.send_to(b"A=b\n", &path).is_ok() {}
    scene.log(None, || {
        tracing::warn!(target: "t", "missed");
        tracing::warn!(target: "t", "missed");
        while scene.next().is_some() {}
        tracing::warn!(target: "t", "told");
    });
    let record = scene.next().expect("a record");
    assert_eq!(value(&record, "SHUTTERD_LINES_LOST"), Some("2"));
    assert!(value(&record, "MESSAGE").is_some_and(|it| it.starts_with("t: told (before this")), "{record:?}");
    assert!(scene.stream.0.lock().expect("no test panics with it").is_empty());
}
