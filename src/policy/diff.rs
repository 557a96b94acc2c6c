//! What two rule sets say differently.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::Serialize;

use super::evaluate::{Answer, Decision, Request, Rule, decide};
use super::{
    Access, Actor, Addresses, Contact, Doer, Effect, FileRule, HostName, LimitRule, NetworkRule,
    Pattern, RuleSet, Selector, subject, syscall,
};
use crate::event::Transport;

/// Kinds of access to one file on which two rule sets differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The file, or the directory whose contents it is.
    pub path: Pattern,
    /// The kinds.
    pub access: Access,
    /// What the first set says.
    pub before: Answer,
    /// What the second one says.
    pub after: Answer,
    /// The id of the rule that the stricter verdict comes from; where they are as strict, the second one's.
    pub rule: String,
    /// Whose access it is: somebody's whom rules name. `None`: that of everybody whom no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Doer>,
}

/// What becomes allowed or denied when `after` takes the place of `before`: by path, then in the order of the kinds.
/// Empty when both mean the same, however they are written. The directories that lead to a path follow what is said about
/// it and are not listed. What differs for programs and users that rules name follows, by program and user, where it is not
/// the same for all.
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
/// let verdicts = (changes[0].before.verdict, changes[0].after.verdict);
/// assert_eq!(verdicts, (Verdict::Deny, Verdict::Allow));
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn diff(before: &RuleSet, after: &RuleSet) -> Vec<Change> {
    let by = |change: Change, by| Change { by, ..change };
    for_each_actor(before, after, diff_for_one, by)
}

