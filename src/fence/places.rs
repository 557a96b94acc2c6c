//! Where the rules hold, in the kernel's terms: files, names in directories, and all below a directory.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::subjects::Classes;
use super::tables::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Access, Effect, FileRule, Mode};
use crate::wire::{
    ACCESS_KINDS, FileKey, HASHED_PIECE, NameKey, RULE_CANARY, RULE_NONE, RuleNumbers, Ruling,
    ruling_flag,
};

/// A rule and what it is worth: the stronger one has the smaller number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voice {
    number: u32,
    effect: Effect,
    mode: Mode,
    to: Classes,
}

impl Voice {
    /// A rule about everybody.
    pub(super) fn new(number: u32, effect: Effect, mode: Mode) -> Self {
        Voice {
            number,
            effect,
            mode,
            to: Classes::EVERYBODY,
        }
    }

    /// The same about these alone.
    pub(super) fn to(self, to: Classes) -> Self {
        Voice { to, ..self }
    }

    /// As a set has it: doubled, and 1 more for a rule that allows.
    fn code(self) -> u32 {
        self.number << 1 | u32::from(self.effect == Effect::Allow)
    }
}

/// What is said to somebody about one object, kind by kind: by the strongest rule that is enforced, and by the strongest of
/// all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Codes {
    enforced: [u32; ACCESS_KINDS],
    all: [u32; ACCESS_KINDS],
}

impl Codes {
    const NONE: Codes = Codes {
        enforced: [RULE_NONE; ACCESS_KINDS],
        all: [RULE_NONE; ACCESS_KINDS],
    };

    fn add(&mut self, code: u32, mode: Mode, access: Access) {
        for bit in 0..ACCESS_KINDS {
            if access.bits() & (1 << bit) == 0 {
                continue;
            }
            self.all[bit] = self.all[bit].min(code);
            if mode == Mode::Enforce {
                self.enforced[bit] = self.enforced[bit].min(code);
            }
        }
    }

    fn map(&self, f: impl Fn(u32) -> u32) -> Codes {
        Codes {
            enforced: self.enforced.map(&f),
            all: self.all.map(&f),
        }
    }

    fn both(&self, other: &Codes) -> Codes {
        let stronger = |mine: [u32; ACCESS_KINDS], theirs: [u32; ACCESS_KINDS]| {
            std::array::from_fn(|kind| mine[kind].min(theirs[kind]))
        };
        Codes {
            enforced: stronger(self.enforced, other.enforced),
            all: stronger(self.all, other.all),
        }
    }
}

/// What is said about one object: nothing, the same to everybody, or by the class of who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Said(Vec<Codes>);

impl Said {
    pub(super) const NOTHING: Said = Said(Vec::new());

    /// Adds a rule. Which one decides is a matter of their numbers, and not of the order in which they are added.
    pub(super) fn add(&mut self, voice: Voice, access: Access) {
        self.add_code(voice.code(), voice, access);
    }

    /// Adds that what a rule allows elsewhere is denied.
    pub(super) fn add_rest(&mut self, voice: Voice, access: Access) {
        self.add_code(voice.number << 1, voice, access);
    }

    fn add_code(&mut self, code: u32, voice: Voice, access: Access) {
        self.tell_apart(voice.to.of());
        for (class, codes) in self.0.iter_mut().enumerate() {
            if voice.to.contains(class) {
                codes.add(code, voice.mode, access);
            }
        }
    }

    /// Says it to each of so many classes.
    fn tell_apart(&mut self, classes: usize) {
        if self.0.len() < classes {
            let so_far = self.to(0);
            self.0.resize(classes, so_far);
        }
    }

    /// What is said to one class.
    fn to(&self, class: usize) -> Codes {
        let one = self.0.get(class).or(self.0.first());
        one.copied().unwrap_or(Codes::NONE)
    }

    /// Only what denies.
    fn refusals(&self) -> Said {
        let denies = |code: u32| if code & 1 == 0 { code } else { RULE_NONE };
        Said(self.0.iter().map(|codes| codes.map(denies)).collect())
    }

    pub(super) fn both(&self, other: &Said) -> Said {
        let classes = self.0.len().max(other.0.len());
        let both = (0..classes).map(|class| self.to(class).both(&other.to(class)));
        Said(both.collect())
    }

    /// The rule that refuses this kind of access to a class, of those that are enforced, as `refusals()` in the kernel half
    /// finds it; `otherwise` is said where nothing is said here.
    pub(super) fn refused_by(&self, otherwise: &Said, class: usize, kind: usize) -> Option<u32> {
        let code = match self.to(class).enforced[kind] {
            RULE_NONE => otherwise.to(class).enforced[kind],
            code => code,
        };
        let allowed = code & 1 == 1;
        (!allowed).then_some(code >> 1)
    }

