//! What is allowed: policy documents, the rule sets they compile to, and the evaluator that defines their meaning.
//!
//! This room is pure: it reads no file and asks no kernel. What depends on the machine comes in as an [`Environment`],
//! and whether a path exists is the fence's question. The language is described in `docs/POLICY.md`.
//!
//! ```
//! use std::path::{Path, PathBuf};
//! use stockade::policy::{Access, Environment, Request, RuleSet, Verdict, evaluate};
//!
//! let text = r#"
//! version: 1
//! name: build-job
//! files:
//!   - id: no-keys
//!     deny: all
//!     paths: ["~/.ssh/id_ed25519"]
//! "#;
//! let env = Environment::new(Some(PathBuf::from("/home/kim")), PathBuf::from("/work"));
//! let set = RuleSet::parse(text, "build.policy.yaml", &env)?;
//! let key = Path::new("/home/kim/.ssh/id_ed25519");
//! assert_eq!(evaluate(&set, &Request::new(key, Access::READ)).verdict, Verdict::Deny);
//! # Ok::<(), stockade::Error>(())
//! ```

mod access;
mod cases;
mod compile;
mod diff;
mod document;
mod edit;
mod evaluate;
mod explain;
mod fault;
mod limit;
mod network;
mod pattern;
mod schema;
mod subject;
mod syscall;
mod variables;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::event::names;

pub use access::Access;
pub use cases::{Accessed, Case, Cases, Failure};
pub use diff::{
    CallChange, Change, LimitChange, NetworkChange, diff, diff_calls, diff_limits, diff_network,
};
pub use edit::{Edit, edit, edit_call, edit_contact, edit_denial};
pub use evaluate::{
    Answer, Decision, Request, Rule, Verdict, evaluate, evaluate_call, evaluate_contact,
};
#[cfg(stockade_kernel)]
pub(crate) use evaluate::{place, refusal};
pub use explain::{Reason, explain, explain_call, explain_contact, explain_file};
pub use limit::{Bucket, Counted, LimitRule, Period, Thing};
pub use network::{Addresses, Contact, HostName, NetworkRule, Selector};
#[cfg(stockade_kernel)]
pub(crate) use network::{is_about_any, reached};
pub use pattern::{FileKind, Pattern};
pub use schema::schema;
pub use subject::{Actor, Doer, Subject, Who};
pub use syscall::{Called, Otherwise, SyscallRule, SystemCall};

/// Whether a rule refuses an access or only reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// The access is refused and reported.
    #[default]
    Enforce,
    /// The access goes ahead; what would have been refused is reported.
    Audit,
}

impl Mode {
    /// The word for this mode in a policy document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Mode::Enforce, Mode::Audit]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a policy takes from the machine it is compiled on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// What `~` stands for; absolute. A policy that uses `~` is refused where this is `None`.
    pub home: Option<PathBuf>,
    /// What relative paths start from; absolute and free of links, as the kernel reports the working directory.
    pub cwd: PathBuf,
    /// Values of variables, in place of those that a policy declares. One that it does not declare is an error.
    pub variables: BTreeMap<String, String>,
}

impl Environment {
    /// An environment of this home directory and this working directory.
    #[must_use]
    pub fn new(home: Option<PathBuf>, cwd: PathBuf) -> Self {
        Environment {
            home,
            cwd,
            variables: BTreeMap::new(),
        }
    }
}

/// A policy that has been compiled: ready to be evaluated, or to be armed as a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleSet {
    /// The policy's name; that of its file where the document gives none.
    pub name: String,
    /// The mode of every rule that does not set its own.
    pub mode: Mode,
    /// The rules about files in the order of the document.
    pub rules: Vec<FileRule>,
    /// Those about the network.
    pub network: Vec<NetworkRule>,
    /// Those about system calls.
    pub syscalls: Vec<SyscallRule>,
    /// Limits. A set that was parsed has some rules of one kind.
    pub limits: Vec<LimitRule>,
}

/// Whether a rule is for or against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Effect {
    /// What the rule names is denied.
    #[default]
    Deny,
    /// What the rule names is allowed, and the same kinds of access to all else are denied.
    Allow,
}

