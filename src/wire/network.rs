//! Records of the network monitor.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::decode::{Malformed, Spare, errno, fixed, process_of, until_nul, variable};
use super::{Header, TaskKey, kind, read};
use crate::event::{
    Accept, Bind, Close, Connect, Denied, Flow, Kind, Listen, Process, RawSocket, Retransmit,
    SocketFamily, TcpState, Transport, UnixConnect,
};

record!(
    /// `struct stk_flow`.
    RawFlow {
        local: [u8; 16],
        remote: [u8; 16],
        local_port: u16,
        remote_port: u16,
        family: u16,
        protocol: u16,
    }
);

record!(
    /// `struct stk_net`.
    NetRecord {
        hdr: Header,
        flow: RawFlow,
        duration_ns: u64,
        sent_bytes: u64,
        received_bytes: u64,
        retransmits: u32,
        result: i32,
        incoming: u32,
        value: u32,
    }
);

record!(
    /// `struct stk_unix`.
    UnixRecord {
        hdr: Header,
        result: i32,
        kind: u32,
        path_len: u32,
        pad: u32,
        path: [u8; 112],
    }
);

record!(
    /// `struct stk_payload`.
    PayloadRecord {
        hdr: Header,
        flow: RawFlow,
        moved: u32,
        len: u32,
        sent: u32,
        incoming: u32,
    }
);

record!(
    /// `struct stk_raw_socket`.
    RawSocketRecord {
        hdr: Header,
        result: i32,
        family: u32,
        kind: u32,
        protocol: u32,
    }
);

record!(
    /// `struct stk_net_denial`.
    NetDenialRecord {
        hdr: Header,
        rule: u32,
        access: u32,
        verdict: u16,
        error: u16,
        family: u16,
        protocol: u16,
        address: [u8; 16],
        port: u16,
        own: u8,
        blind: u8,
        host: u32,
    }
);

record!(
    /// `struct stk_tcp_state`.
    TcpStateRecord {
        hdr: Header,
        flow: RawFlow,
        duration_ns: u64,
        incoming: u32,
        before: u8,
        after: u8,
        pad: [u8; 2],
    }
);

record!(
    /// `struct stk_net_key`.
    NetKey {
        task: TaskKey,
        remote: [u8; 16],
        port: u16,
        family: u16,
        protocol: u16,
        incoming: u16,
    }
);

record!(
    /// `struct stk_net_sum`.
    NetSum {
        sent_bytes: u64,
        received_bytes: u64,
        sent_packets: u64,
        received_packets: u64,
        connections: u64,
        failures: u64,
        retransmits: u64,
    }
);

const AF_INET: u32 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u32 = 17;
const SOCK_DGRAM: u32 = 2;

/// Bytes that a call has moved through a socket: what several of them say together is an event.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    /// `kind::DNS` or `kind::TLS`.
    pub(crate) kind: u32,
    pub(crate) time_ns: u64,
    pub(crate) process: Process,
    pub(crate) flow: Flow,
    /// Not received.
    pub(crate) sent: bool,
    /// By the call: more than there are bytes, where they were cut.
    pub(crate) moved: usize,
    pub(crate) bytes: &'a [u8],
}

/// An address as the kernel half keeps it, and whether it is an IPv4 one of an IPv6 socket.
pub(crate) fn address(bytes: [u8; 16], port: u16, family: u16) -> (SocketAddr, bool) {
    let ip = IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical();
    (
        SocketAddr::new(ip, port),
        ip.is_ipv4() && family == AF_INET6,
    )
}

/// The kernel half reports no others.
pub(crate) fn transport(protocol: u16) -> Transport {
    if protocol == 17 {
        Transport::Udp
    } else {
        Transport::Tcp
    }
}

