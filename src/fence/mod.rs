//! Making a policy so: identities are asked of the kernel, tables filled, the fence armed and proved.
//!
//! Invariant: nothing is armed before everything is known and in place; then one write puts it in force, and an access
//! of our own must be refused before anybody is told that the fence stands. Another policy takes the place of one that is
//! armed in the same way, and that one stays where anything fails.

mod calls;
mod canary;
mod contacts;
mod guard;
mod hooks;
mod hosts;
mod identity;
mod limits;
mod lockout;
mod pins;
mod places;
mod plan;
pub(crate) mod record;
mod subjects;
mod tables;
mod written;

use std::collections::HashSet;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::event::mechanism::{SECCOMP, TRACEPOINT};
use crate::kernel::seccomp::Filter;
use crate::kernel::{
    Asker, Attachments, Loader, Object, Probe, ProbeReport, Records, Rings, wait_for_programs,
};
use crate::policy::Thing;
use crate::resolver::Resolved;
use crate::wire::{FileKey, scope_bit};

pub(crate) use calls::CallsBy;
pub(crate) use canary::is_canary;
use canary::{CallCanary, Canaries, Proof};
use pins::Pins;
pub(crate) use pins::{Former, Place, lost, says_armed};
pub(crate) use plan::Plan;
use record::{Beat, Published, Record};
use tables::{Entries, Tables};

/// How the kernel is made to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// BPF LSM programs.
    Lsm,
    /// fmod_ret programs on the security_* functions: works where `bpf` is not in `lsm=`, without inode tags.
    FmodRet,
}

/// Tries whether seccomp refuses a call of a thread of ours.
///
/// # Errors
///
/// [`ErrorKind::NotEnforced`] when it does not, with the reason.
pub(crate) fn try_seccomp() -> Result<()> {
    use canary::Proves as _;
    let canary = CallCanary::new(random()?);
    canary.reachable()?;
    let open = |why: String| Err(Error::new(ErrorKind::NotEnforced, why));
    match canary.access() {
        Err(rustix::io::Errno::PERM) => Ok(()),
        Err(e) => open(format!("seccomp cannot be used: {e}")),
        Ok(()) => open("seccomp took a filter and let a call through".to_owned()),
    }
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Lsm => "lsm",
            Mechanism::FmodRet => "fmod_ret",
        }
    }

    /// The objects of the fence and what they attach: that for files, that for the network, that for limits, that for the
    /// fence itself, that which notes the files that are written, and that which keeps programs apart.
    pub(crate) fn parts(self) -> [(Object, &'static [Probe]); 6] {
        let (files, network, limits, guard, written, subject) = match self {
            Mechanism::Lsm => (
                hooks::LSM,
                hooks::NETWORK_LSM,
                hooks::LIMITS_LSM,
                hooks::GUARD_LSM,
                hooks::WRITTEN_LSM,
                hooks::SUBJECT_LSM,
            ),
            Mechanism::FmodRet => (
                hooks::FMOD_RET,
                hooks::NETWORK_FMOD_RET,
                hooks::LIMITS_FMOD_RET,
                hooks::GUARD_FMOD_RET,
                hooks::WRITTEN_FMOD_RET,
                hooks::SUBJECT_FMOD_RET,
            ),
        };
        [
            (Object::Fence, files),
            (Object::FenceNetwork, network),
            (Object::FenceLimit, limits),
            (Object::FenceGuard, guard),
            (Object::FenceWritten, written),
            (Object::FenceSubject, subject),
        ]
    }
}

/// What tells and counts, and refuses nothing.
pub(crate) const TRACING: [(Object, &[Probe]); 4] = [
    (Object::FenceSyscall, hooks::CALLS_AND_AUDIT),
    (Object::FenceLimit, hooks::LIMITED_CALLS),
    (Object::FenceLimit, hooks::PURSES),
    (Object::FenceHost, hooks::HOSTS),
];

/// Whether inode tags may be used: only where the list of security modules says so.
pub(crate) fn has_tags(modules: Option<&str>) -> bool {
    modules.is_some_and(|list| list.split(',').any(|m| m == "bpf"))
}

