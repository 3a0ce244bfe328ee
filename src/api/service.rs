//! The calls of `CaptureAgent`: from the message to the supervisor and back.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::convert::{
    health_to_proto, progress_to_proto, receipt_to_proto, session_from_proto, session_to_proto,
};
use super::deadline::Deadline;
use super::guard::{audited, caller_of};
use super::status::{invalid, invalid_id, status, unreadable};
use super::{media, proto, streams};
use crate::clock::WallTime;
use crate::library::Library;
use crate::link::LINK_VERSION;
use crate::session::device::FormatWish;
use crate::session::machine::StopMode;
use crate::session::{SessionId, SessionSpec, StartOptions};
use crate::supervisor::{
    AdmissionOrder, AgentView, HANDOVER_TIMEOUT, Handle, Holder, HostLoad, Refusal, SessionView, StopRequest,
    WaitFor,
};

/// Sessions on a page, and at most.
const PAGE_SIZE: usize = 50;
const PAGE_SIZE_MAX: usize = 100;
/// The longest duration that a call may name, a year.
const LENGTH_SECONDS_MAX: u64 = 365 * 24 * 3600;

/// Who holds a device, where the caller may not see that session. It can't be a session's id.
const HIDDEN_HOLDER: &str = "(another user)";

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Name of the host.
    pub hostname: String,
    /// When the agent started.
    pub started_at: WallTime,
}

