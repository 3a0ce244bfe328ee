//! Telling who presents a token: the operator's own, or one of the file's, which is read again when it
//! has changed. A file that can't be used lets nobody in by it; the operator's token stays valid.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::operator_token::{OperatorToken, hash_of};
use super::private_file::AccessError;
use super::role::{Caller, Role};
use super::token_file::{Grant, OPERATOR_NAME, load};
use crate::clock::{Clock, MonoTime, SystemClock, WallTime};

/// Between two looks at whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No token was presented.
    NoToken,
    /// What was presented is no token that is valid here.
    NotValid,
    /// The token was valid once.
    Expired,
}

/// The tokens that are valid.
#[derive(Debug)]
pub struct Tokens {
    operator: OperatorToken,
    path: PathBuf,
    known: Mutex<Known>,
}

/// What the file held when it was read last.
#[derive(Debug)]
struct Known {
    grants: Vec<(blake3::Hash, Grant)>,
    file: Option<FileState>,
    looked_at: MonoTime,
}

/// What tells that a file was changed: device, inode, length, times of change of content and inode.
type FileState = (u64, u64, u64, (i64, i64), (i64, i64));

/// The token of an `Authorization` header.
pub fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl Tokens {
    /// Reads the file at `path`, which may be absent.
    ///
    /// # Errors
    /// It can't be read, others could have read it, or it is damaged.
    pub fn open(operator: OperatorToken, path: PathBuf) -> Result<Self, AccessError> {
        // Its state first: what is written meanwhile is read at the next look.
        let file = state_of(&path);
        let known = Known { grants: read(&path)?, file, looked_at: SystemClock.now() };
        Ok(Self { operator, path, known: Mutex::new(known) })
    }

    /// Who presents `token`.
    ///
    /// # Errors
    /// Nobody who is let in.
    pub fn caller(&self, token: Option<&str>) -> Result<Caller, Denial> {
        let presented = hash_of(token.ok_or(Denial::NoToken)?);
        let mut known = self.known.lock().expect("no holder of this lock can panic");
        self.look(&mut known, SystemClock.now());
        known.find(presented, &self.operator, SystemClock.wall())
    }

    /// Reads the file again if it has changed.
    fn look(&self, known: &mut Known, now: MonoTime) {
        if now.since(known.looked_at) < LOOK_INTERVAL {
            return;
        }
        known.looked_at = now;
        let state = state_of(&self.path);
        if state == known.file {
            return;
        }
        known.file = state;
        match read(&self.path) {
            Ok(grants) => {
                tracing::info!(path = %self.path.display(), tokens = grants.len(), "tokens read again");
                known.grants = grants;
            }
            Err(error) => {
                tracing::error!(%error, "no token but the operator's is valid until the file of tokens is mended");
                known.grants.clear();
            }
        }
    }
}

impl Known {
    /// Whose hash this is. Every hash is compared, each in constant time, so that how long it takes tells
    /// nothing.
    fn find(
        &self,
        presented: blake3::Hash,
        operator: &OperatorToken,
        now: WallTime,
    ) -> Result<Caller, Denial> {
        let identity = *presented.as_bytes();
        let mut found = Err(Denial::NotValid);
        if presented == operator.hash() {
            found = Ok(Caller { name: OPERATOR_NAME.to_owned(), role: Role::Operator, user: None, identity });
        }
        for (hash, grant) in &self.grants {
            if presented == *hash {
                found = match grant.expires {
                    Some(expires) if expires <= now => Err(Denial::Expired),
                    _ => Ok(Caller {
                        name: grant.name.clone(),
                        role: grant.role,
                        user: grant.user.clone(),
                        identity,
                    }),
                };
            }
        }
        found
    }
}

fn read(path: &Path) -> Result<Vec<(blake3::Hash, Grant)>, AccessError> {
    let hashed = |grant: Grant| {
        let hash = blake3::Hash::from_hex(&grant.blake3).expect("it was checked when it was read");
        (hash, grant)
    };
    Ok(load(path)?.into_iter().map(hashed).collect())
}

