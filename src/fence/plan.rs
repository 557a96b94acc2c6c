//! What a policy comes to in the kernel's terms, found out before anything changes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::calls::{Calls, CallsBy};
use super::canary::canary_rule;
use super::contacts::Contacts;
use super::identity::{self, Identity, Known, Opened, Part, Strength};
use super::limits::Limits;
use super::lockout;
use super::places::{Places, Said, Sets, Voice};
use super::subjects::{self, Named, Subjects};
use super::tables::Entries;
use crate::enrich::mounts::MountTable;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::seccomp::{Filter, MAX_INSTRUCTIONS};
use crate::kernel::{Asker, KernelBtf};
use crate::policy::{Access, Effect, FileKind, FileRule, Pattern, Refusal, RuleSet};
use crate::resolver::Resolved;
use crate::wire::{FileKey, TaskKey};

/// One file that is ruled by itself: tags tell it apart where keys do not.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) identity: Identity,
    pub(super) said: Said,
}

/// A policy in the kernel's terms.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) targets: Vec<Target>,
    pub(super) places: Places,
    pub(super) contacts: Contacts,
    pub(super) calls: Calls,
    pub(super) limits: Limits,
    /// How each rule refuses, by its number.
    pub(super) refusals: Vec<Refusal>,
    pub(super) sets: Sets,
    /// Whom rules tell apart.
    pub(super) subjects: Named,
    /// Rules that are enforced tell programs apart: nobody is to speak through another one.
    pub(super) keeps_apart: bool,
    /// There are rules about files.
    pub(super) guards_files: bool,
    /// The kinds of access to files that they refuse.
    pub(super) kinds: Access,
    /// What is said about files that no rule names.
    pub(super) otherwise: Said,
    /// The same with what is said about addresses that no rule names.
    pub(super) elsewhere: Said,
    /// What is said about files of which nobody can tell where they are, and sockets of which nobody can tell whom they reach.
    pub(super) lost: Said,
    /// What is said about kinds of files, in the order of [`FileKind::ALL`].
    pub(super) of_kinds: [Said; FileKind::ALL.len()],
    /// Directories that would lose their keys with their inodes.
    held: Vec<OwnedFd>,
    /// What refuses system calls, if any are.
    pub(super) filter: Option<Filter>,
    /// What makes the call of the canary one that is refused.
    pub(super) secret: u64,
    /// Files, and directories whose contents are meant, that rules are about.
    pub(super) files: u32,
    /// It keeps itself from who is held.
    pub(crate) guards_itself: bool,
    /// Which addresses the hosts have that rules are about, as far as anybody has said so.
    pub(crate) resolved: Vec<Resolved>,
    /// This process, where it had files open that the kernel was asked about.
    pub(crate) own_key: Option<TaskKey>,
}

