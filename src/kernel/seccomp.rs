//! Filters of system calls, as seccomp(2) has them: programs of classic BPF that a thread keeps for good, and hands on to
//! all that it starts.

use std::io;

/// A filter for one command.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// What seccomp(2) takes.
    pub(crate) program: Vec<libc::sock_filter>,
    /// What makes [`CANARY`] one that is refused.
    pub(crate) secret: u64,
}

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// No call of any kernel: refused where a filter stands, if its first argument is the filter's secret, and else unknown.
pub(crate) const CANARY: u32 = crate::wire::call_slot::CANARY;

/// Puts a filter on the calling thread; only async-signal-safe calls are made.
///
/// # Errors
///
/// EACCES without CAP_SYS_ADMIN; EINVAL and ENOSYS where the kernel has no seccomp.
pub(crate) fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions from where they are, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the call that a filter with this secret must refuse with EPERM. Without one it is unknown: ENOSYS.
pub(crate) fn call_canary(secret: u64) -> io::Result<()> {
    // SAFETY: there is no such call, so that nothing happens but an error.
    match unsafe { libc::syscall(CANARY.into(), secret) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
