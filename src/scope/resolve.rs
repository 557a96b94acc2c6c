//! From a scope to what the kernel half compares: task keys, cgroup descriptors, user ids, names.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Scope;
use crate::enrich::{ancestry, ids, unified};
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Asker, Loader, OwnTable, Probe, Seed, tracepoint};
use crate::wire::{
    CGROUPS_MAX, MARKS, TASK_ENDED, TASK_FOLLOW, TaskEntry, TaskKey, bytes_of, read, scope_bit,
};

/// A scope whose processes and cgroups exist.
#[derive(Debug)]
pub(crate) struct Resolved {
    scope: Scope,
    cgroups: Vec<OwnedFd>,
}

/// What the constants of the kernel half need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    pub(crate) bits: u32,
    pub(crate) cgroups: u32,
}

/// What keeps the set of followed processes: both, or children would escape and the set would fill up.
pub(crate) const FOLLOW: &[Probe] = &[
    tracepoint!(
        "scope.fork",
        "scope_fork",
        "children of followed processes",
        "wake_up_new_task"
    ),
    tracepoint!(
        "scope.exit",
        "scope_exit",
        "ends of followed processes",
        "exit_files"
    ),
    tracepoint!("scope.free", "scope_free", "ends of followed processes"),
];

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;

impl Resolved {
    /// Checks that everything named exists. Changes nothing.
    pub(crate) fn new(scope: Scope, asker: &Asker) -> Result<Self> {
        if scope.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "nobody is in scope").with_hint(
                "name a process (--tree PID, --pid PID), a cgroup (--cgroup PATH), a user (--uid) or the whole machine (--host)",
            ));
        }
        if scope.cgroups.len() > CGROUPS_MAX {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "{} cgroups are named, and at most {CGROUPS_MAX} can be",
                    scope.cgroups.len()
                ),
            )
            .with_hint("name a cgroup above them: its descendants are included"));
        }
        let cgroups = scope
            .cgroups
            .iter()
            .map(|path| open_cgroup(path))
            .collect::<Result<Vec<_>>>()?;
        if !scope.pids.is_empty() || !scope.trees.is_empty() {
            let running = asker.processes()?;
            for &pid in scope.pids.iter().chain(&scope.trees) {
                find(&running, pid)?;
            }
        }
        Ok(Resolved { scope, cgroups })
    }

    pub(crate) fn selection(&self) -> Selection {
        let mut bits = 0;
        if self.scope.whole_host() {
            bits |= scope_bit::HOST;
        }
        if self.follows_tasks() {
            bits |= scope_bit::TASKS;
        }
        if !self.cgroups.is_empty() {
            bits |= scope_bit::CGROUPS;
        }
        if !self.scope.uids.is_empty() {
            bits |= scope_bit::UIDS;
        }
        if !self.scope.comms.is_empty() {
            bits |= scope_bit::COMMS;
        }
        Selection {
            bits,
            // At most CGROUPS_MAX, checked in `new`.
            cgroups: u32::try_from(self.cgroups.len()).unwrap_or(0),
        }
    }

    /// Whether the set of followed processes is in use.
    pub(crate) fn follows_tasks(&self) -> bool {
        self.scope.grows || !self.scope.pids.is_empty() || !self.scope.trees.is_empty()
    }

    /// Takes the members of this scope out of the set. Trees from the top: who is still in while its parent is out is
    /// found by the next look.
    pub(crate) fn unseed(&self, loader: &Loader, asker: &Asker) -> Result<()> {
        let mut gone: HashSet<TaskKey> = HashSet::new();
        loop {
            let members = self.members(&asker.processes()?)?;
            let new: Vec<TaskKey> = members
                .iter()
                .map(|(seed, _)| TaskKey::of(seed))
                .filter(|key| gone.insert(*key))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            let keys: Vec<Vec<u8>> = new.iter().map(|key| bytes_of(key).to_vec()).collect();
            loader.map("stk_tasks")?.remove(&keys)?;
        }
    }

    /// Init, and the processes that this one hangs below, as far as they are members.
    pub(crate) fn operators(&self, asker: &Asker) -> Result<Vec<u32>> {
        let running = asker.processes()?;
        let members = self.members(&running)?;
        let members: HashSet<TaskKey> = members.iter().map(|(seed, _)| TaskKey::of(seed)).collect();
        let mut pids = ancestry().split_off(1);
        if !pids.contains(&1) {
            pids.push(1);
        }
        let is_held = |pid: &u32| {
            let mut running = running.iter();
            let seed = running.find(|seed| seed.ns_tgid == *pid);
            seed.is_some_and(|seed| self.holds(seed, &members))
        };
        pids.retain(is_held);
        Ok(pids)
    }

    /// Whether a process that runs is in scope now.
    fn holds(&self, seed: &Seed, members: &HashSet<TaskKey>) -> bool {
        let pid = seed.ns_tgid;
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let named = self.scope.whole_host()
            || members.contains(&TaskKey::of(seed))
            || (!self.cgroups.is_empty() && self.is_above(&read("cgroup")));
        let of_user = || {
            let status = read("status");
            let [real, _] = ids(&status, "Uid:");
            real.is_some_and(|uid| self.scope.uids.contains(&uid))
        };
        let of_name = || {
            let comm = read("comm");
            let comms = self.scope.comms.iter();
            comms
                .map(|name| cut(name))
                .any(|name| name == comm.strip_suffix(b"\n").unwrap_or(&comm))
        };
        named
            && (self.scope.uids.is_empty() || of_user())
            && (self.scope.comms.is_empty() || of_name())
    }

    /// Whether what /proc/PID/cgroup names is one of the cgroups, or below one.
    fn is_above(&self, cgroups: &[u8]) -> bool {
        let own = unified(cgroups).and_then(|path| path.strip_prefix(b"/"));
        let (Some(own), Some(mount)) = (own, crate::enrich::mounts::cgroup2()) else {
            return false;
        };
        let same = |path: &Path| {
            let there = rustix::fs::stat(path).map(|stat| stat.st_ino);
            let mut ours = self
                .cgroups
                .iter()
                .map(|fd| rustix::fs::fstat(fd).map(|stat| stat.st_ino));
            there.is_ok() && ours.any(|id| id == there)
        };
        let place = mount.join(OsStr::from_bytes(own));
        place
            .ancestors()
            .take_while(|path| path.starts_with(&mount))
            .any(same)
    }

    pub(crate) fn uids(&self) -> usize {
        self.scope.uids.len()
    }

    pub(crate) fn comms(&self) -> usize {
        self.scope.comms.len()
    }

    /// Writes cgroups, user ids and names into their maps.
    pub(crate) fn fill(&self, loader: &Loader) -> Result<()> {
        for (index, fd) in (0u32..).zip(&self.cgroups) {
            loader.map("stk_cgroups")?.set(
                &index.to_ne_bytes(),
                &fd.as_raw_fd().to_ne_bytes(),
                format_args!("cgroup {}", self.scope.cgroups[index as usize].display()),
            )?;
        }
        // For monitors that look at others than the current task; where there are none, the map is not loaded.
        if let Ok(ids) = loader.map("stk_cgroup_ids") {
            for fd in &self.cgroups {
                let id = rustix::fs::fstat(fd)
                    .map_err(|e| Error::new(ErrorKind::Io, "the id of a cgroup").with_source(e))?;
                ids.set(&id.st_ino.to_ne_bytes(), &[1], "the id of a cgroup")?;
            }
        }
        for uid in &self.scope.uids {
            loader
                .map("stk_uids")?
                .set(&uid.to_ne_bytes(), &[1], format_args!("user {uid}"))?;
        }
        for comm in &self.scope.comms {
            let mut key = [0u8; 16];
            let name = cut(comm);
            key[..name.len()].copy_from_slice(name);
            loader
                .map("stk_comms")?
                .set(&key, &[1], format_args!("name {comm}"))?;
        }
        Ok(())
    }

    /// Enters the processes that already run. To be called when children are being followed: what a member starts
    /// between two looks is found by the next one, and the last look finds nothing new.
    pub(crate) fn seed(&self, loader: &Loader, asker: &Asker) -> Result<()> {
        if !self.follows_tasks() {
            return Ok(());
        }
        let mut members: HashSet<(u64, u32)> = HashSet::new();
        loop {
            let running = asker.processes()?;
            let found = self.members(&running)?;
            let new: Vec<_> = found
                .into_iter()
                .filter(|(seed, _)| members.insert((seed.start_ns, seed.tgid)))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for (seed, flags) in new {
                follow(loader, &TaskKey::of(&seed), TaskEntry { flags, pad: 0 })?;
            }
        }
    }

    /// Enters the processes that a former fence follows, which has to go on with it until this returns: what they start
    /// meanwhile is in its set, or in ours.
    pub(crate) fn take_over(
        &self,
        former: &OwnTable,
        loader: &Loader,
        asker: &Asker,
    ) -> Result<()> {
        let (_, key_bytes, entry_bytes) = former.shape();
        if (key_bytes as usize, entry_bytes as usize)
            != (size_of::<TaskKey>(), size_of::<TaskEntry>())
        {
            return Err(Error::new(
                ErrorKind::NotEnforced,
                "the fence that was left follows processes in another way, as of another version of stockade",
            )
            .with_hint("take it down: stockade unpin"));
        }
        let ours = loader.map("stk_tasks")?;
        let mut taken: HashSet<TaskKey> = HashSet::new();
        loop {
            let followed = former.entries()?;
            // Behind that: who is born and entered in between would look dead.
            let alive = asker.alive()?;
            let before = taken.len();
            for (key, entry) in followed {
                let (Some(key), Some(entry)) = (read::<TaskKey>(&key), read::<TaskEntry>(&entry))
                else {
                    continue;
                };
                let runs = entry.flags & TASK_ENDED == 0 && alive.contains(&key);
                if runs && taken.insert(key) && ours.get(bytes_of(&key))?.is_none() {
                    follow(loader, &key, entry)?;
                }
            }
            if taken.len() == before {
                return Ok(());
            }
        }
    }

    fn members(&self, running: &[Seed]) -> Result<Vec<(Seed, u32)>> {
        let mut out: Vec<(Seed, u32)> = Vec::new();
        let mut children: HashMap<(u64, u32), Vec<&Seed>> = HashMap::new();
        for seed in running {
            children
                .entry((seed.parent_start_ns, seed.ppid))
                .or_default()
                .push(seed);
        }
        let mut todo: Vec<&Seed> = Vec::new();
        for &pid in &self.scope.trees {
            todo.push(find(running, pid)?);
        }
        let mut seen = HashSet::new();
        let own = std::process::id();
        while let Some(seed) = todo.pop() {
            // Ourselves and what hangs below us are no part of somebody's tree.
            if seed.ns_tgid == own || !seen.insert((seed.start_ns, seed.tgid)) {
                continue;
            }
            out.push((*seed, TASK_FOLLOW));
            todo.extend(
                children
                    .get(&(seed.start_ns, seed.tgid))
                    .into_iter()
                    .flatten()
                    .copied(),
            );
        }
        // Behind the trees: who is in one stays followed.
        for &pid in &self.scope.pids {
            out.push((*find(running, pid)?, 0));
        }
        Ok(out)
    }
}

