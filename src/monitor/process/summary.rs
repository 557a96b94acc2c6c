//! CPU time of processes, their waits for a CPU and their switches, as the kernel counts them for each thread.
//!
//! The numbers of a process are the sum over its threads that are there (an iterator reads them) and those that are gone
//! (a map has what they had used when they were freed). The map is read first: who is freed in between is counted with
//! the next look, and nobody twice. In a moment between, a thread is in neither; so a sum can be too small for a while,
//! and what is told is the largest one so far.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use crate::error::Result;
use crate::event::{Event, Kind, ProcessSummary};
use crate::kernel::Program::Auto;
use crate::kernel::{Attached, Loader, Object, Probe, Variant, read_iterator, tracepoint};
use crate::monitor::Parts;
use crate::monitor::summary::{Flush, Summary};
use crate::wire::{
    CpuEnding, CpuProcess, CpuThread, CpuTimes, Header, TaskKey, WaitStatus, bytes_of, cpu_flag,
    process_of, read, scale_cpu_time,
};

const STATE: &str = "process_state__iter";

const STATES: Probe = Probe {
    name: "process.state",
    variants: &[Variant {
        name: "iterator",
        programs: &[Auto(STATE)],
        needs: &[],
        blind: None,
    }],
    without: "CPU time of processes that run",
    excused_without: None,
};
const ENDING: Probe = tracepoint!(
    "process.ending",
    "process_ending",
    "which processes have ended",
    "exit_files"
);
/// The kernel frees threads in its own good time, where this program is not interrupted by itself.
const FREED: Probe = tracepoint!(
    "process.freed",
    "process_freed",
    "CPU time of threads that end"
);

/// Whoever is freed has been noted before.
const PROBES: &[Probe] = &[FREED, ENDING, STATES];

/// How long the kernel gets to free the threads that have ended, at the end of a session. Some kernels put that off for
/// seconds.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn parts() -> Parts {
    Parts {
        summary: Some(Box::new(Counts::default())),
        ..Parts::events(Object::ProcessSummary, PROBES)
    }
}

#[derive(Debug, Default)]
struct Counts {
    state: Option<OwnedFd>,
    /// Whether the kernel counts waits for a CPU.
    delays: bool,
    /// What was told of each process before, and what it had used before the session.
    before: HashMap<TaskKey, Told>,
    early: Early,
    /// Processes in the map that were neither there nor ended at the last look.
    orphans: HashSet<TaskKey>,
}

/// Threads that ended while the first look was under way: those that it has seen count when they are freed.
#[derive(Debug, Default)]
struct Early {
    /// Whom the first look has seen. `None` when nobody is waited for any more.
    seen: Option<HashSet<(TaskKey, u32)>>,
    /// What those of them had used who are freed.
    times: HashMap<TaskKey, CpuTimes>,
}

/// The largest sums so far, and the exact run time split.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Told {
    times: CpuTimes,
    user_ns: u64,
    system_ns: u64,
}

impl Told {
    fn new(times: CpuTimes) -> Told {
        Told::default().next(times)
    }

    /// With what is known now. User and system time never go back, and their sum is the run time, as in the kernel
    /// (cputime_adjust, kernel/sched/cputime.c).
    fn next(self, times: CpuTimes) -> Told {
        let times = CpuTimes {
            utime_ns: times.utime_ns.max(self.times.utime_ns),
            stime_ns: times.stime_ns.max(self.times.stime_ns),
            rtime_ns: times.rtime_ns.max(self.times.rtime_ns),
            run_delay_ns: times.run_delay_ns.max(self.times.run_delay_ns),
            voluntary: times.voluntary.max(self.times.voluntary),
            involuntary: times.involuntary.max(self.times.involuntary),
        };
        let (_, system) = scale_cpu_time(times.utime_ns, times.stime_ns, times.rtime_ns);
        // Both bounds hold, because the run time has not gone back either.
        let system_ns = system.clamp(self.system_ns, times.rtime_ns - self.user_ns);
        Told {
            times,
            user_ns: times.rtime_ns - system_ns,
            system_ns,
        }
    }

