//! Making a policy so: identities are asked of the kernel, guards installed, the fence armed and proved.
//!
//! Invariant: nothing is armed before everything is known and in place; then one write flips the epoch, and an access
//! of our own must be refused before anybody is told that the fence stands.

mod calls;
mod canary;
mod contacts;
mod hooks;
mod identity;
mod lockout;
mod places;

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::error::{Error, ErrorKind, Result};
use crate::kernel::seccomp::{Filter, MAX_INSTRUCTIONS};
use crate::kernel::{
    Asker, Attachments, KernelBtf, Loader, Object, OwnTable, Probe, ProbeReport, Records, Rings,
};
use crate::policy::{Access, Effect, FileKind, FileRule, Mode, Pattern, Refusal, RuleSet};
use crate::wire::{
    Armed, FileKey, RULE_CANARY, RuleAction, armed_flag, bytes_of, read, ruling_flag,
};

use calls::Calls;
pub(crate) use canary::is_canary;
use canary::{CallCanary, Canary, NetworkCanary};
use contacts::Contacts;
use identity::{Identity, Known, Part, Strength};
use places::{FIRST_EPOCH, Here, Places, Said, Sets, Voice};

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

    /// The objects of the fence and what they attach: first that for files, then that for the network.
    pub(crate) fn parts(self) -> [(Object, &'static [Probe]); 2] {
        let (files, network) = match self {
            Mechanism::Lsm => (hooks::LSM, hooks::NETWORK_LSM),
            Mechanism::FmodRet => (hooks::FMOD_RET, hooks::NETWORK_FMOD_RET),
        };
        [(Object::Fence, files), (Object::FenceNetwork, network)]
    }
}

/// What tells of system calls, those that are not refused among them.
pub(crate) const CALLS: (Object, &[Probe]) = (Object::FenceSyscall, hooks::CALLS_AND_AUDIT);

/// What refuses system calls.
const SECCOMP: &str = "seccomp";

/// One file that is ruled by itself: tags tell it apart where keys do not.
#[derive(Debug)]
struct Target {
    identity: Identity,
    said: Said,
}

/// Everything that arming needs, found out before anything changes.
#[derive(Debug)]
pub(crate) struct Plan {
    targets: Vec<Target>,
    places: Places,
    contacts: Contacts,
    calls: Calls,
    /// How each rule refuses, by its number.
    refusals: Vec<Refusal>,
    sets: Sets,
    /// There are rules about files.
    guards_files: bool,
    /// The kinds of access to files that they refuse.
    kinds: Access,
    /// What is said about files that no rule names.
    otherwise: Said,
    /// What is said about kinds of files, in the order of [`FileKind::ALL`].
    of_kinds: [Said; FileKind::ALL.len()],
    /// Directories that would lose their keys with their inodes.
    held: Vec<OwnedFd>,
    canary: Canary,
    /// Guarded by its tag alone, where tags are used.
    tag_canary: Canary,
    network_canary: NetworkCanary,
    call_canary: CallCanary,
    /// What refuses system calls, if any are.
    filter: Option<Filter>,
    lsm_list: Option<String>,
    /// Files, and directories whose contents are meant, that rules are about.
    files: u32,
    /// The tool's process id in the initial pid namespace.
    pub(crate) self_tgid: u32,
}

