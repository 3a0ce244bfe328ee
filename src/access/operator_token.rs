//! The operator's token: 64 hex digits in a file that only its owner can read.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use super::private_file::{AccessError, open, random_hex, read, replace};

/// Characters of a token: 32 random bytes as hex.
pub(super) const TOKEN_CHARS: usize = 64;

/// The operator's token, as its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorToken {
    hash: blake3::Hash,
}

impl OperatorToken {
    /// Reads the token at `path`, or makes one there: mode 0600, complete and durable before it has its
    /// name.
    ///
    /// # Errors
    /// A file that can't be read or made, that others could have read or written, or that holds no token.
    pub fn load_or_create(path: &Path) -> Result<Self, AccessError> {
        match load(path) {
            Err(AccessError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let text = new_token(path)?;
                replace(path, format!("{text}\n").as_bytes())?;
                Ok(Self { hash: hash_of(&text) })
            }
            loaded => loaded,
        }
    }

    /// Whether `presented` is the token. How long that takes doesn't depend on where they differ:
    /// hashes are compared, in constant time.
    pub fn verify(&self, presented: &str) -> bool {
        presented.len() == TOKEN_CHARS && hash_of(presented) == self.hash
    }

    /// The token's hash.
    pub(super) fn hash(&self) -> blake3::Hash {
        self.hash
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorToken(…)")
    }
}

/// A new token, for the file at `path`.
pub(super) fn new_token(path: &Path) -> Result<String, AccessError> {
    random_hex::<{ TOKEN_CHARS / 2 }>()
        .map_err(|source| AccessError::NotMade { path: path.to_owned(), source })
}

/// What is kept of a token. It has 256 random bits, so that no salt or slow hash is needed.
pub(super) fn hash_of(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

fn load(path: &Path) -> Result<OperatorToken, AccessError> {
    let bytes_max = u64::try_from(TOKEN_CHARS + 1).expect("a small number");
    let bytes = read(&open(path)?, path, bytes_max)?;
    let text = str::from_utf8(&bytes).unwrap_or_default();
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.len() == TOKEN_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(OperatorToken { hash: hash_of(text) });
    }
    let problem =
        format!("it is not {TOKEN_CHARS} hex digits: remove it, and a new one is made at the next start");
    Err(AccessError::Malformed { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn place(mode: u32, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("operator.token");
        fs::write(&path, content).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode is set");
        (dir, path)
    }

    #[test]
    fn a_new_token_is_private_and_loaded_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("operator.token");
        let made = OperatorToken::load_or_create(&path).expect("it is made");
        let text = fs::read_to_string(&path).expect("it is there");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
        assert_eq!(OperatorToken::load_or_create(&path).expect("it is loaded"), made);
        assert_eq!(text.len(), 65);
        assert!(made.verify(text.trim_end()));
        assert!(!format!("{made:?}").contains(&text[..8]));
        let other = OperatorToken::load_or_create(&dir.path().join("other")).expect("it is made");
        assert_ne!(other, made);
    }

    #[test]
    fn only_the_whole_token_is_verified() {
        let (_dir, path) = place(0o600, "ab".repeat(32).as_bytes());
        let token = OperatorToken::load_or_create(&path).expect("it is loaded");
        assert!(token.verify(&"ab".repeat(32)));
        for wrong in [
            "",
            "ab",
            &"ab".repeat(33),
            &"AB".repeat(32),
            &"ac".repeat(32),
            &format!("{}\n", "ab".repeat(32)),
        ] {
            assert!(!token.verify(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
            let (_dir, path) = place(mode, "ab".repeat(32).as_bytes());
            let error = OperatorToken::load_or_create(&path).expect_err("it is refused");
            assert!(matches!(error, AccessError::Exposed { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_malformed_token_is_refused_and_left_alone() {
        for content in ["", "ab", &"ab".repeat(33), &"zz".repeat(32), &format!("{}\n\n", "ab".repeat(32))] {
            let (_dir, path) = place(0o600, content.as_bytes());
            let error = OperatorToken::load_or_create(&path).expect_err("it is refused");
            assert!(matches!(error, AccessError::Malformed { .. }), "{error}");
            assert_eq!(fs::read(&path).expect("it is still there"), content.as_bytes());
        }
    }

    #[test]
    fn links_directories_and_missing_directories_are_refused() {
        let (dir, path) = place(0o600, "ab".repeat(32).as_bytes());
        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link");
        assert!(matches!(OperatorToken::load_or_create(&link), Err(AccessError::Unreadable { .. })));
        assert!(matches!(OperatorToken::load_or_create(dir.path()), Err(AccessError::NotOurs { .. })));
        let nowhere = dir.path().join("no/such/token");
        assert!(matches!(OperatorToken::load_or_create(&nowhere), Err(AccessError::NotMade { .. })));
    }
}