    fn since(&self, before: &Told, delays: bool) -> ProcessSummary {
        let (now, then) = (&self.times, &before.times);
        ProcessSummary {
            user_ns: self.user_ns - before.user_ns,
            system_ns: self.system_ns - before.system_ns,
            run_delay_ns: delays.then_some(now.run_delay_ns - then.run_delay_ns),
            voluntary_switches: now.voluntary - then.voluntary,
            involuntary_switches: now.involuntary - then.involuntary,
            ..ProcessSummary::default()
        }
    }
}

impl CpuTimes {
    fn add(&mut self, more: &CpuTimes) {
        self.utime_ns += more.utime_ns;
        self.stime_ns += more.stime_ns;
        self.rtime_ns += more.rtime_ns;
        self.run_delay_ns += more.run_delay_ns;
        self.voluntary += more.voluntary;
        self.involuntary += more.involuntary;
    }
}

/// A process of which threads are there, be it as zombies.
#[derive(Debug)]
struct Found {
    /// Of the leader, where that one is there.
    hdr: Header,
    times: CpuTimes,
    wanted: bool,
    threads: u32,
}

/// Threads to processes.
fn gather(threads: &[CpuThread]) -> BTreeMap<TaskKey, Found> {
    let mut found: BTreeMap<TaskKey, Found> = BTreeMap::new();
    for thread in threads {
        let one = found.entry(key_of(&thread.hdr)).or_insert_with(|| Found {
            hdr: thread.hdr,
            times: CpuTimes::default(),
            wanted: false,
            threads: 0,
        });
        if thread.hdr.tid == thread.hdr.tgid {
            one.hdr = thread.hdr;
        }
        one.times.add(&thread.times);
        one.wanted |= thread.hdr.flags & cpu_flag::WANTED != 0;
        one.threads += u32::from(thread.hdr.flags & cpu_flag::ENDED == 0);
    }
    found
}

fn key_of(hdr: &Header) -> TaskKey {
    TaskKey {
        start_ns: hdr.start_ns,
        tgid: u64::from(hdr.tgid),
    }
}

impl Early {
    /// Takes out those that are freed.
    fn take(&mut self, loader: &Loader) -> Result<()> {
        let Some(seen) = &self.seen else {
            return Ok(());
        };
        let map = loader.map("stk_cpu_ending")?;
        let (mut taken, mut waiting) = (Vec::new(), false);
        for (key, value) in map.entries()? {
            let Some(ending) = read::<CpuEnding>(&value).filter(|e| e.early != 0) else {
                continue;
            };
            if ending.freed == 0 {
                waiting = true;
                continue;
            }
            if seen.contains(&(ending.task, ending.tid)) {
                self.times
                    .entry(ending.task)
                    .or_default()
                    .add(&ending.times);
            }
            taken.push(key);
        }
        map.remove(&taken)?;
        if !waiting {
            self.seen = None;
        }
        Ok(())
    }
}

impl Counts {
    fn threads(&self) -> Result<Vec<CpuThread>> {
        match &self.state {
            Some(link) => read_iterator(link.as_fd(), "the CPU time of processes"),
            None => Ok(Vec::new()),
        }
    }

    /// All that a process has used, as far as it can be seen now.
    fn total(
        &self,
        task: &TaskKey,
        found: Option<&Found>,
        process: Option<&CpuProcess>,
    ) -> CpuTimes {
        let mut times = found.map_or_else(CpuTimes::default, |found| found.times);
        for part in [process.map(|p| &p.times), self.early.times.get(task)] {
            times.add(part.unwrap_or(&CpuTimes::default()));
        }
        times
    }
}

/// The processes of which threads have ended.
fn processes(loader: &Loader) -> Result<BTreeMap<TaskKey, CpuProcess>> {
    let entries = loader.map("stk_cpu_processes")?.entries()?;
    let pairs = entries.iter();
    Ok(pairs
        .filter_map(|(key, value)| Some((read::<TaskKey>(key)?, read::<CpuProcess>(value)?)))
        .collect())
}

