//! Which file a path means, in the kernel's own terms.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::file_key;
use crate::enrich::mounts::{Mount, alone_below};
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Asker, KernelBtf};
use crate::policy::{Effect, FileKind, FileRule, Pattern, place};
use crate::wire::{AboveRecord, FileKey, IdentityRecord, TaskKey};

/// What an opened path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What the rule is about, and its name.
    File,
    /// What the rule is about, whatever it is called.
    Inode,
    /// The directory: the rule is about all that is in it.
    Directory,
    /// A file system that is mounted in that directory and nowhere else: all that is in it.
    Mounted,
    /// A link to that directory.
    LinkToDirectory,
    /// The directory in which what the rule is about may come to be under this name; whether that is a directory whose
    /// contents are meant.
    Parent { name: Vec<u8>, below: bool },
}

/// A path of a rule, opened without touching the file: nothing is read, no device is woken, no right on it is needed.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    fd: OwnedFd,
    /// Device and inode as fstat(2) has them: on btrfs they tell subvolumes apart, which the key does not.
    stat: (u64, u64),
}

impl Opened {
    pub(super) fn new(path: &Path, fd: OwnedFd, stat: &Stat) -> Self {
        Opened {
            path: path.to_owned(),
            fd,
            stat: (stat.st_dev, stat.st_ino),
        }
    }

    /// Device and inode, as stat(2) has them.
    pub(super) fn stat(&self) -> (u64, u64) {
        self.stat
    }
}

/// How far the key alone can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    /// No two files share it.
    Exact,
    /// Several files can have it, or it can change: only the tag is right.
    TagOnly,
}

/// Magic numbers, include/uapi/linux/magic.h, of file systems where (device, inode, generation) is an identity. All
/// others rest on the tag: btrfs and overlayfs give several files one key, vfat numbers its inodes anew each time they
/// are read, network file systems leave it to their servers.
const EXACT: [u32; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x0102_1994, // tmpfs, devtmpfs
    0xf2f5_2010, // f2fs
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x9660,      // iso9660
];
/// Every mount of these is a file system of its own: another mount leads around any identity.
const REMOUNTED: [(u32, &str); 2] = [(0x9fa0, "proc"), (0x6265_6572, "sysfs")];

/// overlayfs makes, opens and changes files of the layers below for whoever asks it to, and the hooks are called for
/// those as well, where no rule that allows has them.
const OVERLAY: u32 = 0x794c_7630;

/// A file or a directory that is ruled.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    pub(super) key: FileKey,
    pub(super) strength: Strength,
    /// In its directory.
    pub(super) name: Vec<u8>,
    /// The directories that it is in, from the innermost one on.
    pub(super) above: Vec<FileKey>,
    /// Run, it gives its owner's or group's rights.
    pub(super) setuid: bool,
    stat: (u64, u64),
    fd: OwnedFd,
}

/// What no two files share: device and inode as fstat(2) has them, and the key.
pub(super) type Exact = ((u64, u64), FileKey);

/// What the kernel said of our descriptors.
#[derive(Debug)]
pub(super) struct Known {
    files: HashMap<u32, IdentityRecord>,
    above: HashMap<u32, Vec<AboveRecord>>,
}

impl Known {
    pub(super) fn ask(asker: &Asker, btf: &KernelBtf) -> Result<Self> {
        let files = asker.files()?.into_iter().map(|r| (r.fd, r)).collect();
        let mut above: HashMap<u32, Vec<AboveRecord>> = HashMap::new();
        for record in asker.directories(btf)? {
            above.entry(record.fd).or_default().push(record);
        }
        Ok(Known { files, above })
    }

    pub(super) fn file(&self, fd: &OwnedFd) -> Result<IdentityRecord> {
        number(fd)
            .and_then(|fd| self.files.get(&fd).copied())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Load,
                    "the kernel did not report one of our descriptors; this is a defect",
                )
            })
    }

    /// This process as the kernel half knows it: whose descriptors these are.
    pub(super) fn own_key(&self) -> Option<TaskKey> {
        self.files.values().next().map(TaskKey::of_reader)
    }

    /// `None`: there are more than the kernel half looks through.
    fn above(&self, fd: &OwnedFd) -> Option<Vec<FileKey>> {
        let all = self.above.get(&number(fd)?)?;
        let (last, directories) = all.split_last()?;
        (last.depth == 0).then(|| directories.iter().map(|r| file_key(&r.file)).collect())
    }
}

