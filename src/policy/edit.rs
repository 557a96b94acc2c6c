//! What to change about a policy so that it lets something through.

use std::path::Path;

use super::evaluate::{Decision, Request, Rule, Speaks, decide, place};
use super::{
    Access, Actor, Addresses, Called, Contact, Effect, FileKind, FileRule, HostName, Mode,
    NetworkRule, Pattern, RuleSet, Selector, Subject, SyscallRule, SystemCall, Who,
};
use crate::event::{Denial, Denied};

/// A policy that lets something through, and how it comes from one that does not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edit {
    /// What to do, a sentence for each rule.
    pub steps: Vec<String>,
    /// What the policy is then; [`diff`](super::diff()) says what else that lets through.
    pub after: RuleSet,
}

/// The smallest edit that allows an access to a file: of those that one rule at a time can be changed by, the one that
/// lets the least else through. `None` where nothing refuses it, or no edit helps.
///
/// ```
/// use std::path::{Path, PathBuf};
/// use stockade::policy::{Access, Environment, Request, RuleSet, edit};
///
/// let text = "version: 1\nfiles:\n  - { id: a, deny: [read, write], paths: [/x, /y] }\n";
/// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
/// let edit = edit(&set, &Request::new(Path::new("/x"), Access::READ)).unwrap();
/// assert_eq!(edit.steps, ["rule a (line 3): no longer deny read"]);
/// # Ok::<(), stockade::Error>(())
/// ```
#[must_use]
pub fn edit(set: &RuleSet, request: &Request<'_>) -> Option<Edit> {
    change(set, request, request.access, RuleSet::ranked)
}

/// The same for an access to an address.
#[must_use]
pub fn edit_contact(set: &RuleSet, contact: &Contact<'_>) -> Option<Edit> {
    change(set, contact, contact.access, RuleSet::ranked_network)
}

/// The same for a system call.
#[must_use]
pub fn edit_call(set: &RuleSet, call: &SystemCall) -> Option<Edit> {
    change(set, call, Access::CALL, RuleSet::ranked_syscalls)
}

/// The same for what a fence refused to somebody, or would have. Where the policy has nothing against the access as it was told, because
/// the file has other names or what was asked of the socket has none, the rule that the denial names is changed.
#[must_use]
pub fn edit_denial(set: &RuleSet, denial: &Denial, actor: &Actor<'_>) -> Option<Edit> {
    // That is in no policy.
    if let Denied::Guarded { .. } = &denial.object {
        return None;
    }
    if let Denied::Limit { amount, .. } = &denial.object {
        return edit_limit(set, &denial.rule_id, *amount);
    }
    let names = denial.access.split(',').filter_map(Access::from_name);
    let access = names.reduce(|a, b| a | b)?;
    let found = match &denial.object {
        Denied::File { path, .. } => {
            // What the file was is not told, only that the rule was about such files.
            let rule = set.rules.iter().find(|rule| rule.id == denial.rule_id);
            let kinds = rule.into_iter().flat_map(|rule| &rule.paths);
            let kinds: Vec<FileKind> = kinds
                .filter_map(|pattern| match pattern {
                    Pattern::Kind(kind) => Some(*kind),
                    _ => None,
                })
                .collect();
            let request = Request::new(Path::new(&path.path), access).of(&kinds);
            edit(set, &request.by(*actor))
        }
        Denied::Address {
            transport, address, ..
        } => {
            let contact = Contact::new(*address, *transport, access).by(*actor);
            let host = denial
                .host
                .as_deref()
                .and_then(|name| HostName::parse(name).ok());
            match &host {
                Some(host) => edit_contact(set, &contact.known_as(host)),
                None => edit_contact(set, &contact),
            }
        }
        Denied::Socket { .. } => None,
        Denied::Syscall {
            name,
            number,
            compat,
            ..
        } => {
            let named = SystemCall::named(name).filter(|call| call.compat == *compat);
            let call = named.unwrap_or_else(|| SystemCall::numbered(*number, *compat));
            edit_call(set, &call)
        }
        Denied::Limit { .. } | Denied::Guarded { .. } => None,
    };
    found.or_else(|| without(set, &denial.rule_id, access))
}

