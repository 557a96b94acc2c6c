//! A fence that keeps itself from those whom it holds.

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;

use libbpf_rs::libbpf_sys::BPF_F_RDONLY;
use libbpf_rs::{MapHandle, query::MapInfoIter};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

use crate::bypass;
use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, poll, stockade, word};
use crate::helper::{arguments, check, results, step};
use crate::mounts::cgroup2;
use crate::pins::{ROOT, Unpinned, nothing_is_left, shell};
use crate::places::policy_for;
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "guarded_fence_is_kept_from_those_whom_it_holds",
        Needs::Fence,
        kept,
    ),
    Test::new(
        "guarded_command_cannot_kill_its_monitor",
        Needs::Fence,
        command,
    ),
    Test::new(
        "fence_that_nobody_could_take_down_is_not_guarded",
        Needs::Fence,
        refused,
    ),
];

/// A directory beside that of the fence, in the same file system.
const BESIDE: &str = "/sys/fs/bpf/beside";
const EACCES: i32 = 13;

/// What of the fence is said to have been reached for, and how.
type Told = (&'static str, &'static str);

/// What is tried, what it must be answered where the fence is guarded, and what is told of it.
const ATTEMPTS: &[(&str, i32, Option<Told>)] = &[
    ("map", EPERM, Some(("map", "write"))),
    ("pinned-map", EPERM, Some(("map", "write"))),
    ("pinned-map-read", 0, None),
    ("ask", 0, None),
    ("unlink", EPERM, Some(("pin", "delete"))),
    ("rename", EPERM, Some(("pin", "delete"))),
    ("rmdir", EPERM, Some(("pin", "delete"))),
    ("umount", EPERM, Some(("mount", "umount"))),
    ("signal-0", 0, None),
    ("signal", EPERM, Some(("monitor", "signal"))),
    ("pidfd-signal", EPERM, Some(("monitor", "signal"))),
    ("memory", EACCES, Some(("monitor", "trace"))),
    ("write-memory", EPERM, Some(("monitor", "trace"))),
    ("descriptor", EPERM, Some(("monitor", "trace"))),
    ("trace", EPERM, Some(("monitor", "trace"))),
    ("status", 0, None),
];

/// The step of the tests' helper: `about` names a file with the monitor's pid, the number of a map of the fence, the
/// directory that it is pinned in, and the program under test.
pub(crate) fn operation(what: &str, about: &str) -> Result<()> {
    let about = fs::read_to_string(about).expect("what the test has written");
    let mut words = about.split(' ');
    let mut word = || words.next().expect("four words");
    let (pid, id, pins, program) = (word(), word(), word(), word());
    let pid: i32 = pid.parse().expect("a pid");
    let id: u32 = id.parse().expect("a number");
    let monitor = Pid::from_raw(pid).expect("a pid");
    let pinned = format!("{pins}/stk_armed_at");
    let of_map = |result: libbpf_rs::Result<MapHandle>| match result {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == libbpf_rs::ErrorKind::PermissionDenied => Err(Errno::PERM),
        Err(_) => Err(Errno::IO),
    };
    match what {
        "map" => of_map(MapHandle::from_map_id(id)),
        "pinned-map" => of_map(MapHandle::from_pinned_path(&pinned)),
        "pinned-map-read" => of_map(MapHandle::from_pinned_path_with_file_flags(
            &pinned,
            BPF_F_RDONLY,
        )),
        // The program itself, which only looks.
        "ask" => {
            let status = Command::new(program).arg("status").output();
            let shown = status
                .expect("the program under test can be started")
                .stdout;
            match String::from_utf8_lossy(&shown).contains("pinned as kept") {
                true => Ok(()),
                false => Err(Errno::NOENT),
            }
        }
        "unlink" => rustix::fs::unlink(&pinned),
        "rename" => rustix::fs::rename(&pinned, format!("{pins}/other")),
        "rmdir" => rustix::fs::rmdir(BESIDE),
        "umount" => rustix::mount::unmount("/sys/fs/bpf", UnmountFlags::DETACH),
        "signal-0" => rustix::process::test_kill_process(monitor),
        "signal" => rustix::process::kill_process(monitor, Signal::KILL),
        "pidfd-signal" => {
            let fd = rustix::process::pidfd_open(monitor, PidfdFlags::empty())?;
            rustix::process::pidfd_send_signal(fd, Signal::KILL)
        }
        "memory" => {
            let path = format!("/proc/{pid}/mem");
            rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop)
        }
        "write-memory" => {
            let byte = [0u8; 1];
            let local = libc::iovec {
                iov_base: byte.as_ptr().cast_mut().cast(),
                iov_len: 1,
            };
            // An address that is nobody's: that is looked at behind the rights.
            let remote = libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 1,
            };
            // SAFETY: reads one byte of ours.
            let n = unsafe {
                libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0)
            };
            match n {
                -1 => {
                    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
                }
                _ => Ok(()),
            }
        }
        "descriptor" => {
            let fd = rustix::process::pidfd_open(monitor, PidfdFlags::empty())?;
            // SAFETY: plain numbers; what comes back is a descriptor of ours.
            let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd.as_raw_fd(), 0, 0) };
            let got = i32::try_from(check(got)?).expect("a descriptor");
            // SAFETY: just made, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(got) });
            Ok(())
        }
        "trace" => {
            // SAFETY: plain numbers.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
            check(seized).map(drop)
        }
        // What ps(1) reads.
        "status" => fs::read(format!("/proc/{pid}/status"))
            .map(drop)
            .map_err(|_| Errno::IO),
        other => panic!("no attempt {other}"),
    }
}

