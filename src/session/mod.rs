//! One run of stockade: a scope, the monitors that watch it, the fence around it, and the end record.
//!
//! A session is up when [`SessionBuilder::start`] returns: what was asked for is attached, and a fence has refused the
//! canary. It is down when [`Session::end`] returns or the value is dropped.

#[cfg(stockade_kernel)]
mod left_out;
#[cfg(stockade_kernel)]
mod live;
mod sampling;
#[cfg(stockade_kernel)]
mod summaries;
#[cfg(not(stockade_kernel))]
mod unsupported;
#[cfg(stockade_kernel)]
pub(crate) mod variants;

use std::path::PathBuf;
use std::time::Duration;

pub use sampling::Sampling;

#[cfg(stockade_kernel)]
use live::Live;
#[cfg(not(stockade_kernel))]
use unsupported::Live;

use crate::error::Result;
use crate::event::{Certificate, Clock, Event, FenceState, LoadedProgram, ProbeState, Statistics};
use crate::launch::Held;
use crate::monitor::{Filter, Watch};
use crate::policy::RuleSet;
use crate::scope::Scope;

/// What a session is to do; made by [`Session::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SessionBuilder {
    scope: Scope,
    monitors: Vec<Watch>,
    filter: Filter,
    interval: Duration,
    policy: Option<RuleSet>,
    ring_bytes: u32,
    record: Option<PathBuf>,
    sampling: Sampling,
    process_limit: u32,
    lockout_allowed: bool,
    /// Of each sort, how much policies may name that take the place of this one.
    room: Option<u32>,
    /// How often the fence is proved anew; zero for never.
    prove_every: Duration,
    /// The fence keeps itself from who is held.
    guard: bool,
    /// What a command that is held waits for, and the scope that is this command.
    #[cfg(stockade_kernel)]
    command: Option<(crate::launch::Confinement, Scope)>,
}

/// Monitors and, where asked for, a fence that are attached to this kernel.
#[derive(Debug)]
pub struct Session(Live);

impl SessionBuilder {
    /// Who is watched and fenced.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The scope is this command, with all that it starts; rules about system calls need it, but for those that say what is done
    /// [otherwise](crate::policy::SyscallRule::otherwise). What refuses those goes with
    /// the command when it is [released](Held::release), so that is to be done after the start.
    pub fn command(mut self, held: &Held) -> Self {
        self.scope = Scope::new().tree(held.pid());
        #[cfg(stockade_kernel)]
        {
            self.command = Some((held.confinement(), self.scope.clone()));
        }
        self
    }

    /// Adds a monitor, in its usual form or as [`Monitor::form`](crate::Monitor::form) makes it. Of a monitor that is
    /// added twice, the last form counts.
    pub fn monitor(mut self, watch: impl Into<Watch>) -> Self {
        let watch = watch.into();
        match self
            .monitors
            .iter_mut()
            .find(|w| w.monitor() == watch.monitor())
        {
            Some(there) => *there = watch,
            None => self.monitors.push(watch),
        }
        self
    }

    /// What is wanted of what the monitors could report; everything where it is not set.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// How often summaries are told; every 10 seconds where it is not set, and at the end in any case.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The policy to enforce on the scope.
    pub fn policy(mut self, policy: RuleSet) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Size of the ring for observations in bytes: a power of two, at least a page; 8 MiB where it is not set. Denials
    /// have a ring of their own.
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Writes what the session is given to this file, for [`Recording`](crate::Recording); one that is there is replaced.
    pub fn record(mut self, path: impl Into<PathBuf>) -> Self {
        self.record = Some(path.into());
        self
    }

    /// Whom to listen to when not everybody can be heard; [`Sampling::Adaptive`] where it is not set.
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Arms the policy even where it refuses init, or the processes that this one hangs below, to run or to load what they
    /// run: by default a fence that holds them and would cut them off is not armed.
    pub fn allow_lockout(mut self) -> Self {
        self.lockout_allowed = true;
        self
    }

