//! Mirrors of what is counted of processes.

use super::{Header, TaskKey};

/// Values of `enum stk_cpu_flag`.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
pub(crate) mod cpu_flag {
    pub(crate) const WANTED: u32 = 1 << 0;
    pub(crate) const ENDED: u32 = 1 << 1;
    pub(crate) const DELAYS: u32 = 1 << 2;
}

record!(
    /// `struct stk_cpu_times`.
    #[derive(Default, PartialEq)]
    CpuTimes {
        utime_ns: u64,
        stime_ns: u64,
        rtime_ns: u64,
        run_delay_ns: u64,
        voluntary: u64,
        involuntary: u64,
    }
);

record!(
    /// `struct stk_cpu_thread`.
    CpuThread {
        hdr: Header,
        times: CpuTimes,
    }
);

record!(
    /// `struct stk_cpu_process`.
    CpuProcess {
        hdr: Header,
        freed: u64,
        ending: u64,
        times: CpuTimes,
        code: u32,
        wanted: u32,
        ended: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_cpu_ending`.
    CpuEnding {
        task: TaskKey,
        times: CpuTimes,
        tid: u32,
        early: u32,
        freed: u32,
        pad: u32,
    }
);
