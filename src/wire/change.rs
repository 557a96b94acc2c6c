//! What the records of other changes to files mean.

use super::decode::{Malformed, Spare, errno, given, optional_file_id, path, until_nul, variable};
use super::{Header, RawFileId, flag};
use crate::event::{Change, ChangeOperation, Kind, Mount};

/// Values of `enum stk_change_op`.
pub(crate) mod change_op {
    pub(crate) const LINK: u32 = 1;
    pub(crate) const SYMLINK: u32 = 2;
    pub(crate) const MKDIR: u32 = 3;
    pub(crate) const RMDIR: u32 = 4;
    pub(crate) const MKNOD: u32 = 5;
    pub(crate) const CHMOD: u32 = 6;
    pub(crate) const CHOWN: u32 = 7;
    pub(crate) const UTIMES: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 9;
    pub(crate) const SETXATTR: u32 = 10;
    pub(crate) const REMOVEXATTR: u32 = 11;
    pub(crate) const MOUNT: u32 = 12;
    pub(crate) const UMOUNT: u32 = 13;
}

/// Values of `enum stk_change_set`.
pub(crate) mod change_set {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const DEV: u32 = 1 << 6;
    pub(crate) const FLAGS: u32 = 1 << 7;
}

record!(
    /// `struct stk_change`.
    ChangeRecord {
        hdr: Header,
        file: RawFileId,
        size: u64,
        atime_ns: i64,
        mtime_ns: i64,
        result: i32,
        op: u32,
        set: u32,
        mode: u32,
        uid: u32,
        gid: u32,
        dev: u32,
        flags: u32,
        path_len: u32,
        base_len: u32,
        other_len: u32,
        type_len: u32,
    }
);

pub(super) fn change(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let (rec, mut parts) = variable::<ChangeRecord>(bytes)?;
    let name = parts.take(rec.path_len)?;
    let base = parts.take(rec.base_len)?;
    let other = parts.take(rec.other_len)?;
    let fs_type = parts.take(rec.type_len)?;
    parts.end()?;
    let flags = rec.hdr.flags;
    let as_given = flags & flag::AS_GIVEN != 0;
    let at = if as_given {
        given(name, base, flags, spare)
    } else {
        path(name, flags & flag::PATH_CUT != 0, flags, spare)
    };
    let set = |bit| rec.set & bit != 0;
    let mut text = |bytes: &[u8]| (!bytes.is_empty()).then(|| spare.escaped(until_nul(bytes)));
    if matches!(rec.op, change_op::MOUNT | change_op::UMOUNT) {
        let mount = Mount {
            path: at,
            source: text(other),
            fs_type: text(fs_type),
            flags: set(change_set::FLAGS).then(|| without_magic(rec.flags)),
            errno: errno(rec.result),
        };
        return Ok(match rec.op {
            change_op::MOUNT => Kind::Mount(mount),
            _ => Kind::Umount(mount),
        });
    }
    let operation = operation(rec.op).ok_or(Malformed::Unknown)?;
    let target = match operation {
        ChangeOperation::Symlink => text(other),
        _ => None,
    };
    let attribute = match operation {
        ChangeOperation::Setxattr | ChangeOperation::Removexattr => text(other),
        _ => None,
    };
    let from = match operation {
        ChangeOperation::Link if as_given => Some(given(other, &[], flags, spare)),
        ChangeOperation::Link => Some(path(other, flags & flag::PATH2_CUT != 0, 0, spare)),
        _ => None,
    };
    // S_IFCHR and S_IFBLK: what else is made has no number.
    let is_device = matches!(rec.mode & 0o170_000, 0o020_000 | 0o060_000);
    Ok(Kind::Change(Change {
        operation,
        path: at,
        file: optional_file_id(rec.file),
        from,
        target,
        attribute,
        mode: set(change_set::MODE).then_some(rec.mode),
        uid: set(change_set::UID).then_some(rec.uid),
        gid: set(change_set::GID).then_some(rec.gid),
        size: set(change_set::SIZE).then_some(rec.size),
        device: (set(change_set::DEV) && is_device).then_some((rec.dev >> 20, rec.dev & 0xf_ffff)),
        accessed_ns: set(change_set::ATIME).then_some(rec.atime_ns),
        modified_ns: set(change_set::MTIME).then_some(rec.mtime_ns),
        errno: errno(rec.result),
    }))
}

fn operation(op: u32) -> Option<ChangeOperation> {
    Some(match op {
        change_op::LINK => ChangeOperation::Link,
        change_op::SYMLINK => ChangeOperation::Symlink,
        change_op::MKDIR => ChangeOperation::Mkdir,
        change_op::RMDIR => ChangeOperation::Rmdir,
        change_op::MKNOD => ChangeOperation::Mknod,
        change_op::CHMOD => ChangeOperation::Chmod,
        change_op::CHOWN => ChangeOperation::Chown,
        change_op::UTIMES => ChangeOperation::Utimes,
        change_op::TRUNCATE => ChangeOperation::Truncate,
        change_op::SETXATTR => ChangeOperation::Setxattr,
        change_op::REMOVEXATTR => ChangeOperation::Removexattr,
        _ => return None,
    })
}

