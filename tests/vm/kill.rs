//! The kill switch: who goes, who stays, and what is told of them.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::fence::text;
use crate::harness::{
    Ctx, Ended, Needs, Outcome, Process, Stockade, Test, number, poll, stockade, word,
};
use crate::mounts::cgroup2;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "kill_switch_waits_for_sigterm_and_kills_who_ignores_it",
        Needs::Watch,
        graceful,
    ),
    Test::new(
        "kill_switch_leaves_nobody_of_a_tree_that_keeps_forking",
        Needs::Watch,
        forking,
    ),
    Test::new(
        "kill_switch_finds_what_is_started_on_sigterm",
        Needs::Watch,
        started_on_sigterm,
    ),
    Test::new(
        "kill_switch_catches_who_goes_from_parent_to_parent",
        Needs::Watch,
        hopping,
    ),
    Test::new(
        "kill_switch_does_not_wait_for_a_vfork",
        Needs::Watch,
        in_vfork,
    ),
    Test::new(
        "kill_switch_empties_a_cgroup_with_those_below",
        Needs::Watch,
        cgroups,
    ),
    Test::new(
        "kill_switch_captures_what_a_process_was",
        Needs::Watch,
        captured,
    ),
    Test::new(
        "kill_switch_refuses_before_anybody_is_signalled",
        Needs::Watch,
        refused,
    ),
    Test::new(
        "kill_switch_tells_who_hangs_and_does_not_wait_for_ever",
        Needs::Watch,
        hanging,
    ),
    Test::new(
        "kill_switch_without_rights_says_so_and_leaves_it",
        Needs::Watch,
        without_rights,
    ),
    Test::new(
        "kill_switch_that_is_cancelled_spares_who_is_left",
        Needs::Watch,
        cancelled,
    ),
];

/// The variable that all processes of a test have, so that those which got away can be found.
const MARK: &str = "STOCKADE_KILL_TEST";

/// A shell that has written its first line when this returns.
fn shell(ctx: &Ctx, script: &str) -> Process {
    let ready = ctx.path(&format!(
        "ready-{}",
        fs::read_dir(&ctx.dir).unwrap().count()
    ));
    let child = Command::new("sh")
        .args(["-c", script, "sh", text(&ready)])
        .env(MARK, text(&ctx.dir))
        .stdin(Stdio::null())
        // What a failed test leaves behind holds nobody up who reads our output.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let child = Process(child);
    poll("the shell's line", || {
        fs::read(&ready)
            .is_ok_and(|line| !line.is_empty())
            .then_some(())
    });
    child
}

/// Those of a test that run.
fn marked(ctx: &Ctx) -> Vec<u32> {
    let mark = format!("{MARK}={}", text(&ctx.dir));
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        // Of one that has ended there is nothing to be read.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|e| e == mark.as_bytes())
    })
    .collect()
}

#[track_caller]
fn nobody_is_left(ctx: &Ctx, ended: &Ended) {
    let left = marked(ctx);
    let (told, stderr) = (&ended.events, &ended.stderr);
    assert!(left.is_empty(), "{left:?} are left: {told:?} {stderr}");
    assert_eq!(ended.code, 0, "{told:?} {stderr}");
}

/// How many have been sent SIGKILL.
fn killed(ended: &Ended) -> usize {
    let mut fates: Vec<&Value> = ended.events.iter().collect();
    fates.retain(|fate| fate["stockade.kill.outcome"] == "killed");
    fates.len()
}

/// As ps(1) has it: `S`, `T`, `Z`.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[track_caller]
fn runs(process: &mut Process) {
    assert!(!process.has_ended(), "it has ended");
    let state = state(process.pid());
    assert!(
        matches!(state, Some('S' | 'R' | 'D')),
        "it is in state {state:?}"
    );
}

fn fate(ended: &Ended, pid: u32) -> &Value {
    let mut fates = ended.events.iter();
    fates
        .find(|fate| fate["process.pid"] == pid)
        .unwrap_or_else(|| panic!("nothing of {pid}: {:?} {}", ended.events, ended.stderr))
}

