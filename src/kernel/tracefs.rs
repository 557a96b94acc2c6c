//! Kernel file systems that nobody may have mounted, read through a mount of our own that is attached nowhere and ends
//! with its descriptor.

use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::perf;
use crate::error::{Error, ErrorKind, Result};

/// A mount that is in no mount table.
pub(super) fn detached(fs: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

fn read(mount: &OwnedFd, path: &str) -> std::io::Result<String> {
    let file = rustix::fs::openat(mount, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

/// A file of securityfs; `None` when it cannot be read, which says nothing about what it would hold.
fn securityfs(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/kernel/security/{name}")).ok();
    let text = text.or_else(|| read(&detached("securityfs").ok()?, name).ok())?;
    Some(text.trim().to_owned())
}

/// The active security modules; `None` when that cannot be known, which is not the same as "no bpf".
pub(crate) fn securityfs_lsm() -> Option<String> {
    securityfs("lsm")
}

/// The lockdown levels with the one in force in brackets; `None` when that cannot be known.
pub(crate) fn securityfs_lockdown() -> Option<String> {
    securityfs("lockdown")
}

/// Opens classic tracepoints.
#[derive(Debug, Default)]
pub(super) struct Tracefs {
    mount: Option<OwnedFd>,
}

impl Tracefs {
    /// A perf event on the tracepoint `events/GROUP/NAME`, for a BPF program to hang on.
    pub(super) fn perf_event(&mut self, group: &str, name: &str) -> Result<OwnedFd> {
        let failed = |what: &str, e: std::io::Error| {
            Error::new(
                ErrorKind::Load,
                format!("tracepoint {group}/{name}: {what}: {e}"),
            )
            .with_source(e)
        };
        let mount = match &self.mount {
            Some(mount) => mount,
            None => {
                let mount = detached("tracefs")
                    .map_err(|e| failed("tracefs cannot be mounted", e.into()))?;
                self.mount.insert(mount)
            }
        };
        let id = read(mount, &format!("events/{group}/{name}/id"))
            .map_err(|e| failed("its id cannot be read", e))?;
        let id: u64 = id
            .trim()
            .parse()
            .map_err(|e| failed("its id is not a number", std::io::Error::other(e)))?;
        let mut attr = perf::attributes(libbpf_rs::libbpf_sys::PERF_TYPE_TRACEPOINT, id);
        // The program runs on every CPU all the same: it hangs on the tracepoint.
        perf::open(&mut attr, 0).map_err(|e| failed("perf_event_open", e))
    }
}

/// Lets go of a descriptor that a libbpf link has taken over.
pub(super) fn give_away(fd: OwnedFd) -> i32 {
    let raw = fd.as_raw_fd();
    std::mem::forget(fd);
    raw
}