/// What a policy is about, in numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// Accesses of our own that were refused.
    pub(crate) proofs: u32,
    /// Files, and directories whose contents are meant.
    pub(crate) files: u32,
    pub(crate) addresses: u32,
    pub(crate) syscalls: u32,
    pub(crate) limits: u32,
    guards_files: bool,
    guards_network: bool,
    limits_forks: bool,
    limits_network: bool,
    limits_calls: bool,
    /// Of its rules about system calls: nothing refuses them.
    pub(crate) traces_calls: bool,
    guards_itself: bool,
    notes_written: bool,
    keeps_apart: bool,
    knows_hosts: bool,
}

impl About {
    fn new(plan: &Plan) -> Self {
        let counts = |thing| plan.limits.counts(thing);
        About {
            proofs: 0,
            files: plan.files,
            addresses: plan.contacts.addresses,
            syscalls: plan.calls.named,
            guards_files: plan.guards_files,
            guards_network: !plan.contacts.is_empty(),
            limits: plan.limits.count(),
            limits_forks: counts(Thing::Forks) || counts(Thing::Threads),
            limits_network: counts(Thing::Connections) || counts(Thing::Bytes),
            limits_calls: plan.limits.counts_calls(),
            traces_calls: plan.calls.are_traced(),
            guards_itself: plan.guards_itself,
            notes_written: plan.asks_what_was_written(),
            keeps_apart: plan.keeps_apart,
            knows_hosts: plan.contacts.hosts().len() > 0,
        }
    }

    /// What is to be proved of this and was not of another one.
    fn beyond(self, other: &About) -> Self {
        About {
            syscalls: if other.syscalls > 0 { 0 } else { self.syscalls },
            guards_files: self.guards_files && !other.guards_files,
            guards_network: self.guards_network && !other.guards_network,
            limits_forks: self.limits_forks && !other.limits_forks,
            limits_network: self.limits_network && !other.limits_network,
            limits_calls: self.limits_calls && !other.limits_calls,
            guards_itself: self.guards_itself && !other.guards_itself,
            notes_written: self.notes_written && !other.notes_written,
            keeps_apart: self.keeps_apart && !other.keeps_apart,
            ..self
        }
    }
}

/// A policy that is armed and proved. Dropping it takes the fence down.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) attached: Attachments,
    /// Unlike the programs, what they are told is over at once.
    tables: Tables,
    pub(crate) reports: Vec<ProbeReport>,
    mechanism: Mechanism,
    /// Hooks that are attached, or that this kernel can do without.
    hooked: HashSet<&'static str>,
    tags: bool,
    pub(crate) about: About,
    /// What the command gets that is started; gone once it has been taken.
    pub(crate) filter: Option<Filter>,
    /// Files that would lose their tag with their inode and have no key to get it back by.
    held: Vec<OwnedFd>,
    canaries: Canaries,
    /// Programs may still look at the half that is not in force.
    unsettled: bool,
    /// What others can read of it.
    published: Option<Published>,
    /// The names that it has, once it outlives this program.
    pins: Option<Pins>,
}

