//! What an exec says of rights, terminal and origin, held against what the process itself reads in /proc; and what a
//! summary says of CPU time and waits, held against wait4(2) and /proc/PID/schedstat.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fence::text;
use crate::harness::{
    Ctx, Ended, Needs, Outcome, Process, Stockade, Test, number, poll, stockade, word,
};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "exec_says_what_it_brought_where_it_runs_and_from_what_file",
        Needs::Watch,
        rights,
    ),
    Test::new(
        "threads_that_exec_or_outlive_their_leader_and_names_without_values",
        Needs::Watch,
        threads_and_environment,
    ),
    Test::new(
        "cpu_time_and_waits_add_up_to_what_the_kernel_tells_the_parent",
        Needs::Watch,
        crowded,
    ),
    Test::new(
        "cpu_time_from_before_the_session_is_not_told",
        Needs::Watch,
        before,
    ),
];

/// What each of those burns who crowd one CPU.
const BURNT: Duration = Duration::from_millis(250);

/// Entry as the program that the tests have watched.
pub(crate) fn main(args: &[String]) -> i32 {
    let rest: Vec<CString> = args[1..].iter().map(|a| terminated(a)).collect();
    match args[0].as_str() {
        "nobody" => {
            // SAFETY: plain numbers, and one thread.
            let changed = unsafe {
                libc::setgroups(0, std::ptr::null()) == 0
                    && libc::setresgid(65534, 65534, 65534) == 0
                    && libc::setresuid(65534, 65534, 65534) == 0
            };
            assert!(changed, "this is root, who can become nobody");
            let fd = fs::File::open(&args[1]).expect("the program");
            exec(&fd, &rest);
        }
        "memfd" => {
            let fd = rustix::fs::memfd_create("hidden", rustix::fs::MemfdFlags::CLOEXEC)
                .expect("a memory file");
            let mut file = fs::File::from(fd);
            let mut program = fs::File::open(&args[1]).expect("the program");
            std::io::copy(&mut program, &mut file).expect("room for the program");
            exec(&file, &rest);
        }
        "deleted" => {
            let file = fs::File::open(&args[1]).expect("the program");
            fs::remove_file(&args[1]).expect("the program can be removed");
            exec(&file, &rest);
        }
        "thread" => thread(&rest),
        "orphan" => orphan(),
        "crowd" => return crowd(Path::new(&args[1])),
        "earlier" => return earlier(Path::new(&args[1])),
        other => panic!("no work {other}"),
    }
    1
}

/// Another thread than the first executes a program: the kernel ends all others, and gives it the first one's ids.
fn thread(program: &[CString]) {
    let started = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut pointers: Vec<_> = program.iter().map(|a| a.as_ptr()).collect();
                pointers.push(std::ptr::null());
                // SAFETY: a terminated list of terminated strings.
                unsafe { libc::execv(pointers[0], pointers.as_ptr()) }
            })
            .join()
    });
    panic!("exec: {started:?}: {}", std::io::Error::last_os_error());
}

fn cpu_time(of: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(of);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// So much CPU time of this thread, in user mode and in the kernel.
fn burn(time: Duration) {
    let end = cpu_time(rustix::time::ClockId::ThreadCPUTime) + time;
    while cpu_time(rustix::time::ClockId::ThreadCPUTime) < end {
        std::hint::black_box((0..1000u32).fold(0, |a, b| std::hint::black_box(a ^ b)));
        let _ = fs::metadata("/proc/self");
    }
}

/// How long this thread has waited for a CPU, in nanoseconds.
fn waited() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("CONFIG_SCHED_INFO");
    let word = text.split(' ').nth(1).expect("three numbers");
    word.parse().expect("a number")
}

fn waited_burning(time: Duration) -> u64 {
    burn(time);
    waited()
}