/// The service.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) handle: Handle,
    pub(super) library: Library,
    pub(super) about: About,
    /// Streams end when it is cancelled.
    pub(super) ending: CancellationToken,
    pub(super) tasks: TaskTracker,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl proto::capture_agent_server::CaptureAgent for Service {
    async fn start_session(
        &self,
        request: Request<proto::StartSessionRequest>,
    ) -> Answer<proto::StartSessionResponse> {
        let deadline = Deadline::of(request.metadata());
        let (this, audited) = (self.within(&request), audited(&request));
        let request = request.into_inner();
        let session =
            request.session.ok_or_else(|| invalid("session", "the session is missing: send one"))?;
        if let Ok(id) = session.id.parse() {
            audited.is(&id);
        }
        let object = session_from_proto(session).map_err(|error| unreadable(&error))?;
        let spec = SessionSpec::from_json(object.into()).map_err(|error| status(error.into()))?;
        let options = start_options(request.options.unwrap_or_default())?;
        let view = deadline.bound(this.handle.start(spec, options)).await?;
        Ok(Response::new(proto::StartSessionResponse { session: Some(session_to_proto(&view.object)) }))
    }

    async fn stop_session(
        &self,
        request: Request<proto::StopSessionRequest>,
    ) -> Answer<proto::StopSessionResponse> {
        let deadline = Deadline::of(request.metadata());
        let (this, audited) = (self.within(&request), audited(&request));
        let request = request.into_inner();
        let id = parse_id(&request.session_id)?;
        audited.is(&id);
        let stopped = deadline.bound(this.handle.stop(id, stop_request(&request)?)).await?;
        Ok(Response::new(proto::StopSessionResponse {
            session: Some(session_to_proto(&stopped.view.object)),
            receipt: stopped.view.receipt.as_ref().map(receipt_to_proto),
            already_finished: stopped.already_finished,
        }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Answer<proto::GetSessionResponse> {
        let id = parse_id(&request.get_ref().session_id)?;
        let deadline = Deadline::of(request.metadata());
        let view = deadline.bound(self.within(&request).handle.get(id)).await?;
        Ok(Response::new(answer_of(&view)))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Answer<proto::ListSessionsResponse> {
        let deadline = Deadline::of(request.metadata());
        let this = self.within(&request);
        let request = request.into_inner();
        let wanted = match request.page_size as usize {
            0 => PAGE_SIZE,
            size if size <= PAGE_SIZE_MAX => size,
            size => {
                return Err(invalid("page_size", format!("page_size is {size}: use 1 to {PAGE_SIZE_MAX}")));
            }
        };
        let is_wanted =
            |state: &str| request.states.is_empty() || request.states.iter().any(|it| it == state);
        // First, so that a session that begins between the two looks is in the second.
        let starting = deadline.bound(this.handle.starting()).await?;
        let starting = starting.iter().filter(|_| is_wanted("active")).map(session_to_proto).collect();
        let (mut sessions, mut since) = (Vec::new(), request.since);
        let has_more = 'pages: loop {
            let views = deadline.bound(this.handle.list(since, PAGE_SIZE_MAX)).await?;
            for view in &views {
                if sessions.len() == wanted {
                    break 'pages true;
                }
                since = view.change;
                let state = view.object.get("state").and_then(|state| state.as_str()).unwrap_or_default();
                if is_wanted(state) && this.handle.sees(view) {
                    sessions.push(answer_of(view));
                }
            }
            if views.len() < PAGE_SIZE_MAX {
                break false;
            }
        };
        Ok(Response::new(proto::ListSessionsResponse { sessions, next_since: since, has_more, starting }))
    }

    type WatchSessionStream = ReceiverStream<Result<proto::SessionEvent, Status>>;

    async fn watch_session(
        &self,
        request: Request<proto::WatchSessionRequest>,
    ) -> Answer<Self::WatchSessionStream> {
        let id = parse_id(&request.get_ref().session_id)?;
        streams::watch_session(&self.within(&request), id).await.map(Response::new)
    }

    type WatchAgentStream = ReceiverStream<Result<proto::SessionEvent, Status>>;

    async fn watch_agent(
        &self,
        request: Request<proto::WatchAgentRequest>,
    ) -> Answer<Self::WatchAgentStream> {
        Ok(Response::new(streams::watch_agent(&self.within(&request), request.get_ref().since)))
    }

    async fn list_devices(
        &self,
        request: Request<proto::ListDevicesRequest>,
    ) -> Answer<proto::ListDevicesResponse> {
        let deadline = Deadline::of(request.metadata());
        let devices = deadline.bound(self.within(&request).handle.devices()).await?;
        let devices = devices.into_iter().map(|device| proto::Device {
            id: device.id,
            name: device.name,
            r#type: device.media.to_string(),
            kind: device.kind.to_owned(),
            node: device.node,
            bus: device.bus,
            serial: device.serial,
            formats: device.formats,
            held_by: match device.held_by {
                Some(Holder::Session(session)) => session.to_string(),
                Some(Holder::Hidden) => HIDDEN_HOLDER.to_owned(),
                None => String::new(),
            },
        });
        Ok(Response::new(proto::ListDevicesResponse { devices: devices.collect() }))
    }

    async fn get_agent(&self, _: Request<proto::GetAgentRequest>) -> Answer<proto::GetAgentResponse> {
        let agent = self.handle.agent().await.map_err(status)?;
        let library = self.library.clone();
        let space = tokio::task::spawn_blocking(move || (library.space(), HostLoad::read())).await;
        let (space, load) = space.map_err(|_| status(Refusal::gone()))?;
        let (disk_free_bytes, disk_total_bytes) = space.unwrap_or_default();
        Ok(Response::new(proto::GetAgentResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            link_version: LINK_VERSION,
            hostname: self.about.hostname.clone(),
            started_at: self.about.started_at.to_string(),
            state: agent.state.as_str().to_owned(),
            sessions: sessions_of(&agent),
            sessions_max: u32::try_from(agent.sessions_max).unwrap_or(u32::MAX),
            media_dir: self.library.media_dir().display().to_string(),
            disk_free_bytes,
            disk_total_bytes,
            load_one_minute: load.one_minute,
            memory_used_bytes: load.memory_used_bytes,
            memory_total_bytes: load.memory_total_bytes,
            problems: agent.problems,
            health: Some(health_to_proto(&agent.health)),
        }))
    }

    type ReadMediaStream = ReceiverStream<Result<proto::ReadMediaResponse, Status>>;

    async fn read_media(&self, request: Request<proto::ReadMediaRequest>) -> Answer<Self::ReadMediaStream> {
        let (this, audited) = (self.within(&request), audited(&request));
        let reader = caller_of(&request).name;
        let request = request.into_inner();
        let id = parse_id(&request.session_id)?;
        audited.is(&id);
        media::read(&this, id, reader, request).await.map(Response::new)
    }

    async fn drain(&self, _: Request<proto::DrainRequest>) -> Answer<proto::DrainResponse> {
        let agent = self.handle.order(AdmissionOrder::Drain).await.map_err(status)?;
        Ok(Response::new(proto::DrainResponse { sessions: sessions_of(&agent) }))
    }

    async fn undrain(&self, _: Request<proto::UndrainRequest>) -> Answer<proto::UndrainResponse> {
        self.handle.order(AdmissionOrder::Undrain).await.map_err(status)?;
        Ok(Response::new(proto::UndrainResponse {}))
    }

    async fn handover(&self, _: Request<proto::HandoverRequest>) -> Answer<proto::HandoverResponse> {
        let agent = self.handle.order(AdmissionOrder::HandOver).await.map_err(status)?;
        let expires_after = prost_types::Duration::try_from(HANDOVER_TIMEOUT).ok();
        Ok(Response::new(proto::HandoverResponse { sessions: sessions_of(&agent), expires_after }))
    }
}

fn sessions_of(agent: &AgentView) -> u32 {
    u32::try_from(agent.sessions).unwrap_or(u32::MAX)
}

impl Service {
    /// The service as the caller of `request` may use it: it reaches the caller's sessions alone.
    fn within<M>(&self, request: &Request<M>) -> Self {
        Self { handle: self.handle.within(caller_of(request).scope()), ..self.clone() }
    }
}

/// A session as an answer carries it.
pub(super) fn answer_of(view: &SessionView) -> proto::GetSessionResponse {
    proto::GetSessionResponse {
        session: Some(session_to_proto(&view.object)),
        receipt: view.receipt.as_ref().filter(|_| view.finished).map(receipt_to_proto),
    }
}

/// A session as a stream carries it.
pub(super) fn event_of(view: &Arc<SessionView>) -> proto::SessionEvent {
    let progress =
        || progress_to_proto(&view.account, view.queued_packets, view.durable_bytes, view.pending_bytes);
    proto::SessionEvent {
        change: view.cursor,
        session: Some(session_to_proto(&view.object)),
        receipt: view.receipt.as_ref().filter(|_| view.finished).map(receipt_to_proto),
        progress: (!view.finished).then(progress),
    }
}

fn parse_id(id: &str) -> Result<SessionId, Status> {
    id.parse().map_err(|error| invalid_id(&error))
}

fn start_options(options: proto::StartOptions) -> Result<StartOptions, Status> {
    let max_duration =
        options.max_duration.map(|length| duration("options.max_duration", length)).transpose()?;
    let formats = options.formats.into_iter().map(|format| {
        // No device has so many that they don't fit.
        let channels = format.channels.map(|count| u16::try_from(count).unwrap_or(u16::MAX));
        let wish = FormatWish {
            width: format.width,
            height: format.height,
            frame_rate: format.frame_rate,
            pixel_format: format.pixel_format,
            sample_rate: format.sample_rate,
            channels,
        };
        (format.source_id, wish)
    });
    Ok(StartOptions { max_duration, formats: formats.collect() })
}

fn stop_request(request: &proto::StopSessionRequest) -> Result<StopRequest, Status> {
    let mode = match request.mode() {
        proto::StopMode::Unspecified | proto::StopMode::Drain => StopMode::Drain,
        proto::StopMode::Abort => StopMode::Abort,
    };
    let wait = match request.wait_for() {
        proto::WaitFor::Unspecified | proto::WaitFor::Finalized => WaitFor::Finalized,
        proto::WaitFor::Released => WaitFor::Released,
    };
    let drain = request.drain_timeout.map(|length| duration("drain_timeout", length)).transpose()?;
    Ok(StopRequest { mode, drain, wait, key: None })
}

fn duration(field: &str, length: prost_types::Duration) -> Result<Duration, Status> {
    let (seconds, nanos) = (u64::try_from(length.seconds), u32::try_from(length.nanos));
    let length = match (seconds, nanos) {
        (Ok(seconds @ ..=LENGTH_SECONDS_MAX), Ok(nanos @ ..=999_999_999)) => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    };
    if length.is_zero() {
        return Err(invalid(field, format!("{field} must be longer than 0 and at most a year")));
    }
    Ok(length)
}
