//! Rules about hosts by their names: the addresses that these have at the time, and no others.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, query::MapInfoIter};
use rustix::io::{Errno, Result};
use rustix::process::Signal;

use crate::fence::{EPERM, denials_of, text, until_ready};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, poll, stockade};
use crate::helper::{Step, arguments, check, results, step};
use crate::pins::{Unpinned, kill};
use crate::places::{policy_of, rule, under};
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "host_that_is_allowed_can_be_reached_at_each_address_that_it_is_said_to_have",
        Needs::Fence,
        allowed,
    ),
    Test::new(
        "host_that_is_denied_cannot_be_reached",
        Needs::Fence,
        denied,
    ),
    Test::new(
        "host_has_an_address_as_long_as_an_answer_holds",
        Needs::Fence,
        expired,
    ),
    Test::new(
        "host_is_known_to_the_next_policy_and_to_a_fence_that_nobody_looks_after",
        Needs::Fence,
        next,
    ),
    Test::new(
        "host_that_nobody_can_resolve_is_told",
        Needs::Fence,
        unresolved,
    ),
];

/// Who answers, and another one whom nobody asks.
const NAMESERVER: &str = "127.0.0.7:53";
const NAMESERVER_V6: &str = "[::1]:53";
/// What the one answers that is reached by IPv6. Nobody has a way there.
const KNOWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const STRANGER: &str = "127.0.0.8:53";
/// Where answers are sent to who has not asked.
const UNASKED: &str = "127.0.0.1:5355";
const RESPONSE: u8 = 0x80;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// A file of ours in the place of one of the machine's, until this is dropped.
struct Instead(PathBuf);

impl Instead {
    fn new(ctx: &Ctx, of: &str, content: &str) -> Self {
        let ours = ctx.path(of.rsplit('/').next().expect("a name"));
        fs::write(&ours, content).expect("a file of ours");
        let place = fs::canonicalize(of).expect("the machine has one");
        rustix::mount::mount_bind(&ours, &place).expect("we are root here");
        Instead(place)
    }
}

