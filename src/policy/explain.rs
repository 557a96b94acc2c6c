//! Why something can be accessed or not, kind by kind.

use std::path::Path;

use super::evaluate::{Decision, Request, Speaks, decide};
use super::{Access, Contact, FileRule, NetworkRule, RuleSet, SyscallRule, SystemCall};

/// What a rule set says about one kind of access to one thing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reason<'a, R = FileRule> {
    /// A single kind.
    pub access: Access,
    /// The verdict, and the rule that it comes from.
    pub decision: Decision<'a, R>,
    /// What would be said if that rule were not there.
    pub without: Decision<'a, R>,
    /// The other rules that speak about it, the stronger ones first: also those that allow it.
    pub then: Vec<&'a R>,
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
    explain_file(set, &Request::new(path, Access::ALL))
}

/// The same for each kind of access to a file: those of `request`.
#[must_use]
pub fn explain_file<'a>(set: &'a RuleSet, request: &Request<'_>) -> Vec<Reason<'a>> {
    let ranked = set.ranked();
    let kinds = request.access.kinds();
    kinds
        .map(|access| reason(&ranked, request, access))
        .collect()
}

/// The same for each kind of access to an address: those of `contact`.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Access, Contact, Environment, RuleSet, Verdict, explain_contact};
///
/// let text = "version: 1\nnetwork:\n  - { id: quiet, deny: connect, to: [any] }\n";
/// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
/// let contact = Contact::new("192.0.2.1:443".parse().unwrap(), None, Access::OUTWARDS);
/// let verdicts: Vec<_> = explain_contact(&set, &contact)
///     .iter()
///     .map(|reason| reason.decision.verdict)
///     .collect();
/// assert_eq!(verdicts, [Verdict::Deny, Verdict::Allow]);
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn explain_contact<'a>(
    set: &'a RuleSet,
    contact: &Contact<'_>,
) -> Vec<Reason<'a, NetworkRule>> {
    let ranked = set.ranked_network();
    let kinds = contact.access.kinds();
    kinds
        .map(|access| reason(&ranked, contact, access))
        .collect()
}

/// The same for a system call.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, SystemCall, explain_call};
///
/// let text = "version: 1\nsyscalls:\n  - { id: no-files, deny: [openat] }\n";
/// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
/// // It would open files as well.
/// let reason = explain_call(&set, &SystemCall::named("io_uring_setup").unwrap());
/// assert_eq!(reason.decision.rule.map(|rule| rule.id.as_str()), Some("no-files"));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn explain_call<'a>(set: &'a RuleSet, call: &SystemCall) -> Reason<'a, SyscallRule> {
    reason(&set.ranked_syscalls(), call, Access::CALL)
}

fn reason<'a, Q, R: Speaks<Q>>(ranked: &[&'a R], request: &Q, access: Access) -> Reason<'a, R> {
    let decision = decide(ranked, request, access);
    let mut others = ranked.to_vec();
    others.retain(|rule| {
        !decision
            .rule
            .is_some_and(|deciding| std::ptr::eq(*rule, deciding))
    });
    let without = decide(&others, request, access);
    others.retain(|rule| rule.speaks_of(request, access));
    Reason {
        access,
        decision,
        without,
        then: others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Environment, Verdict};

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
}
