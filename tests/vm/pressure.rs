//! More than anybody can read: what is left out, and that it is all counted.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::bypass;
use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, word};
use crate::helper::in_child;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "flood_delivers_every_denial_and_counts_the_rest",
        Needs::Fence,
        flood,
    ),
    Test::new(
        "full_ring_leaves_out_processes_but_no_fork_and_no_exit",
        Needs::Watch,
        small_ring,
    ),
    Test::new("sample_takes_whole_processes", Needs::Watch, sample),
    Test::new(
        "noisy_process_is_held_to_its_limit_and_others_are_heard",
        Needs::Watch,
        limit,
    ),
];

/// What each process of a storm does.
#[derive(Debug, Clone, Copy)]
struct Storm {
    processes: u64,
    opens: u64,
    connects: u64,
    writes: u64,
    refused: u64,
}

/// Entry as the program that makes the storm: `DIR PROCESSES OPENS CONNECTS WRITES REFUSED`.
pub(crate) fn main(args: &[String]) -> i32 {
    let dir = Path::new(&args[0]);
    let counts: Vec<u64> = args[1..]
        .iter()
        .map(|n| n.parse().expect("a count"))
        .collect();
    let storm = Storm {
        processes: counts[0],
        opens: counts[1],
        connects: counts[2],
        writes: counts[3],
        refused: counts[4],
    };
    let path = |name: &str| CString::new(text(&dir.join(name))).expect("a path without NUL");
    let (open, refused) = (path("open"), path("refused"));
    let null = File::create("/dev/null").expect("/dev/null");
    // Four at a time, each with its share: they take the CPUs from each other.
    let crowd = 4.min(storm.processes);
    let children: Vec<libc::pid_t> = (0..crowd)
        .map(|n| {
            // SAFETY: this program has one thread, so the child may do whatever the parent may.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork");
            if pid == 0 {
                for _ in 0..storm.processes / crowd + u64::from(n < storm.processes % crowd) {
                    in_child(|| rage(storm, &open, &refused, &null));
                }
                // SAFETY: ends the child without the parent's clean-up.
                unsafe { libc::_exit(0) };
            }
            pid
        })
        .collect();
    for pid in children {
        // SAFETY: a child of ours; nobody else waits for it.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    0
}

fn rage(storm: Storm, open: &CString, refused: &CString, null: &File) -> i32 {
    let try_open = |path: &CString| {
        // SAFETY: a path that ends with NUL.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd >= 0 {
            // SAFETY: just opened, and nobody else has it.
            unsafe { libc::close(fd) };
        }
    };
    for _ in 0..storm.opens {
        try_open(open);
    }
    for _ in 0..storm.refused {
        try_open(refused);
    }
    for _ in 0..storm.connects {
        assert!(
            TcpStream::connect(("127.0.0.1", 1)).is_err(),
            "nobody listens on port 1"
        );
    }
    for _ in 0..storm.writes {
        // SAFETY: one byte of ours.
        unsafe { libc::write(null.as_raw_fd(), b"x".as_ptr().cast(), 1) };
    }
    0
}

/// Runs the storm with these options; `watch` sees the running tool from time to time.
fn run(ctx: &Ctx, storm: Storm, options: &[&str], mut watch: impl FnMut(u32)) -> Ended {
    for name in ["open", "refused"] {
        fs::write(ctx.path(name), b"x").unwrap();
    }
    let this = std::env::current_exe().expect("our own path");
    let counts = [
        storm.processes,
        storm.opens,
        storm.connects,
        storm.writes,
        storm.refused,
    ]
    .map(|n| n.to_string());
    let mut args = vec!["run", "--process", "--file", "--syscalls", "write"];
    args.extend((storm.connects > 0).then_some("--network"));
    args.extend_from_slice(options);
    args.extend_from_slice(&[
        "--format",
        "json",
        "--",
        text(&this),
        "--storm",
        text(&ctx.dir),
    ]);
    args.extend(counts.iter().map(String::as_str));
    let mut started = Stockade::start(ctx, args);
    while !started.process.has_ended() {
        watch(started.process.pid());
        std::thread::sleep(Duration::from_millis(20));
    }
    started.wait()
}