/// How a rule refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The positive errno that the program gets.
    pub errno: u16,
    /// The process is sent SIGKILL as well, before the call returns.
    pub kill: bool,
}

impl Default for Refusal {
    /// With EPERM, and the program goes on.
    fn default() -> Self {
        Refusal {
            errno: 1,
            kill: false,
        }
    }
}

impl Refusal {
    /// The name of its errno, where that is another one than without a choice.
    fn chosen_errno(self) -> Option<String> {
        let name =
            || names::errno(self.errno).map_or_else(|| self.errno.to_string(), str::to_owned);
        (self.errno != Refusal::default().errno).then(name)
    }
}

/// A rule that denies kinds of access to files, or allows them to these files alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileRule {
    /// What the rule is called in events and messages; unique in its set, without control characters in a document.
    pub id: String,
    /// Whether the rule denies or allows.
    pub effect: Effect,
    /// The kinds that are denied or allowed; never empty.
    pub access: Access,
    /// What the rule is about; never empty.
    pub paths: Vec<Pattern>,
    /// Whether the rule refuses or reports; the document's mode is already worked in.
    pub mode: Mode,
    /// Which of two rules about the same decides: the one with the higher priority, and among equals one that denies.
    pub priority: i32,
    /// How it refuses.
    pub refusal: Refusal,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Subject::is_everybody")]
    pub subject: Subject,
    /// Whether a path may name nothing yet, in a directory that exists; else that is an error when the rule is armed.
    #[serde(skip)]
    pub may_be_missing: bool,
    /// The line of the document on which the rule starts, from 1; 0 for a rule from the command line.
    pub line: u32,
}

impl FileRule {
    /// Whether the rule says something about this one kind of access of a request: it is about who asks, and names the path, or, when
    /// it denies, because the path is a directory on the way to what it names. Who may not change what is at a name may
    /// not move the name either.
    #[must_use]
    pub fn speaks_of(&self, request: &Request<'_>, kind: Access) -> bool {
        let path = request.path;
        let names = |p: &Pattern| match p {
            Pattern::Kind(of) => request.of.contains(of),
            p => p.names(path) && !(request.replaced && p.is_inode()),
        };
        let named = self.access.contains(kind) && self.paths.iter().any(names);
        let led = || self.pins(kind) && self.paths.iter().any(|p| p.leads_through(path));
        self.subject.includes(&request.actor) && (named || led())
    }

    /// Whether the rule denies this kind of access to the directories on the way.
    pub(crate) fn pins(&self, kind: Access) -> bool {
        self.effect == Effect::Deny
            && Access::MOVES.contains(kind)
            && self.access.intersects(Access::CHANGES)
    }
}

impl RuleSet {
    /// Reads and compiles a policy document.
    ///
    /// `source_name` is what errors call the document, usually its path as the user gave it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] at the first fault: `FILE:LINE:COL: sentence`, and below it the source line with a caret
    /// line. Columns count characters from 1.
    pub fn parse(text: &str, source_name: &str, env: &Environment) -> Result<RuleSet> {
        compile::compile(text, source_name, env)
            .map_err(|fault| fault.into_error(source_name, text))
    }

