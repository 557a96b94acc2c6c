//! The mount table, and host paths for hooks that know only the place inside a file system.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One line of `/proc/PID/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Device of the file system: major, minor.
    pub(crate) device: (u32, u32),
    /// Which directory of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) mount_point: PathBuf,
    /// File system type.
    pub(crate) fs_type: String,
}

/// The mount table that this process sees, read when it has changed and not for each denial.
#[derive(Debug, Default)]
pub(crate) struct MountTable {
    file: Option<File>,
    mounts: Vec<Mount>,
}

impl MountTable {
    /// As it is now; empty where /proc cannot be read.
    pub(crate) fn now(&mut self) -> &[Mount] {
        let is_new = self.file.is_none();
        if is_new {
            self.file = File::open("/proc/self/mountinfo").ok();
        }
        if let Some(file) = &mut self.file
            && (is_new || has_changed(file))
        {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            self.mounts = parse(&text);
            if read.is_err() {
                self.file = None;
            }
        }
        &self.mounts
    }
}

/// Whether the table has changed since it was opened, or since this was asked last (fs/proc_namespace.c, `mounts_poll`).
fn has_changed(table: &File) -> bool {
    let mut polled = [PollFd::new(table, PollFlags::PRI)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Where it cannot be asked it is read.
    poll(&mut polled, Some(&at_once)).map_or(true, |_| {
        polled[0]
            .revents()
            .intersects(PollFlags::PRI | PollFlags::ERR)
    })
}

/// Reads a mount table; lines that are not understood are left out.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// Where cgroup2 is mounted: at /sys/fs/cgroup on most systems, below it on hybrid ones.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    parse(&mounts)
        .into_iter()
        .find(|m| m.fs_type == "cgroup2")
        .map(|m| m.mount_point)
}

fn line(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let root = fields.next()?;
    let mount_point = fields.next()?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: unescape(root).into(),
        mount_point: unescape(mount_point).into(),
        fs_type: back.split(' ').next()?.to_owned(),
    })
}

/// Where file systems are mounted below a directory, which is a path without links, that are mounted there alone: what is in
/// them is nowhere else.
pub(crate) fn alone_below<'a>(
    mounts: &'a [Mount],
    directory: &Path,
) -> impl Iterator<Item = &'a Path> {
    let below = move |mount: &&Mount| {
        mount.mount_point != directory && mount.mount_point.starts_with(directory)
    };
    let alone = |mount: &&Mount| {
        let same =
            |other: &&Mount| other.device == mount.device || other.mount_point == mount.mount_point;
        mounts.iter().filter(same).count() == 1
    };
    let found = mounts.iter().filter(below).filter(alone);
    found.map(|mount| mount.mount_point.as_path())
}

/// The kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 4)
            .and_then(|d| std::str::from_utf8(d).ok());
        match (
            bytes[at],
            digits.and_then(|d| u8::from_str_radix(d, 8).ok()),
        ) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where `path`, which starts at the root of the file system on `device`, is on the host. `None` when no mount shows it.
pub(crate) fn host_path(mounts: &[Mount], device: (u32, u32), path: &str) -> Option<String> {
    mounts
        .iter()
        .filter(|m| m.device == device)
        .filter_map(|m| Some((m, Path::new(path).strip_prefix(&m.root).ok()?)))
        // The mount of the largest part of the file system is the one people know.
        .min_by_key(|(m, _)| (m.root.as_os_str().len(), m.mount_point.as_os_str().len()))
        .map(|(m, rest)| m.mount_point.join(rest).to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_once_and_is_what_the_kernel_says() {
        let mut table = MountTable::default();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(table.now(), parse(&text));
        // What nobody has changed is not read again.
        table.mounts.truncate(1);
        assert_eq!(table.now().len(), 1);
    }

    #[test]
    fn what_is_mounted_below_a_directory_and_nowhere_else_is_found() {
        let line = |device: &str, at: &str| format!("1 1 {device} / {at} rw - tmpfs none rw\n");
        let table: String = [
            ("254:0", "/"),
            ("0:30", "/srv"),
            ("0:31", "/srv/a"),
            ("0:32", "/srv/a/b"),
            ("0:33", "/srv/twice"),
            ("0:33", "/mnt"),
            ("0:34", "/srv/over"),
            ("0:35", "/srv/over"),
            ("0:36", "/srvs"),
        ]
        .iter()
        .map(|(device, at)| line(device, at))
        .collect();
        let mounts = parse(&table);
        let found: Vec<_> = alone_below(&mounts, Path::new("/srv")).collect();
        assert_eq!(found, [Path::new("/srv/a"), Path::new("/srv/a/b")]);
    }

    const TABLE: &str = "\
28 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
31 28 0:28 /@home /mnt/a\\040b rw shared:1 - btrfs /dev/vdb rw\n\
40 28 254:0 /srv/x /bind rw - ext4 /dev/vda rw\n\
nonsense\n";

    #[test]
    fn the_whole_file_system_is_preferred_to_a_bind_mount() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].mount_point, Path::new("/mnt/a b"));
        assert_eq!(
            host_path(&mounts, (254, 0), "/srv/x/f").as_deref(),
            Some("/srv/x/f")
        );
        assert_eq!(
            host_path(&mounts, (0, 28), "/@home/u/f").as_deref(),
            Some("/mnt/a b/u/f")
        );
        assert_eq!(host_path(&mounts, (0, 28), "/@snap/f"), None);
        assert_eq!(host_path(&mounts, (9, 9), "/f"), None);
    }
}
