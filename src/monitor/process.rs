//! Exec, fork and exit: the scheduler's tracepoints.

use super::{Form, Parts};
use crate::kernel::{Object, Probe, tracepoint};

pub(super) fn parts(_: Form) -> Parts {
    Parts::events(Object::Process, PROBES)
}

const CREDENTIALS: Probe = tracepoint!(
    "process.credentials",
    "process_credentials",
    "users and capabilities that an exec brings",
    "security_bprm_committing_creds"
);
const EXEC: Probe = tracepoint!(
    "process.exec",
    "process_exec",
    "programs that are started",
    "finalize_exec"
);
const FORK: Probe = tracepoint!(
    "process.fork",
    "process_fork",
    "processes that are created",
    "wake_up_new_task"
);
const EXIT: Probe = tracepoint!(
    "process.exit",
    "process_exit",
    "processes that end",
    "exit_files"
);

const PROBES: &[Probe] = &[CREDENTIALS, EXEC, FORK, EXIT];

/// What tells which process has which executable: exec and fork.
pub(crate) const TRACK: &[Probe] = &[EXEC, FORK];
