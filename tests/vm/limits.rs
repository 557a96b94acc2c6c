//! How much of something a fenced program may do.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore as _, MapHandle};
use rustix::io::{Errno, Result};
use rustix::process::Signal;

use crate::bypass;
use crate::contacts;
use crate::fence::{EPERM, denials_of, text, until_ready};
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, poll, stockade};
use crate::helper::{Done, Step, arguments, check, in_child, results, step};
use crate::places::{policy_of, under};
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "limit_lets_through_what_it_says_and_no_more",
        Needs::Fence,
        exactly,
    ),
    Test::new(
        "limit_of_all_together_is_shared_by_who_does_it_at_once",
        Needs::Fence,
        together,
    ),
    Test::new(
        "limit_of_each_process_comes_before_that_of_all",
        Needs::Fence,
        own_first,
    ),
    Test::new("limit_fills_again_at_its_rate", Needs::Fence, refilled),
    Test::new(
        "every_way_to_connect_and_to_send_is_counted",
        Needs::Fence,
        every_way,
    ),
    Test::new("limit_of_calls_kills_or_tells", Needs::Fence, of_calls),
    Test::new(
        "limits_take_the_place_of_others_and_processes_that_ended_leave_nothing",
        Needs::Fence,
        replaced,
    ),
];

const EAGAIN: i32 = libc::EAGAIN;

/// A step that does something so often, or for so long: `fork 30`, `send:100 10 127.0.0.1:9`.
fn many(label: &str, what: &str, times: &str, more: &str, notes: &Path) -> Step {
    step(label, &[&"limited", &what, &times, &more, &notes])
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Noted {
    went: u64,
    refused: u64,
    /// Of the first that was refused.
    errno: i32,
    ns: u64,
}

fn noted(notes: &Path) -> Noted {
    let text = fs::read_to_string(notes).unwrap_or_default();
    let numbers: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
    let [went, refused, errno, ns] = numbers[..] else {
        return Noted::default();
    };
    Noted {
        went,
        refused,
        errno: i32::try_from(errno).unwrap(),
        ns,
    }
}

/// The helper's half.
pub(crate) fn operation(words: &[&str]) -> Result<()> {
    let [what, times, more, notes] = words[..] else {
        panic!("limited WHAT TIMES MORE NOTES")
    };
    let (what, size) = what.split_once(':').unwrap_or((what, "1"));
    let size: usize = size.parse().expect("a size");
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|_| Errno::IO)?;
    if what.starts_with("send") {
        let to: SocketAddr = more.parse().expect("an address");
        socket.connect(to).map_err(|_| Errno::IO)?;
    }
    let begun = Instant::now();
    let (rounds, end) = match times.strip_suffix("ms") {
        Some(ms) => (
            u64::MAX,
            begun + Duration::from_millis(ms.parse().expect("a time")),
        ),
        None => (
            times.parse().expect("a number"),
            begun + Duration::from_secs(600),
        ),
    };
    let mut out = Noted::default();
    let bytes = vec![0u8; size];
    let mut round = 0;
    while round < rounds && Instant::now() < end {
        round += 1;
        let result = match what {
            "fork" => fork(),
            "thread" => thread(),
            "tcp" => contacts::operation("tcp", more),
            // SAFETY: bytes and their size.
            "send" => check(unsafe {
                libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
            } as i64)
            .map(drop),
            "x32" => crate::calls::operation("x32", "uname"),
            call => crate::calls::operation("native", call),
        };
        // What came back while the others were done shows in the time that this took, so it ends here.
        out.ns = u64::try_from(begun.elapsed().as_nanos()).unwrap();
        match result {
            Ok(()) => out.went += 1,
            Err(e) => {
                out.refused += 1;
                if out.errno == 0 {
                    out.errno = e.raw_os_error();
                }
            }
        }
        // Noted at once: it may not come to an end.
        if rounds < 100 {
            note(notes, &out);
        }
    }
    note(notes, &out);
    Ok(())
}

fn note(notes: &str, n: &Noted) {
    let line = format!("{} {} {} {}", n.went, n.refused, n.errno, n.ns);
    fs::write(notes, line).expect("the test's own directory");
}

