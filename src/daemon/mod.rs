//! The daemon from its first line to its last: the order in which it starts, and in which it stops.

mod activation;
mod ending;
mod leaving;
mod lock;
mod notify;
mod signals;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::access::{OperatorToken, Quotas, Tokens};
use crate::api::{self, About, Api, Guard};
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, LogFormat, Settings};
use crate::http::{self, Http};
use crate::journal::{Journal, Past};
use crate::library::Library;
use crate::session::health::{Health, Level};
use crate::supervisor::{self, Handle, SupervisorSettings};
use crate::telemetry;

use activation::Given;

pub use leaving::end_workers;
pub use lock::{Lock, LockHeld};

/// Name of the API's socket in the runtime directory.
pub const API_SOCKET: &str = "api.sock";
const LINK_SOCKET: &str = "link.sock";
/// Name of the file of tokens in the state directory.
pub const TOKENS_FILE: &str = "tokens.json";
/// Name of the journal in the state directory.
pub const JOURNAL_FILE: &str = "journal.sqlite";
const SERVICE_NAME: &str = "shutterd.v1.CaptureAgent";
/// How long calls under way may take to end once every session is drained.
const CALLS_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to end, and every session is drained.
///
/// # Errors
/// It can't start: another one runs, a directory can't be used, a port is taken.
pub fn serve(settings: Settings) -> anyhow::Result<()> {
    start_log(&settings)?;
    let runtime = start_threads()?;
    runtime.block_on(run(settings))
}

/// Tokio panics where the system refuses a thread, and waits for ever for those that it has got by then: such a
/// panic ends the process.
fn start_threads() -> anyhow::Result<Runtime> {
    let told = Arc::new(std::panic::take_hook());
    std::panic::set_hook(Box::new({
        let told = Arc::clone(&told);
        #[expect(clippy::disallowed_methods, reason = "nothing is open yet, and a drop would hang")]
        move |panic| {
            told(panic);
            std::process::exit(1)
        }
    }));
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("agent").enable_all().build();
    std::panic::set_hook(Box::new(move |panic| told(panic)));
    runtime.context("cannot start the agent's threads")
}

fn start_log(settings: &Settings) -> Result<(), telemetry::TelemetryError> {
    let format = match settings.log.format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Human => telemetry::Format::Human,
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Journal => telemetry::Format::Journal,
    };
    telemetry::init(format, &settings.log.level)
}

/// Start and stop, in order.
async fn run(settings: Settings) -> anyhow::Result<()> {
    let signals = signals::watch()?;
    let given = Given::take()?;
    make_dir(&settings.state_dir, 0o750).context("cannot use state_dir")?;
    make_dir(&settings.runtime_dir, 0o755).context("cannot use runtime_dir")?;
    make_dir(&settings.media_dir, settings.media.dir_mode).context("cannot use media_dir")?;
    let locks =
        (Lock::take(&settings.state_dir, "state.lock")?, Lock::take(&settings.runtime_dir, "runtime.lock")?);
    leaving::forget(&settings.runtime_dir)?;
    let tokens = tokens(&settings)?;
    let group = group(&settings)?;
    let library = library(&settings)?;
    let (journal, past) = restore_journal(&settings, &library).await?;
    let (bound, http_bound) = listen(&settings, given).await?;
    let (tcp, http) = (bound.tcp_address(), http_bound.address());
    let agent = supervisor::start(SupervisorSettings {
        group,
        link_path: settings.runtime_dir.join(LINK_SOCKET),
        journal,
        past,
        library: library.clone(),
        settings: settings.clone(),
    })
    .await?;
    let about = About { hostname: hostname(), started_at: SystemClock.wall() };
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::NotServing).await;
    let ending = CancellationToken::new();
    let api = Api {
        handle: agent.handle.clone(),
        library: library.clone(),
        guard: Guard::new(Arc::clone(&tokens)),
        about,
        message_bytes_max: settings.api.message_bytes_max,
        connections_max: settings.api.connections_max,
    };
    let quotas = Quotas::new(settings.http.calls_max, settings.http.window);
    let calls =
        Http { handle: agent.handle.clone(), tokens, quotas, connections_max: settings.http.connections_max };
    let served: JoinHandle<_> = tokio::spawn(futures_util::future::join(
        api.serve(bound, health.clone(), health_service, ending.clone()),
        calls.serve(http_bound, ending.clone()),
    ));
    check_probe(&agent.handle).await?;
    set_health(&health, ServingStatus::Serving).await;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %settings.runtime_dir.join(API_SOCKET).display(),
        tcp = tcp.map(|address| address.to_string()),
        http = http.map(|address| address.to_string()),
        "ready"
    );
    notify::ready();
    let well = tokio::spawn(follow_health(agent.handle.health(), health.clone()));
    let telling = notify::Telling::start(&agent.handle, &library);

    ending::wait_for_end(signals, &agent.handle, (&health, well.abort_handle()), &settings).await;

    telling.end().await;
    ending.cancel();
    if tokio::time::timeout(CALLS_TIMEOUT, served).await.is_err() {
        tracing::warn!("some calls did not end in time");
    }
    drop(agent.handle);
    match tokio::time::timeout(CALLS_TIMEOUT, agent.task).await {
        Ok(Ok(journal)) => tokio::task::spawn_blocking(|| journal.close()).await?,
        _ => tracing::warn!("the supervisor did not end in time"),
    }
    drop(locks);
    tracing::info!("ended");
    Ok(())
}

