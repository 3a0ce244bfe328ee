//! A journal that was damaged: it opens, keeps the damaged file, and carries over what can be read.

use std::fs;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shutterd::journal::{Damage, Past, look};

use super::*;

/// Sessions of the journal that is damaged: more than a page of each kind.
const SESSIONS: u64 = 40;
/// The lowest byte of `user_version` in SQLite's header: what it says may be a newer program's schema.
const VERSION_BYTES: std::ops::RangeInclusive<usize> = 63..=63;

/// The bytes of a journal that was closed, and of one that was not with its log.
struct Specimen {
    file: Vec<u8>,
    log: Vec<u8>,
}

fn specimen() -> (Specimen, Specimen) {
    let (_dir, path) = place();
    let journal = open(&path);
    for change in 1..=SESSIONS {
        let record = if change % 2 == 0 { finished } else { started }(&format!("s{change}"), change);
        answer(journal.put(record)).expect("it is written");
    }
    let log = suffixed(&path, "-wal");
    let cut_off = Specimen { file: fs::read(&path).expect("the file"), log: fs::read(log).expect("its log") };
    journal.close();
    (Specimen { file: fs::read(&path).expect("the file"), log: Vec::new() }, cut_off)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn lay(specimen: &Specimen) -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = place();
    fs::write(&path, &specimen.file).expect("it is written");
    if !specimen.log.is_empty() {
        fs::write(suffixed(&path, "-wal"), &specimen.log).expect("it is written");
    }
    (dir, path)
}

fn restore(path: &Path) -> (Journal, Past) {
    let (journal, past) = Journal::restore(path, wall(0), || false).expect("it opens whatever lies there");
    answer(journal.check()).expect("it takes and gives");
    (journal, past)
}

/// Every record that is there is what was written, and what isn't there is told.
fn judge(path: &Path, what: &str) -> Past {
    let (journal, past) = restore(path);
    let found = answer(journal.list(0, 1000)).expect("they are read");
    assert!(found.skipped.is_empty(), "{what}: {:?}", found.skipped);
    for record in &found.records {
        let name = record.spec.id().as_str();
        let change: u64 = name[1..].parse().unwrap_or_else(|_| panic!("{what}: {name}"));
        let wanted = if change.is_multiple_of(2) { finished(name, change) } else { started(name, change) };
        assert_eq!(*record, wanted, "{what}");
    }
    let last = answer(journal.last_change()).expect("it is read");
    match &past {
        Past::Closed => assert_eq!((found.records.len() as u64, last), (SESSIONS, SESSIONS), "{what}"),
        _ => assert!(last > SESSIONS, "{what}: {last} may have been given out"),
    }
    answer(journal.put(started("next", last + 1))).expect("it is written");
    journal.close();
    let (journal, past_of_next) = restore(path);
    assert_eq!(past_of_next, Past::Closed, "{what}: it is whole again");
    assert_eq!(answer(journal.last_change()).expect("it is read"), last + 1, "{what}");
    past
}

fn kept(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.parent().expect("a directory")).expect("it can be read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|it| it.display().to_string().contains(".damaged-")).collect();
    paths.sort();
    paths
}

fn damage(past: Past) -> Damage {
    match past {
        Past::Damaged(damage) => damage,
        other => panic!("it is damaged, not {other:?}"),
    }
}

