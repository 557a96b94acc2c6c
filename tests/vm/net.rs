//! What the network monitor reports, held against what a server and its clients really did over the loopback.
//!
//! Called as `vm --net ROLE …` this program is the server, or one of its clients.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, poll, word};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "network_connections_are_reported_with_their_exact_bytes_by_both_ends",
        Needs::Watch,
        connections,
    ),
    Test::new("network_connects_that_fail_say_why", Needs::Watch, failures),
    Test::new(
        "network_bind_and_listen_are_reported_with_address_and_result",
        Needs::Watch,
        binds,
    ),
    Test::new(
        "network_summaries_count_every_byte_and_packet",
        Needs::Watch,
        summaries,
    ),
    Test::new("network_udp_is_counted_by_peer", Needs::Watch, udp),
    Test::new(
        "network_connects_of_local_sockets_name_their_path",
        Needs::Watch,
        local,
    ),
    Test::new(
        "network_packets_that_are_sent_again_are_reported",
        Needs::Watch,
        retransmits,
    ),
];

/// The kinds of address: where the server waits, and where its client goes.
const KINDS: [(&str, &str, &str); 4] = [
    ("v4", "127.0.0.1:0", "127.0.0.1"),
    ("v6", "[::1]:0", "[::1]"),
    // A server that takes both, and a client of either kind.
    ("v4 to both", "[::]:0", "127.0.0.1"),
    ("mapped", "[::]:0", "[::ffff:127.0.0.1]"),
];

/// What the server and the client of one kind send, and as how many datagrams.
fn amounts(index: usize) -> (usize, usize, usize) {
    (100_003 + index * 1000, 70_001 + index, 3 + index)
}

/// Entry as the server or a client.
pub(crate) fn main(args: &[String]) -> i32 {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // The first process under watch lets those go first of whom nothing may be told.
    let words = match words[..] {
        ["after", dir, ..] => {
            let dir = Path::new(dir);
            fs::write(dir.join("ready"), b"").expect("a file in our directory");
            poll("the go", || dir.join("go").exists().then_some(()));
            &words[2..]
        }
        _ => &words[..],
    };
    match *words {
        ["tcp", out] => tcp_server(Path::new(out)),
        ["tcp-client", to, send, receive] => tcp_client(to, &[send, receive]),
        ["udp", out] => udp_server(Path::new(out)),
        ["udp-client", to, count] => udp_client(to, count.parse().expect("a number")),
        ["failures", out] => fail_to_connect(Path::new(out)),
        ["binds", out] => bind_things(Path::new(out)),
        ["local", dir] => connect_locally(Path::new(dir)),
        ["retransmits", out] => wait_for_retransmits(Path::new(out)),
        _ => panic!("no such role: {words:?}"),
    }
    0
}

fn note(out: &Path, facts: &[Value]) {
    fs::write(out, serde_json::to_vec(facts).expect("plain facts")).expect("a file for the facts");
}

fn client(words: &[&str]) -> std::process::Child {
    Command::new(std::env::current_exe().expect("our own path"))
        .arg("--net")
        .args(words)
        .spawn()
        .expect("this program can be started")
}

fn end(mut child: std::process::Child) {
    assert!(child.wait().expect("a child of ours").success(), "a client");
}

fn tcp_server(out: &Path) {
    let mut facts = Vec::new();
    for (index, (kind, bind, host)) in KINDS.into_iter().enumerate() {
        let (theirs, ours, _) = amounts(index);
        let listener = TcpListener::bind(bind).expect("a free port");
        let to = format!("{host}:{}", listener.local_addr().expect("a port").port());
        let child = client(&["tcp-client", &to, &theirs.to_string(), &ours.to_string()]);
        let (mut stream, from) = listener.accept().expect("our client");
        let mut received = vec![0; theirs];
        stream.read_exact(&mut received).expect("what it sends");
        stream.write_all(&vec![b's'; ours]).expect("it reads");
        // Both have closed when the child has ended: one byte that is no data must not be counted.
        drop(stream);
        let pid = child.id();
        end(child);
        facts.push(json!({
            "kind": kind, "server": std::process::id(), "client": pid, "port": port_of(&to),
            "client_port": from.port(), "to_server": theirs, "to_client": ours,
        }));
    }
    note(out, &facts);
}

fn port_of(address: &str) -> u16 {
    let address: SocketAddr = address.parse().expect("an address");
    address.port()
}

