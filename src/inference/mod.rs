//! Events that no single record tells: DNS messages and the names in TLS greetings, put together from what calls have
//! sent and received; port scans, from connects that fail.
//!
//! What is read here was written by anybody. It is bounded in memory and never panics; what cannot be read is counted.

mod dns;
mod scan;
mod stream;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use dns::{Asked, Question};
use scan::Scans;
use stream::{Streams, Turn};
use tls::Greetings;

use crate::event::{DnsAnswer, DnsQuery, Event, Flow, Kind, Process, ProcessId, Transport};
use crate::monitor::Filter;
use crate::wire::{Payload, kind};

/// What was lost here: of what, and why.
pub(crate) type Lost = BTreeMap<(&'static str, &'static str), u64>;

/// What is wanted; also of a recording, which is read as its session was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    errors_only: bool,
    min_latency_ns: u64,
    /// 0: nothing is a scan.
    scan_targets: u32,
    scan_window_ns: u64,
}

impl Settings {
    pub(crate) fn new(filter: &Filter) -> Self {
        Settings {
            errors_only: filter.errors_only,
            min_latency_ns: nanoseconds(filter.min_latency),
            scan_targets: filter.scan_targets,
            scan_window_ns: nanoseconds(filter.scan_window),
        }
    }
}

/// Holds what has to be remembered from one record to the next.
#[derive(Debug)]
pub(crate) struct Inference {
    settings: Settings,
    asked: Asked,
    streams: Streams,
    greetings: Greetings,
    scans: Scans,
    lost: Lost,
}

/// Which conversation: whose, and between whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Line {
    process: ProcessId,
    transport: Transport,
    local_port: u16,
    remote: SocketAddr,
}

impl Line {
    fn new(process: ProcessId, flow: &Flow) -> Self {
        Line {
            process,
            transport: flow.transport,
            local_port: flow.local.port(),
            remote: flow.remote,
        }
    }
}

impl Inference {
    pub(crate) fn new(settings: &Settings) -> Self {
        Inference {
            settings: settings.clone(),
            asked: Asked::default(),
            streams: Streams::default(),
            greetings: Greetings::default(),
            scans: Scans::new(settings.scan_targets, settings.scan_window_ns),
            lost: Lost::new(),
        }
    }

    /// Bytes that a call has moved.
    pub(crate) fn payload(&mut self, payload: Payload<'_>, tell: &mut dyn FnMut(Event)) {
        if payload.kind == kind::TLS {
            let hello = self.greetings.add(&payload, &mut self.lost);
            if let Some(hello) = hello.filter(|_| !self.is_picky()) {
                tell(Event::new(
                    payload.time_ns,
                    payload.process,
                    Kind::Tls(hello),
                ));
            }
            return;
        }
        if payload.flow.transport == Transport::Udp {
            let whole = payload.moved == payload.bytes.len();
            self.message(
                payload.bytes,
                whole,
                (payload.time_ns, &payload.process, &payload.flow),
                tell,
            );
            return;
        }
        let line = Line::new(payload.process.id, &payload.flow);
        let mut messages = Vec::new();
        let turn = Turn {
            bytes: payload.bytes,
            moved: payload.moved,
        };
        let key = (line, payload.sent);
        self.streams
            .add(key, &turn, &mut self.lost, &mut |bytes, whole| {
                messages.push((bytes.to_vec(), whole));
            });
        for (bytes, whole) in messages {
            let of = (payload.time_ns, &payload.process, &payload.flow);
            self.message(&bytes, whole, of, tell);
        }
    }

