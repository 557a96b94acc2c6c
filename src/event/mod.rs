//! What happened: plain data that other programs can keep, compare and print.
//!
//! An event holds what the kernel reported, and apart from it ([`About`]) what was looked up. Strings are escaped when they are
//! decoded ([`text`]), so that no file name can forge a line. Times are nanoseconds since boot; [`Clock`] turns them
//! into wall-clock time.

mod allocation;
mod certificate;
mod change;
mod clock;
mod denial;
pub(crate) mod disk;
mod file;
mod gap;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod network;
mod process;
mod profile;
#[doc(hidden)]
pub mod sample;
mod sampling;
mod statistics;
pub mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use allocation::{Allocated, AllocationSource, MemoryAllocations, MemoryOutstanding};
pub use certificate::{Attachment, Certificate, FenceState, KindCount, LossCount, ProbeState};
pub use change::{Change, ChangeOperation, Mount};
pub use clock::Clock;
pub(crate) use denial::mechanism;
pub use denial::{Ancestor, Denial, Denied, LimitedCall, socket_family};
pub use disk::{BlockDevice, Disk, DiskOperation, DiskSummary, Histogram};
pub use file::{FileSummary, FileUse};
pub use gap::Gap;
pub use memory::{Memory, MemoryFailure, MemorySizes, MemorySummary, OomKill};
pub use network::{
    Accept, Bind, Close, Connect, DnsAnswer, DnsQuery, DnsRecord, Flow, Listen, NetworkSummary,
    PortScan, RawSocket, Retransmit, SocketFamily, TcpState, Tls, TlsUnknown, Transport,
    UnixConnect,
};
pub use process::ProcessSummary;
pub use profile::{Frame, Profile, ProfileMode};
pub use sampling::{Sampled, Suppressed};
pub use statistics::{LoadedProgram, Statistics};

/// The names of all kinds of events, as [`Kind::name`] gives them.
pub const KINDS: &[&str] = &[
    "exec",
    "fork",
    "exit",
    "process_summary",
    "open",
    "create",
    "unlink",
    "rename",
    "link",
    "symlink",
    "mkdir",
    "rmdir",
    "mknod",
    "chmod",
    "chown",
    "utimes",
    "truncate",
    "setxattr",
    "removexattr",
    "mount",
    "umount",
    "file_summary",
    "denial",
    "syscall",
    "syscall_summary",
    "connect",
    "accept",
    "close",
    "bind",
    "listen",
    "tcp_state",
    "retransmit",
    "unix_connect",
    "dns_query",
    "dns_answer",
    "tls",
    "raw_socket",
    "port_scan",
    "network_summary",
    "memory",
    "memory_summary",
    "memory_allocations",
    "memory_outstanding",
    "oom",
    "disk",
    "disk_summary",
    "profile",
    "loss",
    "sampled",
    "suppressed",
    "reload",
    "gap",
];

/// One thing that happened, with who did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// When, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub time_ns: u64,
    /// Who did it. For an exit and an exec: the process itself; for a fork: the one that forked.
    pub process: Process,
    /// What it was.
    pub kind: Kind,
}

/// The process that acted, as it was at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Process {
    /// Which process, for good.
    pub id: ProcessId,
    /// Its parent at that moment (after a re-parenting, the new one).
    pub parent: ProcessId,
    /// The thread that acted, in the initial pid namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Id of its cgroup (v2): the inode number of the cgroup's directory.
    pub cgroup_id: u64,
    /// Name of the thread, at most 15 bytes; the thread chooses it itself.
    pub comm: String,
    /// What was looked up; `None` where nobody did.
    pub about: Option<Arc<About>>,
}

/// What is known of a process beyond what the kernel reports with each event. Looked up in user space and shared by the
/// process's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// What it executes, as the host sees the path, escaped.
    pub executable: Option<Arc<str>>,
    /// Name of its user in the machine's own `/etc/passwd`.
    pub user: Option<String>,
    /// Name of its group in the machine's own `/etc/group`.
    pub group: Option<String>,
    /// Path of its cgroup from the root of the cgroup v2 tree.
    pub cgroup: Option<String>,
    /// The container that the cgroup's path names: docker, podman, containerd, cri-o.
    pub container: Option<String>,
    /// The systemd service or scope that the cgroup's path names.
    pub unit: Option<String>,
}

