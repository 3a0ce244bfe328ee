//! The library's hands: they touch what is a session's own, whatever was planted there.

use std::fs;
use std::os::unix::fs::symlink;

use shutterd::library::{Library, RECEIPT_NAME, RemovalError};
use shutterd::session::{EndReason, Receipt, SessionId};
use tempfile::TempDir;

fn library() -> (TempDir, Library) {
    let dir = TempDir::new().expect("a directory");
    let library = Library::new(dir.path().join("media"), 0o640, None);
    fs::create_dir(library.media_dir()).expect("a directory");
    (dir, library)
}

fn id(name: &str) -> SessionId {
    name.parse().expect("the test wrote an id")
}

fn receipt(name: &str) -> Receipt {
    Receipt {
        session_id: id(name),
        end_reason: EndReason::StopRequested,
        forced: true,
        requested_at: None,
        released_at: None,
        finalized_at: None,
        sources: Vec::new(),
        files: Vec::new(),
        removal: None,
        warnings: Vec::new(),
    }
}

#[test]
fn a_receipt_is_written_over_nothing_that_has_another_name() {
    let (dir, library) = library();
    let own = library.session_dir(&id("s"));
    let (precious, draft) = (dir.path().join("precious"), own.join(".receipt.json.new"));
    fs::create_dir(&own).expect("a directory");
    fs::write(&precious, b"precious").expect("a file");
    fs::hard_link(&precious, &draft).expect("a second name");
    library.write_receipt(&receipt("s")).expect("it is written");
    symlink(&precious, &draft).expect("a link");
    library.write_receipt(&receipt("s")).expect("it is written");
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    let written = fs::read(own.join(RECEIPT_NAME)).expect("it is there");
    assert_eq!(serde_json::from_slice::<Receipt>(&written).expect("a receipt"), receipt("s"));
}

#[test]
fn what_a_worker_left_is_forgotten_in_the_sessions_own_directory_alone() {
    let (_dir, library) = library();
    let other = library.session_dir(&id("other"));
    fs::create_dir(&other).expect("a directory");
    fs::write(other.join(".account.json"), b"{}").expect("a file");
    fs::write(other.join(".account.json.new"), b"{").expect("a file");
    symlink(&other, library.session_dir(&id("s"))).expect("a link");
    assert!(library.forget_last_account(&id("s")).is_err());
    assert!(library.complete_receipt(&receipt("s")).is_err());
    assert!(other.join(".account.json").exists() && !other.join(RECEIPT_NAME).exists());
    library.forget_last_account(&id("other")).expect("it can be removed");
    assert_eq!(fs::read_dir(&other).expect("it is there").count(), 0, "its draft neither");
    library.forget_last_account(&id("other")).expect("it is gone");
    library.forget_last_account(&id("nobody")).expect("there is none");
}

#[test]
fn media_is_not_called_removed_while_its_directory_is_missing() {
    let (_dir, library) = library();
    let missing = library.remove_media(&receipt("s"));
    assert!(matches!(missing, Err(RemovalError::Missing { .. })), "{missing:?}");
    let own = library.session_dir(&id("s"));
    fs::create_dir(&own).expect("a directory");
    fs::write(own.join("s-0001.mkv"), b"spoilt").expect("a file");
    library.check_removal(&receipt("s")).expect("it can be removed");
    assert!(own.join("s-0001.mkv").exists());
    assert_eq!(library.remove_media(&receipt("s")).expect("it is removed"), Vec::<String>::new());
    assert!(!own.join("s-0001.mkv").exists());
}
