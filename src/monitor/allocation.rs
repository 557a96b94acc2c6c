//! What the kernel allocates for processes: counted by process, and by call site what of it is still there.
//!
//! Part of the memory monitor, and only where it is asked for: nothing is allocated more often than memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::Parts;
use super::summary::{Flush, Summary, Tally};
use crate::enrich::Symbols;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{
    Allocated, AllocationSource, Event, Frame, Kind, MemoryAllocations, MemoryOutstanding,
};
use crate::kernel::Needs::Params;
use crate::kernel::Program::Auto;
use crate::kernel::{Attached, Loader, Object, Probe, Variant, addresses, page_bytes};
use crate::wire::{
    Allocation, AllocationForm, AllocationKey, AllocationSum, SITE_DEPTH, SiteKey, SiteStack,
    TaskKey, allocation_source, bytes_of, read,
};

/// Frees before allocations: what is allocated while the session starts must not be missed when it goes.
const PROBES: &[Probe] = &[
    Probe {
        name: "memory.pages",
        variants: &[Variant {
            name: "raw_tp",
            programs: &[
                Auto("allocation_pages_free__raw_tp"),
                Auto("allocation_pages__raw_tp"),
            ],
            needs: &[],
            blind: None,
        }],
        without: "pages that the kernel allocates",
        excused_without: None,
    },
    Probe {
        name: "memory.slab",
        variants: &[
            // With the cache instead of sizes, and with the node in the same tracepoint: 6.1. All that is hidden
            // behind the probe's own data.
            Variant {
                name: "raw_tp",
                programs: &[
                    Auto("allocation_kfree__raw_tp"),
                    Auto("allocation_cache_free__raw_tp"),
                    Auto("allocation_kmalloc__raw_tp"),
                    Auto("allocation_cache__raw_tp"),
                ],
                needs: &[
                    Params("__traceiter_kmalloc", 7),
                    Params("__traceiter_kmem_cache_alloc", 6),
                ],
                blind: None,
            },
            Variant {
                name: "raw_tp/node",
                programs: &[
                    Auto("allocation_kfree__raw_tp"),
                    Auto("allocation_cache_free__raw_tp"),
                    Auto("allocation_kmalloc__raw_tp"),
                    Auto("allocation_kmalloc_node__raw_tp"),
                    Auto("allocation_cache_old__raw_tp"),
                    Auto("allocation_cache_node__raw_tp"),
                ],
                needs: &[
                    Params("__traceiter_kmalloc", 6),
                    Params("__traceiter_kmalloc_node", 7),
                ],
                blind: None,
            },
        ],
        without: "objects that the kernel allocates",
        excused_without: None,
    },
];

/// So many call sites are told at each look, those with most bytes.
const TOLD: usize = 20;
/// So many allocations of processes that have ended may stay in the kernel's map before they are looked for: going
/// through it takes a fraction of a second.
const SWEEP: u64 = 65_536;
/// So many stacks stay in the kernel's map, half of what it has room for, before those that no call site has are removed.
const STACKS_KEPT: usize = 8192;

pub(super) fn parts() -> Parts {
    Parts {
        fill: |loader, _| choose(loader),
        summary: Some(Box::new(Allocations::new())),
        ..Parts::events(Object::Allocation, PROBES)
    }
}

/// For whoever tries every variant.
pub(crate) const TRIED: (Object, &[Probe]) = (Object::Allocation, PROBES);

/// Tells the programs what they need to know; before, they do nothing.
fn choose(loader: &Loader) -> Result<()> {
    let [per_cpu_offset, alone, hot] = if cfg!(target_arch = "x86_64") {
        addresses(["__per_cpu_offset", "__preempt_count", "pcpu_hot"])
    } else {
        // It is in the task.
        [0; 3]
    };
    let value = AllocationForm {
        page_bytes: page_bytes(),
        per_cpu_offset,
        preempt_count: if alone == 0 { hot } else { alone },
    };
    loader.map("stk_allocation_form")?.set(
        &0u32.to_ne_bytes(),
        bytes_of(&value),
        "what the programs for allocations have to know",
    )
}

#[derive(Debug)]
struct Allocations {
    sums: Tally,
    /// What was outstanding at each call site before, in bytes.
    before: HashMap<SiteKey, u64>,
    told: HashSet<SiteKey>,
    /// Allocations in the kernel's map whose processes have ended.
    forgotten: u64,
    names: Option<Names>,
    /// The kernel does not say whether an interrupt is running.
    guesses_interrupts: bool,
}