fn number(fd: &OwnedFd) -> Option<u32> {
    u32::try_from(fd.as_raw_fd()).ok()
}

/// Opens what a pattern of a rule names. A symbolic link names two files: itself, which can be replaced, and its target.
pub(super) fn open(rule: &FileRule, pattern: &Pattern) -> Result<Vec<(Part, Opened)>> {
    let path = pattern.path();
    if matches!(pattern, Pattern::Inode(_)) {
        let (fd, stat) = open_path(path, OFlags::empty()).map_err(|e| {
            cannot(rule, path, e)
                .with_hint("inodes are those of files that exist; paths may come to be later")
        })?;
        part(rule, path, false, FileType::from_raw_mode(stat.st_mode))?;
        return Ok(vec![(Part::Inode, Opened::new(path, fd, &stat))]);
    }
    let below = matches!(pattern, Pattern::Below(_));
    let (fd, stat) = match open_path(path, OFlags::NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) if rule.may_be_missing => {
            return parent(rule, path, below).map(|opened| vec![opened]);
        }
        opened => opened.map_err(|e| cannot(rule, path, e))?,
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let first = Opened::new(path, fd, &stat);
    if kind != FileType::Symlink {
        return Ok(vec![(part(rule, path, below, kind)?, first)]);
    }
    let (target, target_stat) =
        open_path(path, OFlags::empty()).map_err(|e| cannot(rule, path, e))?;
    let kind = FileType::from_raw_mode(target_stat.st_mode);
    let link = if below {
        Part::LinkToDirectory
    } else {
        Part::File
    };
    Ok(vec![
        (link, first),
        (
            part(rule, path, below, kind)?,
            Opened::new(path, target, &target_stat),
        ),
    ])
}

/// File systems that are mounted in a directory and nowhere else. From what is in one the way up leads to the directory by
/// that mount alone, and who may mount can make another.
pub(super) fn mounted_in(directory: &Opened, mounts: &[Mount]) -> Vec<(Part, Opened)> {
    let link = format!("/proc/self/fd/{}", directory.fd.as_raw_fd());
    let Ok(path) = std::fs::read_link(link) else {
        return Vec::new();
    };
    let open = |at: &Path| {
        // One that has gone meanwhile is not in it any more.
        let (fd, stat) = open_path(at, OFlags::NOFOLLOW | OFlags::DIRECTORY).ok()?;
        Some((Part::Mounted, Opened::new(at, fd, &stat)))
    };
    alone_below(mounts, &path).filter_map(open).collect()
}

/// Opens a program that a rule, by its place, is about, or not; a link stands for what it leads to.
pub(super) fn open_program(rule: &str, path: &Path) -> Result<Opened> {
    let (fd, stat) = open_path(path, OFlags::empty()).map_err(|e| {
        cannot_be(rule, path, e).with_hint("\"exe\" names programs that are there; a copy or a later version of one is another program")
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new(
            ErrorKind::Policy,
            format!("{rule}: {} is no program; nothing is armed", path.display()),
        ));
    }
    Ok(Opened::new(path, fd, &stat))
}

/// What a file of this kind is to a rule.
fn part(rule: &FileRule, path: &Path, below: bool, kind: FileType) -> Result<Part> {
    let wrong = |what: &str, hint: String| {
        let sentence = format!(
            "{}: {} {what}; nothing is armed",
            place(rule),
            path.display()
        );
        Err(Error::new(ErrorKind::Policy, sentence).with_hint(hint))
    };
    let all = Pattern::Below(path.to_owned());
    match (below, kind == FileType::Directory) {
        (false, false) => Ok(Part::File),
        (true, true) => Ok(Part::Directory),
        (false, true) => wrong(
            "is a directory, and what is in it would stay open",
            format!("for all that is in it write {all}"),
        ),
        (true, false) => wrong(
            "is no directory",
            format!("{all} stands for all that is in one"),
        ),
    }
}