/// Every field that is written is in the page about it.
#[track_caller]
fn documented(objects: &[Value]) {
    let page = include_str!("../../docs/KILL.md");
    for object in objects {
        for key in object.as_object().expect("an object").keys() {
            assert!(
                page.contains(&format!("| `{key}` |")),
                "{key} is not in docs/KILL.md"
            );
        }
    }
}

fn graceful(ctx: &Ctx) -> Outcome {
    let mut heeds = shell(ctx, "echo >$1; exec sleep 1000");
    let mut ignores = shell(ctx, "trap '' TERM; echo >$1; exec sleep 1000");
    // It does not hear the signal until it goes on.
    let mut stopped = shell(ctx, "echo >$1; exec sleep 1000");
    stopped.signal(Signal::STOP);
    poll("a stop", || {
        (state(stopped.pid()) == Some('T')).then_some(())
    });
    let mut bystander = shell(ctx, "echo >$1; exec sleep 1000");
    let pids = [&heeds, &ignores, &stopped].map(|p| p.pid().to_string());
    let ended = stockade(
        ctx,
        [
            "kill", "--format", "json", "--grace", "1s", "--pid", &pids[0], "--pid", &pids[1],
            "--pid", &pids[2],
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("3 processes, gone"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.events.len(), 3, "{:?}", ended.events);
    documented(&ended.events);
    for process in [&heeds, &stopped] {
        let told = fate(&ended, process.pid());
        assert_eq!(told["stockade.kill.outcome"], "exited", "{told}");
        assert!(number(told, "event.duration") < 1_000_000_000, "{told}");
    }
    let told = fate(&ended, ignores.pid());
    assert_eq!(told["stockade.kill.outcome"], "killed", "{told}");
    assert_eq!(told["stockade.kill.by"], "signal", "{told}");
    assert!(number(told, "event.duration") >= 1_000_000_000, "{told}");
    assert_eq!(
        [heeds.wait(), ignores.wait(), stopped.wait()],
        [143, 137, 143]
    );
    runs(&mut bystander);
    // Without a grace nobody hears SIGTERM.
    let pid = bystander.pid().to_string();
    let ended = stockade(ctx, ["kill", "--format", "json", "--now", "--pid", &pid]);
    assert_eq!((ended.code, bystander.wait()), (0, 137), "{}", ended.stderr);
    Outcome::Passed
}

fn forking(ctx: &Ctx) -> Outcome {
    for grace in ["0s", "300ms"] {
        let root = shell(
            ctx,
            "trap '' TERM; echo >$1; while :; do (sleep 1000 & wait) & sleep 0.01; done",
        );
        poll("some forks", || (marked(ctx).len() > 20).then_some(()));
        let pid = root.pid().to_string();
        let ended = stockade(
            ctx,
            ["kill", "--format", "json", "--grace", grace, "--tree", &pid],
        );
        nobody_is_left(ctx, &ended);
        assert!(ended.events.len() > 20, "{:?}", ended.events);
        fate(&ended, root.pid());
    }
    Outcome::Passed
}

/// The root's own end on SIGTERM leaves somebody behind, who is no child of anybody in the tree any more.
fn started_on_sigterm(ctx: &Ctx) -> Outcome {
    let root = shell(
        ctx,
        "exec setsid sh -c 'trap \"(sleep 1000 & sleep 1001 &); exit 0\" TERM; echo >$1; while :; do sleep 0.01; done' sh $1",
    );
    // It leads its session, and keeps that until this test asks for its end.
    let pid = root.pid().to_string();
    let ended = stockade(
        ctx,
        ["kill", "--format", "json", "--grace", "1s", "--tree", &pid],
    );
    nobody_is_left(ctx, &ended);
    assert_eq!(
        fate(&ended, root.pid())["stockade.kill.outcome"],
        "exited",
        "{:?}",
        ended.events
    );
    assert_eq!(killed(&ended), 2, "{:?}", ended.events);
    Outcome::Passed
}

/// It forks and ends all the time, and no process of it ever has a parent in the tree; only its session tells.
fn hopping(ctx: &Ctx) -> Outcome {
    let hop = ctx.path("hop");
    fs::write(&hop, "echo >>$0.count; sleep 0.02; sh $0 &").unwrap();
    let root = shell(
        ctx,
        &format!(
            "exec setsid sh -c 'sh {} & echo >$1; exec sleep 1000' sh $1",
            text(&hop)
        ),
    );
    // The first of them is still a child of the root.
    poll("some generations", || {
        let lines = fs::read(ctx.path("hop.count")).unwrap_or_default().len();
        (lines > 5).then_some(())
    });
    let pid = root.pid().to_string();
    let ended = stockade(ctx, ["kill", "--format", "json", "--now", "--tree", &pid]);
    nobody_is_left(ctx, &ended);
    assert!(killed(&ended) > 1, "{:?}", ended.events);
    Outcome::Passed
}

/// Entry as the program whose parent waits in the kernel for its child to execute something: `READY`.
pub(crate) fn vfork(args: &[String]) -> i32 {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: a fork, whose parent waits; the child has a copy of everything, as this program has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    assert!(child >= 0, "no child");
    if child == 0 {
        fs::write(&args[0], "ready").expect("the file for the word");
        loop {
            std::thread::park();
        }
    }
    0
}

fn in_vfork(ctx: &Ctx) -> Outcome {
    let ready = ctx.path("ready");
    let mut parent = Process(
        Command::new(&ctx.helper)
            .args(["--vfork", text(&ready)])
            .env(MARK, text(&ctx.dir))
            .spawn()
            .expect("our own program"),
    );
    poll("the child's word", || ready.exists().then_some(()));
    // A moment after the child has begun.
    poll("a wait in the kernel", || {
        (state(parent.pid()) == Some('D')).then_some(())
    });
    let pid = parent.pid().to_string();
    let ended = stockade(ctx, ["kill", "--format", "json", "--now", "--tree", &pid]);
    nobody_is_left(ctx, &ended);
    assert_eq!(ended.events.len(), 2, "{:?}", ended.events);
    assert_eq!(parent.wait(), 137);
    Outcome::Passed
}

/// A new cgroup with one below it, removed with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Cgroup {
        let dir = cgroup2().join(format!("stockade-kill-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).expect("cgroups");
        Cgroup(dir)
    }

    fn take(&self, below: &str, process: &Process) {
        let procs = self.0.join(below).join("cgroup.procs");
        fs::write(procs, process.pid().to_string()).expect("the cgroup takes it");
    }

    fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).expect("the cgroup is there");
        events.contains("populated 1")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in [self.0.join("below"), self.0.clone()] {
            // The last process of a cgroup leaves it some time after it has ended.
            poll("an empty cgroup", || fs::remove_dir(&dir).ok());
        }
    }
}

