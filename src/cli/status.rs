//! `stockade status`: what is armed on this machine.

use anyhow::Context as _;
use clap::Args;
use stockade::armed;

use super::{Outcome, counted};

/// Show the fences that are armed on this machine, and what each rule has refused
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo stockade status
  sudo stockade status --json | jq '.[] | select(.monitor == null)'

Exit code 0 when all of them hold, also when there are none; 40 when one does not.")]
pub(super) struct StatusArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &StatusArgs) -> Outcome {
    let fences = armed::fences()?;
    if args.json {
        let text = serde_json::to_string_pretty(&fences).context("the status cannot be written")?;
        println!("{text}");
    } else {
        for fence in &fences {
            println!("{fence}");
        }
        eprintln!("stockade: {} armed", counted(fences.len(), "fence"));
    }
    Ok(if fences.iter().all(armed::ArmedFence::holds) {
        0
    } else {
        40
    })
}