fn fork() -> Result<()> {
    // SAFETY: this process has one thread, so the child may do whatever it may.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: ends the process without running what its parent will run.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: our own child.
    unsafe { libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0) };
    Ok(())
}

fn thread() -> Result<()> {
    let started = std::thread::Builder::new().spawn(|| ());
    let thread = started.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    thread.join().map_err(|_| Errno::IO)
}

/// Somebody whom bytes can be sent to.
fn receiver() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// A denial of a limit: what is counted, its rule, its verdict, and how much it was.
fn told<'a>(ended: &'a Ended, done: &'a Done) -> Vec<(&'a str, &'a str, &'a str, u64)> {
    let events = denials_of(ended, done);
    let word = |value: &'a serde_json::Value| value.as_str().unwrap_or_default();
    events
        .into_iter()
        .map(|e| {
            (
                word(&e["stockade.limit.counted"]),
                word(&e["rule.id"]),
                word(&e["stockade.verdict"]),
                e["stockade.limit.amount"].as_u64().unwrap_or(0),
            )
        })
        .collect()
}

/// What comes back in an hour does not matter.
fn exactly(ctx: &Ctx) -> Outcome {
    let rules = "limits:\n\
        - { id: forks, limit: forks, per_hour: 1, burst: 20, per: process }\n\
        - { id: threads, limit: threads, per_hour: 1, burst: 3, per: process, errno: EPERM }\n\
        - { id: both, limit: [forks, threads], per_hour: 1, burst: 1000, mode: audit }\n\
        - { id: connections, limit: connections, per_hour: 1, burst: 4 }\n\
        - { id: tried, limit: connections, per_hour: 1, burst: 1, action: log }\n\
        - { id: bytes, limit: bytes, per_hour: 1, burst: 1 KiB, per: process, errno: ENOBUFS }\n";
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = server.local_addr().unwrap().to_string();
    let (_receiver, udp) = receiver();
    let notes = |n: usize| ctx.path(&format!("notes-{n}"));
    let steps = [
        many("forks", "fork", "30", "", &notes(0)),
        many("forks of another process", "fork", "20", "", &notes(1)),
        many("threads", "thread", "5", "", &notes(2)),
        many("connections", "tcp", "3", &tcp, &notes(3)),
        many(
            "connections of another process",
            "tcp",
            "3",
            &tcp,
            &notes(4),
        ),
        many("bytes", "send:300", "5", &udp, &notes(5)),
        // More than there is room for, and then what is owed.
        many(
            "more bytes than that at once",
            "send:2000",
            "2",
            &udp,
            &notes(6),
        ),
    ];
    let expected = [
        (20, 10, EAGAIN),
        (20, 0, 0),
        (3, 2, EPERM),
        (3, 0, 0),
        (1, 2, EPERM),
        (3, 2, libc::ENOBUFS),
        (1, 1, libc::ENOBUFS),
    ];
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert!(done.iter().all(|d| d.errno == 0), "{done:?}");
    for (n, (went, refused, errno)) in expected.into_iter().enumerate() {
        let found = noted(&notes(n));
        let label = &steps[n].label;
        let found = (found.went, found.refused, found.errno);
        assert_eq!(found, (went, refused, errno), "{label}");
    }
    let all: Vec<_> = done.iter().map(|done| told(&ended, done)).collect();
    let times = |n: usize, told| vec![told; n];
    assert_eq!(all[0], times(10, ("forks", "forks", "deny", 1)));
    assert_eq!(all[1], []);
    assert_eq!(all[2], times(2, ("threads", "threads", "deny", 1)));
    // The one that only tells begins anew after each time.
    assert_eq!(all[3], times(1, ("connections", "tried", "audit", 1)));
    let refused = ("connections", "connections", "deny", 1);
    assert_eq!(
        all[4],
        [("connections", "tried", "audit", 1), refused, refused]
    );
    assert_eq!(all[5], times(2, ("bytes", "bytes", "deny", 300)));
    assert_eq!(all[6], times(1, ("bytes", "bytes", "deny", 2000)));
    let denial = denials_of(&ended, &done[5])[0];
    assert_eq!(denial["stockade.mechanism"], *ctx.mechanism, "{denial}");
    assert_eq!(denial["error.code"], "ENOBUFS", "{denial}");
    assert_eq!(denial["event.category"][0], "network", "{denial}");
    assert_eq!(denial["stockade.rule.line"], 9, "{denial}");
    let end = ended.complete();
    let fence = &end["stockade.fence"];
    assert_eq!((&fence["limits"], &fence["rules"]), (&6.into(), &6.into()));
    assert_eq!(fence["mechanism"], *ctx.mechanism, "{end}");
    // One for new processes and one for the network.
    assert_eq!(number(fence, "canary_proofs"), 2, "{end}");
    for (n, way) in [(0, "fork"), (2, "thread")] {
        let denial = denials_of(&ended, &done[n])[0];
        let (way, errno) = (format!("limit/{way}"), noted(&notes(n)).errno);
        bypass::observed(&way, bypass::ANYWHERE, errno, Some(denial));
    }

    // In audit mode nothing is refused, and the first that would be is the same.
    let out = ctx.path("results of audit");
    let audited = stockade(
        ctx,
        under(&ctx.path("policy.yaml"), &["--audit"], &out, &steps, ctx),
    );
    assert_eq!(audited.code, 0, "{}", audited.stderr);
    let (_, done) = results(&out);
    let went: Vec<_> = (0..steps.len()).map(|n| noted(&notes(n)).refused).collect();
    assert_eq!(went, [0; 7]);
    assert_eq!(told(&audited, &done[0]), [("forks", "forks", "audit", 1)]);
    assert_eq!(told(&audited, &done[5]), [("bytes", "bytes", "audit", 300)]);
    audited.complete();
    Outcome::Passed
}

