//! What processes do with files, counted by process and file in epochs, see file_summary.bpf.c.

use std::collections::HashMap;

use super::{BLIND, Parts};
use crate::error::Result;
use crate::event::{Event, Kind};
use crate::kernel::Needs::{Fentry, Function, NoFentry, Params};
use crate::kernel::Program::Auto;
use crate::kernel::{Object, Probe, Variant, wait_for_programs};
use crate::monitor::{Flush, Summary};
use crate::wire::{CountedPath, FilePathKey, FileSum, FileSumKey, file_summary, read};

pub(super) fn parts() -> Parts {
    Parts {
        summary: Some(Box::new(Counts { epoch: 0 })),
        fill: |loader, filter| filter.paths.fill(loader),
        ..Parts::events(Object::FileSummary, PROBES)
    }
}

/// Seen by the programs of `file.reads`, where those go by the system calls.
const BY_SYSCALL: Variant = Variant {
    name: "raw_tp/sys_exit",
    programs: &[],
    needs: &[NoFentry],
    blind: None,
};

const PROBES: &[Probe] = &[
    Probe {
        name: "file.opens",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[Auto("file_count_open__fexit")],
                needs: &[Fentry, Params("do_filp_open", 3)],
                blind: None,
            },
            Variant {
                name: "fexit/do_file_open",
                programs: &[Auto("file_count_open_7__fexit")],
                needs: &[Fentry, Params("do_file_open", 3)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "files that are opened",
        excused_without: None,
    },
    Probe {
        name: "file.reads",
        variants: &[
            Variant {
                name: "fexit",
                // The ends first: what begins before they are attached has no time, and the other way round none ends.
                programs: &[
                    Auto("file_count_read__fexit"),
                    Auto("file_count_readv__fexit"),
                    Auto("file_count_read_begin__fentry"),
                    Auto("file_count_readv_begin__fentry"),
                ],
                needs: &[Fentry, Params("vfs_read", 4), Params("vfs_readv", 5)],
                blind: None,
            },
            // One pair of programs for all: a tax on every system call of the machine.
            Variant {
                name: "raw_tp/sys_exit",
                programs: &[
                    Auto("file_count_exit__raw_tp"),
                    Auto("file_count_enter__raw_tp"),
                ],
                needs: &[NoFentry],
                blind: BLIND,
            },
        ],
        without: "reads of files",
        excused_without: None,
    },
    Probe {
        name: "file.writes",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_count_write__fexit"),
                    Auto("file_count_writev__fexit"),
                    Auto("file_count_write_begin__fentry"),
                    Auto("file_count_writev_begin__fentry"),
                ],
                needs: &[Fentry, Params("vfs_write", 4), Params("vfs_writev", 5)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "writes to files",
        excused_without: None,
    },
    Probe {
        name: "file.sendfile",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_count_sendfile__fexit"),
                    Auto("file_count_sendfile_begin__fentry"),
                ],
                needs: &[Fentry, Params("do_sendfile", 5)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "bytes that sendfile moves",
        excused_without: None,
    },
    Probe {
        name: "file.splice",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_count_splice__fexit"),
                    Auto("file_count_splice_begin__fentry"),
                ],
                needs: &[Fentry, Params("do_splice", 6)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "bytes that splice moves",
        excused_without: None,
    },
    Probe {
        name: "file.copy",
        variants: &[
            Variant {
                name: "fexit",
                programs: &[
                    Auto("file_count_copy__fexit"),
                    Auto("file_count_copy_begin__fentry"),
                ],
                needs: &[Fentry, Params("vfs_copy_file_range", 6)],
                blind: None,
            },
            BY_SYSCALL,
        ],
        without: "bytes that copy_file_range moves",
        excused_without: None,
    },
    Probe {
        name: "file.uring",
        variants: &[
            Variant {
                name: "fentry",
                programs: URING,
                needs: &[
                    Fentry,
                    Params("kiocb_done", 4),
                    Function("io_complete_rw"),
                    Function("io_complete_rw_iopoll"),
                ],
                blind: None,
            },
            Variant {
                name: "fentry/3",
                programs: URING,
                needs: &[
                    Fentry,
                    Params("kiocb_done", 3),
                    Function("io_complete_rw"),
                    Function("io_complete_rw_iopoll"),
                ],
                blind: None,
            },
        ],
        without: "reads and writes through io_uring",
        // A kernel without io_uring.
        excused_without: Some("io_complete_rw"),
    },
];

/// Two parameters are looked at, which are the first on all kernels.
const URING: &[crate::kernel::Program] = &[
    Auto("file_count_uring_done__fentry"),
    Auto("file_count_uring_callback__fentry"),
    Auto("file_count_uring_polled__fentry"),
];

#[derive(Debug)]
struct Counts {
    /// What is counted now belongs to it.
    epoch: u32,
}

impl Counts {
    /// Begins the next epoch. Nothing is added to the last one any more.
    fn turn(&mut self, flush: &Flush<'_>) -> Result<()> {
        self.epoch = self.epoch.wrapping_add(1);
        flush.loader.map("stk_file_epoch")?.set(
            &0u32.to_ne_bytes(),
            &self.epoch.to_ne_bytes(),
            "the next epoch of the file monitor",
        )?;
        wait_for_programs()
    }
}

impl Summary for Counts {
    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        let now = self.epoch;
        self.turn(flush)?;
        let paths = flush
            .loader
            .map("stk_file_paths")?
            .take(|key| read::<FilePathKey>(key).is_some_and(|key| key.epoch == now))?;
        let paths: HashMap<FilePathKey, CountedPath> = paths
            .iter()
            .filter_map(|(key, value)| Some((read(key)?, read(value)?)))
            .collect();
        let sums = flush
            .loader
            .map("stk_file_sums")?
            .take(|key| read::<FileSumKey>(key).is_some_and(|key| key.file.epoch == now))?;
        for (key, sum) in &sums {
            if let (Some(key), Some(sum)) = (read::<FileSumKey>(key), read::<FileSum>(sum)) {
                let path = paths.get(&key.file);
                let summary = file_summary(&key, &sum, path, flush.window_ns);
                tell(flush.event(key.task, Kind::FileSummary(Box::new(summary)))?);
            }
        }
        Ok(())
    }
}