/// The sockets of both servers, of which `given` may be some.
async fn listen(settings: &Settings, mut given: Given) -> anyhow::Result<(api::Bound, http::Bound)> {
    let (tcp, http) = (given.at(settings.api.tcp), given.at(settings.http.listen));
    given.check_used()?;
    let bound = api::bind(&settings.runtime_dir.join(API_SOCKET), settings.api.tcp, tcp).await?;
    Ok((bound, http::bind(settings.http.listen, http).await?))
}

/// Whoever may call over TCP.
fn tokens(settings: &Settings) -> anyhow::Result<Arc<Tokens>> {
    let operator = OperatorToken::load_or_create(&settings.api.token_path)?;
    Ok(Arc::new(Tokens::open(operator, settings.state_dir.join(TOKENS_FILE))?))
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
}

/// Health fails while something is wrong, and is well again by itself.
async fn follow_health(mut judged: watch::Receiver<Arc<Health>>, health: HealthReporter) {
    while judged.changed().await.is_ok() {
        let now = Arc::clone(&judged.borrow_and_update());
        for finding in now.of(Level::Failed) {
            let (subject, about) = (finding.subject.as_str(), &finding.about);
            let session = finding.session.as_ref().map(tracing::field::display);
            tracing::error!(session, subject, about, problem = finding.message, "health has failed");
        }
        let serving = now.is_serving();
        set_health(&health, if serving { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    }
}

/// The media of these settings.
///
/// # Errors
/// There is no such group as they name.
pub fn library(settings: &Settings) -> anyhow::Result<Library> {
    Ok(Library::new(settings.media_dir.clone(), settings.media.file_mode, group(settings)?))
}

fn group(settings: &Settings) -> anyhow::Result<Option<u32>> {
    settings.media.group.as_deref().map(group_id).transpose()
}

/// The journal, in whatever state it was left.
async fn restore_journal(settings: &Settings, library: &Library) -> anyhow::Result<(Journal, Past)> {
    let is_first = || library.session_ids().is_ok_and(|ids| ids.is_empty());
    let path = settings.state_dir.join(JOURNAL_FILE);
    let restored = Journal::restore(&path, SystemClock.wall(), is_first);
    let (journal, past) = restored
        .with_context(|| format!("cannot use the journal {}: check the disk of state_dir", path.display()))?;
    if let Past::Damaged(damage) = &past {
        let (kept, carried, unreadable) =
            (damage.kept_path.display(), damage.carried, damage.unreadable.len());
        tracing::error!(problem = damage.problem, %kept, carried, unreadable, "the journal was damaged: a new one is begun");
    }
    check_journal(&journal, settings.limits.journal).await?;
    Ok((journal, past))
}

/// Whether the journal takes and gives. A probe is tried once calls are served: it may take long.
async fn check_journal(journal: &Journal, limit: Duration) -> anyhow::Result<()> {
    let checked = tokio::time::timeout(limit, journal.check()).await;
    checked.context("the journal gives no answer: check the disk of state_dir")???;
    Ok(())
}

/// Whether processes of ours can be run, and find devices. A device that hangs the search is the
/// operator's to know, and no reason to end what others record.
async fn check_probe(handle: &Handle) -> anyhow::Result<()> {
    match handle.devices().await {
        Ok(devices) => tracing::info!(devices = devices.len(), "devices looked for"),
        Err(refusal) if refusal.reason == "PROBE_NOT_STARTED" => return Err(refusal.into()),
        Err(refusal) => handle.report(refusal.message).await,
    }
    Ok(())
}

/// Makes a directory that outlives a power cut, with those above it, unless it is there.
fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
    let parents = || missing.iter().filter_map(|dir| dir.parent());
    made.and_then(|()| parents().try_for_each(|parent| File::open(parent)?.sync_all()))
        .with_context(|| format!("{} can't be made: check its parent's permissions", dir.display()))?;
    let probe = dir.join(".writable");
    std::fs::write(&probe, []).and_then(|()| std::fs::remove_file(&probe)).with_context(|| {
        format!("{} can't be written: check its owner, its mode and the disk", dir.display())
    })
}

/// The id of a group, from `group(5)`.
fn group_id(name: &str) -> anyhow::Result<u32> {
    let groups = std::fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    match found {
        Some(id) => Ok(id),
        None => Err(ConfigError::Refused {
            place: "the config".to_owned(),
            key: "media.group".to_owned(),
            found: format!("{name:?}"),
            advice: format!("there is no such group on this host: make it by `groupadd --system {name}`"),
        }
        .into()),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
