//! `stockade why`: why was this denied, and what would allow it?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use stockade::Recording;
use stockade::event::{Clock, Denial, Event, Kind};
use stockade::policy::{RuleSet, edit_denial};

use super::policy::differences;
use super::{Format, Outcome, counted, environment};

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
    event: Event,
    denial: Denial,
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
    object: String,
    refused: bool,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    mechanism: &'a str,
    steps: &'a [String],
    differences: Vec<serde_json::Value>,
}

pub(super) fn main(args: &WhyArgs) -> Outcome {
    let set = RuleSet::read(&args.policy, &environment()?)?;
    let recording = Recording::open(&args.file)?;
    let mut all: Vec<Denied> = Vec::new();
    let replayed = recording.replay(&mut |event, clock| note(&mut all, event, clock));
    let first = all.len().saturating_sub(args.last);
    for denied in &all[first..] {
        let edit = edit_denial(&set, &denied.denial);
        let steps = edit.as_ref().map_or(&[][..], |edit| &edit.steps);
        let differences = match &edit {
            Some(edit) => differences(&set, &edit.after, args.format)?,
            None => Vec::new(),
        };
        match args.format {
            Format::Text => tell(denied, steps, &differences),
            Format::Json => {
                let line = Told::new(denied, steps, &differences)?;
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

/// The latest ones come last.
fn note(all: &mut Vec<Denied>, event: &Event, clock: &Clock) {
    let Kind::Denial(denial) = &event.kind else {
        return;
    };
    let executable = |event: &Event| event.process.about.as_ref()?.executable.clone();
    let same = |known: &Denied| {
        known.denial.rule_id == denial.rule_id
            && (&known.denial.access, known.denial.refused) == (&denial.access, denial.refused)
            && known.denial.object.to_string() == denial.object.to_string()
            && executable(&known.event) == executable(event)
    };
    let before = all.iter().position(same).map(|at| all.remove(at));
    let mut last = String::new();
    clock.write_rfc3339(&mut last, event.time_ns);
    all.push(Denied {
        event: event.clone(),
        denial: denial.clone(),
        count: before.map_or(0, |before| before.count) + 1,
        last,
    });
}

impl<'a> Told<'a> {
    fn new(
        denied: &'a Denied,
        steps: &'a [String],
        differences: &[String],
    ) -> anyhow::Result<Told<'a>> {
        let Denied { event, denial, .. } = denied;
        let about = event.process.about.as_ref();
        Ok(Told {
            count: denied.count,
            last: &denied.last,
            pid: event.process.id.pid,
            executable: about.and_then(|about| about.executable.as_deref()),
            ancestors: denial.ancestors.iter().map(|a| a.pid).collect(),
            access: &denial.access,
            object: denial.object.to_string(),
            refused: denial.refused,
            rule: &denial.rule_id,
            line: Some(denial.rule_line).filter(|line| *line > 0),
            mechanism: &denial.mechanism,
            steps,
            differences: differences
                .iter()
                .map(|line| serde_json::from_str(line))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn tell(denied: &Denied, steps: &[String], differences: &[String]) {
    let Denied { event, denial, .. } = denied;
    let times = counted(denied.count, "time");
    println!("{}  {times}, last {}", denial.object, denied.last);
    let name = |executable: Option<&str>, pid: u32| match executable {
        Some(executable) => format!("{executable} ({pid})"),
        None => pid.to_string(),
    };
    let about = event.process.about.as_ref();
    let executable = about.and_then(|about| about.executable.as_deref());
    let mut who = name(executable, event.process.id.pid);
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
