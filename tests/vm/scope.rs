//! Who is inside the fence.

use std::fs;
use std::process::{Command, Stdio};

use crate::bypass;
use crate::fence::{EPERM, fenced, text};
use crate::harness::{Ctx, Needs, Outcome, Process, Stockade, Test, number, poll, stockade};
use crate::helper::{arguments, outside, results, step};
use crate::mounts::cgroup2;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "daemon_with_another_session_and_parent_stays_inside",
        Needs::Fence,
        daemon,
    ),
    Test::new(
        "process_that_is_not_there_ends_with_40",
        Needs::Watch,
        missing_process,
    ),
    Test::new(
        "cgroup_that_is_not_there_ends_with_40",
        Needs::Watch,
        missing_cgroup,
    ),
    Test::new(
        "fence_around_a_cgroup_covers_the_cgroups_below",
        Needs::Fence,
        child_cgroup,
    ),
    Test::new(
        "fence_around_a_running_tree_covers_its_running_children",
        Needs::Fence,
        running_tree,
    ),
];

fn daemon(ctx: &Ctx) -> Outcome {
    let (secret, out, pid_file) = (ctx.path("secret"), ctx.path("results"), ctx.path("daemon"));
    fs::write(&secret, "secret").unwrap();
    let steps = [
        step("daemon", &[&"daemon", &secret, &pid_file]),
        step(
            "another file",
            &[&"daemon", &pid_file, &ctx.path("daemon-2")],
        ),
    ];
    let ended = stockade(ctx, fenced(&[&secret], &out, &steps, ctx));
    let (helper, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|d| d.errno).collect();
    assert_eq!(errnos, [EPERM, 0], "{}", ended.stderr);
    let pid: u64 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let denials: Vec<_> = ended.of("denial").collect();
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert_eq!(number(denials[0], "process.pid"), pid);
    assert_eq!(denials[0]["file.path"], text(&secret));
    let parent = number(denials[0], "process.parent.pid");
    assert!(
        parent != helper && parent != done[0].pid,
        "it had no other parent: {}",
        denials[0]
    );
    bypass::observed(
        "scope/daemon",
        bypass::ANYWHERE,
        errnos[0],
        Some(denials[0]),
    );
    // And from outside the same works.
    let twin = outside(&[step("twin", &[&"daemon", &secret, &ctx.path("twin")])]);
    assert_eq!(twin[0].errno, 0);
    Outcome::Passed
}

fn missing_process(ctx: &Ctx) -> Outcome {
    for option in ["--pid", "--tree"] {
        // Above the largest pid there can be.
        let ended = stockade(ctx, ["monitor", option, "4194305"]);
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("there is no process 4194305"),
            "{}",
            ended.stderr
        );
    }
    Outcome::Passed
}

fn missing_cgroup(ctx: &Ctx) -> Outcome {
    let ended = stockade(ctx, ["monitor", "--cgroup", "/no/such/cgroup"]);
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("cgroup /no/such/cgroup cannot be resolved"),
        "{}",
        ended.stderr
    );
    Outcome::Passed
}

/// The helper, outside of `stockade run`.
pub(crate) fn start_helper(ctx: &Ctx, args: Vec<String>) -> Process {
    Process(
        Command::new(&ctx.helper)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("our own program"),
    )
}

fn child_cgroup(ctx: &Ctx) -> Outcome {
    let root = cgroup2();
    let parent = root.join(format!("stockade-test-{}", std::process::id()));
    let child = parent.join("below");
    let beside = root.join(format!("stockade-beside-{}", std::process::id()));
    for dir in [&parent, &child, &beside] {
        fs::create_dir(dir).unwrap();
    }
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let mut enforce = Stockade::start(
        ctx,
        [
            "enforce",
            "--format",
            "json",
            "--deny-file",
            text(&secret),
            "--cgroup",
            text(&parent),
        ],
    );
    enforce.until_stderr("fence armed");
    let mut errnos = Vec::new();
    // A cgroup made after the start is below as well.
    let later = parent.join("later");
    fs::create_dir(&later).unwrap();
    for (index, dir) in [&parent, &child, &later, &beside].into_iter().enumerate() {
        let (go, out) = (
            ctx.path(&format!("go-{index}")),
            ctx.path(&format!("results-{index}")),
        );
        let steps = [
            step("go", &[&"wait", &go]),
            step("open", &[&"open", &secret]),
        ];
        let mut helper = start_helper(ctx, arguments(&out, &steps));
        fs::write(dir.join("cgroup.procs"), helper.pid().to_string()).unwrap();
        fs::write(&go, "").unwrap();
        assert_eq!(helper.wait(), 0);
        errnos.push(results(&out).1[1].errno);
    }
    enforce.process.signal(rustix::process::Signal::TERM);
    let ended = enforce.wait();
    for dir in [&child, &later, &parent, &beside] {
        // The last process of a cgroup leaves it some time after it has ended.
        poll("an empty cgroup", || fs::remove_dir(dir).ok());
    }
    assert_eq!(errnos, [EPERM, EPERM, EPERM, 0], "{}", ended.stderr);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let denials: Vec<_> = ended.of("denial").collect();
    assert_eq!(denials.len(), 3, "{denials:?}");
    ended.complete();
    let ways = ["cgroup", "cgroup-below", "cgroup-made-later"];
    for ((way, errno), denial) in ways.iter().zip(errnos).zip(denials) {
        let way = format!("scope/{way}");
        bypass::observed(&way, bypass::ANYWHERE, errno, Some(denial));
    }
    Outcome::Passed
}

fn running_tree(ctx: &Ctx) -> Outcome {
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let (ready, go, out) = (ctx.path("ready"), ctx.path("go"), ctx.path("results"));
    let steps = [
        step("before", &[&"open", &secret]),
        step("ready", &[&"touch", &ready]),
        step("go", &[&"wait", &go]),
        step("after", &[&"open", &secret]),
        step("grandchild", &[&"daemon", &secret, &ctx.path("daemon")]),
    ];
    // The shell is the tree's root; the helper is its child and runs already.
    let mut shell = Process(
        Command::new("/bin/sh")
            .args(["-c", "\"$@\"; exit $?", "sh", text(&ctx.helper)])
            .args(arguments(&out, &steps))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    poll("the helper", || ready.exists().then_some(()));
    let pid = shell.pid().to_string();
    let mut enforce = Stockade::start(
        ctx,
        [
            "enforce",
            "--format",
            "json",
            "--deny-file",
            text(&secret),
            "--tree",
            &pid,
        ],
    );
    enforce.until_stderr("fence armed");
    // Ourselves are the parent of the root and outside.
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    fs::write(&go, "").unwrap();
    assert_eq!(shell.wait(), 0);
    enforce.process.signal(rustix::process::Signal::TERM);
    let ended = enforce.wait();
    let (helper, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|d| d.errno).collect();
    assert_eq!(errnos, [0, 0, 0, EPERM, EPERM], "{}", ended.stderr);
    let denial = ended.of("denial").next().expect("a denial");
    assert_eq!(number(denial, "process.parent.pid"), helper);
    let denials: Vec<_> = ended.of("denial").collect();
    assert_eq!(denials.len(), 2);
    ended.complete();
    for (way, (done, denial)) in ["running-child", "later-grandchild"]
        .iter()
        .zip(done[3..].iter().zip(denials))
    {
        let way = format!("scope/{way}");
        bypass::observed(&way, bypass::ANYWHERE, done.errno, Some(denial));
    }
    Outcome::Passed
}
