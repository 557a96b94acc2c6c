//! What the memory monitor counts, held against what the kernel tells the process itself.
//!
//! Called as `vm --memory OUT` this program changes its memory in known steps; as `vm --eat CGROUP` it is killed for it.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fence::text;
use crate::harness::{
    Ctx, Ended, Needs, Outcome, Process, Stockade, Test, number, poll, stockade, word,
};
use crate::helper::in_child;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "memory_is_counted_as_the_kernel_tells_the_process",
        Needs::Watch,
        summary,
    ),
    Test::new(
        "memory_of_a_process_that_runs_is_told_each_interval",
        Needs::Watch,
        interval,
    ),
    Test::new(
        "memory_changes_come_with_address_size_and_result",
        Needs::Watch,
        events,
    ),
    Test::new(
        "process_that_is_killed_for_its_memory_is_reported",
        Needs::Watch,
        oom,
    ),
];

const PAGE: usize = 4096;
const MAPPED: usize = 1024 * PAGE;
const HEAP: usize = 3 * PAGE;
const LIMIT: u64 = 16 << 20;

/// Makes each change once, and each mistake; nothing else in it allocates.
fn change_memory(status: &CString) -> i32 {
    // SAFETY: new memory of our own; the heap is left where it was; the buffer and the names outlive the calls.
    unsafe {
        let (rw, private) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let map = |len: usize| libc::mmap(std::ptr::null_mut(), len, rw, private, -1, 0);
        let at = map(MAPPED).cast::<u8>();
        for page in (0..MAPPED).step_by(PAGE) {
            at.add(page).write_volatile(1);
        }
        let mut ok = map(0) == libc::MAP_FAILED && map(1 << 60) == libc::MAP_FAILED;
        ok &= libc::munmap(at.cast(), MAPPED / 2) == 0;
        ok &= libc::munmap(at.add(1).cast(), PAGE) == -1;
        let heap = libc::syscall(libc::SYS_brk, 0);
        let grown = heap + HEAP as libc::c_long;
        ok &= libc::syscall(libc::SYS_brk, grown) == grown;
        ok &= libc::syscall(libc::SYS_brk, heap + (1 << 60)) == grown;
        ok &= libc::syscall(libc::SYS_brk, heap) == heap;
        let mut buffer = [0u8; 4096];
        let from = libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY);
        let len = libc::read(from, buffer.as_mut_ptr().cast(), buffer.len());
        let to = libc::open(status.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600);
        ok &= libc::write(to, buffer.as_ptr().cast(), len.unsigned_abs()) == len;
        i32::from(!ok)
    }
}

/// Entry as `--memory OUT`: the child's pid, what wait4 says of it, and in `OUT.status` what it read of itself.
pub(crate) fn main(args: &[String]) -> i32 {
    let status = CString::new(format!("{}.status", args[0])).expect("no NUL");
    let (pid, code) = in_child(|| change_memory(&status));
    // SAFETY: plain numbers, filled in by the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours. There was one child.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let line = format!("{pid} {} {}", usage.ru_minflt, usage.ru_majflt);
    fs::write(&args[0], line).expect("the results can be written");
    code
}

/// Entry as `--eat CGROUP`: a child goes there and takes more than there is.
pub(crate) fn eat(args: &[String]) -> i32 {
    let (pid, code) = in_child(|| {
        fs::write(format!("{}/cgroup.procs", args[0]), "0").expect("the cgroup takes us");
        let mut eaten: Vec<u8> = Vec::new();
        eaten.resize(4 * LIMIT as usize, 1);
        std::hint::black_box(&eaten);
        0
    });
    println!("{{\"event.action\":\"eaten\",\"pid\":{pid}}}");
    i32::from(code != 1000 + libc::SIGKILL)
}

struct Truth {
    pid: u64,
    minor: u64,
    major: u64,
    status: String,
}

impl Truth {
    fn read(out: &Path) -> Truth {
        let numbers: Vec<u64> = fs::read_to_string(out)
            .expect("the helper has run")
            .split(' ')
            .map(|n| n.parse().expect("a number"))
            .collect();
        let status = fs::read_to_string(out.with_extension("status")).expect("the child's status");
        Truth {
            pid: numbers[0],
            minor: numbers[1],
            major: numbers[2],
            status,
        }
    }
}

/// A size of /proc/PID/status in bytes.
fn size(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    let kib = line.and_then(|l| l.split_whitespace().next());
    kib.and_then(|n| n.parse::<u64>().ok())
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        * 1024
}