/// The limit has room for so much more at once; where nobody knows how much it was, there is no limit any more.
fn edit_limit(set: &RuleSet, id: &str, amount: Option<u64>) -> Option<Edit> {
    let mut after = set.clone();
    let at = after.limits.iter().position(|rule| rule.id == id)?;
    let rule = &mut after.limits[at];
    let by = place(rule);
    let burst = amount.and_then(|amount| rule.burst.checked_add(amount));
    let step = match burst.filter(|burst| *burst <= rule.period.most()) {
        Some(burst) => {
            rule.burst = burst;
            format!("{by}: burst: {burst}, or more where it happens again")
        }
        None => {
            after.limits.remove(at);
            format!("{by}: remove it")
        }
    };
    Some(Edit {
        steps: vec![step],
        after,
    })
}

/// The rule no longer refuses these kinds, whatever they are asked of; `None` where it allows, or there is none.
fn without(set: &RuleSet, id: &str, access: Access) -> Option<Edit> {
    fn spare<Q, R: Editable<Q>>(set: &mut RuleSet, id: &str, access: Access) -> Option<String> {
        let rule = R::of(set).iter().find(|rule| rule.id() == id)?.clone();
        if rule.effect() == Effect::Allow {
            return None;
        }
        let left = rule.access().without(access);
        let step = match left.is_empty() {
            true => Step::Remove,
            false => Step::Spare(rule.access().without(left)),
        };
        Some(apply(step, &rule, set).1)
    }
    let mut after = set.clone();
    let step = spare::<_, FileRule>(&mut after, id, access)
        .or_else(|| spare::<_, NetworkRule>(&mut after, id, access))
        .or_else(|| spare::<_, SyscallRule>(&mut after, id, access))?;
    Some(Edit {
        steps: vec![step],
        after,
    })
}

/// How much a rule would let through that names an object, for each kind of access. What nobody can count is more than all
/// that somebody can.
type Weight = u128;
const MANY: Weight = 1 << 64;

/// A rule that can be changed.
trait Editable<Q>: Rule + Speaks<Q> + Clone {
    type Object: Clone + PartialEq + ToString;
    /// Where a document has such rules.
    const SECTION: &'static str;

    /// The rules of this kind.
    fn of(set: &mut RuleSet) -> &mut Vec<Self>;
    /// What a rule would name that is about this request alone; `None` where it has no name.
    fn object_of(request: &Q) -> Option<Self::Object>;
    fn weight(object: &Self::Object) -> Weight;
    fn objects(&mut self) -> &mut Vec<Self::Object>;
    fn set_access(&mut self, access: Access);
    fn priority(&self) -> i32;
    /// Whom it is about; `None`: everybody.
    fn subject(&self) -> Option<&Subject>;
    /// A rule that allows these kinds for this and the same subject alone, and refuses as this one does.
    fn exception(&self, id: String, object: Self::Object, access: Access, priority: i32) -> Self;
    /// What it allows, as a document has it.
    fn allowed(&self) -> String;
}

/// What can be done about a rule.
enum Step<O> {
    Spare(Access),
    Drop(O),
    Remove,
    Add(O),
    Exception(O, Access),
}

fn change<Q, R: Editable<Q>>(
    set: &RuleSet,
    request: &Q,
    access: Access,
    ranked: fn(&RuleSet) -> Vec<&R>,
) -> Option<Edit> {
    let mut after = set.clone();
    let mut steps = Vec::new();
    // Each step takes a rule out of the way, or more of it.
    for _ in 0..=2 * set.len() {
        let now = ranked(&after);
        let decision = decide(&now, request, access);
        let Some(rule) = decision.rule else {
            return (!steps.is_empty()).then_some(Edit { steps, after });
        };
        let refused = refused_by(rule, request, access, decision.unlisted);
        let closed = |kind| {
            let mut rules = now.iter();
            rules.any(|r| {
                let is_enforced = r.mode() == Mode::Enforce;
                let of_all = r.subject().is_none() || r.subject() == rule.subject();
                is_enforced && of_all && r.effect() == Effect::Allow && r.access().contains(kind)
            })
        };
        let all_closed = refused.kinds().all(closed);
        let mut best: Option<(Weight, String, RuleSet)> = None;
        for step in candidates(rule, request, refused, &decision, all_closed) {
            let mut tried = after.clone();
            let (weight, what) = apply(step, rule, &mut tried);
            // What leaves the same rule in the way is no step.
            let still = decide(&ranked(&tried), request, refused);
            let helps = still.rule.is_none_or(|r| r.id() != rule.id());
            if helps && best.as_ref().is_none_or(|(least, ..)| weight < *least) {
                best = Some((weight, what, tried));
            }
        }
        let (_, what, tried) = best?;
        steps.push(what);
        after = tried;
    }
    None
}

