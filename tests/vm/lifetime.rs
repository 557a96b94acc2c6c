//! When the fence stands and when it does not; exit codes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::fence::text;
use crate::harness::{
    Ctx, Ended, Needs, Outcome, Process, Stockade, Test, doctor, number, poll, stockade,
};
use crate::mounts::must;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "doctor_says_what_this_kernel_can_do",
        Needs::Fence,
        examined,
    ),
    Test::new(
        "deny_path_that_does_not_exist_ends_with_1_before_the_command",
        Needs::Nothing,
        missing_path,
    ),
    Test::new(
        "what_cannot_be_guarded_ends_with_1_and_leaves_no_program_behind",
        Needs::Watch,
        unguardable,
    ),
    Test::new(
        "fence_stands_until_the_last_process_of_the_command_has_ended",
        Needs::Fence,
        survivors,
    ),
    Test::new("status_of_the_command_is_passed_on", Needs::Watch, statuses),
    Test::new(
        "deny_exit_code_wins_when_something_was_denied",
        Needs::Fence,
        deny_exit_code,
    ),
    Test::new("audit_mode_lets_through_and_reports", Needs::Fence, audit),
    Test::new(
        "fence_goes_when_its_program_is_killed",
        Needs::Fence,
        killed,
    ),
    Test::new(
        "fence_that_no_longer_holds_ends_its_command",
        Needs::Fence,
        tampered,
    ),
    Test::new(
        "sigint_and_sigterm_end_cleanly",
        Needs::Fence,
        ended_politely,
    ),
];

fn examined(ctx: &Ctx) -> Outcome {
    let found = doctor(&ctx.bin);
    assert_eq!(found["can_watch"], true, "{found:#}");
    assert_eq!(found["can_fence"], true, "{found:#}");
    assert_eq!(
        found["fence"]["mechanism"],
        ctx.mechanism.as_str(),
        "{found:#}"
    );
    let identity = if ctx.has_lsm() { "tag+key" } else { "key" };
    assert_eq!(found["fence"]["identity"], identity, "{found:#}");
    let unattached: Vec<_> = found["probes"]
        .as_array()
        .expect("probes")
        .iter()
        .filter(|p| p["state"] == "unavailable")
        .collect();
    assert!(unattached.is_empty(), "{unattached:#?}");
    Outcome::Passed
}

/// Takes every fence of this machine down from outside, as who has all rights can.
fn take_down() {
    use libbpf_rs::{MapCore as _, MapFlags, MapHandle, query::MapInfoIter};

    let armed = MapInfoIter::default().filter(|map| map.name.to_string_lossy() == "stk_armed_at");
    let mut taken = 0;
    for id in armed.map(|map| map.id) {
        // One of a fence that is ending may have gone.
        let Ok(map) = MapHandle::from_map_id(id) else {
            continue;
        };
        let size = usize::try_from(map.value_size()).unwrap();
        map.update(&[0; 4], &vec![0; size], MapFlags::ANY).unwrap();
        taken += 1;
    }
    assert!(taken > 0, "there is no fence");
}

fn tampered(ctx: &Ctx) -> Outcome {
    let (secret, began) = (ctx.path("secret"), ctx.path("began"));
    fs::write(&secret, "secret").unwrap();
    let run = |every: &'static str, command: &str| {
        let begin = format!("echo > {}; {command}", text(&began));
        let fixed = ["run", "--format", "json", "--monitor", "process"];
        let words = fixed.into_iter().chain(["--prove-every", every]);
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.extend(["--deny-file", text(&secret), "--", "sh", "-c", &begin].map(str::to_owned));
        Stockade::start(ctx, words)
    };

    // It is asked again and again, and goes on.
    let ended = run("50ms", "sleep 1; cat secret").wait();
    let proofs = |ended: &Ended| number(&ended.complete()["stockade.fence"], "canary_proofs");
    assert_eq!((ended.code, proofs(&ended) > 8), (1, true), "{ended:?}");
    assert_eq!(ended.of("denial").count(), 1, "{ended:?}");
    let ended = run("0s", "sleep 1").wait();
    assert_eq!((ended.code, proofs(&ended) <= 2), (0, true), "{ended:?}");

    fs::remove_file(&began).unwrap();
    let started = run("200ms", "sleep 1000 & sleep 1000");
    poll("the command", || began.exists().then_some(()));
    take_down();
    let ended = started.wait();
    assert_eq!(ended.code, 40, "{ended:?}");
    let sentence = "the fence no longer holds: the canary was not refused";
    assert!(ended.stderr.contains(sentence), "{ended:?}");
    let end = ended.events.last().expect("an end record");
    let told = end["stockade.incomplete_reasons"].to_string();
    assert!(told.contains(sentence), "{end}");
    // Nothing of it goes on outside.
    for event in ended.of("exec") {
        let pid = number(event, "process.pid");
        let left = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(left.is_empty(), "{}", String::from_utf8_lossy(&left));
    }
    Outcome::Passed
}