#[test]
fn a_journal_with_a_flipped_byte_anywhere_opens_and_gives_nothing_that_was_not_written() {
    let (closed, cut_off) = specimen();
    let mut runner = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
    let ran = runner.run(&(any::<prop::sample::Index>(), 1..=255_u8, any::<bool>()), |(at, bits, logged)| {
        let specimen = if logged { &cut_off } else { &closed };
        let mut spoilt = Specimen { file: specimen.file.clone(), log: specimen.log.clone() };
        let at = at.index(spoilt.file.len() + spoilt.log.len());
        prop_assume!(!VERSION_BYTES.contains(&at));
        match at.checked_sub(spoilt.file.len()) {
            None => spoilt.file[at] ^= bits,
            Some(at) => spoilt.log[at] ^= bits,
        }
        let (_dir, path) = lay(&spoilt);
        judge(&path, &format!("byte {at} ^ {bits}, with its log: {logged}"));
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_journal_that_is_cut_anywhere_opens_and_gives_nothing_that_was_not_written() {
    let (closed, cut_off) = specimen();
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let ran = runner.run(&(any::<prop::sample::Index>(), any::<bool>()), |(at, logged)| {
        let specimen = if logged { &cut_off } else { &closed };
        let mut spoilt = Specimen { file: specimen.file.clone(), log: specimen.log.clone() };
        let cut = if logged { &mut spoilt.log } else { &mut spoilt.file };
        let length = at.index(cut.len());
        cut.truncate(length);
        let (_dir, path) = lay(&spoilt);
        let past = judge(&path, &format!("cut to {length} bytes, its log: {logged}"));
        prop_assert!(past != Past::Closed);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_byte_of_the_header_may_be_flipped() {
    let (closed, _) = specimen();
    for at in (0..100).filter(|at| !VERSION_BYTES.contains(at)) {
        let mut spoilt = Specimen { file: closed.file.clone(), log: Vec::new() };
        spoilt.file[at] ^= 0x41;
        let (_dir, path) = lay(&spoilt);
        if let Past::Damaged(damage) = judge(&path, &format!("byte {at} of the header")) {
            assert_eq!(
                (damage.carried, damage.has_more),
                (SESSIONS, false),
                "byte {at}: its pages are whole"
            );
        }
    }
}

#[test]
fn a_first_page_of_garbage_costs_no_record() {
    let (mut closed, _) = specimen();
    closed.file[..4096].fill(0xA5);
    let (_dir, path) = lay(&closed);
    let damage = damage(judge(&path, "its first page"));
    assert_eq!((damage.carried, damage.unreadable.len(), damage.has_more), (SESSIONS, 0, false));
}

#[test]
fn one_damaged_page_costs_its_records_alone_and_the_damaged_file_is_kept_as_it_was() {
    let (mut closed, _) = specimen();
    let body = b"\"_id\":\"s20\"";
    let at = closed.file.windows(body.len()).position(|it| it == body).expect("its record");
    closed.file[at + 12] ^= 1;
    let (_dir, path) = lay(&closed);
    let seen = look(&path).expect("it can be looked at");
    assert_eq!((seen.records.len() as u64, &seen.unreadable), (SESSIONS - 1, &vec!["s20".to_owned()]));
    assert!(seen.problem.is_some());
    assert!(kept(&path).is_empty(), "a look changes nothing");
    let damage = damage(judge(&path, "one record"));
    assert_eq!((damage.carried, damage.unreadable), (SESSIONS - 1, vec!["s20".to_owned()]));
    assert_eq!(kept(&path).first(), Some(&damage.kept_path));
    assert_eq!(fs::read(&damage.kept_path).expect("it is there"), closed.file);
    for kept in kept(&path) {
        assert_eq!(fs::metadata(&kept).expect("it is there").mode() & 0o777, 0o600, "{kept:?}");
    }
}

#[test]
fn garbage_gives_an_empty_journal_and_is_kept() {
    let (_dir, path) = place();
    let garbage = b"this is no database, but it is long enough to be looked at as one. ".repeat(200);
    fs::write(&path, &garbage).expect("it is written");
    let damage = damage(restore(&path).1);
    assert_eq!((damage.carried, damage.unreadable.len()), (0, 0));
    assert_eq!(fs::read(&damage.kept_path).expect("it is kept"), garbage);
}

#[test]
fn a_crash_at_any_moment_of_the_replacement_comes_to_the_same_end() {
    let (mut closed, _) = specimen();
    let whole = closed.file.clone();
    closed.file[4096..8192].fill(0xA5);
    closed.log = b"what a log had in it".to_vec();
    // What is there after each step; a cut-off part is no journal.
    let part = whole[..5000].to_vec();
    for step in 0..6 {
        let (dir, path) = lay(&closed);
        let away = |suffix: &str, to: &str| {
            fs::rename(suffixed(&path, suffix), dir.path().join(to)).expect("it is moved");
        };
        match step {
            0 => fs::write(suffixed(&path, ".part"), &part).expect("it is written"),
            1.. => fs::write(suffixed(&path, ".new"), &whole).expect("it is written"),
            _ => unreachable!("steps are counted from zero"),
        }
        let at = fs::metadata(suffixed(&path, ".new")).ok().map(|new| {
            let ns = i128::from(new.mtime()) * 1_000_000_000 + i128::from(new.mtime_nsec());
            WallTime::from_nanos(ns).to_string().replace(['-', ':'], "")
        });
        let kept_name = format!("journal.damaged-{}.sqlite", at.unwrap_or_default());
        if step >= 2 {
            away("", &kept_name);
        }
        if step >= 3 {
            away("-wal", &format!("{kept_name}-wal"));
        }
        if step >= 4 {
            fs::rename(suffixed(&path, ".new"), &path).expect("it is moved");
        }
        let (journal, past) = restore(&path);
        let found = answer(journal.list(0, 1000)).expect("they are read");
        if step >= 1 {
            assert_eq!(found.records.len() as u64, SESSIONS, "step {step}: the new one was whole");
        }
        assert_eq!(matches!(past, Past::Damaged(_)), step < 4, "step {step}: {past:?}");
        let files = kept(&path);
        assert_eq!(fs::read(&files[0]).expect("it is kept"), closed.file, "step {step}");
        assert_eq!(fs::read(suffixed(&files[0], "-wal")).expect("it is kept"), closed.log, "step {step}");
        for left in [".part", ".new"] {
            assert!(!suffixed(&path, left).exists(), "step {step}: {left}");
        }
    }
}

#[test]
fn a_journal_that_is_gone_begins_beyond_what_was_given_out_and_a_first_one_at_the_beginning() {
    let (_dir, path) = place();
    let (journal, past) = restore(&path);
    assert_eq!(past, Past::Missing);
    assert_eq!(answer(journal.last_change()).expect("it is read"), 1_777_000_000, "the seconds since 1970");
    let (_dir, path) = place();
    let (journal, past) = Journal::restore(&path, wall(0), || true).expect("it opens");
    assert_eq!((past, answer(journal.last_change()).expect("it is read")), (Past::First, 0));
}

#[test]
fn a_newer_schema_is_no_damage_and_a_record_of_a_newer_program_none_either() {
    let (_dir, path) = place();
    open(&path).close();
    sql(&path, "PRAGMA user_version = 7");
    let error = Journal::restore(&path, wall(0), || false).expect_err("it is refused");
    assert!(matches!(error, JournalError::NewerSchema { found: 7, known: 1, .. }), "{error}");
    assert!(kept(&path).is_empty());
    let (_dir, path) = place();
    let journal = open(&path);
    answer(journal.put(finished("newer", 1))).expect("it is written");
    journal.close();
    let connection = rusqlite::Connection::open(&path).expect("the file opens");
    let body: String = connection.query_row("SELECT body FROM session", [], |row| row.get(0)).expect("a row");
    let (content, _) = body.rsplit_once(",\"sum\":\"").expect("it ends with its checksum");
    let content = content.replace("\"stop_requested\"", "\"bored\"") + "}";
    let sum = blake3::hash(content.as_bytes()).to_hex();
    let newer = format!("{},\"sum\":\"{sum}\"}}", &content[..content.len() - 1]);
    connection.execute("UPDATE session SET body = ?1", [newer]).expect("it is changed");
    drop(connection);
    let (journal, past) = restore(&path);
    assert_eq!(past, Past::Closed);
    assert_eq!(answer(journal.list(0, 10)).expect("it is read").skipped, ["newer"]);
}

#[test]
fn a_journal_that_may_not_be_written_is_not_called_damaged() {
    let (_dir, path) = place();
    open(&path).close();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("its owner may");
    if fs::OpenOptions::new().write(true).open(&path).is_ok() {
        // Root may all the same; then a directory in its place can't be written by anybody.
        fs::remove_file(&path).expect("it can be removed");
        fs::create_dir(&path).expect("a directory in its place");
    }
    let error = Journal::restore(&path, wall(0), || false).expect_err("it can't be used");
    assert!(matches!(error, JournalError::File { .. }), "{error}");
    assert!(path.exists() && kept(&path).is_empty(), "nothing is moved");
}