/// The kinds, of these, that a rule refuses.
fn refused_by<Q, R: Editable<Q>>(rule: &R, request: &Q, access: Access, unlisted: bool) -> Access {
    let refuses = |kind: &Access| match unlisted {
        true => rule.access().contains(*kind),
        false => rule.speaks_of(request, *kind),
    };
    let kinds = access.kinds().filter(refuses);
    kinds.reduce(|a, b| a | b).unwrap_or(access)
}

fn candidates<Q, R: Editable<Q>>(
    rule: &R,
    request: &Q,
    refused: Access,
    decision: &Decision<'_, R>,
    all_closed: bool,
) -> Vec<Step<R::Object>> {
    let object = R::object_of(request);
    let mut all = Vec::new();
    if decision.unlisted {
        all.extend(object.clone().map(Step::Add));
    } else {
        let left = rule.access().without(refused);
        if !left.is_empty() {
            all.push(Step::Spare(refused));
        }
        // Of a rule that names a thousand, what it is about here: no other one is worth a try.
        let mut alone = rule.clone();
        for object in std::mem::take(alone.objects()) {
            alone.objects().push(object.clone());
            if refused.kinds().any(|kind| alone.speaks_of(request, kind)) {
                all.push(Step::Drop(object));
            }
            alone.objects().clear();
        }
        all.push(Step::Remove);
    }
    // Where nothing is allowed so far, a rule that allows this would close all else.
    if all_closed {
        all.extend(object.map(|object| Step::Exception(object, refused)));
    }
    all
}

/// Takes a step: how much it lets through, and the sentence about it.
fn apply<Q, R: Editable<Q>>(
    step: Step<R::Object>,
    rule: &R,
    set: &mut RuleSet,
) -> (Weight, String) {
    let rules = R::of(set);
    let place = place(rule);
    let kinds = |access: Access| Weight::from(access.bits().count_ones());
    let at = rules.iter().position(|r| r.id() == rule.id());
    let at = at.unwrap_or(rules.len().saturating_sub(1));
    let sum = |objects: &[R::Object]| {
        let weights = objects.iter().map(R::weight);
        weights.fold(0, Weight::saturating_add)
    };
    match step {
        Step::Spare(access) => {
            let left = rule.access().without(access);
            rules[at].set_access(left);
            let all = sum(rules[at].objects());
            let what = format!("{place}: no longer deny {access}");
            (kinds(access).saturating_mul(all), what)
        }
        Step::Drop(object) => {
            rules[at].objects().retain(|other| *other != object);
            let weight = kinds(rule.access()).saturating_mul(R::weight(&object));
            // It is the same as to remove it.
            if rules[at].objects().is_empty() {
                rules.remove(at);
                return (weight, format!("{place}: remove it"));
            }
            let object = object.to_string();
            (weight, format!("{place}: no longer name {object}"))
        }
        Step::Remove => {
            let all = sum(rules[at].objects());
            rules.remove(at);
            let weight = kinds(rule.access()).saturating_mul(all);
            (weight, format!("{place}: remove it"))
        }
        Step::Add(object) => {
            let weight = kinds(rule.access()).saturating_mul(R::weight(&object));
            let what = format!("{place}: also name {}", object.to_string());
            rules[at].objects().push(object);
            (weight, what)
        }
        Step::Exception(object, access) => {
            let weight = kinds(access).saturating_mul(R::weight(&object));
            let priority = rule.priority().saturating_add(1);
            let id = free_id(set, rule.id());
            let exception = rule.exception(id, object, access, priority);
            let written = written(&exception, set.mode);
            R::of(set).push(exception);
            // As little, and one rule more: the others are simpler.
            let what = format!("add {written} to {}", R::SECTION);
            (weight.saturating_add(1), what)
        }
    }
}

/// What an exception from a rule can be called.
fn free_id(set: &RuleSet, of: &str) -> String {
    let is_taken = |id: &str| set.labels().any(|(other, _)| other == id);
    let first = format!("let-{of}");
    let (mut id, mut n) = (first.clone(), 1);
    while is_taken(&id) {
        n += 1;
        id = format!("{first}-{n}");
    }
    id
}

