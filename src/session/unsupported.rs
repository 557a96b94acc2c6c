//! What a session is where there is no Linux kernel: a type that cannot be made.

use std::convert::Infallible;
use std::time::Duration;

use super::SessionBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Certificate, Clock, Event, FenceState, LoadedProgram, ProbeState, Statistics};
use crate::policy::RuleSet;
use crate::scope::Scope;

#[derive(Debug)]
pub(super) struct Live(Infallible);

impl Live {
    pub(super) fn start(builder: SessionBuilder) -> Result<Self> {
        let SessionBuilder {
            scope: _,
            monitors: _,
            filter: _,
            interval: _,
            policy: _,
            ring_bytes: _,
            record: _,
            sampling: _,
            process_limit: _,
            lockout_allowed: _,
            room: _,
            prove_every: _,
            guard: _,
        } = builder;
        Err(Error::new(
            ErrorKind::Unsupported,
            "stockade watches and fences on Linux only",
        ))
    }

    pub(super) fn poll(&mut self, _: Duration, _: &mut dyn FnMut(&Event)) -> Result<usize> {
        match self.0 {}
    }

    pub(super) fn clock(&self) -> &Clock {
        match self.0 {}
    }

    pub(super) fn probes(&self) -> &[ProbeState] {
        match self.0 {}
    }

    pub(super) fn fence(&self) -> Option<&FenceState> {
        match self.0 {}
    }

    pub(super) fn reload(&mut self, _: &RuleSet, _: &mut dyn FnMut(&Event)) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn pin(&mut self, _: &str, _: &mut dyn FnMut(&Event)) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn unpin(&mut self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn follow(&self, _: Scope) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn unfollow(&self, _: Scope) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn statistics(&self) -> Statistics {
        match self.0 {}
    }

    pub(super) fn programs(&self) -> Result<Vec<LoadedProgram>> {
        match self.0 {}
    }

    pub(super) fn count_runs(&mut self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn followed(&self) -> Result<usize> {
        match self.0 {}
    }

    pub(super) fn end(self, _: &mut dyn FnMut(&Event)) -> Result<Certificate> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Monitor, Session};

    #[test]
    fn every_runtime_call_answers_unsupported() {
        let session = Session::builder()
            .scope(Scope::new().host())
            .monitor(Monitor::Process)
            .start();
        assert_eq!(
            session.map(|_| ()).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let held = crate::launch::Held::spawn(std::process::Command::new("true"));
        assert_eq!(held.map(|_| ()).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(
            crate::doctor::examine().map(|_| ()).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