fn flow(raw: &RawFlow, incoming: bool) -> Flow {
    let (mut local, _) = address(raw.local, raw.local_port, raw.family);
    let (remote, mapped) = address(raw.remote, raw.remote_port, raw.family);
    // An IPv6 socket that is still nowhere, on its way to an IPv4 address.
    if mapped && local.is_ipv6() && local.ip().is_unspecified() {
        local.set_ip(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    }
    Flow {
        transport: transport(raw.protocol),
        local,
        remote,
        incoming,
        mapped,
    }
}

pub(super) fn net(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: NetRecord = fixed(bytes)?;
    let errno = errno(rec.result);
    let (local, mapped) = address(rec.flow.local, rec.flow.local_port, rec.flow.family);
    let transport = transport(rec.flow.protocol);
    Ok(match rec.hdr.kind {
        kind::CONNECT => Kind::Connect(Connect {
            flow: flow(&rec.flow, rec.incoming != 0),
            errno,
            duration_ns: rec.duration_ns,
        }),
        kind::ACCEPT => Kind::Accept(Accept {
            flow: flow(&rec.flow, rec.incoming != 0),
        }),
        kind::CLOSE => Kind::Close(Close {
            flow: flow(&rec.flow, rec.incoming != 0),
            sent_bytes: rec.sent_bytes,
            received_bytes: rec.received_bytes,
            retransmits: rec.retransmits,
            errno,
            duration_ns: rec.duration_ns,
        }),
        kind::BIND => Kind::Bind(Bind {
            transport,
            local,
            mapped,
            errno,
        }),
        kind::LISTEN => Kind::Listen(Listen {
            transport,
            local,
            mapped,
            backlog: rec.value.cast_signed(),
            errno,
        }),
        kind::RETRANSMIT => Kind::Retransmit(Retransmit {
            flow: flow(&rec.flow, rec.incoming != 0),
        }),
        _ => return Err(Malformed::Unknown),
    })
}

/// The record as a payload, if it is one.
pub(crate) fn payload(bytes: &[u8]) -> Option<Result<Payload<'_>, Malformed>> {
    let hdr: Header = read(bytes)?;
    matches!(hdr.kind, kind::DNS | kind::TLS).then(|| {
        if usize::try_from(hdr.len) != Ok(bytes.len()) {
            return Err(Malformed::Short);
        }
        let (rec, mut parts) = variable::<PayloadRecord>(bytes)?;
        let bytes = parts.take(rec.len)?;
        parts.end()?;
        Ok(Payload {
            kind: hdr.kind,
            time_ns: hdr.time_ns,
            process: process_of(&hdr),
            flow: flow(&rec.flow, rec.incoming != 0),
            sent: rec.sent != 0,
            moved: usize::try_from(rec.moved).unwrap_or(usize::MAX),
            bytes,
        })
    })
}

/// What a denial on the network is about.
pub(super) fn denied(rec: &NetDenialRecord) -> Denied {
    if rec.blind != 0 {
        return Denied::Socket {
            family: rec.family,
            protocol: rec.protocol,
        };
    }
    Denied::Address {
        transport: match rec.protocol {
            6 | 262 => Some(Transport::Tcp),
            17 | 136 => Some(Transport::Udp),
            _ => None,
        },
        address: address(rec.address, rec.port, rec.family).0,
        own: rec.own != 0,
    }
}

pub(super) fn raw_socket(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: RawSocketRecord = fixed(bytes)?;
    Ok(Kind::RawSocket(RawSocket {
        family: match rec.family {
            AF_INET => SocketFamily::Ipv4,
            AF_PACKET => SocketFamily::Packet,
            family if family == u32::from(AF_INET6) => SocketFamily::Ipv6,
            _ => return Err(Malformed::Unknown),
        },
        datagram: rec.kind == SOCK_DGRAM,
        protocol: rec.protocol,
        errno: errno(rec.result),
    }))
}

pub(super) fn tcp_state(bytes: &[u8]) -> Result<Kind, Malformed> {
    let rec: TcpStateRecord = fixed(bytes)?;
    Ok(Kind::TcpState(TcpState {
        flow: flow(&rec.flow, rec.incoming != 0),
        before: rec.before,
        after: rec.after,
        duration_ns: (rec.duration_ns != 0).then_some(rec.duration_ns),
    }))
}

