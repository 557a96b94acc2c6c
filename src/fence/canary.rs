//! An access of our own that must be refused: the only proof that a fence holds.
//!
//! A program can be attached and never called (`bpf` missing from `lsm=`), so neither the list of security modules nor a
//! successful attach says anything. The canary is a memfd, guarded by a rule that holds for this process alone.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::calls::canary_filter;
use super::places::{Said, Voice};
use super::plan::Plan;
use super::{About, file_key};
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::seccomp::{self, Filter};
use crate::kernel::{Asker, OwnTable, Records, Rings};
use crate::policy::{self, Access, Effect};
use crate::wire::{FileKey, Header, RULE_CANARY, denied_rule, kind, read};

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

/// What is said about the canary.
pub(super) fn canary_rule() -> Said {
    let mut said = Said::NOTHING;
    let voice = Voice::new(RULE_CANARY, Effect::Deny, policy::Mode::Enforce);
    said.add(voice, Access::READ);
    said
}

/// Accesses of our own, one for each way in which something is refused.
#[derive(Debug)]
pub(super) struct Canaries {
    pub(super) file: Canary,
    /// That file's.
    pub(super) key: FileKey,
    /// Guarded by its tag alone, where tags are used.
    pub(super) tag: Canary,
    /// The first one again, which is not to be written to.
    written: Canary,
    pub(super) network: NetworkCanary,
    /// Of limits of what is sent and connected.
    pub(super) limit: NetworkCanary,
    fork: ForkCanary,
    call: CallCanary,
    /// Where the fence keeps itself from who is held.
    pub(super) map: Option<MapCanary>,
}

impl Canaries {
    pub(super) fn new(asker: &Asker, plan: &Plan) -> Result<Self> {
        let (file, tag) = (memfd()?, memfd()?);
        let found = asker
            .files()?
            .into_iter()
            .find(|record| i32::try_from(record.fd).is_ok_and(|fd| fd == file.as_raw_fd()));
        let key = found.map(|record| file_key(&record.file)).ok_or_else(|| {
            Error::new(
                ErrorKind::Load,
                "the kernel did not report one of our descriptors; this is a defect",
            )
        })?;
        let again = file.try_clone().map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("the canary file cannot be used: {e}"),
            )
            .with_source(e)
        })?;
        let read = |fd| Canary {
            fd,
            how: OFlags::RDONLY,
        };
        Ok(Canaries {
            file: read(file),
            key,
            tag: read(tag),
            written: Canary {
                fd: again,
                how: OFlags::WRONLY,
            },
            network: NetworkCanary::new()?,
            limit: NetworkCanary::new()?,
            fork: ForkCanary,
            call: CallCanary::new(plan.secret),
            map: match plan.guards_itself {
                true => Some(MapCanary::new()?),
                false => None,
            },
        })
    }

    /// Those that prove a policy about this.
    pub(super) fn of(&self, about: &About, tags: bool) -> Vec<&dyn Proves> {
        let mut all: Vec<&dyn Proves> = Vec::new();
        if about.guards_files {
            all.push(&self.file);
        }
        if about.guards_files && tags {
            all.push(&self.tag);
        }
        if about.notes_written {
            all.push(&self.written);
        }
        if about.keeps_apart {
            all.push(&ClaimCanary);
        }
        if about.guards_network {
            all.push(&self.network);
        }
        if about.limits_forks {
            all.push(&self.fork);
        }
        if about.limits_network {
            all.push(&self.limit);
        }
        if about.traces_calls {
            all.push(&TracedCanary {
                told_as: kind::CALL_DENIAL,
            });
        } else if about.syscalls > 0 {
            all.push(&self.call);
        }
        if about.limits_calls {
            all.push(&TracedCanary {
                told_as: kind::LIMIT_DENIAL,
            });
        }
        if let Some(map) = &self.map {
            all.push(map);
        }
        all
    }
}

