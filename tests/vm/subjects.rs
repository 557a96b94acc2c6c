//! Rules about some programs and users alone.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{Errno, Result};

use stockade::policy::{
    Access, Actor, Contact, Environment, Request, RuleSet, Verdict, evaluate, evaluate_contact,
};

use crate::fence::{EPERM, confined, denials_of, text};
use crate::harness::{Ctx, Ended, Needs, Outcome, Process, Stockade, Test, poll, stockade, word};
use crate::helper::{Done, Step, check, outside, results, step};
use crate::mounts::{file_system, overlay};
use crate::pins::{NAME, PINNED, Unpinned, kill};
use crate::places::{loader, policy_named, policy_of};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "rules_tell_programs_and_users_apart_on_tmpfs",
        Needs::Fence,
        |ctx| apart(ctx, "tmpfs"),
    ),
    Test::new(
        "rules_tell_programs_and_users_apart_on_ext4",
        Needs::Fence,
        |ctx| apart(ctx, "ext4"),
    ),
    Test::new(
        "program_is_known_without_a_monitor_and_anew_when_it_is_replaced",
        Needs::Fence,
        known,
    ),
    Test::new(
        "user_is_the_same_one_below_an_overlay",
        Needs::Fence,
        below_overlay,
    ),
    Test::new(
        "nobody_speaks_through_a_program_that_rules_name",
        Needs::Fence,
        through,
    ),
    Test::new(
        "program_that_cannot_be_told_from_others_is_in_no_rule",
        Needs::Fence,
        weak,
    ),
];

const USER: u32 = 1000;

/// What a shell does by itself, without another program, and what that is to the evaluator.
const DONE: [(&str, &str, Access, &str); 8] = [
    ("read-secret", "read x < secret", Access::READ, "secret"),
    ("read-both", "read x < both", Access::READ, "both"),
    ("append", "echo x >> log", Access::WRITE, "log"),
    ("make-inside", ": > sub/$$", Access::CREATE, "sub/new"),
    (
        "make-outside",
        ": > beside/$$",
        Access::CREATE,
        "beside/new",
    ),
    ("run", "./tool", Access::EXEC, "tool"),
    ("connect", "", Access::CONNECT, ""),
    // It goes on without a library that it is told to load and may not map.
    (
        PRELOAD,
        "while read line; do case $line in *r-xp*libs/one*) exit 0; esac; done < /proc/$$/maps; exit 1",
        Access::EXEC,
        "libs/one",
    ),
];
const PRELOAD: &str = "preload";

/// Who does it: how the shell is called, and who that is to the rules.
const WHO: [(&str, &str, u32); 6] = [
    ("trusted", "trusted", 0),
    ("linked", "trusted", 0),
    ("other", "other", 0),
    ("copy", "copy", 0),
    ("trusted", "trusted", USER),
    ("other", "other", USER),
];

