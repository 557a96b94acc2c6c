//! What happens to files: the functions that do the work, else the system calls that ask for it.

mod summary;

use super::kinds::CHANGES;
use super::{Form, Parts};
use crate::kernel::Needs::{Fentry, Function, NoFentry, Params};
use crate::kernel::Program::{Auto, Tracepoint};
use crate::kernel::{Needs, Object, PT_REGS, Probe, Program, Variant, session};

/// What is not seen by those who look at system calls.
const BLIND: Option<&str> = Some("io_uring, 32-bit calls and kernel-internal users are not seen");

/// Who has to know the mount in which something is changed, see change.bpf.h.
const NOTED: Needs = Function("mnt_want_write");

/// Seen by the program of `file.changes`, where that one goes by the system calls.
const BY_SYSCALL: Variant = Variant {
    name: "tp_btf/sys_exit",
    programs: &[],
    needs: &[NoFentry],
    blind: None,
};

/// A tax on every system call of the machine: last.
macro_rules! sys_exit {
    ($program:literal) => {
        Variant {
            name: "tp_btf/sys_exit",
            programs: &[Auto($program)],
            needs: &[],
            blind: BLIND,
        }
    };
}

pub(super) fn parts(form: Form) -> Parts {
    match form {
        Form::Events => Parts {
            only_for: ONLY_FOR,
            fill: |loader, filter| filter.paths.fill(loader),
            ..Parts::events(Object::File, PROBES)
        },
        Form::Summary | Form::OffCpu => summary::parts(),
    }
}

const ONLY_FOR: &[(&str, &[&str])] = &[
    ("file.open", &["open", "create"]),
    ("file.unlink", &["unlink"]),
    ("file.rename", &["rename"]),
    // Where fexit programs are refused this one sees them all.
    ("file.changes", CHANGES),
    ("file.mkdir", &["mkdir"]),
    ("file.rmdir", &["rmdir"]),
    ("file.mknod", &["mknod"]),
    ("file.link", &["link"]),
    ("file.symlink", &["symlink"]),
    ("file.attributes", &["chmod", "chown", "utimes", "truncate"]),
    ("file.xattr", &["setxattr", "removexattr"]),
    ("file.acl", &["setxattr", "removexattr"]),
    ("file.mount", &["mount"]),
    ("file.move_mount", &["mount"]),
    ("file.umount", &["umount"]),
];