impl Fence {
    /// Attaches the hooks, fills the tables, puts them in force and proves that an access is refused; by LSM, else by the
    /// twins, else not at all. `modules` are the security modules, as far as anybody can say; `scope` enters who is fenced
    /// once the maps are there; `seen` gets what else came.
    pub(crate) fn arm(
        plan: Plan,
        room: Entries,
        modules: Option<&str>,
        asker: &Asker,
        loader: &mut Loader,
        scope: impl Fn(&Loader) -> Result<()>,
        seen: &mut Records,
    ) -> Result<(Fence, Rings)> {
        let mut tried: Vec<String> = Vec::new();
        let canaries = Canaries::new(asker, &plan)?;
        let mut unused = None;
        // Absent from a list that we could read, LSM programs attach and are never called: do not even try.
        let order: &[Mechanism] = if modules.is_some() && !has_tags(modules) {
            tried.push("lsm: bpf is not among the active security modules".into());
            &[Mechanism::FmodRet]
        } else {
            &[Mechanism::Lsm, Mechanism::FmodRet]
        };
        for &mechanism in order {
            let mut hooked = HashSet::new();
            let (attached, reports) = match attach(mechanism, &plan, loader, &mut hooked)? {
                Ok(attached) => attached,
                Err(missing) => {
                    tried.push(missing);
                    continue;
                }
            };
            let tags = mechanism == Mechanism::Lsm && has_tags(modules);
            can_hold(&plan, tags, loader, &tried)?;
            scope(loader)?;
            let mut tables = match unused.take() {
                Some(tables) => tables,
                None => Tables::new(room, loader)?,
            };
            tables.fill(&plan, &canaries, loader, tags)?;
            let known = &plan.resolved;
            tables.hosts.learn(known, attached.iter(), loader)?;
            guard::keep(&canaries, loader)?;
            if plan.asks_what_was_written() {
                written::begin(&canaries, loader)?;
            }
            let mut rings = loader.rings()?;
            let mut about = About::new(&plan);
            let proving = canaries.of(&about, tags);
            about.proofs = count(proving.len());
            for canary in &proving {
                canary.reachable()?;
            }
            tables.flip()?;
            if let Proof::Open(why) = canary::prove_all(&proving, &mut rings, seen)? {
                tables.disarm()?;
                tried.push(format!("{}: {why}", mechanism.name()));
                unused = Some(tables);
                continue;
            }
            let fence = Fence {
                attached,
                tables,
                reports,
                mechanism,
                hooked,
                tags,
                about,
                filter: plan.filter.clone(),
                held: plan.into_held(),
                canaries,
                unsettled: false,
                published: None,
                pins: None,
            };
            return Ok((fence, rings));
        }
        Err(Error::new(
            ErrorKind::NotEnforced,
            format!("the fence does not hold on this kernel ({}): {}", crate::kernel::release(), tried.join("; ")),
        )
        .with_hint(if has_tags(modules) {
            "bpf is among the security modules, but this kernel refuses the programs; use another kernel or a virtual machine"
        } else {
            "add bpf to lsm= on the kernel command line and reboot; 'stockade doctor' shows the list in force"
        }))
    }

    /// Puts another policy in force in one write, and proves it. When this returns, nothing is judged by the former one any
    /// more; where it fails, that one is in force as it was. Hooks that the new one does not need stay. `seen` gets what
    /// came meanwhile; the hooks that were added are told.
    pub(crate) fn reload(
        &mut self,
        mut plan: Plan,
        loader: &mut Loader,
        rings: &mut Rings,
        seen: &mut Records,
    ) -> Result<Vec<ProbeReport>> {
        plan.guards_itself = self.about.guards_itself;
        self.tables.have_room(&plan)?;
        if self.pins.is_some() {
            outlives(plan.held())?;
        }
        if self.unsettled {
            wait_for_programs()?;
            self.unsettled = false;
        }
        let mut hooked = self.hooked.clone();
        let (attached, reports) = match attach(self.mechanism, &plan, loader, &mut hooked)? {
            Ok(attached) => attached,
            Err(missing) => return Err(Error::new(ErrorKind::NotEnforced, missing)),
        };
        can_hold(&plan, self.tags, loader, &[])?;
        self.tables.fill(&plan, &self.canaries, loader, self.tags)?;
        let programs = self.attached.iter().chain(attached.iter());
        self.tables.hosts.learn(&plan.resolved, programs, loader)?;
        guard::keep(&self.canaries, loader)?;
        let mut about = About::new(&plan);
        let proving = self.canaries.of(&about, self.tags);
        about.proofs = count(proving.len());
        // Of what was guarded before, the canary is refused already.
        for canary in self.canaries.of(&about.beyond(&self.about), self.tags) {
            canary.reachable()?;
        }
        let pinned = match &mut self.pins {
            Some(pins) => pins.add(&attached, loader)?,
            None => Vec::new(),
        };
        self.tables.flip()?;
        let proof = canary::prove_all(&proving, rings, seen);
        let open = match proof {
            Ok(Proof::Refused) => None,
            Ok(Proof::Open(why)) => Some(Error::new(ErrorKind::NotEnforced, why)),
            Err(e) => Some(e),
        };
        if let Some(e) = open {
            self.tables.flip_back()?;
            if let Some(pins) = &mut self.pins {
                pins.take_back(&pinned)?;
            }
            self.unsettled = wait_for_programs().is_err();
            return Err(e);
        }
        self.attached.append(attached);
        self.hooked = hooked;
        self.about = about;
        let former = std::mem::replace(&mut self.held, plan.into_held());
        // It is in force, whatever becomes of this: then the next one waits.
        self.unsettled = wait_for_programs().is_err();
        if self.unsettled {
            self.held.extend(former);
        }
        Ok(reports)
    }

