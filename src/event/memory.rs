//! What the memory monitor reports.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Failed, ProcessId, Quoted, names};

/// A process asked for a change of its address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Memory {
    /// `mmap`, `munmap` or `brk`.
    pub call: Cow<'static, str>,
    /// Where it starts; for `brk` where the heap ends. Of an `mmap` that failed, what was asked for.
    pub address: u64,
    /// Whole pages that were mapped (or, below zero, given back), or would have been.
    pub bytes: i64,
    /// `PROT_*` bits of an `mmap`.
    pub protection: u32,
    /// `MAP_*` bits of an `mmap`.
    pub flags: u32,
    /// The error number; 0 when it worked.
    pub errno: u16,
}

/// What one process did with its memory in a while, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemorySummary {
    /// Page faults that needed no reading.
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Calls of `mmap`, those that failed included.
    pub mmap_calls: u64,
    /// Whole pages that were mapped.
    pub mmap_bytes: u64,
    /// Calls of `munmap`, those that failed included.
    pub munmap_calls: u64,
    /// Whole pages that `munmap` was asked to give back, holes between mappings included.
    pub munmap_bytes: u64,
    /// Calls of `brk`, those that failed included.
    pub brk_calls: u64,
    /// What `brk` added to the heap.
    pub brk_grown_bytes: u64,
    /// What `brk` took from the heap.
    pub brk_shrunk_bytes: u64,
    /// The calls that failed, by call and error.
    pub failures: Vec<MemoryFailure>,
    /// What it holds now, or held when it ended. `None` when it could not be read.
    pub sizes: Option<MemorySizes>,
    /// The process has ended.
    pub ended: bool,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

/// Calls that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryFailure {
    /// `mmap`, `munmap` or `brk`.
    pub call: Cow<'static, str>,
    /// Name of the error, or its number where it has no name.
    pub error: String,
    /// How many.
    pub count: u64,
}

impl MemoryFailure {
    pub(crate) fn new(call: &'static str, errno: u16, count: u64) -> Self {
        MemoryFailure {
            call: call.into(),
            error: names::errno(errno).map_or_else(|| errno.to_string(), str::to_owned),
            count,
        }
    }
}

/// What a process holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemorySizes {
    /// Resident pages of its own.
    pub anon_bytes: u64,
    /// Resident pages of files.
    pub file_bytes: u64,
    /// Resident pages of shared memory and tmpfs.
    pub shmem_bytes: u64,
    /// Pages in swap.
    pub swap_bytes: u64,
    /// Size of the address space.
    pub virtual_bytes: u64,
    /// Largest size of the address space since its exec.
    pub peak_virtual_bytes: u64,
    /// Largest resident size since its exec.
    pub peak_rss_bytes: u64,
    /// Between start and end of the heap that `brk` moves.
    pub heap_bytes: u64,
}

impl MemorySizes {
    /// All that is resident.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        self.anon_bytes + self.file_bytes + self.shmem_bytes
    }
}

/// The kernel has chosen this process to kill, because memory is short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OomKill {
    /// The process whose request for memory could not be met; often the victim itself.
    pub trigger: ProcessId,
    /// Name of that thread.
    pub trigger_comm: String,
    /// Resident pages of its own, in bytes.
    pub anon_bytes: u64,
    /// Resident pages of files, in bytes.
    pub file_bytes: u64,
    /// Resident pages of shared memory and tmpfs, in bytes.
    pub shmem_bytes: u64,
    /// Pages in swap, in bytes.
    pub swap_bytes: u64,
    /// Size of the address space in bytes.
    pub virtual_bytes: u64,
    /// Page tables in bytes.
    pub table_bytes: u64,
    /// The victim's `oom_score_adj`, from -1000 to 1000.
    pub score_adj: i32,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} address={:#x} bytes={:+}",
            self.call, self.address, self.bytes
        )?;
        if self.call == "mmap" {
            f.write_str(" prot=")?;
            joined(f, |each| protection(self.protection, each))?;
            f.write_str(" flags=")?;
            joined(f, |each| map_flags(self.flags, each))?;
        }
        write!(f, "{}", Failed(self.errno))
    }
}

