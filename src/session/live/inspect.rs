//! What a running session tells of itself, and whom it takes in or lets go.

use super::super::left_out;
use super::Live;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{LoadedProgram, Statistics};
use crate::kernel::{Statistics as Counting, skipped};
use crate::scope::{Resolved, Scope};
use crate::wire::scope_bit;

impl Live {
    pub(crate) fn statistics(&self) -> Statistics {
        let losses = self.drops.read();
        let mut kinds = self.delivery.kinds();
        left_out::enter(&losses, &mut kinds);
        Statistics {
            events: self.delivery.events,
            denials: self.delivery.denials,
            kinds,
            losses: super::loss_counts(&losses),
            skipped_programs: skipped(self.programs_in_use()).values().sum(),
        }
    }

    pub(crate) fn programs(&self) -> Result<Vec<LoadedProgram>> {
        self.programs_in_use()
            .map(|program| {
                let info = program.info()?;
                Ok(LoadedProgram {
                    name: program.name(),
                    id: info.id,
                    runs: info.run_cnt,
                    time_ns: info.run_time_ns,
                    skipped: info.recursion_misses,
                })
            })
            .collect()
    }

    pub(crate) fn count_runs(&mut self) -> Result<()> {
        if self.counting.is_none() {
            self.counting = Some(Counting::enable()?);
        }
        Ok(())
    }

    pub(crate) fn follow(&self, scope: Scope) -> Result<()> {
        if self
            .fence
            .as_ref()
            .is_some_and(|fence| fence.about.syscalls > 0 && !fence.about.traces_calls)
        {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                "rules about system calls cannot be made to hold for a process that runs already",
            )
            .with_hint("start it with the fence, or leave the rules of syscalls out"));
        }
        self.part(scope)?.seed(&self.loader, &self.asker)
    }

    pub(crate) fn unfollow(&self, scope: Scope) -> Result<()> {
        self.part(scope)?.unseed(&self.loader, &self.asker)
    }

    /// A scope of processes and trees alone, which exist.
    fn part(&self, scope: Scope) -> Result<Resolved> {
        if self.loader.scope() & scope_bit::TASKS == 0 {
            return Err(Error::new(
                ErrorKind::Usage,
                "this session does not follow single processes",
            )
            .with_hint("start it with a process, a tree, or Scope::added_later"));
        }
        if !scope.is_processes() {
            return Err(Error::new(
                ErrorKind::Usage,
                "only processes and trees can be added to a session and taken out of it",
            )
            .with_hint("cgroups, users and names are fixed when it starts"));
        }
        Resolved::new(scope, &self.asker)
    }
}
