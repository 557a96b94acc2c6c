//! One of everything, for tests and documentation: every kind, each optional field present and absent, each flag set.

mod change;
mod memory;
mod network;
mod process;
mod profile;

use std::net::SocketAddr;
use std::sync::Arc;

use super::{
    About, Accept, Ancestor, Bind, BlockDevice, Certificate, Clock, Close, Connect, Denial, Denied,
    Disk, DiskOperation, DiskSummary, Event, Exec, Exit, FenceState, FileId, FilePath, FileSummary,
    FileUse, Fileless, Flow, Fork, Gained, Gap, Kind, KindCount, LimitedCall, Listen, Loss,
    LossCount, Namespaces, NetworkSummary, Open, ProbeState, Process, ProcessId, Rename,
    Retransmit, Sampled, Suppressed, Syscall, SyscallSummary, Terminal, Transport, UnixConnect,
    Unlink, text,
};

/// A clock that makes the samples happen on 2026-03-01 just after 10:00 UTC, one hour after boot.
#[must_use]
pub fn clock() -> Clock {
    Clock::new(
        1_772_355_600_000_000_000,
        "7c1f0a9e-3b52-4e0d-9a41-6f2f6b0f7d11",
    )
}

/// An hour after boot.
const HOUR_NS: u64 = 3_600_000_000_000;

fn event(after_ns: u64, process: Process, kind: Kind) -> Event {
    Event {
        time_ns: HOUR_NS + after_ns,
        process,
        kind,
    }
}

const CONTAINER: &str = "4f0c1b0c6b2ab8ffb4bb2bcb3f6aa8d4d35a2c9b4e3e0d7d2f1a0b9c8d7e6f5a";

fn shell() -> Process {
    Process {
        id: ProcessId::new(HOUR_NS + 1_204_511, 4711),
        parent: ProcessId::new(HOUR_NS - 93_400_120_447, 4520),
        tid: 4711,
        uid: 1000,
        gid: 1000,
        cgroup_id: 5214,
        comm: "sh".into(),
        about: Some(Arc::new(About {
            executable: Some("/usr/bin/dash".into()),
            user: Some("ada".into()),
            group: Some("ada".into()),
            cgroup: Some(format!("/system.slice/docker-{CONTAINER}.scope")),
            container: Some(CONTAINER.into()),
            unit: Some(format!("docker-{CONTAINER}.scope")),
        })),
    }
}

/// A worker thread whose name the process chose itself.
fn worker() -> Process {
    Process {
        tid: 4719,
        comm: text::escape(b"a \"b\" \\c\nd\x1b[31m"),
        about: Some(Arc::new(About {
            cgroup: Some("/".into()),
            ..About::default()
        })),
        ..shell()
    }
}

fn path(path: &str) -> FilePath {
    FilePath {
        path: path.into(),
        ..FilePath::default()
    }
}

fn file(inode: u64, mode: u32) -> FileId {
    FileId {
        inode,
        device: 259 << 20 | 2,
        generation: 2_914_807_061,
        fs_magic: 0xef53,
        mode,
    }
}

fn namespaces() -> Namespaces {
    Namespaces {
        cgroup: Some(4_026_532_209),
        ipc: Some(4_026_532_201),
        mnt: Some(4_026_532_199),
        net: Some(4_026_532_203),
        pid: Some(4_026_532_202),
        time: Some(u32::MAX),
        user: Some(4_026_532_198),
        uts: Some(4_026_532_200),
    }
}

#[allow(clippy::unnecessary_wraps)] // As the field has it.
fn terminal(name: &str, major: u32, minor: u32) -> Option<Terminal> {
    Some(Terminal {
        name: name.into(),
        major,
        minor,
    })
}

fn open(path: FilePath, file: Option<FileId>, flags: u32, errno: u16) -> Kind {
    Kind::Open(Open {
        path,
        file,
        flags,
        errno,
    })
}

