//! The kernel's own type information (BTF), read once for a start: the functions that somebody may hook, and the few types
//! that our programs name, as a BTF of their own.
//!
//! The extract is what makes a start fast. libbpf looks for each type of each object among all 150,000 of the kernel;
//! in the extract there are a few hundred. The format is that of Documentation/bpf/btf.rst.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::io::Write as _;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::kfunc;
use super::mapping::Mapping;
use crate::error::{Error, ErrorKind, Result};

mod names {
    // KERNEL_TYPES: names of all types in our objects, sorted.
    include!(concat!(env!("OUT_DIR"), "/kernel_types.rs"));
}

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: u32 = 24;

/// include/uapi/linux/btf.h
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// A function of the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    /// Its type's id.
    pub(super) id: u32,
    /// Number of its parameters.
    pub(super) params: usize,
}

/// What the running kernel says of itself.
pub(crate) struct KernelBtf {
    functions: HashMap<String, Function>,
    /// Ids of those that programs ask for by name.
    structures: HashMap<&'static str, u32>,
    casts: bool,
    extract: OwnedFd,
}

impl fmt::Debug for KernelBtf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelBtf")
            .field("functions", &self.functions.len())
            .finish_non_exhaustive()
    }
}

impl KernelBtf {
    /// Reads the running kernel's.
    pub(crate) fn read() -> Result<Self> {
        let bytes = Bytes::of(Path::new(PATH)).map_err(|e| {
            Error::new(
                ErrorKind::Unsupported,
                format!("this kernel has no type information (BTF) in {PATH}"),
            )
            .with_source(e)
            .with_hint("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        })?;
        let types = Types::parse(&bytes, names::KERNEL_TYPES).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("the type information in {PATH} is not in a form that this version knows"),
            )
        })?;
        let (extract, structures) = types.extract();
        let extract = memfd(&extract).map_err(|e| {
            Error::new(ErrorKind::Io, "a memory file for kernel types").with_source(e)
        })?;
        let functions = types.functions();
        Ok(KernelBtf {
            casts: kfunc::casts(&functions),
            functions,
            structures,
            extract,
        })
    }

    /// A function, if the kernel has it.
    pub(super) fn function(&self, function: &str) -> Result<Option<Function>> {
        if !kept(function.as_bytes()) {
            // It would pass for a function that the kernel lacks.
            return Err(Error::new(
                ErrorKind::Load,
                format!("{function} is not among the functions that are read; this is a defect"),
            ));
        }
        Ok(self.functions.get(function).copied())
    }

    /// Whether a program can give a number the type of a kernel pointer; the objects are others where it cannot.
    pub(super) fn casts(&self) -> bool {
        self.casts
    }

    /// The id of a struct that programs ask for by name, if the kernel has it.
    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        self.structures.get(name).copied()
    }

    /// Where libbpf finds the extract, as long as this lives.
    pub(super) fn extract_path(&self) -> String {
        format!("/proc/self/fd/{}", self.extract.as_raw_fd())
    }
}

/// The content of a file: mapped where the file can be (the kernel's BTF from 6.16 on), else read, which takes sysfs
/// 1,300 system calls.
#[derive(Debug)]
enum Bytes {
    Mapped { at: Mapping, len: usize },
    Read(Vec<u8>),
}

impl Bytes {
    fn of(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // The kernel refuses to share it.
        Ok(
            match Mapping::new(&file, len, ProtFlags::READ, MapFlags::PRIVATE) {
                Ok(at) => Bytes::Mapped { at, len },
                Err(_) => Bytes::Read(std::fs::read(path)?),
            },
        )
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // SAFETY: mapped with this length until drop; the kernel's types never change while it runs.
            Bytes::Mapped { at, len } => unsafe {
                std::slice::from_raw_parts(at.start().as_ptr().cast_const(), *len)
            },
            Bytes::Read(bytes) => bytes,
        }
    }
}