    /// Room for policies that are put in force later, by [`Session::reload`]: so many files and directories, names, rules,
    /// ranges of addresses and of ports. Where it is not set, twice what the first policy has, and at least 4,096 (1,024
    /// rules, and ranges of ports). What there is room for and not used costs the kernel some 500 bytes each. Where a rule is
    /// about files that were written, there is room to note as many of them; where it is not set, for 262,144.
    pub fn room(mut self, entries: u32) -> Self {
        self.room = Some(entries);
        self
    }

    /// How often the fence is proved anew, each minute where it is not set; zero for never. One that no longer refuses the
    /// canary makes [`Session::poll`] fail.
    pub fn prove_every(mut self, interval: Duration) -> Self {
        self.prove_every = interval;
        self
    }

    /// The fence keeps itself from those whom it holds, root among them: they are refused to write its maps, to take away
    /// the names that it is pinned by, to unmount the file system where those are, and to signal or trace this process. What
    /// they try is told as a denial by the rule `guard`, also in audit mode, where it is refused as well.
    pub fn guard(mut self) -> Self {
        self.guard = true;
        self
    }

    /// How many events a process may send in a second, so that one cannot drown the others; 0, no limit, where it is not
    /// set. Execs, forks, exits, denials and kills for want of memory do not count. What is above is counted by process
    /// and told in the stream ([`Suppressed`](crate::event::Suppressed)).
    pub fn process_limit(mut self, events: u32) -> Self {
        self.process_limit = events;
        self
    }

    /// Attaches everything. When this fails, nothing stays behind.
    ///
    /// # Errors
    ///
    /// [`Scope`](crate::ErrorKind::Scope): a process or cgroup does not exist. [`Policy`](crate::ErrorKind::Policy): a
    /// path of a rule cannot be opened, or a rule would lock the caller's own session out.
    /// [`Permission`](crate::ErrorKind::Permission): rights are missing.
    /// [`Load`](crate::ErrorKind::Load): a monitor cannot be attached in any way.
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced): the fence does not refuse the canary.
    /// [`Io`](crate::ErrorKind::Io): the file of the recording cannot be made.
    /// [`Unsupported`](crate::ErrorKind::Unsupported): not Linux, or a kernel without type information.
    pub fn start(self) -> Result<Session> {
        Live::start(self).map(Session)
    }
}

