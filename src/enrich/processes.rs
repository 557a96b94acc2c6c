//! What is known of the processes that events come from, beyond what each event says itself.
//!
//! A process that runs already is looked up in /proc when it is first met; from then on its forks and execs tell, so
//! that a process which is gone when its events are read still has its executable.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::cgroups::Cgroups;
use super::mounts::{self, MountTable};
use super::stat::{Stat, TICK_NS};
use super::users::Names;
use crate::delivery::Surroundings;
use crate::event::{About, Ancestor, Event, Kind, Process, ProcessId, text};

/// More ancestors are not told.
const DEEP: usize = 64;

/// Beyond so many, those that have ended are forgotten at once and not at the next round.
pub(crate) const MANY: usize = 8192;

#[derive(Debug)]
struct Entry {
    executable: Option<Arc<str>>,
    /// Who has forked it, once that is known.
    parent: Option<ProcessId>,
    /// As they were at this version of what is known.
    ancestors: Option<(u64, Arc<[Ancestor]>)>,
    /// For these user, group and cgroup.
    about: Option<(u32, u32, u64, Arc<About>)>,
}

/// A process under a user, a group and a cgroup.
type Who = (ProcessId, u32, u32, u64);

fn who(process: &Process) -> Who {
    (process.id, process.uid, process.gid, process.cgroup_id)
}

/// The processes that were met.
#[derive(Debug)]
pub(crate) struct Processes {
    known: HashMap<ProcessId, Entry>,
    /// Grows when one of them has another executable than before.
    version: u64,
    /// Who the last event came from: most come from the same one, and need no search.
    last: Option<(Who, Arc<About>)>,
    cgroups: Cgroups,
    names: Names,
    mounts: MountTable,
}

impl Processes {
    pub(crate) fn new() -> Self {
        Processes {
            known: HashMap::new(),
            version: 0,
            last: None,
            cgroups: Cgroups::new(),
            names: Names::read(),
            mounts: MountTable::default(),
        }
    }

    /// Learns from an event.
    fn learn(&mut self, event: &Event) {
        match &event.kind {
            Kind::Exec(exec) => {
                self.last = None;
                self.executes(event.process.id, &exec.executable.path);
            }
            Kind::Fork(fork) => {
                let executable = self.entry(event.process.id).executable.clone();
                let entry = Entry {
                    executable,
                    parent: Some(event.process.id),
                    ancestors: None,
                    about: None,
                };
                self.known.insert(fork.child, entry);
            }
            _ => {}
        }
    }

    fn executes(&mut self, id: ProcessId, path: &str) {
        let known = self.known.get(&id).and_then(|e| e.executable.as_deref());
        if known != Some(path) {
            let parent = self.known.get(&id).and_then(|e| e.parent);
            let entry = Entry {
                executable: Some(Arc::from(path)),
                parent,
                ancestors: None,
                about: None,
            };
            self.known.insert(id, entry);
            self.version += 1;
        }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets those that had ended: all but these and what started later.
    pub(crate) fn keep(&mut self, alive: &HashSet<ProcessId>, at_ns: u64) {
        self.known
            .retain(|id, _| alive.contains(id) || id.start_ns >= at_ns);
    }

    fn entry(&mut self, id: ProcessId) -> &mut Entry {
        self.known.entry(id).or_insert_with(|| Entry {
            executable: executable_of(id),
            parent: None,
            ancestors: None,
            about: None,
        })
    }

    /// Who has forked a process. Those that nobody has told of are asked for in /proc, where they may have been handed on.
    fn parent_of(&mut self, id: ProcessId) -> Option<ProcessId> {
        let entry = self.entry(id);
        if entry.parent.is_none() {
            entry.parent = parent_in_proc(id);
        }
        entry.parent
    }

    fn about_process(&mut self, process: &Process) -> Arc<About> {
        let of = (process.uid, process.gid, process.cgroup_id);
        let entry = self.entry(process.id);
        if let Some((uid, gid, cgroup, about)) = &entry.about
            && (*uid, *gid, *cgroup) == of
        {
            return Arc::clone(about);
        }
        let executable = entry.executable.clone();
        let cgroup = self.cgroups.get(process.cgroup_id);
        let about = Arc::new(About {
            executable,
            user: self.names.user(process.uid).map(str::to_owned),
            group: self.names.group(process.gid).map(str::to_owned),
            cgroup: cgroup.as_ref().map(|c| c.path.clone()),
            container: cgroup.as_ref().and_then(|c| c.container.clone()),
            unit: cgroup.as_ref().and_then(|c| c.unit.clone()),
        });
        self.entry(process.id).about = Some((of.0, of.1, of.2, Arc::clone(&about)));
        about
    }
}

impl Surroundings for Processes {
    fn about(&mut self, event: &Event) -> Option<Arc<About>> {
        // Ours, and about nobody.
        if event.kind.is_remark() {
            return None;
        }
        self.learn(event);
        let who = who(&event.process);
        if let Some((last, about)) = &self.last
            && *last == who
        {
            return Some(Arc::clone(about));
        }
        let about = self.about_process(&event.process);
        self.last = Some((who, Arc::clone(&about)));
        Some(about)
    }

