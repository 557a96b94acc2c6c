//! Changes of names, attributes and mounts.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Failed, FileId, FilePath, Quoted, names};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangeOperation {
    /// A file has another name.
    Link,
    /// A symbolic link is made.
    Symlink,
    /// A directory is made.
    Mkdir,
    /// A directory is removed.
    Rmdir,
    /// A device, pipe, socket or empty file is made.
    Mknod,
    /// Permissions.
    Chmod,
    /// Owner or group.
    Chown,
    /// Times of last access and modification.
    Utimes,
    /// Size.
    Truncate,
    /// An extended attribute, such as a list of access rights, is set.
    Setxattr,
    /// An extended attribute is removed.
    Removexattr,
}

impl ChangeOperation {
    /// Its name, as in `event.action`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ChangeOperation::Link => "link",
            ChangeOperation::Symlink => "symlink",
            ChangeOperation::Mkdir => "mkdir",
            ChangeOperation::Rmdir => "rmdir",
            ChangeOperation::Mknod => "mknod",
            ChangeOperation::Chmod => "chmod",
            ChangeOperation::Chown => "chown",
            ChangeOperation::Utimes => "utimes",
            ChangeOperation::Truncate => "truncate",
            ChangeOperation::Setxattr => "setxattr",
            ChangeOperation::Removexattr => "removexattr",
        }
    }
}

/// A name or an attribute of a file was changed, or could not be. Values are those that were asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// What was done.
    pub operation: ChangeOperation,
    /// Which path; of a link the new one.
    pub path: FilePath,
    /// Which file; `None` where only the system call was seen, and where nothing was made.
    pub file: Option<FileId>,
    /// Of a link: the path that the file had.
    pub from: Option<FilePath>,
    /// Of a symbolic link: what it says, escaped.
    pub target: Option<String>,
    /// Name of the extended attribute, escaped.
    pub attribute: Option<String>,
    /// Permissions; of what mknod makes with its type.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// Of a device that is made: major and minor number.
    pub device: Option<(u32, u32)>,
    /// New time of last access, in nanoseconds since 1970; `None` for the present time.
    pub accessed_ns: Option<i64>,
    /// New time of last modification, likewise.
    pub modified_ns: Option<i64>,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// Something was mounted or unmounted, or could not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Where.
    pub path: FilePath,
    /// What: a device, a directory, or a name that means nothing; escaped.
    pub source: Option<String>,
    /// Type of the file system, escaped; `None` where none was given.
    pub fs_type: Option<String>,
    /// Flags as given to mount(2) or umount2(2); `None` for the newer calls.
    pub flags: Option<u32>,
    /// 0 or a positive errno.
    pub errno: u16,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = &self.from {
            write!(f, "from={from} to={}", self.path)?;
        } else {
            write!(f, "path={}", self.path)?;
        }
        if let Some(target) = &self.target {
            write!(f, " target={}", Quoted(target))?;
        }
        if let Some(attribute) = &self.attribute {
            write!(f, " name={}", Quoted(attribute))?;
        }
        if let Some(mode) = self.mode {
            write!(f, " mode={:04o}", mode & 0o7777)?;
        }
        if let Some((major, minor)) = self.device {
            write!(f, " device={major}:{minor}")?;
        }
        if let Some(uid) = self.uid {
            write!(f, " uid={uid}")?;
        }
        if let Some(gid) = self.gid {
            write!(f, " gid={gid}")?;
        }
        if let Some(size) = self.size {
            write!(f, " size={size}")?;
        }
        for (name, ns) in [("atime", self.accessed_ns), ("mtime", self.modified_ns)] {
            if let Some(ns) = ns {
                let second = 1_000_000_000;
                write!(
                    f,
                    " {name}={}.{:09}",
                    ns.div_euclid(second),
                    ns.rem_euclid(second)
                )?;
            }
        }
        write!(f, "{}", Failed(self.errno))
    }
}

impl Mount {
    /// The line of a mount or an unmount, whose flags have other names.
    pub(super) fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        names: fn(u32, &mut dyn FnMut(&'static str)) -> u32,
    ) -> fmt::Result {
        write!(f, "path={}", self.path)?;
        if let Some(source) = &self.source {
            write!(f, " source={}", Quoted(source))?;
        }
        if let Some(fs_type) = &self.fs_type {
            write!(f, " type={}", Quoted(fs_type))?;
        }
        if let Some(flags) = self.flags.filter(|flags| *flags != 0) {
            f.write_str(" flags=")?;
            names::write_flags(f, flags, names)?;
        }
        write!(f, "{}", Failed(self.errno))
    }
}
