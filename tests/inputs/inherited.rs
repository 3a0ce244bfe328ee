//! A descriptor that whoever launches the agent hands to it: what a program writes there is a camera's.

use std::process::{Command, Stdio};

use crate::agent::{session, state, until};
use crate::clip::{only_file, packets, pictures, text};
use crate::host::{Host, assert_refused, command};
use crate::site::Site;

const SECONDS: u32 = 3;

#[tokio::test]
async fn what_a_program_writes_into_an_inherited_pipe_is_recorded_to_the_byte_and_ends_with_it() {
    let dir = tempfile::Builder::new().prefix("clips").tempdir_in("/tmp").expect("a directory for the clip");
    let (clip, given) = pictures(dir.path(), SECONDS);
    let device = |id: &str, number| {
        format!("[[devices]]\nid = \"{id}\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"fd:{number}\"\n")
    };
    let site = Site::new("", &[device("cam", 7), device("cam-other", 8)]);
    let (reader, writer) = std::io::pipe().expect("there are descriptors");
    let serve = command(&site, &["serve", "--tcp", "127.0.0.1:0"]);
    // A shell hands on what it has at 7, and nothing at 8.
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", "exec 7<&0 </dev/null; exec \"$@\"", "sh"]).arg(serve.as_std().get_program());
    shell.args(serve.as_std().get_args()).stdin(Stdio::from(reader)).process_group(0).kill_on_drop(true);
    for (name, value) in serve.as_std().get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let host = Host::serve_by(&site, shell).await;

    let refused =
        host.start_soon(session("s0", &["cam-other"]), None).await.expect_err("nothing was handed on");
    let about = [("source", "cam-other")];
    assert_refused("8", &refused, tonic::Code::FailedPrecondition, "DEVICE_MISSING", &about);
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-f", "mjpeg", "-framerate", "30", "-i", &text(&clip)])
        .args(["-c", "copy", "-f", "mjpeg", "-"])
        .stdout(Stdio::from(writer))
        .spawn()
        .expect("ffmpeg is installed (apt-get install ffmpeg)");
    host.start(session("s1", &["cam"])).await.expect("the session starts");
    let finished = until(&mut host.watch("s1").await, |event| state(event) == "finished").await;
    assert!(ffmpeg.wait().expect("it ends").success());
    let receipt = finished.receipt.expect("its receipt");
    crate::media::check(&site, &receipt);
    assert!(packets(&only_file(&receipt), "cam") == given, "each picture, to the byte");
    let source = &receipt.sources[0];
    assert_eq!((source.dropped, source.lost, source.missed, source.corrupt), (0, 0, 0, 0), "{source:?}");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("source_lost", false), "{receipt:?}");
    host.end().await;
}