fn memfd(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("kernel-types", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Hooks that programs attach to, by how their names begin.
const HOOKS: [&str; 6] = [
    "__arm64_sys_",
    "__x64_sys_",
    "bpf_lsm_",
    "do_fil",
    "security_",
    "vfs_",
];

/// Other functions that the kernel half follows or calls, sorted.
const FUNCTIONS: [&str; 43] = [
    "__sock_create",
    "__traceiter_block_rq_issue",
    "__traceiter_kmalloc",
    "__traceiter_kmalloc_node",
    "__traceiter_kmem_cache_alloc",
    "__traceiter_sched_process_exit",
    "blk_mq_start_request",
    "blk_mq_submit_bio",
    "bpf_rdonly_cast",
    "bpf_session_cookie",
    "bpf_session_is_return",
    "bpf_task_pt_regs",
    "create_io_thread",
    "do_rmdir",
    "do_sendfile",
    "do_splice",
    "exit_files",
    "exit_mm_release",
    "finalize_exec",
    "inet6_bind",
    "inet6_recvmsg",
    "inet6_sendmsg",
    "inet_bind",
    "inet_csk_accept",
    "inet_listen",
    "inet_recvmsg",
    "inet_sendmsg",
    "inet_stream_connect",
    "io_complete_rw",
    "io_complete_rw_iopoll",
    "kernel_sendpage",
    "kiocb_done",
    "mnt_want_write",
    "mnt_want_write_file",
    "notify_change",
    "path_mount",
    "path_umount",
    "skb_consume_udp",
    "udp_sendmsg",
    "udpv6_sendmsg",
    "unix_dgram_connect",
    "unix_stream_connect",
    "wake_up_new_task",
];

/// Whether programs ask for this function; the other 60,000 stay where they are.
fn kept(name: &[u8]) -> bool {
    HOOKS.iter().any(|hook| name.starts_with(hook.as_bytes())) || among(&FUNCTIONS, name)
}

/// Whether these names, which are sorted, have this one.
fn among(names: &[&str], name: &[u8]) -> bool {
    names.binary_search_by(|n| n.as_bytes().cmp(name)).is_ok()
}

/// One type: its fixed part and what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name_off: u32,
    info: u32,
    /// Size or type id, as the kind has it.
    size_or_type: u32,
    rest: &'a [u8],
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn vlen(&self) -> usize {
        (self.info & 0xffff) as usize
    }
}

/// Bytes that follow the fixed part.
fn rest_len(info: u32) -> Option<usize> {
    let vlen = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => vlen * 12,
        kind::ENUM | kind::FUNC_PROTO => vlen * 8,
        kind::PTR | kind::FWD | kind::FLOAT | kind::TYPE_TAG => 0,
        kind::TYPEDEF..=kind::FUNC => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The text at this place, up to its NUL.
fn text(strings: &[u8], offset: u32) -> &[u8] {
    let from = strings.get(offset as usize..).unwrap_or_default();
    CStr::from_bytes_until_nul(from).map_or(from, CStr::to_bytes)
}

/// All types of a BTF, by id.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts; type 0 is void and has no place.
    offsets: Vec<u32>,
    /// Ids of those that somebody asked for, and of the functions that are kept.
    picked: Vec<u32>,
}

impl<'a> Types<'a> {
    /// All are walked through once, which is what takes the time: there are 150,000. `names` is sorted.
    fn parse(bytes: &'a [u8], names: &[&str]) -> Option<Self> {
        let magic = u16::from_ne_bytes(*bytes.first_chunk()?);
        if magic != MAGIC {
            return None;
        }
        let header_len = word(bytes, 4)? as usize;
        let section = |at: usize| {
            let start = header_len + word(bytes, at)? as usize;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut offsets = Vec::with_capacity(types.len() / 24);
        offsets.push(0);
        let mut picked = Vec::new();
        let mut at = 0;
        while at < types.len() {
            let (name, info) = (word(types, at)?, word(types, at + 4)?);
            let wanted = match info >> 24 & 0x1f {
                kind::FUNC => kept(text(strings, name)),
                kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::TYPEDEF => {
                    name != 0 && among(names, text(strings, name))
                }
                _ => false,
            };
            if wanted {
                picked.push(u32::try_from(offsets.len()).ok()?);
            }
            offsets.push(u32::try_from(at).ok()?);
            at += 12 + rest_len(info)?;
        }
        (at == types.len()).then_some(Types {
            types,
            strings,
            offsets,
            picked,
        })
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let at = *self.offsets.get(id as usize).filter(|_| id != 0)? as usize;
        let info = word(self.types, at + 4)?;
        Some(Type {
            name_off: word(self.types, at)?,
            info,
            size_or_type: word(self.types, at + 8)?,
            rest: self.types.get(at + 12..at + 12 + rest_len(info)?)?,
        })
    }

    /// Those that were picked, functions or others.
    fn picked(&self, functions: bool) -> impl Iterator<Item = (u32, Type<'a>)> {
        self.picked
            .iter()
            .filter_map(|id| Some((*id, self.get(*id)?)))
            .filter(move |(_, ty)| (ty.kind() == kind::FUNC) == functions)
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        text(self.strings, offset)
    }

    /// The functions that are kept, by name.
    fn functions(&self) -> HashMap<String, Function> {
        let mut found = HashMap::new();
        for (id, ty) in self.picked(true) {
            if let Some(proto) = self.get(ty.size_or_type) {
                let params = proto.vlen();
                let name = String::from_utf8_lossy(self.name(ty.name_off)).into_owned();
                found.insert(name, Function { id, params });
            }
        }
        found
    }

    /// A BTF of the types that were asked for and of what they are made of. What they only point at is left out: a
    /// CO-RE relocation compares pointers without looking behind them. And the ids that the structs have here which
    /// programs ask for; the first of each name.
    fn extract(&self) -> (Vec<u8>, HashMap<&'static str, u32>) {
        let mut out = Extract::new(self);
        let mut structures = HashMap::new();
        for (id, ty) in self.picked(false) {
            out.id(id);
            if ty.kind() == kind::STRUCT
                && let Some(name) = kfunc::type_of(self.name(ty.name_off))
            {
                structures.entry(name).or_insert(id);
            }
        }
        (out.finish(), structures)
    }
}

/// A BTF that is being put together.
struct Extract<'a> {
    from: &'a Types<'a>,
    /// New id by old id.
    ids: HashMap<u32, u32>,
    /// Old ids in the order of the new ones.
    order: Vec<u32>,
    strings: Vec<u8>,
    /// New offset by old offset.
    names: HashMap<u32, u32>,
}

impl<'a> Extract<'a> {
    fn new(from: &'a Types<'a>) -> Self {
        Extract {
            from,
            ids: HashMap::new(),
            order: Vec::new(),
            // The empty name comes first.
            strings: vec![0],
            names: HashMap::from([(0, 0)]),
        }
    }

    /// The new id of a type, which is written in its turn.
    fn id(&mut self, old: u32) -> u32 {
        if old == 0 {
            return 0;
        }
        // No more types than before, which were counted in 32 bits.
        let next = self.order.len() as u32 + 1;
        let new = *self.ids.entry(old).or_insert(next);
        if new == next {
            self.order.push(old);
        }
        new
    }

    fn name(&mut self, old: u32) -> u32 {
        if let Some(new) = self.names.get(&old) {
            return *new;
        }
        // As above: not longer than the original.
        let new = self.strings.len() as u32;
        self.strings.extend_from_slice(self.from.name(old));
        self.strings.push(0);
        self.names.insert(old, new);
        new
    }

    fn finish(mut self) -> Vec<u8> {
        let mut types = Vec::new();
        let mut at = 0;
        while let Some(&old) = self.order.get(at) {
            at += 1;
            // Every id in `order` was read from `from`.
            if let Some(ty) = self.from.get(old) {
                self.write(&mut types, ty);
            }
        }
        let mut out = Vec::with_capacity(types.len() + self.strings.len() + 24);
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]); // version, flags
        let len = |bytes: &[u8]| bytes.len() as u32;
        for field in [HEADER_LEN, 0, len(&types), len(&types), len(&self.strings)] {
            out.extend(field.to_ne_bytes());
        }
        out.append(&mut types);
        out.append(&mut self.strings);
        out
    }

    fn write(&mut self, out: &mut Vec<u8>, ty: Type<'_>) {
        // A typedef can name one. Nothing looks behind it, so what it takes and returns is left out too.
        let ty = if ty.kind() == kind::FUNC_PROTO {
            Type {
                info: kind::FUNC_PROTO << 24,
                size_or_type: 0,
                rest: &[],
                ..ty
            }
        } else {
            ty
        };
        let size_or_type = match ty.kind() {
            kind::PTR => 0,
            kind::TYPEDEF..=kind::RESTRICT | kind::TYPE_TAG => self.id(ty.size_or_type),
            _ => ty.size_or_type,
        };
        let name = self.name(ty.name_off);
        for field in [name, ty.info, size_or_type] {
            out.extend(field.to_ne_bytes());
        }
        let words = ty.rest.chunks_exact(4).filter_map(|w| word(w, 0));
        for (n, old) in words.enumerate() {
            let new = match (ty.kind(), n % 3) {
                (kind::STRUCT | kind::UNION | kind::ENUM64, 0) => self.name(old),
                (kind::STRUCT | kind::UNION, 1) => self.id(old),
                // Element type, index type, length.
                (kind::ARRAY, 0 | 1) => self.id(old),
                (kind::ENUM, _) if n % 2 == 0 => self.name(old),
                _ => old,
            };
            out.extend(new.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::HasSize as _;
    use libbpf_rs::btf::{Btf, types};

    use super::*;

    #[test]
    fn what_is_no_btf_is_refused() {
        assert!(Types::parse(b"", &[]).is_none());
        assert!(Types::parse(&[0; 64], &[]).is_none());
    }

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(FUNCTIONS.is_sorted());
        assert!(names::KERNEL_TYPES.is_sorted());
        assert!(kept(b"vfs_read") && kept(b"wake_up_new_task") && !kept(b"wake_up_new_tas"));
    }

    /// libbpf is the judge of the format, and the kernel's own BTF of the content.
    #[test]
    fn extract_has_the_types_of_the_kernel() {
        let Ok(bytes) = Bytes::of(Path::new(PATH)) else {
            // Nothing to extract from: no program would load here either.
            return;
        };
        // The second one is a typedef of a function.
        let names = ["inode", "rq_end_io_fn", "task_struct"];
        let whole = Types::parse(&bytes, &names).expect("the kernel's BTF");
        let fd = memfd(&whole.extract().0).expect("a memory file");
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let extract = Btf::from_path(path).expect("a BTF that libbpf accepts");
        let kernel = Btf::from_vmlinux().expect("the kernel's BTF");
        assert!(extract.len() * 20 < kernel.len(), "{} types", extract.len());
        for name in ["inode", "task_struct"] {
            let members = |btf: &Btf<'_>| {
                let ty = btf.type_by_name::<types::Struct<'_>>(name).expect(name);
                let members: Vec<_> = ty
                    .iter()
                    .map(|m| (m.name.map(std::ffi::OsStr::to_owned), m.attr))
                    .map(|(name, attr)| format!("{name:?} {attr:?}"))
                    .collect();
                (ty.size(), members)
            };
            assert_eq!(members(&extract), members(&kernel), "{name}");
        }
    }
}