/// A script inside the fence, which runs to its end.
fn run(ctx: &Ctx, policy: &Path, script: &str) -> Ended {
    let args = ["run", "--format", "json", "--policy", text(policy)];
    let ended = stockade(
        ctx,
        args.into_iter().chain(["--", "/bin/bash", "-c", script]),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

fn apart(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let root = fs::canonicalize(root).unwrap();
    let at = |name: &str| root.join(name);
    for directory in [&ctx.dir, &root] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["secret", "both", "log"] {
        fs::write(at(name), "x\n").unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    for name in ["sub", "beside", "libs"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    for name in ["trusted", "other", "copy"] {
        fs::copy("/bin/bash", at(name)).unwrap();
    }
    fs::hard_link(at("trusted"), at("linked")).unwrap();
    fs::copy("/bin/true", at("tool")).unwrap();
    let library = fs::canonicalize(loader())
        .unwrap()
        .with_file_name("libm.so.6");
    fs::copy(library, at("libs/one")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let here = root.display();
    let sections = format!(
        "files:\n\
         - {{ id: keys, deny: [read], paths: [{here}/secret], not_by: {{ exe: {here}/trusted }} }}\n\
         - {{ id: both, deny: [read], paths: [{here}/both], by: {{ exe: [{here}/trusted], uid: {USER} }} }}\n\
         - {{ id: log, deny: [write], paths: [{here}/log], by: {{ uid: [{USER}, 7] }}, errno: EACCES }}\n\
         - {{ id: inside, allow: [create], paths: ['{here}/sub/**'], by: {{ exe: {here}/trusted }}, errno: EROFS }}\n\
         exec:\n\
         - {{ id: tool, deny: [{here}/tool], not_by: {{ exe: {here}/trusted, uid: 0 }} }}\n\
         - {{ id: libs, deny: ['{here}/libs/**'], by: {{ exe: {here}/trusted }} }}\n\
         network:\n\
         - {{ id: net, deny: connect, to: ['{address}'], by: {{ exe: [{here}/other, {here}/copy] }}, not_by: {{ uid: {USER} }} }}\n"
    );
    let policy = policy_of(ctx, &sections);
    let results = ctx.path("results");
    fs::write(&results, "").unwrap();

    // Each by a shell of its own; the one around them, which no rule names, notes what became of it.
    let mut script = format!("cd {here}\n");
    let connect = format!(": < /dev/tcp/127.0.0.1/{}", address.port());
    for (name, _, uid) in WHO {
        let set = match uid {
            0 => String::new(),
            uid => format!("setpriv --reuid {uid} --clear-groups "),
        };
        for (label, does, _, _) in DONE {
            let does = if does.is_empty() { &connect } else { does };
            let with = match label {
                PRELOAD => format!("LD_PRELOAD={here}/libs/one "),
                _ => String::new(),
            };
            writeln!(
                script,
                "{with}{set}./{name} -c '{does}' 2>/dev/null; echo \"{name} {uid} {label} $?\" >> {}",
                results.display()
            )
            .unwrap();
        }
    }
    let ended = run(ctx, &policy, &script);

    let env = Environment::new(None, root.clone());
    let set = RuleSet::read(&policy, &env).unwrap();
    let noted = fs::read_to_string(&results).unwrap();
    let noted: HashMap<String, bool> = noted
        .lines()
        .map(|line| {
            let (what, code) = line.rsplit_once(' ').expect("an exit code");
            (what.to_owned(), code == "0")
        })
        .collect();
    let mut refused = 0;
    for (name, is, uid) in WHO {
        let exe = at(is);
        let actor = Actor::ANYBODY.running(&exe).user(uid);
        for (label, _, access, path) in DONE {
            let said = if access == Access::CONNECT {
                let transport = Some(stockade::event::Transport::Tcp);
                let contact = Contact::new(address, transport, access);
                evaluate_contact(&set, &contact.by(actor)).verdict
            } else {
                evaluate(&set, &Request::new(&at(path), access).by(actor)).verdict
            };
            let what = format!("{name} {uid} {label}");
            assert_eq!(noted[&what], said == Verdict::Allow, "{what}");
            refused += usize::from(said == Verdict::Deny);
        }
    }
    assert_eq!(noted.len(), WHO.len() * DONE.len());
    assert!((10..noted.len() - 10).contains(&refused), "{refused}");
    let told: Vec<&str> = ended.of("denial").map(|e| word(e, "rule.id")).collect();
    assert_eq!(told.len(), refused, "{told:?}");
    for rule in ["keys", "both", "log", "inside", "tool", "libs", "net"] {
        assert!(told.contains(&rule), "{told:?}");
    }
    ended.complete();
    Outcome::Passed
}

/// What is tried, with the errno of who is refused it and what is told of that; with another program than the named one, or
/// with rules that only report, each has the outcome that it has outside of every fence.
const WAYS: [(&str, i32, &str); 6] = [
    ("memory", EACCES, "trace"),
    ("write-memory", EPERM, "trace"),
    ("descriptor", EPERM, "trace"),
    ("trace", EPERM, "trace"),
    ("start-traced", EPERM, "exec"),
    ("claim", EPERM, "claim"),
];
const EACCES: i32 = 13;

/// The step of the tests' helper: what is done with a program.
pub(crate) fn operation(what: &str, program: &str) -> Result<()> {
    match what {
        "start-traced" => start_traced(program),
        // Where this one's file is still mapped nobody may say so; but that is looked at last.
        "claim" => {
            let file = fs::File::open(program).expect("a program");
            let fd = libc::c_ulong::try_from(file.as_raw_fd()).expect("a descriptor");
            // SAFETY: plain numbers.
            let claimed =
                unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, fd, 0, 0) };
            check(claimed).map(drop)
        }
        other => panic!("nothing is done by {other}"),
    }
}

/// Starts a program that this process debugs from before it runs.
fn start_traced(program: &str) -> Result<()> {
    let path = CString::new(program).expect("no NUL");
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: this process has one thread, and its copy only asks for what is allowed there.
    let pid = check(unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::execv(path.as_ptr(), argv.as_ptr());
            libc::_exit(*libc::__errno_location());
        }
        pid
    })?;
    let pid = i32::try_from(pid).expect("a pid");
    let mut status = 0;
    // SAFETY: our own child.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    if libc::WIFSTOPPED(status) {
        // SAFETY: as above; it has not been waited for to its end.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        // SAFETY: as above.
        check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
        return Ok(());
    }
    Err(Errno::from_raw_os_error(libc::WEXITSTATUS(status)))
}

