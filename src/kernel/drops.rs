//! The kernel half's counters of lost records and of what it keeps, read without a system call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{MapCore as _, MapHandle};
use rustix::mm::{MapFlags, ProtFlags};

use super::mapping::Mapping;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{kind, loss};

/// Lost records by kind, cause and CPU. Only what is not zero.
pub(crate) type Losses = BTreeMap<(u32, u32, u32), u64>;

/// `struct stk_cpu_counts`: of one CPU.
#[repr(C)]
struct Row {
    /// By kind and cause.
    lost: [AtomicU64; (kind::MAX * loss::MAX) as usize],
    /// Entries in the maps of summaries.
    made: AtomicU64,
}

/// The map `stk_counts`, a row per possible CPU, in our memory.
pub(crate) struct Drops {
    rows: Mapping,
    cpus: u32,
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drops").field("cpus", &self.cpus).finish()
    }
}

impl Drops {
    pub(super) fn new(map: &MapHandle) -> Result<Self> {
        let cpus = map.max_entries();
        if map.value_size() as usize != size_of::<Row>() {
            return Err(Error::new(
                ErrorKind::Load,
                "the rows of stk_counts have another size than expected; this is a defect",
            ));
        }
        let bytes = cpus as usize * size_of::<Row>();
        let rows = Mapping::new(map, bytes, ProtFlags::READ, MapFlags::SHARED).map_err(|e| {
            Error::new(ErrorKind::Load, format!("mapping the loss counters: {e}")).with_source(e)
        })?;
        Ok(Drops { rows, cpus })
    }

    fn rows(&self) -> &[Row] {
        let rows = self.rows.start().cast::<Row>();
        // SAFETY: `new` has mapped `cpus` rows, which stay as long as `self`; the kernel half writes them atomically.
        unsafe { std::slice::from_raw_parts(rows.as_ptr(), self.cpus as usize) }
    }

    /// How many entries the maps of summaries have got so far.
    pub(crate) fn made(&self) -> u64 {
        self.rows()
            .iter()
            .map(|row| row.made.load(Ordering::Relaxed))
            .sum()
    }

    /// What was lost so far.
    pub(crate) fn read(&self) -> Losses {
        let mut out = Losses::new();
        for (cpu, row) in (0u32..).zip(self.rows()) {
            for (index, count) in (0u32..).zip(&row.lost) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    out.insert((index / loss::MAX, index % loss::MAX, cpu), count);
                }
            }
        }
        out
    }
}