impl Drop for Instead {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A nameserver, and a program that can be reached at every address of this machine.
struct Net {
    _files: [Instead; 2],
    port: u16,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Net {
    fn new(ctx: &Ctx) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        let port = listener.local_addr().expect("it has one").port();
        listener.set_nonblocking(true).expect("a socket of ours");
        let ends = Arc::clone(&ended);
        let accepting = std::thread::spawn(move || {
            let mut taken = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => taken.push(stream),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let nameserver = UdpSocket::bind(NAMESERVER).expect("nobody else is one here");
        let stranger = UdpSocket::bind(STRANGER).expect("nobody else is one here");
        let tick = Some(Duration::from_millis(20));
        nameserver.set_read_timeout(tick).expect("not zero");
        let other = UdpSocket::bind(NAMESERVER_V6).expect("nobody else is one here");
        other.set_nonblocking(true).expect("a socket of ours");
        let ends = Arc::clone(&ended);
        let answering = std::thread::spawn(move || {
            let (round, slow) = (AtomicU8::new(0), AtomicU8::new(229));
            let mut message = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((len, from)) = nameserver.recv_from(&mut message) {
                    let query = &message[..len];
                    if name_in(query) == "liar.stockade.test" {
                        let lie = answer_of("round.stockade.test", &[127, 0, 9, 240], 60);
                        stranger.send_to(&lie, UNASKED).expect("it can be sent");
                        nameserver
                            .send_to(&other_way(&lie), UNASKED)
                            .expect("it can be sent");
                    }
                    let answer = answer(query, &round, &slow);
                    nameserver.send_to(&answer, from).expect("it waits");
                }
                if let Ok((_, from)) = other.recv_from(&mut message) {
                    let answer = answer_of("round.stockade.test", &KNOWN_V6.octets(), 60);
                    other.send_to(&answer, from).expect("it waits");
                }
            }
        });
        let server = NAMESERVER.strip_suffix(":53").expect("the port of the DNS");
        let conf = format!("nameserver {server}\nnameserver ::1\noptions timeout:1 attempts:1\n");
        let hosts = "127.0.0.1 localhost\n127.0.8.8 file.stockade.test\n";
        Net {
            _files: [
                Instead::new(ctx, "/etc/resolv.conf", &conf),
                Instead::new(ctx, "/etc/hosts", hosts),
            ],
            port,
            ended,
            threads: vec![accepting, answering],
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The name that is asked for.
fn name_in(query: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    labels.join(".").to_ascii_lowercase()
}

/// Another answer each time for some names.
fn answer(query: &[u8], round: &AtomicU8, slow: &AtomicU8) -> Vec<u8> {
    let name = name_in(query);
    let is_four = query[query.len() - 3] == 1;
    let next = |of: &AtomicU8| [127, 0, 9, 1 + of.fetch_add(1, Ordering::Relaxed)];
    let (address, ttl, code) = match (name.as_str(), is_four) {
        ("round.stockade.test", true) => (Some(next(round)), 3600, 0),
        ("slow.stockade.test", true) => (Some(next(slow)), 1, 0),
        ("bad.stockade.test", true) => (Some([127, 0, 9, 220]), 3600, 0),
        ("free.stockade.test", true) => (Some([127, 0, 9, 221]), 3600, 0),
        ("keep.stockade.test", true) => (Some([127, 0, 9, 222]), 3600, 0),
        ("broken.stockade.test", _) => (None, 0, SERVFAIL),
        ("none.stockade.test" | "liar.stockade.test" | "file.stockade.test", _) => {
            (None, 0, NXDOMAIN)
        }
        _ => (None, 0, 0),
    };
    let mut out = query.to_vec();
    out[2] |= RESPONSE;
    out[3] = code;
    // What resolvers add to their question is not answered.
    out[10..12].fill(0);
    let end = 12 + name.len() + 2 + 4;
    out.truncate(end);
    if let Some(address) = address {
        out[7] = 2;
        // Its other name, and that one's address.
        out.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'b', 0xc0, 12]);
        out.extend([
            0xc0,
            u8::try_from(end + 12).expect("short names"),
            0,
            1,
            0,
            1,
        ]);
        out.extend(u32::to_be_bytes(ttl));
        out.extend([0, 4]);
        out.extend(address);
    }
    out
}

/// An answer with one address, asked for or not.
fn answer_of(name: &str, address: &[u8], ttl: u32) -> Vec<u8> {
    let record_type = if address.len() == 4 { 1 } else { 28 };
    let mut out = vec![0x12, 0x34, RESPONSE, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("short names"));
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, record_type, 0, 1]);
    out.extend([0xc0, 12, 0, record_type, 0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend([0, u8::try_from(address.len()).expect("16 at most")]);
    out.extend(address);
    out
}

/// The same as a question: it says nothing.
fn other_way(answer: &[u8]) -> Vec<u8> {
    let mut out = answer.to_vec();
    out[2] &= !RESPONSE;
    out
}

/// Steps of the helper.
pub(crate) fn operation(what: &str, object: &str, more: &str) -> Result<()> {
    let fails = |_| Errno::IO;
    match what {
        // As programs do: ask, and connect at once to the first address of the answer.
        "by-name" => {
            let mut found = object.to_socket_addrs().map_err(|_| Errno::HOSTUNREACH)?;
            connect(found.next().ok_or(Errno::HOSTUNREACH)?).map(drop)
        }
        "until-reached" => {
            let to: SocketAddr = object.parse().map_err(|_| Errno::INVAL)?;
            let deadline = Instant::now() + Duration::from_secs(90);
            loop {
                match connect(to) {
                    Err(Errno::PERM) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    other => return other.map(drop),
                }
            }
        }
        // By IPv6, of an address of IPv6.
        "ask-six" => {
            let socket = UdpSocket::bind("[::]:0").map_err(fails)?;
            let timeout = Some(Duration::from_secs(30));
            socket.set_read_timeout(timeout).map_err(fails)?;
            socket.send_to(b"?", NAMESERVER_V6).map_err(fails)?;
            socket.recv(&mut [0; 512]).map(drop).map_err(fails)
        }
        // Gets answers that nobody believes.
        "ask-liar" => {
            let socket = UdpSocket::bind(UNASKED).map_err(fails)?;
            let timeout = Some(Duration::from_secs(30));
            socket.set_read_timeout(timeout).map_err(fails)?;
            let _ = ("liar.stockade.test", 1).to_socket_addrs();
            for _ in 0..2 {
                socket.recv(&mut [0; 512]).map_err(fails)?;
            }
            Ok(())
        }
        // Is a nameserver itself, where nobody else is one.
        "forge" => {
            // SAFETY: plain numbers.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            loopback_up()?;
            let nameserver = UdpSocket::bind(NAMESERVER).map_err(fails)?;
            let asks = UdpSocket::bind("127.0.0.1:0").map_err(fails)?;
            let lie = answer_of("round.stockade.test", &[127, 0, 9, 241], 60);
            let to = asks.local_addr().map_err(fails)?;
            nameserver.send_to(&lie, to).map_err(fails)?;
            asks.recv(&mut [0; 512]).map(drop).map_err(fails)
        }
        // Calls the program that enters addresses, as only the monitor may.
        "call-told" => {
            let name = "fence_host__tol";
            let program = libbpf_rs::query::ProgInfoIter::default()
                .find(|program| program.name.to_string_lossy() == name)
                .ok_or(Errno::NOENT)?;
            let mut packet = vec![0; 14];
            packet.extend([0; 10]);
            packet.extend([0xff, 0xff, 127, 0, 9, 242]);
            // Of the first host, for good.
            packet.extend(0u32.to_ne_bytes());
            packet.extend(u32::MAX.to_ne_bytes());
            let mut options = libbpf_sys::bpf_test_run_opts {
                sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
                data_in: packet.as_ptr().cast(),
                data_size_in: u32::try_from(packet.len()).expect("a few bytes"),
                ..libbpf_sys::bpf_test_run_opts::default()
            };
            // SAFETY: a number.
            let fd = check(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(program.id) })?;
            // SAFETY: the packet is there for the call.
            check(unsafe { libbpf_sys::bpf_prog_test_run_opts(fd as i32, &raw mut options) })?;
            assert_eq!(options.retval, 0, "it was believed");
            Ok(())
        }
        // Has a connection from before, and sends by it once it may go on.
        "standing" => {
            let (ready, go) = more.split_once(',').ok_or(Errno::INVAL)?;
            let mut found = object.to_socket_addrs().map_err(|_| Errno::HOSTUNREACH)?;
            let mut stream = connect(found.next().ok_or(Errno::HOSTUNREACH)?)?;
            fs::write(ready, b"").map_err(fails)?;
            while !Path::new(go).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            stream
                .write_all(b"more")
                .map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
        }
        _ => panic!("no such step: {what}"),
    }
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(to).map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Nothing is reached in a new network namespace before this.
fn loopback_up() -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|_| Errno::IO)?;
    // SAFETY: numbers and bytes, for which 0 is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: a request of the kind that this call takes.
    check(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &request) }).map(drop)
}

