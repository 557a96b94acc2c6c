//! Where processes spend their time: samples of what runs on each CPU, or the times that threads are off it.
//!
//! Everything behind the kernel's counters happens on two threads of its own. One hears what processes map, and opens the
//! files while they are there. The other empties the counters every second, which is why their maps can be small, and
//! finds names, which can take longer. A flush takes what is ready.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::summary::{Flush, Summary};
use super::{Filter, Form, Parts};
use crate::enrich::{Space, Spaces, Symbols};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Frame, Kind, Process, ProcessId, Profile, ProfileMode, text};
use crate::kernel::Program::Clock;
use crate::kernel::{
    Attached, Changes, LateCpus, Loader, MapSizes, Object, OwnTable, Probe, Variant, boot_ns,
    tracepoint,
};
use crate::wire::{
    Header, ProfileKey, ProfileSum, RawStack, STACK_DEPTH, TaskKey, process_of, read,
};

const SAMPLES: &[Probe] = &[Probe {
    name: "profile.sample",
    variants: &[Variant {
        name: "clock",
        programs: &[Clock("profile_sample__clock")],
        needs: &[],
        blind: None,
    }],
    without: "samples of what runs",
    excused_without: None,
}];
const WAITS: &[Probe] = &[tracepoint!(
    "profile.switch",
    "profile_switch",
    "threads that leave their CPU"
)];

/// How often the kernel's counters are emptied.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);
/// How often new address spaces are looked at: what is deleted sooner has no names.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A program that has read the old epoch is done by then.
const GRACE: Duration = Duration::from_millis(5);
/// Stacks that are kept; of those, the ones that were counted lately when there are too many.
const STACKS_KEPT: usize = 32_768;
const STACKS_KEPT_ROUNDS: u32 = 60;
/// Processes that are kept.
const WHO_KEPT: usize = 8192;

pub(super) fn parts(form: Form) -> Parts {
    let (mode, probes) = match form {
        Form::OffCpu => (ProfileMode::OffCpu, WAITS),
        _ => (ProfileMode::Cpu, SAMPLES),
    };
    Parts {
        summary: Some(Box::new(Profiles {
            mode,
            frequency: 0,
            worker: None,
            cpus: LateCpus::new(),
        })),
        ..Parts::events(Object::Profile, probes)
    }
}

/// Sizes of the maps: as many stacks as can be new between two looks. They are 1 KiB each.
pub(crate) fn map_sizes(filter: &Filter, cpus: u32) -> MapSizes {
    // One of the program and one of the kernel for each sample; every second, and that may come a little late.
    let stacks = filter.frequency.saturating_mul(cpus).saturating_mul(4);
    MapSizes::from([("stk_stacks", stacks.clamp(4096, 65_536))])
}

#[derive(Debug)]
struct Profiles {
    mode: ProfileMode,
    frequency: u32,
    worker: Option<Worker>,
    /// Looked at before anything is asked of each of them.
    cpus: LateCpus,
}

impl Summary for Profiles {
    fn start(&mut self, loader: &Loader, _: &[Attached]) -> Result<()> {
        self.frequency = loader.frequency();
        self.worker = Some(Worker::start(
            Drain::new(loader, self.mode)?,
            Changes::open()?,
            followed(loader),
            loader.self_tgid() == std::process::id(),
        )?);
        Ok(())
    }

    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        self.cpus.look();
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        if flush.is_last {
            worker.end();
        }
        let ready = std::mem::replace(&mut *lock(&worker.shared.ready), Ok(Ready::new()));
        for (key, found) in ready? {
            let mut profile = found.profile;
            profile.window_ns = flush.window_ns;
            if self.mode == ProfileMode::Cpu {
                // A frequency is at least 1.
                profile.time_ns =
                    profile.samples * 1_000_000_000 / u64::from(self.frequency.max(1));
            }
            let mut process = found
                .who
                .as_ref()
                .map_or_else(|| Process::own(id_of(key.task)), process_of);
            process.comm = name_of(&key.comm);
            tell(Event::new(flush.time_ns, process, Kind::Profile(profile)));
        }
        Ok(())
    }

    fn shortcomings(&self) -> Vec<String> {
        let late = self.cpus.late();
        let mut out: Vec<String> = late
            .map(|cpu| {
                format!(
                    "CPU {cpu} came online after the start: what ran there is not in the profile"
                )
            })
            .collect();
        let Some(worker) = &self.worker else {
            return out;
        };
        let maps = lock(&worker.shared.maps);
        if !maps.same_pids {
            out.push(
                "stockade is in a pid namespace of its own: functions of programs have no names"
                    .to_owned(),
            );
        }
        let lost = maps.spaces.lost();
        if lost > 0 {
            out.push(format!(
                "{lost} changes of address spaces were lost: some functions may have no name or a wrong one"
            ));
        }
        out
    }
}