fn cgroups(ctx: &Ctx) -> Outcome {
    let cgroup = Cgroup::new("emptied");
    let beside = Cgroup::new("beside");
    // Before 5.14 everybody is killed by a signal of his own.
    let by = match cgroup.0.join("cgroup.kill").exists() {
        true => "cgroup.kill",
        false => "signal",
    };
    for (grace, frozen) in [("0s", false), ("500ms", false), ("0s", true)] {
        let go = ctx.path(&format!("go-{grace}-{frozen}"));
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", text(&go));
        let mut heeds = shell(ctx, "echo >$1; exec sleep 1000");
        // It forks for ever, and those it leaves behind are in other sessions and have no parent in the cgroup.
        let mut forks = shell(
            ctx,
            &format!(
                "trap '' TERM; echo >$1; {wait}; while :; do (setsid sleep 1000 &); sleep 0.01; done"
            ),
        );
        let mut outside = shell(ctx, "echo >$1; exec sleep 1000");
        cgroup.take("", &heeds);
        cgroup.take("below", &forks);
        beside.take("", &outside);
        fs::write(&go, "").unwrap();
        poll("some forks", || {
            let procs = fs::read_to_string(cgroup.0.join("below/cgroup.procs")).unwrap();
            (procs.lines().count() > 10).then_some(())
        });
        if frozen {
            fs::write(cgroup.0.join("cgroup.freeze"), "1").unwrap();
        }
        let ended = stockade(
            ctx,
            [
                "kill",
                "--format",
                "json",
                "--grace",
                grace,
                "--cgroup",
                text(&cgroup.0),
            ],
        );
        assert_eq!(ended.code, 0, "{:?} {}", ended.events, ended.stderr);
        assert!(
            !cgroup.is_populated(),
            "somebody is left: {:?}",
            ended.events
        );
        assert_eq!(marked(ctx), [outside.pid()]);
        assert!(ended.events.len() > 10, "{:?}", ended.events);
        documented(&ended.events);
        let told = fate(&ended, forks.pid());
        assert_eq!(told["stockade.kill.outcome"], "killed", "{told}");
        assert_eq!(told["stockade.kill.by"], by, "{told}");
        let how = if grace == "0s" { "killed" } else { "exited" };
        let told = fate(&ended, heeds.pid());
        assert_eq!(told["stockade.kill.outcome"], how, "{told}");
        heeds.wait();
        forks.wait();
        runs(&mut outside);
        // The next one in it is not held.
        let freeze = fs::read_to_string(cgroup.0.join("cgroup.freeze")).unwrap();
        assert_eq!(freeze.trim(), if frozen { "1" } else { "0" });
        fs::write(cgroup.0.join("cgroup.freeze"), "0").unwrap();
    }
    Outcome::Passed
}

