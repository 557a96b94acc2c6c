//! The kernel's own accounting of programs.

use std::fmt;
use std::os::fd::{FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{BPF_STATS_RUN_TIME, bpf_enable_stats};

use super::refused;
use crate::error::Result;

/// While this lives, the kernel counts the runs of all programs and their time (from 5.8 on). It reads the clock twice a
/// run, for everybody's programs.
pub(crate) struct Statistics(#[allow(dead_code, reason = "closing it ends the counting")] OwnedFd);

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Statistics")
    }
}

impl Statistics {
    pub(crate) fn enable() -> Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { bpf_enable_stats(BPF_STATS_RUN_TIME) };
        if fd < 0 {
            let error = libbpf_rs::Error::from_raw_os_error(-fd);
            return Err(refused("counting the runs of programs", &error, &[]));
        }
        // SAFETY: just made, and nobody else has it.
        Ok(Statistics(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}
