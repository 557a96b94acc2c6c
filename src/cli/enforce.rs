//! `stockade enforce`: fence what is already running.

use std::time::{Duration, Instant};

use clap::Args;
use stockade::policy::RuleSet;
use stockade::{ErrorKind, Session, Watch};

use super::monitor::{Follower, follow};
use super::output::{Output, announce_fence};
use super::reread::Reread;
use super::stop::Stop;
use super::watch::{time, watches};
use super::{IntakeArgs, Outcome, OutputArgs, PolicyArgs, ScopeArgs};

/// Fence what is already running, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade enforce --policy protect-secrets.yaml --cgroup /system.slice/nginx.service
  stockade enforce --deny-file /etc/shadow --tree 1234 --monitor process
  stockade enforce --policy server.yaml --host --revert-after 60s     try it on a machine far away
  stockade enforce --policy server.yaml --host --fail-closed          it stands, whatever becomes of this program

The policy is read again when its file changes and on SIGHUP. One that is wrong, or that cannot be put in
force, leaves the one before where it is. The fence ends with this program; with --fail-closed it stands
until 'stockade unpin', and the next 'enforce --fail-closed' with a policy of the same name takes it over.")]
pub(super) struct EnforceArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Arm it even if it keeps this session, which it holds, from running its own programs
    #[arg(long, help_heading = "Options")]
    i_know: bool,
    /// Take a policy back that is not confirmed within so long, by SIGUSR1, such as 60s: the one that was confirmed
    /// last comes back, and where there is none the fence ends
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Options")]
    revert_after: Option<Duration>,
    /// Leave the fence standing when this program ends, however it does: pinned in the bpf file system under the
    /// policy's name, until 'stockade unpin'. With --revert-after, once the policy is confirmed
    #[arg(long, help_heading = "Options")]
    fail_closed: bool,
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
    let reread = Reread::listen(args.policy.policy.as_deref())?;
    let stop = Stop::listen()?;
    let Some(rules) = args.policy.rules()? else {
        super::usage("there is nothing to enforce: give --policy FILE or --deny-file PATH");
    };
    let builder = Session::builder()
        .scope(args.scope.scope())
        .policy(rules.clone());
    let mut builder = args.intake.apply(args.policy.apply(builder));
    if args.i_know {
        builder = builder.allow_lockout();
    }
    for watch in args.monitors.concat() {
        builder = builder.monitor(watch);
    }
    let (mut session, mut output) = Output::begin(&args.output, builder)?;
    let mut enforcement = Enforcement {
        pin: args.fail_closed.then(|| rules.name.clone()),
        policy: args.policy,
        reread,
        stop,
        revert_after: args.revert_after,
        now: rules,
        confirmed: None,
        until: None,
        ended: false,
        closed: false,
    };
    if args.revert_after.is_none() {
        enforcement.pin(&mut session, &mut output)?;
    }
    enforcement.on_trial();
    follow(session, output, &mut enforcement)?;
    // Who asked for a fence has none.
    Ok(match enforcement.ended {
        true => ErrorKind::NotEnforced.exit_code(),
        false => 0,
    })
}

/// A fence, and the policies that it gets.
struct Enforcement {
    policy: PolicyArgs,
    reread: Reread,
    stop: Stop,
    revert_after: Option<Duration>,
    /// The name to pin it under, until it is.
    pin: Option<String>,
    /// What is in force.
    now: RuleSet,
    /// What was so when somebody confirmed it.
    confirmed: Option<RuleSet>,
    /// When what is in force is taken back.
    until: Option<Instant>,
    /// It was taken back, and there was nothing before it.
    ended: bool,
    /// Somebody was told that events cannot be written.
    closed: bool,
}

impl Enforcement {
    /// What has been put in force may go again.
    fn on_trial(&mut self) {
        let Some(after) = self.revert_after else {
            return;
        };
        self.until = Instant::now().checked_add(after);
        eprintln!(
            "stockade: it is taken back in {after:?} unless it is confirmed: kill -USR1 {}",
            std::process::id()
        );
    }

    /// What has been confirmed may stay.
    fn pin(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<()> {
        if let Some(name) = self.pin.take() {
            session.pin(&name, &mut |event| output.event(event))?;
            eprintln!(
                "stockade: pinned as {}: it stands without this program, until 'stockade unpin'",
                name.escape_debug()
            );
        }
        Ok(())
    }

    fn confirm(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<()> {
        if self.until.take().is_some() {
            self.confirmed = Some(self.now.clone());
            eprintln!("stockade: confirmed");
            self.pin(session, output)?;
        }
        Ok(())
    }

    /// Puts the policy in force as it is now; what stands in the way is told, and the one before stays.
    fn reload(&mut self, session: &mut Session, output: &mut Output) {
        let mut read = || -> anyhow::Result<Option<RuleSet>> {
            let rules = self.policy.rules()?;
            if let Some(rules) = &rules {
                session.reload(rules, &mut |event| output.event(event))?;
            }
            Ok(rules)
        };
        match (read(), session.fence()) {
            (Ok(Some(rules)), Some(fence)) => {
                announce_fence("policy read again", fence);
                self.now = rules;
                self.on_trial();
            }
            (Ok(_), _) => {}
            (Err(e), _) => {
                super::report(&e);
                eprintln!("stockade: the policy that was in force still is");
            }
        }
    }

    /// Nobody has confirmed it in time.
    fn take_back(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<()> {
        self.until = None;
        let back = match &self.confirmed {
            None => {
                eprintln!("stockade: nobody has confirmed the policy");
                None
            }
            // Where even that fails the fence goes: whoever cannot confirm may be locked out.
            Some(rules) => match session.reload(rules, &mut |event| output.event(event)) {
                Ok(()) => session.fence().zip(Some(rules)),
                Err(e) => {
                    super::report(&e.into());
                    eprintln!("stockade: the policy that was confirmed cannot come back");
                    None
                }
            },
        };
        if let Some((fence, rules)) = back {
            let what = "nobody has confirmed the policy, and the one before is back";
            announce_fence(what, fence);
            self.now = rules.clone();
        } else {
            session.unpin()?;
            eprintln!("stockade: the fence is taken down");
            self.ended = true;
        }
        Ok(())
    }
}

impl Follower for Enforcement {
    fn is_done(&mut self, session: &mut Session, output: &mut Output) -> stockade::Result<bool> {
        let asked = self.reread.asked();
        if asked.confirm {
            self.confirm(session, output)?;
        }
        if asked.read {
            self.reload(session, output);
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.take_back(session, output)?;
        }
        if output.is_closed() && !self.closed {
            self.closed = true;
            eprintln!("stockade: events can no longer be written; the fence stands");
        }
        Ok(self.stop.asked() || self.ended)
    }
}
