//! What a program under rules about system calls is refused, and what it is left.

use std::fs;
use std::path::Path;

use rustix::io::{Errno, Result};
use rustix::process::Signal;
use stockade::policy::{Environment, RuleSet};
use stockade::{ErrorKind, Scope, Session};

use crate::bypass;
use crate::fence::{EPERM, denials_of, text, until_ready};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, poll, stockade};
use crate::helper::{Done, Step, arguments, check, outside, results, step};
use crate::places::{policy_of, under};
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "denied_call_is_refused_in_every_way",
        Needs::Watch,
        every_way,
    ),
    Test::new(
        "only_calls_that_are_allowed_can_be_made",
        Needs::Watch,
        allowed,
    ),
    Test::new(
        "rule_about_calls_says_how_they_are_refused",
        Needs::Watch,
        refusals,
    ),
    Test::new(
        "calls_stay_refused_when_the_monitor_is_killed",
        Needs::Watch,
        outlives,
    ),
    Test::new(
        "calls_cannot_be_refused_to_who_runs_already",
        Needs::Watch,
        running,
    ),
    Test::new(
        "calls_of_who_runs_already_kill_or_are_told",
        Needs::Watch,
        traced,
    ),
    Test::new(
        "files_addresses_and_calls_are_fenced_at_once",
        Needs::Fence,
        together,
    ),
];

/// A process that was ended by SIGKILL, as the helper notes it.
const KILLED: i32 = 1000 + libc::SIGKILL;

/// Makes a call that changes nothing: how, and which one.
pub(crate) fn operation(how: &str, name: &str) -> Result<()> {
    match how {
        "native" => native(name),
        // Answered in the program's own memory, where the kernel keeps what there is to say.
        // SAFETY: it takes nothing.
        "vdso" => check(unsafe { libc::sched_getcpu() }).map(drop),
        "thread" => std::thread::scope(|scope| {
            let made = scope.spawn(|| native(name)).join();
            made.unwrap_or(Err(Errno::IO))
        }),
        #[cfg(target_arch = "x86_64")]
        "compat" => x86::compat(name),
        #[cfg(target_arch = "x86_64")]
        "compat-open" => x86::open(name),
        #[cfg(target_arch = "x86_64")]
        "x32" => x86::x32(name),
        other => panic!("no way {other} to make a call"),
    }
}

fn native(name: &str) -> Result<()> {
    let mut utsname = [0u8; 6 * 65];
    // SAFETY: what each call takes; none of them changes anything but `utsname`.
    let result = unsafe {
        match name {
            "uname" => libc::syscall(libc::SYS_uname, utsname.as_mut_ptr()),
            "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0),
            "setuid" => libc::syscall(libc::SYS_setuid, libc::getuid()),
            "getpgid" => libc::syscall(libc::SYS_getpgid, 0),
            "getsid" => libc::syscall(libc::SYS_getsid, 0),
            "getcpu" => libc::syscall(libc::SYS_getcpu, 0, 0, 0),
            "getpriority" => libc::syscall(libc::SYS_getpriority, 0, 0),
            "io_uring_setup" => {
                let mut params = [0u32; 30];
                libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr())
            }
            other => panic!("no call {other}"),
        }
    };
    check(result).map(drop)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::{Errno, Result};

    /// As 32-bit programs make them: the numbers of arch/x86/entry/syscalls/syscall_32.tbl. What they are to read or write
    /// is at address 0, so that the kernel says EFAULT if it gets as far.
    pub(super) fn compat(name: &str) -> Result<()> {
        let uid = rustix::process::getuid().as_raw();
        match int80(match name {
            "uname" => [122, 0, 0],
            "olduname" => [109, 0, 0],
            "oldolduname" => [59, 0, 0],
            "ptrace" => [26, 0, 0],
            "setuid" => [23, uid, 0],
            "setuid32" => [213, uid, 0],
            "getpgid" => [132, 0, 0],
            // By socketcall, as itself, and one that shares its call with it.
            "socketcall-socketpair" => [102, 8, 0],
            "socketpair" => [360, 1, 1],
            "socketcall-socket" => [102, 1, 0],
            // shmget and shmdt by ipc, with the version that is in the upper half.
            "ipc-shmget" => [117, 23 | 1 << 16, 0],
            "ipc-shmdt" => [117, 22, 0],
            other => panic!("no call {other} of 32-bit programs"),
        }) {
            error @ -4095..=-1 => Err(Errno::from_raw_os_error(-error)),
            _ => Ok(()),
        }
    }

    fn int80([number, first, second]: [u32; 3]) -> i32 {
        let mut result = number;
        // SAFETY: the calls above change nothing but registers. rbx is not for us to name.
        unsafe {
            asm!(
                "xchg rbx, {first}",
                "int 0x80",
                "xchg rbx, {first}",
                // The kernel takes no notice of the upper half.
                first = inout(reg) u64::from(first) | 1 << 32 => _,
                inout("eax") result,
                in("ecx") second,
                in("edx") 0,
                in("esi") 0,
                in("edi") 0,
                out("r8") _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            );
        }
        result.cast_signed()
    }

    /// Opens a file to read it. The path has to be where 32 bits reach.
    pub(super) fn open(path: &str) -> Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "memory");
        assert!(path.len() < 4096, "{path} is too long");
        // SAFETY: the mapping has room for it, and is zero behind it.
        unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), at.cast(), path.len()) };
        let place = u32::try_from(at.addr()).expect("a place in the lower half");
        match int80([5, place, 0]) {
            error @ -4095..=-1 => Err(Errno::from_raw_os_error(-error)),
            _ => Ok(()),
        }
    }

    /// The third table, which kernels need not have.
    pub(super) fn x32(name: &str) -> Result<()> {
        let number = match name {
            "uname" => libc::SYS_uname,
            other => panic!("no call {other} of x32 programs"),
        };
        // SAFETY: without an address there is nothing that it could write.
        super::check(unsafe { libc::syscall(0x4000_0000 | number, 0) }).map(drop)
    }
}