impl Plan {
    /// Opens every path of the rules and asks the kernel for the identities. A path that cannot be opened is an error
    /// with its name, and so is a rule that refuses what the `operators` among the processes need.
    pub(crate) fn new(
        rules: &RuleSet,
        operators: &[u32],
        asker: &Asker,
        btf: &KernelBtf,
        lsm_list: Option<String>,
    ) -> Result<Self> {
        let canary = Canary::new()?;
        let tag_canary = Canary::new()?;
        let ranked = rules.ranked();
        let refusals = ranked.iter().map(|rule| rule.refusal);
        let of_network = rules.ranked_network();
        let refusals = refusals.chain(of_network.iter().map(|rule| rule.refusal));
        let of_calls = rules.ranked_syscalls();
        let refusals = refusals.chain(of_calls.iter().map(|rule| rule.refusal));
        let refusals: Vec<Refusal> = refusals.collect();
        let first_of_calls = ranked.len() + of_network.len();
        let calls = Calls::new(&of_calls, u32::try_from(first_of_calls).unwrap_or(u32::MAX));
        if let Some(number) = calls.refuses("execve") {
            let rule = number
                .checked_sub(first_of_calls)
                .and_then(|n| of_calls.get(n));
            return Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "the rule {} (line {}) refuses execve, by which the command itself is started",
                    rule.map_or("", |rule| &rule.id),
                    rule.map_or(0, |rule| rule.line),
                ),
            )
            .with_hint("rules of exec say what may be run; where a rule allows system calls, let it allow execve"));
        }
        let secret = random()?;
        let filter = calls.filter(&refusals, secret);
        if let Some(filter) = &filter
            && filter.program.len() > MAX_INSTRUCTIONS
        {
            return Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "the rules about system calls take {} instructions, and seccomp takes {MAX_INSTRUCTIONS}",
                    filter.program.len()
                ),
            )
            .with_hint("name fewer calls whose neighbours are not named"));
        }
        let contacts = Contacts::new(
            (u32::try_from(ranked.len()).unwrap_or(u32::MAX)..)
                .zip(of_network)
                .map(|(number, rule)| (Voice::new(number, rule.effect, rule.mode), rule)),
        );
        let voices = (0u32..).zip(&ranked).map(|(number, rule)| {
            let voice = Voice::new(number, rule.effect, rule.mode);
            (voice, *rule)
        });
        let mut kinds = Access::default();
        for rule in &ranked {
            kinds |= rule.access;
            for moved in Access::MOVES.kinds().filter(|kind| rule.pins(*kind)) {
                kinds |= moved;
            }
        }
        let mut otherwise = Said::NOTHING;
        let mut of_kinds = [Said::NOTHING; FileKind::ALL.len()];
        let mut wanted = Vec::new();
        for (voice, rule) in voices {
            if rule.effect == Effect::Allow {
                otherwise.add_rest(voice, rule.access);
            }
            for pattern in &rule.paths {
                if let Pattern::Kind(kind) = pattern {
                    of_kinds[*kind as usize].add(voice, rule.access);
                    continue;
                }
                let opened = identity::open(rule, pattern)?;
                wanted.extend(opened.into_iter().map(|one| (voice, rule, one)));
            }
        }
        let vital = lockout::vital(operators);
        let known = Known::ask(asker, btf)?;
        let record = known.file(canary.fd())?;
        let canary = canary.identified(record);
        let self_tgid = canary.self_tgid();
        let mut plan = Plan {
            targets: Vec::new(),
            places: Places::default(),
            contacts,
            calls,
            refusals,
            sets: Sets::default(),
            guards_files: !ranked.is_empty(),
            kinds,
            otherwise,
            of_kinds,
            held: Vec::new(),
            canary,
            tag_canary,
            network_canary: NetworkCanary::new()?,
            call_canary: CallCanary::new(secret),
            filter,
            lsm_list,
            files: 0,
            self_tgid,
        };
        // The same file named twice is one target.
        let mut by_file = HashMap::new();
        for (voice, rule, (part, opened)) in wanted {
            let identity = Identity::new(rule, opened, &known)?;
            plan.enter(voice, rule, part, identity, &mut by_file);
        }
        plan.spares(vital, &known, &ranked, &by_file)?;
        plan.sets = Sets::new(
            plan.places
                .said()
                .chain(plan.targets.iter().map(|t| &t.said))
                .chain(plan.contacts.said())
                .chain(&plan.of_kinds)
                .chain([&canary_rule()]),
        );
        Ok(plan)
    }

    /// Enters what a rule says about one thing that it names.
    fn enter(
        &mut self,
        voice: Voice,
        rule: &FileRule,
        part: Part,
        identity: Identity,
        by_file: &mut HashMap<identity::Exact, usize>,
    ) {
        let access = rule.access;
        let own_key = identity.key;
        let mut pinned: Vec<&FileKey> = Vec::new();
        if let Part::Parent { name, below } = &part {
            let named = self.places.name(&own_key, name, *below);
            named.add(voice, access);
            pinned.push(&own_key);
        } else if let Some(directory) = identity.above.first()
            && part != Part::Inode
        {
            // The root of a file system has no name.
            let below = part != Part::File;
            let named = self.places.name(directory, &identity.name, below);
            named.add(voice, access);
        }
        if part == Part::Directory {
            self.places.below(&own_key).add(voice, access);
            pinned.push(&own_key);
        }
        if part != Part::Inode {
            pinned.extend(&identity.above);
        }
        self.places.pin(pinned, voice, rule);
        if !matches!(part, Part::File | Part::Inode) {
            self.files += u32::from(part != Part::LinkToDirectory);
            self.held.extend(identity.into_held());
            return;
        }
        if identity.strength == Strength::Exact {
            self.places.file(&own_key).add(voice, access);
        }
        let next = self.targets.len();
        let at = *by_file.entry(identity.exact()).or_insert(next);
        if at == next {
            self.files += 1;
            self.targets.push(Target {
                identity,
                said: Said::NOTHING,
            });
        }
        self.targets[at].said.add(voice, access);
    }

    /// Entries that the maps must hold.
    pub(crate) fn sizes(&self) -> [(&'static str, u32); 6] {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
        [
            // The canary's.
            ("stk_keys", size(self.places.key_count() + 1)),
            ("stk_names", size(self.places.name_count())),
            // The first one says nothing.
            ("stk_sets", size(self.sets.all.len() + 1)),
            ("stk_actions", size(self.refusals.len())),
            ("stk_nets", size(self.contacts.prefix_count())),
            ("stk_net_ranges", size(self.contacts.range_count())),
        ]
    }

    /// Whether inode tags may be used: only where the list of security modules says so.
    pub(crate) fn tags(&self) -> bool {
        self.lsm_list
            .as_deref()
            .is_some_and(|list| list.split(',').any(|m| m == "bpf"))
    }

    /// Attaches the hooks, installs the guards, flips the epoch and proves that an access is refused; by LSM, else by
    /// the twins, else not at all. `scope` enters who is fenced and `rings` makes the consumer once the maps are there; `seen` gets what else came.
    pub(crate) fn arm(
        self,
        loader: &mut Loader,
        whole_host: bool,
        scope: impl Fn(&Loader) -> Result<()>,
        rings: impl Fn(&Loader) -> Result<Rings>,
        seen: &mut Records,
    ) -> Result<(Fence, Rings)> {
        let mut tried: Vec<String> = Vec::new();
        // Absent from a list that we could read, LSM programs attach and are never called: do not even try.
        let order: &[Mechanism] = if self.lsm_list.is_some() && !self.tags() {
            tried.push("lsm: bpf is not among the active security modules".into());
            &[Mechanism::FmodRet]
        } else {
            &[Mechanism::Lsm, Mechanism::FmodRet]
        };
        for &mechanism in order {
            let mut attached = Attachments::default();
            let mut reports = Vec::new();
            let wanted = [self.guards_files, !self.contacts.is_empty()];
            let parts = mechanism.parts().into_iter().zip(wanted);
            let of_hooks = parts.filter(|(_, wanted)| *wanted).map(|(part, _)| part);
            let of_calls = match (self.calls.is_empty(), self.calls.audits()) {
                (true, _) => None,
                (false, true) => Some(CALLS),
                (false, false) => Some((CALLS.0, hooks::CALLS)),
            };
            for (object, probes) in of_hooks.chain(of_calls) {
                let (links, told) = match object {
                    Object::Fence => {
                        let needed = hooks::needed(probes, self.kinds);
                        loader.attach(object, needed)?
                    }
                    _ => loader.attach(object, probes)?,
                };
                attached.append(links);
                reports.extend(told);
            }
            // The first in full, with the verifier's lines; the others usually fail for the same reason.
            let missing: Vec<String> = reports
                .iter()
                .filter(|r| r.missing.is_some())
                .enumerate()
                .map(|(n, r)| match n {
                    0 => format!("{} ({})", r.name, r.reasons.join("; ")),
                    _ => r.name.to_owned(),
                })
                .collect();
            if !missing.is_empty() {
                tried.push(format!("{}: {}", mechanism.name(), missing.join(", ")));
                continue;
            }
            let by_hooks = self.guards_files || !self.contacts.is_empty();
            if by_hooks && !whole_host && !loader.has_function("create_io_thread")? {
                return Err(Error::new(
                    ErrorKind::NotEnforced,
                    "io_uring works in kernel threads of its own here, which belong to no process and would get around the fence",
                )
                .with_hint("update the kernel: 5.10.162 and 5.12 brought workers that belong to their process; or fence the whole host"));
            }
            let tags = mechanism == Mechanism::Lsm && self.tags();
            if let Some(target) = self
                .targets
                .iter()
                .find(|t| !tags && t.identity.strength == Strength::TagOnly)
            {
                // None where nobody can say which modules are active.
                let why = match &tried[..] {
                    [] => String::new(),
                    tried => format!(" ({})", tried.join("; ")),
                };
                return Err(Error::new(
                    ErrorKind::NotEnforced,
                    format!(
                        "{}: its file system gives several files the same identity, and without BPF LSM only that identity is left{why}",
                        target.identity.path.display(),
                    ),
                )
                .with_hint("add bpf to lsm= on the kernel command line and reboot, or move the file to ext4, xfs or tmpfs"));
            }
            scope(loader)?;
            self.install(loader, tags)?;
            let mut rings = rings(loader)?;
            let mut canaries: Vec<&dyn canary::Proves> = Vec::new();
            if self.guards_files {
                canaries.push(&self.canary);
            }
            if self.guards_files && tags {
                canaries.push(&self.tag_canary);
            }
            if !self.contacts.is_empty() {
                canaries.push(&self.network_canary);
            }
            if !self.calls.is_empty() {
                canaries.push(&self.call_canary);
            }
            for canary in &canaries {
                canary.reachable()?;
            }
            let armed_at = loader.own_map("stk_armed_at")?;
            set_epoch(&armed_at, FIRST_EPOCH)?;
            let mut proof = canary::Proof::Refused;
            for canary in &canaries {
                proof = canary::prove(*canary, &mut rings, seen)?;
                if !matches!(proof, canary::Proof::Refused) {
                    break;
                }
            }
            let proofs = u32::try_from(canaries.len()).unwrap_or(u32::MAX);
            match proof {
                canary::Proof::Refused => {
                    return Ok((
                        Fence {
                            attached,
                            armed_at,
                            reports,
                            mechanism: match (by_hooks, self.calls.is_empty()) {
                                (true, true) => mechanism.name().to_owned(),
                                (true, false) => format!("{}+{SECCOMP}", mechanism.name()),
                                (false, _) => SECCOMP.to_owned(),
                            },
                            tags,
                            proofs,
                            files: self.files,
                            guards_files: self.guards_files,
                            addresses: self.contacts.addresses,
                            syscalls: self.calls.named,
                            filter: self.filter,
                            _held: {
                                let files = self.targets.into_iter();
                                let mut held = self.held;
                                held.extend(files.flat_map(|t| t.identity.into_held()));
                                held
                            },
                            _canaries: [self.canary, self.tag_canary],
                        },
                        rings,
                    ));
                }
                canary::Proof::Open(why) => {
                    set_epoch(&armed_at, 0)?;
                    tried.push(format!("{}: {why}", mechanism.name()));
                }
            }
        }
        Err(Error::new(
            ErrorKind::NotEnforced,
            format!("the fence does not hold on this kernel ({}): {}", crate::kernel::release(), tried.join("; ")),
        )
        .with_hint(if self.lsm_list.is_some() && self.tags() {
            "bpf is among the security modules, but this kernel refuses the programs; use another kernel or a virtual machine"
        } else {
            "add bpf to lsm= on the kernel command line and reboot; 'stockade doctor' shows the list in force"
        }))
    }

    fn install(&self, loader: &Loader, tags: bool) -> Result<()> {
        let sets = loader.map("stk_sets")?;
        for (number, set) in (1u32..).zip(&self.sets.all) {
            sets.set(&number.to_ne_bytes(), bytes_of(set), "a set of rules")?;
        }
        let actions = loader.map("stk_actions")?;
        for (number, refusal) in (0u32..).zip(&self.refusals) {
            // What is not there is EPERM.
            if *refusal == Refusal::default() {
                continue;
            }
            let action = RuleAction {
                error: refusal.errno.into(),
                kill: refusal.kill.into(),
            };
            let what = "how a rule refuses";
            actions.set(&number.to_ne_bytes(), bytes_of(&action), what)?;
        }
        let mut hash_key = [0; 2];
        for half in &mut hash_key {
            *half = random()?;
        }
        if self.guards_files {
            self.install_files(loader, tags, hash_key)?;
        }
        if !self.contacts.is_empty() {
            let (ranges, nets) = self.contacts.tables(&self.sets);
            let (to_ranges, to_nets) = (loader.map("stk_net_ranges")?, loader.map("stk_nets")?);
            for (number, ports) in (0u32..).zip(&ranges) {
                let what = "the rules of ports";
                to_ranges.set(&number.to_ne_bytes(), bytes_of(ports), what)?;
            }
            for (prefix, ruling) in &nets {
                let what = "the rules of addresses";
                to_nets.set(bytes_of(prefix), bytes_of(ruling), what)?;
            }
        }
        if !self.calls.is_empty() {
            let rules = loader.map("stk_call_rules")?;
            for (slot, refused) in self.calls.table() {
                let what = "the rules of a system call";
                rules.set(&slot.to_ne_bytes(), &refused.to_ne_bytes(), what)?;
            }
        }
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let [fileless, setuid] = self.of_kinds.map(|said| self.sets.number(&said));
        let armed = Armed {
            epoch: 0,
            flags: flag(self.places.has_names(), armed_flag::NAMES)
                | flag(self.places.has_below(), armed_flag::BELOW)
                | flag(self.otherwise != Said::NOTHING, armed_flag::OTHERWISE)
                | flag(fileless != 0 || setuid != 0, armed_flag::KINDS),
            hash_key,
            otherwise: self.otherwise.both(&self.contacts.otherwise).numbers(),
            lost: self
                .places
                .refused_below()
                .both(&self.contacts.refused)
                .numbers(),
            kinds: self.contacts.kinds.bits(),
            canary_port: match self.contacts.is_empty() {
                true => 0,
                false => self.network_canary.port().into(),
            },
            fileless,
            setuid,
        };
        arm(&loader.own_map("stk_armed_at")?, &armed)
    }

    fn install_files(&self, loader: &Loader, tags: bool, hash_key: [u64; 2]) -> Result<()> {
        let (keys, names) = (loader.map("stk_keys")?, loader.map("stk_names")?);
        for (key, ruling) in self.places.keys(&self.sets) {
            keys.set(bytes_of(&key), bytes_of(&ruling), "the rules of a file")?;
        }
        for (key, ruling) in self.places.names(&self.sets, hash_key)? {
            names.set(bytes_of(&key), bytes_of(&ruling), "the rules of a name")?;
        }
        let mut canary = self.sets.ruling(&Here::file(canary_rule()));
        canary.flags = ruling_flag::CANARY;
        if tags {
            let tags = loader.map("stk_tags")?;
            for target in &self.targets {
                let fd = target.identity.fd().as_raw_fd();
                let ruling = self.sets.ruling(&Here::file(target.said));
                let what = format_args!("the guard of {}", target.identity.path.display());
                tags.set(&fd.to_ne_bytes(), bytes_of(&ruling), what)?;
            }
            let fd = self.tag_canary.fd().as_raw_fd();
            tags.set(&fd.to_ne_bytes(), bytes_of(&canary), "the canary's tag")?;
        }
        keys.set(
            bytes_of(&self.canary.key()),
            bytes_of(&canary),
            "the canary's guard",
        )
    }
}