fn limited(counted: &'static str, amount: Option<u64>, call: Option<LimitedCall>) -> Kind {
    let refused = call.is_none();
    Kind::Denial(Denial {
        rule: 8,
        rule_id: "not-so-fast".into(),
        rule_line: 8,
        mechanism: if refused { "lsm" } else { "tracepoint" }.into(),
        ancestors: ancestors(),
        access: if refused { "send" } else { "call" }.into(),
        refused,
        killed: false,
        errno: if refused { 11 } else { 0 },
        unlisted: false,
        host: None,
        host_number: 0,
        object: Denied::Limit {
            counted: counted.into(),
            amount,
            call,
        },
    })
}

fn guarded() -> Kind {
    Kind::Denial(Denial {
        rule: 0x3fff_fffe,
        rule_id: "guard".into(),
        rule_line: 0,
        mechanism: "lsm".into(),
        ancestors: ancestors(),
        access: "signal".into(),
        refused: true,
        killed: false,
        errno: 1,
        unlisted: false,
        host: None,
        host_number: 0,
        object: Denied::Guarded {
            of: "monitor".into(),
        },
    })
}

fn loss(of: &str, cause: &str, count: u64) -> Kind {
    Kind::Loss(Loss {
        of: of.into(),
        cause: cause.into(),
        count,
    })
}

fn sampled() -> Kind {
    Kind::Sampled(Sampled {
        of: "open".into(),
        reason: "ring".into(),
        kept: 2_048,
        left_out: 6_144,
        window_ns: 1_000_000_000,
    })
}

fn suppressed() -> Kind {
    Kind::Suppressed(Suppressed {
        count: 1_903,
        limit: 100,
        window_ns: 1_000_000_000,
    })
}

fn fence() -> FenceState {
    FenceState {
        policy: "build-job".into(),
        mode: "enforce".into(),
        mechanism: "lsm".into(),
        identity: "tag+key".into(),
        rules: 4,
        files: 17,
        addresses: 2,
        syscalls: 0,
        limits: 1,
        canary_proofs: 9,
        reloads: 0,
        pinned: Some("build-job".into()),
    }
}

fn ancestors() -> Arc<[Ancestor]> {
    let ancestor = |pid, executable: Option<&str>| Ancestor {
        pid,
        executable: executable.map(Arc::from),
    };
    [ancestor(4520, Some("/usr/bin/bash")), ancestor(1, None)].into()
}

/// The policy that took its place.
fn reload() -> Kind {
    Kind::Reload(Box::new(FenceState {
        rules: 5,
        addresses: 0,
        reloads: 1,
        ..fence()
    }))
}

fn syscall(name: &'static str, number: u32, compat: bool, result: i64) -> Kind {
    Kind::Syscall(Syscall {
        name: name.into(),
        number,
        compat,
        args: [0x10, 4711, 0, 0, 0x7fff_0000_0000_1000, 0],
        result,
        duration_ns: 4_120,
    })
}

fn syscall_summary(name: &'static str, number: u32, compat: bool) -> Kind {
    Kind::SyscallSummary(SyscallSummary {
        name: name.into(),
        number,
        compat,
        calls: 1_204,
        errors: 3,
        time_ns: 8_400_212,
        window_ns: 10_000_000_000,
    })
}

