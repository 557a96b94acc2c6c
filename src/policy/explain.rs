//! Why a file can be accessed or not, kind by kind; and what two rule sets say differently.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::evaluate::{Decision, Request, Verdict, decide};
use super::{Access, Effect, FileRule, Pattern, RuleSet};

/// What a rule set says about one kind of access to one file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reason<'a> {
    /// A single kind.
    pub access: Access,
    /// The verdict, and the rule that it comes from.
    pub decision: Decision<'a>,
    /// What would be said if that rule were not there.
    pub without: Decision<'a>,
    /// The other rules that name the path for it, the stronger ones first: also those that allow it.
    pub then: Vec<&'a FileRule>,
}

/// Why each kind of access to a file is allowed or not, in the order of the kinds.
///
/// As [`evaluate`](super::evaluate) it compares paths: `path` is absolute, with links resolved.
///
/// ```
/// use std::path::{Path, PathBuf};
/// use stockade::policy::{Environment, RuleSet, Verdict, explain};
///
/// let env = Environment::new(None, PathBuf::from("/work"));
/// let set = RuleSet::deny_files([PathBuf::from("secret")], &env)?;
/// let reasons = explain(&set, Path::new("/work/secret"));
/// assert!(reasons.iter().all(|r| r.decision.verdict == Verdict::Deny));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn explain<'a>(set: &'a RuleSet, path: &Path) -> Vec<Reason<'a>> {
    let ranked = set.ranked();
    let reason = |access| {
        let request = Request::new(path, access);
        let decision = decide(&ranked, &request);
        let mut others = ranked.clone();
        others.retain(|rule| {
            !decision
                .rule
                .is_some_and(|deciding| std::ptr::eq(*rule, deciding))
        });
        let without = decide(&others, &request);
        others.retain(|rule| rule.speaks_of(&request, access));
        Reason {
            access,
            decision,
            without,
            then: others,
        }
    };
    Access::ALL.kinds().map(reason).collect()
}

/// Kinds of access to one file on which two rule sets differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The file, or the directory whose contents it is.
    pub path: Pattern,
    /// The kinds.
    pub access: Access,
    /// What the first set says.
    pub before: Verdict,
    /// What the second one says.
    pub after: Verdict,
    /// The id of the rule that the stricter verdict comes from.
    pub rule: String,
}

/// What becomes allowed or denied when `after` takes the place of `before`: by path, then in the order of the kinds.
/// Empty when both mean the same, however they are written. The directories that lead to a path follow what is said about
/// it and are not listed.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, Verdict, diff};
///
/// let env = Environment::new(None, PathBuf::from("/work"));
/// let before = RuleSet::deny_files(["a", "b"].map(PathBuf::from), &env)?;
/// let after = RuleSet::deny_files(["b"].map(PathBuf::from), &env)?;
/// let changes = diff(&before, &after);
/// assert_eq!(changes.len(), 1);
/// assert_eq!((changes[0].before, changes[0].after), (Verdict::Deny, Verdict::Allow));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn diff(before: &RuleSet, after: &RuleSet) -> Vec<Change> {
    let (old, new) = (Index::new(before), Index::new(after));
    let mut patterns: Vec<&Pattern> = old.by_pattern.keys().copied().collect();
    patterns.extend(new.by_pattern.keys());
    let rest = Pattern::Below("/".into());
    if !(old.allowing.is_empty() && new.allowing.is_empty()) {
        patterns.push(&rest);
    }
    patterns.sort_unstable();
    patterns.dedup();
    let mut changes: Vec<Change> = Vec::new();
    for pattern in patterns {
        let path = match pattern {
            Pattern::File(path) | Pattern::Inode(path) => path.clone(),
            // No rule can name this one.
            Pattern::Below(directory) => directory.join("\0"),
        };
        let (old, new) = (old.about(&path), new.about(&path));
        let rules = |of: &[&FileRule], access| {
            let about = of.iter().copied();
            let about: Vec<&FileRule> = about.filter(|r| r.access.contains(access)).collect();
            let request = Request {
                // What comes to be at a path is another question than the file that is there now.
                replaced: !pattern.is_inode(),
                ..Request::new(&path, access)
            };
            let decision = decide(&about, &request);
            (decision.verdict, decision.rule.map(|rule| rule.id.clone()))
        };
        let first = changes.len();
        for access in Access::ALL.kinds() {
            let ((before, old_rule), (after, new_rule)) =
                (rules(&old, access), rules(&new, access));
            if before == after {
                continue;
            }
            let rule = if after > before { new_rule } else { old_rule };
            let change = Change {
                path: pattern.clone(),
                access,
                before,
                after,
                rule: rule.unwrap_or_default(),
            };
            // What differs in the same way is told together.
            let alike = |c: &&mut Change| {
                (c.before, c.after, &c.rule) == (change.before, change.after, &change.rule)
            };
            match changes[first..].iter_mut().find(alike) {
                Some(told) => told.access |= access,
                None => changes.push(change),
            }
        }
    }
    changes
}

