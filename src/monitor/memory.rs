//! Memory: system calls that change the address space are hooked; faults and sizes are read where the kernel counts
//! them; who is killed for want of memory is told in both forms.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};

use super::summary::{Flush, Summary, Tally};
use super::{Filter, Form, Parts};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Kind, MemoryFailure, MemorySizes, MemorySummary};
use crate::kernel::Needs::{Fentry, Function, Params, PreemptibleTracepoints};
use crate::kernel::Program::{Auto, Tracepoint};
use crate::kernel::{Attached, Loader, Object, PT_REGS, Probe, Variant, page_bytes, read_iterator};
use crate::wire::{
    MemoryForm, MemoryKey, MemoryState, MemorySum, TaskKey, bytes_of, memory_call, memory_flag,
    process_of, read,
};

const STATE: &str = "memory_state__iter";
const STATE_ABOUT: &str = "memory_state_about__iter";

/// Where the kernel does not say where the CPUs' parts of a counter are (CONFIG_KALLSYMS_ALL is off).
const ABOUT: Option<&str> = Some(
    "what a CPU has not yet added to a size is not seen: up to 32 pages, or twice the number of CPUs where that is more",
);

/// How the kernel calls the function behind a system call.
#[cfg(target_arch = "x86_64")]
macro_rules! function {
    ($call:literal) => {
        concat!("__x64_sys_", $call)
    };
}
#[cfg(not(target_arch = "x86_64"))]
macro_rules! function {
    ($call:literal) => {
        concat!("__arm64_sys_", $call)
    };
}

/// A probe on a system call. Where tracepoints can be preempted, so can fexit programs, and classic tracepoints cannot.
/// Elsewhere fexit comes first: a tracepoint on one system call slows all of them down.
macro_rules! call {
    ($name:literal, $call:literal, $fexit:expr, $tp:expr, $raw:expr, $without:literal) => {
        Probe {
            name: $name,
            variants: &[
                Variant {
                    name: "tracepoint/preemptible",
                    programs: $tp,
                    needs: &[PreemptibleTracepoints],
                    blind: None,
                },
                Variant {
                    name: "fexit",
                    programs: $fexit,
                    needs: &[Fentry, Params(function!($call), 1)],
                    blind: None,
                },
                Variant {
                    name: "tracepoint",
                    programs: $tp,
                    needs: PT_REGS,
                    blind: None,
                },
                Variant {
                    name: "raw_tp/sys_exit",
                    programs: $raw,
                    needs: &[],
                    blind: None,
                },
            ],
            without: $without,
            excused_without: None,
        }
    };
}

const MMAP: Probe = call!(
    "memory.mmap",
    "mmap",
    &[Auto("memory_mmap__fexit")],
    &[Tracepoint("memory_mmap__tp", "syscalls", "sys_exit_mmap")],
    &[Auto("memory_mmap__raw_tp")],
    "mappings that are made"
);
const MUNMAP: Probe = call!(
    "memory.munmap",
    "munmap",
    &[Auto("memory_munmap__fexit")],
    &[Tracepoint(
        "memory_munmap__tp",
        "syscalls",
        "sys_exit_munmap"
    )],
    &[Auto("memory_munmap__raw_tp")],
    "mappings that are given back"
);
const BRK: Probe = call!(
    "memory.brk",
    "brk",
    &[Auto("memory_brk__fexit"), Auto("memory_brk__fentry")],
    &[
        Tracepoint("memory_brk_exit__tp", "syscalls", "sys_exit_brk"),
        Tracepoint("memory_brk_enter__tp", "syscalls", "sys_enter_brk"),
    ],
    &[
        Auto("memory_brk_exit__raw_tp"),
        Auto("memory_brk_enter__raw_tp"),
    ],
    "changes of the heap"
);
const OOM: Probe = Probe {
    name: "memory.oom",
    variants: &[
        Variant {
            name: "raw_tp",
            programs: &[Auto("memory_oom__raw_tp")],
            needs: &[],
            blind: None,
        },
        Variant {
            name: "raw_tp/about",
            programs: &[Auto("memory_oom_about__raw_tp")],
            needs: &[],
            blind: ABOUT,
        },
    ],
    without: "processes that are killed because memory is short",
    excused_without: None,
};
const STATES: Probe = Probe {
    name: "memory.state",
    variants: &[
        Variant {
            name: "iterator",
            programs: &[Auto(STATE)],
            needs: &[],
            blind: None,
        },
        Variant {
            name: "iterator/about",
            programs: &[Auto(STATE_ABOUT)],
            needs: &[],
            blind: ABOUT,
        },
    ],
    without: "faults and sizes of processes that run",
    excused_without: None,
};
const EXIT: Probe = Probe {
    name: "memory.exit",
    variants: &[
        Variant {
            name: "kprobe",
            programs: &[Auto("memory_exit__kprobe"), Auto("memory_release__kprobe")],
            needs: &[Function("exit_files"), Function("exit_mm_release")],
            blind: None,
        },
        Variant {
            name: "kprobe/about",
            programs: &[
                Auto("memory_exit__kprobe"),
                Auto("memory_release_about__kprobe"),
            ],
            needs: &[Function("exit_files"), Function("exit_mm_release")],
            blind: ABOUT,
        },
        // From 6.16 on it comes before the memory is given back.
        Variant {
            name: "raw_tp",
            programs: &[Auto("memory_exit__raw_tp")],
            needs: &[Params("__traceiter_sched_process_exit", 3)],
            blind: None,
        },
        Variant {
            name: "raw_tp/about",
            programs: &[Auto("memory_exit_about__raw_tp")],
            needs: &[Params("__traceiter_sched_process_exit", 3)],
            blind: ABOUT,
        },
        Variant {
            name: "raw_tp/old",
            programs: &[Auto("memory_exit_about__raw_tp")],
            needs: &[],
            blind: Some("what a process held when it ended is not seen"),
        },
    ],
    without: "faults and sizes of processes that end",
    excused_without: None,
};