/// What is said about the canary.
fn canary_rule() -> Said {
    let mut said = Said::NOTHING;
    let voice = Voice::new(RULE_CANARY, Effect::Deny, Mode::Enforce);
    said.add(voice, Access::READ);
    said
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

/// A policy that is armed and proved. Dropping it takes the fence down.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) attached: Attachments,
    /// Unlike its programs, it is over at once.
    armed_at: OwnTable,
    pub(crate) reports: Vec<ProbeReport>,
    /// What refuses.
    pub(crate) mechanism: String,
    tags: bool,
    pub(crate) proofs: u32,
    pub(crate) files: u32,
    /// Addresses that rules are about.
    pub(crate) addresses: u32,
    /// System calls that they are about.
    pub(crate) syscalls: u32,
    /// What the command gets that is started; gone once it has been taken.
    pub(crate) filter: Option<Filter>,
    guards_files: bool,
    /// Files that would lose their tag with their inode and have no key to get it back by.
    _held: Vec<OwnedFd>,
    _canaries: [Canary; 2],
}

impl Fence {
    /// How files are recognised.
    pub(crate) fn identity(&self) -> &'static str {
        match (self.guards_files, self.tags) {
            (false, _) => "none",
            (true, true) => "tag+key",
            (true, false) => "key",
        }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // What cannot be told to the programs ends with them.
        let _ = set_epoch(&self.armed_at, 0);
    }
}

/// Puts another epoch in force: one write, all else as it is.
fn set_epoch(armed_at: &OwnTable, epoch: u32) -> Result<()> {
    let now = armed_at.get(&0u32.to_ne_bytes())?;
    let Some(now) = now.as_deref().and_then(read::<Armed>) else {
        return Err(Error::new(
            ErrorKind::Load,
            "the map stk_armed_at is empty; this is a defect",
        ));
    };
    arm(armed_at, &Armed { epoch, ..now })
}

fn arm(armed_at: &OwnTable, armed: &Armed) -> Result<()> {
    armed_at.set(&0u32.to_ne_bytes(), bytes_of(armed), "arming the fence")
}

/// A key as the kernel half compares it.
fn file_key(raw: &crate::wire::RawFileId) -> FileKey {
    FileKey {
        ino: raw.ino,
        dev: raw.dev,
        generation: raw.generation,
    }
}
