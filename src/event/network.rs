//! What happened on the network.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Failed, Quoted, names};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name, as in `network.transport`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Flow {
    /// What carries the bytes.
    pub transport: Transport,
    /// This machine's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The other end connected to this one.
    pub incoming: bool,
    /// An IPv6 socket that speaks IPv4: the program sees the addresses as `::ffff:a.b.c.d`.
    pub mapped: bool,
}

impl Flow {
    /// Who began: the end that connected.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        if self.incoming {
            self.remote
        } else {
            self.local
        }
    }

    /// Whom it was to reach.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        if self.incoming {
            self.local
        } else {
            self.remote
        }
    }
}

/// A TCP connection was made, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connect {
    /// Both ends. Port 0 at the local one when it had none yet.
    pub flow: Flow,
    /// 0 or a positive errno. `ECANCELED`: the socket was closed before an answer came.
    pub errno: u16,
    /// From the first packet to the answer in nanoseconds; 0 when it failed before there was a packet.
    pub duration_ns: u64,
}

/// A TCP connection was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Accept {
    /// Both ends.
    pub flow: Flow,
}

/// A TCP connection ended. The event's process is the one that connected or accepted, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Close {
    /// Both ends.
    pub flow: Flow,
    /// Bytes that were sent, each once.
    pub sent_bytes: u64,
    /// Bytes that arrived, each once.
    pub received_bytes: u64,
    /// Packets that were sent again.
    pub retransmits: u32,
    /// 0, or the errno that ended it, such as `ECONNRESET`.
    pub errno: u16,
    /// Since it was established, or accepted, in nanoseconds.
    pub duration_ns: u64,
}

/// A TCP connection that was made or accepted went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TcpState {
    /// Both ends.
    pub flow: Flow,
    /// The state before, as include/net/tcp_states.h numbers it: 1 is `established`.
    pub before: u8,
    /// The state since.
    pub after: u8,
    /// How long it was in the state before, in nanoseconds; `None` where that was not seen to begin: at the start, and
    /// when it was accepted in that state.
    pub duration_ns: Option<u64>,
}

/// A packet of a TCP connection was sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retransmit {
    /// Both ends.
    pub flow: Flow,
}

/// A socket was given an address, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bind {
    /// What carries the bytes.
    pub transport: Transport,
    /// The address; with the port that the kernel chose, when it was to choose. After a failure the one asked for.
    pub local: SocketAddr,
    /// An IPv6 socket that speaks IPv4.
    pub mapped: bool,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A socket waits for connections, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listen {
    /// What carries the bytes.
    pub transport: Transport,
    /// Where.
    pub local: SocketAddr,
    /// An IPv6 socket that speaks IPv4.
    pub mapped: bool,
    /// How many connections may wait, as the caller said it.
    pub backlog: i32,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A local socket (`AF_UNIX`) was connected, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnixConnect {
    /// Path, as given by the caller, or abstract name; escaped.
    pub path: String,
    /// The name is abstract: no file.
    pub is_abstract: bool,
    /// Datagrams, and not a connection.
    pub datagram: bool,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// A DNS query was sent; or received, by the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DnsQuery {
    /// Both ends. `incoming`: the other end asks. The local address of a socket that has none is that of anybody.
    pub flow: Flow,
    /// Number of the query, which its answer repeats.
    pub id: u16,
    /// The name that is asked for, escaped, without the last dot; `.` is the root.
    pub name: String,
    /// Type of the records that are asked for, as IANA has it: 1 is A.
    pub record_type: u16,
    /// Class, as IANA has it: 1 is IN.
    pub class: u16,
    /// Only the start of the message is known.
    pub truncated: bool,
}

/// A DNS answer was received; or sent, by the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DnsAnswer {
    /// Both ends, as in the query.
    pub flow: Flow,
    /// Number of the query.
    pub id: u16,
    /// The name that was asked for, escaped; empty when the answer does not repeat it.
    pub name: String,
    /// Type of the records that were asked for.
    pub record_type: u16,
    /// Class.
    pub class: u16,
    /// Response code, as IANA has it: 0 is NOERROR.
    pub code: u16,
    /// The records of the answer section, at most 64.
    pub answers: Vec<DnsRecord>,
    /// From the query to the answer in nanoseconds; `None` when the query was not seen.
    pub latency_ns: Option<u64>,
    /// Records are missing: the server left them out, or only the start of the message is known.
    pub truncated: bool,
}

