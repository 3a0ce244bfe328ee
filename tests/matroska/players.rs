//! What other programs make of our files: ffprobe, ffmpeg and mkvtoolnix.

use super::*;

#[test]
fn a_finished_file_is_clean_to_ffprobe_and_mkvtoolnix() {
    on_disk(&finished(), |path| {
        let packets = probe_packets(path);
        assert_eq!(packets.len(), MEDIA.samples.len());
        for (packet, sample) in packets.iter().zip(&MEDIA.samples) {
            assert_eq!(packet.0 + 1, u64::from(sample.track.get()));
            assert!(
                (packet.1 - sample.ns as f64 / 1e9).abs() < 0.0011,
                "ffprobe keeps milliseconds: {packet:?}"
            );
            assert_eq!(packet.2, sample.payload.len() as u64);
        }
        let shown = run("ffprobe", &["-v", "warning", "-show_format", "-show_streams", path]).stdout;
        let shown = String::from_utf8(shown).expect("UTF-8");
        for line in [
            "duration=4.096000",
            "codec_name=mjpeg",
            "codec_name=flac",
            "pix_fmt=yuvj420p",
            "color_range=pc",
            "sample_rate=8000",
            "TAG:SESSION_ID=s-1",
            "TAG:END_REASON=stop_requested",
            "TAG:SOURCE_ID=src-2",
            "TAG:GAPS=0",
            "TAG:title=Micrófono",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        assert_eq!(
            run("ffmpeg", &["-v", "warning", "-i", path, "-f", "null", "-"]).stderr,
            b"",
            "decodes whole"
        );
        mkvtoolnix_is_content(path, MEDIA.samples.len());
        assert_eq!(run("python3", &["-c", SUMS, path]).stdout, b"4\n", "each cluster has its checksum");
    });
}

pub fn mkvtoolnix_is_content(path: &str, packets: usize) {
    let told = String::from_utf8(run("mkvinfo", &["--all", path]).stdout).expect("UTF-8").to_lowercase();
    for word in ["unknown", "error", "warning", "invalid", "broken", "damaged"] {
        assert!(!told.contains(word), "mkvinfo says {word}: {told}");
    }
    let copy = format!("{path}.copy");
    // It exits with 1 on any warning.
    run("mkvmerge", &["-o", &copy, path]);
    assert_eq!(probe_packets(&copy).len(), packets);
    std::fs::remove_file(copy).expect("just written");
}

#[test]
fn a_file_that_still_grows_is_clean_to_ffprobe() {
    on_disk(&growing(), |path| assert_eq!(probe_packets(path).len(), MEDIA.samples.len()));
}

#[test]
fn a_file_in_which_a_source_stayed_silent_is_clean_to_ffprobe_and_mkvtoolnix() {
    let pictures: Vec<&Sample> = MEDIA.samples.iter().filter(|sample| sample.track == VIDEO).collect();
    let mut file = File::new(&MEDIA.header);
    for sample in &pictures {
        file.add(sample);
    }
    let torn = file.bytes[..file.bytes.len() - 1].to_vec();
    for (bytes, packets) in [(mended(&torn, &plan(&torn)), 19), (file.finish(&end_tags()), 20)] {
        on_disk(&bytes, |path| {
            assert_eq!(probe_packets(path).len(), packets);
            let shown = run("ffprobe", &["-v", "warning", "-show_format", "-show_streams", path]).stdout;
            let shown = String::from_utf8(shown).expect("UTF-8");
            assert!(shown.contains("nb_streams=1") && !shown.contains("src-2"), "{shown}");
            assert_eq!(run("ffmpeg", &["-v", "warning", "-i", path, "-f", "null", "-"]).stderr, b"");
            mkvtoolnix_is_content(path, packets);
        });
    }
}

#[test]
fn ffmpeg_seeks_to_the_right_picture() {
    let pictures: Vec<&Sample> = MEDIA.samples.iter().filter(|sample| sample.track == VIDEO).collect();
    on_disk(&finished(), |path| {
        for (seconds, at) in [("0", 0), ("1", 5), ("3", 15), ("2.4", 12)] {
            let args =
                ["-v", "warning", "-ss", seconds, "-i", path, "-frames:v", "1", "-f", "framemd5", "-an", "-"];
            let sought = String::from_utf8(run("ffmpeg", &args).stdout).expect("text");
            let whole = framemd5_of(&pictures[at].payload);
            assert_eq!(md5_of(&sought), whole, "at {seconds} s");
        }
    });
}

fn framemd5_of(jpeg: &[u8]) -> String {
    on_disk(jpeg, |path| {
        let args = ["-v", "error", "-f", "mjpeg", "-i", path, "-f", "framemd5", "-"];
        md5_of(&String::from_utf8(run("ffmpeg", &args).stdout).expect("text"))
    })
}

fn md5_of(told: &str) -> String {
    let line = told.lines().find(|line| !line.starts_with('#')).expect("a frame");
    line.rsplit(',').next().expect("a sum").trim().to_owned()
}