    /// Proves once more that it holds. `seen` gets what else came.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnforced`]: it does not.
    pub(crate) fn prove(&mut self, rings: &mut Rings, seen: &mut Records) -> Result<()> {
        let proving = self.canaries.of(&self.about, self.tags);
        match canary::prove_all(&proving, rings, seen)? {
            Proof::Refused => {
                self.about.proofs = self.about.proofs.saturating_add(count(proving.len()));
                Ok(())
            }
            Proof::Open(why) => Err(Error::new(
                ErrorKind::NotEnforced,
                format!("the fence no longer holds: {why}"),
            )
            .with_hint(
                "somebody with the rights to it has changed the kernel's programs or tables",
            )),
        }
    }

    /// What refuses.
    pub(crate) fn mechanism(&self) -> String {
        let About {
            guards_files,
            guards_network,
            limits_forks,
            limits_network,
            limits_calls,
            traces_calls,
            syscalls,
            guards_itself,
            ..
        } = self.about;
        let by_hooks =
            guards_files || guards_network || limits_forks || limits_network || guards_itself;
        let parts = [
            (by_hooks, self.mechanism.name()),
            (syscalls > 0 && !traces_calls, SECCOMP),
            (limits_calls || traces_calls, TRACEPOINT),
        ];
        let parts = parts.into_iter().filter(|(is, _)| *is);
        parts.map(|(_, name)| name).collect::<Vec<_>>().join("+")
    }

