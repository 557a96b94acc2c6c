//! Starting a command that waits: it exists and can be put in scope, but has not run a single instruction of its own.

#[cfg(stockade_kernel)]
mod confinement;

use std::io;
#[cfg(stockade_kernel)]
use std::os::fd::{AsRawFd as _, OwnedFd};
#[cfg(stockade_kernel)]
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
#[cfg(stockade_kernel)]
use std::thread::JoinHandle;
#[cfg(stockade_kernel)]
use std::time::{Duration, Instant};

#[cfg(stockade_kernel)]
pub(crate) use confinement::Confinement;

#[cfg(not(stockade_kernel))]
use crate::error::ErrorKind;
use crate::error::{Error, Result};

/// A process that is held between fork and exec.
///
/// Dropping it ends the process: a command whose fence could not be armed never starts.
#[derive(Debug)]
pub struct Held {
    #[cfg(stockade_kernel)]
    inner: Inner,
    #[cfg(not(stockade_kernel))]
    never: std::convert::Infallible,
}

#[cfg(stockade_kernel)]
#[derive(Debug)]
struct Inner {
    pid: u32,
    /// Closing it without writing makes the process give up.
    gate: Option<OwnedFd>,
    spawner: Option<JoinHandle<io::Result<Child>>>,
    confinement: Confinement,
    /// Of the spawner.
    #[cfg(test)]
    thread: Option<rustix::thread::Pid>,
}

impl Held {
    /// Forks and stops before exec. A command that gives up its rights by `uid` or `gid` cannot be given rules about system
    /// calls: have it do that itself.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) when no process can be made; [`Unsupported`](crate::ErrorKind::Unsupported) on other
    /// systems.
    pub fn spawn(command: Command) -> Result<Held> {
        spawn(command)
    }

    /// The process id, in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        #[cfg(stockade_kernel)]
        return self.inner.pid;
        #[cfg(not(stockade_kernel))]
        match self.never {}
    }

    #[cfg(stockade_kernel)]
    pub(crate) fn confinement(&self) -> Confinement {
        self.inner.confinement.clone()
    }

    /// Lets the command run, with the filter of system calls that the session has for it
    /// ([`SessionBuilder::command`](crate::session::SessionBuilder::command)). The inner error is exec's: no such program, not
    /// executable. Where writing is refused to the command, exec's error does not come through, and it is a command that has
    /// aborted.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) when the process has vanished meanwhile;
    /// [`NotEnforced`](crate::ErrorKind::NotEnforced) when the filter is refused, or does not refuse a call of our own: the
    /// command has not run.
    pub fn release(self) -> Result<io::Result<Child>> {
        release(self)
    }
}

#[cfg(not(stockade_kernel))]
fn spawn(_: Command) -> Result<Held> {
    Err(Error::new(
        ErrorKind::Unsupported,
        "stockade watches and fences on Linux only",
    ))
}

#[cfg(not(stockade_kernel))]
fn release(held: Held) -> Result<io::Result<Child>> {
    match held.never {}
}

#[cfg(stockade_kernel)]
fn failed(what: &str, e: io::Error) -> Error {
    Error::new(crate::error::ErrorKind::Io, format!("{what}: {e}")).with_source(e)
}

#[cfg(stockade_kernel)]
fn spawn(mut command: Command) -> Result<Held> {
    use rustix::pipe::{PipeFlags, pipe_with};

    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("pipe", e.into()));
    let (told, tell) = pipe()?;
    let (wait, gate) = pipe()?;
    let gate_copy = gate.as_raw_fd();
    let (confinement, mut inbox) = Confinement::new().map_err(|e| failed("mmap", e))?;
    // SAFETY: between fork and exec only async-signal-safe calls are made: close, getpid, write, and those of the inbox.
    unsafe {
        command.pre_exec(move || {
            // The child's copy of the gate would keep `wait` open for ever if the parent died.
            libc::close(gate_copy);
            let pid = std::process::id().to_ne_bytes();
            rustix::io::write(&tell, &pid)?;
            // Last of all: what a filter refuses is nobody's need any more, but for exec.
            inbox.wait(&wait)
        });
    }
    let (say, said) = std::sync::mpsc::channel();
    // Command::spawn returns only when exec has happened, so it waits on a thread of its own.
    let spawner = std::thread::Builder::new()
        .name("stockade-spawn".into())
        .spawn(move || {
            // Whoever is to hear it waits for the child next.
            let _ = say.send(rustix::thread::gettid());
            let result = command.spawn();
            drop(command); // closes our ends of both pipes
            result
        })
        .map_err(|e| failed("thread", e))?;
    let mut pid = [0u8; 4];
    match rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut pid)) {
        Ok(4) => {
            let thread = said.recv().ok();
            if let Some(thread) = thread {
                until_it_reads(thread);
            }
            Ok(Held {
                inner: Inner {
                    pid: u32::from_ne_bytes(pid),
                    gate: Some(gate),
                    spawner: Some(spawner),
                    confinement,
                    #[cfg(test)]
                    thread,
                },
            })
        }
        // The fork itself failed: its error is the thread's result.
        other => {
            drop(gate);
            match spawner.join() {
                Ok(Err(e)) => Err(failed("the command cannot be started", e)),
                _ => Err(failed(
                    "the command cannot be started",
                    other
                        .err()
                        .map_or(io::ErrorKind::UnexpectedEof.into(), Into::into),
                )),
            }
        }
    }
}