/// The directory of what does not exist yet.
fn parent(rule: &FileRule, path: &Path, below: bool) -> Result<(Part, Opened)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(cannot(rule, path, rustix::io::Errno::NOENT));
    };
    let (fd, stat) = open_path(directory, OFlags::DIRECTORY).map_err(|e| {
        cannot(rule, directory, e).with_hint(format!(
            "{} may come to be later, but its directory must exist",
            path.display()
        ))
    })?;
    let part = Part::Parent {
        name: name.as_encoded_bytes().to_owned(),
        below,
    };
    Ok((part, Opened::new(path, fd, &stat)))
}

fn open_path(path: &Path, extra: OFlags) -> rustix::io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
    let fd = loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            // EAGAIN: a rename elsewhere raced with the walk.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            opened => break opened?,
        }
    };
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}

fn cannot(rule: &FileRule, path: &Path, e: rustix::io::Errno) -> Error {
    cannot_be(&place(rule), path, e).with_hint(
        "name a file that exists; a rule of a policy can also name one in a directory that does",
    )
}

fn cannot_be(rule: &str, path: &Path, e: rustix::io::Errno) -> Error {
    let why = match e {
        rustix::io::Errno::NOENT => "does not exist".to_owned(),
        rustix::io::Errno::LOOP => {
            "goes through a magic link of /proc or a loop of links".to_owned()
        }
        rustix::io::Errno::MFILE => {
            "cannot be opened: the limit of open files is reached (ulimit -n)".to_owned()
        }
        e => format!("cannot be opened: {e}"),
    };
    Error::new(
        ErrorKind::Policy,
        format!("{rule}: {} {why}; nothing is armed", path.display()),
    )
    .with_source(std::io::Error::from(e))
}

impl Identity {
    pub(super) fn new(rule: &FileRule, opened: Opened, known: &Known) -> Result<Self> {
        let record = known.file(&opened.fd)?;
        let magic = record.file.fs_magic;
        if rule.effect == Effect::Allow && magic == OVERLAY {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "{}: {} is on overlayfs, where rules that allow cannot be kept; nothing is armed",
                    place(rule),
                    opened.path.display()
                ),
            )
            .with_hint("name what is denied there instead, or put it on another file system"));
        }
        if let Some((_, name)) = REMOUNTED.iter().find(|(m, _)| *m == magic) {
            return Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "{} is on {name}, and another mount of {name} shows the same under another identity; nothing is armed",
                    opened.path.display()
                ),
            )
            .with_hint("rules for proc and sysfs are not supported"));
        }
        let path = opened.path.clone();
        Identity::found(opened, known)?.ok_or_else(|| {
            let path = path.display();
            let sentence = format!("{path} is in more than 120 directories; nothing is armed");
            Error::new(ErrorKind::Policy, sentence).with_hint("move it up")
        })
    }

    /// `None`: it is in more directories than are looked through.
    pub(super) fn found(opened: Opened, known: &Known) -> Result<Option<Self>> {
        let record = known.file(&opened.fd)?;
        let magic = record.file.fs_magic;
        let Some(above) = known.above(&opened.fd) else {
            return Ok(None);
        };
        let strength = if EXACT.contains(&magic) {
            Strength::Exact
        } else {
            Strength::TagOnly
        };
        let name = record.name.split(|b| *b == 0).next().unwrap_or_default();
        Ok(Some(Identity {
            path: opened.path,
            key: file_key(&record.file),
            strength,
            name: name.to_owned(),
            above,
            setuid: FileKind::of_mode(record.file.mode) == Some(FileKind::Setuid),
            stat: opened.stat,
            fd: opened.fd,
        }))
    }

    pub(super) fn exact(&self) -> Exact {
        (self.stat, self.key)
    }

    /// The descriptor whose inode gets the tag.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What must stay open while the fence stands: where a tag that went with its inode could not come back by key.
    /// Everywhere else nothing is held, so that file systems can be unmounted.
    pub(super) fn held(&self) -> Option<&OwnedFd> {
        (self.strength == Strength::TagOnly).then_some(&self.fd)
    }

    pub(super) fn into_held(self) -> Option<OwnedFd> {
        (self.strength == Strength::TagOnly).then_some(self.fd)
    }
}
