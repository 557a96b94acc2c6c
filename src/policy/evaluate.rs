//! The reference evaluator: what a rule set says about one access, as a pure function.
//!
//! Of files it compares paths. The kernel decides on the identity of the file instead, so links in the request's path and in
//! the rules' paths must have been resolved before the two can be held against each other.

use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::access::Access;
use super::limit::LimitRule;
use super::network::{Contact, NetworkRule};
use super::syscall::{Otherwise, SyscallRule, SystemCall};
use super::{Actor, Effect, FileKind, FileRule, Mode, Refusal, RuleSet};

/// What a rule set says about an access.
///
/// Ordered from the most to the least that it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// No rule speaks about it.
    Allow,
    /// A rule in audit mode would deny it; it goes ahead and is reported.
    Audit,
    /// It is refused.
    Deny,
}

impl Verdict {
    const ALL: [Verdict; 3] = [Verdict::Allow, Verdict::Audit, Verdict::Deny];

    /// The word for this verdict, as JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Audit => "audit",
            Verdict::Deny => "deny",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Verdict::ALL.into_iter().find(|v| v.name() == name)
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Verdict::ALL.into_iter().map(Verdict::name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What becomes of an access: the verdict, and of one that is refused how.
///
/// It is shown, and written into JSON, as `allow`, `audit`, `deny`, `deny ENOENT` or `kill`; of a system call with what is
/// done to who runs already, as `deny, otherwise log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Answer {
    /// What is decided.
    pub verdict: Verdict,
    /// How it is refused; `None` where it is not.
    pub refusal: Option<Refusal>,
    /// What is done where it cannot be refused; `None` where it is not, or where the rule does not say.
    pub otherwise: Option<Otherwise>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = match self.refusal {
            Some(Refusal { kill: true, .. }) => "kill".to_owned(),
            refusal => match refusal.and_then(Refusal::chosen_errno) {
                Some(errno) => format!("{} {errno}", self.verdict),
                None => self.verdict.to_string(),
            },
        };
        if let Some(otherwise) = self.otherwise {
            shown = format!("{shown}, otherwise {}", otherwise.name());
        }
        f.pad(&shown)
    }
}

impl Serialize for Answer {
    /// As it is shown.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One access to one file.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Absolute, with links resolved; empty for a file that never had a name.
    pub path: &'a Path,
    /// One kind or several at once, as an open for reading and writing has; denied if one of them is.
    pub access: Access,
    /// Whether the file that was there when the policy was armed is gone, and another one has come to be there.
    pub replaced: bool,
    /// What the file is, to rules about kinds of files.
    pub of: &'a [FileKind],
    /// Who does it.
    pub actor: Actor<'a>,
}

impl<'a> Request<'a> {
    /// An access of these kinds to the file that is at this path.
    #[must_use]
    pub fn new(path: &'a Path, access: Access) -> Self {
        Request {
            path,
            access,
            replaced: false,
            of: &[],
            actor: Actor::ANYBODY,
        }
    }

    /// The same access to a file of these kinds.
    #[must_use]
    pub fn of(self, of: &'a [FileKind]) -> Self {
        Request { of, ..self }
    }

    /// The same access by this one.
    #[must_use]
    pub fn by(self, actor: Actor<'a>) -> Self {
        Request { actor, ..self }
    }

    /// The same access to what comes to be at the path instead, made anew or by a rename.
    #[must_use]
    pub fn replaced(self) -> Self {
        Request {
            replaced: true,
            ..self
        }
    }
}

/// The verdict and the rule it comes from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Decision<'a, R = FileRule> {
    /// What happens to the access.
    pub verdict: Verdict,
    /// The rule that refuses, or would; `None` when none does.
    pub rule: Option<&'a R>,
    /// It refuses because it allows others, and no rule speaks about this one.
    pub unlisted: bool,
}

// Derived, they would ask the same of the rule.
impl<R> Clone for Decision<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Decision<'_, R> {}

impl<R: Rule> Decision<'_, R> {
    /// The verdict, and how it is refused.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let refused = self.rule.filter(|_| self.verdict == Verdict::Deny);
        Answer {
            verdict: self.verdict,
            refusal: refused.map(Rule::refusal),
            otherwise: refused.and_then(Rule::otherwise),
        }
    }
}

/// What every rule has.
pub trait Rule {
    /// What it is called.
    fn id(&self) -> &str;
    /// Where it begins in its document; 0 where it has none.
    fn line(&self) -> u32;
    /// How it refuses.
    fn refusal(&self) -> Refusal;
    /// What it does where it cannot refuse: a rule about system calls, to processes that run already.
    fn otherwise(&self) -> Option<Otherwise>;
}

