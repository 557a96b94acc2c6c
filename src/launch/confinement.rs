//! The filter of system calls that a held command gets when it is let go: sent by the pipe that it waits on, put in place
//! as the last thing before exec, and proved there.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::kernel::seccomp::{self, Filter};

/// The filter stands, and has refused the canary.
const PROVED: u32 = 1;
/// It does not; below this bit the errno, or 0 where the canary went through.
const FAILED: u32 = 1 << 31;

/// What is sent: a secret, how many bytes of a filter follow, and these.
const HEAD: usize = 16;
const INSTRUCTION: usize = 8;

/// The side that holds the command. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Confinement {
    plan: Arc<Mutex<Plan>>,
    outcome: Arc<SharedWord>,
}

/// What the command is to get.
#[derive(Debug, Default)]
enum Plan {
    /// Nothing so far.
    #[default]
    Free,
    Filtered(Filter),
    /// It has been let go, and can be given nothing any more.
    Gone,
}

/// The side of the command, between fork and exec.
#[derive(Debug)]
pub(super) struct Inbox {
    // Made before the fork: nothing may be allocated after it.
    message: Vec<u8>,
    program: Vec<libc::sock_filter>,
    outcome: Arc<SharedWord>,
}

/// What has been sent.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    filtered: bool,
    outcome: &'a AtomicU32,
}

impl Confinement {
    pub(super) fn new() -> io::Result<(Self, Inbox)> {
        let outcome = Arc::new(SharedWord::new()?);
        let inbox = Inbox {
            message: vec![0; HEAD + seccomp::MAX_INSTRUCTIONS * INSTRUCTION],
            program: Vec::with_capacity(seccomp::MAX_INSTRUCTIONS),
            outcome: Arc::clone(&outcome),
        };
        let plan = Arc::default();
        Ok((Confinement { plan, outcome }, inbox))
    }

    /// What the command is to get.
    pub(crate) fn set(&self, filter: Filter) -> Result<()> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match *plan {
            Plan::Free => {
                *plan = Plan::Filtered(filter);
                return Ok(());
            }
            Plan::Filtered(_) => "it has been given some already",
            Plan::Gone => "it has been let go",
        };
        Err(Error::new(
            ErrorKind::NotEnforced,
            format!("the command cannot be given rules about system calls any more: {why}"),
        ))
    }

    /// Lets the command go.
    pub(super) fn send(&self, to: &OwnedFd) -> io::Result<Sent<'_>> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = match std::mem::replace(&mut *plan, Plan::Gone) {
            Plan::Filtered(filter) => Some(filter),
            Plan::Free | Plan::Gone => None,
        };
        let message = message_of(filter.as_ref());
        let mut rest = &message[..];
        while !rest.is_empty() {
            let n = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = &rest[n..];
        }
        Ok(Sent {
            filtered: filter.is_some(),
            outcome: self.outcome.word(),
        })
    }
}

impl Sent<'_> {
    /// Once the command runs, or is gone: whether it has what it was sent. `false`: it never got as far.
    pub(super) fn proved(&self) -> Result<bool> {
        match self.outcome.load(Ordering::Acquire) {
            _ if !self.filtered => Ok(true),
            PROVED => Ok(true),
            0 => Ok(false),
            failed => Err(not_confined(failed & !FAILED)),
        }
    }
}

fn not_confined(errno: u32) -> Error {
    let what = "the rules about system calls do not hold";
    if errno == 0 {
        return Error::new(
            ErrorKind::NotEnforced,
            format!("{what}: seccomp took the filter and let the canary through"),
        );
    }
    let errno = i32::try_from(errno).unwrap_or(libc::EIO);
    let e = io::Error::from_raw_os_error(errno);
    let hint = match errno {
        libc::EACCES => "run it as root, or with CAP_SYS_ADMIN",
        _ => {
            "the kernel must have CONFIG_SECCOMP_FILTER, and a sandbox around this program must allow seccomp(2)"
        }
    };
    Error::new(
        ErrorKind::NotEnforced,
        format!("{what}: seccomp refused the filter: {e}"),
    )
    .with_source(e)
    .with_hint(hint)
}