fn at(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

fn flow(local: SocketAddr, remote: SocketAddr, incoming: bool, mapped: bool) -> Flow {
    Flow {
        transport: Transport::Tcp,
        local,
        remote,
        incoming,
        mapped,
    }
}

fn network() -> Vec<Event> {
    let (ours, theirs) = (at([10, 0, 0, 7], 51_304), at([192, 0, 2, 10], 443));
    let six = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 8080));
    let out = flow(ours, theirs, false, false);
    let (inward, mapped) = (flow(six, six, true, false), flow(ours, theirs, true, true));
    let connect = |flow, errno, duration_ns| {
        Kind::Connect(Connect {
            flow,
            errno,
            duration_ns,
        })
    };
    let close = |flow, sent_bytes, errno| {
        Kind::Close(Close {
            flow,
            sent_bytes,
            received_bytes: 14_210,
            retransmits: 0,
            errno,
            duration_ns: 84_120_774,
        })
    };
    let bind = |transport, local, mapped, errno| {
        Kind::Bind(Bind {
            transport,
            local,
            mapped,
            errno,
        })
    };
    let listen = |mapped, backlog, errno| {
        Kind::Listen(Listen {
            transport: Transport::Tcp,
            local: at([0, 0, 0, 0], 8080),
            mapped,
            backlog,
            errno,
        })
    };
    let unix = |path: String, is_abstract, errno| {
        Kind::UnixConnect(UnixConnect {
            path,
            is_abstract,
            datagram: is_abstract,
            errno,
        })
    };
    let summary = |transport, peer, incoming, mapped| {
        Kind::NetworkSummary(NetworkSummary {
            transport,
            peer,
            incoming,
            mapped,
            sent_bytes: 1_204,
            received_bytes: 8_021,
            sent_packets: 12,
            received_packets: 14,
            connections: 2,
            failures: 1,
            retransmits: 0,
            window_ns: 10_000_000_000,
        })
    };
    [
        connect(out, 0, 11_204_511),
        connect(flow(at([0; 4], 0), theirs, false, true), 111, 0),
        Kind::Accept(Accept { flow: inward }),
        Kind::Accept(Accept { flow: mapped }),
        close(out, 517, 0),
        close(mapped, u64::MAX, 104),
        bind(Transport::Tcp, at([0, 0, 0, 0], 8080), false, 0),
        bind(Transport::Udp, six, true, 98),
        listen(false, 128, 0),
        listen(true, -1, 98),
        Kind::Retransmit(Retransmit { flow: out }),
        Kind::Retransmit(Retransmit { flow: mapped }),
        unix("/run/dbus/system_bus_socket".into(), false, 0),
        unix(text::escape(b"odd \"name\"\n\0\xff"), true, 111),
        summary(Transport::Udp, at([192, 0, 2, 53], 53), false, false),
        summary(Transport::Tcp, six, true, true),
    ]
    .into_iter()
    .map(|kind| event(8_300_000, shell(), kind))
    .collect()
}

fn disk(operation: DiskOperation, flags: u32, bytes: u64, issued: bool, errno: u16) -> Kind {
    Kind::Disk(Disk {
        device: disk_device(),
        operation,
        flags,
        sector: issued.then_some(8_402_944),
        bytes,
        queue_ns: 6_120,
        device_ns: issued.then_some(212_400),
        errno,
    })
}

fn disk_device() -> BlockDevice {
    BlockDevice {
        name: "nvme0n1".into(),
        major: 259,
        minor: 0,
    }
}

fn disk_summary() -> Kind {
    let mut queue = [0; 24];
    queue[3..5].copy_from_slice(&[9, 3]);
    let mut device_time = [0; 24];
    device_time[8] = 11;
    device_time[23] = 1;
    Kind::DiskSummary(Box::new(DiskSummary {
        device: disk_device(),
        operation: DiskOperation::Write,
        ios: 12,
        bytes: 49_152,
        errors: 1,
        queue_ns: 73_440,
        device_ns: 5_000_410_200,
        queue,
        device_time,
        window_ns: 10_000_000_000,
    }))
}

fn file_use(count: u64, bytes: u64, time_ns: u64, slot: usize) -> FileUse {
    let mut times = [0; 24];
    times[slot] = count;
    FileUse {
        count,
        bytes,
        time_ns,
        times,
    }
}

