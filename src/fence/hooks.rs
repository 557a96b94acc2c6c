//! The hooks of the fence, as LSM programs and as their fmod_ret twins.

use crate::kernel::Needs::{self, Function, Params, PreemptibleTracepoints};
use crate::kernel::Probe;
use crate::kernel::Program::{Auto, Called, Cgroup, Tracepoint};
use crate::kernel::Variant;
use crate::policy::{Access, Thing};

const fn hook(name: &'static str, without: &'static str, variants: &'static [Variant]) -> Probe {
    Probe {
        name,
        variants,
        without,
        excused_without: None,
    }
}

macro_rules! variants {
    ($($how:literal $program:literal $needs:expr),+) => {
        &[$(Variant { name: $how, programs: &[Auto($program)], needs: $needs, blind: None }),+]
    };
}

const NONE: &[Needs] = &[];

/// The kinds of access that a hook for files judges. Opens are always judged: the canary is one.
fn judges(probe: &Probe) -> Access {
    match probe.name {
        "fence.mmap" | "fence.mprotect" => Access::EXEC,
        "fence.unlink" | "fence.rmdir" => Access::DELETE,
        "fence.rename" => Access::DELETE | Access::REPLACE | Access::CREATE,
        "fence.link" => Access::LINK | Access::CREATE,
        "fence.create" | "fence.mkdir" | "fence.mknod" | "fence.symlink" => Access::CREATE,
        "fence.mount" | "fence.move_mount" => Access::MOUNT,
        "fence.unix_connect" | "fence.unix_send" => Access::WRITE,
        "fence.setattr" => Access::WRITE | Access::METADATA,
        "fence.setxattr" | "fence.removexattr" | "fence.set_acl" | "fence.remove_acl"
        | "fence.file_setattr" => Access::METADATA,
        _ => Access::ALL,
    }
}

/// The hooks for files without which rules about these kinds would have a gap. The others are not loaded: each is work for
/// the verifier, and for everybody who comes by it.
pub(super) fn needed(
    probes: &'static [Probe],
    kinds: Access,
) -> impl Iterator<Item = &'static Probe> {
    let needed = move |probe: &&Probe| probe.name == OPEN || judges(probe).intersects(kinds);
    probes.iter().filter(needed)
}

const OPEN: &str = "fence.open";

/// What enters addresses of hosts: those that the monitor is told, and those in the answers that programs get. Without the
/// second one less is known.
pub(super) const HOSTS: &[Probe] = &[
    hook(
        "fence.hosts",
        "addresses of hosts",
        &[Variant {
            name: "called",
            programs: &[Called(TOLD)],
            needs: NONE,
            blind: None,
        }],
    ),
    hook(
        ANSWERS,
        "addresses that programs are told",
        &[Variant {
            name: "cgroup_skb",
            programs: &[Cgroup("fence_host__cgroup")],
            needs: NONE,
            blind: None,
        }],
    ),
];

pub(super) const ANSWERS: &str = "fence.answers";
pub(super) const TOLD: &str = "fence_host__told";