fn captured(ctx: &Ctx) -> Outcome {
    let secret = "correct-horse-battery-staple";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let (log, out) = (ctx.path("log"), ctx.path("capture.jsonl"));
    let mut child = Process(
        Command::new("sleep")
            .arg("1000")
            .env("API_TOKEN", secret)
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(File::create(&log).unwrap())
            .current_dir(&ctx.dir)
            .spawn()
            .unwrap(),
    );
    // A spawn can return a moment before what it executes is to be seen.
    poll("sleep", || {
        let args = fs::read(format!("/proc/{}/cmdline", child.pid())).ok()?;
        args.starts_with(b"sleep").then_some(())
    });
    let exe = fs::read_link(format!("/proc/{}/exe", child.pid())).unwrap();
    let other = shell(ctx, "sleep 1000 & echo >$1; wait");
    let pids = [child.pid(), other.pid()].map(|pid| pid.to_string());
    // Nothing is killed where the capture cannot be written.
    fs::write(&out, "mine").unwrap();
    let kill = [
        "kill",
        "--now",
        "--format",
        "json",
        "--pid",
        &pids[0],
        "--tree",
        &pids[1],
        "--capture",
        text(&out),
    ];
    let ended = stockade(ctx, kill);
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("nobody was killed"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    runs(&mut child);
    // The disk is full: found out when the processes are held already.
    let small = ctx.path("small");
    fs::create_dir(&small).unwrap();
    crate::mounts::must(
        "mount",
        &["-t", "tmpfs", "-o", "size=4k", "tmpfs", text(&small)],
    );
    fs::write(small.join("filler"), [0; 4096]).unwrap();
    let full = small.join("capture.jsonl");
    let mut to_full = kill;
    to_full[to_full.len() - 1] = text(&full);
    let ended = stockade(ctx, to_full);
    crate::mounts::must("umount", &[text(&small)]);
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("nobody was killed"),
        "{}",
        ended.stderr
    );
    poll("the held to go on", || {
        (state(child.pid()) != Some('T') && state(other.pid()) != Some('T')).then_some(())
    });
    runs(&mut child);

    fs::remove_file(&out).unwrap();
    let ended = stockade(ctx, kill);
    assert_eq!((ended.code, child.wait()), (0, 137), "{}", ended.stderr);
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let written = fs::read_to_string(&out).unwrap();
    assert!(
        !written.contains(secret),
        "a value of the environment is told: {written}"
    );
    let records: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Those that were killed, and no others.
    let pids = |of: &[Value]| {
        let mut pids: Vec<u64> = of.iter().map(|r| number(r, "process.pid")).collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!(pids(&records), pids(&ended.events));
    assert_eq!(records.len(), 3, "{written}");
    documented(&records);
    let own = records
        .iter()
        .find(|r| r["process.pid"] == child.pid())
        .unwrap();
    assert_eq!(own["v"], 1);
    assert_eq!(own["process.parent.pid"], std::process::id());
    assert_eq!(own["process.name"], "sleep");
    assert_eq!(own["process.args"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(own["process.executable"], text(&exe));
    assert_eq!(own["process.working_directory"], text(&ctx.dir));
    let file = fs::metadata(&exe).unwrap();
    assert_eq!(
        word(own, "stockade.executable.inode"),
        file.ino().to_string()
    );
    assert_eq!(
        (&own["user.id"], &own["user.effective.group.id"]),
        (&"0".into(), &"0".into())
    );
    let net = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(own["stockade.namespaces"]["net"], net);
    let list = |key: &str| {
        own[key]
            .as_array()
            .unwrap_or_else(|| panic!("no {key}: {own}"))
    };
    assert!(
        list("stockade.environment_keys").contains(&"API_TOKEN".into()),
        "{own}"
    );
    let target = |fd: u64| {
        let found = list("stockade.descriptors").iter().find(|d| d["fd"] == fd);
        word(
            found.unwrap_or_else(|| panic!("no descriptor {fd}: {own}")),
            "target",
        )
        .to_owned()
    };
    assert!(target(0).starts_with("socket:["), "{own}");
    assert_eq!(target(1), text(&log));
    let connection = &list("stockade.connections")[0];
    assert_eq!(
        *connection,
        serde_json::json!({
            "fd": 0, "transport": "tcp", "state": "established",
            "local_ip": local.ip().to_string(), "local_port": local.port(),
            "remote_ip": remote.ip().to_string(), "remote_port": remote.port(),
        })
    );
    let code = |m: &&Value| m["path"] == text(&exe) && m["permissions"] == "r-xp";
    assert!(list("stockade.maps").iter().any(|m| code(&m)), "{own}");
    Outcome::Passed
}

fn refused(ctx: &Ctx) -> Outcome {
    let mut innocent = shell(ctx, "echo >$1; exec sleep 1000");
    let pid = innocent.pid().to_string();
    let own = std::process::id().to_string();
    let cgroup = Cgroup::new("own");
    let inside = shell(ctx, "echo >$1; exec sleep 1000");
    cgroup.take("below", &inside);
    let root = cgroup.0.parent().unwrap().to_owned();
    let as_shell = |script: &str| {
        let out = Command::new("sh")
            .args(["-c", script, "sh", text(&ctx.bin), text(&cgroup.0)])
            .output();
        let out = out.expect("a shell");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let ended = |args: &[&str]| {
        let ended = stockade(ctx, args);
        assert!(ended.events.is_empty(), "{:?}", ended.events);
        (Some(ended.code), ended.stderr)
    };
    let mut attempts = vec![
        (
            ended(&["kill", "--now", "--pid", &pid, "--pid", "1"]),
            2,
            "the first process of this system",
        ),
        (
            ended(&["kill", "--now", "--pid", &pid, "--tree", &own]),
            2,
            "what this stockade was started from",
        ),
        (
            ended(&["kill", "--now", "--pid", &pid, "--tree", "1"]),
            2,
            "the first process of this system",
        ),
        (
            ended(&["kill", "--now", "--pid", &pid, "--pid", "999999999"]),
            40,
            "there is no process 999999999",
        ),
        (
            ended(&["kill", "--now", "--pid", &pid, "--cgroup", text(&root)]),
            2,
            "it is the root",
        ),
        (
            ended(&["kill", "--now", "--pid", &pid, "--cgroup", "/no/such"]),
            40,
            "cgroup /no/such cannot be resolved",
        ),
        (
            as_shell(&format!("exec $1 kill --now --pid {pid} --pid $$")),
            2,
            "it is this stockade itself",
        ),
        (
            as_shell(&format!(
                "echo $$ >$2/cgroup.procs && exec $1 kill --now --pid {pid} --cgroup $2"
            )),
            2,
            "in it is this stockade itself",
        ),
        (
            as_shell(&format!(
                "echo $$ >$2/cgroup.procs && $1 kill --now --pid {pid} --cgroup $2; exit $?"
            )),
            2,
            "in it is ",
        ),
    ];
    // In a container there is none.
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        let attempt = ended(&["kill", "--now", "--pid", &pid, "--pid", "2"]);
        attempts.push((attempt, 2, "a thread of the kernel"));
    } else {
        assert!(ctx.host, "a VM has kernel threads");
    }
    for ((code, stderr), expected, says) in attempts {
        assert_eq!(code, Some(expected), "{says}: {stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
    }
    // The shells that were in it have ended.
    let mut inside = inside;
    runs(&mut inside);
    runs(&mut innocent);
    inside.signal(Signal::KILL);
    inside.wait();
    Outcome::Passed
}

/// A tracer keeps it where it is on its way out, and SIGKILL does not get it any further.
fn hanging(ctx: &Ctx) -> Outcome {
    let mut child = shell(ctx, "echo >$1; exec sleep 1000");
    let pid = i32::try_from(child.pid()).unwrap();
    let trace = |request, data: libc::c_int| {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: none of these requests reads or writes our memory.
        let done = unsafe { libc::ptrace(request, pid, none, data as usize) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    trace(libc::PTRACE_SEIZE, libc::PTRACE_O_TRACEEXIT);
    let number = pid.to_string();
    let kill = ["kill", "--format", "json", "--now", "--pid", &number];
    let ended = stockade(ctx, kill);
    trace(libc::PTRACE_DETACH, 0);
    assert_eq!(child.wait(), 137);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let told = fate(&ended, child.pid());
    assert_eq!(told["stockade.kill.outcome"], "still_there", "{told}");
    documented(&ended.events);
    Outcome::Passed
}

fn without_rights(ctx: &Ctx) -> Outcome {
    let mut child = shell(ctx, "echo >$1; exec sleep 1000");
    let pid = child.pid().to_string();
    // Where nobody may be able to execute it.
    let bin = ctx.path("stockade");
    fs::copy(&ctx.bin, &bin).unwrap();
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755)).unwrap();
    for how in ["--pid", "--tree"] {
        let out = Command::new(&bin)
            .args(["kill", "--format", "json", "--grace", "100s", how, &pid])
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("1 process, 0 gone, 1 still there"),
            "{stderr}"
        );
        let told: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(told["stockade.kill.outcome"], "refused", "{told}");
        assert_eq!(told["error.code"], "EPERM", "{told}");
        documented(&[told]);
        runs(&mut child);
    }
    Outcome::Passed
}

fn cancelled(ctx: &Ctx) -> Outcome {
    let mut child = shell(ctx, "trap '' TERM; echo >$1; exec sleep 1000");
    let mut heeds = shell(ctx, "echo >$1; exec sleep 1000");
    let pids = [child.pid(), heeds.pid()].map(|pid| pid.to_string());
    let start = Instant::now();
    let kill = Stockade::start(
        ctx,
        [
            "kill", "--format", "json", "--grace", "1000s", "--tree", &pids[0], "--tree", &pids[1],
        ],
    );
    // From then on it waits.
    assert_eq!(heeds.wait(), 143);
    kill.process.signal(Signal::INT);
    let ended = kill.wait();
    assert!(start.elapsed() < Duration::from_secs(1000));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("2 processes, 1 gone, 1 still there"),
        "{}",
        ended.stderr
    );
    assert_eq!(fate(&ended, child.pid())["stockade.kill.outcome"], "spared");
    assert_eq!(fate(&ended, heeds.pid())["stockade.kill.outcome"], "exited");
    runs(&mut child);
    Outcome::Passed
}
