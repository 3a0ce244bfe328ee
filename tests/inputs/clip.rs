//! Real pictures and sound, made by ffmpeg, and what came of them: read by our own reader and by
//! ffmpeg, to the byte and to the sample.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use shutterd::api::proto::Receipt;
use shutterd::matroska::{Block, Next, Reader, Tag, TagTarget, Timestamp};

/// Runs ffmpeg, which has nothing to complain about, and gives its output.
pub fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let run = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(args).output();
    let run = run.expect("ffmpeg is installed (apt-get install ffmpeg)");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.is_empty(), "ffmpeg {args:?}: {said}");
    run.stdout
}

/// An MJPEG clip of moving pictures that are all different, and its pictures one by one.
pub fn pictures(dir: &Path, seconds: u32) -> (PathBuf, Vec<Vec<u8>>) {
    let path = dir.join("clip.mjpeg");
    let source = format!("testsrc2=size=320x240:rate=30:duration={seconds}");
    let noisy = "noise=alls=12:allf=t";
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        &source,
        "-vf",
        noisy,
        "-c:v",
        "mjpeg",
        "-q:v",
        "5",
        "-f",
        "mjpeg",
        &text(&path),
    ]);
    let pattern = dir.join("given-%05d.jpg");
    // Each picture of an MJPEG file is a packet, which image2 writes as it is.
    ffmpeg(&["-f", "mjpeg", "-i", &text(&path), "-c", "copy", "-f", "image2", &text(&pattern)]);
    let pictures = numbered(dir, "given-");
    assert_eq!(pictures.len(), seconds as usize * 30);
    assert_eq!(pictures.concat(), fs::read(&path).expect("the clip"), "the clip is its pictures");
    (path, pictures)
}

/// A WAV file of 48 kHz mono whose samples say where they are, and the samples.
pub fn sound(dir: &Path, seconds: u32) -> (PathBuf, Vec<i16>) {
    let path = dir.join("clip.wav");
    let source = format!("anoisesrc=color=pink:seed=7:sample_rate=48000:duration={seconds}");
    ffmpeg(&["-f", "lavfi", "-i", &source, "-ac", "1", "-c:a", "pcm_s16le", &text(&path)]);
    let samples = decoded(&path);
    assert_eq!(samples.len(), seconds as usize * 48_000);
    (path, samples)
}

/// The samples of a file's first track of sound, decoded by ffmpeg, whatever their times are.
pub fn decoded(path: &Path) -> Vec<i16> {
    let counted = ["-af", "asetpts=N/SR/TB", "-c:a", "pcm_s16le", "-f", "s16le", "-"];
    let bytes = ffmpeg(&[&["-i", &text(path), "-map", "0:a:0"], &counted[..]].concat());
    bytes.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// The pictures of the first track of video, as ffmpeg copies them.
pub fn copied(path: &Path, dir: &Path) -> Vec<Vec<u8>> {
    fs::create_dir_all(dir).expect("a directory for the pictures");
    let pattern = dir.join("copied-%05d.jpg");
    let passed = ["-fps_mode", "passthrough", "-f", "image2"];
    ffmpeg(&[&["-i", &text(path), "-map", "0:v:0", "-c", "copy"], &passed[..], &[&text(&pattern)]].concat());
    numbered(dir, "copied-")
}

/// The packets of a source, as our own reader finds them.
pub fn packets(path: &Path, source: &str) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(File::open(path).expect("the file is there")).expect("it is Matroska");
    let own = reader.tracks().iter().find(|track| track.source_id == source);
    let number = own.expect("the source has a track").number;
    let own = blocks(&mut reader).into_iter().filter(|block| block.track == number);
    let packet = |block: Block| {
        let mut payload = Vec::new();
        reader.payload(&block, &mut payload).expect("the file can be read");
        payload
    };
    own.map(packet).collect()
}

/// The times of all blocks, in the order of the file.
pub fn times(path: &Path) -> Vec<Timestamp> {
    let mut reader = Reader::open(File::open(path).expect("the file is there")).expect("it is Matroska");
    blocks(&mut reader).iter().map(|block| block.timestamp).collect()
}

fn blocks(reader: &mut Reader<File>) -> Vec<Block> {
    let mut blocks = Vec::new();
    loop {
        match reader.next_block().expect("the file can be read") {
            Next::Block(block) => blocks.push(block),
            Next::End { .. } => return blocks,
            Next::Torn { at } => panic!("torn at {at}"),
        }
    }
}

/// The file's tags, those at its end too.
pub fn tags(path: &Path) -> Vec<Tag> {
    let mut reader = Reader::open(File::open(path).expect("the file is there")).expect("it is Matroska");
    reader.load_index().expect("the file can be read");
    let tags = reader.tags().to_vec();
    assert!(tags.iter().any(|tag| tag.target == TagTarget::Segment), "{tags:?}");
    tags
}

/// The one file of a receipt.
pub fn only_file(receipt: &Receipt) -> PathBuf {
    let [file] = receipt.files.as_slice() else { panic!("one file: {:?}", receipt.files) };
    PathBuf::from(&file.path)
}

/// Where `part` begins in `whole`, once.
pub fn place_of<T: PartialEq>(part: &[T], whole: &[T]) -> Option<usize> {
    let (head, _) = part.split_at(part.len().min(64));
    let places = whole.windows(head.len().max(1)).enumerate().filter(|(_, window)| *window == head);
    places.map(|(at, _)| at).find(|at| whole[*at..].starts_with(part))
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("a path of the test is UTF-8").to_owned()
}

/// The files of this name and a number, in order.
fn numbered(dir: &Path, name: &str) -> Vec<Vec<u8>> {
    let entries =
        fs::read_dir(dir).expect("the directory is there").map(|entry| entry.expect("an entry").path());
    let is_own = |path: &PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(name));
    let mut paths: Vec<PathBuf> = entries.filter(is_own).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the picture is there")).collect()
}