/// The events of the processes that raged: those whose parent's parent is the storm.
fn of_the_storm(ended: &Ended) -> Vec<&Value> {
    let storm = ended
        .of("exec")
        .find(|e| e["process.args"][1] == "--storm")
        .expect("the storm's exec");
    let parent_of: BTreeMap<&str, &str> = ended
        .of("fork")
        .map(|e| {
            (
                word(e, "stockade.child.entity_id"),
                word(e, "process.entity_id"),
            )
        })
        .collect();
    let storm = word(storm, "process.entity_id");
    ended
        .events
        .iter()
        .filter(|e| {
            let id = e["process.entity_id"].as_str();
            let parent = id.and_then(|id| parent_of.get(id));
            parent.and_then(|p| parent_of.get(p)) == Some(&storm)
        })
        .collect()
}

/// Of these kinds: the events seen, lost, left out by sampling and by the limit, in the whole run.
fn counts(ended: &Ended) -> BTreeMap<&'static str, [u64; 4]> {
    let end = ended.events.last().expect("an end record");
    let kinds = end["stockade.kinds"].as_array().expect("kinds");
    let losses = end["stockade.losses"].as_array().expect("losses");
    ["open", "connect", "syscall"]
        .into_iter()
        .map(|kind| {
            let lost = losses.iter().filter(|l| l["of"] == kind);
            let count = kinds.iter().find(|k| k["kind"] == kind);
            let part = |key: &str| count.and_then(|k| k[key].as_u64()).unwrap_or(0);
            let lost = lost.map(|l| number(l, "count")).sum();
            (
                kind,
                [part("seen"), lost, part("sampled"), part("suppressed")],
            )
        })
        .collect()
}

/// What the program does before it storms; the same in every test.
fn before(ctx: &Ctx) -> &'static BTreeMap<&'static str, [u64; 4]> {
    static BEFORE: OnceLock<BTreeMap<&str, [u64; 4]>> = OnceLock::new();
    BEFORE.get_or_init(|| {
        let calm = Storm {
            processes: 0,
            opens: 0,
            connects: 0,
            writes: 0,
            refused: 0,
        };
        counts(&run(ctx, calm, &["--sample", "all"], |_| ()))
    })
}

/// What a preemptible kernel kept from these programs (docs/KERNELS.md), as it was told.
fn skipped(ended: &Ended, program: &str) -> u64 {
    ended
        .of("loss")
        .filter(|e| e["stockade.loss.cause"] == "skipped")
        .filter(|e| word(e, "stockade.loss.of").starts_with(program))
        .map(|e| number(e, "stockade.loss.count"))
        .sum()
}

/// By kind: what was seen, lost and left out is what was generated, to the last one.
fn all_are_counted(ctx: &Ctx, ended: &Ended, storm: Storm) -> BTreeMap<&'static str, [u64; 4]> {
    let before = before(ctx);
    let found = counts(ended);
    for (kind, program, each) in [
        ("open", "file_open", storm.opens + storm.refused),
        ("connect", "network_", storm.connects),
        ("syscall", "syscall_", storm.writes),
    ] {
        let skipped = skipped(ended, program);
        let counted: u64 = found[kind].iter().sum();
        let generated = storm.processes * each + before[kind].iter().sum::<u64>();
        assert!(
            counted <= generated && generated <= counted + skipped,
            "{kind}: {generated} generated, {skipped} skipped, [seen, lost, sampled, suppressed] is {:?}: {:?}",
            found[kind],
            ended.events.last()
        );
    }
    let exits = of_the_storm(ended)
        .iter()
        .filter(|e| e["event.action"] == "exit")
        .count() as u64;
    assert_eq!(exits, storm.processes);
    found
}

fn anonymous_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Forks, opens, connects and writes at once, with the ring as it is, and refused opens among them.
fn flood(ctx: &Ctx) -> Outcome {
    let storm = Storm {
        processes: 24,
        opens: 150,
        connects: 20,
        writes: 150,
        refused: 5,
    };
    let refused = ctx.path("refused");
    let mut sizes = Vec::new();
    let ended = run(ctx, storm, &["--deny-file", text(&refused)], |pid| {
        sizes.extend(anonymous_kib(pid));
    });
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let denials = ended.of("denial").count() as u64;
    assert_eq!(
        denials,
        storm.processes * storm.refused,
        "{:?}",
        ended.events.last()
    );
    let denial = ended.of("denial").next().unwrap();
    assert_eq!(denial["error.code"], "EPERM");
    bypass::observed("around/flood", bypass::ANYWHERE, EPERM, Some(denial));
    all_are_counted(ctx, &ended, storm);
    let (first, last) = (sizes[sizes.len() / 4], sizes[sizes.len() - 1]);
    assert!(
        last < first + 4096 && last < 24 * 1024,
        "anonymous memory grew from {first} to {last} KiB"
    );
    Outcome::Passed
}

