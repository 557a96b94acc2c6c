//! Programs that run as long as somebody holds them, and how they are let go of.
//!
//! Before the kernel forgets a program on a function it waits until no task can be inside it any more: 20 to 120 ms for
//! each, one after the other, on the thread that closes the link. With two dozen of them `stockade run` ended three
//! seconds after its command (6.12: 3.1 s). So a link gets a name in a bpffs of our own that is mounted nowhere, and is
//! closed: its last holder then is the inode, and a kernel worker does the waiting (bpf_link_put, kernel/bpf/syscall.c).
//! Seen on 5.10, 6.12 and 7.2. On Debian's 6.1 the inode goes with the mount, on the thread that closes that, which
//! waits as before.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use libbpf_rs::Link;
use libbpf_rs::libbpf_sys::{
    bpf_obj_pin, bpf_prog_get_info_by_fd, bpf_prog_info as ProgramInfo, bpf_prog_test_run_opts,
    bpf_test_run_opts,
};

use super::pins::PinDirectory;
use super::refused;
use super::tracefs::detached;
use crate::error::{Error, ErrorKind, Result};

/// A program that runs as long as this lives.
pub(crate) struct Attached {
    name: &'static str,
    /// Several where it runs on each CPU by itself, none where it is only called, else one.
    links: Vec<Link>,
    program: OwnedFd,
    /// Another program sees what this one is skipped for.
    is_backed: bool,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links: Vec<_> = self.links.iter().map(Link::as_fd).collect();
        f.debug_struct("Attached")
            .field("name", &self.name)
            .field("links", &links)
            .finish_non_exhaustive()
    }
}

impl Attached {
    pub(super) fn new(
        name: &'static str,
        links: Vec<Link>,
        program: BorrowedFd<'_>,
        is_backed: bool,
    ) -> Result<Self> {
        Ok(Attached {
            name,
            links,
            program: own(name, program)?,
            is_backed,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The link of an iterator, for [`read_iterator`](super::read_iterator): it can be read as long as this descriptor
    /// is open.
    pub(crate) fn iterator(&self) -> Result<OwnedFd> {
        let link = self.links.first().ok_or_else(|| {
            Error::new(
                ErrorKind::Load,
                format!("{} is not attached; this is a defect", self.name),
            )
        })?;
        own(self.name, link.as_fd())
    }

    /// How often the kernel skipped the program because it was already running on that CPU: such a call was neither
    /// seen nor judged. Known from 5.12 on.
    fn skipped(&self) -> u64 {
        if self.is_backed {
            return 0;
        }
        self.info().map_or(0, |info| info.recursion_misses)
    }

    /// Calls a program that takes packets, with these bytes in the place of one; what it returns.
    pub(crate) fn call(&self, bytes: &[u8]) -> Result<u32> {
        // The kernel takes an Ethernet header off first.
        let mut packet = vec![0; 14];
        packet.extend(bytes);
        let mut options = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as _,
            data_in: packet.as_ptr().cast(),
            data_size_in: u32::try_from(packet.len()).unwrap_or(u32::MAX),
            ..bpf_test_run_opts::default()
        };
        // SAFETY: the program and the packet are there for the call, and the sizes are theirs.
        let result = unsafe { bpf_prog_test_run_opts(self.program.as_raw_fd(), &raw mut options) };
        match result {
            0 => Ok(options.retval),
            error => {
                let error = libbpf_rs::Error::from_raw_os_error(-error);
                Err(refused(&format!("calling {}", self.name), &error, &[]))
            }
        }
    }

    /// The program as the kernel has it.
    pub(crate) fn info(&self) -> Result<ProgramInfo> {
        let mut info = ProgramInfo::default();
        let mut len = u32::try_from(size_of_val(&info)).unwrap_or(0);
        // SAFETY: `info` is a valid bpf_prog_info of `len` bytes; the kernel fills in at most that much.
        let result = unsafe {
            bpf_prog_get_info_by_fd(self.program.as_raw_fd(), &raw mut info, &raw mut len)
        };
        match result {
            0 => Ok(info),
            error => {
                let error = libbpf_rs::Error::from_raw_os_error(-error);
                Err(refused(&format!("asking for {}", self.name), &error, &[]))
            }
        }
    }
}

fn own(name: &str, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned()
        .map_err(|e| Error::new(ErrorKind::Io, format!("descriptor of {name}: {e}")))
}

/// By program, how many calls the kernel kept from it: neither seen nor judged.
pub(crate) fn skipped<'a>(
    attached: impl Iterator<Item = &'a Attached>,
) -> BTreeMap<&'static str, u64> {
    attached
        .map(|a| (a.name, a.skipped()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Programs that end together. Dropping them does not wait for the kernel: their last runs can come some seconds later,
/// and find nobody who listens.
#[derive(Debug, Default)]
pub(crate) struct Attachments(Vec<Attached>);

impl Attachments {
    pub(super) fn push(&mut self, one: Attached) {
        self.0.push(one);
    }

    /// Gives every link a name in a directory, after its program; from then on these run until that is taken away.
    pub(crate) fn pin(&self, directory: &PinDirectory) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for attached in &self.0 {
            for (n, link) in attached.links.iter().enumerate() {
                let name = match n {
                    0 => attached.name.to_owned(),
                    n => format!("{}-{n}", attached.name),
                };
                if let Err(e) = directory.pin(link.as_fd(), &name) {
                    for name in &names {
                        directory.unpin(name)?;
                    }
                    return Err(e);
                }
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(crate) fn append(&mut self, mut others: Attachments) {
        self.0.append(&mut others.0);
    }
}

impl Deref for Attachments {
    type Target = [Attached];

    fn deref(&self) -> &[Attached] {
        &self.0
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        // Where this is not possible (no rights to mount, a link on a perf event before 5.15), the kernel has us wait.
        if let Ok(mount) = detached("bpf") {
            let links = self.0.iter().flat_map(|attached| &attached.links);
            for (n, link) in links.enumerate() {
                let path = format!("/proc/self/fd/{}/{n}", mount.as_raw_fd());
                if let Ok(path) = CString::new(path) {
                    // SAFETY: the path is a C string, and the descriptor is open while `link` is borrowed.
                    let _ = unsafe { bpf_obj_pin(link.as_fd().as_raw_fd(), path.as_ptr()) };
                }
            }
            self.0.clear();
        }
    }
}
