//! What is counted of files, and what it means.

use super::decode::{Spare, path};
use super::{RawFileId, TaskKey, flag};
use crate::event::{FilePath, FileSummary, FileUse};

/// `STK_FILE_PATH_MAX`.
const PATH_MAX: usize = 1024;
/// `STK_SLOTS`.
const SLOTS: usize = 24;

record!(
    /// `struct stk_file_path_key`.
    #[derive(PartialEq, Eq, Hash)]
    FilePathKey {
        ino: u64,
        dev: u32,
        generation: u32,
        epoch: u32,
        pad: u32,
    }
);

record!(
    /// `struct stk_file_key`.
    FileSumKey {
        task: TaskKey,
        file: FilePathKey,
    }
);

record!(
    /// `struct stk_file_way`.
    FileWay {
        count: u64,
        bytes: u64,
        time_ns: u64,
        slots: [u64; SLOTS],
    }
);

record!(
    /// `struct stk_file_sum`.
    FileSum {
        opens: u64,
        failures: u64,
        read: FileWay,
        written: FileWay,
        fs_magic: u32,
        mode: u32,
    }
);

record!(
    /// `struct stk_file_path`.
    CountedPath {
        len: u32,
        flags: u32,
        path: [u8; PATH_MAX],
    }
);

impl CountedPath {
    fn text(&self) -> FilePath {
        let len = usize::try_from(self.len).unwrap_or(PATH_MAX).min(PATH_MAX);
        path(
            &self.path[..len],
            self.flags & flag::PATH_CUT != 0,
            self.flags,
            &mut Spare::default(),
        )
    }
}

fn way(raw: &FileWay) -> FileUse {
    FileUse {
        count: raw.count,
        bytes: raw.bytes,
        time_ns: raw.time_ns,
        times: raw.slots,
    }
}

pub(crate) fn file_summary(
    key: &FileSumKey,
    sum: &FileSum,
    path: Option<&CountedPath>,
    window_ns: u64,
) -> FileSummary {
    let file = super::decode::optional_file_id(RawFileId {
        ino: key.file.ino,
        dev: key.file.dev,
        generation: key.file.generation,
        fs_magic: sum.fs_magic,
        mode: sum.mode,
    });
    FileSummary {
        path: file.and(path).map(CountedPath::text),
        file,
        opens: sum.opens,
        failures: sum.failures,
        read: way(&sum.read),
        written: way(&sum.written),
        window_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> FileWay {
        FileWay {
            count: 0,
            bytes: 0,
            time_ns: 0,
            slots: [0; SLOTS],
        }
    }

    fn told(fs_magic: u32, path: &[u8], flags: u32) -> FileSummary {
        let key = FileSumKey {
            task: TaskKey {
                start_ns: 1,
                tgid: 2,
            },
            file: FilePathKey {
                ino: 3,
                dev: 4,
                generation: 5,
                epoch: 6,
                pad: 0,
            },
        };
        let sum = FileSum {
            opens: 1,
            failures: 1,
            read: nothing(),
            written: nothing(),
            fs_magic,
            mode: 0o100_644,
        };
        let mut counted = CountedPath {
            len: u32::try_from(path.len()).unwrap(),
            flags,
            path: [b'x'; PATH_MAX],
        };
        counted.path[..path.len()].copy_from_slice(path);
        file_summary(&key, &sum, Some(&counted), 7)
    }

    #[test]
    fn a_path_ends_where_it_says_and_is_marked_where_it_is_cut() {
        let of = |path: &[u8], flags| told(0xef53, path, flags).path.unwrap();
        assert_eq!(of(b"c\0b\0", 0).path, "/b/c");
        let cut = of(b"c\0b\0", flag::PATH_CUT | flag::DELETED);
        assert_eq!(
            (cut.path.as_str(), cut.truncated, cut.deleted),
            ("b/c", true, true)
        );
    }

    #[test]
    fn what_could_not_be_opened_is_no_file() {
        let summary = told(0, b"", 0);
        assert_eq!(
            (summary.file, summary.path, summary.failures),
            (None, None, 1)
        );
    }

    #[test]
    fn sizes_are_those_of_the_kernel_half() {
        let header = include_str!("../bpf/wire.h");
        assert!(header.contains(&format!("STK_FILE_PATH_MAX = {PATH_MAX},")));
    }
}
