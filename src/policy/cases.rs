//! A user's own cases: accesses, and what a policy is expected to say about them.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use super::compile::{self, label};
use super::document::{self, Value, mapping};
use super::evaluate::{
    Decision, Request, Rule, Verdict, evaluate, evaluate_call, evaluate_contact,
};
use super::fault::{Fault, Place, quoted, unknown};
use super::pattern;
use super::{Access, Contact, Doer, Environment, FileKind, HostName, RuleSet, SystemCall};
use crate::error::Result;
use crate::event::Transport;

mapping! {
    /// A whole document of cases.
    Document {
        version: Spanned<Value<serde::de::IgnoredAny>>,
        policy: Spanned<String>,
        cases: Spanned<Value<Spanned<Entry>>>,
    }
}

mapping! {
    /// One of them.
    Entry {
        path: Spanned<String>,
        address: Spanned<String>,
        syscall: Spanned<String>,
        protocol: Spanned<String>,
        r#as: Spanned<String>,
        uid: Spanned<String>,
        of: Spanned<String>,
        access: Spanned<Value<Spanned<String>>>,
        expect: Spanned<String>,
        rule: Spanned<String>,
    }
}

/// What is accessed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accessed {
    /// A file; absolute, as in a rule.
    File(PathBuf),
    /// An address and a port; `None`: by neither TCP nor UDP.
    Address(SocketAddr, Option<Transport>),
    /// A host by its name, and a port, in the same way.
    Host(HostName, u16, Option<Transport>),
    /// A system call.
    Call(SystemCall),
}

impl fmt::Display for Accessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Accessed::File(path) => path.display().fmt(f),
            Accessed::Address(address, Some(transport)) => {
                write!(f, "{}:{address}", transport.name())
            }
            Accessed::Address(address, None) => address.fmt(f),
            Accessed::Host(host, port, transport) => {
                if let Some(transport) = transport {
                    write!(f, "{}:", transport.name())?;
                }
                write!(f, "host:{host}:{port}")
            }
            Accessed::Call(call) => call.fmt(f),
        }
    }
}

/// An access, and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Case {
    /// To what.
    pub object: Accessed,
    /// What kind of file it is, where that is one that rules can be about.
    pub of: Option<FileKind>,
    /// One kind, or several at once.
    pub access: Access,
    /// By whom.
    pub by: Doer,
    /// What the policy should say.
    pub expect: Verdict,
    /// The id of the rule that it should come from, where the case names one.
    pub rule: Option<String>,
    /// The line on which the case starts, from 1.
    pub line: u32,
}

/// A document of cases. `docs/POLICY.md` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cases {
    /// The policy that they are about, where the document names one: as it is written there.
    pub policy: Option<PathBuf>,
    /// In the order of the document; never empty.
    pub cases: Vec<Case>,
}

/// A case that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// What was expected.
    pub case: &'a Case,
    /// What the policy says.
    pub verdict: Verdict,
    /// The id of the rule that it comes from.
    pub rule: Option<String>,
}

impl Cases {
    /// Reads a document of cases; paths are expanded as in a policy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`](crate::ErrorKind::Policy) at the first fault, as [`RuleSet::parse`] gives it.
    pub fn parse(text: &str, source_name: &str, env: &Environment) -> Result<Cases> {
        read(text, env).map_err(|fault| fault.into_error(source_name, text))
    }

    /// Those that a rule set does not answer as expected, in their order.
    #[must_use]
    pub fn failures(&self, set: &RuleSet) -> Vec<Failure<'_>> {
        self.cases
            .iter()
            .filter_map(|case| {
                let actor = case.by.actor();
                let (verdict, rule) = match &case.object {
                    Accessed::File(path) => {
                        let request = Request::new(path, case.access).of(case.of.as_slice());
                        outcome(&evaluate(set, &request.by(actor)))
                    }
                    Accessed::Address(address, transport) => {
                        let contact = Contact::new(*address, *transport, case.access);
                        outcome(&evaluate_contact(set, &contact.by(actor)))
                    }
                    Accessed::Host(host, port, transport) => {
                        let contact = Contact::to_host(host, *port, *transport, case.access);
                        outcome(&evaluate_contact(set, &contact.by(actor)))
                    }
                    Accessed::Call(call) => outcome(&evaluate_call(set, call)),
                };
                let as_expected =
                    verdict == case.expect && (case.rule.is_none() || case.rule == rule);
                (!as_expected).then_some(Failure {
                    case,
                    verdict,
                    rule,
                })
            })
            .collect()
    }
}

