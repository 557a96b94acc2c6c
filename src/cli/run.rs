//! `stockade run`: a command inside a fence, or just watched.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use stockade::kill::Kill;
use stockade::launch::Held;
use stockade::{Scope, Session, Watch};

use super::monitor::{Follower, follow};
use super::output::Output;
use super::stop::Stop;
use super::watch::{WatchArgs, watches};
use super::{IntakeArgs, Outcome, OutputArgs, PolicyArgs};

/// Run a command inside a fence, or just watched
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade run -- make                                    what does this build do?
  stockade run --syscall -- make                          which system calls, how often, how long?
  stockade run --deny-file ~/.ssh/id_ed25519 -- npm install
  stockade run --policy build.policy.yaml --deny-exit-code 3 -- make

The command starts only when everything is attached and the fence has refused an access of our own; else the exit
code is 40 and nothing has run. The fence stands until the last process of the command has ended. Events go to stdout between the command's own output; --output keeps them apart.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// What to watch: a monitor, a monitor in another form (syscall=events), or all; processes and files when none is
    /// named
    #[arg(long = "monitor", value_name = "KIND", value_parser = watches, help_heading = "Watching")]
    monitors: Vec<Vec<Watch>>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Exit with this code when something was refused, whatever the command's own code
    #[arg(long, value_name = "N", help_heading = "Options")]
    deny_exit_code: Option<u8>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    intake: IntakeArgs,
    /// The command and its arguments
    #[arg(
        last = true,
        required = true,
        value_name = "COMMAND",
        help_heading = "Arguments"
    )]
    command: Vec<OsString>,
}

pub(super) fn main(args: RunArgs) -> Outcome {
    let stop = Stop::listen()?;
    let rules = args.policy.rules()?;
    let mut words = args.command.iter();
    let program = words.next().context("there is no command")?;
    let mut command = Command::new(program);
    command.args(words);
    let held = Held::spawn(command)?;

    let mut builder = args.policy.apply(Session::builder().command(&held));
    builder = args
        .watch
        .apply(&args.monitors, args.intake.apply(builder))?;
    if let Some(rules) = rules {
        builder = builder.policy(rules);
    }
    // On failure `held` is dropped: the command has not run.
    let (session, output) = Output::begin(&args.output, builder)?;

    let mut child = match held.release()? {
        Ok(child) => child,
        Err(e) => {
            eprintln!(
                "stockade: {} cannot be executed: {e}",
                program.to_string_lossy()
            );
            follow(session, output, &mut |_: &mut Session, _: &mut Output| {
                Ok(true)
            })?;
            return Ok(if e.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    let mut run = Run {
        fenced: session.fence().is_some(),
        ..Run::watched(&mut child, &stop)
    };
    let denied = follow(session, output, &mut run)?;
    let ended = run.ended;
    if let (true, Some(code)) = (denied > 0, args.deny_exit_code) {
        return Ok(code);
    }
    Ok(ended.map_or(1, code_of))
}

/// A command on its way.
pub(super) struct Run<'a> {
    child: &'a mut Child,
    stop: &'a Stop,
    fenced: bool,
    /// Requests to end that were passed on.
    told: u32,
    ended: Option<ExitStatus>,
    /// The command has ended and others of its tree have not: requests to end by then.
    waiting: Option<u32>,
}

impl<'a> Run<'a> {
    /// A command without a fence.
    pub(super) fn watched(child: &'a mut Child, stop: &'a Stop) -> Self {
        Run {
            child,
            stop,
            fenced: false,
            told: 0,
            ended: None,
            waiting: None,
        }
    }

    /// A watched command is over when it has ended; a fenced one when nobody is left inside the fence, because the
    /// fence ends with this program.
    pub(super) fn is_over(&mut self, session: &Session) -> stockade::Result<bool> {
        if self.ended.is_none() {
            self.forward();
            match self.child.try_wait() {
                Ok(None) => return Ok(false),
                Ok(status) => self.ended = status,
                // Somebody else has waited for it; there is no more to see.
                Err(_) => return Ok(true),
            }
        }
        if !self.fenced {
            return Ok(true);
        }
        let left = session.followed()?;
        if left == 0 {
            return Ok(true);
        }
        match self.waiting {
            None => {
                self.waiting = Some(self.stop.times());
                Ok(false)
            }
            Some(before) if self.stop.times() > before => {
                eprintln!("stockade: {left} processes go on without a fence");
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    /// Ends the command with all that it has started.
    fn end(&mut self) {
        let tree = Scope::new().tree(self.child.id());
        let ended = Kill::new(tree).grace(Duration::ZERO).run(|| false);
        if !ended.is_ok_and(|report| report.all_gone()) {
            // The child is ours and not waited for.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// Passes a request to end on to the command: politely at first, for good at last. The first Ctrl-C at a terminal
    /// has reached the command already.
    fn forward(&mut self) {
        let times = self.stop.times();
        while self.told < times {
            self.told += 1;
            match self.told {
                1 if io::stdin().is_terminal() => {}
                1 | 2 => {
                    let pid = i32::try_from(self.child.id())
                        .ok()
                        .and_then(rustix::process::Pid::from_raw);
                    if let Some(pid) = pid {
                        // The child is ours and not waited for, so the pid is its own.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                }
                _ => {
                    let _ = self.child.kill();
                }
            }
        }
    }
}

impl Follower for Run<'_> {
    fn is_done(&mut self, session: &mut Session, _: &mut Output) -> stockade::Result<bool> {
        self.is_over(session)
    }

    /// The fence goes with the session: what was to run inside must not go on outside.
    fn give_up(&mut self) {
        if self.fenced && self.ended.is_none() {
            self.end();
        } else if self.fenced {
            eprintln!(
                "stockade: what the command has left behind, if anything, goes on without a fence"
            );
        }
    }
}

/// As a shell has it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    // Exit codes have eight bits, and 128 + 64 signals fit.
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
