//! A modelled disk: a directory with the session's directory in it, and files in that. Calls fail, are slow or
//! do half of what they should when a history wants it; the power goes at a call.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::draw::Draw;
use crate::inode::{Inode, Survivors};

/// Where the session's directory is.
pub const MEDIA_DIR: &str = "/media";

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Open,
    Write,
    Patch,
    Read,
    Length,
    Reserve,
    Sync,
    SyncDir,
    MakeDir,
    Remove,
    Look,
    Owner,
    Spawn,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It fails with this number.
    Error(i32),
    /// It takes so long.
    Slow(u64),
    /// It does half of it.
    Short,
}

/// After `after` more calls of a kind, `times` of them come to this.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: Call,
    pub after: u32,
    pub times: u32,
    pub outcome: Outcome,
}

/// What a name leads to, in memory and on the platter.
#[derive(Clone, Debug, Default)]
struct Name<T> {
    platter: Option<T>,
    pending: Vec<Option<T>>,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    names: BTreeMap<String, Name<usize>>,
}

/// All that a disk holds.
#[derive(Debug)]
pub struct Disk {
    pub draw: Draw,
    pub inodes: Vec<Inode>,
    /// The session's directories, also former ones.
    dirs: Vec<Dir>,
    /// Names in [`MEDIA_DIR`].
    top: BTreeMap<String, Name<usize>>,
    pub faults: Vec<Fault>,
    /// Calls until the power goes.
    pub cut_in: Option<u32>,
    pub is_off: bool,
    /// Bytes that are free.
    pub free: Option<u64>,
    pub can_reserve: bool,
    /// How long calls have taken.
    pub slow: Duration,
    /// What no program may do.
    pub violations: Vec<String>,
}

/// A file on a platter, by its path.
pub type Files = BTreeMap<String, Vec<u8>>;

impl<T: Copy> Name<T> {
    fn now(&self) -> Option<T> {
        self.pending.last().copied().unwrap_or(self.platter)
    }

    fn flush(&mut self) {
        self.platter = self.now();
        self.pending.clear();
    }

    fn cut(&self, survivors: Survivors, draw: &mut Draw) -> Option<T> {
        match survivors {
            Survivors::All => self.now(),
            Survivors::None => self.platter,
            Survivors::Some => match draw.below(self.pending.len() as u64 + 1) as usize {
                0 => self.platter,
                version => self.pending[version - 1],
            },
        }
    }
}

impl Disk {
    /// A disk that holds `files`.
    pub fn new(seed: u64, files: &Files) -> Self {
        let mut disk = Self {
            draw: Draw::new(seed),
            inodes: Vec::new(),
            dirs: Vec::new(),
            top: BTreeMap::new(),
            faults: Vec::new(),
            cut_in: None,
            is_off: false,
            free: None,
            can_reserve: true,
            slow: Duration::ZERO,
            violations: Vec::new(),
        };
        for (path, bytes) in files {
            let (dir, name) = split(Path::new(path)).expect("a session's file");
            let dir = disk.dir(&dir).unwrap_or_else(|| disk.add_dir(dir));
            let inode = disk.inodes.len();
            disk.inodes.push(Inode::of(bytes.clone()));
            disk.dirs[dir].names.insert(name, Name { platter: Some(inode), pending: Vec::new() });
        }
        disk.sync_top();
        disk
    }

    /// What is to become of this call.
    pub fn outcome(&mut self, call: Call) -> Option<Outcome> {
        for fault in &mut self.faults {
            if fault.call == call {
                if fault.after > 0 {
                    fault.after -= 1;
                } else if fault.times > 0 {
                    fault.times -= 1;
                    return Some(fault.outcome);
                }
            }
        }
        None
    }

    /// The directory that is at `/media/<name>`.
    pub fn dir(&self, name: &str) -> Option<usize> {
        self.top.get(name).and_then(Name::now)
    }

    pub fn add_dir(&mut self, name: String) -> usize {
        self.dirs.push(Dir::default());
        let dir = self.dirs.len() - 1;
        self.top.entry(name).or_default().pending.push(Some(dir));
        dir
    }

