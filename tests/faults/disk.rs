//! E: disks that are full, fail, are slow, or are taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use shutterd::api::proto::Receipt;
use tonic::Code;

use crate::agent::{Agent, eventually, launch, patient, refusal, session};
use crate::media::check;
use crate::row::Case::Here;
use crate::row::{Outcome, Row, Stopped, lost, pid_of};
use crate::scene::{found, logged, recording, records, records_on, warns};
use crate::site::{Site, camera, microphone};
use crate::tracer::Tracer;

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "E1", fault: "the disk fills up during capture", case: Here(|| Box::pin(e1())) },
    Row { id: "E2", fault: "the disk is full at the stop", case: Here(|| Box::pin(e2())) },
    Row { id: "E3", fault: "EIO on the 1st, 2nd, 5th write", case: Here(|| Box::pin(e3())) },
    Row { id: "E4", fault: "EIO on all writes", case: Here(|| Box::pin(e4())) },
    Row { id: "E5", fault: "fdatasync fails", case: Here(|| Box::pin(e5())) },
    Row { id: "E6", fault: "a read-only file system", case: Here(|| Box::pin(e6())) },
    Row { id: "E7", fault: "a disk that stalls for 5 s", case: Here(|| Box::pin(e7())) },
    Row { id: "E8", fault: "short writes, every third one EINTR", case: Here(|| Box::pin(e8())) },
    Row { id: "E9", fault: "no inodes, quota, EMFILE, a long name", case: Here(|| Box::pin(e9())) },
    Row { id: "E10", fault: "the directory is removed, or moved", case: Here(|| Box::pin(e10())) },
    Row { id: "E11", fault: "a flipped byte in a finished file", case: Here(|| Box::pin(e11())) },
];

/// A camera and a microphone on a memory disk; `None` where none can be mounted.
fn small_site(settings: &str, options: &str) -> Option<Arc<Site>> {
    let mut site = Site::unshared(settings, &[camera("cam"), microphone("mic")]);
    site.small_disk("media", options).then(|| Arc::new(site))
}

fn unmountable() -> Outcome {
    Outcome::NotRun("a small disk can't be mounted here".to_owned())
}

/// Takes all that is left of a disk.
fn fill(site: &Site) {
    let filler = std::fs::File::create(site.media_dir().join("filler")).expect("a file that fills the disk");
    let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).expect_err("a small disk fills up");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

async fn e1() -> Outcome {
    let Some(site) = small_site("", "size=96m,mode=755") else { return unmountable() };
    let agent = Agent::serve(&site).await;
    records(&agent).await;
    let warned_by = Instant::now() + Duration::from_secs(15);
    while !found(&agent, "disk").await.iter().any(|it| it.starts_with("degraded")) {
        assert!(Instant::now() < warned_by, "no warning that the disk will soon be full");
        records_on(&agent).await;
    }
    fill(&site);
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("disk_full", false), "{receipt:?}");
    assert!(warns(&receipt, "no space left"), "an operator is told: {receipt:?}");
    check(&site, &receipt);
    let refused = agent.start(session("next", &["cam"])).await.expect_err("there is no room");
    let (code, reason, _) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "DISK_FULL"), "{refused:?}");
    // The packet that found no room, and what was on its way behind it.
    let seconds = lost_seconds(&receipt);
    assert!(seconds < 0.5, "{seconds} s are lost: {receipt:?}");
    Outcome::Holds {
        lost: lost(&receipt),
        stop: None,
        seen: format!("warned, disk_full, the file is whole, {seconds:.2} s found no room"),
    }
}