/// A call site at which something is outstanding, or was when it was told before.
#[derive(Debug, Clone, Copy)]
struct Site {
    key: SiteKey,
    allocations: u64,
    bytes: u64,
    requested: u64,
    growth: i64,
}

impl Site {
    fn new(key: SiteKey, sum: &AllocationSum, before: u64) -> Self {
        // They are not read at one moment: for that moment more can have been freed than was allocated.
        let bytes = sum.bytes.saturating_sub(sum.freed_bytes);
        Site {
            key,
            allocations: sum.allocations.saturating_sub(sum.frees),
            bytes,
            requested: sum.requested.saturating_sub(sum.freed_requested),
            growth: i64::try_from(i128::from(bytes) - i128::from(before)).unwrap_or(i64::MAX),
        }
    }
}

/// Those to tell, the largest first: so many with something outstanding, and those that had something when they were told
/// the last time.
fn largest(mut sites: Vec<Site>, told: &HashSet<SiteKey>) -> Vec<Site> {
    sites.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.key.cmp(&b.key)));
    let full = sites.iter().filter(|site| site.allocations > 0).take(TOLD);
    let empty = sites
        .iter()
        .filter(|site| site.allocations == 0 && told.contains(&site.key));
    full.chain(empty).copied().collect()
}

impl Allocations {
    fn new() -> Self {
        Allocations {
            sums: Tally::new("stk_allocation_sums"),
            before: HashMap::new(),
            told: HashSet::new(),
            forgotten: 0,
            names: None,
            guesses_interrupts: false,
        }
    }

    /// What every process has allocated since the last look.
    fn tell_sums(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        let mut lines: BTreeMap<TaskKey, MemoryAllocations> = BTreeMap::new();
        for (key, sum) in self.sums.news::<AllocationKey, AllocationSum>(flush)? {
            let line = lines.entry(key.task).or_default();
            let of = match source_of(key.source)? {
                AllocationSource::Page => &mut line.pages,
                AllocationSource::Slab => &mut line.slab,
            };
            *of = Allocated {
                allocations: sum.allocations,
                requested_bytes: sum.requested,
                bytes: sum.bytes,
                frees: sum.frees,
                freed_requested_bytes: sum.freed_requested,
                freed_bytes: sum.freed_bytes,
            };
        }
        for (task, mut line) in lines {
            line.window_ns = flush.window_ns;
            tell(flush.event(task, Kind::MemoryAllocations(line))?);
        }
        Ok(())
    }

    /// What is outstanding at each call site. Those of processes that have ended are told for the last time.
    fn sites(&mut self, flush: &Flush<'_>) -> Result<Vec<Site>> {
        let map = flush.loader.map("stk_sites")?;
        let known: HashSet<TaskKey> = flush.known.iter().filter_map(|k| read(k)).collect();
        let mut sites = Vec::new();
        let mut ended = Vec::new();
        let mut now = HashMap::new();
        for (bytes, value) in map.entries()? {
            let (Some(key), Some(sum)) = (read::<SiteKey>(&bytes), read::<AllocationSum>(&value))
            else {
                continue;
            };
            let before = self.before.get(&key).copied().unwrap_or(0);
            let site = Site::new(key, &sum, before);
            let task = key.of.task;
            // Who has begun to run since is not among those that run, and not among those that were known either.
            if known.contains(&task) && !flush.alive.contains(&task) {
                ended.push(bytes);
                self.forgotten += site.allocations;
            } else {
                now.insert(key, site.bytes);
            }
            sites.push(site);
        }
        map.remove(&ended)?;
        self.before = now;
        Ok(sites)
    }

