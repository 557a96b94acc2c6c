//! `stockade policy`: what a policy says, asked of the reference evaluator.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;
use stockade::event::Transport;
use stockade::policy::{
    Access, Actor, Answer, CallChange, Cases, Change, Contact, Decision, Doer, Environment,
    FileKind, HostName, LimitChange, LimitRule, NetworkChange, Pattern, Reason, Request, Rule,
    RuleSet, SystemCall, Thing, Verdict, diff, diff_calls, diff_limits, diff_network, explain_call,
    explain_contact, explain_file, schema,
};

use super::{EnvironmentArgs, Format, Outcome, counted, report};

/// Check, explain, test and compare policies; needs no rights, and works on any system
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade policy check build.policy.yaml
  stockade policy explain --policy build.policy.yaml ~/.ssh/id_ed25519
  stockade policy explain --policy build.policy.yaml 192.0.2.1:443 ptrace
  stockade policy test build.cases.yaml
  stockade policy diff old.policy.yaml new.policy.yaml")]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    environment: EnvironmentArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether policies are right; exit code 1 when one is not
    Check {
        /// Policies (docs/POLICY.md)
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    Explain(ExplainArgs),
    /// Print a JSON Schema of policies, by which editors complete and check them (docs/POLICY.md)
    Schema,
    /// Hold policies against cases of your own (docs/POLICY.md); exit code 1 when one comes out otherwise
    Test {
        /// Documents of cases
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The policy that all of them are about, whatever they name
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Say what becomes allowed or denied when one policy takes the place of another
    Diff {
        /// The policy as it was
        #[arg(value_name = "BEFORE")]
        before: PathBuf,
        /// The policy as it would be
        #[arg(value_name = "AFTER")]
        after: PathBuf,
        /// One line for people, or one JSON object, for each difference
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
    },
}

/// Say which rule decides about a file, an address or a system call, and what would change that
#[derive(Debug, Args)]
struct ExplainArgs {
    /// Files, whose links are resolved; addresses and hosts with a port: 192.0.2.1:443, [2001:db8::1]:53,
    /// host:example.org:443; and system calls by name, where no file is called so
    #[arg(value_name = "PATH|ADDRESS|SYSCALL", required = true)]
    paths: Vec<PathBuf>,
    /// What carries the bytes to the addresses
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp", value_parser = ["tcp", "udp"])]
    protocol: String,
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Only these kinds
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = kinds())]
    access: Vec<Access>,
    /// Who runs this program; without it and --uid, anybody, and all whom the policy names and treats otherwise
    #[arg(long = "as", value_name = "EXE")]
    exe: Option<PathBuf>,
    /// Who is this user
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Lines for people, or one JSON object for each file and kind
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// The kinds that a policy can deny, by name.
fn kinds() -> impl TypedValueParser<Value = Access> {
    let all = Access::ALL | Access::NETWORK | Access::CALL;
    PossibleValuesParser::new(all.names())
        .try_map(|word| Access::from_name(&word).ok_or("no access kind"))
}

pub(super) fn main(command: &PolicyCommand) -> Outcome {
    let env = &command.environment.environment()?;
    match &command.what {
        What::Check { files } => check(files, env),
        What::Explain(args) => explain_files(args, env),
        What::Schema => {
            println!("{:#}", schema());
            Ok(0)
        }
        What::Test { files, policy } => test(files, policy.as_deref(), env),
        What::Diff {
            before,
            after,
            format,
        } => compare(before, after, *format, env),
    }
}