fn id_of(task: TaskKey) -> ProcessId {
    ProcessId::new(task.start_ns, u32::try_from(task.tgid).unwrap_or(0))
}

fn name_of(comm: &[u8]) -> String {
    let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    text::escape(&comm[..end])
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere leaves plain data behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes that are followed by now; all that run, where the scope is not about processes.
fn followed(loader: &Loader) -> Vec<u32> {
    let keys = loader.map("stk_tasks").map(|map| map.keys());
    let followed: Vec<u32> = keys
        .into_iter()
        .flatten()
        .filter_map(|key| u32::try_from(read::<TaskKey>(&key)?.tgid).ok())
        .collect();
    if !followed.is_empty() {
        return followed;
    }
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What was found of one key.
#[derive(Debug)]
struct Found {
    who: Option<Header>,
    profile: Profile,
}

/// By keys whose epoch is left out.
type Counts = BTreeMap<ProfileKey, ProfileSum>;
type Ready = BTreeMap<ProfileKey, Found>;

#[derive(Debug)]
struct Shared {
    /// What a flush takes; or why there is nothing any more.
    ready: Mutex<Result<Ready>>,
    maps: Mutex<Maps>,
    ends: AtomicBool,
    wake: OwnedFd,
}

/// What is mapped where.
#[derive(Debug)]
struct Maps {
    /// Whether pids mean the same here and in the kernel. Otherwise /proc and perf events count processes as our
    /// namespace does, and the programs as the first one, and address spaces are left alone.
    same_pids: bool,
    changes: Changes,
    spaces: Spaces,
}

impl Maps {
    fn follow(&mut self) {
        let changes = self.changes.read(boot_ns());
        if self.same_pids {
            self.spaces.apply(changes);
        }
    }

    /// Where a process had a stack of these addresses.
    fn of(&mut self, task: TaskKey, stack: &[u64]) -> Arc<Space> {
        if self.same_pids {
            self.spaces.of(id_of(task), stack)
        } else {
            Arc::default()
        }
    }
}

/// The two threads.
#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    fn start(
        mut drain: Drain,
        changes: Changes,
        running: Vec<u32>,
        same_pids: bool,
    ) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let signs = changes.signs()?;
        let shared = Arc::new(Shared {
            ready: Mutex::new(Ok(Ready::new())),
            maps: Mutex::new(Maps {
                same_pids,
                changes,
                spaces: Spaces::default(),
            }),
            ends: AtomicBool::new(false),
            wake: wake.map_err(|e| {
                Error::new(ErrorKind::Io, "an event descriptor of the profile").with_source(e)
            })?,
        });
        let mut worker = Worker {
            shared,
            threads: Vec::new(),
        };
        worker.run("stockade-maps", move |shared| {
            hear(&running, &signs, shared)
        })?;
        worker.run("stockade-names", move |shared| work(&mut drain, shared))?;
        Ok(worker)
    }

    fn run(
        &mut self,
        name: &str,
        does: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let ours = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if let Err(e) = does(&ours) {
                    *lock(&ours.ready) = Err(e);
                }
            })
            .map_err(|e| {
                Error::new(
                    ErrorKind::Io,
                    format!("the thread {name} cannot be started: {e}"),
                )
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits until everything that was counted is ready.
    fn end(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        // They would wake by themselves a moment later.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                *lock(&self.shared.ready) = Err(Error::new(
                    ErrorKind::Load,
                    "a thread of the profile has ended before its time; this is a defect",
                ));
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for one of these descriptors, or so long.
fn wait<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>, at_most: Duration) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(at_most).ok();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => {
            Err(Error::new(ErrorKind::Io, "a thread of the profile cannot wait").with_source(e))
        }
    }
}

