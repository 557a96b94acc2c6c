//! What a program under rules about the network is refused, and what it is left.

use std::fs;
use std::io::Read as _;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::ptr::from_ref;
use std::time::Duration;

use libc::{c_int, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
use rustix::io::{Errno, Result};

use crate::bypass;
use crate::fence::{EPERM, denials_of, until_ready};
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, stockade};
use crate::helper::{Done, Step, check, outside, results, step, submit};
use crate::mounts::load;
use crate::places::{policy_of, under};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "denied_address_is_refused_in_every_way",
        Needs::Fence,
        every_way,
    ),
    Test::new(
        "connection_from_before_is_held_by_send_and_not_by_connect",
        Needs::Fence,
        from_before,
    ),
    Test::new(
        "only_addresses_that_are_allowed_can_be_reached",
        Needs::Fence,
        allowed,
    ),
    Test::new(
        "addresses_of_this_end_are_refused_to_who_is_everywhere",
        Needs::Fence,
        own,
    ),
    Test::new(
        "starter_policy_leaves_no_network_but_this_machine",
        Needs::Fence,
        starter,
    ),
    Test::new(
        "network_rule_in_audit_mode_refuses_nothing_and_tells_all",
        Needs::Fence,
        audit,
    ),
];

const TOKEN: &[u8] = b"token";

/// An address as calls take it.
#[derive(Clone, Copy)]
union Address {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Address {
    fn new(address: SocketAddr) -> (Self, socklen_t) {
        // SAFETY: numbers alone, for which 0 is a value.
        let v6 = unsafe { zeroed() };
        let mut all = Address { v6 };
        let size = match address {
            SocketAddr::V4(a) => {
                all.v4 = sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*a.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
                size_of::<sockaddr_in>()
            }
            SocketAddr::V6(a) => {
                all.v6 = sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: a.ip().octets(),
                    },
                    sin6_scope_id: 0,
                };
                size_of::<sockaddr_in6>()
            }
        };
        (all, size as socklen_t)
    }

    fn ptr(&self) -> *const sockaddr {
        from_ref(self).cast()
    }
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn family(address: SocketAddr) -> c_int {
    if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

fn connect(fd: &OwnedFd, to: SocketAddr) -> Result<()> {
    let (address, size) = Address::new(to);
    // SAFETY: an address and its size.
    check(unsafe { libc::connect(fd.as_raw_fd(), address.ptr(), size) }).map(drop)
}

fn bind(fd: &OwnedFd, at: SocketAddr) -> Result<()> {
    let (address, size) = Address::new(at);
    // SAFETY: an address and its size.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.ptr(), size) }).map(drop)
}

fn send_to(fd: &OwnedFd, address: &Address, size: socklen_t, flags: c_int) -> Result<()> {
    let token = TOKEN.as_ptr().cast();
    // SAFETY: bytes and an address with their sizes.
    check(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            token,
            TOKEN.len(),
            flags,
            address.ptr(),
            size,
        )
    } as i64)
    .map(drop)
}

/// A message to an address, or to nobody, with what goes along with it.
fn message(
    address: Option<&(Address, socklen_t)>,
    control: &mut [u8],
    send: impl FnOnce(&libc::msghdr) -> Result<()>,
) -> Result<()> {
    let mut part = libc::iovec {
        iov_base: TOKEN.as_ptr().cast_mut().cast(),
        iov_len: TOKEN.len(),
    };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some((address, size)) = address {
        message.msg_name = address.ptr().cast_mut().cast();
        message.msg_namelen = *size;
    }
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
    }
    send(&message)
}

fn sendmsg(fd: c_int, message: &libc::msghdr) -> Result<()> {
    // SAFETY: a whole message.
    check(unsafe { libc::sendmsg(fd, message, 0) } as i64).map(drop)
}

fn option(fd: &OwnedFd, level: c_int, name: c_int, value: &[u8]) -> Result<()> {
    let size = value.len() as socklen_t;
    // SAFETY: bytes and their size.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), size) })
        .map(drop)
}

