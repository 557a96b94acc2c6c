//! The compiled objects. Private: the skeletons hold kernel types as well, and change with every build.

macro_rules! skeleton {
    ($name:ident, $file:literal) => {
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
    };
}

skeleton!(identity, "identity");
skeleton!(scope, "scope");
skeleton!(process, "process");
skeleton!(process_summary, "process_summary");
skeleton!(file, "file");
skeleton!(file_summary, "file_summary");
skeleton!(fence, "fence");
skeleton!(syscall, "syscall");
skeleton!(network, "network");
skeleton!(memory, "memory");
skeleton!(allocation, "allocation");
skeleton!(disk, "disk");
skeleton!(profile, "profile");
