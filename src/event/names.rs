//! What Linux calls its numbers: errnos, signals, capabilities, flags of open(2), renameat2(2), mount(2) and umount2(2).
//!
//! The tables are those of x86 and arm (asm-generic); a number without a name stays a number.

use std::fmt;

#[cfg(target_arch = "aarch64")]
use syscalls::{aarch64 as native, arm as compat};
#[cfg(not(target_arch = "aarch64"))]
use syscalls::{x86 as compat, x86_64 as native};

/// errno-base.h and errno.h of include/uapi/asm-generic, 6.12; the index is the number.
#[rustfmt::skip]
const ERRNOS: [&str; 134] = [
    "", "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF", "ECHILD", "EAGAIN", "ENOMEM",
    "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR", "EISDIR", "EINVAL", "ENFILE",
    "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE", "EROFS", "EMLINK", "EPIPE", "EDOM", "ERANGE",
    "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP", "", "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC",
    "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH", "ENOCSI", "EL2HLT", "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC",
    "EBADSLT", "", "EBFONT", "ENOSTR", "ENODATA", "ETIME", "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV",
    "ESRMNT", "ECOMM", "EPROTO", "EMULTIHOP", "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG",
    "ELIBACC", "ELIBBAD", "ELIBSCN", "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK",
    "EDESTADDRREQ", "EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP",
    "EPFNOSUPPORT", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL", "ENETDOWN", "ENETUNREACH", "ENETRESET",
    "ECONNABORTED", "ECONNRESET", "ENOBUFS", "EISCONN", "ENOTCONN", "ESHUTDOWN", "ETOOMANYREFS", "ETIMEDOUT",
    "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EALREADY", "EINPROGRESS", "ESTALE", "EUCLEAN", "ENOTNAM", "ENAVAIL",
    "EISNAM", "EREMOTEIO", "EDQUOT", "ENOMEDIUM", "EMEDIUMTYPE", "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED",
    "EKEYREJECTED", "EOWNERDEAD", "ENOTRECOVERABLE", "ERFKILL", "EHWPOISON",
];

/// The numbers that never leave the kernel but are what a hook inside it sees (include/linux/errno.h, 6.12).
const INTERNAL_ERRNOS: [(u16, &str); 19] = [
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (515, "ENOIOCTLCMD"),
    (516, "ERESTART_RESTARTBLOCK"),
    (517, "EPROBE_DEFER"),
    (518, "EOPENSTALE"),
    (519, "ENOPARAM"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (527, "EBADTYPE"),
    (528, "EJUKEBOX"),
    (529, "EIOCBQUEUED"),
    (530, "ERECALLCONFLICT"),
    (531, "ENOGRACE"),
];

/// include/uapi/linux/capability.h, 6.12; the index is the number.
#[rustfmt::skip]
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];

/// Signals 1 to 31 of x86 and arm.
#[rustfmt::skip]
const SIGNALS: [&str; 32] = [
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
    "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR",
    "SIGSYS",
];

/// The four that arm has elsewhere (arch/arm64/include/uapi/asm/fcntl.h): O_DIRECTORY, O_NOFOLLOW, O_DIRECT,
/// O_LARGEFILE.
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const MOVED: [u32; 4] = [0o40_000, 0o100_000, 0o200_000, 0o400_000];
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const MOVED: [u32; 4] = [0o200_000, 0o400_000, 0o40_000, 0o100_000];

const O_ACCMODE: u32 = 0o3;
const O_PATH: u32 = 0o10_000_000;

/// Names of more than one bit stand before those of their parts. fcntl.h of include/uapi/asm-generic, 6.12.
const OPEN_FLAGS: [(u32, &str); 17] = [
    (0o20_000_000 | MOVED[0], "O_TMPFILE"),
    (0o4_010_000, "O_SYNC"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1_000, "O_TRUNC"),
    (0o2_000, "O_APPEND"),
    (0o4_000, "O_NONBLOCK"),
    (0o10_000, "O_DSYNC"),
    (0o20_000, "O_ASYNC"),
    (MOVED[0], "O_DIRECTORY"),
    (MOVED[1], "O_NOFOLLOW"),
    (MOVED[2], "O_DIRECT"),
    (MOVED[3], "O_LARGEFILE"),
    (0o1_000_000, "O_NOATIME"),
    (O_PATH, "O_PATH"),
];