/// A plain one, one of a file whose path is not known, and opens that failed.
fn file_summaries() -> [Kind; 3] {
    let summary = FileSummary {
        path: Some(path("/var/log/build.log")),
        file: Some(file(131_074, 0o100_644)),
        opens: 2,
        failures: 1,
        read: file_use(3, 12_288, 14_210, 3),
        written: file_use(40, 163_840, 412_800, 4),
        window_ns: 10_000_000_000,
    };
    let nothing = FileUse::default();
    let unnamed = FileSummary {
        path: None,
        opens: 0,
        read: nothing.clone(),
        ..summary.clone()
    };
    let refused = FileSummary {
        path: None,
        file: None,
        opens: 7,
        failures: 7,
        read: nothing.clone(),
        written: nothing,
        ..summary.clone()
    };
    [summary, unnamed, refused].map(|summary| Kind::FileSummary(Box::new(summary)))
}

/// The events. In this order the first of each kind is the plain one.
#[must_use]
pub fn samples() -> Vec<Event> {
    let nobody = Process {
        id: ProcessId::new(0, 0),
        parent: ProcessId::new(0, 0),
        tid: 0,
        uid: 0,
        gid: 0,
        cgroup_id: 0,
        comm: String::new(),
        about: None,
    };
    let odd = text::escape("/srv/\"q\" \\ gr\u{fc}n \u{1f9ea} \u{202e}\n".as_bytes())
        + &text::escape(b"\xff\xfe");
    let mut all = vec![
        event(
            1_733_902,
            shell(),
            Kind::Exec(Exec {
                executable: path("/usr/bin/dash"),
                file: file(1_310_807, 0o100_755),
                args: vec!["sh".into(), "-c".into(), "make \"all\"".into()],
                args_truncated: false,
                args_bytes: 17,
                env: Vec::new(),
                env_truncated: false,
                cwd: path("/srv/build"),
                script: None,
                interpreter: None,
                fileless: None,
                terminal: terminal("pts/3", 136, 3),
                login_uid: Some(1000),
                effective_uid: 1000,
                effective_gid: 1000,
                gained: Some(Gained::default()),
                namespaces: Namespaces::default(),
            }),
        ),
        event(
            2_000_000,
            shell(),
            Kind::Exec(Exec {
                executable: FilePath {
                    path: "deep/down/python3".into(),
                    truncated: true,
                    deleted: true,
                    as_given: false,
                },
                file: file(1_310_999, 0o104_755),
                args: vec!["python3".into(), String::new(), odd.clone()],
                args_truncated: true,
                args_bytes: 40_960,
                env: vec!["LD_PRELOAD".into(), odd.clone()],
                env_truncated: true,
                cwd: FilePath {
                    truncated: true,
                    ..path("deep/cwd")
                },
                script: Some("./tool.py".into()),
                interpreter: Some("/usr/bin/python3".into()),
                fileless: Some(Fileless::Deleted),
                terminal: None,
                login_uid: None,
                effective_uid: 0,
                effective_gid: 0,
                gained: Some(Gained {
                    user: true,
                    group: true,
                    // One that has no name yet.
                    capabilities: 1 << 13 | 1 << 63,
                }),
                namespaces: Namespaces::default(),
            }),
        ),
        event(
            3_000_000,
            shell(),
            Kind::Exec(Exec {
                executable: path("/"),
                file: file(2, 0),
                args: Vec::new(),
                args_truncated: false,
                args_bytes: 0,
                env: Vec::new(),
                env_truncated: true,
                cwd: path("/"),
                script: None,
                interpreter: None,
                fileless: Some(Fileless::Memfd),
                terminal: terminal(&odd, u32::MAX, u32::MAX),
                login_uid: Some(0),
                effective_uid: 1000,
                effective_gid: 1000,
                gained: None,
                namespaces: namespaces(),
            }),
        ),
        event(
            3_500_000,
            shell(),
            Kind::Exec(Exec {
                executable: path("/usr/bin/sudo"),
                file: file(1_310_444, 0o104_755),
                args: vec!["sudo".into(), "id".into()],
                args_truncated: false,
                args_bytes: 8,
                env: vec!["LANG=C".into(), "EMPTY=".into()],
                env_truncated: false,
                cwd: path("/"),
                script: None,
                interpreter: None,
                fileless: None,
                terminal: terminal("tty1", 4, 1),
                login_uid: Some(1000),
                effective_uid: 0,
                effective_gid: 1000,
                gained: Some(Gained {
                    user: true,
                    group: false,
                    capabilities: (1 << 41) - 1,
                }),
                namespaces: Namespaces::default(),
            }),
        ),
        event(
            4_100_250,
            shell(),
            Kind::Fork(Fork {
                child: ProcessId::new(HOUR_NS + 4_099_801, 4712),
                child_parent: shell().id,
                namespaces: Namespaces::default(),
            }),
        ),
        event(
            4_200_000,
            worker(),
            Kind::Fork(Fork {
                child: ProcessId::new(HOUR_NS + 4_199_801, 4713),
                child_parent: shell().parent,
                namespaces: namespaces(),
            }),
        ),
        event(
            9_400_812,
            shell(),
            Kind::Exit(Exit {
                code: Some(0),
                signal: None,
                core_dumped: false,
                user_ns: 1_834_220,
                system_ns: 2_410_553,
                max_rss_bytes: 3_584_000,
                lifetime_ns: 8_196_301,
            }),
        ),
        event(
            9_500_000,
            worker(),
            Kind::Exit(Exit {
                code: None,
                signal: Some(11),
                core_dumped: true,
                user_ns: 0,
                system_ns: 0,
                max_rss_bytes: 0,
                lifetime_ns: 0,
            }),
        ),
        event(
            9_600_000,
            shell(),
            Kind::Exit(Exit {
                code: None,
                signal: Some(34),
                core_dumped: false,
                user_ns: u64::MAX,
                system_ns: u64::MAX,
                max_rss_bytes: u64::MAX,
                lifetime_ns: u64::MAX,
            }),
        ),
        event(
            5_120_774,
            shell(),
            open(
                path("/etc/ld.so.cache"),
                Some(file(1_188_103, 0o100_644)),
                0o2_000_000,
                0,
            ),
        ),
        event(
            5_220_000,
            worker(),
            open(
                FilePath {
                    as_given: true,
                    ..path("/srv/build/.cache/obj")
                },
                None,
                0o2_001_101,
                2,
            ),
        ),
        event(
            5_320_000,
            shell(),
            open(
                FilePath {
                    path: odd.clone(),
                    truncated: true,
                    deleted: true,
                    as_given: false,
                },
                Some(file(u64::MAX, 0o10_600)),
                u32::MAX,
                0,
            ),
        ),
        event(5_420_000, shell(), open(path(""), None, 0x20, 999)),
        event(
            6_018_442,
            shell(),
            Kind::Unlink(Unlink {
                path: path("/srv/build/main.o"),
                file: Some(file(2_228_341, 0o100_644)),
                errno: 0,
            }),
        ),
        event(
            6_100_000,
            shell(),
            Kind::Unlink(Unlink {
                path: FilePath {
                    truncated: true,
                    as_given: true,
                    ..path("deep/down/../gone")
                },
                file: None,
                errno: 13,
            }),
        ),
        event(
            7_244_019,
            shell(),
            Kind::Rename(Rename {
                from: path("/srv/build/out.tmp"),
                to: path("/srv/build/out"),
                file: Some(file(2_228_344, 0o100_755)),
                replaced: Some(file(2_228_102, 0o100_755)),
                flags: 0,
                errno: 0,
            }),
        ),
        event(
            7_300_000,
            shell(),
            Kind::Rename(Rename {
                from: FilePath {
                    truncated: true,
                    as_given: true,
                    ..path(&odd)
                },
                to: FilePath {
                    truncated: true,
                    as_given: true,
                    ..path("b")
                },
                file: None,
                replaced: None,
                flags: 0x11,
                errno: 17,
            }),
        ),
        event(
            8_020_115,
            shell(),
            Kind::Denial(Denial {
                rule: 3,
                rule_id: "no-keys".into(),
                rule_line: 7,
                mechanism: "lsm".into(),
                ancestors: ancestors(),
                access: "read,write".into(),
                refused: true,
                killed: false,
                errno: 1,
                unlisted: false,
                host: None,
                host_number: 0,
                object: Denied::File {
                    path: path("/home/ada/.ssh/id_ed25519"),
                    path_in_fs: false,
                    file: file(524_417, 0o100_600),
                },
            }),
        ),
        event(
            8_100_000,
            worker(),
            Kind::Denial(Denial {
                rule: 4,
                rule_id: String::new(),
                rule_line: 7,
                mechanism: "lsm".into(),
                ancestors: ancestors(),
                access: "delete".into(),
                refused: false,
                killed: false,
                errno: 0,
                unlisted: true,
                host: None,
                host_number: 0,
                object: Denied::File {
                    path: FilePath {
                        deleted: true,
                        truncated: true,
                        ..path("ada/.ssh/id_ed25519")
                    },
                    path_in_fs: true,
                    file: file(524_417, 0o100_600),
                },
            }),
        ),
        event(
            8_100_000,
            worker(),
            Kind::Denial(Denial {
                rule: 5,
                rule_id: "registry".into(),
                rule_line: 7,
                mechanism: "lsm".into(),
                ancestors: ancestors(),
                access: "connect,send".into(),
                refused: true,
                killed: false,
                errno: 1,
                unlisted: true,
                host: Some("db.example.org".into()),
                host_number: 0,
                object: Denied::Address {
                    transport: Some(Transport::Udp),
                    address: at([192, 0, 2, 53], 53),
                    own: false,
                },
            }),
        ),
        event(
            8_100_000,
            worker(),
            Kind::Denial(Denial {
                rule: 6,
                rule_id: "no-servers".into(),
                rule_line: 7,
                mechanism: "lsm".into(),
                ancestors: ancestors(),
                access: "bind".into(),
                refused: true,
                killed: true,
                errno: 13,
                unlisted: false,
                host: None,
                host_number: 0,
                object: Denied::Address {
                    transport: None,
                    address: SocketAddr::from(([0; 8], 8080)),
                    own: true,
                },
            }),
        ),
        event(
            8_100_000,
            worker(),
            Kind::Denial(Denial {
                rule: 5,
                rule_id: "registry".into(),
                rule_line: 7,
                mechanism: "lsm".into(),
                ancestors: ancestors(),
                access: "connect,send".into(),
                refused: true,
                killed: false,
                errno: 1,
                unlisted: true,
                host: None,
                host_number: 0,
                object: Denied::Socket {
                    family: 17,
                    protocol: 3,
                },
            }),
        ),
        event(
            8_100_000,
            worker(),
            Kind::Denial(Denial {
                rule: 7,
                rule_id: "no-ptrace".into(),
                rule_line: 7,
                mechanism: "seccomp".into(),
                ancestors: ancestors(),
                access: "call".into(),
                refused: true,
                killed: false,
                errno: 1,
                unlisted: false,
                host: None,
                host_number: 0,
                object: Denied::Syscall {
                    name: "ptrace".into(),
                    number: 26,
                    compat: true,
                    args: [16, 4711, 0, 0, 0, 0],
                },
            }),
        ),
        event(8_100_001, worker(), limited("bytes", Some(65_536), None)),
        event(8_100_001, worker(), guarded()),
        event(
            8_100_002,
            worker(),
            limited(
                "syscalls",
                Some(1),
                Some(LimitedCall {
                    name: "ptrace".into(),
                    number: 26,
                    compat: true,
                }),
            ),
        ),
        event(8_100_000, shell(), syscall("ptrace", 101, false, -1)),
        event(8_100_500, shell(), syscall("", 9_999, true, 7)),
        event(8_200_000, shell(), syscall_summary("read", 0, false)),
        event(8_200_000, shell(), syscall_summary("", 9_999, true)),
    ];
    all.extend(network());
    all.extend(network::samples());
    all.extend([
        event(
            8_300_000,
            shell(),
            disk(DiskOperation::Write, 1, 4_096, true, 0),
        ),
        event(
            8_300_400,
            worker(),
            disk(DiskOperation::Flush, 0x29, 0, false, 5),
        ),
        event(8_400_000, shell(), disk_summary()),
        event(8_500_000, shell(), profile::running()),
        event(8_500_000, worker(), profile::waiting()),
        event(9_000_000, nobody.clone(), loss("open", "ring", 412)),
        event(9_000_001, nobody.clone(), loss("scope", "map", 1)),
        event(9_100_000, nobody.clone(), sampled()),
        event(9_100_002, nobody.clone(), reload()),
        event(
            9_100_003,
            nobody,
            Kind::Gap(Gap::new("build-job", 41_600_000_000, 12, 0)),
        ),
        event(9_100_001, shell(), suppressed()),
    ]);
    all.extend(memory::samples());
    all.extend(process::samples());
    all.extend(change::samples());
    all.extend(file_summaries().map(|kind| event(8_400_000, shell(), kind)));
    let odd = FilePath {
        deleted: true,
        truncated: true,
        ..path("log/build.log")
    };
    if let [Kind::FileSummary(summary), ..] = file_summaries() {
        let odd = FileSummary {
            path: Some(odd),
            ..*summary
        };
        all.push(event(8_400_000, worker(), Kind::FileSummary(Box::new(odd))));
    }
    all
}