fn check(files: &[PathBuf], env: &Environment) -> Outcome {
    let mut code = 0;
    for file in files {
        match RuleSet::read(file, env) {
            Ok(set) => {
                let named = || set.rules.iter().flat_map(|rule| &rule.paths);
                let kinds = named().filter(|p| matches!(p, Pattern::Kind(_))).count();
                let paths = named().count() - kinds;
                let addresses: usize = set.network.iter().map(|r| r.addresses.len()).sum();
                let calls: usize = set.syscalls.iter().map(|r| r.calls.len()).sum();
                let on: Vec<String> = [
                    (paths, "path"),
                    (kinds, "file kind"),
                    (addresses, "address"),
                    (calls, "system call"),
                    (set.limits.len(), "limit"),
                ]
                .into_iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, one)| counted(n, one))
                .collect();
                let on = on.join(" and ");
                println!(
                    "{}: {}, {} on {on}, {}",
                    file.display(),
                    set.name,
                    counted(set.len(), "rule"),
                    set.mode
                );
            }
            // The others are worth a look too.
            Err(error) => code = code.max(report(&error.into())),
        }
    }
    Ok(code)
}

/// The path without links, as the kernel would find it; where there is nothing, its directory without links.
fn real(path: &Path) -> PathBuf {
    let found = std::fs::canonicalize(path).ok();
    let in_directory = || {
        let directory = std::fs::canonicalize(path.parent()?).ok()?;
        Some(directory.join(path.file_name()?))
    };
    found
        .or_else(in_directory)
        .unwrap_or_else(|| path.to_owned())
}

/// What kind of file that is, where rules can be about it. What a path leads to has a name.
fn kind_of(file: &Path) -> Option<FileKind> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let about = std::fs::metadata(file)
            .ok()
            .filter(std::fs::Metadata::is_file)?;
        FileKind::of_mode(about.permissions().mode())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}

/// A line of `explain --format json`.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mechanism: Option<&'a str>,
    access: Access,
    /// What the file would have to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<&'static str>,
    /// Who it would have to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Doer>,
    verdict: Verdict,
    /// Where it says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    #[serde(rename = "rule.id", skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(rename = "rule.line", skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unlisted: bool,
    then: Vec<&'a str>,
    /// What counts it, whatever the rules say.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    limits: &'a [&'a LimitRule],
}

fn explain_files(args: &ExplainArgs, env: &Environment) -> Outcome {
    let mut set = RuleSet::read(&args.policy, env)?;
    // A fence guards what a link leads to, and the link.
    for rule in &mut set.rules {
        let targets: Vec<Pattern> = rule.paths.iter().map(|p| p.at(real(p.path()))).collect();
        rule.paths.extend(targets);
    }
    let subjects = set.rules.iter_mut().map(|rule| &mut rule.subject);
    let subjects = subjects.chain(set.network.iter_mut().map(|rule| &mut rule.subject));
    for who in subjects.flat_map(|subject| [&mut subject.by, &mut subject.not_by]) {
        for exe in who.iter_mut().flat_map(|who| &mut who.exe) {
            *exe = real(exe);
        }
    }
    let exe = args.exe.as_deref().map(std::path::absolute).transpose();
    let exe = exe.context("the working directory cannot be read")?;
    let exe = exe.map(|exe| real(&exe));
    let mut named = Actor::ANYBODY;
    if let Some(exe) = &exe {
        named = named.running(exe);
    }
    if let Some(uid) = args.uid {
        named = named.user(uid);
    }
    let actors = match named == Actor::ANYBODY {
        true => set.actors(),
        false => vec![named],
    };
    let named = args.access.iter().copied().reduce(|a, b| a | b);
    let wanted = named.unwrap_or(Access::ALL | Access::NETWORK | Access::CALL);
    for path in &args.paths {
        let text = path.to_string_lossy();
        let transport = match args.protocol.as_str() {
            "udp" => Transport::Udp,
            _ => Transport::Tcp,
        };
        let host = HostName::with_port(&text).transpose();
        let host = host.unwrap_or_else(|sentence| super::usage(&sentence));
        let contact = match &host {
            Some((host, port)) => Some(Contact::to_host(
                host,
                *port,
                Some(transport),
                Access::OUTWARDS,
            )),
            None => text
                .parse()
                .ok()
                .map(|address| Contact::new(address, Some(transport), Access::NETWORK)),
        };
        if let Some(contact) = contact {
            let told = told_by(&actors, |actor| {
                let reasons = explain_contact(&set, &contact.by(actor));
                reasons.iter().map(Told::new).collect()
            });
            let of = Of::Address(&text, &args.protocol);
            let stream = Some(Thing::Connections).filter(|_| transport == Transport::Tcp);
            let things = stream.into_iter().chain([Thing::Bytes]);
            let limits: Vec<_> = things.flat_map(|thing| set.limits_of(thing)).collect();
            print_reasons(of, told, &limits, wanted, args.format)?;
            continue;
        }
        if let Some(call) = SystemCall::named(&text)
            && path.symlink_metadata().is_err()
        {
            let reason = explain_call(&set, &call);
            let told = vec![Told::new(&reason)];
            let limits: Vec<_> = set.limits_of_call(&call).collect();
            let of = &call.to_string();
            let by = (!set.syscalls.is_empty()).then_some(OF_CALLS);
            print_reasons(Of::Call(of, by), told, &limits, wanted, args.format)?;
            continue;
        }
        let file = std::path::absolute(path).context("the working directory cannot be read")?;
        let file = real(&file);
        let kinds = Vec::from_iter(kind_of(&file));
        // Nobody can look that up: it is so or not in each fence.
        let mut with_written = kinds.clone();
        with_written.push(FileKind::Written);
        let told = told_by(&actors, |actor| {
            let request = Request::new(&file, Access::ALL).by(actor);
            let reasons = explain_file(&set, &request.of(&kinds));
            let once_written = explain_file(&set, &request.of(&with_written));
            told_of_file(&reasons, &once_written)
        });
        let of = Of::File(&file.to_string_lossy());
        print_reasons(of, told, &[], wanted, args.format)?;
    }
    Ok(0)
}

