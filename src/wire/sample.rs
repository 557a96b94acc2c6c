//! Records as the kernel half would send them, for tests.

use super::change::{ChangeRecord, change_op};
use super::{
    DenialRecord, ExecRecord, ExitRecord, FileRecord, ForkRecord, Header, NetRecord, PATH_BUF,
    PayloadRecord, Privileges, RawFileId, RawFlow, RawNamespaces, RenameRecord, UnixRecord,
    VERDICT_DENY, bytes_of, flag, kind,
};

pub(crate) fn header(kind: u32, flags: u32, len: usize) -> Header {
    Header {
        time_ns: 2_000,
        start_ns: 500,
        parent_start_ns: 100,
        cgroup_id: 7,
        kind,
        flags,
        tgid: 42,
        tid: 43,
        ppid: 1,
        uid: 1000,
        gid: 100,
        len: size(len),
        comm: *b"sh\0left-over!!\0\0",
    }
}

pub(crate) fn file_id() -> RawFileId {
    RawFileId {
        ino: 12,
        dev: (254 << 20) | 1,
        generation: 3,
        fs_magic: 0xef53,
        mode: 0o100_644,
    }
}

pub(crate) fn privileges(caps: u64, id: u32) -> Privileges {
    Privileges {
        caps,
        euid: id,
        egid: id,
    }
}

pub(crate) fn namespaces(number: u32) -> RawNamespaces {
    RawNamespaces {
        inum: [0, 1, 2, 3, 4, 5, number, u32::MAX],
    }
}

/// The kinds that [`record`] knows.
pub(crate) const KINDS: [u32; 12] = [
    kind::EXEC,
    kind::FORK,
    kind::EXIT,
    kind::OPEN,
    kind::UNLINK,
    kind::RENAME,
    kind::DENIAL,
    kind::UNIX_CONNECT,
    kind::CREATE,
    kind::LINK,
    kind::SETATTR,
    kind::MOUNT,
];