/// How many BPF programs the kernel holds.
fn programs() -> usize {
    libbpf_rs::query::ProgInfoIter::default().count()
}

fn unguardable(ctx: &Ctx) -> Outcome {
    let marker = ctx.path("marker");
    let directory = ctx.path("directory");
    fs::create_dir(&directory).unwrap();
    let before = programs();
    for (path, says) in [
        (text(&directory), "is a directory"),
        ("/proc/sys/kernel/core_pattern", "another mount of proc"),
    ] {
        let ended = stockade(
            ctx,
            ["run", "--deny-file", path, "--", "touch", text(&marker)],
        );
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert!(ended.stderr.contains(path), "{}", ended.stderr);
    }
    assert!(!marker.exists(), "the command has run");
    // The kernel frees programs a moment after their last user.
    poll("the programs to go", || {
        (programs() <= before).then_some(())
    });
    Outcome::Passed
}

/// The fence of `run` ended with the command's first process, and what that had left running went on without one.
fn survivors(ctx: &Ctx) -> Outcome {
    let (secret, out) = (ctx.path("secret"), ctx.path("out"));
    fs::write(&secret, "secret").unwrap();
    let late = format!(
        "(while [ -d /proc/$$ ]; do :; done; cat {} >{} 2>&1) & exit 5",
        text(&secret),
        text(&out)
    );
    let ended = stockade(
        ctx,
        [
            "run",
            "--format",
            "json",
            "--deny-file",
            text(&secret),
            "--",
            "sh",
            "-c",
            &late,
        ],
    );
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert_eq!(ended.of("denial").count(), 1, "{}", ended.stderr);
    let said = fs::read_to_string(&out).unwrap();
    assert!(said.contains("not permitted"), "{said}");
    Outcome::Passed
}

fn missing_path(ctx: &Ctx) -> Outcome {
    let (here, missing, marker) = (ctx.path("here"), ctx.path("missing"), ctx.path("marker"));
    fs::write(&here, "here").unwrap();
    let ended = stockade(
        ctx,
        [
            "run",
            "--deny-file",
            text(&here),
            "--deny-file",
            text(&missing),
            "--",
            "touch",
            text(&marker),
        ],
    );
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains(text(&missing)),
        "the path is not named: {}",
        ended.stderr
    );
    assert!(!marker.exists(), "the command has run");
    assert_eq!(fs::read(&here).unwrap(), b"here");
    Outcome::Passed
}