const PROBES: &[Probe] = &[
    Probe {
        name: "file.open",
        variants: &[
            session!(["file_open_7__session"], Params("do_file_open", 3)),
            Variant {
                name: "fexit",
                programs: &[Auto("file_open__fexit")],
                needs: &[Fentry, Params("do_filp_open", 3)],
                blind: None,
            },
            Variant {
                name: "fexit/do_file_open",
                programs: &[Auto("file_open_7__fexit")],
                needs: &[Fentry, Params("do_file_open", 3)],
                blind: None,
            },
            Variant {
                name: "tracepoint",
                programs: calls::OPEN,
                needs: PT_REGS,
                blind: BLIND,
            },
            sys_exit!("file_open__tp_btf"),
        ],
        without: "files that are opened",
        excused_without: None,
    },
    Probe {
        name: "file.unlink",
        variants: &[
            session!(
                ["file_unlink_begin__multi", "file_unlink_end_4__session"],
                Function("security_path_unlink"),
                Params("vfs_unlink", 4)
            ),
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_unlink_begin__fentry"),
                    Auto("file_unlink_end_4__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_path_unlink"),
                    Params("vfs_unlink", 4),
                ],
                blind: None,
            },
            Variant {
                name: "fexit/3",
                programs: &[
                    Auto("file_unlink_begin__fentry"),
                    Auto("file_unlink_end_3__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_path_unlink"),
                    Params("vfs_unlink", 3),
                ],
                blind: None,
            },
            Variant {
                name: "tracepoint",
                programs: calls::UNLINK,
                needs: PT_REGS,
                blind: BLIND,
            },
            sys_exit!("file_unlink__tp_btf"),
        ],
        without: "files that are removed",
        excused_without: None,
    },
    Probe {
        name: "file.rename",
        variants: &[
            session!(
                ["file_rename_begin__multi", "file_rename_end__session"],
                Function("security_path_rename"),
                Params("vfs_rename", 1)
            ),
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_rename_begin__fentry"),
                    Auto("file_rename_end__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_path_rename"),
                    Params("vfs_rename", 1),
                ],
                blind: None,
            },
            Variant {
                name: "tracepoint",
                programs: calls::RENAME,
                needs: PT_REGS,
                blind: BLIND,
            },
            sys_exit!("file_rename__tp_btf"),
        ],
        without: "files that are renamed",
        excused_without: None,
    },
    Probe {
        name: "file.changes",
        variants: &[
            session!(
                ["file_want__multi", "file_want_file__multi"],
                NOTED,
                Function("mnt_want_write_file")
            ),
            Variant {
                name: "fexit",
                programs: &[Auto("file_want__fentry"), Auto("file_want_file__fentry")],
                needs: &[Fentry, NOTED, Function("mnt_want_write_file")],
                blind: None,
            },
            // One program for all: to leave the exits of 30 calls takes seconds.
            Variant {
                name: "tp_btf/sys_exit",
                programs: &[Auto("file_change__tp_btf")],
                needs: &[NoFentry],
                blind: BLIND,
            },
        ],
        without: "names, attributes and mounts that are changed",
        excused_without: None,
    },
    Probe {
        name: "file.mkdir",
        variants: &[
            session!(["file_mkdir_5__session"], NOTED, Params("vfs_mkdir", 5)),
            Variant {
                name: "fexit/5",
                programs: &[Auto("file_mkdir_5__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_mkdir", 5)],
                blind: None,
            },
            Variant {
                name: "fexit",
                programs: &[Auto("file_mkdir_4__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_mkdir", 4)],
                blind: None,
            },
            Variant {
                name: "fexit/3",
                programs: &[Auto("file_mkdir_3__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_mkdir", 3)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "directories that are made",
        excused_without: None,
    },
    Probe {
        name: "file.rmdir",
        variants: &[
            session!(
                ["file_rmdir_begin__multi", "file_rmdir_end_4__session"],
                Function("security_path_rmdir"),
                Params("vfs_rmdir", 4)
            ),
            Variant {
                name: "fexit/4",
                programs: &[
                    Auto("file_rmdir_begin__fentry"),
                    Auto("file_rmdir_end_4__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_path_rmdir"),
                    Params("vfs_rmdir", 4),
                ],
                blind: None,
            },
            Variant {
                name: "fexit/do_rmdir",
                programs: &[
                    Auto("file_rmdir_begin__fentry"),
                    Auto("file_rmdir_end__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_path_rmdir"),
                    Params("do_rmdir", 2),
                ],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "directories that are removed",
        excused_without: None,
    },
    Probe {
        name: "file.mknod",
        variants: &[
            session!(
                ["file_mknod_6__session", "file_mknod_regular_4__session"],
                NOTED,
                Params("vfs_mknod", 6),
                Params("vfs_create", 4)
            ),
            Variant {
                name: "fexit/6",
                programs: &[
                    Auto("file_mknod_6__fexit"),
                    Auto("file_mknod_regular_4__fexit"),
                ],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_mknod", 6),
                    Params("vfs_create", 4),
                ],
                blind: None,
            },
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_mknod_5__fexit"),
                    Auto("file_mknod_regular_5__fexit"),
                ],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_mknod", 5),
                    Params("vfs_create", 5),
                ],
                blind: None,
            },
            Variant {
                name: "fexit/4",
                programs: &[
                    Auto("file_mknod_4__fexit"),
                    Auto("file_mknod_regular_4__fexit"),
                ],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_mknod", 4),
                    Params("vfs_create", 4),
                ],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "devices, pipes and sockets that are made",
        excused_without: None,
    },
    Probe {
        name: "file.link",
        variants: &[
            session!(["file_link_5__session"], NOTED, Params("vfs_link", 5)),
            Variant {
                name: "fexit",
                programs: &[Auto("file_link_5__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_link", 5)],
                blind: None,
            },
            Variant {
                name: "fexit/4",
                programs: &[Auto("file_link_4__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_link", 4)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "files that get another name",
        excused_without: None,
    },
    Probe {
        name: "file.symlink",
        variants: &[
            session!(["file_symlink_5__session"], NOTED, Params("vfs_symlink", 5)),
            Variant {
                name: "fexit/5",
                programs: &[Auto("file_symlink_5__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_symlink", 5)],
                blind: None,
            },
            Variant {
                name: "fexit",
                programs: &[Auto("file_symlink_4__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_symlink", 4)],
                blind: None,
            },
            Variant {
                name: "fexit/3",
                programs: &[Auto("file_symlink_3__fexit")],
                needs: &[Fentry, NOTED, Params("vfs_symlink", 3)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "symbolic links that are made",
        excused_without: None,
    },
    Probe {
        name: "file.attributes",
        variants: &[
            session!(
                [
                    "file_attributes_begin_4__multi",
                    "file_attributes_end_4__session"
                ],
                NOTED,
                Params("notify_change", 4)
            ),
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_attributes_begin_4__fentry"),
                    Auto("file_attributes_end_4__fexit"),
                ],
                needs: &[Fentry, NOTED, Params("notify_change", 4)],
                blind: None,
            },
            Variant {
                name: "fexit/3",
                programs: &[
                    Auto("file_attributes_begin_3__fentry"),
                    Auto("file_attributes_end_3__fexit"),
                ],
                needs: &[Fentry, NOTED, Params("notify_change", 3)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "changes of permissions, owners, times and sizes",
        excused_without: None,
    },
    Probe {
        name: "file.xattr",
        variants: &[
            session!(
                ["file_setxattr_6__session", "file_removexattr_3__session"],
                NOTED,
                Params("vfs_setxattr", 6),
                Params("vfs_removexattr", 3)
            ),
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_setxattr_6__fexit"),
                    Auto("file_removexattr_3__fexit"),
                ],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_setxattr", 6),
                    Params("vfs_removexattr", 3),
                ],
                blind: None,
            },
            Variant {
                name: "fexit/5",
                programs: &[
                    Auto("file_setxattr_5__fexit"),
                    Auto("file_removexattr_2__fexit"),
                ],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_setxattr", 5),
                    Params("vfs_removexattr", 2),
                ],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "extended attributes that are set and removed",
        excused_without: None,
    },
    Probe {
        name: "file.acl",
        variants: &[
            session!(
                ["file_set_acl__session", "file_remove_acl__session"],
                NOTED,
                Params("vfs_set_acl", 4),
                Params("vfs_remove_acl", 3)
            ),
            Variant {
                name: "fexit",
                programs: &[Auto("file_set_acl__fexit"), Auto("file_remove_acl__fexit")],
                needs: &[
                    Fentry,
                    NOTED,
                    Params("vfs_set_acl", 4),
                    Params("vfs_remove_acl", 3),
                ],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "lists of access rights that are set and removed",
        excused_without: Some("vfs_set_acl"),
    },
    Probe {
        name: "file.mount",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[Auto("file_mount__fexit")],
                needs: &[Fentry, Params("path_mount", 5)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "file systems that are mounted",
        excused_without: None,
    },
    Probe {
        name: "file.move_mount",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_move_mount_begin__fentry"),
                    Auto("file_move_mount_end__fexit"),
                ],
                needs: &[
                    Fentry,
                    Function("security_move_mount"),
                    Function(MOVE_MOUNT),
                ],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "file systems that are mounted by the newer calls",
        excused_without: None,
    },
    Probe {
        name: "file.umount",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_umount_begin__fentry"),
                    Auto("file_umount_end__fexit"),
                ],
                needs: &[Fentry, Params("path_umount", 2)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "file systems that are unmounted",
        excused_without: None,
    },
];

#[cfg(target_arch = "x86_64")]
mod calls {
    use super::{Program, Tracepoint};

    pub(super) const OPEN: &[Program] = &[
        Tracepoint("file_openat__tp", "syscalls", "sys_exit_openat"),
        Tracepoint("file_openat2__tp", "syscalls", "sys_exit_openat2"),
        Tracepoint("file_open__tp", "syscalls", "sys_exit_open"),
        Tracepoint("file_creat__tp", "syscalls", "sys_exit_creat"),
    ];
    pub(super) const UNLINK: &[Program] = &[
        Tracepoint("file_unlinkat__tp", "syscalls", "sys_exit_unlinkat"),
        Tracepoint("file_unlink__tp", "syscalls", "sys_exit_unlink"),
    ];
    pub(super) const RENAME: &[Program] = &[
        Tracepoint("file_renameat2__tp", "syscalls", "sys_exit_renameat2"),
        Tracepoint("file_renameat__tp", "syscalls", "sys_exit_renameat"),
        Tracepoint("file_rename__tp", "syscalls", "sys_exit_rename"),
    ];
}

/// aarch64 has the at-forms alone.
#[cfg(not(target_arch = "x86_64"))]
mod calls {
    use super::{Program, Tracepoint};

    pub(super) const OPEN: &[Program] = &[
        Tracepoint("file_openat__tp", "syscalls", "sys_exit_openat"),
        Tracepoint("file_openat2__tp", "syscalls", "sys_exit_openat2"),
    ];
    pub(super) const UNLINK: &[Program] = &[Tracepoint(
        "file_unlinkat__tp",
        "syscalls",
        "sys_exit_unlinkat",
    )];
    pub(super) const RENAME: &[Program] = &[
        Tracepoint("file_renameat2__tp", "syscalls", "sys_exit_renameat2"),
        Tracepoint("file_renameat__tp", "syscalls", "sys_exit_renameat"),
    ];
}

/// How the kernel names the function behind a system call.
#[cfg(target_arch = "x86_64")]
const MOVE_MOUNT: &str = "__x64_sys_move_mount";
#[cfg(not(target_arch = "x86_64"))]
const MOVE_MOUNT: &str = "__arm64_sys_move_mount";
