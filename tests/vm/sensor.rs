//! The library from outside: its examples, and a sensor inside this program.

use std::collections::BTreeSet;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::Stream as _;
use stockade::{Event, Monitor, Scope, Sensor};

use crate::harness::{Ctx, Needs, Outcome, Test, poll};
use crate::variants::running;

pub(crate) const TESTS: &[Test] = &[
    Test::new("examples_do_what_they_say", Needs::Watch, examples),
    Test::new(
        "sensor_in_a_thread_follows_whom_it_is_told_to_and_stops",
        Needs::Watch,
        in_a_thread,
    ),
    Test::new(
        "sensor_that_is_dropped_leaves_no_program_behind_and_nobody_waiting",
        Needs::Watch,
        dropped,
    ),
    Test::new(
        "stream_ends_complete_and_a_dropped_one_goes_at_once",
        Needs::Watch,
        stream,
    ),
];

/// Runs an example; its lines on stdout.
fn example(ctx: &Ctx, name: &str, args: &[&str]) -> Vec<String> {
    let program = ctx.bin.with_file_name(format!("example-{name}"));
    let done = Command::new(&program)
        .args(args)
        .output()
        .expect("the example is there");
    assert!(
        done.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

fn examples(ctx: &Ctx) -> Outcome {
    for name in ["watch", "stream"] {
        let lines = example(ctx, name, &["sh", "-c", "cat /dev/null; true"]);
        let count = |kind: &str, what: &str| {
            lines
                .iter()
                .filter(|l| l.starts_with(kind) && l.contains(what))
                .count()
        };
        assert_eq!(
            count("exec ", "args=[cat /dev/null]"),
            1,
            "{name}: {lines:#?}"
        );
        assert_eq!(
            (count("fork ", ""), count("exit ", "code=0")),
            (1, 2),
            "{name}: {lines:#?}"
        );
    }
    let lines = example(ctx, "inspect", &[]);
    let has = |what: &str| lines.iter().any(|l| l.contains(what));
    assert!(
        has("a thread heard: exec") && has("[cat /etc/passwd]"),
        "{lines:#?}"
    );
    assert!(has(" watched]") && !has(" released]"), "{lines:#?}");
    assert!(has("5 recent events") && has("(cat): "), "{lines:#?}");
    let ran = lines
        .iter()
        .find(|l| l.starts_with("program process_exec"))
        .unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(
        !ran.contains("ran 0 times") && !ran.contains(" in 0 ns"),
        "{ran}"
    );
    Outcome::Passed
}

fn true_of(sensor: &mut Sensor, follow: bool) -> u32 {
    let held = stockade::launch::Held::spawn(Command::new("true")).expect("a process");
    let pid = held.pid();
    if follow {
        sensor.add_pid(pid).expect("it runs");
    }
    let mut child = held.release().expect("it waits").expect("it is executed");
    poll("the process to end", || {
        child.try_wait().expect("a child of ours")
    });
    pid
}

fn in_a_thread(_: &Ctx) -> Outcome {
    let mut sensor = Sensor::builder()
        .scope(Scope::new().added_later())
        .monitor(Monitor::Process)
        .build();
    let heard = sensor
        .subscribe(&["exec", "exit"], 16)
        .expect("there are such kinds");
    sensor.attach().expect("the process monitor");
    let followed = true_of(&mut sensor, true);
    let ignored = true_of(&mut sensor, false);
    let stopper = sensor.stopper();
    let driver = thread::spawn(move || {
        let seen: Vec<Event> = sensor
            .events()
            .map(|event| event.expect("the ring can be read"))
            .collect();
        (seen, sensor)
    });
    // Nobody else has the processes' events: they come through the thread.
    let exec = heard.next_within(Duration::from_secs(60)).expect("an exec");
    let exit = heard.next_within(Duration::from_secs(60)).expect("an exit");
    assert_eq!((exec.kind.name(), exit.kind.name()), ("exec", "exit"));
    assert_eq!(
        (exec.process.id.pid, exit.process.id.pid),
        (followed, followed)
    );
    let asked = Instant::now();
    stopper.stop();
    let (seen, sensor) = driver.join().expect("it does not panic");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        asked.elapsed()
    );
    assert!(seen.iter().all(|e| e.process.id.pid != ignored), "{seen:?}");
    let certificate = sensor
        .stop(|event| panic!("after the end: {event}"))
        .expect("an end record");
    assert!(
        certificate.is_complete(),
        "{:?}",
        certificate.incomplete_reasons
    );
    assert_eq!(certificate.events, seen.len() as u64);
    Outcome::Passed
}

/// The numbers of a sensor's programs in the kernel.
fn programs(sensor: &Sensor) -> BTreeSet<u32> {
    let programs = sensor.programs().expect("it is attached");
    programs.iter().map(|program| program.id).collect()
}

/// Which of these programs the kernel still has.
fn left(programs: &BTreeSet<u32>) -> usize {
    let there = libbpf_rs::query::ProgInfoIter::default();
    there
        .filter(|program| programs.contains(&program.id))
        .count()
}

fn dropped(_: &Ctx) -> Outcome {
    let mut sensor = Sensor::builder()
        .scope(Scope::new().host())
        .monitor(Monitor::Process)
        .monitor(Monitor::File)
        .build();
    let report = sensor.attach().expect("process and file monitor");
    assert!(sensor.attach().is_err(), "attached twice");
    let on_functions = report.probes.iter();
    let on_functions = on_functions
        .filter(|probe| {
            probe
                .variant
                .as_deref()
                .is_some_and(|v| v.starts_with("fexit"))
        })
        .count();
    let programs = programs(&sensor);
    assert!(left(&programs) == programs.len() && !programs.is_empty());
    let begun = Instant::now();
    drop(sensor);
    let dropped = begun.elapsed();
    // The kernel frees programs a moment after their last user.
    poll("the programs to go", || {
        (left(&programs) == 0).then_some(())
    });
    let gone = begun.elapsed();
    // A grace period for each of them. On other programs the kernel does not wait, and there is nothing to tell apart; and
    // there are kernels where whoever gives up a bpffs lets go of what is in it, see src/kernel/attached.rs.
    if on_functions > 0 && running() != (6, 1) {
        assert!(dropped * 2 < gone, "waited {dropped:?} of {gone:?}");
    }
    Outcome::Passed
}

/// Wakes the thread that waits.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest runtime: this thread sleeps until somebody wakes it.
fn next(stream: &mut stockade::sensor::EventStream) -> Option<stockade::Result<Event>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut next = std::pin::pin!(poll_fn(|context| Pin::new(&mut *stream).poll_next(context)));
    loop {
        match next.as_mut().poll(&mut context) {
            Poll::Ready(event) => return event,
            Poll::Pending => thread::park_timeout(Duration::from_secs(60)),
        }
    }
}