fn call(how: &str, name: &str) -> Step {
    step(&format!("{name}, {how}"), &[&"call", &how, &name])
}

/// How a step ends outside a fence and inside one, and what is told of it: the call, and whether it is of 32 bits.
type Case = (Step, i32, i32, Option<(&'static str, bool)>);

fn cases() -> Vec<Case> {
    let refused = |how: &str, name, free, told: &'static str| {
        (call(how, name), free, EPERM, Some((told, how == "compat")))
    };
    let free = |how: &str, name, errno| (call(how, name), errno, errno, None);
    let mut cases = vec![
        refused("native", "uname", 0, "uname"),
        refused("thread", "uname", 0, "uname"),
        refused("native", "ptrace", 0, "ptrace"),
        refused("native", "setuid", 0, "setuid"),
        // It makes directories as well.
        refused("native", "io_uring_setup", 0, "io_uring_setup"),
        refused("native", "getcpu", 0, "getcpu"),
        free("vdso", "getcpu", 0),
        free("native", "getpgid", 0),
        free("thread", "getsid", 0),
    ];
    if cfg!(target_arch = "x86_64") {
        cases.extend([
            refused("compat", "uname", libc::EFAULT, "uname"),
            refused("compat", "olduname", libc::EFAULT, "olduname"),
            refused("compat", "oldolduname", libc::EFAULT, "oldolduname"),
            refused("compat", "ptrace", 0, "ptrace"),
            refused("compat", "setuid", 0, "setuid"),
            refused("compat", "setuid32", 0, "setuid32"),
            refused(
                "compat",
                "socketcall-socketpair",
                libc::EFAULT,
                "socketpair",
            ),
            refused("compat", "socketpair", libc::EFAULT, "socketpair"),
            refused("compat", "ipc-shmget", libc::EINVAL, "shmget"),
            free("compat", "getpgid", 0),
            free("compat", "socketcall-socket", libc::EFAULT),
            free("compat", "ipc-shmdt", libc::EINVAL),
        ]);
    }
    cases
}

const DENIED: &str =
    "syscalls:\n  - { id: no, deny: [uname, ptrace, setuid, getcpu, mkdirat, socketpair, shmget] }";

fn every_way(ctx: &Ctx) -> Outcome {
    let cases = cases();
    let mut steps: Vec<Step> = cases.iter().map(|(step, ..)| step.clone()).collect();
    for (done, (_, free, ..)) in outside(&steps).iter().zip(&cases) {
        assert_eq!(done.errno, *free, "outside: {}", done.label);
    }
    if cfg!(target_arch = "x86_64") {
        steps.push(call("x32", "uname"));
    }
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, DENIED), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert_eq!(done.len(), steps.len());
    for (done, (_, _, errno, told)) in done.iter().zip(&cases) {
        assert_eq!(done.errno, *errno, "{}", done.label);
        let events = denials_of(&ended, done);
        let Some((name, compat)) = told else {
            assert!(events.is_empty(), "{}: {events:?}", done.label);
            if done.label.ends_with("vdso") {
                bypass::one("call/vdso", bypass::ANYWHERE, &ended, done);
            }
            continue;
        };
        let [event] = events[..] else {
            panic!("{}: {events:?}", done.label);
        };
        assert_eq!(event["stockade.syscall.name"], *name, "{event}");
        // A mark that is left out where it is not set.
        let marked = event["stockade.syscall.compat"] == true;
        assert_eq!(marked, *compat, "{event}");
        assert_eq!(event["rule.id"], "no", "{event}");
        assert_eq!(event["stockade.verdict"], "deny", "{event}");
        assert_eq!(event["event.category"][0], "process", "{event}");
        let (name, how) = done.label.split_once(", ").expect("a name and a way");
        // The calls that another one stands for are ways of their own.
        let way = match (how, name) {
            ("compat", "olduname" | "oldolduname" | "setuid32") => "compat-other-name",
            ("compat", "socketcall-socketpair") => "socketcall",
            ("compat", "ipc-shmget") => "ipc",
            ("native", "io_uring_setup") => "io-uring",
            (how, _) => how,
        };
        bypass::one(&format!("call/{way}"), bypass::ANYWHERE, &ended, done);
    }
    if let Some(x32) = done.get(cases.len()) {
        assert_eq!(x32.errno, libc::ENOSYS, "{}", x32.label);
        bypass::silent("call/x32", bypass::ANYWHERE, &ended, x32);
    }
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["mechanism"], "seccomp", "{end}");
    assert_eq!(end["stockade.fence"]["canary_proofs"], 1, "{end}");
    Outcome::Passed
}