fn through(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "tmpfs");
    let (named, other) = (root.join("named"), root.join("other"));
    fs::copy("/bin/cat", &named).unwrap();
    fs::copy("/bin/cat", &other).unwrap();
    let waiting = |program: &Path| {
        let child = Command::new(program).stdin(Stdio::piped()).spawn().unwrap();
        let exe = format!("/proc/{}/exe", child.id());
        poll("the program", || {
            (fs::read_link(&exe).ok()? == program).then_some(())
        });
        Process(child)
    };
    let steps_about = |program: &Path, process: &Process| -> Vec<Step> {
        let about = ctx.path(&format!("about-{}", process.pid()));
        fs::write(&about, format!("{} 0 - -", process.pid())).unwrap();
        let steps = WAYS.iter().map(|(what, ..)| match *what {
            "start-traced" | "claim" => step(what, &[&"subject", what, &program]),
            what => step(what, &[&"reach", &what, &about]),
        });
        steps.collect()
    };
    let (of_named, of_other) = (waiting(&named), waiting(&other));
    let about_named = steps_about(&named, &of_named);
    let about_other = steps_about(&other, &of_other);
    let errnos = |done: &[Done]| done.iter().map(|d| d.errno).collect::<Vec<_>>();
    let free = errnos(&outside(&about_named));
    // What is written to is nobody's memory, and the claim fails for what is mapped: both behind the rights.
    assert_eq!(free, [0, libc::EFAULT, 0, 0, 0, libc::EBUSY]);

    let rule = |extra: &str| {
        let (secret, named) = (root.join("secret"), named.display());
        let secret = secret.display();
        policy_of(
            ctx,
            &format!(
                "files:\n- {{ id: keys, deny: [read], paths: [{secret}], not_by: {{ exe: {named} }}{extra} }}"
            ),
        )
    };
    let out = ctx.path("out");
    let run = |policy: &Path, steps: &[Step]| {
        let args = confined(["--policy", text(policy)], &out, steps, ctx);
        let ended = stockade(ctx, args);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let (_, done) = results(&out);
        (ended, done)
    };
    let policy = rule("");
    let (ended, done) = run(&policy, &about_named);
    assert_eq!(errnos(&done), WAYS.map(|(_, errno, _)| errno));
    for (done, (what, _, access)) in done.iter().zip(WAYS) {
        // What is started and claimed is so by a process of its own, or by the step.
        if what != "start-traced" {
            let denials = denials_of(&ended, done);
            assert_eq!(denials.len(), 1, "{what}: {denials:?}");
        }
        let told = ended.of("denial").any(|denial| {
            word(denial, "rule.id") == "guard"
                && word(denial, "stockade.guarded") == "program"
                && denial["stockade.access"][0] == access
        });
        assert!(told, "{what}");
    }
    ended.complete();

    // A program that no rule names is debugged as before; only that one runs another one is nobody's to say.
    let (_, done) = run(&policy, &about_other);
    assert_eq!(errnos(&done), [0, libc::EFAULT, 0, 0, 0, EPERM]);
    let (ended, done) = run(&rule(", mode: audit"), &about_named);
    assert_eq!(errnos(&done), free);
    assert_eq!(ended.of("denial").count(), 0);
    Outcome::Passed
}

