//! The contract with the kernel half: mirrors of the records in `src/bpf/wire.h`, and their decoding into events.
//!
//! Everything here compiles on every system; on Linux the build compares each mirror with the type in the compiled
//! object (`kernel::layout`). Decoding never panics: what is too short, too long or unknown is an error that is counted.

use std::net::Ipv6Addr;

mod decode;
mod disk;
#[cfg(test)]
pub(crate) mod sample;

#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use decode::{Decoder, Malformed, WaitStatus, denied_rule, process_of, scale_cpu_time};
#[cfg(stockade_kernel)]
pub(crate) use disk::{disk_device, disk_operation};
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use network::{
    NetDenialRecord, NetKey, NetRecord, NetSum, Payload, PayloadRecord, RawFlow, RawSocketRecord,
    TcpStateRecord, UnixRecord, address, payload, transport,
};

/// Values of `enum stk_kind`.
pub(crate) mod kind {
    pub(crate) const EXEC: u32 = 1;
    pub(crate) const FORK: u32 = 2;
    pub(crate) const EXIT: u32 = 3;
    pub(crate) const OPEN: u32 = 4;
    pub(crate) const UNLINK: u32 = 5;
    pub(crate) const RENAME: u32 = 6;
    pub(crate) const DENIAL: u32 = 7;
    pub(crate) const SYSCALL: u32 = 9;
    pub(crate) const CONNECT: u32 = 10;
    pub(crate) const ACCEPT: u32 = 11;
    pub(crate) const CLOSE: u32 = 12;
    pub(crate) const BIND: u32 = 13;
    pub(crate) const LISTEN: u32 = 14;
    pub(crate) const RETRANSMIT: u32 = 15;
    pub(crate) const UNIX_CONNECT: u32 = 16;
    pub(crate) const MEMORY: u32 = 18;
    pub(crate) const OOM: u32 = 19;
    pub(crate) const DISK: u32 = 20;
    // 21 to 23 are losses of profiles and not records.
    pub(crate) const CREATE: u32 = 24;
    pub(crate) const LINK: u32 = 25;
    #[cfg(test)]
    pub(crate) const SETATTR: u32 = 30;
    pub(crate) const MOUNT: u32 = 32;
    pub(crate) const DNS: u32 = 33;
    pub(crate) const TLS: u32 = 34;
    pub(crate) const RAW_SOCKET: u32 = 35;
    pub(crate) const TCP_STATE: u32 = 38;
    pub(crate) const NET_DENIAL: u32 = 39;
    pub(crate) const CALL_DENIAL: u32 = 40;
    pub(crate) const LIMIT_DENIAL: u32 = 41;
    pub(crate) const GUARD_DENIAL: u32 = 42;
    pub(crate) const MAX: u32 = 43;

    /// Names by value, for losses.
    pub(crate) const NAMES: [&str; MAX as usize] = [
        "none",
        "exec",
        "fork",
        "exit",
        "open",
        "unlink",
        "rename",
        "denial",
        "scope",
        "syscall",
        "connect",
        "accept",
        "close",
        "bind",
        "listen",
        "retransmit",
        "unix_connect",
        "network",
        "memory",
        "oom",
        "disk",
        "profile",
        "stack",
        "off_cpu",
        "create",
        "link",
        "symlink",
        "mkdir",
        "rmdir",
        "mknod",
        "setattr",
        "xattr",
        "mount",
        "dns",
        "tls",
        "raw_socket",
        "file",
        "allocation",
        "tcp_state",
        "net_denial",
        "call_denial",
        "limit_denial",
        "guard_denial",
    ];

    /// Records that are told as events of other names than theirs.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) const TOLD_AS: &[(&str, &[&str])] = &[
        ("dns", &["dns_query", "dns_answer"]),
        ("setattr", &["chmod", "chown", "utimes", "truncate"]),
        ("xattr", &["setxattr", "removexattr"]),
        ("mount", &["mount", "umount"]),
    ];
}

/// Values of `enum stk_loss`.
pub(crate) mod loss {
    pub(crate) const SAMPLED: u32 = 3;
    pub(crate) const THINNED: u32 = 4;
    pub(crate) const LIMITED: u32 = 5;
    pub(crate) const MAX: u32 = 7;

