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
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, poll, stockade, word};

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
        "network_changes_of_state_are_told_where_they_are_named",
        Needs::Watch,
        states,
    ),
    Test::new(
        "network_packets_that_are_sent_again_are_reported",
        Needs::Watch,
        retransmits,
    ),
    Test::new(
        "network_dns_messages_are_told_by_both_ends_however_they_are_moved",
        Needs::Watch,
        dns,
    ),
    Test::new(
        "network_what_is_no_dns_message_is_counted",
        Needs::Watch,
        no_dns,
    ),
    Test::new(
        "network_tls_clients_say_which_server_they_want",
        Needs::Watch,
        tls,
    ),
    Test::new(
        "network_raw_sockets_are_told_with_their_result",
        Needs::Watch,
        raw_sockets,
    ),
    Test::new(
        "network_port_scans_are_told_once_and_with_their_evidence",
        Needs::Watch,
        port_scan,
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
        ["states", out] => change_states(Path::new(out)),
        ["failures", out] => fail_to_connect(Path::new(out)),
        ["binds", out] => bind_things(Path::new(out)),
        ["local", dir] => connect_locally(Path::new(dir)),
        ["dns", out] => dns_server(Path::new(out)),
        ["dns-client", kind, to, out] => dns_client(kind, to, Path::new(out)),
        ["no-dns"] => say_anything(),
        ["tls", out] => tls_server(Path::new(out)),
        ["tls-client", kind, to] => tls_client(kind, to),
        ["raw-sockets"] => raw_socket_steps(),
        ["scan", out, count, rounds] => scan(
            Path::new(out),
            count.parse().expect("a number"),
            rounds.parse().expect("a number"),
        ),
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
    watched_with(ctx, monitor, &[], role)
}

/// The same with options. A kernel that preempts programs skips some, and takes the scratch from others; the session says
/// so (docs/KERNELS.md, "Skipped programs"), and then it is worth another try.
fn watched_with(ctx: &Ctx, monitor: &str, options: &[&str], role: &[&str]) -> Ended {
    for _ in 0..3 {
        let ended = watched_by(ctx, monitor, options, role);
        if ctx.host || !was_preempted(&ended) {
            if !ctx.host {
                ended.complete();
            }
            return ended;
        }
    }
    let ended = watched_by(ctx, monitor, options, role);
    ended.complete();
    ended
}

fn was_preempted(ended: &Ended) -> bool {
    let end = ended.events.last().expect("an end record");
    let losses = end["stockade.losses"].as_array().expect("losses");
    number(end, "stockade.skipped_programs") > 0 || losses.iter().any(|l| l["cause"] == "scratch")
}

fn watched_somehow(ctx: &Ctx, monitor: &str, role: &[&str]) -> Ended {
    watched_by(ctx, monitor, &[], role)
}