    /// What refuses what hooks are asked about.
    pub(crate) fn hooks(&self) -> &'static str {
        self.mechanism.name()
    }

    /// How files are recognised.
    pub(crate) fn identity(&self) -> &'static str {
        match (self.about.guards_files, self.tags) {
            (false, _) => "none",
            (true, true) => "tag+key",
            (true, false) => "key",
        }
    }

    /// The number of the first rule of the policy that is in force.
    pub(crate) fn first_rule(&self) -> u32 {
        self.tables.first_rule()
    }

    /// Has it outlive this program, with the programs that follow processes. Until [`settle`](Self::settle) the one that
    /// is there under this name stands as well.
    pub(crate) fn pin(
        &mut self,
        place: Place,
        following: &Attachments,
        asker: &Asker,
        loader: &Loader,
    ) -> Result<()> {
        outlives(self.held.iter())?;
        let pins = Pins::new(place, &[following, &self.attached], loader)?;
        if self.about.guards_itself
            && let Err(e) = guard::keep_pins(pins.directory(), asker, loader)
        {
            pins.give_up()?;
            return Err(e);
        }
        self.pins = Some(pins);
        Ok(())
    }

    /// Knows from now on what a former fence has noted. That goes on with it until this returns.
    pub(crate) fn take_over(&self, former: &Former, loader: &Loader) -> Result<()> {
        if self.about.notes_written {
            written::take_over(former, loader)?;
        }
        match self.about.knows_hosts {
            true => self.tables.hosts.take_over(former, self.attached.iter()),
            false => Ok(()),
        }
    }

    /// Why what it does is not exactly what its policy says.
    pub(crate) fn shortcomings(&self, loader: &Loader) -> Result<Vec<String>> {
        let mut why = Vec::new();
        if self.about.notes_written && written::lost(loader)? {
            why.push("there was no room to note all files that were written: every file counts as written that has changed since the fence was armed (--room says for how many there is room)".to_owned());
        }
        if self.about.knows_hosts {
            let lost = hosts::lost(loader)?;
            if lost > 0 {
                why.push(format!(
                    "there was no room for {lost} addresses of hosts, to which the rules about these did not apply"
                ));
            }
        }
        Ok(why)
    }

    /// Enters which addresses hosts have that rules are about.
    pub(crate) fn learn(&self, found: &[Resolved], loader: &Loader) -> Result<()> {
        self.tables.hosts.learn(found, self.attached.iter(), loader)
    }

    /// The hosts that rules are or were about, by number.
    pub(crate) fn hosts(&self) -> Vec<Arc<str>> {
        self.tables.hosts.names()
    }

    /// Takes the place of the one that was pinned under its name, which is disarmed.
    pub(crate) fn settle(&self) -> Result<()> {
        self.pins.as_ref().map_or(Ok(()), Pins::settle)
    }

    /// Has it end with this program after all.
    pub(crate) fn unpin(&mut self) -> Result<()> {
        self.pins.take().map_or(Ok(()), Pins::remove)
    }

    /// The same of one that is not settled.
    pub(crate) fn give_up_pinning(&mut self) -> Result<()> {
        self.pins.take().map_or(Ok(()), |pins| pins.give_up())
    }

    /// Whether it stands on without this program.
    pub(crate) fn outlives_us(&self) -> bool {
        self.pins.is_some()
    }

    /// The name that it is pinned under.
    pub(crate) fn pinned(&self) -> Option<&str> {
        self.pins.as_ref().map(Pins::name)
    }

    /// Says of itself what others can read; what the fence knows is filled in.
    pub(crate) fn publish(
        &mut self,
        mut record: Record,
        beat: Beat,
        loader: &Loader,
    ) -> Result<()> {
        if let Some(pins) = &self.pins {
            record.pinned = Some(pins.name().to_owned());
            record.links = pins.links().to_vec();
        }
        record.rules.first = self.first_rule();
        record.rules.hosts = self.hosts();
        record.armed_map = self.tables.number()?;
        let published = Published::new(&record, beat)?;
        if self.about.guards_itself {
            let former = self.published.as_ref().map(Published::id).transpose()?;
            guard::keep_instead(published.id()?, former, loader)?;
        }
        if let Some(pins) = &self.pins {
            pins.publish(&published)?;
        }
        self.published = Some(published);
        Ok(())
    }

    /// A sign of life.
    pub(crate) fn beat(&self, beat: Beat) -> Result<()> {
        self.published
            .as_ref()
            .map_or(Ok(()), |published| published.beat(beat))
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if !self.outlives_us() {
            // Nobody is to read of a fence that it is switched off because it ends.
            self.published = None;
            // What cannot be told to the programs ends with them.
            let _ = self.tables.disarm();
        }
    }
}

/// Whether a fence can do without this program, which holds these files open for it.
fn outlives<'a>(mut held: impl Iterator<Item = &'a OwnedFd>) -> Result<()> {
    let Some(fd) = held.next() else {
        return Ok(());
    };
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    Err(Error::new(
        ErrorKind::NotEnforced,
        format!(
            "{} is told apart from others only as long as this program has it open: its file system gives several files the same identity",
            path.display()
        ),
    )
    .with_hint("leave --fail-closed out, or move the file to ext4, xfs or tmpfs"))
}

