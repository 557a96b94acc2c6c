//! The network: changes of state of TCP sockets, the functions behind the calls where those tell more, and UDP.

use super::summary::{Flush, Summary, Tally};
use super::{Form, Parts};
use crate::error::Result;
use crate::event::{Event, Kind, NetworkSummary};
use crate::kernel::Needs::{Fentry, Params};
use crate::kernel::Program::{Auto, Backed, Tracepoint};
use crate::kernel::{Object, PT_REGS, Probe, Variant, session};
use crate::wire::{NetKey, NetSum, address, transport};

/// What is not seen by those who look at system calls.
const BLIND: Option<&str> = Some("io_uring, 32-bit calls and kernel-internal users are not seen");

/// One way: programs that stand or fall together.
const fn variant(
    name: &'static str,
    programs: &'static [crate::kernel::Program],
    needs: &'static [crate::kernel::Needs],
    blind: Option<&'static str>,
) -> Variant {
    Variant {
        name,
        programs,
        needs,
        blind,
    }
}

const fn probe(name: &'static str, variants: &'static [Variant], without: &'static str) -> Probe {
    Probe {
        name,
        variants,
        without,
        excused_without: None,
    }
}

/// The probes of TCP connections, for programs with this prefix.
macro_rules! tcp {
    ($prefix:literal, $($more:expr),*) => {
        &[
            probe(
                "network.tcp",
                &[
                    variant(
                        "raw_tp",
                        &[
                            Backed(concat!($prefix, "state__raw_tp")),
                            Auto(concat!($prefix, "state_again__raw_tp")),
                        ],
                        &[],
                        None,
                    ),
                ],
                "TCP connections",
            ),
            probe(
                "network.connect",
                &[
                    session!([concat!($prefix, "connect__session")], Params("inet_stream_connect", 4)),
                    variant(
                        "fexit",
                        &[Auto(concat!($prefix, "connect__fexit"))],
                        &[Fentry, Params("inet_stream_connect", 4)],
                        None,
                    ),
                    variant(
                        "tracepoint",
                        &[Tracepoint(
                            concat!($prefix, "connect__tp"),
                            "syscalls",
                            "sys_exit_connect",
                        )],
                        PT_REGS,
                        BLIND,
                    ),
                ],
                "TCP connects that fail before a packet is sent",
            ),
            probe(
                "network.accept",
                &[
                    session!([concat!($prefix, "accept_2__session")], Params("inet_csk_accept", 2)),
                    variant(
                        "fexit",
                        &[Auto(concat!($prefix, "accept_2__fexit"))],
                        &[Fentry, Params("inet_csk_accept", 2)],
                        None,
                    ),
                    variant(
                        "fexit/4",
                        &[Auto(concat!($prefix, "accept_4__fexit"))],
                        &[Fentry, Params("inet_csk_accept", 4)],
                        None,
                    ),
                    variant(
                        "tracepoint",
                        &[
                            Tracepoint(
                                concat!($prefix, "accept__tp"),
                                "syscalls",
                                "sys_exit_accept",
                            ),
                            Tracepoint(
                                concat!($prefix, "accept4__tp"),
                                "syscalls",
                                "sys_exit_accept4",
                            ),
                        ],
                        &[],
                        BLIND,
                    ),
                ],
                "TCP connections that are accepted",
            ),
            UDP,
            $($more),*
        ]
    };
}

const UDP: Probe = probe(
    "network.udp",
    &[
        session!(
            [
                "net_udp_send_4__session",
                "net_udp_send_6__session",
                "net_udp_receive__multi"
            ],
            Params("udp_sendmsg", 3),
            Params("udpv6_sendmsg", 3),
            Params("skb_consume_udp", 3)
        ),
        variant(
            "fexit",
            &[
                Auto("net_udp_send_4__fexit"),
                Auto("net_udp_send_6__fexit"),
                Auto("net_udp_receive__fentry"),
            ],
            &[
                Fentry,
                Params("udp_sendmsg", 3),
                Params("udpv6_sendmsg", 3),
                Params("skb_consume_udp", 3),
            ],
            None,
        ),
        variant(
            "raw_tp",
            &[
                Auto("net_udp_send__raw_tp"),
                Auto("net_udp_receive__raw_tp"),
            ],
            &[],
            Some("peers of UDP sockets that are not connected are not told apart"),
        ),
    ],
    "UDP datagrams",
);

const BIND: Probe = probe(
    "network.bind",
    &[
        session!(
            ["net_bind_4__session", "net_bind_6__session"],
            Params("inet_bind", 3),
            Params("inet6_bind", 3)
        ),
        variant(
            "fexit",
            &[Auto("net_bind_4__fexit"), Auto("net_bind_6__fexit")],
            &[Fentry, Params("inet_bind", 3), Params("inet6_bind", 3)],
            None,
        ),
        variant(
            "tracepoint",
            &[Tracepoint("net_bind__tp", "syscalls", "sys_exit_bind")],
            PT_REGS,
            BLIND,
        ),
    ],
    "addresses that are bound",
);

const LISTEN: Probe = probe(
    "network.listen",
    &[
        session!(["net_listen__session"], Params("inet_listen", 2)),
        variant(
            "fexit",
            &[Auto("net_listen__fexit")],
            &[Fentry, Params("inet_listen", 2)],
            None,
        ),
        variant(
            "tracepoint",
            &[Tracepoint("net_listen__tp", "syscalls", "sys_exit_listen")],
            PT_REGS,
            BLIND,
        ),
    ],
    "sockets that listen",
);

