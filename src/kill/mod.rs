//! The kill switch: ends processes, trees and cgroups, politely at first, and tells what became of each.
//!
//! Everything that is named is looked up, and refused where it must not be killed, before anybody is signalled. Nobody
//! is signalled by a number: each process is held by a pidfd, so that one which takes over a pid is never hit. It needs
//! no BPF, and no more rights than the signals themselves.
//!
//! ```no_run
//! use std::time::Duration;
//! use stockade::Scope;
//! use stockade::kill::Kill;
//!
//! fn main() -> stockade::Result<()> {
//!     let kill = Kill::new(Scope::new().tree(1234)).grace(Duration::from_secs(2));
//!     let report = kill.run(|| false)?;
//!     for fate in report.fates() {
//!         println!("{fate}");
//!     }
//!     println!("all gone: {}", report.all_gone());
//!     Ok(())
//! }
//! ```

#[cfg(stockade_kernel)]
mod capture;
#[cfg(stockade_kernel)]
mod cgroup;
#[cfg(stockade_kernel)]
mod live;
#[cfg(stockade_kernel)]
mod member;
#[cfg(stockade_kernel)]
mod protected;
mod report;
#[cfg(stockade_kernel)]
mod sockets;
#[cfg(stockade_kernel)]
mod targets;
#[cfg(stockade_kernel)]
mod tree;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{Fate, Means, Outcome, Report};

use crate::error::{Error, ErrorKind, Result};
use crate::scope::Scope;

/// Whom to end, and how.
#[derive(Debug, Clone)]
#[must_use]
pub struct Kill {
    scope: Scope,
    grace: Duration,
    capture: Option<PathBuf>,
}

impl Kill {
    /// How long a process has between SIGTERM and SIGKILL where nothing else is said.
    pub const GRACE: Duration = Duration::from_secs(5);

    /// Ends these processes, trees and cgroups. A scope that says anything else is refused by
    /// [`plan`](Kill::plan) and [`run`](Kill::run).
    pub fn new(scope: Scope) -> Self {
        Kill {
            scope,
            grace: Kill::GRACE,
            capture: None,
        }
    }

    /// How long they have between SIGTERM and SIGKILL; with zero there is no SIGTERM.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Writes what each process was, before it is signalled, to this file, which must not exist yet: one JSON object a
    /// line (docs/KILL.md), readable for its owner alone.
    pub fn capture(mut self, path: impl Into<PathBuf>) -> Self {
        self.capture = Some(path.into());
        self
    }

    /// Who would be killed as of now; signals nobody.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): nobody is named, or somebody who must not be killed: this process, one that it
    /// was started from, process 1, a kernel thread, the root cgroup; or the scope holds more than processes, trees
    /// and cgroups. [`Scope`](ErrorKind::Scope): no such process or cgroup. [`Io`](ErrorKind::Io): /proc cannot be
    /// read, or too few files can be open. [`Unsupported`](ErrorKind::Unsupported): not Linux.
    pub fn plan(&self) -> Result<Report> {
        self.check()?;
        #[cfg(stockade_kernel)]
        return live::plan(self);
        #[cfg(not(stockade_kernel))]
        Err(unsupported())
    }

    /// Kills them, and returns when they are gone or cannot be made to go. When `cancelled`, which is asked several
    /// times a second while SIGKILL has not been sent, says true, those that are left are let go instead.
    ///
    /// # Errors
    ///
    /// As [`plan`](Kill::plan); [`Io`](ErrorKind::Io) also when the capture cannot be written. With any of them nobody
    /// was killed, unless the message says otherwise. That somebody is left is no error: the report says so.
    pub fn run(&self, cancelled: impl Fn() -> bool) -> Result<Report> {
        self.check()?;
        #[cfg(stockade_kernel)]
        return live::run(self, &cancelled);
        #[cfg(not(stockade_kernel))]
        {
            let _ = cancelled;
            Err(unsupported())
        }
    }

    /// What can be said without asking the system.
    fn check(&self) -> Result<()> {
        let scope = &self.scope;
        let usage = |message: &str| Err(Error::new(ErrorKind::Usage, message));
        if scope.host || scope.grows || !scope.uids.is_empty() || !scope.comms.is_empty() {
            return usage("only processes, trees and cgroups can be killed");
        }
        if scope.is_empty() {
            return usage("nobody is named").map_err(|e| {
                e.with_hint(
                    "name a process (--pid PID), a process with all it started (--tree PID) or a cgroup (--cgroup PATH)",
                )
            });
        }
        Ok(())
    }
}

#[cfg(not(stockade_kernel))]
fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "stockade kills on Linux only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_is_more_than_processes_trees_and_cgroups_is_refused() {
        for scope in [
            Scope::new(),
            Scope::new().host(),
            Scope::new().pid(4711).uid(0),
            Scope::new().tree(4711).comm("make"),
            Scope::new().added_later(),
        ] {
            let kill = Kill::new(scope.clone());
            let refused = kill.plan().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Usage, "{scope:?}");
            let refused = kill.run(|| false).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Usage, "{scope:?}");
        }
    }

    #[cfg(not(stockade_kernel))]
    #[test]
    fn elsewhere_it_answers_unsupported() {
        let kill = Kill::new(Scope::new().pid(4711));
        assert_eq!(kill.plan().unwrap_err().kind(), ErrorKind::Unsupported);
        let ran = kill.run(|| false);
        assert_eq!(ran.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
