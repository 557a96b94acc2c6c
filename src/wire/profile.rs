//! Mirrors of what the profile monitor counts.

use super::TaskKey;

/// `STK_STACK_DEPTH`.
pub(crate) const STACK_DEPTH: usize = 127;

record!(
    /// `struct stk_stack`.
    RawStack {
        depth: u64,
        frames: [u64; STACK_DEPTH],
    }
);

record!(
    /// `struct stk_profile_key`.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    ProfileKey {
        task: TaskKey,
        user: u64,
        kernel: u64,
        comm: [u8; 16],
        epoch: u32,
        preempted: u32,
    }
);

record!(
    /// `struct stk_profile_sum`.
    ProfileSum {
        count: u64,
        time_ns: u64,
    }
);
