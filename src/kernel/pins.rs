//! Names in the bpf file system, by which programs and maps outlive whoever has loaded them.
//!
//! Everything is reached from descriptors of directories that were looked at: nobody can put another one in between.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys::{BPF_F_RDONLY, bpf_obj_get_opts, bpf_obj_pin, size_t};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::drops::Drops;
use super::foreign::ForeignMap;
use super::refused;
use super::ring::Rings;
use super::table::{OwnTable, Table};
use crate::error::{Error, ErrorKind, Result};

/// Where the bpf file system is, by convention.
const MOUNT: &str = "/sys/fs/bpf";
/// What stockade has there.
const OURS: &str = "stockade";
/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// A directory of ours there.
pub(crate) struct PinDirectory {
    path: PathBuf,
    fd: OwnedFd,
}

impl fmt::Debug for PinDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinDirectory").field(&self.path).finish()
    }
}

impl PinDirectory {
    /// The directory that all others are in; made where it is missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnforced`]: there is no bpf file system, or somebody else has made that directory.
    pub(crate) fn root() -> Result<Self> {
        let mount = Path::new(MOUNT);
        let fd = open(rustix::fs::CWD, mount, mount)?;
        let found = rustix::fs::fstatfs(&fd).map_err(|e| failed(mount, e))?;
        // The field's type differs between architectures; the magic fits in all.
        if found.f_type as u32 != BPF_FS_MAGIC {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "there is no bpf file system at {MOUNT}, by which a fence outlives this program"
                ),
            )
            .with_hint("mount it: mount -t bpf bpf /sys/fs/bpf"));
        }
        let mount = PinDirectory {
            path: mount.to_owned(),
            fd,
        };
        let root = mount.make(OURS)?;
        let stat = rustix::fs::fstat(&root.fd).map_err(|e| failed(&root.path, e))?;
        let own = rustix::process::geteuid().as_raw();
        if stat.st_uid != own || stat.st_mode & 0o077 != 0 {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                format!("{} belongs to user {} and has the mode {:o}, so others could take a fence down", root.path.display(), stat.st_uid, stat.st_mode & 0o7777),
            )
            .with_hint("take it away, or make it root's own: chown root, chmod 700"));
        }
        Ok(root)
    }

    /// Waits until nobody else changes what is in it; until this value goes.
    pub(crate) fn lock(&self) -> Result<()> {
        rustix::fs::flock(&self.fd, FlockOperation::LockExclusive)
            .map_err(|e| failed(&self.path, e))
    }

    /// Lets others change what is in it.
    pub(crate) fn unlock(&self) -> Result<()> {
        rustix::fs::flock(&self.fd, FlockOperation::Unlock).map_err(|e| failed(&self.path, e))
    }

    /// A directory in this one; made where it is missing.
    pub(crate) fn make(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(&path, e)),
        }
        let fd = open(&self.fd, Path::new(name), &path)?;
        Ok(PinDirectory { path, fd })
    }

    /// A directory in this one; `None` where there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let is_there = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        match is_there {
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(failed(&path, e)),
            Ok(_) => {}
        }
        let fd = open(&self.fd, Path::new(name), &path)?;
        Ok(Some(PinDirectory { path, fd }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What is in it.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(|e| failed(&self.path, e))? {
            let entry = entry.map_err(|e| failed(&self.path, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Gives a program's link or a map a name here.
    pub(crate) fn pin(&self, object: BorrowedFd<'_>, name: &str) -> Result<()> {
        let what = || format!("the name {}", self.path.join(name).display());
        let path = CString::new(self.beneath(name)).map_err(|_| {
            Error::new(
                ErrorKind::Usage,
                format!("{}: a name has no NUL in it", what()),
            )
        })?;
        // SAFETY: the path is a C string, and the descriptor is open while it is borrowed.
        match unsafe { bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) } {
            0 => Ok(()),
            error => {
                let error = libbpf_rs::Error::from_raw_os_error(error.abs());
                Err(refused(&what(), &error, &[]))
            }
        }
    }

    /// The map that has this name here; `None` where there is none.
    pub(crate) fn map(&self, name: &'static str) -> Result<Option<OwnTable>> {
        let handle = self.handle(name)?;
        Ok(handle.map(|map| Table::new(name, map)))
    }

    /// The map that has this name here, to be read alone; `None` where there is none.
    pub(crate) fn look(&self, name: &str) -> Result<Option<ForeignMap>> {
        let options = bpf_obj_get_opts {
            sz: size_of::<bpf_obj_get_opts>() as size_t,
            file_flags: BPF_F_RDONLY,
            ..bpf_obj_get_opts::default()
        };
        let what = || self.path.join(name).display().to_string();
        let path = CString::new(self.beneath(name)).unwrap_or_default();
        // SAFETY: a C string, and options of the size that they say.
        let fd = unsafe { bpf_obj_get_opts(path.as_ptr(), &raw const options) };
        match fd {
            0.. => {
                // SAFETY: just made, and nobody else has it.
                ForeignMap::new(unsafe { OwnedFd::from_raw_fd(fd) }).map(Some)
            }
            e if e == -Errno::NOENT.raw_os_error() => Ok(None),
            e => {
                let error = libbpf_rs::Error::from_raw_os_error(e.abs());
                Err(refused(&what(), &error, &[]))
            }
        }
    }

    /// The consumer of the rings that have their names here.
    pub(crate) fn rings(&self) -> Result<Option<Rings>> {
        match (self.handle("stk_events")?, self.handle("stk_denials")?) {
            (Some(events), Some(denials)) => Rings::new(&events, &denials).map(Some),
            _ => Ok(None),
        }
    }

    /// The counters of what was lost that have their name here.
    pub(crate) fn drops(&self) -> Result<Option<Drops>> {
        let counts = self.handle("stk_counts")?;
        counts.map(|map| Drops::new(&map)).transpose()
    }

    fn handle(&self, name: &str) -> Result<Option<MapHandle>> {
        match MapHandle::from_pinned_path(self.beneath(name)) {
            Ok(map) => Ok(Some(map)),
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(refused(
                &self.path.join(name).display().to_string(),
                &e,
                &[],
            )),
        }
    }

    /// Takes a name away; one that is not there is as good.
    pub(crate) fn unpin(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(&self.path.join(name), e)),
        }
    }

    /// Gives what is here, or a directory, another name; what had it is let go of.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|e| failed(&self.path.join(to), e))
    }

    /// Takes a directory away, with all the names in it.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let Some(directory) = self.find(name)? else {
            return Ok(());
        };
        for pinned in directory.names()? {
            directory.unpin(&pinned)?;
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
            .map_err(|e| failed(&directory.path, e))
    }

    /// For calls that take nothing but a path.
    fn beneath(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd())
    }
}

fn open(directory: impl AsFd, name: &Path, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|e| failed(path, e))
}

fn failed(path: &Path, e: Errno) -> Error {
    let kind = match e {
        Errno::ACCESS | Errno::PERM => ErrorKind::Permission,
        _ => ErrorKind::NotEnforced,
    };
    let error = Error::new(kind, format!("{}: {e}", path.display())).with_source(e);
    match kind {
        ErrorKind::Permission => error.with_hint("run as root"),
        _ => error,
    }
}
