//! One run: a daemon and its workers to which one thing happens, and a daemon after them that must make it good.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::process::Signal;
use shutterd::api::proto::Receipt;
use tonic::Code;

use crate::agent::{Agent, eventually, refusal, send, session};
use crate::calls::{Class, Fault, Role};
use crate::inject::Order;
use crate::life::{Claims, holders, records, recovers};
use crate::media::check;
use crate::site::{Site, camera};
use crate::traced::Traced;

/// The microphone: a file, so that who has it open can be seen.
pub const DEVICE: &str = "sound.wav";
/// A limit of each wait that is shorter than a caller's patience, and media that is synced often.
const SETTINGS: &str = "media.sync_ms = 200\nworker.restart_delay_ms = 10\nlimits.start_timeout_ms = 5000\n\
    limits.drain_timeout_ms = 5000\nlimits.orphan_grace_ms = 5000\nlimits.worker_silent_ms = 5000";

/// Whose calls are swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The daemon, through a session's start, capture and stop, and its own start and end.
    Daemon,
    /// The worker of that session.
    Worker,
    /// The daemon after one that was killed with its worker.
    Recovery,
    /// The process that repairs the dead worker's file.
    Repair,
}

pub const SUBJECTS: [Subject; 4] = [Subject::Daemon, Subject::Worker, Subject::Recovery, Subject::Repair];

impl Subject {
    pub fn word(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Worker => "worker",
            Self::Recovery => "recovery",
            Self::Repair => "repair",
        }
    }

    pub fn role(self) -> Role {
        match self {
            Self::Daemon | Self::Recovery => Role::Daemon,
            Self::Worker => Role::Worker,
            Self::Repair => Role::Repair,
        }
    }

    fn recovers(self) -> bool {
        matches!(self, Self::Recovery | Self::Repair)
    }
}

/// A call that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub subject: Subject,
    pub class: Class,
    pub fault: Fault,
    pub number: usize,
}

impl Point {
    pub fn name(&self) -> String {
        let Self { subject, class, fault, number } = self;
        format!("{} {} {} {number}", subject.word(), class.word(), fault.word())
    }
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The call that went wrong; `None` if there were fewer calls.
    pub injected: Option<String>,
    /// What was called durable and is not there.
    pub untrue: Vec<String>,
    /// Who has a device that nobody should have.
    pub left_open: Vec<String>,
    /// What the daemon after did not make good.
    pub unrecovered: Vec<String>,
    /// The end of the log, if anything of these is.
    pub log: String,
}

impl Found {
    pub fn is_well(&self) -> bool {
        self.untrue.is_empty() && self.left_open.is_empty() && self.unrecovered.is_empty()
    }
}

/// Lets one call go wrong, and finds out what becomes of it.
pub fn run(point: Point) -> Found {
    let Point { subject, class, fault, number } = point;
    let site = site();
    let found = RefCell::new(Found::default());
    let order = Order { role: subject.role(), class, fault, number };
    guarded(&found, async {
        let (claims, traced) = live(&site, subject, order, &found).await;
        if found.borrow().injected.is_some() {
            recover(&site, &claims, &found).await;
        }
        if let Some(traced) = traced {
            traced.end("kill").await;
        }
        let left = site.processes();
        assert!(left.is_empty(), "left behind: {left:?}");
    });
    let mut found = found.into_inner();
    if !found.is_well() {
        found.log = site.log();
    }
    found
}

/// How many calls of each class everybody makes when nothing goes wrong.
pub fn count(subject: Subject) -> Result<BTreeMap<(String, String, String), usize>, String> {
    let site = site();
    let found = RefCell::new(Found::default());
    let counts = guarded(&found, async {
        let before = if subject.recovers() { leave_dead(&site).await } else { Claims::default() };
        let traced = Traced::launch(&site, None).await;
        let claims =
            if before.started { recovers(&site, &traced).await } else { records(&site, &traced).await };
        assert!(claims.receipt.is_some() && claims.problems.is_empty(), "{claims:?}\n{}", site.log());
        traced.terminate();
        traced.over().await;
        traced.end("cut").await.counts
    });
    counts.ok_or_else(|| found.into_inner().unrecovered.concat())
}