/// A rule, for a message: what it is called, and where it begins.
pub(crate) fn place(rule: &impl Rule) -> String {
    match rule.line() {
        0 => format!("rule {}", rule.id()),
        line => format!("rule {} (line {line})", rule.id()),
    }
}

/// A rule, to the one who decides among them.
pub(crate) trait Speaks<Q> {
    fn effect(&self) -> Effect;
    fn mode(&self) -> Mode;
    fn access(&self) -> Access;
    /// Whether it is about who asks.
    fn is_about_who(&self, request: &Q) -> bool;
    /// Whether it says something about this one kind of access of a request.
    fn speaks_of(&self, request: &Q, kind: Access) -> bool;
}

macro_rules! rule {
    ($rule:ty) => {
        rule!($rule, |_| None);
    };
    ($rule:ty, $otherwise:expr) => {
        impl Rule for $rule {
            fn id(&self) -> &str {
                &self.id
            }

            fn line(&self) -> u32 {
                self.line
            }

            fn refusal(&self) -> Refusal {
                self.refusal
            }

            fn otherwise(&self) -> Option<Otherwise> {
                let otherwise: fn(&$rule) -> Option<Otherwise> = $otherwise;
                otherwise(self)
            }
        }
    };
}

rule!(FileRule);
rule!(NetworkRule);
rule!(SyscallRule, |rule| rule.otherwise);
rule!(LimitRule);

macro_rules! speaks {
    ($rule:ty, $request:ty, $access:expr, $is_about_who:expr) => {
        impl Speaks<$request> for $rule {
            fn effect(&self) -> Effect {
                self.effect
            }

            fn mode(&self) -> Mode {
                self.mode
            }

            fn access(&self) -> Access {
                let access: fn(&$rule) -> Access = $access;
                access(self)
            }

            fn is_about_who(&self, request: &$request) -> bool {
                let is_about_who: fn(&$rule, &$request) -> bool = $is_about_who;
                is_about_who(self, request)
            }

            fn speaks_of(&self, request: &$request, kind: Access) -> bool {
                <$rule>::speaks_of(self, request, kind)
            }
        }
    };
}

speaks!(
    FileRule,
    Request<'_>,
    |rule| rule.access,
    |rule, request| rule.subject.includes(&request.actor)
);
speaks!(
    NetworkRule,
    Contact<'_>,
    |rule| rule.access,
    |rule, contact| rule.subject.includes(&contact.actor)
);
speaks!(SyscallRule, SystemCall, |_| Access::CALL, |_, _| true);

/// Decides one request.
///
/// Of the rules that speak about a kind of access to the path the strongest one decides: that with the highest priority,
/// among equals one that denies, and then the first in the document. Where none speaks about it, it is denied if there is
/// a rule that allows this kind elsewhere to who asks. Rules in audit mode decide nothing; if the request would be denied with them,
/// that is reported.
///
/// ```
/// use std::path::{Path, PathBuf};
/// use stockade::policy::{Access, Environment, Request, RuleSet, Verdict, evaluate};
///
/// let env = Environment::new(None, PathBuf::from("/work"));
/// let set = RuleSet::deny_files([PathBuf::from("secret")], &env)?;
/// let decision = evaluate(&set, &Request::new(Path::new("/work/secret"), Access::READ));
/// assert_eq!(decision.verdict, Verdict::Deny);
/// assert_eq!(decision.rule.map(|rule| rule.id.as_str()), Some("deny-file:secret"));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn evaluate<'a>(set: &'a RuleSet, request: &Request<'_>) -> Decision<'a> {
    decide(&set.ranked(), request, request.access)
}

/// Decides one request on the network, by the same rules.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::event::Transport;
/// use stockade::policy::{Access, Contact, Environment, RuleSet, Verdict, evaluate_contact};
///
/// let text = "version: 1\nnetwork:\n  - { id: registry, allow: connect, to: ['10.0.0.0/8:443'] }\n";
/// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
/// let to = |address: &str| {
///     Contact::new(address.parse().unwrap(), Some(Transport::Tcp), Access::CONNECT)
/// };
/// assert_eq!(evaluate_contact(&set, &to("10.1.2.3:443")).verdict, Verdict::Allow);
/// assert_eq!(evaluate_contact(&set, &to("192.0.2.1:443")).verdict, Verdict::Deny);
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn evaluate_contact<'a>(set: &'a RuleSet, contact: &Contact<'_>) -> Decision<'a, NetworkRule> {
    decide(&set.ranked_network(), contact, contact.access)
}

