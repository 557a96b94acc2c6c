//! Exec, fork and exit: the scheduler's tracepoints.

use crate::kernel::{Probe, tracepoint};

pub(super) const PROBES: &[Probe] = &[
    tracepoint!(
        "process.exec",
        "process_exec__tp_btf",
        "process_exec__raw_tp",
        "programs that are started"
    ),
    tracepoint!(
        "process.fork",
        "process_fork__tp_btf",
        "process_fork__raw_tp",
        "processes that are created"
    ),
    tracepoint!(
        "process.exit",
        "process_exit__tp_btf",
        "process_exit__raw_tp",
        "processes that end"
    ),
];
