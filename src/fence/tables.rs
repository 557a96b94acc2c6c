//! The tables of the kernel half. Each has two halves: a policy is put into the one that is not in force, and then one byte
//! says that it is.
//!
//! Invariant: nothing is written to the half that is in force, nor to the other one while a decision may still read it. So
//! a decision, which stays with the half that it has begun with, is made by one policy.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{Ordering, fence};

use super::canary::{Canaries, canary_rule};
use super::hosts::Hosts;
use super::places::{Here, Said};
use super::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Loader, OwnTable};
use crate::policy::FileKind;
use crate::wire::{
    Armed, COUNTED_KINDS, FileKey, InForce, RuleAction, SECOND, armed_flag, bytes_of, ruling_flag,
};

/// How many entries a policy has in the tables, or there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(super) keys: u32,
    pub(super) names: u32,
    pub(super) sets: u32,
    pub(super) rules: u32,
    pub(super) prefixes: u32,
    pub(super) ranges: u32,
    /// Processes that have limits of system calls of their own.
    pub(super) purses: u32,
    /// Files that are written; 0 where nobody asks which are.
    pub(super) written: u32,
}

/// Files that are written, where it is not said for how many there is to be room. Up to 80 bytes for each that there is, and 16
/// for each that there could be.
const WRITTEN: u32 = 1 << 18;

/// Room that there is at least for each of two policies. Where entries are made as they come it costs 16 bytes for each.
const LEAST: Entries = Entries {
    keys: 4096,
    names: 4096,
    sets: 1024,
    rules: 1024,
    prefixes: 4096,
    ranges: 1024,
    purses: 1,
    written: 0,
};

impl Entries {
    fn both(self, other: Entries, f: impl Fn(u32, u32) -> u32) -> Entries {
        Entries {
            keys: f(self.keys, other.keys),
            names: f(self.names, other.names),
            sets: f(self.sets, other.sets),
            rules: f(self.rules, other.rules),
            prefixes: f(self.prefixes, other.prefixes),
            ranges: f(self.ranges, other.ranges),
            purses: f(self.purses, other.purses),
            written: f(self.written, other.written),
        }
    }

    /// Room for a policy that needs so many, and for one that takes its place: as many of each as is said, or twice as many
    /// as the first one has.
    pub(crate) fn room(self, later: Option<u32>) -> Entries {
        let room = match later {
            Some(n) => self.both(self, |need, _| need.max(n)),
            None => Entries {
                purses: self.purses,
                ..self.both(LEAST, |need, least| need.saturating_mul(2).max(least))
            },
        };
        Entries {
            written: match self.written {
                0 => 0,
                _ => later.unwrap_or(WRITTEN),
            },
            ..room
        }
    }

