//! Synthetic sources in every format at once: what is counted in the file is what the receipt says,
//! none of it is missing, and all of it lasts as long.

use std::process::Command;

use serde_json::Value;
use tokio::time::Instant;

use crate::agent::session;
use crate::clip::{only_file, packets, tags};
use crate::host::Host;
use crate::site::Site;

const CAMERAS: [&str; 5] = ["MJPG", "YUYV", "NV12", "GREY", "RGB3"];

fn devices() -> Vec<String> {
    let cameras = CAMERAS.map(|code| {
        format!(
            "[[devices]]\nid = \"{code}\"\nkind = \"synthetic\"\nmedia = \"video\"\npixel_format = \"{code}\"\n\
             width = 320\nheight = 240\nframe_rate = 30\n"
        )
    });
    let microphone = |id: &str, rate: u32, channels: u32| {
        format!(
            "[[devices]]\nid = \"{id}\"\nkind = \"synthetic\"\nmedia = \"audio\"\nsample_rate = {rate}\n\
             channels = {channels}\n"
        )
    };
    let microphones = [microphone("mic-mono", 48_000, 1), microphone("mic-stereo", 44_100, 2)];
    cameras.into_iter().chain(microphones).collect()
}

#[tokio::test]
async fn five_seconds_of_every_format_are_whole_and_of_one_length() {
    let host = Host::serve(&Site::new("", &devices())).await;
    let ids = [&CAMERAS[..], &["mic-mono", "mic-stereo"]].concat();
    host.start(session("s1", &ids)).await.expect("the session starts");
    let started = Instant::now();
    let least: Vec<(&str, u64)> =
        ids.iter().map(|id| (*id, if id.starts_with("mic") { 44_100 * 5 } else { 150 })).collect();
    host.recorded("s1", &least).await;
    let receipt = host.receipt("s1").await;
    let lasted = started.elapsed().as_secs_f64();
    crate::media::check(&host.site, &receipt);
    assert!(receipt.warnings.is_empty(), "{:?}", receipt.warnings);
    let path = only_file(&receipt);
    let seconds = receipt.files[0].duration_seconds;
    assert!(seconds <= lasted + 0.5, "{seconds} s were recorded in {lasted} s");
    let lengths: Vec<f64> = receipt
        .sources
        .iter()
        .map(|source| {
            assert_eq!((source.captured, source.missed), (source.written, 0), "{source:?}");
            assert!(source.gaps.is_empty() && source.filled == 0 && source.corrupt == 0, "{source:?}");
            let rate = match source.id.as_str() {
                "mic-mono" => 48_000.0,
                "mic-stereo" => 44_100.0,
                _ => 30.0,
            };
            source.written as f64 / rate
        })
        .collect();
    // A source may begin later than the first; from then on it has all, up to the same instant.
    let (shortest, longest) = lengths.iter().fold((f64::MAX, 0.0f64), |(a, b), it| (a.min(*it), b.max(*it)));
    assert!(longest - seconds < 0.04 && seconds - shortest < 0.5, "{lengths:?} of {seconds} s");
    assert_same_end(&receipt.sources);

    for code in CAMERAS {
        let pictures = packets(&path, code);
        assert!(
            pictures
                .iter()
                .all(|picture| picture.starts_with(&[0xff, 0xd8]) && picture.ends_with(&[0xff, 0xd9]))
        );
    }
    let numbers: Vec<u64> = packets(&path, "MJPG").iter().map(|picture| number_of(picture)).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert_eq!(numbers[0], 0, "the first frame that the camera made is there");

    let probed = ffprobe(&path);
    let told: f64 = probed["format"]["duration"].as_str().expect("a length").parse().expect("seconds");
    assert!((told - seconds).abs() < 0.034, "ffprobe tells {told} s, the receipt {seconds} s");
    let sizes: Vec<_> =
        probed["streams"].as_array().expect("streams").iter().map(|it| it["width"].as_u64()).collect();
    assert_eq!(sizes, [Some(320), Some(320), Some(320), Some(320), Some(320), None, None]);
    let tagged =
        |name: &str, value: &str| tags(&path).iter().any(|tag| tag.name == name && tag.value == value);
    for id in ids {
        assert!(tagged("SOURCE_ID", id), "{id} is in the tags");
    }
    host.end().await;
}

/// Every source ends within a frame of the others.
fn assert_same_end(sources: &[shutterd::api::proto::SourceReceipt]) {
    let end = |time: &str| time.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
    let ends: Vec<i64> = sources.iter().map(|source| end(&source.last_timestamp)).collect();
    let (first, last) = (ends.iter().min().expect("an end"), ends.iter().max().expect("an end"));
    assert!(last - first <= 36, "{ends:?} in milliseconds");
}

/// The number in the comment of a picture: `shutterd frame N`.
fn number_of(picture: &[u8]) -> u64 {
    let mark = b"shutterd frame ";
    let at = picture.windows(mark.len()).position(|window| window == mark).expect("a comment") + mark.len();
    let digits: String =
        picture[at..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    digits.parse().expect("a number")
}

fn ffprobe(path: &std::path::Path) -> Value {
    let shown = ["-v", "error", "-show_entries", "format=duration:stream=width", "-of", "json"];
    let output = Command::new("ffprobe").args(shown).arg(path).output().expect("ffprobe is installed");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON")
}