const EVENTS: &[Probe] = &[MMAP, MUNMAP, BRK, OOM];
const SUMMARY: &[Probe] = &[MMAP, MUNMAP, BRK, OOM, STATES, EXIT];

pub(super) fn parts(form: Form) -> Parts {
    match form {
        Form::Events => Parts {
            fill: |loader, _| choose(loader, Form::Events),
            ..Parts::events(Object::Memory, EVENTS)
        },
        Form::Summary | Form::OffCpu => Parts {
            fill: |loader, _: &Filter| choose(loader, Form::Summary),
            summary: Some(Box::new(Counts::new())),
            ..Parts::events(Object::Memory, SUMMARY)
        },
    }
}

/// Tells the programs how to report; before, they do nothing.
fn choose(loader: &Loader, form: Form) -> Result<()> {
    let value = MemoryForm {
        page_bytes: u32::try_from(page_bytes()).unwrap_or(4096),
        events: u32::from(form == Form::Events),
    };
    loader.map("stk_memory_form")?.set(
        &0u32.to_ne_bytes(),
        bytes_of(&value),
        "the form of the memory monitor",
    )
}

#[derive(Debug)]
struct Counts {
    calls: Tally,
    state: Option<OwnedFd>,
    /// What was told of each process before.
    before: HashMap<TaskKey, Told>,
    /// Their last line was told at the last look: threads that end together can each leave a last state.
    ended: HashSet<TaskKey>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Told {
    minor: u64,
    major: u64,
    sizes: Option<MemorySizes>,
}

/// A process as the kernel has it at one moment.
#[derive(Debug)]
struct Found {
    state: MemoryState,
    wanted: bool,
    /// Its faults: of threads that run, and the smallest number seen for those that have ended. A thread that ends
    /// during the look may be missing then and comes with the next one; twice it cannot be.
    minor: (u64, u64),
    major: (u64, u64),
}

impl Found {
    fn told(&self) -> Told {
        Told {
            minor: self.minor.0 + self.minor.1,
            major: self.major.0 + self.major.1,
            sizes: sizes(&self.state),
        }
    }
}

impl Counts {
    fn new() -> Self {
        Counts {
            calls: Tally::new("stk_memory_sums"),
            state: None,
            before: HashMap::new(),
            ended: HashSet::new(),
        }
    }

    /// The processes that run, those out of scope too where a thread was renamed: their numbers go on.
    fn running(&self) -> Result<HashMap<TaskKey, Found>> {
        let Some(link) = &self.state else {
            return Ok(HashMap::new());
        };
        Ok(gather(&read_iterator::<MemoryState>(
            link.as_fd(),
            "the sizes of processes",
        )?))
    }