fn diff_for_one(before: &RuleSet, after: &RuleSet) -> Vec<Change> {
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
            // Of no path, but for what other rules say about that.
            Pattern::Kind(_) => PathBuf::new(),
        };
        let file_kind = match pattern {
            Pattern::Kind(kind) => std::slice::from_ref(kind),
            _ => &[],
        };
        let (old, new) = (old.about(&path, pattern), new.about(&path, pattern));
        let request = |access| Request {
            // What comes to be at a path is another question than the file that is there now.
            replaced: !pattern.is_inode(),
            ..Request::new(&path, access).of(file_kind)
        };
        let first = changes.len();
        for access in Access::ALL.kinds() {
            let request = request(access);
            let (old, new) = (of_kind(&old, &request), of_kind(&new, &request));
            let Some((before, after, rule)) = difference(&old, &new) else {
                continue;
            };
            let change = Change {
                path: pattern.clone(),
                access,
                before,
                after,
                rule,
                by: None,
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

/// The changes for everybody whom no rule names, and then those for who is named, where they are other ones.
fn for_each_actor<C: PartialEq + Clone>(
    before: &RuleSet,
    after: &RuleSet,
    changes: fn(&RuleSet, &RuleSet) -> Vec<C>,
    by: fn(C, Option<Doer>) -> C,
) -> Vec<C> {
    let mut actors = subject::actors(before.subjects().chain(after.subjects())).into_iter();
    // Most policies are about everybody, and need no copy.
    if actors.len() == 1 {
        return changes(before, after);
    }
    let said_to = |actor: &Actor<'_>| changes(&before.said_to(actor), &after.said_to(actor));
    let of_all = actors.next().map_or_else(Vec::new, |actor| said_to(&actor));
    let mut all = of_all.clone();
    for actor in actors {
        let mut own = said_to(&actor);
        own.retain(|change| !of_all.contains(change));
        all.extend(own.into_iter().map(|change| by(change, Some(actor.into()))));
    }
    all
}

/// What these rules say, of which many can be about other kinds of access.
fn of_kind<'a>(rules: &[&'a FileRule], request: &Request<'_>) -> Decision<'a> {
    let about = rules.iter().copied();
    let about: Vec<&FileRule> = about
        .filter(|rule| rule.access.contains(request.access))
        .collect();
    decide(&about, request, request.access)
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

    /// Those that name the path or the pattern, or allow others, the stronger ones first.
    fn about(&self, path: &Path, pattern: &Pattern) -> Vec<&'a FileRule> {
        let above = path.ancestors().skip(1);
        let patterns = above.map(|directory| Pattern::Below(directory.to_owned()));
        let mut numbers: Vec<usize> = patterns
            .chain([
                Pattern::File(path.to_owned()),
                Pattern::Inode(path.to_owned()),
                pattern.clone(),
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

/// Kinds of access to addresses on which two rule sets differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetworkChange {
    /// The addresses, and their ports.
    pub address: Addresses,
    /// What carries the bytes: `tcp`, `udp`, `other`, or `any` of them.
    pub protocol: &'static str,
    /// The kinds.
    pub access: Access,
    /// What the first set says.
    pub before: Answer,
    /// What the second one says.
    pub after: Answer,
    /// The id of the rule that the stricter verdict comes from; where they are as strict, the second one's.
    pub rule: String,
    /// Whose access it is: somebody's whom rules name. `None`: that of everybody whom no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Doer>,
}

/// The same as [`diff`] of the network: IPv4 first, then by address, port and kind, then hosts by name. Where `any` address
/// is told, nothing is told of IPv4, IPv6 and hosts. What follows for a socket that is bound to no address, or one that is
/// connected to none, is not told by itself.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, diff_network};
///
/// let set = |to: &str| {
///     let text = format!("version: 1\nnetwork:\n  - {{ id: a, deny: connect, to: [{to}] }}\n");
///     RuleSet::parse(&text, "p.yaml", &Environment::new(None, PathBuf::from("/")))
/// };
/// let changes = diff_network(&set("10.0.0.0/8")?, &set("10.0.0.0/9")?);
/// let told: Vec<String> = changes.iter().map(|c| c.address.to_string()).collect();
/// assert_eq!(told, ["10.128.0.0/9"]);
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn diff_network(before: &RuleSet, after: &RuleSet) -> Vec<NetworkChange> {
    let by = |change: NetworkChange, by| NetworkChange { by, ..change };
    for_each_actor(before, after, diff_network_for_one, by)
}

fn diff_network_for_one(before: &RuleSet, after: &RuleSet) -> Vec<NetworkChange> {
    let (old, new) = (before.ranked_network(), after.ranked_network());
    let all = || old.iter().chain(&new).flat_map(|rule| &rule.addresses);
    // Port 0 of this end is none of the others.
    let mut begins = BTreeSet::from([0, 1]);
    for addresses in all() {
        begins.insert(addresses.first);
        begins.extend(addresses.last.checked_add(1));
    }
    let begins: Vec<u16> = begins.into_iter().collect();
    let mut changes = Vec::new();
    for four in [true, false] {
        let mut starts = BTreeSet::from([0u128]);
        for net in all().filter_map(|a| a.selector.net()) {
            match net {
                IpNet::V4(net) if four => {
                    starts.insert(u32::from(net.network()).into());
                    starts.extend(u32::from(net.broadcast()).checked_add(1).map(u128::from));
                }
                IpNet::V6(net) if !four => {
                    starts.insert(net.network().into());
                    starts.extend(u128::from(net.broadcast()).checked_add(1));
                }
                _ => {}
            }
        }
        let starts: Vec<u128> = starts.into_iter().collect();
        let last = if four { u32::MAX.into() } else { u128::MAX };
        let mut told: Vec<(u128, u128, Vec<Row>)> = Vec::new();
        for (n, &start) in starts.iter().enumerate() {
            let end = starts.get(n + 1).map_or(last, |next| next - 1);
            let who = Who::Ip(representative(four, start, end));
            let rows = rows(&old, &new, who, &begins);
            match told.last_mut() {
                Some((_, until, known)) if *known == rows => *until = end,
                _ => told.push((start, end, rows)),
            }
        }
        for (start, end, rows) in told {
            let nets: Vec<IpNet> = if four {
                let ip = |n: u128| Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX));
                let nets = Ipv4Subnets::new(ip(start), ip(end), 0);
                nets.map(IpNet::V4).collect()
            } else {
                let nets = Ipv6Subnets::new(Ipv6Addr::from(start), Ipv6Addr::from(end), 0);
                nets.map(IpNet::V6).collect()
            };
            for net in nets {
                changes.extend(rows.iter().map(|row| row.change(&Selector::Net(net))));
            }
        }
    }
    let mut changes = everywhere(changes);
    let hosts: BTreeSet<&HostName> = all().filter_map(|a| a.selector.host()).collect();
    let of_hosts = hosts.into_iter().flat_map(|host| {
        let rows = rows(&old, &new, Who::Host(host), &begins);
        let told = |row: &Row| row.change(&Selector::Host(host.clone()));
        rows.iter().map(told).collect::<Vec<_>>()
    });
    // What is said of every address is told of it alone.
    let by_themselves: Vec<_> = of_hosts.filter(|c| !changes.contains(&of_any(c))).collect();
    changes.extend(by_themselves);
    changes
}

/// System calls on which two rule sets differ in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallChange {
    /// Their names, those of 32-bit programs marked where they differ by themselves; `others`: all that have no name.
    pub calls: Vec<String>,
    /// What the first set says.
    pub before: Answer,
    /// What the second one says.
    pub after: Answer,
    /// The id of the rule that the stricter verdict comes from; where they are as strict, the second one's.
    pub rule: String,
}

