//! A sensor from all sides: processes that join and leave while it runs, a subscription in another thread, counters by
//! process, the last events, the programs in the kernel.
//!
//! ```sh
//! cargo build --example inspect --no-default-features
//! sudo target/debug/examples/inspect
//! ```

use std::process::{Command, ExitCode};
use std::time::Duration;

use stockade::launch::Held;
use stockade::{Error, Monitor, Scope, Sensor};

fn main() -> ExitCode {
    inspect().unwrap_or_else(|e| {
        eprintln!("inspect: {e}");
        ExitCode::from(e.kind().exit_code())
    })
}

fn inspect() -> Result<ExitCode, Error> {
    let mut sensor = Sensor::builder()
        // Nobody yet.
        .scope(Scope::new().added_later())
        .monitor(Monitor::Process)
        .monitor(Monitor::File)
        .recent(5)
        .counters()
        .count_runs()
        .build();
    let execs = sensor.subscribe(&["exec"], 100)?;
    let report = sensor.attach()?;
    println!(
        "{} probes, {} unavailable",
        report.probes.len(),
        report.unavailable().count()
    );
    let listener = std::thread::spawn(move || {
        for event in execs {
            println!("a thread heard: {event}");
        }
    });

    // Both wait before their exec, so nothing of them can be missed.
    let (watched, released) = (held("watched")?, held("released")?);
    sensor.add_tree(watched.pid())?;
    sensor.add_tree(released.pid())?;
    sensor.remove_tree(released.pid())?;
    for held in [watched, released] {
        let mut child = held.release()?.expect("sh can be executed");
        while let Ok(None) = child.try_wait() {
            sensor.poll(Duration::from_millis(50), |_| ())?;
        }
    }
    sensor.poll(Duration::from_millis(50), |_| ())?;

    for counters in sensor.processes() {
        println!(
            "pid {} ({}): {} events, {} of files, ended: {}",
            counters.process.id.pid,
            counters.process.comm,
            counters.events,
            counters.files,
            counters.ended
        );
    }
    println!("{} recent events", sensor.recent().len());
    for program in sensor.programs()? {
        println!(
            "program {} ran {} times in {} ns",
            program.name, program.runs, program.time_ns
        );
    }
    println!("{} events so far", sensor.statistics()?.events);
    let certificate = sensor.stop(|_| ())?;
    // The subscription ends with the sensor.
    listener.join().expect("it does not panic");
    println!("complete: {}", certificate.is_complete());
    Ok(ExitCode::SUCCESS)
}

fn held(name: &str) -> Result<Held, Error> {
    let mut command = Command::new("sh");
    command.args(["-c", "cat /etc/passwd > /dev/null; true", name]);
    Held::spawn(command)
}