impl Session {
    /// A session that does nothing yet.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            scope: Scope::new(),
            monitors: Vec::new(),
            filter: Filter::new(),
            interval: Duration::from_secs(10),
            policy: None,
            ring_bytes: 8 << 20,
            record: None,
            sampling: Sampling::default(),
            process_limit: 0,
            lockout_allowed: false,
            room: None,
            prove_every: Duration::from_secs(60),
            guard: false,
            #[cfg(stockade_kernel)]
            command: None,
        }
    }

    /// Waits up to `at_most`, and never longer than 50 ms, then hands what has arrived to `on` and returns how many
    /// events that were. To be called in a loop: a ring that nobody reads fills up, which is counted.
    ///
    /// How long it waits follows the load: 1 ms at the start of a session, 10 ms while events come, 50 ms while none do.
    /// A denial ends the wait at once, and so does a ring that is filling up.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) and [`Load`](crate::ErrorKind::Load) when the rings cannot be read any more.
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced): the fence no longer refuses the canary.
    pub fn poll(&mut self, at_most: Duration, on: &mut dyn FnMut(&Event)) -> Result<usize> {
        self.0.poll(at_most, on)
    }

    /// Turns the events' times into wall-clock time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// Every probe, and what became of it.
    #[must_use]
    pub fn probes(&self) -> &[ProbeState] {
        self.0.probes()
    }

    /// The fence, as it was armed and proved.
    #[must_use]
    pub fn fence(&self) -> Option<&FenceState> {
        self.0.fence()
    }

    /// Takes in processes and trees that run, as if they had been named at the start. In the caller's pid namespace.
    ///
    /// # Errors
    ///
    /// [`Scope`](crate::ErrorKind::Scope): one does not run. [`Usage`](crate::ErrorKind::Usage): the scope names more
    /// than processes and trees, or this session follows none: it was started without a process, a tree or
    /// [`Scope::added_later`].
    pub fn follow(&mut self, scope: Scope) -> Result<()> {
        self.0.follow(scope)
    }

    /// Lets go of processes, and of trees with all that hangs below them now.
    ///
    /// # Errors
    ///
    /// As [`follow`](Session::follow).
    pub fn unfollow(&mut self, scope: Scope) -> Result<()> {
        self.0.unfollow(scope)
    }

    /// What was delivered so far, and what not.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.0.statistics()
    }

    /// The programs that are attached.
    ///
    /// # Errors
    ///
    /// [`Load`](crate::ErrorKind::Load): the kernel does not tell.
    pub fn programs(&self) -> Result<Vec<LoadedProgram>> {
        self.0.programs()
    }

    /// Has the kernel count the runs of programs and their time from now on, until the session ends. It reads the clock
    /// twice for each run, of everybody's programs.
    ///
    /// # Errors
    ///
    /// [`Load`](crate::ErrorKind::Load) and [`Permission`](crate::ErrorKind::Permission): the kernel refuses.
    pub fn count_runs(&mut self) -> Result<()> {
        self.0.count_runs()
    }

    /// Puts another policy in the place of the one that is in force. Nothing is detached, and there is no moment without
    /// one: it is filled into tables of its own, one write puts it in force, and each decision is made by the one or by the
    /// other. It is proved like the first one. When this returns, nothing is judged by the former one any more. Hands what
    /// was still in the rings to `on`, and a [`Reload`](crate::event::Kind::Reload) event.
    ///
    /// An operation for which the kernel asks several times (an open that creates, a rename that exchanges) can be asked
    /// about by the one and by the other.
    ///
    /// # Errors
    ///
    /// Whatever it is, the policy that was in force is still so. [`Policy`](crate::ErrorKind::Policy): as
    /// [`SessionBuilder::start`], or there is not enough [room](SessionBuilder::room).
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced): the new one does not refuse the canary, needs a hook that cannot be
    /// attached, or has rules about system calls that need a [command](SessionBuilder::command); or one of both has rules
    /// about system calls, and the session is one of a command. [`Usage`](crate::ErrorKind::Usage): there is no fence.
    /// [`Load`](crate::ErrorKind::Load): the kernel refuses to take it.
    pub fn reload(&mut self, policy: &RuleSet, on: &mut dyn FnMut(&Event)) -> Result<()> {
        self.0.reload(policy, on)
    }

    /// Has the fence outlive this session and this program, under a name: from now on it stands until somebody takes it down
    /// ([`armed::unpin`](crate::armed::unpin)), however the session ends. A fence that was left under the same name is
    /// taken over: the processes that it follows, and the denials that nobody has read, which `on` gets; then this one
    /// takes its place.
    ///
    /// While nobody looks after it, a fence refuses as before, takes no other policy, and keeps some 900 denials for who
    /// takes it over; more are counted. A cgroup that is removed and made anew is not the one that it holds.
    ///
    /// # Errors
    ///
    /// With all of them the session goes on as it was, and so does a fence that was left.
    /// [`Usage`](crate::ErrorKind::Usage): the session has no fence, or the name cannot be one.
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced): there is no bpf file system at `/sys/fs/bpf`; the one that has the
    /// name has a monitor that runs; or a file of a rule can only be recognised while this program has it open.
    pub fn pin(&mut self, name: &str, on: &mut dyn FnMut(&Event)) -> Result<()> {
        self.0.pin(name, on)
    }

    /// Has the fence end with this session after all.
    ///
    /// # Errors
    ///
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced): its names cannot be taken away.
    pub fn unpin(&mut self) -> Result<()> {
        self.0.unpin()
    }

    /// How many followed processes run: members of trees and named pids. 0 for a scope of cgroups, users or the host.
    ///
    /// # Errors
    ///
    /// [`Load`](crate::ErrorKind::Load) when the set cannot be read.
    pub fn followed(&self) -> Result<usize> {
        self.0.followed()
    }

    /// Detaches everything, hands over what was still in the rings and says whether the picture is complete.
    ///
    /// # Errors
    ///
    /// As [`Session::poll`], and [`Io`](crate::ErrorKind::Io) when the recording could not be written to its end.
    /// Everything is detached all the same.
    pub fn end(self, on: &mut dyn FnMut(&Event)) -> Result<Certificate> {
        self.0.end(on)
    }
}