/// Loose source routing by way of an address.
fn route_by(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else {
        panic!("IPv4 has these options")
    };
    let mut option = vec![libc::IPOPT_LSRR, 7, 4];
    option.extend(address.ip().octets());
    option.push(0);
    option
}

/// The socket, which waits for nobody.
fn waiting(fd: &OwnedFd) -> Result<c_int> {
    rustix::io::ioctl_fionbio(fd, true)?;
    Ok(fd.as_raw_fd())
}

/// A step of the helper's: an operation and an address, or a descriptor that it was started with.
pub(crate) fn operation(what: &str, object: &str) -> Result<()> {
    if let Ok(fd) = object.parse::<c_int>() {
        return with_inherited(what, fd);
    }
    let to: SocketAddr = object.parse().expect("an address");
    let tcp = || socket(family(to), libc::SOCK_STREAM, 0);
    let udp = || socket(family(to), libc::SOCK_DGRAM, 0);
    let (mut address, size) = Address::new(to);
    match what {
        "tcp" => connect(&tcp()?, to),
        "udp" => connect(&udp()?, to),
        "udp-write" => {
            let fd = udp()?;
            connect(&fd, to)?;
            rustix::io::write(&fd, TOKEN).map(drop)
        }
        "sendto" => send_to(&udp()?, &address, size, 0),
        // UDP takes no family for IPv4.
        "sendto-no-family" => {
            address.v4.sin_family = 0;
            send_to(&udp()?, &address, size, 0)
        }
        "sendmsg" => {
            let fd = udp()?;
            let to = (address, size);
            message(Some(&to), &mut [], |message| {
                sendmsg(fd.as_raw_fd(), message)
            })
        }
        "sendmmsg" => {
            let fd = udp()?;
            message(Some(&(address, size)), &mut [], |message| {
                let mut many = libc::mmsghdr {
                    msg_hdr: *message,
                    msg_len: 0,
                };
                // SAFETY: a whole message.
                check(unsafe { libc::sendmmsg(fd.as_raw_fd(), &raw mut many, 1, 0) }).map(drop)
            })
        }
        // To one name twice: the kernel asks about the first one.
        "sendmmsg-twice" => {
            let fd = udp()?;
            message(Some(&(address, size)), &mut [], |message| {
                let one = libc::mmsghdr {
                    msg_hdr: *message,
                    msg_len: 0,
                };
                let mut two = [one, one];
                // SAFETY: whole messages.
                check(unsafe { libc::sendmmsg(fd.as_raw_fd(), two.as_mut_ptr(), 2, 0) }).map(drop)
            })
        }
        "fastopen" => send_to(&tcp()?, &address, size, libc::MSG_FASTOPEN),
        "fastopen-connect" => {
            let fd = tcp()?;
            option(
                &fd,
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                &1u32.to_ne_bytes(),
            )?;
            connect(&fd, to)?;
            rustix::io::write(&fd, TOKEN).map(drop)
        }
        "uring-connect" => {
            let fd = tcp()?;
            let fd = io_uring::types::Fd(fd.as_raw_fd());
            submit(&io_uring::opcode::Connect::new(fd, address.ptr(), size).build())
        }
        "uring-sendmsg" => {
            let fd = udp()?;
            message(Some(&(address, size)), &mut [], |message| {
                let fd = io_uring::types::Fd(fd.as_raw_fd());
                submit(&io_uring::opcode::SendMsg::new(fd, message).build())
            })
        }
        "mptcp" => connect(
            &socket(family(to), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?,
            to,
        ),
        // Sockets whose packets say themselves where to.
        "raw" => socket(family(to), libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "raw-headers" => socket(family(to), libc::SOCK_RAW, libc::IPPROTO_RAW).map(drop),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300).map(drop),
        "packet-datagram" => socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0x0300).map(drop),
        // By way of an address, to another one.
        // An address, a label, then what to do with it: to make one for this socket alone.
        "flow-label" => {
            let mut request = [0u8; 32];
            request[15] = 1;
            request[21] = 1;
            request[22] = 1;
            let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
            option(&fd, libc::SOL_IPV6, 32, &request)
        }
        "vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop),
        "xdp" => socket(libc::AF_XDP, libc::SOCK_RAW, 0).map(drop),
        "netns" => {
            // SAFETY: a plain number; this process is for this step alone.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let fd = udp()?;
            bring_up(&fd)?;
            connect(&fd, to)
        }
        "tun" => tun(),
        "broadcast" => {
            let fd = udp()?;
            option(
                &fd,
                libc::SOL_SOCKET,
                libc::SO_BROADCAST,
                &1u32.to_ne_bytes(),
            )?;
            send_to(&fd, &address, size, 0)
        }
        "smc" => socket(43, libc::SOCK_STREAM, 0).map(drop),
        "route" => option(&udp()?, libc::SOL_IP, libc::IP_OPTIONS, &route_by(to)),
        "route-tcp" => option(&tcp()?, libc::SOL_IP, libc::IP_OPTIONS, &route_by(to)),
        "route-message" => {
            let fd = udp()?;
            let route = route_by(to);
            // SAFETY: sizes alone.
            let room = unsafe { libc::CMSG_SPACE(route.len() as u32) } as usize;
            let mut control = vec![0u64; room.div_ceil(8)];
            let head = control.as_mut_ptr().cast::<libc::cmsghdr>();
            // SAFETY: there is room for the head and what follows it.
            unsafe {
                (*head).cmsg_len = libc::CMSG_LEN(route.len() as u32) as usize;
                (*head).cmsg_level = libc::SOL_IP;
                (*head).cmsg_type = libc::IP_RETOPTS;
                std::ptr::copy_nonoverlapping(route.as_ptr(), libc::CMSG_DATA(head), route.len());
            }
            let bytes: &mut [u8] =
                // SAFETY: the same memory as bytes.
                unsafe { std::slice::from_raw_parts_mut(control.as_mut_ptr().cast(), room) };
            // To one that is not denied, over one that is.
            let end = Address::new(SocketAddr::from(([127, 0, 0, 3], to.port())));
            message(Some(&end), bytes, |message| {
                sendmsg(fd.as_raw_fd(), message)
            })
        }
        // Echo requests, which everybody may send where the range of groups says so.
        "ping" => {
            let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
            let echo = [8u8, 0, 0, 0, 0, 0, 0, 1];
            let echo_at = echo.as_ptr().cast();
            // SAFETY: bytes and an address with their sizes.
            check(unsafe {
                libc::sendto(fd.as_raw_fd(), echo_at, echo.len(), 0, address.ptr(), size)
            } as i64)
            .map(drop)
        }
        "bind" => bind(&tcp()?, to),
        "bind-udp" => bind(&udp()?, to),
        "listen" => {
            let fd = tcp()?;
            bind(&fd, to)?;
            // SAFETY: plain numbers.
            check(unsafe { libc::listen(fd.as_raw_fd(), 1) }).map(drop)
        }
        "listen-anywhere" => {
            let fd = tcp()?;
            // SAFETY: plain numbers.
            check(unsafe { libc::listen(fd.as_raw_fd(), 1) }).map(drop)
        }
        "accept" => {
            let fd = tcp()?;
            bind(&fd, to)?;
            // SAFETY: plain numbers.
            check(unsafe { libc::listen(fd.as_raw_fd(), 1) })?;
            let (none, size) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: nobody's address is asked for; there is nobody to be accepted.
            match check(unsafe { libc::accept4(waiting(&fd)?, none, size, libc::SOCK_NONBLOCK) }) {
                Err(Errno::AGAIN) => Ok(()),
                other => other.map(drop),
            }
        }
        // What does not leave the machine is not the network.
        "unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).map(drop),
        "netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW, 0).map(drop),
        _ => panic!("no operation {what}"),
    }
}

