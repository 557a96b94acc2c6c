//! `stockade enforce`: fence what is already running.

use clap::Args;
use stockade::{Session, Watch};

use super::monitor::follow;
use super::output::{Output, announce_fence};
use super::reread::Reread;
use super::stop::Stop;
use super::watch::watches;
use super::{IntakeArgs, Outcome, OutputArgs, PolicyArgs, ScopeArgs};

/// Fence what is already running, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade enforce --policy protect-secrets.yaml --cgroup /system.slice/nginx.service
  stockade enforce --deny-file /etc/shadow --tree 1234 --monitor process

The policy is read again when its file changes and on SIGHUP. One that is wrong, or that cannot be put in
force, leaves the one before where it is. The fence ends with this program.")]
pub(super) struct EnforceArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Arm it even if it keeps this session, which it holds, from running its own programs
    #[arg(long, help_heading = "Options")]
    i_know: bool,
    /// Room for policies that are read later: so many files, names, rules and addresses of each [default: twice what the
    /// first one has, at least 4096]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u32).range(1..=1 << 24), help_heading = "Options")]
    room: Option<u32>,
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
    let mut reread = Reread::listen(args.policy.policy.as_deref())?;
    let stop = Stop::listen()?;
    let Some(rules) = args.policy.rules()? else {
        super::usage("there is nothing to enforce: give --policy FILE or --deny-file PATH");
    };
    let builder = Session::builder()
        .scope(args.scope.scope())
        .policy(rules)
        .prove_every(args.policy.prove_every);
    let mut builder = args.intake.apply(builder);
    if args.i_know {
        builder = builder.allow_lockout();
    }
    if let Some(room) = args.room {
        builder = builder.room(room);
    }
    for watch in args.monitors.concat() {
        builder = builder.monitor(watch);
    }
    let (session, output) = Output::begin(&args.output, builder)?;
    let mut told = false;
    follow(
        session,
        output,
        &mut |session: &mut Session, output: &mut Output| {
            if reread.is_due() {
                reload(&args.policy, session, output);
            }
            if output.is_closed() && !told {
                told = true;
                eprintln!("stockade: events can no longer be written; the fence stands");
            }
            Ok(stop.asked())
        },
    )?;
    Ok(0)
}

/// Puts the policy in force as it is now; what stands in the way is told, and the one before stays.
fn reload(policy: &PolicyArgs, session: &mut Session, output: &mut Output) {
    let mut read = || -> anyhow::Result<()> {
        let Some(rules) = policy.rules()? else {
            return Ok(());
        };
        Ok(session.reload(&rules, &mut |event| output.event(event))?)
    };
    match (read(), session.fence()) {
        (Ok(()), Some(fence)) => announce_fence("policy read again", fence),
        (Ok(()), None) => {}
        (Err(e), _) => {
            super::report(&e);
            eprintln!("stockade: the policy that was in force still is");
        }
    }
}
