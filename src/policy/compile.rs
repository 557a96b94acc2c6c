//! From document to rule set: every meaning is checked here, and every path made absolute.
//!
//! A document is refused as a whole at its first fault; what compiles is complete, with nothing left out.

mod limit;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::access::Access;
use super::document::{
    self, Document, FileEntry, List, ListEntry, NetworkEntry, SyscallEntry, Value, WhoEntry,
};
use super::fault::{Fault, Place, did_you_mean, quoted, unknown};
use super::subject::actors;
use super::variables::Variables;
use super::{
    Addresses, Called, Effect, Environment, FileRule, LimitRule, Mode, NetworkRule, Otherwise,
    Pattern, Refusal, RuleSet, Subject, SyscallRule, Who,
};
use crate::event::{Transport, names};
use limit::limit_rule;
pub(super) use limit::{FORK_ERRNOS, SEND_ERRNOS};

/// The access kinds of a list, besides `all`.
const ACCESS_NOW: &str = "read, write, exec, create, delete, replace, link, metadata, mount";

/// Those of a network rule.
const CONTACTS_NOW: &str = "connect, send, bind, listen, accept";

/// Where rules are.
const SECTIONS: &str = "\"files\", \"exec\", \"network\", \"syscalls\" or \"limits\"";

/// The rule set of a document.
pub(super) fn compile(text: &str, source_name: &str, env: &Environment) -> Result<RuleSet, Fault> {
    let mut document = document::read(text)?;
    // What is missing has no place of its own; the first key stands for it.
    let start = document.referenced;
    let has_rules = document.value.has_rules();
    let Document {
        version,
        name,
        mode,
        variables,
        ..
    } = &document.value;
    let is_empty = version.is_none() && name.is_none() && mode.is_none() && variables.is_none();
    if is_empty && !has_rules {
        return Err(Fault::new(
            start,
            format!("the policy is empty; it needs \"version\", and {SECTIONS}"),
        ));
    }
    document::require_version(version.as_ref(), start)?;
    let declared = document.value.variables.take().map(|all| all.value);
    let mut variables = Variables::new(declared.as_ref(), &env.variables, start)?;
    for list in document.value.lists() {
        variables.expand(list)?;
    }
    variables.all_used()?;
    let Document {
        name,
        mode,
        files,
        exec,
        network,
        syscalls,
        limits,
        ..
    } = document.value;
    let name = match name {
        Some(name) => label(&name, "name")?,
        None => source_name.to_owned(),
    };
    let mode = match &mode {
        Some(mode) => parse_mode(mode)?,
        None => Mode::default(),
    };

    if !has_rules {
        return Err(Fault::new(
            start,
            format!("the policy has no rules; {SECTIONS} is missing"),
        ));
    }
    let mut found = Vec::new();
    for entry in entries(files, "files")? {
        found.push(file_rule(entry, mode, env)?);
    }
    for entry in entries(exec, "exec")? {
        found.push(exec_rule(entry, mode, env)?);
    }
    // Among equals the first in the document is named, whatever it is about.
    found.sort_by_key(|(rule, _)| rule.line);
    let mut contacts = Vec::new();
    for entry in entries(network, "network")? {
        contacts.push(network_rule(entry, mode, env)?);
    }
    let mut calls = Vec::new();
    for entry in entries(syscalls, "syscalls")? {
        calls.push(syscall_rule(entry, mode)?);
    }
    let mut counted: Vec<(LimitRule, Location)> = Vec::new();
    for entry in entries(limits, "limits")? {
        let (rule, place) = limit_rule(entry, mode)?;
        let alike = counted.iter().filter(|(r, _)| r.each == rule.each).count();
        if alike == LimitRule::MAX {
            return Err(Fault::new(
                place,
                format!(
                    "{} is one limit too many: a policy has room for {} of all together, and for as many of each process",
                    quoted(&rule.id),
                    LimitRule::MAX
                ),
            ));
        }
        counted.push((rule, place));
    }

    let files = found
        .iter()
        .map(|(r, place)| (r.id.as_str(), r.line, *place));
    let network = contacts
        .iter()
        .map(|(r, place)| (r.id.as_str(), r.line, *place));
    let syscalls = calls
        .iter()
        .map(|(r, place)| (r.id.as_str(), r.line, *place));
    let limits = counted
        .iter()
        .map(|(r, place)| (r.id.as_str(), r.line, *place));
    let all = files.chain(network).chain(syscalls).chain(limits);
    let mut labels: Vec<(&str, u32, Location)> = all.collect();
    labels.sort_by_key(|(_, line, _)| *line);
    let mut lines_by_id: HashMap<&str, u32> = HashMap::with_capacity(labels.len());
    for (id, line, place) in labels {
        if let Some(first) = lines_by_id.insert(id, line) {
            return Err(Fault::new(
                place,
                format!(
                    "the id {} is already used by the rule on line {first}",
                    quoted(id)
                ),
            ));
        }
    }
    Ok(RuleSet {
        name,
        mode,
        rules: found.into_iter().map(|(rule, _)| rule).collect(),
        network: contacts.into_iter().map(|(rule, _)| rule).collect(),
        syscalls: calls.into_iter().map(|(rule, _)| rule).collect(),
        limits: counted.into_iter().map(|(rule, _)| rule).collect(),
    })
}

