//! The compiled objects. Private: the skeletons hold kernel types as well, and change with every build.

use std::borrow::Cow;

use libbpf_rs::{ObjectBuilder, OpenObject};

use super::btf::KernelBtf;
use super::kfunc;
use crate::error::Result;

/// The types in an object, and the object.
macro_rules! skeleton {
    ($name:ident, $file:literal, $object:ident) => {
        #[allow(
            missing_docs,
            missing_debug_implementations,
            unreachable_pub,
            unused,
            clippy::all,
            clippy::undocumented_unsafe_blocks,
            clippy::wildcard_imports,
            clippy::uninlined_format_args,
            clippy::redundant_closure_for_method_calls
        )]
        pub(super) mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $file, ".skel.rs"));
        }

        pub(super) static $object: Compiled = Compiled {
            name: concat!($file, "_bpf"),
            elf: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".bpf.o")),
            marks: include!(concat!(env!("OUT_DIR"), "/", $file, ".marks.rs")),
            without_casts: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".plain.bpf.o")),
        };
    };
}

skeleton!(identity, "identity", IDENTITY);
skeleton!(scope, "scope", SCOPE);
skeleton!(process, "process", PROCESS);
skeleton!(process_summary, "process_summary", PROCESS_SUMMARY);
skeleton!(file, "file", FILE);
skeleton!(file_summary, "file_summary", FILE_SUMMARY);
skeleton!(fence, "fence", FENCE);
skeleton!(fence_network, "fence_network", FENCE_NETWORK);
skeleton!(fence_syscall, "fence_syscall", FENCE_SYSCALL);
skeleton!(fence_guard, "fence_guard", FENCE_GUARD);
skeleton!(fence_subject, "fence_subject", FENCE_SUBJECT);
skeleton!(fence_host, "fence_host", FENCE_HOST);
skeleton!(fence_written, "fence_written", FENCE_WRITTEN);
skeleton!(fence_limit, "fence_limit", FENCE_LIMIT);
skeleton!(syscall, "syscall", SYSCALL);
skeleton!(network, "network", NETWORK);
skeleton!(memory, "memory", MEMORY);
skeleton!(allocation, "allocation", ALLOCATION);
skeleton!(disk, "disk", DISK);
skeleton!(profile, "profile", PROFILE);

/// An object as clang made it.
pub(super) struct Compiled {
    name: &'static str,
    /// For kernels with casts (`KernelBtf::casts`).
    elf: &'static [u8],
    /// Where instructions in it wait for what only the running kernel knows.
    marks: &'static [usize],
    /// For the others.
    without_casts: &'static [u8],
}

impl Compiled {
    /// Reads it for this kernel. Not by the skeleton, which has no room for changes: subprograms can be reached in the
    /// file alone, once it is read libbpf shows none of them.
    pub(super) fn open(&self, btf: &KernelBtf) -> Result<libbpf_rs::Result<OpenObject>> {
        let elf = if btf.casts() {
            let mut elf = self.elf.to_vec();
            kfunc::link(&mut elf, self.marks, btf)?;
            Cow::Owned(elf)
        } else {
            Cow::Borrowed(self.without_casts)
        };
        let mut builder = ObjectBuilder::default();
        Ok(builder
            .name(self.name)
            .and_then(|b| b.btf_custom_path(btf.extract_path()))
            .and_then(|b| b.open_memory(&elf)))
    }

    /// Its programs.
    #[cfg(test)]
    pub(super) fn programs(&self) -> Vec<String> {
        let mut builder = ObjectBuilder::default();
        let open = builder.open_memory(self.elf).expect("an object of ours");
        open.progs()
            .map(|p| p.name().to_string_lossy().into_owned())
            .collect()
    }
}