fn policy(ctx: &Ctx, secret: &Path) -> String {
    text(&policy_for(ctx, "kept", "x", "all", secret)).to_owned()
}

/// Maps of fences that say what is in force: that of the only one.
fn armed_map() -> u32 {
    let maps = MapInfoIter::default().filter(|map| map.name.to_string_lossy() == "stk_armed_at");
    let ids: Vec<u32> = maps.map(|map| map.id).collect();
    // Of a fence that has just ended the map goes a moment later; it has the smaller number.
    *ids.last().expect("a fence")
}

/// Of each denial, what was reached for and how, or the rule.
fn told(events: &[Value]) -> Vec<(String, String)> {
    let denials = events.iter().filter(|e| e["event.action"] == "denial");
    denials
        .map(|denial| match denial["stockade.guarded"].as_str() {
            None => (word(denial, "rule.id").to_owned(), String::new()),
            Some(of) => {
                assert_eq!(denial["rule.id"], "guard", "{denial}");
                assert_eq!(denial["event.outcome"], "failure", "{denial}");
                let access = word_of(&denial["stockade.access"]);
                (of.to_owned(), access)
            }
        })
        .collect()
}

fn word_of(list: &Value) -> String {
    list[0].as_str().expect("a list of words").to_owned()
}

fn kept(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let (about, out, go) = (ctx.path("about"), ctx.path("results"), ctx.path("go"));
    let (tried, gone, done) = (ctx.path("tried"), ctx.path("gone"), ctx.path("done"));
    // The only way that is left to end the monitor, which is Linux 5.14's.
    let group = cgroup2().join(format!("stockade-kept-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let switch = group.join("cgroup.kill");
    let can_kill_groups = switch.exists();
    let mut steps = vec![step("go", &[&"wait", &go])];
    steps.extend(
        ATTEMPTS
            .iter()
            .map(|(what, ..)| step(what, &[&"reach", what, &about])),
    );
    steps.extend([
        step("tried", &[&"touch", &tried]),
        step("gone", &[&"wait", &gone]),
        step("later-map", &[&"reach", &"map", &about]),
        step("later-unlink", &[&"reach", &"unlink", &about]),
        step("secret", &[&"open", &secret]),
        step("done", &[&"touch", &done]),
    ]);
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    let policy = policy(ctx, &secret);
    let words = [
        "enforce",
        "--format",
        "json",
        "--guard",
        "--fail-closed",
        "--policy",
        &policy,
    ];
    let mut started = Stockade::start(ctx, words.into_iter().chain(["--tree", &pid]));
    started.until_stderr("pinned as kept");
    fs::create_dir(BESIDE).unwrap();
    let monitor = started.process.pid();
    let pins = format!("{ROOT}/kept");
    let program = text(&ctx.bin);
    fs::write(
        &about,
        format!("{monitor} {} {pins} {program}", armed_map()),
    )
    .unwrap();
    fs::write(&go, "").unwrap();
    poll("the attempts", || tried.exists().then_some(()));
    // Who is not held goes on as before.
    for what in ["map", "pinned-map", "signal-0", "descriptor", "status"] {
        assert_eq!(operation(what, text(&about)), Ok(()), "{what}");
    }
    fs::remove_dir(BESIDE).unwrap();
    let expected: Vec<(String, String)> = ATTEMPTS
        .iter()
        .filter_map(|(.., told)| told.map(|(of, how)| (of.to_owned(), how.to_owned())))
        .collect();
    poll("the denials", || {
        (told(&started.events()).len() >= expected.len()).then_some(())
    });
    assert_eq!(told(&started.events()), expected);

    // cgroup.kill asks nobody: the monitor goes, and the fence stays, and so does what it keeps.
    if can_kill_groups {
        fs::write(group.join("cgroup.procs"), monitor.to_string()).unwrap();
        fs::write(&switch, "1").unwrap();
    } else {
        started.process.signal(Signal::KILL);
    }
    let events = started.events();
    assert_eq!(started.wait().code, 128 + 9);
    poll("the end of the group", || fs::remove_dir(&group).ok());
    fs::write(&gone, "").unwrap();
    poll("the rest", || done.exists().then_some(()));
    assert_eq!(helper.wait(), 0);
    let (_, found) = results(&out);
    let errno = |label: &str| {
        let found = found.iter().find(|done| done.label == label);
        found.unwrap_or_else(|| panic!("no step {label}")).errno
    };
    let mut denials = events.iter().filter(|e| e["event.action"] == "denial");
    for (what, expected, told) in ATTEMPTS {
        assert_eq!(errno(what), *expected, "{what}");
        if told.is_some() {
            let way = format!("guard/{what}");
            bypass::observed(&way, bypass::ANYWHERE, *expected, denials.next());
        }
    }
    for later in ["later-map", "later-unlink", "secret"] {
        assert_eq!(errno(later), EPERM, "{later}");
    }
    // What nobody has read is there for the next one, who is not held.
    let sleeper = shell("exec sleep 1000", "", "", Vec::new());
    let pid = sleeper.pid().to_string();
    let words = [
        "enforce",
        "--format",
        "json",
        "--fail-closed",
        "--policy",
        &policy,
    ];
    let mut next = Stockade::start(ctx, words.into_iter().chain(["--tree", &pid]));
    next.until_stderr("pinned as kept");
    poll("what was told of nobody", || {
        (next.events().len() >= 4).then_some(())
    });
    next.process.signal(Signal::TERM);
    let ended = next.wait();
    let alone: Vec<&Value> = ended.of("denial").collect();
    assert_eq!(alone.len(), 3, "{:#?}", ended.events);
    for (later, denial) in ["later-map", "later-unlink"].iter().zip(&alone) {
        let way = format!("guard/{later}");
        bypass::observed(&way, bypass::ANYWHERE, EPERM, Some(denial));
    }
    if can_kill_groups {
        bypass::observed("guard/cgroup-kill", bypass::ANYWHERE, 0, None);
    }
    assert_eq!(stockade(ctx, ["unpin", "kept"]).code, 0);
    nothing_is_left();
    Outcome::Passed
}

fn command(ctx: &Ctx) -> Outcome {
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let run = |guard: &[&str]| {
        let mut words = vec!["run", "--format", "json", "--deny-file", text(&secret)];
        words.extend_from_slice(guard);
        words.extend(["--", "sh", "-c", "kill -9 $PPID; cat secret >/dev/null"]);
        stockade(ctx, words)
    };
    let ended = run(&["--guard"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let rule = format!("deny-file:{}", text(&secret));
    let both = [("monitor", "signal"), (rule.as_str(), "")];
    let both = both.map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(told(&ended.events), both, "{}", ended.stderr);
    ended.complete();
    // Also where the policy only reports.
    let ended = run(&["--guard", "--audit"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(told(&ended.events), both, "{}", ended.stderr);
    // Without it the monitor can be killed by a command that is root's.
    assert_eq!(run(&[]).code, 128 + 9);
    Outcome::Passed
}

fn refused(ctx: &Ctx) -> Outcome {
    let secret = ctx.path("secret");
    fs::write(&secret, "secret").unwrap();
    let policy = policy(ctx, &secret);
    let me = std::process::id().to_string();
    for (words, code, says) in [
        (
            vec!["--host"],
            2,
            "nobody would be left who can take it down",
        ),
        (
            vec!["--tree", &me],
            1,
            "which could not take it down again; nothing is armed",
        ),
    ] {
        let all = [
            "enforce", "--format", "json", "--guard", "--policy", &policy,
        ];
        let ended = stockade(ctx, all.into_iter().chain(words));
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    let ended = stockade(ctx, ["run", "--format", "json", "--guard", "--", "true"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("there is nothing to guard"),
        "{}",
        ended.stderr
    );
    Outcome::Passed
}