    /// A DNS message, or its start.
    fn message(
        &mut self,
        bytes: &[u8],
        whole: bool,
        (time_ns, process, flow): (u64, &Process, &Flow),
        tell: &mut dyn FnMut(Event),
    ) {
        let Some(message) = dns::read(bytes, whole) else {
            *self.lost.entry(("dns", "parse")).or_default() += 1;
            return;
        };
        let line = Line::new(process.id, flow);
        let Question {
            name,
            record_type,
            class,
        } = message.question;
        let kind = match message.answer {
            None => {
                self.asked.ask((line, message.id), time_ns, &mut self.lost);
                if self.is_picky() {
                    return;
                }
                Kind::DnsQuery(DnsQuery {
                    flow: *flow,
                    id: message.id,
                    name,
                    record_type,
                    class,
                    truncated: !whole,
                })
            }
            Some(answer) => {
                let latency_ns = self.asked.answer((line, message.id), time_ns);
                let slow = latency_ns.is_some_and(|ns| ns >= self.settings.min_latency_ns);
                let settings = &self.settings;
                if (settings.errors_only && answer.code == 0)
                    || (settings.min_latency_ns > 0 && !slow)
                {
                    return;
                }
                Kind::DnsAnswer(Box::new(DnsAnswer {
                    flow: *flow,
                    id: message.id,
                    name,
                    record_type,
                    class,
                    code: answer.code,
                    answers: answer.records,
                    latency_ns,
                    truncated: answer.truncated,
                }))
            }
        };
        tell(Event::new(time_ns, process.clone(), kind));
    }

    /// An event of a record: connects that fail may be a scan, and what is closed has said all it will.
    pub(crate) fn event(&mut self, event: &Event, tell: &mut dyn FnMut(Event)) {
        match &event.kind {
            Kind::Connect(connect) => {
                self.greetings.open(&connect.flow);
                if let Some(scan) = self.scans.connect(event, connect, &mut self.lost) {
                    let kind = Kind::PortScan(scan);
                    tell(Event::new(event.time_ns, event.process.clone(), kind));
                }
            }
            Kind::Close(close) => {
                let line = Line::new(event.process.id, &close.flow);
                self.streams.close(line);
                let hello = self.greetings.close(&close.flow);
                if let Some((process, hello)) = hello.filter(|_| !self.is_picky()) {
                    tell(Event::new(event.time_ns, process, Kind::Tls(hello)));
                }
            }
            _ => {}
        }
    }

    /// Whether what neither fails nor takes time is left out, as queries and greetings.
    fn is_picky(&self) -> bool {
        self.settings.errors_only || self.settings.min_latency_ns > 0
    }

