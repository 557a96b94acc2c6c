//! `stockade doctor`: what this machine can do.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Args;
use stockade::doctor::{Status, examine};

use super::Outcome;

/// Show what this machine can do, proved by trying, with the fix for each red line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo stockade doctor
  sudo stockade doctor --json | jq .can_fence

Exit code 0 when watching and fencing both work, else 40.")]
pub(super) struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &DoctorArgs) -> Outcome {
    let found = examine()?;
    let code = if found.can_watch && found.can_fence {
        0
    } else {
        40
    };
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&found).context("the examination cannot be written")?
        );
        return Ok(code);
    }
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for check in &found.checks {
        let mark = match check.status {
            Status::Ok => paint(color, "32", check.status.name()),
            Status::Failed => paint(color, "31", check.status.name()),
            _ => paint(color, "33", check.status.name()),
        };
        println!("{mark}  {:<16} {}", check.name, check.found);
        if let Some(fix) = check.fix.as_ref().filter(|_| check.status != Status::Ok) {
            println!("         {:<16} -> {fix}", "");
        }
    }
    println!();
    for probe in &found.probes {
        println!(
            "probe    {:<18} {}",
            probe.name,
            probe.variant.as_deref().unwrap_or("unavailable")
        );
        if let Some(reason) = &probe.reason {
            for line in reason.split("; ").filter_map(|r| r.lines().next()) {
                println!("         {:<18} not {line}", "");
            }
        }
    }
    println!();
    println!(
        "This machine can {} and can {}.",
        if found.can_watch {
            "watch"
        } else {
            "NOT watch everything"
        },
        if found.can_fence {
            "fence"
        } else {
            "NOT fence"
        },
    );
    Ok(code)
}

fn paint(color: bool, code: &str, word: &str) -> String {
    if color {
        format!("\x1b[{code}m{word:<7}\x1b[0m")
    } else {
        format!("{word:<7}")
    }
}