fn policy(ctx: &Ctx, rules: &[String]) -> PathBuf {
    let rules: Vec<String> = rules.iter().map(|r| format!("  - {{ {r} }}\n")).collect();
    policy_of(ctx, &format!("network:\n{}", rules.concat()))
}

/// Asking is allowed to everybody.
fn resolver() -> String {
    format!(
        "id: resolver, allow: [connect, send], to: ['{NAMESERVER}', '{NAMESERVER_V6}'], protocol: udp"
    )
}

fn host(what: &str, object: &str) -> Step {
    step(what, &[&"host", &what, &object])
}

fn allowed(ctx: &Ctx) -> Outcome {
    let net = Net::new(ctx);
    let port = net.port;
    let rules = [
        format!(
            "id: names, allow: [connect, send], to: ['host:round.stockade.test:{port}', 'host:file.stockade.test', 'host:slow.stockade.test']"
        ),
        resolver(),
        "id: self, allow: [connect, send], to: ['127.0.0.1'], protocol: udp".to_owned(),
    ];
    let policy = policy(ctx, &rules);
    let tcp = |ip: &str| step("tcp", &[&"net", &"tcp", &format!("{ip}:{port}")]);
    let mut steps = Vec::new();
    // Each time at an address that it was never reached at.
    const ROUNDS: usize = 40;
    for _ in 0..ROUNDS {
        steps.push(host("by-name", &format!("round.stockade.test:{port}")));
    }
    let open = [
        host("by-name", &format!("ROUND.stockade.test:{port}")),
        host("by-name", &format!("file.stockade.test:{port}")),
        tcp("127.0.8.8"),
        // Known by what we asked for at the start.
        tcp("127.0.9.230"),
        // And by what we asked for later.
        host("until-reached", &format!("127.0.9.232:{port}")),
        host("ask-liar", "-"),
        host("forge", "-"),
        host("ask-six", "-"),
        host("call-told", "-"),
    ];
    let v6 = |ip: &str| step("tcp6", &[&"net", &"tcp", &format!("[{ip}]:{port}")]);
    let refused = [
        (
            host("by-name", "round.stockade.test:1"),
            Some("round.stockade.test"),
        ),
        (host("by-name", &format!("free.stockade.test:{port}")), None),
        (tcp("127.0.9.250"), None),
        (tcp("127.0.9.240"), None),
        (tcp("127.0.9.241"), None),
        (tcp("127.0.9.242"), None),
        (v6("2001:db8::8"), None),
    ];
    // It may be tried, and that is all.
    let nowhere = v6(&KNOWN_V6.to_string());
    steps.extend(open.iter().cloned());
    steps.extend(refused.iter().map(|(step, _)| step.clone()));
    steps.push(nowhere);
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let (tried, done) = done.split_last().expect("there are steps");
    assert_eq!(tried.errno, Errno::NETUNREACH.raw_os_error());
    assert!(denials_of(&ended, tried).is_empty());
    let (open, shut) = done.split_at(ROUNDS + open.len());
    for done in open {
        assert_eq!(
            done.errno,
            0,
            "{} {:?}",
            done.label,
            denials_of(&ended, done)
        );
    }
    for (done, (_, name)) in shut.iter().zip(&refused) {
        assert_eq!(done.errno, EPERM, "{}", done.label);
        let told = denials_of(&ended, done);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["rule.id"], "names", "{}", told[0]);
        assert_eq!(told[0]["stockade.unlisted"], true, "{}", told[0]);
        let said = told[0].get("destination.domain").and_then(|v| v.as_str());
        assert_eq!(said, *name, "{}", told[0]);
    }
    ended.complete();
    Outcome::Passed
}