/// Decides one system call, by the same rules.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, SystemCall, Verdict, evaluate_call};
///
/// let text = "version: 1\nsyscalls:\n  - { id: no-ptrace, deny: [ptrace] }\n";
/// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
/// let says = |name: &str| evaluate_call(&set, &SystemCall::named(name).unwrap()).verdict;
/// assert_eq!((says("ptrace"), says("read")), (Verdict::Deny, Verdict::Allow));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn evaluate_call<'a>(set: &'a RuleSet, call: &SystemCall) -> Decision<'a, SyscallRule> {
    decide(&set.ranked_syscalls(), call, Access::CALL)
}

/// The number of the rule that refuses a kind, and whether that is for not being among what it allows; with the rules in
/// audit mode or without.
pub(crate) fn refusal<Q, R: Speaks<Q>>(
    ranked: &[&R],
    request: &Q,
    kind: Access,
    with_audit: bool,
) -> Option<(usize, bool)> {
    let first = |is_meant: &dyn Fn(&R) -> bool| {
        let counts = |rule: &R| with_audit || rule.mode() == Mode::Enforce;
        ranked
            .iter()
            .position(|rule| counts(rule) && is_meant(rule))
    };
    match first(&|rule| rule.speaks_of(request, kind)) {
        Some(here) => (ranked[here].effect() == Effect::Deny).then_some((here, false)),
        None => {
            let closes = |rule: &R| {
                rule.effect() == Effect::Allow
                    && rule.access().contains(kind)
                    && rule.is_about_who(request)
            };
            let elsewhere = first(&closes);
            elsewhere.map(|number| (number, true))
        }
    }
}