pub(super) const LSM: &[Probe] = &[
    hook(
        "fence.open",
        "opens and execs",
        variants!["lsm" "fence_open__lsm" NONE],
    ),
    hook(
        "fence.mmap",
        "executable mappings",
        variants!["lsm" "fence_mmap__lsm" NONE],
    ),
    hook(
        "fence.mprotect",
        "mappings that become executable",
        variants!["lsm" "fence_mprotect__lsm" NONE],
    ),
    hook(
        "fence.unlink",
        "removals",
        variants!["lsm" "fence_unlink__lsm" NONE],
    ),
    hook(
        "fence.rmdir",
        "removals of directories",
        variants!["lsm" "fence_rmdir__lsm" NONE],
    ),
    hook(
        "fence.rename",
        "renames",
        variants!["lsm" "fence_rename__lsm" NONE],
    ),
    hook(
        "fence.link",
        "hard links",
        variants!["lsm" "fence_link__lsm" NONE],
    ),
    hook(
        "fence.create",
        "new files",
        variants!["lsm" "fence_create__lsm" NONE],
    ),
    hook(
        "fence.mkdir",
        "new directories",
        variants!["lsm" "fence_mkdir__lsm" NONE],
    ),
    hook(
        "fence.mknod",
        "new device nodes, sockets and pipes",
        variants!["lsm" "fence_mknod__lsm" NONE],
    ),
    hook(
        "fence.symlink",
        "new symbolic links",
        variants!["lsm" "fence_symlink__lsm" NONE],
    ),
    hook(
        "fence.mount",
        "mounts",
        variants!["lsm" "fence_mount__lsm" NONE],
    ),
    hook(
        "fence.move_mount",
        "mounts by descriptors",
        variants!["lsm" "fence_movemount__lsm" NONE],
    ),
    hook(
        "fence.unix_connect",
        "connects to UNIX sockets",
        variants!["lsm" "fence_unixconn__lsm" NONE],
    ),
    hook(
        "fence.unix_send",
        "datagrams to UNIX sockets",
        variants!["lsm" "fence_unixsend__lsm" NONE],
    ),
    hook(
        "fence.setattr",
        "truncations and changes of attributes",
        variants![
            "lsm" "fence_setattr_id__lsm" &[Params("bpf_lsm_inode_setattr", 3)],
            "lsm/dentry" "fence_setattr_d__lsm" &[Params("bpf_lsm_inode_setattr", 2)]
        ],
    ),
    hook(
        "fence.setxattr",
        "extended attributes",
        variants![
            "lsm" "fence_setxattr_id__lsm" &[Params("bpf_lsm_inode_setxattr", 6)],
            "lsm/dentry" "fence_setxattr_d__lsm" &[Params("bpf_lsm_inode_setxattr", 5)]
        ],
    ),
    hook(
        "fence.removexattr",
        "extended attributes",
        variants![
            "lsm" "fence_rmxattr_id__lsm" &[Params("bpf_lsm_inode_removexattr", 3)],
            "lsm/dentry" "fence_rmxattr_d__lsm" &[Params("bpf_lsm_inode_removexattr", 2)]
        ],
    ),
    // Before 6.2 an access control list is an extended attribute.
    Probe {
        name: "fence.set_acl",
        variants: variants!["lsm" "fence_setacl__lsm" &[Function("bpf_lsm_inode_set_acl")]],
        without: "access control lists",
        excused_without: Some("bpf_lsm_inode_set_acl"),
    },
    Probe {
        name: "fence.remove_acl",
        variants: variants!["lsm" "fence_rmacl__lsm" &[Function("bpf_lsm_inode_remove_acl")]],
        without: "access control lists",
        excused_without: Some("bpf_lsm_inode_remove_acl"),
    },
    Probe {
        name: "fence.file_setattr",
        variants: variants!["lsm" "fence_fsetattr__lsm" &[Function("bpf_lsm_inode_file_setattr")]],
        without: "inode flags",
        excused_without: Some("bpf_lsm_inode_file_setattr"),
    },
];

pub(super) const FMOD_RET: &[Probe] = &[
    hook(
        "fence.open",
        "opens and execs",
        variants!["fmod_ret" "fence_open__fmod_ret" NONE],
    ),
    hook(
        "fence.mmap",
        "executable mappings",
        variants!["fmod_ret" "fence_mmap__fmod_ret" NONE],
    ),
    hook(
        "fence.mprotect",
        "mappings that become executable",
        variants!["fmod_ret" "fence_mprotect__fmod_ret" NONE],
    ),
    hook(
        "fence.unlink",
        "removals",
        variants!["fmod_ret" "fence_unlink__fmod_ret" NONE],
    ),
    hook(
        "fence.rmdir",
        "removals of directories",
        variants!["fmod_ret" "fence_rmdir__fmod_ret" NONE],
    ),
    hook(
        "fence.rename",
        "renames",
        variants![
            "fmod_ret" "fence_rename__fmod_ret" &[Params("security_inode_rename", 5)]
        ],
    ),
    hook(
        "fence.link",
        "hard links",
        variants!["fmod_ret" "fence_link__fmod_ret" NONE],
    ),
    hook(
        "fence.create",
        "new files",
        variants!["fmod_ret" "fence_create__fmod_ret" NONE],
    ),
    hook(
        "fence.mkdir",
        "new directories",
        variants!["fmod_ret" "fence_mkdir__fmod_ret" NONE],
    ),
    hook(
        "fence.mknod",
        "new device nodes, sockets and pipes",
        variants!["fmod_ret" "fence_mknod__fmod_ret" NONE],
    ),
    hook(
        "fence.symlink",
        "new symbolic links",
        variants!["fmod_ret" "fence_symlink__fmod_ret" NONE],
    ),
    hook(
        "fence.mount",
        "mounts",
        variants!["fmod_ret" "fence_mount__fmod_ret" NONE],
    ),
    hook(
        "fence.move_mount",
        "mounts by descriptors",
        variants!["fmod_ret" "fence_movemount__fmod_ret" NONE],
    ),
    hook(
        "fence.unix_connect",
        "connects to UNIX sockets",
        variants!["fmod_ret" "fence_unixconn__fmod_ret" NONE],
    ),
    hook(
        "fence.unix_send",
        "datagrams to UNIX sockets",
        variants!["fmod_ret" "fence_unixsend__fmod_ret" NONE],
    ),
    hook(
        "fence.setattr",
        "truncations and changes of attributes",
        variants![
            "fmod_ret" "fence_setattr_id__fmod_ret" &[Params("security_inode_setattr", 3)],
            "fmod_ret/dentry" "fence_setattr_d__fmod_ret" &[Params("security_inode_setattr", 2)]
        ],
    ),
    hook(
        "fence.setxattr",
        "extended attributes",
        variants![
            "fmod_ret" "fence_setxattr_id__fmod_ret" &[Params("security_inode_setxattr", 6)],
            "fmod_ret/dentry" "fence_setxattr_d__fmod_ret" &[Params("security_inode_setxattr", 5)]
        ],
    ),
    hook(
        "fence.removexattr",
        "extended attributes",
        variants![
            "fmod_ret" "fence_rmxattr_id__fmod_ret" &[Params("security_inode_removexattr", 3)],
            "fmod_ret/dentry" "fence_rmxattr_d__fmod_ret" &[Params("security_inode_removexattr", 2)]
        ],
    ),
    Probe {
        name: "fence.set_acl",
        variants: variants!["fmod_ret" "fence_setacl__fmod_ret" &[Function("security_inode_set_acl")]],
        without: "access control lists",
        excused_without: Some("security_inode_set_acl"),
    },
    Probe {
        name: "fence.remove_acl",
        variants: variants!["fmod_ret" "fence_rmacl__fmod_ret" &[Function("security_inode_remove_acl")]],
        without: "access control lists",
        excused_without: Some("security_inode_remove_acl"),
    },
    Probe {
        name: "fence.file_setattr",
        variants: variants!["fmod_ret" "fence_fsetattr__fmod_ret" &[Function("security_inode_file_setattr")]],
        without: "inode flags",
        excused_without: Some("security_inode_file_setattr"),
    },
];