/// What the helper needs to start, to do a step and to note it.
const NEEDED: &str = "access, arch_prctl, brk, clone, clone3, close, dup, dup2, execve, exit, exit_group, faccessat, \
    faccessat2, fcntl, fstat, futex, getegid, geteuid, getgid, getpid, getrandom, gettid, getuid, ioctl, lseek, madvise, \
    mmap, mprotect, mremap, munmap, newfstatat, openat, pipe2, poll, ppoll, prctl, pread64, prlimit64, read, readlink, \
    readlinkat, readv, rseq, rt_sigaction, rt_sigprocmask, rt_sigreturn, sched_getaffinity, sched_yield, \
    set_robust_list, set_tid_address, sigaltstack, statx, tgkill, wait4, waitid, write, writev";

fn allowed(ctx: &Ctx) -> Outcome {
    let rules = format!("syscalls:\n  - {{ id: list, allow: [{NEEDED}] }}");
    let steps = [call("native", "uname"), call("native", "io_uring_setup")];
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, &rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for done in &results(&out).1 {
        assert_eq!(done.errno, EPERM, "{}", done.label);
        let events = denials_of(&ended, done);
        let [event] = events[..] else {
            panic!("{}: {events:?}", done.label);
        };
        assert_eq!(event["rule.id"], "list", "{event}");
        assert_eq!(event["stockade.unlisted"], true, "{event}");
    }
    ended.complete();
    Outcome::Passed
}

