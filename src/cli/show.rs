//! Sessions, receipts and progress as text for people.

use super::text::{bytes, count, plain, seconds, table};
use super::view::View;
use crate::api::proto;
use crate::clock::WallTime;
use crate::session::{Receipt, SourceReceipt};

/// A session in a few lines, with its receipt if there is one.
pub fn session(view: &View) -> String {
    let mut lines = vec![format!("session   {}  {}", plain(view.text("_id")), plain(view.text("name")))];
    lines.push(format!("state     {}", state(view)));
    for (label, time) in [("created", view.text("timestamp")), ("expires", view.meta("expires"))] {
        if !time.is_empty() {
            lines.push(format!("{label:<8}  {}", plain(time)));
        }
    }
    let sources: Vec<String> = view.sources().iter().map(source).collect();
    if !sources.is_empty() {
        lines.push(format!("sources   {}", sources.join(", ")));
    }
    if let Some(account) = &view.receipt {
        lines.push(receipt(view, account));
    }
    lines.join("\n")
}

/// `active (working)`.
pub fn state(view: &View) -> String {
    match (view.text("state"), view.meta("workerState")) {
        (state, "") => plain(state),
        (state, worker) => format!("{} ({})", plain(state), plain(worker)),
    }
}

/// What came of a session: how it ended, its sources, its files, and whether anything is missing.
pub fn receipt(view: &View, receipt: &Receipt) -> String {
    let mut lines =
        vec![format!("ended by  {}{}", receipt.end_reason, if receipt.forced { ", by force" } else { "" })];
    lines.push(format!("devices   {}", release(receipt)));
    if let (Some(asked), Some(done)) = (receipt.requested_at, receipt.finalized_at) {
        lines.push(format!("media     final {} after the stop", seconds(between(asked, done))));
    }
    if !receipt.sources.is_empty() {
        lines.extend([String::new(), sources(view, receipt)]);
    }
    if !receipt.files.is_empty() {
        lines.extend([String::new(), files(receipt)]);
    }
    lines.extend([String::new(), verdict(receipt)]);
    lines.extend(receipt.warnings.iter().map(|warning| format!("note: {}", plain(warning))));
    if let Some(removal) = &receipt.removal {
        lines.push(match removal.removed_at {
            Some(time) => format!("the media was removed at {time} ({})", removal.reason.as_str()),
            None => format!("the media is to be removed ({})", removal.reason.as_str()),
        });
    }
    lines.join("\n")
}

/// How far a session is, in one line.
pub fn progress(view: &View, progress: Option<&proto::Progress>) -> String {
    let Some(progress) = progress else { return state(view) };
    let mut parts = vec![
        state(view),
        format!("{} captured", seconds(progress.captured_seconds)),
        format!("{} durable", bytes(progress.durable_bytes)),
    ];
    if progress.pending_bytes > 0 {
        parts.push(format!("{} not yet", bytes(progress.pending_bytes)));
    }
    if progress.queued_packets > 0 {
        parts.push(waiting(progress.queued_packets));
    }
    let silent = progress.sources.iter().filter(|source| source.state == "degraded");
    parts.extend(
        silent.map(|source| format!("{}: {}", plain(view.source_name(&source.id)), plain(&source.reason))),
    );
    parts.join(", ")
}

/// `2 packets waiting`.
pub fn waiting(packets: u64) -> String {
    count(usize::try_from(packets).unwrap_or(usize::MAX), "packet waiting", "packets waiting")
}

fn source(source: &serde_json::Value) -> String {
    let text = |key: &str| source.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let name = if text("name").is_empty() { text("id") } else { text("name") };
    let kind = if text("type").is_empty() { text("device") } else { text("type") };
    format!("{} ({})", plain(name), plain(kind))
}