/// Attaches the hooks that a policy needs and that are not there; the second error is a sentence about what is missing.
fn attach(
    mechanism: Mechanism,
    plan: &Plan,
    loader: &mut Loader,
    hooked: &mut HashSet<&'static str>,
) -> Result<std::result::Result<(Attachments, Vec<ProbeReport>), String>> {
    let mut attached = Attachments::default();
    let mut reports: Vec<ProbeReport> = Vec::new();
    let [files, network, limits, guard, written, subject] = mechanism.parts();
    let [calls, limited_calls, purses, hosts] = TRACING;
    let mut wanted: Vec<(Object, Vec<&'static Probe>)> = Vec::new();
    if plan.guards_files {
        wanted.push((files.0, hooks::needed(files.1, plan.kinds).collect()));
    }
    if !plan.contacts.is_empty() {
        wanted.push((network.0, network.1.iter().collect()));
    }
    if plan.contacts.hosts().len() > 0 {
        wanted.push((hosts.0, hosts.1.iter().collect()));
    }
    if !plan.calls.is_empty() {
        let all = if plan.calls.are_traced() {
            hooks::TRACED_CALLS
        } else if plan.calls.audits() {
            calls.1
        } else {
            hooks::CALLS
        };
        wanted.push((calls.0, all.iter().collect()));
    }
    // After the rules: what they refuse is not counted.
    if !plan.limits.is_empty() {
        let counting = hooks::counting(limits.1, |thing| plan.limits.counts(thing));
        let mut probes: Vec<_> = counting.collect();
        if plan.limits.counts_calls() {
            probes.extend(limited_calls.1);
        }
        if plan.limits.are_of_each() {
            probes.extend(purses.1);
        }
        wanted.push((limits.0, probes));
    }
    if plan.guards_itself {
        wanted.push((guard.0, guard.1.iter().collect()));
    }
    if plan.asks_what_was_written() {
        wanted.push((written.0, written.1.iter().collect()));
    }
    if plan.keeps_apart {
        wanted.push((subject.0, subject.1.iter().collect()));
    }
    for (object, mut needed) in wanted {
        needed.retain(|probe| !hooked.contains(probe.name));
        if needed.is_empty() {
            continue;
        }
        let (links, told) = loader.attach(object, needed)?;
        attached.append(links);
        reports.extend(told);
    }
    // The first in full, with the verifier's lines; the others usually fail for the same reason.
    let missing: Vec<String> = reports
        .iter()
        // Without it only what we ask for ourselves is known: the report says so.
        .filter(|r| r.missing.is_some() && r.name != hooks::ANSWERS)
        .enumerate()
        .map(|(n, r)| match n {
            0 => format!("{} ({})", r.name, r.reasons.join("; ")),
            _ => r.name.to_owned(),
        })
        .collect();
    if !missing.is_empty() {
        return Ok(Err(format!("{}: {}", mechanism.name(), missing.join(", "))));
    }
    hooked.extend(reports.iter().map(|report| report.name));
    Ok(Ok((attached, reports)))
}

/// Whether hooks that are attached can hold a policy here; `tried` says what else was.
fn can_hold(plan: &Plan, tags: bool, loader: &Loader, tried: &[String]) -> Result<()> {
    let whole_host = loader.scope() == scope_bit::HOST;
    if plan.needs_hooks() && !whole_host && !loader.has_function("create_io_thread")? {
        return Err(Error::new(
            ErrorKind::NotEnforced,
            "io_uring works in kernel threads of its own here, which belong to no process and would get around the fence",
        )
        .with_hint("update the kernel: 5.10.162 and 5.12 brought workers that belong to their process; or fence the whole host"));
    }
    match plan.needs_tags() {
        Some(target) if !tags => {
            // None where nobody can say which modules are active.
            let why = match tried {
                [] => String::new(),
                tried => format!(" ({})", tried.join("; ")),
            };
            Err(Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "{}: its file system gives several files the same identity, and without BPF LSM only that identity is left{why}",
                    target.identity.path.display(),
                ),
            )
            .with_hint("add bpf to lsm= on the kernel command line and reboot, or move the file to ext4, xfs or tmpfs"))
        }
        _ => Ok(()),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Error::new(
            ErrorKind::Io,
            "the kernel gives no random numbers",
        )),
    }
}

/// A key as the kernel half compares it.
fn file_key(raw: &crate::wire::RawFileId) -> FileKey {
    FileKey {
        ino: raw.ino,
        dev: raw.dev,
        generation: raw.generation,
    }
}
