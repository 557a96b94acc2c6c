//! What is recorded while it happens, and replayed afterwards.

use std::fs;
use std::process::Command;

use crate::fence::text;
use crate::harness::{Ctx, Needs, Outcome, Test, stockade, word};

pub(crate) const TESTS: &[Test] = &[
    Test::new("recording_replays_as_it_was", Needs::Watch, replays),
    Test::new(
        "recording_that_cannot_be_made_ends_with_40_before_the_command",
        Needs::Watch,
        unwritable,
    ),
    Test::new(
        "kinds_that_nobody_wants_are_left_out_in_the_kernel",
        Needs::Watch,
        kinds,
    ),
];

/// Something of everything that is watched, and little of it.
const WORK: &str =
    "exec 3>kept; echo one >&3; mv kept moved; rm moved; cat /nowhere 2>/dev/null; (exit 3)";

fn replays(ctx: &Ctx) -> Outcome {
    let file = ctx.path("work.stk");
    let before = stockade(
        ctx,
        [
            "run",
            "--process",
            "--file",
            "--network",
            "--memory",
            "--format",
            "json",
            "--record",
            text(&file),
            "--",
            "sh",
            "-c",
            WORK,
        ],
    );
    assert_eq!(before.code, 3, "{}", before.stderr);
    for kind in ["exec", "fork", "exit", "open", "memory_summary", "end"] {
        assert!(before.of(kind).next().is_some(), "there is no {kind}");
    }
    let after = stockade(ctx, ["replay", text(&file), "--format", "json"]);
    assert_eq!(after.code, 0, "{}", after.stderr);
    assert_eq!(after.events, before.events);

    // Where they are asked for, they become the corpus of tests/replay.rs (scripts/fixtures.sh).
    if let Some(dir) = std::env::var_os("STOCKADE_FIXTURES") {
        let dir = std::path::PathBuf::from(dir);
        fs::copy(&file, dir.join("work.stk")).expect("a copy of the recording");
        let output = Command::new(&ctx.bin)
            .args(["replay", text(&file), "--format", "json"])
            .output()
            .expect("the program under test can be started");
        fs::write(dir.join("work.jsonl"), output.stdout).expect("its events");
    }
    Outcome::Passed
}

fn unwritable(ctx: &Ctx) -> Outcome {
    let ended = stockade(
        ctx,
        [
            "run",
            "--record",
            "/proc/nothing.stk",
            "--",
            "touch",
            "started",
        ],
    );
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("the recording /proc/nothing.stk cannot be written"),
        "{}",
        ended.stderr
    );
    assert!(!ctx.path("started").exists());
    Outcome::Passed
}

/// A recording holds what the ring delivered, wanted or not.
fn kinds(ctx: &Ctx) -> Outcome {
    let file = ctx.path("kinds.stk");
    let opens = "i=0; while [ $i -lt 500 ]; do : </dev/null; i=$((i+1)); done; : >gone; rm gone";
    let args = ["run", "--format", "json", "--events", "exec,unlink"];
    let args = args.into_iter().chain(["--record", text(&file)]);
    let ended = stockade(ctx, args.chain(["--", "sh", "-c", opens]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut seen: Vec<&str> = ended
        .events
        .iter()
        .map(|e| word(e, "event.action"))
        .collect();
    seen.dedup();
    // The shell, and rm with what it did; what the shell created is not among them.
    assert_eq!(seen, ["exec", "unlink", "end"], "{:#?}", ended.events);
    assert_eq!(ended.of("exec").count(), 2);
    let end = ended.of("end").next().expect("an end record");
    assert_eq!(end["stockade.losses"], serde_json::json!([]), "{end}");
    // Nobody else pays for what nobody asked for.
    let of_files: Vec<&str> = end["stockade.probes"]
        .as_array()
        .expect("probes")
        .iter()
        .map(|probe| word(probe, "name"))
        .filter(|name| name.starts_with("file."))
        .collect();
    assert_eq!(of_files, ["file.unlink"]);
    let len = fs::metadata(&file).expect("the recording").len();
    assert!(len < 30_000, "{len} bytes: 500 opens are in it");
    let after = stockade(ctx, ["replay", text(&file), "--format", "json"]);
    assert_eq!(after.events, ended.events);
    for (args, what) in [
        (["--events", "opens"], "events of the kind \"opens\""),
        (
            ["--process", "--events=connect"],
            "has events of the kind \"connect\"",
        ),
    ] {
        let refused = stockade(ctx, ["run"].iter().chain(&args).chain(&["--", "true"]));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    Outcome::Passed
}