/// Pinned, without its monitor, taken over; with the program as it was, and with another one in its place.
fn known(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let (root, _mounted) = file_system(ctx, "tmpfs");
    let here = root.display();
    for name in ["named", "other", "next"] {
        fs::copy("/bin/bash", root.join(name)).unwrap();
    }
    fs::write(root.join("secret"), "x\n").unwrap();
    let rule = format!(
        "{{ id: keys, deny: [read], paths: [{here}/secret], not_by: {{ exe: {here}/named }} }}"
    );
    let policy = policy_named(ctx, NAME, &format!("files: [{rule}]"));
    let (dir, results) = (text(&ctx.dir), ctx.path("results"));
    let script = format!(
        "cd {here}; for n in 0 1 2 3; do while ! [ -e {dir}/go-$n ]; do sleep 0.05; done; \
         for p in named other; do ./$p -c 'read x < secret' 2>/dev/null; echo $n $p $? >> {0}; done; \
         touch {dir}/ready-$n; done",
        text(&results)
    );
    let mut shell = Process(
        Command::new("/bin/bash")
            .args(["-c", &script])
            .spawn()
            .unwrap(),
    );
    let pid = shell.pid().to_string();
    let enforce = || {
        let words = ["enforce", "--format", "json", "--policy", text(&policy)];
        let more = ["--tree", &pid, "--fail-closed"];
        let mut enforce = Stockade::start(ctx, words.into_iter().chain(more));
        enforce.until_stderr(PINNED);
        enforce
    };
    let done = |n: usize| {
        fs::write(ctx.path(&format!("go-{n}")), "").unwrap();
        let ready = ctx.path(&format!("ready-{n}"));
        poll("the programs", || ready.exists().then_some(()));
    };
    let first = enforce();
    done(0);
    kill(first);
    done(1);
    fs::rename(root.join("next"), root.join("named")).unwrap();
    done(2);
    let second = enforce();
    done(3);
    assert_eq!(shell.wait(), 0);
    kill(second);
    let noted = fs::read_to_string(&results).unwrap();
    let noted: Vec<&str> = noted.lines().collect();
    assert_eq!(
        noted,
        [
            "0 named 0",
            "0 other 1",
            "1 named 0",
            "1 other 1",
            "2 named 1",
            "2 other 1",
            "3 named 0",
            "3 other 1"
        ]
    );
    Outcome::Passed
}

/// What overlayfs does in its layers it does as who has mounted it, and it is done for somebody else.
fn below_overlay(ctx: &Ctx) -> Outcome {
    let (at, results) = (ctx.path("merged"), ctx.path("results"));
    fs::create_dir_all(&at).unwrap();
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let _mounted = overlay(ctx, &at);
    let secret = ctx.path("lower").join("secret");
    fs::write(&secret, "x\n").unwrap();
    let policy = policy_of(
        ctx,
        &format!(
            "files:\n- {{ id: keys, deny: [read], paths: [{}], by: {{ uid: {USER} }} }}",
            secret.display()
        ),
    );
    let read = format!("/bin/cat {} > /dev/null 2>&1", at.join("secret").display());
    let script = format!(
        "{read}; echo $? >> {0}; setpriv --reuid {USER} --clear-groups {read}; echo $? >> {0}",
        text(&results)
    );
    run(ctx, &policy, &script);
    assert_eq!(fs::read_to_string(&results).unwrap(), "0\n1\n");
    Outcome::Passed
}

/// On overlayfs several files can have one identity: a rule about a program there is none that can be kept.
fn weak(ctx: &Ctx) -> Outcome {
    let at = ctx.path("merged");
    fs::create_dir_all(&at).unwrap();
    let _mounted = overlay(ctx, &at);
    let program = at.join("program");
    fs::copy("/bin/true", &program).unwrap();
    let refused = |program: &Path, because: &str, code: i32| {
        let rule = format!(
            "files:\n- {{ id: keys, deny: [read], paths: [/etc/shadow], not_by: {{ exe: {} }} }}",
            program.display()
        );
        let policy = policy_of(ctx, &rule);
        let ended = stockade(ctx, ["run", "--policy", text(&policy), "--", "/bin/true"]);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(because), "{}", ended.stderr);
    };
    refused(&program, "several files can have one identity", 40);
    refused(&at.join("gone"), "gone does not exist; nothing is armed", 1);
    refused(&at, "is no program; nothing is armed", 1);
    Outcome::Passed
}
