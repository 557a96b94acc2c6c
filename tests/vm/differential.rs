//! Random policies and random accesses: what the kernel half does with them, and what the reference evaluator says.
//!
//! The two are written apart from each other: the one knows identities, hooks and ancestors, the other compares paths. Where
//! they disagree, one of them is wrong. A disagreement is made as small as it gets and shown as a case, to be kept in
//! [`CASES`]. `STOCKADE_SEED` does the same once more, `STOCKADE_ROUNDS` does more of it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stockade::event::{Kind, Transport};
use stockade::policy::{
    Access, Actor, Contact, Environment, Request, RuleSet, Verdict, evaluate, evaluate_contact,
};
use stockade::{Event, Scope, Session};

use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Needs, Outcome, Process, Test, poll};
use crate::helper::{Step, arguments, results, step};
use crate::mounts::file_system;

pub(crate) const TESTS: &[Test] = &[Test::new(
    "kernel_and_evaluator_agree_on_random_policies",
    Needs::Fence,
    agree,
)];

/// Rules with the sections that they are in, and accesses as [`Op`] has them.
type Case = (
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str, &'static str)],
);

/// Rules and accesses on which the two have disagreed, or that are worth doing each time.
const CASES: &[Case] = &[(
    &[
        (
            "files",
            "{ id: r0, deny: [create, delete], paths: ['${root}/d0/**'] }",
        ),
        (
            "files",
            "{ id: r1, allow: [create], paths: ['${root}/d0/n1'], priority: 1 }",
        ),
    ],
    &[
        ("make-dir", "d0/n1", ""),
        ("make-dir", "d0/n2", ""),
        ("unlink", "d0/f0", ""),
        ("rename-over", "d2/f0", "d0/n3"),
    ],
)];

const ROUNDS: usize = 30;
const ACCESSES: usize = 24;

const DIRECTORIES: [&str; 4] = ["d0", "d0/d1", "d2", "d2/d3"];
/// Of this machine's own, so that each can be reached and bound to.
const ADDRESSES: [&str; 6] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.0.1.1",
    "127.1.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
];
const NETS: [&str; 10] = [
    "127.0.0.1",
    "127.0.0.0/30",
    "127.0.0.0/16",
    "127.0.0.0/8",
    "0.0.0.0/0",
    "any",
    "::1",
    "::/0",
    "::/64",
    "10.0.0.0/8",
];
const CONTACTS: [&str; 8] = [
    "tcp",
    "udp",
    "udp-write",
    "sendto",
    "sendmsg",
    "bind",
    "bind-udp",
    "listen",
];
const FILES: [&str; 3] = ["f0", "f1", "f2"];
/// Whom rules are about. The helper is user 0, and does not run that program.
const SUBJECTS: [&str; 10] = [
    "",
    "",
    "",
    "",
    ", by: { uid: 0 }",
    ", by: { uid: [7, 8] }",
    ", not_by: { uid: 0 }",
    ", not_by: { uid: 7 }",
    ", by: { exe: '${root}/program' }",
    ", not_by: { exe: '${root}/program', uid: 0 }",
];

/// Done by the helper to one path or to two.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Op {
    how: String,
    path: String,
    other: String,
}

/// What is asked: kinds of access to a path, or to an address.
enum Ask<'a> {
    File(&'a str, Access),
    Contact(Contact<'a>),
}

/// A rule, and its section.
type Rule = (&'static str, String);

/// What a policy says about an access, or what became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    verdict: Verdict,
    /// The rule, where it can be only one.
    rule: Option<String>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:?}, {:?}, {:?})", self.how, self.path, self.other)
    }
}

impl Op {
    fn new(how: &str, path: &str, other: &str) -> Self {
        Op {
            how: how.to_owned(),
            path: path.to_owned(),
            other: other.to_owned(),
        }
    }