/// The same as [`diff`] of system calls: in the order of their numbers.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, diff_calls};
///
/// let set = |calls: &str| {
///     let text = format!("version: 1\nsyscalls:\n  - {{ id: a, deny: [{calls}] }}\n");
///     RuleSet::parse(&text, "p.yaml", &Environment::new(None, PathBuf::from("/")))
/// };
/// let changes = diff_calls(&set("ptrace")?, &set("ptrace, mount")?);
/// assert_eq!(changes[0].calls, ["mount"]);
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn diff_calls(before: &RuleSet, after: &RuleSet) -> Vec<CallChange> {
    let (old, new) = (before.ranked_syscalls(), after.ranked_syscalls());
    if old.is_empty() && new.is_empty() {
        return Vec::new();
    }
    let mut changes: Vec<CallChange> = Vec::new();
    for call in syscall::calls() {
        let (old, new) = (
            decide(&old, &call, Access::CALL),
            decide(&new, &call, Access::CALL),
        );
        let Some((before, after, rule)) = difference(&old, &new) else {
            continue;
        };
        let change = CallChange {
            calls: Vec::new(),
            before,
            after,
            rule,
        };
        let alike = |c: &CallChange| {
            (c.before, c.after, &c.rule) == (change.before, change.after, &change.rule)
        };
        let at = changes.iter().position(alike).unwrap_or_else(|| {
            changes.push(change);
            changes.len() - 1
        });
        let told = &mut changes[at].calls;
        // As 64-bit programs make it, it is there already.
        let name = call.usual_name();
        if !(call.compat && told.iter().any(|t| *t == name || *t == call.name)) {
            let name = match (call.name, call.compat) {
                ("", false) => "others".to_owned(),
                ("", true) => "others (32-bit)".to_owned(),
                _ => call.to_string(),
            };
            if !told.contains(&name) {
                told.push(name);
            }
        }
    }
    for change in &mut changes {
        if change.calls.iter().any(|name| name == "others") {
            change.calls.retain(|name| name != "others (32-bit)");
        }
    }
    changes
}

/// A limit on which two rule sets differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitChange {
    /// What the first set says, as [`LimitRule`] is shown.
    pub before: Option<String>,
    /// What the second one says.
    pub after: Option<String>,
    /// The id of the limit: the second one's, if it has one.
    pub rule: String,
    /// Whether the second set lets more through, or less; `None` where neither can be said.
    pub looser: Option<bool>,
}

