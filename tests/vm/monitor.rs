//! What the monitors report, held against what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, stockade, word};
use crate::helper::{Step, arguments, results, step};
use crate::mounts::bind;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "thousand_commands_are_each_reported_once",
        Needs::Watch,
        thousand_commands,
    ),
    Test::new(
        "processes_that_crowd_one_cpu_are_each_reported_once",
        Needs::Watch,
        crowded_cpu,
    ),
    Test::new(
        "files_that_a_crowd_on_one_cpu_opens_are_each_reported_once",
        Needs::Watch,
        crowded_files,
    ),
    Test::new(
        "tool_that_shares_a_crowded_cpu_holds_no_program_back",
        Needs::Watch,
        crowded_with_the_tool,
    ),
    Test::new(
        "execs_forks_and_exits_are_those_that_strace_sees",
        Needs::Watch,
        strace,
    ),
    Test::new(
        "long_arguments_are_cut_and_the_cut_is_reported",
        Needs::Watch,
        long_arguments,
    ),
    Test::new(
        "exec_of_a_script_names_script_and_interpreter",
        Needs::Watch,
        script,
    ),
    Test::new(
        "cpu_time_and_memory_of_an_exit_are_those_of_wait4",
        Needs::Watch,
        usage,
    ),
    Test::new(
        "file_events_have_results_and_host_paths",
        Needs::Watch,
        files,
    ),
    Test::new(
        "syscalls_are_counted_as_strace_counts_them",
        Needs::Watch,
        syscall_counts,
    ),
    Test::new(
        "chosen_syscalls_come_with_arguments_and_result",
        Needs::Watch,
        chosen_syscalls,
    ),
    Test::new(
        "events_say_who_it_was_when_the_process_is_gone",
        Needs::Watch,
        who,
    ),
    Test::new(
        "names_of_files_cannot_forge_a_line",
        Needs::Watch,
        forged_lines,
    ),
];

/// `stockade run` of a command, watched by one monitor.
fn watched(ctx: &Ctx, monitor: &str, command: &[&str]) -> Ended {
    let mut args = vec!["run", "--monitor", monitor, "--format", "json", "--"];
    args.extend_from_slice(command);
    let ended = stockade(ctx, args);
    if !ctx.host {
        ended.complete();
    }
    ended
}

/// The steps, watched by the file monitor, each with the events of its process and of this kind.
fn steps_with_events<'a>(
    ended: &'a Ended,
    out: &Path,
    action: &str,
) -> BTreeMap<String, (i32, Vec<&'a Value>)> {
    results(out)
        .1
        .into_iter()
        .map(|done| {
            let events = ended
                .events
                .iter()
                .filter(|e| e["event.action"] == action && e["process.pid"] == done.pid)
                .collect();
            (done.label, (done.errno, events))
        })
        .collect()
}

/// Events of one process in the order they happened.
fn in_order(events: &[Value]) -> Vec<&Value> {
    let mut all: Vec<&Value> = events
        .iter()
        .filter(|e| e.get("process.pid").is_some())
        .collect();
    all.sort_by(|a, b| word(a, "@timestamp").cmp(word(b, "@timestamp")));
    all
}