/// A record in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DnsRecord {
    /// Whose it is, escaped.
    pub name: String,
    /// Type, as IANA has it.
    pub record_type: u16,
    /// Class, as IANA has it.
    pub class: u16,
    /// How long it may be kept, in seconds.
    pub ttl_s: u32,
    /// Addresses and names as text, escaped; of other types than A, AAAA, CNAME, DNAME, MX, NS, PTR, SRV and TXT empty.
    pub data: String,
}

/// A TLS client has greeted a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tls {
    /// Both ends.
    pub flow: Flow,
    /// The server that it wants to speak to, escaped.
    pub server_name: Option<String>,
    /// Why that is not known.
    pub unknown: Option<TlsUnknown>,
    /// Beside an encrypted greeting the name in the open one: of whoever stands in front of the server, or, where the
    /// encrypted one is a dummy, of the server. Nobody but the server can tell.
    pub outer_name: Option<String>,
}

/// Why a server's name is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TlsUnknown {
    /// The client names none.
    Absent,
    /// There is an encrypted greeting in the open one (ECH).
    Encrypted,
    /// The greeting breaks off, contradicts itself or is too long.
    Incomplete,
}

impl TlsUnknown {
    /// Its name in the stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TlsUnknown::Absent => "absent",
            TlsUnknown::Encrypted => "encrypted",
            TlsUnknown::Incomplete => "incomplete",
        }
    }
}

/// Somebody asked for a socket beside the transports: for packets with headers of its own, or for what passes a network
/// card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RawSocket {
    /// Which packets.
    pub family: SocketFamily,
    /// `SOCK_DGRAM`: without the link's own header; else raw.
    pub datagram: bool,
    /// Of IP the protocol; of packets the EtherType, 0 for none yet and 3 for all.
    pub protocol: u32,
    /// 0 or a positive errno.
    pub errno: u16,
}

/// The packets that a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SocketFamily {
    /// IPv4 (`AF_INET`).
    Ipv4,
    /// IPv6 (`AF_INET6`).
    Ipv6,
    /// Any (`AF_PACKET`).
    Packet,
}

impl SocketFamily {
    /// Its name in the stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SocketFamily::Ipv4 => "ipv4",
            SocketFamily::Ipv6 => "ipv6",
            SocketFamily::Packet => "packet",
        }
    }
}

/// A process has tried many addresses and ports where nobody answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PortScan {
    /// Distinct pairs of address and port that refused.
    pub refused: u32,
    /// Distinct pairs that did not answer.
    pub unanswered: u32,
    /// The first of them, at most 8.
    pub examples: Vec<SocketAddr>,
    /// From the first to the last in nanoseconds.
    pub window_ns: u64,
}

/// What one process did with one peer in a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkSummary {
    /// What carries the bytes.
    pub transport: Transport,
    /// The peer; its port when we connected or sent to it. When it connected to us, our port.
    pub peer: SocketAddr,
    /// The peer connected to us.
    pub incoming: bool,
    /// An IPv6 socket that speaks IPv4.
    pub mapped: bool,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Bytes that were received.
    pub received_bytes: u64,
    /// TCP: segments; UDP: calls that sent.
    pub sent_packets: u64,
    /// TCP: segments; UDP: datagrams.
    pub received_packets: u64,
    /// Connections that were made or accepted. Always 0 for UDP.
    pub connections: u64,
    /// Attempts to connect that failed; for UDP, to send.
    pub failures: u64,
    /// TCP segments that were sent again.
    pub retransmits: u64,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.incoming { "<-" } else { "->" };
        let transport = self.transport.name();
        write!(f, "{transport} {}{arrow}{}", self.local, self.remote)
    }
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.flow, Failed(self.errno))?;
        if self.duration_ns > 0 {
            write!(f, " took={:.3}ms", milliseconds(self.duration_ns))?;
        }
        Ok(())
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent={} received={} retransmits={}{} lasted={:.3}ms",
            self.flow,
            self.sent_bytes,
            self.received_bytes,
            self.retransmits,
            Failed(self.errno),
            milliseconds(self.duration_ns)
        )
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.name();
        write!(f, "{transport} {}{}", self.local, Failed(self.errno))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} backlog={}{}",
            self.transport.name(),
            self.local,
            self.backlog,
            Failed(self.errno)
        )
    }
}

