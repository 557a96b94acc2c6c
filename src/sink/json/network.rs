//! The fields of the network monitor.

use std::net::{IpAddr, SocketAddr};

use super::Line;
use crate::event::network::{dns_class, dns_code, dns_type, tcp_state};
use crate::event::{
    Accept, Bind, Close, Connect, Denied, DnsAnswer, DnsQuery, Flow, Listen, NetworkSummary,
    PortScan, RawSocket, Retransmit, TcpState, Tls, Transport, UnixConnect, socket_family,
};

impl Line<'_> {
    pub(super) fn connect(&mut self, e: &Connect) {
        self.flow(&e.flow);
        if e.duration_ns > 0 {
            self.number(key!("event.duration"), e.duration_ns);
        }
        self.error(e.errno);
    }

    pub(super) fn accept(&mut self, e: &Accept) {
        self.flow(&e.flow);
    }

    pub(super) fn close(&mut self, e: &Close) {
        self.flow(&e.flow);
        self.moved(e.flow.incoming, e.sent_bytes, e.received_bytes);
        self.number(key!("stockade.net.retransmits"), e.retransmits);
        self.number(key!("event.duration"), e.duration_ns);
        self.error(e.errno);
    }

    pub(super) fn retransmit(&mut self, e: &Retransmit) {
        self.flow(&e.flow);
    }

    pub(super) fn bind(&mut self, e: &Bind) {
        self.network(e.transport, e.local.ip(), e.mapped);
        self.source(e.local);
        self.error(e.errno);
    }

    pub(super) fn listen(&mut self, e: &Listen) {
        self.network(e.transport, e.local.ip(), e.mapped);
        self.source(e.local);
        self.number(key!("stockade.net.backlog"), e.backlog);
        self.error(e.errno);
    }

    pub(super) fn unix_connect(&mut self, e: &UnixConnect) {
        self.raw(b",\"network.transport\":\"unix\"");
        self.string(key!("stockade.unix.path"), &e.path);
        self.flag(key!("stockade.unix.abstract"), e.is_abstract);
        self.flag(key!("stockade.unix.datagram"), e.datagram);
        self.error(e.errno);
    }

    pub(super) fn dns_query(&mut self, e: &DnsQuery) {
        self.flow(&e.flow);
        self.raw(b",\"dns.type\":\"query\"");
        self.question(e.id, &e.name, e.record_type, e.class);
        self.flag(key!("stockade.dns.truncated"), e.truncated);
    }

    pub(super) fn dns_answer(&mut self, e: &DnsAnswer) {
        self.flow(&e.flow);
        self.raw(b",\"dns.type\":\"answer\"");
        self.question(e.id, &e.name, e.record_type, e.class);
        self.display(key!("dns.response_code"), dns_code(e.code));
        self.raw(key!("dns.answers"));
        for (i, record) in e.answers.iter().enumerate() {
            self.raw(if i == 0 {
                b"[{\"name\":"
            } else {
                b",{\"name\":"
            });
            self.text(&record.name);
            self.display(key!("type"), dns_type(record.record_type));
            self.display(key!("class"), dns_class(record.class));
            self.number(key!("ttl"), record.ttl_s);
            self.string(key!("data"), &record.data);
            self.raw(b"}");
        }
        self.raw(if e.answers.is_empty() { b"[]" } else { b"]" });
        let addresses = e.answers.iter().filter(|r| matches!(r.record_type, 1 | 28));
        self.raw(key!("dns.resolved_ip"));
        self.list(addresses.map(|r| r.data.as_str()));
        if let Some(latency_ns) = e.latency_ns {
            self.number(key!("event.duration"), latency_ns);
        }
        self.flag(key!("stockade.dns.truncated"), e.truncated);
    }

    pub(super) fn tls(&mut self, e: &Tls) {
        self.flow(&e.flow);
        if let Some(name) = &e.server_name {
            self.string(key!("tls.client.server_name"), name);
        }
        if let Some(why) = e.unknown {
            self.string(key!("stockade.tls.unknown"), why.name());
        }
        if let Some(name) = &e.outer_name {
            self.string(key!("stockade.tls.outer_name"), name);
        }
    }

    pub(super) fn raw_socket(&mut self, e: &RawSocket) {
        self.string(key!("stockade.socket.family"), e.family.name());
        self.flag(key!("stockade.socket.datagram"), e.datagram);
        self.number(key!("stockade.socket.protocol"), e.protocol);
        self.error(e.errno);
    }

    /// What a denial on the network is about.
    pub(super) fn denied_contact(&mut self, object: &Denied) {
        match object {
            Denied::Address {
                transport,
                address,
                own,
            } => {
                if let Some(transport) = transport {
                    self.network(*transport, address.ip(), false);
                }
                if *own {
                    self.source(*address);
                } else {
                    self.destination(*address);
                }
            }
            Denied::Socket { family, protocol } => {
                self.string(key!("stockade.socket.family"), &socket_family(*family));
                self.number(key!("stockade.socket.protocol"), *protocol);
            }
            Denied::File { .. }
            | Denied::Syscall { .. }
            | Denied::Limit { .. }
            | Denied::Guarded { .. } => {}
        }
    }

    pub(super) fn tcp_state(&mut self, e: &TcpState) {
        self.flow(&e.flow);
        self.display(key!("stockade.tcp.old_state"), tcp_state(e.before));
        self.display(key!("stockade.tcp.state"), tcp_state(e.after));
        if let Some(ns) = e.duration_ns {
            self.number(key!("event.duration"), ns);
        }
    }

    pub(super) fn port_scan(&mut self, e: &PortScan) {
        self.raw(b",\"network.transport\":\"tcp\"");
        self.number(key!("stockade.scan.refused"), e.refused);
        self.number(key!("stockade.scan.unanswered"), e.unanswered);
        self.raw(key!("stockade.scan.examples"));
        for (i, target) in e.examples.iter().enumerate() {
            self.display(if i == 0 { b"[" } else { b"," }, target);
        }
        self.raw(if e.examples.is_empty() { b"[]" } else { b"]" });
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn question(&mut self, id: u16, name: &str, record_type: u16, class: u16) {
        self.quoted(key!("dns.id"), id);
        self.string(key!("dns.question.name"), name);
        self.display(key!("dns.question.type"), dns_type(record_type));
        self.display(key!("dns.question.class"), dns_class(class));
    }

    pub(super) fn network_summary(&mut self, e: &NetworkSummary) {
        self.network(e.transport, e.peer.ip(), e.mapped);
        self.direction(e.incoming);
        let port = e.peer.port();
        if e.incoming {
            self.ip(key!("source.ip"), e.peer.ip());
            self.number(key!("destination.port"), port);
        } else {
            self.destination(e.peer);
        }
        self.moved(e.incoming, e.sent_bytes, e.received_bytes);
        let (ours, theirs) = (e.sent_packets, e.received_packets);
        let (source, destination) = ends(e.incoming, ours, theirs);
        self.number(key!("source.packets"), source);
        self.number(key!("destination.packets"), destination);
        self.number(key!("stockade.net.connections"), e.connections);
        self.number(key!("stockade.net.failures"), e.failures);
        self.number(key!("stockade.net.retransmits"), e.retransmits);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    fn flow(&mut self, flow: &Flow) {
        self.network(flow.transport, flow.remote.ip(), flow.mapped);
        self.direction(flow.incoming);
        self.source(flow.source());
        self.destination(flow.destination());
    }

    fn network(&mut self, transport: Transport, ip: IpAddr, mapped: bool) {
        self.raw(match transport {
            Transport::Tcp => b",\"network.transport\":\"tcp\"",
            Transport::Udp => b",\"network.transport\":\"udp\"",
        });
        self.raw(match ip {
            IpAddr::V4(_) => b",\"network.type\":\"ipv4\"",
            IpAddr::V6(_) => b",\"network.type\":\"ipv6\"",
        });
        self.flag(key!("stockade.net.v4_mapped"), mapped);
    }

    fn direction(&mut self, incoming: bool) {
        self.raw(if incoming {
            b",\"network.direction\":\"ingress\"".as_slice()
        } else {
            b",\"network.direction\":\"egress\""
        });
    }

    /// What the source sent, and what it got.
    fn moved(&mut self, incoming: bool, sent: u64, received: u64) {
        let (source, destination) = ends(incoming, sent, received);
        self.number(key!("source.bytes"), source);
        self.number(key!("destination.bytes"), destination);
    }

    fn source(&mut self, at: SocketAddr) {
        self.ip(key!("source.ip"), at.ip());
        self.number(key!("source.port"), at.port());
    }

    fn destination(&mut self, at: SocketAddr) {
        self.ip(key!("destination.ip"), at.ip());
        self.number(key!("destination.port"), at.port());
    }

    fn ip(&mut self, key: &[u8], ip: IpAddr) {
        self.display(key, ip);
    }

    /// A string that needs no escaping: an address, or a name of our own.
    fn display(&mut self, key: &[u8], value: impl std::fmt::Display) {
        use std::io::Write as _;
        self.raw(key);
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "\"{value}\"");
    }
}

/// What this end sent and what it received, as source and destination have them.
fn ends(incoming: bool, sent: u64, received: u64) -> (u64, u64) {
    if incoming {
        (received, sent)
    } else {
        (sent, received)
    }
}
