//! System calls: both ends of every call in scope, counted or sent.

use super::summary::{Flush, Summary, Tally};
use super::{Filter, Form, Parts};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Kind, SyscallSummary, names};
use crate::kernel::Needs::PreemptibleTracepoints;
use crate::kernel::Program::{Auto, Tracepoint};
use crate::kernel::{Loader, Object, Probe, Variant};
use crate::wire::{SyscallKey, SyscallSum};

/// `STK_SYSCALLS` in syscall.bpf.c.
const CHOOSABLE: u32 = 1024;

macro_rules! probe {
    ($enter:literal, $exit:literal) => {
        &[Probe {
            name: "syscall.calls",
            variants: &[
                Variant {
                    name: "tracepoint",
                    programs: &[
                        Tracepoint(concat!($exit, "__tp"), "raw_syscalls", "sys_exit"),
                        Tracepoint(concat!($enter, "__tp"), "raw_syscalls", "sys_enter"),
                    ],
                    needs: &[PreemptibleTracepoints],
                    blind: None,
                },
                Variant {
                    name: "raw_tp",
                    programs: &[
                        Auto(concat!($exit, "__raw_tp")),
                        Auto(concat!($enter, "__raw_tp")),
                    ],
                    needs: &[],
                    blind: None,
                },
            ],
            without: "system calls",
            excused_without: None,
        }]
    };
}

const EVENTS: &[Probe] = probe!("syscall_enter", "syscall_exit");
const SUMMARY: &[Probe] = probe!("syscall_count_enter", "syscall_count_exit");

pub(super) fn parts(form: Form) -> Parts {
    match form {
        Form::Events => Parts {
            fill: choose,
            ..Parts::events(Object::Syscall, EVENTS)
        },
        Form::Summary | Form::OffCpu => Parts {
            summary: Some(Box::new(Counts(Tally::new("stk_syscall_sums")))),
            ..Parts::events(Object::Syscall, SUMMARY)
        },
    }
}

/// Tells the programs which calls are wanted.
fn choose(loader: &Loader, filter: &Filter) -> Result<()> {
    if filter.syscalls.iter().all(Vec::is_empty) {
        return Err(Error::new(
            ErrorKind::Usage,
            "single events of all system calls would be too many to read",
        )
        .with_hint("name the calls, such as --syscalls ptrace,mount, or take the summary"));
    }
    for (table, numbers) in (0u32..).zip(&filter.syscalls) {
        for number in numbers {
            loader.map("stk_syscalls_chosen")?.set(
                &(table * CHOOSABLE + number).to_ne_bytes(),
                &[1],
                format_args!("choosing system call {number}"),
            )?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Counts(Tally);

impl Summary for Counts {
    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        for (key, sum) in self.0.news::<SyscallKey, SyscallSum>(flush)? {
            let kind = Kind::SyscallSummary(SyscallSummary {
                name: names::syscall(key.abi, key.nr).into(),
                number: key.nr,
                compat: key.abi == crate::wire::ABI_COMPAT,
                calls: sum.calls,
                errors: sum.errors,
                time_ns: sum.time_ns,
                window_ns: flush.window_ns,
            });
            tell(flush.event(key.task, kind)?);
        }
        Ok(())
    }
}
