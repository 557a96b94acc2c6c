//! DNS messages, and how long their answers took.

use std::collections::{HashMap, VecDeque};

use domain::base::iana::Rtype;
use domain::base::name::{Label, ToName};
use domain::base::{Message, ParsedRecord};
use domain::rdata::{A, Aaaa, AllRecordData, Mx, Srv};

use super::{Line, Lost};
use crate::event::{DnsRecord, text};

/// Answers of one message that are told: the largest message would hold thousands.
const RECORDS: usize = 64;
/// Queries that wait for an answer.
const WAITING: usize = 4096;
/// After this a number is free for another query, as resolvers have given up long before.
const FORGOTTEN_NS: u64 = 60_000_000_000;

/// What is asked for.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Question {
    /// Escaped; empty where there is no question.
    pub(super) name: String,
    pub(super) record_type: u16,
    pub(super) class: u16,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) records: Vec<DnsRecord>,
    pub(super) truncated: bool,
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) id: u16,
    pub(super) question: Question,
    /// `None`: it asks.
    pub(super) answer: Option<Answer>,
}

/// Reads a message, or the start of one. `None`: it is none.
pub(super) fn read(bytes: &[u8], whole: bool) -> Option<Said> {
    let message = Message::from_octets(bytes).ok()?;
    let (header, counts) = (message.header(), message.header_counts());
    // An answer without a question is one to nothing or to something unreadable; a query without one asks nothing.
    let question = match message.question().next() {
        Some(question) => {
            let question = question.ok()?;
            Question {
                name: name(question.qname()),
                record_type: question.qtype().to_int(),
                class: question.qclass().to_int(),
            }
        }
        None if header.qr() => Question::default(),
        None => return None,
    };
    let answer = header.qr().then(|| {
        let mut records = Vec::new();
        // What cannot be read ends the list.
        for record in message.answer().into_iter().flatten().take(RECORDS) {
            match record.ok().and_then(|record| told(&record)) {
                Some(record) => records.push(record),
                None => break,
            }
        }
        Answer {
            code: message.opt_rcode().to_int(),
            truncated: header.tc() || !whole || records.len() < usize::from(counts.ancount()),
            records,
        }
    });
    Some(Said {
        id: header.id(),
        question,
        answer,
    })
}

fn told(record: &ParsedRecord<'_, &[u8]>) -> Option<DnsRecord> {
    let data = match record.rtype() {
        Rtype::A => record.to_record::<A>().ok()??.data().addr().to_string(),
        Rtype::AAAA => record.to_record::<Aaaa>().ok()??.data().addr().to_string(),
        Rtype::MX => {
            let found = record.to_record::<Mx<_>>().ok()??;
            format!(
                "{} {}",
                found.data().preference(),
                name(found.data().exchange())
            )
        }
        Rtype::SRV => {
            let found = record.to_record::<Srv<_>>().ok()??;
            let srv = found.data();
            format!(
                "{} {} {} {}",
                srv.priority(),
                srv.weight(),
                srv.port(),
                name(srv.target())
            )
        }
        _ => match record.to_record::<AllRecordData<_, _>>().ok()??.data() {
            AllRecordData::Cname(data) => name(data.cname()),
            AllRecordData::Ns(data) => name(data.nsdname()),
            AllRecordData::Ptr(data) => name(data.ptrdname()),
            AllRecordData::Dname(data) => name(data.dname()),
            AllRecordData::Txt(data) => {
                let mut out = String::new();
                for part in data.iter() {
                    text::escape_into(&mut out, part);
                }
                out
            }
            // Keys, signatures and what is rarer: that there is one is all that is told.
            _ => String::new(),
        },
    };
    Some(DnsRecord {
        name: name(&record.owner()),
        record_type: record.rtype().to_int(),
        class: record.class().to_int(),
        ttl_s: record.ttl().as_secs(),
        data,
    })
}

/// A name with dots, without the last one; `.` is the root. A dot inside a label is `\.`.
fn name(of: &impl ToName) -> String {
    let mut out = String::new();
    for label in of.iter_labels().filter(|label| !Label::is_root(label)) {
        if !out.is_empty() {
            out.push('.');
        }
        for (i, part) in label.as_slice().split(|b| *b == b'.').enumerate() {
            if i > 0 {
                out.push_str("\\.");
            }
            text::escape_into(&mut out, part);
        }
    }
    if out.is_empty() {
        out.push('.');
    }
    out
}

/// A query: whose, and its number.
type Query = (Line, u16);

/// The queries that wait for an answer, with when they were sent.
#[derive(Debug, Default)]
pub(super) struct Asked {
    waiting: HashMap<Query, u64>,
    /// In the order of time; those that were answered meanwhile are in it as well.
    order: VecDeque<(u64, Query)>,
}