/// What the CPUs have not yet added to the three kinds of resident pages, in our numbers or in the kernel's own.
fn near(event: &Value, key: &str, truth: u64) {
    let cpus = std::thread::available_parallelism().map_or(8, std::num::NonZero::get) as u64;
    let ours = number(event, key);
    let slack = 3 * 64 * cpus * PAGE as u64;
    assert!(ours.abs_diff(truth) <= slack, "{key} is {truth}: {event}");
}

fn watched(ctx: &Ctx, watch: &str, command: &[&str]) -> Ended {
    let mut args = vec!["run", "--monitor", watch, "--format", "json", "--"];
    args.extend_from_slice(command);
    let ended = stockade(ctx, args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    ended
}

fn of(ended: &Ended, action: &str, pid: u64) -> Vec<Value> {
    ended
        .of(action)
        .filter(|e| number(e, "process.pid") == pid)
        .cloned()
        .collect()
}

fn summary(ctx: &Ctx) -> Outcome {
    let out = ctx.path("truth");
    let command = [text(&ctx.helper), "--memory", text(&out)];
    let ended = watched(ctx, "memory", &command);
    let truth = Truth::read(&out);
    let lines = of(&ended, "memory_summary", truth.pid);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    for (key, expected) in [
        ("minor_faults", truth.minor),
        ("major_faults", truth.major),
        ("mmap_calls", 3),
        ("mmap_bytes", MAPPED as u64),
        ("munmap_calls", 2),
        ("munmap_bytes", MAPPED as u64 / 2),
        ("brk_calls", 4),
        ("brk_grown_bytes", HEAP as u64),
        ("brk_shrunk_bytes", HEAP as u64),
        ("virtual_bytes", size(&truth.status, "VmSize:")),
        ("peak_virtual_bytes", size(&truth.status, "VmPeak:")),
    ] {
        let key = format!("stockade.memory.{key}");
        let ours = number(line, &key);
        // Where the end is seen before the memory is given back, that can still fault.
        let later = if ctx.host && key.ends_with("faults") {
            8
        } else {
            0
        };
        assert!(
            ours <= expected && ours + later >= expected,
            "{key} is {expected}: {line}"
        );
    }
    let mut failures = line["stockade.memory.failures"].as_array().unwrap().clone();
    failures.sort_by_key(ToString::to_string);
    assert_eq!(
        failures,
        [
            json!({"call": "brk", "error": "ENOMEM", "count": 1}),
            json!({"call": "mmap", "error": "EINVAL", "count": 1}),
            json!({"call": "mmap", "error": "ENOMEM", "count": 1}),
            json!({"call": "munmap", "error": "EINVAL", "count": 1}),
        ]
    );
    near(
        line,
        "stockade.memory.rss_bytes",
        size(&truth.status, "VmRSS:"),
    );
    near(
        line,
        "stockade.memory.anon_bytes",
        size(&truth.status, "RssAnon:"),
    );
    near(
        line,
        "stockade.memory.file_bytes",
        size(&truth.status, "RssFile:"),
    );
    near(
        line,
        "stockade.memory.peak_rss_bytes",
        size(&truth.status, "VmHWM:"),
    );
    assert_eq!(line["stockade.memory.ended"], true);
    Outcome::Passed
}

fn interval(ctx: &Ctx) -> Outcome {
    let sleeper = Process(Command::new("sleep").arg("100").spawn().expect("sleep"));
    // Not before it runs its own program.
    poll("the exec of sleep", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", sleeper.pid())).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", sleeper.pid())).ok()?;
        (name == "sleep\n" && stat.contains(") S ")).then_some(())
    });
    let pid = sleeper.pid().to_string();
    let watch = Stockade::start(
        ctx,
        [
            "monitor",
            "memory",
            "--pid",
            &pid,
            "--interval",
            "0.2",
            "--format",
            "json",
        ],
    );
    poll("the first look", || {
        watch
            .events()
            .iter()
            .any(|e| e["event.action"] == "memory_summary")
            .then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    watch.process.signal(rustix::process::Signal::INT);
    let ended = watch.wait();
    let lines: Vec<&Value> = ended.of("memory_summary").collect();
    // It sleeps: there is nothing new after the first look.
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0];
    assert_eq!(word(line, "process.name"), "sleep");
    assert_eq!(number(line, "stockade.memory.minor_faults"), 0);
    let virtual_bytes = number(line, "stockade.memory.virtual_bytes");
    assert_eq!(virtual_bytes, size(&status, "VmSize:"), "{line}");
    near(line, "stockade.memory.rss_bytes", size(&status, "VmRSS:"));
    near(
        line,
        "stockade.memory.peak_rss_bytes",
        size(&status, "VmHWM:"),
    );
    assert!(line.get("stockade.memory.ended").is_none(), "{line}");
    Outcome::Passed
}