fn tcp_client(to: &str, amounts: &[&str; 2]) {
    let [send, receive] = amounts.map(|n| n.parse::<usize>().expect("a number"));
    let mut stream = TcpStream::connect(to).expect("our server");
    stream.write_all(&vec![b'c'; send]).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("open until now");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("what it sends");
    assert_eq!(received.len(), receive);
}

/// Runs a role under watch, completely.
fn watched(ctx: &Ctx, monitor: &str, role: &[&str]) -> Ended {
    let ended = watched_somehow(ctx, monitor, role);
    if !ctx.host {
        ended.complete();
    }
    ended
}

/// Runs a role under watch. Meanwhile somebody out of scope connects as well, of whom nothing may be told.
fn watched_somehow(ctx: &Ctx, monitor: &str, role: &[&str]) -> Ended {
    let mut words = vec!["run", "--monitor", monitor, "--format", "json", "--"];
    words.extend([text(&ctx.helper), "--net", "after", text(&ctx.dir)]);
    words.extend_from_slice(role);
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    for file in [&ready, &go] {
        // From the run before.
        let _ = fs::remove_file(file);
    }
    let running = Stockade::start(ctx, words);
    poll("the role", || ready.exists().then_some(()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for _ in 0..3 {
        let to = listener.local_addr().expect("a port");
        let mut stream = TcpStream::connect(to).expect("our own server");
        stream.write_all(b"private").expect("it is open");
        drop(listener.accept().expect("our own client"));
    }
    fs::write(&go, b"").expect("a file in our directory");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let own = std::process::id();
    let strange: Vec<_> = ended
        .events
        .iter()
        .filter(|e| e["process.pid"] == own)
        .collect();
    assert!(strange.is_empty(), "out of scope: {strange:?}");
    ended
}

fn facts(out: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(out).expect("the facts")).expect("facts are JSON")
}

/// The only event of this kind and process with this at this key.
fn one<'a>(ended: &'a Ended, action: &'a str, pid: &Value, key: &str, value: &Value) -> &'a Value {
    let found: Vec<&Value> = ended
        .of(action)
        .filter(|e| e["process.pid"] == *pid && e[key] == *value)
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{action} of {pid} with {key} {value}: {found:?}\n{:?}",
        ended.events
    );
    found[0]
}

fn connections(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["tcp", text(&out)]);
    let facts = facts(&out);
    assert_eq!(facts.len(), KINDS.len());
    for fact in &facts {
        let kind = word(fact, "kind");
        let (version, ip) = if kind == "v6" {
            ("ipv6", "::1")
        } else {
            ("ipv4", "127.0.0.1")
        };
        let find = |action, who: &str| {
            one(
                &ended,
                action,
                &fact[who],
                "source.port",
                &fact["client_port"],
            )
        };
        let ours = [find("accept", "server"), find("close", "server")];
        let theirs = [find("connect", "client"), find("close", "client")];
        for (event, direction) in ours
            .iter()
            .map(|e| (*e, "ingress"))
            .chain(theirs.iter().map(|e| (*e, "egress")))
        {
            for (key, value) in [
                ("network.transport", json!("tcp")),
                ("network.type", json!(version)),
                ("network.direction", json!(direction)),
                ("source.ip", json!(ip)),
                ("destination.ip", json!(ip)),
                ("destination.port", fact["port"].clone()),
                ("event.outcome", json!("success")),
            ] {
                assert_eq!(event[key], value, "{kind}: {key}: {event}");
            }
            let mapped = match direction {
                "ingress" => kind == "mapped" || kind == "v4 to both",
                _ => kind == "mapped",
            };
            let told = event.get("stockade.net.v4_mapped").is_some();
            assert_eq!(told, mapped, "{kind}: {event}");
        }
        // As seen from both ends: what the client sent and what it got.
        for close in [ours[1], theirs[1]] {
            assert_eq!(close["source.bytes"], fact["to_server"], "{kind}: {close}");
            assert_eq!(
                close["destination.bytes"], fact["to_client"],
                "{kind}: {close}"
            );
            let lasted = number(close, "event.duration");
            assert!((1..120_000_000_000).contains(&lasted), "{close}");
        }
        assert!(number(theirs[0], "event.duration") > 0, "{}", theirs[0]);
    }
    for action in ["connect", "accept", "close"] {
        let expected = KINDS.len() * (1 + usize::from(action == "close"));
        assert_eq!(ended.of(action).count(), expected, "{action}");
    }
    Outcome::Passed
}