    /// Takes out the processes that have ended.
    fn take_ended(&mut self, loader: &Loader) -> Result<BTreeMap<TaskKey, MemoryState>> {
        let map = loader.map("stk_memory_ended")?;
        let mut ended = BTreeMap::new();
        let mut taken = Vec::new();
        for (key, value) in map.entries()? {
            let (Some(task), Some(state)) = (read::<TaskKey>(&key), read::<MemoryState>(&value))
            else {
                continue;
            };
            if state.hdr.flags & memory_flag::FINAL == 0 {
                // It is just ending.
                continue;
            }
            taken.push(key);
            ended.insert(task, state);
        }
        map.remove(&taken)?;
        ended.retain(|task, _| !self.ended.contains(task));
        self.ended = ended.keys().copied().collect();
        Ok(ended)
    }
}

/// Threads to processes.
fn gather(threads: &[MemoryState]) -> HashMap<TaskKey, Found> {
    let mut found: HashMap<TaskKey, Found> = HashMap::new();
    for state in threads {
        let wanted = state.hdr.flags & memory_flag::WANTED != 0;
        let one = found.entry(key_of(state)).or_insert_with(|| Found {
            state: *state,
            wanted,
            minor: (0, u64::MAX),
            major: (0, u64::MAX),
        });
        one.wanted |= wanted;
        one.minor.0 += state.minor;
        one.major.0 += state.major;
        one.minor.1 = one.minor.1.min(state.ended_minor);
        one.major.1 = one.major.1.min(state.ended_major);
        if state.hdr.flags & memory_flag::SIZES != 0 {
            one.state = *state;
        }
    }
    found
}

fn key_of(state: &MemoryState) -> TaskKey {
    TaskKey {
        start_ns: state.hdr.start_ns,
        tgid: u64::from(state.hdr.tgid),
    }
}

fn sizes(state: &MemoryState) -> Option<MemorySizes> {
    if state.hdr.flags & memory_flag::SIZES == 0 {
        return None;
    }
    let size = |pages: u64| pages.saturating_mul(page_bytes());
    let mut sizes = MemorySizes {
        anon_bytes: size(state.anon),
        file_bytes: size(state.file),
        shmem_bytes: size(state.shmem),
        swap_bytes: size(state.swap),
        virtual_bytes: size(state.total_vm),
        // The kernel notes a peak when the size is about to shrink.
        peak_virtual_bytes: size(state.peak_vm.max(state.total_vm)),
        peak_rss_bytes: size(state.peak_rss),
        heap_bytes: state.heap_bytes,
    };
    sizes.peak_rss_bytes = sizes.peak_rss_bytes.max(sizes.rss_bytes());
    Some(sizes)
}

impl Summary for Counts {
    fn start(&mut self, _: &Loader, attached: &[Attached]) -> Result<()> {
        if let Some(program) = attached
            .iter()
            .find(|a| matches!(a.name(), STATE | STATE_ABOUT))
        {
            self.state = Some(program.iterator()?);
        }
        // Faults of before are not ours to tell. Sizes are: they are told at the first look.
        for (task, found) in self.running()? {
            let told = Told {
                sizes: None,
                ..found.told()
            };
            self.before.insert(task, told);
        }
        Ok(())
    }

    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        // In this order a process that ends meanwhile is told with its last numbers, or at the next look.
        let running = self.running()?;
        let ended = self.take_ended(flush.loader)?;
        let mut calls: BTreeMap<TaskKey, MemorySummary> = BTreeMap::new();
        for (key, sum) in self.calls.news::<MemoryKey, MemorySum>(flush)? {
            add(calls.entry(key.task).or_default(), &key, &sum)?;
        }
        let mut lines: BTreeMap<TaskKey, (Option<MemoryState>, MemorySummary)> = BTreeMap::new();
        for (task, found) in &running {
            if ended.contains_key(task) {
                // Its last line begins where the one before ended.
                continue;
            }
            let now = found.told();
            if !found.wanted {
                self.before.insert(*task, now);
                continue;
            }
            let before = self.before.get(task).copied().unwrap_or_default();
            // A moment can be missing from a sum over threads: it must not be told twice later.
            let kept = Told {
                minor: now.minor.max(before.minor),
                major: now.major.max(before.major),
                sizes: now.sizes,
            };
            self.before.insert(*task, kept);
            if kept != before || calls.contains_key(task) {
                let line = line(calls.remove(task), kept, before);
                lines.insert(*task, (Some(found.state), line));
            }
        }
        for (task, state) in ended {
            let before = self.before.remove(&task).unwrap_or_default();
            let now = Told {
                minor: state.minor,
                major: state.major,
                sizes: sizes(&state),
            };
            let mut line = line(calls.remove(&task), now, before);
            line.ended = true;
            lines.insert(task, (Some(state), line));
        }
        // Of processes that are just ending, or whose sizes cannot be had.
        lines.extend(calls.into_iter().map(|(task, line)| (task, (None, line))));
        self.before
            .retain(|task, _| running.contains_key(task) || flush.alive.contains(task));
        for (task, (state, mut summary)) in lines {
            summary.window_ns = flush.window_ns;
            let kind = Kind::MemorySummary(summary);
            tell(match state {
                Some(state) => Event::new(flush.time_ns, process_of(&state.hdr), kind),
                None => flush.event(task, kind)?,
            });
        }
        Ok(())
    }
}