/// Names a process so that a reused pid is another process. Unique until the next boot; with the boot id of [`Clock`]
/// for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// When it started, in nanoseconds since boot.
    pub start_ns: u64,
    /// Its pid in the initial pid namespace (the kernel's tgid).
    pub pid: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A process started another program.
    Exec(Exec),
    /// A process was created.
    Fork(Fork),
    /// A process ended.
    Exit(Exit),
    /// What one process used of the CPUs in a while.
    ProcessSummary(ProcessSummary),
    /// A file was opened, or could not be.
    Open(Open),
    /// An open made the file.
    Create(Open),
    /// A name was removed, or could not be.
    Unlink(Unlink),
    /// A file was renamed, or could not be.
    Rename(Rename),
    /// A name or an attribute of a file was changed, or could not be.
    Change(Change),
    /// Something was mounted, or could not be.
    Mount(Mount),
    /// Something was unmounted, or could not be.
    Umount(Mount),
    /// What one process did with one file in a while.
    FileSummary(Box<FileSummary>),
    /// The fence refused an access, or would have in enforcing mode.
    Denial(Denial),
    /// A system call that was chosen has returned.
    Syscall(Syscall),
    /// What one process did with one system call in a while.
    SyscallSummary(SyscallSummary),
    /// A TCP connection was made, or could not be.
    Connect(Connect),
    /// A TCP connection was accepted.
    Accept(Accept),
    /// A TCP connection ended.
    Close(Close),
    /// A socket was given an address, or could not be.
    Bind(Bind),
    /// A socket waits for connections, or could not.
    Listen(Listen),
    /// A TCP connection went from one state to another; told only where it is named.
    TcpState(TcpState),
    /// A packet of a TCP connection was sent again.
    Retransmit(Retransmit),
    /// A local socket was connected, or could not be.
    UnixConnect(UnixConnect),
    /// A DNS query was sent, or received by the server.
    DnsQuery(DnsQuery),
    /// A DNS answer was received, or sent by the server.
    DnsAnswer(Box<DnsAnswer>),
    /// A TLS client has greeted a server.
    Tls(Tls),
    /// Somebody asked for a raw or packet socket.
    RawSocket(RawSocket),
    /// A process has tried many addresses and ports where nobody answers.
    PortScan(PortScan),
    /// What one process did with one peer in a while.
    NetworkSummary(NetworkSummary),
    /// A process asked for a change of its address space.
    Memory(Memory),
    /// What one process did with its memory in a while.
    MemorySummary(MemorySummary),
    /// What the kernel allocated for one process in a while.
    MemoryAllocations(MemoryAllocations),
    /// What one process has allocated at one place in the kernel and not given back.
    MemoryOutstanding(MemoryOutstanding),
    /// A process is killed because memory is short.
    Oom(OomKill),
    /// A request to a block device has completed.
    Disk(Disk),
    /// What one process asked of one block device in a while.
    DiskSummary(Box<DiskSummary>),
    /// How often or how long one process was found with one stack in a while.
    Profile(Profile),
    /// Records that never arrived.
    Loss(Loss),
    /// Events were left out by sampling.
    Sampled(Sampled),
    /// Events of a process were left out: it had sent its share.
    Suppressed(Suppressed),
    /// Another policy took the place of the one that was in force; the fence as it is now.
    Reload(Box<FenceState>),
    /// A pinned fence that this session took over had nobody who looked after it.
    Gap(Gap),
}

