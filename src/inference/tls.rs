//! The server's name in the greeting of a TLS client.
//!
//! By hand, and nothing but what is on the way to the name (RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3): the
//! crates that read TLS bring ten to fifty others, for all of a protocol of which this is one field. Every access is
//! checked by the slice it goes to.

use std::collections::{HashMap, VecDeque};

use super::Lost;
use crate::event::{Flow, Process, Tls, TlsUnknown, text};
use crate::wire::Payload;

/// Greetings that are not complete, and those that were told lately.
const GREETINGS: usize = 512;
/// `STK_TLS_BYTES`: what the kernel half brings of one connection.
const BYTES: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// RFC 9849.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What a greeting says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hello<'a> {
    name: Option<&'a [u8]>,
    encrypted: bool,
}

/// What becomes of the bytes that are there.
#[derive(Debug, PartialEq, Eq)]
enum Reading<T> {
    Done(T),
    /// More are needed.
    Short,
    /// It is none.
    Not,
}

/// Takes from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(
            self.take(bytes)?
                .iter()
                .fold(0, |n, b| n << 8 | usize::from(*b)),
        )
    }

    /// What follows its own length, which has so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<Bytes<'a>> {
        let len = self.number(bytes)?;
        self.take(len).map(Bytes)
    }
}

/// Puts the handshake message together from the records that carry it.
fn message(bytes: &[u8]) -> Reading<Vec<u8>> {
    let mut rest = Bytes(bytes);
    let mut message = Vec::new();
    while let Some(&kind) = rest.0.first() {
        if kind != HANDSHAKE || rest.0.get(1).is_some_and(|major| *major != 3) {
            return Reading::Not;
        }
        let Some(len) = rest.take(3).and_then(|_| rest.number(2)) else {
            return Reading::Short;
        };
        let part = rest.take(len);
        message.extend_from_slice(part.unwrap_or(rest.0));
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Reading::Not;
        }
        let mut inner = Bytes(&message);
        let wanted = inner.take(1).and_then(|_| inner.number(3));
        if let Some(wanted) = wanted
            && message.len() >= 4 + wanted
        {
            message.truncate(4 + wanted);
            message.drain(..4);
            return Reading::Done(message);
        }
        if part.is_none() {
            return Reading::Short;
        }
    }
    Reading::Short
}

/// Reads the message. `None`: it breaks off, or contradicts itself.
fn hello(message: &[u8]) -> Option<Hello<'_>> {
    let mut rest = Bytes(message);
    // Version and random.
    rest.take(2 + 32)?;
    // Session, cipher suites, compression methods.
    rest.vector(1)?;
    rest.vector(2)?;
    rest.vector(1)?;
    let mut found = Hello::default();
    // Extensions are newer than TLS.
    if rest.0.is_empty() {
        return Some(found);
    }
    let mut extensions = rest.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut data = extensions.vector(2)?;
        if kind == usize::from(SERVER_NAME) && found.name.is_none() {
            let mut names = data.vector(2)?;
            while !names.0.is_empty() {
                let is_host = names.take(1)? == [HOST_NAME];
                let name = names.vector(2)?.0;
                if is_host {
                    found.name = Some(name);
                    break;
                }
            }
        }
        found.encrypted |= kind == usize::from(ENCRYPTED_CLIENT_HELLO);
    }
    Some(found)
}

/// The event of a greeting; `None`: nothing of it could be read.
fn told(flow: Flow, hello: Option<Hello<'_>>) -> Tls {
    let name = hello.as_ref().and_then(|h| h.name).map(text::escape);
    let unknown = match &hello {
        None => Some(TlsUnknown::Incomplete),
        Some(hello) if hello.encrypted => Some(TlsUnknown::Encrypted),
        Some(_) if name.is_none() => Some(TlsUnknown::Absent),
        Some(_) => None,
    };
    let (server_name, outer_name) = if unknown.is_some() {
        (None, name)
    } else {
        (name, None)
    };
    Tls {
        flow,
        server_name,
        unknown,
        outer_name,
    }
}

#[derive(Debug)]
enum Greeting {
    /// By whom, and what there is of it.
    Begun(Box<Process>, Vec<u8>),
    /// What comes now is something else.
    Over,
}

/// The greetings that have begun, by connection.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    of: HashMap<Flow, Greeting>,
    order: VecDeque<Flow>,
}

