//! What the memory monitor tells of the kernel's allocations, held against a program that makes known ones.
//!
//! Called as `vm --allocate DIR` this program makes them and gives them back, each when it is told to.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, poll, word};

pub(crate) const TESTS: &[Test] = &[Test::new(
    "allocations_are_told_by_process_and_call_site_until_they_are_freed",
    Needs::Watch,
    allocations,
)];

const PAGE: u64 = 4096;
/// Pipes of the largest size that everybody may have: slots of a `struct pipe_buffer` each, and the whole pages that
/// these take (`kmalloc` has no caches above 8 KiB).
const PIPES: u64 = 32;
const SLOTS: u64 = 256;
const SLOT: u64 = 40;
const RING: u64 = (SLOTS * SLOT).next_power_of_two();
/// Pages of a file in memory.
const PAGES: u64 = 1024;
/// Sockets that are connected; as many are made for the other end in an interrupt.
const SOCKETS: u64 = 300;
/// Pages that a CPU may still have in a list of those that came in last, from where the kernel has yet to take them
/// (`PAGEVEC_SIZE`, 31 at most).
const BATCH: u64 = 31;

/// Entry as `--allocate DIR`.
pub(crate) fn main(args: &[String]) -> i32 {
    let dir = Path::new(&args[0]);
    let note = |name: &str| fs::write(dir.join(name), "").expect("the step can be noted");
    let wait = |name: &str| poll(name, || dir.join(name).exists().then_some(()));
    let size = i32::try_from(SLOTS * PAGE).expect("a number");
    let pipes: Vec<_> = (0..PIPES)
        .map(|_| rustix::pipe::pipe().expect("a pipe"))
        .collect();
    for (_, writer) in &pipes {
        // SAFETY: numbers only.
        let sized = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
        assert_eq!(sized, size, "{}", std::io::Error::last_os_error());
    }
    // SAFETY: the name is ours; the descriptor is new.
    let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"pages".as_ptr(), 0)) };
    let page = [1u8; PAGE as usize];
    for _ in 0..PAGES {
        assert_eq!(rustix::io::write(&file, &page), Ok(page.len()));
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket that listens");
    // SAFETY: numbers only.
    let listens = unsafe { libc::listen(listener.as_raw_fd(), 1024) };
    assert_eq!(listens, 0, "room for all of them");
    let address = listener.local_addr().expect("its address");
    let connected: Vec<TcpStream> = (0..SOCKETS)
        .map(|_| TcpStream::connect(address).expect("a connection"))
        .collect();
    note("held");
    wait("free");
    drop(pipes);
    rustix::fs::ftruncate(&file, 0).expect("the file can be emptied");
    drop(listener);
    drop(connected);
    note("freed");
    wait("end");
    0
}

/// What a line of `memory_outstanding` says, with the names of its functions.
struct Line<'a> {
    event: &'a Value,
    functions: Vec<&'a str>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}*{} by {}",
            word(self.event, "stockade.outstanding.source"),
            self.number("allocations"),
            self.number("bytes"),
            self.functions.join(" ")
        )
    }
}

impl<'a> Line<'a> {
    fn new(event: &'a Value) -> Self {
        let kernel = event["stockade.outstanding.kernel"].as_array();
        let functions = kernel.into_iter().flatten();
        Line {
            event,
            functions: functions.filter_map(|f| f["function"].as_str()).collect(),
        }
    }

    fn is(&self, source: &str, function: &str) -> bool {
        word(self.event, "stockade.outstanding.source") == source && self.calls(function)
    }

    fn calls(&self, part: &str) -> bool {
        self.functions.iter().any(|f| f.contains(part))
    }

    /// The slab allocator's own pages, which it keeps.
    fn is_stock(&self) -> bool {
        self.calls("slab")
    }

    fn number(&self, key: &str) -> u64 {
        number(self.event, &format!("stockade.outstanding.{key}"))
    }
}

