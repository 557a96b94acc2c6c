//! `stockade why`: why was this denied, and what would allow it?

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use stockade::Recording;
use stockade::event::{Clock, Denial, Event, Kind, Process};
use stockade::policy::{Actor, RuleSet, edit_denial};

use super::policy::{Difference, differences};
use super::{EnvironmentArgs, Format, Outcome, counted};

/// Say why something was denied, and the smallest change of the policy that would allow it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade run --policy build.policy.yaml --record build.stk -- make
  stockade why --policy build.policy.yaml build.stk

Needs no rights, and works on any system. Lines that begin with - say what the change allows, as in 'policy diff'.")]
pub(super) struct WhyArgs {
    /// What --record wrote, also while it is being written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The policy as it is now
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    environment: EnvironmentArgs,
    /// So many different denials at most, those that came last
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    last: usize,
    /// Lines for people, or one JSON object for each denial
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Denials that differ in nothing but their time.
#[derive(Debug)]
struct Denied {
    process: Process,
    denial: Denial,
    /// What was to be accessed, as it is told.
    object: String,
    count: u64,
    /// When the last one was.
    last: String,
}

#[derive(Serialize)]
struct Told<'a> {
    count: u64,
    last: &'a str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<&'a str>,
    ancestors: Vec<u32>,
    access: &'a str,
    object: &'a str,
    refused: bool,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    mechanism: &'a str,
    steps: &'a [String],
    differences: &'a [Difference],
}

pub(super) fn main(args: &WhyArgs) -> Outcome {
    let set = RuleSet::read(&args.policy, &args.environment.environment()?)?;
    let recording = Recording::open(&args.file)?;
    let mut all: Vec<Denied> = Vec::new();
    let replayed = recording.replay(&mut |event, clock| note(&mut all, event, clock));
    let first = all.len().saturating_sub(args.last);
    for denied in &all[first..] {
        let mut actor = Actor::ANYBODY.user(denied.process.uid);
        if let Some(exe) = executable(&denied.process) {
            actor = actor.running(Path::new(exe));
        }
        let edit = edit_denial(&set, &denied.denial, &actor);
        let steps = edit.as_ref().map_or(&[][..], |edit| &edit.steps);
        let differences = match &edit {
            Some(edit) => differences(&set, &edit.after),
            None => Vec::new(),
        };
        match args.format {
            Format::Text => tell(denied, steps, &differences),
            Format::Json => {
                let line = Told::new(denied, steps, &differences);
                println!("{}", serde_json::to_string(&line)?);
            }
        }
    }
    if args.format == Format::Text {
        let left = match first {
            0 => String::new(),
            n => format!(", {n} before these"),
        };
        println!("{}{left}", counted(all.len(), "different denial"));
    }
    // What was there before a fault is worth reading.
    replayed?;
    Ok(0)
}

fn executable(process: &Process) -> Option<&str> {
    process.about.as_ref()?.executable.as_deref()
}

/// The latest ones come last.
fn note(all: &mut Vec<Denied>, event: &Event, clock: &Clock) {
    let Kind::Denial(denial) = &event.kind else {
        return;
    };
    let object = denial.object.to_string();
    let same = |known: &Denied| {
        known.denial.rule_id == denial.rule_id
            && (&known.denial.access, known.denial.refused) == (&denial.access, denial.refused)
            && known.object == object
            && executable(&known.process) == executable(&event.process)
    };
    let before = all.iter().position(same).map(|at| all.remove(at));
    let mut last = String::new();
    clock.write_rfc3339(&mut last, event.time_ns);
    all.push(Denied {
        process: event.process.clone(),
        denial: denial.clone(),
        object,
        count: before.map_or(0, |before| before.count) + 1,
        last,
    });
}

impl<'a> Told<'a> {
    fn new(denied: &'a Denied, steps: &'a [String], differences: &'a [Difference]) -> Told<'a> {
        let Denied {
            process, denial, ..
        } = denied;
        Told {
            count: denied.count,
            last: &denied.last,
            pid: process.id.pid,
            executable: executable(process),
            ancestors: denial.ancestors.iter().map(|a| a.pid).collect(),
            access: &denial.access,
            object: &denied.object,
            refused: denial.refused,
            rule: &denial.rule_id,
            line: Some(denial.rule_line).filter(|line| *line > 0),
            mechanism: &denial.mechanism,
            steps,
            differences,
        }
    }
}

fn tell(denied: &Denied, steps: &[String], differences: &[Difference]) {
    let Denied {
        process, denial, ..
    } = denied;
    let times = counted(denied.count, "time");
    println!("{}  {times}, last {}", denied.object, denied.last);
    let name = |executable: Option<&str>, pid: u32| match executable {
        Some(executable) => format!("{executable} ({pid})"),
        None => pid.to_string(),
    };
    let mut who = name(executable(process), process.id.pid);
    for ancestor in denial.ancestors.iter() {
        who.push_str(" of ");
        who.push_str(&name(ancestor.executable.as_deref(), ancestor.pid));
    }
    println!("  {} by {who}", denial.access);
    let verb = match (denial.refused, denial.killed) {
        (_, true) => "killed for it",
        (true, false) => "refused",
        (false, false) => "would be refused",
    };
    let line = match denial.rule_line {
        0 => String::new(),
        line => format!(" (line {line})"),
    };
    let by = match &*denial.mechanism {
        "" => String::new(),
        by => format!(", {by}"),
    };
    println!("  {verb} by rule {}{line}{by}", denial.rule_id);
    if steps.is_empty() {
        println!("  the policy as it is now has no such rule, or none that can name this");
    }
    for step in steps {
        println!("  to allow it: {step}");
    }
    for difference in differences {
        println!("    {difference}");
    }
}
