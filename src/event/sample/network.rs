//! What was said on the network, and what follows from it.

use super::{at, event, flow, shell, text, worker};
use crate::event::{
    DnsAnswer, DnsQuery, DnsRecord, Event, Flow, Kind, PortScan, RawSocket, SocketFamily, TcpState,
    Tls, TlsUnknown, Transport,
};

fn record(name: &str, record_type: u16, ttl_s: u32, data: &str) -> DnsRecord {
    DnsRecord {
        name: name.into(),
        record_type,
        class: 1,
        ttl_s,
        data: data.into(),
    }
}

pub(super) fn samples() -> Vec<Event> {
    let dns = Flow {
        transport: Transport::Udp,
        ..flow(
            at([10, 0, 0, 7], 40_113),
            at([192, 0, 2, 53], 53),
            false,
            false,
        )
    };
    let served = flow(at([10, 0, 0, 7], 53), at([192, 0, 2, 9], 999), true, true);
    let tls = flow(
        at([10, 0, 0, 7], 51_304),
        at([192, 0, 2, 10], 443),
        false,
        false,
    );
    let odd = text::escape(b"odd \"name\"\n\0\xff");
    let greeting = |flow, server_name, unknown, outer_name| {
        Kind::Tls(Tls {
            flow,
            server_name,
            unknown,
            outer_name,
        })
    };
    let kinds = [
        Kind::DnsQuery(DnsQuery {
            flow: dns,
            id: 4660,
            name: "www.example.org".into(),
            record_type: 1,
            class: 1,
            truncated: false,
        }),
        Kind::DnsQuery(DnsQuery {
            flow: served,
            id: u16::MAX,
            name: odd.clone(),
            record_type: 65_399,
            class: 9_999,
            truncated: true,
        }),
        Kind::DnsAnswer(Box::new(DnsAnswer {
            flow: dns,
            id: 4660,
            name: "www.example.org".into(),
            record_type: 1,
            class: 1,
            code: 0,
            answers: vec![
                record("www.example.org", 5, 300, "web.example.org"),
                record("web.example.org", 1, 60, "192.0.2.10"),
            ],
            latency_ns: Some(11_204_511),
            truncated: false,
        })),
        Kind::DnsAnswer(Box::new(DnsAnswer {
            flow: served,
            id: 0,
            name: String::new(),
            record_type: 0,
            class: 0,
            code: 3,
            answers: Vec::new(),
            latency_ns: None,
            truncated: true,
        })),
        Kind::DnsAnswer(Box::new(DnsAnswer {
            flow: dns,
            id: 1,
            name: odd.clone(),
            record_type: 16,
            class: 255,
            code: 4_095,
            answers: vec![record(&odd, 16, u32::MAX, &odd), record(".", 65_399, 0, "")],
            latency_ns: Some(u64::MAX),
            truncated: false,
        })),
        greeting(tls, Some("www.example.org".into()), None, None),
        greeting(tls, None, Some(TlsUnknown::Encrypted), Some(odd)),
        greeting(
            flow(at([0; 4], 0), served.remote, false, true),
            None,
            Some(TlsUnknown::Absent),
            None,
        ),
        Kind::TcpState(TcpState {
            flow: tls,
            before: 4,
            after: 5,
            duration_ns: Some(212_000),
        }),
        Kind::TcpState(TcpState {
            flow: flow(at([0; 4], 0), served.remote, true, true),
            before: 0,
            after: u8::MAX,
            duration_ns: None,
        }),
        Kind::RawSocket(RawSocket {
            family: SocketFamily::Packet,
            datagram: false,
            protocol: 3,
            errno: 0,
        }),
        Kind::RawSocket(RawSocket {
            family: SocketFamily::Ipv6,
            datagram: true,
            protocol: u32::MAX,
            errno: 1,
        }),
        Kind::PortScan(PortScan {
            refused: 19,
            unanswered: 1,
            examples: vec![at([192, 0, 2, 10], 1), at([192, 0, 2, 10], 2)],
            window_ns: 412_000_000,
        }),
        Kind::PortScan(PortScan {
            refused: 0,
            unanswered: u32::MAX,
            examples: Vec::new(),
            window_ns: 0,
        }),
    ];
    let mut all: Vec<Event> = kinds
        .into_iter()
        .map(|kind| event(8_300_000, shell(), kind))
        .collect();
    if let Some(last) = all.last_mut() {
        last.process = worker();
    }
    all
}
