//! Keeps the calling thread on its CPU for the length of a few system calls on maps.
//!
//! Such a call raises the kernel's per-CPU `bpf_prog_active`, and while that is raised no kprobe and no classic
//! tracepoint runs a program on that CPU (kernel/bpf/syscall.c, `bpf_disable_instrumentation`; kernel/trace/bpf_trace.c,
//! `trace_call_bpf`). It does not keep the thread from being preempted: on a preemptible kernel whoever runs there
//! meanwhile goes unseen, and the child of a fork escapes the scope. The kernel counts it, and we report it; with a
//! real-time priority it does not happen.

use std::io;

/// While this lives, ordinary tasks do not preempt the thread that made it. To be held for microseconds.
#[derive(Debug)]
pub(super) struct Steady {
    /// What the thread had before.
    policy: i32,
}

impl Steady {
    /// `None` where the thread may not (no `CAP_SYS_NICE`, no real-time budget in its cgroup) or need not (it has a
    /// real-time priority): then what the kernel skips is counted as ever.
    pub(super) fn hold() -> Option<Self> {
        // SAFETY: no pointers; 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
        if !ordinary.contains(&policy) {
            return None;
        }
        set(libc::SCHED_FIFO, 1).ok().map(|()| Steady { policy })
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        // The nice value was kept by the kernel. It cannot fail: going back needs no rights.
        let _ = set(self.policy, 0);
    }
}

fn set(policy: i32, priority: i32) -> io::Result<()> {
    // SAFETY: plain data, for which all zeroes are a valid value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority;
    // SAFETY: `param` lives through the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: no pointers; 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn the_thread_is_as_it_was_afterwards() {
        let before = policy();
        let held = Steady::hold();
        // Only a thread with the right to it gets the priority, and nobody holds it twice.
        assert_eq!(
            held.is_some(),
            policy() == libc::SCHED_FIFO && before != libc::SCHED_FIFO
        );
        if held.is_some() {
            assert!(Steady::hold().is_none());
        }
        drop(held);
        assert_eq!(policy(), before);
    }
}