    /// Reads and compiles the policy document at `path`.
    ///
    /// # Errors
    ///
    /// As [`RuleSet::parse`], and [`ErrorKind::Policy`] when the file cannot be read as UTF-8 text.
    pub fn read(path: &Path, env: &Environment) -> Result<RuleSet> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::new(
                ErrorKind::Policy,
                format!("{} cannot be read: {e}", path.display()),
            )
            .with_source(e)
        })?;
        RuleSet::parse(&text, &path.display().to_string(), env)
    }

    /// One rule per path that denies [`Access::ALL`], as `--deny-file` asks for.
    ///
    /// The id of a rule is `deny-file:` and the path as given; a path that is given twice makes one rule. `~/` and
    /// relative paths are expanded as in a document, every other character stands for itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] when there is no path, or one cannot be a file: empty, with a NUL, ending in a slash, with
    /// `..` behind a name.
    pub fn deny_files<I>(paths: I, env: &Environment) -> Result<RuleSet>
    where
        I: IntoIterator<Item = PathBuf>,
    {
        let mut seen = HashSet::new();
        let mut rules = Vec::new();
        for path in paths {
            let absolute = pattern::absolute(&path, env).map_err(|sentence| {
                Error::new(ErrorKind::Policy, format!("--deny-file: {sentence}"))
            })?;
            let id = format!("deny-file:{}", path_as_text(&path));
            if !seen.insert(path) {
                continue;
            }
            rules.push(FileRule {
                id,
                effect: Effect::Deny,
                access: Access::ALL,
                paths: vec![Pattern::File(absolute)],
                mode: Mode::Enforce,
                priority: 0,
                refusal: Refusal::default(),
                subject: Subject::default(),
                may_be_missing: false,
                line: 0,
            });
        }
        if rules.is_empty() {
            return Err(Error::new(ErrorKind::Policy, "there is no file to deny"));
        }
        Ok(RuleSet {
            name: "command-line".to_owned(),
            mode: Mode::Enforce,
            rules,
            network: Vec::new(),
            syscalls: Vec::new(),
            limits: Vec::new(),
        })
    }

    /// Both sets as one: the rules of `self`, then those of `other`, each in its own mode.
    ///
    /// The name and the mode for further rules are those of `self`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] when both sets have a rule of the same id.
    pub fn merge(mut self, other: RuleSet) -> Result<RuleSet> {
        let lines: HashMap<&str, u32> = self.labels().collect();
        for (id, its_line) in other.labels() {
            if let Some(line) = lines.get(id) {
                return Err(Error::new(
                    ErrorKind::Policy,
                    format!(
                        "the id {} is used twice: in {} ({}) and in {} ({})",
                        fault::quoted(id),
                        fault::quoted(&self.name),
                        origin(*line),
                        fault::quoted(&other.name),
                        origin(its_line),
                    ),
                ));
            }
        }
        self.rules.extend(other.rules);
        self.network.extend(other.network);
        self.syscalls.extend(other.syscalls);
        self.limits.extend(other.limits);
        Ok(self)
    }

    /// Ids and lines.
    fn labels(&self) -> impl Iterator<Item = (&str, u32)> {
        let files = self.rules.iter().map(|r| (r.id.as_str(), r.line));
        let network = self.network.iter().map(|r| (r.id.as_str(), r.line));
        let syscalls = self.syscalls.iter().map(|r| (r.id.as_str(), r.line));
        let limits = self.limits.iter().map(|r| (r.id.as_str(), r.line));
        files.chain(network).chain(syscalls).chain(limits)
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len() + self.network.len() + self.syscalls.len() + self.limits.len()
    }

    /// Whether there are none, which cannot be of a set that was parsed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits that count this, in their order.
    pub fn limits_of(&self, thing: Thing) -> impl Iterator<Item = &LimitRule> {
        self.limits.iter().filter(move |rule| rule.counts(thing))
    }

    /// The limits that count this system call, or what it does, in their order.
    pub fn limits_of_call(&self, call: &SystemCall) -> impl Iterator<Item = &LimitRule> {
        let makes = limit::made_by(call);
        self.limits.iter().filter(move |rule| {
            rule.counts_call(call) || makes.iter().any(|thing| rule.counts(*thing))
        })
    }

    /// The rules about files, the stronger one first.
    pub(crate) fn ranked(&self) -> Vec<&FileRule> {
        ranked(&self.rules, |rule| (rule.priority, rule.effect))
    }

    /// Those about the network, the stronger one first.
    pub(crate) fn ranked_network(&self) -> Vec<&NetworkRule> {
        ranked(&self.network, |rule| (rule.priority, rule.effect))
    }

    /// Those about system calls, the stronger one first.
    pub(crate) fn ranked_syscalls(&self) -> Vec<&SyscallRule> {
        ranked(&self.syscalls, |rule| (rule.priority, rule.effect))
    }

    /// Ids and lines as the fence numbers its rules: those about files, about the network, and about system calls, the
    /// stronger one first; then limits, in the order of the document.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn numbered(&self) -> (Vec<String>, Vec<u32>) {
        let files = self.ranked().into_iter();
        let files = files.map(|rule| (rule.id.clone(), rule.line));
        let network = self.ranked_network().into_iter();
        let network = network.map(|rule| (rule.id.clone(), rule.line));
        let syscalls = self.ranked_syscalls().into_iter();
        let syscalls = syscalls.map(|rule| (rule.id.clone(), rule.line));
        let limits = self.limits.iter().map(|rule| (rule.id.clone(), rule.line));
        files.chain(network).chain(syscalls).chain(limits).unzip()
    }

    /// The set with every rule in this mode, also those that set their own; `--audit` is `with_mode(Mode::Audit)`.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> RuleSet {
        self.mode = mode;
        for rule in &mut self.rules {
            rule.mode = mode;
        }
        for rule in &mut self.network {
            rule.mode = mode;
        }
        for rule in &mut self.syscalls {
            rule.mode = mode;
        }
        for rule in &mut self.limits {
            rule.mode = mode;
        }
        self
    }
}