/// Enters a process into the set.
fn follow(loader: &Loader, key: &TaskKey, entry: TaskEntry) -> Result<()> {
    let what = format_args!("process {}", key.tgid);
    // Without a mark nobody looks for it.
    let mark = u32::try_from(key.tgid).unwrap_or(0) % MARKS;
    let marks = loader.map("stk_marks")?;
    marks.set(&mark.to_ne_bytes(), &[1], what)?;
    let tasks = loader.map("stk_tasks")?;
    tasks.set(bytes_of(key), bytes_of(&entry), what)
}

/// A name as the kernel has it: 15 bytes and a NUL.
fn cut(comm: &str) -> &[u8] {
    &comm.as_bytes()[..comm.len().min(15)]
}

fn find(running: &[Seed], pid: u32) -> Result<&Seed> {
    running
        .iter()
        .find(|s| s.ns_tgid == pid && pid != 0)
        .ok_or_else(|| no_process(pid))
}

pub(crate) fn no_process(pid: u32) -> Error {
    Error::new(ErrorKind::Scope, format!("there is no process {pid}"))
        .with_hint("name a process that runs, by its process id and not by a thread's")
}

/// Opens the directory of a cgroup (v2) that a user names.
pub(crate) fn open_cgroup(path: &Path) -> Result<OwnedFd> {
    let unresolved = |why: String| {
        Error::new(ErrorKind::Scope, format!("cgroup {} cannot be resolved: {why}", path.display())).with_hint(
            "name a directory of the cgroup v2 tree, such as /system.slice/ssh.service; 'stockade doctor' shows where it is mounted",
        )
    };
    let mut candidates = Vec::new();
    if path.is_absolute() && path.exists() {
        candidates.push(path.to_owned());
    }
    if let Some(mount) = crate::enrich::mounts::cgroup2() {
        candidates.push(mount.join(path.strip_prefix("/").unwrap_or(path)));
    } else if candidates.is_empty() {
        return Err(unresolved("no cgroup2 file system is mounted".into()));
    }
    let mut why = String::new();
    for candidate in candidates {
        match rustix::fs::open(
            &candidate,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(fd) => match rustix::fs::fstatfs(&fd) {
                // The field's type differs between architectures; the magic fits in all.
                Ok(fs) if fs.f_type as u32 == CGROUP2_SUPER_MAGIC => return Ok(fd),
                Ok(_) => why = format!("{} is not on a cgroup2 file system", candidate.display()),
                Err(e) => why = format!("{}: {e}", candidate.display()),
            },
            Err(e) => why = format!("{}: {e}", candidate.display()),
        }
    }
    Err(unresolved(why))
}

/// Upper bound of the processes this machine can hold at once, so that the set of followed ones cannot fill up.
pub(crate) fn max_processes() -> u32 {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|t| t.trim().parse::<u32>().ok())
    };
    let pid_max = read("/proc/sys/kernel/pid_max").unwrap_or(32_768);
    let threads_max = read("/proc/sys/kernel/threads-max").unwrap_or(pid_max);
    // Those that have ended stay until their task_struct is freed, a moment later: a quarter more.
    let bound = pid_max.min(threads_max);
    bound.saturating_add(bound / 4).max(1024)
}
