//! `stockade monitor`: stream events.

use std::time::Duration;

use clap::Args;
use stockade::{Session, Watch};

use super::output::Output;
use super::stop::Stop;
use super::watch::{WatchArgs, watches};
use super::{IntakeArgs, Outcome, OutputArgs, ScopeArgs};

/// Stream what processes do, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade monitor --tree 1234                      one process and its children
  stockade monitor process --host                   every program that starts on this machine
  stockade monitor syscall --tree 1234 --interval 5 which system calls, how often, how long
  stockade monitor --syscalls ptrace,mount --host   each of these calls, with its arguments
  stockade monitor file --cgroup /system.slice/nginx.service --format json")]
pub(super) struct MonitorArgs {
    /// What to watch: a monitor, a monitor in another form (syscall=events), or all; processes and files when none is
    /// named
    #[arg(value_name = "KIND", value_parser = watches)]
    kinds: Vec<Vec<Watch>>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    intake: IntakeArgs,
}

pub(super) fn main(args: MonitorArgs) -> Outcome {
    let stop = Stop::listen()?;
    let builder = Session::builder().scope(args.scope.scope());
    let builder = args.watch.apply(&args.kinds, args.intake.apply(builder))?;
    let (session, output) = Output::begin(&args.output, builder)?;
    follow(session, output, |_, output| {
        Ok(stop.asked() || output.is_closed())
    })?;
    Ok(0)
}

/// Writes events until `done`, then takes everything down and writes the end record. Returns the accesses refused.
pub(super) fn follow(
    mut session: Session,
    mut output: Output,
    mut done: impl FnMut(&mut Session, &mut Output) -> stockade::Result<bool>,
) -> anyhow::Result<u64> {
    while !done(&mut session, &mut output)? {
        session.poll(Duration::from_millis(50), &mut |event| output.event(event))?;
        output.set_clock(session.clock());
        output.flush();
    }
    let certificate = session.end(&mut |event| output.event(event))?;
    let denied = output.denied();
    output.end(&certificate)?;
    Ok(denied)
}