/// A rule, as its id and its line.
type Named<'a> = (&'a str, u32);

/// A reason, whatever the rules are about.
struct Told<'a> {
    access: Access,
    /// What the file would have to be.
    of: Option<FileKind>,
    /// Who it would have to be.
    by: Option<Doer>,
    answer: Answer,
    rule: Option<Named<'a>>,
    unlisted: bool,
    without: (Verdict, Option<Named<'a>>),
    then: Vec<Named<'a>>,
}

impl<'a> Told<'a> {
    fn new<R: Rule>(reason: &Reason<'a, R>) -> Self {
        let name = |rule: &'a R| (rule.id(), rule.line());
        let named = |decision: &Decision<'a, R>| decision.rule.map(name);
        Told {
            access: reason.access,
            of: None,
            by: None,
            answer: reason.decision.answer(),
            rule: named(&reason.decision),
            unlisted: reason.decision.unlisted,
            without: (reason.without.verdict, named(&reason.without)),
            then: reason.then.iter().copied().map(name).collect(),
        }
    }
}

/// The reasons of a file as it is, each with what would be said of it once it was written inside, where that differs.
fn told_of_file<'a>(reasons: &[Reason<'a>], once_written: &[Reason<'a>]) -> Vec<Told<'a>> {
    let mut all = Vec::new();
    for (now, then) in reasons.iter().zip(once_written) {
        let (now, then) = (Told::new(now), Told::new(then));
        let differs = (now.answer, now.rule) != (then.answer, then.rule);
        all.push(now);
        all.extend(differs.then_some(Told {
            of: Some(FileKind::Written),
            ..then
        }));
    }
    all
}

/// The reasons for the first of these, each with what would be said to the others, where that differs.
fn told_by<'a, 's>(
    actors: &[Actor<'s>],
    told: impl Fn(Actor<'s>) -> Vec<Told<'a>>,
) -> Vec<Told<'a>> {
    let Some((first, others)) = actors.split_first() else {
        return Vec::new();
    };
    let mut all = told(*first);
    let of_first = all.len();
    for actor in others {
        for other in told(*actor) {
            let alike = |t: &Told<'_>| {
                (t.access, t.of, t.answer, t.rule)
                    == (other.access, other.of, other.answer, other.rule)
            };
            if !all[..of_first].iter().any(alike) {
                all.push(Told {
                    by: Some((*actor).into()),
                    ..other
                });
            }
        }
    }
    all.sort_by_key(|told| told.access.bits());
    all
}

/// What reasons are about.
#[derive(Clone, Copy)]
enum Of<'a> {
    File(&'a str),
    /// And what carries the bytes there.
    Address(&'a str, &'a str),
    /// And what refuses it, where there are rules.
    Call(&'a str, Option<&'a str>),
}

/// What refuses system calls to a command that `run` starts.
const OF_CALLS: &str = "seccomp";

fn print_reasons(
    of: Of<'_>,
    reasons: Vec<Told<'_>>,
    limits: &[&LimitRule],
    wanted: Access,
    format: Format,
) -> anyhow::Result<()> {
    if format == Format::Text {
        match of {
            Of::File(path) => println!("{path}"),
            Of::Address(address, protocol) => println!("{protocol}:{address}"),
            Of::Call(call, None) => println!("syscall:{call}"),
            Of::Call(call, Some(by)) => println!("syscall:{call} (by {by})"),
        }
    }
    for reason in reasons {
        if !wanted.contains(reason.access) {
            continue;
        }
        if format == Format::Json {
            let (mut path, mut address, mut protocol) = (None, None, None);
            let (mut syscall, mut mechanism) = (None, None);
            match of {
                Of::File(shown) => path = Some(shown),
                Of::Address(shown, by) => (address, protocol) = (Some(shown), Some(by)),
                Of::Call(shown, by) => (syscall, mechanism) = (Some(shown), by),
            }
            let line = Explained {
                path,
                address,
                protocol,
                syscall,
                mechanism,
                access: reason.access,
                of: reason.of.map(FileKind::name),
                by: reason.by,
                verdict: reason.answer.verdict,
                answer: Some(reason.answer).filter(|a| a.to_string() != a.verdict.name()),
                rule: reason.rule.map(|(id, _)| id),
                line: reason.rule.map(|(_, line)| line),
                unlisted: reason.unlisted,
                then: reason.then.iter().map(|(id, _)| *id).collect(),
                limits,
            };
            println!("{}", serde_json::to_string(&line)?);
            continue;
        }
        let (kind, answer) = (reason.access.to_string(), reason.answer);
        let mut of = reason
            .by
            .map_or_else(String::new, |by| format!("by {by}: "));
        if let Some(kind) = reason.of {
            of += &format!("once {kind}: ");
        }
        let Some((id, line)) = reason.rule else {
            let why = if reason.then.is_empty() {
                "no rule is about it".to_owned()
            } else {
                format!("allowed by {}", ids(&reason.then))
            };
            println!("  {kind:<9} {answer:<6} {of}{why}");
            continue;
        };
        let then = match (&reason.without, &reason.then[..]) {
            _ if reason.unlisted => "allows it elsewhere".to_owned(),
            ((Verdict::Allow, _), _) if reason.access == Access::CALL => {
                "without that rule it is allowed".to_owned()
            }
            ((Verdict::Allow, _), _) => format!("without {kind} in that rule it is allowed"),
            ((_, rule), []) => {
                let rule = rule.map_or_else(String::new, |rule| ids(&[rule]));
                format!("without it, {rule}, which allows it elsewhere")
            }
            (_, then) => format!("without it, {}", ids(then)),
        };
        println!("  {kind:<9} {answer:<6} {of}{id} (line {line}); {then}");
    }
    if format == Format::Text {
        for limit in limits {
            println!("  limited by {} (line {}), {limit}", limit.id, limit.line);
        }
    }
    Ok(())
}

/// Rules, in the order in which they decide.
fn ids(rules: &[Named<'_>]) -> String {
    let ids: Vec<String> = rules
        .iter()
        .map(|(id, line)| format!("{id} (line {line})"))
        .collect();
    ids.join(", then ")
}

fn test(files: &[PathBuf], policy: Option<&Path>, env: &Environment) -> Outcome {
    let (mut failed, mut passed) = (0, 0);
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let cases = Cases::parse(&text, &file.display().to_string(), env)?;
        // Beside the cases, wherever they are run from.
        let named = cases.policy.as_ref().map(|named| {
            let dir = file.parent().unwrap_or(Path::new(""));
            dir.join(named)
        });
        let Some(policy) = policy.map(Path::to_owned).or(named) else {
            super::usage(&format!(
                "{} names no policy: give --policy FILE, or write \"policy: FILE\" into it",
                file.display()
            ));
        };
        let set = RuleSet::read(&policy, env)?;
        let failures = cases.failures(&set);
        for failure in &failures {
            let by = |rule: &Option<String>| match rule {
                Some(rule) => format!(" by {rule}"),
                None => String::new(),
            };
            println!(
                "{}:{}: {} of {} is {}{}, expected {}{}",
                file.display(),
                failure.case.line,
                failure.case.access,
                failure.case.object,
                failure.verdict,
                by(&failure.rule),
                failure.case.expect,
                by(&failure.case.rule),
            );
        }
        failed += failures.len();
        passed += cases.cases.len() - failures.len();
    }
    println!("{passed} passed, {failed} failed");
    Ok(u8::from(failed > 0))
}

fn compare(before: &Path, after: &Path, format: Format, env: &Environment) -> Outcome {
    let (before, after) = (RuleSet::read(before, env)?, RuleSet::read(after, env)?);
    for difference in differences(&before, &after) {
        match format {
            Format::Text => println!("{difference}"),
            Format::Json => println!("{}", serde_json::to_string(&difference)?),
        }
    }
    Ok(0)
}

/// What becomes allowed or denied.
pub(super) fn differences(before: &RuleSet, after: &RuleSet) -> Vec<Difference> {
    let files = diff(before, after).into_iter().map(Difference::File);
    let network = diff_network(before, after).into_iter();
    let calls = diff_calls(before, after).into_iter();
    let limits = diff_limits(before, after).into_iter();
    files
        .chain(network.map(Difference::Network))
        .chain(calls.map(Difference::Calls))
        .chain(limits.map(Difference::Limit))
        .collect()
}

/// One of them: a line for people, or its own fields in JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Difference {
    File(Change),
    Network(NetworkChange),
    Calls(CallChange),
    Limit(LimitChange),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, access, before, after, rule) = match self {
            Difference::File(c) => (c.path.to_string(), c.access, c.before, c.after, &c.rule),
            Difference::Network(c) => {
                let address = match c.protocol {
                    "any" => c.address.to_string(),
                    protocol => format!("{protocol}:{}", c.address),
                };
                (address, c.access, c.before, c.after, &c.rule)
            }
            Difference::Calls(c) => (c.calls.join(","), Access::CALL, c.before, c.after, &c.rule),
            Difference::Limit(c) => {
                let sign = match c.looser {
                    Some(true) => '-',
                    Some(false) => '+',
                    None => '~',
                };
                let shown = |limit: &Option<String>| limit.clone().unwrap_or("no limit".into());
                let (before, after) = (shown(&c.before), shown(&c.after));
                return write!(f, "{sign} limit: {before} -> {after} ({})", c.rule);
            }
        };
        let sign = match before.verdict.cmp(&after.verdict) {
            Ordering::Less => '+',
            Ordering::Equal => '~',
            Ordering::Greater => '-',
        };
        write!(f, "{sign} {what}: {access} {before} -> {after} ({rule})")?;
        match self {
            Difference::File(Change { by: Some(by), .. })
            | Difference::Network(NetworkChange { by: Some(by), .. }) => write!(f, " by {by}"),
            _ => Ok(()),
        }
    }
}