/// An exception, as a document in this mode has it.
fn written<Q, R: Editable<Q>>(rule: &R, mode: Mode) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let id = match rule.id().chars().all(is_plain) {
        true => rule.id().to_owned(),
        false => texts(&[rule.id()]),
    };
    let mut text = format!("{{ id: {id}, {}", rule.allowed());
    if let Some(subject) = rule.subject() {
        text += &subject_written(subject);
    }
    text += &format!(", priority: {}", rule.priority());
    if mode == Mode::Audit {
        text += ", mode: enforce";
    }
    let refusal = rule.refusal();
    if refusal.kill {
        text += ", action: kill";
    } else if let Some(errno) = refusal.chosen_errno() {
        text += &format!(", errno: {errno}");
    }
    if let Some(otherwise) = rule.otherwise() {
        text += &format!(", otherwise: {}", otherwise.name());
    }
    text + " }"
}

impl Editable<Request<'_>> for FileRule {
    type Object = Pattern;
    const SECTION: &'static str = "files";

    fn of(set: &mut RuleSet) -> &mut Vec<Self> {
        &mut set.rules
    }

    fn object_of(request: &Request<'_>) -> Option<Pattern> {
        let named = request.path != Path::new("");
        named.then(|| Pattern::File(request.path.to_owned()))
    }

    fn weight(object: &Pattern) -> Weight {
        match object {
            Pattern::File(_) | Pattern::Inode(_) => 1,
            // The deeper one has less in it.
            Pattern::Below(path) => MANY / (1 + path.components().count() as Weight),
            Pattern::Kind(_) => MANY,
        }
    }

    fn objects(&mut self) -> &mut Vec<Pattern> {
        &mut self.paths
    }

    fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    fn priority(&self) -> i32 {
        self.priority
    }

    fn subject(&self) -> Option<&Subject> {
        Some(&self.subject).filter(|subject| !subject.is_everybody())
    }

    fn exception(&self, id: String, object: Pattern, access: Access, priority: i32) -> Self {
        FileRule {
            id,
            effect: Effect::Allow,
            access,
            paths: vec![object],
            priority,
            mode: Mode::Enforce,
            ..self.clone()
        }
    }

    fn allowed(&self) -> String {
        let paths = texts(&self.paths);
        format!("allow: [{}], paths: [{paths}]", words(self.access))
    }
}

impl Editable<Contact<'_>> for NetworkRule {
    type Object = Addresses;
    const SECTION: &'static str = "network";

    fn of(set: &mut RuleSet) -> &mut Vec<Self> {
        &mut set.network
    }

    /// A name is what a rule means for longer than an address.
    fn object_of(contact: &Contact<'_>) -> Option<Addresses> {
        let selector = match (contact.host, contact.ip) {
            (Some(host), _) => Selector::Host(host.clone()),
            (None, Some(ip)) => Selector::Net(ip.into()),
            (None, None) => return None,
        };
        Some(Addresses {
            selector,
            first: contact.port,
            last: contact.port,
        })
    }

    fn weight(object: &Addresses) -> Weight {
        let ports = Weight::from(object.last - object.first) + 1;
        let addresses = match &object.selector {
            Selector::Any => Weight::MAX,
            Selector::Net(net) => {
                let free = net.max_prefix_len() - net.prefix_len();
                1u128.checked_shl(free.into()).unwrap_or(Weight::MAX)
            }
            // Nobody knows how many; a few.
            Selector::Host(_) => 8,
        };
        ports.saturating_mul(addresses)
    }

    fn objects(&mut self) -> &mut Vec<Addresses> {
        &mut self.addresses
    }

    fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    fn priority(&self) -> i32 {
        self.priority
    }

    fn subject(&self) -> Option<&Subject> {
        Some(&self.subject).filter(|subject| !subject.is_everybody())
    }

    fn exception(&self, id: String, object: Addresses, access: Access, priority: i32) -> Self {
        NetworkRule {
            id,
            effect: Effect::Allow,
            access,
            addresses: vec![object],
            transport: None,
            priority,
            mode: Mode::Enforce,
            ..self.clone()
        }
    }

    fn allowed(&self) -> String {
        let end = if Access::OWN.contains(self.access) {
            "at"
        } else {
            "to"
        };
        let addresses = texts(&self.addresses);
        format!("allow: [{}], {end}: [{addresses}]", words(self.access))
    }
}