impl Asked {
    /// A query that is sent again keeps its first time: so long its sender has waited.
    pub(super) fn ask(&mut self, query: Query, time_ns: u64, lost: &mut Lost) {
        match self.waiting.get_mut(&query) {
            Some(since) if time_ns.saturating_sub(*since) < FORGOTTEN_NS => return,
            _ => self.waiting.insert(query, time_ns),
        };
        self.order.push_back((time_ns, query));
        // A query may have been answered and asked again since.
        let stale = |waiting: &HashMap<Query, u64>, (since, query): &(u64, Query)| {
            waiting.get(query) != Some(since)
        };
        while let Some(first) = self.order.front() {
            let old = time_ns.saturating_sub(first.0) >= FORGOTTEN_NS;
            if stale(&self.waiting, first) {
                self.order.pop_front();
            } else if old || self.waiting.len() > WAITING {
                if !old {
                    *lost.entry(("dns", "map")).or_default() += 1;
                }
                self.waiting.remove(&first.1);
                self.order.pop_front();
            } else {
                break;
            }
        }
        // One that is never answered keeps those behind it in the list.
        if self.order.len() > 2 * WAITING {
            let waiting = &self.waiting;
            self.order.retain(|entry| !stale(waiting, entry));
        }
    }

    pub(super) fn answer(&mut self, query: Query, time_ns: u64) -> Option<u64> {
        let since = self.waiting.remove(&query)?;
        Some(time_ns.saturating_sub(since))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{ProcessId, Transport};

    /// A query for the address of this name, which is given as it stands in a message.
    pub(crate) fn query(id: u16, name: &[u8]) -> Vec<u8> {
        let mut out = id.to_be_bytes().to_vec();
        out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(name);
        out.extend([0, 1, 0, 1]);
        out
    }

    /// The answer to the query for "a": an alias, and its address.
    pub(crate) fn answer(id: u16) -> Vec<u8> {
        let mut out = query(id, b"\x01a\x00");
        out[2] = 0x81;
        out[7] = 2;
        // a CNAME b.a; b.a A 192.0.2.1
        out.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'b', 0xc0, 12]);
        out.extend([0xc0, 31, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
        out
    }

    #[test]
    fn an_answer_has_its_records_and_says_when_some_are_missing() {
        let whole = answer(7);
        let said = read(&whole, true).unwrap();
        assert_eq!((said.id, said.question.name.as_str()), (7, "a"));
        let answer = said.answer.unwrap();
        let records: Vec<_> = answer
            .records
            .iter()
            .map(|r| (r.name.as_str(), r.record_type, r.ttl_s, r.data.as_str()))
            .collect();
        let expected = [("a", 5, 60, "b.a"), ("b.a", 1, 256, "192.0.2.1")];
        assert_eq!(records, expected);
        assert_eq!((answer.code, answer.truncated), (0, false));
        for cut in 19..whole.len() {
            let answer = read(&whole[..cut], false).unwrap().answer.unwrap();
            assert!(answer.truncated, "cut at {cut}");
            assert!(answer.records.len() < 2, "cut at {cut}");
        }
        for cut in 0..19 {
            assert!(read(&whole[..cut], false).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_name_is_what_stands_in_the_message() {
        for (bytes, expected) in [
            (b"\x00".as_slice(), "."),
            (b"\x03www\x07example\x00", "www.example"),
            (b"\x03a.b\x01c\x00", "a\\.b.c"),
            (b"\x04\n\xff\\.\x00", "\\n\\xff\\\\\\."),
        ] {
            let said = read(&query(1, bytes), true).unwrap();
            assert_eq!(said.question.name, expected);
        }
    }

    #[test]
    fn a_type_that_nobody_knows_is_told_all_the_same() {
        let mut bytes = query(1, b"\x01a\x00");
        let at = bytes.len() - 4;
        bytes[at..at + 2].copy_from_slice(&65_399u16.to_be_bytes());
        assert_eq!(read(&bytes, true).unwrap().question.record_type, 65_399);
    }

    #[test]
    fn queries_that_wait_are_bounded() {
        let mut asked = Asked::default();
        let mut lost = Lost::new();
        let line = |port| Line {
            process: ProcessId::new(1, 1),
            transport: Transport::Udp,
            local_port: port,
            remote: ([127, 0, 0, 1], 53).into(),
        };
        for n in 0..20_000u64 {
            let port = u16::try_from(n).unwrap();
            asked.ask((line(port), 1), n, &mut lost);
            // Sent again.
            asked.ask((line(port), 1), n + 5, &mut lost);
        }
        assert_eq!(asked.waiting.len(), WAITING);
        assert!(asked.order.len() <= 2 * WAITING + 1);
        assert_eq!(lost[&("dns", "map")], 20_000 - WAITING as u64);
        assert_eq!(asked.answer((line(0), 1), 30_000), None);
        assert_eq!(asked.answer((line(19_999), 1), 30_000), Some(10_001));
        // Much later the numbers are free again, and nothing counts as lost.
        asked.ask((line(7), 7), 2 * FORGOTTEN_NS, &mut lost);
        assert_eq!(asked.waiting.len(), 1);
        assert_eq!(lost[&("dns", "map")], 20_000 - WAITING as u64);
    }
}