impl Inbox {
    /// Waits to be let go, and puts the filter in place that comes with it. Only read, seccomp and a call that there is not
    /// are made.
    pub(super) fn wait(&mut self, from: &OwnedFd) -> io::Result<()> {
        let (head, body) = self.message.split_at_mut(HEAD);
        read_exact(from, head)?;
        let (secret, length) = head_of(head);
        let body = body.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        read_exact(from, body)?;
        if body.is_empty() {
            return Ok(());
        }
        let instructions = body.chunks_exact(INSTRUCTION).map(instruction);
        self.program.extend(instructions);
        let errno = |e: &io::Error| e.raw_os_error().and_then(|n| u32::try_from(n).ok());
        let told = match seccomp::install(&self.program) {
            Err(e) => FAILED | errno(&e).unwrap_or(0),
            Ok(()) => match seccomp::call_canary(secret) {
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => PROVED,
                _ => FAILED,
            },
        };
        self.outcome.word().store(told, Ordering::Release);
        match told {
            PROVED => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Tells the command to end: what follows is longer than anything that can come.
pub(super) fn give_up(to: &OwnedFd) {
    let _ = rustix::io::write(to, &[0xff; HEAD]);
}

fn message_of(filter: Option<&Filter>) -> Vec<u8> {
    let program = filter.map_or(&[][..], |filter| &filter.program);
    let mut message = filter.map_or(0, |f| f.secret).to_ne_bytes().to_vec();
    message.extend((program.len() * INSTRUCTION).to_ne_bytes());
    for instruction in program {
        message.extend(instruction.code.to_ne_bytes());
        message.extend([instruction.jt, instruction.jf]);
        message.extend(instruction.k.to_ne_bytes());
    }
    message
}

fn head_of(head: &[u8]) -> (u64, usize) {
    let word = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[from..from + 8]);
        bytes
    };
    (u64::from_ne_bytes(word(0)), usize::from_ne_bytes(word(8)))
}

fn instruction(bytes: &[u8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

fn read_exact(from: &OwnedFd, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut *into))? {
            0 => return Err(io::ErrorKind::BrokenPipe.into()),
            n => into = &mut into[n..],
        }
    }
    Ok(())
}

/// A word of memory that the command has in common with who holds it, until exec.
#[derive(Debug)]
struct SharedWord(NonNull<AtomicU32>);

// SAFETY: it is an atomic, in memory that nobody else hands out.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

impl SharedWord {
    fn new() -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the kernel likes; it is aligned, and all zeros.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                size_of::<AtomicU32>(),
                access,
                MapFlags::SHARED,
            )?
        };
        let word = NonNull::new(page.cast());
        word.map(SharedWord)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: mapped until it is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: what was mapped in `new`; no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_one_filter_and_none_when_it_is_gone() {
        let filter = || Filter {
            program: Vec::new(),
            secret: 1,
        };
        let (confinement, _inbox) = Confinement::new().unwrap();
        assert!(confinement.set(filter()).is_ok());
        let second = confinement.set(filter()).expect_err("two filters");
        assert_eq!(second.kind(), ErrorKind::NotEnforced);
        assert!(
            second.to_string().contains("given some already"),
            "{second}"
        );
        let (_read, write) = rustix::pipe::pipe().unwrap();
        assert!(confinement.send(&write).unwrap().filtered);
        let late = confinement.set(filter()).expect_err("a filter for nobody");
        assert!(late.to_string().contains("let go"), "{late}");
    }

    #[test]
    fn a_filter_arrives_as_it_was_sent() {
        let program: Vec<libc::sock_filter> = (0..300u32)
            .map(|n| libc::sock_filter {
                code: n as u16,
                jt: n as u8,
                jf: !n as u8,
                k: n << 20 | n,
            })
            .collect();
        let filter = Filter {
            program,
            secret: 0x0123_4567_89ab_cdef,
        };
        let message = message_of(Some(&filter));
        let (secret, length) = head_of(&message);
        assert_eq!((secret, length), (filter.secret, message.len() - HEAD));
        let arrived = message[HEAD..].chunks_exact(INSTRUCTION).map(instruction);
        let all = |i: libc::sock_filter| (i.code, i.jt, i.jf, i.k);
        let sent: Vec<_> = filter.program.iter().copied().map(all).collect();
        assert_eq!(arrived.map(all).collect::<Vec<_>>(), sent);
        assert_eq!(message_of(None), [0; HEAD]);
    }
}
