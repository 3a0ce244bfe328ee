//! The file of tokens: who they are for, what they may do, and their hashes, as JSON:
//!
//! ```json
//! {"tokens": [{"name": "api", "blake3": "…64 hex digits…", "role": "operator", "user": "65d7…", "expires": "2027-…Z"}]}
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::operator_token::{hash_of, new_token};
use super::private_file::{self, AccessError};
use super::role::Role;
use crate::clock::WallTime;

/// Tokens that a file may hold.
const TOKENS_MAX: usize = 1000;
/// Bytes of the file.
const BYTES_MAX: u64 = 1 << 20;
/// Characters of a name or a user.
const TEXT_CHARS_MAX: usize = 64;
/// The name that calls with the operator's own token bear.
pub(super) const OPERATOR_NAME: &str = "operator";

/// What a token is for. A member that this version doesn't know could be a restriction, and is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What people call it; each once.
    pub name: String,
    /// Hash of the token, as hex.
    pub blake3: String,
    /// What it may do.
    pub role: Role,
    /// The one user whose sessions it reaches; everybody's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it is valid no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<WallTime>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    tokens: Vec<Grant>,
}

/// A change of the tokens that can't be made.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file can't be read or written.
    #[error(transparent)]
    File(#[from] AccessError),
    /// There is a token of this name already.
    #[error("there is a token {name} already: revoke it first, or choose another name")]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is no token of this name.
    #[error("there is no token {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It can't be taken as it is.
    #[error("{problem}")]
    Refused {
        /// What is wrong with it, and what would do.
        problem: String,
    },
}

/// The file, for whoever changes it. One at a time: the directory is locked until it is dropped.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    content: Content,
    _lock: File,
}

impl TokenFile {
    /// Reads the file, which may be absent, and keeps others from changing it.
    ///
    /// # Errors
    /// It can't be read, others could have read it, or it is damaged.
    pub fn lock(path: &Path) -> Result<Self, TokenError> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let locked = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
        let lock = locked.map_err(|source| AccessError::Unreadable { path: dir.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), content: Content { tokens: load(path)? }, _lock: lock })
    }

    /// What there is.
    pub fn grants(&self) -> &[Grant] {
        &self.content.tokens
    }

    /// Makes a token and writes its hash; the token, which is kept nowhere.
    ///
    /// # Errors
    /// The name is taken or unusable, or the file can't be written.
    pub fn add(
        &mut self,
        name: &str,
        role: Role,
        user: Option<String>,
        expires: Option<WallTime>,
    ) -> Result<String, TokenError> {
        if self.content.tokens.iter().any(|grant| grant.name == name) {
            return Err(TokenError::Exists { name: name.to_owned() });
        }
        let token = new_token(&self.path)?;
        let blake3 = hash_of(&token).to_hex().to_string();
        self.content.tokens.push(Grant { name: name.to_owned(), blake3, role, user, expires });
        check(&self.content.tokens).map_err(|problem| TokenError::Refused { problem })?;
        self.write()?;
        Ok(token)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// There is none of this name, or the file can't be written.
    pub fn revoke(&mut self, name: &str) -> Result<(), TokenError> {
        let before = self.content.tokens.len();
        self.content.tokens.retain(|grant| grant.name != name);
        if self.content.tokens.len() == before {
            return Err(TokenError::Unknown { name: name.to_owned() });
        }
        self.write()
    }

    fn write(&self) -> Result<(), TokenError> {
        let mut json = serde_json::to_vec_pretty(&self.content).expect("grants are plain texts");
        json.push(b'\n');
        Ok(private_file::replace(&self.path, &json)?)
    }
}

/// The grants of the file at `path`; none when it is absent.
pub(super) fn load(path: &Path) -> Result<Vec<Grant>, AccessError> {
    let file = match private_file::open(path) {
        Err(AccessError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        file => file?,
    };
    let malformed = |problem| AccessError::Malformed { path: path.to_owned(), problem };
    let bytes = private_file::read(&file, path, BYTES_MAX)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(malformed(format!("it is longer than {BYTES_MAX} bytes: it can't be a file of tokens")));
    }
    let content: Content = serde_json::from_slice(&bytes).map_err(|error| {
        malformed(format!("it is no file of tokens: {error}; mend it, or remove it and add the tokens anew"))
    })?;
    check(&content.tokens).map_err(malformed)?;
    Ok(content.tokens)
}

