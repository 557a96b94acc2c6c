//! An access of our own that must be refused: the only proof that a fence holds.
//!
//! A program can be attached and never called (`bpf` missing from `lsm=`), so neither the list of security modules nor a
//! successful attach says anything. The canary is a memfd, guarded by a rule that holds for this process alone.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::file_key;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Records, Rings};
use crate::wire::{FileKey, IdentityRecord, RULE_CANARY, denied_rule};

/// How long the denial's record may take; under emulation a whole second is normal.
const DEADLINE: Duration = Duration::from_secs(10);

/// What an access of our own said.
#[derive(Debug)]
pub(super) enum Proof {
    /// Refused with EPERM, and its record arrived.
    Refused,
    /// Not refused, or refused without a trace; why.
    Open(String),
}

/// A file that nobody but us knows of.
#[derive(Debug)]
pub(super) struct Canary {
    fd: OwnedFd,
    record: Option<IdentityRecord>,
}

impl Canary {
    pub(super) fn new() -> Result<Self> {
        let name = "stockade-canary";
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
            // Before 6.3 the flag is unknown.
            .or_else(|_| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC))
            .map_err(|e| {
                Error::new(
                    ErrorKind::Io,
                    format!("the canary file cannot be made: memfd_create: {e}"),
                )
                .with_source(e)
            })?;
        Ok(Canary { fd, record: None })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn identified(self, record: IdentityRecord) -> Self {
        Canary {
            record: Some(record),
            ..self
        }
    }

    pub(super) fn key(&self) -> FileKey {
        self.record.as_ref().map_or(
            FileKey {
                ino: 0,
                dev: 0,
                generation: 0,
            },
            |r| file_key(&r.file),
        )
    }

    pub(super) fn self_tgid(&self) -> u32 {
        self.record.as_ref().map_or(0, |r| r.tgid)
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        // A new open of the same inode, which goes through the hooks.
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Before arming: the access must work, or its refusal would prove nothing.
    pub(super) fn reachable(&self) -> Result<()> {
        self.open().map(drop).map_err(|e| {
            Error::new(
                ErrorKind::NotEnforced,
                format!("the canary cannot be opened even without a fence: {e}"),
            )
            .with_source(e)
            .with_hint("/proc must be mounted; another security module may forbid memfds")
        })
    }

    /// After arming: the access must be refused, and its record must arrive. What else arrives goes to `seen`.
    pub(super) fn prove(&self, rings: &mut Rings, seen: &mut Records) -> Result<Proof> {
        match self.open() {
            Ok(_) => {
                return Ok(Proof::Open(
                    "the canary was not refused: the programs are attached and not called".into(),
                ));
            }
            Err(rustix::io::Errno::PERM) => {}
            Err(e) => {
                return Ok(Proof::Open(format!(
                    "the canary failed with {e} instead of EPERM"
                )));
            }
        }
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let mut proved = false;
            for record in rings.drain()?.iter() {
                if is_canary(record) {
                    proved = true;
                } else {
                    seen.push(record);
                }
            }
            if proved {
                return Ok(Proof::Refused);
            }
            rings.sleep(Duration::from_millis(50))?;
        }
        Ok(Proof::Open(
            "the canary was refused, but no record of it arrived".into(),
        ))
    }
}

/// Whether this record is the canary's denial, which is ours and no event.
pub(crate) fn is_canary(record: &[u8]) -> bool {
    denied_rule(record) == Some(RULE_CANARY)
}
