//! Making a policy so: identities are asked of the kernel, guards installed, the fence armed and proved.
//!
//! Invariant: nothing is armed before everything is known and in place; then one write flips the epoch, and an access
//! of our own must be refused before anybody is told that the fence stands.

mod canary;
mod hooks;
mod identity;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{
    Asker, Attachments, Loader, Object, OwnTable, Probe, ProbeReport, Records, Rings,
};
use crate::policy::{Mode, RuleSet};
use crate::wire::{ACCESS_KINDS, Armed, FileKey, Guard, RULE_CANARY, RULE_FLAG_CANARY, bytes_of};

use canary::Canary;
pub(crate) use canary::is_canary;
use identity::{Identity, Strength};

/// How the kernel is made to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// BPF LSM programs.
    Lsm,
    /// fmod_ret programs on the security_* functions: works where `bpf` is not in `lsm=`, without inode tags.
    FmodRet,
}

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Lsm => "lsm",
            Mechanism::FmodRet => "fmod_ret",
        }
    }

    pub(crate) fn probes(self) -> &'static [Probe] {
        match self {
            Mechanism::Lsm => hooks::LSM,
            Mechanism::FmodRet => hooks::FMOD_RET,
        }
    }
}

/// One guarded file: what is ruled for it and how it is recognised.
#[derive(Debug)]
struct Target {
    identity: Identity,
    guard: Guard,
}

/// Everything that arming needs, found out before anything changes.
#[derive(Debug)]
pub(crate) struct Plan {
    targets: Vec<Target>,
    canary: Canary,
    /// Guarded by its tag alone, where tags are used.
    tag_canary: Canary,
    lsm_list: Option<String>,
    /// The tool's process id in the initial pid namespace.
    pub(crate) self_tgid: u32,
}

/// The epoch of a first policy; a reload counts on.
const FIRST_EPOCH: u32 = 1;

impl Plan {
    /// Opens every path of the rules and asks the kernel for the identities. A path that cannot be opened is an error
    /// with its name.
    pub(crate) fn new(rules: &RuleSet, asker: &Asker, lsm_list: Option<String>) -> Result<Self> {
        let canary = Canary::new()?;
        let tag_canary = Canary::new()?;
        let mut wanted: Vec<(usize, identity::Opened)> = Vec::new();
        for (index, rule) in rules.rules.iter().enumerate() {
            for path in &rule.paths {
                wanted.extend(identity::open(rule, path)?.into_iter().map(|o| (index, o)));
            }
        }
        let known: BTreeMap<i32, _> = asker
            .files()?
            .into_iter()
            .filter_map(|r| Some((i32::try_from(r.fd).ok()?, r)))
            .collect();
        let of = |fd: &OwnedFd| {
            known.get(&fd.as_raw_fd()).copied().ok_or_else(|| {
                Error::new(
                    ErrorKind::Load,
                    "the kernel did not report one of our descriptors; this is a defect",
                )
            })
        };
        let record = of(canary.fd())?;
        let canary = canary.identified(record);
        let self_tgid = canary.self_tgid();
        let mut targets: Vec<Target> = Vec::new();
        for (index, opened) in wanted {
            let identity = Identity::new(opened, &of)?;
            let rule = &rules.rules[index];
            let number = u32::try_from(index)
                .map_err(|_| Error::new(ErrorKind::Policy, "too many rules"))?;
            // The same file named twice has one guard.
            let target = match targets.iter_mut().position(|t| t.identity.same(&identity)) {
                Some(at) => &mut targets[at],
                None => {
                    targets.push(Target {
                        identity,
                        guard: empty_guard(),
                    });
                    // Just pushed.
                    let last = targets.len() - 1;
                    &mut targets[last]
                }
            };
            add_rule(&mut target.guard, number, rule.access.bits(), rule.mode);
        }
        Ok(Plan {
            targets,
            canary,
            tag_canary,
            lsm_list,
            self_tgid,
        })
    }

    /// Entries that the key map must hold.
    pub(crate) fn keys(&self) -> u32 {
        u32::try_from(self.targets.len() + 1).unwrap_or(u32::MAX)
    }

    /// Whether inode tags may be used: only where the list of security modules says so.
    pub(crate) fn tags(&self) -> bool {
        self.lsm_list
            .as_deref()
            .is_some_and(|list| list.split(',').any(|m| m == "bpf"))
    }