fn denied(ctx: &Ctx) -> Outcome {
    let net = Net::new(ctx);
    let port = net.port;
    let rules = [
        "id: bad, deny: [connect, send], to: ['host:bad.stockade.test', 'host:none.stockade.test']"
            .to_owned(),
        format!(
            "id: round, deny: connect, to: ['host:round.stockade.test:{port}'], errno: ECONNREFUSED"
        ),
    ];
    let policy = policy(ctx, &rules);
    let to = format!("127.0.9.220:{port}");
    let refused = Errno::CONNREFUSED.raw_os_error();
    let cases: Vec<(Step, i32, Option<&str>)> = vec![
        (
            host("by-name", &format!("free.stockade.test:{port}")),
            0,
            None,
        ),
        (
            host("by-name", &format!("bad.stockade.test:{port}")),
            EPERM,
            Some("bad"),
        ),
        (step("tcp", &[&"net", &"tcp", &to]), EPERM, Some("bad")),
        (
            step("sendto", &[&"net", &"sendto", &to]),
            EPERM,
            Some("bad"),
        ),
        // At an address that nobody was told before.
        (
            host("by-name", &format!("round.stockade.test:{port}")),
            refused,
            Some("round"),
        ),
        (
            host("by-name", &format!("round.stockade.test:{port}")),
            refused,
            Some("round"),
        ),
        (
            step("tcp", &[&"net", &"tcp", &format!("127.0.9.250:{port}")]),
            0,
            None,
        ),
    ];
    let steps: Vec<Step> = cases.iter().map(|(step, ..)| step.clone()).collect();
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    for (done, (_, errno, rule)) in done.iter().zip(&cases) {
        let told = denials_of(&ended, done);
        assert_eq!(done.errno, *errno, "{} {told:?}", done.label);
        let ids: Vec<_> = told.iter().map(|e| e["rule.id"].as_str()).collect();
        assert_eq!(ids, rule.iter().map(|id| Some(*id)).collect::<Vec<_>>());
        for event in told {
            let name = format!("{}.stockade.test", rule.expect("somebody refused it"));
            assert_eq!(event["destination.domain"], name, "{event}");
        }
    }
    let end = ended.of("end").next().expect("an end record");
    assert_eq!(end["stockade.complete"], false, "{end}");
    let reasons = end["stockade.incomplete_reasons"].to_string();
    assert!(reasons.contains("host:none.stockade.test"), "{reasons}");
    Outcome::Passed
}