/// Adds what those threads had used at their end that are neither there nor freed: nobody will look again.
fn add_unfreed(
    loader: &Loader,
    threads: &[CpuThread],
    processes: &mut BTreeMap<TaskKey, CpuProcess>,
) -> Result<()> {
    let there: HashSet<(TaskKey, u32)> = threads
        .iter()
        .map(|t| (key_of(&t.hdr), t.hdr.tid))
        .collect();
    for (_, value) in loader.map("stk_cpu_ending")?.entries()? {
        let Some(ending) = read::<CpuEnding>(&value) else {
            continue;
        };
        // One of the first look may be known from before it: too little is told rather than too much.
        if ending.early != 0 || there.contains(&(ending.task, ending.tid)) {
            continue;
        }
        if let Some(process) = processes.get_mut(&ending.task) {
            process.times.add(&ending.times);
        }
    }
    Ok(())
}

impl Summary for Counts {
    fn start(&mut self, loader: &Loader, attached: &[Attached]) -> Result<()> {
        if let Some(program) = attached.iter().find(|a| a.name() == STATE) {
            self.state = Some(program.iterator()?);
        }
        // What was used before is not ours to tell.
        let threads = self.threads()?;
        let delays = |thread: &CpuThread| thread.hdr.flags & cpu_flag::DELAYS != 0;
        self.delays = threads.iter().any(delays);
        let seen = threads.iter().map(|t| (key_of(&t.hdr), t.hdr.tid));
        self.early.seen = Some(seen.collect());
        let told = gather(&threads).into_iter();
        self.before = told
            .map(|(task, found)| (task, Told::new(found.times)))
            .collect();
        loader.map("stk_cpu_started")?.set(
            &0u32.to_ne_bytes(),
            &1u32.to_ne_bytes(),
            "the start of the process monitor",
        )
    }

    fn settle(&self, loader: &Loader) -> Result<()> {
        let waited = Cell::new(Duration::ZERO);
        while waited.get() < PATIENCE {
            let mut pending = processes(loader)?;
            pending.retain(|_, process| process.ended != 0 && process.freed < process.ending);
            if pending.is_empty() {
                break;
            }
            // Zombies wait for their parents; they can be read as they are.
            for thread in self.threads()? {
                pending.remove(&key_of(&thread.hdr));
            }
            if pending.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
            waited.set(waited.get() + PAUSE);
        }
        Ok(())
    }

    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        // In this order; see above.
        let mut processes = processes(flush.loader)?;
        self.early.take(flush.loader)?;
        let threads = self.threads()?;
        if flush.is_last {
            add_unfreed(flush.loader, &threads, &mut processes)?;
        }
        let running = gather(&threads);
        let mut tell = |hdr: &Header, summary: ProcessSummary| {
            let kind = Kind::ProcessSummary(ProcessSummary {
                window_ns: flush.window_ns,
                ..summary
            });
            tell(Event::new(flush.time_ns, process_of(hdr), kind));
        };
        for (task, found) in &running {
            let process = processes.get(task);
            let before = self.before.get(task).copied().unwrap_or_default();
            let now = before.next(self.total(task, Some(found), process));
            self.before.insert(*task, now);
            let wanted = found.wanted || process.is_some_and(|p| p.wanted != 0);
            // A zombie has its last line when its parent has asked for it.
            let ended = process.filter(|p| flush.is_last && p.ended != 0 && found.threads == 0);
            if !wanted || now == before && ended.is_none() {
                continue;
            }
            let summary = now.since(&before, self.delays);
            match ended {
                Some(process) => tell(&process.hdr, with_status(summary, process.code)),
                None => tell(
                    &found.hdr,
                    ProcessSummary {
                        threads: Some(found.threads),
                        ..summary
                    },
                ),
            }
        }
        let (mut gone, mut orphans) = (Vec::new(), HashSet::new());
        for (task, process) in &processes {
            if running.contains_key(task) {
                continue;
            }
            if process.ended == 0 {
                // It has ended meanwhile; or its end was not seen, and nothing will come of it.
                if self.orphans.contains(task) {
                    gone.push(*task);
                } else {
                    orphans.insert(*task);
                }
            } else if process.freed >= process.ending || flush.is_last {
                gone.push(*task);
                let before = self.before.get(task).copied().unwrap_or_default();
                let now = before.next(self.total(task, None, Some(process)));
                let summary = now.since(&before, self.delays);
                tell(&process.hdr, with_status(summary, process.code));
            }
        }
        self.orphans = orphans;
        let keys: Vec<Vec<u8>> = gone.iter().map(|t| bytes_of(t).to_vec()).collect();
        flush.loader.map("stk_cpu_processes")?.remove(&keys)?;
        for task in gone {
            self.before.remove(&task);
            self.early.times.remove(&task);
        }
        // Who has just ended is not in the map that was read before.
        self.before.retain(|task, _| {
            running.contains_key(task) || processes.contains_key(task) || flush.alive.contains(task)
        });
        Ok(())
    }
}

