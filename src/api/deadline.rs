//! A call's own deadline (`grpc-timeout`). It bounds the wait for the answer, never the work, and is
//! told as DEADLINE_EXCEEDED: left to itself, the transport says CANCELLED a moment later.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status::{late, status};
use crate::supervisor::Refusal;

/// How much sooner than the transport a call is answered.
const MARGIN: Duration = Duration::from_millis(5);

/// When a call has to be answered, if its caller said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline of the call with this metadata, which has come just now.
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout.saturating_sub(MARGIN))))
    }

    /// The answer, if it comes in time. What was asked for goes on in any case.
    pub(super) async fn bound<T>(
        self,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Status> {
        let answered = match self.0 {
            Some(at) => tokio::time::timeout_at(at, answer).await,
            None => Ok(answer.await),
        };
        answered.map_err(|_| late())?.map_err(status)
    }
}

/// Up to eight digits and a unit, as "Requests" of gRPC's `PROTOCOL-HTTP2.md` has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_answer_is_told_before_the_transport_gives_up() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "20m".parse().expect("a header's value"));
        let called_at = Instant::now();
        let answer = Deadline::of(&metadata).bound(std::future::pending::<Result<(), Refusal>>()).await;
        let status = answer.expect_err("there is no answer");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        let info = tonic_types::StatusExt::get_details_error_info(&status).expect("it has a reason");
        assert_eq!(info.reason, "DEADLINE_EXCEEDED");
        assert!(called_at.elapsed() + MARGIN >= Duration::from_millis(20));
        let answer = Deadline::of(&MetadataMap::new()).bound(async { Ok(7) }).await;
        assert_eq!(answer.expect("it is there"), 7);
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(parse("1m"), Some(Duration::from_millis(1)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("250u"), Some(Duration::from_micros(250)));
        for wrong in ["", "m", "1", "-1S", "123456789S", "1.5S", "1s", "1ü", "ü"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
