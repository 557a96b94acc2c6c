//! `stockade run`: a command inside a fence, or just watched.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};

use anyhow::Context as _;
use clap::Args;
use stockade::launch::Held;
use stockade::{Monitor, Scope, Session};

use super::monitor::follow;
use super::output::{Output, announce};
use super::stop::Stop;
use super::{Outcome, OutputArgs, PolicyArgs};

/// Run a command inside a fence, or just watched
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stockade run -- make                                    what does this build do?
  stockade run --deny-file ~/.ssh/id_ed25519 -- npm install
  stockade run --policy build.policy.yaml --deny-exit-code 3 -- make

The command starts only when everything is attached and the fence has refused an access of our own; else the exit
code is 40 and nothing has run. Events go to stdout between the command's own output; --output keeps them apart.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// What to watch; everything when none is named
    #[arg(long = "monitor", value_name = "KIND", value_parser = super::monitor_kind)]
    monitors: Vec<Monitor>,
    /// Exit with this code when something was refused, whatever the command's own code
    #[arg(long, value_name = "N")]
    deny_exit_code: Option<u8>,
    #[command(flatten)]
    output: OutputArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn main(args: RunArgs) -> Outcome {
    let stop = Stop::listen()?;
    let rules = args.policy.rules()?;
    let mut words = args.command.iter();
    let program = words.next().context("there is no command")?;
    let mut command = Command::new(program);
    command.args(words);
    let file = Output::open(&args.output)?;
    let held = Held::spawn(command)?;

    let mut builder = Session::builder()
        .scope(Scope::new().tree(held.pid()))
        .ring_bytes(args.output.ring_bytes());
    let kinds = if args.monitors.is_empty() {
        Monitor::ALL
    } else {
        &args.monitors
    };
    for &kind in kinds {
        builder = builder.monitor(kind);
    }
    if let Some(rules) = rules {
        builder = builder.policy(rules);
    }
    // On failure `held` is dropped: the command has not run.
    let session = builder.start()?;
    let mut output = Output::new(args.output.format, file, &session);
    announce(&session);
    output.header();
    output.flush();

    let mut child = match held.release()? {
        Ok(child) => child,
        Err(e) => {
            eprintln!(
                "stockade: {} cannot be executed: {e}",
                program.to_string_lossy()
            );
            follow(session, output, |_| true)?;
            return Ok(if e.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    let mut ended = None;
    let mut told = 0;
    let denied = follow(session, output, |_| {
        forward(&stop, &mut told, &mut child);
        match child.try_wait() {
            Ok(None) => false,
            Ok(status) => {
                ended = status;
                true
            }
            // Somebody else has waited for it; there is no more to see.
            Err(_) => true,
        }
    })?;
    if let (true, Some(code)) = (denied > 0, args.deny_exit_code) {
        return Ok(code);
    }
    Ok(ended.map_or(1, code_of))
}

/// Passes a request to end on to the command: politely at first, for good at last. The first Ctrl-C at a terminal has
/// reached the command already.
fn forward(stop: &Stop, told: &mut u32, child: &mut Child) {
    let times = stop.times();
    while *told < times {
        *told += 1;
        match *told {
            1 if io::stdin().is_terminal() => {}
            1 | 2 => {
                if let Some(pid) = i32::try_from(child.id())
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                {
                    // The child is ours and not waited for, so the pid is its own.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
            }
            _ => {
                let _ = child.kill();
            }
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
