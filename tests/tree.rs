//! The shape of the sources: a module imports only from lower ranks, the capture half and the daemon
//! half don't know each other, the rules are pure, and files stay short.

#[path = "tree/tried.rs"]
mod tried;

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 400;

/// The modules of the crate. One imports only from ranks above its own line.
const RANKS: [&[&str]; 10] = [
    &["clock"],
    &["session"],
    &["media", "config", "telemetry"],
    &["codec", "matroska", "link"],
    &["device", "recording", "journal", "library"],
    &["worker", "supervisor"],
    &["access"],
    &["api", "http"],
    &["daemon"],
    &["cli", "main", "lib"],
];

const CAPTURE_HALF: [&str; 5] = ["codec", "matroska", "device", "recording", "worker"];
const DAEMON_HALF: [&str; 8] =
    ["config", "journal", "library", "supervisor", "access", "api", "http", "daemon"];

/// Where the halves meet: what both use knows neither.
const MEETING: [&str; 5] = ["clock", "session", "media", "telemetry", "link"];

/// Beginnings of paths that only some modules may name.
const ONLY_IN: [(&[&str], &[&str]); 2] = [
    (&["crate", "api", "proto"], &["api", "cli"]),
    (&["crate", "link", "message"], &["link", "worker", "supervisor"]),
];

/// The clock that runs: the rules must not name it, however it is reached.
const RUNNING_CLOCK: &str = "SystemClock";

/// What the rules must never name: files, networks, threads, clocks, logs.
const IMPURE: [&[&str]; 12] = [
    &["async"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["rustix"],
    &["tracing"],
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Step,
    Mark(char),
}

/// The tokens of Rust code without comments and without what is in quotes.
fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        let rest = &chars[at..];
        if let Some(skipped) = skipped(rest) {
            at += skipped;
        } else if is_word(c) {
            let word: String = rest.iter().take_while(|c| is_word(c)).collect();
            at += word.chars().count();
            tokens.push(Token::Word(word));
        } else if rest.starts_with(&[':', ':']) {
            at += 2;
            tokens.push(Token::Step);
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push(Token::Mark(*c));
            }
        }
    }
    tokens
}

/// How many characters a comment, a text or a character takes, if one begins here.
fn skipped(rest: &[char]) -> Option<usize> {
    let line = || rest.iter().take_while(|c| **c != '\n').count();
    match rest {
        ['/', '/', ..] => Some(line()),
        ['/', '*', ..] => Some(block_comment(rest)),
        ['"', ..] => Some(1 + quoted(&rest[1..], '"')),
        ['b' | 'c', '"', ..] => Some(2 + quoted(&rest[2..], '"')),
        ['r', '#' | '"', ..] => raw(rest, 1),
        ['b' | 'c', 'r', '#' | '"', ..] => raw(rest, 2),
        ['\'', '\\', ..] | ['b', '\'', ..] => {
            let start = if rest[0] == 'b' { 2 } else { 1 };
            Some(start + quoted(&rest[start..], '\''))
        }
        ['\'', _, '\'', ..] => Some(3),
        // What begins like a text but within a word is handled as the word.
        _ => None,
    }
}

