//! Whom the rules of a policy tell apart, in the kernel's terms: programs by their files, and users.
//!
//! Programs that no rule tells apart are one group, and so are users. Who asks is of a class: one for each group of programs
//! and each group of users. Everything that rules say is said to each class by itself.

use std::path::{Path, PathBuf};

use super::identity::{Identity, Known, Opened, Strength, open_program};
use super::tables::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Actor, Mode, RuleSet, Subject, Who, place};
use crate::wire::{FileKey, UserKey};

/// So many fit beside a kind of access.
const MOST_CLASSES: usize = 64;
/// Entries that one policy may have in each table: half of `SUBJECTS_MAX`.
const MOST: usize = 512;

/// Some of the classes of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Classes {
    /// One bit for each.
    meant: u64,
    /// How many there are.
    of: usize,
}

impl Classes {
    /// Everybody, of however many classes.
    pub(super) const EVERYBODY: Classes = Classes {
        meant: u64::MAX,
        of: 1,
    };

    /// How many classes there are to tell apart; 1 where it is everybody.
    pub(super) fn of(self) -> usize {
        self.of
    }

    pub(super) fn contains(self, class: usize) -> bool {
        self.meant & (1 << class) != 0
    }
}

/// A program that rules name, by whatever paths.
#[derive(Debug)]
struct Program {
    paths: Vec<PathBuf>,
    opened: Opened,
}

/// The classes of a policy.
#[derive(Debug)]
pub(super) struct Subjects {
    /// Programs, and the group that each is in; a group adds so much to the number of a class.
    programs: Vec<(Program, usize)>,
    users: Vec<(u32, usize)>,
    /// One program of each group by all of its paths, and one user of each; none in the first one.
    groups: (Vec<Vec<PathBuf>>, Vec<Option<u32>>),
}

impl Subjects {
    /// Opens the programs that rules name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`]: one cannot be opened, or there are too many to tell apart.
    pub(super) fn open(rules: &RuleSet) -> Result<Self> {
        // Of many rules few are about somebody by himself.
        let files = rules.rules.iter().filter(|r| !r.subject.is_everybody());
        let files = files.map(|rule| (&rule.subject, place(rule)));
        let network = rules.network.iter().filter(|r| !r.subject.is_everybody());
        let network = network.map(|rule| (&rule.subject, place(rule)));
        let mut programs: Vec<Program> = Vec::new();
        let mut uids: Vec<u32> = Vec::new();
        let mut whos: Vec<&Who> = Vec::new();
        for (subject, place) in files.chain(network) {
            for who in subject.lists() {
                if !whos.contains(&who) {
                    whos.push(who);
                }
                uids.extend(&who.uid);
                for path in &who.exe {
                    if programs.iter().any(|known| known.paths.contains(path)) {
                        continue;
                    }
                    let opened = open_program(&place, path)?;
                    let same = programs
                        .iter_mut()
                        .find(|known| known.opened.stat() == opened.stat());
                    match same {
                        Some(known) => known.paths.push(path.clone()),
                        None => programs.push(Program {
                            paths: vec![path.clone()],
                            opened,
                        }),
                    }
                }
            }
        }
        uids.sort_unstable();
        uids.dedup();
        if programs.len().max(uids.len()) > MOST {
            return Err(Error::new(
                ErrorKind::Policy,
                format!("the rules are about more than {MOST} programs or users of their own"),
            )
            .with_hint("name the users that all of them run as, or cut the policy into several"));
        }
        // Who is in the same lists is in one group.
        let mut exe_groups: Vec<(Vec<bool>, Vec<PathBuf>)> =
            vec![(vec![false; whos.len()], Vec::new())];
        let mut uid_groups: Vec<(Vec<bool>, Option<u32>)> = vec![(vec![false; whos.len()], None)];
        let programs = programs.into_iter().map(|program| {
            let named = |who: &&Who| program.paths.iter().any(|path| who.exe.contains(path));
            let lists: Vec<bool> = whos.iter().map(named).collect();
            let group = group_of(&mut exe_groups, lists, || program.paths.clone());
            (program, group)
        });
        let programs: Vec<(Program, usize)> = programs.collect();
        let users = uids.into_iter().map(|uid| {
            let lists: Vec<bool> = whos.iter().map(|who| who.uid.contains(&uid)).collect();
            (uid, group_of(&mut uid_groups, lists, || Some(uid)))
        });
        let users: Vec<(u32, usize)> = users.collect();
        let subjects = Subjects {
            programs,
            users,
            groups: (
                exe_groups.into_iter().map(|(_, paths)| paths).collect(),
                uid_groups.into_iter().map(|(_, uid)| uid).collect(),
            ),
        };
        let classes = subjects.count();
        if classes > MOST_CLASSES {
            return Err(Error::new(
                ErrorKind::Policy,
                format!(
                    "the rules tell {classes} kinds of subjects apart, and {MOST_CLASSES} is the most"
                ),
            )
            .with_hint("name the same programs and users in more of the rules"));
        }
        Ok(subjects)
    }

