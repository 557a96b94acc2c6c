//! The order of things: find and judge, hold, capture, SIGTERM, wait, hold, SIGKILL, wait.
//!
//! Who is held can start nobody. So whoever is found while all the others are held is the last one, and nobody is left
//! behind by signals that come one after the other.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Kill;
use super::capture::Capture;
use super::cgroup::Cgroup;
use super::member::Member;
use super::report::{Outcome, Report};
use super::targets::Targets;
use crate::error::{Error, ErrorKind, Result};

/// So long, at most, it is waited until everybody is held. A process that waits in the kernel, such as one that has
/// called vfork(2), is held only when it returns from there; whom it starts by then is found after SIGKILL.
const HOLD: Duration = Duration::from_millis(500);
/// So long, at most, a search goes on that finds somebody new each time.
const SEARCH: Duration = Duration::from_secs(10);
/// So long without any end after SIGKILL, and it is not waited any more.
const HANGS: Duration = Duration::from_secs(10);
/// So long, at most, SIGKILL is sent to those that come anew.
const ROUNDS: Duration = Duration::from_secs(30);
/// So often it is asked, at least, whether to go on.
const LOOK: Duration = Duration::from_millis(100);
/// The first of the looks, which come less and less often: most of what happens happens at once.
const FIRST_LOOK: Duration = Duration::from_millis(2);

pub(super) fn plan(kill: &Kill) -> Result<Report> {
    let targets = Targets::find(&kill.scope)?;
    let planned = targets.members.iter();
    Ok(Report::new(
        planned.map(|m| m.fate_of(Outcome::Planned)).collect(),
    ))
}

pub(super) fn run(kill: &Kill, cancelled: &dyn Fn() -> bool) -> Result<Report> {
    let mut run = Run(Targets::find(&kill.scope)?);
    let capture = kill.capture.as_deref().map(Capture::create).transpose()?;
    let mut stop = cancelled();
    if !stop {
        if run.0.can_grow() || capture.is_some() {
            run.hold()?;
        }
        if let Some(capture) = capture {
            capture.write(&run.0.members)?;
        }
        stop = cancelled();
    }
    if !stop && !kill.grace.is_zero() {
        run.terminate();
        stop = run.wait_for_ends(kill.grace, cancelled)?;
    }
    if !stop {
        run.kill()?;
    }
    run.sweep(Duration::ZERO)?;
    let fates = run.0.members.iter().map(|m| m.fate(stop)).collect();
    Ok(Report::new(fates))
}

/// Whoever is held is let go when this is dropped.
#[derive(Debug)]
struct Run(Targets);

impl Run {
    /// Holds everybody, until nobody new is found while all the others are held. False when they come faster than they
    /// can be found: each one has ended, and left another one behind, by the time that it is to be held.
    fn hold(&mut self) -> Result<bool> {
        let start = Instant::now();
        let mut look = FIRST_LOOK;
        for cgroup in &mut self.0.cgroups {
            cgroup.freeze()?;
        }
        loop {
            for member in self.0.members.iter_mut().filter(|m| m.is_left()) {
                if !member.in_cgroup || member.follows {
                    member.stop();
                }
            }
            self.sweep(Duration::ZERO)?;
            // Before the search: whoever was at rest then has started nobody during it.
            let held = self.is_held();
            if self.0.find_more()? {
                if start.elapsed() >= SEARCH {
                    return Ok(false);
                }
                look = FIRST_LOOK;
            } else if held || start.elapsed() >= HOLD {
                return Ok(true);
            } else {
                self.sweep(look)?;
                look = (look * 2).min(LOOK);
            }
        }
    }

    fn is_held(&self) -> bool {
        let members = &self.0.members;
        members
            .iter()
            .filter(|m| m.stopped && m.is_left())
            .all(Member::is_at_rest)
            && self.0.cgroups.iter().all(Cgroup::is_frozen)
    }

    /// Sends SIGTERM to all, and lets them go on, or it would not be heard.
    fn terminate(&mut self) {
        for member in self.0.members.iter_mut().filter(|m| m.is_left()) {
            member.terminate();
        }
        self.release(true);
    }

