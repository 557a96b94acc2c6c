//! A process that is made to be refused.

use rustix::io::Errno;

/// Makes a process as nobody else does, by which the kernel half knows it (`STK_CLONE_CANARY`). One that comes to be ends at
/// once, and is gone when this returns.
pub(crate) fn fork_canary() -> rustix::io::Result<()> {
    let flags = libc::CLONE_IO | libc::CLONE_UNTRACED | libc::CLONE_SYSVSEM;
    // A number, and nothing above its 32 bits.
    let flags = flags as u32;
    // SAFETY: a copy of this process with one thread, as fork(2) makes it; it does nothing but end, which is allowed there.
    let pid = unsafe {
        let pid = libc::syscall(libc::SYS_clone, libc::c_ulong::from(flags), 0, 0, 0, 0);
        if pid == 0 {
            libc::_exit(0);
        }
        pid
    };
    let Ok(pid @ 1..) = libc::pid_t::try_from(pid) else {
        return Err(last_error());
    };
    loop {
        // SAFETY: our own child, and nothing is asked about it. It sends no signal at its end (`__WALL`).
        if unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } == pid {
            return Ok(());
        }
        match last_error() {
            Errno::INTR => {}
            e => return Err(e),
        }
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_refused_is_gone_again() {
        assert_eq!(fork_canary(), Ok(()));
        let waited = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert!(matches!(waited, Err(Errno::CHILD) | Ok(None)), "{waited:?}");
    }
}
