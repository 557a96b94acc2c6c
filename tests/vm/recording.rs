//! What is recorded while it happens, and replayed afterwards.

use std::fs;
use std::process::Command;

use crate::fence::text;
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, number, stockade, word};
use crate::helper::{results, step};
use crate::places::{policy_of, under};

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
    Test::new(
        "why_names_the_rule_and_the_smallest_change_that_allows_it",
        Needs::Fence,
        why,
    ),
];

/// Something of everything that is watched, and little of it.
const WORK: &str =
    "exec 3>kept; echo one >&3; mv kept moved; rm moved; cat /nowhere 2>/dev/null; (exit 3)";

fn why(ctx: &Ctx) -> Outcome {
    let [one, two, three, dir] = ["one", "two", "three", "dir"].map(|name| ctx.path(name));
    fs::create_dir(&dir).unwrap();
    let (inside, beside) = (dir.join("inside"), ctx.path("beside"));
    for file in [&one, &two, &three, &inside] {
        fs::write(file, "text").unwrap();
    }
    // Another name of a file, which no rule has.
    fs::hard_link(&two, &beside).unwrap();
    let sections = format!(
        "\
files:
  - {{ id: names, deny: [read, write], paths: ['{}', '{}', '{}'] }}
  - {{ id: below, deny: all, paths: ['{}/**'] }}
network:
  - {{ id: net, deny: connect, to: ['127.0.0.1:4711', '127.0.0.1:4712'] }}
syscalls:
  - {{ id: calls, deny: [ptrace, mount] }}
",
        text(&one),
        text(&two),
        text(&three),
        text(&dir)
    );
    let policy = policy_of(ctx, &sections);
    let steps = [
        step("one", &[&"open", &one]),
        step("one again", &[&"open", &one]),
        step("link", &[&"open", &beside]),
        step("inside", &[&"open", &inside]),
        step("net", &[&"net", &"udp", &"127.0.0.1:4711"]),
        step("call", &[&"call", &"native", &"ptrace"]),
    ];
    let (out, file) = (ctx.path("results"), ctx.path("denials.stk"));
    let record = ["--record", text(&file)];
    let ended = stockade(ctx, under(&policy, &record, &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(results(&out).1.iter().all(|done| done.errno != 0));

    let words = ["why", "--policy", text(&policy), text(&file)];
    let told = stockade(ctx, words.into_iter().chain(["--format", "json"]));
    assert_eq!(told.code, 0, "{}", told.stderr);
    let expected = [
        (
            2,
            "names",
            4,
            format!("rule names (line 4): no longer name {}", text(&one)),
        ),
        // A rule that goes by the file, whatever it is called here.
        (
            1,
            "names",
            4,
            "rule names (line 4): no longer deny read".to_owned(),
        ),
        (
            1,
            "below",
            5,
            "rule below (line 5): no longer deny read".to_owned(),
        ),
        (
            1,
            "net",
            7,
            "rule net (line 7): no longer name 127.0.0.1:4711".to_owned(),
        ),
        (
            1,
            "calls",
            9,
            "rule calls (line 9): no longer name ptrace".to_owned(),
        ),
    ];
    assert_eq!(told.events.len(), expected.len(), "{:#?}", told.events);
    for (line, (count, rule, at, step)) in told.events.iter().zip(&expected) {
        assert_eq!(
            (number(line, "count"), number(line, "line")),
            (*count, *at),
            "{line}"
        );
        assert_eq!(word(line, "rule"), *rule, "{line}");
        assert_eq!(line["steps"][0], step.as_str(), "{line}");
        assert_eq!(line["steps"].as_array().map(Vec::len), Some(1), "{line}");
        assert!(
            !line["differences"].as_array().unwrap().is_empty(),
            "{line}"
        );
        let by = if *rule == "calls" {
            "seccomp"
        } else {
            &ctx.mechanism
        };
        assert_eq!(word(line, "mechanism"), by, "{line}");
    }

    let mut shown = Stockade::start(ctx, words);
    assert_eq!(shown.process.wait(), 0);
    let shown = fs::read_to_string(&shown.out).unwrap();
    for line in [
        format!("  to allow it: {}", expected[0].3),
        format!("    - {}: read,write deny -> allow (names)", text(&one)),
        format!("  refused by rule net (line 7), {}", ctx.mechanism),
        "5 different denials".to_owned(),
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}: {shown}");
    }
    // While it is being written there is no end yet; what there is, is told.
    let half = ctx.path("half.stk");
    let bytes = fs::read(&file).unwrap();
    fs::write(&half, &bytes[..bytes.len() - 10]).unwrap();
    let told = stockade(
        ctx,
        [
            "why",
            "--policy",
            text(&policy),
            "--format",
            "json",
            text(&half),
        ],
    );
    assert_eq!((told.code, told.events.len()), (1, 5), "{}", told.stderr);
    assert!(told.stderr.contains("has no end record"), "{}", told.stderr);
    Outcome::Passed
}

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