fn refusals(ctx: &Ctx) -> Outcome {
    let rules = "syscalls:\n\
        - { id: missing, deny: [getpgid], errno: ENOSYS }\n\
        - { id: deadly, deny: [getsid], action: kill }\n\
        - { id: tried, deny: [getpriority], action: kill, mode: audit }";
    let cases = [
        ("getpgid", libc::ENOSYS, Some(("missing", "deny"))),
        ("getsid", KILLED, Some(("deadly", "kill"))),
        ("getpriority", 0, Some(("tried", "audit"))),
        ("uname", 0, None),
    ];
    let steps: Vec<Step> = cases
        .iter()
        .map(|(name, ..)| call("native", name))
        .collect();
    let out = ctx.path("results");
    let policy = policy_of(ctx, rules);
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for (done, (name, errno, told)) in results(&out).1.iter().zip(&cases) {
        assert_eq!(done.errno, *errno, "{name}");
        let events = denials_of(&ended, done);
        let found: Vec<_> = events
            .iter()
            .map(|e| (e["rule.id"].as_str(), e["stockade.verdict"].as_str()))
            .collect();
        let expected = told.map(|(rule, verdict)| (Some(rule), Some(verdict)));
        assert_eq!(found, Vec::from_iter(expected), "{name}");
    }
    ended.complete();

    // In audit mode nothing is refused, and what the command itself is started by may be ruled as well.
    let policy = policy_of(
        ctx,
        "syscalls:\n- { id: all, deny: [getpgid, getsid, execve] }",
    );
    let out = ctx.path("results of audit");
    let refused = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let sentence = "the rule all (line 4) refuses execve, by which the command itself is started";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    assert!(!out.exists(), "the command has run");
    let audited = stockade(ctx, under(&policy, &["--audit"], &out, &steps, ctx));
    assert_eq!(audited.code, 0, "{}", audited.stderr);
    let done = results(&out).1;
    assert!(done.iter().all(|done| done.errno == 0), "{done:?}");
    let told: Vec<usize> = done.iter().map(|d| denials_of(&audited, d).len()).collect();
    assert_eq!(told, [1, 1, 0, 0]);
    Outcome::Passed
}

fn outlives(ctx: &Ctx) -> Outcome {
    let [ready, go, out] = ["ready", "go", "results"].map(|name| ctx.path(name));
    let steps = [
        step("ready", &[&"touch", &ready]),
        step("go", &[&"wait", &go]),
        call("native", "uname"),
        call("native", "getpgid"),
    ];
    let policy = policy_of(ctx, DENIED);
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    run.process.signal(Signal::KILL);
    run.process.wait();
    fs::write(&go, "").unwrap();
    let done: Vec<Done> = poll("the steps after the monitor's death", || {
        let lines = fs::read_to_string(&out).ok()?.lines().count();
        (lines == 1 + steps.len()).then(|| results(&out).1)
    });
    let errnos: Vec<i32> = done.iter().map(|done| done.errno).collect();
    assert_eq!(errnos, [0, 0, EPERM, 0]);
    Outcome::Passed
}

fn running(ctx: &Ctx) -> Outcome {
    let text = format!("version: 1\n{DENIED}\n");
    let env = Environment::new(None, ctx.dir.clone());
    let rules = RuleSet::parse(&text, "p.yaml", &env).unwrap();
    let session = Session::builder().scope(Scope::new().tree(std::process::id()));
    let refused = session.policy(rules).start().expect_err("a fence");
    assert_eq!(refused.kind(), ErrorKind::NotEnforced);
    let sentence = "the rule no (line 3) is about system calls";
    assert!(refused.to_string().contains(sentence), "{refused}");
    Outcome::Passed
}