    /// What it asks for, in this order.
    fn asks(&self) -> Vec<Ask<'_>> {
        let (path, other) = (self.path.as_str(), self.other.as_str());
        if self.how == "net" {
            return self.asks_of_network();
        }
        let read_write = Access::READ | Access::WRITE;
        let asks = match self.how.as_str() {
            "open" => vec![(path, Access::READ)],
            "open-write" | "truncate" => vec![(path, Access::WRITE)],
            "open-rdwr" => vec![(path, read_write)],
            "map-exec" => vec![(path, Access::READ), (path, Access::EXEC)],
            "chmod" | "utimens" | "setxattr" => vec![(path, Access::METADATA)],
            "unlink" => vec![(path, Access::DELETE)],
            "make-dir" => vec![(path, Access::CREATE)],
            "open-creat" => vec![(path, Access::CREATE), (path, read_write)],
            "make-link" => vec![(path, Access::LINK), (other, Access::CREATE)],
            "make-symlink" => vec![(other, Access::CREATE)],
            "rename-over" => {
                let is_new = other.rsplit('/').next().is_some_and(|n| n.starts_with('n'));
                let made = if is_new {
                    Access::CREATE
                } else {
                    Access::REPLACE
                };
                vec![(path, Access::DELETE), (other, made)]
            }
            how => panic!("no operation {how}"),
        };
        asks.into_iter()
            .map(|(path, access)| Ask::File(path, access))
            .collect()
    }

    /// Of a step of contacts, by its name, and an address.
    fn asks_of_network(&self) -> Vec<Ask<'_>> {
        let (tcp, udp) = (Transport::Tcp, Transport::Udp);
        let asks = match self.path.as_str() {
            "tcp" => vec![(tcp, Access::CONNECT)],
            "udp" => vec![(udp, Access::CONNECT)],
            "udp-write" => vec![(udp, Access::CONNECT), (udp, Access::SEND)],
            "sendto" | "sendmsg" => vec![(udp, Access::CONNECT | Access::SEND)],
            "bind" => vec![(tcp, Access::BIND)],
            "bind-udp" => vec![(udp, Access::BIND)],
            "listen" => vec![(tcp, Access::BIND), (tcp, Access::LISTEN)],
            how => panic!("no operation {how}"),
        };
        let address = self.other.parse().expect("an address");
        let ask =
            |(transport, access)| Ask::Contact(Contact::new(address, Some(transport), access));
        asks.into_iter().map(ask).collect()
    }

    fn step(&self, label: &str, root: &Path) -> Step {
        let at = |path: &str| match path {
            path if self.how == "net" => path.to_owned(),
            "" => String::new(),
            path => text(&root.join(path)).to_owned(),
        };
        let first = match self.how.as_str() {
            // Where it leads does not matter.
            "make-symlink" => "elsewhere".to_owned(),
            _ => at(&self.path),
        };
        step(label, &[&self.how, &first, &at(&self.other)])
    }

    /// What the evaluator says.
    fn expected(&self, set: &RuleSet, root: &Path) -> Said {
        let asks = self.asks();
        let decisions: Vec<_> = asks
            .iter()
            .map(|ask| match ask {
                Ask::File(path, access) => {
                    let path = root.join(path);
                    let request = Request::new(&path, *access).by(Actor::ANYBODY.user(0));
                    let decision = evaluate(set, &request);
                    (decision.verdict, decision.rule.map(|rule| rule.id.clone()))
                }
                Ask::Contact(contact) => {
                    let contact = contact.by(Actor::ANYBODY.user(0));
                    let decision = evaluate_contact(set, &contact);
                    (decision.verdict, decision.rule.map(|rule| rule.id.clone()))
                }
            })
            .collect();
        let of = |verdict| decisions.iter().filter(move |(v, _)| *v == verdict);
        for verdict in [Verdict::Deny, Verdict::Audit] {
            let mut all = of(verdict);
            if let Some((_, rule)) = all.next() {
                let rule = rule.clone().filter(|_| all.next().is_none());
                return Said { verdict, rule };
            }
        }
        Said {
            verdict: Verdict::Allow,
            rule: None,
        }
    }
}

/// A random number below another one, and what is there.
fn one_of<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

fn random_rules(random: &mut fastrand::Rng, ops: &[Op]) -> Vec<Rule> {
    (0..random.usize(1..7))
        .map(|n| match random.u8(..3) {
            0 => ("network", network_rule(random, n)),
            _ => ("files", file_rule(random, n, ops)),
        })
        .collect()
}

