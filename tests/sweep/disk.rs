//! What a power cut would leave: of each file what its last sync covered, of each directory the names that
//! its last sync covered, and nothing of a file system in memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use libc::pid_t;

/// A file or a directory, whatever it is called: its number may be used again, but not with its birth.
type Inode = (u64, Option<SystemTime>);

/// What a sync that was begun makes durable if it succeeds.
enum Content {
    /// The bytes of a file.
    File(Vec<u8>),
    /// The entries of a directory.
    Directory(BTreeMap<OsString, Entry>),
}

struct Entry {
    inode: Inode,
    mode: u32,
    is_dir: bool,
}

/// What is durable below a directory.
pub struct Disk {
    root: PathBuf,
    durable: BTreeMap<Inode, Content>,
    begun: BTreeMap<pid_t, (Inode, Content)>,
}

impl Disk {
    /// Everything that lies below `root` by now is durable.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut disk = Self { root: root.to_owned(), durable: BTreeMap::new(), begun: BTreeMap::new() };
        disk.keep(root)?;
        Ok(disk)
    }

    fn keep(&mut self, path: &Path) -> io::Result<()> {
        let (inode, content) = look(path)?;
        let names: Vec<OsString> = match &content {
            Content::File(_) => Vec::new(),
            Content::Directory(entries) => entries.keys().cloned().collect(),
        };
        self.durable.insert(inode, content);
        names.iter().try_for_each(|name| self.keep(&path.join(name)))
    }

    /// A thread begins to sync this descriptor: nothing is written by anybody before this returns.
    pub fn begin(&mut self, thread: pid_t, descriptor: u64) {
        let path = PathBuf::from(format!("/proc/{thread}/fd/{descriptor}"));
        let is_ours = fs::read_link(&path).is_ok_and(|target| target.starts_with(&self.root));
        if is_ours && let Ok(found) = look(&path) {
            self.begun.insert(thread, found);
        }
    }

    /// The sync that a thread has begun has succeeded, or failed.
    pub fn end(&mut self, thread: pid_t, has_succeeded: bool) {
        if let Some((inode, content)) = self.begun.remove(&thread).filter(|_| has_succeeded) {
            self.durable.insert(inode, content);
        }
    }

    /// Lets the directory hold what is durable, and nothing else. What the test keeps at its top is no disk's.
    pub fn cut(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let Some(Content::Directory(entries)) = self.durable.get(&inode(&fs::metadata(&self.root)?)) else {
            return Ok(());
        };
        let dirs = entries.iter().filter(|(name, entry)| entry.is_dir && *name != "run");
        dirs.into_iter().try_for_each(|(name, entry)| self.restore(&self.root.join(name), entry))
    }

    fn restore(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let content = self.durable.get(&entry.inode);
        if entry.is_dir {
            fs::create_dir(path)?;
            if let Some(Content::Directory(entries)) = content {
                entries.iter().try_for_each(|(name, entry)| self.restore(&path.join(name), entry))?;
            }
        } else {
            // The name of a file that was never synced may be there all the same, without a byte.
            let bytes: &[u8] = if let Some(Content::File(bytes)) = content { bytes } else { &[] };
            fs::write(path, bytes)?;
        }
        fs::set_permissions(path, Permissions::from_mode(entry.mode & 0o7777))
    }
}

fn inode(metadata: &Metadata) -> Inode {
    (metadata.ino(), metadata.created().ok())
}

fn look(path: &Path) -> io::Result<(Inode, Content)> {
    let own = fs::metadata(path)?;
    if !own.is_dir() {
        return Ok((inode(&own), Content::File(fs::read(path)?)));
    }
    let mut entries = BTreeMap::new();
    for found in fs::read_dir(path)? {
        let found = found?;
        let kind = found.file_type()?;
        if !kind.is_dir() && !kind.is_file() {
            continue;
        }
        let metadata = found.metadata()?;
        let entry = Entry { inode: inode(&metadata), mode: metadata.mode(), is_dir: kind.is_dir() };
        entries.insert(found.file_name(), entry);
    }
    Ok((inode(&own), Content::Directory(entries)))
}
