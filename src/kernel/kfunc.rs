//! Calls of kernel functions that are no helpers (kfuncs), put into programs before they are loaded.
//!
//! libbpf would find the functions by itself if the programs named them, but reads all of the kernel's types for that,
//! once for each object that names one, also where the program that does is not loaded: 8 ms. The extract of the types that we
//! give it has no functions.

use libbpf_rs::{AsRawLibbpf as _, OpenProgramMut, libbpf_sys as sys};

use super::btf::KernelBtf;
use super::preemptible_tracepoints;
use crate::error::{Error, ErrorKind, Result};

/// Numbers in the programs (`STK_CALL_…` in session.bpf.h) and the functions that they stand for.
const CALLS: &[(i32, &str)] = &[
    (0x5354_4b01, "bpf_session_is_return"),
    (0x5354_4b02, "bpf_session_cookie"),
    (0x5354_4b03, "bpf_rdonly_cast"),
];

/// The same for types (`STK_TYPE_…`).
const TYPES: &[(i32, &str)] = &[
    (0x5354_5401, "dentry"),
    (0x5354_5402, "file"),
    (0x5354_5403, "filename"),
    (0x5354_5404, "iattr"),
    (0x5354_5405, "open_flags"),
    (0x5354_5406, "path"),
    (0x5354_5407, "renamedata"),
    (0x5354_5408, "vfsmount"),
    (0x5354_5409, "sock"),
    (0x5354_540a, "socket"),
    (0x5354_540b, "msghdr"),
    (0x5354_540c, "sk_buff"),
];

/// The types that have to be known. None where no session would take the programs that ask for them: to look for them
/// is a walk through all of the kernel's.
pub(super) fn types() -> impl Iterator<Item = &'static str> {
    let wanted = if preemptible_tracepoints() {
        TYPES
    } else {
        &[]
    };
    wanted.iter().map(|(_, name)| *name)
}

/// Replaces the instructions that move one of the numbers into the register of results by calls, and those that move a
/// type's into that of the second argument.
pub(super) fn link(program: &mut OpenProgramMut<'_>, btf: &KernelBtf) -> Result<()> {
    let stands_for_something = |instruction: &sys::bpf_insn| {
        named(TYPES, instruction, sys::BPF_REG_2)
            .or_else(|| named(CALLS, instruction, sys::BPF_REG_0))
            .is_some()
    };
    if !program.insns().iter().any(stands_for_something) {
        return Ok(());
    }
    let mut code = program.insns().to_vec();
    for instruction in &mut code {
        if let Some((_, name)) = named(TYPES, instruction, sys::BPF_REG_2) {
            let id = btf
                .structure(name)
                .ok_or_else(|| failed(&format!("this kernel has no struct {name}")))?;
            instruction.imm = number(id)?;
            continue;
        }
        let Some((_, name)) = named(CALLS, instruction, sys::BPF_REG_0) else {
            continue;
        };
        let function = btf
            .function(name)?
            .ok_or_else(|| failed(&format!("this kernel has no {name}")))?;
        let mut call = sys::bpf_insn {
            code: byte(sys::BPF_JMP | sys::BPF_CALL),
            imm: number(function.id)?,
            ..sys::bpf_insn::default()
        };
        call.set_src_reg(byte(sys::BPF_PSEUDO_KFUNC_CALL));
        *instruction = call;
    }
    // SAFETY: the program is open and not loaded; the instructions are valid for the call, which copies them.
    let error = unsafe {
        sys::bpf_program__set_insns(
            program.as_libbpf_object().as_ptr(),
            code.as_mut_ptr(),
            code.len() as sys::size_t,
        )
    };
    match error {
        0 => Ok(()),
        error => Err(failed(
            &std::io::Error::from_raw_os_error(-error).to_string(),
        )),
    }
}

/// What an instruction that moves a number into this register stands for.
fn named(
    names: &'static [(i32, &str)],
    instruction: &sys::bpf_insn,
    register: u32,
) -> Option<&'static (i32, &'static str)> {
    let is_move = instruction.code == byte(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K)
        && instruction.dst_reg() == byte(register);
    names
        .iter()
        .find(|(number, _)| is_move && *number == instruction.imm)
}

fn number(id: u32) -> Result<i32> {
    i32::try_from(id).map_err(|_| failed("a type's id is out of range"))
}

fn byte(part: u32) -> u8 {
    u8::try_from(part).unwrap_or(0)
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Load, format!("calls of kernel functions: {why}"))
}