fn stream(_: &Ctx) -> Outcome {
    let start = |waiting| {
        let mut sensor = Sensor::builder()
            .scope(Scope::new().added_later())
            .monitor(Monitor::Process)
            .build();
        sensor.attach().expect("the process monitor");
        let pid = true_of(&mut sensor, true);
        let programs = programs(&sensor);
        (
            pid,
            programs,
            sensor.into_stream(waiting).expect("a stream"),
        )
    };
    let (pid, _, mut events) = start(100);
    let mut kinds = Vec::new();
    while let Some(event) = next(&mut events) {
        let event = event.expect("the ring can be read");
        assert_eq!(event.process.id.pid, pid, "{event}");
        kinds.push(event.kind.name());
        if kinds.last() == Some(&"exit") {
            events.stopper().stop();
        }
    }
    assert_eq!(kinds, ["exec", "exit"]);
    let certificate = events.finish().expect("an end record");
    assert!(
        certificate.is_complete(),
        "{:?}",
        certificate.incomplete_reasons
    );

    // Room for one: the thread waits with the second when the stream goes.
    let (_, programs, mut events) = start(1);
    next(&mut events)
        .expect("an exec")
        .expect("the ring can be read");
    let asked = Instant::now();
    drop(events);
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        asked.elapsed()
    );
    poll("the programs to go", || {
        (left(&programs) == 0).then_some(())
    });
    Outcome::Passed
}