fn memfd() -> Result<OwnedFd> {
    let name = "stockade-canary";
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        // Before 6.3 the flag is unknown.
        .or_else(|_| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC))
        .map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("the canary file cannot be made: memfd_create: {e}"),
            )
            .with_source(e)
        })
}

/// A file that nobody but us knows of.
#[derive(Debug)]
pub(super) struct Canary {
    fd: OwnedFd,
    how: OFlags,
}

impl Canary {
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        // A new open of the same inode, which goes through the hooks.
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, self.how | OFlags::CLOEXEC, Mode::empty())
    }
}

/// An access of our own that must be refused once the fence is armed.
pub(super) trait Proves {
    /// Before arming: the access must not be refused, or its refusal would prove nothing.
    fn reachable(&self) -> Result<()>;
    fn access(&self) -> rustix::io::Result<()>;
    /// The kind of record that proves it; `None` where there is but one.
    fn told_as(&self) -> Option<u32> {
        None
    }
}

impl Proves for Canary {
    fn reachable(&self) -> Result<()> {
        self.open().map(drop).map_err(|e| {
            Error::new(
                ErrorKind::NotEnforced,
                format!("the canary cannot be opened even without a fence: {e}"),
            )
            .with_source(e)
            .with_hint("/proc must be mounted; another security module may forbid memfds")
        })
    }

    fn access(&self) -> rustix::io::Result<()> {
        self.open().map(drop)
    }
}

/// An address that only we must not reach: a port of this machine's own, by UDP, where a connect sends nothing.
#[derive(Debug)]
pub(super) struct NetworkCanary {
    port: u16,
}

impl NetworkCanary {
    pub(super) fn new() -> Result<Self> {
        let bytes = super::random()?.to_ne_bytes();
        Ok(NetworkCanary {
            port: u16::from_ne_bytes([bytes[0], bytes[1]]).max(1),
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Proves for NetworkCanary {
    fn reachable(&self) -> Result<()> {
        match self.access() {
            Err(e @ rustix::io::Errno::PERM) => Err(Error::new(
                ErrorKind::NotEnforced,
                "another fence or security module refuses this program to connect to this machine",
            )
            .with_source(e)
            .with_hint("start it outside of that")),
            Err(e @ (rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ACCESS)) => {
                Err(Error::new(
                    ErrorKind::NotEnforced,
                    format!("the canary cannot be sent to even without a fence: {e}"),
                )
                .with_source(e))
            }
            // Where there is no route it is refused before that is found.
            _ => Ok(()),
        }
    }

    fn access(&self) -> rustix::io::Result<()> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, self.port);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        connect(&socket, &address)
    }
}

/// A system call that there is not, by a thread that has a filter for nothing else.
#[derive(Debug)]
pub(super) struct CallCanary {
    filter: Filter,
}

impl CallCanary {
    pub(super) fn new(secret: u64) -> Self {
        CallCanary {
            filter: canary_filter(secret),
        }
    }
}

impl Proves for CallCanary {
    fn reachable(&self) -> Result<()> {
        match seccomp::call_canary(self.filter.secret) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            other => Err(Error::new(
                ErrorKind::NotEnforced,
                match other {
                    Ok(()) => "a system call that there is not went through".to_owned(),
                    Err(e) => format!(
                        "a system call that there is not fails with {e}, even without a filter"
                    ),
                },
            )
            .with_hint("start it outside of the sandbox that answers so")),
        }
    }

    fn access(&self) -> rustix::io::Result<()> {
        let Filter { program, secret } = &self.filter;
        let attempt = || seccomp::install(program).and_then(|()| seccomp::call_canary(*secret));
        // A filter stays with its thread for good.
        let result = std::thread::scope(|scope| scope.spawn(attempt).join());
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => {
                Err(rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
            }
            Err(_) => Err(rustix::io::Errno::IO),
        }
    }
}

/// A new process, as nobody else makes one.
#[derive(Debug)]
pub(super) struct ForkCanary;

impl Proves for ForkCanary {
    fn reachable(&self) -> Result<()> {
        // Whoever else refuses it, refuses it without a record.
        Ok(())
    }