fn release(receipt: &Receipt) -> String {
    match (receipt.requested_at, receipt.released_at) {
        (Some(asked), Some(released)) if released < asked => {
            format!("released {} before the stop", seconds(between(released, asked)))
        }
        (Some(asked), Some(released)) => {
            format!("released {} after the stop", seconds(between(asked, released)))
        }
        (None, Some(released)) => format!("released at {released}"),
        (_, None) => "NOT KNOWN TO BE RELEASED".to_owned(),
    }
}

fn sources(view: &View, receipt: &Receipt) -> String {
    let rows: Vec<Vec<String>> = receipt
        .sources
        .iter()
        .map(|source| {
            let more = if source.at_least { "+" } else { "" };
            vec![
                plain(view.source_name(&source.id)),
                source.media.to_string(),
                format!("{}{more}", source.captured),
                source.written.to_string(),
                source.dropped.to_string(),
                source.lost.to_string(),
                source.missed.to_string(),
                plain(&source.format),
            ]
        })
        .collect();
    let head = ["SOURCE", "TYPE", "CAPTURED", "WRITTEN", "DROPPED", "LOST", "MISSED", "FORMAT"];
    table(&head, &[2, 3, 4, 5, 6], &rows)
}

fn files(receipt: &Receipt) -> String {
    let rows: Vec<Vec<String>> = receipt
        .files
        .iter()
        .map(|file| {
            let note = if file.repaired { " (repaired)" } else { "" };
            vec![bytes(file.bytes), seconds(file.duration_seconds), format!("{}{note}", plain(&file.path))]
        })
        .collect();
    table(&["SIZE", "LENGTH", "FILE"], &[0, 1], &rows)
}

fn verdict(receipt: &Receipt) -> String {
    // Until then the counts are those so far.
    if receipt.finalized_at.is_none() {
        return format!(
            "the media is not final yet: `shutterd session show {}` tells what came of it",
            receipt.session_id
        );
    }
    let is_short = |source: &&SourceReceipt| source.lost + source.dropped > 0 || source.at_least;
    let short = receipt.sources.iter().filter(is_short).count();
    let gaps: usize = receipt.sources.iter().map(|source| source.gaps.len()).sum();
    let mut line = match short {
        0 => "everything captured is in the files".to_owned(),
        _ => "not everything captured is in the files".to_owned(),
    };
    if gaps > 0 {
        line.push_str(&format!("; {} in what the devices delivered", count(gaps, "gap", "gaps")));
    }
    line
}

/// Seconds from one time to a later one.
fn between(from: WallTime, to: WallTime) -> f64 {
    (to.nanos() - from.nanos()) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::EndReason;

    fn settled(finalized_at: Option<&str>) -> Receipt {
        let time = |text: &str| text.parse().expect("the test wrote a time");
        Receipt {
            session_id: "s".parse().expect("the test wrote an id"),
            end_reason: EndReason::StopRequested,
            forced: false,
            requested_at: Some(time("2024-04-01T10:32:00.000Z")),
            released_at: Some(time("2024-04-01T10:32:00.100Z")),
            finalized_at: finalized_at.map(time),
            sources: Vec::new(),
            files: Vec::new(),
            removal: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_claimed_of_media_that_is_not_final() {
        let released = verdict(&settled(None));
        assert!(!released.contains("is in the files"), "{released}");
        assert!(released.contains("not final yet") && released.contains("session show s"), "{released}");
        let last = verdict(&settled(Some("2024-04-01T10:32:00.250Z")));
        assert_eq!(last, "everything captured is in the files");
    }

    #[test]
    fn a_release_is_told_by_how_far_it_is_from_the_stop_on_either_side() {
        let after = settled(None);
        assert_eq!(release(&after), format!("released {} after the stop", seconds(0.1)));
        let before = Receipt { requested_at: after.released_at, released_at: after.requested_at, ..after };
        assert_eq!(release(&before), format!("released {} before the stop", seconds(0.1)));
    }

    #[test]
    fn one_packet_is_one_packet() {
        assert_eq!((waiting(1), waiting(2)), ("1 packet waiting".into(), "2 packets waiting".into()));
    }
}
