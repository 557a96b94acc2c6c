//! What the records of block devices mean.

use super::{DiskRecord, RawDiskDevice};
use crate::event::{BlockDevice, Disk, DiskOperation, text};

/// Values of `enum stk_disk_op`.
pub(crate) fn disk_operation(op: u32) -> DiskOperation {
    match op {
        0 => DiskOperation::Read,
        1 => DiskOperation::Write,
        2 => DiskOperation::Flush,
        3 => DiskOperation::Discard,
        4 => DiskOperation::SecureErase,
        5 => DiskOperation::WriteZeroes,
        _ => DiskOperation::Other,
    }
}

/// The device, with its name in `name`, which is empty.
pub(crate) fn disk_device(raw: &RawDiskDevice, mut name: String) -> BlockDevice {
    let len = raw.name.iter().position(|b| *b == 0);
    text::escape_into(&mut name, &raw.name[..len.unwrap_or(raw.name.len())]);
    BlockDevice {
        name,
        major: raw.major,
        minor: raw.minor,
    }
}

pub(super) fn disk(rec: &DiskRecord, name: String) -> Disk {
    let operation = disk_operation(rec.op);
    Disk {
        device: disk_device(&rec.device, name),
        operation,
        flags: rec.flags,
        sector: (operation != DiskOperation::Flush).then_some(rec.sector),
        bytes: rec.bytes,
        queue_ns: rec.queue_ns,
        device_ns: (rec.issued != 0).then_some(rec.device_ns),
        errno: errno(rec.error),
    }
}

/// The errno of a failure: given as such, negative, or as one of block/blk-core.c's `blk_errors`. Those from 14 on have
/// changed their numbers between kernels; they are EIO, as any unknown one is in the kernel.
fn errno(error: i32) -> u16 {
    const EIO: u16 = 5;
    /// EOPNOTSUPP, ETIMEDOUT, ENOSPC, ENOLINK, EREMOTEIO, EBADE, ENODATA, EILSEQ, ENOMEM, EIO, EREMCHG, EAGAIN, EBUSY.
    const ERRNOS: [u16; 14] = [0, 95, 110, 28, 67, 121, 52, 61, 84, 12, EIO, 78, 11, 16];
    if error < 0 {
        return u16::try_from(error.unsigned_abs()).unwrap_or(EIO);
    }
    let index = usize::try_from(error).unwrap_or(usize::MAX);
    ERRNOS.get(index).copied().unwrap_or(EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_errno_that_a_caller_gets() {
        for (error, expected) in [(0, 0), (-5, 5), (-28, 28), (10, 5), (3, 28), (17, 5)] {
            assert_eq!(errno(error), expected, "{error}");
        }
    }

    #[test]
    fn operations_are_those_of_the_kernel_half() {
        let header = include_str!("../bpf/wire.h");
        for op in 0..=6 {
            let name = disk_operation(op).name().to_uppercase();
            assert!(header.contains(&format!("STK_DISK_{name} = {op},")), "{op}");
        }
    }
}
