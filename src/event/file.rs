//! What processes do with files, counted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::disk::Slots;
use super::{FileId, FilePath, Histogram};

/// Reads of a file, or writes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileUse {
    /// Those that have ended, failed ones included.
    pub count: u64,
    /// What they moved, in bytes.
    pub bytes: u64,
    /// How long they took, in nanoseconds; without those through io_uring.
    pub time_ns: u64,
    /// The same by their time; without those through io_uring.
    pub times: Histogram,
}

/// What one process did with one file in a while; all its threads together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileSummary {
    /// How the file was called when it was first used in this while; `None` where that is not known, and of what could
    /// not be opened.
    pub path: Option<FilePath>,
    /// Which file; `None`: this is about opens that failed.
    pub file: Option<FileId>,
    /// How often it was opened; of opens that failed, how often that was tried.
    pub opens: u64,
    /// Opens, reads and writes that failed.
    pub failures: u64,
    /// What was read from it.
    pub read: FileUse,
    /// What was written to it.
    pub written: FileUse,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

impl fmt::Display for FileUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.bytes, self.count, Slots(&self.times))
    }
}

impl fmt::Display for FileSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, &self.file) {
            (Some(path), _) => write!(f, "path={path}")?,
            (None, Some(file)) => write!(
                f,
                "inode={} device={}:{}",
                file.inode,
                file.major(),
                file.minor()
            )?,
            (None, None) => f.write_str("not opened")?,
        }
        write!(f, " opens={} failures={}", self.opens, self.failures)?;
        for (name, way) in [("read", &self.read), ("written", &self.written)] {
            if way.count > 0 {
                write!(f, " {name}={way}")?;
            }
        }
        write!(f, " in={:.1}s", self.window_ns as f64 / 1e9)
    }
}