/// A record of this kind that holds as many of the names as it has room for; `number` is in its other fields.
pub(crate) fn record(kind: u32, flags: u32, names: [&[u8]; 3], number: u32) -> Vec<u8> {
    let [a, b, c] = names;
    let given = flags & flag::AS_GIVEN != 0;
    let build = |fixed: usize, parts: &[&[u8]], record: &dyn Fn(Header) -> Vec<u8>| {
        let parts = parts.concat();
        let mut bytes = record(header(kind, flags, fixed + parts.len()));
        bytes.extend(parts);
        bytes
    };
    match kind {
        kind::EXEC => build(size_of::<ExecRecord>(), &[a, b, a, b, c, c], &|hdr| {
            let record = ExecRecord {
                hdr,
                exe: file_id(),
                exe_len: size(a.len()),
                cwd_len: size(b.len()),
                filename_len: size(a.len()),
                interp_len: size(b.len()),
                args_len: size(c.len()),
                args_total: number,
                env_len: size(c.len()),
                pad: 0,
                now: privileges(u64::MAX, number),
                before: privileges(1 << 13, 1000),
                login_uid: number,
                tty: number,
                tty_name: *b"pts7\0left-over!!",
                namespaces: namespaces(number),
            };
            bytes_of(&record).to_vec()
        }),
        kind::FORK => build(size_of::<ForkRecord>(), &[], &|hdr| {
            let record = ForkRecord {
                hdr,
                child_start_ns: 3,
                child_parent_start_ns: 4,
                child_tgid: number,
                child_ppid: 6,
                namespaces: namespaces(number),
            };
            bytes_of(&record).to_vec()
        }),
        kind::EXIT => build(size_of::<ExitRecord>(), &[], &|hdr| {
            let record = ExitRecord {
                hdr,
                utime_ns: 1,
                stime_ns: 2,
                rtime_ns: 3,
                maxrss_pages: 4,
                code: number,
                pad: 0,
            };
            bytes_of(&record).to_vec()
        }),
        kind::OPEN | kind::UNLINK | kind::CREATE => {
            let base = if given { b } else { b"" };
            build(size_of::<FileRecord>(), &[a, base], &|hdr| {
                let record = FileRecord {
                    hdr,
                    file: file_id(),
                    result: -2,
                    open_flags: number,
                    path_len: size(a.len()),
                    base_len: size(base.len()),
                };
                bytes_of(&record).to_vec()
            })
        }
        kind::RENAME => build(size_of::<RenameRecord>(), &[a, b], &|hdr| {
            let record = RenameRecord {
                hdr,
                file: file_id(),
                replaced: file_id(),
                result: 0,
                rename_flags: number,
                old_len: size(a.len()),
                new_len: size(b.len()),
            };
            bytes_of(&record).to_vec()
        }),
        kind::LINK | kind::SETATTR | kind::MOUNT => {
            let base = if given { b } else { b"" };
            build(size_of::<ChangeRecord>(), &[a, base, b, c], &|hdr| {
                let record = ChangeRecord {
                    hdr,
                    file: file_id(),
                    size: u64::from(number),
                    atime_ns: -1,
                    mtime_ns: i64::from(number),
                    result: -1,
                    op: match kind {
                        kind::LINK => change_op::LINK,
                        kind::SETATTR => change_op::SETXATTR,
                        _ => change_op::MOUNT,
                    },
                    set: number,
                    mode: number,
                    uid: number,
                    gid: number,
                    dev: number,
                    flags: number,
                    path_len: size(a.len()),
                    base_len: size(base.len()),
                    other_len: size(b.len()),
                    type_len: size(c.len()),
                };
                bytes_of(&record).to_vec()
            })
        }
        kind::UNIX_CONNECT => build(size_of::<UnixRecord>(), &[], &|hdr| {
            let mut record = UnixRecord {
                hdr,
                result: -111,
                kind: number,
                path_len: size(a.len().min(112)),
                pad: 0,
                path: [0; 112],
            };
            for (to, from) in record.path.iter_mut().zip(a) {
                *to = *from;
            }
            bytes_of(&record).to_vec()
        }),
        _ => build(size_of::<DenialRecord>(), &[], &|hdr| {
            let mut record = DenialRecord {
                hdr,
                file: file_id(),
                rule: number,
                access: number,
                verdict: VERDICT_DENY,
                error: 1,
                path_len: size(a.len().min(PATH_BUF)),
                path: [0; PATH_BUF],
            };
            for (to, from) in record.path.iter_mut().zip(a) {
                *to = *from;
            }
            bytes_of(&record).to_vec()
        }),
    }
}

fn flow(kind: u32, remote_port: u16) -> RawFlow {
    let mut local = [0; 16];
    local[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    RawFlow {
        local,
        remote: local,
        local_port: 1000,
        remote_port,
        family: 2,
        protocol: if kind == kind::DNS { 17 } else { 6 },
    }
}

/// What a call has moved through a socket.
pub(crate) fn payload(kind: u32, sent: bool, bytes: &[u8]) -> Vec<u8> {
    let record = PayloadRecord {
        hdr: header(kind, 0, size_of::<PayloadRecord>() + bytes.len()),
        flow: flow(kind, 53),
        moved: size(bytes.len()),
        len: size(bytes.len()),
        sent: sent.into(),
        incoming: 0,
    };
    [bytes_of(&record), bytes].concat()
}

/// A connect to a port where nobody listens.
pub(crate) fn refused(port: u16) -> Vec<u8> {
    let record = NetRecord {
        hdr: header(kind::CONNECT, 0, size_of::<NetRecord>()),
        flow: flow(kind::CONNECT, port),
        duration_ns: 5,
        sent_bytes: 0,
        received_bytes: 0,
        retransmits: 0,
        result: -111,
        incoming: 0,
        value: 0,
    };
    bytes_of(&record).to_vec()
}

fn size(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}
