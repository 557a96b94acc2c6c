//! `stockade unpin`: take fences down that outlive who has armed them.

use clap::Args;
use stockade::armed;

use super::Outcome;

/// Take a fence down that 'enforce --fail-closed' has left
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo stockade unpin server
  sudo stockade unpin --all

One whose monitor runs is left alone: end that first. 'stockade status' shows the names.")]
pub(super) struct UnpinArgs {
    /// The name that it is pinned under, which is its policy's
    #[arg(value_name = "NAME", required_unless_present = "all")]
    name: Option<String>,
    /// All that have nobody who looks after them
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub(super) fn main(args: UnpinArgs) -> Outcome {
    let names = match args.name {
        Some(name) => vec![name],
        None => {
            let left = armed::fences()?.into_iter().filter(|f| f.monitor.is_none());
            left.filter_map(|fence| fence.pinned).collect()
        }
    };
    for name in &names {
        armed::unpin(name)?;
        eprintln!("stockade: {} is taken down", name.escape_debug());
    }
    Ok(0)
}
