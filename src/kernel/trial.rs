//! Asks by trying whether the kernel takes a kind of program.

use std::os::fd::{FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys;

/// Loads a program on the function with this type id that does nothing, and lets it go.
pub(super) fn fentry(function: u32) -> std::io::Result<()> {
    let code = |op: u32| u8::try_from(op).unwrap_or(0);
    let program = [
        libbpf_sys::bpf_insn {
            code: code(libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K),
            ..libbpf_sys::bpf_insn::default()
        },
        libbpf_sys::bpf_insn {
            code: code(libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT),
            ..libbpf_sys::bpf_insn::default()
        },
    ];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: libbpf_sys::BPF_TRACE_FEXIT,
        attach_btf_id: function,
        ..libbpf_sys::bpf_prog_load_opts::default()
    };
    // SAFETY: all pointers are valid for the call, and the count is that of the array.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            c"stk_trial".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            &raw mut options,
        )
    };
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new descriptor that nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