    /// Names by value.
    pub(crate) const NAMES: [&str; MAX as usize] = [
        "ring", "scratch", "map", "sampled", "thinned", "limited", "read",
    ];
}

/// Values of `enum stk_flag`.
pub(crate) mod flag {
    pub(crate) const ARGS_CUT: u32 = 1 << 0;
    pub(crate) const ARGS_UNREAD: u32 = 1 << 1;
    pub(crate) const PATH_CUT: u32 = 1 << 2;
    pub(crate) const CWD_CUT: u32 = 1 << 3;
    pub(crate) const PATH2_CUT: u32 = 1 << 4;
    pub(crate) const DELETED: u32 = 1 << 5;
    pub(crate) const NO_MOUNT: u32 = 1 << 6;
    pub(crate) const AS_GIVEN: u32 = 1 << 7;
    pub(crate) const SCRIPT: u32 = 1 << 8;
    pub(crate) const BEFORE: u32 = 1 << 9;
    pub(crate) const UNLINKED: u32 = 1 << 10;
    pub(crate) const MEMFD: u32 = 1 << 11;
    pub(crate) const ENV_CUT: u32 = 1 << 12;
    pub(crate) const UNLISTED: u32 = 1 << 14;
}

/// Values of `enum stk_call_slot`.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
pub(crate) mod call_slot {
    pub(crate) const NUMBERS: u32 = 960;
    pub(crate) const SOCKET: u32 = 961;
    pub(crate) const IPC: u32 = 985;
    pub(crate) const CANARY: u32 = 1022;
    pub(crate) const SLOTS: u32 = 1024;
}

/// Values of `enum stk_env`.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
pub(crate) mod env_choice {
    pub(crate) const NAMES: u32 = 1;
    pub(crate) const VALUES: u32 = 2;
}

/// Names of the bits of `enum stk_access`, from bit 0 on.
pub(crate) const ACCESS_NAMES: [&str; ACCESS_KINDS] = [
    "read", "write", "exec", "create", "delete", "replace", "link", "metadata", "mount", "connect",
    "send", "bind", "listen", "accept",
];

/// Values of `enum stk_verdict` that reach a record.
pub(crate) const VERDICT_DENY: u16 = 2;
pub(crate) const VERDICT_KILL: u16 = 3;
/// `STK_NS_MAX`: kinds of namespaces, in the order of `enum stk_namespace`.
pub(crate) const NAMESPACES: usize = 8;
/// `STK_NO_LOGIN`: nobody has logged in.
pub(crate) const NO_LOGIN: u32 = u32::MAX;
/// `STK_PATH_BUF`: the path buffer of a denial.
pub(crate) const PATH_BUF: usize = 4352;
/// `STK_ACCESS_KINDS`: bits of an access mask.
pub(crate) const ACCESS_KINDS: usize = 14;
/// `STK_RULE_CANARY`: the rule number of our own probe file.
pub(crate) const RULE_CANARY: u32 = 0x3fff_ffff;
/// `STK_RULE_GUARD`: the rule number of what the fence keeps to itself.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) const RULE_GUARD: u32 = 0x3fff_fffe;
/// `STK_GUARD_KINDS`.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) const GUARD_KINDS: u32 = 8;
/// `STK_GUARDED_MAPS`: as many maps can be guarded.
pub(crate) const GUARDED_MAPS: u32 = 64;
/// `STK_GUARDED_HELD`, `STK_GUARDED_CANARY`: from whom.
pub(crate) const GUARDED_HELD: u8 = 1;
pub(crate) const GUARDED_CANARY: u8 = 2;
/// `STK_RULE_NONE`.
pub(crate) const RULE_NONE: u32 = 0x7fff_ffff;
/// `STK_NAME_MAX`: a name and its NUL.
pub(crate) const NAME_MAX: usize = 256;
/// `STK_HASHED_PIECE`: bytes of a name that are hashed at a time.
pub(crate) const HASHED_PIECE: usize = 32;

/// Mirrors a record: `#[repr(C)]`, readable from bytes.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),+ }

        // SAFETY: `repr(C)`, integers and arrays of integers only, and no padding: every bit pattern is a value.
        unsafe impl plain::Plain for $name {}

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$ty>())+, "padding in a record");
    };
}