fn check(grants: &[Grant]) -> Result<(), String> {
    if grants.len() > TOKENS_MAX {
        return Err(format!("there are {} tokens: at most {TOKENS_MAX} are taken", grants.len()));
    }
    let mut names = HashSet::new();
    for Grant { name, blake3, user, .. } in grants {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
        if name.is_empty() || name.len() > TEXT_CHARS_MAX || !name.chars().all(plain) {
            return Err(format!(
                "{name:?} is no name of a token: use 1 to {TEXT_CHARS_MAX} letters, digits, '_', '-', '.' and '@'"
            ));
        }
        if name == OPERATOR_NAME {
            return Err(format!(
                "the name {OPERATOR_NAME:?} is that of the operator's own token: use another"
            ));
        }
        if !names.insert(name) {
            return Err(format!("the token {name} is there twice: give each a name of its own"));
        }
        if blake3.len() != 64 || !blake3.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("blake3 of the token {name} is not 64 hex digits: add the token anew"));
        }
        let usable = |user: &String| {
            (1..=TEXT_CHARS_MAX).contains(&user.chars().count()) && !user.chars().any(char::is_control)
        };
        if !user.as_ref().is_none_or(usable) {
            return Err(format!(
                "the user of the token {name} is not 1 to {TEXT_CHARS_MAX} plain characters"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tokens.json");
        fs::write(&path, content).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode is set");
        (dir, path)
    }

    #[test]
    fn what_is_added_is_read_again_and_what_is_revoked_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tokens.json");
        let expires = "2030-01-01T00:00:00.000Z".parse().ok();
        let mut file = TokenFile::lock(&path).expect("an absent file holds no token");
        let token = file.add("api", Role::Operator, Some("u1".to_owned()), expires).expect("it is added");
        assert!(matches!(file.add("api", Role::Viewer, None, None), Err(TokenError::Exists { .. })));
        let other = file.add("wall@lobby", Role::Viewer, None, None).expect("it is added");
        assert_ne!(token, other);
        drop(file);
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(!text.contains(&token) && text.contains(&hash_of(&token).to_hex().to_string()));
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
        let mut file = TokenFile::lock(&path).expect("it is read");
        let names: Vec<&str> = file.grants().iter().map(|grant| grant.name.as_str()).collect();
        assert_eq!(names, ["api", "wall@lobby"]);
        assert_eq!((&file.grants()[0].user, file.grants()[0].expires), (&Some("u1".to_owned()), expires));
        file.revoke("api").expect("it is revoked");
        assert!(matches!(file.revoke("api"), Err(TokenError::Unknown { .. })));
        assert_eq!(load(&path).expect("it is read").len(), 1);
    }

    #[test]
    fn two_changes_at_once_wait_for_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tokens.json");
        std::thread::scope(|scope| {
            for at in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = TokenFile::lock(path).expect("its turn comes");
                    file.add(&format!("t{at}"), Role::Viewer, None, None).expect("it is added");
                });
            }
        });
        assert_eq!(load(&path).expect("it is read").len(), 8);
    }

    #[test]
    fn a_damaged_file_is_refused_with_what_is_wrong() {
        let hash = "ab".repeat(32);
        let grant = |rest: &str| format!(r#"{{"tokens": [{{"name": "a", "blake3": "{hash}", {rest}}}]}}"#);
        for (content, why) in [
            (String::new(), "no file of tokens"),
            ("[]".to_owned(), "no file of tokens"),
            (grant(r#""role": "admin""#), "no file of tokens"),
            (grant(r#""role": "viewer", "scope": "x""#), "unknown field"),
            (grant(r#""role": "viewer", "expires": "soon""#), "no file of tokens"),
            (grant(r#""role": "viewer", "user": """#), "user of the token a"),
            (grant(r#""role": "viewer""#).replace(&hash, "ab"), "64 hex digits"),
            (grant(r#""role": "viewer""#).replace("\"a\"", "\"operator\""), "operator's own"),
            (grant(r#""role": "viewer""#).replace("\"a\"", "\"a b\""), "no name"),
            (" ".repeat((1 << 20) + 1), "longer than"),
        ] {
            let (_dir, path) = written(&content);
            let error = load(&path).expect_err("it is refused").to_string();
            assert!(error.contains(why), "{why:?} is not in {error:?}");
        }
        let (_dir, path) = written(&grant(r#""role": "viewer""#));
        assert_eq!(load(&path).expect("it is read").len(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("the mode is set");
        assert!(matches!(load(&path), Err(AccessError::Exposed { mode: 0o640, .. })));
    }
}