/// Steps on a connected socket that somebody else made.
fn with_inherited(what: &str, fd: c_int) -> Result<()> {
    // SAFETY: it was handed down, and the copy belongs to this process.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    match what {
        "write" => rustix::io::write(socket, TOKEN).map(drop),
        "send" => {
            // SAFETY: bytes and their size.
            check(unsafe { libc::send(fd, TOKEN.as_ptr().cast(), TOKEN.len(), 0) } as i64).map(drop)
        }
        "sendmsg" => message(None, &mut [], |message| sendmsg(fd, message)),
        // To an address that the kernel does not look at, because the connection is there.
        "decoy" => {
            let (address, size) = Address::new(SocketAddr::from(([192, 0, 2, 1], 9)));
            let (token, flags) = (TOKEN.as_ptr().cast(), libc::MSG_FASTOPEN);
            // SAFETY: bytes and an address with their sizes.
            let sent = unsafe { libc::sendto(fd, token, TOKEN.len(), flags, address.ptr(), size) };
            check(sent as i64).map(drop)
        }
        "uring-send" => {
            let (at, size) = (TOKEN.as_ptr(), TOKEN.len() as u32);
            let fd = io_uring::types::Fd(fd);
            submit(&io_uring::opcode::Send::new(fd, at, size).build())
        }
        "sendfile" => {
            let file = token_file()?;
            rustix::fs::sendfile(socket, &file, None, TOKEN.len()).map(drop)
        }
        "splice" => {
            let (reader, writer) = rustix::pipe::pipe()?;
            rustix::io::write(&writer, TOKEN)?;
            let flags = rustix::pipe::SpliceFlags::empty();
            rustix::pipe::splice(&reader, None, socket, None, TOKEN.len(), flags).map(drop)
        }
        _ => panic!("no operation {what}"),
    }
}

