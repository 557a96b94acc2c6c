//! Perf events.

use std::os::fd::{FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys as sys;

/// An attribute of the size that this version knows; all else is off.
pub(super) fn attributes(kind: sys::perf_type_id, config: u64) -> sys::perf_event_attr {
    sys::perf_event_attr {
        type_: kind,
        // Some 140 bytes.
        size: size_of::<sys::perf_event_attr>() as u32,
        config,
        ..Default::default()
    }
}

/// perf_event_open(2) on one CPU, for every process.
pub(super) fn open(attr: &mut sys::perf_event_attr, cpu: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: `attr` is a valid perf_event_attr of the size it names and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(attr),
            -1,
            cpu,
            -1,
            sys::PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: a non-negative result is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}
