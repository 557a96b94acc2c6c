//! Calls of kernel functions that are no helpers (kfuncs), and ids of the kernel's types, put into objects before they
//! are opened.
//!
//! libbpf would find the functions by itself if the programs named them, but reads all of the kernel's types for that,
//! once for each object that names one, also where the program that does is not loaded: 8 ms. The extract of the types
//! that we give it has no functions.

use std::collections::HashMap;

use libbpf_rs::libbpf_sys as sys;

use super::btf::{Function, KernelBtf};
use crate::error::{Error, ErrorKind, Result};

/// Numbers in the programs (`STK_CALL_…` in kfunc.bpf.h) and the functions that they stand for.
const CALLS: &[(i32, &str)] = &[
    (0x5354_4b01, "bpf_session_is_return"),
    (0x5354_4b02, "bpf_session_cookie"),
    (0x5354_4b03, CAST),
];

/// A pointer of the same value, and of a type that is named by its id.
const CAST: &str = "bpf_rdonly_cast";

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
    (0x5354_540d, "task_struct"),
    (0x5354_540e, "inode"),
    (0x5354_540f, "super_block"),
    (0x5354_5410, "mount"),
    (0x5354_5411, "linux_binprm"),
    (0x5354_5412, "kmem_cache"),
    (0x5354_5413, "timespec64"),
    (0x5354_5414, "pt_regs"),
    (0x5354_5415, "tcp_sock"),
    (0x5354_5416, "inet_sock"),
];

/// This struct, if programs ask for its id.
pub(super) fn type_of(name: &[u8]) -> Option<&'static str> {
    TYPES
        .iter()
        .map(|(_, known)| *known)
        .find(|known| known.as_bytes() == name)
}

/// Whether the kernel, which has these functions, can cast.
pub(super) fn casts(functions: &HashMap<String, Function>) -> bool {
    // The interpreter knows no such calls. Another network namespace than the first does not show the setting.
    let compiles = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
        .map_or(true, |setting| setting.trim() != "0");
    compiles && functions.contains_key(CAST)
}

/// Replaces the marked instructions of an object: those that move a function's number into the register of results by
/// calls, and in those that move a type's into that of the second argument the number by the id. What this kernel lacks
/// stays as it is: what needs it says so (`Needs::Function`) and is not loaded.
pub(super) fn link(elf: &mut [u8], marks: &[usize], btf: &KernelBtf) -> Result<()> {
    for &at in marks {
        let instruction: &mut [u8; 8] = elf
            .get_mut(at..)
            .and_then(<[u8]>::first_chunk_mut)
            .ok_or_else(|| failed("an instruction is not in its object"))?;
        let number = i32::from_ne_bytes([
            instruction[4],
            instruction[5],
            instruction[6],
            instruction[7],
        ]);
        if let Some(name) = named(TYPES, number) {
            if let Some(id) = btf.structure(name) {
                instruction[4..].copy_from_slice(&id.to_ne_bytes());
            }
            continue;
        }
        let name = named(CALLS, number).ok_or_else(|| failed("a mark stands for nothing"))?;
        if let Some(function) = btf.function(name)? {
            instruction[..4].copy_from_slice(&CALL);
            instruction[4..].copy_from_slice(&function.id.to_ne_bytes());
        }
    }
    Ok(())
}

/// A call of a kernel function, but for its id: code, registers (a kind of call in place of the source), no offset.
const CALL: [u8; 4] = [
    (sys::BPF_JMP | sys::BPF_CALL) as u8,
    registers(0, sys::BPF_PSEUDO_KFUNC_CALL),
    0,
    0,
];

/// As they share a byte, which is a matter of the machine's endianness (include/uapi/linux/bpf.h: bit fields).
const fn registers(to: u32, from: u32) -> u8 {
    if cfg!(target_endian = "little") {
        (from << 4 | to) as u8
    } else {
        (to << 4 | from) as u8
    }
}

fn named(names: &'static [(i32, &str)], number: i32) -> Option<&'static str> {
    names.iter().find(|(n, _)| *n == number).map(|(_, n)| *n)
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Load, format!("calls of kernel functions: {why}"))
}