/// The loopback device of a new namespace.
fn bring_up(fd: &OwnedFd) -> Result<()> {
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut device: libc::ifreq = unsafe { zeroed() };
    for (to, from) in device.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    device.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a device's name and flags.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut device) }).map(drop)
}

/// A device of the network whose frames are read from a file, and written to it.
fn tun() -> Result<()> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty())?;
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut device: libc::ifreq = unsafe { zeroed() };
    device.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: a device's flags, and room for its name.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut device) }).map(drop)
}

fn token_file() -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("token", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&fd, TOKEN)?;
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
    Ok(fd)
}

/// Somebody at all addresses of this machine, of both versions, by TCP and UDP on one port.
struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
    port: u16,
}

impl Server {
    fn new() -> Self {
        let tcp = TcpListener::bind("[::]:0").expect("a free port");
        let port = tcp.local_addr().expect("an address").port();
        let udp = UdpSocket::bind(("::", port)).expect("the same port by UDP");
        tcp.set_nonblocking(true).expect("a socket");
        udp.set_nonblocking(true).expect("a socket");
        Server { tcp, udp, port }
    }

    /// Who was in touch until now, from this machine's address `from`: datagrams and connections.
    fn met(&self, with: &str) -> Vec<String> {
        let mut met = Vec::new();
        let mut buffer = [0; 16];
        while let Ok((_, from)) = self.udp.recv_from(&mut buffer) {
            met.push(format!("udp {}", from.ip().to_canonical()));
        }
        while let Ok((stream, _)) = self.tcp.accept() {
            let at = stream.local_addr().expect("an address").ip();
            met.push(format!("tcp {}", at.to_canonical()));
        }
        met.retain(|who| who.ends_with(with));
        met
    }
}

/// A policy of these rules about the network, as a file.
fn policy(ctx: &Ctx, rules: &[String]) -> PathBuf {
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| format!("  - {{ {rule} }}"))
        .collect();
    policy_of(ctx, &format!("network:\n{}", rules.join("\n")))
}

/// An operation on an object, and the access that it is refused for.
type Case = (&'static str, String, Option<&'static str>);

/// Which kind of address an object is.
fn version(object: &str) -> &'static str {
    match object {
        o if o.starts_with("[::ffff:") => "IPv4 through IPv6",
        o if o.starts_with('[') => "IPv6",
        _ => "IPv4",
    }
}

fn steps_of(cases: &[Case]) -> Vec<Step> {
    let steps = cases.iter().map(|(what, object, _)| {
        let label = format!("{what} {object}");
        step(&label, &[&"net", what, object])
    });
    steps.collect()
}