/// Old programs put a number (`MS_MGC_VAL`) into the upper half, which the kernel takes away.
fn without_magic(flags: u32) -> u32 {
    if flags & 0xffff_0000 == 0xc0ed_0000 {
        flags & 0xffff
    } else {
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode::Decoder;
    use crate::wire::sample::{file_id, header};
    use crate::wire::{bytes_of, kind};

    /// A record as the kernel half sends it, with these parts: path, base, other, type.
    fn decode(
        op: u32,
        flags: u32,
        parts: [&[u8]; 4],
        fill: impl FnOnce(&mut ChangeRecord),
    ) -> Result<Kind, Malformed> {
        let len = |part: &[u8]| u32::try_from(part.len()).unwrap();
        let all = parts.concat();
        let mut record = ChangeRecord {
            hdr: header(kind::LINK, flags, size_of::<ChangeRecord>() + all.len()),
            file: file_id(),
            size: 9,
            atime_ns: -1,
            mtime_ns: 7,
            result: 0,
            op,
            set: 0,
            mode: 0o10_644,
            uid: 1,
            gid: 2,
            dev: (8 << 20) | 17,
            flags: 1,
            path_len: len(parts[0]),
            base_len: len(parts[1]),
            other_len: len(parts[2]),
            type_len: len(parts[3]),
        };
        fill(&mut record);
        let mut bytes = bytes_of(&record).to_vec();
        bytes.extend(all);
        Ok(Decoder::new(4096, [0; 8]).decode(&bytes)?.kind)
    }

    fn changed(op: u32, fill: impl FnOnce(&mut ChangeRecord)) -> Change {
        match decode(op, 0, [b"leaf\0dir\0", b"", b"old\0dir\0", b""], fill) {
            Ok(Kind::Change(change)) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_link_has_an_old_path_and_only_a_symlink_a_target() {
        let link = changed(change_op::LINK, |_| ());
        assert_eq!(link.path.path, "/dir/leaf");
        assert_eq!(link.from.map(|p| p.path).as_deref(), Some("/dir/old"));
        assert_eq!((link.target, link.attribute), (None, None));
        let symlink = changed(change_op::SYMLINK, |_| ());
        assert_eq!(symlink.target.as_deref(), Some("old"));
        assert_eq!((symlink.from, symlink.attribute), (None, None));
        let attribute = changed(change_op::REMOVEXATTR, |r| r.result = -61);
        assert_eq!(attribute.attribute.as_deref(), Some("old"));
        assert_eq!((attribute.target, attribute.errno), (None, 61));
    }

    #[test]
    fn values_that_nobody_asked_for_are_not_there() {
        let none = changed(change_op::CHOWN, |_| ());
        assert_eq!((none.mode, none.uid, none.gid), (None, None, None));
        assert_eq!((none.size, none.accessed_ns), (None, None));
        let group = changed(change_op::CHOWN, |r| r.set = change_set::GID);
        assert_eq!((group.uid, group.gid), (None, Some(2)));
        let modified = changed(change_op::UTIMES, |r| r.set = change_set::MTIME);
        assert_eq!(
            (modified.accessed_ns, modified.modified_ns),
            (None, Some(7))
        );
        let size = changed(change_op::TRUNCATE, |r| r.set = change_set::SIZE);
        assert_eq!(size.size, Some(9));
    }

    #[test]
    fn only_devices_have_a_number() {
        let made = |mode| {
            changed(change_op::MKNOD, |r| {
                r.mode = mode;
                r.set = change_set::MODE | change_set::DEV;
            })
            .device
        };
        assert_eq!(made(0o060_600), Some((8, 17)));
        assert_eq!(made(0o020_600), Some((8, 17)));
        assert_eq!(made(0o010_600), None);
        assert_eq!(made(0o100_600), None);
    }

    #[test]
    fn a_mount_says_what_was_given_and_its_flags_without_the_magic() {
        let mounted = |flags, set| {
            let parts: [&[u8]; 4] = [b"mnt\0", b"/srv\0", b"/dev/sdb1\0", b"ext4\0"];
            let kind = decode(change_op::MOUNT, flag::AS_GIVEN, parts, |r| {
                r.flags = flags;
                r.set = set;
            });
            match kind {
                Ok(Kind::Mount(mount)) => mount,
                other => panic!("{other:?}"),
            }
        };
        let mount = mounted(0xc0ed_0001, change_set::FLAGS);
        assert!(mount.path.as_given, "{mount:?}");
        assert_eq!(mount.source.as_deref(), Some("/dev/sdb1"));
        assert_eq!(mount.fs_type.as_deref(), Some("ext4"));
        assert_eq!(mount.flags, Some(1));
        assert_eq!(mounted(1 << 24, change_set::FLAGS).flags, Some(1 << 24));
        assert_eq!(mounted(1, 0).flags, None);
    }

    #[test]
    fn an_operation_that_is_not_known_is_malformed() {
        assert_eq!(
            decode(0, 0, [b""; 4], |_| ()).map_err(|e| e == Malformed::Unknown),
            Err(true)
        );
    }
}
