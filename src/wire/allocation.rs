//! Mirrors of what is counted of the kernel's allocations.

use super::TaskKey;

/// Values of `enum stk_allocation_source`.
pub(crate) mod allocation_source {
    pub(crate) const PAGE: u64 = 1;
    pub(crate) const SLAB: u64 = 2;
}

/// `STK_SITE_DEPTH`.
pub(crate) const SITE_DEPTH: usize = 64;

record!(
    /// `struct stk_allocation_form`.
    AllocationForm {
        page_bytes: u64,
        per_cpu_offset: u64,
        preempt_count: u64,
    }
);

record!(
    /// `struct stk_site_stack`.
    SiteStack {
        depth: u64,
        frames: [u64; SITE_DEPTH],
    }
);

record!(
    /// `struct stk_allocation_key`.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    AllocationKey {
        task: TaskKey,
        source: u64,
    }
);

record!(
    /// `struct stk_site_key`.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    SiteKey {
        of: AllocationKey,
        stack: u64,
    }
);

record!(
    /// `struct stk_allocation_sum`.
    #[derive(PartialEq, Eq, Default)]
    AllocationSum {
        allocations: u64,
        requested: u64,
        bytes: u64,
        frees: u64,
        freed_requested: u64,
        freed_bytes: u64,
    }
);

record!(
    /// `struct stk_allocation`.
    Allocation {
        site: SiteKey,
        requested: u64,
        bytes: u64,
    }
);