fn quoted(rest: &[char], end: char) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != end {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn block_comment(rest: &[char]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        match &rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// A raw text whose hashes begin at `prefix`; a raw identifier is none.
fn raw(rest: &[char], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let begin = prefix + hashes;
    if rest.get(begin) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = rest[begin + 1..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| begin + 1 + length + end.len()))
}

/// Every path of the code, those of a use tree spelt out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tokens: &[Token]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map(|at| &tokens[at]);
        let goes_on = match before {
            Some(Token::Mark('.')) => true,
            // `::std` begins at the root, unless something stands before it.
            Some(Token::Step) => match at.checked_sub(2).map(|at| &tokens[at]) {
                Some(Token::Word(word)) => word != "use" && word != "in",
                before => before == Some(&Token::Mark('>')),
            },
            _ => false,
        };
        if matches!(tokens[at], Token::Word(_)) && !goes_on {
            at = tree(tokens, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads the path or the use tree at `at`, below `parent`; where it ends.
fn tree(tokens: &[Token], mut at: usize, parent: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = parent.to_vec();
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Mark('*')) => path.push("*".to_owned()),
            Some(Token::Mark('{')) => {
                at += 1;
                while at < tokens.len() && tokens[at] != Token::Mark('}') {
                    let branch = matches!(tokens[at], Token::Word(_) | Token::Mark('*' | '{'));
                    at = if branch { tree(tokens, at, &path, paths) } else { at + 1 };
                    // A new name is no path.
                    if tokens.get(at) == Some(&Token::Word("as".to_owned())) {
                        at += 2;
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        let steps = tokens.get(at) == Some(&Token::Step);
        let next = tokens.get(at + 1);
        if !(steps && matches!(next, Some(Token::Word(_) | Token::Mark('*' | '{')))) {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

/// The module that a file below `src/` is.
fn module_of(file: &str) -> Vec<&str> {
    let mut module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if module.len() > 1 && module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

/// The path from the crate's root, if it leads there. More `super`s than the file is deep come from a
/// module within the file.
fn from_root(path: &[String], module: &[&str]) -> Option<Vec<String>> {
    let path = path.strip_prefix(&["self".to_owned()]).unwrap_or(path);
    let supers = path.iter().take_while(|step| *step == "super").count();
    let rest = match path.first().map(String::as_str) {
        Some("crate") => &path[1..],
        Some("super") if supers >= module.len() && is_ranked(path.get(supers)?) => &path[supers..],
        _ => return None,
    };
    let root = std::iter::once("crate".to_owned());
    (!rest.is_empty()).then(|| root.chain(rest.iter().cloned()).collect())
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

fn is_ranked(module: &str) -> bool {
    rank(module).is_some()
}

fn begins_with(path: &[String], start: &[&str]) -> bool {
    path.len() >= start.len() && path.iter().zip(start).all(|(step, start)| step == start)
}

/// What is wrong with a file below `src/`.
fn violations(file: &str, code: &str) -> Vec<String> {
    let module = module_of(file);
    let top = module[0];
    let mut found = Vec::new();
    found.extend(too_long("src", file, code));
    let Some(own_rank) = rank(top) else {
        found.push(format!("src/{file}: {top} has no rank, give it one"));
        return found;
    };
    for path in paths(&tokens(code)) {
        let named = path.join("::");
        if let Some(path) = from_root(&path, &module) {
            found.extend(wrong_import(top, own_rank, &path).map(|why| format!("src/{file}: {named}: {why}")));
        }
        let tokio = path[0].starts_with("tokio") || path[0] == "signal_hook_tokio";
        if tokio && path.len() > 1 && !DAEMON_HALF.contains(&top) && top != "cli" {
            found.push(format!("src/{file}: {named}: tokio lives in the daemon half"));
        }
        let is_impure = IMPURE.iter().any(|impure| begins_with(&path, impure))
            || path.iter().any(|it| it == RUNNING_CLOCK);
        if top == "session" && is_impure {
            found.push(format!("src/{file}: {named}: the rules are pure"));
        }
    }
    found
}

/// That a file below `root` has too many lines, if it has.
fn too_long(root: &str, file: &str, code: &str) -> Option<String> {
    let lines = code.lines().count();
    (lines > LINES_MAX)
        .then(|| format!("{root}/{file} has {lines} lines: split it by idea, {LINES_MAX} are allowed"))
}

/// Why `top` may not import `path`.
fn wrong_import(top: &str, own_rank: usize, path: &[String]) -> Option<String> {
    let imported = path[1].as_str();
    for (start, allowed) in ONLY_IN {
        if begins_with(path, start) && !allowed.contains(&top) {
            return Some(format!("generated types stop at {allowed:?}"));
        }
    }
    if imported == top {
        return None;
    }
    let Some(other_rank) = rank(imported) else {
        return Some(format!("{imported} has no rank"));
    };
    let across = |one: &[&str], other: &[&str]| one.contains(&top) && other.contains(&imported);
    if across(&CAPTURE_HALF, &DAEMON_HALF) || across(&DAEMON_HALF, &CAPTURE_HALF) {
        return Some("the two halves meet only in clock, session, media, telemetry and link".to_owned());
    }
    if MEETING.contains(&top) && (CAPTURE_HALF.contains(&imported) || DAEMON_HALF.contains(&imported)) {
        return Some(format!("the halves meet in {top}, which knows neither"));
    }
    (other_rank >= own_rank)
        .then(|| format!("{top} (rank {own_rank}) imports {imported} (rank {other_rank}), which isn't lower"))
}

/// Every Rust file below `dir`, by its path from there.
fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let entries = std::fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()));
        for entry in entries {
            let path: PathBuf = entry.expect("an entry of src").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(dir).expect("it is below").display().to_string();
                let code = std::fs::read_to_string(&path).expect("sources are UTF-8");
                sources.push((file, code));
            }
        }
    }
    sources.sort();
    sources
}

#[test]
fn every_module_imports_only_from_lower_ranks_and_every_file_is_short() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(!sources.is_empty(), "there are sources");
    let found: Vec<_> = sources.iter().flat_map(|(file, code)| violations(file, code)).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_of_tests_is_short() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    let found: Vec<_> = sources.iter().filter_map(|(file, code)| too_long("tests", file, code)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_table_of_tests_has_a_place_for_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("CONTRIBUTING.md")).expect("the page is there");
    for entry in std::fs::read_dir(root.join("tests")).expect("the tests are there") {
        let path = entry.expect("a test can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are text");
        let place = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => format!("`tests/{name}`"),
            // A directory of its own, or the modules of a file.
            None if path.is_dir() && !path.with_extension("rs").exists() => format!("`tests/{name}/`"),
            _ => continue,
        };
        assert!(table.contains(&place) || name == "data", "CONTRIBUTING.md says nothing of {place}");
    }
}