impl Kind {
    /// The name of the kind, as in `event.action`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Exec(_) => "exec",
            Kind::Fork(_) => "fork",
            Kind::Exit(_) => "exit",
            Kind::ProcessSummary(_) => "process_summary",
            Kind::Open(_) => "open",
            Kind::Create(_) => "create",
            Kind::Change(e) => e.operation.name(),
            Kind::Mount(_) => "mount",
            Kind::Umount(_) => "umount",
            Kind::FileSummary(_) => "file_summary",
            Kind::Unlink(_) => "unlink",
            Kind::Rename(_) => "rename",
            Kind::Denial(_) => "denial",
            Kind::Syscall(_) => "syscall",
            Kind::SyscallSummary(_) => "syscall_summary",
            Kind::Connect(_) => "connect",
            Kind::Accept(_) => "accept",
            Kind::Close(_) => "close",
            Kind::Bind(_) => "bind",
            Kind::Listen(_) => "listen",
            Kind::TcpState(_) => "tcp_state",
            Kind::Retransmit(_) => "retransmit",
            Kind::UnixConnect(_) => "unix_connect",
            Kind::DnsQuery(_) => "dns_query",
            Kind::DnsAnswer(_) => "dns_answer",
            Kind::Tls(_) => "tls",
            Kind::RawSocket(_) => "raw_socket",
            Kind::PortScan(_) => "port_scan",
            Kind::NetworkSummary(_) => "network_summary",
            Kind::Memory(_) => "memory",
            Kind::MemorySummary(_) => "memory_summary",
            Kind::MemoryAllocations(_) => "memory_allocations",
            Kind::MemoryOutstanding(_) => "memory_outstanding",
            Kind::Oom(_) => "oom",
            Kind::Disk(_) => "disk",
            Kind::DiskSummary(_) => "disk_summary",
            Kind::Profile(_) => "profile",
            Kind::Loss(_) => "loss",
            Kind::Sampled(_) => "sampled",
            Kind::Suppressed(_) => "suppressed",
            Kind::Reload(_) => "reload",
            Kind::Gap(_) => "gap",
        }
    }

    /// Whether it is a remark of the session about itself: no process has done it.
    #[must_use]
    pub fn is_remark(&self) -> bool {
        matches!(
            self,
            Kind::Loss(_) | Kind::Sampled(_) | Kind::Reload(_) | Kind::Gap(_)
        )
    }
}

/// A file in the kernel's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Inode number.
    pub inode: u64,
    /// Device of the file system as the kernel has it: `major << 20 | minor`. On btrfs not what stat(2) reports.
    pub device: u32,
    /// Inode generation; 0 is a value like any other.
    pub generation: u32,
    /// Magic number of the file system (include/uapi/linux/magic.h).
    pub fs_magic: u32,
    /// File type and permission bits, as in `st_mode`.
    pub mode: u32,
}

impl FileId {
    /// The device's major number.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.device >> 20
    }

    /// The device's minor number.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.device & 0xf_ffff
    }
}

/// A path and how far it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FilePath {
    /// The path as the host sees it, escaped.
    pub path: String,
    /// Only the last components are there: the path was longer than 4096 bytes or deeper than 256 components.
    pub truncated: bool,
    /// The name had been removed by then.
    pub deleted: bool,
    /// Not resolved: what the caller wrote, joined to the directory it starts from where that is known. The caller
    /// could have changed it meanwhile.
    pub as_given: bool,
}

/// A process started another program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exec {
    /// What runs now; for a script the interpreter, as in `/proc/PID/exe`.
    pub executable: FilePath,
    /// The executable's identity.
    pub file: FileId,
    /// Arguments, escaped, from the zeroth on.
    pub args: Vec<String>,
    /// Arguments are missing: more than 32 KiB, or a page of them could not be read.
    pub args_truncated: bool,
    /// Length of all arguments in bytes, each with its NUL.
    pub args_bytes: u32,
    /// Of the environment variables that were asked for, those that there are, escaped: the name, or, where the values
    /// were asked for too, `NAME=value`.
    pub env: Vec<String>,
    /// Not all of the environment was looked at, or a value is cut.
    pub env_truncated: bool,
    /// Working directory.
    pub cwd: FilePath,
    /// The script, as it was named to execve(2); only for scripts.
    pub script: Option<String>,
    /// The interpreter, as the script's first line names it; only for scripts.
    pub interpreter: Option<String>,
    /// No name leads to the executable.
    pub fileless: Option<Fileless>,
    /// The process's controlling terminal.
    pub terminal: Option<Terminal>,
    /// The user who logged in and from whose session this comes, whatever user it is now; `None` where nobody did, or the
    /// kernel does not keep it.
    pub login_uid: Option<u32>,
    /// Effective user id in the initial user namespace.
    pub effective_uid: u32,
    /// Effective group id in the initial user namespace.
    pub effective_gid: u32,
    /// What the exec brought; `None` where it is not known what the process had before.
    pub gained: Option<Gained>,
    /// The process's namespaces.
    pub namespaces: Namespaces,
}