/// The ring is too small on purpose.
fn small_ring(ctx: &Ctx) -> Outcome {
    let storm = Storm {
        processes: 40,
        opens: 200,
        connects: 0,
        writes: 200,
        refused: 0,
    };
    let ended = run(ctx, storm, &["--ring-kib", "32"], |_| ());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found = all_are_counted(ctx, &ended, storm);
    assert!(
        found["open"][2] + found["syscall"][2] > 0,
        "nothing was left out: {found:?}"
    );
    // The stream says so while it happens, and how much of it was heard.
    let told: u64 = ended
        .of("sampled")
        .inspect(|e| assert_eq!(e["stockade.sampled.reason"], "ring", "{e}"))
        .map(|e| number(e, "stockade.sampled.left_out"))
        .sum();
    let left_out: u64 = found.values().map(|[_, _, sampled, _]| sampled).sum();
    assert!(told >= left_out, "{told} told, {left_out} left out");
    let end = ended.events.last().expect("an end record");
    assert_eq!(end["stockade.complete"], false);
    Outcome::Passed
}

fn sample(ctx: &Ctx) -> Outcome {
    let storm = Storm {
        processes: 60,
        opens: 10,
        connects: 0,
        writes: 10,
        refused: 0,
    };
    let ended = run(ctx, storm, &["--sample", "1/4"], |_| ());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found = all_are_counted(ctx, &ended, storm);
    assert!(found["open"][2] > 0 && found["open"][0] > 0, "{found:?}");
    let mut heard: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for event in of_the_storm(&ended) {
        let counts = heard.entry(word(event, "process.entity_id")).or_default();
        match word(event, "event.action") {
            "open" => counts[0] += 1,
            "syscall" => counts[1] += 1,
            _ => {}
        }
    }
    assert_eq!(heard.len() as u64, storm.processes);
    // Whoever is heard is heard with everything, but for what the kernel kept from the programs.
    let chosen = heard.values().filter(|counts| **counts != [0, 0]);
    let missing = chosen.fold([0, 0], |[opens, calls], counts| {
        [opens + 10 - counts[0], calls + 10 - counts[1]]
    });
    let kept = [skipped(&ended, "file_open"), skipped(&ended, "syscall_")];
    assert!(
        missing[0] <= kept[0] && missing[1] <= kept[1],
        "{missing:?} are missing and {kept:?} were skipped: {heard:?}"
    );
    assert!(
        ended
            .of("sampled")
            .all(|e| e["stockade.sampled.reason"] == "asked")
    );
    Outcome::Passed
}

fn limit(ctx: &Ctx) -> Outcome {
    let noisy = Storm {
        processes: 1,
        opens: 1500,
        connects: 0,
        writes: 0,
        refused: 0,
    };
    let ended = run(ctx, noisy, &["--process-limit", "100"], |_| ());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found = all_are_counted(ctx, &ended, noisy);
    let [seen, lost, sampled, suppressed] = found["open"];
    assert!(suppressed > 0 && seen >= 100, "{found:?}");
    assert_eq!((lost, sampled), (0, 0));
    // One process has done it, and it is named.
    let raged = word(of_the_storm(&ended)[0], "process.entity_id");
    let mut told = 0;
    for event in ended.of("suppressed") {
        assert_eq!(event["process.entity_id"], raged, "{event}");
        assert_eq!(event["stockade.suppressed.limit"], 100, "{event}");
        told += number(event, "stockade.suppressed.count");
    }
    assert_eq!(told, suppressed);

    // Below the limit nobody is held back, whatever all together send.
    let quiet = Storm {
        processes: 16,
        opens: 20,
        connects: 0,
        writes: 20,
        refused: 0,
    };
    let ended = run(ctx, quiet, &["--process-limit", "100"], |_| ());
    let found = all_are_counted(ctx, &ended, quiet);
    assert_eq!(found["open"][3] + found["syscall"][3], 0, "{found:?}");
    Outcome::Passed
}