/// Runs a role under watch. Meanwhile somebody out of scope connects as well, of whom nothing may be told. It is recorded,
/// and a replay must tell the same, also what no single record tells.
fn watched_by(ctx: &Ctx, monitor: &str, options: &[&str], role: &[&str]) -> Ended {
    let mut words = vec!["run", "--monitor", monitor, "--format", "json"];
    words.extend_from_slice(options);
    let recording = ctx.path("recorded.stk");
    words.extend(["--record", text(&recording), "--"]);
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
    let replayed = stockade(ctx, ["replay", text(&recording), "--format", "json"]);
    assert_eq!(replayed.events, ended.events, "{}", replayed.stderr);
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
fn one<'a>(ended: &'a Ended, action: &'a str, pid: &Value, with: &[(&str, &Value)]) -> &'a Value {
    let is = |e: &Value| with.iter().all(|(key, value)| e[*key] == **value);
    let found: Vec<&Value> = ended
        .of(action)
        .filter(|e| e["process.pid"] == *pid && is(e))
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{action} of {pid} with {with:?}: {found:?}\n{:?}",
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
            // A port of the client's can serve again, for another server.
            let ports = [
                ("source.port", &fact["client_port"]),
                ("destination.port", &fact["port"]),
            ];
            one(&ended, action, &fact[who], &ports)
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
    for fact in &facts {
        let (bytes, datagrams) = (number(fact, "to_server"), number(fact, "datagrams"));
        // The server is one process, and to it two clients that were given the same port, one after the other, are one.
        let alike = facts.iter();
        let alike = alike.filter(|other| other["client_port"] == fact["client_port"]);
        let clients = alike.fold((0, 0, 0), |(bytes, datagrams, clients), other| {
            (
                bytes + number(other, "to_server"),
                datagrams + number(other, "datagrams"),
                clients + 1,
            )
        });
        // Both name the other end.
        for (who, port, sent, received) in [
            ("client", "port", (bytes, datagrams), (6, 1)),
            (
                "server",
                "client_port",
                (6 * clients.2, clients.2),
                (clients.0, clients.1),
            ),
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
                "{who} {fact} of {facts:?}"
            );
            assert_eq!(
                (of("destination.bytes"), of("destination.packets")),
                received,
                "{who} {fact} of {facts:?}"
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

/// One connection, both ends of it ours, that the one ends first who made it; and one that is refused.
fn change_states(out: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = listener.local_addr().expect("a port");
    let mut ours = TcpStream::connect(to).expect("our server");
    let (mut theirs, _) = listener.accept().expect("our client");
    let mut nothing = Vec::new();
    ours.shutdown(Shutdown::Write).expect("open until now");
    theirs.read_to_end(&mut nothing).expect("the end");
    drop((theirs, listener));
    ours.read_to_end(&mut nothing).expect("the end");
    drop(ours);
    TcpStream::connect(to).expect_err("nobody listens any more");
    note(out, &[json!({ "port": to.port() })]);
}

fn states(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let options = ["--events", "tcp_state,close"];
    let ended = watched_with(ctx, "network", &options, &["states", text(&out)]);
    let facts = facts(&out);
    let of = |direction: &str| {
        let mut steps = Vec::new();
        for e in ended.of("tcp_state") {
            if e["network.direction"] != direction {
                continue;
            }
            assert_eq!(e["destination.port"], facts[0]["port"], "{e}");
            let (old, new) = (
                word(e, "stockade.tcp.old_state"),
                word(e, "stockade.tcp.state"),
            );
            // Nobody saw the first one begin.
            let is_first = old == "close" || steps.is_empty();
            assert!(is_first || number(e, "event.duration") > 0, "{e}");
            steps.push(format!("{old} {new}"));
        }
        steps
    };
    let made = [
        "close syn_sent",
        "syn_sent established",
        "established fin_wait1",
        "fin_wait1 fin_wait2",
        "fin_wait2 close",
        "close syn_sent",
        "syn_sent close",
    ];
    let accepted = [
        "established close_wait",
        "close_wait last_ack",
        "last_ack close",
    ];
    assert_eq!(of("egress"), made);
    assert_eq!(of("ingress"), accepted);
    assert_eq!(ended.of("connect").count(), 0, "{:#?}", ended.events);
    assert_eq!(ended.of("close").count(), 2, "{:#?}", ended.events);
    let unnamed = watched_somehow(ctx, "network", &["states", text(&out)]);
    assert_eq!(unnamed.of("tcp_state").count(), 0, "{:#?}", unnamed.events);
    assert_eq!(unnamed.of("connect").count(), 2, "{:#?}", unnamed.events);
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

/// Of this test alone: the machine may have a name server of its own.
const NAME_SERVER: &str = "127.0.53.77";

/// How a query is moved; IPv6 by the last of these.
const DNS_KINDS: [&str; 9] = [
    "connected",
    "unconnected",
    "unnamed",
    "write",
    "two-at-once",
    "mapped",
    "tcp",
    "nxdomain",
    "v6",
];

/// A query for the IPv4 address (or another type) of `KIND.stockade.test`.
fn query(id: u16, kind: &str, record_type: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    // One question, and the wish for recursion.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [kind, "stockade", "test"] {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(record_type.to_be_bytes());
    out.extend([0, 1]);
    out
}

/// The answer: an alias of 300 seconds and its address, or that there is no such name.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut out = query.to_vec();
    if query.windows(8).any(|w| w == b"nxdomain") {
        out[2..4].copy_from_slice(&[0x81, 0x83]);
        return out;
    }
    out[2..4].copy_from_slice(&[0x81, 0x80]);
    out[7] = 2;
    let alias = u8::try_from(out.len() + 12).expect("a short query");
    out.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, 8]);
    out.extend(b"\x05alias\xc0\x0c");
    out.extend([0xc0, alias, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    out
}

fn dns_server(out: &Path) {
    let mut facts = Vec::new();
    for kind in DNS_KINDS {
        let v6 = kind == "v6";
        let host = if v6 {
            "[::1]:53"
        } else {
            &format!("{NAME_SERVER}:53")
        };
        let note = out.with_extension(kind);
        let socket = UdpSocket::bind(host).expect("port 53");
        let listener = TcpListener::bind(host).expect("port 53");
        let child = client(&["dns-client", kind, host, text(&note)]);
        if kind == "tcp" {
            let (mut stream, _) = listener.accept().expect("our client");
            let mut message = vec![0; 2 + query(0, kind, 1).len()];
            stream.read_exact(&mut message).expect("a query");
            let answer = answer(&message[2..]);
            let len = u16::try_from(answer.len()).expect("a short answer");
            stream.write_all(&len.to_be_bytes()).expect("it reads");
            stream.write_all(&answer).expect("it reads");
        } else {
            let count = 1 + usize::from(kind == "two-at-once");
            for _ in 0..count {
                let mut message = [0; 512];
                let (len, from) = socket.recv_from(&mut message).expect("a query");
                socket
                    .send_to(&answer(&message[..len]), from)
                    .expect("it waits");
            }
        }
        let pid = child.id();
        end(child);
        let port: u16 = fs::read_to_string(&note)
            .expect("the client's port")
            .parse()
            .expect("a port");
        facts.push(json!({
            "kind": kind, "server": std::process::id(), "client": pid, "port": port, "server_ip":
            if v6 { "::1" } else { NAME_SERVER },
        }));
    }
    note(out, &facts);
}

fn dns_client(kind: &str, to: &str, out: &Path) {
    let (first, second) = (query(0x1234, kind, 1), query(0x1235, kind, 28));
    let to: SocketAddr = to.parse().expect("an address");
    if kind == "tcp" {
        let mut stream = TcpStream::connect(to).expect("our server");
        let len = u16::try_from(first.len())
            .expect("a short query")
            .to_be_bytes();
        // As resolvers do: the length and the message are two pieces of one call.
        let pieces = [std::io::IoSlice::new(&len), std::io::IoSlice::new(&first)];
        let sent = stream.write_vectored(&pieces).expect("it reads");
        assert_eq!(sent, 2 + first.len());
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("an answer");
        assert_eq!(received[2..], answer(&first));
        let port = stream.local_addr().expect("a port").port();
        fs::write(out, port.to_string()).expect("a file for the port");
        return;
    }
    let any = if to.is_ipv6() || kind == "mapped" {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).expect("a free port");
    let port = socket.local_addr().expect("a port").port();
    fs::write(out, port.to_string()).expect("a file for the port");
    let mut received = [0; 512];
    let mut wanted = vec![answer(&first)];
    match kind {
        "unconnected" | "unnamed" => {
            socket.send_to(&first, to).expect("our server");
        }
        "mapped" => {
            let mapped = format!("[::ffff:{NAME_SERVER}]:53");
            socket.send_to(&first, mapped).expect("our server");
        }
        "two-at-once" => {
            socket.connect(to).expect("our server");
            send_two(&socket, &first, &second);
            wanted.push(answer(&second));
        }
        "write" => {
            socket.connect(to).expect("our server");
            // SAFETY: the bytes live and have this length.
            let sent =
                unsafe { libc::write(socket.as_raw_fd(), first.as_ptr().cast(), first.len()) };
            assert_eq!(usize::try_from(sent), Ok(first.len()));
            // SAFETY: likewise.
            let len = unsafe {
                libc::read(
                    socket.as_raw_fd(),
                    received.as_mut_ptr().cast(),
                    received.len(),
                )
            };
            assert_eq!(usize::try_from(len), Ok(wanted[0].len()));
            return;
        }
        _ => {
            socket.connect(to).expect("our server");
            socket.send(&first).expect("our server");
        }
    }
    for wanted in wanted {
        let len = match kind {
            // Does not want to know from where.
            "unnamed" => socket.recv(&mut received),
            _ => socket.recv_from(&mut received).map(|(len, _)| len),
        };
        assert_eq!(received[..len.expect("an answer")], wanted);
    }
}

/// Two datagrams in one call, as the resolver of glibc sends the queries for both kinds of address.
fn send_two(socket: &UdpSocket, first: &[u8], second: &[u8]) {
    let mut pieces = [first, second].map(|bytes| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    });
    let [one, two] = &mut pieces;
    let mut messages = [one, two].map(|piece| {
        // SAFETY: plain data, for which zeros are a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = piece;
        message.msg_hdr.msg_iovlen = 1;
        message
    });
    // SAFETY: two messages, whose pieces live.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) };
    assert_eq!(sent, 2);
}

/// Whether this probe is attached by this variant.
fn attached_by(ended: &Ended, probe: &str, variant: &str) -> bool {
    let end = ended.events.last().expect("an end record");
    let probes = end["stockade.probes"].as_array().expect("probes");
    probes
        .iter()
        .any(|p| p["name"] == probe && p["variant"] == variant)
}

/// Nothing else is attached: where only these are looked at, a test starts in half of the time.
const DNS_EVENTS: [&str; 2] = ["--events", "dns_query,dns_answer"];

fn dns(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["dns", text(&out)]);
    // Where only calls are seen, the server does not know who asks until it has answered.
    let by_call = attached_by(&ended, "network.payload", "raw_tp");
    for fact in facts(&out) {
        let kind = word(&fact, "kind");
        let queries: &[(&str, u16)] = match kind {
            "two-at-once" => &[("4660", 1), ("4661", 28)],
            _ => &[("4660", 1)],
        };
        for ((id, record_type), who) in queries.iter().flat_map(|q| [(q, "client"), (q, "server")])
        {
            let find = |action| {
                let found: Vec<&Value> = ended
                    .of(action)
                    .filter(|e| e["process.pid"] == fact[who] && e["dns.id"] == *id)
                    .filter(|e| e["dns.question.name"] == format!("{kind}.stockade.test"))
                    .collect();
                assert_eq!(
                    found.len(),
                    1,
                    "{kind} {who} {action}: {found:?}\n{:?}",
                    ended.events
                );
                found[0]
            };
            let (asked, told) = (find("dns_query"), find("dns_answer"));
            let server = who == "server";
            for event in [asked, told] {
                for (key, value) in [
                    (
                        "dns.question.type",
                        json!(if *record_type == 1 { "A" } else { "AAAA" }),
                    ),
                    ("dns.question.class", json!("IN")),
                    (
                        "network.transport",
                        json!(if kind == "tcp" { "tcp" } else { "udp" }),
                    ),
                    (
                        "network.type",
                        json!(if kind == "v6" { "ipv6" } else { "ipv4" }),
                    ),
                    (
                        "network.direction",
                        json!(if server { "ingress" } else { "egress" }),
                    ),
                    ("destination.ip", fact["server_ip"].clone()),
                    ("destination.port", json!(53)),
                ] {
                    assert_eq!(event[key], value, "{kind}: {key}: {event}");
                }
                if !server || !by_call || kind == "tcp" {
                    assert_eq!(event["source.port"], fact["port"], "{kind}: {event}");
                }
            }
            let (code, outcome, answers, addresses) = match kind {
                "nxdomain" => ("NXDOMAIN", "failure", json!([]), json!([])),
                _ => (
                    "NOERROR",
                    "success",
                    json!([
                        {"name": format!("{kind}.stockade.test"), "type": "CNAME", "class": "IN", "ttl": 300,
                         "data": format!("alias.{kind}.stockade.test")},
                        {"name": format!("alias.{kind}.stockade.test"), "type": "A", "class": "IN", "ttl": 60,
                         "data": "192.0.2.7"},
                    ]),
                    json!(["192.0.2.7"]),
                ),
            };
            assert_eq!(told["dns.response_code"], code, "{told}");
            assert_eq!(told["event.outcome"], outcome, "{told}");
            assert_eq!(told["dns.answers"], answers, "{told}");
            assert_eq!(told["dns.resolved_ip"], addresses, "{told}");
            assert_eq!(told.get("stockade.dns.truncated"), None, "{told}");
            if !server || !by_call || kind == "tcp" {
                let took = number(told, "event.duration");
                assert!((1..120_000_000_000).contains(&took), "{told}");
            }
        }
    }
    let messages = 2 * (DNS_KINDS.len() + 1);
    assert_eq!(ended.of("dns_query").count(), messages);
    assert_eq!(ended.of("dns_answer").count(), messages);
    // Only what failed, then only what was slow: nothing here takes a minute.
    for (option, expected) in [
        (["--errors-only"].as_slice(), 2),
        (&["--min-latency", "100s"], 0),
    ] {
        let out = ctx.path("again");
        let options = [option, &DNS_EVENTS].concat();
        let ended = watched_with(ctx, "network", &options, &["dns", text(&out)]);
        assert_eq!(ended.of("dns_query").count(), 0, "{option:?}");
        assert_eq!(ended.of("dns_answer").count(), expected, "{option:?}");
    }
    Outcome::Passed
}

fn say_anything() {
    let server = UdpSocket::bind(format!("{NAME_SERVER}:53")).expect("port 53");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let to = server.local_addr().expect("an address");
    socket.send_to(b"no dns", to).expect("our server");
    // More than is looked into, and an answer that says so.
    let mut long = answer(&query(7, "long", 1));
    long.resize(6000, 0);
    socket.send_to(&long, to).expect("our server");
    // Another port: whatever it is.
    let other = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let to = other.local_addr().expect("an address");
    socket
        .send_to(&query(8, "elsewhere", 1), to)
        .expect("it is ours");
    // Into a buffer that is too short, and the call returns how long it would have been.
    let short = UdpSocket::bind("127.0.0.99:53").expect("port 53");
    let to = short.local_addr().expect("an address");
    let long = answer(&query(9, "short", 1));
    socket.send_to(&long, to).expect("our server");
    // Around the buffer is what must not be taken for received.
    let mut around = [long.clone(), long.clone()].concat();
    let start = &mut around[long.len()..];
    let room = query(9, "short", 1).len();
    // SAFETY: there are so many bytes, and more.
    let len = unsafe {
        libc::recv(
            short.as_raw_fd(),
            start.as_mut_ptr().cast(),
            room,
            libc::MSG_TRUNC,
        )
    };
    assert_eq!(usize::try_from(len), Ok(long.len()));
}

fn no_dns(ctx: &Ctx) -> Outcome {
    let ended = watched_by(ctx, "network", &DNS_EVENTS, &["no-dns"]);
    let end = ended.events.last().expect("an end record");
    let losses = end["stockade.losses"].as_array().expect("losses");
    let unread: Vec<&Value> = losses.iter().filter(|l| l["cause"] == "parse").collect();
    assert!(
        matches!(unread[..], [l] if l["of"] == "dns" && l["count"] == 1),
        "{end}"
    );
    assert_eq!(end["stockade.complete"], false, "{end}");
    assert_eq!(ended.of("dns_query").count(), 0, "{:?}", ended.events);
    let answers: Vec<&Value> = ended.of("dns_answer").collect();
    let [answer, sent, received] = answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(sent.get("stockade.dns.truncated"), None, "{sent}");
    assert_eq!(sent["dns.resolved_ip"], json!(["192.0.2.7"]), "{sent}");
    assert_eq!(received["stockade.dns.truncated"], true, "{received}");
    assert_eq!(received["dns.answers"], json!([]), "{received}");
    assert_eq!(answer["stockade.dns.truncated"], true, "{answer}");
    assert_eq!(answer["dns.resolved_ip"], json!(["192.0.2.7"]), "{answer}");
    Outcome::Passed
}

/// How a client greets, and what is known of the server that it wants: its name, why not, the name in front.
type Greeting = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
);

const TLS_KINDS: [Greeting; 7] = [
    ("whole", Some("whole.stockade.test"), None, None),
    ("two-calls", Some("two-calls.stockade.test"), None, None),
    ("first-byte", Some("first-byte.stockade.test"), None, None),
    ("two-records", Some("two-records.stockade.test"), None, None),
    ("no-name", None, Some("absent"), None),
    (
        "encrypted",
        None,
        Some("encrypted"),
        Some("encrypted.stockade.test"),
    ),
    ("given-up", None, Some("incomplete"), None),
];

/// The greeting of a TLS client, in records of at most so many bytes.
fn client_hello(kind: &str, record: usize) -> Vec<u8> {
    let short = |n: usize| u16::try_from(n).expect("a short greeting").to_be_bytes();
    let mut extensions = Vec::new();
    let mut extend = |number: u16, data: &[u8]| {
        extensions.extend(number.to_be_bytes());
        extensions.extend(short(data.len()));
        extensions.extend(data);
    };
    // Key shares of today fill more than one segment of old.
    extend(51, &[5; 1300]);
    if kind != "no-name" {
        let name = format!("{kind}.stockade.test");
        let mut data = short(name.len() + 3).to_vec();
        data.push(0);
        data.extend(short(name.len()));
        data.extend(name.as_bytes());
        extend(0, &data);
    }
    if kind == "encrypted" {
        extend(0xfe0d, &[7; 200]);
    }
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(short(extensions.len()));
    body.extend(&extensions);
    let mut message = vec![1, 0];
    message.extend(short(body.len()));
    message.extend(body);
    let mut out = Vec::new();
    for part in message.chunks(record) {
        out.extend([22, 3, 1]);
        out.extend(short(part.len()));
        out.extend(part);
    }
    out
}

fn tls_server(out: &Path) {
    let mut facts = Vec::new();
    let names = TLS_KINDS.iter().map(|(kind, ..)| *kind);
    for kind in names.chain(["not-tls"]) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("a port");
        let child = client(&["tls-client", kind, &to.to_string()]);
        let (mut stream, _) = listener.accept().expect("our client");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("a greeting");
        // A server that greets is none.
        let _ = stream.write_all(&client_hello("server", 16_384));
        let pid = child.id();
        end(child);
        facts.push(json!({"kind": kind, "client": pid, "port": to.port()}));
    }
    note(out, &facts);
}