/// The rules of a section; none where there is no such section.
fn entries<T>(section: Option<Spanned<Value<T>>>, key: &str) -> Result<Vec<T>, Fault> {
    let Some(section) = section else {
        return Ok(Vec::new());
    };
    match section.value {
        Value::List(entries) if !entries.is_empty() => Ok(entries),
        Value::List(_) | Value::Nothing => Err(Fault::new(
            section.referenced,
            format!(
                "there are no rules in {}; write some or leave it out",
                quoted(key)
            ),
        )),
        Value::Word(_) | Value::Mapping => Err(Fault::new(
            section.referenced,
            format!(
                "{} must be a list of rules, each starting with \"- id:\"",
                quoted(key)
            ),
        )),
    }
}

/// What every rule starts with.
struct Head {
    place: Location,
    id: String,
    id_place: Location,
    effect: Effect,
    /// `deny` or `allow`, and what stands there.
    key: &'static str,
    list: List,
}

fn head(
    section: &str,
    id: Option<Spanned<String>>,
    deny: Option<List>,
    allow: Option<List>,
    place: Location,
) -> Result<Head, Fault> {
    let Some(id) = id else {
        let sentence = format!("this {section} rule has no \"id\"");
        return Err(Fault::new(place, sentence));
    };
    let id_place = id.referenced;
    let id = label(&id, "id")?;
    let (effect, key, list) = match (deny, allow) {
        (Some(deny), None) => (Effect::Deny, "deny", deny),
        (None, Some(allow)) => (Effect::Allow, "allow", allow),
        (None, None) => {
            return Err(Fault::new(
                place,
                format!(
                    "the rule {} has neither \"deny\" nor \"allow\"",
                    quoted(&id)
                ),
            ));
        }
        (Some(_), Some(allow)) => {
            return Err(Fault::new(
                allow.referenced,
                format!(
                    "the rule {} has both \"deny\" and \"allow\"; make it two rules",
                    quoted(&id)
                ),
            ));
        }
    };
    Ok(Head {
        place,
        id,
        id_place,
        effect,
        key,
        list,
    })
}

impl Head {
    /// The rule, and where its id stands.
    fn rule(
        self,
        access: Access,
        paths: Vec<Pattern>,
        subject: Subject,
        tail: Tail,
    ) -> (FileRule, Location) {
        let rule = FileRule {
            id: self.id,
            effect: self.effect,
            access,
            paths,
            mode: tail.mode,
            priority: tail.priority,
            refusal: tail.refusal,
            subject,
            may_be_missing: true,
            line: Place::from(self.place).line,
        };
        (rule, self.id_place)
    }
}