/// A program that does nothing but end. /bin/true takes the loader 80 ms on an emulated machine.
fn nothing(ctx: &Ctx) -> PathBuf {
    let path = ctx.path("nothing");
    if cfg!(target_arch = "x86_64") {
        let mut elf: Vec<u8> = Vec::new();
        // The ELF header: 64 bits, little endian, executable, x86_64, entry 0x400078.
        elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        elf.extend(b"\x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0");
        elf.extend(b"\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
        // One segment, readable and executable: the whole file at 0x400000.
        elf.extend(b"\x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0");
        elf.extend(b"\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0");
        elf.extend(b"\x81\0\0\0\0\0\0\0\x81\0\0\0\0\0\0\0");
        elf.extend(b"\0\x10\0\0\0\0\0\0");
        // exit(0)
        elf.extend(b"\xb8\x3c\0\0\0\x31\xff\x0f\x05");
        fs::write(&path, elf).unwrap();
    } else {
        fs::copy("/bin/true", &path).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const LOOP: &str = "i=0; while [ $i -lt 1000 ]; do \"$1\"; i=$((i+1)); done";

/// What was reported of each process, in order.
fn lives(events: &[Value]) -> BTreeMap<&str, Vec<&str>> {
    let mut lives: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in in_order(events) {
        let action = word(event, "event.action");
        let whose = match action {
            "fork" => "stockade.child.entity_id",
            "exec" | "exit" => "process.entity_id",
            _ => continue,
        };
        lives.entry(word(event, whose)).or_default().push(action);
    }
    lives
}

fn thousand_commands(ctx: &Ctx) -> Outcome {
    let program = nothing(ctx);
    let ended = watched(ctx, "process", &["sh", "-c", LOOP, "sh", text(&program)]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut shell = BTreeSet::new();
    for event in &ended.events {
        match word(event, "event.action") {
            "fork" => {
                assert_eq!(
                    event["stockade.child.parent.pid"], event["process.pid"],
                    "{event}"
                );
                shell.insert(word(event, "process.entity_id"));
            }
            "exec" if Path::new(word(event, "process.executable")) == program => {
                assert_eq!(
                    event["process.args"],
                    serde_json::json!([text(&program)]),
                    "{event}"
                );
                shell.insert(word(event, "process.parent.entity_id"));
            }
            "exit" => assert_eq!(event["process.exit_code"], 0, "{event}"),
            _ => {}
        }
    }
    assert_eq!(shell.len(), 1, "more than one parent: {shell:?}");
    let mut lives = lives(&ended.events);
    assert_eq!(
        lives.remove(shell.first().expect("the shell")),
        Some(vec!["exec", "exit"])
    );
    assert_eq!(lives.len(), 1000);
    let odd: Vec<_> = lives
        .iter()
        .filter(|(_, life)| **life != ["fork", "exec", "exit"])
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    Outcome::Passed
}

/// Eight loops of so many rounds, to be run by a shell with the program that they start as its argument.
fn crowd(rounds: usize) -> String {
    format!(
        "for n in 1 2 3 4 5 6 7 8; do sh -c '{}' sh \"$1\" & done; wait",
        LOOP.replace("1000", &rounds.to_string())
    )
}

/// The lives of the crowd's processes: the loops, and what they started.
fn lives_of_crowd(rounds: usize) -> (Vec<&'static str>, usize) {
    (vec!["fork", "exec", "exit"], 8 + 8 * rounds)
}

/// So many times a process was seen to live like this.
fn kinds_of_lives(events: &[Value]) -> BTreeMap<Vec<&str>, usize> {
    let mut kinds: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    for life in lives(events).into_values() {
        *kinds.entry(life).or_default() += 1;
    }
    kinds
}

/// Loops that take one CPU from each other: programs are preempted in the midst of a report, where they can be.
fn crowded_cpu(ctx: &Ctx) -> Outcome {
    let program = nothing(ctx);
    const ROUNDS: usize = 100;
    let crowd = crowd(ROUNDS);
    let command = [
        "taskset",
        "-c",
        "0",
        "sh",
        "-c",
        &crowd,
        "sh",
        text(&program),
    ];
    let ended = watched(ctx, "process", &command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    // taskset becomes the outer shell.
    let expected = BTreeMap::from([(vec!["exec", "exec", "exit"], 1), lives_of_crowd(ROUNDS)]);
    assert_eq!(kinds_of_lives(&ended.events), expected);
    Outcome::Passed
}

/// Programs of the file monitor, likewise: on a kernel that preempts them much is skipped (docs/KERNELS.md), but never
/// without being counted.
fn crowded_files(ctx: &Ctx) -> Outcome {
    const OPENS: u64 = 1000;
    let crowd = format!(
        "for n in 1 2 3 4 5 6 7 8; do
            {{ : >$n; i=0; while [ $i -lt {OPENS} ]; do : <$n; i=$((i + 1)); done; }} &
        done; wait"
    );
    let dir = ctx.path("crowd");
    fs::create_dir(&dir).expect("a directory");
    let options = ["--file", "--path", text(&dir), "--format", "json"];
    let shell = ["sh", "-c", "cd $0; eval $1", text(&dir), &crowd];
    let command = ["--", "taskset", "-c", "0"].iter().chain(&shell);
    let ended = stockade(ctx, ["run"].iter().chain(&options).chain(command));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut opens: BTreeMap<&str, u64> = BTreeMap::new();
    for event in ended.of("open") {
        *opens.entry(word(event, "file.path")).or_default() += 1;
    }
    // Making it was a create.
    assert!(opens.values().all(|n| *n <= OPENS), "{opens:?}");
    let missing = 8 * OPENS - opens.values().sum::<u64>();
    let end = ended.events.last().expect("an end record");
    if ctx.host {
        // No table knows whether it preempts what it can be watched by.
        let skipped = number(end, "stockade.skipped_programs");
        assert!(missing <= skipped, "{missing} are missing: {end}");
    } else {
        assert_eq!(end["stockade.complete"], true, "{end}");
        assert_eq!(missing, 0, "{end}");
    }
    Outcome::Passed
}

/// The same on the CPU of the tool, which reads counters all the time: a system call on a map that is preempted would
/// keep the kernel from running programs for the others.
fn crowded_with_the_tool(ctx: &Ctx) -> Outcome {
    let program = nothing(ctx);
    // Enough to last for several intervals: a VM takes ten seconds for what a fast machine does in a fifth of one.
    let rounds = if ctx.host { 1000 } else { 100 };
    let before = sched_getaffinity(None).expect("our CPUs");
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).expect("the first CPU");
    let args = [
        "run",
        "--process",
        "--syscall=summary",
        "--interval",
        "0.1",
        "--format",
        "json",
        "--",
    ];
    let command = ["sh", "-c", &crowd(rounds), "sh", text(&program)];
    let started = Stockade::start(ctx, args.iter().chain(&command));
    sched_setaffinity(None, &before).expect("our CPUs again");
    let ended = started.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    let looks: BTreeSet<u64> = ended
        .of("syscall_summary")
        .map(|e| number(e, "stockade.window_ns"))
        .collect();
    assert!(
        looks.len() >= 2,
        "the counters were read {} times",
        looks.len()
    );
    let expected = BTreeMap::from([(vec!["exec", "exit"], 1), lives_of_crowd(rounds)]);
    assert_eq!(kinds_of_lives(&ended.events), expected);
    Outcome::Passed
}

/// What strace(1) noted, per process and in order: `exec PATH`, `fork CHILD`, `exit CODE`.
fn ground_truth(trace: &str) -> BTreeMap<u64, Vec<String>> {
    let mut all: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut begun: BTreeMap<u64, String> = BTreeMap::new();
    for line in trace.lines() {
        let (pid, rest) = line.split_once(' ').expect("strace -f begins with the pid");
        let pid: u64 = pid.parse().expect("a pid");
        let rest = rest.trim_start();
        let life = all.entry(pid).or_default();
        if let Some(code) = rest.strip_prefix("+++ exited with ") {
            life.push(format!("exit {}", code.trim_end_matches(" +++")));
            continue;
        }
        if let Some(call) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, call.to_owned());
            continue;
        }
        let Some((call, result)) = rest.rsplit_once(" = ") else {
            continue;
        };
        let call = if call.starts_with("<... ") {
            begun.remove(&pid).unwrap_or_default()
        } else {
            call.to_owned()
        };
        let Ok(result) = result.split(' ').next().unwrap_or_default().parse::<u64>() else {
            continue;
        };
        if let Some(args) = call.strip_prefix("execve(\"") {
            let path = args.split('"').next().unwrap_or_default();
            let path = fs::canonicalize(path).expect("what was executed");
            life.push(format!("exec {}", text(&path)));
        } else if call.starts_with("clone") || call.starts_with("fork") || call.starts_with("vfork")
        {
            life.push(format!("fork {result}"));
        }
    }
    all
}

/// Why a test that holds us against this program cannot run.
pub(crate) fn lacks(program: &str) -> Option<String> {
    let missing = Command::new(program).arg("-V").output().is_err();
    missing.then(|| format!("{program} is not installed: scripts/setup.sh vm"))
}

fn strace(ctx: &Ctx) -> Outcome {
    if let Some(why) = lacks("strace") {
        return Outcome::Skipped(why);
    }
    let trace = ctx.path("trace");
    let script =
        "i=0; while [ $i -lt 60 ]; do /bin/true; /bin/false; (exit 7); i=$((i+1)); done; exit 4";
    let ended = watched(
        ctx,
        "process",
        &[
            "strace",
            "-f",
            "-q",
            "-e",
            "trace=execve,clone,clone3,fork,vfork",
            "-e",
            "signal=none",
            "-o",
            text(&trace),
            "sh",
            "-c",
            script,
        ],
    );
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    let truth = ground_truth(&fs::read_to_string(&trace).unwrap());
    assert!(truth.len() == 181, "strace saw {} processes", truth.len());
    let mut seen: BTreeMap<u64, Vec<String>> = truth.keys().map(|pid| (*pid, Vec::new())).collect();
    let mut strangers = Vec::new();
    for event in in_order(&ended.events) {
        let what = match word(event, "event.action") {
            "exec" => format!("exec {}", word(event, "process.executable")),
            "fork" => format!("fork {}", number(event, "stockade.child.pid")),
            "exit" => format!("exit {}", event["process.exit_code"]),
            _ => continue,
        };
        match seen.get_mut(&number(event, "process.pid")) {
            Some(life) => life.push(what),
            // strace itself and what it tries out before it starts.
            None => strangers.push(what),
        }
    }
    let wrong: Vec<_> = truth
        .iter()
        .filter(|(pid, life)| seen[pid] != **life)
        .map(|(pid, life)| format!("{pid}: strace {life:?}, stockade {:?}", seen[pid]))
        .collect();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    assert!(
        !strangers
            .iter()
            .any(|s| s.ends_with("/true") || s.ends_with("/false")),
        "{strangers:?}"
    );
    Outcome::Passed
}

fn long_arguments(ctx: &Ctx) -> Outcome {
    let long = "x".repeat(100 << 10);
    let ended = watched(ctx, "process", &["/bin/true", "first", &long, "last"]);
    let exec = ended.of("exec").next().expect("an exec");
    let args = exec["process.args"].as_array().expect("arguments");
    let bytes: usize = args
        .iter()
        .map(|a| a.as_str().expect("text").len() + 1)
        .sum();
    assert_eq!(exec["stockade.args_truncated"], true);
    // The one that was cut has no NUL.
    assert!(
        bytes <= (32 << 10) + 1 && bytes > (32 << 10) - 16,
        "{bytes} bytes of arguments"
    );
    assert_eq!(args[..2], ["/bin/true", "first"]);
    assert_eq!(
        number(exec, "stockade.args_bytes"),
        (100 << 10) + 10 + 6 + 1 + 5
    );
    // One that fits is whole.
    let fits = "y".repeat(30 << 10);
    let ended = watched(ctx, "process", &["/bin/true", &fits, "tail of it"]);
    let exec = ended.of("exec").next().expect("an exec");
    assert_eq!(
        exec["process.args"],
        serde_json::json!(["/bin/true", fits, "tail of it"])
    );
    assert!(exec.get("stockade.args_truncated").is_none());
    Outcome::Passed
}

fn script(ctx: &Ctx) -> Outcome {
    let script = ctx.path("script");
    fs::write(&script, "#!/bin/sh -e\nexit 6\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = watched(ctx, "process", &[text(&script), "argument"]);
    assert_eq!(ended.code, 6);
    let exec = ended.of("exec").next().expect("an exec");
    assert_eq!(exec["stockade.script"], text(&script));
    assert_eq!(exec["stockade.interpreter"], "/bin/sh");
    assert_eq!(
        exec["process.executable"],
        text(&fs::canonicalize("/bin/sh").unwrap())
    );
    assert_eq!(
        exec["process.args"],
        serde_json::json!(["/bin/sh", "-e", text(&script), "argument"])
    );
    assert_eq!(exec["process.working_directory"], text(&ctx.dir));
    Outcome::Passed
}

fn usage(ctx: &Ctx) -> Outcome {
    let (out, noted) = (ctx.path("results"), ctx.path("usage"));
    let mut command = vec![text(&ctx.helper).to_owned()];
    command.extend(arguments(&out, &[step("burn", &[&"burn", &noted])]));
    let ended = watched(
        ctx,
        "process",
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let noted: Vec<u64> = fs::read_to_string(&noted)
        .unwrap()
        .split(' ')
        .map(|w| w.parse().expect("a number"))
        .collect();
    let exit = ended
        .of("exit")
        .find(|e| number(e, "process.pid") == noted[0])
        .expect("the exit of the child");
    for (key, truth, slack) in [
        // What the kernel spends on the exit itself is in wait4's figure alone.
        ("stockade.cpu.user_ns", noted[1], 20_000_000),
        ("stockade.cpu.system_ns", noted[2], 20_000_000),
        ("stockade.max_rss_bytes", noted[3], 2 << 20),
    ] {
        let seen = number(exit, key);
        assert!(
            seen.abs_diff(truth) <= slack + truth / 10,
            "{key} is {seen}, wait4 says {truth}: {exit}"
        );
    }
    assert!(
        noted[1] + noted[2] > 100_000_000,
        "nothing was burnt: {noted:?}"
    );
    assert!(noted[3] > 48 << 20, "no memory was used: {noted:?}");
    Outcome::Passed
}

fn helped(ctx: &Ctx, out: &Path, steps: &[Step]) -> Ended {
    let mut command = vec![text(&ctx.helper).to_owned()];
    command.extend(arguments(out, steps));
    let ended = watched(
        ctx,
        "file",
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

fn files(ctx: &Ctx) -> Outcome {
    let out = ctx.path("results");
    let file = ctx.path("file");
    fs::write(&file, "file").unwrap();
    for gone in ["gone", "gone-bound"] {
        fs::write(ctx.path(gone), "").unwrap();
    }
    let (jail, bound) = (ctx.path("jail"), ctx.path("bound"));
    fs::create_dir(&jail).unwrap();
    fs::create_dir(&bound).unwrap();
    for name in ["inside", "old"] {
        fs::write(jail.join(name), name).unwrap();
    }
    let _bound = bind(&jail, &bound);
    fs::write(bound.join("gone"), "").unwrap();
    let mut deep = ctx.dir.clone();
    for _ in 0..70 {
        deep.push("d");
    }
    // More components than the kernel half walks.
    let mut deeper = deep.clone();
    for _ in 0..230 {
        deeper.push("d");
    }
    fs::create_dir_all(&deeper).unwrap();
    fs::write(deep.join("leaf"), "").unwrap();
    fs::write(deeper.join("leaf"), "").unwrap();
    std::os::unix::fs::symlink("file", ctx.path("sym")).unwrap();

    let steps = [
        step("plain", &[&"open", &file]),
        step("write", &[&"open-trunc", &file]),
        step("missing", &[&"open", &ctx.path("missing")]),
        step("symlink", &[&"open", &ctx.path("sym")]),
        step("relative", &[&"open", &"jail/../file"]),
        step("bound", &[&"open", &bound.join("inside")]),
        step("chroot", &[&"chroot-open", &jail, &"/inside"]),
        step("deep", &[&"open", &deep.join("leaf")]),
        step("deeper", &[&"open", &deeper.join("leaf")]),
        step("io_uring", &[&"uring", &file]),
        step("openat2", &[&"openat2", &file]),
        step("unlink", &[&"unlink", &ctx.path("gone")]),
        step("unlink bound", &[&"unlink", &bound.join("gone")]),
        step("unlink missing", &[&"unlink", &ctx.path("missing")]),
        step(
            "rename chroot",
            &[&"chroot-rename", &jail, &"/old", &"/new"],
        ),
        step(
            "rename over",
            &[&"rename-over", &ctx.path("gone-bound"), &file],
        ),
        step(
            "rename missing",
            &[&"rename-over", &ctx.path("missing"), &file],
        ),
    ];
    let inode = fs::metadata(&file).unwrap().ino().to_string();
    let moved = fs::metadata(ctx.path("gone-bound"))
        .unwrap()
        .ino()
        .to_string();
    let ended = helped(ctx, &out, &steps);
    // Where the kernel lets nobody look into its functions, system calls are watched: the caller's own words, no
    // identities, nothing of what io_uring does. On the kernels of the table that may not happen.
    let end = ended.events.last().expect("an end record");
    assert_eq!(end["event.action"], "end", "{end}");
    let weak = end["stockade.probes"]
        .as_array()
        .expect("probes")
        .iter()
        .filter(|p| p["state"] != "unavailable")
        .filter(|p| word(p, "name").starts_with("file."))
        .any(|p| {
            let variant = word(p, "variant");
            !variant.starts_with("fexit") && variant != "session"
        });
    assert!(ctx.host || !weak, "{end:#}");
    // Who looks at system calls alone cannot vouch for the whole picture, and says so.
    assert_eq!(end["stockade.complete"], !weak, "{end:#}");
    let mut wrong = Vec::new();

    let opens = steps_with_events(&ended, &out, "open");
    let expected: [(&str, PathBuf, &str); 11] = [
        ("plain", file.clone(), "O_RDONLY"),
        ("write", file.clone(), "O_TRUNC"),
        ("missing", ctx.path("missing"), "O_RDONLY"),
        ("symlink", file.clone(), "O_RDONLY"),
        ("relative", file.clone(), "O_RDONLY"),
        ("bound", bound.join("inside"), "O_RDONLY"),
        ("chroot", jail.join("inside"), "O_RDONLY"),
        ("deep", deep.join("leaf"), "O_RDONLY"),
        ("deeper", deeper.join("leaf"), "O_RDONLY"),
        ("io_uring", file.clone(), "O_RDONLY"),
        ("openat2", file.clone(), "O_RDONLY"),
    ];
    for (label, path, flag) in expected {
        if weak && label == "io_uring" {
            continue;
        }
        let (errno, events) = &opens[label];
        let [event] = events[..] else {
            wrong.push(format!("{label}: {} events: {events:?}", events.len()));
            continue;
        };
        let failed = label == "missing";
        let cut = label == "deeper";
        let seen = Path::new(word(event, "file.path"));
        let path_right = if weak && event["stockade.path_as_given"] == true {
            seen.file_name() == path.file_name()
        } else if cut {
            // The last 256 components.
            event["stockade.path_truncated"] == true
                && seen.is_relative()
                && path.ends_with(seen)
                && seen.components().count() >= 250
        } else {
            event.get("stockade.path_truncated").is_none() && seen == path
        };
        let right = path_right
            && (*errno == libc::ENOENT) == failed
            && event["event.outcome"] == if failed { "failure" } else { "success" }
            && event.get("error.code").and_then(Value::as_str) == failed.then_some("ENOENT")
            && event["stockade.open.flags"]
                .as_array()
                .is_some_and(|f| f.iter().any(|f| f == flag))
            && (weak || path != file || event["file.inode"] == inode.as_str());
        if !right {
            wrong.push(format!(
                "{label} (errno {errno}): {path:?} expected: {event}"
            ));
        }
    }

    let unlinks = steps_with_events(&ended, &out, "unlink");
    for (label, path, code) in [
        ("unlink", ctx.path("gone"), None),
        ("unlink bound", bound.join("gone"), None),
        ("unlink missing", ctx.path("missing"), Some("ENOENT")),
    ] {
        let (_, events) = &unlinks[label];
        // A name that is not there has no dentry the hook could have seen.
        if code.is_some() && events.is_empty() {
            continue;
        }
        let [event] = events[..] else {
            wrong.push(format!("{label}: {} events: {events:?}", events.len()));
            continue;
        };
        if Path::new(word(event, "file.path")) != path
            || event.get("error.code").and_then(Value::as_str) != code
        {
            wrong.push(format!("{label}: {event}"));
        }
    }

    let renames = steps_with_events(&ended, &out, "rename");
    for (label, old, new, replaced) in [
        ("rename chroot", jail.join("old"), jail.join("new"), None),
        (
            "rename over",
            ctx.path("gone-bound"),
            file.clone(),
            Some(inode.as_str()),
        ),
    ] {
        let (_, events) = &renames[label];
        let [event] = events[..] else {
            wrong.push(format!("{label}: {} events: {events:?}", events.len()));
            continue;
        };
        let seen = |key: &str| Path::new(word(event, key));
        if weak {
            if seen("file.path").file_name() != new.file_name()
                || event["stockade.path_as_given"] != true
            {
                wrong.push(format!("{label}: {event}"));
            }
            continue;
        }
        let right = seen("file.path") == new
            && seen("stockade.old_path") == old
            && event["event.outcome"] == "success"
            && event.get("stockade.replaced.inode").and_then(Value::as_str) == replaced
            && (replaced.is_none() || event["file.inode"] == moved.as_str());
        if !right {
            wrong.push(format!("{label}: {event}"));
        }
    }
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}

fn forged_lines(ctx: &Ctx) -> Outcome {
    use std::os::unix::ffi::OsStrExt as _;
    let name = b"a\n{\"event.action\":\"denial\"}\x1b[31m\xff\\";
    let path = ctx.dir.join(std::ffi::OsStr::from_bytes(name));
    fs::write(&path, "").unwrap();
    let escaped = "a\\n{\"event.action\":\"denial\"}\\x1b[31m\\xff\\\\";
    for format in ["json", "text"] {
        let out = Command::new(&ctx.bin)
            .args(["run", "--monitor", "file", "--format", format, "--", "cat"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let lines: Vec<&[u8]> = out
            .stdout
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .collect();
        assert!(
            lines.iter().all(|l| !l.iter().any(u8::is_ascii_control)),
            "a control character came through"
        );
        if format == "json" {
            let events: Vec<Value> = lines
                .iter()
                .map(|l| serde_json::from_slice(l).expect("a line of JSON"))
                .collect();
            assert!(events.iter().all(|e| e["event.action"] != "denial"));
            let expected = format!("{}/{escaped}", text(&ctx.dir));
            assert!(
                events
                    .iter()
                    .any(|e| e["event.action"] == "open" && e["file.path"] == expected.as_str()),
                "no open of {expected}"
            );
        } else {
            assert!(
                lines.iter().all(|l| !l.starts_with(b"{")),
                "a line was forged: {}",
                String::from_utf8_lossy(&out.stdout)
            );
        }
    }
    Outcome::Passed
}

/// The table of `strace -c`: calls and errors by name.
fn strace_counts(table: &str) -> BTreeMap<String, (u64, u64)> {
    let rows = table.lines().skip_while(|l| !l.starts_with("---")).skip(1);
    rows.take_while(|l| !l.starts_with("---"))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| words[i].parse().expect("a number");
            let errors = if words.len() == 6 { number(4) } else { 0 };
            let name = (*words.last().expect("a name")).to_owned();
            (name, (number(3), errors))
        })
        .collect()
}

fn syscall_counts(ctx: &Ctx) -> Outcome {
    if let Some(why) = lacks("strace") {
        return Outcome::Skipped(why);
    }
    let table = ctx.path("counts");
    // What the loader and the shell do varies; these calls come from the command's own lines alone.
    let script = "for n in 1 2 3 4 5; do mkdir d$n; done; rmdir d1 d2 d3 nothing; ln -s a l; mkdir d4; rm -r d4 d5 l";
    let command = format!("cd '{}' && {{ {script}; }} 2>errors", text(&ctx.path("")));
    let (counted, flag) = (["mkdir", "rmdir", "symlinkat", "unlinkat"], text(&table));
    let ended = watched(
        ctx,
        "syscall",
        &["strace", "-f", "-c", "-o", flag, "sh", "-c", &command],
    );
    let truth = strace_counts(&fs::read_to_string(&table).unwrap());
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for event in ended.of("syscall_summary") {
        let sum = sums
            .entry(word(event, "stockade.syscall.name").to_owned())
            .or_default();
        sum.0 += number(event, "stockade.syscall.calls");
        sum.1 += number(event, "stockade.syscall.errors");
        let returns = !word(event, "stockade.syscall.name").starts_with("exit");
        assert_eq!(
            number(event, "stockade.syscall.time_ns") > 0,
            returns,
            "{event}"
        );
    }
    for name in counted {
        assert!(truth.contains_key(name), "{name} is not in {truth:?}");
        assert_eq!(sums.get(name), truth.get(name), "{name}");
    }
    Outcome::Passed
}

fn chosen_syscalls(ctx: &Ctx) -> Outcome {
    let missing = ctx.path("missing");
    let ended = stockade(
        ctx,
        [
            "run",
            "--syscalls",
            "rmdir,mkdir",
            "--format",
            "json",
            "--",
            "sh",
            "-c",
            "mkdir \"$1\"; rmdir \"$1\"; rmdir \"$1\"; true",
            "sh",
            text(&missing),
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    let calls: Vec<(&str, i64)> = ended
        .of("syscall")
        .map(|e| {
            let result = e["stockade.syscall.result"].as_i64().expect("a result");
            assert_eq!(
                e["event.outcome"],
                if result == 0 { "success" } else { "failure" },
                "{e}"
            );
            assert!(number(e, "event.duration") > 0, "{e}");
            assert_eq!(e["stockade.syscall.args"].as_array().map(Vec::len), Some(6));
            (word(e, "stockade.syscall.name"), result)
        })
        .collect();
    assert_eq!(calls, [("mkdir", 0), ("rmdir", 0), ("rmdir", -2)]);
    let modes: Vec<&Value> = ended
        .of("syscall")
        .filter(|e| e["stockade.syscall.name"] == "mkdir")
        .map(|e| &e["stockade.syscall.args"][1])
        .collect();
    assert_eq!(modes, ["0x1ff"]);
    Outcome::Passed
}

fn who(ctx: &Ctx) -> Outcome {
    let (file, record) = (ctx.path("file"), ctx.path("certificate"));
    fs::write(&file, "text").unwrap();
    let ended = stockade(
        ctx,
        [
            "run",
            "--monitor",
            "file",
            "--format",
            "json",
            "--certificate",
            text(&record),
            "--",
            "sh",
            "-c",
            "cat \"$1\" >/dev/null; (: <\"$1\")",
            "sh",
            text(&file),
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let executables: Vec<&str> = ended
        .of("open")
        .filter(|e| e["file.path"] == text(&file))
        .map(|e| {
            assert_eq!(e["user.name"], "root", "{e}");
            assert_eq!(e["user.group.name"], "root", "{e}");
            word(e, "process.executable")
        })
        .collect();
    // The second one is a child of the shell that has executed nothing of its own.
    let real = |name: &str| fs::canonicalize(name).unwrap();
    let expected = [real("/usr/bin/cat"), real("/bin/sh")];
    assert_eq!(executables, expected.each_ref().map(|p| text(p)));
    assert_eq!(
        ended.of("exec").chain(ended.of("fork")).count(),
        0,
        "nobody asked for processes"
    );

    let certificate: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    assert_eq!(Some(&certificate), ended.events.last());
    let kinds = certificate["stockade.kinds"].as_array().unwrap();
    let seen: u64 = kinds.iter().map(|k| number(k, "seen")).sum();
    assert_eq!(seen, number(&certificate, "stockade.events"));
    Outcome::Passed
}