/// Certificates: a complete one with a fence, and one that lacks all it can lack.
#[must_use]
pub fn certificates() -> Vec<Certificate> {
    vec![
        Certificate {
            started_ns: HOUR_NS,
            ended_ns: HOUR_NS + 12_480_033_210,
            monitors: vec!["process".into(), "file".into()],
            probes: vec![
                ProbeState::attached("process_exec", "tp_btf"),
                ProbeState::attached("file_open", "fexit"),
            ],
            fence: Some(fence()),
            events: 48_213,
            denials: 2,
            kinds: vec![
                KindCount::new("denial", 2, 0),
                KindCount::new("exec", 48_211, 3),
            ],
            losses: Vec::new(),
            skipped_programs: 0,
            complete: true,
            incomplete_reasons: Vec::new(),
        },
        Certificate {
            started_ns: HOUR_NS,
            ended_ns: HOUR_NS + 3_000_000_000,
            monitors: vec!["file".into()],
            probes: vec![
                ProbeState {
                    reason: Some("fexit/do_filp_open: not in this kernel's BTF".into()),
                    ..ProbeState::attached("file_open", "tp")
                },
                ProbeState::unavailable(
                    "file_rename",
                    "refused by the verifier:\n\tR1 is \"invalid\"\u{1b}[0m",
                ),
            ],
            fence: None,
            events: 903_114,
            denials: 0,
            kinds: vec![KindCount {
                sampled: 6_144,
                suppressed: 1_903,
                ..KindCount::new("open", 894_655, 0)
            }],
            losses: vec![
                LossCount {
                    of: "open".into(),
                    cause: "ring".into(),
                    cpu: Some(3),
                    count: 412,
                },
                LossCount {
                    of: "exec".into(),
                    cause: "decode".into(),
                    cpu: None,
                    count: 1,
                },
            ],
            skipped_programs: 7,
            complete: false,
            incomplete_reasons: vec![
                "413 events were lost".into(),
                "file_rename is unavailable".into(),
            ],
        },
    ]
}
