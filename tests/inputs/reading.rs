//! Reading media: the bytes of the file, as they become durable, and nothing else of the host.

use std::io::Cursor;

use shutterd::api::proto::{ReadMediaRequest, ReadMediaResponse};
use shutterd::matroska::{Next, Reader};
use tonic::{Code, Status, Streaming};

use crate::agent::{patient, session};
use crate::host::{Host, assert_refused};
use crate::site::{Site, camera, microphone};

fn request(file: &str, offset: u64, follow: bool) -> ReadMediaRequest {
    ReadMediaRequest { session_id: "s1".to_owned(), file: file.to_owned(), offset, follow }
}

async fn read(host: &Host, request: ReadMediaRequest) -> Result<Streaming<ReadMediaResponse>, Status> {
    Ok(host.calls().read_media(request).await?.into_inner())
}

/// Everything up to the end of the stream, which has no hole in it.
async fn whole(mut pieces: Streaming<ReadMediaResponse>, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = patient("a piece", pieces.message()).await.expect("the reading does not fail") {
        assert_eq!(piece.file, "s1-0001.mkv");
        assert_eq!(piece.offset, from + bytes.len() as u64);
        bytes.extend_from_slice(&piece.content);
    }
    bytes
}

fn site() -> std::sync::Arc<Site> {
    Site::new("", &[camera("cam"), microphone("mic")])
}

#[tokio::test]
async fn what_is_read_is_the_file_to_the_byte() {
    let host = Host::serve(&site()).await;
    host.start(session("s1", &["cam", "mic"])).await.expect("the session starts");
    host.recorded("s1", &[("cam", 20), ("mic", 20_000)]).await;
    let receipt = host.receipt("s1").await;
    let file = std::fs::read(&receipt.files[0].path).expect("the file is there");
    for name in ["", "s1-0001.mkv"] {
        for follow in [false, true] {
            let pieces = read(&host, request(name, 0, follow)).await.expect("the file can be read");
            assert_eq!(whole(pieces, 0).await, file, "{name:?} {follow}");
        }
    }
    let length = file.len() as u64;
    for offset in [1, 4096, 65_536, length - 1, length] {
        let pieces = read(&host, request("", offset, false)).await.expect("the file can be read");
        assert_eq!(whole(pieces, offset).await, file[offset as usize..], "from {offset}");
    }
    for offset in [length + 1, u64::MAX] {
        let status = read(&host, request("", offset, false)).await.expect_err("beyond the end");
        assert_refused(
            "beyond the end",
            &status,
            Code::OutOfRange,
            "OFFSET_BEYOND_END",
            &[("session", "s1")],
        );
    }
    host.end().await;
}

#[tokio::test]
async fn a_followed_recording_is_valid_and_ends_with_its_session() {
    let host = Host::serve(&site()).await;
    host.start(session("s1", &["cam", "mic"])).await.expect("the session starts");
    let pieces = read(&host, request("", 0, true)).await.expect("a running session can be followed");
    let snapshot = async {
        host.recorded("s1", &[("cam", 45), ("mic", 60_000)]).await;
        // What is read of a running session without following it is what is durable by now.
        let now = read(&host, request("", 0, false)).await.expect("the file can be read");
        let now = whole(now, 0).await;
        (now, host.receipt("s1").await)
    };
    let (followed, (now, receipt)) = tokio::join!(whole(pieces, 0), snapshot);
    assert!(now.len() < followed.len() && !now.is_empty());
    let file = std::fs::read(&receipt.files[0].path).expect("the file is there");
    assert_eq!(followed.len(), file.len());
    let ((whole, end), (ours, followed_end)) = (blocks(&file), blocks(&followed));
    assert!(matches!((end, followed_end), (Next::End { .. }, Next::End { .. })), "{end:?} {followed_end:?}");
    assert_eq!(ours, whole, "the same packets at the same times");
    let packets = receipt.sources[0].written + receipt.sources[1].written.div_ceil(1024);
    assert_eq!(ours.len() as u64, packets);
    // The size of the last cluster may be known before all of it is durable.
    let (early, _) = blocks(&now);
    assert!(!early.is_empty() && early == whole[..early.len()], "what is durable plays");
    let (path, count) = (host.site.dir().join("followed.mkv"), receipt.sources[0].written);
    std::fs::write(&path, &followed).expect("room for a copy");
    let counts = crate::media::count(&path);
    assert!(counts.contains(&("cam".to_owned(), count)), "{counts:?}: {count} frames");
    host.end().await;
}

/// Track, time and payload of every block, as our own reader finds them, and what comes after them.
fn blocks(bytes: &[u8]) -> (Vec<(u8, i64, Vec<u8>)>, Next) {
    let mut reader = Reader::open(Cursor::new(bytes)).expect("it is Matroska");
    let mut blocks = Vec::new();
    loop {
        match reader.next_block().expect("bytes in memory can be read") {
            Next::Block(block) => {
                let mut payload = Vec::new();
                reader.payload(&block, &mut payload).expect("bytes in memory can be read");
                blocks.push((block.track.get(), block.timestamp.ns(), payload));
            }
            end => return (blocks, end),
        }
    }
}

#[tokio::test]
async fn nothing_but_media_can_be_read() {
    let host = Host::serve(&site()).await;
    host.start(session("s1", &["cam"])).await.expect("the session starts");
    host.start(session("s2", &["mic"])).await.expect("the session starts");
    host.receipt("s1").await;
    host.receipt("s2").await;
    for name in [
        "s1-0002.mkv",
        "receipt.json",
        "../s2/s2-0001.mkv",
        "s2-0001.mkv",
        "../../state/operator.token",
        "/etc/passwd",
        "./s1-0001.mkv",
        "s1-0001.mkv/",
        "s1-0001.mkv\0",
        "S1-0001.MKV",
        "..",
        " ",
        &"x".repeat(100_000),
    ] {
        for follow in [false, true] {
            let status = read(&host, request(name, 0, follow)).await.expect_err(name);
            assert_refused(name, &status, Code::NotFound, "MEDIA_NOT_FOUND", &[("session", "s1")]);
        }
    }
    let request = ReadMediaRequest { session_id: "nobody".to_owned(), ..Default::default() };
    let status = read(&host, request).await.expect_err("there is no such session");
    assert_refused("nobody", &status, Code::NotFound, "SESSION_NOT_FOUND", &[("session", "nobody")]);
    host.end().await;
}
