//! Memory that the kernel writes and this program reads.

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of a descriptor, from its beginning. It stays when the descriptor is closed.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread has a claim on it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// `bytes` are rounded up to whole pages.
    pub(super) fn new(
        of: impl AsFd,
        bytes: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> rustix::io::Result<Self> {
        let bytes = bytes.next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address that the kernel chooses, which no other memory depends on.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, of, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::FAULT)?;
        Ok(Mapping { start, bytes })
    }

    /// At a page's boundary; whoever uses it keeps to the mapping's size and life.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: from `new`, and whoever has the address keeps to this value's life. Nothing can be done about a
        // failure.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