/// A TCP socket, and the errno of connecting it to an IPv4 address without waiting.
fn connect_now(ip: [u8; 4], port: u16) -> (std::os::fd::OwnedFd, i32) {
    use std::os::fd::FromRawFd as _;
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers; a descriptor that is checked becomes ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, flags, 0);
        assert!(fd >= 0, "a socket");
        std::os::fd::OwnedFd::from_raw_fd(fd)
    };
    let errno = connect_again(&socket, ip, port);
    (socket, errno)
}

fn connect_again(socket: &std::os::fd::OwnedFd, ip: [u8; 4], port: u16) -> i32 {
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip),
        },
        sin_zero: [0; 8],
    };
    let len = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the address lives and has this length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), len) };
    if result == 0 {
        return 0;
    }
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a port").port()
}

fn fail_to_connect(out: &Path) {
    let localhost = [127, 0, 0, 1];
    let mut facts = Vec::new();
    let refused = closed_port();
    let error = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, refused)).expect_err("closed");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    facts.push(json!({"what": "refused", "port": refused, "error": "ECONNREFUSED"}));

    // Answered later; asking again tells the error to the caller, and must not be another event.
    let later = closed_port();
    let (socket, errno) = connect_now(localhost, later);
    assert_eq!(errno, libc::EINPROGRESS);
    let errno = poll("the refusal", || {
        let errno = connect_again(&socket, localhost, later);
        (errno != libc::EALREADY && errno != libc::EINPROGRESS).then_some(errno)
    });
    assert_eq!(errno, libc::ECONNREFUSED);
    facts.push(json!({"what": "later", "port": later, "error": "ECONNREFUSED"}));

    // Before any packet: no route leads to the broadcast address, and a class of its own is none at all.
    let (_socket, errno) = connect_now([255, 255, 255, 255], 9);
    assert_eq!(errno, libc::ENETUNREACH);
    facts.push(json!({"what": "unreachable", "port": 9, "error": "ENETUNREACH"}));

    // Not waited for, and it comes about: one event, without an error.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a port").port();
    let (socket, errno) = connect_now(localhost, port);
    assert_eq!(errno, libc::EINPROGRESS);
    listener.accept().expect("our own client");
    poll("the connection", || {
        let errno = connect_again(&socket, localhost, port);
        (errno == 0 || errno == libc::EISCONN).then_some(())
    });
    facts.push(json!({"what": "works", "port": port, "error": null}));
    note(out, &facts);
}

fn failures(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["failures", text(&out)]);
    let facts = facts(&out);
    for fact in &facts {
        let found: Vec<&Value> = ended
            .of("connect")
            .filter(|e| e["destination.port"] == fact["port"])
            .collect();
        let [event] = found[..] else {
            panic!("{fact}: {found:?}");
        };
        assert_eq!(
            event.get("error.code").unwrap_or(&Value::Null),
            &fact["error"],
            "{event}"
        );
        let outcome = if fact["error"].is_null() {
            "success"
        } else {
            "failure"
        };
        assert_eq!(event["event.outcome"], outcome, "{event}");
    }
    assert_eq!(ended.of("connect").count(), facts.len());
    // Only what was open can be closed: both ends of one connection.
    assert_eq!(ended.of("close").count(), 2);
    Outcome::Passed
}

fn bind_things(out: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a port").port();
    let error = TcpListener::bind(("127.0.0.1", port)).expect_err("it is taken");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    let udp = UdpSocket::bind("[::1]:0").expect("a free port");
    let udp_port = udp.local_addr().expect("a port").port();
    note(
        out,
        &[
            json!(["bind", "tcp", "127.0.0.1", port, null]),
            json!(["listen", "tcp", "127.0.0.1", port, null]),
            json!(["bind", "tcp", "127.0.0.1", port, "EADDRINUSE"]),
            json!(["bind", "udp", "::1", udp_port, null]),
        ],
    );
}

fn binds(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["binds", text(&out)]);
    let mut seen: Vec<(String, Value)> = ["bind", "listen"]
        .iter()
        .flat_map(|action| ended.of(action))
        .map(|e| {
            let fact = json!([
                e["event.action"],
                e["network.transport"],
                e["source.ip"],
                e["source.port"],
                e.get("error.code").unwrap_or(&Value::Null)
            ]);
            (word(e, "@timestamp").to_owned(), fact)
        })
        .collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let seen: Vec<Value> = seen.into_iter().map(|(_, fact)| fact).collect();
    assert_eq!(seen, facts(&out));
    let listen = ended.of("listen").next().expect("a listen");
    assert!(listen["stockade.net.backlog"].is_i64(), "{listen}");
    Outcome::Passed
}

