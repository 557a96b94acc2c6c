//! `stockade replay`: a recording as if it happened now.

use std::path::PathBuf;

use clap::Args;
use stockade::Recording;

use super::output::Output;
use super::{Outcome, OutputArgs};

/// Print the events of a recording; needs no rights, and works on any system
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade run --record build.stk -- make           record what a build does
  stockade replay build.stk                         and look at it later
  stockade replay build.stk --format json | jq .    on another machine, in another format")]
pub(super) struct ReplayArgs {
    /// What --record wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn main(args: &ReplayArgs) -> Outcome {
    let recording = Recording::open(&args.file)?;
    let mut output = Output::open(&args.output, recording.clock().clone())?;
    let replayed = recording.replay(&mut |event, clock| {
        output.set_clock(clock);
        output.event(event);
    });
    // What was there before a fault is worth reading.
    output.flush();
    output.end(&replayed?)?;
    Ok(0)
}