/// The stronger rule first; what is left is a matter of their order in the document.
fn ranked<R>(rules: &[R], strength: impl Fn(&R) -> (i32, Effect)) -> Vec<&R> {
    let mut rules: Vec<&R> = rules.iter().collect();
    rules.sort_by_key(|rule| {
        let (priority, effect) = strength(rule);
        (Reverse(priority), effect)
    });
    rules
}

/// Where a rule comes from, for a message.
fn origin(line: u32) -> String {
    match line {
        0 => "command line".to_owned(),
        line => format!("line {line}"),
    }
}

/// The path as it is where it is UTF-8; otherwise with its bytes escaped, so that two paths never share a text.
fn path_as_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => path
            .as_os_str()
            .as_encoded_bytes()
            .escape_ascii()
            .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::new(Some("/home/kim".into()), "/work".into())
    }

    fn denying(paths: &[&str]) -> RuleSet {
        RuleSet::deny_files(paths.iter().map(PathBuf::from), &env()).unwrap()
    }

    #[test]
    fn deny_files_makes_one_rule_per_distinct_path() {
        let set = denying(&["key", "/etc/shadow", "key", "~/x[1]*"]);
        let ids: Vec<_> = set.rules.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "deny-file:key",
                "deny-file:/etc/shadow",
                "deny-file:~/x[1]*"
            ]
        );
        let paths: Vec<_> = set
            .rules
            .iter()
            .map(|r| r.paths[0].path().to_str())
            .collect();
        assert_eq!(
            paths,
            [
                Some("/work/key"),
                Some("/etc/shadow"),
                Some("/home/kim/x[1]*")
            ]
        );
        assert!(set.rules.iter().all(|r| r.access == Access::ALL));
        assert!(
            set.rules
                .iter()
                .all(|r| r.mode == Mode::Enforce && r.line == 0)
        );
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_differ_only_in_foreign_bytes_have_different_ids() {
        use std::os::unix::ffi::OsStringExt;
        let paths = [0xfe, 0xff].map(|b| PathBuf::from(std::ffi::OsString::from_vec(vec![b])));
        let set = RuleSet::deny_files(paths, &env()).unwrap();
        let ids: Vec<_> = set.rules.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["deny-file:\\xfe", "deny-file:\\xff"]);
    }

    #[test]
    fn merge_keeps_the_order_and_the_first_name() {
        let set = denying(&["a"])
            .merge(denying(&["b"]).with_mode(Mode::Audit))
            .unwrap();
        let rules: Vec<_> = set.rules.iter().map(|r| (r.id.as_str(), r.mode)).collect();
        assert_eq!(
            rules,
            [("deny-file:a", Mode::Enforce), ("deny-file:b", Mode::Audit)]
        );
        assert_eq!(
            (set.name.as_str(), set.mode),
            ("command-line", Mode::Enforce)
        );
    }

    #[test]
    fn mode_names_are_those_of_serde() {
        for mode in [Mode::Enforce, Mode::Audit] {
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(json, format!("\"{mode}\""));
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
    }
}