/// A sum over the summaries of one process with this at this key.
fn sum(ended: &Ended, pid: &Value, key: (&str, &Value), transport: &str, what: &str) -> u64 {
    ended
        .of("network_summary")
        .filter(|e| e["process.pid"] == *pid && e["network.transport"] == transport)
        .filter(|e| e[key.0] == *key.1)
        .map(|e| number(e, what))
        .sum()
}

fn summaries(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network=summary", &["tcp", text(&out)]);
    for fact in facts(&out) {
        for who in ["server", "client"] {
            let of = |what| {
                sum(
                    &ended,
                    &fact[who],
                    ("destination.port", &fact["port"]),
                    "tcp",
                    what,
                )
            };
            assert_eq!(
                of("source.bytes"),
                number(&fact, "to_server"),
                "{who} {fact}"
            );
            assert_eq!(
                of("destination.bytes"),
                number(&fact, "to_client"),
                "{who} {fact}"
            );
            assert_eq!(of("stockade.net.connections"), 1, "{who} {fact}");
            assert_eq!(of("stockade.net.failures"), 0, "{who} {fact}");
            // At least the three of the greeting, and one each way to end it.
            assert!(of("source.packets") >= 3, "{who} {fact}");
            assert!(of("destination.packets") >= 2, "{who} {fact}");
        }
    }
    let out = ctx.path("failures");
    let ended = watched(ctx, "network=summary", &["failures", text(&out)]);
    for fact in facts(&out) {
        let failures: u64 = ended
            .of("network_summary")
            .filter(|e| e["destination.port"] == fact["port"] && e["network.direction"] == "egress")
            .map(|e| number(e, "stockade.net.failures"))
            .sum();
        assert_eq!(failures, u64::from(!fact["error"].is_null()), "{fact}");
    }
    Outcome::Passed
}

fn udp_server(out: &Path) {
    let mut facts = Vec::new();
    for (index, (kind, bind, host)) in KINDS.into_iter().enumerate() {
        let (_, _, count) = amounts(index);
        let socket = UdpSocket::bind(bind).expect("a free port");
        let port = socket.local_addr().expect("a port").port();
        let child = client(&["udp-client", &format!("{host}:{port}"), &count.to_string()]);
        let mut buffer = [0; 2048];
        let mut from = None;
        let mut received = 0;
        for _ in 0..count {
            // Looking is not receiving.
            socket.peek(&mut buffer).expect("a datagram");
            let (len, who) = socket.recv_from(&mut buffer).expect("a datagram");
            received += len;
            from = Some(who);
        }
        let from = from.expect("a client");
        socket.send_to(b"answer", from).expect("it waits");
        let pid = child.id();
        end(child);
        facts.push(json!({
            "kind": kind, "server": std::process::id(), "client": pid, "port": port, "client_port": from.port(),
            "to_server": received, "datagrams": count,
        }));
    }
    note(out, &facts);
}

/// One datagram of each length: 100, 101, …, the first of them from a socket that is not connected.
fn udp_client(to: &str, count: usize) {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).expect("a free port");
    socket.send_to(&[b'u'; 100], to).expect("our server");
    socket.connect(to).expect("our server");
    for n in 1..count {
        socket.send(&vec![b'u'; 100 + n]).expect("our server");
    }
    let mut buffer = [0; 64];
    assert_eq!(socket.recv(&mut buffer).expect("an answer"), 6);
}

/// By process alone: nearly all of these sockets are not connected.
fn udp_without_peers(ended: &Ended, facts: &[Value]) {
    let of = |pid: &Value, what| {
        sum(
            ended,
            pid,
            ("network.transport", &json!("udp")),
            "udp",
            what,
        )
    };
    let mut all = (0, 0);
    for fact in facts {
        let truth = (number(fact, "to_server"), number(fact, "datagrams"));
        all = (all.0 + truth.0, all.1 + truth.1);
        let client = &fact["client"];
        let sent = (of(client, "source.bytes"), of(client, "source.packets"));
        assert_eq!(sent, truth, "{fact}");
        assert_eq!(of(client, "destination.bytes"), 6, "{fact}");
    }
    let server = &facts[0]["server"];
    let received = (
        of(server, "destination.bytes"),
        of(server, "destination.packets"),
    );
    assert_eq!(received, all);
    assert_eq!(of(server, "source.packets"), facts.len() as u64);
}