/// Namespaces of a process that are others than those of who watches: their numbers as in `/proc/PID/ns`. `None`: the
/// same, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Namespaces {
    /// Where its cgroup paths begin.
    pub cgroup: Option<u32>,
    /// Its System V IPC and POSIX message queues.
    pub ipc: Option<u32>,
    /// Its mounts.
    pub mnt: Option<u32>,
    /// Its network.
    pub net: Option<u32>,
    /// Its process ids.
    pub pid: Option<u32>,
    /// Its clocks.
    pub time: Option<u32>,
    /// Its users and capabilities.
    pub user: Option<u32>,
    /// Its host name.
    pub uts: Option<u32>,
}

/// The kinds of namespaces, in the order of their names.
pub(crate) const NAMESPACE_NAMES: [&str; 8] =
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Namespaces {
    /// In the order of their names.
    pub(crate) fn all(&self) -> [Option<u32>; 8] {
        [
            self.cgroup,
            self.ipc,
            self.mnt,
            self.net,
            self.pid,
            self.time,
            self.user,
            self.uts,
        ]
    }
}

/// ` namespaces=[net:4026532000 uts:4026531999]`; nothing when there are none.
impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = " namespaces=[";
        for (name, inode) in NAMESPACE_NAMES.iter().zip(self.all()) {
            if let Some(inode) = inode {
                write!(f, "{before}{name}:{inode}")?;
                before = " ";
            }
        }
        f.write_str(if before == " " { "]" } else { "" })
    }
}

impl Exec {
    /// Where it runs and what it may do, as far as that is worth a word.
    fn write_rights(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(terminal) = &self.terminal {
            write!(f, " tty={}", Quoted(&terminal.name))?;
        }
        if let Some(fileless) = self.fileless {
            write!(f, " fileless={}", fileless.name())?;
        }
        write!(f, "{}", self.namespaces)?;
        let Some(gained) = self.gained else {
            return Ok(());
        };
        if gained.user {
            write!(f, " setuid={}", self.effective_uid)?;
        }
        if gained.group {
            write!(f, " setgid={}", self.effective_gid)?;
        }
        if gained.capabilities.count_ones() > CAPABILITIES_SHOWN {
            let count = gained.capabilities.count_ones();
            write!(f, " gained={count} capabilities")?;
        } else if gained.capabilities != 0 {
            f.write_str(" gained=")?;
            names::write_flags(f, gained.capabilities, names::capabilities)?;
        }
        Ok(())
    }
}

/// With more a line says how many: root's are all of them.
const CAPABILITIES_SHOWN: u32 = 8;

/// Why no name leads to an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fileless {
    /// It was made by memfd_create(2) and is in no file system.
    Memfd,
    /// All its names were removed, or it was made without one.
    Deleted,
}

impl Fileless {
    /// As it stands in a line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fileless::Memfd => "memfd",
            Fileless::Deleted => "deleted",
        }
    }
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Terminal {
    /// Its name below `/dev`, at most 15 bytes, escaped: `pts/3`, `tty1`.
    pub name: String,
    /// Its device's major number.
    pub major: u32,
    /// Its device's minor number.
    pub minor: u32,
}

/// What an exec brought: by a set-id bit, by the file's capabilities, or by the rules for root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gained {
    /// Another effective user than before.
    pub user: bool,
    /// Another effective group than before.
    pub group: bool,
    /// Capabilities that are effective and were not before, a bit for each number.
    pub capabilities: u64,
}

/// A process was created. The event's process is the one that called fork(2), clone(2) or vfork(2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fork {
    /// The new process.
    pub child: ProcessId,
    /// The new process's parent: another one than the caller under `CLONE_PARENT`.
    pub child_parent: ProcessId,
    /// The new process's namespaces.
    pub namespaces: Namespaces,
}

/// A process ended: its last thread did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exit {
    /// Exit status 0 to 255, when it ended by itself.
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    pub signal: Option<u8>,
    /// A core was dumped.
    pub core_dumped: bool,
    /// CPU time in user mode in nanoseconds, all threads, without children.
    pub user_ns: u64,
    /// CPU time in the kernel in nanoseconds, likewise.
    pub system_ns: u64,
    /// Largest resident set in bytes.
    pub max_rss_bytes: u64,
    /// From start to end in nanoseconds.
    pub lifetime_ns: u64,
}