    fn tell_sites(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        // Before the sites: a stack that comes later may belong to one that is not among them.
        let stacks = flush.loader.map("stk_site_stacks")?;
        let mut idle = stacks.keys();
        let sites = self.sites(flush)?;
        let used: HashSet<u64> = sites.iter().map(|site| site.key.stack).collect();
        let lines = largest(sites, &self.told);
        self.told = lines
            .iter()
            .filter(|site| site.allocations > 0 && self.before.contains_key(&site.key))
            .map(|site| site.key)
            .collect();
        for site in lines {
            let (kernel, truncated) = match &mut self.names {
                Some(names) if site.key.stack != 0 => names.of(site.key.stack, || {
                    let found = stacks.get(&site.key.stack.to_ne_bytes())?;
                    Ok(found.as_deref().and_then(read::<SiteStack>))
                })?,
                _ => (Vec::new(), false),
            };
            let line = MemoryOutstanding {
                source: source_of(site.key.of.source)?,
                allocations: site.allocations,
                bytes: site.bytes,
                requested_bytes: site.requested,
                growth_bytes: site.growth,
                kernel,
                truncated,
                window_ns: flush.window_ns,
            };
            tell(flush.event(site.key.of.task, Kind::MemoryOutstanding(line))?);
        }
        // One that is used again while it is being removed is missing until it is used once more: so not without need.
        if idle.len() > STACKS_KEPT {
            let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from_ne_bytes(*b));
            idle.retain(|key| number(key).is_some_and(|key| !used.contains(&key)));
            stacks.remove(&idle)?;
        }
        if let Some(names) = &mut self.names {
            names.keep(&used);
        }
        Ok(())
    }

    /// Makes room: what processes that have ended left behind, which nobody asks about any more.
    fn sweep(&mut self, flush: &Flush<'_>) -> Result<()> {
        if self.forgotten < SWEEP || flush.is_last {
            return Ok(());
        }
        let owners: HashSet<TaskKey> = self.before.keys().map(|key| key.of.task).collect();
        let map = flush.loader.map("stk_allocated")?;
        let mut left = Vec::new();
        for (address, value) in map.entries()? {
            let Some(what) = read::<Allocation>(&value) else {
                continue;
            };
            let task = what.site.of.task;
            if !flush.alive.contains(&task) && !owners.contains(&task) {
                left.push(address);
            }
        }
        map.remove(&left)?;
        self.forgotten = 0;
        Ok(())
    }
}

impl Summary for Allocations {
    fn start(&mut self, loader: &Loader, _: &[Attached]) -> Result<()> {
        let form = loader.map("stk_allocation_form")?;
        let form = form.get(&0u32.to_ne_bytes())?;
        let form = form.as_deref().and_then(read::<AllocationForm>);
        self.guesses_interrupts = cfg!(target_arch = "x86_64")
            && form.is_none_or(|form| form.per_cpu_offset == 0 || form.preempt_count == 0);
        self.names = Some(Names::start()?);
        Ok(())
    }

    fn shortcomings(&self) -> Vec<String> {
        let guessed = "the kernel does not tell where it counts interrupts: allocations of those that come upon a \
                       program in user space count for its process";
        self.guesses_interrupts
            .then(|| guessed.to_owned())
            .into_iter()
            .collect()
    }

    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        self.tell_sums(flush, tell)?;
        self.tell_sites(flush, tell)?;
        self.sweep(flush)
    }
}

fn source_of(number: u64) -> Result<AllocationSource> {
    match number {
        allocation_source::PAGE => Ok(AllocationSource::Page),
        allocation_source::SLAB => Ok(AllocationSource::Slab),
        unknown => Err(Error::new(
            ErrorKind::Load,
            format!("the kernel half counted allocations of kind {unknown}; this is a defect"),
        )),
    }
}

/// Functions of stacks by the stacks' keys: what was found, and whether outer frames are missing.
type Found = (Arc<[Frame]>, bool);

/// Finds the names of functions on a thread of its own, to which the symbolizer is bound.
#[derive(Debug)]
struct Names {
    asks: Option<Sender<Vec<u64>>>,
    answers: Receiver<Vec<Frame>>,
    thread: Option<JoinHandle<()>>,
    known: HashMap<u64, Found>,
}