/// Who has used up a limit of his own takes nothing from the one that is for all.
fn own_first(ctx: &Ctx) -> Outcome {
    let rules = "limits:\n\
        - { id: all, limit: bytes, per_hour: 1, burst: 10 }\n\
        - { id: each, limit: bytes, per_hour: 1, burst: 4, per: process }\n";
    let (_receiver, to) = receiver();
    let notes = |n: usize| ctx.path(&format!("notes-{n}"));
    let steps: Vec<Step> = (0..3)
        .map(|n| many("bytes", "send:1", "8", &to, &notes(n)))
        .collect();
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let went: Vec<u64> = (0..3).map(|n| noted(&notes(n)).went).collect();
    assert_eq!(went, [4, 4, 2]);
    let (_, done) = results(&out);
    let by: Vec<Vec<&str>> = done
        .iter()
        .map(|done| {
            let mut rules: Vec<_> = told(&ended, done)
                .iter()
                .map(|(_, rule, ..)| *rule)
                .collect();
            rules.dedup();
            rules
        })
        .collect();
    assert_eq!(by, [vec!["each"], vec!["each"], vec!["all", "each"]]);
    ended.complete();
    Outcome::Passed
}

/// As many at once as there are CPUs, and more.
fn together(ctx: &Ctx) -> Outcome {
    const BURST: u64 = 300;
    let rules = format!("limits:\n- {{ id: sent, limit: bytes, per_hour: 1, burst: {BURST} }}\n");
    let [out, notes] = ["results", "notes"].map(|name| ctx.path(name));
    let (_receiver, to) = receiver();
    let steps = [step("crowd", &[&"crowd", &to, &notes])];
    let ended = stockade(ctx, under(&policy_of(ctx, &rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert_eq!(done[0].errno, 0);
    let each: Vec<Noted> = (0..4)
        .map(|n| noted(Path::new(&format!("{}-{n}", text(&notes)))))
        .collect();
    assert_eq!(each.iter().map(|n| n.went).sum::<u64>(), BURST, "{each:?}");
    assert!(
        each.iter().all(|n| n.refused == 0 || n.errno == EPERM),
        "{each:?}"
    );
    all_accounted_for(&ended, 800 - BURST);
    Outcome::Passed
}

/// Not all of so many refusals are told, and those that are not are counted.
fn all_accounted_for(ended: &Ended, refused: u64) {
    let told = ended.of("denial").count() as u64;
    assert!((1..=refused).contains(&told));
    let end = ended.of("end").next().expect("an end record");
    let kinds = end["stockade.kinds"].as_array().unwrap();
    let denials = kinds.iter().find(|kind| kind["kind"] == "denial").unwrap();
    let untold = denials["suppressed"].as_u64().unwrap_or(0);
    assert_eq!(told + untold, refused, "{end}");
    let reasons = end["stockade.incomplete_reasons"].as_array();
    let reasons: Vec<&str> = reasons
        .into_iter()
        .flatten()
        .filter_map(|r| r.as_str())
        .collect();
    let expected = format!(
        "{untold} denials were counted and not told, because limits refused more than 16 of one kind in a second"
    );
    assert_eq!(
        reasons,
        if untold > 0 {
            vec![expected.as_str()]
        } else {
            vec![]
        },
        "{end}"
    );
    assert!(
        end["stockade.losses"].as_array().is_none_or(Vec::is_empty),
        "{end}"
    );
}

/// Several processes that send a byte at a time.
pub(crate) fn crowd(to: &str, notes: &str) -> Result<()> {
    // SAFETY: this process has one thread.
    let (_, code) = in_child(|| {
        let pids: Vec<libc::pid_t> = (0..4)
            .map(|n| {
                // SAFETY: as above.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    let notes = format!("{notes}-{n}");
                    let done = operation(&["send:1", "200", to, &notes]);
                    // SAFETY: ends the process without running what its parent will run.
                    unsafe { libc::_exit(i32::from(done.is_err())) };
                }
                pid
            })
            .collect();
        for pid in pids {
            // SAFETY: our own child.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        }
        0
    });
    assert_eq!(code, 0);
    Ok(())
}

fn refilled(ctx: &Ctx) -> Outcome {
    const RATE: u64 = 50;
    const BURST: u64 = 5;
    let rules = format!(
        "limits:\n- {{ id: sent, limit: bytes, per_second: {RATE}, burst: {BURST}, per: process }}\n"
    );
    let [out, notes] = ["results", "notes"].map(|name| ctx.path(name));
    let (_receiver, to) = receiver();
    let steps = [many("sent", "send:1", "1500ms", &to, &notes)];
    let ended = stockade(ctx, under(&policy_of(ctx, &rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    results(&out);
    let found = noted(&notes);
    assert!(found.refused > 0 && found.errno == EPERM, "{found:?}");
    // The last one that went may have come back while it was sent.
    let most = BURST + RATE * found.ns / 1_000_000_000 + 1;
    assert!(found.went <= most, "{found:?}, and not more than {most}");
    // Tried so often that hardly any was missed: a twentieth of what came back, and the bucket itself.
    let least = BURST + (RATE * found.ns / 1_000_000_000) * 19 / 20 - 2;
    assert!(found.went >= least, "{found:?}, and not less than {least}");
    all_accounted_for(&ended, found.refused);
    Outcome::Passed
}

fn every_way(ctx: &Ctx) -> Outcome {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let tcp = at.to_string();
    let _udp = UdpSocket::bind(at).expect("the same port by UDP");
    let rules = "limits:\n\
        - { id: one, limit: connections, per_hour: 1, burst: 1, per: process }\n\
        - { id: token, limit: bytes, per_hour: 1, burst: 5, per: process }\n";
    // Each twice in one process; the second time is too much.
    let ways = [
        ("tcp", "one"),
        ("fastopen", "one"),
        ("fastopen-connect", "one"),
        ("uring-connect", "one"),
        ("mptcp", "one"),
        ("sendto", "token"),
        ("sendto-no-family", "token"),
        ("sendmsg", "token"),
        ("sendmmsg", "token"),
        ("uring-sendmsg", "token"),
        ("udp-write", "token"),
    ];
    let mut steps: Vec<Step> = ways
        .iter()
        .map(|(way, _)| step(way, &[&"net-twice", way, &tcp]))
        .collect();
    // To one name, of which no hook hears.
    steps.push(step("sendmmsg-twice", &[&"net", &"sendmmsg-twice", &tcp]));
    // What is not a connection, and not the network.
    steps.push(step("udp", &[&"net-twice", &"udp", &tcp]));
    steps.push(step("unix", &[&"net-twice", &"unix", &tcp]));
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = String::new();
    for (done, (way, rule)) in done
        .iter()
        .zip(ways.iter().chain([&("sendmmsg-twice", "token")]))
    {
        let told = told(&ended, done);
        // A kernel without MPTCP says so.
        if *way == "mptcp"
            && [libc::EPROTONOSUPPORT, libc::EINVAL, libc::ENOPROTOOPT].contains(&done.errno)
        {
            continue;
        }
        let right = done.errno == EPERM && told.iter().any(|(_, by, ..)| by == rule);
        if !right {
            writeln!(wrong, "{way}: {} {told:?}", done.errno).unwrap();
        }
    }
    assert_eq!(wrong, "");
    for done in &done[ways.len() + 1..] {
        assert_eq!(
            (done.errno, told(&ended, done)),
            (0, vec![]),
            "{}",
            done.label
        );
    }
    ended.complete();
    let ways = ways.iter().map(|(way, _)| *way).chain(["sendmmsg-twice"]);
    for (way, done) in ways.zip(&done) {
        // A kernel without MPTCP has refused it itself.
        if !denials_of(&ended, done).is_empty() {
            bypass::one(&format!("limit/{way}"), bypass::ANYWHERE, &ended, done);
        }
    }

    // Up to Linux 6.4 what is spliced into a socket passes by: a limit of the kernel's, which docs/POLICY.md tells.
    let (_receiver, to) = receiver();
    let out = ctx.path("results of splice");
    let steps = [step("sendfile", &[&"sendfile-twice", &to])];
    let ended = stockade(ctx, under(&ctx.path("policy.yaml"), &[], &out, &steps, ctx));
    let (_, done) = results(&out);
    let errno = done[0].errno;
    let is_counted = !fs::read_to_string("/proc/kallsyms")
        .unwrap()
        .contains(" kernel_sendpage\n");
    assert_eq!(errno, if is_counted { EPERM } else { 0 });
    ended.complete();
    bypass::one("limit/sendfile", bypass::ANYWHERE, &ended, &done[0]);
    Outcome::Passed
}

/// A step of contacts, twice.
pub(crate) fn net_twice(what: &str, object: &str) -> Result<()> {
    contacts::operation(what, object).or_else(|e| match e {
        // Begun, and nobody has answered yet.
        Errno::INPROGRESS => Ok(()),
        e => Err(e),
    })?;
    contacts::operation(what, object)
}

pub(crate) fn sendfile_twice(to: &str) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|_| Errno::IO)?;
    let to: SocketAddr = to.parse().expect("an address");
    socket.connect(to).map_err(|_| Errno::IO)?;
    let file = rustix::fs::memfd_create("bytes", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&file, b"bytes")?;
    for _ in 0..2 {
        let mut from = 0;
        rustix::fs::sendfile(&socket, &file, Some(&mut from), 5)?;
    }
    Ok(())
}

fn of_calls(ctx: &Ctx) -> Outcome {
    let rules = "limits:\n\
        - { id: few, syscall: getpgid, per_hour: 1, burst: 5, per: process, action: kill }\n\
        - { id: told, syscall: [getsid, getpriority], per_hour: 1, burst: 2, action: log }\n";
    let notes = |n: usize| ctx.path(&format!("notes-{n}"));
    let steps = [
        many("few", "getpgid", "5", "", &notes(0)),
        many("one more", "getpgid", "9", "", &notes(1)),
        many("told", "getsid", "4", "", &notes(2)),
        many("together", "getpriority", "3", "", &notes(3)),
    ];
    let mut steps = steps.to_vec();
    if cfg!(target_arch = "x86_64") {
        steps.push(many("x32", "x32", "9", "", &notes(4)));
    }
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy_of(ctx, rules), &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut errnos: Vec<i32> = done.iter().map(|done| done.errno).collect();
    if let Some(x32) = errnos.get(4) {
        // It stands for any call: the fifth is the last.
        assert_eq!(*x32, 1000 + libc::SIGKILL);
        assert_eq!(
            noted(&notes(4)).refused,
            5,
            "unknown to the kernel, and counted"
        );
        errnos.truncate(4);
    }
    assert_eq!(errnos, [0, 1000 + libc::SIGKILL, 0, 0]);
    let went: Vec<u64> = (0..4).map(|n| noted(&notes(n)).went).collect();
    assert_eq!(went, [5, 5, 4, 3]);
    let all: Vec<_> = done.iter().map(|done| told(&ended, done)).collect();
    assert_eq!(all[0], []);
    assert_eq!(all[1], [("syscalls", "few", "kill", 1)]);
    // The third, and then the third after it: 1 2 (3) 4 | 5 (6) 7
    let one = ("syscalls", "told", "audit", 1);
    assert_eq!((&all[2], &all[3]), (&vec![one], &vec![one]));
    let denial = denials_of(&ended, &done[1])[0];
    bypass::one("limit/call", bypass::ANYWHERE, &ended, &done[1]);
    assert_eq!(denial["stockade.syscall.name"], "getpgid", "{denial}");
    assert_eq!(denial["stockade.mechanism"], "tracepoint", "{denial}");
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["mechanism"], "tracepoint", "{end}");
    assert_eq!(number(&end["stockade.fence"], "canary_proofs"), 1, "{end}");
    Outcome::Passed
}

/// Processes that have a purse.
fn purses() -> usize {
    let maps = libbpf_rs::query::MapInfoIter::default();
    let ours = maps.filter(|map| map.name == "stk_purses" || map.name == "stk_call_purses");
    let maps = ours.filter_map(|map| MapHandle::from_map_id(map.id).ok());
    maps.map(|map| map.keys().count()).sum()
}

fn replaced(ctx: &Ctx) -> Outcome {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = server.local_addr().unwrap().to_string();
    let policy = ctx.path("policy.yaml");
    let write = |limits: &str| fs::write(&policy, format!("version: 1\n{limits}\n")).unwrap();
    let rule = |more: &str| {
        format!(
            "limits:\n\
             - {{ id: each, limit: connections, per_hour: 1, per: process, {more} }}\n\
             - {{ id: calls, syscall: getpgid, per_hour: 1, per: process, action: kill, {more} }}"
        )
    };
    write(&rule("burst: 2"));
    let notes = |n: usize| ctx.path(&format!("notes-{n}"));
    let [go, ready] =
        ["go", "ready"].map(|name| [0, 1, 2].map(|n| ctx.path(&format!("{name}-{n}"))));
    let mut steps = Vec::new();
    for (n, (go, ready)) in go.iter().zip(&ready).enumerate() {
        steps.push(step("go", &[&"wait", go]));
        steps.push(many("connections", "tcp", "9", &tcp, &notes(n)));
        steps.push(many("calls", "getpgid", "9", "", &notes(3 + n)));
        steps.push(step("ready", &[&"touch", ready]));
    }
    let end = ctx.path("end");
    steps.push(step("end", &[&"wait", &end]));
    let out = ctx.path("results");
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    let words = [
        "enforce",
        "--format",
        "json",
        "--policy",
        text(&policy),
        "--tree",
        &pid,
    ];
    let mut enforce = Stockade::start(ctx, words);
    enforce.until_stderr("stockade: fence armed");
    for (n, limits) in [
        None,
        Some(rule("burst: 5")),
        Some("files:\n- { id: f, deny: all, paths: [/etc/shadow] }".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        if let Some(limits) = limits {
            write(&limits);
            enforce.process.signal(Signal::HUP);
            poll("the next policy", || {
                (enforce.stderr().matches("policy read again").count() == n).then_some(())
            });
        }
        fs::write(&go[n], "").unwrap();
        until_ready(&mut enforce, &ready[n]);
    }
    let went: Vec<u64> = (0..6).map(|n| noted(&notes(n)).went).collect();
    assert_eq!(went, [2, 5, 9, 2, 5, 9], "{}", enforce.stderr());
    // Each was a process of its own, and all have ended.
    poll("the purses to be gone", || (purses() == 0).then_some(()));
    fs::write(&end, "").unwrap();
    assert_eq!(helper.wait(), 0);
    enforce.process.signal(Signal::TERM);
    let ended = enforce.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.complete();
    // The last one was ended by nobody, though its policy is where one was that counts calls.
    let (_, done) = results(&out);
    let killed = done.iter().filter(|d| d.errno == 1000 + libc::SIGKILL);
    assert_eq!(killed.count(), 2, "{done:?}");
    Outcome::Passed
}