impl Plan {
    /// Opens every path of the rules and asks the kernel for the identities. A path that cannot be opened is an error
    /// with its name, and so is a rule that refuses what the `operators` among the processes need.
    pub(crate) fn new(
        rules: &RuleSet,
        calls_by: CallsBy,
        operators: &[u32],
        asker: &Asker,
        btf: &KernelBtf,
    ) -> Result<Self> {
        let ranked = rules.ranked();
        let refusals = ranked.iter().map(|rule| rule.refusal);
        let of_network = rules.ranked_network();
        let refusals = refusals.chain(of_network.iter().map(|rule| rule.refusal));
        let of_calls = rules.ranked_syscalls();
        let refusals = refusals.chain(of_calls.iter().map(|rule| rule.refusal));
        let refusals = refusals.chain(rules.limits.iter().map(|rule| rule.refusal));
        let refusals: Vec<Refusal> = refusals.collect();
        let first_of_calls = ranked.len() + of_network.len();
        let calls = Calls::new(&of_calls, super::count(first_of_calls), calls_by);
        let limits = Limits::new(&rules.limits, super::count(first_of_calls + of_calls.len()))?;
        let of_call = |name: &str| {
            let number = calls.refuses(name)?.checked_sub(first_of_calls)?;
            of_calls.get(number).copied()
        };
        if calls.are_traced() {
            lockout::spare_calls(operators, of_call)?;
        } else if let Some(rule) = of_call("execve") {
            return Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "the rule {} (line {}) refuses execve, by which the command itself is started",
                    rule.id, rule.line,
                ),
            )
            .with_hint("rules of exec say what may be run; where a rule allows system calls, let it allow execve"));
        }
        let secret = super::random()?;
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
        let who = Subjects::open(rules)?;
        let contacts = Contacts::new((super::count(ranked.len())..).zip(of_network).map(
            |(number, rule)| {
                let voice = Voice::new(number, rule.effect, rule.mode);
                (voice.to(who.classes(&rule.subject)), rule)
            },
        ));
        let voices = (0u32..).zip(&ranked).map(|(number, rule)| {
            let voice = Voice::new(number, rule.effect, rule.mode);
            (voice.to(who.classes(&rule.subject)), *rule)
        });
        let mut kinds = Access::default();
        for rule in &ranked {
            kinds |= rule.access;
            for moved in Access::MOVES.kinds().filter(|kind| rule.pins(*kind)) {
                kinds |= moved;
            }
        }
        let mut otherwise = Said::NOTHING;
        let mut of_kinds = FileKind::ALL.map(|_| Said::NOTHING);
        let mut wanted = Vec::new();
        let mut table = MountTable::default();
        for (voice, rule) in voices {
            if rule.effect == Effect::Allow {
                otherwise.add_rest(voice, rule.access);
            }
            for pattern in &rule.paths {
                if let Pattern::Kind(kind) = pattern {
                    of_kinds[*kind as usize].add(voice, rule.access);
                    continue;
                }
                let mut opened = identity::open(rule, pattern)?;
                // What may be accessed there is not to be accessed elsewhere.
                if rule.effect == Effect::Deny {
                    let directories = opened.iter().filter(|(part, _)| *part == Part::Directory);
                    let mounted: Vec<_> = directories
                        .flat_map(|(_, directory)| identity::mounted_in(directory, table.now()))
                        .collect();
                    opened.extend(mounted);
                }
                wanted.extend(opened.into_iter().map(|one| (voice, rule, one)));
            }
        }
        lockout::spare(operators, &rules.limits)?;
        let vital = lockout::vital(operators, &who);
        let known = Known::ask(asker, btf)?;
        let mut plan = Plan {
            targets: Vec::new(),
            places: Places::default(),
            contacts,
            calls,
            limits,
            refusals,
            sets: Sets::new(std::iter::empty(), 1),
            subjects: who.identify(&known)?,
            keeps_apart: subjects::keeps_apart(rules),
            guards_files: !ranked.is_empty(),
            kinds,
            otherwise,
            elsewhere: Said::NOTHING,
            lost: Said::NOTHING,
            of_kinds,
            held: Vec::new(),
            filter,
            secret,
            files: 0,
            guards_itself: false,
            resolved: Vec::new(),
            own_key: known.own_key(),
        };
        // The same file named twice is one target.
        let mut by_file = HashMap::new();
        for (voice, rule, (part, opened)) in wanted {
            if part == Part::Mounted {
                plan.enter_mounted(voice, rule, opened, &known)?;
                continue;
            }
            let identity = Identity::new(rule, opened, &known)?;
            plan.enter(voice, rule, part, identity, &mut by_file);
        }
        plan.spares(vital, &known, &ranked, &by_file)?;
        plan.elsewhere = plan.otherwise.both(&plan.contacts.otherwise);
        plan.lost = plan.places.refused_below().both(&plan.contacts.refused);
        plan.sets = Sets::new(
            plan.places
                .said()
                .chain(plan.targets.iter().map(|t| &t.said))
                .chain(plan.contacts.said())
                .chain(&plan.of_kinds)
                .chain([&plan.elsewhere, &plan.lost, &canary_rule()]),
            plan.subjects.classes,
        );
        Ok(plan)
    }

    /// Enters what a rule for a directory says about what is mounted in it. Nothing is held open for that, which would keep
    /// it from being unmounted: so only where the root of the file system has a key of its own.
    fn enter_mounted(
        &mut self,
        voice: Voice,
        rule: &FileRule,
        opened: Opened,
        known: &Known,
    ) -> Result<()> {
        if let Some(root) = Identity::found(opened, known)?
            && root.strength == Strength::Exact
        {
            self.places.below(&root.key).add(voice, rule.access);
        }
        Ok(())
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

    /// What it has in the tables.
    pub(crate) fn entries(&self) -> Entries {
        Entries {
            // The canary's.
            keys: super::count(self.places.key_count() + 1),
            names: super::count(self.places.name_count()),
            sets: super::count(self.sets.len()),
            rules: super::count(self.refusals.len()),
            prefixes: super::count(self.contacts.prefix_count()),
            ranges: super::count(self.contacts.range_count()),
            purses: self.limits.purses(),
            written: self.asks_what_was_written().into(),
        }
    }

    /// It is about files that who is held has written.
    pub(super) fn asks_what_was_written(&self) -> bool {
        self.of_kinds[FileKind::Written as usize] != Said::NOTHING
    }

    /// There is something that hooks refuse.
    pub(super) fn needs_hooks(&self) -> bool {
        self.guards_files
            || !self.contacts.is_empty()
            || self.limits.are_by_hooks()
            || self.guards_itself
    }

    /// A file that only its tag tells apart.
    pub(super) fn needs_tags(&self) -> Option<&Target> {
        let mut targets = self.targets.iter();
        targets.find(|target| target.identity.strength == Strength::TagOnly)
    }

    /// Files that must stay open while it is in force.
    pub(super) fn held(&self) -> impl Iterator<Item = &OwnedFd> {
        let targets = self.targets.iter().map(|target| &target.identity);
        self.held.iter().chain(targets.filter_map(Identity::held))
    }

    /// The same, to be kept.
    pub(super) fn into_held(self) -> Vec<OwnedFd> {
        let files = self.targets.into_iter();
        let mut held = self.held;
        held.extend(files.flat_map(|target| target.identity.into_held()));
        held
    }
}