/// Hooks whose programs are called as they are: one list for LSM programs and for their twins.
macro_rules! network {
    ($how:literal) => {
        &[
            network!($how, "socket", "sockets that reach whomever they like"),
            network!($how, "connect", "connects"),
            network!($how, "send", "messages"),
            network!($how, "bind", "binds"),
            network!($how, "listen", "listening sockets"),
            network!($how, "accept", "accepts"),
            network!($how, "option", "routes of packets"),
            // From 6.5 on what is spliced into a socket is a message.
            Probe {
                excused_without: Some("kernel_sendpage"),
                ..network!(
                    $how,
                    "splice",
                    "what is spliced",
                    &[Function("kernel_sendpage")]
                )
            },
        ]
    };
    ($how:literal, $name:literal, $without:literal) => {
        network!($how, $name, $without, NONE)
    };
    ($how:literal, $name:literal, $without:literal, $needs:expr) => {
        hook(
            concat!("fence.", $name),
            $without,
            &[Variant {
                name: $how,
                programs: &[Auto(concat!("fence_", $name, "__", $how))],
                needs: $needs,
                blind: None,
            }],
        )
    };
}

pub(super) const NETWORK_LSM: &[Probe] = network!("lsm");
pub(super) const NETWORK_FMOD_RET: &[Probe] = network!("fmod_ret");

/// Those of limits.
macro_rules! limits {
    ($how:literal) => {
        &[
            network!($how, "fork", "new processes and threads"),
            network!($how, "connections", "connections that are begun"),
            network!($how, "bytes", "what is sent"),
        ]
    };
}

pub(super) const LIMITS_LSM: &[Probe] = limits!("lsm");
pub(super) const LIMITS_FMOD_RET: &[Probe] = limits!("fmod_ret");

/// Those by which a fence keeps itself from who is held.
macro_rules! guard {
    ($how:literal) => {
        &[
            network!($how, "guard_map", "maps of the fence that are written"),
            network!($how, "guard_unlink", "names of the fence that are removed"),
            network!(
                $how,
                "guard_rmdir",
                "directories of the fence that are removed"
            ),
            network!($how, "guard_rename", "names of the fence that are changed"),
            network!($how, "guard_umount", "the file system of the fence"),
            network!($how, "guard_signal", "signals to the monitor"),
            network!($how, "guard_trace", "the monitor's memory"),
        ]
    };
}

pub(super) const GUARD_LSM: &[Probe] = guard!("lsm");
pub(super) const GUARD_FMOD_RET: &[Probe] = guard!("fmod_ret");