fn site() -> Arc<Site> {
    let devices = [
        camera("cam").replace("320", "64").replace("180", "48"),
        format!(
            "[[devices]]\nid = \"mic\"\nkind = \"replay\"\nmedia = \"audio\"\npath = \"SITE/{DEVICE}\"\n\
             loop = true\n"
        ),
    ];
    let site = Site::new(SETTINGS, &devices);
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    let text = text.replace("SITE", &site.dir().display().to_string());
    std::fs::write(&config, text).expect("the config can be changed");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(site.dir().join(DEVICE), spec).expect("a file");
    for sample in 0..8000_i32 {
        let loud = i16::try_from(sample * 37 % 20_000 - 10_000).expect("it is small");
        wav.write_sample(loud).expect("it takes a sample");
    }
    wav.finalize().expect("it can be finished");
    site
}

/// Runs this to its end; a panic in it is something that was not made good.
fn guarded<T>(found: &RefCell<Found>, work: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    outcome
        .map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            found.borrow_mut().unrecovered.push(text.unwrap_or_default());
        })
        .ok()
}

/// A daemon, traced, from its start to its end: as it is told, or as it is made.
async fn live(
    site: &Arc<Site>,
    subject: Subject,
    order: Order,
    found: &RefCell<Found>,
) -> (Claims, Option<Traced>) {
    let before = if subject.recovers() { leave_dead(site).await } else { Claims::default() };
    let traced = Traced::launch(site, Some(order)).await;
    let mut claims =
        if subject.recovers() { recovers(site, &traced).await } else { records(site, &traced).await };
    claims.started |= before.started;
    for (source, units) in before.written {
        let most = claims.written.entry(source).or_default();
        *most = units.max(*most);
    }
    if traced.told().injected.is_none() {
        // Its end is still to come.
        traced.terminate();
        traced.over().await;
    }
    found.borrow_mut().left_open.extend(claims.devices_free.take());
    found.borrow_mut().unrecovered.append(&mut claims.problems);
    found.borrow_mut().injected = traced.told().injected;
    let is_killed = order.fault == Fault::Kill && traced.has_ended().await;
    if is_killed && subject.role() == Role::Daemon {
        // A worker lives on without its daemon, for the next.
        return (claims, Some(traced));
    }
    traced.end("cut").await;
    (claims, None)
}

/// A session whose daemon and worker were killed.
async fn leave_dead(site: &Arc<Site>) -> Claims {
    let agent = Agent::serve(site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 6, 1600).await;
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is dead", || site.workers().is_empty()).await;
    let written = [("cam".to_owned(), 6), ("mic".to_owned(), 1600)];
    Claims { started: true, written: written.into(), ..Claims::default() }
}

/// Starts a daemon to which nothing happens, and finds out whether everything is as it was told.
async fn recover(site: &Arc<Site>, claims: &Claims, found: &RefCell<Found>) {
    let agent = Agent::serve(site).await;
    match stopped(&agent).await {
        Ok(receipt) => {
            compare(claims, &receipt, found);
            check(site, &receipt);
        }
        Err(status) if status.code() == Code::NotFound => {
            if claims.started {
                found
                    .borrow_mut()
                    .untrue
                    .push("the start was answered, and nobody knows the session".to_owned());
            }
        }
        Err(status) => panic!("the session can't be stopped: {status:?}"),
    }
    let holders = holders(site);
    if !holders.is_empty() {
        found.borrow_mut().left_open.push(format!("afterwards {holders:?} has a device"));
    }
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
    let next = agent.stop("next").await.expect("it stops");
    check(site, &next.receipt.expect("its receipt"));
    assert!(site.workers().is_empty(), "left behind: {:?}", site.processes());
    agent.end().await;
}

/// The receipt of the session, which is finished now.
async fn stopped(agent: &Agent) -> Result<Receipt, tonic::Status> {
    let deadline = tokio::time::Instant::now() + crate::agent::PATIENCE;
    loop {
        match agent.stop("s").await {
            Ok(answer) => return Ok(answer.receipt.expect("its receipt")),
            Err(status)
                if status.code() == Code::Unavailable
                    && refusal(&status).1 == "SESSION_BEING_FOUND"
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// What was told before must be so.
fn compare(claims: &Claims, receipt: &Receipt, found: &RefCell<Found>) {
    let untrue = &mut found.borrow_mut().untrue;
    if let Some(told) = claims.receipt.as_ref().filter(|told| *told != receipt) {
        untrue.push(format!("the stop was answered with {told:?}, and now it is {receipt:?}"));
    }
    for (id, told) in &claims.written {
        let written =
            receipt.sources.iter().find(|source| source.id == *id).map_or(0, |source| source.written);
        if written < *told {
            untrue.push(format!("{told} of {id} were called durable, and {written} are there: {receipt:?}"));
        }
    }
}