impl Greetings {
    /// What the payload completes, or leaves no hope for.
    pub(super) fn add(&mut self, payload: &Payload<'_>, lost: &mut Lost) -> Option<Tls> {
        let flow = payload.flow;
        let mut bytes = match self.of.remove(&flow) {
            Some(Greeting::Over) => {
                self.of.insert(flow, Greeting::Over);
                return None;
            }
            Some(Greeting::Begun(_, bytes)) => bytes,
            None => {
                self.order.push_back(flow);
                Vec::new()
            }
        };
        bytes.extend_from_slice(payload.bytes);
        let (now, told) = match message(&bytes) {
            Reading::Done(message) => (Greeting::Over, Some(told(flow, hello(&message)))),
            Reading::Not => (Greeting::Over, None),
            Reading::Short if payload.moved > payload.bytes.len() || bytes.len() >= BYTES => {
                (Greeting::Over, Some(told(flow, None)))
            }
            Reading::Short => {
                let by = Box::new(payload.process.clone());
                (Greeting::Begun(by, bytes), None)
            }
        };
        self.of.insert(flow, now);
        while self.of.len() > GREETINGS
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(Greeting::Begun(..)) = self.of.remove(&oldest) {
                *lost.entry(("tls", "map")).or_default() += 1;
            }
        }
        told
    }

    /// A new connection, perhaps between the same ends as a former one whose end was not told.
    pub(super) fn open(&mut self, flow: &Flow) {
        if let Some(Greeting::Over) = self.of.get(flow) {
            self.of.remove(flow);
            self.order.retain(|f| f != flow);
        }
    }

    /// A connection that has ended, with a greeting that has not.
    pub(super) fn close(&mut self, flow: &Flow) -> Option<(Process, Tls)> {
        let greeting = self.of.remove(flow)?;
        self.order.retain(|f| f != flow);
        match greeting {
            Greeting::Begun(process, _) => Some((*process, told(*flow, None))),
            Greeting::Over => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{ProcessId, Transport};
    use crate::wire::kind;

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
        out
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        let len = u16::try_from(name.len()).unwrap();
        let mut data = (len + 3).to_be_bytes().to_vec();
        data.push(HOST_NAME);
        data.extend(len.to_be_bytes());
        data.extend(name);
        extension(SERVER_NAME, &data)
    }

    /// A greeting with these extensions, in records of at most so many bytes.
    fn greeting(extensions: &[u8], record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend([0, 2, 0x13, 1]);
        body.extend([1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        let mut out = Vec::new();
        for part in message.chunks(record) {
            out.extend([HANDSHAKE, 3, 1]);
            out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend(part);
        }
        out
    }

    /// A greeting for this server.
    pub(crate) fn named(server: &str) -> Vec<u8> {
        greeting(&server_name(server.as_bytes()), 16_384)
    }

    fn flow(port: u16) -> Flow {
        Flow {
            transport: Transport::Tcp,
            local: ([127, 0, 0, 1], port).into(),
            remote: ([127, 0, 0, 1], 443).into(),
            incoming: false,
            mapped: false,
        }
    }

    fn add(greetings: &mut Greetings, lost: &mut Lost, port: u16, bytes: &[u8]) -> Option<Tls> {
        let payload = Payload {
            kind: kind::TLS,
            time_ns: 1,
            process: Process::own(ProcessId::new(1, 1)),
            flow: flow(port),
            sent: true,
            moved: bytes.len(),
            bytes,
        };
        greetings.add(&payload, lost)
    }

    fn all(bytes: &[u8]) -> Option<Tls> {
        add(&mut Greetings::default(), &mut Lost::new(), 1, bytes)
    }

    #[test]
    fn the_name_is_found_wherever_calls_and_records_end() {
        let extensions = [
            extension(10, &[0, 2, 0, 29]),
            server_name(b"www.example.org"),
        ]
        .concat();
        for record in [1, 7, 50, 16_384] {
            let bytes = greeting(&extensions, record);
            for cut in 1..bytes.len() {
                let (mut greetings, mut lost) = (Greetings::default(), Lost::new());
                let first = add(&mut greetings, &mut lost, 1, &bytes[..cut]);
                assert_eq!(first, None, "{record} {cut}");
                let told = add(&mut greetings, &mut lost, 1, &bytes[cut..]).unwrap();
                assert_eq!(told.server_name.as_deref(), Some("www.example.org"));
                assert_eq!(told.unknown, None);
                // What follows is no greeting any more, but for another connection.
                assert_eq!(add(&mut greetings, &mut lost, 1, &bytes), None);
                greetings.open(&flow(1));
                assert!(add(&mut greetings, &mut lost, 1, &bytes).is_some());
            }
        }
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let unknown =
            |bytes: &[u8]| all(bytes).map(|tls| (tls.unknown, tls.server_name, tls.outer_name));
        let absent = greeting(&extension(10, &[0, 2, 0, 29]), 16_384);
        assert_eq!(
            unknown(&absent),
            Some((Some(TlsUnknown::Absent), None, None))
        );
        let encrypted = [
            server_name(b"front.example"),
            extension(ENCRYPTED_CLIENT_HELLO, &[0; 90]),
        ]
        .concat();
        let outer = Some("front.example".to_owned());
        assert_eq!(
            unknown(&greeting(&encrypted, 16_384)),
            Some((Some(TlsUnknown::Encrypted), None, outer))
        );
        // An extension that is longer than the message.
        let mut broken = absent.clone();
        let at = broken.len() - 5;
        broken[at] = 200;
        assert_eq!(
            unknown(&broken),
            Some((Some(TlsUnknown::Incomplete), None, None))
        );
        // Nothing that begins otherwise is told.
        for other in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            &[22, 2, 1, 0, 0],
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        ] {
            assert_eq!(all(other), None);
        }
    }

    #[test]
    fn a_connection_that_ends_in_its_greeting_is_told() {
        let (mut greetings, mut lost) = (Greetings::default(), Lost::new());
        let bytes = greeting(&server_name(b"a"), 16_384);
        assert_eq!(add(&mut greetings, &mut lost, 1, &bytes[..20]), None);
        let (_, told) = greetings.close(&flow(1)).unwrap();
        assert_eq!(told.unknown, Some(TlsUnknown::Incomplete));
        assert!(greetings.close(&flow(1)).is_none());
        assert!(greetings.order.is_empty());
    }

    #[test]
    fn greetings_that_never_end_are_bounded() {
        let (mut greetings, mut lost) = (Greetings::default(), Lost::new());
        for port in 0..2000 {
            assert_eq!(add(&mut greetings, &mut lost, port, &[22]), None);
        }
        assert_eq!(
            (greetings.of.len(), greetings.order.len()),
            (GREETINGS, GREETINGS)
        );
        assert_eq!(lost[&("tls", "map")], 2000 - GREETINGS as u64);
        let mut long = [22, 3, 1, 64, 0, 1, 0, 255, 255].to_vec();
        long.resize(BYTES, 0);
        let told = add(&mut greetings, &mut lost, 5000, &long).unwrap();
        assert_eq!(told.unknown, Some(TlsUnknown::Incomplete));
    }
}