    /// Sizes of the maps, both halves together.
    pub(crate) fn sizes(self) -> [(&'static str, u32); 8] {
        let two = |n: u32| n.saturating_mul(2);
        [
            ("stk_keys", two(self.keys)),
            ("stk_names", two(self.names)),
            // The first one says nothing.
            ("stk_sets", two(self.sets).saturating_add(1)),
            ("stk_actions", two(self.rules)),
            ("stk_nets", two(self.prefixes)),
            ("stk_net_ranges", two(self.ranges)),
            ("stk_call_purses", self.purses),
            ("stk_written", self.written.max(1)),
        ]
    }

    /// Whether there is room for so many.
    fn holds(self, needs: Entries) -> Result<()> {
        if needs.written > 0 && self.written == 0 {
            return Err(Error::new(
                ErrorKind::Policy,
                "the policy asks which files were written inside the fence, and this fence was armed without noting them",
            )
            .with_hint("arm it anew"));
        }
        for (room, needed, what) in [
            (self.keys, needs.keys, "files and directories"),
            (self.names, needs.names, "names"),
            (self.sets, needs.sets, "combinations of rules"),
            (self.rules, needs.rules, "rules"),
            (self.prefixes, needs.prefixes, "ranges of addresses"),
            (self.ranges, needs.ranges, "ranges of ports"),
            (
                self.purses,
                needs.purses,
                "processes that have limits of system calls of their own",
            ),
        ] {
            if needed > room {
                return Err(Error::new(
                    ErrorKind::Policy,
                    format!(
                        "the policy needs room for {needed} {what}, and this fence was armed with room for {room}"
                    ),
                )
                .with_hint(format!("arm it anew, with --room {needed} or more")));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

impl Half {
    fn other(self) -> Half {
        match self {
            Half::First => Half::Second,
            Half::Second => Half::First,
        }
    }

    /// As it is said to be in force; 0 is for none.
    fn which(self) -> u32 {
        match self {
            Half::First => 1,
            Half::Second => 2,
        }
    }

    /// As keys have it.
    fn bit(self) -> u32 {
        match self {
            Half::First => 0,
            Half::Second => SECOND,
        }
    }

    fn tags(self) -> &'static str {
        match self {
            Half::First => "stk_tags_first",
            Half::Second => "stk_tags_second",
        }
    }
}

/// Where a policy is put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    half: Half,
    pub(super) epoch: u32,
    room: Entries,
}

impl Turn {
    #[cfg(test)]
    pub(super) fn one() -> Self {
        Turn {
            half: Half::First,
            epoch: 1,
            room: LEAST,
        }
    }

    /// The number that its first entry has in a table with room for so many.
    fn first(self, room: u32) -> u32 {
        match self.half {
            Half::First => 0,
            Half::Second => room,
        }
    }

    /// The number of its first rule, by which denials tell two policies apart.
    pub(super) fn first_rule(self) -> u32 {
        self.first(self.room.rules)
    }

    /// Where a set is; 0, which says nothing, stays that.
    pub(super) fn set(self, number: u32) -> u32 {
        match number {
            0 => 0,
            number => self.first(self.room.sets) + number,
        }
    }

    pub(super) fn first_range(self) -> u32 {
        self.first(self.room.ranges)
    }

    /// The number that the first host has where each half has so many.
    pub(super) fn first_host(self, hosts: u32) -> u32 {
        self.first(hosts)
    }

    pub(super) fn half(self) -> u32 {
        self.half.bit()
    }

    pub(super) fn key(self, key: &FileKey) -> FileKey {
        FileKey {
            dev: key.dev | self.half.bit(),
            ..*key
        }
    }
}

/// Entries of a table that are to be removed.
type Entered = (&'static str, Vec<Vec<u8>>);

/// The tables, and which half of them is in force.
#[derive(Debug)]
pub(super) struct Tables {
    room: Entries,
    armed_at: OwnTable,
    /// As the kernel half was told.
    now: InForce,
    /// Where the last policy was put.
    last: Turn,
    /// What there is in each half.
    entered: [Vec<Entered>; 2],
    /// Whether there are limits of system calls in each half.
    limited_calls: [bool; 2],
    /// The same of rules about them.
    ruled_calls: [bool; 2],
    /// For names: nobody outside can tell which ones meet.
    hash_key: [u64; 2],
    pub(super) hosts: Hosts,
}

impl Tables {
    /// With nothing in force. The objects must be loaded that bring the tables along.
    pub(super) fn new(room: Entries, loader: &Loader) -> Result<Self> {
        let empty = Armed {
            epoch: 0,
            flags: 0,
            hash_key: [0; 2],
            otherwise: 0,
            lost: 0,
            kinds: 0,
            canary_port: 0,
            fileless: 0,
            setuid: 0,
            written: 0,
            half: 0,
            limits: [0; COUNTED_KINDS],
            limit_port: 0,
            hosts: 0,
        };
        Ok(Tables {
            room,
            armed_at: loader.own_map("stk_armed_at")?,
            now: InForce {
                which: 0,
                pad: 0,
                half: [empty; 2],
            },
            last: Turn {
                half: Half::Second,
                epoch: 0,
                room,
            },
            entered: [Vec::new(), Vec::new()],
            limited_calls: [false; 2],
            ruled_calls: [false; 2],
            hash_key: [super::random()?, super::random()?],
            hosts: Hosts::default(),
        })
    }

    /// # Errors
    ///
    /// [`ErrorKind::Policy`]: there is not enough room, with what is missing.
    pub(super) fn have_room(&self, plan: &Plan) -> Result<()> {
        self.hosts.have_room(plan.contacts.hosts())?;
        self.room.holds(plan.entries())
    }

    /// The number of the map that says what is in force.
    pub(super) fn number(&self) -> Result<u32> {
        self.armed_at.id()
    }

    /// The number of the first rule of the policy that was filled in last.
    pub(super) fn first_rule(&self) -> u32 {
        self.last.first_rule()
    }

    /// Puts a policy into the half that is not in force.
    pub(super) fn fill(
        &mut self,
        plan: &Plan,
        canaries: &Canaries,
        loader: &Loader,
        tags: bool,
    ) -> Result<()> {
        let turn = Turn {
            half: match self.now.which {
                which if which == Half::First.which() => Half::Second,
                _ => Half::First,
            },
            // 0 is what a table has that nobody has written to.
            epoch: self.last.epoch.checked_add(1).unwrap_or(1),
            room: self.room,
        };
        self.last = turn;
        for (table, keys) in std::mem::take(&mut self.entered[turn.half as usize]) {
            loader.map(table)?.remove(&keys)?;
        }
        let sets = plan.sets.entries(turn.first_rule());
        let sets: Vec<_> = (turn.set(1)..).zip(sets).collect();
        loader.map("stk_sets")?.set_all(&sets, "a set of rules")?;
        let actions = plan.refusals.iter().map(|refusal| RuleAction {
            error: refusal.errno.into(),
            kill: refusal.kill.into(),
            hits: 0,
        });
        let actions: Vec<_> = (turn.first_rule()..).zip(actions).collect();
        let what = "how a rule refuses";
        loader.map("stk_actions")?.set_all(&actions, what)?;
        if plan.guards_files {
            self.fill_files(plan, canaries, loader, tags)?;
        }
        if !plan.contacts.is_empty() {
            let tables = plan.contacts.tables(&plan.sets, turn);
            let ranges: Vec<_> = (turn.first_range()..).zip(tables.ranges).collect();
            let what = "the rules of ports";
            loader.map("stk_net_ranges")?.set_all(&ranges, what)?;
            self.enter(loader, "stk_nets", &tables.nets, "the rules of addresses")?;
            self.hosts.fill(&tables.hosts, turn, loader)?;
        }
        let exes = plan.subjects.exes(turn);
        let what = "a program that rules name";
        self.enter(loader, "stk_subject_exes", &exes, what)?;
        let uids = plan.subjects.uids(turn);
        self.enter(loader, "stk_subject_uids", &uids, "a user whom rules name")?;
        let were_ruled = &mut self.ruled_calls[turn.half as usize];
        if !plan.calls.is_empty() || *were_ruled {
            let is_second = turn.half == Half::Second;
            let rules = plan.calls.table(is_second, turn.first_rule(), *were_ruled);
            *were_ruled = !plan.calls.is_empty();
            let what = "the rules of a system call";
            loader.map("stk_call_rules")?.set_all(&rules, what)?;
        }
        if !plan.limits.is_empty() || self.limited_calls[turn.half as usize] {
            self.fill_limits(plan, loader)?;
        }
        self.now.half[turn.half as usize] = self.armed(plan, canaries);
        self.tell()
    }

    fn fill_limits(&mut self, plan: &Plan, loader: &Loader) -> Result<()> {
        let turn = self.last;
        let is_second = turn.half == Half::Second;
        let rows = plan.limits.rows(is_second, turn.first_rule(), turn.epoch);
        loader.map("stk_limit_table")?.set_all(&rows, "a limit")?;
        // Nothing can be removed from such a table: what was counted before is written over.
        let were_counted = &mut self.limited_calls[turn.half as usize];
        let calls = plan.limits.calls(is_second, *were_counted);
        *were_counted = plan.limits.counts_calls();
        let what = "the limits of a system call";
        loader.map("stk_limited_calls")?.set_all(&calls, what)
    }

    fn fill_files(
        &mut self,
        plan: &Plan,
        canaries: &Canaries,
        loader: &Loader,
        tags: bool,
    ) -> Result<()> {
        let turn = self.last;
        let mut canary = plan.sets.ruling(&Here::file(canary_rule()), turn);
        canary.flags = ruling_flag::CANARY;
        let mut keys = plan.places.keys(&plan.sets, turn);
        keys.push((turn.key(&canaries.key), canary));
        self.enter(loader, "stk_keys", &keys, "the rules of a file")?;
        let names = plan.places.names(&plan.sets, turn, self.hash_key)?;
        self.enter(loader, "stk_names", &names, "the rules of a name")?;
        if !tags {
            return Ok(());
        }
        // One that is there from before is replaced; one of a file that has no rule any more goes with its inode.
        let tags = loader.map(turn.half.tags())?;
        for target in &plan.targets {
            let fd = target.identity.fd().as_raw_fd();
            let ruling = plan.sets.ruling(&Here::file(target.said.clone()), turn);
            let what = format_args!("the guard of {}", target.identity.path.display());
            tags.set(&fd.to_ne_bytes(), bytes_of(&ruling), what)?;
        }
        let fd = canaries.tag.fd().as_raw_fd();
        tags.set(&fd.to_ne_bytes(), bytes_of(&canary), "the canary's tag")
    }

    /// Enters what is not written over by the next policy.
    fn enter<K: plain::Plain, V: plain::Plain>(
        &mut self,
        loader: &Loader,
        table: &'static str,
        entries: &[(K, V)],
        what: &str,
    ) -> Result<()> {
        // The object that has the table may not be there.
        if entries.is_empty() {
            return Ok(());
        }
        let keys = entries.iter().map(|(key, _)| bytes_of(key).to_vec());
        // Noted first: some may be there when another one is refused.
        self.entered[self.last.half as usize].push((table, keys.collect()));
        loader.map(table)?.set_all(entries, what)
    }

    fn armed(&self, plan: &Plan, canaries: &Canaries) -> Armed {
        let turn = self.last;
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let set = |said: &Said| turn.set(plan.sets.number(said));
        let [fileless, setuid, written] =
            FileKind::ALL.map(|kind| set(&plan.of_kinds[kind as usize]));
        Armed {
            epoch: turn.epoch,
            flags: flag(plan.places.has_names(), armed_flag::NAMES)
                | flag(plan.places.has_below(), armed_flag::BELOW)
                | flag(plan.otherwise != Said::NOTHING, armed_flag::OTHERWISE)
                | flag(fileless | setuid | written != 0, armed_flag::KINDS)
                | flag(plan.calls.are_traced(), armed_flag::TRACED)
                | flag(plan.subjects.classes > 1, armed_flag::SUBJECTS)
                | flag(plan.keeps_apart, armed_flag::APART),
            hash_key: self.hash_key,
            otherwise: set(&plan.elsewhere),
            lost: set(&plan.lost),
            kinds: plan.contacts.kinds.bits(),
            canary_port: match plan.contacts.is_empty() {
                true => 0,
                false => canaries.network.port().into(),
            },
            fileless,
            setuid,
            written,
            half: turn.half(),
            limits: plan.limits.counting,
            limit_port: match plan.limits.is_empty() {
                true => 0,
                false => canaries.limit.port().into(),
            },
            hosts: match plan.contacts.hosts().len() {
                0 => 0,
                _ => self.hosts.count(),
            },
        }
    }

    /// Puts in force what was filled in last.
    pub(super) fn flip(&mut self) -> Result<()> {
        self.switch(self.last.half.which())
    }

    /// Puts in force what was so before.
    pub(super) fn flip_back(&mut self) -> Result<()> {
        self.switch(self.last.half.other().which())
    }

    /// Puts nothing in force.
    pub(super) fn disarm(&mut self) -> Result<()> {
        self.switch(0)
    }

    fn switch(&mut self, which: u32) -> Result<()> {
        // What was written before is there for whoever sees this.
        fence(Ordering::SeqCst);
        self.now.which = which;
        self.tell()
    }

    fn tell(&self) -> Result<()> {
        let zero = 0u32.to_ne_bytes();
        self.armed_at
            .set(&zero, bytes_of(&self.now), "arming the fence")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(n: u32) -> Entries {
        Entries {
            keys: n,
            names: n,
            sets: n,
            rules: n,
            prefixes: n,
            ranges: n,
            purses: n,
            written: 0,
        }
    }

    #[test]
    fn there_is_room_for_another_policy() {
        assert_eq!(some(1).room(None), LEAST);
        let twice = Entries {
            purses: 5000,
            ..some(10_000)
        };
        assert_eq!(some(5000).room(None), twice);
        assert_eq!(some(5000).room(Some(10)), some(5000));
        assert_eq!(some(5).room(Some(10)), some(10));
        assert_eq!(some(u32::MAX).room(None).sizes()[2].1, u32::MAX);
        let few = Entries {
            names: 3,
            ..some(9)
        };
        assert!(few.holds(few).is_ok());
        let error = few.holds(some(4)).unwrap_err();
        assert!(error.to_string().contains("room for 4 names"), "{error}");
        assert!(error.hint().unwrap().contains("--room 4"));
    }

    #[test]
    fn there_is_room_for_what_is_written_where_somebody_asks() {
        let asks = Entries {
            written: 1,
            ..some(1)
        };
        assert_eq!(asks.room(None).written, WRITTEN);
        assert_eq!(asks.room(Some(10)).written, 10);
        let (_, size) = some(1).room(Some(10)).sizes()[7];
        assert_eq!(size, 1);
        assert!(asks.room(Some(10)).holds(asks).is_ok());
        let error = some(1).room(None).holds(asks).unwrap_err();
        assert!(error.to_string().contains("without noting them"), "{error}");
    }

    #[test]
    fn the_halves_have_nothing_in_common() {
        let turn = |half| Turn {
            half,
            epoch: 1,
            room: some(10),
        };
        let (first, second) = (turn(Half::First), turn(Half::Second));
        assert_eq!((first.first_rule(), second.first_rule()), (0, 10));
        assert_eq!((first.set(0), second.set(0)), (0, 0));
        assert_eq!((first.set(10), second.set(1)), (10, 11));
        assert_eq!(second.set(10), some(10).sizes()[2].1 - 1);
        let key = FileKey {
            ino: 1,
            // The largest that a kernel gives.
            dev: 511 << 20 | 0xf_ffff,
            generation: 3,
        };
        assert_eq!(first.key(&key), key);
        assert_eq!(second.key(&key).dev, key.dev + SECOND);
    }
}
