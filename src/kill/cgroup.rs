//! A cgroup (v2) that is to be emptied.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::scope::open_cgroup;

#[derive(Debug)]
pub(super) struct Cgroup {
    /// As it was named.
    name: String,
    dir: OwnedFd,
    /// Kept open: whoever polls it hears of changes since it was last read.
    events: File,
    was_frozen: bool,
    frozen: bool,
}

impl Cgroup {
    /// # Errors
    ///
    /// `Scope`: there is none. `Usage`: it is the root.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let dir = open_cgroup(path)?;
        let name = path.display().to_string();
        let below = |file: &str| PathBuf::from(format!("/proc/self/fd/{}/{file}", dir.as_raw_fd()));
        let events = match File::open(below("cgroup.events")) {
            Ok(events) => events,
            // Every cgroup has one, but for the root of all.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("cgroup {name} is not killed: it is the root, in which everything is"),
                )
                .with_hint("name a cgroup below it"));
            }
            Err(e) => return Err(cannot(&name, "be watched", e)),
        };
        let was_frozen = fs::read(below("cgroup.freeze")).is_ok_and(|text| text.starts_with(b"1"));
        Ok(Cgroup {
            name,
            dir,
            events,
            was_frozen,
            frozen: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self, file: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{file}", self.dir.as_raw_fd()).into()
    }

    /// The processes in it and below it.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        let mut todo = vec![self.path("")];
        let mut first = true;
        while let Some(dir) = todo.pop() {
            match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse::<u32>().ok())),
                // A threaded cgroup: its processes are listed further up.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) && first => {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!(
                            "cgroup {} is not killed: it holds threads and no processes",
                            self.name
                        ),
                    )
                    .with_hint("name the cgroup above it whose cgroup.type is 'domain threaded'"));
                }
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                // Removed meanwhile.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => continue,
                Err(e) => return Err(cannot(&self.name, "be read", e)),
            }
            first = false;
            let below = fs::read_dir(&dir).into_iter().flatten().flatten();
            todo.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        if pids.contains(&0) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "cgroup {} is not killed: it holds processes that cannot be seen from this pid namespace",
                    self.name
                ),
            )
            .with_hint("start stockade on the host"));
        }
        Ok(pids)
    }

    /// Asks the kernel to hold everybody in it.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.frozen = true;
        match fs::write(self.path("cgroup.freeze"), "1") {
            // Removed meanwhile: nobody is in it.
            Err(e) if e.raw_os_error() != Some(libc::ENODEV) => {
                Err(cannot(&self.name, "be frozen", e))
            }
            _ => Ok(()),
        }
    }

    /// Lets everybody in it go on; `also_others`: whoever froze it.
    pub(super) fn thaw(&mut self, also_others: bool) {
        if (self.frozen && !self.was_frozen) || also_others {
            // Nothing to be done about one that has been removed, or is no longer ours to write.
            let _ = fs::write(self.path("cgroup.freeze"), "0");
        }
        self.frozen = false;
    }

    /// Sends SIGKILL to everybody in it. False where the kernel has no such thing (before 5.14), or refuses it.
    pub(super) fn kill(&self) -> bool {
        fs::write(self.path("cgroup.kill"), "1").is_ok()
    }

    /// Whether everybody in it is held.
    pub(super) fn is_frozen(&self) -> bool {
        self.event("frozen 1") || self.is_empty()
    }

    /// Whether nobody that runs is in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.event("populated 1")
    }

    fn event(&self, line: &str) -> bool {
        let mut text = [0; 256];
        let read = self.events.read_at(&mut text, 0).unwrap_or(0);
        text[..read]
            .split(|b| *b == b'\n')
            .any(|l| l == line.as_bytes())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn cannot(name: &str, what: &str, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cgroup {name} cannot {what}: {e}")).with_source(e)
}