/// Follows address spaces until it is to end, first those of the processes that run already.
fn hear(running: &[u32], signs: &[OwnedFd], shared: &Shared) -> Result<()> {
    for pid in running {
        let maps = &mut *lock(&shared.maps);
        if maps.same_pids {
            maps.spaces.learn(*pid);
        }
    }
    while !shared.ends.load(Ordering::Acquire) {
        let wake = std::iter::once(shared.wake.as_fd());
        wait(signs.iter().map(OwnedFd::as_fd).chain(wake), LOOK_INTERVAL)?;
        lock(&shared.maps).follow();
    }
    Ok(())
}

/// Empties the counters and finds names until it is to end.
fn work(drain: &mut Drain, shared: &Shared) -> Result<()> {
    let mut symbols = Symbols::default();
    loop {
        wait(std::iter::once(shared.wake.as_fd()), DRAIN_INTERVAL)?;
        // Asked before, so that it is for the last time only when nothing is counted any more.
        let ends = shared.ends.load(Ordering::Acquire);
        let counts = drain.counts()?;
        lock(&shared.maps).follow();
        drain.name(counts, &mut symbols, shared);
        lock(&shared.maps).spaces.round();
        symbols.round();
        if ends {
            return Ok(());
        }
    }
}

#[derive(Debug)]
struct Stack {
    frames: Box<[u64]>,
    /// The last round in which it was counted.
    round: u32,
}

/// Empties the kernel's counters.
#[derive(Debug)]
struct Drain {
    mode: ProfileMode,
    /// Of this many frames the kernel may have had more.
    depth: usize,
    sums: OwnTable,
    stacks: OwnTable,
    who: OwnTable,
    epoch: OwnTable,
    /// The present epoch, and how often this was done.
    round: u32,
    known_stacks: HashMap<u64, Stack>,
    known_who: HashMap<TaskKey, Header>,
}

impl Drain {
    fn new(loader: &Loader, mode: ProfileMode) -> Result<Self> {
        Ok(Drain {
            mode,
            depth: unwound(),
            sums: loader.own_map("stk_prof_sums")?,
            stacks: loader.own_map("stk_stacks")?,
            who: loader.own_map("stk_prof_who")?,
            epoch: loader.own_map("stk_epoch")?,
            round: 0,
            known_stacks: HashMap::new(),
            known_who: HashMap::new(),
        })
    }

    /// Begins a new epoch, takes what was counted in those before, and learns the stacks and processes it is about.
    fn counts(&mut self) -> Result<Counts> {
        self.round = self.round.wrapping_add(1);
        self.epoch.set(
            &0u32.to_ne_bytes(),
            &self.round.to_ne_bytes(),
            "beginning an epoch of the profile",
        )?;
        std::thread::sleep(GRACE);
        let mut counts = Counts::new();
        for (bytes, value) in self
            .sums
            .take(|key| read::<ProfileKey>(key).is_some_and(|key| key.epoch != self.round))?
        {
            let (Some(key), Some(sum)) = (read::<ProfileKey>(&bytes), read::<ProfileSum>(&value))
            else {
                continue;
            };
            let all = counts
                .entry(ProfileKey { epoch: 0, ..key })
                .or_insert(ProfileSum {
                    count: 0,
                    time_ns: 0,
                });
            all.count += sum.count;
            all.time_ns += sum.time_ns;
        }
        self.learn_stacks(&counts)?;
        for (key, value) in self.who.take(|_| true)? {
            if let (Some(task), Some(header)) = (read(&key), read(&value)) {
                self.known_who.insert(task, header);
            }
        }
        if self.known_who.len() > WHO_KEPT {
            let counted: HashSet<TaskKey> = counts.keys().map(|key| key.task).collect();
            self.known_who.retain(|task, _| counted.contains(task));
        }
        Ok(counts)
    }

