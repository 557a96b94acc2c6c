//! Which file is behind an address of a process, also when the process has ended since.
//!
//! The kernel tells what is mapped ([`Changes`](crate::kernel::Changes)); what was there before is read in /proc. A file
//! is opened when it is first met, so that what is looked into later is what was mapped, whatever has its name by then.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::fs::{Mode, OFlags};

use super::maps::MapLine;
use super::processes::runs;
use crate::event::{ProcessId, text};
use crate::kernel::Change;

/// Files that are kept open. Others are opened by their path when they are needed, if it still leads to them.
const OPEN_FILES: usize = 256;

/// What is mapped: a file, or memory that the kernel has a name for.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Tells it from all others, also from those that are gone.
    pub(crate) id: u64,
    /// As in [`Frame::module`](crate::event::Frame).
    pub(crate) module: Arc<str>,
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    key: FileKey,
    open: Option<OwnedFd>,
}

/// The path is part of it: subvolumes of btrfs share device and inode numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    major: u32,
    minor: u32,
    inode: u64,
    path: Vec<u8>,
}

impl Mapped {
    /// Lets `look` into the file; `None` when it cannot be had any more.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Path) -> T) -> Option<T> {
        let file = self.file.as_ref()?;
        let found;
        let fd = match &file.open {
            Some(fd) => fd,
            None => {
                found = file
                    .key
                    .open_at(Path::new(OsStr::from_bytes(&file.key.path)), false)?;
                &found
            }
        };
        Some(look(&PathBuf::from(format!(
            "/proc/self/fd/{}",
            fd.as_raw_fd()
        ))))
    }
}

impl FileKey {
    /// The name of a file, and not of memory without one.
    fn is_file(&self) -> bool {
        self.path.starts_with(b"/") && !self.path.starts_with(b"//")
    }

    fn open(&self, pid: u32, start: u64, end: u64) -> Option<OwnedFd> {
        let mapping = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        let path = Path::new(OsStr::from_bytes(&self.path));
        let mut own = PathBuf::from(format!("/proc/{pid}/root"));
        own.as_mut_os_string().push(path);
        // The mapping leads to the file itself, and its name shows that it is still this one. On overlayfs the numbers
        // need not: the kernel told those of the layer below.
        let target = std::fs::read_link(&mapping).unwrap_or_default();
        let name = |path: &Path| {
            path.file_name()
                .map(|name| without_mark(name.as_bytes()).to_vec())
        };
        let same_name = name(&target).is_some() && name(&target) == name(path);
        self.open_at(&mapping, same_name)
            .or_else(|| self.open_at(&own, false))
            .or_else(|| self.open_at(path, false))
    }

    /// The file at this path if it is the one: asked before it is opened, because opening a device can do something.
    fn open_at(&self, path: &Path, known: bool) -> Option<OwnedFd> {
        let is_it = |stat: rustix::fs::Stat| {
            let (major, minor) = (
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            );
            // btrfs and overlayfs show a device of their own, without a major number, which is not the kernel's.
            let same_device = major == 0 || (major, minor) == (self.major, self.minor);
            rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
                && (known || stat.st_ino == self.inode && same_device)
        };
        rustix::fs::stat(path).ok().filter(|s| is_it(*s))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        rustix::fs::fstat(&fd).ok().filter(|s| is_it(*s))?;
        Some(fd)
    }
}

