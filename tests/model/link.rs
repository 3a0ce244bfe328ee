//! The link: whatever way the bytes are cut, and wherever a connection breaks, each message is heard once and in
//! its order, and nothing is heard that was not said.

use shutterd::link::message::{FromWorker, Report, Working, from_worker::Body};
use shutterd::link::{Decoder, FrameError, MESSAGE_BYTES_MAX, encode};

use super::seeds::{Chance, try_histories};

const RUNS: u64 = 3000;

/// One end of a connection, as the other hears it.
struct Connection {
    decoder: Decoder,
    /// Messages whose every byte has arrived, in their order.
    said: Vec<FromWorker>,
    heard: Vec<FromWorker>,
    /// What is under way: bytes, and the message that is whole with the last of them.
    under_way: Vec<(Vec<u8>, FromWorker)>,
    /// It was sent what is no message.
    broken: bool,
}

impl Connection {
    fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            said: Vec::new(),
            heard: Vec::new(),
            under_way: Vec::new(),
            broken: false,
        }
    }

    /// Up to `count` bytes arrive at once.
    fn arrive(&mut self, count: usize) {
        let mut piece = Vec::new();
        while piece.len() < count && !self.under_way.is_empty() {
            let (bytes, _) = &mut self.under_way[0];
            let taken = bytes.len().min(count - piece.len());
            piece.extend(bytes.drain(..taken));
            if bytes.is_empty() {
                let (_, message) = self.under_way.remove(0);
                self.said.push(message);
            }
        }
        self.decoder.push(&piece);
    }

    /// What has arrived is taken out; up to `count` messages.
    fn hear(&mut self, count: u64) -> Result<(), String> {
        for _ in 0..count {
            match self.decoder.next_message::<FromWorker>() {
                Ok(Some(message)) => self.heard.push(message),
                Ok(None) => break,
                Err(FrameError::TooLong { .. }) if self.broken => break,
                Err(error) => return Err(format!("what was said can't be read: {error}")),
            }
        }
        if self.said.starts_with(&self.heard) {
            return Ok(());
        }
        Err(format!("{} messages arrived, {} were heard, and differ", self.said.len(), self.heard.len()))
    }
}

fn message(chance: &mut Chance, number: u64) -> FromWorker {
    let body = match chance.within(0..4) {
        0 => Body::Working(Working { origin: number, first_segment: 1 }),
        // Its bytes are nothing but zeros, which look like empty messages.
        1 => Body::Report(Report { account: vec![0; chance.within(0..600) as usize], ..Report::default() }),
        2 => Body::Report(Report { account: b"{}".to_vec(), durable_at: number, ..Report::default() }),
        _ => Body::Report(Report {
            account: vec![255; chance.within(0..20_000) as usize],
            ..Report::default()
        }),
    };
    FromWorker { body: Some(body) }
}

fn play(seed: u64) -> Result<(), String> {
    let mut chance = Chance::of(seed);
    let mut connections: Vec<Connection> = Vec::new();
    let mut told = Vec::new();
    for number in 0..chance.within(10..80) {
        if connections.is_empty() || chance.once_in(20) {
            connections.push(Connection::new());
        }
        let at = chance.within(0..connections.len() as u64) as usize;
        let connection = &mut connections[at];
        match chance.within(0..10) {
            0..=3 if !connection.broken => {
                let message = message(&mut chance, number);
                told.push(format!("{at}: says {} bytes", encode(&message).len()));
                connection.under_way.push((encode(&message), message));
            }
            4 if !connection.broken && chance.once_in(5) => {
                told.push(format!("{at}: says what is too long"));
                let length = MESSAGE_BYTES_MAX as u64 + chance.within(1..1000);
                let bytes = u32::try_from(length).expect("it is below 4 GiB").to_le_bytes();
                connection.under_way.push((bytes.to_vec(), FromWorker { body: None }));
                connection.broken = true;
            }
            5..=7 => {
                let most = chance.one_of(&[9, 9, 40_000]);
                let count = chance.within(1..most) as usize;
                told.push(format!("{at}: {count} bytes arrive"));
                connection.arrive(count);
            }
            _ => {
                told.push(format!("{at}: is heard"));
                let count = chance.within(1..5);
                connection.hear(count).map_err(|wrong| format!("{}\n{wrong}", told.join("\n")))?;
            }
        }
    }
    for (at, connection) in connections.iter_mut().enumerate() {
        // Some break with a message under way; the others come to their end.
        if chance.once_in(2) {
            connection.arrive(usize::MAX);
        }
        let whole = connection.said.iter().filter(|message| message.body.is_some()).count();
        let heard = connection.hear(u64::MAX).and_then(|()| {
            let count = connection.heard.len();
            if count == whole { Ok(()) } else { Err(format!("{whole} messages arrived, {count} were heard")) }
        });
        heard.map_err(|wrong| format!("{}\n{at}: {wrong}", told.join("\n")))?;
    }
    Ok(())
}

#[test]
fn messages_are_heard_once_and_in_order_however_they_are_cut_and_wherever_a_connection_breaks() {
    try_histories(RUNS, play);
}
