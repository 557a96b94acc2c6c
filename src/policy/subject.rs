//! Whom a rule is about: programs by the file that they run, and users.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::RuleSet;

/// Whom a rule is about; without either word it is about everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Subject {
    /// Only these; `None`: everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Who>,
    /// But not these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_by: Option<Who>,
}

/// Some processes: those that run one of these programs, and that as one of these users. An empty list leaves it open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Who {
    /// Absolute paths of programs: of the files that execve(2) was given, or of interpreters where those were scripts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exe: Vec<PathBuf>,
    /// Effective user ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid: Vec<u32>,
}

/// Who accesses something, as far as that matters to rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Actor<'a> {
    /// The program that it runs, absolute and with links resolved; `None`: one that no rule names.
    pub exe: Option<&'a Path>,
    /// The effective user id; `None`: one that no rule names.
    pub uid: Option<u32>,
}

impl<'a> Actor<'a> {
    /// Somebody whom no rule names.
    pub const ANYBODY: Actor<'static> = Actor {
        exe: None,
        uid: None,
    };

    /// Somebody who runs this program.
    #[must_use]
    pub fn running(self, exe: &'a Path) -> Self {
        Actor {
            exe: Some(exe),
            ..self
        }
    }

    /// Somebody who is this user.
    #[must_use]
    pub fn user(self, uid: u32) -> Self {
        Actor {
            uid: Some(uid),
            ..self
        }
    }
}

/// An [`Actor`] that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Doer {
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<PathBuf>,
    /// The effective user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl Doer {
    /// The same, lent.
    #[must_use]
    pub fn actor(&self) -> Actor<'_> {
        Actor {
            exe: self.exe.as_deref(),
            uid: self.uid,
        }
    }
}

impl From<Actor<'_>> for Doer {
    fn from(actor: Actor<'_>) -> Self {
        Doer {
            exe: actor.exe.map(Path::to_owned),
            uid: actor.uid,
        }
    }
}

impl fmt::Display for Doer {
    /// As `/usr/bin/ssh`, `uid 0`, or `/usr/bin/ssh as uid 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.exe, self.uid) {
            (Some(exe), Some(uid)) => write!(f, "{} as uid {uid}", exe.display()),
            (Some(exe), None) => exe.display().fmt(f),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("anybody"),
        }
    }
}

impl Who {
    /// Whether it is one of them.
    #[must_use]
    pub fn includes(&self, actor: &Actor<'_>) -> bool {
        let runs = self.exe.is_empty() || self.exe.iter().any(|exe| actor.exe == Some(exe));
        runs && (self.uid.is_empty() || actor.uid.is_some_and(|uid| self.uid.contains(&uid)))
    }
}

impl Subject {
    /// Whether a rule of this subject is about what that one does.
    #[must_use]
    pub fn includes(&self, actor: &Actor<'_>) -> bool {
        self.by.as_ref().is_none_or(|who| who.includes(actor))
            && !self.not_by.as_ref().is_some_and(|who| who.includes(actor))
    }

    /// Whether it is everybody.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        *self == Subject::default()
    }

    /// Both lists, in their order.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Who> {
        self.by.iter().chain(&self.not_by)
    }
}

impl RuleSet {
    /// Whom the rules are about, as far as they say so.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        let files = self.rules.iter().map(|rule| &rule.subject);
        let network = self.network.iter().map(|rule| &rule.subject);
        let all = files.chain(network);
        all.filter(|subject| !subject.is_everybody())
    }

    /// Whom rules tell apart: first those whom no rule names, then each program and each user that some rule does; and both
    /// together where a rule says to them what it says to neither of them alone.
    #[must_use]
    pub fn actors(&self) -> Vec<Actor<'_>> {
        actors(self.subjects())
    }

    /// What is said to this one: the rules that are about what he does, as rules about everybody.
    pub(super) fn said_to(&self, actor: &Actor<'_>) -> RuleSet {
        let mut set = self.clone();
        set.rules.retain(|rule| rule.subject.includes(actor));
        set.network.retain(|rule| rule.subject.includes(actor));
        for rule in &mut set.rules {
            rule.subject = Subject::default();
        }
        for rule in &mut set.network {
            rule.subject = Subject::default();
        }
        set
    }
}

/// As [`RuleSet::actors`], of several sets.
pub(super) fn actors<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Vec<Actor<'a>> {
    let subjects: Vec<&Subject> = subjects.collect();
    let (mut exes, mut uids): (Vec<Option<&Path>>, Vec<Option<u32>>) = (vec![None], vec![None]);
    for who in subjects.iter().copied().flat_map(Subject::lists) {
        exes.extend(who.exe.iter().map(|exe| Some(exe.as_path())));
        uids.extend(who.uid.iter().map(|uid| Some(*uid)));
    }
    exes.sort_unstable();
    exes.dedup();
    uids.sort_unstable();
    uids.dedup();
    let all = exes
        .into_iter()
        .flat_map(|exe| uids.iter().map(move |&uid| Actor { exe, uid }));
    let is_told_apart = |actor: &Actor<'_>| {
        let Actor {
            exe: Some(_),
            uid: Some(_),
        } = actor
        else {
            return true;
        };
        subjects.iter().any(|subject| {
            let of_exe = subject.includes(&Actor {
                uid: None,
                ..*actor
            });
            let of_uid = subject.includes(&Actor {
                exe: None,
                ..*actor
            });
            let alone = if of_exe == subject.includes(&Actor::ANYBODY) {
                of_uid
            } else {
                of_exe
            };
            alone != subject.includes(actor)
        })
    };
    all.filter(is_told_apart).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(exe: &[&str], uid: &[u32]) -> Option<Who> {
        Some(Who {
            exe: exe.iter().map(PathBuf::from).collect(),
            uid: uid.to_vec(),
        })
    }

    #[test]
    fn who_is_named_is_meant_and_who_is_excepted_is_not() {
        let ssh = Actor::ANYBODY.running(Path::new("/ssh"));
        let root = Actor::ANYBODY.user(0);
        let both = ssh.user(0);
        let means = |by, not_by| {
            let subject = Subject { by, not_by };
            [Actor::ANYBODY, ssh, root, both].map(|actor| subject.includes(&actor))
        };
        assert_eq!(means(None, None), [true; 4]);
        let by_ssh = [false, true, false, true];
        assert_eq!(means(who(&["/git", "/ssh"], &[]), None), by_ssh);
        assert_eq!(means(None, who(&["/ssh"], &[])), by_ssh.map(|is| !is));
        assert_eq!(
            means(who(&["/ssh"], &[0]), None),
            [false, false, false, true]
        );
        assert_eq!(
            means(who(&["/ssh"], &[]), who(&[], &[0])),
            [false, true, false, false]
        );
    }

    #[test]
    fn actors_are_all_who_can_be_told_apart() {
        let subjects = [
            Subject {
                by: who(&["/b", "/a"], &[]),
                not_by: who(&[], &[7]),
            },
            Subject {
                by: who(&["/a"], &[]),
                not_by: None,
            },
        ];
        let shown: Vec<String> = actors(subjects.iter())
            .into_iter()
            .map(|actor| Doer::from(actor).to_string())
            .collect();
        assert_eq!(
            shown,
            ["anybody", "uid 7", "/a", "/a as uid 7", "/b", "/b as uid 7"]
        );
    }
}