fn statuses(ctx: &Ctx) -> Outcome {
    let run = |command: &[&str]| {
        let mut args = vec!["run", "--monitor", "process", "--format", "json", "--"];
        args.extend_from_slice(command);
        stockade(ctx, args)
    };
    let three = run(&["sh", "-c", "exit 3"]);
    assert_eq!(three.code, 3, "{}", three.stderr);
    assert_eq!(
        three.of("exit").last().expect("an exit")["process.exit_code"],
        3
    );
    let killed = run(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 128 + 9, "{}", killed.stderr);
    let exit = killed.of("exit").last().expect("an exit");
    assert_eq!(exit["stockade.signal"], 9, "{exit}");
    assert!(exit.get("process.exit_code").is_none(), "{exit}");
    let missing = run(&["/no/such/command"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    for ended in [three, killed, missing] {
        ended.complete();
    }
    Outcome::Passed
}

fn deny_exit_code(ctx: &Ctx) -> Outcome {
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let run = |command: &str| {
        stockade(
            ctx,
            [
                "run",
                "--format",
                "json",
                "--monitor",
                "process",
                "--deny-exit-code",
                "77",
                "--deny-file",
                text(&secret),
                "--",
                "sh",
                "-c",
                command,
            ],
        )
    };
    let denied = run("cat secret; exit 0");
    assert_eq!(denied.code, 77, "{}", denied.stderr);
    assert!(
        denied.stderr.contains("Operation not permitted"),
        "{}",
        denied.stderr
    );
    assert_eq!(run("exit 5").code, 5);
    Outcome::Passed
}

fn audit(ctx: &Ctx) -> Outcome {
    let (secret, copy) = (ctx.path("secret"), ctx.path("copy"));
    fs::write(&secret, "secret").unwrap();
    let ended = stockade(
        ctx,
        [
            "run",
            "--audit",
            "--format",
            "json",
            "--monitor",
            "process",
            "--deny-exit-code",
            "77",
            "--deny-file",
            text(&secret),
            "--",
            "cp",
            text(&secret),
            text(&copy),
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(fs::read(&copy).unwrap(), b"secret");
    let denial = ended
        .of("denial")
        .next()
        .expect("what would have been refused");
    assert_eq!(denial["stockade.verdict"], "audit");
    assert_eq!(denial["event.outcome"], "success");
    assert_eq!(denial["file.path"], text(&secret));
    assert_eq!(ended.complete()["stockade.fence"]["mode"], "audit");
    Outcome::Passed
}

/// A shell inside the fence that reads the file whenever it is asked to.
struct Reader {
    shell: Process,
    secret: PathBuf,
    /// The FIFO that the shell reads, open at both ends: neither side waits for the other to open it, and the shell never
    /// sees its end.
    ask: File,
    answers: PathBuf,
}

const READ_WHEN_ASKED: &str = "while read -r line; do \
     if read -r text <\"$2\"; then echo yes; else echo no; fi >>\"$3\" 2>/dev/null; done <\"$1\"";

impl Reader {
    fn new(ctx: &Ctx, name: &str) -> Reader {
        let at = |what: &str| ctx.path(&format!("{name}-{what}"));
        let (secret, ask, answers) = (at("secret"), at("ask"), at("answers"));
        fs::write(&secret, "secret\n").unwrap();
        fs::write(&answers, "").unwrap();
        must("mkfifo", &[text(&ask)]);
        let both = File::options().read(true).write(true).open(&ask);
        let shell = Process(
            Command::new("/bin/sh")
                .args([
                    "-c",
                    READ_WHEN_ASKED,
                    "sh",
                    text(&ask),
                    text(&secret),
                    text(&answers),
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        Reader {
            shell,
            secret,
            ask: both.unwrap(),
            answers,
        }
    }

    /// A fence around this shell.
    fn enforce(&self, ctx: &Ctx) -> Stockade {
        let pid = self.shell.pid().to_string();
        let mut enforce = Stockade::start(
            ctx,
            [
                "enforce",
                "--format",
                "json",
                "--deny-file",
                text(&self.secret),
                "--tree",
                &pid,
            ],
        );
        enforce.until_stderr("fence armed");
        enforce
    }

    /// Whether the shell can read the file.
    fn can_read(&self) -> bool {
        let before = fs::read_to_string(&self.answers).unwrap().lines().count();
        (&self.ask).write_all(b"?\n").unwrap();
        poll("the shell's answer", || {
            let answers = fs::read_to_string(&self.answers).unwrap();
            let line = answers.lines().nth(before)?;
            answers.ends_with('\n').then_some(line == "yes")
        })
    }
}

fn killed(ctx: &Ctx) -> Outcome {
    let reader = Reader::new(ctx, "kill");
    assert!(reader.can_read(), "it can be read before there is a fence");
    let mut enforce = reader.enforce(ctx);
    assert!(!reader.can_read(), "the fence does not stand");
    assert_eq!(
        fs::read(&reader.secret).unwrap(),
        b"secret\n",
        "from outside"
    );
    enforce.process.signal(Signal::KILL);
    assert_eq!(enforce.process.wait(), 128 + 9);
    poll("the end of the fence", || reader.can_read().then_some(()));
    Outcome::Passed
}

fn ended_politely(ctx: &Ctx) -> Outcome {
    for (name, signal) in [("int", Signal::INT), ("term", Signal::TERM)] {
        let reader = Reader::new(ctx, name);
        let enforce = reader.enforce(ctx);
        assert!(!reader.can_read(), "the fence does not stand");
        enforce.process.signal(signal);
        let ended = enforce.wait();
        assert_eq!(ended.code, 0, "{name}: {}", ended.stderr);
        assert_eq!(ended.of("denial").count(), 1, "{name}: {:?}", ended.events);
        assert_eq!(ended.complete()["stockade.denials"], 1);
        poll("the end of the fence", || reader.can_read().then_some(()));
    }
    Outcome::Passed
}
