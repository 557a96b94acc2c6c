//! Samples of changes to files.

use super::{file, path, shell, worker};
use crate::event::{Change, ChangeOperation, Event, FileId, FilePath, Kind, Mount, Open, text};

fn change(operation: ChangeOperation, at: FilePath, file: Option<FileId>) -> Change {
    Change {
        operation,
        path: at,
        file,
        from: None,
        target: None,
        attribute: None,
        mode: None,
        uid: None,
        gid: None,
        size: None,
        device: None,
        accessed_ns: None,
        modified_ns: None,
        errno: 0,
    }
}

/// Of each operation a plain one.
fn plain() -> Vec<Change> {
    let at =
        |operation, name: &str, mode| change(operation, path(name), Some(file(2_228_351, mode)));
    let (regular, directory) = (0o100_644, 0o040_755);
    vec![
        Change {
            from: Some(path("/srv/build/out")),
            ..at(ChangeOperation::Link, "/srv/build/out.1", regular)
        },
        Change {
            target: Some("../out".into()),
            ..at(ChangeOperation::Symlink, "/srv/build/bin/out", 0o120_777)
        },
        Change {
            mode: Some(0o755),
            ..at(ChangeOperation::Mkdir, "/srv/build/bin", directory)
        },
        at(ChangeOperation::Rmdir, "/srv/build/tmp", directory),
        Change {
            mode: Some(0o020_600),
            device: Some((1, 3)),
            ..at(ChangeOperation::Mknod, "/srv/jail/dev/null", 0o020_600)
        },
        Change {
            mode: Some(0o4755),
            ..at(ChangeOperation::Chmod, "/srv/build/out", 0o104_755)
        },
        Change {
            uid: Some(0),
            gid: Some(0),
            ..at(ChangeOperation::Chown, "/srv/build/out", regular)
        },
        Change {
            accessed_ns: Some(1_700_000_000_123_456_789),
            modified_ns: Some(946_684_800_000_000_000),
            ..at(ChangeOperation::Utimes, "/srv/build/out", regular)
        },
        Change {
            size: Some(0),
            ..at(ChangeOperation::Truncate, "/srv/build/log", regular)
        },
        Change {
            attribute: Some("security.capability".into()),
            ..at(ChangeOperation::Setxattr, "/srv/build/out", regular)
        },
        Change {
            attribute: Some("system.posix_acl_access".into()),
            ..at(ChangeOperation::Removexattr, "/srv/build/out", regular)
        },
    ]
}

/// What only the system call says.
fn as_given(operation: ChangeOperation, name: &str, errno: u16) -> Change {
    let at = FilePath {
        as_given: true,
        truncated: true,
        ..path(name)
    };
    Change {
        errno,
        ..change(operation, at, None)
    }
}

pub(super) fn samples() -> Vec<Event> {
    let odd = text::escape(b"a \"q\"\n\xff");
    let mount = |at: &str, source: Option<&str>, flags, errno| Mount {
        path: path(at),
        source: source.map(Into::into),
        fs_type: source.map(|_| "ext4".into()),
        flags,
        errno,
    };
    let mut kinds = vec![Kind::Create(Open {
        path: path("/srv/build/main.o"),
        file: Some(file(2_228_350, 0o100_644)),
        flags: 0o2_001_101,
        errno: 0,
    })];
    kinds.extend(plain().into_iter().map(Kind::Change));
    kinds.extend([
        Kind::Mount(mount("/mnt/data", Some("/dev/sdb1"), Some(1), 0)),
        Kind::Umount(mount("/mnt/data", Some("/dev/sdb1"), Some(2), 0)),
    ]);
    let mut all: Vec<Event> = kinds
        .into_iter()
        .map(|kind| super::event(7_500_000, shell(), kind))
        .collect();
    let odd_ones = [
        Kind::Change(Change {
            from: Some(FilePath {
                as_given: true,
                truncated: true,
                ..path(&odd)
            }),
            ..as_given(ChangeOperation::Link, "b", 18)
        }),
        Kind::Change(Change {
            target: Some(odd.clone()),
            ..as_given(ChangeOperation::Symlink, "b", 17)
        }),
        Kind::Change(Change {
            attribute: Some(odd.clone()),
            ..as_given(ChangeOperation::Setxattr, "b", 95)
        }),
        Kind::Change(Change {
            size: Some(u64::MAX),
            ..as_given(ChangeOperation::Truncate, "b", 27)
        }),
        Kind::Change(as_given(ChangeOperation::Mkdir, "", 2)),
        Kind::Change(as_given(ChangeOperation::Rmdir, "b", 39)),
        Kind::Change(as_given(ChangeOperation::Mknod, "b", 17)),
        Kind::Change(as_given(ChangeOperation::Chmod, "b", 1)),
        Kind::Change(Change {
            gid: Some(u32::MAX),
            ..as_given(ChangeOperation::Chown, "b", 1)
        }),
        Kind::Change(as_given(ChangeOperation::Utimes, "b", 1)),
        Kind::Change(as_given(ChangeOperation::Removexattr, "b", 61)),
        Kind::Mount(Mount {
            source: Some(odd.clone()),
            ..mount("/mnt", None, Some(u32::MAX), 1)
        }),
        Kind::Mount(mount("/mnt", None, None, 0)),
        Kind::Umount(mount("/mnt", None, Some(0x108), 16)),
    ];
    all.extend(
        odd_ones
            .into_iter()
            .map(|kind| super::event(7_600_000, worker(), kind)),
    );
    all
}
