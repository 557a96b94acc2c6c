//! A claim to run another program, which proves a hook that refuses such.

use rustix::io::Errno;

/// Asks to be taken for who runs what no descriptor leads to. The hook is asked before anything else; what its record does not
/// prove, the errno does not either.
pub(crate) fn claim_canary() -> rustix::io::Result<()> {
    let none = libc::c_ulong::MAX;
    // SAFETY: plain numbers; nothing can be changed by it, because there is no such descriptor.
    let result = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, none, 0, 0) };
    match result {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }
}
