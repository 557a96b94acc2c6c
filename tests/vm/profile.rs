//! Where time is spent, held against a program that spends known shares of it in known functions.
//!
//! Called as `vm --burn SECONDS [HOW]` this program uses the CPU for so long; as `vm --doze OUT` it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fence::text;
use crate::harness::{
    Ctx, Ended, Needs, Outcome, Process, Stockade, Test, number, poll, stockade, word,
};
use crate::mounts::cgroup2;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "profile_shows_which_function_uses_which_share_of_the_cpu",
        Needs::Watch,
        shares,
    ),
    Test::new(
        "profile_of_the_host_and_of_a_cgroup_finds_who_is_meant",
        Needs::Watch,
        scopes,
    ),
    Test::new(
        "profile_names_functions_of_a_program_that_is_gone",
        Needs::Watch,
        gone,
    ),
    Test::new(
        "profile_off_cpu_is_the_time_that_was_waited",
        Needs::Watch,
        waits,
    ),
    Test::new(
        "profile_has_what_the_kernel_does_for_a_program",
        Needs::Watch,
        in_kernel,
    ),
    Test::new("profile_says_which_stacks_are_cut_off", Needs::Watch, deep),
    Test::new(
        "profile_says_which_cpus_came_after_its_start",
        Needs::Cpus,
        late_cpu,
    ),
    Test::new(
        "flame_graph_of_a_profile_shows_what_a_command_does",
        Needs::Watch,
        flame,
    ),
];

/// Turns of a loop at a time, and up to twice as many: long enough that a sample between two calls is rare, and not always
/// the same, or the clock could tick in step with it.
const TURNS: u64 = 70_000;
/// Of a hundred: what a share may be off. At 500 samples chance alone makes 2 (one standard deviation).
const TOLERANCE: f64 = 6.0;
/// How long a thread of `--doze` waits in each way, each time, and how often.
const NAPS: u32 = 20;
const NAP: Duration = Duration::from_millis(50);

