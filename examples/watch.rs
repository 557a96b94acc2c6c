//! The library in use: runs a command and prints what it starts, until it ends.
//!
//! ```sh
//! cargo build --example watch --no-default-features
//! sudo target/debug/examples/watch sh -c 'ls | wc -l'
//! ```

use std::process::{Command, ExitCode};
use std::time::Duration;

use stockade::launch::Held;
use stockade::{Error, Monitor, Scope, Sensor};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: watch COMMAND [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(words);
    watch(command).unwrap_or_else(|e| {
        eprintln!("watch: {e}");
        if let Some(hint) = e.hint() {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(e.kind().exit_code())
    })
}

fn watch(command: Command) -> Result<ExitCode, Error> {
    // The process exists and waits before its exec: nothing of the command can be missed.
    let held = Held::spawn(command)?;
    let mut sensor = Sensor::builder()
        .scope(Scope::new().tree(held.pid()))
        .monitor(Monitor::Process)
        .build();
    for probe in sensor.attach()?.unavailable() {
        eprintln!("watch: {} is unavailable", probe.name);
    }
    let mut child = match held.release()? {
        Ok(child) => child,
        Err(e) => {
            eprintln!("watch: the command cannot be executed: {e}");
            return Ok(ExitCode::from(127));
        }
    };

    while let Ok(None) = child.try_wait() {
        sensor.poll(Duration::from_millis(50), |event| println!("{event}"))?;
    }
    // What was still under way comes out here, after everything is detached.
    let certificate = sensor.stop(|event| println!("{event}"))?;
    eprintln!(
        "{} events, {}",
        certificate.events,
        if certificate.is_complete() {
            "complete"
        } else {
            "incomplete"
        }
    );
    Ok(ExitCode::SUCCESS)
}
