//! What is recorded while it happens, and replayed afterwards.

use std::fs;
use std::process::Command;

use crate::fence::text;
use crate::harness::{Ctx, Needs, Outcome, Test, stockade};

pub(crate) const TESTS: &[Test] = &[
    Test::new("recording_replays_as_it_was", Needs::Watch, replays),
    Test::new(
        "recording_that_cannot_be_made_ends_with_40_before_the_command",
        Needs::Watch,
        unwritable,
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