/// Has what is known of addresses expire, as if six minutes had gone by since anybody was told.
fn expire() {
    let mut done = 0;
    for map in MapInfoIter::default() {
        let name = map.name.to_string_lossy().into_owned();
        if name != "stk_host_known" {
            continue;
        }
        let map = MapHandle::from_map_id(map.id).expect("it is there as long as the fence");
        let keys: Vec<Vec<u8>> = map.keys().collect();
        for key in keys {
            let found = map.lookup(&key, MapFlags::ANY).expect("we are root");
            let known = found.expect("nothing is forgotten so soon");
            let past = known.chunks(4).flat_map(|word| match word {
                [0, 0, 0, 0] => [0; 4],
                _ => 1u32.to_ne_bytes(),
            });
            let past: Vec<u8> = past.collect();
            map.update(&key, &past, MapFlags::EXIST)
                .expect("we are root");
            done += 1;
        }
    }
    assert!(done > 0, "no address was known");
}

fn expired(ctx: &Ctx) -> Outcome {
    let net = Net::new(ctx);
    let port = net.port;
    let rules = [
        "id: names, allow: [connect, send], to: ['host:keep.stockade.test']".to_owned(),
        resolver(),
    ];
    let policy = policy(ctx, &rules);
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let signs = format!("{},{}", text(&ready), text(&go));
    let name = format!("keep.stockade.test:{port}");
    let address = format!("127.0.9.222:{port}");
    let steps = [
        step("before", &[&"net", &"tcp", &address]),
        step("standing", &[&"host", &"standing", &name, &signs]),
        step("after", &[&"net", &"tcp", &address]),
        step("message", &[&"net", &"sendto", &address]),
        // Who asks is told anew.
        host("by-name", &name),
    ];
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    expire();
    fs::write(&go, b"").expect("the go");
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let found: Vec<(&str, i32)> = done.iter().map(|d| (d.label.as_str(), d.errno)).collect();
    let expected = [
        ("before", 0),
        ("standing", 0),
        ("after", EPERM),
        ("message", EPERM),
        ("by-name", 0),
    ];
    assert_eq!(found, expected, "{:?}", ended.events);
    ended.complete();
    Outcome::Passed
}

