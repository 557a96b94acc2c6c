//! Mirrors of the memory monitor's records.

use super::{Header, TaskKey};

/// Values of `enum stk_memory_call`.
pub(crate) mod memory_call {
    pub(crate) const MMAP: u32 = 1;
    pub(crate) const MUNMAP: u32 = 2;
    pub(crate) const BRK: u32 = 3;
    pub(crate) const BRK_SHRINK: u32 = 4;
}

/// Values of `enum stk_memory_flag`.
pub(crate) mod memory_flag {
    pub(crate) const SIZES: u32 = 1 << 0;
    pub(crate) const WANTED: u32 = 1 << 1;
    pub(crate) const FINAL: u32 = 1 << 2;
}

record!(
    /// `struct stk_memory`.
    MemoryRecord {
        hdr: Header,
        address: u64,
        bytes: u64,
        call: u32,
        errnum: u32,
        prot: u32,
        flags: u32,
    }
);

record!(
    /// `struct stk_memory_key`.
    MemoryKey {
        task: TaskKey,
        call: u32,
        errnum: u32,
    }
);

record!(
    /// `struct stk_memory_sum`.
    MemorySum {
        calls: u64,
        bytes: u64,
    }
);

record!(
    /// `struct stk_memory_state`.
    MemoryState {
        hdr: Header,
        minor: u64,
        major: u64,
        ended_minor: u64,
        ended_major: u64,
        file: u64,
        anon: u64,
        shmem: u64,
        swap: u64,
        total_vm: u64,
        peak_vm: u64,
        peak_rss: u64,
        heap_bytes: u64,
    }
);

record!(
    /// `struct stk_memory_form`.
    MemoryForm {
        page_bytes: u32,
        events: u32,
    }
);

record!(
    /// `struct stk_oom`.
    OomRecord {
        hdr: Header,
        trigger_start_ns: u64,
        file: u64,
        anon: u64,
        shmem: u64,
        swap: u64,
        total_vm: u64,
        table_bytes: u64,
        trigger_tgid: u32,
        score_adj: i32,
        trigger_comm: [u8; 16],
    }
);