/// The two differ in a number, so that they are two functions.
#[inline(never)]
fn burn_seventy(seed: u64, turns: u64) -> u64 {
    let mut n = seed;
    for _ in 0..7 * turns {
        n = std::hint::black_box(n.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    n
}

#[inline(never)]
fn burn_thirty(seed: u64, turns: u64) -> u64 {
    let mut n = seed;
    for _ in 0..3 * turns {
        n = std::hint::black_box(n.rotate_left(3).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    }
    n
}

/// More calls than the kernel unwinds.
const DEPTH: u64 = 300;

// Calls itself so often, with frame pointers whatever the compiler does, and burns at last.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".type stockade_deep, @function",
    "stockade_deep:",
    "push rbp",
    "mov rbp, rsp",
    "test rdi, rdi",
    "jz 2f",
    "dec rdi",
    "call stockade_deep",
    "pop rbp",
    "ret",
    "2: call stockade_bottom",
    "pop rbp",
    "ret",
    ".size stockade_deep, . - stockade_deep",
    ".globl stockade_deep",
);

#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
extern "C" fn stockade_bottom() {
    std::hint::black_box(burn_seventy(1, TURNS));
}

/// One round of a burn.
fn round(how: &str, n: u64) -> u64 {
    match how {
        "shares" => {
            let turns = TURNS + (n >> 32) % TURNS;
            burn_thirty(burn_seventy(n, turns), turns)
        }
        "kernel" => {
            let mut bytes = [0u8; 65_536];
            // SAFETY: it writes no more than the length of the buffer.
            let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            assert!(got > 0, "{}", std::io::Error::last_os_error());
            u64::from(bytes[0])
        }
        #[cfg(target_arch = "x86_64")]
        "deep" => {
            unsafe extern "C" {
                fn stockade_deep(more: u64);
            }
            // SAFETY: it keeps to the calling convention, and needs 16 bytes of stack for each turn.
            unsafe { stockade_deep(DEPTH) };
            n
        }
        other => panic!("{other} is no way to burn"),
    }
}

/// Entry as `--burn SECONDS [HOW]`: uses the CPU for that long.
pub(crate) fn burn(args: &[String]) -> i32 {
    let seconds: f64 = args[0].parse().expect("a number of seconds");
    let how = args.get(1).map_or("shares", String::as_str);
    let mut n = 1;
    while cpu_time() < Duration::from_secs_f64(seconds) {
        n = round(how, n);
    }
    std::hint::black_box(n);
    0
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time after the start")
}

#[inline(never)]
fn nap_in_select() {
    // SAFETY: no descriptors, and a time that outlives the call.
    unsafe {
        let mut time = libc::timeval {
            tv_sec: 0,
            tv_usec: NAP.as_micros() as libc::suseconds_t,
        };
        libc::select(
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut time,
        );
    }
}

/// Entry as `--doze OUT`: waits in two ways, and writes how long each took, in microseconds.
pub(crate) fn doze(args: &[String]) -> i32 {
    let timed = |nap: fn()| {
        let start = Instant::now();
        (0..NAPS).for_each(|_| nap());
        start.elapsed().as_micros()
    };
    let sleeping = timed(|| std::thread::sleep(NAP));
    let selecting = timed(nap_in_select);
    fs::write(&args[0], format!("{sleeping} {selecting}")).expect("the results can be written");
    0
}

/// The innermost function of the program itself that was not inlined.
fn leaf(event: &Value) -> &str {
    leaf_frame(event)["function"].as_str().unwrap_or("")
}

fn leaf_frame(event: &Value) -> &Value {
    let frames = event["stockade.profile.user"].as_array();
    let mut own = frames
        .into_iter()
        .flatten()
        .filter(|f| f["inlined"] != true);
    own.next().unwrap_or(&Value::Null)
}

/// Samples by innermost function, of the processes that are meant.
fn leaves(ended: &Ended, is_meant: impl Fn(&Value) -> bool) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for event in ended.of("profile").filter(|e| is_meant(e)) {
        assert_eq!(word(event, "stockade.profile.mode"), "cpu");
        let name = leaf(event).rsplit("::").next().unwrap_or_default();
        *found.entry(name.to_owned()).or_default() += number(event, "stockade.profile.samples");
    }
    found
}

/// 70 and 30 of a hundred, and little else: the start of the program, which takes a while on an emulated machine.
fn assert_shares(found: &BTreeMap<String, u64>, at_least: u64) {
    let all: u64 = found.values().sum();
    let of = |name: &str| found.get(name).copied().unwrap_or(0);
    let burnt = of("burn_seventy") + of("burn_thirty");
    assert!(burnt >= at_least, "only {burnt} samples: {found:?}");
    assert!(burnt * 10 >= all * 7, "{burnt} of {all} samples: {found:?}");
    let share = 100.0 * of("burn_seventy") as f64 / burnt as f64;
    assert!(
        (share - 70.0).abs() <= TOLERANCE,
        "burn_seventy has {share:.1} %: {found:?}"
    );
}

fn shares(ctx: &Ctx) -> Outcome {
    const HZ: f64 = 397.0;
    let helper = text(&ctx.helper);
    let seconds = if ctx.host { 3.0 } else { 8.0 };
    let argument = seconds.to_string();
    let args = [
        "run",
        "--monitor",
        "profile",
        "--freq",
        "397",
        "--format",
        "json",
        "--",
    ];
    let ended = stockade(
        ctx,
        args.iter().copied().chain([helper, "--burn", &argument]),
    );
    ended.complete();
    let found = leaves(&ended, |_| true);
    assert_shares(&found, 300);
    // The clock ticks as often as it was asked to while the process runs. In the emulator the CPUs take turns, up to a
    // tenth of a second each, and whoever waits for its turn takes several ticks for one.
    let total: u64 = found.values().sum();
    let part = total as f64 / (seconds * HZ);
    let least = if ctx.host { 0.8 } else { 0.1 };
    assert!(
        (least..=1.2).contains(&part),
        "{total} samples are {part:.2} of what was asked for"
    );
    let own = ended
        .of("profile")
        .find(|e| leaf(e).ends_with("burn_seventy"));
    let own = own.expect("a sample of it");
    let frame = leaf_frame(own);
    assert_eq!(frame["module"], helper, "{own}");
    let file = frame["file"].as_str().unwrap_or_default();
    assert!(file.ends_with("tests/vm/profile.rs"), "{own}");
    assert!(frame["line"].as_u64().is_some(), "{own}");
    assert!(frame["offset"].as_u64().is_some_and(|n| n < 4096), "{own}");
    Outcome::Passed
}

/// A cgroup of our own, removed with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Cgroup {
        let dir = cgroup2().join(format!("stockade-profile-{}", std::process::id()));
        fs::create_dir(&dir).expect("a cgroup");
        Cgroup(dir)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process of a cgroup leaves it some time after it has ended.
        poll("an empty cgroup", || fs::remove_dir(&self.0).ok());
    }
}