/// What is wrong with how these cases came out.
fn faults(ended: &Ended, cases: &[Case], done: &[Done], rule: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((_, _, refused), done) in cases.iter().zip(done) {
        let events = denials_of(ended, done);
        let right = match refused {
            None => done.errno == 0 && events.is_empty(),
            Some(access) => {
                let told = events.iter().any(|event| {
                    let accesses = event["stockade.access"].as_array();
                    event["rule.id"] == rule
                        && event["stockade.verdict"] == "deny"
                        && event["event.category"][0] == "network"
                        && accesses.is_some_and(|all| all.iter().any(|a| a == access))
                });
                done.errno == EPERM && told && events.len() == 1
            }
        };
        if !right {
            wrong.push(format!(
                "{}: errno {}, expected {refused:?}: {events:?}",
                done.label, done.errno
            ));
        }
    }
    if done.len() != cases.len() {
        wrong.push(format!("{} of {} steps", done.len(), cases.len()));
    }
    wrong
}

/// As processes of all groups may, which is up to who runs the machine.
fn let_everybody_ping() {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("a setting");
}

fn every_way(ctx: &Ctx) -> Outcome {
    let_everybody_ping();
    let server = Server::new();
    let port = server.port;
    let (closed, open) = (format!("127.0.0.2:{port}"), format!("127.0.0.3:{port}"));
    let mapped = |address: &str| format!("[::ffff:{}]:{port}", address.split(':').next().unwrap());
    let six = format!("[::1]:{port}");
    let policy = policy(
        ctx,
        &[format!(
            "id: closed, deny: [connect, send], to: ['127.0.0.2:{port}', '[::1]:{port}', '127.0.0.2:7']"
        )],
    );
    let ways = [
        "tcp",
        "udp",
        "udp-write",
        "sendto",
        "sendmsg",
        "sendmmsg",
        "fastopen",
        "fastopen-connect",
        "uring-connect",
        "uring-sendmsg",
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (to, refused) in [
        (closed.clone(), Some("connect")),
        (mapped(&closed), Some("connect")),
        (six.clone(), Some("connect")),
        (open.clone(), None),
        (mapped(&open), None),
    ] {
        cases.extend(ways.map(|way| (way, to.clone(), refused)));
    }
    cases.extend([
        ("sendto-no-family", closed.clone(), Some("connect")),
        ("sendto-no-family", open.clone(), None),
        ("ping", "127.0.0.3:0".to_owned(), None),
        // To no address of IPv6 is to oneself.
        ("udp", format!("[::]:{port}"), Some("connect")),
        ("sendto", format!("[::]:{port}"), Some("connect")),
        ("tcp", format!("0.0.0.0:{port}"), None),
    ]);
    let hidden: [Case; 9] = [
        "raw",
        "raw-headers",
        "packet",
        "packet-datagram",
        "route",
        "route-tcp",
        "route-message",
        "flow-label",
        "sendmmsg-twice",
    ]
    .map(|what| (what, closed.clone(), Some("connect")));
    cases.extend(hidden);
    cases.extend([
        ("unix", open.clone(), None),
        ("netlink", open.clone(), None),
        ("bind", "127.0.0.2:0".to_owned(), None),
        ("netns", closed.clone(), Some("connect")),
        // By which the same end is reached, and others with it.
        ("broadcast", format!("127.255.255.255:{port}"), None),
    ]);
    if !ctx.host {
        load("tun");
        cases.push(("tun", closed.clone(), None));
    }
    for done in outside(&steps_of(&cases)) {
        assert_eq!(done.errno, 0, "{} without a fence", done.label);
    }
    // Whether the kernel has any is not asked first.
    cases.extend(["vsock", "xdp"].map(|what| (what, closed.clone(), Some("connect"))));
    let steps = steps_of(&cases);
    server.met("");
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "closed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.met("127.0.0.2"), [] as [String; 0]);
    ended.complete();
    for ((what, object, refused), done) in cases.iter().zip(&done) {
        if refused.is_some() || ["tun", "broadcast"].contains(what) {
            bypass::one(&format!("net/{what}"), version(object), &ended, done);
        }
    }
    Outcome::Passed
}

/// Connections to `to`, made here and left to whoever is started.
fn left_open(to: &str) -> (TcpStream, UdpSocket) {
    let tcp = TcpStream::connect(to).expect("a connection");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    udp.connect(to).expect("an address");
    for fd in [tcp.as_raw_fd(), udp.as_raw_fd()] {
        // SAFETY: it is open for as long as this runs.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("a descriptor");
    }
    (tcp, udp)
}

fn from_before(ctx: &Ctx) -> Outcome {
    let server = Server::new();
    let to = format!("127.0.0.2:{}", server.port);
    let (tcp, udp) = left_open(&to);
    let connecting = socket(libc::AF_INET, libc::SOCK_STREAM, 0).expect("a socket");
    rustix::io::ioctl_fionbio(&connecting, true).expect("a socket");
    let begun = connect(&connecting, to.parse().expect("an address"));
    assert_eq!(begun, Err(Errno::INPROGRESS));
    rustix::io::fcntl_setfd(&connecting, rustix::io::FdFlags::empty()).expect("a descriptor");
    let ways = [
        "write",
        "send",
        "sendmsg",
        "uring-send",
        "sendfile",
        "splice",
    ];
    for (kinds, refused) in [("[connect, send]", Some("send")), ("connect", None)] {
        let rule = format!(
            "id: closed, deny: {kinds}, to: ['127.0.0.0/8:{}']",
            server.port
        );
        let policy = policy(ctx, &[rule]);
        let mut cases: Vec<Case> = [tcp.as_raw_fd(), udp.as_raw_fd()]
            .into_iter()
            .flat_map(|fd| ways.map(|way| (way, fd.to_string(), refused)))
            .collect();
        if refused.is_some() {
            cases.insert(0, ("decoy", connecting.as_raw_fd().to_string(), refused));
        }
        let out = ctx.path("results");
        let ended = stockade(ctx, under(&policy, &[], &out, &steps_of(&cases), ctx));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let (_, done) = results(&out);
        let wrong = faults(&ended, &cases, &done, "closed");
        assert!(wrong.is_empty(), "{kinds}:\n{}", wrong.join("\n"));
        for ((what, object, _), done) in cases.iter().zip(&done) {
            let tcp = *object != udp.as_raw_fd().to_string();
            let rules = if refused.is_some() {
                "net-before"
            } else {
                "net-before-without-send"
            };
            let place = if tcp { "TCP" } else { "UDP" };
            bypass::one(&format!("{rules}/{what}"), place, &ended, done);
        }
    }
    // All that came is what was let through.
    let (mut taken, _) = server.tcp.accept().expect("the connection");
    taken
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket");
    drop(tcp);
    let mut all = Vec::new();
    taken.read_to_end(&mut all).expect("what was sent");
    assert_eq!(all, TOKEN.repeat(ways.len()));
    let datagrams = server.met("");
    let datagrams = datagrams.iter().filter(|who| who.starts_with("udp"));
    assert_eq!(datagrams.count(), ways.len());
    Outcome::Passed
}

fn allowed(ctx: &Ctx) -> Outcome {
    let server = Server::new();
    let port = server.port;
    let policy = policy(
        ctx,
        &[
            format!(
                "id: only, allow: [connect, send], to: ['127.0.0.3:{port}', '[::1]:{port}'], protocol: tcp"
            ),
            format!(
                "id: names, allow: [connect, send], to: ['127.0.0.0/24:{port}'], protocol: udp"
            ),
            format!("id: but, deny: connect, to: ['127.0.0.9:{port}']"),
        ],
    );
    let no = Some("connect");
    let at = |ip: &str| format!("{ip}:{port}");
    let cases: Vec<Case> = vec![
        ("tcp", at("127.0.0.3"), None),
        ("tcp", at("[::1]"), None),
        ("tcp", at("[::ffff:127.0.0.3]"), None),
        ("udp-write", at("127.0.0.4"), None),
        ("sendto", at("127.0.0.4"), None),
        ("fastopen", at("127.0.0.3"), None),
        ("tcp", at("127.0.0.4"), no),
        ("tcp", at("127.0.0.1"), no),
        ("tcp", at("0.0.0.0"), no),
        ("tcp", "127.0.0.3:1".to_owned(), no),
        ("fastopen", at("127.0.0.4"), no),
        ("sendto", at("127.0.1.4"), no),
        ("sendto", at("[::1]"), no),
        ("unix", at("127.0.0.3"), None),
        ("netlink", at("127.0.0.3"), None),
        ("listen", "127.0.0.1:0".to_owned(), None),
    ];
    let out = ctx.path("results");
    let mut steps = steps_of(&cases);
    // What is denied to somebody is denied to who reaches whomever he likes.
    let others: Vec<Case> = vec![
        ("udp", at("127.0.0.9"), no),
        ("mptcp", at("127.0.0.3"), no),
        ("sendmmsg-twice", at("127.0.0.4"), no),
        ("raw", at("127.0.0.3"), no),
        ("packet", at("127.0.0.3"), no),
    ];
    steps.extend(steps_of(&others));
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    // Who is outside of the fence, is.
    TcpStream::connect(at("127.0.0.4")).expect("the fence is around somebody else");
    fs::write(&go, b"").expect("the go");
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, mut done) = results(&out);
    done.truncate(cases.len() + others.len());
    let end = ended.complete();
    assert_eq!(end["stockade.fence"]["addresses"], 4, "{end}");
    let mut wrong = faults(&ended, &cases, &done[..cases.len()], "only");
    wrong.extend(faults(&ended, &others, &done[cases.len()..], "but"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for ((what, object, refused), done) in cases.iter().chain(&others).zip(&done) {
        if refused.is_some() {
            bypass::one(&format!("net-allow/{what}"), version(object), &ended, done);
        }
    }
    let told = denials_of(&ended, &done[cases.len()])[0];
    assert!(told.get("stockade.unlisted").is_none(), "{told}");
    assert_eq!(told["destination.ip"], "127.0.0.9");
    assert_eq!(told["network.transport"], "udp");
    let told = denials_of(&ended, &done[done.len() - 1])[0];
    assert_eq!(told["stockade.socket.family"], "packet", "{told}");
    assert_eq!(told["stockade.socket.protocol"], 3, "{told}");
    let unlisted = denials_of(&ended, &done[6]);
    assert_eq!(unlisted[0]["stockade.unlisted"], true, "{unlisted:?}");
    Outcome::Passed
}

fn own(ctx: &Ctx) -> Outcome {
    // None that the kernel picks, and nobody else is here.
    let port = 7777;
    let policy = policy(
        ctx,
        &[
            format!(
                "id: own, deny: bind, at: ['127.0.0.2:{port}', '[::1]:{port}', '127.0.0.8:50051']"
            ),
            "id: own-2, deny: [listen, accept], at: ['127.0.0.4', '0.0.0.0']".to_owned(),
        ],
    );
    let at = |ip: &str| format!("{ip}:{port}");
    let (bind, listen) = (Some("bind"), Some("listen"));
    let mut cases: Vec<Case> = vec![
        ("bind", at("127.0.0.2"), bind),
        ("bind-udp", at("127.0.0.2"), bind),
        ("bind", at("[::1]"), bind),
        ("bind", at("[::ffff:127.0.0.2]"), bind),
        ("bind", at("0.0.0.0"), bind),
        ("bind-udp", at("[::]"), bind),
        ("bind", at("127.0.0.3"), None),
        ("bind", "127.0.0.2:0".to_owned(), None),
        // Of 0.0.0.0 one is 127.0.0.8, and the kernel may pick that port.
        ("bind", "127.0.0.8:0".to_owned(), bind),
        ("bind", "0.0.0.0:0".to_owned(), bind),
        ("bind", "127.0.0.9:0".to_owned(), None),
        ("listen", at("127.0.0.3"), None),
        ("accept", at("127.0.0.3"), None),
    ];
    let others: Vec<Case> = vec![
        ("listen", "127.0.0.4:0".to_owned(), listen),
        ("listen-anywhere", "127.0.0.1:0".to_owned(), listen),
        ("listen-anywhere", "[::1]:0".to_owned(), listen),
    ];
    let mut steps = steps_of(&cases);
    steps.extend(steps_of(&others));
    for done in outside(&steps) {
        assert_eq!(done.errno, 0, "{} without a fence", done.label);
    }
    // Whose TCP socket the kernel binds; whether it has any is not asked first.
    cases.push(("smc", at("127.0.0.3"), bind));
    let mut steps = steps_of(&cases);
    steps.extend(steps_of(&others));
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = faults(&ended, &cases, &done[..cases.len()], "own");
    wrong.extend(faults(&ended, &others, &done[cases.len()..], "own-2"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for ((what, object, refused), done) in cases.iter().chain(&others).zip(&done) {
        if refused.is_some() {
            bypass::one(&format!("net-own/{what}"), version(object), &ended, done);
        }
    }
    // Accepting by itself.
    let policy = self::policy(
        ctx,
        &["id: own, deny: accept, at: ['127.0.0.3']".to_owned()],
    );
    let cases: Vec<Case> = vec![
        ("accept", at("127.0.0.3"), Some("accept")),
        ("accept", at("127.0.0.2"), None),
    ];
    let ended = stockade(ctx, under(&policy, &[], &out, &steps_of(&cases), ctx));
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "own");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bypass::one("net-own/accept", "IPv4", &ended, &done[0]);
    Outcome::Passed
}

fn audit(ctx: &Ctx) -> Outcome {
    let server = Server::new();
    let port = server.port;
    let rule = format!("id: tried, deny: [connect, send], to: ['127.0.0.2:{port}']");
    let policy = policy(ctx, &[rule, "id: at, deny: bind, at: [any]".to_owned()]);
    let to = format!("127.0.0.2:{port}");
    let cases: Vec<(Case, &[&str])> = vec![
        (("tcp", to.clone(), None), &["connect"]),
        (("sendto", to.clone(), None), &["connect,send"]),
        (("udp-write", to.clone(), None), &["connect", "send"]),
        (("packet", to.clone(), None), &["connect,send"]),
        (("bind", "127.0.0.1:0".to_owned(), None), &["bind"]),
        (("tcp", format!("127.0.0.3:{port}"), None), &[]),
    ];
    let steps: Vec<Case> = cases.iter().map(|(case, _)| case.clone()).collect();
    let out = ctx.path("results");
    let ended = stockade(
        ctx,
        under(&policy, &["--audit"], &out, &steps_of(&steps), ctx),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    for (done, (_, expected)) in done.iter().zip(&cases) {
        let told: Vec<String> = denials_of(&ended, done)
            .iter()
            .map(|event| {
                assert_eq!(event["stockade.verdict"], "audit", "{event}");
                let kinds = event["stockade.access"].as_array().into_iter().flatten();
                let kinds: Vec<&str> = kinds.filter_map(serde_json::Value::as_str).collect();
                kinds.join(",")
            })
            .collect();
        assert_eq!(
            (done.errno, &told[..]),
            (0, &strings(expected)[..]),
            "{}",
            done.label
        );
    }
    ended.complete();
    Outcome::Passed
}

fn starter(ctx: &Ctx) -> Outcome {
    let server = Server::new();
    let policy = ctx.path("policy.yaml");
    let text = include_str!("../../policies/no-network.yaml");
    fs::write(&policy, text).expect("a file for the policy");
    let no = Some("connect");
    let cases: Vec<Case> = vec![
        ("tcp", format!("127.0.0.1:{}", server.port), None),
        ("sendto", format!("[::1]:{}", server.port), None),
        ("unix", "127.0.0.1:0".to_owned(), None),
        // Documentation's, where nobody is.
        ("tcp", "192.0.2.1:443".to_owned(), no),
        ("sendto", "198.51.100.1:53".to_owned(), no),
        ("udp", "[2001:db8::1]:443".to_owned(), no),
        ("ping", "192.0.2.1:0".to_owned(), no),
        ("raw", "192.0.2.1:0".to_owned(), no),
    ];
    let_everybody_ping();
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps_of(&cases), ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "only-these");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let fence = &ended.complete()["stockade.fence"];
    assert_eq!(
        (&fence["files"], &fence["identity"]),
        (&0.into(), &"none".into()),
        "{fence}"
    );
    assert_eq!(fence["canary_proofs"], 1, "{fence}");
    Outcome::Passed
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
