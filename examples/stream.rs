//! Events as an asynchronous stream, here on tokio: runs a command and prints what it starts, with a time limit.
//!
//! ```sh
//! cargo build --example stream --no-default-features --features stream
//! sudo target/debug/examples/stream sh -c 'ls | wc -l'
//! ```

use std::process::{Command, ExitCode};
use std::time::Duration;

use futures_util::StreamExt as _;
use stockade::launch::Held;
use stockade::{Error, Monitor, Scope, Sensor};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: stream COMMAND [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(words);
    watch(command).await.unwrap_or_else(|e| {
        eprintln!("stream: {e}");
        ExitCode::from(e.kind().exit_code())
    })
}

async fn watch(command: Command) -> Result<ExitCode, Error> {
    let held = Held::spawn(command)?;
    let mut sensor = Sensor::builder()
        .scope(Scope::new().tree(held.pid()))
        .monitor(Monitor::Process)
        .build();
    sensor.attach()?;
    let mut events = sensor.into_stream(1024)?;
    let mut child = match held.release()? {
        Ok(child) => child,
        Err(e) => {
            eprintln!("stream: the command cannot be executed: {e}");
            return Ok(ExitCode::from(127));
        }
    };

    let mut running = true;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => println!("{}", event?),
                None => break,
            },
            _ = tick.tick(), if running => {
                if child.try_wait().is_ok_and(|status| status.is_some()) {
                    running = false;
                    // What had arrived by now still comes, then the stream ends.
                    events.stopper().stop();
                }
            }
        }
    }
    let certificate = events.finish()?;
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
