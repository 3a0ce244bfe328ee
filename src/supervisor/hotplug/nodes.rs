//! Directories in which device nodes come and go, watched by inotify: for hosts without udev, and for pipes.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// Where device nodes are; udev's links by name and place are below.
const DEV: &str = "/dev";
/// Of `/dev` itself, what a name begins with.
const CAMERA: &str = "video";
/// Directories below `/dev`, every name in which counts. ALSA's nodes are in one of their own.
const BELOW: [&str; 6] = ["snd", "snd/by-id", "snd/by-path", "v4l", "v4l/by-id", "v4l/by-path"];
/// Bytes that are read at once; an event has at most 272 (`inotify(7)`).
const READ_BYTES: usize = 4096;
/// Events that are looked at without a break.
const EVENTS_MAX: usize = 256;

/// Watched directories.
pub(super) struct Nodes {
    inotify: OwnedFd,
    wanted: Vec<Directory>,
    /// The directories that are there, by the number of their watch; several paths may lead to one.
    watched: HashMap<i32, BTreeSet<usize>>,
}

/// A directory in which something may change.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    names: Names,
}

/// Of a directory, the names that count.
#[derive(Debug, PartialEq, Eq)]
enum Names {
    All,
    /// Cameras, and the directories below.
    OfDev,
    One(String),
}

impl Names {
    fn count(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::OfDev => name.starts_with(CAMERA) || BELOW.contains(&name),
            Self::One(one) => one == name,
        }
    }
}

impl Nodes {
    /// Watches the host's device nodes and these pipes.
    pub(super) fn watch(pipes: Vec<PathBuf>) -> io::Result<Self> {
        Self::watch_below(Path::new(DEV), pipes)
    }

    fn watch_below(dev: &Path, pipes: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut wanted = vec![Directory { path: dev.to_owned(), names: Names::OfDev }];
        wanted.extend(BELOW.map(|below| Directory { path: dev.join(below), names: Names::All }));
        wanted.extend(pipes.iter().filter_map(|pipe| {
            let name = pipe.file_name()?.to_str()?.to_owned();
            Some(Directory { path: pipe.parent()?.to_owned(), names: Names::One(name) })
        }));
        let mut nodes = Self { inotify, wanted, watched: HashMap::new() };
        nodes.rewatch();
        Ok(nodes)
    }

    /// Watches what has come meanwhile; true when something has, since nobody saw what is in it come.
    pub(super) fn rewatch(&mut self) -> bool {
        // A node is there before it may be opened: its permissions change then.
        let events = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ATTRIB | WatchFlags::MOVE;
        let mut is_new = false;
        for (at, directory) in self.wanted.iter().enumerate() {
            let flags = events | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
            if let Ok(watch) = inotify::add_watch(&self.inotify, &directory.path, flags) {
                is_new |= self.watched.entry(watch).or_default().insert(at);
            }
        }
        is_new
    }

    /// Reads what waits; whether it is about a device.
    pub(super) fn read(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let (mut is_news, mut gone) = (false, Vec::new());
        for _ in 0..EVENTS_MAX {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                is_news = true;
            } else if event.events().contains(ReadFlags::IGNORED) {
                gone.push(event.wd());
            } else if let (Some(at), Some(name)) = (self.watched.get(&event.wd()), event.file_name()) {
                let name = name.to_string_lossy();
                is_news |= at.iter().any(|at| self.wanted[*at].names.count(&name));
            }
        }
        for watch in gone {
            self.watched.remove(&watch);
        }
        is_news
    }
}

impl AsFd for Nodes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether what happened so far is about a device. inotify tells of a change before it is over.
    fn is_news(nodes: &mut Nodes) -> bool {
        let is_news = nodes.read();
        nodes.rewatch();
        is_news
    }

    fn node(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).expect("a node");
    }

    #[test]
    fn nodes_that_come_change_and_go_are_seen_and_others_are_not() {
        let dev = tempfile::tempdir().expect("a directory");
        let mut nodes = Nodes::watch_below(dev.path(), Vec::new()).expect("inotify is there");
        node(&dev.path().join("tty7"));
        assert!(!is_news(&mut nodes), "a terminal is no camera");
        let camera = dev.path().join("video3");
        node(&camera);
        assert!(is_news(&mut nodes), "it has come");
        assert!(!is_news(&mut nodes), "that is known");
        fs::set_permissions(&camera, std::os::unix::fs::PermissionsExt::from_mode(0o660))
            .expect("it is ours");
        assert!(is_news(&mut nodes), "it may be opened now");
        fs::remove_file(&camera).expect("it is ours");
        assert!(is_news(&mut nodes), "it has gone");
    }

    #[test]
    fn directories_that_come_later_or_again_are_watched_too() {
        let dev = tempfile::tempdir().expect("a directory");
        let mut nodes = Nodes::watch_below(dev.path(), Vec::new()).expect("inotify is there");
        for round in 0..2 {
            fs::create_dir(dev.path().join("snd")).expect("it is not there");
            assert!(is_news(&mut nodes), "round {round}: the first card brings its directory");
            node(&dev.path().join("snd/pcmC0D0c"));
            assert!(is_news(&mut nodes), "round {round}: and its node");
            fs::remove_dir_all(dev.path().join("snd")).expect("it is there");
            assert!(is_news(&mut nodes), "round {round}: both have gone");
        }
    }

    #[test]
    fn pipes_are_seen_by_name_also_two_in_one_directory_that_is_not_there_yet() {
        let (dev, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let dir = other.path().join("pipes");
        let pipes = vec![dir.join("left"), dir.join("right")];
        let mut nodes = Nodes::watch_below(dev.path(), pipes.clone()).expect("inotify is there");
        assert!(!nodes.rewatch(), "nothing has come");
        fs::create_dir(&dir).expect("it is not there");
        assert!(nodes.rewatch(), "it has come");
        node(&dir.join("middle"));
        assert!(!is_news(&mut nodes), "nobody has asked for that");
        for pipe in pipes {
            node(&pipe);
            assert!(is_news(&mut nodes), "{}", pipe.display());
        }
    }
}