/// Finds the rules about a path without a look at all of them.
struct Index<'a> {
    /// The stronger ones first.
    ranked: Vec<&'a FileRule>,
    /// Their numbers.
    by_pattern: HashMap<&'a Pattern, Vec<usize>>,
    /// Those that allow: they speak about all else as well.
    allowing: Vec<usize>,
}

impl<'a> Index<'a> {
    fn new(set: &'a RuleSet) -> Self {
        let mut by_pattern: HashMap<&Pattern, Vec<usize>> = HashMap::new();
        let ranked = set.ranked();
        for (number, rule) in ranked.iter().enumerate() {
            for pattern in &rule.paths {
                by_pattern.entry(pattern).or_default().push(number);
            }
        }
        let allows = |n: &usize| ranked[*n].effect == Effect::Allow;
        Index {
            allowing: (0..ranked.len()).filter(allows).collect(),
            by_pattern,
            ranked,
        }
    }

    /// Those that name the path or allow others, the stronger ones first.
    fn about(&self, path: &Path) -> Vec<&'a FileRule> {
        let above = path.ancestors().skip(1);
        let patterns = above.map(|directory| Pattern::Below(directory.to_owned()));
        let mut numbers: Vec<usize> = patterns
            .chain([
                Pattern::File(path.to_owned()),
                Pattern::Inode(path.to_owned()),
            ])
            .filter_map(|pattern| self.by_pattern.get(&pattern))
            .flatten()
            .chain(&self.allowing)
            .copied()
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|n| self.ranked[n]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Environment, Mode};

    fn set(text: &str) -> RuleSet {
        let env = Environment::new(None, "/work".into());
        RuleSet::parse(text, "p.yaml", &env).unwrap()
    }

    const TWO: &str = "version: 1\nfiles:\n\
        - { id: watch, deny: [read, write], paths: [/a], mode: audit }\n\
        - { id: keep, deny: [write], paths: [/a, /b] }\n";

    #[test]
    fn the_rule_that_decides_comes_first_and_then_the_others() {
        let set = set(TWO);
        let reasons = explain(&set, Path::new("/a"));
        let told: Vec<(String, Verdict, Option<&str>, Vec<&str>)> = reasons
            .iter()
            .map(|r| {
                (
                    r.access.to_string(),
                    r.decision.verdict,
                    r.decision.rule.map(|rule| rule.id.as_str()),
                    r.then.iter().map(|rule| rule.id.as_str()).collect(),
                )
            })
            .collect();
        assert_eq!(
            told[..3],
            [
                ("read".to_owned(), Verdict::Audit, Some("watch"), vec![]),
                (
                    "write".to_owned(),
                    Verdict::Deny,
                    Some("keep"),
                    vec!["watch"]
                ),
                ("exec".to_owned(), Verdict::Allow, None, vec![]),
            ]
        );
        assert_eq!(told.len(), Access::ALL.names().count());
    }

    #[test]
    fn a_difference_is_one_of_meaning_and_not_of_writing() {
        let before = set(TWO);
        let same = set("version: 1\nname: other\nfiles:\n\
            - { id: b, deny: [write], paths: [/b] }\n\
            - { id: a, deny: [write], paths: [/a] }\n\
            - { id: r, deny: [read], paths: [/a], mode: audit }\n");
        assert_eq!(diff(&before, &same), []);
        let after =
            set("version: 1\nfiles:\n- { id: keep, deny: [read, write, link], paths: [/a] }\n");
        let told: Vec<_> = diff(&before, &after)
            .into_iter()
            .map(|c| (c.path.to_string(), c.access, c.before, c.after, c.rule))
            .collect();
        let (allow, audit, deny) = (Verdict::Allow, Verdict::Audit, Verdict::Deny);
        assert_eq!(
            told,
            [
                (
                    "/a".to_owned(),
                    Access::READ,
                    audit,
                    deny,
                    "keep".to_owned()
                ),
                (
                    "/a".to_owned(),
                    Access::LINK,
                    allow,
                    deny,
                    "keep".to_owned()
                ),
                (
                    "/b".to_owned(),
                    Access::WRITE,
                    deny,
                    allow,
                    "keep".to_owned()
                ),
            ]
        );
        assert!(diff(&before, &before.clone().with_mode(Mode::Audit)).len() == 2);
    }

    #[test]
    fn a_difference_in_a_directory_is_told_of_the_directory() {
        let before = set("version: 1\nfiles:\n\
            - { id: all, deny: [write], paths: ['/a/**'] }\n\
            - { id: one, deny: [read], paths: [/a/b/c] }\n");
        let after = set("version: 1\nfiles:\n\
            - { id: b, deny: [write], paths: ['/a/b/**'] }\n");
        let told: Vec<_> = diff(&before, &after)
            .into_iter()
            .map(|c| (c.path.to_string(), c.access, c.after))
            .collect();
        assert_eq!(
            told,
            [
                ("/a/b/c".to_owned(), Access::READ, Verdict::Allow),
                ("/a/**".to_owned(), Access::WRITE, Verdict::Allow),
            ]
        );
    }
}
