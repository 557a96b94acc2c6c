//! Fences that outlive who has armed them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::bypass;
use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Needs, Outcome, Process, Stockade, Test, number, poll, stockade, word};
use crate::helper::{arguments, results, step};
use crate::mounts::{cgroup2, file_system, mount};
use crate::places::{policy_for, policy_named};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "pinned_fence_outlives_its_monitor_and_is_taken_over",
        Needs::Fence,
        taken_over,
    ),
    Test::new(
        "pinned_fence_holds_who_has_the_id_of_its_monitor",
        Needs::Fence,
        reused,
    ),
    Test::new(
        "what_cannot_be_pinned_ends_with_40_and_leaves_nothing",
        Needs::Fence,
        refused,
    ),
    Test::new(
        "policy_on_trial_is_pinned_when_it_is_confirmed",
        Needs::Fence,
        on_trial,
    ),
];

pub(crate) const ROOT: &str = "/sys/fs/bpf/stockade";
/// Such as a name in the bpf file system cannot be.
pub(crate) const NAME: &str = "server.1";
pub(crate) const PINNED: &str = "pinned as server.1: it stands without this program";
const PORT: u16 = 4713;

/// What `status` says of the fences of this name.
pub(crate) fn status(ctx: &Ctx, code: i32) -> Vec<Value> {
    let out = Command::new(&ctx.bin)
        .args(["status", "--json"])
        .output()
        .expect("the program under test can be started");
    assert_eq!(out.status.code(), Some(code), "{out:?}");
    let all: Vec<Value> = serde_json::from_slice(&out.stdout).expect("JSON");
    let ours = |fence: &Value| fence["policy"] == NAME;
    all.into_iter().filter(ours).collect()
}

/// The only one.
pub(crate) fn the_one(ctx: &Ctx) -> Value {
    let mut all = status(ctx, 0);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// How often each of its rules has refused.
fn hits(fence: &Value) -> Vec<(String, u64)> {
    let rules = fence["rules"].as_array().expect("rules").iter();
    rules
        .map(|rule| (word(rule, "id").to_owned(), number(rule, "hits")))
        .collect()
}

fn hit(id: &str, times: u64) -> (String, u64) {
    (id.to_owned(), times)
}

pub(crate) fn kill(started: Stockade) {
    started.process.signal(Signal::KILL);
    assert_eq!(started.wait().code, 128 + 9);
}

/// Fences that a failed test left would be in the way of the next one.
pub(crate) struct Unpinned<'a>(pub(crate) &'a Ctx);

impl Drop for Unpinned<'_> {
    fn drop(&mut self) {
        let _ = Command::new(&self.0.bin)
            .args(["unpin", "--all"])
            .stderr(Stdio::null())
            .status();
    }
}