    /// Until all have ended, the time is over, or it is cancelled: then true. Who comes meanwhile is remembered and has
    /// the rest of the time: it may be what a program tidies up with.
    fn wait_for_ends(&mut self, grace: Duration, cancelled: &dyn Fn() -> bool) -> Result<bool> {
        let end = Instant::now().checked_add(grace);
        let mut look = FIRST_LOOK;
        loop {
            if self.0.can_grow() && self.0.find_more()? {
                look = FIRST_LOOK;
            }
            self.sweep(Duration::ZERO)?;
            let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()));
            if self.none_is_awaited() || left.is_zero() {
                return Ok(false);
            }
            if cancelled() {
                return Ok(true);
            }
            if self.sweep(look.min(left))? {
                look = FIRST_LOOK;
            } else {
                look = (look * 2).min(LOOK);
            }
        }
    }

    /// Sends SIGKILL to all who are left, until nobody is found any more.
    fn kill(&mut self) -> Result<()> {
        let end = Instant::now() + ROUNDS;
        for member in &mut self.0.members {
            member.forget_refusal();
        }
        loop {
            let all = !self.0.can_grow() || self.hold()?;
            self.sweep(Duration::ZERO)?;
            if all && self.none_is_awaited() {
                break;
            }
            if Instant::now() >= end {
                if all {
                    break;
                }
                return Err(Error::new(
                    ErrorKind::Io,
                    "those that were found were killed, and new ones come faster than they can be found",
                )
                .with_hint("name the cgroup that they are in (--cgroup PATH)"));
            }
            // All of them: a member does not say which one it is in.
            let mut by_cgroup = true;
            for cgroup in &self.0.cgroups {
                by_cgroup &= cgroup.kill();
            }
            for member in self.0.members.iter_mut().filter(|m| m.is_left()) {
                member.kill(by_cgroup && member.in_cgroup);
            }
            if !self.wait_for_the_killed()? || !self.0.can_grow() {
                break;
            }
        }
        let unseen = self.0.cgroups.iter().find(|c| !c.is_empty());
        match unseen.filter(|_| self.0.members.iter().all(|m| !m.is_left())) {
            Some(cgroup) => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "cgroup {} was killed, and the kernel still counts somebody in it who cannot be found",
                    cgroup.name()
                ),
            )),
            None => Ok(()),
        }
    }

    /// False when it has been waited long enough for them.
    fn wait_for_the_killed(&mut self) -> Result<bool> {
        let mut last_end = Instant::now();
        while self.0.members.iter().any(Member::is_awaited) {
            if self.sweep(LOOK)? {
                last_end = Instant::now();
            }
            if last_end.elapsed() >= HANGS {
                return Ok(false);
            }
        }
        if !self.none_is_awaited() {
            // A cgroup lets go of those that have ended a moment later; or somebody has come, whom the next round finds.
            self.sweep(LOOK)?;
        }
        Ok(true)
    }

    /// Whether there is nobody whose end could still come.
    fn none_is_awaited(&self) -> bool {
        let members = &self.0.members;
        let refused = members.iter().any(|m| m.is_left() && !m.is_awaited());
        !members.iter().any(Member::is_awaited)
            // Somebody who came after the last look.
            && (refused || self.0.cgroups.iter().all(Cgroup::is_empty))
    }

    /// Waits for an end, or a change in a cgroup, and notes who has ended; says whether anybody has.
    fn sweep(&mut self, timeout: Duration) -> Result<bool> {
        let left: Vec<usize> = (0..self.0.members.len())
            .filter(|at| self.0.members[*at].is_left())
            .collect();
        let members = left
            .iter()
            .map(|at| PollFd::from_borrowed_fd(self.0.members[*at].as_fd(), PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = members.collect();
        // Only when there is nobody else to wait for: one that was removed while its processes live on elsewhere would
        // report that for ever.
        if !self.0.members.iter().any(Member::is_awaited) {
            let cgroups = self.0.cgroups.iter();
            fds.extend(cgroups.map(|c| PollFd::from_borrowed_fd(c.as_fd(), PollFlags::PRI)));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(e) => {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "the ends of processes cannot be waited for: {}",
                        io::Error::from(e)
                    ),
                )
                .with_source(e));
            }
        }
        // Short of the cgroups, which come behind.
        let ended: Vec<usize> = left
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(at, _)| *at)
            .collect();
        for at in &ended {
            self.0.members[*at].note_end();
        }
        Ok(!ended.is_empty())
    }

    /// Lets everybody go on; `also_others`: whom somebody else had stopped or frozen.
    fn release(&mut self, also_others: bool) {
        for member in &mut self.0.members {
            member.resume(also_others);
        }
        for cgroup in &mut self.0.cgroups {
            cgroup.thaw(also_others);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.release(false);
    }
}