impl Names {
    fn start() -> Result<Self> {
        let (asks, asked) = channel::<Vec<u64>>();
        let (answer, answers) = channel();
        let thread = std::thread::Builder::new()
            .name("stockade-names".to_owned())
            .spawn(move || {
                let mut symbols = Symbols::default();
                // Reads the kernel's list of symbols, before anybody waits for it.
                symbols.kernel(&[0]);
                for stack in asked {
                    symbols.round();
                    if answer.send(symbols.kernel(&stack)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| {
                let message = format!("the thread that finds names cannot be started: {e}");
                Error::new(ErrorKind::Io, message)
            })?;
        Ok(Names {
            asks: Some(asks),
            answers,
            thread: Some(thread),
            known: HashMap::new(),
        })
    }

    /// The functions of a stack, innermost first; `stack` reads it where it is new. Nothing where it is not there.
    fn of(
        &mut self,
        key: u64,
        stack: impl FnOnce() -> Result<Option<SiteStack>>,
    ) -> Result<(Vec<Frame>, bool)> {
        if !self.known.contains_key(&key)
            && let Some(stack) = stack()?
        {
            let depth = usize::try_from(stack.depth).unwrap_or(0).min(SITE_DEPTH);
            let mut frames = self.find(stack.frames[..depth].to_vec())?;
            leave_out_ourselves(&mut frames);
            self.known.insert(key, (frames.into(), depth == SITE_DEPTH));
        }
        let known = self.known.get(&key);
        Ok(known.map_or((Vec::new(), false), |(frames, cut)| (frames.to_vec(), *cut)))
    }

    fn find(&self, stack: Vec<u64>) -> Result<Vec<Frame>> {
        let asked = self.asks.as_ref().and_then(|asks| asks.send(stack).ok());
        let answer = asked.and_then(|()| self.answers.recv().ok());
        answer.ok_or_else(|| {
            Error::new(
                ErrorKind::Load,
                "the thread that finds names has ended before its time; this is a defect",
            )
        })
    }

    /// Forgets the others.
    fn keep(&mut self, used: &HashSet<u64>) {
        self.known.retain(|key, _| used.contains(key));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // Whether it panicked was told when it was asked.
            let _ = thread.join();
        }
    }
}

/// The innermost functions are those that run our program.
fn leave_out_ourselves(kernel: &mut Vec<Frame>) {
    const OURS: [&str; 4] = ["bpf_", "__bpf_", "__traceiter_", "__probestub_"];
    let is_ours = |frame: &Frame| {
        let function = frame.function.as_deref().unwrap_or_default();
        OURS.iter().any(|prefix| function.starts_with(prefix))
    };
    // There may be one among them that has no such name.
    if let Some(last) = kernel.iter().take(8).rposition(is_ours) {
        kernel.drain(..=last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tgid: u64, stack: u64) -> SiteKey {
        let task = TaskKey { start_ns: 1, tgid };
        SiteKey {
            of: AllocationKey {
                task,
                source: allocation_source::SLAB,
            },
            stack,
        }
    }

    fn sum(allocations: u64, frees: u64) -> AllocationSum {
        AllocationSum {
            allocations,
            requested: 40 * allocations,
            bytes: 64 * allocations,
            frees,
            freed_requested: 40 * frees,
            freed_bytes: 64 * frees,
        }
    }

    #[test]
    fn outstanding_is_what_was_not_freed_and_growth_can_be_below_zero() {
        let site = Site::new(key(1, 1), &sum(5, 2), 256);
        assert_eq!(
            (site.allocations, site.bytes, site.requested),
            (3, 192, 120)
        );
        assert_eq!(site.growth, -64);
        // Read in the middle of a free.
        assert_eq!(Site::new(key(1, 1), &sum(1, 2), 0).bytes, 0);
    }

    #[test]
    fn the_largest_are_told_and_those_that_have_become_empty() {
        let full = (1..=30).map(|n| Site::new(key(n, n), &sum(n, 0), 0));
        let empty = (31..=33).map(|n| Site::new(key(n, n), &sum(n, n), 64 * n));
        let told = HashSet::from([key(32, 32), key(1, 1)]);
        let lines = largest(full.chain(empty).collect(), &told);
        let tgids: Vec<u64> = lines.iter().map(|site| site.key.of.task.tgid).collect();
        let expected: Vec<u64> = (11..=30).rev().chain([32]).collect();
        assert_eq!(tgids, expected);
        assert_eq!(lines[20].growth, -64 * 32);
    }

    #[test]
    fn a_call_site_begins_with_the_function_that_allocates() {
        let frame = |function: &str| Frame {
            function: Some(function.into()),
            ..Frame::new(1)
        };
        let mut kernel: Vec<Frame> = [
            "bpf_prog_55d0c0a12345_allocation_kmalloc__raw_tp",
            "bpf_trace_run6",
            "jump_label",
            "__traceiter_kmalloc",
            "__kmalloc",
            "alloc_pipe_info",
        ]
        .map(frame)
        .into();
        leave_out_ourselves(&mut kernel);
        assert_eq!(kernel.len(), 2, "{kernel:?}");
        assert_eq!(kernel[0].function.as_deref(), Some("__kmalloc"));
        leave_out_ourselves(&mut kernel);
        assert_eq!(kernel.len(), 2, "{kernel:?}");
    }
}
