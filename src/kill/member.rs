//! One process that is held by its descriptors: whatever becomes of its pid, it stays the one that is meant.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::report::{Fate, Means, Outcome};
use crate::enrich::Stat;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: u32,
    /// As it was when it was found.
    pub(super) stat: Stat,
    /// Its directory in /proc, in which nothing can be read once it is reaped.
    dir: OwnedFd,
    pidfd: OwnedFd,
    /// What it starts is meant as well.
    pub(super) follows: bool,
    /// Everybody in the session of its pid was started by it or on its behalf.
    pub(super) leads: bool,
    /// It is held by the freezing of its cgroup, and needs no SIGSTOP.
    pub(super) in_cgroup: bool,
    /// It had been stopped by somebody else.
    was_stopped: bool,
    pub(super) stopped: bool,
    /// The last signal that could end it was refused.
    refused: Option<Errno>,
    terminated: bool,
    killed: Option<Means>,
    /// When it was first sent a signal that could end it.
    first: Option<Instant>,
    ended: Option<Instant>,
}

impl Member {
    /// The process that has this pid. `None` when there is none, when it has ended, or when it is another one's thread.
    pub(super) fn open(pid: u32) -> Result<Option<Self>> {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let dir = rustix::fs::open(
            format!("/proc/{pid}"),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let Some(dir) = there(dir, pid)? else {
            return Ok(None);
        };
        let Some(pidfd) = there(pidfd_open(number, PidfdFlags::empty()), pid)? else {
            return Ok(None);
        };
        Ok(Member::of(pid, dir, pidfd).filter(|member| !member.has_ended()))
    }

    /// The directory was opened first. That something can be read in it now means that the process had this pid all the
    /// time, so the pidfd is of the same one.
    fn of(pid: u32, dir: OwnedFd, pidfd: OwnedFd) -> Option<Self> {
        let stat = stat_in(&dir)?;
        Some(Member {
            pid,
            leads: false,
            follows: false,
            in_cgroup: false,
            was_stopped: matches!(stat.state, b'T'),
            stopped: false,
            stat,
            dir,
            pidfd,
            refused: None,
            terminated: false,
            killed: None,
            first: None,
            ended: None,
        })
    }

    /// What is of this process, and of no other one, in /proc.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }

    /// As it is now; `None` once it is reaped. As long as there is something, nobody else can have its pid.
    pub(super) fn now(&self) -> Option<Stat> {
        stat_in(&self.dir)
    }

    /// Whether all its threads have ended, reaped or not. As long as not, nobody else can have its pid.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // With a fault it is asked again by whoever waits for it.
        self.ended.is_some() || matches!(poll(&mut fds, Some(&at_once)), Ok(n) if n > 0)
    }

    /// Whether none of its threads runs or will without somebody else's doing.
    pub(super) fn is_at_rest(&self) -> bool {
        let Ok(threads) = fs::read_dir(self.path("task")) else {
            return true;
        };
        threads.flatten().all(|thread| {
            let line = fs::read(thread.path().join("stat")).ok();
            line.and_then(|line| Stat::parse(&line))
                .is_none_or(|stat| matches!(stat.state, b'T' | b't' | b'Z' | b'X' | b'x'))
        })
    }

    /// Keeps it where it is.
    pub(super) fn stop(&mut self) {
        // Refused, it is not held; the signals that count will be refused as well, and say so.
        if !self.stopped && pidfd_send_signal(&self.pidfd, Signal::STOP).is_ok() {
            self.stopped = true;
        }
    }

    /// Lets it go on; `also_others`: whoever stopped it.
    pub(super) fn resume(&mut self, also_others: bool) {
        if (self.stopped && !self.was_stopped) || (also_others && self.ended.is_none()) {
            // Refused only where SIGSTOP was, or it has ended.
            let _ = pidfd_send_signal(&self.pidfd, Signal::CONT);
        }
        self.stopped = false;
    }

    pub(super) fn terminate(&mut self) {
        if self.send(Signal::TERM) {
            self.terminated = true;
            self.first.get_or_insert_with(Instant::now);
        }
    }

    /// `by_cgroup`: its cgroup has been killed. It can have left that a moment before, so it is sent the signal in any
    /// case.
    pub(super) fn kill(&mut self, by_cgroup: bool) {
        let sent = self.send(Signal::KILL);
        let means = match by_cgroup {
            true => Means::CgroupKill,
            false if sent => Means::Signal,
            false => return,
        };
        self.refused = None;
        self.killed.get_or_insert(means);
        self.first.get_or_insert_with(Instant::now);
    }

