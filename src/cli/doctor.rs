//! `stockade doctor`: what this machine can do.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Args;
use stockade::doctor::{Status, VariantState, examine, try_every_variant};

use super::Outcome;

/// Show what this machine can do, proved by trying, with the fix for each red line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo stockade doctor
  sudo stockade doctor --json | jq .can_fence
  sudo stockade doctor --every-variant

Exit code 0 when watching and fencing both work, else 40; with --every-variant, 0 when none is refused.")]
pub(super) struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Instead, load every way that this version has to hook anything, also those that would not be chosen here
    #[arg(long)]
    every_variant: bool,
}

pub(super) fn main(args: &DoctorArgs) -> Outcome {
    if args.every_variant {
        return every_variant(args.json);
    }
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

fn every_variant(json: bool) -> Outcome {
    let trials = try_every_variant()?;
    if json {
        let text = serde_json::to_string_pretty(&trials).context("the trials cannot be written")?;
        println!("{text}");
    } else {
        for trial in &trials {
            let state = match trial.state {
                VariantState::Loads => "loads",
                VariantState::Refused => "REFUSED",
                _ => "not for this kernel",
            };
            println!("{:<18} {:<20} {state}", trial.probe, trial.variant);
            if let Some(line) = trial.reason.as_deref().and_then(|r| r.lines().next()) {
                println!("{:<18} {line}", "");
            }
        }
    }
    let refused = trials.iter().any(|t| t.state == VariantState::Refused);
    Ok(if refused { 40 } else { 0 })
}

fn paint(color: bool, code: &str, word: &str) -> String {
    if color {
        format!("\x1b[{code}m{word:<7}\x1b[0m")
    } else {
        format!("{word:<7}")
    }
}