    fn access(&self) -> rustix::io::Result<()> {
        crate::kernel::fork_canary()
    }
}

/// A system call that there is not. Nobody refuses it, but who counts or traces calls tells that it was made, each in a way of
/// its own.
#[derive(Debug)]
pub(super) struct TracedCanary {
    told_as: u32,
}

impl Proves for TracedCanary {
    fn reachable(&self) -> Result<()> {
        Ok(())
    }

    fn access(&self) -> rustix::io::Result<()> {
        // Its record is the proof.
        let _ = seccomp::call_canary(0);
        Err(rustix::io::Errno::PERM)
    }

    fn told_as(&self) -> Option<u32> {
        Some(self.told_as)
    }
}

/// The claim to run no program at all.
#[derive(Debug)]
pub(super) struct ClaimCanary;

impl Proves for ClaimCanary {
    fn reachable(&self) -> Result<()> {
        // Who has no right to it is refused behind the hook, without a record.
        Ok(())
    }

    fn access(&self) -> rustix::io::Result<()> {
        crate::kernel::claim_canary()
    }
}

/// A map that nobody may write, ourselves included.
#[derive(Debug)]
pub(super) struct MapCanary {
    map: OwnTable,
    id: u32,
}

impl MapCanary {
    fn new() -> Result<Self> {
        let map = OwnTable::array("stk_canary", 4, 1)?;
        let id = map.id()?;
        Ok(MapCanary { map, id })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

impl Proves for MapCanary {
    fn reachable(&self) -> Result<()> {
        self.map.get(&0u32.to_ne_bytes()).map(drop)
    }

    fn access(&self) -> rustix::io::Result<()> {
        OwnTable::reach(self.id)
    }
}

/// After arming: each access must be refused, and its record must arrive. What else arrives goes to `seen`.
pub(super) fn prove_all(
    canaries: &[&dyn Proves],
    rings: &mut Rings,
    seen: &mut Records,
) -> Result<Proof> {
    for canary in canaries {
        let proof = prove(*canary, rings, seen)?;
        if let Proof::Open(_) = proof {
            return Ok(proof);
        }
    }
    Ok(Proof::Refused)
}

/// Where others are refused all the time, there may be no room for the record: then it is tried again.
fn prove(canary: &dyn Proves, rings: &mut Rings, seen: &mut Records) -> Result<Proof> {
    let end = Instant::now() + DEADLINE;
    // What is left of another canary would be taken for this one's.
    while {
        take(rings, seen, None)?;
        rings.has_more() && Instant::now() < end
    } {}
    while Instant::now() < end {
        match canary.access() {
            Ok(()) => {
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
        for wait in [Duration::ZERO, Duration::from_millis(50)] {
            if !wait.is_zero() {
                rings.sleep(wait)?;
            }
            if take(rings, seen, canary.told_as())? {
                return Ok(Proof::Refused);
            }
        }
    }
    Ok(Proof::Open(
        "the canary was refused, but no record of it arrived".into(),
    ))
}

/// Empties the rings; returns whether a canary's record was there, of this kind.
fn take(rings: &mut Rings, seen: &mut Records, told_as: Option<u32>) -> Result<bool> {
    let mut proved = false;
    for record in rings.drain()?.iter() {
        if is_canary(record) {
            let kind = read::<Header>(record).map(|hdr| hdr.kind);
            proved |= told_as.is_none() || kind == told_as;
        } else {
            seen.push(record);
        }
    }
    Ok(proved)
}

/// Whether this record is the canary's denial, which is ours and no event.
pub(crate) fn is_canary(record: &[u8]) -> bool {
    denied_rule(record) == Some(RULE_CANARY)
}