/// What every rule can end with.
struct Tail {
    mode: Mode,
    priority: i32,
    refusal: Refusal,
}

/// Of `mode`, `action` and `errno`, and `priority`.
fn tail(
    [mode, action, errno]: [Option<Spanned<String>>; 3],
    priority: Option<&List>,
    default_mode: Mode,
) -> Result<Tail, Fault> {
    let mode = mode.as_ref().map_or(Ok(default_mode), parse_mode)?;
    let kill = match action.as_ref().map(|action| action.value.as_str()) {
        None | Some("deny") => false,
        Some("kill") => true,
        Some(word) => {
            let place = action.as_ref().map_or(Location::UNKNOWN, |a| a.referenced);
            let sentence = unknown("action", word, ["deny", "kill"], "; it is deny or kill");
            return Err(Fault::new(place, sentence));
        }
    };
    let errno = match errno {
        None => Refusal::default().errno,
        Some(errno) if kill => {
            return Err(Fault::new(
                errno.referenced,
                "\"errno\" is for who goes on; a process that is killed reads none",
            ));
        }
        Some(errno) => parse_errno(&errno, &ERRNOS)?,
    };
    Ok(Tail {
        mode,
        priority: priority.map_or(Ok(0), parse_priority)?,
        refusal: Refusal { errno, kill },
    })
}

/// What programs know how to live with.
pub(super) const ERRNOS: [&str; 14] = [
    "EPERM",
    "ENOENT",
    "EIO",
    "ENXIO",
    "EACCES",
    "EBUSY",
    "ENODEV",
    "EROFS",
    "ENOSYS",
    "EAFNOSUPPORT",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "EHOSTUNREACH",
];