/// A file was opened, or could not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Open {
    /// Which path.
    pub path: FilePath,
    /// Which file; `None` when the open failed.
    pub file: Option<FileId>,
    /// Flags as given to open(2).
    pub flags: u32,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A name was removed, or could not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unlink {
    /// Which path.
    pub path: FilePath,
    /// Which file; `None` where only the system call was seen.
    pub file: Option<FileId>,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A file was renamed, or could not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rename {
    /// The old path.
    pub from: FilePath,
    /// The new path.
    pub to: FilePath,
    /// Which file; `None` where only the system call was seen.
    pub file: Option<FileId>,
    /// The file that stood at the new path before.
    pub replaced: Option<FileId>,
    /// Flags as given to renameat2(2).
    pub flags: u32,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A system call has returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Syscall {
    /// Its name; empty when this version does not know the number.
    pub name: Cow<'static, str>,
    /// Its number, in the table of its architecture.
    pub number: u32,
    /// A call of a 32-bit program on a 64-bit kernel: another table of numbers.
    pub compat: bool,
    /// What was in the registers. Pointers are addresses in the caller's memory.
    pub args: [u64; 6],
    /// What was returned: a value, or a negative errno. 0 for `exit` and `exit_group`, which do not return.
    pub result: i64,
    /// From entry to return in nanoseconds.
    pub duration_ns: u64,
}

impl Syscall {
    /// The error number; 0 when it succeeded.
    #[must_use]
    pub fn errno(&self) -> u16 {
        match self.result {
            // The kernel's MAX_ERRNO.
            -4095..=-1 => u16::try_from(self.result.unsigned_abs()).unwrap_or(0),
            _ => 0,
        }
    }
}

/// What one process did with one system call in a while; all its threads together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SyscallSummary {
    /// Its name; empty when this version does not know the number.
    pub name: Cow<'static, str>,
    /// Its number, in the table of its architecture.
    pub number: u32,
    /// A call of a 32-bit program on a 64-bit kernel: another table of numbers.
    pub compat: bool,
    /// Calls that have returned; for `exit` and `exit_group`, which do not, calls.
    pub calls: u64,
    /// Of these, those that failed.
    pub errors: u64,
    /// Time in these calls in nanoseconds, waiting included.
    pub time_ns: u64,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

/// Records that never arrived, since the last such event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loss {
    /// What was lost: the name of a kind, `scope` for a process that could not be followed, or for the cause `skipped`
    /// the name of the program.
    pub of: String,
    /// Why: `ring` (the ring was full), `scratch` (preempted), `map` (a state map was full), `read` (memory of the
    /// caller could not be read), `decode` (unreadable), `parse` (what was said is not what is said there),
    /// `skipped` (the kernel did not run the program, because it was running already on that CPU).
    pub cause: String,
    /// How many.
    pub count: u64,
}

impl ProcessId {
    /// From start time and pid.
    #[must_use]
    pub fn new(start_ns: u64, pid: u32) -> Self {
        ProcessId { start_ns, pid }
    }
}

impl Process {
    /// The tool itself, where an event is about its own work.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn own(id: ProcessId) -> Self {
        Process {
            id,
            parent: ProcessId::new(0, 0),
            tid: id.pid,
            uid: 0,
            gid: 0,
            cgroup_id: 0,
            comm: String::new(),
            about: None,
        }
    }
}

impl Loss {
    /// So many of this kind, for this cause.
    #[must_use]
    pub fn new(of: impl Into<String>, cause: impl Into<String>, count: u64) -> Self {
        Loss {
            of: of.into(),
            cause: cause.into(),
            count,
        }
    }
}

impl Event {
    /// An event from its parts.
    #[must_use]
    pub fn new(time_ns: u64, process: Process, kind: Kind) -> Self {
        Event {
            time_ns,
            process,
            kind,
        }
    }

