//! What the fence refused.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CallName, Failed, FileId, FilePath, Quoted, Transport, write_call};

/// What refuses or tells without a hook, as denials and the fence's state name it.
pub(crate) mod mechanism {
    /// Refuses system calls.
    pub(crate) const SECCOMP: &str = "seccomp";
    /// Counts them.
    pub(crate) const TRACEPOINT: &str = "tracepoint";
}

/// The fence refused an access, or would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Denial {
    /// Number of the rule in the armed policy.
    pub rule: u32,
    /// The rule's id, once the session has filled it in.
    pub rule_id: String,
    /// The line that the rule begins at; 0 for one that is in no file.
    #[serde(default)]
    pub rule_line: u32,
    /// What refuses it: `lsm`, `fmod_ret` or `seccomp`, or `tracepoint` where a system call can only be told, or killed for;
    /// empty where nobody has said so.
    #[serde(default)]
    pub mechanism: Arc<str>,
    /// From whom the process descends: its parent first, then on to init.
    #[serde(default)]
    pub ancestors: Arc<[Ancestor]>,
    /// What was asked, comma-separated: `read,write`.
    pub access: String,
    /// True: refused. False: audit, the access went on.
    pub refused: bool,
    /// The process was sent SIGKILL as well.
    #[serde(default)]
    pub killed: bool,
    /// The positive errno that was answered; 0 where it was not refused.
    #[serde(default)]
    pub errno: u16,
    /// The rule allows others, and none allows this one.
    pub unlisted: bool,
    /// Of an address, the name of a host in the policy that has it: the one that the rule means, where it means one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    /// Its number, from 1; 0: none.
    #[serde(skip)]
    pub(crate) host_number: u32,
    /// What was to be accessed.
    pub object: Denied,
}

/// A process that another one descends from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ancestor {
    /// Its pid.
    pub pid: u32,
    /// What it executes, as the host sees the path, escaped; `None`: it had ended before anybody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<Arc<str>>,
}

/// What the fence refused an access to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Denied {
    /// A file.
    File {
        /// Which path.
        path: FilePath,
        /// `path` starts at the root of its file system: the hook does not know the mount.
        path_in_fs: bool,
        /// Which file; inode 0 for one that was to be made.
        file: FileId,
    },
    /// An address, and a port of it.
    Address {
        /// What was to carry the bytes; `None`: neither TCP nor UDP.
        transport: Option<Transport>,
        /// Which one; IPv4 also where an IPv6 socket was to speak it.
        address: SocketAddr,
        /// An address of this machine, and not one to reach.
        own: bool,
    },
    /// A socket that reaches whomever it likes: raw packets, or ways that the fence cannot judge.
    Socket {
        /// `AF_…`, as the kernel numbers them.
        family: u16,
        /// As it was asked for.
        protocol: u16,
    },
    /// A system call.
    Syscall {
        /// Its name; empty when this version does not know the number. Of `socketcall` and `ipc`, what they were asked for.
        name: Cow<'static, str>,
        /// Its number, in the table of its architecture.
        number: u32,
        /// A call of a 32-bit program on a 64-bit kernel: another table of numbers.
        compat: bool,
        /// What was in the registers. Pointers are addresses in the caller's memory.
        args: [u64; 6],
    },
    /// More of something than a limit lets through.
    Limit {
        /// What it counts: `forks`, `threads`, `connections`, `bytes` or `syscalls`.
        counted: Cow<'static, str>,
        /// How much was asked for at once; `None` where nobody can tell.
        amount: Option<u64>,
        /// Of `syscalls`, which one.
        call: Option<LimitedCall>,
    },
    /// The fence itself, which is kept from who is held by it.
    Guarded {
        /// What of it: `map`, `pin`, `mount` or `monitor`.
        of: Cow<'static, str>,
    },
}

/// A system call that a limit counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitedCall {
    /// Its name; empty when this version does not know the number.
    pub name: Cow<'static, str>,
    /// Its number, in the table of its architecture.
    pub number: u32,
    /// A call of a 32-bit program on a 64-bit kernel: another table of numbers.
    pub compat: bool,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::File {
                path, path_in_fs, ..
            } => {
                let key = if *path_in_fs { "path_in_fs" } else { "path" };
                write!(f, "{key}={path}")
            }
            Denied::Address {
                transport,
                address,
                own,
            } => {
                f.write_str(if *own { "at=" } else { "to=" })?;
                if let Some(transport) = transport {
                    write!(f, "{}:", transport.name())?;
                }
                write!(f, "{address}")
            }
            Denied::Socket { family, protocol } => {
                write!(
                    f,
                    "socket={} protocol={protocol:#x}",
                    socket_family(*family)
                )
            }
            Denied::Syscall {
                name,
                number,
                compat,
                args,
            } => {
                f.write_str("call=")?;
                write_call(f, CallName(name, *number, *compat), args)
            }
            Denied::Guarded { of } => write!(f, "guarded={}", Quoted(of)),
            Denied::Limit {
                counted,
                amount,
                call,
            } => {
                write!(f, "limit={counted}")?;
                match amount {
                    Some(1) => {}
                    Some(amount) => write!(f, " amount={amount}")?,
                    None => f.write_str(" amount=unknown")?,
                }
                match call {
                    Some(call) => write!(
                        f,
                        " call={}",
                        CallName(&call.name, call.number, call.compat)
                    ),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.refused, self.killed) {
            (_, true) => "KILLED rule=",
            (true, false) => "DENIED rule=",
            (false, false) => "would deny rule=",
        })?;
        if self.rule_id.is_empty() {
            write!(f, "#{}", self.rule)?;
        } else {
            write!(f, "{}", Quoted(&self.rule_id))?;
        }
        write!(f, " access={} {}", Quoted(&self.access), self.object)?;
        if let Some(host) = &self.host {
            write!(f, " host={host}")?;
        }
        // What everybody expects goes without saying.
        match self.errno {
            0 | 1 => Ok(()),
            errno => write!(f, "{}", Failed(errno)),
        }
    }
}

/// A socket's family, by its name where it has one here.
#[must_use]
pub fn socket_family(number: u16) -> Cow<'static, str> {
    // include/linux/socket.h
    Cow::Borrowed(match number {
        2 => "ipv4",
        10 => "ipv6",
        17 => "packet",
        21 => "rds",
        29 => "can",
        30 => "tipc",
        31 => "bluetooth",
        40 => "vsock",
        42 => "qipcrtr",
        43 => "smc",
        44 => "xdp",
        other => return Cow::Owned(other.to_string()),
    })
}
