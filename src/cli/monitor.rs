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
    follow(
        session,
        output,
        &mut |_: &mut Session, output: &mut Output| Ok(stop.asked() || output.is_closed()),
    )?;
    Ok(0)
}

/// Who knows when a session is to end.
pub(super) trait Follower {
    fn is_done(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<bool>;

    /// Something has failed, and the session ends after this.
    fn give_up(&mut self) {}
}

impl<F: FnMut(&mut Session, &mut Output) -> stockade::Result<bool>> Follower for F {
    fn is_done(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<bool> {
        self(session, output)
    }
}

/// Writes events until it is done, then takes everything down and writes the end record, also where something failed: what
/// there is to say is said, and that it is not all. Returns the accesses refused.
pub(super) fn follow(
    mut session: Session,
    mut output: Output,
    follower: &mut impl Follower,
) -> anyhow::Result<u64> {
    let mut watch = || -> stockade::Result<()> {
        while !follower.is_done(&mut session, &mut output)? {
            session.poll(Duration::from_millis(50), &mut |event| output.event(event))?;
            output.set_clock(session.clock());
            output.flush();
        }
        Ok(())
    };
    let followed = watch();
    if followed.is_err() {
        follower.give_up();
    }
    let ended = session.end(&mut |event| output.event(event));
    let denied = output.denied();
    let told = ended.map(|certificate| output.end(&certificate));
    followed?;
    told??;
    Ok(denied)
}