// Behind the macro that it uses.
mod allocation;
mod change;
mod file;
mod memory;
mod network;
mod process;
mod profile;
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use allocation::{
    Allocation, AllocationForm, AllocationKey, AllocationSum, SITE_DEPTH, SiteKey, SiteStack,
    allocation_source,
};
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use change::ChangeRecord;
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use file::{CountedPath, FilePathKey, FileSum, FileSumKey, FileWay, file_summary};
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use memory::{
    MemoryForm, MemoryKey, MemoryRecord, MemoryState, MemorySum, OomRecord, memory_call,
    memory_flag,
};
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use process::{CpuEnding, CpuProcess, CpuThread, CpuTimes, cpu_flag};
#[cfg_attr(not(stockade_kernel), allow(unused_imports))]
pub(crate) use profile::{ProfileKey, ProfileSum, RawStack, STACK_DEPTH};

record!(
    /// `struct stk_hdr`.
    Header {
        time_ns: u64,
        start_ns: u64,
        parent_start_ns: u64,
        cgroup_id: u64,
        kind: u32,
        flags: u32,
        tgid: u32,
        tid: u32,
        ppid: u32,
        uid: u32,
        gid: u32,
        len: u32,
        comm: [u8; 16],
    }
);

record!(
    /// `struct stk_file_id`.
    RawFileId {
        ino: u64,
        dev: u32,
        generation: u32,
        fs_magic: u32,
        mode: u32,
    }
);

record!(
    /// `struct stk_privileges`.
    Privileges {
        caps: u64,
        euid: u32,
        egid: u32,
    }
);

record!(
    /// `struct stk_namespaces`.
    RawNamespaces {
        inum: [u32; NAMESPACES],
    }
);

record!(
    /// `struct stk_exec`.
    ExecRecord {
        hdr: Header,
        exe: RawFileId,
        exe_len: u32,
        cwd_len: u32,
        filename_len: u32,
        interp_len: u32,
        args_len: u32,
        args_total: u32,
        env_len: u32,
        pad: u32,
        now: Privileges,
        before: Privileges,
        login_uid: u32,
        tty: u32,
        tty_name: [u8; 16],
        namespaces: RawNamespaces,
    }
);

record!(
    /// `struct stk_fork`.
    ForkRecord {
        hdr: Header,
        child_start_ns: u64,
        child_parent_start_ns: u64,
        child_tgid: u32,
        child_ppid: u32,
        namespaces: RawNamespaces,
    }
);