fn traced(ctx: &Ctx) -> Outcome {
    let killed = 1000 + libc::SIGKILL;
    let (ends, tells) = (Some(("ends", "kill")), Some(("tells", "audit")));
    let mut cases = vec![
        (call("native", "uname"), killed, ends),
        (call("native", "setuid"), 0, tells),
        (call("native", "getcpu"), 0, Some(("audits", "audit"))),
        (call("native", "getpgid"), 0, None),
    ];
    if cfg!(target_arch = "x86_64") {
        cases.extend([
            (call("compat", "uname"), killed, ends),
            (call("compat", "setuid32"), 0, tells),
            (call("compat", "getpgid"), 0, None),
            // It is in no table of ours, and stands for any.
            (call("x32", "uname"), killed, ends),
        ]);
    }
    // By another policy, and by one without such rules.
    let first = cases.len();
    cases.extend([
        (call("native", "uname"), 0, None),
        (call("native", "getcpu"), killed, Some(("other", "kill"))),
        (call("native", "getcpu"), 0, None),
    ]);
    let out = ctx.path("results");
    let go = [0, 1, 2].map(|n| ctx.path(&format!("go-{n}")));
    let ready = [0, 1].map(|n| ctx.path(&format!("ready-{n}")));
    let mut steps = vec![step("go", &[&"wait", &go[0]])];
    for (n, (step, ..)) in cases.iter().enumerate() {
        let phase = match n {
            n if n == first => 0,
            n if n == first + 2 => 1,
            _ => {
                steps.push(step.clone());
                continue;
            }
        };
        steps.push(crate::helper::step("ready", &[&"touch", &ready[phase]]));
        steps.push(crate::helper::step("go", &[&"wait", &go[phase + 1]]));
        steps.push(step.clone());
    }
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    let policy = policy_of(
        ctx,
        "syscalls:\n  - { id: ends, deny: [uname, ptrace], otherwise: kill }\n  \
         - { id: tells, deny: [setuid], otherwise: log }\n  - { id: audits, deny: [getcpu], mode: audit }",
    );
    let enforce = |whom: &[&str], policy: &Path| {
        let words = ["enforce", "--format", "json", "--monitor", "process"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.extend(whom.iter().map(|&word| word.to_owned()));
        words.extend(["--policy".to_owned(), text(policy).to_owned()]);
        words
    };
    let mut session = Stockade::start(ctx, enforce(&["--tree", &pid], &policy));
    session.until_stderr("fence armed");
    fs::write(&go[0], "").unwrap();
    for (n, sections) in [
        "syscalls:\n  - { id: other, deny: [getcpu], otherwise: kill }",
        "limits:\n  - { id: many, syscall: getcpu, per_second: 1000000, action: log }",
    ]
    .into_iter()
    .enumerate()
    {
        poll("the helper", || ready[n].exists().then_some(()));
        policy_of(ctx, sections);
        let again = || session.stderr().matches("policy read again").count();
        poll("the next policy", || (again() > n).then_some(()));
        fs::write(&go[n + 1], "").unwrap();
    }
    assert_eq!(helper.wait(), 0);
    session.process.signal(Signal::TERM);
    let ended = session.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert_eq!(done.len(), steps.len());
    let done: Vec<&Done> = done.iter().filter(|d| d.label.contains(", ")).collect();
    for (done, (_, errno, told)) in done.into_iter().zip(&cases) {
        assert_eq!(done.errno, *errno, "{}", done.label);
        let events = denials_of(&ended, done);
        let Some((rule, verdict)) = told else {
            assert!(events.is_empty(), "{}: {events:?}", done.label);
            continue;
        };
        let [event] = events[..] else {
            panic!("{}: {events:?}", done.label);
        };
        assert_eq!(event["rule.id"], *rule, "{event}");
        assert_eq!(event["stockade.verdict"], *verdict, "{event}");
        assert_eq!(event["stockade.mechanism"], "tracepoint", "{event}");
        assert_eq!(event.get("error.code"), None, "{event}");
    }
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["mechanism"], "tracepoint", "{end}");
    assert_eq!(end["stockade.fence"]["canary_proofs"], 1, "{end}");
    // Everybody makes it, and so does who arms this.
    let policy = policy_of(
        ctx,
        "syscalls:\n  - { id: all, deny: [read], otherwise: kill }",
    );
    let ended = stockade(ctx, enforce(&["--host"], &policy));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("rule all (line 4) would end who calls read"),
        "{}",
        ended.stderr
    );
    Outcome::Passed
}

fn together(ctx: &Ctx) -> Outcome {
    let secret = ctx.path("secret");
    fs::write(&secret, "text").unwrap();
    let rules = format!(
        "files:\n- {{ id: file, deny: all, paths: ['{}'] }}\n\
         network:\n- {{ id: address, deny: connect, to: [127.0.0.2] }}\n\
         {DENIED}",
        secret.display()
    );
    let steps = [
        step("file", &[&"open", &secret]),
        step("address", &[&"net", &"udp", &"127.0.0.2:9"]),
        call("native", "uname"),
        step("another file", &[&"open", &Path::new("/etc/passwd")]),
        call("native", "getpgid"),
    ];
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, &rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|done| done.errno).collect();
    assert_eq!(errnos, [EPERM, EPERM, EPERM, 0, 0]);
    for (done, rule) in done.iter().zip(["file", "address", "no"]) {
        let events = denials_of(&ended, done);
        assert!(events.iter().all(|e| e["rule.id"] == rule), "{events:?}");
        assert_eq!(events.len(), 1, "{events:?}");
    }
    let end = ended.complete();
    let mechanism = format!("{}+seccomp", ctx.mechanism);
    assert_eq!(end["stockade.fence"]["mechanism"], *mechanism, "{end}");
    Outcome::Passed
}