fn line(calls: Option<MemorySummary>, now: Told, before: Told) -> MemorySummary {
    MemorySummary {
        minor_faults: now.minor.saturating_sub(before.minor),
        major_faults: now.major.saturating_sub(before.major),
        sizes: now.sizes,
        ..calls.unwrap_or_default()
    }
}

/// Adds calls that ended alike.
fn add(summary: &mut MemorySummary, key: &MemoryKey, sum: &MemorySum) -> Result<()> {
    let bytes = if key.errnum == 0 { sum.bytes } else { 0 };
    let name = match key.call {
        memory_call::MMAP => {
            summary.mmap_calls += sum.calls;
            summary.mmap_bytes += bytes;
            "mmap"
        }
        memory_call::MUNMAP => {
            summary.munmap_calls += sum.calls;
            summary.munmap_bytes += bytes;
            "munmap"
        }
        memory_call::BRK => {
            summary.brk_calls += sum.calls;
            summary.brk_grown_bytes += bytes;
            "brk"
        }
        memory_call::BRK_SHRINK => {
            summary.brk_calls += sum.calls;
            summary.brk_shrunk_bytes += bytes;
            "brk"
        }
        unknown => {
            return Err(Error::new(
                ErrorKind::Load,
                format!("the kernel half counted calls of kind {unknown}; this is a defect"),
            ));
        }
    };
    if key.errnum != 0 {
        let errno = u16::try_from(key.errnum).unwrap_or(u16::MAX);
        summary
            .failures
            .push(MemoryFailure::new(name, errno, sum.calls));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::header;

    fn thread(tid: u32, minor: u64, ended_minor: u64, flags: u32) -> MemoryState {
        let mut hdr = header(0, flags, 0);
        hdr.tid = tid;
        MemoryState {
            hdr,
            minor,
            major: 0,
            ended_minor,
            ended_major: 0,
            file: 1,
            anon: 2,
            shmem: 3,
            swap: 0,
            total_vm: 9,
            peak_vm: 8,
            peak_rss: 4,
            heap_bytes: 0,
        }
    }

    #[test]
    fn a_process_is_the_sum_of_its_threads_and_of_those_that_have_ended() {
        // Between the two looks a thread with 5 faults has ended.
        let threads = [
            thread(42, 100, 30, memory_flag::SIZES),
            thread(43, 7, 35, memory_flag::WANTED),
        ];
        let found = gather(&threads);
        assert_eq!(found.len(), 1);
        let found = found.values().next().expect("one process");
        assert!(found.wanted);
        assert_eq!(found.told().minor, 100 + 7 + 30);
        assert!(found.told().sizes.is_some());
    }

    #[test]
    fn peaks_are_never_below_the_present_sizes() {
        let page = page_bytes();
        let sizes = sizes(&thread(42, 0, 0, memory_flag::SIZES)).expect("sizes");
        assert_eq!(sizes.peak_virtual_bytes, 9 * page);
        assert_eq!(sizes.rss_bytes(), 6 * page);
        assert_eq!(sizes.peak_rss_bytes, 6 * page);
        assert!(super::sizes(&thread(42, 0, 0, 0)).is_none());
    }

    #[test]
    fn faults_that_were_told_are_not_told_again() {
        let told = |minor| Told {
            minor,
            ..Told::default()
        };
        assert_eq!(line(None, told(12), told(10)).minor_faults, 2);
        assert_eq!(line(None, told(9), told(10)).minor_faults, 0);
    }

    #[test]
    fn failures_count_as_calls_and_not_as_bytes() {
        let mut summary = MemorySummary::default();
        let task = TaskKey {
            start_ns: 1,
            tgid: 1,
        };
        let sum = MemorySum {
            calls: 2,
            bytes: 8192,
        };
        for (call, errnum) in [
            (memory_call::MMAP, 0),
            (memory_call::MMAP, 12),
            (memory_call::BRK_SHRINK, 0),
        ] {
            add(&mut summary, &MemoryKey { task, call, errnum }, &sum).expect("a known call");
        }
        assert_eq!((summary.mmap_calls, summary.mmap_bytes), (4, 8192));
        assert_eq!((summary.brk_calls, summary.brk_shrunk_bytes), (2, 8192));
        assert_eq!(summary.failures, [MemoryFailure::new("mmap", 12, 2)]);
        let key = MemoryKey {
            task,
            call: 99,
            errnum: 0,
        };
        assert!(add(&mut summary, &key, &sum).is_err());
    }
}
