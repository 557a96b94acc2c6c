//! What happened on the network.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Failed, Quoted};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