/// How much of the source that lost most.
fn lost_seconds(receipt: &Receipt) -> f64 {
    let rate = |kind: &str| if kind == "audio" { 48_000.0 } else { 30.0 };
    let lost = receipt.sources.iter().map(|it| (it.lost + it.dropped) as f64 / rate(&it.r#type));
    lost.fold(0.0, f64::max)
}

async fn e2() -> Outcome {
    let Some(site) = small_site("", "size=24m,mode=755") else { return unmountable() };
    let agent = Agent::serve(&site).await;
    records(&agent).await;
    fill(&site);
    let stopped = Stopped::of(&agent, "s").await;
    assert_eq!((stopped.receipt.end_reason.as_str(), stopped.receipt.forced), ("stop_requested", false));
    stopped.holds_whole("the reserve took the file's end")
}

async fn e3() -> Outcome {
    let agent = recording("").await;
    for (at, order) in ["1", "2", "5"].iter().enumerate() {
        let order = format!("writev:error=EIO:when={order}");
        let Some(tracer) = Tracer::hold(agent.site.worker("s"), &[&order]) else {
            return Outcome::untraceable();
        };
        eventually("the next file", || agent.site.log().matches("the recording goes on").count() > at).await;
        drop(tracer);
        records_on(&agent).await;
    }
    let stopped = Stopped::of(&agent, "s").await;
    assert_eq!(stopped.receipt.files.len(), 4, "{:?}", stopped.receipt);
    assert!(warns(&stopped.receipt, "os error 5"), "{:?}", stopped.receipt);
    stopped.holds_whole("a new file each time, and no frame lost")
}

async fn e4() -> Outcome {
    let agent = recording("limits.source_lost_after_ms = 1000").await;
    let Some(_tracer) = Tracer::hold(agent.site.worker("s"), &["writev:error=EIO"]) else {
        return Outcome::untraceable();
    };
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", false), "{receipt:?}");
    for source in &receipt.sources {
        let gap = source.gaps.last().expect("the loss is a gap");
        let rate = if source.r#type == "audio" { 48_000.0 } else { 30.0 };
        let told = gap.duration_seconds * rate;
        assert_eq!(gap.reason, "disk", "{source:?}");
        assert!((told - source.lost as f64).abs() <= rate * 0.05, "the range that is lost: {source:?}");
    }
    assert!(warns(&receipt, "os error 5"), "{receipt:?}");
    check(&agent.site, &receipt);
    let seen = "what was durable plays, and the receipt tells the range that is lost".to_owned();
    Outcome::Holds { lost: lost(&receipt), stop: None, seen }
}

async fn e5() -> Outcome {
    let agent = recording("").await;
    let trace = agent.site.dir().join("trace");
    let orders = ["fdatasync:error=EIO:when=1"];
    let also = ["openat", "close", "fsync"];
    let Some(tracer) = Tracer::hold_and_tell(agent.site.worker("s"), &orders, &also, &trace) else {
        return Outcome::untraceable();
    };
    logged(&agent, "the recording goes on").await;
    // Each thread's first sync fails, that of the next file's too.
    drop(tracer);
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    let failed = synced_again(&std::fs::read_to_string(&trace).expect("a trace"));
    assert!(failed > 0, "a sync has failed");
    assert!(warns(&stopped.receipt, "sync"), "{:?}", stopped.receipt);
    assert!(stopped.receipt.files[0].repaired, "{:?}", stopped.receipt);
    stopped.holds_whole(format!("{failed} syncs failed, none was tried again on its descriptor"))
}

/// How many syncs of a trace failed.
///
/// # Panics
/// One was tried again on the same open descriptor.
fn synced_again(trace: &str) -> usize {
    let (mut under_way, mut failed, mut count) = (BTreeMap::new(), BTreeSet::new(), 0);
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let descriptor = call.split_once('(').map(|(_, rest)| rest.split([')', ' ', ',']).next());
        if call.starts_with("close(") {
            failed.remove(descriptor.flatten().unwrap_or_default());
        } else if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
            let descriptor = descriptor.flatten().unwrap_or_default();
            assert!(!failed.contains(descriptor), "a second sync of a descriptor that failed: {line}");
            under_way.insert(pid, descriptor);
        }
        if call.contains(" = -1 EIO")
            && let Some(descriptor) = under_way.get(pid)
        {
            failed.insert(*descriptor);
            count += 1;
        }
    }
    count
}

async fn e6() -> Outcome {
    let Some(site) = small_site("", "size=24m,mode=755") else { return unmountable() };
    let agent = Agent::serve(&site).await;
    let remount = |mode: &str| {
        let args = ["-o", &format!("remount,{mode}")];
        let status = Command::new("mount").args(args).arg(site.media_dir()).status();
        assert!(status.expect("mount can be run").success());
    };
    remount("ro");
    let refused = agent.start(session("s", &["cam", "mic"])).await.expect_err("nothing can be written");
    assert_eq!(refusal(&refused).0, Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(&site.media_dir().display().to_string()), "{refused:?}");
    remount("rw");
    records(&agent).await;
    // A disk with an open file can't be made read-only by hand; the kernel does so after an error.
    let orders = ["writev,fdatasync,fsync,openat:error=EROFS"];
    let Some(tracer) = Tracer::hold(site.worker("s"), &orders) else { return Outcome::untraceable() };
    eventually("tries", || site.log().matches("no file can be begun").count() >= 3).await;
    drop(tracer);
    logged(&agent, "the recording goes on").await;
    records_on(&agent).await;
    Stopped::of(&agent, "s").await.holds_whole("refused by name at the start; waits in memory later")
}

async fn e7() -> Outcome {
    let (one, other) = tokio::join!(stall("fdatasync"), stall("writev"));
    let (Some(stopped), Some(_)) = (one, other) else { return Outcome::untraceable() };
    let dropped = recording("media.queue_bytes_max = 1048576").await;
    let Some(tracer) = Tracer::hold(dropped.site.worker("s"), &["writev:delay_enter=150000"]) else {
        return Outcome::untraceable();
    };
    logged(&dropped, "the disk is too slow").await;
    drop(tracer);
    let counted = Stopped::of(&dropped, "s").await;
    assert!(counted.lost() > 0 && warns(&counted.receipt, "queue_bytes_max"), "{:?}", counted.receipt);
    stopped.holds_whole("nothing lost in 5 s; beyond the queue's room it is counted")
}