/// The same as [`diff`] of limits: those of the first set in their order, and then what is new in the second one. What is
/// called alike is compared; of the rest, what counts the same in the same way is the same.
///
/// ```
/// use std::path::PathBuf;
/// use stockade::policy::{Environment, RuleSet, diff_limits};
///
/// let set = |burst: u32| {
///     let text = format!("version: 1\nlimits:\n  - {{ id: a, limit: forks, per_second: 1, burst: {burst} }}\n");
///     RuleSet::parse(&text, "p.yaml", &Environment::new(None, PathBuf::from("/")))
/// };
/// let changes = diff_limits(&set(5)?, &set(6)?);
/// assert_eq!(changes[0].looser, Some(true));
/// assert!(diff_limits(&set(5)?, &set(5)?).is_empty());
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn diff_limits(before: &RuleSet, after: &RuleSet) -> Vec<LimitChange> {
    let shown = |rule: &LimitRule| rule.to_string();
    let mut new: Vec<&LimitRule> = after.limits.iter().collect();
    let mut take = |is: &dyn Fn(&LimitRule) -> bool| {
        let at = new.iter().position(|rule| is(rule))?;
        Some(new.remove(at))
    };
    let mut changes = Vec::new();
    let mut gone: Vec<&LimitRule> = Vec::new();
    for old in &before.limits {
        match take(&|rule| rule.id == old.id) {
            Some(rule) if shown(rule) == shown(old) => {}
            Some(rule) => {
                let (more, less) = (rule.is_looser_than(old), old.is_looser_than(rule));
                changes.push(LimitChange {
                    before: Some(shown(old)),
                    after: Some(shown(rule)),
                    rule: rule.id.clone(),
                    looser: (more != less && rule.counted == old.counted).then_some(more),
                });
            }
            None => gone.push(old),
        }
    }
    // Only called otherwise.
    gone.retain(|old| take(&|rule| shown(rule) == shown(old)).is_none());
    let one = |rule: &LimitRule, is_new: bool| LimitChange {
        before: (!is_new).then(|| shown(rule)),
        after: is_new.then(|| shown(rule)),
        rule: rule.id.clone(),
        looser: Some(!is_new),
    };
    changes.extend(gone.into_iter().map(|rule| one(rule, false)));
    changes.extend(new.into_iter().map(|rule| one(rule, true)));
    changes
}

/// The same change of every address.
fn of_any(change: &NetworkChange) -> NetworkChange {
    NetworkChange {
        address: Addresses {
            selector: Selector::Any,
            ..change.address
        },
        ..change.clone()
    }
}

/// What is said alike of all addresses of both versions is said once.
fn everywhere(mut changes: Vec<NetworkChange>) -> Vec<NetworkChange> {
    let net = |c: &NetworkChange| c.address.selector.net();
    let whole = |c: &NetworkChange| net(c).is_some_and(|net| net.prefix_len() == 0);
    let (four, six): (Vec<_>, Vec<_>) = changes
        .iter()
        .filter(|c| whole(c))
        .partition(|c| matches!(net(c), Some(IpNet::V4(_))));
    let both: Vec<NetworkChange> = four
        .into_iter()
        .map(of_any)
        .filter(|any| six.iter().any(|c| of_any(c) == *any))
        .collect();
    changes.retain(|c| !whole(c) || !both.contains(&of_any(c)));
    changes.splice(0..0, both);
    changes
}

/// An address that stands for all from `start` to `end`: not the unspecified one, and of IPv6 none that is one of IPv4.
fn representative(four: bool, start: u128, end: u128) -> IpAddr {
    if four {
        return IpAddr::V4(Ipv4Addr::from(u32::try_from(end).unwrap_or(u32::MAX)));
    }
    let ip = Ipv6Addr::from(end);
    IpAddr::V6(if ip.to_ipv4_mapped().is_some() {
        Ipv6Addr::from(start + 1)
    } else {
        ip
    })
}

/// What differs about some ports of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    first: u16,
    last: u16,
    protocol: &'static str,
    access: Access,
    outcome: Outcome,
}

/// Before, after, and the rule of the stricter one.
type Outcome = (Answer, Answer, String);

/// What differs between two decisions about the same, if anything does.
fn difference<R: Rule>(old: &Decision<'_, R>, new: &Decision<'_, R>) -> Option<Outcome> {
    let (before, after) = (old.answer(), new.answer());
    if before == after {
        return None;
    }
    let stricter = if before.verdict > after.verdict {
        old
    } else {
        new
    };
    let rule = stricter.rule.map_or("", |rule| rule.id());
    Some((before, after, rule.to_owned()))
}

impl Row {
    fn change(&self, selector: &Selector) -> NetworkChange {
        NetworkChange {
            address: Addresses {
                selector: selector.clone(),
                first: self.first,
                last: self.last,
            },
            protocol: self.protocol,
            access: self.access,
            before: self.outcome.0,
            after: self.outcome.1,
            rule: self.outcome.2.clone(),
            by: None,
        }
    }
}

/// Whom a row is about.
#[derive(Clone, Copy)]
enum Who<'a> {
    Ip(IpAddr),
    Host(&'a HostName),
}