/// The verdict, and the id of the rule that it comes from.
fn outcome<R: Rule>(decision: &Decision<'_, R>) -> (Verdict, Option<String>) {
    let rule = decision.rule.map(|rule| rule.id().to_owned());
    (decision.verdict, rule)
}

fn read(text: &str, env: &Environment) -> std::result::Result<Cases, Fault> {
    let document: Spanned<Document> = document::read_as(text)?;
    let start = document.referenced;
    let Document {
        version,
        policy,
        cases,
    } = document.value;
    document::require_version(version.as_ref(), start)?;
    let policy = match policy {
        Some(path) => Some(PathBuf::from(label(&path, "policy")?)),
        None => None,
    };
    let entries = match cases.map(|cases| (cases.referenced, cases.value)) {
        Some((_, Value::List(entries))) if !entries.is_empty() => entries,
        Some((place, Value::List(_) | Value::Nothing)) => {
            return Err(Fault::new(place, "there are no cases; \"cases\" is empty"));
        }
        Some((place, Value::Word(_) | Value::Mapping)) => {
            return Err(Fault::new(
                place,
                "\"cases\" must be a list of cases, each starting with \"- path:\"",
            ));
        }
        None => {
            return Err(Fault::new(
                start,
                "there are no cases; \"cases\" is missing",
            ));
        }
    };
    let cases = entries.into_iter().map(|entry| case(entry, env));
    Ok(Cases {
        policy,
        cases: cases.collect::<std::result::Result<_, _>>()?,
    })
}

/// The kinds that a case asks for: of files, or of addresses.
fn words_of_access(
    value: &Value<Spanned<String>>,
    place: Location,
    is_file: bool,
) -> std::result::Result<Access, Fault> {
    match value {
        Value::Word(word) if is_file => compile::kind(word, place),
        Value::List(words) if is_file && !words.is_empty() => compile::kinds(words),
        Value::Word(word) => compile::contact(word, place),
        Value::List(words) if !words.is_empty() => compile::contacts(words),
        Value::List(_) | Value::Nothing | Value::Mapping => Err(Fault::new(
            place,
            "\"access\" must be an access kind, or a list of them",
        )),
    }
}

/// Who it is.
fn doer(
    exe: Option<&Spanned<String>>,
    uid: Option<&Spanned<String>>,
    is_call: bool,
    env: &Environment,
) -> std::result::Result<Doer, Fault> {
    if is_call && let Some(said) = exe.or(uid) {
        let sentence = "rules about system calls are about everybody; leave \"as\" and \"uid\" out";
        return Err(Fault::new(said.referenced, sentence));
    }
    let fault = |said: &Spanned<String>, sentence| Fault::new(said.referenced, sentence);
    let exe = exe.map(|said| compile::parse_exe(&said.value, env).map_err(|e| fault(said, e)));
    let uid = uid.map(|said| compile::parse_uid(&said.value).map_err(|e| fault(said, e)));
    Ok(Doer {
        exe: exe.transpose()?,
        uid: uid.transpose()?,
    })
}