impl Editable<SystemCall> for SyscallRule {
    type Object = Called;
    const SECTION: &'static str = "syscalls";

    fn of(set: &mut RuleSet) -> &mut Vec<Self> {
        &mut set.syscalls
    }

    fn object_of(call: &SystemCall) -> Option<Called> {
        match call.usual_name() {
            "" if call.compat => None,
            "" => Some(Called::Number(call.number)),
            name => Called::parse(name).ok(),
        }
    }

    fn weight(_: &Called) -> Weight {
        1
    }

    fn objects(&mut self) -> &mut Vec<Called> {
        &mut self.calls
    }

    fn set_access(&mut self, _: Access) {}

    fn priority(&self) -> i32 {
        self.priority
    }

    fn subject(&self) -> Option<&Subject> {
        None
    }

    fn exception(&self, id: String, object: Called, _: Access, priority: i32) -> Self {
        SyscallRule {
            id,
            effect: Effect::Allow,
            calls: vec![object],
            priority,
            mode: Mode::Enforce,
            ..self.clone()
        }
    }

    fn allowed(&self) -> String {
        format!("allow: [{}]", texts(&self.calls))
    }
}

/// As a document has it, behind something else.
fn subject_written(subject: &Subject) -> String {
    let written = |(key, who): (&str, &Option<Who>)| -> Option<String> {
        let who = who.as_ref()?;
        let exes: Vec<_> = who.exe.iter().map(|exe| exe.display()).collect();
        let uids: Vec<String> = who.uid.iter().map(u32::to_string).collect();
        let lists = [("exe", texts(&exes)), ("uid", uids.join(", "))];
        let lists = lists.iter().filter(|(_, list)| !list.is_empty());
        let lists: Vec<String> = lists
            .map(|(key, list)| format!("{key}: [{list}]"))
            .collect();
        Some(format!(", {key}: {{ {} }}", lists.join(", ")))
    };
    let both = [("by", &subject.by), ("not_by", &subject.not_by)];
    both.into_iter().filter_map(written).collect()
}