/// Each with a chance of one in three.
fn some_of<'a>(random: &mut fastrand::Rng, all: &[&'a str]) -> Vec<&'a str> {
    let mut chosen = all.to_vec();
    chosen.retain(|_| random.u8(..3) == 0);
    if chosen.is_empty() {
        chosen.push(one_of(random, all));
    }
    chosen
}

fn file_rule(random: &mut fastrand::Rng, n: usize, ops: &[Op]) -> String {
    let allows = random.u8(..4) == 0;
    let mut kinds: Vec<&str> = Access::ALL.names().collect();
    // What reads, writes and runs is more than the accesses of this test.
    kinds.retain(|kind| !(allows && ["read", "write", "exec", "mount"].contains(kind)));
    let chosen = some_of(random, &kinds);
    let ops: Vec<&Op> = ops.iter().filter(|op| op.how != "net").collect();
    let paths: Vec<String> = (0..random.usize(1..4))
        .map(|_| match random.u8(..5) {
            0 => format!("'${{root}}/{}/**'", one_of(random, &DIRECTORIES)),
            1 => "'${root}/d0/d1/**'".to_owned(),
            2 => format!(
                "'${{root}}/{}/{}'",
                one_of(random, &DIRECTORIES),
                one_of(random, &FILES)
            ),
            _ if ops.is_empty() => "'${root}/d2/d3/f0'".to_owned(),
            _ => {
                let op = one_of(random, &ops);
                let named = [&op.path, &op.other];
                let named: Vec<_> = named.into_iter().filter(|p| !p.is_empty()).collect();
                format!("'${{root}}/{}'", one_of(random, &named))
            }
        })
        .collect();
    rule(random, n, allows, &chosen, "paths", &paths)
}

fn network_rule(random: &mut fastrand::Rng, n: usize) -> String {
    let (kinds, key) = match random.bool() {
        true => (&["connect", "send"][..], "to"),
        false => (&["bind", "listen"][..], "at"),
    };
    let chosen = some_of(random, kinds);
    let addresses: Vec<String> = (0..random.usize(1..4))
        .map(|_| {
            let net = one_of(random, &NETS);
            let ports = one_of(
                random,
                &["", "", ":53", ":1000-1999", ":1500-65535", ":2000"],
            );
            match net.contains("::") && !ports.is_empty() {
                // As addresses of IPv6 have it.
                true => {
                    let (address, len) = net.split_once('/').unwrap_or((net, "128"));
                    format!("'[{address}]/{len}{ports}'")
                }
                false => format!("'{net}{ports}'"),
            }
        })
        .collect();
    let allows = random.u8(..3) == 0;
    let text = rule(random, n, allows, &chosen, key, &addresses);
    let protocol = match random.u8(..3) {
        0 => return text,
        1 => "tcp",
        _ => "udp",
    };
    let open = text.strip_suffix(" }").expect("a rule");
    format!("{open}, protocol: {protocol} }}")
}

fn rule(
    random: &mut fastrand::Rng,
    n: usize,
    allows: bool,
    kinds: &[&str],
    key: &str,
    objects: &[String],
) -> String {
    format!(
        "{{ id: r{n}, {}: [{}], {key}: [{}], priority: {}, mode: {}{} }}",
        if allows { "allow" } else { "deny" },
        kinds.join(", "),
        objects.join(", "),
        random.i32(-1..=1),
        one_of(random, &["enforce", "enforce", "audit"]),
        one_of(random, &SUBJECTS),
    )
}

fn random_ops(random: &mut fastrand::Rng) -> Vec<Op> {
    const ALL: [&str; 14] = [
        "open",
        "open-write",
        "truncate",
        "open-rdwr",
        "map-exec",
        "chmod",
        "utimens",
        "setxattr",
        "unlink",
        "make-dir",
        "open-creat",
        "make-link",
        "make-symlink",
        "rename-over",
    ];
    (0..ACCESSES)
        .map(|n| {
            if random.u8(..3) == 0 {
                let how = one_of(random, &CONTACTS);
                let port = one_of(random, &[53, 999, 1000, 1500, 1999, 2000]);
                return Op::new(
                    "net",
                    how,
                    &format!("{}:{port}", one_of(random, &ADDRESSES)),
                );
            }
            let how = one_of(random, &ALL);
            let there = format!(
                "{}/{}",
                one_of(random, &DIRECTORIES),
                one_of(random, &FILES)
            );
            // Of what is removed or made, each access has its own.
            let own = format!("{}/s{n}", one_of(random, &DIRECTORIES));
            let new = format!("{}/n{n}", one_of(random, &DIRECTORIES));
            let over = format!("{}/t{n}", one_of(random, &DIRECTORIES));
            match how {
                "unlink" => Op::new(how, &own, ""),
                "make-dir" | "open-creat" => Op::new(how, &new, ""),
                "make-link" => Op::new(how, &there, &new),
                "make-symlink" => Op::new(how, "", &new),
                "rename-over" if random.bool() => Op::new(how, &own, &new),
                "rename-over" => Op::new(how, &own, &over),
                how => Op::new(how, &there, ""),
            }
        })
        .collect()
}