/// include/uapi/linux/fs.h.
const RENAME_FLAGS: [(u32, &str); 3] = [
    (1, "RENAME_NOREPLACE"),
    (2, "RENAME_EXCHANGE"),
    (4, "RENAME_WHITEOUT"),
];

/// include/uapi/linux/mount.h.
const MOUNT_FLAGS: [(u32, &str); 23] = [
    (1 << 0, "MS_RDONLY"),
    (1 << 1, "MS_NOSUID"),
    (1 << 2, "MS_NODEV"),
    (1 << 3, "MS_NOEXEC"),
    (1 << 4, "MS_SYNCHRONOUS"),
    (1 << 5, "MS_REMOUNT"),
    (1 << 6, "MS_MANDLOCK"),
    (1 << 7, "MS_DIRSYNC"),
    (1 << 8, "MS_NOSYMFOLLOW"),
    (1 << 10, "MS_NOATIME"),
    (1 << 11, "MS_NODIRATIME"),
    (1 << 12, "MS_BIND"),
    (1 << 13, "MS_MOVE"),
    (1 << 14, "MS_REC"),
    (1 << 15, "MS_SILENT"),
    (1 << 16, "MS_POSIXACL"),
    (1 << 17, "MS_UNBINDABLE"),
    (1 << 18, "MS_PRIVATE"),
    (1 << 19, "MS_SLAVE"),
    (1 << 20, "MS_SHARED"),
    (1 << 21, "MS_RELATIME"),
    (1 << 24, "MS_STRICTATIME"),
    (1 << 25, "MS_LAZYTIME"),
];

/// include/linux/fs.h.
const UMOUNT_FLAGS: [(u32, &str); 4] = [
    (1 << 0, "MNT_FORCE"),
    (1 << 1, "MNT_DETACH"),
    (1 << 2, "MNT_EXPIRE"),
    (1 << 3, "UMOUNT_NOFOLLOW"),
];

/// The name of an errno.
pub(crate) fn errno(number: u16) -> Option<&'static str> {
    match ERRNOS.get(usize::from(number)) {
        Some(name) => Some(*name).filter(|name| !name.is_empty()),
        None => INTERNAL_ERRNOS
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, name)| *name),
    }
}

/// The name of a type of DNS records. The list of IANA, without those that nobody uses.
pub(crate) fn dns_type(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        _ => return None,
    })
}

/// The name of a DNS class.
pub(crate) fn dns_class(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "IN",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        255 => "ANY",
        _ => return None,
    })
}

/// The name of a DNS response code.
pub(crate) fn dns_code(number: u16) -> Option<&'static str> {
    Some(match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        23 => "BADCOOKIE",
        _ => return None,
    })
}

/// The name of a state of a TCP connection (include/net/tcp_states.h).
pub(crate) fn tcp_state(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "established",
        2 => "syn_sent",
        3 => "syn_recv",
        4 => "fin_wait1",
        5 => "fin_wait2",
        6 => "time_wait",
        7 => "close",
        8 => "close_wait",
        9 => "last_ack",
        10 => "listen",
        11 => "closing",
        12 => "new_syn_recv",
        13 => "bound_inactive",
        _ => return None,
    })
}

/// The name of a signal.
pub(crate) fn signal(number: u8) -> Option<&'static str> {
    SIGNALS
        .get(usize::from(number))
        .copied()
        .filter(|name| !name.is_empty())
}