fn next(ctx: &Ctx) -> Outcome {
    let _unpinned = Unpinned(ctx);
    let net = Net::new(ctx);
    let port = net.port;
    let names = |host: &str| {
        let rules = [
            format!("id: names, allow: [connect, send], to: ['host:{host}.stockade.test']"),
            resolver(),
        ];
        policy(ctx, &rules)
    };
    let out = ctx.path("results");
    let go = |n: usize| ctx.path(&format!("go-{n}"));
    let ready = |n: usize| ctx.path(&format!("ready-{n}"));
    const TRIED: [&str; 3] = ["keep", "free", "round"];
    let mut steps = Vec::new();
    for n in 0..6 {
        steps.push(step("go", &[&"wait", &go(n)]));
        for name in TRIED {
            let to = format!("{name}.stockade.test:{port}");
            steps.push(step(&format!("{n} {name}"), &[&"host", &"by-name", &to]));
        }
        steps.push(step("ready", &[&"touch", &ready(n)]));
    }
    let mut helper = start_helper(ctx, arguments(&out, &steps));
    let pid = helper.pid().to_string();
    // What hosts need is only there once a policy names one.
    let secret = ctx.path("secret");
    fs::write(&secret, "").expect("a file of ours");
    let file = policy_of(
        ctx,
        &format!(
            "files:\n{}",
            rule("secret", "all", &[text(&secret).to_owned()])
        ),
    );
    let enforce = || {
        let words = ["enforce", "--format", "json", "--fail-closed", "--policy"];
        Stockade::start(ctx, words.into_iter().chain([text(&file), "--tree", &pid]))
    };
    let mut tried = 0;
    let mut attempt = || {
        fs::write(go(tried), "").expect("a file of ours");
        poll("the helper", || ready(tried).exists().then_some(()));
        tried += 1;
    };
    let mut first = enforce();
    first.until_stderr("pinned as");
    attempt();
    for (n, host) in ["keep", "round", "keep"].into_iter().enumerate() {
        names(host);
        poll("the next policy", || {
            let told = first.stderr();
            (told.matches("policy read again").count() == n + 1).then_some(())
        });
        attempt();
    }
    // Nobody looks after it: it goes on reading answers.
    names("round");
    poll("the next policy", || {
        let told = first.stderr();
        (told.matches("policy read again").count() == 4).then_some(())
    });
    kill(first);
    attempt();
    let mut second = enforce();
    second.until_stderr("pinned as");
    attempt();
    assert_eq!(helper.wait(), 0);
    second.process.signal(Signal::TERM);
    let ended = second.wait();
    let (_, done) = results(&out);
    let found: Vec<(&str, bool)> = done
        .iter()
        .filter(|done| done.label.contains(' '))
        .map(|done| (done.label.as_str(), done.errno == 0))
        .collect();
    let allowed = [
        "0 keep", "0 free", "0 round", "1 keep", "2 round", "3 keep", "4 round", "5 round",
    ];
    for (label, is_open) in &found {
        assert_eq!(allowed.contains(label), *is_open, "{found:?}");
    }
    assert_eq!(found.len(), 18);
    // What was refused while nobody looked has its name.
    let named: Vec<_> = ended
        .of("denial")
        .filter_map(|e| e["destination.domain"].as_str())
        .collect();
    assert!(named.contains(&"keep.stockade.test"), "{:?}", ended.events);
    Outcome::Passed
}

fn unresolved(ctx: &Ctx) -> Outcome {
    let net = Net::new(ctx);
    let out = ctx.path("results");
    let steps = [step(
        "tcp",
        &[&"net", &"tcp", &format!("127.0.9.1:{}", net.port)],
    )];
    let denies = policy(
        ctx,
        &["id: bad, deny: connect, to: ['host:broken.stockade.test']".into()],
    );
    let ended = stockade(ctx, under(&denies, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(!out.exists(), "nothing was started");
    let sentence = "the rule bad (line 4) denies host:broken.stockade.test, and nobody can say which addresses that has";
    assert!(ended.stderr.contains(sentence), "{}", ended.stderr);
    // What is allowed stays shut.
    let allows = policy(
        ctx,
        &["id: good, allow: connect, to: ['host:broken.stockade.test']".into()],
    );
    let ended = stockade(ctx, under(&allows, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(results(&out).1[0].errno, EPERM);
    let end = ended.of("end").next().expect("an end record");
    let reasons = end["stockade.incomplete_reasons"].to_string();
    assert!(
        reasons.contains("host:broken.stockade.test has never been resolved"),
        "{end}"
    );
    Outcome::Passed
}