    /// As the kernel half has it for each of so many classes, where the first rule of the policy has this number.
    pub(super) fn numbers(&self, first: u32, classes: usize) -> impl Iterator<Item = RuleNumbers> {
        let moved = move |code: u32| match code >> 1 {
            _ if code == RULE_NONE => code,
            RULE_CANARY => code,
            number => (number + first) << 1 | (code & 1),
        };
        (0..classes).map(move |class| {
            let Codes { enforced, all } = self.to(class).map(moved);
            RuleNumbers { enforced, all }
        })
    }
}

/// What is said at one place.
#[derive(Debug, Clone)]
pub(super) struct Here {
    /// About the file, or whatever has the name.
    pub(super) own: Said,
    /// About all that is in the directory.
    pub(super) below: Said,
    /// Lengths of names in the directory that have rules, as [`ruling_flag::LENGTHS`] tells them.
    lengths: u32,
}

impl Here {
    pub(super) const NOTHING: Here = Here {
        own: Said::NOTHING,
        below: Said::NOTHING,
        lengths: 0,
    };

    /// Of a file that nothing else is said about.
    pub(super) fn file(own: Said) -> Self {
        Here {
            own,
            ..Here::NOTHING
        }
    }
}

/// Everything that is ruled, but for what only inode tags can tell apart.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: HashMap<FileKey, Here>,
    names: HashMap<(FileKey, Vec<u8>), Here>,
    below: bool,
}

impl Places {
    /// About one file, by its key.
    pub(super) fn file(&mut self, key: &FileKey) -> &mut Said {
        &mut self.at(key).own
    }

    /// About all that is in a directory.
    pub(super) fn below(&mut self, key: &FileKey) -> &mut Said {
        self.below = true;
        &mut self.at(key).below
    }

    /// About whatever has this name in a directory, or about all that is below that.
    pub(super) fn name(&mut self, directory: &FileKey, name: &[u8], below: bool) -> &mut Said {
        self.below |= below;
        self.at(directory).lengths |= 1 << (ruling_flag::LENGTHS + (name.len() & 15) as u32);
        let key = (*directory, name.to_owned());
        let here = self.names.entry(key).or_insert(Here::NOTHING);
        if below {
            &mut here.below
        } else {
            &mut here.own
        }
    }

    /// The directories on the way to what a rule is about stay where they are.
    pub(super) fn pin<'a>(
        &mut self,
        directories: impl IntoIterator<Item = &'a FileKey>,
        voice: Voice,
        rule: &FileRule,
    ) {
        let pinned = Access::ALL.kinds().filter(|kind| rule.pins(*kind));
        let Some(access) = pinned.reduce(|a, b| a | b) else {
            return;
        };
        for key in directories {
            self.at(key).own.add(voice, access);
        }
    }

    /// What is said about a file that is there, but for what its tag says.
    pub(super) fn about(&self, key: &FileKey, name: &[u8], above: &[FileKey]) -> Said {
        let own = self.keys.get(key).map(|here| &here.own);
        let named = above.first().and_then(|directory| {
            let here = self.names.get(&(*directory, name.to_owned()))?;
            Some(&here.own)
        });
        let below = above
            .iter()
            .filter_map(|directory| self.keys.get(directory));
        let all = own
            .into_iter()
            .chain(named)
            .chain(below.map(|here| &here.below));
        all.fold(Said::NOTHING, |all, said| all.both(said))
    }

    fn at(&mut self, key: &FileKey) -> &mut Here {
        self.keys.entry(*key).or_insert(Here::NOTHING)
    }

    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    pub(super) fn has_below(&self) -> bool {
        self.below
    }

    pub(super) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// What is refused somewhere of all that is in a directory.
    pub(super) fn refused_below(&self) -> Said {
        let everywhere = self.keys.values().chain(self.names.values());
        everywhere.fold(Said::NOTHING, |all, here| all.both(&here.below.refusals()))
    }

    /// All that is said, for [`Sets`].
    pub(super) fn said(&self) -> impl Iterator<Item = &Said> {
        let all = self.keys.values().chain(self.names.values());
        all.flat_map(|here| [&here.own, &here.below])
    }

    /// Entries of `stk_keys`.
    pub(super) fn keys(&self, sets: &Sets, turn: Turn) -> Vec<(FileKey, Ruling)> {
        let entry = |(key, here): (&FileKey, &Here)| (turn.key(key), sets.ruling(here, turn));
        self.keys.iter().map(entry).collect()
    }

    /// Entries of `stk_names`. Two names with one hash would have each other's rules.
    pub(super) fn names(
        &self,
        sets: &Sets,
        turn: Turn,
        hash_key: [u64; 2],
    ) -> Result<Vec<(NameKey, Ruling)>> {
        let mut met = HashSet::new();
        let entry = |((dir, name), here): (&(FileKey, Vec<u8>), &Here)| {
            let hash = hash_of(name, hash_key);
            if !met.insert((*dir, hash)) {
                return Err(Error::new(
                    ErrorKind::Policy,
                    "two names in one directory have the same hash; start again, with another key",
                ));
            }
            let dir = turn.key(dir);
            Ok((NameKey { dir, hash }, sets.ruling(here, turn)))
        };
        self.names.iter().map(entry).collect()
    }
}