    /// How many classes there are; 1 where no rule is about anybody by himself.
    pub(super) fn count(&self) -> usize {
        self.groups.0.len() * self.groups.1.len()
    }

    /// Those whom a rule is about.
    pub(super) fn classes(&self, subject: &Subject) -> Classes {
        if subject.is_everybody() {
            return Classes::EVERYBODY;
        }
        let (exes, uids) = &self.groups;
        let all = exes
            .iter()
            .flat_map(|paths| uids.iter().map(move |uid| (paths, *uid)));
        let meant = all.enumerate().filter(|(_, (paths, uid))| {
            let is = |who: &Who| is_one_of(who, paths, *uid);
            subject.by.as_ref().is_none_or(is) && !subject.not_by.as_ref().is_some_and(is)
        });
        Classes {
            meant: meant.fold(0, |meant, (class, _)| meant | 1 << class),
            of: self.count(),
        }
    }

    /// Of somebody who runs the program with this device and inode, as stat(2) has them, as this user.
    pub(super) fn class_of(&self, exe: Option<(u64, u64)>, uid: Option<u32>) -> usize {
        let program = self.programs.iter();
        let program = program
            .filter(|(program, _)| exe == Some(program.opened.stat()))
            .map(|(_, group)| self.program_adds(*group));
        let user = self.users.iter().filter(|(user, _)| uid == Some(*user));
        program.sum::<usize>() + user.map(|(_, group)| group).sum::<usize>()
    }

    fn program_adds(&self, group: usize) -> usize {
        group * self.groups.1.len()
    }

    /// What the kernel half gets to know.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnforced`]: a program has no identity of its own.
    pub(super) fn identify(self, known: &Known) -> Result<Named> {
        let classes = self.count();
        let uids = self.users.iter().map(|(uid, group)| (*uid, *group));
        let uids = uids
            .map(|(uid, group)| (uid, super::count(group)))
            .collect();
        let by_exe = self.groups.1.len();
        let mut exes = Vec::new();
        for (program, group) in self.programs {
            let path = program.paths[0].display().to_string();
            let found = Identity::found(program.opened, known)?;
            match found {
                Some(file) if file.strength == Strength::Exact => {
                    exes.push((file.key, super::count(group * by_exe)));
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::NotEnforced,
                        format!("the program {path} is on a file system where several files can have one identity, so that nobody can tell who runs it; nothing is armed"),
                    )
                    .with_hint("put it on ext4, xfs or tmpfs; or say whom the rule is about by \"uid\""));
                }
            }
        }
        Ok(Named {
            exes,
            uids,
            classes,
        })
    }
}

/// Programs and users that have a group of their own, and what that adds to the number of a class.
#[derive(Debug)]
pub(super) struct Named {
    exes: Vec<(FileKey, u32)>,
    uids: Vec<(u32, u32)>,
    /// How many classes there are.
    pub(super) classes: usize,
}

impl Named {
    /// Entries of `stk_subject_exes`.
    pub(super) fn exes(&self, turn: Turn) -> Vec<(FileKey, u32)> {
        let entries = self.exes.iter();
        entries.map(|(key, adds)| (turn.key(key), *adds)).collect()
    }