    /// How many files are guarded.
    pub(crate) fn files(&self) -> u32 {
        u32::try_from(self.targets.len()).unwrap_or(u32::MAX)
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
            let (attached, reports) = loader.attach(Object::Fence, mechanism.probes())?;
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
            if !whole_host && !loader.has_function("create_io_thread")? {
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
                return Err(Error::new(
                    ErrorKind::NotEnforced,
                    format!(
                        "{}: its file system gives several files the same identity, and without BPF LSM only that identity is left",
                        target.identity.path.display()
                    ),
                )
                .with_hint("add bpf to lsm= on the kernel command line and reboot, or move the file to ext4, xfs or tmpfs"));
            }
            scope(loader)?;
            self.install(loader, tags)?;
            let mut rings = rings(loader)?;
            self.canary.reachable()?;
            self.tag_canary.reachable()?;
            let armed_at = loader.own_map("stk_armed_at")?;
            set_epoch(&armed_at, FIRST_EPOCH)?;
            let mut proof = self.canary.prove(&mut rings, seen)?;
            if tags && matches!(proof, canary::Proof::Refused) {
                proof = self.tag_canary.prove(&mut rings, seen)?;
            }
            match proof {
                canary::Proof::Refused => {
                    return Ok((
                        Fence {
                            attached,
                            armed_at,
                            reports,
                            mechanism,
                            tags,
                            proofs: if tags { 2 } else { 1 },
                            files: self.files(),
                            _held: self
                                .targets
                                .into_iter()
                                .flat_map(|t| t.identity.into_held())
                                .collect(),
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
        let keys = loader.map("stk_keys")?;
        for target in &self.targets {
            let path = target.identity.path.display();
            let what = format_args!("the guard of {path}");
            if tags {
                let fd = target.identity.fd().as_raw_fd();
                loader
                    .map("stk_tags")?
                    .set(&fd.to_ne_bytes(), bytes_of(&target.guard), what)?;
            }
            if target.identity.strength == Strength::Exact {
                keys.set(
                    bytes_of(&target.identity.key),
                    bytes_of(&target.guard),
                    what,
                )?;
            }
        }
        let mut guard = empty_guard();
        guard.flags = RULE_FLAG_CANARY;
        add_rule(
            &mut guard,
            RULE_CANARY,
            crate::policy::Access::READ.bits(),
            Mode::Enforce,
        );
        if tags {
            let fd = self.tag_canary.fd().as_raw_fd();
            loader
                .map("stk_tags")?
                .set(&fd.to_ne_bytes(), bytes_of(&guard), "the canary's tag")?;
        }
        keys.set(
            bytes_of(&self.canary.key()),
            bytes_of(&guard),
            "the canary's guard",
        )
    }
}

/// A policy that is armed and proved. Dropping it takes the fence down.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) attached: Attachments,
    /// Unlike its programs, it is over at once.
    armed_at: OwnTable,
    pub(crate) reports: Vec<ProbeReport>,
    pub(crate) mechanism: Mechanism,
    pub(crate) tags: bool,
    pub(crate) proofs: u32,
    pub(crate) files: u32,
    /// Files that would lose their tag with their inode and have no key to get it back by.
    _held: Vec<OwnedFd>,
    _canaries: [Canary; 2],
}

impl Drop for Fence {
    fn drop(&mut self) {
        // What cannot be told to the programs ends with them.
        let _ = set_epoch(&self.armed_at, 0);
    }
}

fn set_epoch(armed_at: &OwnTable, epoch: u32) -> Result<()> {
    armed_at.set(
        &0u32.to_ne_bytes(),
        bytes_of(&Armed { epoch, pad: 0 }),
        "arming the fence",
    )
}

fn empty_guard() -> Guard {
    Guard {
        epoch: FIRST_EPOCH,
        flags: 0,
        deny: 0,
        audit: 0,
        rule: [0; ACCESS_KINDS],
        pad: 0,
    }
}

/// Adds a rule to a file's guard. Deny beats audit; among equals the first rule is named.
fn add_rule(guard: &mut Guard, number: u32, access: u32, mode: Mode) {
    for (bit, rule) in guard.rule.iter_mut().enumerate() {
        let mask = 1u32 << bit;
        if access & mask == 0 || guard.deny & mask != 0 {
            continue;
        }
        match mode {
            Mode::Enforce => {
                guard.deny |= mask;
                guard.audit &= !mask;
                *rule = number;
            }
            _ => {
                if guard.audit & mask == 0 {
                    guard.audit |= mask;
                    *rule = number;
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_beats_audit_whatever_the_order_and_the_first_rule_is_named() {
        let mut guard = empty_guard();
        add_rule(&mut guard, 3, 0b11, Mode::Audit);
        add_rule(&mut guard, 4, 0b01, Mode::Enforce);
        add_rule(&mut guard, 5, 0b11, Mode::Enforce);
        add_rule(&mut guard, 6, 0b11, Mode::Audit);
        assert_eq!((guard.deny, guard.audit), (0b11, 0));
        assert_eq!(&guard.rule[..2], &[4, 5]);
    }
}
