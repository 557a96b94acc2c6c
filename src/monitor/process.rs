//! Exec, fork and exit: the scheduler's tracepoints.

use super::{Form, Parts};
use crate::kernel::{Object, Probe, tracepoint};

pub(super) fn parts(_: Form) -> Parts {
    Parts::events(Object::Process, PROBES)
}

const PROBES: &[Probe] = &[
    tracepoint!(
        "process.exec",
        "process_exec",
        "programs that are started",
        "finalize_exec"
    ),
    tracepoint!(
        "process.fork",
        "process_fork",
        "processes that are created",
        "wake_up_new_task"
    ),
    tracepoint!(
        "process.exit",
        "process_exit",
        "processes that end",
        "exit_files"
    ),
];

/// What tells which process has which executable: exec and fork.
pub(crate) const TRACK: &[Probe] = PROBES.split_at(2).0;