    pub fn sync_top(&mut self) {
        self.top.values_mut().for_each(Name::flush);
    }

    pub fn sync_dir(&mut self, dir: usize) {
        self.dirs[dir].names.values_mut().for_each(Name::flush);
    }

    /// The inode at `path`.
    pub fn find(&self, path: &Path) -> io::Result<usize> {
        let not_found = io::Error::from(io::ErrorKind::NotFound);
        let Some((dir, name)) = split(path) else { return Err(not_found) };
        let names = self.dir(&dir).map(|dir| &self.dirs[dir].names);
        names.and_then(|names| names.get(&name)).and_then(Name::now).ok_or(not_found)
    }

    /// Gives `path` a new inode, or none.
    pub fn name(&mut self, path: &Path, inode: Option<usize>) -> io::Result<()> {
        let (dir, name) = split(path).ok_or(io::ErrorKind::NotFound)?;
        let dir = self.dir(&dir).ok_or(io::ErrorKind::NotFound)?;
        self.dirs[dir].names.entry(name).or_default().pending.push(inode);
        Ok(())
    }

    /// Names in a directory.
    pub fn names(&self, dir: usize) -> Vec<(String, usize)> {
        let names = self.dirs[dir].names.iter();
        names.filter_map(|(name, node)| Some((name.clone(), node.now()?))).collect()
    }

    /// A stranger takes a file away, or the whole directory.
    pub fn take(&mut self, path: &Path) {
        if let Ok(inode) = self.find(path) {
            self.inodes[inode].is_taken = true;
            self.name(path, None).expect("it was there");
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some(dir) = self.dir(name)
        {
            for (_, inode) in self.names(dir) {
                self.inodes[inode].is_taken = true;
            }
            self.top.entry(name.to_owned()).or_default().pending.push(None);
        }
    }

    /// Makes sure that a file has room up to `until`; tells how much it has.
    pub fn allocate(&mut self, inode: usize, until: u64) -> u64 {
        let room = &mut self.inodes[inode].room;
        let wanted = until.saturating_sub(*room);
        let given = wanted.min(self.free.unwrap_or(u64::MAX));
        self.free = self.free.map(|free| free - given);
        *room += given;
        *room
    }

    /// Gives room back.
    pub fn release(&mut self, inode: usize, length: u64) {
        let back = self.inodes[inode].room.saturating_sub(length);
        self.free = self.free.map(|free| free + back);
    }

    /// The files as programs see them.
    pub fn files(&self) -> Files {
        let dirs = self.top.iter().filter_map(|(name, dir)| Some((name, dir.now()?)));
        let files = dirs.flat_map(|(dir, at)| self.names(at).into_iter().map(move |file| (dir, file)));
        files.map(|(dir, (name, inode))| (path_of(dir, &name), self.inodes[inode].cache.clone())).collect()
    }

    /// The files that are there once the power is back; and those that a stranger has taken, which are not.
    pub fn cut(&mut self, survivors: Survivors) -> (Files, Vec<Vec<u8>>) {
        let draw = &mut self.draw;
        let inodes: Vec<Vec<u8>> = self.inodes.iter().map(|inode| inode.cut(survivors, draw)).collect();
        let mut files = Files::new();
        for (dir, at) in &self.top {
            let Some(at) = at.cut(survivors, draw) else { continue };
            for (name, node) in &self.dirs[at].names {
                if let Some(inode) = node.cut(survivors, draw) {
                    files.insert(path_of(dir, name), inodes[inode].clone());
                }
            }
        }
        let taken = self.inodes.iter().zip(inodes).filter(|(inode, _)| inode.is_taken);
        (files, taken.map(|(_, bytes)| bytes).collect())
    }
}

fn path_of(dir: &str, name: &str) -> String {
    format!("{MEDIA_DIR}/{dir}/{name}")
}

/// The session's directory and the file's name.
fn split(path: &Path) -> Option<(String, String)> {
    let mut parts = path.strip_prefix(MEDIA_DIR).ok()?.iter().map(|part| part.to_string_lossy().into_owned());
    Some((parts.next()?, parts.next()?))
}