/// Those that keep programs apart which rules tell apart.
macro_rules! subject {
    ($how:literal) => {
        &[
            network!(
                $how,
                "subject_trace",
                "the memory of programs that rules name"
            ),
            network!(
                $how,
                "subject_exec",
                "programs that rules name and that are debugged"
            ),
            network!(
                $how,
                "subject_prctl",
                "who says that he runs another program"
            ),
        ]
    };
}

pub(super) const SUBJECT_LSM: &[Probe] = subject!("lsm");
pub(super) const SUBJECT_FMOD_RET: &[Probe] = subject!("fmod_ret");

/// The hooks without which limits would have a gap, or no canary. What is sent can begin a connection.
pub(super) fn counting(
    probes: &'static [Probe],
    counts: impl Fn(Thing) -> bool,
) -> impl Iterator<Item = &'static Probe> {
    probes.iter().filter(move |probe| match probe.name {
        "fence.connections" | "fence.bytes" => counts(Thing::Connections) || counts(Thing::Bytes),
        _ => counts(Thing::Forks) || counts(Thing::Threads),
    })
}

macro_rules! call {
    ($name:literal, $without:literal, $program:literal, $tracepoint:literal) => {
        hook(
            $name,
            $without,
            &[
                Variant {
                    name: "tracepoint",
                    programs: &[Tracepoint(
                        concat!($program, "__tp"),
                        "raw_syscalls",
                        $tracepoint,
                    )],
                    needs: &[PreemptibleTracepoints],
                    blind: None,
                },
                Variant {
                    name: "raw_tp",
                    programs: &[Auto(concat!($program, "__raw_tp"))],
                    needs: NONE,
                    blind: None,
                },
            ],
        )
    };
}

/// What counts system calls.
pub(super) const LIMITED_CALLS: &[Probe] = &[call!(
    "fence.limited_call",
    "system calls that are counted",
    "fence_limited_call",
    "sys_enter"
)];

/// What forgets processes that have ended. It looks at what has a lock in it, which programs on other kinds of tracepoints
/// may not.
pub(super) const PURSES: &[Probe] = &[hook(
    "fence.purse_free",
    "the end of processes that have limits of their own",
    variants!["tp_btf" "fence_purse_free__tp_btf" NONE],
)];

const CALL_END: Probe = call!(
    "fence.refused_call",
    "what is told of refused system calls",
    "fence_call_end",
    "sys_exit"
);

/// It is seccomp that refuses system calls; these tell.
pub(super) const CALLS: &[Probe] = &[CALL_END];

const CALL_BEGIN: Probe = call!(
    "fence.call",
    "system calls that would be refused",
    "fence_call_begin",
    "sys_enter"
);

/// With what would have been refused. Every begin of a call is one more program to run, on the whole machine.
pub(super) const CALLS_AND_AUDIT: &[Probe] = &[CALL_END, CALL_BEGIN];

/// Where nothing refuses them.
pub(super) const TRACED_CALLS: &[Probe] = &[CALL_BEGIN];

/// Those that note which files are written. What cannot be refused has no twin.
macro_rules! written {
    ($how:literal) => {
        &[
            network!($how, "written_open", "files that are opened to be written"),
            network!(
                $how,
                "written_access",
                "files that are written by descriptors that somebody else has opened"
            ),
            network!(
                $how,
                "written_map",
                "files that are written by mappings of such descriptors"
            ),
            hook(
                "fence.written_gone",
                "files that are gone",
                variants!["fentry" "fence_written_gone" &[Needs::Fentry]],
            ),
        ]
    };
}

pub(super) const WRITTEN_LSM: &[Probe] = written!("lsm");
pub(super) const WRITTEN_FMOD_RET: &[Probe] = written!("fmod_ret");

#[cfg(test)]
mod tests {
    use super::*;

    fn names(probes: &'static [Probe], kinds: Access) -> Vec<&'static str> {
        needed(probes, kinds).map(|probe| probe.name).collect()
    }

    #[test]
    fn every_hook_is_needed_for_some_kind_and_both_lists_are_the_same() {
        for probes in [LSM, FMOD_RET] {
            let all: Vec<_> = probes.iter().map(|probe| probe.name).collect();
            assert_eq!(names(probes, Access::ALL), all);
            // What is not named above would be judged in vain.
            let unnamed = probes.iter().filter(|probe| judges(probe) == Access::ALL);
            assert_eq!(unnamed.map(|probe| probe.name).collect::<Vec<_>>(), [OPEN]);
            assert_eq!(names(probes, Access::READ), [OPEN]);
            assert_eq!(
                names(probes, Access::EXEC),
                [OPEN, "fence.mmap", "fence.mprotect"]
            );
        }
        assert_eq!(names(LSM, Access::ALL), names(FMOD_RET, Access::ALL));
    }
}