    /// Entries of `stk_subject_uids`.
    pub(super) fn uids(&self, turn: Turn) -> Vec<(UserKey, u32)> {
        let half = turn.half();
        let entries = self.uids.iter();
        let entry = |(uid, adds): &(u32, u32)| (UserKey { uid: *uid, half }, *adds);
        entries.map(entry).collect()
    }
}

/// Whether a rule that is enforced tells programs apart.
pub(super) fn keeps_apart(rules: &RuleSet) -> bool {
    let files = rules.rules.iter().map(|rule| (rule.mode, &rule.subject));
    let network = rules.network.iter().map(|rule| (rule.mode, &rule.subject));
    let mut all = files.chain(network);
    all.any(|(mode, subject)| {
        mode == Mode::Enforce && subject.lists().any(|who| !who.exe.is_empty())
    })
}

/// Whether it is one of them, whose program has these paths.
fn is_one_of(who: &Who, paths: &[PathBuf], uid: Option<u32>) -> bool {
    let mut actor = Actor::ANYBODY;
    if let Some(uid) = uid {
        actor = actor.user(uid);
    }
    let running = |path: &PathBuf| who.includes(&actor.running(Path::new(path)));
    match paths {
        [] => who.includes(&actor),
        paths => paths.iter().any(running),
    }
}

/// The group of who is in these lists; the first one is of who is in none.
fn group_of<T>(
    groups: &mut Vec<(Vec<bool>, T)>,
    lists: Vec<bool>,
    one: impl FnOnce() -> T,
) -> usize {
    let known = groups.iter().position(|(of, _)| *of == lists);
    known.unwrap_or_else(|| {
        groups.push((lists, one()));
        groups.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Environment;

    fn set(subjects: &[&str]) -> RuleSet {
        let env = Environment::new(None, "/".into());
        let rules = (0..).zip(subjects).map(|(n, subject)| {
            format!("  - {{ id: r{n}, deny: [read], paths: [/x], {subject} }}\n")
        });
        let text = format!("version: 1\nfiles:\n{}", rules.collect::<String>());
        RuleSet::parse(&text, "p", &env).unwrap()
    }

    #[test]
    fn each_class_is_told_apart_and_no_more_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["a", "b", "c"] {
            std::fs::write(path(name), name).unwrap();
        }
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let (a, b, c, link) = (path("a"), path("b"), path("c"), path("link"));
        let set = set(&[
            &format!("by: {{ exe: ['{a}', '{b}'] }}"),
            &format!("not_by: {{ exe: '{c}', uid: [0, 7] }}"),
            &format!("by: {{ exe: '{link}' }}"),
        ]);
        let subjects = Subjects::open(&set).unwrap();
        // Nobody, a with its link, b, and c; nobody, and the two users together.
        assert_eq!(subjects.count(), 8);
        let stat = |path: &str| {
            use std::os::unix::fs::MetadataExt as _;
            let about = std::fs::metadata(path).unwrap();
            Some((about.dev(), about.ino()))
        };
        let meant = |rule: usize| {
            let classes = subjects.classes(&set.rules[rule].subject);
            [
                (None, None),
                (stat(&a), None),
                (stat(&b), Some(7)),
                (stat(&c), None),
                (stat(&c), Some(0)),
            ]
            .map(|(exe, uid)| classes.contains(subjects.class_of(exe, uid)))
        };
        assert_eq!(meant(0), [false, true, true, false, false]);
        assert_eq!(meant(1), [true, true, true, true, false]);
        assert_eq!(meant(2), [false, true, false, false, false]);
    }

    #[test]
    fn who_cannot_be_found_and_too_many_are_refused() {
        let error = Subjects::open(&set(&["by: { exe: /nowhere/ssh }"])).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/ssh does not exist"),
            "{error}"
        );
        assert!(error.to_string().starts_with("rule r0 (line 3)"), "{error}");
        let uids: Vec<String> = (0..64).map(|uid| format!("by: {{ uid: {uid} }}")).collect();
        let rules: Vec<&str> = uids.iter().map(String::as_str).collect();
        let error = Subjects::open(&set(&rules)).unwrap_err();
        assert!(
            error.to_string().contains("65 kinds of subjects"),
            "{error}"
        );
        assert_eq!(Subjects::open(&set(&rules[..63])).unwrap().count(), 64);
    }
}