/// A fence around a shell that starts what it is told to.
struct Fenced<'a> {
    ctx: &'a Ctx,
    fs: PathBuf,
    shell: Process,
    session: Session,
    rounds: usize,
}

impl Fenced<'_> {
    /// What became of the accesses in a tree of their own, under a policy of these rules, and what the evaluator says.
    fn round(&mut self, rules: &[Rule], ops: &[Op]) -> Vec<(Said, Said)> {
        self.rounds += 1;
        let root = self.fs.join(format!("t{}", self.rounds));
        for directory in DIRECTORIES {
            fs::create_dir_all(root.join(directory)).unwrap();
            for file in FILES {
                fs::write(root.join(directory).join(file), file).unwrap();
            }
        }
        fs::write(root.join("program"), "another one").unwrap();
        for op in ops {
            for path in [&op.path, &op.other] {
                let name = path.rsplit('/').next().unwrap_or_default();
                if name.starts_with('s') || name.starts_with('t') {
                    fs::write(root.join(path), name).unwrap();
                }
            }
        }
        let set = policy(rules, &root);
        let mut told: HashMap<u64, Vec<(bool, String)>> = HashMap::new();
        let mut on = |event: &Event| {
            if let Kind::Denial(denial) = &event.kind {
                let all = told.entry(event.process.id.pid.into()).or_default();
                all.push((denial.refused, denial.rule_id.clone()));
            }
        };
        self.session.reload(&set, &mut on).unwrap();
        let out = self.ctx.path(&format!("results-{}", self.rounds));
        // Who may make no files has this one.
        fs::write(&out, "").unwrap();
        let steps: Vec<Step> = (0..)
            .zip(ops)
            .map(|(n, op)| op.step(&format!("{n}"), &root))
            .collect();
        let mut line = format!("'{}'", text(&self.ctx.helper));
        for word in arguments(&out, &steps) {
            line.push_str(&format!(" '{word}'"));
        }
        let told_shell = self
            .shell
            .0
            .stdin
            .as_mut()
            .map(|stdin| writeln!(stdin, "{line}"));
        told_shell.expect("a pipe").unwrap();
        poll("the accesses", || {
            let text = fs::read_to_string(&out).unwrap();
            let whole = text.bytes().filter(|b| *b == b'\n').count();
            (whole == 1 + ops.len()).then_some(())
        });
        while self.session.poll(Duration::ZERO, &mut on).unwrap() > 0 {}
        let (_, done) = results(&out);
        assert_eq!(done.len(), ops.len());
        fs::remove_dir_all(&root).unwrap();
        fs::remove_file(&out).unwrap();
        ops.iter()
            .zip(&done)
            .map(|(op, done)| {
                let events = told.get(&done.pid).map_or(&[][..], Vec::as_slice);
                let refused = events.iter().any(|(refused, _)| *refused);
                let verdict = match (done.errno, refused, events.is_empty()) {
                    (EPERM, true, _) => Verdict::Deny,
                    // There is nobody.
                    (0 | libc::ECONNREFUSED, false, false) => Verdict::Audit,
                    (0 | libc::ECONNREFUSED, false, true) => Verdict::Allow,
                    other => panic!("{op}: {other:?} {events:?} under {rules:#?}"),
                };
                let expected = op.expected(&set, &root);
                let of_verdict = events.iter().filter(|(is, _)| *is == refused);
                let mut rules: Vec<&String> = of_verdict.map(|(_, rule)| rule).collect();
                rules.dedup();
                let rule = match rules[..] {
                    [rule] if expected.rule.is_some() => Some(rule.clone()),
                    _ => None,
                };
                let rule = rule.or_else(|| expected.rule.clone().filter(|_| rules.len() > 1));
                (Said { verdict, rule }, expected)
            })
            .collect()
    }

    /// The first access on which the two disagree, with as few rules as it takes.
    fn smallest(&mut self, rules: &[Rule], op: &Op) -> Option<(Vec<Rule>, (Said, Said))> {
        let mut disagrees = |rules: &[Rule]| {
            let found = self.round(rules, std::slice::from_ref(op)).remove(0);
            (found.0 != found.1).then_some(found)
        };
        let mut rules = rules.to_vec();
        let mut found = disagrees(&rules)?;
        let mut at = 0;
        while at < rules.len() && rules.len() > 1 {
            let mut fewer = rules.clone();
            fewer.remove(at);
            match disagrees(&fewer) {
                Some(still) => (rules, found) = (fewer, still),
                None => at += 1,
            }
        }
        Some((rules, found))
    }

    fn check(&mut self, rules: &[Rule], ops: &[Op], seed: u64) {
        let outcomes = self.round(rules, ops);
        for (op, (did, said)) in ops.iter().zip(outcomes) {
            if did == said {
                continue;
            }
            // Alone it may be another matter.
            let (rules, (did, said)) = self
                .smallest(rules, op)
                .unwrap_or_else(|| (rules.to_vec(), (did, said)));
            panic!(
                "{op}: the kernel {did:?}, the evaluator {said:?}; STOCKADE_SEED={seed}; as a case: (&{rules:#?}, &[{op}])"
            );
        }
    }
}