pub(crate) fn nothing_is_left() {
    let left: Vec<_> = fs::read_dir(ROOT)
        .map(|all| all.flatten().collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

fn taken_over(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let (one, other) = (ctx.path("one"), ctx.path("other"));
    for file in [&one, &other] {
        fs::write(file, "text").unwrap();
    }
    let policy = ctx.path("policy.yaml");
    let deny = |id: &str, path: &Path| {
        policy_for(ctx, NAME, id, "all", path);
    };
    let (start, out) = (ctx.path("start"), ctx.path("results"));
    let go = |n: usize| ctx.path(&format!("go-{n}"));
    let ready = |n: usize| ctx.path(&format!("ready-{n}"));
    let udp = format!("127.0.0.1:{PORT}");
    let steps: Vec<_> = (0..6)
        .flat_map(|n| {
            [
                step("go", &[&"wait", &go(n)]),
                step(&format!("{n} one"), &[&"open", &one]),
                step(&format!("{n} other"), &[&"open", &other]),
                step(&format!("{n} udp"), &[&"net", &"udp", &udp]),
                step("ready", &[&"touch", &ready(n)]),
            ]
        })
        .collect();
    // Who is named ends at once, and what he has started is followed all the same.
    let script = "while ! [ -e \"$0\" ]; do sleep 0.05; done; \"$@\" & exit 0";
    let mut first = shell(
        script,
        text(&start),
        text(&ctx.helper),
        arguments(&out, &steps),
    );
    let second = shell("exec sleep 1000", "", "", Vec::new());
    let enforce = |tree: &Process| {
        let pid = tree.pid().to_string();
        let words = ["enforce", "--format", "json", "--fail-closed", "--policy"];
        let more = [text(&policy), "--tree", &pid];
        Stockade::start(ctx, words.into_iter().chain(more))
    };
    let mut tried = 0;
    let mut attempt = || {
        fs::write(go(tried), "").unwrap();
        poll("the helper", || ready(tried).exists().then_some(()));
        tried += 1;
    };

    deny("first", &one);
    let mut started = enforce(&first);
    started.until_stderr(PINNED);
    let fence = the_one(ctx);
    let monitor = u64::from(started.process.pid());
    assert_eq!(number(&fence, "monitor"), monitor, "{fence:#}");
    assert_eq!(fence["pinned"], NAME, "{fence:#}");
    assert_eq!(fence["mechanism"], ctx.mechanism.as_str(), "{fence:#}");
    assert_eq!(fence["scope"], format!("tree {}", first.pid()), "{fence:#}");
    assert_eq!(hits(&fence), [hit("first", 0)], "{fence:#}");
    fs::write(&start, "").unwrap();
    assert_eq!(first.wait(), 0);
    // One that is looked after is left alone.
    for command in [vec!["unpin", NAME], vec!["unpin", "--all"]] {
        let ended = stockade(ctx, &command);
        let named = command[1] == NAME;
        assert_eq!(ended.code, if named { 40 } else { 0 }, "{}", ended.stderr);
        let says = format!("is looked after by process {monitor}, which runs");
        assert_eq!(ended.stderr.contains(&says), named, "{}", ended.stderr);
    }
    let ended = enforce(&second).wait();
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    let says = format!("the fence {NAME} is looked after by process {monitor}");
    assert!(ended.stderr.contains(&says), "{}", ended.stderr);

    // It refuses and counts with nobody there.
    kill(started);
    attempt();
    let fence = the_one(ctx);
    assert_eq!(fence["monitor"], Value::Null, "{fence:#}");
    assert_eq!(hits(&fence), [hit("first", 1)], "{fence:#}");
    let shown = Command::new(&ctx.bin)
        .arg("status")
        .output()
        .unwrap()
        .stdout;
    let shown = String::from_utf8(shown).unwrap();
    let says =
        "nobody looks after it; armed by user 0; pinned as server.1\n         1  first (line 4)";
    assert!(shown.contains(says), "{shown}");

    // The next one says what was refused meanwhile, by which rule of the former policy, and follows whom that followed.
    deny("second", &other);
    let mut started = enforce(&second);
    started.until_stderr(PINNED);
    attempt();
    assert_eq!(hits(&the_one(ctx)), [hit("second", 1)]);
    // Hooks that a policy needs that comes later are pinned as well.
    let rule = format!("network:\n  - {{ id: third, deny: connect, to: ['{udp}'] }}");
    policy_named(ctx, NAME, &rule);
    started.until_stderr("policy read again");
    attempt();
    assert_eq!(hits(&the_one(ctx)), [hit("third", 1)]);
    poll("the denials", || {
        (denials(&started.events()).len() == 3).then_some(())
    });
    let events = started.events();
    kill(started);
    let told: Vec<&str> = events.iter().map(|e| word(e, "event.action")).collect();
    assert_eq!(
        told,
        ["gap", "denial", "denial", "reload", "denial"],
        "{events:#?}"
    );
    assert_eq!(events[0]["stockade.gap.fence"], NAME);
    assert_eq!(number(&events[0], "stockade.gap.denials"), 1);
    assert_eq!(number(&events[0], "stockade.gap.lost"), 0);
    assert!(number(&events[0], "stockade.gap.duration_ns") > 0);
    assert_eq!(denials(&events), ["first", "second", "third"]);
    let alone = &events[1];
    assert_eq!(number(alone, "stockade.rule.line"), 4, "{alone}");
    attempt();
    assert_eq!(hits(&the_one(ctx)), [hit("third", 2)]);

    // An end in good order leaves it as well; what nobody has read is there for the next one.
    deny("last", &one);
    let mut started = enforce(&second);
    started.until_stderr(PINNED);
    started.process.signal(Signal::TERM);
    let ended = started.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["pinned"], NAME, "{end}");
    assert_eq!(denials(&ended.events), ["third"]);
    attempt();

    // Taken down.
    let programs = |fence: &Value| fence["problems"].as_array().map(Vec::len);
    assert_eq!(programs(&the_one(ctx)), Some(0));
    assert_eq!(stockade(ctx, ["unpin", NAME]).code, 0);
    attempt();
    nothing_is_left();
    assert!(status(ctx, 0).is_empty());
    let ended = stockade(ctx, ["unpin", NAME]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("no fence is pinned as server.1"),
        "{}",
        ended.stderr
    );
    poll("the end of the helper", || {
        (results(&out).1.len() == 6 * 5).then_some(())
    });
    let (_, done) = results(&out);
    let errnos = |n: usize| -> Vec<i32> {
        let of = done
            .iter()
            .filter(|d| d.label.starts_with(&format!("{n} ")));
        of.map(|d| d.errno).collect()
    };
    let expected = [
        [EPERM, 0, 0],
        [0, EPERM, 0],
        [0, 0, EPERM],
        [0, 0, EPERM],
        [EPERM, 0, 0],
        [0, 0, 0],
    ];
    for (n, expected) in expected.iter().enumerate() {
        assert_eq!(errnos(n), expected, "{n}");
    }
    let told = events.iter().filter(|e| e["event.action"] == "denial");
    for (way, denial) in ["alone/killed", "alone/left", "alone/reloaded"]
        .iter()
        .zip(told)
    {
        bypass::observed(way, bypass::ANYWHERE, EPERM, Some(denial));
    }
    Outcome::Passed
}

fn denials(events: &[Value]) -> Vec<&str> {
    let denials = events.iter().filter(|e| e["event.action"] == "denial");
    denials.map(|e| word(e, "rule.id")).collect()
}

pub(crate) fn shell(script: &str, name: &str, program: &str, args: Vec<String>) -> Process {
    let child = Command::new("sh")
        .args(["-c", script, name, program])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Process(child.expect("a shell"))
}

/// A process with the id that the monitor had is held like any other.
fn reused(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let policy = policy_for(ctx, NAME, "x", "[read]", &secret);
    let words = [
        "enforce",
        "--format",
        "json",
        "--host",
        "--fail-closed",
        "--policy",
        text(&policy),
    ];
    let mut started = Stockade::start(ctx, words);
    started.until_stderr(PINNED);
    let pid = started.process.pid();
    kill(started);
    // The kernel gives out the id behind the last one; somebody else may be faster.
    let script = format!(
        "echo {} > /proc/sys/kernel/ns_last_pid; sh -c 'echo $$; exec cat {}' 2>&1; true",
        pid - 1,
        text(&secret)
    );
    let said = poll("a process with that id", || {
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        said.starts_with(&format!("{pid}\n")).then_some(said)
    });
    assert!(said.contains("not permitted"), "{said}");
    assert!(number(&the_one(ctx)["rules"][0], "hits") >= 1);
    // Somebody was killed when he was to take the name of the one before, or when he had just begun.
    let (own, next) = (
        format!("{ROOT}/server%2e1"),
        format!("{ROOT}/server%2e1+next"),
    );
    fs::rename(&own, &next).unwrap();
    the_one(ctx);
    fs::create_dir(&next).unwrap();
    the_one(ctx);
    assert!(Path::new(&own).exists() && !Path::new(&next).exists());
    assert_eq!(fs::read(&secret).unwrap_err().raw_os_error(), Some(EPERM));
    assert_eq!(stockade(ctx, ["unpin", "--all"]).code, 0);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    nothing_is_left();
    Outcome::Passed
}

fn refused(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let me = std::process::id().to_string();
    let enforce = |name: &str, path: &Path| {
        let policy = policy_for(ctx, name, "x", "all", path);
        let words = [
            "enforce",
            "--format",
            "json",
            "--fail-closed",
            "--tree",
            &me,
        ];
        stockade(ctx, words.into_iter().chain(["--policy", text(&policy)]))
    };
    let refused = |ended: crate::harness::Ended, code: i32, says: &str| {
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
        fs::read(&secret).expect("nothing is fenced");
    };

    let long = "x".repeat(300);
    refused(
        enforce(&long, &secret),
        2,
        "cannot be pinned under a name of 300 bytes",
    );

    // A directory that others can change.
    let root = PathBuf::from(ROOT);
    if !root.exists() {
        fs::create_dir(&root).unwrap();
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    refused(
        enforce(NAME, &secret),
        40,
        "has the mode 777, so others could take a fence down",
    );
    fs::remove_dir(&root).unwrap();

    // No bpf file system.
    {
        let _hidden = mount(&["-t", "tmpfs", "none"], Path::new("/sys/fs/bpf"));
        refused(
            enforce(NAME, &secret),
            40,
            "there is no bpf file system at /sys/fs/bpf",
        );
    }

    // A file that is only recognised while somebody has it open.
    if ctx.has_lsm() {
        let (root, _mounted) = file_system(ctx, "btrfs");
        let file = root.join("file");
        fs::write(&file, "text").unwrap();
        let says = "is told apart from others only as long as this program has it open";
        refused(enforce(NAME, &file), 40, says);
        nothing_is_left();
    }
    assert!(status(ctx, 0).is_empty());
    Outcome::Passed
}

fn on_trial(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let policy = policy_for(ctx, NAME, "x", "all", &secret);
    let group = cgroup2().join(format!("stockade-pinned-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let start = |after: &str| {
        let words = [
            "enforce",
            "--format",
            "json",
            "--fail-closed",
            "--cgroup",
            text(&group),
        ];
        let mut started = Stockade::start(
            ctx,
            words
                .into_iter()
                .chain(["--revert-after", after, "--policy", text(&policy)]),
        );
        started.until_stderr("unless it is confirmed");
        started
    };
    let started = start("100s");
    assert_eq!(the_one(ctx)["pinned"], Value::Null);
    kill(started);
    poll("the end of the fence", || {
        status(ctx, 0).is_empty().then_some(())
    });
    let mut started = start("100s");
    started.process.signal(Signal::USR1);
    started.until_stderr(PINNED);
    kill(started);
    assert_eq!(the_one(ctx)["pinned"], NAME);
    // Whoever comes into the cgroup now is held as well.
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec cat {} 2>&1",
        text(&group),
        text(&secret)
    );
    let out = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("not permitted"), "{said}");

    // Somebody with all rights takes programs of it away, and switches it off: then it is not said to hold.
    let links: Vec<PathBuf> = fs::read_dir(Path::new(ROOT).join("server%2e1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| text(path).contains("/fence_unlink_"))
        .collect();
    assert_eq!(links.len(), 1, "{links:?}");
    fs::remove_file(&links[0]).unwrap();
    let found = status(ctx, 40);
    let problems = found[0]["problems"].to_string();
    assert!(problems.contains("1 of its "), "{problems}");
    assert!(
        problems.contains("programs are gone: fence_unlink_"),
        "{problems}"
    );
    assert_eq!(stockade(ctx, ["unpin", "--all"]).code, 0);
    nothing_is_left();
    fs::remove_dir(&group).unwrap();
    Outcome::Passed
}