fn parse_errno(errno: &Spanned<String>, known: &[&'static str]) -> Result<u16, Fault> {
    let number = |name: &&str| (1..200).find(|n| names::errno(*n) == Some(name));
    known
        .iter()
        .find(|name| **name == errno.value)
        .and_then(number)
        .ok_or_else(|| {
            let instead = format!("; known are {}", known.join(", "));
            let known = known.iter().copied();
            let sentence = unknown("errno", &errno.value, known, &instead);
            Fault::new(errno.referenced, sentence)
        })
}

/// The head of a rule that is about what its `deny` or `allow` lists, and its tail.
fn list_rule(
    section: &str,
    entry: ListEntry,
    place: Location,
    default_mode: Mode,
) -> Result<(Head, Tail), Fault> {
    let ListEntry {
        id,
        deny,
        allow,
        mode,
        priority,
        action,
        errno,
        ..
    } = entry;
    if id.is_none() && deny.is_none() && allow.is_none() && mode.is_none() {
        return Err(Fault::new(
            place,
            format!("an empty {section} rule; it needs \"id\", and \"deny\" or \"allow\""),
        ));
    }
    let head = head(section, id, deny, allow, place)?;
    let tail = tail([mode, action, errno], priority.as_ref(), default_mode)?;
    Ok((head, tail))
}

/// One rule, and where its id stands.
fn exec_rule(
    mut entry: Spanned<ListEntry>,
    default_mode: Mode,
    env: &Environment,
) -> Result<(FileRule, Location), Fault> {
    let subject = [entry.value.by.take(), entry.value.not_by.take()];
    let (head, tail) = list_rule("exec", entry.value, entry.referenced, default_mode)?;
    let file = |path: &str| Pattern::parse_program(path, head.effect, env);
    let paths = parse_paths(&head.list, head.key, &head.id, file)?;
    let subject = parse_subject(subject, &head.id, env)?;
    Ok(head.rule(Access::EXEC, paths, subject, tail))
}

/// One rule, and where its id stands.
fn syscall_rule(
    entry: Spanned<SyscallEntry>,
    default_mode: Mode,
) -> Result<(SyscallRule, Location), Fault> {
    let place = entry.referenced;
    let SyscallEntry {
        id,
        deny,
        allow,
        mode,
        priority,
        action,
        errno,
        otherwise,
    } = entry.value;
    let entry = ListEntry {
        id,
        deny,
        allow,
        by: None,
        not_by: None,
        mode,
        priority,
        action,
        errno,
    };
    let (head, tail) = list_rule("syscall", entry, place, default_mode)?;
    let otherwise = otherwise.as_ref().map(parse_otherwise).transpose()?;
    let (list, key) = (&head.list, head.key);
    let rule = SyscallRule {
        effect: head.effect,
        calls: parse_each(list, key, &head.id, "system calls", "ptrace", Called::parse)?,
        mode: tail.mode,
        priority: tail.priority,
        refusal: tail.refusal,
        otherwise,
        line: Place::from(head.place).line,
        id: head.id,
    };
    Ok((rule, head.id_place))
}

fn parse_otherwise(word: &Spanned<String>) -> Result<Otherwise, Fault> {
    Otherwise::from_name(&word.value).ok_or_else(|| {
        let known = Otherwise::ALL.map(Otherwise::name);
        let sentence = unknown("choice", &word.value, known, "; it is kill or log");
        Fault::new(word.referenced, sentence)
    })
}

/// One rule, and where its id stands.
fn file_rule(
    entry: Spanned<FileEntry>,
    default_mode: Mode,
    env: &Environment,
) -> Result<(FileRule, Location), Fault> {
    let place = entry.referenced;
    let FileEntry {
        id,
        deny,
        allow,
        paths,
        inodes,
        by,
        not_by,
        mode,
        priority,
        action,
        errno,
    } = entry.value;
    let names_none = paths.is_none() && inodes.is_none();
    if id.is_none() && deny.is_none() && allow.is_none() && names_none && mode.is_none() {
        return Err(Fault::new(
            place,
            "an empty file rule; it needs \"id\", \"deny\" or \"allow\", and \"paths\"",
        ));
    }
    let head = head("file", id, deny, allow, place)?;
    let access = parse_access(&head.list, head.key, &head.id)?;
    if names_none {
        return Err(Fault::new(
            place,
            format!(
                "the rule {} has neither \"paths\" nor \"inodes\"",
                quoted(&head.id)
            ),
        ));
    }
    let mut named = Vec::new();
    if let Some(paths) = paths {
        let file = |path: &str| Pattern::parse(path, env);
        named = parse_paths(&paths, "paths", &head.id, file)?;
    }
    if let Some(inodes) = inodes {
        let inode = |path: &str| Pattern::parse_inode(path, env);
        named.extend(parse_paths(&inodes, "inodes", &head.id, inode)?);
    }
    let tail = tail([mode, action, errno], priority.as_ref(), default_mode)?;
    let subject = parse_subject([by, not_by], &head.id, env)?;
    Ok(head.rule(access, named, subject, tail))
}

/// One rule, and where its id stands.
fn network_rule(
    entry: Spanned<NetworkEntry>,
    default_mode: Mode,
    env: &Environment,
) -> Result<(NetworkRule, Location), Fault> {
    let place = entry.referenced;
    let NetworkEntry {
        id,
        deny,
        allow,
        to,
        at,
        protocol,
        by,
        not_by,
        mode,
        priority,
        action,
        errno,
    } = entry.value;
    if id.is_none() && deny.is_none() && allow.is_none() && to.is_none() && at.is_none() {
        return Err(Fault::new(
            place,
            "an empty network rule; it needs \"id\", \"deny\" or \"allow\", and \"to\" or \"at\"",
        ));
    }
    let head = head("network", id, deny, allow, place)?;
    let access = parse_contacts(&head.list, head.key, &head.id)?;
    let (key, other) = if Access::OUTWARDS.contains(access) {
        ("to", "at")
    } else if Access::OWN.contains(access) {
        ("at", "to")
    } else {
        return Err(Fault::new(
            head.list.referenced,
            format!(
                "the rule {} is about both ends; make it two rules: one of connect and send with \"to\", and one of bind, \
                 listen and accept with \"at\"",
                quoted(&head.id)
            ),
        ));
    };
    let (named, unfit) = if key == "to" { (to, at) } else { (at, to) };
    if let Some(unfit) = unfit {
        return Err(Fault::new(
            unfit.referenced,
            format!(
                "{} has no meaning for {access} in the rule {}; write {}",
                quoted(other),
                quoted(&head.id),
                quoted(key)
            ),
        ));
    }
    let Some(named) = named else {
        return Err(Fault::new(
            place,
            format!(
                "the rule {} has no {}; any stands for every address",
                quoted(&head.id),
                quoted(key)
            ),
        ));
    };
    let transport = match &protocol {
        None => None,
        Some(name) => Some(parse_transport(name)?),
    };
    let tail = tail([mode, action, errno], priority.as_ref(), default_mode)?;
    let own = key == "at";
    let parse = |written: &str| {
        let addresses = Addresses::parse(written)?;
        match addresses.selector.host() {
            Some(_) if own => Err(format!(
                "{} names a host, and one is not at a host but at addresses of one's own; write these",
                quoted(written)
            )),
            _ => Ok(addresses),
        }
    };
    let rule = NetworkRule {
        effect: head.effect,
        access,
        addresses: parse_each(&named, key, &head.id, "addresses", "10.0.0.0/8:443", parse)?,
        transport,
        mode: tail.mode,
        priority: tail.priority,
        refusal: tail.refusal,
        subject: parse_subject([by, not_by], &head.id, env)?,
        line: Place::from(place).line,
        id: head.id,
    };
    Ok((rule, head.id_place))
}

/// Whom a rule is about: of `by` and `not_by`.
fn parse_subject(
    [by, not_by]: [Option<Spanned<WhoEntry>>; 2],
    id: &str,
    env: &Environment,
) -> Result<Subject, Fault> {
    let place = not_by.as_ref().map(|who| who.referenced);
    let who = |key, entry: Option<Spanned<WhoEntry>>| {
        entry
            .map(|entry| parse_who(entry, key, id, env))
            .transpose()
    };
    let subject = Subject {
        by: who("by", by)?,
        not_by: who("not_by", not_by)?,
    };
    let is_anybody = actors(std::iter::once(&subject))
        .iter()
        .any(|actor| subject.includes(actor));
    match place {
        Some(place) if !is_anybody => Err(Fault::new(
            place,
            format!(
                "the rule {} is about nobody: who is in \"by\" is in \"not_by\"",
                quoted(id)
            ),
        )),
        _ => Ok(subject),
    }
}

fn parse_who(
    entry: Spanned<WhoEntry>,
    key: &str,
    id: &str,
    env: &Environment,
) -> Result<Who, Fault> {
    let WhoEntry { exe, uid } = entry.value;
    if exe.is_none() && uid.is_none() {
        return Err(Fault::new(
            entry.referenced,
            format!(
                "{} of the rule {} names nobody; it has \"exe\", \"uid\" or both",
                quoted(key),
                quoted(id)
            ),
        ));
    }
    let program = |written: &str| parse_exe(written, env);
    Ok(Who {
        exe: exe.map_or(Ok(Vec::new()), |list| {
            parse_some(list, "exe", id, "programs", "/usr/bin/ssh", program)
        })?,
        uid: uid.map_or(Ok(Vec::new()), |list| {
            parse_some(list, "uid", id, "user ids", "1000", parse_uid)
        })?,
    })
}

/// The path of a program; the error is a sentence.
pub(super) fn parse_exe(written: &str, env: &Environment) -> Result<PathBuf, String> {
    if !written.contains('/') {
        return Err(format!(
            "{} is no path of a program; write it as /usr/bin/{written} or ./{written}",
            quoted(written)
        ));
    }
    match Pattern::parse(written, env)? {
        Pattern::File(path) => Ok(path),
        Pattern::Below(_) | Pattern::Inode(_) | Pattern::Kind(_) => Err(format!(
            "{} is no single program; write the path of each",
            quoted(written)
        )),
    }
}

/// A user id; the error is a sentence. The highest number stands for none.
pub(super) fn parse_uid(written: &str) -> Result<u32, String> {
    let uid = written.parse().ok().filter(|uid| *uid != u32::MAX);
    uid.ok_or_else(|| {
        format!(
            "{} is no user id; write the number, as id -u NAME gives it",
            quoted(written)
        )
    })
}

pub(super) fn parse_transport(name: &Spanned<String>) -> Result<Transport, Fault> {
    let known = [Transport::Tcp, Transport::Udp];
    known
        .into_iter()
        .find(|transport| transport.name() == name.value)
        .ok_or_else(|| {
            let known = known.map(Transport::name);
            let sentence = unknown("protocol", &name.value, known, "; it is tcp or udp");
            Fault::new(name.referenced, sentence)
        })
}

/// A name or an id: visible text on one line.
pub(super) fn label(text: &Spanned<String>, key: &str) -> Result<String, Fault> {
    if text.value.trim().is_empty() {
        return Err(Fault::new(
            text.referenced,
            format!("{} is empty", quoted(key)),
        ));
    }
    if text.value.chars().any(char::is_control) {
        return Err(Fault::new(
            text.referenced,
            format!(
                "{} holds a control character: {}",
                quoted(key),
                quoted(&text.value)
            ),
        ));
    }
    Ok(text.value.clone())
}

fn parse_mode(mode: &Spanned<String>) -> Result<Mode, Fault> {
    Mode::from_name(&mode.value).ok_or_else(|| {
        let known = [Mode::Enforce.name(), Mode::Audit.name()];
        let sentence = unknown("mode", &mode.value, known, "; it is enforce or audit");
        Fault::new(mode.referenced, sentence)
    })
}

/// Rules are few, and numbers that are hard to compare help nobody.
pub(super) const PRIORITIES: std::ops::RangeInclusive<i32> = -1000..=1000;

fn parse_priority(priority: &List) -> Result<i32, Fault> {
    let number = match &priority.value {
        Value::Word(word) => word.parse().ok(),
        Value::List(_) | Value::Nothing | Value::Mapping => None,
    };
    number.filter(|n| PRIORITIES.contains(n)).ok_or_else(|| {
        Fault::new(
            priority.referenced,
            "\"priority\" must be a whole number from -1000 to 1000; without it, it is 0",
        )
    })
}

fn parse_access(access: &List, key: &str, id: &str) -> Result<Access, Fault> {
    let shape = || {
        format!(
            "{} must be a list of access kinds or the word all",
            quoted(key)
        )
    };
    match &access.value {
        Value::Word(word) if word == "all" => Ok(Access::ALL),
        Value::List(kinds) if kinds.is_empty() => {
            let verb = if key == "deny" { "denies" } else { "allows" };
            Err(Fault::new(
                access.referenced,
                format!("the rule {} {verb} nothing", quoted(id)),
            ))
        }
        Value::List(words) => kinds(words),
        Value::Word(word) => {
            let help = if Access::from_name(word).is_some() {
                format!("; write [{word}]")
            } else {
                did_you_mean(word, ["all"])
            };
            Err(Fault::new(access.referenced, shape() + &help))
        }
        Value::Nothing | Value::Mapping => Err(Fault::new(access.referenced, shape())),
    }
}

fn parse_contacts(access: &List, key: &str, id: &str) -> Result<Access, Fault> {
    match &access.value {
        Value::Word(word) => contact(word, access.referenced),
        Value::List(words) if !words.is_empty() => contacts(words),
        Value::List(_) => {
            let verb = if key == "deny" { "denies" } else { "allows" };
            Err(Fault::new(
                access.referenced,
                format!("the rule {} {verb} nothing", quoted(id)),
            ))
        }
        Value::Nothing | Value::Mapping => Err(Fault::new(
            access.referenced,
            format!(
                "{} must be a kind of access, or a list of them: {CONTACTS_NOW}",
                quoted(key)
            ),
        )),
    }
}

/// The kinds of access on the network that a list of words stands for.
pub(super) fn contacts(words: &[Spanned<String>]) -> Result<Access, Fault> {
    words.iter().try_fold(Access::default(), |all, word| {
        Ok(all | contact(&word.value, word.referenced)?)
    })
}

/// The kind that a word stands for.
pub(super) fn contact(word: &str, place: Location) -> Result<Access, Fault> {
    let all = Access::NETWORK;
    match Access::from_name(word) {
        Some(access) if all.contains(access) => Ok(access),
        Some(_) => Err(Fault::new(
            place,
            format!(
                "{} is done to files; on the network it is {CONTACTS_NOW}",
                quoted(word)
            ),
        )),
        None => {
            let instead = format!("; known are {CONTACTS_NOW}");
            let sentence = unknown("kind of access", word, all.names(), &instead);
            Err(Fault::new(place, sentence))
        }
    }
}

/// The kinds that a list of words stands for.
pub(super) fn kinds(words: &[Spanned<String>]) -> Result<Access, Fault> {
    words.iter().try_fold(Access::default(), |all, word| {
        Ok(all | kind(&word.value, word.referenced)?)
    })
}

/// The kinds that a word stands for.
pub(super) fn kind(word: &str, place: Location) -> Result<Access, Fault> {
    if word == "all" {
        return Ok(Access::ALL);
    }
    match Access::from_name(word) {
        Some(access) if Access::ALL.contains(access) => Ok(access),
        Some(_) => Err(Fault::new(
            place,
            format!(
                "{} is done on the network; to files it is {ACCESS_NOW} or all",
                quoted(word)
            ),
        )),
        None => {
            let known = Access::ALL.names().chain(["all"]);
            let all = format!("; known are {ACCESS_NOW} and all");
            Err(Fault::new(place, unknown("access kind", word, known, &all)))
        }
    }
}

fn parse_paths(
    paths: &List,
    key: &str,
    id: &str,
    parse: impl Fn(&str) -> Result<Pattern, String>,
) -> Result<Vec<Pattern>, Fault> {
    parse_each(paths, key, id, "paths", "/etc/shadow", parse)
}

/// The same where one can stand by itself.
fn parse_some<T>(
    list: List,
    key: &str,
    id: &str,
    what: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Fault> {
    if let Value::Word(word) = &list.value {
        let parsed = parse(word).map_err(|sentence| Fault::new(list.referenced, sentence))?;
        return Ok(vec![parsed]);
    }
    parse_each(&list, key, id, what, example, parse)
}

/// What each entry of a list means: a list of `what`, as for `example`.
fn parse_each<T>(
    list: &List,
    key: &str,
    id: &str,
    what: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Fault> {
    let entries = match &list.value {
        Value::List(entries) if !entries.is_empty() => entries,
        Value::List(_) => {
            return Err(Fault::new(
                list.referenced,
                format!("{} of the rule {} is empty", quoted(key), quoted(id)),
            ));
        }
        Value::Word(_) | Value::Nothing | Value::Mapping => {
            return Err(Fault::new(
                list.referenced,
                format!(
                    "{} must be a list of {what}, as in [\"{example}\"]",
                    quoted(key)
                ),
            ));
        }
    };
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        let parsed = parse(&entry.value);
        out.push(parsed.map_err(|sentence| Fault::new(entry.referenced, sentence))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_in_messages_is_the_one_in_the_code() {
        let names: Vec<_> = Access::ALL.names().collect();
        assert_eq!(names.join(", "), ACCESS_NOW);
        let names: Vec<_> = Access::NETWORK.names().collect();
        assert_eq!(names.join(", "), CONTACTS_NOW);
    }
}