/// The last line of a process.
fn with_status(summary: ProcessSummary, code: u32) -> ProcessSummary {
    let status = WaitStatus::new(code);
    ProcessSummary {
        threads: None,
        code: status.code,
        signal: status.signal,
        core_dumped: status.core_dumped,
        ..summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample::header;

    fn times(utime_ns: u64, stime_ns: u64, rtime_ns: u64) -> CpuTimes {
        CpuTimes {
            utime_ns,
            stime_ns,
            rtime_ns,
            ..CpuTimes::default()
        }
    }

    #[test]
    fn run_time_is_split_as_sampled_and_no_part_goes_back() {
        let first = Told::new(times(4, 4, 100));
        assert_eq!((first.user_ns, first.system_ns), (50, 50));
        // By the ratio it would be 22 of 110 in the kernel.
        let second = first.next(times(16, 4, 110));
        assert_eq!((second.user_ns, second.system_ns), (60, 50));
        // And here 100 of 125 in the kernel, where the user's part would go back.
        let third = second.next(times(16, 64, 125));
        assert_eq!((third.user_ns, third.system_ns), (60, 65));
        let since = third.since(&first, false);
        assert_eq!((since.user_ns, since.system_ns), (10, 15));
        assert_eq!(since.run_delay_ns, None);
    }

    #[test]
    fn sum_that_misses_a_thread_for_a_moment_changes_nothing() {
        let told = Told::new(times(10, 0, 100));
        assert_eq!(told.next(times(4, 0, 40)), told);
        let later = told.next(times(11, 0, 103));
        assert_eq!(later.since(&told, true).user_ns, 3);
        assert_eq!(later.since(&told, true).run_delay_ns, Some(0));
    }

    #[test]
    fn process_is_the_sum_of_its_threads_and_zombies_do_not_run() {
        let thread = |tid, flags, rtime| {
            let mut hdr = header(0, flags, 0);
            hdr.tid = tid;
            CpuThread {
                hdr,
                times: times(0, 0, rtime),
            }
        };
        let leader = header(0, 0, 0).tgid;
        let threads = [
            thread(leader + 1, cpu_flag::WANTED, 5),
            thread(leader, cpu_flag::ENDED, 30),
            thread(leader + 2, 0, 7),
        ];
        let found = gather(&threads);
        assert_eq!(found.len(), 1);
        let found = found.values().next().expect("one process");
        assert!(found.wanted);
        assert_eq!((found.threads, found.times.rtime_ns), (2, 42));
        assert_eq!(found.hdr.tid, leader);
    }

    #[test]
    fn last_line_says_how_it_ended() {
        let killed = with_status(ProcessSummary::default(), 0x8b);
        assert_eq!((killed.code, killed.signal), (None, Some(11)));
        assert!(killed.core_dumped && killed.has_ended());
        assert_eq!(with_status(killed, 3 << 8).code, Some(3));
    }
}