    /// Copies new stacks, and makes room for more by removing those that are not being counted. A stack that is counted
    /// after it was removed is put there again.
    fn learn_stacks(&mut self, counts: &Counts) -> Result<()> {
        let counted: HashSet<u64> = counts.keys().flat_map(|k| [k.user, k.kernel]).collect();
        let known = &mut self.known_stacks;
        let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from_ne_bytes(*b));
        let mut idle = Vec::new();
        for bytes in self.stacks.keys() {
            let Some(key) = number(&bytes) else {
                continue;
            };
            if let std::collections::hash_map::Entry::Vacant(entry) = known.entry(key) {
                let value = self.stacks.get(&bytes)?;
                if let Some(stack) = value.as_deref().and_then(read::<RawStack>) {
                    let depth = usize::try_from(stack.depth).unwrap_or(0).min(STACK_DEPTH);
                    entry.insert(Stack {
                        frames: stack.frames[..depth].into(),
                        round: self.round,
                    });
                }
            }
            if !counted.contains(&key) {
                idle.push(bytes);
            }
        }
        self.stacks.remove(&idle)?;
        for key in counted {
            if let Some(stack) = known.get_mut(&key) {
                stack.round = self.round;
            }
        }
        if known.len() > STACKS_KEPT {
            let round = self.round;
            known.retain(|_, s| round.wrapping_sub(s.round) < STACKS_KEPT_ROUNDS);
        }
        Ok(())
    }

    /// Adds counts to what is ready. Names are found without the lock: whoever delivers events must not wait while files
    /// are read.
    fn name(&self, counts: Counts, symbols: &mut Symbols, shared: &Shared) {
        let new: Vec<ProfileKey> = match &*lock(&shared.ready) {
            Ok(ready) => counts
                .keys()
                .filter(|k| !ready.contains_key(k))
                .copied()
                .collect(),
            Err(_) => return,
        };
        let mut found: HashMap<ProfileKey, Found> = new
            .into_iter()
            .map(|key| (key, self.found(&key, symbols, shared)))
            .collect();
        let Ok(ready) = &mut *lock(&shared.ready) else {
            return;
        };
        for (key, sum) in counts {
            // What a flush took meanwhile has to be there again; its names are known by now.
            let entry = ready.entry(key).or_insert_with(|| {
                let known = found.remove(&key);
                known.unwrap_or_else(|| self.found(&key, symbols, shared))
            });
            entry.profile.samples += sum.count;
            entry.profile.time_ns += sum.time_ns;
        }
    }

    fn found(&self, key: &ProfileKey, symbols: &mut Symbols, shared: &Shared) -> Found {
        let stack = |key| self.known_stacks.get(&key).map_or(&[][..], |s| &s.frames);
        let (user, kernel) = (stack(key.user), stack(key.kernel));
        let space = lock(&shared.maps).of(key.task, user);
        let mut profile = Profile {
            mode: self.mode,
            samples: 0,
            time_ns: 0,
            preempted: key.preempted != 0,
            user: symbols.user(user, &space),
            kernel: symbols.kernel(kernel),
            truncated: user.len() >= self.depth || kernel.len() >= self.depth,
            window_ns: 0,
        };
        if self.mode == ProfileMode::OffCpu {
            leave_out_ourselves(&mut profile.kernel);
        }
        Found {
            who: self.known_who.get(&key.task).copied(),
            profile,
        }
    }
}

/// Where a thread leaves its CPU, the kernel's innermost functions are those that run our program.
fn leave_out_ourselves(kernel: &mut Vec<Frame>) {
    let is_schedule = |frame: &Frame| frame.function.as_deref() == Some("__schedule");
    if let Some(at) = kernel.iter().position(is_schedule) {
        kernel.drain(..at);
    }
}

/// How many frames the kernel unwinds.
fn unwound() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_stack").ok();
    let limit = limit.and_then(|text| text.trim().parse().ok());
    limit.map_or(STACK_DEPTH, |limit: usize| limit.min(STACK_DEPTH))
}