fn policy(rules: &[Rule], root: &Path) -> RuleSet {
    let mut env = Environment::new(None, "/".into());
    let mut sections = String::new();
    for name in ["files", "network"] {
        let named = rules.iter().filter(|(section, _)| *section == name);
        let rules: Vec<String> = named.map(|(_, rule)| format!("  - {rule}\n")).collect();
        if !rules.is_empty() {
            sections += &format!("{name}:\n{}", rules.concat());
        }
    }
    if sections.contains("${root}") {
        sections += "variables: { root: }\n";
        let root = text(root).to_owned();
        env.variables.insert("root".to_owned(), root);
    }
    let text = format!("version: 1\n{sections}");
    RuleSet::parse(&text, "random", &env).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn agree(ctx: &Ctx) -> Outcome {
    let (at, _mounted) = file_system(ctx, "ext4");
    let fs = fs::canonicalize(at).unwrap();
    let number = |name: &str| {
        let given = std::env::var(name).ok();
        given.map(|n| n.parse::<u64>().expect("a number"))
    };
    let seed = number("STOCKADE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("STOCKADE_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let first = "{ id: none, deny: all, paths: ['${root}/none'] }".to_owned();
    let first = [("files", first)];
    let shell = Command::new("/bin/sh")
        .args(["-c", "while read -r line; do eval \"$line\"; done"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let shell = Process(shell);
    let session = Session::builder()
        .scope(Scope::new().tree(shell.pid()))
        .policy(policy(&first, &fs))
        .start()
        .unwrap();
    let mut fenced = Fenced {
        ctx,
        fs,
        shell,
        session,
        rounds: 0,
    };
    for (rules, ops) in CASES {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(section, rule)| (*section, (*rule).to_owned()))
            .collect();
        let ops: Vec<Op> = ops.iter().map(|(how, a, b)| Op::new(how, a, b)).collect();
        fenced.check(&rules, &ops, seed);
    }
    for _ in 0..rounds {
        let ops = random_ops(&mut random);
        let rules = random_rules(&mut random, &ops);
        fenced.check(&rules, &ops, seed);
    }
    drop(fenced.shell.0.stdin.take());
    assert_eq!(fenced.shell.wait(), 0);
    let certificate = fenced.session.end(&mut |_| {}).unwrap();
    assert!(certificate.is_complete(), "{certificate:?}");
    println!("{rounds} policies, {ACCESSES} accesses each");
    Outcome::Passed
}