fn scopes(ctx: &Ctx) -> Outcome {
    let helper = text(&ctx.helper);
    let cgroup = Cgroup::new();
    // Both burn before the session begins: what they have mapped is not told to it. They leave the CPUs to it when it
    // wants them.
    let burn = || {
        Process(
            command("nice", &["-n", "19", helper, "--burn", "1000"])
                .spawn()
                .expect("our own program"),
        )
    };
    let (outside, inside) = (burn(), burn());
    fs::write(cgroup.0.join("cgroup.procs"), inside.pid().to_string())
        .expect("the cgroup takes it");
    for scope in [&["--host"][..], &["--cgroup", text(&cgroup.0)]] {
        let mut args = vec!["monitor", "profile", "--format", "json", "--interval", "1"];
        args.extend(scope);
        let mut session = Stockade::start(ctx, args);
        let burns = |events: &[Value], who: &Process| {
            let pid = u64::from(who.pid());
            let mut of = events.iter().filter(|e| e["process.pid"] == pid);
            of.any(|e| leaf(e).ends_with("burn_seventy"))
        };
        poll("a profile of the process", || {
            assert!(
                matches!(session.process.0.try_wait(), Ok(None)),
                "{}",
                session.stderr()
            );
            burns(&session.events(), &inside).then_some(())
        });
        session.process.signal(rustix::process::Signal::TERM);
        let ended = session.wait();
        ended.complete();
        assert_eq!(burns(&ended.events, &outside), scope == ["--host"]);
        // Idle CPUs are not sampled.
        assert!(ended.of("profile").all(|e| e["process.pid"] != 0));
    }
    Outcome::Passed
}

fn command(program: &str, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(args);
    command
}