/// The same among these rules, the stronger ones first.
pub(super) fn decide<'a, Q, R: Speaks<Q>>(
    ranked: &[&'a R],
    request: &Q,
    access: Access,
) -> Decision<'a, R> {
    for (verdict, with_audit) in [(Verdict::Deny, false), (Verdict::Audit, true)] {
        let kinds = access.kinds();
        let refused = kinds.filter_map(|kind| refusal(ranked, request, kind, with_audit));
        if let Some((number, unlisted)) = refused.min() {
            return Decision {
                verdict,
                rule: Some(ranked[number]),
                unlisted,
            };
        }
    }
    Decision {
        verdict: Verdict::Allow,
        rule: None,
        unlisted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Environment, Pattern};

    fn rule(id: &str, access: Access, path: &str, mode: Mode) -> FileRule {
        FileRule {
            id: id.to_owned(),
            effect: Effect::Deny,
            access,
            paths: ["/other", path].map(pattern).to_vec(),
            mode,
            priority: 0,
            refusal: crate::policy::Refusal::default(),
            subject: crate::policy::Subject::default(),
            may_be_missing: true,
            line: 0,
        }
    }

    fn pattern(path: &str) -> Pattern {
        Pattern::parse(path, &Environment::new(None, "/".into())).unwrap()
    }

    fn decide(rules: Vec<FileRule>, path: &str, access: Access) -> (Verdict, Option<String>) {
        let set = RuleSet {
            name: "test".to_owned(),
            mode: Mode::Enforce,
            rules,
            network: Vec::new(),
            syscalls: Vec::new(),
            limits: Vec::new(),
        };
        let decision = evaluate(&set, &Request::new(Path::new(path), access));
        (decision.verdict, decision.rule.map(|r| r.id.clone()))
    }

    #[test]
    fn untouched_path_and_untouched_kind_are_allowed() {
        let rules = vec![rule("a", Access::WRITE, "/a", Mode::Enforce)];
        let nothing = (Verdict::Allow, None);
        assert_eq!(decide(rules.clone(), "/b", Access::WRITE), nothing);
        assert_eq!(decide(rules.clone(), "/a/b", Access::WRITE), nothing);
        assert_eq!(decide(rules.clone(), "/a", Access::READ), nothing);
        assert_eq!(decide(rules, "/a", Access::default()), nothing);
    }

    #[test]
    fn one_denied_kind_denies_the_whole_request() {
        let rules = vec![rule("a", Access::WRITE, "/a", Mode::Enforce)];
        assert_eq!(
            decide(rules, "/a", Access::READ | Access::WRITE),
            (Verdict::Deny, Some("a".to_owned()))
        );
    }

    #[test]
    fn enforce_beats_audit_in_either_order() {
        let audit = rule("audit", Access::READ, "/a", Mode::Audit);
        let enforce = rule("enforce", Access::READ, "/a", Mode::Enforce);
        let denied = (Verdict::Deny, Some("enforce".to_owned()));
        let rules = vec![audit.clone(), enforce.clone()];
        assert_eq!(decide(rules, "/a", Access::READ), denied);
        let rules = vec![enforce, audit];
        assert_eq!(decide(rules, "/a", Access::READ), denied);
    }

    #[test]
    fn the_first_of_equal_rules_is_named() {
        let rules = ["one", "two"].map(|id| rule(id, Access::READ, "/a", Mode::Audit));
        assert_eq!(
            decide(rules.to_vec(), "/a", Access::READ),
            (Verdict::Audit, Some("one".to_owned()))
        );
    }

    #[test]
    fn a_directory_rule_is_about_all_that_is_in_it_and_not_about_itself() {
        let rules = vec![rule("a", Access::READ, "/a/**", Mode::Enforce)];
        let denied = (Verdict::Deny, Some("a".to_owned()));
        for path in ["/a/b", "/a/b/c"] {
            assert_eq!(decide(rules.clone(), path, Access::READ), denied, "{path}");
        }
        for path in ["/a", "/ab", "/", "/b"] {
            let nothing = (Verdict::Allow, None);
            assert_eq!(decide(rules.clone(), path, Access::READ), nothing, "{path}");
        }
        let all = vec![rule("a", Access::READ, "/**", Mode::Enforce)];
        assert_eq!(decide(all.clone(), "/x", Access::READ), denied);
        assert_eq!(decide(all, "/", Access::READ), (Verdict::Allow, None));
    }

    #[test]
    fn who_may_not_change_a_file_may_not_move_the_directories_that_lead_to_it() {
        let moved = |kind, pattern: &str, path: &str| {
            let rules = vec![rule("a", kind, pattern, Mode::Enforce)];
            let verdicts = Access::MOVES.kinds().map(|access| {
                let denied = decide(rules.clone(), path, access).0 == Verdict::Deny;
                denied.then_some(access)
            });
            verdicts.collect::<Option<Vec<_>>>().is_some()
        };
        assert!(moved(Access::WRITE, "/a/b/c", "/a/b"));
        assert!(moved(Access::CREATE, "/a/b/c", "/a"));
        assert!(moved(Access::DELETE, "/a/b/**", "/a/b"));
        assert!(!moved(Access::READ, "/a/b/c", "/a/b"));
        assert!(!moved(Access::WRITE, "/a/b/c", "/a/x"));
        let rules = vec![rule("a", Access::ALL, "/a/b/c", Mode::Enforce)];
        assert_eq!(
            decide(
                rules,
                "/a/b",
                Access::READ | Access::WRITE | Access::METADATA
            ),
            (Verdict::Allow, None)
        );
    }

    fn allowing(id: &str, access: Access, path: &str) -> FileRule {
        FileRule {
            effect: Effect::Allow,
            ..rule(id, access, path, Mode::Enforce)
        }
    }

    #[test]
    fn what_is_allowed_somewhere_is_denied_elsewhere() {
        let rules = vec![allowing("work", Access::WRITE, "/work/**")];
        let refused = (Verdict::Deny, Some("work".to_owned()));
        let free = (Verdict::Allow, None);
        assert_eq!(decide(rules.clone(), "/work/a", Access::WRITE), free);
        assert_eq!(decide(rules.clone(), "/work", Access::WRITE), refused);
        assert_eq!(decide(rules.clone(), "/etc/a", Access::WRITE), refused);
        assert_eq!(decide(rules.clone(), "/etc/a", Access::READ), free);
        let both = Access::READ | Access::WRITE;
        assert_eq!(decide(rules, "/etc/a", both), refused);
    }

    #[test]
    fn deny_beats_allow_and_a_higher_priority_beats_both() {
        let allow = allowing("allow", Access::WRITE, "/work/**");
        let deny = rule("deny", Access::WRITE, "/work/keep", Mode::Enforce);
        let refused = (Verdict::Deny, Some("deny".to_owned()));
        let both = vec![allow.clone(), deny.clone()];
        assert_eq!(decide(both, "/work/keep", Access::WRITE), refused);
        let strong = FileRule {
            priority: 1,
            ..allow
        };
        let both = vec![deny.clone(), strong.clone()];
        let free = (Verdict::Allow, None);
        assert_eq!(decide(both, "/work/keep", Access::WRITE), free);
        let stronger = FileRule {
            priority: 2,
            ..deny
        };
        let both = vec![strong, stronger];
        assert_eq!(decide(both, "/work/keep", Access::WRITE), refused);
    }

    #[test]
    fn a_rule_in_audit_mode_takes_nothing_from_those_that_are_enforced() {
        let enforced = rule("enforced", Access::WRITE, "/a", Mode::Enforce);
        let tried = FileRule {
            mode: Mode::Audit,
            priority: 9,
            ..allowing("tried", Access::WRITE, "/a")
        };
        let rules = vec![enforced, tried];
        assert_eq!(
            decide(rules.clone(), "/a", Access::WRITE),
            (Verdict::Deny, Some("enforced".to_owned()))
        );
        assert_eq!(
            decide(rules, "/b", Access::WRITE),
            (Verdict::Audit, Some("tried".to_owned()))
        );
    }
}