/// A path or name as it was before the file was deleted.
fn without_mark(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// A piece of an address space.
#[derive(Debug, Clone)]
struct Piece {
    end: u64,
    offset: u64,
    mapped: Arc<Mapped>,
}

/// The executable pieces of one address space, by their start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space(BTreeMap<u64, Piece>);

impl Space {
    fn insert(&mut self, start: u64, piece: Piece) {
        // What it takes the place of, wholly or in part: that is not told by itself.
        let covered: Vec<u64> = self
            .0
            .range(..piece.end)
            .rev()
            .take_while(|(_, there)| there.end > start)
            .map(|(at, _)| *at)
            .collect();
        for at in covered {
            let Some(there) = self.0.remove(&at) else {
                continue;
            };
            if there.end > piece.end {
                let offset = there.offset + (piece.end - at);
                let rest = Piece {
                    offset,
                    ..there.clone()
                };
                self.0.insert(piece.end, rest);
            }
            if at < start {
                self.0.insert(
                    at,
                    Piece {
                        end: start,
                        ..there
                    },
                );
            }
        }
        self.0.insert(start, piece);
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is mapped at an address, and the offset in it.
    pub(crate) fn find(&self, address: u64) -> Option<(&Arc<Mapped>, u64)> {
        let (start, piece) = self.0.range(..=address).next_back()?;
        (address < piece.end).then(|| (&piece.mapped, piece.offset + (address - start)))
    }
}

/// One process.
#[derive(Debug, Clone, Default)]
struct Life {
    space: Arc<Space>,
    /// What it had before its last execs; samples of that time may still be counted. And the same of the last round.
    before: Vec<Arc<Space>>,
    earlier: Vec<Arc<Space>>,
    /// For how many rounds it has been over.
    over: Option<u32>,
}

/// The address spaces of processes.
#[derive(Debug, Default)]
pub(crate) struct Spaces {
    lives: HashMap<u32, Life>,
    files: HashMap<FileKey, Weak<Mapped>>,
    next: u64,
    open: usize,
    lost: u64,
}

impl Spaces {
    /// Follows what has happened, in its order.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Map {
                    pid,
                    start,
                    len,
                    offset,
                    major,
                    minor,
                    inode,
                    path,
                } => {
                    let key = FileKey {
                        major,
                        minor,
                        inode,
                        path,
                    };
                    let end = start.saturating_add(len);
                    // Of others all that they have is read when it is needed, and this with it.
                    if self.lives.contains_key(&pid) {
                        self.map(pid, start, end, offset, key);
                    }
                }
                Change::Exec { pid } => {
                    let life = self.lives.entry(pid).or_default();
                    let old = std::mem::take(&mut life.space);
                    life.before.push(old);
                    life.over = None;
                }
                Change::Fork { pid, parent } => {
                    self.learn(parent);
                    let parent = self.lives.get(&parent).cloned().unwrap_or_default();
                    self.lives.insert(
                        pid,
                        Life {
                            over: None,
                            ..parent
                        },
                    );
                }
                Change::Exit { pid } => {
                    if let Some(life) = self.lives.get_mut(&pid) {
                        life.over = Some(0);
                    }
                }
                // Read anew when they are needed; of those that have ended there is nothing better than this.
                Change::Lost { count } => {
                    self.lost += count;
                    self.lives.retain(|_, life| life.over.is_some());
                }
            }
        }
    }

    /// How many changes never came.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads what a process that is not known has mapped.
    pub(crate) fn learn(&mut self, pid: u32) {
        if self.lives.contains_key(&pid) {
            return;
        }
        let Ok(maps) = std::fs::read(format!("/proc/{pid}/maps")) else {
            return;
        };
        self.lives.insert(pid, Life::default());
        for (start, end, offset, key) in MapLine::all(&maps).filter_map(executable) {
            self.map(pid, start, end, offset, key);
        }
    }

    fn map(&mut self, pid: u32, start: u64, end: u64, offset: u64, key: FileKey) {
        let mapped = self.mapped(pid, start, end, key);
        if let Some(life) = self.lives.get_mut(&pid) {
            Arc::make_mut(&mut life.space).insert(
                start,
                Piece {
                    end,
                    offset,
                    mapped,
                },
            );
        }
    }

    fn mapped(&mut self, pid: u32, start: u64, end: u64, key: FileKey) -> Arc<Mapped> {
        if let Some(known) = self.files.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let (module, file) = if key.is_file() {
            let open = (self.open < OPEN_FILES)
                .then(|| key.open(pid, start, end))
                .flatten();
            self.open += usize::from(open.is_some());
            let module = text::escape(&key.path);
            let key = key.clone();
            (module, Some(File { key, open }))
        } else if key.path.is_empty() || key.path == b"//anon" {
            ("[anon]".to_owned(), None)
        } else {
            (text::escape(&key.path), None)
        };
        self.next += 1;
        let mapped = Arc::new(Mapped {
            id: self.next,
            module: module.into(),
            file,
        });
        self.files.insert(key, Arc::downgrade(&mapped));
        mapped
    }

    /// The address space in which a process had a stack of these addresses.
    pub(crate) fn of(&mut self, id: ProcessId, stack: &[u64]) -> Arc<Space> {
        if !self.lives.contains_key(&id.pid) && runs(id) {
            self.learn(id.pid);
        }
        let Some(life) = self.lives.get(&id.pid) else {
            return Arc::default();
        };
        // The youngest that has something at the innermost address.
        let fits = |space: &&Arc<Space>| stack.first().is_some_and(|at| space.find(*at).is_some());
        let before = life.before.iter().rev().chain(life.earlier.iter().rev());
        let mut all = std::iter::once(&life.space).chain(before);
        Arc::clone(all.find(fits).unwrap_or(&life.space))
    }

    /// Everything up to the last round has been looked up: forgets what was over by then.
    pub(crate) fn round(&mut self) {
        self.lives.retain(|pid, life| {
            life.earlier = std::mem::take(&mut life.before);
            match &mut life.over {
                // Its first thread has ended and others have not.
                Some(rounds) if *rounds > 0 => Path::new(&format!("/proc/{pid}/maps")).exists(),
                Some(rounds) => {
                    *rounds += 1;
                    true
                }
                None => true,
            }
        });
        self.files.retain(|_, file| file.strong_count() > 0);
        let is_open = |file: &Weak<Mapped>| {
            let mapped = file.upgrade();
            mapped.is_some_and(|m| m.file.as_ref().is_some_and(|f| f.open.is_some()))
        };
        self.open = self.files.values().filter(|file| is_open(file)).count();
    }
}