fn events(ctx: &Ctx) -> Outcome {
    let out = ctx.path("truth");
    let command = [text(&ctx.helper), "--memory", text(&out)];
    let ended = watched(ctx, "memory=events", &command);
    let all = of(&ended, "memory", Truth::read(&out).pid);
    let seen: Vec<(&str, i64, Option<&str>)> = all
        .iter()
        .map(|e| {
            let bytes = e["stockade.memory.bytes"].as_i64().expect("a number");
            (
                word(e, "stockade.memory.call"),
                bytes,
                e.get("error.code").and_then(Value::as_str),
            )
        })
        .collect();
    let (mapped, heap, page) = (MAPPED as i64, HEAP as i64, PAGE as i64);
    assert_eq!(
        seen,
        [
            ("mmap", mapped, None),
            ("mmap", 0, Some("EINVAL")),
            ("mmap", 1 << 60, Some("ENOMEM")),
            ("munmap", -mapped / 2, None),
            ("munmap", -page, Some("EINVAL")),
            ("brk", 0, None),
            ("brk", heap, None),
            ("brk", 0, Some("ENOMEM")),
            ("brk", -heap, None),
        ]
    );
    let first = &all[0];
    assert_eq!(
        first["stockade.memory.protection"],
        json!(["PROT_READ", "PROT_WRITE"])
    );
    assert_eq!(
        first["stockade.memory.flags"],
        json!(["MAP_PRIVATE", "MAP_ANONYMOUS"])
    );
    assert_eq!(
        first["stockade.memory.address"], all[3]["stockade.memory.address"],
        "what was mapped was given back"
    );
    Outcome::Passed
}

/// A new cgroup with a limit, removed with the value.
struct Limited(PathBuf);

impl Limited {
    fn new() -> Result<Self, String> {
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let mount = |what: &dyn Fn(&str) -> bool| {
            let line = table.lines().find(|l| what(l))?;
            line.split(' ').nth(4).map(PathBuf::from)
        };
        let own = format!("stockade-memory-{}", std::process::id());
        let v2 = mount(&|l| l.contains(" - cgroup2 ")).filter(|root| {
            let has = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            has.split_whitespace().any(|c| c == "memory")
                && fs::write(root.join("cgroup.subtree_control"), "+memory").is_ok()
        });
        let v1 = || mount(&|l| l.contains(" - cgroup ") && l.ends_with(",memory"));
        let (root, limit) = match (v2, v1()) {
            (Some(root), _) => (root, "memory.max"),
            (None, Some(root)) => (root, "memory.limit_in_bytes"),
            (None, None) => return Err("no cgroup can limit memory here".to_owned()),
        };
        let made = Limited(root.join(own));
        fs::create_dir(&made.0).map_err(|e| e.to_string())?;
        fs::write(made.0.join(limit), LIMIT.to_string()).map_err(|e| e.to_string())?;
        // Where there is swap, it would be filled first.
        let _ = fs::write(made.0.join("memory.swap.max"), "0");
        Ok(made)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // The last process of a cgroup leaves it some time after it has ended.
        poll("an empty cgroup", || fs::remove_dir(&self.0).ok());
    }
}

fn oom(ctx: &Ctx) -> Outcome {
    let limited = match Limited::new() {
        Ok(limited) => limited,
        Err(why) => return Outcome::Skipped(why),
    };
    for form in ["memory", "memory=events"] {
        let command = [text(&ctx.helper), "--eat", text(&limited.0)];
        let ended = watched(ctx, form, &command);
        let victim = ended.of("eaten").map(|e| number(e, "pid")).next();
        let kills: Vec<&Value> = ended.of("oom").collect();
        assert_eq!(kills.len(), 1, "{kills:?}");
        let kill = kills[0];
        assert_eq!(Some(number(kill, "process.pid")), victim, "{kill}");
        assert_eq!(
            kill["stockade.oom.trigger.entity_id"],
            kill["process.entity_id"]
        );
        let held = number(kill, "stockade.memory.anon_bytes");
        assert!(held > LIMIT / 2 && held < 2 * LIMIT, "{kill}");
        assert!(number(kill, "stockade.memory.virtual_bytes") > 4 * LIMIT);
        assert!(number(kill, "stockade.memory.table_bytes") > 0);
    }
    Outcome::Passed
}
