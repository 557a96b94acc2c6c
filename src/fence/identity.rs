//! Which file a path means, in the kernel's own terms.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use super::file_key;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::FileRule;
use crate::wire::{FileKey, IdentityRecord};

/// A path of a rule, opened without touching the file: nothing is read, no device is woken, no right on it is needed.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    fd: OwnedFd,
    /// Device and inode as fstat(2) has them: on btrfs they tell subvolumes apart, which the key does not.
    stat: (u64, u64),
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

/// A file that is to be guarded.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    pub(super) key: FileKey,
    pub(super) strength: Strength,
    stat: (u64, u64),
    fd: OwnedFd,
}

/// Opens what a rule's path names. A symbolic link names two files: itself, which can be replaced, and its target.
pub(super) fn open(rule: &FileRule, path: &Path) -> Result<Vec<Opened>> {
    let first = open_one(rule, path, OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&first.fd).map_err(|e| cannot(rule, path, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(vec![first]);
    }
    let target = open_one(rule, path, OFlags::empty())?;
    Ok(vec![first, target])
}

fn open_one(rule: &FileRule, path: &Path, extra: OFlags) -> Result<Opened> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
    let fd = loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            // EAGAIN: a rename elsewhere raced with the walk.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(cannot(rule, path, e)),
            Ok(fd) => break fd,
        }
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| cannot(rule, path, e))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Error::new(
            ErrorKind::Policy,
            format!(
                "{}: {} is a directory, and what is in it would stay open; nothing is armed",
                place(rule),
                path.display()
            ),
        )
        .with_hint("name files; rules for all that is in a directory are not supported yet"));
    }
    Ok(Opened {
        path: path.to_owned(),
        stat: (stat.st_dev, stat.st_ino),
        fd,
    })
}

fn place(rule: &FileRule) -> String {
    match rule.line {
        0 => format!("rule {}", rule.id),
        line => format!("rule {} (line {line})", rule.id),
    }
}

fn cannot(rule: &FileRule, path: &Path, e: rustix::io::Errno) -> Error {
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
        format!(
            "{}: {} {why}; nothing is armed",
            place(rule),
            path.display()
        ),
    )
    .with_source(std::io::Error::from(e))
    .with_hint(
        "name a file that exists; rules for files that are created later are not supported yet",
    )
}

impl Identity {
    pub(super) fn new(
        opened: Opened,
        of: &impl Fn(&OwnedFd) -> Result<IdentityRecord>,
    ) -> Result<Self> {
        let record = of(&opened.fd)?;
        let magic = record.file.fs_magic;
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
        let strength = if EXACT.contains(&magic) {
            Strength::Exact
        } else {
            Strength::TagOnly
        };
        Ok(Identity {
            path: opened.path,
            key: file_key(&record.file),
            strength,
            stat: opened.stat,
            fd: opened.fd,
        })
    }

    /// Whether both are the same file.
    pub(super) fn same(&self, other: &Identity) -> bool {
        self.stat == other.stat
            && self.key.ino == other.key.ino
            && self.key.dev == other.key.dev
            && self.key.generation == other.key.generation
    }

    /// The descriptor whose inode gets the tag.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What must stay open while the fence stands: where a tag that went with its inode could not come back by key.
    /// Everywhere else nothing is held, so that file systems can be unmounted.
    pub(super) fn into_held(self) -> Option<OwnedFd> {
        (self.strength == Strength::TagOnly).then_some(self.fd)
    }
}