    /// Whether a path or arguments are cut off.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        match &self.kind {
            Kind::Exec(e) => {
                e.args_truncated || e.env_truncated || e.executable.truncated || e.cwd.truncated
            }
            Kind::Open(e) | Kind::Create(e) => e.path.truncated,
            Kind::Change(e) => e.path.truncated || e.from.as_ref().is_some_and(|p| p.truncated),
            Kind::Mount(e) | Kind::Umount(e) => e.path.truncated,
            Kind::FileSummary(e) => e.path.as_ref().is_some_and(|p| p.truncated),
            Kind::Unlink(e) => e.path.truncated,
            Kind::Rename(e) => e.from.truncated || e.to.truncated,
            Kind::Denial(e) => {
                matches!(&e.object, Denied::File { path, .. } if path.truncated)
            }
            Kind::DnsQuery(e) => e.truncated,
            Kind::DnsAnswer(e) => e.truncated,
            Kind::Profile(e) => e.truncated,
            _ => false,
        }
    }

    /// Whether the operation succeeded; `None` where it cannot fail.
    #[must_use]
    pub fn succeeded(&self) -> Option<bool> {
        match &self.kind {
            Kind::Open(e) | Kind::Create(e) => Some(e.errno == 0),
            Kind::Change(e) => Some(e.errno == 0),
            Kind::Mount(e) | Kind::Umount(e) => Some(e.errno == 0),
            Kind::Unlink(e) => Some(e.errno == 0),
            Kind::Rename(e) => Some(e.errno == 0),
            Kind::Denial(e) => Some(!e.refused),
            Kind::Exec(_) | Kind::Fork(_) | Kind::Accept(_) => Some(true),
            Kind::Syscall(e) => Some(e.errno() == 0),
            Kind::Connect(e) => Some(e.errno == 0),
            Kind::Close(e) => Some(e.errno == 0),
            Kind::Bind(e) => Some(e.errno == 0),
            Kind::Listen(e) => Some(e.errno == 0),
            Kind::UnixConnect(e) => Some(e.errno == 0),
            Kind::DnsAnswer(e) => Some(e.code == 0),
            Kind::RawSocket(e) => Some(e.errno == 0),
            Kind::Memory(e) => Some(e.errno == 0),
            Kind::Disk(e) => Some(e.errno == 0),
            Kind::Exit(_)
            | Kind::ProcessSummary(_)
            | Kind::FileSummary(_)
            | Kind::DiskSummary(_)
            | Kind::Profile(_)
            | Kind::MemorySummary(_)
            | Kind::MemoryAllocations(_)
            | Kind::MemoryOutstanding(_)
            | Kind::Oom(_)
            | Kind::SyscallSummary(_)
            | Kind::TcpState(_)
            | Kind::Retransmit(_)
            | Kind::DnsQuery(_)
            | Kind::Tls(_)
            | Kind::PortScan(_)
            | Kind::NetworkSummary(_)
            | Kind::Loss(_)
            | Kind::Sampled(_)
            | Kind::Suppressed(_)
            | Kind::Reload(_)
            | Kind::Gap(_) => None,
        }
    }
}

/// The path, with what is to be known about it: `.../b/c (deleted)`. In quotes where it could be mistaken for more.
impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.truncated { ".../" } else { "" };
        quote(f, prefix, &self.path)?;
        if self.deleted {
            f.write_str(" (deleted)")?;
        }
        if self.as_given {
            f.write_str(" (as given)")?;
        }
        Ok(())
    }
}

/// One line for people: `action pid=1 ppid=0 comm=init key=value`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_remark() {
            return write!(f, "{:<7} {}", self.kind.name(), self.kind);
        }
        let p = &self.process;
        let (pid, ppid, comm) = (p.id.pid, p.parent.pid, Quoted(&p.comm));
        write!(
            f,
            "{:<7} pid={pid} ppid={ppid} comm={comm} {}",
            self.kind.name(),
            self.kind
        )
    }
}