record!(
    /// `struct stk_exit`.
    ExitRecord {
        hdr: Header,
        utime_ns: u64,
        stime_ns: u64,
        rtime_ns: u64,
        maxrss_pages: u64,
        code: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_file`.
    FileRecord {
        hdr: Header,
        file: RawFileId,
        result: i32,
        open_flags: u32,
        path_len: u32,
        base_len: u32,
    }
);

record!(
    /// `struct stk_rename`.
    RenameRecord {
        hdr: Header,
        file: RawFileId,
        replaced: RawFileId,
        result: i32,
        rename_flags: u32,
        old_len: u32,
        new_len: u32,
    }
);

record!(
    /// `struct stk_denial`.
    DenialRecord {
        hdr: Header,
        file: RawFileId,
        rule: u32,
        access: u32,
        verdict: u16,
        error: u16,
        path_len: u32,
        path: [u8; PATH_BUF],
    }
);

record!(
    /// `struct stk_syscall`.
    SyscallRecord {
        hdr: Header,
        args: [u64; 6],
        result: i64,
        duration_ns: u64,
        nr: u32,
        abi: u32,
    }
);

record!(
    /// `struct stk_call_denial`.
    CallDenialRecord {
        hdr: Header,
        args: [u64; 6],
        rule: u32,
        nr: u32,
        verdict: u16,
        error: u16,
        abi: u16,
        traced: u16,
    }
);

record!(
    /// `struct stk_limit_denial`.
    LimitDenialRecord {
        hdr: Header,
        amount: u64,
        rule: u32,
        nr: u32,
        verdict: u16,
        error: u16,
        counted: u16,
        abi: u16,
    }
);

record!(
    /// `struct stk_guard_denial`.
    GuardDenialRecord {
        hdr: Header,
        rule: u32,
        verdict: u16,
        error: u16,
        at: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_limit`.
    Limit {
        part: u64,
        rate: u64,
        burst: u64,
        full: u64,
        filled_ns: u64,
        epoch: u32,
        rule: u32,
        enforced: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_syscall_key`.
    SyscallKey {
        task: TaskKey,
        nr: u32,
        abi: u32,
    }
);

record!(
    /// `struct stk_syscall_sum`.
    SyscallSum {
        calls: u64,
        errors: u64,
        time_ns: u64,
    }
);

record!(
    /// `struct stk_disk_device`.
    RawDiskDevice {
        name: [u8; 32],
        major: u32,
        minor: u32,
    }
);

record!(
    /// `struct stk_disk`.
    DiskRecord {
        hdr: Header,
        device: RawDiskDevice,
        sector: u64,
        bytes: u64,
        queue_ns: u64,
        device_ns: u64,
        op: u32,
        flags: u32,
        error: i32,
        issued: u32,
    }
);

record!(
    /// `struct stk_disk_key`.
    DiskKey {
        task: TaskKey,
        device: RawDiskDevice,
        op: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_disk_sum`.
    DiskSum {
        ios: u64,
        bytes: u64,
        errors: u64,
        queue_ns: u64,
        device_ns: u64,
        queue: [u64; 24],
        device: [u64; 24],
    }
);

record!(
    /// `struct stk_identity`.
    IdentityRecord {
        file: RawFileId,
        start_ns: u64,
        fd: u32,
        tgid: u32,
        name: [u8; NAME_MAX],
    }
);

record!(
    /// `struct stk_above`.
    AboveRecord {
        file: RawFileId,
        fd: u32,
        depth: u32,
    }
);

record!(
    /// `struct stk_seed`.
    SeedRecord {
        start_ns: u64,
        parent_start_ns: u64,
        tgid: u32,
        ppid: u32,
        ns_tgid: u32,
        uid: u32,
        comm: [u8; 16],
    }
);

record!(
    /// `struct stk_task_key`.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    TaskKey {
        start_ns: u64,
        tgid: u64,
    }
);

impl TaskKey {
    /// Of whoever asked for the identities of his files.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn of_reader(record: &IdentityRecord) -> Self {
        TaskKey {
            start_ns: record.start_ns,
            tgid: record.tgid.into(),
        }
    }

    /// Of a process that runs.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn of(seed: &SeedRecord) -> Self {
        TaskKey {
            start_ns: seed.start_ns,
            tgid: u64::from(seed.tgid),
        }
    }
}

