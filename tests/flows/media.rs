//! What is in the files, as programs count it that aren't ours, against what a receipt says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use shutterd::api::convert::receipt_from_proto;
use shutterd::api::proto::{Receipt, SourceReceipt};
use shutterd::clock::WallTime;

use crate::site::Site;

/// Checks a final receipt against everything that is on the disk: every file plays without a warning
/// and has the hash that is told, its packets and samples are those that are told, the account adds
/// up, and the receipt lies beside the media.
pub fn check(site: &Site, receipt: &Receipt) {
    for source in &receipt.sources {
        assert_eq!(source.captured, source.written + source.dropped + source.lost, "adds up: {source:?}");
    }
    assert!(!receipt.finalized_at.is_empty(), "finalized: {receipt:?}");
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for file in &receipt.files {
        let path = Path::new(&file.path);
        let bytes = fs::read(path).expect("a file of the receipt is there");
        assert_eq!(bytes.len() as u64, file.bytes, "length of {}", file.path);
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file.blake3, "hash of {}", file.path);
        for (source, units) in count(path) {
            *counted.entry(source).or_default() += units;
        }
        let told = finds_nothing_wrong("mkvinfo", &["--ui-language", "en_US", "--all"], path);
        let has_cues = String::from_utf8_lossy(&told).contains("|+ Cues");
        assert!(has_cues || counted.values().all(|units| *units == 0), "{} can be sought in", file.path);
        check_tags(path, receipt);
    }
    for source in &receipt.sources {
        let found = counted.remove(&source.id).unwrap_or(0);
        assert_eq!(found, in_file(source), "what the files hold of {source:?}");
    }
    assert!(counted.is_empty(), "no other tracks: {counted:?}");
    if let Some(file) = receipt.files.first() {
        let beside = Path::new(&file.path).with_file_name("receipt.json");
        let json = fs::read(&beside).expect("the receipt lies beside the media");
        let read: shutterd::session::Receipt = serde_json::from_slice(&json).expect("it is a receipt");
        assert_eq!(shutterd::api::convert::receipt_to_proto(&read), *receipt, "{}", beside.display());
        let names = fs::read_dir(site.session_dir(&receipt.session_id)).expect("the session's directory");
        assert_eq!(names.count(), receipt.files.len() + 1, "nothing else lies there");
    }
}

/// Checks what a file says of itself: its session, when it begins, and the gaps of its tracks.
fn check_tags(path: &Path, receipt: &Receipt) {
    let args = ["-v", "error", "-show_entries", "format_tags:stream_tags", "-of", "json"];
    let probed: Value =
        serde_json::from_slice(&finds_nothing_wrong("ffprobe", &args, path)).expect("ffprobe writes JSON");
    let tags = &probed["format"]["tags"];
    assert_eq!(tags["SESSION_ID"], *receipt.session_id, "{}", path.display());
    assert_eq!(tags["SESSION_NAME"], format!("Visit {}", receipt.session_id), "{}", path.display());
    let recorded: WallTime = text(&tags["DATE_RECORDED"]).parse().expect("times are RFC 3339");
    // One that follows another, of which nothing was left, has room before its first packet.
    let is_first = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("-0001"));
    let is_alone = receipt.files.len() == 1 && is_first && !receipt.files[0].repaired;
    if is_alone {
        let firsts = receipt.sources.iter().filter(|source| !source.first_timestamp.is_empty());
        let firsts = firsts.map(|source| source.first_timestamp.parse().expect("times are RFC 3339"));
        let begin: Option<WallTime> = firsts.min();
        assert!(begin.is_none_or(|begin| begin == recorded), "{recorded} is not {begin:?}");
    }
    let read = receipt_from_proto(receipt.clone()).expect("it is ours");
    for stream in probed["streams"].as_array().expect("ffprobe lists streams") {
        let id = text(&stream["tags"]["SOURCE_ID"]);
        let source = read.sources.iter().find(|source| source.id == id).expect("a source of the receipt");
        let gaps = match &stream["tags"]["GAPS"] {
            Value::Null => json!([]),
            told => serde_json::from_str(text(told)).expect("gaps are told as JSON"),
        };
        if is_alone {
            assert_eq!(gaps, json!(source.gaps), "gaps of {id} in {}", path.display());
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Frames, or samples with what was filled, that the files should hold of a source.
fn in_file(source: &SourceReceipt) -> u64 {
    if source.r#type == "audio" { source.written + source.filled } else { source.written }
}

/// Packets of each picture track and decoded samples of each sound track, by the id of the source.
pub fn count(path: &Path) -> Vec<(String, u64)> {
    let shown = "stream=index,codec_type,nb_read_packets,channels:stream_tags=SOURCE_ID";
    let args = ["-count_packets", "-show_entries", shown, "-of", "json"];
    let mut level = "warning";
    if has_empty_track(path) {
        // All that it warns of then is that it knows no format of what isn't there.
        level = "error";
    }
    let output = finds_nothing_wrong("ffprobe", &[&["-v", level], &args[..]].concat(), path);
    let probed: Value = serde_json::from_slice(&output).expect("ffprobe writes JSON");
    let streams = probed["streams"].as_array().expect("ffprobe lists streams");
    let counts = streams.iter().map(|stream| {
        let source = stream["tags"]["SOURCE_ID"].as_str().expect("a track names its source");
        let packets = stream["nb_read_packets"].as_str().and_then(|count| count.parse().ok());
        let units = match stream["codec_type"].as_str() {
            Some("audio") => {
                samples(path, &stream["index"].to_string()) / stream["channels"].as_u64().expect("channels")
            }
            // Of none it says nothing.
            _ => packets.unwrap_or(0),
        };
        (source.to_owned(), units)
    });
    counts.collect()
}

/// Whether a source has delivered nothing for this file.
fn has_empty_track(path: &Path) -> bool {
    let args = ["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"];
    let told = String::from_utf8_lossy(&finds_nothing_wrong("ffprobe", &args, path)).into_owned();
    told.lines().any(|packets| packets.trim() == "0" || packets.trim() == "N/A")
}

/// Samples of all channels that a track decodes to.
fn samples(path: &Path, track: &str) -> u64 {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-map", &format!("0:{track}"), "-f", "s16le", "-"])
        .output()
        .expect("ffmpeg can be run");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout.len() as u64 / 2
}

/// What a program that isn't ours says of a file that it finds nothing wrong with.
pub fn finds_nothing_wrong(program: &str, args: &[&str], path: &Path) -> Vec<u8> {
    let output = Command::new(program).args(args).arg(path).output().expect("the reader can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", path.display());
    assert!(said.is_empty(), "{program} {}: {said}", path.display());
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = text.lines().find(|line| line.starts_with("Warning") || line.starts_with("Error"));
    assert_eq!(complaint, None, "{program} {}", path.display());
    output.stdout
}