fn tls_client(kind: &str, to: &str) {
    let mut stream = TcpStream::connect(to).expect("our server");
    stream.set_nodelay(true).expect("an open connection");
    let hello = client_hello(kind, if kind == "two-records" { 700 } else { 16_384 });
    let cuts: &[usize] = match kind {
        "two-calls" => &[600],
        "first-byte" => &[1],
        _ => &[],
    };
    let mut rest = &hello[..];
    for cut in cuts {
        let (part, more) = rest.split_at(*cut);
        stream.write_all(part).expect("it reads");
        rest = more;
    }
    match kind {
        "given-up" => rest = &rest[..300],
        "not-tls" => rest = b"GET / HTTP/1.1\r\n\r\n",
        _ => {}
    }
    stream.write_all(rest).expect("it reads");
    if kind != "given-up" {
        // What follows is no greeting, even where it looks like one.
        stream
            .write_all(&client_hello("later", 16_384))
            .expect("it reads");
        stream.write_all(&[0x17; 20_000]).expect("it reads");
    }
}

fn tls(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    let ended = watched(ctx, "network", &["tls", text(&out)]);
    for (fact, (kind, name, unknown, outer)) in facts(&out).iter().zip(TLS_KINDS) {
        assert_eq!(fact["kind"], kind);
        let to = ("destination.port", &fact["port"]);
        let event = one(&ended, "tls", &fact["client"], &[to]);
        for (key, value) in [
            ("tls.client.server_name", name),
            ("stockade.tls.unknown", unknown),
            ("stockade.tls.outer_name", outer),
            ("network.direction", Some("egress")),
        ] {
            assert_eq!(
                event.get(key).and_then(Value::as_str),
                value,
                "{kind}: {key}: {event}"
            );
        }
    }
    assert_eq!(
        ended.of("tls").count(),
        TLS_KINDS.len(),
        "{:?}",
        ended.events
    );
    Outcome::Passed
}