/// Waits until the thread that spawns a command reads what becomes of exec. Before that it closes its copy of the end that is
/// written to. A command that is forked earlier, and held, would have it too, and as long as that is held this thread would
/// wait for its exec as well: whoever releases the first one first would wait for ever.
#[cfg(stockade_kernel)]
fn until_it_reads(thread: rustix::thread::Pid) {
    let end = Instant::now() + READS_WITHIN;
    while reads(thread) == Some(false) && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Whether a thread of ours waits for something to read; `None` where that cannot be known.
#[cfg(stockade_kernel)]
fn reads(thread: rustix::thread::Pid) -> Option<bool> {
    let at = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    // "running", or the number of the call that it waits in.
    let now = std::fs::read_to_string(at).ok()?;
    let number = now.split(' ').next().and_then(|word| word.parse().ok());
    Some(number.is_some_and(|number| {
        [libc::SYS_read, libc::SYS_recvfrom, libc::SYS_recvmsg].contains(&number)
    }))
}

/// It has only to be given a CPU.
#[cfg(stockade_kernel)]
const READS_WITHIN: Duration = Duration::from_secs(5);

#[cfg(stockade_kernel)]
fn release(mut held: Held) -> Result<io::Result<Child>> {
    // Both are there until release or drop.
    let (Some(gate), Some(spawner)) = (held.inner.gate.take(), held.inner.spawner.take()) else {
        return Err(failed("release", io::ErrorKind::NotFound.into()));
    };
    let confinement = held.inner.confinement.clone();
    let sent = confinement.send(&gate);
    let sent = sent.map_err(|e| failed("the held command has vanished", e))?;
    drop(gate);
    let started = spawner
        .join()
        .map_err(|_| failed("the held command", io::Error::other("its thread panicked")))?;
    match (sent.proved(), started) {
        (Ok(true), started) => Ok(started),
        // It ended before it got there.
        (Ok(false), Err(e)) => Err(failed("the held command has vanished", e)),
        (unproved, started) => {
            // Cannot be: it does not go on without its filter.
            if let Ok(mut child) = started {
                let _ = child.kill();
                let _ = child.wait();
            }
            unproved.and(Err(failed(
                "the held command",
                io::Error::other("it runs without its filter"),
            )))
        }
    }
}

#[cfg(stockade_kernel)]
impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            // Another held command can have a copy of the gate, so that closing it says nothing.
            confinement::give_up(&gate);
        }
        if let Some(spawner) = self.spawner.take() {
            // The child ends, and its spawn fails, which is what we want.
            let _ = spawner.join();
        }
    }
}

#[cfg(all(test, stockade_kernel))]
mod tests {
    use super::*;

    /// Whose thread does not read yet has an end open that the next one would have a copy of.
    #[test]
    fn the_first_of_two_held_commands_can_be_released_first() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..100 {
                let held = || {
                    let held = Held::spawn(Command::new("true")).unwrap();
                    assert_eq!(held.inner.thread.and_then(reads), Some(true));
                    held
                };
                for held in [held(), held()] {
                    assert!(held.release().unwrap().unwrap().wait().unwrap().success());
                }
            }
            tell.send(())
        });
        let all = told.recv_timeout(Duration::from_secs(60));
        all.expect("each command ends when it is released");
    }

    #[test]
    fn one_of_two_held_commands_can_be_given_up() {
        let held = || Held::spawn(Command::new("true")).unwrap();
        // The second one has a copy of the first one's gate.
        let (first, second) = (held(), held());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(first);
            tell.send(())
        });
        told.recv_timeout(Duration::from_secs(20))
            .expect("the first command ends");
        let ran = second.release().unwrap().unwrap().wait().unwrap();
        assert!(ran.success());
    }
}