/// How often was looked until now.
fn looks(watch: &Stockade) -> usize {
    let events = watch.events();
    let lines = events
        .iter()
        .filter(|e| e["event.action"] == "memory_outstanding");
    let times: BTreeSet<&str> = lines.map(|e| word(e, "@timestamp")).collect();
    times.len()
}

/// The lines of the last look that is told to its end, which is when another one has begun.
fn last_look(events: &[Value]) -> Vec<Line<'_>> {
    let lines: Vec<&Value> = events
        .iter()
        .filter(|e| e["event.action"] == "memory_outstanding")
        .collect();
    let newest = lines.last().map(|e| &e["@timestamp"]);
    let Some(last) = lines.iter().rfind(|e| Some(&e["@timestamp"]) != newest) else {
        return Vec::new();
    };
    lines
        .iter()
        .filter(|e| e["@timestamp"] == last["@timestamp"])
        .map(|e| Line::new(e))
        .collect()
}

/// Allocations, bytes and bytes asked for at all call sites like this.
fn sum(lines: &[Line<'_>], like: impl Fn(&Line<'_>) -> bool) -> [u64; 3] {
    let of = |key| -> u64 {
        let wanted = lines.iter().filter(|line| like(line));
        wanted.map(|line| line.number(key)).sum()
    };
    ["allocations", "bytes", "requested_bytes"].map(of)
}

fn ring(line: &Line<'_>) -> bool {
    line.is("slab", "pipe_resize_ring")
}

fn file(line: &Line<'_>) -> bool {
    line.is("page", "shmem_") && !line.is_stock()
}

/// The sockets themselves, without what a security module keeps for each.
fn sockets(line: &Line<'_>) -> bool {
    line.is("slab", "sk_prot_alloc") && !line.calls("security_")
}

fn allocations(ctx: &Ctx) -> Outcome {
    let step = |name: &str| ctx.path(name);
    let mut watch = Stockade::start(
        ctx,
        [
            "run",
            "--monitor",
            "memory",
            "--allocations",
            "--interval",
            "0.5",
            "--format",
            "json",
            "--",
            text(&ctx.helper),
            "--allocate",
            text(&ctx.dir),
        ],
    );
    poll("the allocations", || {
        let ended = watch.process.has_ended();
        assert!(!ended, "{}", watch.stderr());
        step("held").exists().then_some(())
    });
    let held = [PIPES, PIPES * RING, PIPES * SLOTS * SLOT];
    // The one that was under way, the one that has everything, and one more to tell that it is told to the end.
    let before = looks(&watch);
    poll("three looks", || {
        (looks(&watch) >= before + 3).then_some(())
    });
    let events = watch.events();
    let lines = last_look(&events);
    let told: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let told = told.join("\n");
    assert_eq!(sum(&lines, ring), held, "{told}");
    assert_eq!(
        sum(&lines, file),
        [PAGES, PAGES * PAGE, PAGES * PAGE],
        "{told}"
    );
    // With the one that listens.
    assert_eq!(sum(&lines, sockets)[0], SOCKETS + 1, "{told}");
    // What the slots of the pipes lie in.
    let block = |line: &Line<'_>| line.is("page", "pipe_resize_ring");
    assert_eq!(sum(&lines, block), [PIPES, held[1], held[1]], "{told}");
    let bytes: Vec<u64> = lines.iter().map(|line| line.number("bytes")).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
    // Behind them those that have become empty.
    let full = bytes.iter().filter(|bytes| **bytes > 0).count();
    assert!(full <= 20, "{bytes:?}");
    // The other ends of the connections are as many and as large. They are made in an interrupt.
    let by_interrupt = |line: &Line<'_>| line.calls("softirq") || line.calls("tcp_v4_rcv");
    assert_eq!(sum(&lines, by_interrupt), [0, 0, 0], "{told}");
    for line in &lines {
        let first = line.functions.first().copied().unwrap_or_default();
        assert!(!first.starts_with("bpf_") && !first.is_empty(), "{told}");
    }

    fs::write(step("free"), "").expect("the step can be noted");
    poll("the frees", || step("freed").exists().then_some(()));
    let gone = |like: fn(&Line<'_>) -> bool, growth: i64| {
        let events = watch.events();
        let lines = events.iter().map(Line::new);
        let mut lines = lines.filter(|l| l.event["event.action"] == "memory_outstanding");
        lines.any(|line| {
            like(&line)
                && line.number("bytes") == 0
                && line.event["stockade.outstanding.growth_bytes"] == growth
        })
    };
    let shrunk = |bytes: u64| -i64::try_from(bytes).expect("a number");
    poll("a line that says that the pipes are gone", || {
        gone(ring, shrunk(held[1])).then_some(())
    });
    poll("looks after that", || {
        let events = watch.events();
        let lines = last_look(&events);
        let none = |line: &Line<'_>| (ring(line) || sockets(line)) && line.number("bytes") > 0;
        (!lines.is_empty() && !lines.iter().any(none)).then_some(())
    });
    let events = watch.events();
    let lines = last_look(&events);
    let cpus = std::thread::available_parallelism().map_or(8, std::num::NonZero::get) as u64;
    let [pages, ..] = sum(&lines, file);
    assert!(pages <= BATCH * cpus, "{pages} pages of an empty file");

    fs::write(step("end"), "").expect("the step can be noted");
    let ended = watch.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    totals(&ended);
    complete(ctx, &ended);
    Outcome::Passed
}