fn rows(old: &[&NetworkRule], new: &[&NetworkRule], who: Who<'_>, begins: &[u16]) -> Vec<Row> {
    // Those that can say anything about it.
    let meant = |a: &Addresses| match who {
        Who::Ip(ip) => a.selector.contains(ip),
        Who::Host(host) => a.selector == Selector::Any || a.selector.host() == Some(host),
    };
    let here =
        |rule: &&NetworkRule| rule.effect == Effect::Allow || rule.addresses.iter().any(meant);
    let old: Vec<&NetworkRule> = old.iter().copied().filter(here).collect();
    let new: Vec<&NetworkRule> = new.iter().copied().filter(here).collect();
    let outcome = |port, transport, access| -> Option<Outcome> {
        let contact = match who {
            Who::Ip(ip) => Contact::new(SocketAddr::new(ip, port), transport, access),
            Who::Host(host) => Contact::to_host(host, port, transport, access),
        };
        let old = decide(&old, &contact, access);
        difference(&old, &decide(&new, &contact, access))
    };
    let mut rows: Vec<Row> = Vec::new();
    let kinds = match who {
        Who::Ip(_) => Access::NETWORK,
        Who::Host(_) => Access::OUTWARDS,
    };
    for access in kinds.kinds() {
        let by = [
            ("tcp", Some(Transport::Tcp)),
            ("udp", Some(Transport::Udp)),
            ("other", None),
        ]
        .map(|(name, transport)| {
            let outcomes = begins.iter().map(|port| outcome(*port, transport, access));
            (name, outcomes.collect::<Vec<_>>())
        });
        let alike = by.iter().all(|(_, outcomes)| *outcomes == by[0].1);
        let [first, ..] = &by;
        let told = if alike {
            vec![("any", first.1.clone())]
        } else {
            by.to_vec()
        };
        for (protocol, outcomes) in told {
            let mut from = 0;
            while from < outcomes.len() {
                let same = outcomes[from..]
                    .iter()
                    .take_while(|o| **o == outcomes[from]);
                let next = from + same.count();
                if let Some(outcome) = &outcomes[from] {
                    let row = Row {
                        first: begins[from],
                        last: begins.get(next).map_or(u16::MAX, |begin| begin - 1),
                        protocol,
                        access,
                        outcome: outcome.clone(),
                    };
                    let known = rows.iter_mut().find(|known| {
                        let access = known.access;
                        **known
                            == Row {
                                access,
                                ..row.clone()
                            }
                    });
                    match known {
                        Some(known) => known.access |= access,
                        None => rows.push(row),
                    }
                }
                from = next;
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Verdict;
    use crate::policy::{Environment, Mode};

    fn set(text: &str) -> RuleSet {
        let env = Environment::new(None, "/work".into());
        RuleSet::parse(text, "p.yaml", &env).unwrap()
    }

    const TWO: &str = "version: 1\nfiles:\n\
        - { id: watch, deny: [read, write], paths: [/a], mode: audit }\n\
        - { id: keep, deny: [write], paths: [/a, /b] }\n";

    /// What the differences of these rules about the network are.
    fn of_network(before: &str, after: &str) -> Vec<String> {
        let parsed = |rules: &str| set(&format!("version: 1\nnetwork:\n{rules}"));
        let changes = diff_network(&parsed(before), &parsed(after));
        let line = |c: &NetworkChange| {
            let sign = if c.after.verdict > c.before.verdict {
                '+'
            } else {
                '-'
            };
            format!(
                "{sign} {} {} {} {}",
                c.protocol, c.address, c.access, c.rule
            )
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn what_differs_on_the_network_is_told_in_the_fewest_words() {
        let ten = "- { id: ten, deny: connect, to: [10.0.0.0/8] }\n";
        assert_eq!(of_network(ten, ten), [] as [String; 0]);
        let halves = "- { id: ten, deny: connect, to: [10.0.0.0/9, 10.128.0.0/9] }\n";
        assert_eq!(of_network(ten, halves), [] as [String; 0]);
        let more = "- { id: ten, deny: [connect, send], to: ['10.0.0.0/8:1-65535'] }\n";
        assert_eq!(
            of_network(ten, more),
            [
                "- any 10.0.0.0/8:0 connect ten",
                "+ any 10.0.0.0/8:1-65535 send ten"
            ]
        );
        let by_name = "- { id: ten, deny: connect, to: [10.0.0.0/8, 'host:b.example:443', 'host:a.example'] }\n";
        assert_eq!(
            of_network(ten, by_name),
            [
                "+ any host:a.example connect ten",
                "+ any host:b.example:443 connect ten"
            ]
        );
        let all = "- { id: all, deny: [connect, send], to: [any] }\n";
        let and_one = "- { id: all, deny: [connect, send], to: [any, 'host:a.example'] }\n";
        assert_eq!(of_network(all, and_one), [] as [String; 0]);
        let closed = "- { id: all, allow: [connect, send], to: ['10.0.0.0/8'] }\n";
        let and_host =
            "- { id: all, allow: [connect, send], to: ['10.0.0.0/8', 'host:a.example:443'] }\n";
        assert_eq!(
            of_network(closed, and_host),
            ["- any host:a.example:443 connect,send all"]
        );
        let by_tcp = "- { id: all, deny: [connect, send], to: [any], protocol: tcp }\n";
        assert_eq!(
            of_network(all, by_tcp),
            ["- udp any connect,send all", "- other any connect,send all"]
        );
        let six = "- { id: all, deny: [connect, send], to: ['::/0'] }\n";
        assert_eq!(of_network(all, six), ["- any 0.0.0.0/0 connect,send all"]);
    }

    #[test]
    fn what_an_allow_closes_is_told_without_what_it_leaves() {
        let none = "- { id: x, deny: bind, at: [192.0.2.1] }\n";
        let only = "- { id: x, deny: bind, at: [192.0.2.1] }\n\
            - { id: only, allow: connect, to: ['128.0.0.0/1:443', '::/0'] }\n";
        assert_eq!(
            of_network(none, only),
            [
                "+ any 0.0.0.0/1 connect only",
                "+ any 128.0.0.0/1:0-442 connect only",
                "+ any 128.0.0.0/1:444-65535 connect only",
            ]
        );
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
            .map(|c| {
                (
                    c.path.to_string(),
                    c.access,
                    c.before.verdict,
                    c.after.verdict,
                    c.rule,
                )
            })
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
            .map(|c| (c.path.to_string(), c.access, c.after.verdict))
            .collect();
        assert_eq!(
            told,
            [
                ("/a/b/c".to_owned(), Access::READ, Verdict::Allow),
                ("/a/**".to_owned(), Access::WRITE, Verdict::Allow),
            ]
        );
    }

    #[test]
    fn another_way_to_refuse_is_a_difference() {
        let rules = |more: &str| {
            set(&format!(
                "version: 1\nfiles: [{{ id: f, deny: [read], paths: [/a]{more} }}]\n\
                 network: [{{ id: n, deny: connect, to: [10.0.0.1]{more} }}]\n\
                 syscalls: [{{ id: s, deny: [ptrace]{more} }}]\n"
            ))
        };
        let (plain, missing) = (rules(""), rules(", errno: ENOENT"));
        let deadly = rules(", action: kill");
        let told = |before: &RuleSet, after: &RuleSet| {
            let files = diff(before, after).into_iter().map(|c| (c.before, c.after));
            let network = diff_network(before, after).into_iter();
            let calls = diff_calls(before, after).into_iter();
            let all = files
                .chain(network.map(|c| (c.before, c.after)))
                .chain(calls.map(|c| (c.before, c.after)));
            all.map(|(before, after)| format!("{before} -> {after}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&plain, &missing), ["deny -> deny ENOENT"; 3]);
        assert_eq!(told(&missing, &deadly), ["deny ENOENT -> kill"; 3]);
        // To who runs already, of calls alone.
        let of_running = |does: &str| {
            set(&format!(
                "version: 1\nsyscalls: [{{ id: s, deny: [ptrace], otherwise: {does} }}]\n"
            ))
        };
        assert_eq!(
            told(&of_running("log"), &of_running("kill")),
            ["deny, otherwise log -> deny, otherwise kill"]
        );
        // Nothing is refused, in whatever way.
        let audit = |set: &RuleSet| set.clone().with_mode(Mode::Audit);
        assert_eq!(told(&audit(&plain), &audit(&deadly)), [""; 0]);
    }
}