/// As `hash_of_name()` in the kernel half has it.
fn hash_of(name: &[u8], key: [u64; 2]) -> u64 {
    name.chunks(HASHED_PIECE).fold(0, |hash, piece| {
        let mut hasher = SipHasher13::new_with_keys(key[0] ^ hash, key[1]);
        hasher.write(piece);
        hasher.finish()
    })
}

/// All that is said, each once: most files of a policy have the same.
#[derive(Debug)]
pub(super) struct Sets {
    numbers: HashMap<Said, u32>,
    all: Vec<Said>,
    /// To how many it is said.
    classes: usize,
}

impl Sets {
    pub(super) fn new<'a>(said: impl Iterator<Item = &'a Said>, classes: usize) -> Self {
        let mut sets = Sets {
            numbers: HashMap::new(),
            all: Vec::new(),
            classes,
        };
        for said in said {
            if *said == Said::NOTHING || sets.numbers.contains_key(said) {
                continue;
            }
            // A map's size is a u32; the loader says so when there are more.
            let number = u32::try_from(sets.len() + 1).unwrap_or(u32::MAX);
            sets.all.push(said.clone());
            sets.numbers.insert(said.clone(), number);
        }
        sets
    }

    /// How many entries they have in the kernel half: one to each class.
    pub(super) fn len(&self) -> usize {
        self.all.len() * self.classes
    }

    /// Entries of `stk_sets` in their order, where the first rule of the policy has this number.
    pub(super) fn entries(&self, first_rule: u32) -> impl Iterator<Item = RuleNumbers> {
        let all = self.all.iter();
        all.flat_map(move |said| said.numbers(first_rule, self.classes))
    }

    /// The number of the first of its entries, from 1; 0 for nothing.
    pub(super) fn number(&self, said: &Said) -> u32 {
        self.numbers.get(said).copied().unwrap_or(0)
    }

    pub(super) fn ruling(&self, here: &Here, turn: Turn) -> Ruling {
        Ruling {
            epoch: turn.epoch,
            flags: here.lengths,
            own: turn.set(self.number(&here.own)),
            below: turn.set(self.number(&here.below)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deny(number: u32, mode: Mode) -> Voice {
        Voice::new(number, Effect::Deny, mode)
    }

    #[test]
    fn the_strongest_rule_decides_whatever_the_order() {
        let mut said = Said::NOTHING;
        said.add(deny(5, Mode::Enforce), Access::READ | Access::WRITE);
        said.add(deny(3, Mode::Audit), Access::READ);
        said.add(Voice::new(4, Effect::Allow, Mode::Enforce), Access::READ);
        said.add(deny(6, Mode::Audit), Access::READ);
        assert_eq!(said.to(0).enforced[..3], [9, 10, RULE_NONE]);
        assert_eq!(said.to(0).all[..2], [6, 10]);
        assert_eq!(said.refusals().to(0).enforced[..2], [RULE_NONE, 10]);
    }

    #[test]
    fn what_is_said_twice_is_one_set() {
        let key = |ino| FileKey {
            ino,
            dev: 1,
            generation: 0,
        };
        let mut places = Places::default();
        for ino in 0..3 {
            places
                .file(&key(ino))
                .add(deny(7, Mode::Enforce), Access::READ);
        }
        places
            .name(&key(9), b"x", false)
            .add(deny(7, Mode::Enforce), Access::READ);
        let sets = Sets::new(places.said(), 1);
        assert_eq!(sets.len(), 1);
        let keys = places.keys(&sets, Turn::one());
        assert_eq!(keys.len(), 4);
        for (key, ruling) in keys {
            let expected = if key.ino == 9 {
                (0, 1 << (ruling_flag::LENGTHS + 1))
            } else {
                (1, 0)
            };
            assert_eq!((ruling.own, ruling.flags), expected);
        }
        assert!(!places.has_below() && places.has_names());
        places.name(&key(9), b"x", true);
        assert!(places.has_below());
    }
}