/// Children that share one CPU: two that burn, one whose threads do and end before it; then some that end at once. Notes
/// of each what it says itself of its waits, and what wait4 says of it.
fn crowd(out: &Path) -> i32 {
    // SAFETY: plain bits.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    let pinned = unsafe {
        libc::CPU_SET(0, &mut one);
        libc::sched_setaffinity(0, size_of_val(&one), &raw const one)
    };
    assert_eq!(pinned, 0, "there is a first CPU");
    let threads = || {
        let threads = [(); 2].map(|()| std::thread::spawn(|| waited_burning(BURNT / 4)));
        let waited_all: u64 = threads.map(|t| t.join().expect("it burns")).iter().sum();
        // Until the kernel has let go of them.
        std::thread::sleep(Duration::from_millis(100));
        waited_all + waited()
    };
    let start = |work: &dyn Fn() -> u64, code: i32| {
        // SAFETY: this program has one thread, so the child may do whatever the parent may.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let waited = work();
            let own = out.with_extension(std::process::id().to_string());
            fs::write(own, waited.to_string()).expect("the wait can be noted");
            // SAFETY: ends the process without running what the parent will run.
            unsafe { libc::_exit(code) };
        }
        assert!(pid > 0, "fork failed");
        pid
    };
    let mut notes = format!("{}\n", std::process::id());
    let mut note = |pid| {
        let mut status = 0;
        // SAFETY: plain numbers, filled in by the call.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are ours.
        unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        let ns = |t: libc::timeval| t.tv_sec * 1_000_000_000 + t.tv_usec * 1000;
        let own = fs::read_to_string(out.with_extension(pid.to_string())).expect("its note");
        notes += &format!(
            "{pid} {} {} {} {} {} {own}\n",
            libc::WEXITSTATUS(status),
            ns(usage.ru_utime),
            ns(usage.ru_stime),
            usage.ru_nvcsw,
            usage.ru_nivcsw,
        );
    };
    let burning = || waited_burning(BURNT);
    let crowd = [start(&burning, 3), start(&burning, 4), start(&threads, 5)];
    crowd.into_iter().for_each(&mut note);
    for code in 6..9 {
        note(start(&waited, code));
    }
    fs::write(out, notes).expect("the results can be noted");
    0
}

/// Burns, in a thread that ends and in one that stays; says what it has used; and burns again when it is told to.
fn earlier(out: &Path) -> i32 {
    let used = || cpu_time(rustix::time::ClockId::ProcessCPUTime).as_nanos();
    std::thread::spawn(|| burn(BURNT)).join().expect("it burns");
    burn(BURNT);
    fs::write(out.with_extension("ready"), used().to_string()).expect("the time can be noted");
    poll("the go", || out.with_extension("go").exists().then_some(()));
    let go = used();
    std::thread::spawn(|| burn(BURNT / 4))
        .join()
        .expect("it burns");
    burn(BURNT / 4);
    fs::write(out, format!("{go} {}", used())).expect("the times can be noted");
    5
}

/// The first thread ends with 3, and another one works and ends with 7 when that is a zombie.
fn orphan() {
    let pid = std::process::id();
    std::thread::spawn(move || {
        let stat = format!("/proc/{pid}/task/{pid}/stat");
        poll("the end of the first thread", || {
            let text = fs::read_to_string(&stat).expect("the first thread");
            text.contains(") Z ").then_some(())
        });
        let end = Instant::now() + Duration::from_millis(60);
        while Instant::now() < end {}
        // SAFETY: ends this thread, which is the last one.
        unsafe { libc::syscall(libc::SYS_exit, 7) }
    });
    // SAFETY: ends this thread alone; nothing that the other one uses is on its stack.
    unsafe { libc::syscall(libc::SYS_exit, 3) };
}

fn terminated(word: &str) -> CString {
    CString::new(word).expect("no NUL in the tests' names")
}

/// Executes an open file; its arguments begin with its name.
fn exec(file: &fs::File, args: &[CString]) {
    let mut pointers: Vec<_> = args.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: terminated lists of terminated strings; the empty path and the flag mean the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    panic!("exec: {}", std::io::Error::last_os_error());
}

/// The value of a line in /proc/PID/status.
fn status<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// The last exec of a process: what it was when it wrote its own file.
fn exec_of(ended: &Ended, pid: u64) -> &Value {
    ended
        .of("exec")
        .filter(|e| number(e, "process.pid") == pid)
        .last()
        .unwrap_or_else(|| panic!("no exec of {pid}: {:#?}", ended.events))
}