fn state_of(path: &Path) -> Option<FileState> {
    let meta = fs::symlink_metadata(path).ok()?;
    let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), meta.len(), modified, changed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::access::TokenFile;

    fn place() -> (tempfile::TempDir, PathBuf, Tokens, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let operator_path = dir.path().join("operator.token");
        let operator = OperatorToken::load_or_create(&operator_path).expect("it is made");
        let text = fs::read_to_string(operator_path).expect("it is there");
        let path = dir.path().join("tokens.json");
        let tokens = Tokens::open(operator, path.clone()).expect("no file is no token");
        (dir, path, tokens, text.trim_end().to_owned())
    }

    fn look(tokens: &Tokens) {
        let mut known = tokens.known.lock().expect("nobody panicked");
        let later = known.looked_at + LOOK_INTERVAL;
        tokens.look(&mut known, later);
    }

    #[test]
    fn a_token_is_valid_from_its_adding_to_its_revocation_without_a_restart() {
        let (_dir, path, tokens, operator) = place();
        let caller = tokens.caller(Some(&operator)).expect("the operator is let in");
        assert_eq!(
            (caller.name.as_str(), caller.role, caller.user.clone()),
            ("operator", Role::Operator, None)
        );
        let user = Some("u1".to_owned());
        let add = |name: &str, expires| {
            let mut file = TokenFile::lock(&path).expect("the file");
            file.add(name, Role::Reader, user.clone(), expires).expect("it is added")
        };
        let (token, old) = (add("a", None), add("old", "2020-01-01T00:00:00Z".parse().ok()));
        assert_eq!(tokens.caller(Some(&token)), Err(Denial::NotValid), "nobody looked yet");
        look(&tokens);
        let caller = tokens.caller(Some(&token)).expect("it is valid");
        assert_eq!((caller.name.as_str(), caller.role, &caller.user), ("a", Role::Reader, &user));
        assert_eq!(tokens.caller(Some(&old)), Err(Denial::Expired));
        TokenFile::lock(&path).and_then(|mut file| file.revoke("a")).expect("it is revoked");
        look(&tokens);
        assert_eq!(tokens.caller(Some(&token)), Err(Denial::NotValid));
        assert!(tokens.caller(Some(&operator)).is_ok());
    }

    #[test]
    fn a_file_that_others_can_read_lets_nobody_in_until_it_is_mended() {
        let (_dir, path, tokens, operator) = place();
        let token =
            TokenFile::lock(&path).expect("the file").add("a", Role::Viewer, None, None).expect("added");
        look(&tokens);
        let mode =
            |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode is set");
        for (bits, valid) in [(0o600, true), (0o644, false), (0o600, true)] {
            mode(bits);
            look(&tokens);
            assert_eq!(tokens.caller(Some(&token)).is_ok(), valid, "{bits:o}");
            assert!(tokens.caller(Some(&operator)).is_ok());
        }
        mode(0o644);
        let other =
            OperatorToken::load_or_create(&path.with_file_name("operator.token")).expect("it is there");
        assert!(matches!(Tokens::open(other, path), Err(AccessError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_token_is_told_from_none() {
        let (_dir, _, tokens, operator) = place();
        assert_eq!(tokens.caller(None), Err(Denial::NoToken));
        for wrong in ["", "x", &operator[1..], &operator.to_uppercase(), &"0".repeat(64)] {
            // A token of digits alone has no capitals.
            if wrong != operator {
                assert_eq!(tokens.caller(Some(wrong)), Err(Denial::NotValid), "{wrong:?}");
            }
        }
        assert_eq!(bearer(Some("Bearer abc")), Some("abc"));
        assert_eq!(bearer(Some("bearer  abc ")), Some("abc"));
        for wrong in [None, Some(""), Some("abc"), Some("Basic abc"), Some("Bearer")] {
            assert_eq!(bearer(wrong), None, "{wrong:?}");
        }
    }
}
