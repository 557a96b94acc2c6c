//! `stockade kill`: end processes, trees and cgroups.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockade::Scope;
use stockade::kill::{Kill, Report};

use super::stop::Stop;
use super::watch::time;
use super::{Format, Outcome, WhoArgs, counted};

/// End processes, trees and cgroups: SIGTERM, then SIGKILL
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade kill --tree 1234
  stockade kill --tree 1234 --capture evidence.jsonl --now
  stockade kill --cgroup /system.slice/nginx.service --grace 30s
  stockade kill --cgroup /user.slice --dry-run

Everything is looked up and judged before anybody is signalled. A tree is held while it is searched,
so that nobody gets away by forking; who had left it before is found by a cgroup only, or by the
session. Ctrl-C ends the wait and spares who is left.

Exit code 0 when nobody is left, 1 when somebody is.")]
pub(super) struct KillArgs {
    /// How long they have between SIGTERM and SIGKILL, such as 500ms; 0s for no SIGTERM
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    grace: Duration,
    /// SIGKILL at once, the same as --grace 0s
    #[arg(long, conflicts_with = "grace")]
    now: bool,
    /// Before that, write what each process is to this new file: executable, arguments, open files, connections,
    /// mappings, names of environment variables (docs/KILL.md)
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    capture: Option<PathBuf>,
    /// Say who would be killed, and kill nobody
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    who: WhoArgs,
    /// One line for people, or one JSON object a line (docs/KILL.md)
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output"
    )]
    format: Format,
}

pub(super) fn main(args: KillArgs) -> Outcome {
    let scope = args.who.add_to(Scope::new());
    if scope.is_empty() {
        super::usage("there is nobody to kill: give --pid PID, --tree PID or --cgroup PATH");
    }
    allow_open_files();
    let grace = if args.now { Duration::ZERO } else { args.grace };
    let mut kill = Kill::new(scope).grace(grace);
    if let Some(path) = args.capture {
        kill = kill.capture(path);
    }
    if args.dry_run {
        print(args.format, &kill.plan()?)?;
        return Ok(0);
    }
    let stop = Stop::listen()?;
    let report = kill.run(|| stop.asked())?;
    print(args.format, &report)?;
    let (all, gone) = (
        report.fates().len(),
        report.fates().iter().filter(|f| f.outcome.is_gone()),
    );
    let gone = gone.count();
    if gone == all {
        eprintln!("stockade: {}, gone", counted(all, "process"));
        return Ok(0);
    }
    eprintln!(
        "stockade: {}, {gone} gone, {} still there",
        counted(all, "process"),
        all - gone
    );
    Ok(1)
}

/// As many as the system lets us have: each process that is held takes two.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With fewer it still works for fewer processes.
    let _ = setrlimit(Resource::Nofile, most);
}

fn print(format: Format, report: &Report) -> anyhow::Result<()> {
    let mut text = String::new();
    for fate in report.fates() {
        match format {
            Format::Text => text.push_str(&fate.to_string()),
            Format::Json => text.push_str(&serde_json::to_string(fate)?),
        }
        text.push('\n');
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(e).context("what was done cannot be written")
        }
        _ => Ok(()),
    }
}