    /// What was lost since the start.
    pub(crate) fn lost(&self) -> &Lost {
        &self.lost
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is said to it in the tests of others.
#[cfg(test)]
pub(crate) mod said {
    pub(crate) use super::dns::tests::{answer, query};
    pub(crate) use super::tls::tests::named as greeting;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Clock;
    use crate::sink::Sink;

    fn process() -> Process {
        Process::own(ProcessId::new(1, 7))
    }

    fn flow(transport: Transport) -> Flow {
        Flow {
            transport,
            local: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            remote: SocketAddr::from(([127, 0, 0, 1], 53)),
            incoming: false,
            mapped: false,
        }
    }

    fn told(
        inference: &mut Inference,
        sent: bool,
        transport: Transport,
        turns: &[&[u8]],
    ) -> Vec<Kind> {
        let mut told = Vec::new();
        for (at, bytes) in (1u64..).zip(turns) {
            let payload = Payload {
                kind: kind::DNS,
                time_ns: at * 1000 + u64::from(!sent) * 1_000_000,
                process: process(),
                flow: flow(transport),
                sent,
                moved: bytes.len(),
                bytes,
            };
            inference.payload(payload, &mut |event| told.push(event.kind));
        }
        told
    }

    #[test]
    fn an_answer_knows_how_long_it_took() {
        let mut inference = Inference::new(&Settings::new(&Filter::new()));
        let (query, answer) = (dns::tests::query(9, b"\x01a\x00"), dns::tests::answer(9));
        let asked = told(&mut inference, true, Transport::Udp, &[&query]);
        assert!(
            matches!(&asked[..], [Kind::DnsQuery(q)] if q.name == "a"),
            "{asked:?}"
        );
        let answered = told(&mut inference, false, Transport::Udp, &[&answer, &answer]);
        let latencies: Vec<_> = answered
            .iter()
            .map(|kind| match kind {
                Kind::DnsAnswer(a) => a.latency_ns,
                other => panic!("{other:?}"),
            })
            .collect();
        // The second one answers nothing that was asked.
        assert_eq!(latencies, [Some(1_000_000), None]);
        assert!(inference.lost().is_empty());
    }

    #[test]
    fn a_stream_is_cut_into_messages_wherever_its_calls_end() {
        let query = dns::tests::query(9, b"\x01a\x00");
        let len = u16::try_from(query.len()).unwrap().to_be_bytes();
        let stream = [&len[..], &query, &len, &query].concat();
        for cut in 0..stream.len() {
            let mut inference = Inference::new(&Settings::new(&Filter::new()));
            let turns = [&stream[..cut], &stream[cut..]];
            let asked = told(&mut inference, true, Transport::Tcp, &turns);
            assert_eq!(asked.len(), 2, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_message_is_counted() {
        let mut inference = Inference::new(&Settings::new(&Filter::new()));
        assert!(told(&mut inference, true, Transport::Udp, &[b"hello"]).is_empty());
        assert_eq!(inference.lost()[&("dns", "parse")], 1);
    }

    /// What is said: anything, or what somebody would say, with some bytes changed.
    fn saying(whole: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let whole = (
            prop::sample::select(whole),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        );
        let changed = whole.prop_map(|(mut bytes, changes)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        });
        prop_oneof![prop::collection::vec(any::<u8>(), 0..200), changed]
    }

    fn calls() -> impl Strategy<Value = (u32, bool, Vec<u8>)> {
        let (query, answer) = (said::query(9, b"\x01a\x00"), said::answer(9));
        let of_a_stream = |bytes: &[u8]| {
            let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            [&len, bytes].concat()
        };
        let streams = vec![of_a_stream(&query), of_a_stream(&answer)];
        let dns = |tcp: bool, bytes| (kind::DNS, tcp, bytes);
        prop_oneof![
            saying(vec![query, answer]).prop_map(move |bytes| dns(false, bytes)),
            saying(streams).prop_map(move |bytes| dns(true, bytes)),
            saying(vec![said::greeting("a.example")]).prop_map(|bytes| (kind::TLS, true, bytes)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_said_makes_whole_lines_or_is_counted(
            calls in prop::collection::vec((calls(), any::<bool>(), 0..3usize, 0..3u16), 1..20),
        ) {
            let mut inference = Inference::new(&Settings::new(&Filter::new()));
            let clock = Clock::new(0, "boot");
            for ((kind, tcp, bytes), sent, missing, port) in calls {
                let mut flow = flow(if tcp { Transport::Tcp } else { Transport::Udp });
                flow.local.set_port(port);
                let payload = Payload {
                    kind,
                    time_ns: 5,
                    process: process(),
                    flow,
                    sent,
                    moved: bytes.len() + missing,
                    bytes: &bytes,
                };
                let mut told = Vec::new();
                let lost = inference.lost().clone();
                inference.payload(payload, &mut |event| told.push(event));
                // A datagram is a message or none.
                if !tcp {
                    prop_assert_eq!(told.len() == 1, inference.lost() == &lost);
                }
                for event in told {
                    let mut line = Vec::new();
                    Sink::json().write(&event, &clock, &mut line);
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
                    line.clear();
                    Sink::text(false).write(&event, &clock, &mut line);
                    prop_assert_eq!(line.iter().filter(|b| b.is_ascii_control()).count(), 1, "{:?}", line);
                }
            }
        }

        #[test]
        fn a_stream_says_the_same_in_whatever_calls(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
            cuts in prop::collection::vec(1..100usize, 1..20),
        ) {
            let stream: Vec<u8> = messages
                .iter()
                .flat_map(|m| [&u16::try_from(m.len()).unwrap().to_be_bytes()[..], m].concat())
                .collect();
            let (mut streams, mut lost) = (Streams::default(), Lost::new());
            let key = (Line::new(ProcessId::new(1, 1), &flow(Transport::Tcp)), true);
            let (mut told, mut rest) = (Vec::new(), &stream[..]);
            for cut in cuts.into_iter().cycle() {
                let (bytes, more) = rest.split_at(cut.min(rest.len()));
                let turn = Turn { bytes, moved: bytes.len() };
                streams.add(key, &turn, &mut lost, &mut |m, whole| told.push((m.to_vec(), whole)));
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = messages.into_iter().map(|m| (m, true)).collect();
            prop_assert_eq!(told, expected);
            prop_assert!(lost.is_empty());
        }
    }
}
