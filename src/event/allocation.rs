//! What the kernel allocates for processes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Frame;
use super::profile::Calls;

/// Which allocator of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AllocationSource {
    /// Whole pages. The slab allocator takes its own from there.
    Page,
    /// Objects: `kmalloc`, and caches of objects of one size.
    Slab,
}

impl AllocationSource {
    /// Its name, as in `stockade.outstanding.source`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AllocationSource::Page => "page",
            AllocationSource::Slab => "slab",
        }
    }
}

/// What one allocator gave to a process in a while, and what of it came back then, whoever gave it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Allocated {
    /// Allocations, however large.
    pub allocations: u64,
    /// What was asked for.
    pub requested_bytes: u64,
    /// What was taken for it: whole pages, or the allocator's next larger size.
    pub bytes: u64,
    /// Allocations of the process that were freed. They may be older.
    pub frees: u64,
    /// What had been asked for by them.
    pub freed_requested_bytes: u64,
    /// What had been taken for them.
    pub freed_bytes: u64,
}

/// What the kernel allocated for one process in a while.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryAllocations {
    /// By the page allocator.
    pub pages: Allocated,
    /// By the slab allocator.
    pub slab: Allocated,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

/// What one process has allocated at one place in the kernel, since the session began, and what is not freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryOutstanding {
    /// Which allocator.
    pub source: AllocationSource,
    /// Allocations that are not freed. 0: what was told before is.
    pub allocations: u64,
    /// What is taken for them.
    pub bytes: u64,
    /// What was asked for.
    pub requested_bytes: u64,
    /// How much more that is than at the last look, in bytes; below zero when it is less.
    pub growth_bytes: i64,
    /// The functions that led there, the innermost first, which is the allocator's. Empty when they are not known.
    pub kernel: Vec<Frame>,
    /// Outer functions are missing: 64 are kept, or as many as `kernel.perf_event_max_stack` says.
    pub truncated: bool,
    /// How long it has been since the last look, in nanoseconds.
    pub window_ns: u64,
}

impl fmt::Display for MemoryAllocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pages, slab) = (&self.pages, &self.slab);
        write!(
            f,
            "pages={} (+{}) freed={} (-{}) slab={} (+{} for {}) freed={} (-{} for {}) in={:.1}s",
            pages.allocations,
            pages.bytes,
            pages.frees,
            pages.freed_bytes,
            slab.allocations,
            slab.bytes,
            slab.requested_bytes,
            slab.frees,
            slab.freed_bytes,
            slab.freed_requested_bytes,
            self.window_ns as f64 / 1e9
        )
    }
}

impl fmt::Display for MemoryOutstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes={} ({:+}) allocations={} requested={}",
            self.source.name(),
            self.bytes,
            self.growth_bytes,
            self.allocations,
            self.requested_bytes
        )?;
        if self.kernel.is_empty() {
            f.write_str(" kernel=unknown")?;
        } else {
            write!(f, " kernel={}", Calls(&self.kernel, self.truncated))?;
        }
        write!(f, " in={:.1}s", self.window_ns as f64 / 1e9)
    }
}