const UNIX: Probe = probe(
    "network.unix",
    &[
        session!(
            ["net_unix_stream__session", "net_unix_dgram__session"],
            Params("unix_stream_connect", 4),
            Params("unix_dgram_connect", 4)
        ),
        variant(
            "fexit",
            &[
                Auto("net_unix_stream__fexit"),
                Auto("net_unix_dgram__fexit"),
            ],
            &[
                Fentry,
                Params("unix_stream_connect", 4),
                Params("unix_dgram_connect", 4),
            ],
            None,
        ),
        variant(
            "tracepoint",
            &[Tracepoint("net_unix__tp", "syscalls", "sys_exit_connect")],
            PT_REGS,
            BLIND,
        ),
    ],
    "connects of local sockets",
);

const PAYLOAD: Probe = probe(
    "network.payload",
    &[
        session!(
            [
                "net_sent_4__session",
                "net_sent_6__session",
                "net_received_4__session",
                "net_received_6__session"
            ],
            Params("inet_sendmsg", 3),
            Params("inet6_sendmsg", 3),
            Params("inet_recvmsg", 4),
            Params("inet6_recvmsg", 4)
        ),
        variant(
            "fexit",
            &[
                Auto("net_sent_4__fexit"),
                Auto("net_sent_6__fexit"),
                Auto("net_received_4__fexit"),
                Auto("net_received_6__fexit"),
            ],
            &[
                Fentry,
                Params("inet_sendmsg", 3),
                Params("inet6_sendmsg", 3),
                Params("inet_recvmsg", 4),
                Params("inet6_recvmsg", 4),
            ],
            None,
        ),
        variant(
            "raw_tp",
            &[
                Auto("net_sent__raw_tp"),
                Auto("net_received__raw_tp"),
                Tracepoint("net_sent__tp", "syscalls", "sys_exit_sendmmsg"),
                Tracepoint("net_received__tp", "syscalls", "sys_exit_recvmmsg"),
            ],
            PT_REGS,
            BLIND,
        ),
    ],
    "DNS messages and the names of TLS servers",
);

const SOCKET: Probe = probe(
    "network.socket",
    &[
        session!(["net_socket__session"], Params("__sock_create", 6)),
        variant(
            "fexit",
            &[Auto("net_socket__fexit")],
            &[Fentry, Params("__sock_create", 6)],
            None,
        ),
        variant(
            "tracepoint",
            &[Tracepoint("net_socket__tp", "syscalls", "sys_exit_socket")],
            PT_REGS,
            BLIND,
        ),
    ],
    "raw and packet sockets",
);

const RETRANSMIT: Probe = probe(
    "network.retransmit",
    &[variant(
        "raw_tp",
        &[Auto("net_retransmit__raw_tp")],
        &[],
        None,
    )],
    "packets that are sent again",
);

const MOVED: Probe = probe(
    "network.moved",
    &[variant(
        "raw_tp",
        &[Auto("net_count_moved__raw_tp")],
        &[],
        None,
    )],
    "what connections move before they are closed",
);

const EVENTS: &[Probe] = tcp!("net_", BIND, LISTEN, UNIX, RETRANSMIT, PAYLOAD, SOCKET);
const SUMMARY: &[Probe] = tcp!("net_count_", MOVED);

/// Of single events. Whose a connection is and what it moved is known from its beginning.
const ONLY_FOR: &[(&str, &[&str])] = &[
    ("network.tcp", CONNECTIONS),
    ("network.connect", CONNECTIONS),
    ("network.accept", CONNECTIONS),
    ("network.udp", &["network_summary"]),
    ("network.bind", &["bind"]),
    ("network.listen", &["listen"]),
    ("network.unix", &["unix_connect"]),
    ("network.retransmit", &["retransmit"]),
    ("network.payload", &["dns_query", "dns_answer", "tls"]),
    ("network.socket", &["raw_socket"]),
];

const CONNECTIONS: &[&str] = &[
    "connect",
    "accept",
    "close",
    "tcp_state",
    "retransmit",
    "port_scan",
];

pub(super) fn parts(form: Form) -> Parts {
    let (probes, only_for): (_, &[_]) = match form {
        Form::Events => (EVENTS, ONLY_FOR),
        Form::Summary | Form::OffCpu => (SUMMARY, &[]),
    };
    Parts {
        only_for,
        // UDP has no connections: it is counted in either form.
        summary: Some(Box::new(Peers(Tally::new("stk_net_sums")))),
        ..Parts::events(Object::Network, probes)
    }
}

#[derive(Debug)]
struct Peers(Tally);

impl Summary for Peers {
    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()> {
        for (key, sum) in self.0.news::<NetKey, NetSum>(flush)? {
            let (peer, mapped) = address(key.remote, key.port, key.family);
            let kind = Kind::NetworkSummary(NetworkSummary {
                transport: transport(key.protocol),
                peer,
                incoming: key.incoming != 0,
                mapped,
                sent_bytes: sum.sent_bytes,
                received_bytes: sum.received_bytes,
                sent_packets: sum.sent_packets,
                received_packets: sum.received_packets,
                connections: sum.connections,
                failures: sum.failures,
                retransmits: sum.retransmits,
                window_ns: flush.window_ns,
            });
            tell(flush.event(key.task, kind)?);
        }
        Ok(())
    }
}
