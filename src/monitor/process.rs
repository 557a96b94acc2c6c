//! Exec, fork and exit: the scheduler's tracepoints; and what processes use of the CPUs.

mod summary;

use super::filter::ENV_KEY;
use super::{Filter, Form, Parts};
use crate::error::Result;
use crate::kernel::{Loader, Object, Probe, tracepoint};

pub(super) fn parts(form: Form) -> Parts {
    match form {
        Form::Events => Parts {
            fill: choose,
            ..Parts::events(Object::Process, PROBES)
        },
        Form::Summary | Form::OffCpu => summary::parts(),
    }
}

/// Tells the programs which environment variables are wanted.
fn choose(loader: &Loader, filter: &Filter) -> Result<()> {
    for name in &filter.env {
        let mut key = [0; ENV_KEY];
        key[..name.len()].copy_from_slice(name.as_bytes());
        loader.map("stk_env_keys")?.set(
            &key,
            &[1],
            format_args!("choosing the environment variable {name}"),
        )?;
    }
    Ok(())
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