/// Gives `each` the names in a set of open(2) flags, the access mode first; returns the bits that have none.
pub(crate) fn open_flags(flags: u32, mut each: impl FnMut(&'static str)) -> u32 {
    // O_PATH ignores the access mode, and 0 would read as O_RDONLY.
    if flags & O_PATH == 0 {
        each(match flags & O_ACCMODE {
            0 => "O_RDONLY",
            1 => "O_WRONLY",
            2 => "O_RDWR",
            // ioctl(2) alone; Linux has no other name for both bits.
            _ => "O_ACCMODE",
        });
        named(flags & !O_ACCMODE, &OPEN_FLAGS, each)
    } else {
        named(flags, &OPEN_FLAGS, each)
    }
}

/// Likewise for renameat2(2).
pub(crate) fn rename_flags(flags: u32, each: impl FnMut(&'static str)) -> u32 {
    named(flags, &RENAME_FLAGS, each)
}

/// Likewise for mount(2).
pub(crate) fn mount_flags(flags: u32, each: impl FnMut(&'static str)) -> u32 {
    named(flags, &MOUNT_FLAGS, each)
}

/// Likewise for umount2(2).
pub(crate) fn umount_flags(flags: u32, each: impl FnMut(&'static str)) -> u32 {
    named(flags, &UMOUNT_FLAGS, each)
}

fn named(mut rest: u32, table: &[(u32, &'static str)], mut each: impl FnMut(&'static str)) -> u32 {
    for &(bits, name) in table {
        if rest == 0 {
            break;
        }
        if rest & bits == bits {
            each(name);
            rest &= !bits;
        }
    }
    rest
}

/// Likewise for a set of capabilities, a bit for each number.
pub(crate) fn capabilities(set: u64, each: &mut dyn FnMut(&'static str)) -> u64 {
    for (bit, name) in CAPABILITIES.iter().enumerate() {
        if set & 1 << bit != 0 {
            each(name);
        }
    }
    set >> CAPABILITIES.len() << CAPABILITIES.len()
}

/// Writes flags as `A|B|0x40`; nothing for none.
pub(super) fn write_flags<T: fmt::LowerHex + Default + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    flags: T,
    names: fn(T, &mut dyn FnMut(&'static str)) -> T,
) -> fmt::Result {
    let mut result = Ok(());
    let mut separator = "";
    let rest = names(flags, &mut |name| {
        result = result
            .and_then(|()| f.write_str(separator))
            .and_then(|()| f.write_str(name));
        separator = "|";
    });
    result?;
    if rest != T::default() {
        write!(f, "{separator}{rest:#x}")?;
    }
    Ok(())
}

/// Name of a system call in the machine's own table (0) or in that of 32-bit programs (1); empty when it has none.
pub(crate) fn syscall(table: u32, number: u32) -> &'static str {
    let number = number as usize;
    match table {
        0 => native::Sysno::new(number).map_or("", |s| s.name()),
        _ => compat::Sysno::new(number).map_or("", |s| s.name()),
    }
}

/// Number of a system call in the machine's own table and in that of 32-bit programs.
pub(crate) fn syscall_numbers(name: &str) -> [Option<u32>; 2] {
    [
        name.parse().ok().map(|s: native::Sysno| s as u32),
        name.parse().ok().map(|s: compat::Sysno| s as u32),
    ]
}

/// What a call of 32-bit programs that stands for several is asked for by its first argument, and the bits that say so.
pub(crate) fn asked_of(table: u32, name: &str) -> Option<(&'static [&'static str], u64)> {
    match (table, name) {
        (1, "socketcall") => Some((&OF_SOCKETCALL, u64::MAX)),
        (1, "ipc") => Some((&OF_IPC, 0xffff)),
        _ => None,
    }
}

/// Of socketcall(2) (include/uapi/linux/net.h).
#[rustfmt::skip]
const OF_SOCKETCALL: [&str; 21] = [
    "", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "sendto", "recvfrom",
    "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
];

/// Of ipc(2) (include/uapi/linux/ipc.h).
#[rustfmt::skip]
const OF_IPC: [&str; 25] = [
    "", "semop", "semget", "semctl", "semtimedop", "", "", "", "", "", "", "msgsnd", "msgrcv", "msgget", "msgctl", "", "",
    "", "", "", "", "shmat", "shmdt", "shmget", "shmctl",
];

/// Every name that a system call has in one of the tables, some of them more than once.
pub(crate) fn syscalls() -> impl Iterator<Item = &'static str> {
    use syscalls::{aarch64, arm, x86, x86_64};
    let names = |name: fn(usize) -> Option<&'static str>| {
        // No table goes further.
        (0..1024).filter_map(name)
    };
    names(|n| x86_64::Sysno::new(n).map(|s| s.name()))
        .chain(names(|n| x86::Sysno::new(n).map(|s| s.name())))
        .chain(names(|n| aarch64::Sysno::new(n).map(|s| s.name())))
        .chain(names(|n| arm::Sysno::new(n).map(|s| s.name())))
}

/// Whether 64-bit programs on x86 have a system call of this name.
pub(crate) fn is_syscall_of_x86_64(name: &str) -> bool {
    name.parse::<syscalls::x86_64::Sysno>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(flags: u32) -> (Vec<&'static str>, u32) {
        let mut names = Vec::new();
        let rest = open_flags(flags, |name| names.push(name));
        (names, rest)
    }

    #[test]
    fn numbers_that_linux_does_not_use_have_no_name() {
        assert_eq!(errno(1), Some("EPERM"));
        assert_eq!(errno(13), Some("EACCES"));
        assert_eq!(errno(40), Some("ELOOP"));
        assert_eq!(errno(95), Some("EOPNOTSUPP"));
        assert_eq!(errno(116), Some("ESTALE"));
        assert_eq!(errno(133), Some("EHWPOISON"));
        assert_eq!(errno(512), Some("ERESTARTSYS"));
        for unused in [0, 41, 58, 134, 511, 520] {
            assert_eq!(errno(unused), None, "{unused}");
        }
        assert_eq!(signal(9), Some("SIGKILL"));
        assert_eq!(signal(31), Some("SIGSYS"));
        assert_eq!(signal(0), None);
        assert_eq!(signal(34), None);
    }

    #[test]
    fn every_bit_of_open_flags_is_named_once_or_returned() {
        assert_eq!(open(0), (vec!["O_RDONLY"], 0));
        assert_eq!(open(0o2_000_001), (vec!["O_WRONLY", "O_CLOEXEC"], 0));
        assert_eq!(open(0o3), (vec!["O_ACCMODE"], 0));
        assert_eq!(open(O_PATH | 0o2_000_000), (vec!["O_CLOEXEC", "O_PATH"], 0));
        assert_eq!(open(0o4_010_002), (vec!["O_RDWR", "O_SYNC"], 0));
        assert_eq!(open(0o10_002), (vec!["O_RDWR", "O_DSYNC"], 0));
        assert_eq!(
            open(0o20_000_002 | MOVED[0]),
            (vec!["O_RDWR", "O_TMPFILE"], 0)
        );
        // O_TMPFILE without its directory bit is no flag at all.
        assert_eq!(open(0o20_000_000), (vec!["O_RDONLY"], 0o20_000_000));
        assert_eq!(open(0x20), (vec!["O_RDONLY"], 0x20));
        for bit in 0..32 {
            let (names, rest) = open(1 << bit);
            assert!(
                rest == 0 || rest == 1 << bit,
                "bit {bit}: {names:?} {rest:#x}"
            );
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_four_movable_flags_are_where_x86_has_them() {
        assert_eq!(open(0o200_000).0, ["O_RDONLY", "O_DIRECTORY"]);
        assert_eq!(open(0o400_000).0, ["O_RDONLY", "O_NOFOLLOW"]);
        assert_eq!(open(0o40_000).0, ["O_RDONLY", "O_DIRECT"]);
        assert_eq!(open(0o100_000).0, ["O_RDONLY", "O_LARGEFILE"]);
    }
}