/// Where it is and what of which file, of a piece that can be executed.
fn executable(line: MapLine<'_>) -> Option<(u64, u64, u64, FileKey)> {
    if !line.is_code() {
        return None;
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (major, minor) = line.device.split_once(':')?;
    Some((
        hex(line.start)?,
        hex(line.end)?,
        hex(line.offset)?,
        FileKey {
            major: u32::try_from(hex(major)?).ok()?,
            minor: u32::try_from(hex(minor)?).ok()?,
            inode: line.inode.parse().ok()?,
            path: line.path.to_owned(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pid: u32, start: u64, len: u64, path: &str) -> Change {
        Change::Map {
            pid,
            start,
            len,
            offset: 0x100,
            major: 0,
            minor: 0,
            inode: 1,
            path: path.into(),
        }
    }

    fn at(spaces: &mut Spaces, pid: u32, address: u64) -> Option<(String, u64)> {
        let space = spaces.of(ProcessId::new(0, pid), &[address]);
        let found = space.find(address);
        found.map(|(mapped, offset)| (mapped.module.to_string(), offset))
    }

    fn is(name: &str, offset: u64) -> Option<(String, u64)> {
        Some((name.to_owned(), offset))
    }

    // Above what pids can be.
    const A: u32 = 5_000_000;
    const B: u32 = 5_000_001;

    #[test]
    fn children_have_what_their_parents_have_until_they_exec() {
        let mut spaces = Spaces::default();
        spaces.apply(vec![
            Change::Exec { pid: A },
            map(A, 0x1000, 0x1000, "/no/sh"),
            Change::Fork { pid: B, parent: A },
            map(A, 0x5000, 0x1000, "/no/lib"),
        ]);
        assert_eq!(at(&mut spaces, B, 0x1fff), is("/no/sh", 0x10ff));
        assert_eq!(at(&mut spaces, B, 0x2000), None);
        assert_eq!(at(&mut spaces, B, 0x5000), None);
        assert_eq!(at(&mut spaces, A, 0x5000), is("/no/lib", 0x100));
        spaces.apply(vec![
            Change::Exec { pid: B },
            map(B, 0x8000, 0x1000, "/no/ls"),
        ]);
        // Samples of before the exec, for one whole round.
        spaces.round();
        assert_eq!(at(&mut spaces, B, 0x1000), is("/no/sh", 0x100));
        assert_eq!(at(&mut spaces, B, 0x8000), is("/no/ls", 0x100));
        spaces.round();
        assert_eq!(at(&mut spaces, B, 0x1000), None);
    }

    #[test]
    fn a_process_is_known_for_one_round_after_its_end() {
        let mut spaces = Spaces::default();
        spaces.apply(vec![
            Change::Exec { pid: A },
            map(A, 0x1000, 0x1000, "//anon"),
            Change::Exit { pid: A },
        ]);
        spaces.round();
        assert_eq!(at(&mut spaces, A, 0x1000), is("[anon]", 0x100));
        spaces.round();
        assert_eq!(at(&mut spaces, A, 0x1000), None);
        assert!(spaces.files.is_empty() || spaces.lives.is_empty());
    }

    #[test]
    fn lost_changes_are_counted_and_what_runs_is_read_anew() {
        let us = std::process::id();
        let mut spaces = Spaces::default();
        spaces.apply(vec![
            Change::Exec { pid: us },
            map(us, 0x1000, 0x1000, "/no/old"),
            Change::Exec { pid: A },
            map(A, 0x1000, 0x1000, "/no/sh"),
            Change::Exit { pid: A },
            Change::Lost { count: 3 },
        ]);
        assert_eq!(spaces.lost(), 3);
        assert_eq!(at(&mut spaces, A, 0x1000), is("/no/sh", 0x100));
        assert_eq!(at(&mut spaces, us, 0x1000), None);
    }

    #[test]
    fn a_mapping_takes_the_place_of_what_was_there() {
        let mut spaces = Spaces::default();
        spaces.apply(vec![
            Change::Exec { pid: A },
            map(A, 0x1000, 0x3000, "/no/old"),
            map(A, 0x2000, 0x1000, "/no/new"),
        ]);
        assert_eq!(at(&mut spaces, A, 0x1fff), is("/no/old", 0x10ff));
        assert_eq!(at(&mut spaces, A, 0x2000), is("/no/new", 0x100));
        assert_eq!(at(&mut spaces, A, 0x3000), is("/no/old", 0x2100));
        assert_eq!(at(&mut spaces, A, 0x4000), None);
    }

    #[test]
    fn our_own_program_is_found_and_can_be_read() {
        let mut spaces = Spaces::default();
        spaces.learn(std::process::id());
        let here = our_own_program_is_found_and_can_be_read as fn() as usize as u64;
        let space = spaces.of(ProcessId::new(0, std::process::id()), &[here]);
        let (mapped, offset) = space.find(here).expect("our own code");
        let exe = std::env::current_exe().expect("our own path");
        assert_eq!(&*mapped.module, exe.to_str().expect("a plain path"));
        let len = mapped.with(|path| std::fs::metadata(path).map(|m| m.len()));
        assert!(len.expect("our own file").is_ok_and(|len| len > offset));
    }

    #[test]
    fn lines_of_maps_are_understood() {
        let line =
            b"7f00-7fff r-xp 00002000 103:02 99                    /usr/lib/a b.so (deleted)";
        let executable = |line| MapLine::parse(line).and_then(executable);
        let (start, end, offset, key) = executable(line).expect("code");
        assert_eq!((start, end, offset), (0x7f00, 0x7fff, 0x2000));
        assert_eq!((key.major, key.minor, key.inode), (0x103, 2, 99));
        assert_eq!(key.path, b"/usr/lib/a b.so (deleted)");
        assert!(executable(b"7f00-7fff rw-p 00002000 103:02 99 /usr/lib/a.so").is_none());
        let (.., key) = executable(b"7f00-7fff r-xp 00000000 00:00 0 ").expect("code");
        assert!(!key.is_file());
        assert!(executable(b"").is_none());
    }
}
