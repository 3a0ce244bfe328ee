//! Which media the journal knows to be kept.

use shutterd::session::{Removal, RemovalReason, RemovalState};

use super::*;

#[test]
fn media_is_kept_until_it_was_removed_and_an_older_journal_knows_it_too() {
    let (_dir, path) = place();
    let journal = open(&path);
    let removal = |state| Removal { state, removed_at: None, reason: RemovalReason::Requested };
    let with = |name: &str, change, removal: Option<Removal>, files: usize| {
        let mut record = finished(name, change);
        let receipt = record.receipt.as_mut().expect("it is finished");
        (receipt.removal, receipt.forced) = (removal, false);
        receipt.files.truncate(files);
        record
    };
    answer(journal.put(started("runs", 1))).expect("it is written");
    answer(journal.put(with("pending", 5, Some(removal(RemovalState::Pending)), 1))).expect("it is written");
    answer(journal.put(with("uncounted", 6, Some(removal(RemovalState::Pending)), 0)))
        .expect("it is written");
    answer(journal.put(with("kept", 3, None, 1))).expect("it is written");
    answer(journal.put(with("nothing", 4, None, 0))).expect("it is written");
    let mut forced = with("spoilt", 2, None, 0);
    forced.receipt.as_mut().expect("it is finished").forced = true;
    answer(journal.put(forced)).expect("it is written");
    answer(journal.put(with("gone", 7, Some(removal(RemovalState::Removed)), 1))).expect("it is written");
    let kept = |journal: &Journal| -> Vec<(String, u64, bool)> {
        let kept = answer(journal.kept()).expect("it is read");
        kept.iter().map(|it| (it.session.to_string(), it.bytes, it.removal.is_some())).collect()
    };
    let wanted =
        [("spoilt", 0, false), ("kept", 1 << 40, false), ("pending", 1 << 40, true), ("uncounted", 0, true)];
    let wanted = wanted.map(|(name, bytes, removal)| (name.to_owned(), bytes, removal));
    assert_eq!(kept(&journal), wanted);
    journal.close();
    // As a program would leave it that doesn't know the index; and a row that can't be read.
    let file = rusqlite::Connection::open(&path).expect("the file opens");
    file.execute_batch(
        "DROP INDEX session_media;
         INSERT INTO session (id, change, finished, body) VALUES ('bad', 8, 1, '{')",
    )
    .expect("it can be changed");
    drop(file);
    assert_eq!(kept(&open(&path)), wanted);
}