record!(
    /// `struct stk_task`.
    TaskEntry {
        flags: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_key`.
    #[derive(PartialEq, Eq, Hash)]
    FileKey {
        ino: u64,
        dev: u32,
        generation: u32,
    }
);

record!(
    /// `struct stk_name`.
    NameKey {
        dir: FileKey,
        hash: u64,
    }
);

record!(
    /// `struct stk_ruling`.
    Ruling {
        epoch: u32,
        flags: u32,
        own: u32,
        below: u32,
    }
);

record!(
    /// `struct stk_set`.
    RuleNumbers {
        enforced: [u32; ACCESS_KINDS],
        all: [u32; ACCESS_KINDS],
    }
);

record!(
    /// `struct stk_action`.
    RuleAction {
        error: u32,
        kill: u32,
        hits: u64,
    }
);

record!(
    /// `struct stk_user`.
    UserKey { uid: u32, half: u32 }
);

record!(
    /// `struct stk_armed`.
    Armed {
        epoch: u32,
        flags: u32,
        hash_key: [u64; 2],
        otherwise: u32,
        lost: u32,
        kinds: u32,
        canary_port: u32,
        fileless: u32,
        setuid: u32,
        written: u32,
        half: u32,
        limits: [u32; COUNTED_KINDS],
        limit_port: u32,
        hosts: u32,
    }
);

record!(
    /// `struct stk_written_about`.
    WrittenAbout {
        since_s: u64,
        lost: u64,
        canary: FileKey,
    }
);

record!(
    /// `struct stk_in_force`.
    InForce {
        which: u32,
        pad: u32,
        half: [Armed; 2],
    }
);

record!(
    /// `struct stk_net_prefix`.
    NetPrefix {
        bits: u32,
        half: u32,
        address: [u8; 16],
    }
);

record!(
    /// `struct stk_net_ruling`.
    NetRuling {
        epoch: u32,
        first: u32,
        count: u32,
    }
);

record!(
    /// `struct stk_net_ports`.
    NetPorts {
        from: u32,
        tcp: u32,
        udp: u32,
        other: u32,
    }
);

/// `STK_HOSTS_MAX`: that the policies of a fence name.
pub(crate) const HOSTS_MAX: usize = 128;
/// `STK_HOST_NAME`: bytes of a name, with the 0 behind it.
pub(crate) const HOST_NAME: usize = 256;
/// `STK_NAMESERVERS_MAX`.
pub(crate) const NAMESERVERS_MAX: usize = 8;

/// `enum stk_answer_time`: how long answers hold at least and at most, and for so long after it, in seconds.
pub(crate) mod answer_s {
    pub(crate) const LEAST: u32 = 60;
    pub(crate) const GRACE: u32 = 300;
    pub(crate) const MOST: u32 = 86_400;
}

record!(
    /// `struct stk_host_labels`.
    HostLabels {
        labels: [u8; HOST_NAME],
    }
);

record!(
    /// `struct stk_host_until`.
    HostUntil {
        until: [u32; HOSTS_MAX],
    }
);

record!(
    /// `struct stk_host_told`.
    HostTold {
        ip: [u8; 16],
        host: u32,
        until: u32,
    }
);

record!(
    /// `struct stk_host_about`.
    HostAbout {
        netns: u32,
        nameservers: u32,
        lost: u64,
        nameserver: [[u8; 16]; NAMESERVERS_MAX],
    }
);

record!(
    /// `struct stk_config`.
    Config {
        self_start_ns: u64,
        self_tgid: u32,
        scope: u32,
        cgroups: u32,
        cpus: u32,
        ring_bytes: u32,
        filter: u32,
        min_latency_ns: u64,
        min_bytes: u64,
        sample: u32,
        thin: u32,
        process_limit: u32,
        env: u32,
        kinds: u64,
        ranges: u32,
        ports: u32,
        prefixes: u32,
        pad: u32,
        range: [Range; RANGES_MAX],
        port: [Ports; RANGES_MAX],
    }
);

/// `STK_RANGES_MAX`: ranges of addresses, and of ports.
pub(crate) const RANGES_MAX: usize = 8;
/// `STK_PREFIXES_MAX`.
pub(crate) const PREFIXES_MAX: usize = 8;
/// `STK_PREFIX_MAX`.
pub(crate) const PREFIX_MAX: usize = 256;

record!(
    /// `struct stk_range`; both in the order of the wire.
    #[derive(PartialEq, Eq)]
    Range {
        address: [u64; 2],
        mask: [u64; 2],
    }
);

impl Range {
    /// The addresses that begin with so many bits of this one.
    pub(crate) fn new(address: Ipv6Addr, bits: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let halves = |number: u128| {
            let bytes = number.to_be_bytes();
            [read(&bytes).unwrap_or(0), read(&bytes[8..]).unwrap_or(0)]
        };
        Range {
            address: halves(u128::from(address) & mask),
            mask: halves(mask),
        }
    }
}

record!(
    /// `struct stk_ports`.
    #[derive(PartialEq, Eq)]
    Ports { first: u16, last: u16 }
);

record!(
    /// `struct stk_prefix`, value of the map `stk_prefixes`.
    RawPrefix {
        len: u32,
        pad: u32,
        text: [u8; PREFIX_MAX],
    }
);

#[cfg_attr(not(stockade_kernel), allow(dead_code))]
impl RawPrefix {
    /// Of a path of at most [`PREFIX_MAX`] bytes: its components, the last one first, a NUL after each.
    pub(crate) fn new(path: &[u8]) -> Self {
        let mut text = [0; PREFIX_MAX];
        let mut len = 0;
        for name in path.split(|b| *b == b'/').rev().filter(|n| !n.is_empty()) {
            text[len..len + name.len()].copy_from_slice(name);
            len += name.len() + 1;
        }
        RawPrefix {
            len: u32::try_from(len).unwrap_or(0),
            pad: 0,
            text,
        }
    }
}

record!(
    /// `struct stk_rate`, value of the map `stk_rates`.
    Rate {
        hdr: Header,
        second: u64,
        sent: u64,
        suppressed: u64,
    }
);

/// Values of `enum stk_scope`.
pub(crate) mod scope_bit {
    pub(crate) const HOST: u32 = 1 << 0;
    pub(crate) const TASKS: u32 = 1 << 1;
    pub(crate) const CGROUPS: u32 = 1 << 2;
    pub(crate) const UIDS: u32 = 1 << 3;
    pub(crate) const COMMS: u32 = 1 << 4;
}

/// Values of `enum stk_filter`.
pub(crate) mod filter_bit {
    pub(crate) const ERRORS: u32 = 1 << 0;
}

/// `STK_ABI_COMPAT`.
pub(crate) const ABI_COMPAT: u32 = 1;
/// `STK_COUNTED_KINDS`: what limits count in the order of `policy::Thing`; then come system calls.
pub(crate) const COUNTED_KINDS: usize = 4;
/// `STK_LIMITS`.
pub(crate) const LIMITS: u32 = 16;
/// `STK_LIMITS_EACH`.
pub(crate) const LIMITS_EACH: u32 = 8;
/// `STK_MARKS`.
pub(crate) const MARKS: u32 = 65_536;
/// `STK_CGROUPS_MAX`.
pub(crate) const CGROUPS_MAX: usize = 16;
/// `STK_TASK_FOLLOW`.
pub(crate) const TASK_FOLLOW: u32 = 1;
/// `STK_TASK_ENDED`.
pub(crate) const TASK_ENDED: u32 = 2;
/// `STK_SECOND`: of the second half of the fence's tables.
pub(crate) const SECOND: u32 = 1 << 30;
/// Values of `enum stk_ruling_flag`.
pub(crate) mod ruling_flag {
    pub(crate) const CANARY: u32 = 1 << 0;
    /// The bit from which on lengths of names are told.
    pub(crate) const LENGTHS: u32 = 16;
}

/// Values of `enum stk_armed_flag`.
pub(crate) mod armed_flag {
    pub(crate) const NAMES: u32 = 1 << 0;
    pub(crate) const BELOW: u32 = 1 << 1;
    pub(crate) const OTHERWISE: u32 = 1 << 2;
    pub(crate) const KINDS: u32 = 1 << 3;
    pub(crate) const TRACED: u32 = 1 << 4;
    pub(crate) const SUBJECTS: u32 = 1 << 5;
    pub(crate) const APART: u32 = 1 << 6;
}

/// The bytes of a record, for a map.
pub(crate) fn bytes_of<T: plain::Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` types have no padding here (asserted by `record!`), so every byte is initialised.
    unsafe { plain::as_bytes(value) }
}

/// Reads one record from the start of `bytes`, wherever they lie.
pub(crate) fn read<T: plain::Plain + Copy>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length is checked above, `Plain` admits every bit pattern, and the read does not need alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::change::{change_op, change_set};
    use super::*;

    /// The value of an enumerator in the shared header.
    fn of_c(name: &str) -> u32 {
        let header = include_str!("../bpf/wire.h");
        // The formatter may put the value on the next line.
        let at = header
            .find(&format!("{name}="))
            .unwrap_or_else(|| panic!("{name} is not in wire.h"));
        let text = header[at + name.len() + 1..].trim();
        let text = text.split([',', '/']).next().unwrap_or(text).trim();
        match text.split_once("<<") {
            Some((one, bit)) => {
                one.trim().parse::<u32>().unwrap() << bit.trim().parse::<u32>().unwrap()
            }
            None => text
                .strip_prefix("0x")
                .map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16))
                .unwrap(),
        }
    }

    #[test]
    fn constants_are_those_of_the_kernel_half() {
        for (name, value) in [
            ("STK_KIND_EXEC", kind::EXEC),
            ("STK_KIND_FORK", kind::FORK),
            ("STK_KIND_EXIT", kind::EXIT),
            ("STK_KIND_OPEN", kind::OPEN),
            ("STK_KIND_UNLINK", kind::UNLINK),
            ("STK_KIND_RENAME", kind::RENAME),
            ("STK_KIND_DENIAL", kind::DENIAL),
            ("STK_KIND_CONNECT", kind::CONNECT),
            ("STK_KIND_ACCEPT", kind::ACCEPT),
            ("STK_KIND_CLOSE", kind::CLOSE),
            ("STK_KIND_BIND", kind::BIND),
            ("STK_KIND_LISTEN", kind::LISTEN),
            ("STK_KIND_RETRANSMIT", kind::RETRANSMIT),
            ("STK_KIND_UNIX_CONNECT", kind::UNIX_CONNECT),
            ("STK_KIND_MEMORY", kind::MEMORY),
            ("STK_KIND_OOM", kind::OOM),
            ("STK_KIND_DNS", kind::DNS),
            ("STK_KIND_TLS", kind::TLS),
            ("STK_KIND_RAW_SOCKET", kind::RAW_SOCKET),
            ("STK_KIND_TCP_STATE", kind::TCP_STATE),
            ("STK_KIND_NET_DENIAL", kind::NET_DENIAL),
            ("STK_KIND_CALL_DENIAL", kind::CALL_DENIAL),
            ("STK_KIND_LIMIT_DENIAL", kind::LIMIT_DENIAL),
            ("STK_KIND_GUARD_DENIAL", kind::GUARD_DENIAL),
            ("STK_GUARD_KINDS", GUARD_KINDS),
            ("STK_GUARDED_MAPS", GUARDED_MAPS),
            ("STK_GUARDED_HELD", GUARDED_HELD.into()),
            ("STK_GUARDED_CANARY", GUARDED_CANARY.into()),
            ("STK_RULE_GUARD", RULE_GUARD),
            ("STK_COUNTED_KINDS", u32::try_from(COUNTED_KINDS).unwrap()),
            ("STK_COUNTED_CALLS", u32::try_from(COUNTED_KINDS).unwrap()),
            ("STK_LIMITS", LIMITS),
            ("STK_LIMITS_EACH", LIMITS_EACH),
            ("STK_KIND_CREATE", kind::CREATE),
            ("STK_KIND_LINK", kind::LINK),
            ("STK_KIND_MOUNT", kind::MOUNT),
            ("STK_KIND_MAX", kind::MAX),
            ("STK_MEMORY_MMAP", memory_call::MMAP),
            ("STK_MEMORY_MUNMAP", memory_call::MUNMAP),
            ("STK_MEMORY_BRK", memory_call::BRK),
            ("STK_MEMORY_BRK_SHRINK", memory_call::BRK_SHRINK),
            ("STK_MEMORY_SIZES", memory_flag::SIZES),
            ("STK_MEMORY_WANTED", memory_flag::WANTED),
            ("STK_MEMORY_FINAL", memory_flag::FINAL),
            (
                "STK_ALLOCATION_PAGE",
                u32::try_from(allocation_source::PAGE).unwrap(),
            ),
            (
                "STK_ALLOCATION_SLAB",
                u32::try_from(allocation_source::SLAB).unwrap(),
            ),
            ("STK_SITE_DEPTH", u32::try_from(SITE_DEPTH).unwrap()),
            ("STK_LOSS_SAMPLED", loss::SAMPLED),
            ("STK_LOSS_THINNED", loss::THINNED),
            ("STK_LOSS_LIMITED", loss::LIMITED),
            ("STK_LOSS_MAX", loss::MAX),
            ("STK_FLAG_ARGS_CUT", flag::ARGS_CUT),
            ("STK_FLAG_ARGS_UNREAD", flag::ARGS_UNREAD),
            ("STK_FLAG_PATH_CUT", flag::PATH_CUT),
            ("STK_FLAG_CWD_CUT", flag::CWD_CUT),
            ("STK_FLAG_PATH2_CUT", flag::PATH2_CUT),
            ("STK_FLAG_DELETED", flag::DELETED),
            ("STK_FLAG_NO_MOUNT", flag::NO_MOUNT),
            ("STK_FLAG_AS_GIVEN", flag::AS_GIVEN),
            ("STK_FLAG_SCRIPT", flag::SCRIPT),
            ("STK_SCOPE_HOST", scope_bit::HOST),
            ("STK_SCOPE_TASKS", scope_bit::TASKS),
            ("STK_SCOPE_CGROUPS", scope_bit::CGROUPS),
            ("STK_SCOPE_UIDS", scope_bit::UIDS),
            ("STK_SCOPE_COMMS", scope_bit::COMMS),
            ("STK_VERDICT_DENY", VERDICT_DENY.into()),
            ("STK_VERDICT_KILL", VERDICT_KILL.into()),
            ("STK_PATH_BUF", u32::try_from(PATH_BUF).unwrap()),
            ("STK_ACCESS_KINDS", u32::try_from(ACCESS_KINDS).unwrap()),
            ("STK_RULE_CANARY", RULE_CANARY),
            ("STK_RULE_NONE", RULE_NONE),
            ("STK_CALL_NUMBERS", call_slot::NUMBERS),
            ("STK_CALL_SOCKET", call_slot::SOCKET),
            ("STK_CALL_IPC", call_slot::IPC),
            ("STK_CALL_CANARY", call_slot::CANARY),
            ("STK_CALL_SLOTS", call_slot::SLOTS),
            ("STK_NAME_MAX", u32::try_from(NAME_MAX).unwrap()),
            ("STK_HASHED_PIECE", u32::try_from(HASHED_PIECE).unwrap()),
            ("STK_SECOND", SECOND),
            ("STK_HOSTS_MAX", u32::try_from(HOSTS_MAX).unwrap()),
            ("STK_ANSWER_LEAST_S", answer_s::LEAST),
            ("STK_ANSWER_GRACE_S", answer_s::GRACE),
            ("STK_ANSWER_MOST_S", answer_s::MOST),
            ("STK_HOST_NAME", u32::try_from(HOST_NAME).unwrap()),
            (
                "STK_NAMESERVERS_MAX",
                u32::try_from(NAMESERVERS_MAX).unwrap(),
            ),
            ("STK_RULING_CANARY", ruling_flag::CANARY),
            ("STK_RULING_LENGTHS", ruling_flag::LENGTHS),
            ("STK_ARMED_NAMES", armed_flag::NAMES),
            ("STK_ARMED_BELOW", armed_flag::BELOW),
            ("STK_ARMED_OTHERWISE", armed_flag::OTHERWISE),
            ("STK_ARMED_KINDS", armed_flag::KINDS),
            ("STK_ARMED_TRACED", armed_flag::TRACED),
            ("STK_ARMED_SUBJECTS", armed_flag::SUBJECTS),
            ("STK_ARMED_APART", armed_flag::APART),
            ("STK_FLAG_UNLISTED", flag::UNLISTED),
            ("STK_TASK_FOLLOW", TASK_FOLLOW),
            ("STK_TASK_ENDED", TASK_ENDED),
            ("STK_CHANGE_LINK", change_op::LINK),
            ("STK_CHANGE_SYMLINK", change_op::SYMLINK),
            ("STK_CHANGE_MKDIR", change_op::MKDIR),
            ("STK_CHANGE_RMDIR", change_op::RMDIR),
            ("STK_CHANGE_MKNOD", change_op::MKNOD),
            ("STK_CHANGE_CHMOD", change_op::CHMOD),
            ("STK_CHANGE_CHOWN", change_op::CHOWN),
            ("STK_CHANGE_UTIMES", change_op::UTIMES),
            ("STK_CHANGE_TRUNCATE", change_op::TRUNCATE),
            ("STK_CHANGE_SETXATTR", change_op::SETXATTR),
            ("STK_CHANGE_REMOVEXATTR", change_op::REMOVEXATTR),
            ("STK_CHANGE_MOUNT", change_op::MOUNT),
            ("STK_CHANGE_UMOUNT", change_op::UMOUNT),
            ("STK_SET_MODE", change_set::MODE),
            ("STK_SET_UID", change_set::UID),
            ("STK_SET_GID", change_set::GID),
            ("STK_SET_SIZE", change_set::SIZE),
            ("STK_SET_ATIME", change_set::ATIME),
            ("STK_SET_MTIME", change_set::MTIME),
            ("STK_SET_DEV", change_set::DEV),
            ("STK_SET_FLAGS", change_set::FLAGS),
        ] {
            assert_eq!(of_c(&format!("{name} ")), value, "{name}");
        }
        let core = include_str!("../bpf/core.bpf.h");
        assert!(core.contains(&format!("STK_CGROUPS_MAX = {CGROUPS_MAX},")));
        assert!(core.contains(&format!("STK_MARKS = {MARKS},")));
    }
}