impl fmt::Display for UnixConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.is_abstract { "abstract" } else { "path" };
        write!(f, "{key}={}", Quoted(&self.path))?;
        if self.datagram {
            f.write_str(" datagram")?;
        }
        write!(f, "{}", Failed(self.errno))
    }
}

/// A number by its name, or with what it is the number of.
struct Numbered(&'static str, Option<&'static str>, u16);

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(name) => f.write_str(name),
            None => write!(f, "{}{}", self.0, self.2),
        }
    }
}

/// The type of a record as text: `AAAA`, or `TYPE65399` where it has no name (RFC 3597).
pub(crate) fn dns_type(number: u16) -> impl fmt::Display {
    Numbered("TYPE", names::dns_type(number), number)
}

pub(crate) fn dns_class(number: u16) -> impl fmt::Display {
    Numbered("CLASS", names::dns_class(number), number)
}

pub(crate) fn tcp_state(number: u8) -> impl fmt::Display {
    Numbered("state", names::tcp_state(number), number.into())
}

pub(crate) fn dns_code(number: u16) -> impl fmt::Display {
    Numbered("RCODE", names::dns_code(number), number)
}

impl fmt::Display for DnsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = dns_type(self.record_type);
        write!(
            f,
            "{} {} id={}",
            self.flow,
            Question(&self.name, kind),
            self.id
        )
    }
}

impl fmt::Display for DnsAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, code) = (dns_type(self.record_type), dns_code(self.code));
        let question = Question(&self.name, kind);
        write!(f, "{} {question} id={} {code} [", self.flow, self.id)?;
        for (i, record) in self.answers.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            write!(f, "{space}{}", dns_type(record.record_type))?;
            if !record.data.is_empty() {
                write!(f, "={}", Quoted(&record.data))?;
            }
        }
        f.write_str(if self.truncated { "]..." } else { "]" })?;
        match self.latency_ns {
            Some(ns) => write!(f, " took={:.3}ms", milliseconds(ns)),
            None => Ok(()),
        }
    }
}

/// What is asked for, and which records of it.
struct Question<'a, T>(&'a str, T);

impl<T: fmt::Display> fmt::Display for Question<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name={} type={}", Quoted(self.0), self.1)
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.flow)?;
        if let Some(name) = &self.server_name {
            write!(f, " name={}", Quoted(name))?;
        }
        if let Some(why) = self.unknown {
            write!(f, " name unknown: {}", why.name())?;
        }
        match &self.outer_name {
            Some(name) => write!(f, " outer={}", Quoted(name)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RawSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.datagram { "datagram" } else { "raw" };
        let (family, protocol) = (self.family.name(), self.protocol);
        write!(
            f,
            "{family} {kind} protocol={protocol:#x}{}",
            Failed(self.errno)
        )
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (tcp_state(self.before), tcp_state(self.after));
        write!(f, "{} {before}->{after}", self.flow)?;
        match self.duration_ns {
            Some(ns) => write!(f, " after={:.3}ms", milliseconds(ns)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PortScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PORT SCAN refused={} unanswered={} among=[",
            self.refused, self.unanswered
        )?;
        for (i, target) in self.examples.iter().enumerate() {
            write!(f, "{}{target}", if i > 0 { " " } else { "" })?;
        }
        write!(f, "] in={:.1}s", self.window_ns as f64 / 1e9)
    }
}

impl fmt::Display for NetworkSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, ip, port) = (self.transport.name(), self.peer.ip(), self.peer.port());
        if self.incoming {
            write!(f, "{transport} port={port}<-{ip}")?;
        } else {
            write!(f, "{transport} ->{}", self.peer)?;
        }
        write!(
            f,
            " sent={}/{} received={}/{} connections={} failures={} retransmits={} in={:.1}s",
            self.sent_bytes,
            self.sent_packets,
            self.received_bytes,
            self.received_packets,
            self.connections,
            self.failures,
            self.retransmits,
            self.window_ns as f64 / 1e9
        )
    }
}