/// Names with a bar between them, and the bits that have none.
fn joined(
    f: &mut fmt::Formatter<'_>,
    names: impl FnOnce(&mut dyn FnMut(&'static str)) -> u32,
) -> fmt::Result {
    let mut all = Vec::new();
    let rest = names(&mut |name| all.push(name));
    f.write_str(&all.join("|"))?;
    if rest != 0 {
        let bar = if all.is_empty() { "" } else { "|" };
        write!(f, "{bar}{rest:#x}")?;
    }
    Ok(())
}

impl fmt::Display for MemorySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "faults={}+{} mmap={} (+{}) munmap={} (-{}) brk={} (+{} -{})",
            self.minor_faults,
            self.major_faults,
            self.mmap_calls,
            self.mmap_bytes,
            self.munmap_calls,
            self.munmap_bytes,
            self.brk_calls,
            self.brk_grown_bytes,
            self.brk_shrunk_bytes
        )?;
        for failure in &self.failures {
            write!(f, " {}:{}={}", failure.call, failure.error, failure.count)?;
        }
        if let Some(sizes) = &self.sizes {
            write!(
                f,
                " rss={}KiB peak={}KiB swap={}KiB virtual={}KiB",
                sizes.rss_bytes() / 1024,
                sizes.peak_rss_bytes / 1024,
                sizes.swap_bytes / 1024,
                sizes.virtual_bytes / 1024
            )?;
        }
        write!(f, " in={:.1}s", self.window_ns as f64 / 1e9)?;
        f.write_str(if self.ended { " ended" } else { "" })
    }
}

impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OUT OF MEMORY anon={}KiB file={}KiB shmem={}KiB swap={}KiB virtual={}KiB tables={}KiB score_adj={} asked_by={} ({})",
            self.anon_bytes / 1024,
            self.file_bytes / 1024,
            self.shmem_bytes / 1024,
            self.swap_bytes / 1024,
            self.virtual_bytes / 1024,
            self.table_bytes / 1024,
            self.score_adj,
            self.trigger.pid,
            Quoted(&self.trigger_comm)
        )
    }
}

/// include/uapi/asm-generic/mman-common.h.
const PROTECTIONS: [(u32, &str); 3] = [(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];

/// mman-common.h, mman.h of include/uapi/asm-generic and include/uapi/linux; the kind of mapping is a number of its own.
const MAP_KINDS: [(u32, &str); 3] = [
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (3, "MAP_SHARED_VALIDATE"),
];
const MAP_FLAGS: [(u32, &str); 14] = [
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    // x86 alone.
    (0x40, "MAP_32BIT"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x8_0000, "MAP_SYNC"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];

/// Gives `each` the names in a set of `PROT_*`; returns the bits that have none.
pub(crate) fn protection(bits: u32, each: &mut dyn FnMut(&'static str)) -> u32 {
    named(bits, &PROTECTIONS, each)
}

/// Gives `each` the names in a set of `MAP_*`; returns the bits that have none.
pub(crate) fn map_flags(bits: u32, each: &mut dyn FnMut(&'static str)) -> u32 {
    let kind = bits & 0xf;
    match MAP_KINDS.iter().find(|(value, _)| *value == kind) {
        Some((_, name)) => {
            each(name);
            named(bits & !0xf, &MAP_FLAGS, each)
        }
        None => named(bits, &MAP_FLAGS, each),
    }
}

fn named(mut bits: u32, table: &[(u32, &'static str)], each: &mut dyn FnMut(&'static str)) -> u32 {
    for (bit, name) in table {
        if bits & bit != 0 {
            each(name);
            bits &= !bit;
        }
    }
    bits
}