/// What happened without who did it: the `key=value` end of an event's line.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Exec(e) => {
                write!(f, "exe={} args=[", e.executable)?;
                for (i, arg) in e.args.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" ")?;
                    }
                    write!(f, "{}", Quoted(arg))?;
                }
                f.write_str("]")?;
                if e.args_truncated {
                    f.write_str("...")?;
                }
                if let Some(script) = &e.script {
                    write!(f, " script={}", Quoted(script))?;
                }
                if let Some(interpreter) = &e.interpreter {
                    write!(f, " interpreter={}", Quoted(interpreter))?;
                }
                write!(f, " cwd={}", e.cwd)?;
                if !e.env.is_empty() || e.env_truncated {
                    f.write_str(" env=[")?;
                    for (i, variable) in e.env.iter().enumerate() {
                        let before = if i > 0 { " " } else { "" };
                        write!(f, "{before}{}", Quoted(variable))?;
                    }
                    f.write_str(if e.env_truncated { "]..." } else { "]" })?;
                }
                e.write_rights(f)
            }
            Kind::Fork(e) => write!(f, "child={}{}", e.child.pid, e.namespaces),
            Kind::Exit(e) => {
                write!(
                    f,
                    "{} user={:.1}ms system={:.1}ms rss={}KiB lived={:.1}ms",
                    Status(e.code, e.signal, e.core_dumped),
                    e.user_ns as f64 / 1e6,
                    e.system_ns as f64 / 1e6,
                    e.max_rss_bytes / 1024,
                    e.lifetime_ns as f64 / 1e6
                )
            }
            Kind::ProcessSummary(e) => e.fmt(f),
            Kind::Open(e) | Kind::Create(e) => {
                write!(f, "path={} flags=", e.path)?;
                names::write_flags(f, e.flags, |flags, each| names::open_flags(flags, each))?;
                write!(f, "{}", Failed(e.errno))
            }
            Kind::Unlink(e) => write!(f, "path={}{}", e.path, Failed(e.errno)),
            Kind::Rename(e) => {
                write!(f, "from={} to={}", e.from, e.to)?;
                if e.flags != 0 {
                    f.write_str(" flags=")?;
                    names::write_flags(f, e.flags, |flags, each| names::rename_flags(flags, each))?;
                }
                write!(f, "{}", Failed(e.errno))
            }
            Kind::Change(e) => e.fmt(f),
            Kind::Mount(e) => e.write(f, |flags, each| names::mount_flags(flags, each)),
            Kind::Umount(e) => e.write(f, |flags, each| names::umount_flags(flags, each)),
            Kind::Denial(e) => e.fmt(f),
            Kind::Syscall(e) => {
                write_call(f, CallName(&e.name, e.number, e.compat), &e.args)?;
                if e.errno() == 0 {
                    write!(f, " = {}", e.result)?;
                }
                write!(
                    f,
                    "{} took={:.1}us",
                    Failed(e.errno()),
                    e.duration_ns as f64 / 1e3
                )
            }
            Kind::SyscallSummary(e) => write!(
                f,
                "{} calls={} errors={} time={:.3}ms in={:.1}s",
                CallName(&e.name, e.number, e.compat),
                e.calls,
                e.errors,
                e.time_ns as f64 / 1e6,
                e.window_ns as f64 / 1e9
            ),
            Kind::Connect(e) => e.fmt(f),
            Kind::Accept(e) => e.flow.fmt(f),
            Kind::Close(e) => e.fmt(f),
            Kind::Bind(e) => e.fmt(f),
            Kind::Listen(e) => e.fmt(f),
            Kind::TcpState(e) => e.fmt(f),
            Kind::Retransmit(e) => e.flow.fmt(f),
            Kind::UnixConnect(e) => e.fmt(f),
            Kind::DnsQuery(e) => e.fmt(f),
            Kind::DnsAnswer(e) => e.fmt(f),
            Kind::Tls(e) => e.fmt(f),
            Kind::RawSocket(e) => e.fmt(f),
            Kind::PortScan(e) => e.fmt(f),
            Kind::NetworkSummary(e) => e.fmt(f),
            Kind::Memory(e) => write!(f, "{e}"),
            Kind::MemorySummary(e) => write!(f, "{e}"),
            Kind::MemoryAllocations(e) => e.fmt(f),
            Kind::MemoryOutstanding(e) => e.fmt(f),
            Kind::Oom(e) => write!(f, "{e}"),
            Kind::Disk(e) => e.fmt(f),
            Kind::DiskSummary(e) => e.fmt(f),
            Kind::FileSummary(e) => e.fmt(f),
            Kind::Profile(e) => e.fmt(f),
            Kind::Loss(e) => write!(f, "{} {} ({})", e.count, Quoted(&e.of), Quoted(&e.cause)),
            Kind::Sampled(e) => e.fmt(f),
            Kind::Suppressed(e) => e.fmt(f),
            Kind::Gap(e) => e.fmt(f),
            Kind::Reload(e) => {
                let rules = if e.rules == 1 { "rule" } else { "rules" };
                let (policy, mode) = (Quoted(&e.policy), &e.mode);
                write!(
                    f,
                    "{policy} ({mode}): {} {rules} on {}",
                    e.rules,
                    e.objects()
                )
            }
        }
    }
}