/// Its process has ended and its file is deleted before anything is told.
fn gone(ctx: &Ctx) -> Outcome {
    let copy = ctx.path("copy");
    let script = format!(
        "cp {} {copy}; {copy} --burn {} & sleep 0.7; rm {copy}; wait",
        text(&ctx.helper),
        if ctx.host { 1.5 } else { 6.0 },
        copy = text(&copy)
    );
    let args = [
        "run",
        "--monitor",
        "profile",
        "--freq",
        "397",
        "--interval",
        "3600",
        "--format",
        "json",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let ended = stockade(ctx, args);
    ended.complete();
    assert!(!copy.exists());
    let found = leaves(&ended, |e| e["process.name"] == "copy");
    assert_shares(&found, 200);
    Outcome::Passed
}

fn in_kernel(ctx: &Ctx) -> Outcome {
    let args = [
        "run",
        "--monitor",
        "profile",
        "--freq",
        "397",
        "--format",
        "json",
        "--",
        text(&ctx.helper),
        "--burn",
        "3",
        "kernel",
    ];
    let ended = stockade(ctx, args);
    ended.complete();
    let (mut all, mut random) = (0, 0);
    for event in ended.of("profile") {
        let samples = number(event, "stockade.profile.samples");
        all += samples;
        let frames = event["stockade.profile.kernel"].as_array();
        let frames: Vec<&Value> = frames.into_iter().flatten().collect();
        let is_random = |f: &&Value| f["function"].as_str().is_some_and(|n| n.contains("random"));
        if frames.iter().any(is_random) {
            random += samples;
            // It was the program that called.
            let user = event["stockade.profile.user"].as_array();
            assert!(user.is_some_and(|u| !u.is_empty()), "{event}");
        }
        for frame in frames {
            assert!(word(frame, "module").starts_with('['), "{event}");
        }
    }
    assert!(all >= 200, "only {all} samples");
    // All but the start of the program, which takes a while on an emulated machine.
    assert!(random * 10 >= all * 6, "{random} of {all} samples");
    Outcome::Passed
}

fn deep(ctx: &Ctx) -> Outcome {
    if cfg!(not(target_arch = "x86_64")) {
        return Outcome::Skipped("the function that calls itself is for x86_64".to_owned());
    }
    let helper = text(&ctx.helper);
    let burn = ["--", helper, "--burn", "1", "deep"];
    let args = ["run", "--monitor", "profile", "--format", "json"];
    let ended = stockade(ctx, args.iter().chain(&burn));
    ended.complete();
    let cut = ended.of("profile").filter(|e| {
        // Whole ones, of the way down and up, end with who called it first. That one has no frame pointer, so who is found in
        // its first instructions has no callers.
        let frames = e["stockade.profile.user"].as_array();
        let frames = frames.map_or(&[][..], Vec::as_slice);
        let outermost = frames.last();
        frames.len() > 2 && outermost.is_some_and(|f| f["function"] == "stockade_deep")
    });
    let cut: Vec<&Value> = cut.collect();
    assert!(!cut.is_empty(), "{:?}", ended.events);
    for event in cut {
        assert_eq!(event["stockade.profile.truncated"], true, "{event}");
    }
    let out = ctx.path("folded");
    let args = ["flame", "--format", "folded", "--output", text(&out)];
    let ended = stockade(ctx, args.iter().chain(&burn));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let folded = fs::read_to_string(&out).expect("the stacks");
    assert!(folded.contains("stockade_deep;stockade_deep"), "{folded}");
    assert!(
        ended.stderr.contains("without their outer functions"),
        "{}",
        ended.stderr
    );
    Outcome::Passed
}

fn waits(ctx: &Ctx) -> Outcome {
    let out = ctx.path("waited");
    let args = [
        "run",
        "--monitor",
        "profile=off-cpu",
        "--min-latency",
        "20ms",
        "--format",
        "json",
        "--",
        text(&ctx.helper),
        "--doze",
        text(&out),
    ];
    let ended = stockade(ctx, args);
    ended.complete();
    let truth = fs::read_to_string(&out).expect("the helper has run");
    let truth: Vec<u64> = truth
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    for (place, expected) in ["nanosleep", "select"].iter().zip(truth) {
        let (mut times, mut us) = (0, 0);
        for event in ended.of("profile") {
            assert_eq!(word(event, "stockade.profile.mode"), "off_cpu");
            let frames = event["stockade.profile.kernel"].as_array();
            let names = frames
                .into_iter()
                .flatten()
                .filter_map(|f| f["function"].as_str());
            let names: Vec<&str> = names.collect();
            assert_eq!(names.first(), Some(&"__schedule"), "{event}");
            if names.iter().any(|name| name.contains(place)) {
                assert_eq!(event.get("stockade.profile.preempted"), None, "{event}");
                times += number(event, "stockade.profile.samples");
                us += number(event, "stockade.profile.time_ns") / 1000;
            }
        }
        // A machine that is not let run itself between setting the alarm and waiting for it waits less, or not at all.
        let all = u64::from(NAPS);
        assert!((all - 2..=all).contains(&times), "{place}: {times}");
        // What is on top is waking up and, on an emulated machine, the two other looks at the clock.
        assert!(us <= expected, "{place}: {us} us of {expected}");
        assert!(us * 10 >= expected * 8, "{place}: {us} us of {expected}");
    }
    Outcome::Passed
}

fn flame(ctx: &Ctx) -> Outcome {
    let svg = ctx.path("out.svg");
    let helper = text(&ctx.helper);
    let ended = stockade(
        ctx,
        [
            "flame",
            "--freq",
            "397",
            "--output",
            text(&svg),
            "--",
            helper,
            "--burn",
            "1",
        ],
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let picture = fs::read_to_string(&svg).expect("the picture");
    assert!(picture.contains("burn_seventy ("), "{picture}");
    assert!(ended.stderr.contains(" samples in "), "{}", ended.stderr);
    let packed = ctx.path("out.pb.gz");
    let args = ["flame", "--freq", "397", "--format", "pprof", "--output"];
    let args = args.iter().copied();
    let ended = stockade(
        ctx,
        args.chain([text(&packed), "--", helper, "--burn", "0.5"]),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let unpacked = command("gzip", &["-dc", text(&packed)]).output();
    let unpacked = unpacked.expect("gzip").stdout;
    let text_of_it = String::from_utf8_lossy(&unpacked);
    assert!(text_of_it.contains("burn_seventy"), "{text_of_it}");
    let nobody = stockade(
        ctx,
        [
            "flame",
            "--format",
            "folded",
            "--pid",
            "4194305",
            "--duration",
            "1s",
        ],
    );
    assert_eq!(nobody.code, 40, "{}", nobody.stderr);
    let wrong = stockade(ctx, ["flame", "--format", "folded", "--duration", "1s"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    let missing = stockade(
        ctx,
        ["flame", "--format", "folded", "--", "/no/such/program"],
    );
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    Outcome::Passed
}

fn late_cpu(ctx: &Ctx) -> Outcome {
    let done = ctx.path("done");
    let work = "while [ ! -e $0 ]; do :; done";
    let options = ["run", "--profile", "--interval", "0.5", "--format", "json"];
    let command = ["--", "sh", "-c", work, text(&done)];
    let running = Stockade::start(ctx, options.iter().chain(&command));
    // What is told by one look at the counters has one time. The second new one began after this call.
    let looks = || {
        let text = fs::read_to_string(&running.out).unwrap_or_default();
        // Without reading what else stands in a line: there are more of them all the time.
        let times = text.lines().filter_map(|line| {
            let (_, time) = line.split_once("\"@timestamp\":\"")?;
            Some(time.split_once('"')?.0.to_owned())
        });
        times.collect::<BTreeSet<_>>().len()
    };
    let two_looks = || {
        let before = looks();
        poll("two looks", || (looks() >= before + 2).then_some(()));
    };
    let switch = |to: &str| {
        fs::write("/sys/devices/system/cpu/cpu1/online", to).expect("a CPU that can be stopped");
    };
    two_looks();
    switch("0");
    two_looks();
    switch("1");
    two_looks();
    fs::write(&done, b"").expect("a file in our directory");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let end = ended.events.last().expect("an end record");
    let reasons = end["stockade.incomplete_reasons"].to_string();
    assert!(
        reasons.contains("CPU 1 came online after the start"),
        "{end}"
    );
    assert!(!reasons.contains("CPU 0"), "{end}");
    Outcome::Passed
}
