//! How damaged places of a recording are told.

use serde_json::{Value, json};

use super::text::plain;
use crate::matroska::{Place, Span, Timestamp};

/// Places that a sentence names; `--json` has them all.
const TOLD_MAX: usize = 5;

/// For people: bytes, and whose media of which time.
pub fn places_text(places: &[Place]) -> String {
    let told: Vec<String> = places.iter().take(TOLD_MAX).map(place_text).collect();
    let more = places.len().saturating_sub(TOLD_MAX);
    let rest = if more > 0 { format!(", and {more} more places") } else { String::new() };
    format!("bytes {}{rest}", told.join(", "))
}

fn place_text(place: &Place) -> String {
    let bytes = format!("{} to {}", place.bytes.start, place.bytes.end);
    let spans: Vec<String> = place.media.iter().map(span_text).collect();
    if spans.is_empty() { bytes } else { format!("{bytes} ({})", spans.join("; ")) }
}

fn span_text(span: &Span) -> String {
    let name = if span.name.is_empty() { &span.source_id } else { &span.name };
    format!("{} from {:.1} s to {:.1} s", plain(name), seconds(span.from), seconds(span.to))
}

/// For programs.
pub fn place_json(place: &Place) -> Value {
    let spans: Vec<Value> = place.media.iter().map(span_json).collect();
    json!({ "from": place.bytes.start, "to": place.bytes.end, "media": spans })
}

fn span_json(span: &Span) -> Value {
    let (from, to) = (seconds(span.from), seconds(span.to));
    json!({ "source": span.source_id, "name": span.name, "fromSeconds": from, "toSeconds": to })
}

fn seconds(at: Timestamp) -> f64 {
    at.ns() as f64 / 1e9
}