/// A session in whose midst one such call takes 5 s.
async fn stall(call: &str) -> Option<Stopped> {
    let agent = recording("").await;
    let order = format!("{call}:delay_enter=5000000:when=1");
    let tracer = Tracer::hold(agent.site.worker("s"), &[&order])?;
    let held_at = Instant::now();
    records_on(&agent).await;
    assert!(held_at.elapsed() >= Duration::from_secs(5), "{call}: nothing is durable before that");
    drop(tracer);
    let stopped = Stopped::of(&agent, "s").await;
    assert_eq!(stopped.lost(), 0, "{call}: {:?}", stopped.receipt);
    Some(stopped)
}

async fn e8() -> Outcome {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let shim = site.dir().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(source).status();
    if !built.is_ok_and(|status| status.success()) {
        return Outcome::NotRun("this needs a C compiler".to_owned());
    }
    let agent = Agent::serve_with(&site, &[("LD_PRELOAD".to_owned(), shim.display().to_string())]).await;
    records(&agent).await;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", site.worker("s"))).expect("it is there");
    assert!(maps.contains("shim.so"), "the worker's calls are answered by the shim");
    records_on(&agent).await;
    Stopped::of(&agent, "s").await.holds_whole("every file has the bytes that its hash says")
}

async fn e9() -> Outcome {
    let Some(site) = small_site("", "size=24m,nr_inodes=2,mode=755") else { return unmountable() };
    let agent = Agent::serve(&site).await;
    let refused = agent.start(session("s", &["cam"])).await.expect_err("there is no inode");
    let (code, reason, _) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "DISK_FULL"), "inodes: {refused:?}");

    let agent = recording("").await;
    let Some(tracer) = Tracer::hold(agent.site.worker("s"), &["writev:error=EDQUOT"]) else {
        return Outcome::untraceable();
    };
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    drop(tracer);
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("disk_full", false), "quota: {receipt:?}");
    check(&agent.site, &receipt);

    let long = format!("media_dir = \"/tmp/{}\"\n", "x".repeat(300));
    let site = Site::new("", &[camera("cam")]);
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    let rest = text.lines().filter(|line| !line.starts_with("media_dir")).map(|line| format!("{line}\n"));
    std::fs::write(&config, long + &rest.collect::<String>()).expect("the config can be changed");
    let ended = patient("the agent", launch(&site).wait()).await.expect("it can be waited for");
    assert!(!ended.success() && site.log().contains("media_dir"), "a long name: {}", site.log());

    let agent = recording("").await;
    let worker = pid_of(agent.site.worker("s"));
    let limited = |current| Rlimit { current, ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(worker), Resource::Nofile, limited(Some(3))).expect("limits can be set");
    std::fs::remove_dir_all(agent.site.session_dir("s")).expect("the directory can be removed");
    logged(&agent, "no file can be begun").await;
    prlimit(Some(worker), Resource::Nofile, before).expect("and set back");
    logged(&agent, "the recording goes on").await;
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    assert!(warns(&stopped.receipt, "os error 24"), "{:?}", stopped.receipt);
    stopped.holds_whole("DISK_FULL, disk_full, the key's name; EMFILE waits in memory")
}

async fn e10() -> Outcome {
    let agent = recording("").await;
    std::fs::remove_dir_all(agent.site.session_dir("s")).expect("the directory can be removed");
    logged(&agent, "somebody has removed it").await;
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    assert!(warns(&stopped.receipt, "removed"), "{:?}", stopped.receipt);
    stopped.holds_whole("removed");

    let agent = recording("").await;
    let moved = agent.site.media_dir().join("moved");
    std::fs::rename(agent.site.session_dir("s"), &moved).expect("the directory can be moved");
    logged(&agent, "moved it away").await;
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    assert!(!stopped.receipt.warnings.is_empty(), "moved, and nobody is told: {:?}", stopped.receipt);
    stopped.holds_whole("removed: written again; moved: told, and whole")
}

async fn e11() -> Outcome {
    let agent = recording("").await;
    records_on(&agent).await;
    let stopped = Stopped::of(&agent, "s").await;
    let path = &stopped.receipt.files[0].path;
    let mut bytes = std::fs::read(path).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).expect("it can be changed");
    let site = std::sync::Arc::clone(&agent.site);
    let config = site.dir().join("flow.toml");
    agent.end().await;
    let mut shutterd = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    shutterd.arg("--config").arg(config).args(["fsck", "--check", "--json"]);
    let checked = shutterd.output().expect("it can be run");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "a flipped byte at {middle} is not found: {said}");
    let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let finding = &told["findings"][0];
    assert_eq!((&finding["kind"], &finding["path"]), (&"file_damaged".into(), &path.as_str().into()));
    let holds = |range: &serde_json::Value| {
        let end = |end: &str| range[end].as_u64().and_then(|at| usize::try_from(at).ok()).expect("a place");
        (end("from")..end("to")).contains(&middle)
    };
    let ranges = finding["ranges"].as_array().expect("ranges");
    assert!(ranges.iter().any(holds), "the range that is damaged is told: {said}");
    stopped.holds_whole("found, with its range")
}