/// How a process ended: exit code, signal, whether a core was dumped.
struct Status(Option<u8>, Option<u8>, bool);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(code), _) => write!(f, "code={code}")?,
            (None, signal) => match names::signal(signal.unwrap_or(0)) {
                Some(name) => write!(f, "signal={name}")?,
                None => write!(f, "signal={}", signal.unwrap_or(0))?,
            },
        }
        f.write_str(if self.2 { " (core dumped)" } else { "" })
    }
}

/// Writes a name so that it ends where it ends: in quotes when it is empty or holds a space, a quote or a bracket, so
/// that a file called `a errno=EPERM` adds no field. Control characters never get through, also where the name is not
/// the kernel's and nobody escaped it.
fn quote(f: &mut fmt::Formatter<'_>, prefix: &str, name: &str) -> fmt::Result {
    // Escaped already, except for the quote itself.
    let needs_quotes = name.is_empty()
        || name
            .chars()
            .any(|c| c.is_whitespace() || matches!(c, '"' | '[' | ']' | '(' | ')'));
    if !needs_quotes && !name.contains(char::is_control) {
        f.write_str(prefix)?;
        return f.write_str(name);
    }
    f.write_str("\"")?;
    f.write_str(prefix)?;
    for c in name.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            c if c.is_control() => write!(f, "{}", c.escape_default())?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// A name as it stands in a line, in quotes where it needs them.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote(f, "", self.0)
    }
}

/// A system call's name, or its number where it has none, and whether it is one of the other table.
struct CallName<'a>(&'a str, u32, bool);

/// As it would be written in C.
fn write_call(f: &mut fmt::Formatter<'_>, name: CallName<'_>, args: &[u64; 6]) -> fmt::Result {
    write!(f, "{name}(")?;
    for (i, arg) in args.iter().enumerate() {
        write!(f, "{}{arg:#x}", if i > 0 { ", " } else { "" })?;
    }
    f.write_str(")")
}

impl fmt::Display for CallName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => write!(f, "syscall_{}", self.1)?,
            name => f.write_str(name)?,
        }
        f.write_str(if self.2 { "/32" } else { "" })
    }
}

struct Failed(u16);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, names::errno(self.0)) {
            (0, _) => Ok(()),
            (_, Some(name)) => write!(f, " errno={name}"),
            (number, None) => write!(f, " errno={number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_has_those_that_there_are() {
        let mut names: Vec<&str> = Vec::new();
        for event in sample::samples() {
            if !names.contains(&event.kind.name()) {
                names.push(event.kind.name());
            }
        }
        names.sort_unstable();
        let mut listed = KINDS.to_vec();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }

    #[test]
    fn a_name_cannot_add_a_field_to_its_line() {
        let path = |path: &str| FilePath {
            path: path.into(),
            ..FilePath::default()
        };
        assert_eq!(path("/tmp/a").to_string(), "/tmp/a");
        assert_eq!(
            path("/tmp/a errno=EPERM").to_string(),
            r#""/tmp/a errno=EPERM""#
        );
        assert_eq!(
            path(r#"/tmp/" errno=EPERM"#).to_string(),
            r#""/tmp/\" errno=EPERM""#
        );
        assert_eq!(
            path("/tmp/a (deleted)").to_string(),
            r#""/tmp/a (deleted)""#
        );
        assert_eq!(path("/tmp/a\u{a0}b").to_string(), "\"/tmp/a\u{a0}b\"");
        assert_eq!(path("").to_string(), r#""""#);
    }

    #[test]
    fn a_path_says_how_far_it_can_be_trusted() {
        let path = FilePath {
            path: "b/c".into(),
            truncated: true,
            deleted: true,
            as_given: true,
        };
        assert_eq!(path.to_string(), ".../b/c (deleted) (as given)");
    }
}
