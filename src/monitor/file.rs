//! Open, unlink and rename: the functions that do the work, else the system calls that ask for it.

use super::{Form, Parts};
use crate::kernel::Needs::{Fentry, Function, Params};
use crate::kernel::Program::{Auto, Tracepoint};
use crate::kernel::{Object, PT_REGS, Probe, Program, Variant};

/// What is not seen by those who look at system calls.
const BLIND: Option<&str> = Some("io_uring, 32-bit calls and kernel-internal users are not seen");

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

pub(super) fn parts(_: Form) -> Parts {
    Parts::events(Object::File, PROBES)
}

const PROBES: &[Probe] = &[
    Probe {
        name: "file.open",
        variants: &[
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