fn udp(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["udp", text(&out)]);
    let facts = facts(&out);
    let end = ended.events.last().expect("an end record");
    let by_length = |p: &Value| p["name"] == "network.udp" && p["variant"] == "raw_tp";
    let probes = end["stockade.probes"].as_array().expect("probes");
    if ctx.host && probes.iter().any(by_length) {
        udp_without_peers(&ended, &facts);
        return Outcome::Passed;
    }
    for fact in facts {
        let (bytes, datagrams) = (number(&fact, "to_server"), number(&fact, "datagrams"));
        // Both name the other end.
        for (who, port, sent, received) in [
            ("client", "port", (bytes, datagrams), (6, 1)),
            ("server", "client_port", (6, 1), (bytes, datagrams)),
        ] {
            let of = |what| {
                sum(
                    &ended,
                    &fact[who],
                    ("destination.port", &fact[port]),
                    "udp",
                    what,
                )
            };
            assert_eq!(
                (of("source.bytes"), of("source.packets")),
                sent,
                "{who} {fact}"
            );
            assert_eq!(
                (of("destination.bytes"), of("destination.packets")),
                received,
                "{who} {fact}"
            );
        }
    }
    for event in ended.of("network_summary") {
        let v6 = word(event, "destination.ip").contains(':');
        let expected = if v6 { "::1" } else { "127.0.0.1" };
        assert_eq!(event["destination.ip"], expected, "{event}");
        assert_eq!(event["network.type"], if v6 { "ipv6" } else { "ipv4" });
    }
    Outcome::Passed
}

fn connect_locally(dir: &Path) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let path = dir.join("socket");
    let _listener = UnixListener::bind(&path).expect("a socket in our directory");
    let _stream = UnixStream::connect(&path).expect("our own server");
    let missing = UnixStream::connect(dir.join("missing")).expect_err("it is missing");
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let name = SocketAddr::from_abstract_name("stockade test").expect("a name");
    let _abstract = UnixDatagram::bind_addr(&name).expect("a free name");
    let datagram = UnixDatagram::unbound().expect("a socket");
    datagram.connect_addr(&name).expect("our own socket");
}

fn local(ctx: &Ctx) -> Outcome {
    let ended = watched(ctx, "network", &["local", text(&ctx.dir)]);
    let mut seen: Vec<&Value> = ended.of("unix_connect").collect();
    seen.sort_by(|a, b| word(a, "@timestamp").cmp(word(b, "@timestamp")));
    let seen: Vec<Value> = seen
        .iter()
        .map(|e| {
            assert_eq!(e["network.transport"], "unix", "{e}");
            let null = &Value::Null;
            let get = |key| e.get(key).unwrap_or(null);
            json!([
                e["stockade.unix.path"],
                get("stockade.unix.abstract"),
                get("stockade.unix.datagram"),
                get("error.code")
            ])
        })
        .collect();
    let expected = [
        json!([text(&ctx.path("socket")), null, null, null]),
        json!([text(&ctx.path("missing")), null, null, "ENOENT"]),
        json!(["stockade test", true, true, null]),
    ];
    assert_eq!(seen, expected);
    Outcome::Passed
}

/// A server whose queue is full drops the first packet of a connection: it is sent again after a second.
fn wait_for_retransmits(out: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // SAFETY: the descriptor is the listener's.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let port = listener.local_addr().expect("a port").port();
    let waiting: Vec<_> = (0..3).map(|_| connect_now([127, 0, 0, 1], port)).collect();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    drop(waiting);
    note(out, &[json!({ "port": port })]);
}

fn retransmits(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched_somehow(ctx, "network", &["retransmits", text(&out)]);
    if !ctx.host {
        ended.complete();
    }
    let facts = facts(&out);
    let again: Vec<&Value> = ended.of("retransmit").collect();
    assert!(!again.is_empty(), "{:?}", ended.events);
    for event in again {
        assert_eq!(event["destination.port"], facts[0]["port"], "{event}");
        // The one that sends again was given up by its owner.
        let gone = ended
            .of("connect")
            .find(|e| e["source.port"] == event["source.port"])
            .unwrap_or_else(|| panic!("no connect for {event}"));
        assert_eq!(gone["error.code"], "ECANCELED", "{gone}");
    }
    Outcome::Passed
}