/// What was counted over the session is at least what is known, and nothing was freed that was not allocated.
fn totals(ended: &Ended) {
    let total = |key: &str| -> u64 {
        let key = format!("stockade.memory.{key}");
        let lines = ended.of("memory_allocations");
        lines.map(|line| number(line, &key)).sum()
    };
    let (rings, left) = (PIPES * RING, BATCH * 8);
    for (key, at_least) in [
        ("page_allocations", PAGES + PIPES),
        ("page_allocated_bytes", PAGES * PAGE + rings),
        ("page_frees", PAGES + PIPES - left),
        ("page_freed_bytes", (PAGES - left) * PAGE + rings),
        ("slab_allocations", SOCKETS + PIPES),
        ("slab_requested_bytes", PIPES * SLOTS * SLOT),
        ("slab_allocated_bytes", rings),
        ("slab_frees", SOCKETS + PIPES),
        ("slab_freed_requested_bytes", PIPES * SLOTS * SLOT),
        ("slab_freed_bytes", rings),
    ] {
        let found = total(key);
        assert!(found >= at_least, "{key}: {found} of {at_least}");
    }
    for (freed, allocated) in [
        ("page_frees", "page_allocations"),
        ("page_freed_bytes", "page_allocated_bytes"),
        ("slab_frees", "slab_allocations"),
        ("slab_freed_requested_bytes", "slab_requested_bytes"),
        ("slab_freed_bytes", "slab_allocated_bytes"),
    ] {
        assert!(total(freed) <= total(allocated), "{freed}");
    }
}

/// Nothing was lost; but for what an interrupt did while a program of ours ran, and, from 7.0 on, another task
/// (docs/KERNELS.md, "Skipped programs").
fn complete(ctx: &Ctx, ended: &Ended) {
    let last = ended.events.last().expect("an end record");
    let reasons = last["stockade.incomplete_reasons"].as_array();
    for reason in reasons.into_iter().flatten().filter_map(Value::as_str) {
        let skipped = reason.starts_with("the kernel skipped allocation_");
        // No table knows what that kernel tells.
        let guessed = ctx.host && !reason.contains("lost");
        let losses = &last["stockade.losses"];
        assert!(skipped || guessed, "{reason}: {losses}");
    }
    assert_eq!(
        ended
            .of("loss")
            .find(|e| e["stockade.loss.cause"] != "skipped"),
        None
    );
}