    fn ancestors(&mut self, process: &Process) -> Arc<[Ancestor]> {
        let version = self.version;
        if let Some((of, ancestors)) = &self.entry(process.id).ancestors
            && *of == version
        {
            return Arc::clone(ancestors);
        }
        let mut all = Vec::new();
        let mut next = Some(process.parent);
        while let Some(id) = next.filter(|id| id.pid != 0 && all.len() < DEEP) {
            let executable = self.entry(id).executable.clone();
            let pid = id.pid;
            all.push(Ancestor { pid, executable });
            next = self.parent_of(id);
        }
        let ancestors: Arc<[Ancestor]> = all.into();
        self.entry(process.id).ancestors = Some((version, Arc::clone(&ancestors)));
        ancestors
    }

    fn host_path(&mut self, device: (u32, u32), path: &str) -> Option<String> {
        mounts::host_path(self.mounts.now(), device, path)
    }
}

/// From /proc, if the process that has this pid there is the one that is meant.
fn executable_of(id: ProcessId) -> Option<Arc<str>> {
    if !runs(id) {
        return None;
    }
    let path = std::fs::read_link(format!("/proc/{}/exe", id.pid)).ok()?;
    Some(Arc::from(
        text::escape(path.as_os_str().as_bytes()).as_str(),
    ))
}

/// The same of its parent, with a start that is as exact as /proc has it.
fn parent_in_proc(id: ProcessId) -> Option<ProcessId> {
    let stat = |pid| std::fs::read(format!("/proc/{pid}/stat")).ok();
    let own = Stat::parse(&stat(id.pid)?)?;
    if own.start_ticks != id.start_ns / TICK_NS {
        return None;
    }
    let parent = Stat::parse(&stat(own.parent)?)?;
    Some(ProcessId::new(parent.start_ticks * TICK_NS, own.parent))
}

/// Whether the process that has this pid in /proc is the one that is meant.
pub(super) fn runs(id: ProcessId) -> bool {
    let stat = std::fs::read(format!("/proc/{}/stat", id.pid)).ok();
    stat.and_then(|stat| Stat::parse(&stat))
        .is_some_and(|stat| stat.start_ticks == id.start_ns / TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn executable_is_handed_down_by_forks_and_replaced_by_execs() {
        let mut processes = Processes::new();
        let mut executables = Vec::new();
        let mut child = None;
        for mut event in sample::samples() {
            if let Some(child) = child {
                event.process.id = child;
            }
            event.process.about = processes.about(&event);
            if let Kind::Fork(fork) = &event.kind {
                child = Some(fork.child);
            }
            let about = event.process.about;
            executables.push(about.and_then(|a| a.executable.as_deref().map(str::to_owned)));
        }
        assert_eq!(executables[0].as_deref(), Some("/usr/bin/dash"));
        processes.keep(&HashSet::new(), u64::MAX);
        assert_eq!(processes.len(), 0);
    }
}