/// Each as a document has it that takes it for nothing else.
fn texts<O: ToString>(objects: &[O]) -> String {
    let quoted = |object: &O| format!("'{}'", object.to_string().replace('\'', "''"));
    objects.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// As a document has them.
fn words(access: Access) -> String {
    access.names().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Environment, Verdict, evaluate, evaluate_call, evaluate_contact};

    fn set(sections: &str) -> RuleSet {
        let env = Environment::new(None, "/".into());
        RuleSet::parse(&format!("version: 1\n{sections}"), "p", &env).unwrap()
    }

    fn steps(sections: &str, path: &str, access: Access) -> Vec<String> {
        let set = set(sections);
        let request = Request::new(Path::new(path), access);
        let found = edit(&set, &request).map(|edit| {
            assert_eq!(evaluate(&edit.after, &request).verdict, Verdict::Allow);
            edit.steps
        });
        found.unwrap_or_default()
    }

    #[test]
    fn the_edit_that_lets_the_least_else_through_is_taken() {
        let read = Access::READ;
        // One file of many, one kind of many, one directory of many.
        let two = "files:\n  - { id: a, deny: [read], paths: [/x, /y] }\n";
        assert_eq!(
            steps(two, "/x", read),
            ["rule a (line 3): no longer name /x"]
        );
        let kinds = "files:\n  - { id: a, deny: [read, write], paths: [/x] }\n";
        assert_eq!(
            steps(kinds, "/x", read),
            ["rule a (line 3): no longer deny read"]
        );
        let below = "files:\n  - { id: a, deny: all, paths: [/d/**, /e/**] }\n";
        assert_eq!(
            steps(below, "/d/x", Access::ALL),
            ["rule a (line 3): no longer name /d/**"]
        );
        let one = "files:\n  - { id: a, deny: [read], paths: [/x] }\n";
        assert_eq!(steps(one, "/x", read), ["rule a (line 3): remove it"]);
        assert!(steps(one, "/y", read).is_empty());
    }

    #[test]
    fn what_allows_elsewhere_names_one_more_or_gets_a_rule_beside_it() {
        let read = Access::READ;
        let one = "files:\n  - { id: a, allow: [read], paths: [/d/**] }\n";
        assert_eq!(steps(one, "/x", read), ["rule a (line 3): also name /x"]);
        // Only the kind that is asked for.
        let more = "files:\n  - { id: a, allow: [read, write, exec], paths: [/d/**] }\n";
        assert_eq!(
            steps(more, "/x", read),
            ["add { id: let-a, allow: [read], paths: ['/x'], priority: 1 } to files"]
        );
        // An exception is possible where the kind is closed anyway.
        let both = "files:\n  - { id: a, allow: [read], paths: [/d/**] }\n  - { id: b, deny: [read], paths: [/d/s/**] }\n";
        assert_eq!(
            steps(both, "/d/s/x", read),
            ["add { id: let-b, allow: [read], paths: ['/d/s/x'], priority: 1 } to files"]
        );
    }

    /// Whoever writes the exception into the document has the policy that it was said to make.
    #[track_caller]
    fn written_alike(mode: &str, rules: &str, edit: impl Fn(&RuleSet) -> Option<Edit>) -> String {
        let text = format!("mode: {mode}\n{rules}");
        let edit = edit(&set(&text)).unwrap();
        let step = edit.steps.concat();
        let added = step.strip_prefix("add ").expect("an exception");
        let (rule, _) = added.rsplit_once(" to ").expect("a section");
        let mut written = set(&format!("{text}  - {rule}\n"));
        let mut said = edit.after;
        for set in [&mut written, &mut said] {
            set.rules.iter_mut().for_each(|rule| rule.line = 0);
            set.network.iter_mut().for_each(|rule| rule.line = 0);
            set.syscalls.iter_mut().for_each(|rule| rule.line = 0);
        }
        assert_eq!(written, said);
        rule.to_owned()
    }

    #[test]
    fn an_exception_is_written_as_it_is() {
        let read = |set: &RuleSet| edit(set, &Request::new(Path::new("/it's"), Access::READ));
        let files =
            "files:\n  - { id: a, allow: [read, write, link], paths: [/d/**], errno: ENOENT }\n";
        assert_eq!(
            written_alike("enforce", files, read),
            "{ id: let-a, allow: [read], paths: ['/it''s'], priority: 1, errno: ENOENT }"
        );
        let again = format!("{files}  - {{ id: let-a, allow: [read], paths: [/b] }}\n");
        assert_eq!(
            written_alike("enforce", &again, read),
            "{ id: let-a-2, allow: [read], paths: ['/it''s'], priority: 1, errno: ENOENT }"
        );
        let odd = files.replace("id: a", "id: 'a: {it''s}'");
        assert_eq!(
            written_alike("enforce", &odd, read),
            "{ id: 'let-a: {it''s}', allow: [read], paths: ['/it''s'], priority: 1, errno: ENOENT }"
        );
        let enforced = files.replace("errno: ENOENT", "mode: enforce, action: kill");
        assert_eq!(
            written_alike("audit", &enforced, read),
            "{ id: let-a, allow: [read], paths: ['/it''s'], priority: 1, mode: enforce, action: kill }"
        );
        let network = "network:\n  - { id: own, allow: [bind], at: [127.0.0.1] }\n  \
            - { id: n, deny: [bind], at: [192.0.2.0/24], errno: EACCES, priority: 1 }\n";
        let bind = |set: &RuleSet| {
            let address = "192.0.2.1:80".parse().unwrap();
            edit_contact(set, &Contact::new(address, None, Access::BIND))
        };
        assert_eq!(
            written_alike("enforce", network, bind),
            "{ id: let-n, allow: [bind], at: ['192.0.2.1:80'], priority: 2, errno: EACCES }"
        );
        let calls = "syscalls:\n  - { id: most, allow: [read] }\n  \
            - { id: s, deny: [openat, mkdirat, unlinkat], otherwise: kill, priority: 1 }\n";
        // Denied for all three, of which no one alone can be taken out.
        let ring = SystemCall::named("io_uring_setup").unwrap();
        assert_eq!(
            written_alike("enforce", calls, |set| edit_call(set, &ring)),
            "{ id: let-s, allow: ['io_uring_setup'], priority: 2, otherwise: kill }"
        );
    }

    #[test]
    fn exceptions_are_for_whom_the_rule_is_about() {
        let by = |a: &str, b: &str| {
            let set = set(&format!(
                "files:\n  - {{ id: a, allow: [read], paths: [/d/**]{a} }}\n  \
                 - {{ id: b, deny: [read], paths: [/d/s/**]{b} }}\n"
            ));
            let actor = Actor::ANYBODY.running(Path::new("/p")).user(7);
            let request = Request::new(Path::new("/d/s/x"), Access::READ).by(actor);
            let edit = edit(&set, &request).unwrap();
            assert_eq!(evaluate(&edit.after, &request).verdict, Verdict::Allow);
            edit.steps.concat()
        };
        let (nobody, p) = ("", ", by: { exe: '/p', uid: [7, 8] }, not_by: { uid: 9 }");
        let excepted = "add { id: let-b, allow: [read], paths: ['/d/s/x'], by: { exe: ['/p'], uid: [7, 8] }, not_by: { uid: [9] }, priority: 1 } to files";
        assert_eq!(by(p, p), excepted);
        assert_eq!(by(nobody, p), excepted);
        // It would close all else to everybody but that one.
        assert_eq!(by(p, nobody), "rule b (line 4): remove it");
    }

    #[test]
    fn rules_behind_the_first_one_go_out_of_the_way_too() {
        let read = Access::READ;
        let two = "files:\n  - { id: a, deny: [read], paths: [/x], mode: audit, priority: 2 }\n  - { id: b, deny: [read], paths: [/x, /y] }\n";
        assert_eq!(
            steps(two, "/x", read),
            [
                "rule b (line 4): no longer name /x",
                "rule a (line 3): remove it"
            ]
        );
        // By a name on the way: who may not change the file may not move its directory.
        let pinned = "files:\n  - { id: a, deny: [write], paths: [/d/x, /e/y] }\n";
        assert_eq!(
            steps(pinned, "/d", Access::DELETE),
            ["rule a (line 3): no longer name /d/x"]
        );
    }

    #[test]
    fn a_denial_finds_its_edit_and_where_nothing_else_helps_its_rule_is_changed() {
        let set = set(
            "files:\n  - { id: no-keys, deny: [read, write, exec], paths: [/home/ada/.ssh/**] }\nnetwork:\n  - { id: raw, deny: [connect, send], to: ['10.0.0.0/8'] }\nlimits:\n  - { id: not-so-fast, limit: bytes, per_second: 1 MiB }\n",
        );
        let mut steps = Vec::new();
        for event in crate::event::sample::samples() {
            let crate::event::Kind::Denial(mut denial) = event.kind else {
                continue;
            };
            if matches!(denial.object, Denied::Socket { .. }) {
                denial.rule_id = "raw".into();
            }
            let found = edit_denial(&set, &denial, &Actor::ANYBODY);
            steps.push(found.map_or_else(Vec::new, |edit| edit.steps).join("; "));
        }
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(
            steps,
            [
                "",
                "rule no-keys (line 3): no longer deny read,write",
                "rule not-so-fast (line 7): burst: 1048577, or more where it happens again",
                "rule not-so-fast (line 7): burst: 1114112, or more where it happens again",
                "rule raw (line 5): remove it",
            ]
        );
    }

    #[test]
    fn addresses_and_calls_are_edited_alike() {
        let set = set(
            "network:\n  - { id: n, deny: [connect, send], to: [10.0.0.0/8, 10.1.2.3] }\n  - { id: m, allow: bind, at: [127.0.0.1] }\nsyscalls:\n  - { id: s, deny: [ptrace, mount] }\n",
        );
        let contact = |to: &str, access| Contact::new(to.parse().unwrap(), None, access);
        for (to, access, expected) in [
            (
                "10.1.2.3:80",
                Access::CONNECT,
                "rule n (line 3): no longer deny connect",
            ),
            (
                "127.0.0.2:80",
                Access::BIND,
                "rule m (line 4): also name 127.0.0.2:80",
            ),
        ] {
            let contact = contact(to, access);
            let edit = edit_contact(&set, &contact).unwrap();
            assert_eq!(edit.steps, [expected]);
            let verdict = evaluate_contact(&edit.after, &contact).verdict;
            assert_eq!(verdict, Verdict::Allow);
        }
        let call = SystemCall::named("mount").unwrap();
        let edit = edit_call(&set, &call).unwrap();
        assert_eq!(edit.steps, ["rule s (line 6): no longer name mount"]);
        assert_eq!(evaluate_call(&edit.after, &call).verdict, Verdict::Allow);
        assert!(edit_call(&edit.after, &call).is_none());
    }
}
