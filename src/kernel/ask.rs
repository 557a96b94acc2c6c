//! Asks the kernel who is who, through iterators over our own descriptors and over all processes.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _};

use libbpf_rs::Link;

use super::btf::KernelBtf;
use super::log::Capture;
use super::{refused, skel};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{AboveRecord, IdentityRecord, SeedRecord, TaskKey, read};

/// A process that runs now.
pub(crate) type Seed = SeedRecord;

/// The iterators, each loaded once.
pub(crate) struct Asker {
    files: Link,
    tasks: Link,
    /// Only a fence asks.
    above: OnceCell<Link>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl Asker {
    /// Loads the iterators. Needs the rights to load tracing programs; nothing is hooked anywhere.
    pub(crate) fn new(btf: &KernelBtf) -> Result<Self> {
        let [files, tasks] = load(btf, ["identity_files__iter", "identity_tasks__iter"])?;
        Ok(Asker {
            files,
            tasks,
            above: OnceCell::new(),
        })
    }

    /// The identity of every file that this process has open, with its descriptor.
    pub(crate) fn files(&self) -> Result<Vec<IdentityRecord>> {
        records(&self.files, "identities of our descriptors")
    }

    /// This process as the kernel half knows it: with its id in the initial pid namespace.
    pub(crate) fn own_key(&self) -> Result<TaskKey> {
        match self.files()?.first() {
            Some(record) => Ok(TaskKey::of_reader(record)),
            None => Err(Error::new(
                ErrorKind::Load,
                "the kernel reports none of our descriptors; this is a defect",
            )),
        }
    }

    /// Every process that runs, as a key of the maps.
    pub(crate) fn alive(&self) -> Result<HashSet<TaskKey>> {
        Ok(self.processes()?.iter().map(TaskKey::of).collect())
    }

    /// The directories that the files are in that this process has open, from the innermost one on.
    pub(crate) fn directories(&self, btf: &KernelBtf) -> Result<Vec<AboveRecord>> {
        let above = match self.above.get() {
            Some(above) => above,
            None => {
                let [above] = load(btf, ["identity_above__iter"])?;
                self.above.get_or_init(|| above)
            }
        };
        records(above, "the directories of our descriptors")
    }

    /// Every process that runs.
    pub(crate) fn processes(&self) -> Result<Vec<Seed>> {
        records(&self.tasks, "the list of processes")
    }
}

/// Loads these iterators, and no others.
fn load<const N: usize>(btf: &KernelBtf, names: [&str; N]) -> Result<[Link; N]> {
    let capture = Capture::start();
    let what = "the identity iterator";
    let mut open = skel::IDENTITY
        .open(btf)?
        .map_err(|e| refused(what, &e, &capture.take()))?;
    for mut program in open.progs_mut() {
        program.set_autoload(names.iter().any(|name| program.name() == *name));
    }
    let loaded = open
        .load()
        .map_err(|e| refused(what, &e, &capture.take()))?;
    let mut links = Vec::new();
    for name in names {
        for program in loaded.progs_mut().filter(|p| p.name() == name) {
            links.push(
                program
                    .attach()
                    .map_err(|e| refused(name, &e, &capture.take()))?,
            );
        }
    }
    // All names are in identity.bpf.c, or the loop above found fewer.
    links.try_into().map_err(|_| {
        Error::new(
            ErrorKind::Load,
            "the identity iterators are not in their object; this is a defect",
        )
    })
}

fn records<T: plain::Plain + Copy>(link: &Link, what: &str) -> Result<Vec<T>> {
    read_iterator(link.as_fd(), what)
}

/// All records that an iterator writes.
pub(crate) fn read_iterator<T: plain::Plain + Copy>(
    link: BorrowedFd<'_>,
    what: &str,
) -> Result<Vec<T>> {
    // SAFETY: a link's descriptor, no options; what comes back is a new descriptor of ours, or below zero.
    let fd = unsafe { libbpf_rs::libbpf_sys::bpf_iter_create(link.as_raw_fd()) };
    if fd < 0 {
        let error = libbpf_rs::Error::from_raw_os_error(-fd);
        return Err(refused(what, &error, &[]));
    }
    // SAFETY: just made, and nobody else has it.
    let mut iter = unsafe { File::from_raw_fd(fd) };
    let mut bytes = Vec::new();
    // EAGAIN: a million objects without one of ours; the iterator keeps its place.
    while let Err(e) = iter.read_to_end(&mut bytes) {
        if e.kind() != std::io::ErrorKind::WouldBlock {
            return Err(refused(what, &libbpf_rs::Error::from(e), &[]));
        }
    }
    Ok(bytes
        .chunks_exact(size_of::<T>())
        .filter_map(read)
        .collect())
}