fn rights(ctx: &Ctx) -> Outcome {
    let dir = &ctx.dir;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, group, mode) in [
        ("suid", 0, 0o4755),
        ("sgid", 34, 0o2755),
        ("capable", 0, 0o755),
        ("plain", 0, 0o755),
        ("gone", 0, 0o755),
    ] {
        let path = dir.join(name);
        fs::copy("/bin/cat", &path).unwrap();
        chown(&path, None, Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Revision 2, effective: CAP_NET_BIND_SERVICE and CAP_NET_RAW permitted (include/uapi/linux/capability.h).
    let mut capable = 0x0200_0001_u32.to_le_bytes().to_vec();
    for word in [1_u32 << 10 | 1 << 13, 0, 0, 0] {
        capable.extend(word.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("capable"), "security.capability", &capable, flags).unwrap();

    let script = r#"
        echo 1234 >/proc/self/loginuid
        for name in suid sgid capable plain; do
            "$1" --process nobody "$2/$name" /proc/self/status >"$2/$name.status" || exit 3
        done
        "$1" --process memfd /bin/cat /proc/self/status >"$2/memfd.status" || exit 4
        "$1" --process deleted "$2/gone" /proc/self/status >"$2/gone.status" || exit 5
        FLAVOUR="bitter lemon" setsid -w sh -c 'cat /proc/$$/loginuid >"$1/login"; exec cat /proc/self/status >"$1/login.status"' sh "$2" || exit 6
        unshare --fork --pid --net --uts --ipc --mount --cgroup --user --map-root-user sh -c '
            cd /proc/self/ns && readlink cgroup ipc mnt net pid time user uts >"$1/namespaces"
            exec cat /proc/self/stat >"$1/namespaces.stat"' sh "$2" || exit 8
        script -qec "sh -c 'tty >$2/tty; exec cat /proc/self/stat >$2/tty.stat'" /dev/null >/dev/null || exit 7
    "#;
    let ended = stockade(
        ctx,
        [
            "run",
            "--process",
            "--env",
            "FLAVOUR",
            "--env-values",
            "--format",
            "json",
            "--",
            "sh",
            "-c",
            script,
            "sh",
            text(&ctx.helper),
            text(dir),
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    let unknown = ended
        .of("exec")
        .find(|e| e.get("stockade.gained_unknown").is_some());
    assert_eq!(unknown, None, "an exec whose past was not seen");
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("what the process read");
    let of = |name: &str| {
        let status = read(&format!("{name}.status"));
        let pid = self::status(&status, "Pid").parse().expect("a pid");
        (exec_of(&ended, pid), status)
    };

    for name in ["suid", "sgid", "capable", "plain"] {
        let (exec, status) = of(name);
        let ids = |key| {
            self::status(&status, key)
                .split('\t')
                .nth(1)
                .expect("an id")
        };
        let (user, group) = (ids("Uid"), ids("Gid"));
        let effective = u64::from_str_radix(self::status(&status, "CapEff"), 16).expect("a set");
        assert_eq!(exec["user.id"], "65534", "{exec}");
        let other = |id: &str| (id != "65534").then(|| Value::from(id));
        assert_eq!(
            exec.get("user.effective.id").cloned(),
            other(user),
            "{exec}"
        );
        assert_eq!(
            exec.get("user.effective.group.id").cloned(),
            other(group),
            "{exec}"
        );
        assert_eq!(
            exec.get("stockade.setuid").is_some(),
            name == "suid",
            "{exec}"
        );
        assert_eq!(
            exec.get("stockade.setgid").is_some(),
            name == "sgid",
            "{exec}"
        );
        let gained = exec.get("stockade.capabilities_gained");
        let count = gained.map_or(0, |g| g.as_array().expect("a list").len());
        assert_eq!(count, effective.count_ones() as usize, "{exec}: {status}");
        assert_eq!(name == "suid", count > 30, "{exec}");
        if name == "capable" {
            let expected = json!(["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]);
            assert_eq!(gained, Some(&expected), "{exec}");
        }
        assert_eq!(exec.get("stockade.fileless"), None, "{exec}");
    }
    for (name, why) in [("memfd", "memfd"), ("gone", "deleted")] {
        let (exec, _) = of(name);
        assert_eq!(exec["stockade.fileless"], why, "{exec}");
        assert_eq!(exec.get("stockade.capabilities_gained"), None, "{exec}");
    }

    let (exec, _) = of("login");
    let login = read("login");
    if ctx.host && login == u32::MAX.to_string() {
        // Nobody may log in here.
        assert_eq!(exec.get("stockade.login_uid"), None, "{exec}");
    } else {
        assert_eq!(exec["stockade.login_uid"], login.as_str(), "{exec}");
    }
    assert_eq!(exec.get("stockade.tty"), None, "{exec}");
    let (names, values) = (json!(["FLAVOUR"]), json!(["FLAVOUR=bitter lemon"]));
    assert_eq!(exec["stockade.env_names"], names, "{exec}");
    assert_eq!(exec["process.env_vars"], values, "{exec}");
    assert_eq!(of("plain").0.get("stockade.env_names"), None);

    namespaces(&ended, &read("namespaces"), &read("namespaces.stat"));

    let (tty, stat) = (read("tty"), read("tty.stat"));
    let words: Vec<u64> = stat.split(' ').map(|w| w.parse().unwrap_or(0)).collect();
    let exec = exec_of(&ended, words[0]);
    assert_eq!(
        Path::new("/dev").join(exec["stockade.tty"].as_str().unwrap_or("")),
        Path::new(tty.trim()),
        "{exec}"
    );
    let device = words[6];
    assert_eq!(
        number(exec, "process.tty.char_device.major"),
        device >> 8 & 0xfff,
        "{exec}"
    );
    let minor = device & 0xff | device >> 12 & 0xf_ff00;
    assert_eq!(
        number(exec, "process.tty.char_device.minor"),
        minor,
        "{exec}"
    );
    Outcome::Passed
}

/// Both with one start, which is what takes the time.
fn threads_and_environment(ctx: &Ctx) -> Outcome {
    let (script, recording) = (ctx.path("script"), ctx.path("work.stk"));
    // In a file: what is in the arguments is reported.
    let text_of_script = r#"
        cp /bin/true "$2/program"
        "$1" --process thread "$2/program"
        "$1" --process orphan
        echo $? >"$2/status"
        TOKEN=hush-hush LD_PRELOAD= TOKENS=no ATOKEN=no "$2/program" named
        LONG=$(printf %5000s | tr " " x) TOKEN=also-hush-hush "$2/program" long
    "#;
    fs::write(&script, text_of_script).unwrap();
    let args = [
        "run",
        "--process",
        "--env",
        "TOKEN",
        "--env",
        "LD_PRELOAD",
        "--env",
        "NOWHERE",
    ];
    let more = ["--format", "json", "--record", text(&recording), "--", "sh"];
    let command = [text(&script), text(&ctx.helper), text(&ctx.dir)];
    let ended = stockade(ctx, args.iter().chain(&more).chain(&command));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    let program = ctx.path("program");
    let execs = |wanted: &str| -> Vec<&Value> {
        let is = |e: &&Value| {
            e["process.args"]
                .as_array()
                .is_some_and(|a| a.contains(&wanted.into()))
        };
        ended.of("exec").filter(is).collect()
    };

    // By a thread: the pid stays, the thread that acts is then the first one, and the life ends once.
    let [first] = execs("thread")[..] else {
        panic!("the helper")
    };
    let id = word(first, "process.entity_id");
    let life: Vec<&Value> = ended
        .events
        .iter()
        .filter(|e| e["process.entity_id"] == id)
        .collect();
    let [_, exec, exit] = life[..] else {
        panic!("{life:#?}")
    };
    assert_eq!(exec["process.executable"], text(&program), "{exec}");
    assert_eq!(exec["process.thread.id"], exec["process.pid"], "{exec}");
    assert_eq!(exec.get("stockade.gained_unknown"), None, "{exec}");
    assert_eq!(exit["event.action"], "exit", "{exit}");

    // The first thread ends first: one exit, at the end of the last one, with the first one's code.
    let [first] = execs("orphan")[..] else {
        panic!("the helper")
    };
    let exits: Vec<&Value> = ended
        .of("exit")
        .filter(|e| e["process.entity_id"] == first["process.entity_id"])
        .collect();
    let [exit] = exits[..] else {
        panic!("{exits:#?}")
    };
    let status = fs::read_to_string(ctx.path("status")).unwrap();
    assert_eq!(
        exit["process.exit_code"].to_string(),
        status.trim(),
        "{exit}"
    );
    assert_ne!(exit["process.thread.id"], exit["process.pid"], "{exit}");
    // Which of the two a kernel takes it for depends on where its clock finds the thread, a few times on a slow machine.
    let cpu = number(exit, "stockade.cpu.user_ns") + number(exit, "stockade.cpu.system_ns");
    assert!(cpu > 10_000_000, "{exit}");

    // Names only: no value is anywhere, neither in a line nor in what was recorded.
    for (which, names) in [
        ("named", json!(["TOKEN", "LD_PRELOAD"])),
        ("long", json!(["TOKEN"])),
    ] {
        let [exec] = execs(which)[..] else {
            panic!("{which}")
        };
        let mut found = exec["stockade.env_names"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        found.sort_by_key(|name| name != "TOKEN");
        assert_eq!(Value::from(found), names, "{exec}");
        assert_eq!(exec.get("process.env_vars"), None, "{exec}");
        assert_eq!(exec.get("stockade.env_truncated"), None, "{exec}");
    }
    let recorded = fs::read(&recording).unwrap();
    assert!(
        recorded.windows(5).any(|w| w == b"TOKEN"),
        "no name is in the recording"
    );
    assert!(
        !recorded.windows(9).any(|w| w == b"hush-hush"),
        "a value is in the recording"
    );
    let lines = format!("{:?}", ended.events);
    assert!(!lines.contains("hush-hush"), "a value is in the output");
    Outcome::Passed
}

/// The process that was unshared from everything but time, and everybody else.
fn namespaces(ended: &Ended, links: &str, stat: &str) {
    let pid = stat.split(' ').next().and_then(|w| w.parse().ok());
    let pid = pid.expect("a pid");
    let exec = exec_of(ended, pid);
    let fork = ended
        .of("fork")
        .find(|e| number(e, "stockade.child.pid") == pid)
        .expect("the fork of the process");
    let mut others = 0;
    for line in links.lines() {
        // `net:[4026532000]`
        let (name, inode) = line.split_once(":[").expect("a name and a number");
        let inode = inode.trim_end_matches(']').parse::<u64>();
        let expected = inode.ok().filter(|_| name != "time").map(Value::from);
        let of = |event: &Value, folder: &str| event.get(format!("{folder}.{name}")).cloned();
        assert_eq!(of(exec, "stockade.namespaces"), expected, "{name}: {exec}");
        assert_eq!(
            of(fork, "stockade.child.namespaces"),
            expected,
            "{name}: {fork}"
        );
        others += usize::from(expected.is_some());
    }
    assert_eq!(others, 7, "{links}");
    let named = |e: &&Value| {
        let fields = e.as_object().expect("an object");
        fields.keys().any(|k| k.contains("namespaces."))
    };
    // unshare itself is in them from its call on; its exec and its fork come before and in it.
    let elsewhere: Vec<_> = ended
        .events
        .iter()
        .filter(named)
        .filter(|e| number(e, "process.pid") < number(fork, "process.pid"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// All lines of a process, and the sum of a field in them.
fn summed(ended: &Ended, pid: u64, key: &str) -> (usize, u64) {
    let lines = || {
        ended
            .of("process_summary")
            .filter(|e| number(e, "process.pid") == pid)
    };
    (lines().count(), lines().map(|e| number(e, key)).sum())
}

/// The last line of a process, which says how it ended.
fn last(ended: &Ended, pid: u64) -> &Value {
    let lines: Vec<&Value> = ended
        .of("process_summary")
        .filter(|e| number(e, "process.pid") == pid)
        .collect();
    let last = lines.iter().filter(|e| e["stockade.ended"] == true);
    assert_eq!(last.count(), 1, "{pid} ends once: {lines:?}");
    lines.last().expect("one line")
}

fn crowded(ctx: &Ctx) -> Outcome {
    let out = ctx.path("crowd");
    let ended = stockade(
        ctx,
        [
            "run",
            "--process=summary",
            "--interval",
            "0.3",
            "--format",
            "json",
            "--",
            text(&ctx.helper),
            "--process",
            "crowd",
            text(&out),
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.complete();
    let notes = fs::read_to_string(&out).expect("the helper has run");
    let mut notes = notes.lines();
    let helper = notes.next().and_then(|l| l.parse().ok()).expect("a pid");
    // The command itself has ended a moment before the session.
    assert_eq!(last(&ended, helper)["process.exit_code"], 0);
    let (burnt, ms) = (BURNT.as_nanos() as u64, 1_000_000);
    let works = ["burns", "burns", "threads", "short", "short", "short"];
    let mut unseen = 0;
    for (work, line) in works.iter().zip(notes) {
        let n: Vec<u64> = line
            .split(' ')
            .map(|w| w.parse().expect("a number"))
            .collect();
        let (pid, code, user, system, voluntary, involuntary, waited) =
            (n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
        let end = last(&ended, pid);
        assert_eq!(number(end, "process.exit_code"), code, "{end}");
        assert!(end.get("stockade.threads").is_none(), "{end}");
        let sum = |key: &str| summed(&ended, pid, &format!("stockade.cpu.{key}")).1;
        let used = sum("user_ns") + sum("system_ns");
        let between = |what: &str, ours: u64, least: u64, most: u64| {
            assert!(
                (least..=most).contains(&ours),
                "{work}: {what} is {ours}, and not {least} to {most}: {line}"
            );
        };
        let threads = if *work == "threads" { 3 } else { 1 };
        // wait4 rounds each to microseconds, and may ask while the threads take their last steps.
        between(
            "cpu time",
            used,
            user + system,
            user + system + 5 * ms * threads,
        );
        let slack = 2 * ms + used / 10;
        between(
            "user time",
            sum("user_ns"),
            user.saturating_sub(slack),
            user + slack,
        );
        // The last switch of a thread is one that nobody waits for.
        let switches = sum("voluntary_switches");
        between("voluntary", switches, voluntary, voluntary + threads);
        let switches = sum("involuntary_switches");
        between("involuntary", switches, involuntary, involuntary + 2);
        // It waits on after it has looked, and the more the more others there are.
        let delay = sum("run_delay_ns");
        between("run delay", delay, waited, waited + waited / 4 + 250 * ms);
        match *work {
            "burns" => {
                assert!(user + system >= burnt && waited >= burnt / 2, "{line}");
                assert!(summed(&ended, pid, "stockade.window_ns").0 > 1, "{line}");
            }
            "threads" => assert!(user + system >= burnt / 2, "{line}"),
            _ => unseen += u32::from(summed(&ended, pid, "stockade.window_ns").0 == 1),
        }
    }
    // Only one of those can have been there when somebody looked.
    assert!(unseen >= 2, "{unseen} have one line: {}", ended.stderr);
    Outcome::Passed
}

fn before(ctx: &Ctx) -> Outcome {
    let out = ctx.path("earlier");
    let child = Command::new(&ctx.helper)
        .args(["--process", "earlier", text(&out)])
        .spawn()
        .expect("this program");
    let mut child = Process(child);
    let pid = u64::from(child.pid());
    let ready: u64 = poll("the first half", || {
        fs::read_to_string(out.with_extension("ready"))
            .ok()?
            .parse()
            .ok()
    });
    let watch = Stockade::start(
        ctx,
        [
            "monitor",
            "--process=summary",
            "--pid",
            &pid.to_string(),
            "--interval",
            "0.2",
            "--format",
            "json",
        ],
    );
    // Looking for the go takes time too.
    poll("a first line", || {
        let first = |e: &Value| e["event.action"] == "process_summary";
        watch.events().iter().any(first).then_some(())
    });
    fs::write(out.with_extension("go"), "").expect("the go");
    assert_eq!(child.wait(), 5);
    poll("its last line", || {
        let ended = |e: &Value| e["stockade.ended"] == true;
        watch.events().iter().any(ended).then_some(())
    });
    watch.process.signal(rustix::process::Signal::INT);
    let ended = watch.wait();
    let times = fs::read_to_string(&out).expect("the second half");
    let times: Vec<u64> = times
        .split(' ')
        .map(|w| w.parse().expect("a number"))
        .collect();
    let sum = |key: &str| summed(&ended, pid, &format!("stockade.cpu.{key}")).1;
    let used = sum("user_ns") + sum("system_ns");
    // A tick may pass until the kernel adds up what a running thread uses; then come its last steps.
    let (least, most) = (times[1] - times[0], times[1] - ready + 15_000_000);
    assert!(
        (least..=most).contains(&used),
        "{used} is not {least} to {most}: {times:?}"
    );
    assert_eq!(number(last(&ended, pid), "process.exit_code"), 5);
    Outcome::Passed
}
