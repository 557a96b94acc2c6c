//! Requests to block devices.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Failed, Quoted};

/// A block device: the whole disk, not its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlockDevice {
    /// The kernel's name, escaped: `sda`.
    pub name: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// What a request asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiskOperation {
    /// Data from the device.
    Read,
    /// Data to the device.
    Write,
    /// Its cache to the medium.
    Flush,
    /// These sectors are no longer needed.
    Discard,
    /// These sectors are to be unreadable.
    SecureErase,
    /// Zeroes, which need not be sent.
    WriteZeroes,
    /// Any other one, such as those of zoned devices.
    Other,
}

impl DiskOperation {
    /// Its name, as in `stockade.disk.operation`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DiskOperation::Read => "read",
            DiskOperation::Write => "write",
            DiskOperation::Flush => "flush",
            DiskOperation::Discard => "discard",
            DiskOperation::SecureErase => "secure_erase",
            DiskOperation::WriteZeroes => "write_zeroes",
            DiskOperation::Other => "other",
        }
    }
}

/// A request to a block device has completed. The event's process is the one that the request was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Disk {
    /// Which device.
    pub device: BlockDevice,
    /// What was asked.
    pub operation: DiskOperation,
    /// Bits: 1 synchronous, 2 metadata, 4 forced to the medium (FUA), 8 after a flush, 16 read ahead.
    pub flags: u32,
    /// First sector of 512 bytes on the whole disk; `None` for a flush.
    pub sector: Option<u64>,
    /// Length in bytes, with what was merged into it.
    pub bytes: u64,
    /// From when it was made until the driver had it, or to the end when it never got there; in nanoseconds.
    pub queue_ns: u64,
    /// From there to its completion in nanoseconds; `None` when the driver never had it.
    pub device_ns: Option<u64>,
    /// 0 or a positive errno.
    pub errno: u16,
}

impl Disk {
    /// From when it was made to its completion, in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.queue_ns.saturating_add(self.device_ns.unwrap_or(0))
    }
}

/// How many operations took how long. The slot is the number of bits of the time in whole microseconds: slot 0 is below
/// 1 us, slot n from 2^(n-1) up to 2^n us, and the last one has no upper bound.
pub type Histogram = [u64; 24];

/// What one process asked of one device by one operation in a while; all its threads together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskSummary {
    /// Which device.
    pub device: BlockDevice,
    /// What was asked.
    pub operation: DiskOperation,
    /// Requests that have completed.
    pub ios: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Of these requests, those that failed.
    pub errors: u64,
    /// Time before the driver had them, in nanoseconds.
    pub queue_ns: u64,
    /// Time that the device took, in nanoseconds.
    pub device_ns: u64,
    /// The requests by their time before the driver had them.
    pub queue: Histogram,
    /// The requests that the driver had, by the time that the device took.
    pub device_time: Histogram,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

const FLAGS: [(u32, &str); 5] = [
    (1 << 0, "sync"),
    (1 << 1, "meta"),
    (1 << 2, "fua"),
    (1 << 3, "preflush"),
    (1 << 4, "readahead"),
];

/// Gives `each` the names in a request's flags; returns the bits that have none.
pub(crate) fn flags(flags: u32, mut each: impl FnMut(&'static str)) -> u32 {
    let mut rest = flags;
    for (bit, name) in FLAGS {
        if flags & bit != 0 {
            each(name);
            rest &= !bit;
        }
    }
    rest
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quoted(&self.name).fmt(f)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, self.operation.name())?;
        if let Some(sector) = self.sector {
            write!(f, " sector={sector}")?;
        }
        write!(f, " bytes={}", self.bytes)?;
        if self.flags != 0 {
            f.write_str(" flags=")?;
            super::names::write_flags(f, self.flags, |bits, each| flags(bits, each))?;
        }
        write!(f, " queue={:.1}us", self.queue_ns as f64 / 1e3)?;
        if let Some(ns) = self.device_ns {
            write!(f, " device={:.1}us", ns as f64 / 1e3)?;
        }
        Failed(self.errno).fmt(f)
    }
}

impl fmt::Display for DiskSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ios={} bytes={} errors={} queue={} device={} in={:.1}s",
            self.device,
            self.operation.name(),
            self.ios,
            self.bytes,
            self.errors,
            Slots(&self.queue),
            Slots(&self.device_time),
            self.window_ns as f64 / 1e9
        )
    }
}

/// The slots that are not empty, each by its lower bound: `[4us:17 8us:2]`.
pub(super) struct Slots<'a>(pub(super) &'a Histogram);

impl fmt::Display for Slots<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        let mut separator = "";
        for (slot, count) in self.0.iter().enumerate().filter(|(_, n)| **n > 0) {
            let us = slot.checked_sub(1).map_or(0, |bits| 1_u64 << bits);
            match us {
                0..1_000 => write!(f, "{separator}{us}us:{count}")?,
                1_000..1_000_000 => write!(f, "{separator}{:.0}ms:{count}", us as f64 / 1e3)?,
                _ => write!(f, "{separator}{:.1}s:{count}", us as f64 / 1e6)?,
            }
            separator = " ";
        }
        f.write_str("]")
    }
}
