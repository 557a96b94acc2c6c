//! `stockade enforce`: fence what is already running.

use clap::Args;
use stockade::{Session, Watch};

use super::monitor::follow;
use super::output::Output;
use super::stop::Stop;
use super::watch::watches;
use super::{IntakeArgs, Outcome, OutputArgs, PolicyArgs, ScopeArgs};

/// Fence what is already running, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade enforce --policy protect-secrets.yaml --cgroup /system.slice/nginx.service
  stockade enforce --deny-file /etc/shadow --tree 1234 --monitor process

The fence ends with this program.")]
pub(super) struct EnforceArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Arm it even if it keeps this session, which it holds, from running its own programs
    #[arg(long, help_heading = "Options")]
    i_know: bool,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Report these events as well; only denials otherwise
    #[arg(long = "monitor", value_name = "KIND", value_parser = watches, help_heading = "Options")]
    monitors: Vec<Vec<Watch>>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    intake: IntakeArgs,
}

pub(super) fn main(args: EnforceArgs) -> Outcome {
    let stop = Stop::listen()?;
    let Some(rules) = args.policy.rules()? else {
        super::usage("there is nothing to enforce: give --policy FILE or --deny-file PATH");
    };
    let builder = Session::builder().scope(args.scope.scope()).policy(rules);
    let mut builder = args.intake.apply(builder);
    if args.i_know {
        builder = builder.allow_lockout();
    }
    for watch in args.monitors.concat() {
        builder = builder.monitor(watch);
    }
    let (session, output) = Output::begin(&args.output, builder)?;
    let mut told = false;
    follow(session, output, |_, output| {
        if output.is_closed() && !told {
            told = true;
            eprintln!("stockade: events can no longer be written; the fence stands");
        }
        Ok(stop.asked())
    })?;
    Ok(0)
}