pub(super) fn unix(bytes: &[u8], spare: &mut Spare) -> Result<Kind, Malformed> {
    let rec: UnixRecord = fixed(bytes)?;
    let len = usize::try_from(rec.path_len).map_err(|_| Malformed::Short)?;
    let path = rec.path.get(..len).ok_or(Malformed::Short)?;
    let (name, is_abstract) = match path {
        // Every byte of an abstract name counts, zeros as well.
        [0, name @ ..] => (name, true),
        path => (until_nul(path), false),
    };
    Ok(Kind::UnixConnect(UnixConnect {
        path: spare.escaped(name),
        is_abstract,
        datagram: rec.kind == SOCK_DGRAM,
        errno: errno(rec.result),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bytes_of;
    use crate::wire::sample::{self, header};

    fn mapped(d: u8) -> [u8; 16] {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, d]
    }

    fn record(kind: u32, family: u16) -> NetRecord {
        NetRecord {
            hdr: header(kind, 0, size_of::<NetRecord>()),
            flow: RawFlow {
                local: mapped(1),
                remote: mapped(2),
                local_port: 1000,
                remote_port: 443,
                family,
                protocol: 6,
            },
            duration_ns: 5,
            sent_bytes: 6,
            received_bytes: 7,
            retransmits: 8,
            result: -111,
            incoming: 0,
            value: u32::MAX,
        }
    }

    #[test]
    fn an_ipv4_address_is_one_also_in_an_ipv6_socket() {
        for (family, mapped) in [(2, false), (AF_INET6, true)] {
            let Kind::Connect(connect) = net(bytes_of(&record(kind::CONNECT, family))).unwrap()
            else {
                panic!()
            };
            assert_eq!(connect.flow.local.to_string(), "127.0.0.1:1000");
            assert_eq!(connect.flow.remote.to_string(), "127.0.0.2:443");
            assert_eq!((connect.flow.mapped, connect.errno), (mapped, 111));
        }
        let mut nowhere = record(kind::CONNECT, AF_INET6);
        nowhere.flow.local = [0; 16];
        let Kind::Connect(connect) = net(bytes_of(&nowhere)).unwrap() else {
            panic!()
        };
        assert_eq!(connect.flow.local.to_string(), "0.0.0.0:1000");
    }

    #[test]
    fn the_source_is_who_connected() {
        let mut record = record(kind::ACCEPT, 2);
        record.incoming = 1;
        let Kind::Accept(accept) = net(bytes_of(&record)).unwrap() else {
            panic!()
        };
        assert_eq!(accept.flow.source(), accept.flow.remote);
        assert_eq!(accept.flow.destination(), accept.flow.local);
    }

    #[test]
    fn a_payload_has_as_many_bytes_as_it_says() {
        let bytes = sample::payload(kind::DNS, true, b"said");
        let Some(Ok(whole)) = payload(&bytes) else {
            panic!()
        };
        assert_eq!((whole.bytes, whole.moved), (b"said".as_slice(), 4));
        assert_eq!(whole.flow.to_string(), "udp 127.0.0.1:1000->127.0.0.1:53");
        for cut in size_of::<Header>()..bytes.len() {
            assert!(
                matches!(payload(&bytes[..cut]), Some(Err(Malformed::Short))),
                "{cut}"
            );
        }
        for (len, expected) in [(3, Malformed::Long), (5, Malformed::Short)] {
            let mut lie = bytes.clone();
            let at = std::mem::offset_of!(PayloadRecord, len);
            lie[at..at + 4].copy_from_slice(&u32::to_ne_bytes(len));
            assert_eq!(payload(&lie).and_then(Result::err), Some(expected));
        }
        // Everything else is not for this.
        assert!(payload(&sample::refused(1)).is_none());
    }

    #[test]
    fn a_denial_names_the_address_or_the_socket() {
        let mut record = NetDenialRecord {
            hdr: header(kind::NET_DENIAL, 0, size_of::<NetDenialRecord>()),
            rule: 7,
            access: 1 << 9,
            verdict: 2,
            error: 1,
            family: AF_INET6,
            protocol: 17,
            address: mapped(2),
            port: 53,
            own: 0,
            blind: 0,
            host: 0,
        };
        assert_eq!(crate::wire::denied_rule(bytes_of(&record)), Some(7));
        assert_eq!(denied(&record).to_string(), "to=udp:127.0.0.2:53");
        record.own = 1;
        record.protocol = 262;
        assert_eq!(denied(&record).to_string(), "at=tcp:127.0.0.2:53");
        record.protocol = 1;
        assert_eq!(denied(&record).to_string(), "at=127.0.0.2:53");
        record.blind = 1;
        record.family = 17;
        record.protocol = 3;
        assert_eq!(denied(&record).to_string(), "socket=packet protocol=0x3");
    }

    #[test]
    fn a_backlog_has_a_sign() {
        let Kind::Listen(listen) = net(bytes_of(&record(kind::LISTEN, 2))).unwrap() else {
            panic!()
        };
        assert_eq!(listen.backlog, -1);
    }

    #[test]
    fn a_local_name_is_a_path_or_abstract() {
        let mut record = UnixRecord {
            hdr: header(kind::UNIX_CONNECT, 0, size_of::<UnixRecord>()),
            result: 0,
            kind: 1,
            path_len: 6,
            pad: 0,
            path: [0; 112],
        };
        let decode = |record: &UnixRecord| {
            let decoded = unix(bytes_of(record), &mut Spare::default());
            decoded.map(|kind| match kind {
                Kind::UnixConnect(e) => (e.path, e.is_abstract),
                _ => panic!(),
            })
        };
        record.path[..6].copy_from_slice(b"/a/b\0x");
        assert_eq!(decode(&record), Ok(("/a/b".into(), false)));
        record.path[0] = 0;
        assert_eq!(decode(&record), Ok(("a/b\\x00x".into(), true)));
        record.path_len = 0;
        assert_eq!(decode(&record), Ok((String::new(), false)));
        record.path_len = 113;
        assert_eq!(decode(&record), Err(Malformed::Short));
    }
}