fn case(entry: Spanned<Entry>, env: &Environment) -> std::result::Result<Case, Fault> {
    let place = entry.referenced;
    let Entry {
        path,
        address,
        syscall,
        protocol,
        r#as,
        uid,
        of,
        access,
        expect,
        rule,
    } = entry.value;
    let missing = |key: &str| Fault::new(place, format!("this case has no {}", quoted(key)));
    if let (None, Some(protocol)) = (&address, &protocol) {
        return Err(Fault::new(
            protocol.referenced,
            "only an address has a \"protocol\"; leave it out",
        ));
    }
    let object = match (path, address, syscall) {
        (Some(path), None, None) => {
            let absolute = pattern::absolute(Path::new(&path.value), env);
            Accessed::File(absolute.map_err(|sentence| Fault::new(path.referenced, sentence))?)
        }
        (None, Some(address), None) => {
            let transport = protocol
                .as_ref()
                .map(compile::parse_transport)
                .transpose()?;
            let fault = |sentence| Fault::new(address.referenced, sentence);
            let wrong = || {
                fault(format!(
                    "{} is no address with a port; write one as 10.0.0.1:443, [2001:db8::1]:443 or host:example.org:443",
                    quoted(&address.value)
                ))
            };
            match HostName::with_port(&address.value) {
                Some(read) => {
                    let (host, port) = read.map_err(fault)?;
                    Accessed::Host(host, port, transport)
                }
                None => Accessed::Address(address.value.parse().map_err(|_| wrong())?, transport),
            }
        }
        (None, None, Some(name)) => match SystemCall::named(&name.value) {
            Some(call) => Accessed::Call(call),
            None => {
                let names = crate::event::names::syscalls();
                let here = "; this machine has none of this name";
                let sentence = unknown("system call", &name.value, names, here);
                return Err(Fault::new(name.referenced, sentence));
            }
        },
        (None, None, None) => {
            let sentence = "this case has no \"path\", \"address\" or \"syscall\"";
            return Err(Fault::new(place, sentence));
        }
        (path, address, syscall) => {
            let several = [path, address, syscall].into_iter().flatten();
            let last = several.last().map_or(place, |named| named.referenced);
            return Err(Fault::new(
                last,
                "this case has several of \"path\", \"address\" and \"syscall\"; make it as many",
            ));
        }
    };
    let is_file = matches!(object, Accessed::File(_));
    let of = match of {
        None => None,
        Some(of) if !is_file => {
            let sentence = "only a file has an \"of\"; leave it out";
            return Err(Fault::new(of.referenced, sentence));
        }
        Some(of) => Some(FileKind::from_name(&of.value).ok_or_else(|| {
            let instead = "; it is fileless, setuid or written";
            let sentence = unknown("kind of file", &of.value, FileKind::names(), instead);
            Fault::new(of.referenced, sentence)
        })?),
    };
    let is_call = matches!(object, Accessed::Call(_));
    let by = doer(r#as.as_ref(), uid.as_ref(), is_call, env)?;
    let access = match (access, &object) {
        (None, Accessed::Call(_)) => None,
        (Some(access), Accessed::Call(_)) => {
            return Err(Fault::new(
                access.referenced,
                "a system call has no \"access\"; leave it out",
            ));
        }
        (access, _) => Some(access.ok_or_else(|| missing("access"))?),
    };
    let access = access
        .as_ref()
        .map(|access| (&access.value, access.referenced));
    let access = match access {
        None => Access::CALL,
        Some((value, place)) => words_of_access(value, place, is_file)?,
    };
    let expect = expect.ok_or_else(|| missing("expect"))?;
    let verdict = Verdict::from_name(&expect.value).ok_or_else(|| {
        let instead = "; it is allow, audit or deny";
        let sentence = unknown("verdict", &expect.value, Verdict::names(), instead);
        Fault::new(expect.referenced, sentence)
    })?;
    let rule = match rule {
        Some(rule) if verdict == Verdict::Allow => {
            return Err(Fault::new(
                rule.referenced,
                "no rule is named by an access that is allowed; leave \"rule\" out",
            ));
        }
        Some(rule) => Some(label(&rule, "rule")?),
        None => None,
    };
    Ok(Case {
        object,
        of,
        access,
        by,
        expect: verdict,
        rule,
        line: Place::from(place).line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn env() -> Environment {
        Environment::new(None, "/work".into())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = Cases::parse(text, "c.yaml", &env()).expect_err("a fault");
        assert_eq!(error.kind(), ErrorKind::Policy);
        assert_eq!(error.to_string().lines().next(), Some(expected));
    }

    #[test]
    fn cases_are_held_against_the_evaluator() {
        let set = RuleSet::deny_files([PathBuf::from("/a")], &env()).unwrap();
        let text = "version: 1\npolicy: p.yaml\ncases:\n\
            - { path: /a, access: read, expect: deny, rule: \"deny-file:/a\" }\n\
            - { path: /b, access: [read, write], expect: allow }\n\
            - { path: /a, access: all, expect: deny, rule: other }\n\
            - { path: b, access: exec, expect: deny }\n";
        let cases = Cases::parse(text, "c.yaml", &env()).unwrap();
        assert_eq!(cases.policy.as_deref(), Some(Path::new("p.yaml")));
        let failures: Vec<_> = cases
            .failures(&set)
            .into_iter()
            .map(|f| (f.case.line, f.verdict, f.rule))
            .collect();
        let denied = Some("deny-file:/a".to_owned());
        assert_eq!(
            failures,
            [(6, Verdict::Deny, denied), (7, Verdict::Allow, None)]
        );
    }

    #[test]
    fn cases_say_who_it_is() {
        let rule = "{ id: keys, deny: [read], paths: [/key], not_by: { exe: /ssh, uid: 0 } }";
        let net = "{ id: net, deny: connect, to: [any], by: { uid: 7 } }";
        let text = format!("version: 1\nfiles: [{rule}]\nnetwork: [{net}]\n");
        let set = RuleSet::parse(&text, "p.yaml", &env()).unwrap();
        let text = "version: 1\ncases:\n\
            - { path: /key, access: read, expect: deny }\n\
            - { path: /key, as: /ssh, access: read, expect: deny }\n\
            - { path: /key, as: /ssh, uid: 0, access: read, expect: allow }\n\
            - { address: '192.0.2.1:1', access: connect, expect: allow }\n\
            - { address: '192.0.2.1:1', uid: 7, access: connect, expect: deny }\n\
            - { address: 'host:example.org:1', uid: 7, access: connect, expect: allow }\n";
        let cases = Cases::parse(text, "c.yaml", &env()).unwrap();
        let wrong: Vec<u32> = cases.failures(&set).iter().map(|f| f.case.line).collect();
        assert_eq!(wrong, [8]);
    }

    #[test]
    fn faults_are_told_with_their_place() {
        refused(
            "version: 1\n",
            "c.yaml:1:1: there are no cases; \"cases\" is missing",
        );
        refused(
            "version: 1\ncases: []\n",
            "c.yaml:2:8: there are no cases; \"cases\" is empty",
        );
        let one = |case: &str| format!("version: 1\ncases:\n  - {case}\n");
        refused(
            &one("{ path: /a, access: read }"),
            "c.yaml:3:5: this case has no \"expect\"",
        );
        refused(
            &one("{ path: /a, access: read, expect: dney }"),
            "c.yaml:3:39: unknown verdict \"dney\"; did you mean \"deny\"?",
        );
        refused(
            &one("{ path: /a, access: raed, expect: deny }"),
            "c.yaml:3:25: unknown access kind \"raed\"; did you mean \"read\"?",
        );
        refused(
            &one("{ path: /a, access: read, expect: allow, rule: x }"),
            "c.yaml:3:52: no rule is named by an access that is allowed; leave \"rule\" out",
        );
        refused(
            &one("{ path: /a, of: setudi, access: exec, expect: allow }"),
            "c.yaml:3:21: unknown kind of file \"setudi\"; did you mean \"setuid\"?",
        );
        refused(
            &one("{ address: 'a:1', of: setuid, access: exec, expect: allow }"),
            "c.yaml:3:16: \"a:1\" is no address with a port; write one as 10.0.0.1:443, [2001:db8::1]:443 or host:example.org:443",
        );
        refused(
            &one("{ address: '10.0.0.1:1', of: setuid, access: exec, expect: allow }"),
            "c.yaml:3:34: only a file has an \"of\"; leave it out",
        );
        refused(
            &one("{ path: /a, as: ssh, access: read, expect: allow }"),
            "c.yaml:3:21: \"ssh\" is no path of a program; write it as /usr/bin/ssh or ./ssh",
        );
        refused(
            &one("{ syscall: ptrace, uid: 1, expect: allow }"),
            "c.yaml:3:29: rules about system calls are about everybody; leave \"as\" and \"uid\" out",
        );
        refused(
            &one("{ path: /a, acces: read, expect: allow }"),
            "c.yaml:3:17: unknown key \"acces\" in a case; did you mean \"access\"?",
        );
    }
}
