//! `token`: who may call over TCP. Works on the file of tokens itself, whether or not an agent runs;
//! one that does reads it again within a second.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde_json::json;

use super::args::{Global, TokenAddArguments, TokenCommand};
use super::exit::{FAILURE, Failure, NOT_FOUND, REFUSED, USAGE};
use super::out;
use super::text::{plain, table};
use crate::access::{Grant, TokenError, TokenFile};
use crate::clock::{Clock, SystemClock, WallTime};
use crate::config::{self, Overrides};
use crate::daemon::TOKENS_FILE;

/// Does what it says with the tokens of the config's agent.
///
/// # Errors
/// The config or the file can't be used, or the change can't be made.
pub fn token(global: &Global, command: TokenCommand) -> Result<(), Failure> {
    let path = config::load(global.config.as_deref(), &Overrides::default())?.state_dir.join(TOKENS_FILE);
    match command {
        TokenCommand::Add(arguments) => add(path, global.json, arguments),
        TokenCommand::List => list(path, global.json),
        TokenCommand::Revoke { name } => {
            TokenFile::lock(&path)?.revoke(&name)?;
            out::note(&format!("{} is revoked: a running agent refuses it within a second", plain(&name)));
            if global.json { out::json_line(&json!({ "name": name })) } else { Ok(()) }
        }
    }
}

fn add(path: PathBuf, json: bool, arguments: TokenAddArguments) -> Result<(), Failure> {
    let TokenAddArguments { name, role, user, expires } = arguments;
    let expires = expires.map(|text| parse_expiry(&text, SystemClock.wall())).transpose();
    let expires = expires.map_err(|problem| Failure::new(USAGE, format!("--expires: {problem}")))?;
    let token = TokenFile::lock(&path)?.add(&name, role, user.clone(), expires)?;
    if json {
        return out::json_line(
            &json!({ "name": name, "token": token, "role": role, "user": user, "expires": expires }),
        );
    }
    out::line(&token)?;
    out::note("this is shown once: only its hash is kept");
    Ok(())
}

fn list(path: PathBuf, json: bool) -> Result<(), Failure> {
    let file = TokenFile::lock(&path)?;
    let now = SystemClock.wall();
    let is_expired = |grant: &Grant| grant.expires.is_some_and(|expires| expires <= now);
    if json {
        let shown = |grant: &Grant| {
            json!({ "name": grant.name, "role": grant.role, "user": grant.user, "expires": grant.expires,
                    "isExpired": is_expired(grant) })
        };
        return out::json(&file.grants().iter().map(shown).collect::<Vec<_>>());
    }
    if file.grants().is_empty() {
        return out::line("no tokens but the operator's own");
    }
    let row = |grant: &Grant| {
        let expires = match grant.expires {
            Some(expires) if is_expired(grant) => format!("{expires} (expired)"),
            Some(expires) => expires.to_string(),
            None => "-".to_owned(),
        };
        vec![grant.name.clone(), grant.role.to_string(), plain(grant.user.as_deref().unwrap_or("-")), expires]
    };
    let rows: Vec<Vec<String>> = file.grants().iter().map(row).collect();
    out::line(&table(&["NAME", "ROLE", "USER", "EXPIRES"], &[], &rows))
}

/// A time, or how long from now, as people write it.
fn parse_expiry(text: &str, now: WallTime) -> Result<WallTime, String> {
    let advice =
        || "write a time like 2027-05-01T12:00:00Z, or how long from now, like 30d or 12h".to_owned();
    let at = match text.parse::<WallTime>() {
        Ok(at) => at,
        Err(_) => {
            let span: Span = text.parse().map_err(|_| advice())?;
            let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| advice())?;
            now + Duration::try_from(length).map_err(|_| advice())?
        }
    };
    if at > now { Ok(at) } else { Err(format!("{at} has passed: {}", advice())) }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        let code = match &error {
            TokenError::File(_) => FAILURE,
            TokenError::Exists { .. } => REFUSED,
            TokenError::Unknown { .. } => NOT_FOUND,
            TokenError::Refused { .. } => USAGE,
        };
        let failure = Self::new(code, error.to_string());
        match error {
            TokenError::File(_) => failure.hint("run this as root, or as the agent's own user"),
            TokenError::Unknown { .. } => failure.hint("`shutterd token list` shows those that there are"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_a_length_from_now() {
        let now: WallTime = "2026-05-01T12:00:00.000Z".parse().expect("a time");
        let parsed = |text| parse_expiry(text, now).map(|at| at.to_string());
        assert_eq!(parsed("2027-05-01T12:00:00+02:00").as_deref(), Ok("2027-05-01T10:00:00.000Z"));
        assert_eq!(parsed("30d").as_deref(), Ok("2026-05-31T12:00:00.000Z"));
        assert_eq!(parsed("1d 12h").as_deref(), Ok("2026-05-03T00:00:00.000Z"));
        for wrong in ["", "soon", "30", "-1d", "0s", "2020-01-01T00:00:00Z", "1 month"] {
            assert!(parse_expiry(wrong, now).is_err(), "{wrong:?}");
        }
    }
}