    /// What was refused counts no more: another signal is to come.
    pub(super) fn forget_refusal(&mut self) {
        self.refused = None;
    }

    fn send(&mut self, signal: Signal) -> bool {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => true,
            // It has ended; whoever waits for it will see.
            Err(Errno::SRCH) => false,
            Err(e) => {
                self.refused = Some(e);
                false
            }
        }
    }

    /// It has been seen to have ended.
    pub(super) fn note_end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
    }

    /// Whether it is not known to have ended.
    pub(super) fn is_left(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether waiting for its end makes sense.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_left() && self.refused.is_none()
    }

    pub(super) fn fate(&self, cancelled: bool) -> Fate {
        let outcome = match (self.ended, self.killed, self.refused) {
            (Some(_), Some(means), _) => Outcome::Killed(means),
            (Some(_), None, _) if self.terminated => Outcome::Exited,
            (Some(_), None, _) => Outcome::Gone,
            (None, _, Some(e)) => Outcome::Refused(u16::try_from(e.raw_os_error()).unwrap_or(0)),
            (None, _, None) if cancelled => Outcome::Spared,
            (None, _, None) => Outcome::StillThere,
        };
        self.fate_of(outcome)
    }

    pub(super) fn fate_of(&self, outcome: Outcome) -> Fate {
        let took = self.first.zip(self.ended);
        Fate {
            pid: self.pid,
            name: self.stat.name.clone(),
            outcome,
            took: took.map(|(first, ended)| ended.saturating_duration_since(first)),
        }
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn stat_in(dir: &OwnedFd) -> Option<Stat> {
    let line = fs::read(format!("/proc/self/fd/{}/stat", dir.as_raw_fd())).ok()?;
    Stat::parse(&line)
}

/// What is there of a process; `None` when there is no such process.
fn there<T>(opened: rustix::io::Result<T>, pid: u32) -> Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        // Of pidfd_open, EINVAL and ENOENT mean a thread that is not its process' first.
        Err(Errno::NOENT | Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(e @ (Errno::MFILE | Errno::NFILE)) => Err(Error::new(
            ErrorKind::Io,
            format!("process {pid} cannot be held: {}", io::Error::from(e)),
        )
        .with_hint("each process takes two open files: raise the limit (ulimit -n)")
        .with_source(e)),
        Err(e) => Err(Error::new(
            ErrorKind::Io,
            format!("process {pid} cannot be held: {}", io::Error::from(e)),
        )
        .with_source(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn descriptors(pid: u32) -> (OwnedFd, OwnedFd) {
        let dir = rustix::fs::open(
            format!("/proc/{pid}"),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        (
            dir.unwrap(),
            pidfd_open(number, PidfdFlags::empty()).unwrap(),
        )
    }

    /// The pid was taken over between the two looks: the directory is of the one that is gone, the pidfd of the other.
    #[test]
    fn a_process_that_took_over_the_pid_is_not_held() {
        let (mut meant, mut other) = (sleeper(), sleeper());
        let (dir, _) = descriptors(meant.id());
        let (_, pidfd) = descriptors(other.id());
        let again = dir.try_clone().unwrap();
        let held = |pidfd: &OwnedFd| {
            Member::of(
                meant.id(),
                again.try_clone().unwrap(),
                pidfd.try_clone().unwrap(),
            )
        };
        assert!(held(&pidfd).is_some(), "as long as the first one is there");
        meant.kill().unwrap();
        meant.wait().unwrap();
        assert!(Member::of(other.id(), dir, pidfd).is_none());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn one_that_has_ended_is_not_held_reaped_or_not() {
        let mut child = sleeper();
        let pid = child.id();
        let held = Member::open(pid).unwrap().unwrap();
        assert!(!held.has_ended() && held.now().is_some());
        child.kill().unwrap();
        let mut fds = [PollFd::new(&held, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert!(held.has_ended() && held.now().is_some(), "not yet reaped");
        assert!(Member::open(pid).unwrap().is_none());
        child.wait().unwrap();
        assert!(held.has_ended() && held.now().is_none(), "reaped");
    }

    #[test]
    fn no_number_is_a_process_that_is_none() {
        for pid in [0, u32::MAX, 1 << 30] {
            assert!(Member::open(pid).unwrap().is_none(), "{pid}");
        }
    }

    #[test]
    fn a_thread_is_no_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get())
                .unwrap();
            let _ = ended.recv();
        });
        let tid = u32::try_from(told.recv().unwrap()).unwrap();
        assert!(Member::open(tid).unwrap().is_none());
        drop(end);
        thread.join().unwrap();
    }
}