/// Family, type and protocol as they are told, and the error.
type RawSocket = (i32, i32, i32, &'static str, bool, i32, Option<&'static str>);

const RAW_SOCKETS: [RawSocket; 6] = [
    (
        libc::AF_INET,
        libc::SOCK_RAW,
        libc::IPPROTO_ICMP,
        "ipv4",
        false,
        1,
        None,
    ),
    (
        libc::AF_INET6,
        libc::SOCK_RAW,
        libc::IPPROTO_ICMPV6,
        "ipv6",
        false,
        58,
        None,
    ),
    (
        libc::AF_PACKET,
        libc::SOCK_RAW,
        0x0300,
        "packet",
        false,
        3,
        None,
    ),
    (
        libc::AF_PACKET,
        libc::SOCK_DGRAM,
        0,
        "packet",
        true,
        0,
        None,
    ),
    (
        libc::AF_INET,
        libc::SOCK_RAW,
        0,
        "ipv4",
        false,
        0,
        Some("EPROTONOSUPPORT"),
    ),
    // By somebody without rights.
    (
        libc::AF_PACKET,
        libc::SOCK_RAW,
        0x0300,
        "packet",
        false,
        3,
        Some("EPERM"),
    ),
];

fn raw_socket_steps() {
    for (family, kind, protocol, .., error) in RAW_SOCKETS {
        let make = || {
            // SAFETY: plain numbers; the descriptor ends with the process.
            let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
            i32::from(fd < 0)
        };
        let failed = match error {
            Some("EPERM") => {
                crate::helper::in_child(|| {
                    // SAFETY: plain numbers.
                    assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
                    make()
                })
                .1
            }
            _ => make(),
        };
        assert_eq!(
            failed,
            i32::from(error.is_some()),
            "{family} {kind} {protocol}"
        );
    }
    // What everybody has is not told.
    drop(UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    drop(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    drop(UnixDatagram::unbound().expect("a socket"));
}

fn raw_sockets(ctx: &Ctx) -> Outcome {
    let options = ["--events", "raw_socket"];
    let ended = watched_with(ctx, "network", &options, &["raw-sockets"]);
    let mut seen: Vec<&Value> = ended.of("raw_socket").collect();
    seen.sort_by(|a, b| word(a, "@timestamp").cmp(word(b, "@timestamp")));
    let seen: Vec<Value> = seen
        .iter()
        .map(|e| {
            json!([
                e["stockade.socket.family"],
                e.get("stockade.socket.datagram").is_some(),
                e["stockade.socket.protocol"],
                e.get("error.code"),
                e["event.outcome"]
            ])
        })
        .collect();
    let expected = RAW_SOCKETS.map(|(.., family, datagram, protocol, error)| {
        let outcome = if error.is_none() {
            "success"
        } else {
            "failure"
        };
        json!([family, datagram, protocol, error, outcome])
    });
    assert_eq!(seen, expected);
    Outcome::Passed
}

/// Connects to ports where nobody listens, so many and so often.
fn scan(out: &Path, count: usize, rounds: usize) {
    let all: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let ports: Vec<u16> = all
        .iter()
        .map(|l| l.local_addr().expect("a port").port())
        .collect();
    drop(all);
    for _ in 0..rounds {
        for port in &ports {
            let error = TcpStream::connect(("127.0.0.1", *port)).expect_err("it is closed");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
    }
    note(out, &[json!(ports)]);
}

fn port_scan(ctx: &Ctx) -> Outcome {
    let out = ctx.path("facts");
    for (options, count, rounds, refused) in [
        (["--scan-targets", "20"], "25", "2", Some(20)),
        (["--scan-targets", "6"], "5", "6", None),
    ] {
        let role = ["scan", text(&out), count, rounds];
        let ended = watched_with(ctx, "network", &options, &role);
        let alerts: Vec<&Value> = ended.of("port_scan").collect();
        let Some(refused) = refused else {
            assert!(alerts.is_empty(), "{alerts:?}");
            continue;
        };
        let [alert] = alerts[..] else {
            panic!("{options:?} {count}: {alerts:?}\n{:?}", ended.events);
        };
        let connect = ended.of("connect").next().expect("a connect");
        assert_eq!(alert["process.pid"], connect["process.pid"], "{alert}");
        assert_eq!(alert["event.kind"], "alert", "{alert}");
        assert_eq!(alert["stockade.scan.refused"], refused, "{alert}");
        assert_eq!(alert["stockade.scan.unanswered"], 0, "{alert}");
        assert!(number(alert, "stockade.window_ns") > 0, "{alert}");
        let ports = &facts(&out)[0];
        let first: Vec<Value> = ports
            .as_array()
            .expect("ports")
            .iter()
            .take(refused.min(8))
            .map(|port| json!(format!("127.0.0.1:{port}")))
            .collect();
        assert_eq!(alert["stockade.scan.examples"], json!(first), "{alert}");
    }
    Outcome::Passed
}
