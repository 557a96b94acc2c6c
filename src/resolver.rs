//! Asks which addresses hosts have, again and again: as long as an answer holds it is not asked for anew.
//!
//! The nameservers of the machine are asked, which say how long their answers hold, and the C library, which knows what
//! else this machine goes by: its file of hosts, a resolver that is reached in another way.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa};

use crate::policy::{HostName, reached};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Of systemd-resolved: whom it asks itself, where programs are to ask it.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
const PORT: u16 = 53;
/// The C library's own limit.
const NAMESERVERS: usize = 3;
const TIMEOUT: Duration = Duration::from_millis(1500);
/// How often is asked anew: between these, whatever the answers say; and where there is none.
const LEAST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(15);
/// How long an answer holds that does not say so.
const UNSAID_S: u32 = 60;
/// So many are asked for at once.
const WORKERS: usize = 8;
/// So long the first answers are waited for: nameservers that do not answer, one after the other, and the file of hosts.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out about a host.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) name: HostName,
    /// Empty: it has none, or nobody can say.
    pub(crate) addresses: Vec<IpAddr>,
    /// In seconds.
    pub(crate) lasts_s: u32,
    /// Why there are no addresses.
    pub(crate) failed: Option<Failed>,
}

/// Why a host has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// A nameserver says that there are none.
    Absent,
    /// Nobody knows; a part of a sentence.
    Unknown(String),
}

/// Asks in threads of its own, which end when it is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// What ends them.
    _workers: Vec<Sender<()>>,
    answers: Receiver<Resolved>,
}

impl Resolver {
    /// Asks for these hosts from now on. What is known of each is returned, after a while also what is not.
    pub(crate) fn start(names: Vec<HostName>) -> (Self, Vec<Resolved>) {
        let (tell, answers) = channel();
        let mut parts: Vec<Vec<HostName>> = vec![Vec::new(); WORKERS.min(names.len())];
        let count = parts.len();
        for (n, name) in names.iter().enumerate() {
            parts[n % count].push(name.clone());
        }
        let workers = parts.into_iter().map(|names| {
            let (end, ended) = channel();
            let tell = tell.clone();
            std::thread::spawn(move || work(&names, &ended, &tell));
            end
        });
        let resolver = Resolver {
            _workers: workers.collect(),
            answers,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut waiting: HashSet<HostName> = names.into_iter().collect();
        let mut found = Vec::new();
        while !waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match resolver.answers.recv_timeout(left) {
                Ok(resolved) => {
                    waiting.remove(&resolved.name);
                    found.push(resolved);
                }
                Err(_) => break,
            }
        }
        found.extend(waiting.into_iter().map(|name| Resolved {
            name,
            addresses: Vec::new(),
            lasts_s: 0,
            failed: Some(Failed::Unknown("nobody has answered in time".to_owned())),
        }));
        (resolver, found)
    }

    /// What was found out since.
    pub(crate) fn next(&self) -> Option<Resolved> {
        self.answers.try_recv().ok()
    }
}

/// Asks for each when its time has come, until nobody wants to know any more.
fn work(names: &[HostName], ended: &Receiver<()>, tell: &Sender<Resolved>) {
    let mut due: Vec<(Instant, &HostName)> =
        names.iter().map(|name| (Instant::now(), name)).collect();
    while let Some((at, name)) = due.iter_mut().min_by_key(|(at, _)| *at) {
        let left = at.saturating_duration_since(Instant::now());
        if ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let resolved = resolve(name);
        *at = Instant::now()
            + match resolved.failed {
                Some(_) => AGAIN,
                None => Duration::from_secs(resolved.lasts_s.into()).clamp(LEAST, MOST),
            };
        if tell.send(resolved).is_err() {
            return;
        }
    }
}

/// Whom this machine asks: as `/etc/resolv.conf` has them, and where that is a resolver on the machine itself, whom that
/// one asks.
pub(crate) fn nameservers() -> Vec<IpAddr> {
    let read = |path: &str| in_conf(&std::fs::read_to_string(path).unwrap_or_default());
    let mut servers = read(RESOLV_CONF);
    if servers.is_empty() {
        // resolv.conf(5)
        servers.push(IpAddr::from([127, 0, 0, 1]));
    }
    let is_stub = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [127, 0, 0] && matches!(ip.octets()[3], 53 | 54));
    if servers.iter().any(is_stub) {
        servers.extend(read(RESOLVED_CONF));
    }
    servers
}

/// The nameservers in a file, line by line: as the C library, what is wrong in one of them does not matter to the others.
fn in_conf(text: &str) -> Vec<IpAddr> {
    let lines = text
        .lines()
        .filter_map(|line| resolv_conf::Config::parse(line).ok());
    let servers = lines.flat_map(|line| line.nameservers).map(|server| {
        reached(match server {
            resolv_conf::ScopedIp::V4(ip) => IpAddr::V4(ip),
            resolv_conf::ScopedIp::V6(ip, _) => IpAddr::V6(ip),
        })
    });
    servers.take(NAMESERVERS).collect()
}

fn resolve(name: &HostName) -> Resolved {
    let Found {
        mut addresses,
        lasts_s,
        absent,
    } = ask_all(name).unwrap_or_default();
    let failed = match (name.as_str(), 0).to_socket_addrs() {
        Ok(said) => {
            addresses.extend(said.map(|address| address.ip().to_canonical()));
            None
        }
        Err(e) => Some(e.to_string()),
    };
    addresses.sort_unstable();
    addresses.dedup();
    Resolved {
        name: name.clone(),
        lasts_s: lasts_s.unwrap_or(UNSAID_S),
        failed: match addresses.is_empty() {
            false => None,
            true if absent => Some(Failed::Absent),
            true => Some(Failed::Unknown(
                failed.unwrap_or_else(|| "there is no address".to_owned()),
            )),
        },
        addresses,
    }
}

/// What a nameserver says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    addresses: Vec<IpAddr>,
    /// The least that any record says.
    lasts_s: Option<u32>,
    /// There is no such host, or it has no address.
    absent: bool,
}

/// What went wrong; nobody is told.
type Unanswered = Box<dyn std::error::Error + Send + Sync>;

/// Asks the nameservers, one after the other, until one knows.
fn ask_all(name: &HostName) -> Result<Found, Unanswered> {
    // What has no dot the DNS does not know by that name alone.
    if !name.as_str().contains('.') {
        return Err("not for the DNS".into());
    }
    let mut last = Err("no nameserver".into());
    for server in nameservers().into_iter().take(NAMESERVERS) {
        let server = SocketAddr::new(server, PORT);
        last = ask(name, Rtype::A, server).and_then(|four| {
            let six = ask(name, Rtype::AAAA, server)?;
            let lasts = four.lasts_s.into_iter().chain(six.lasts_s);
            Ok(Found {
                lasts_s: lasts.min(),
                absent: four.absent && six.absent,
                addresses: [four.addresses, six.addresses].concat(),
            })
        });
        if last.is_ok() {
            break;
        }
    }
    last
}

fn ask(name: &HostName, of: Rtype, server: SocketAddr) -> Result<Found, Unanswered> {
    let query = query(name, of)?;
    let here: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(here)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(query.as_slice())?;
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let len = socket.recv(&mut buffer)?;
        // It may be the answer to another question.
        let answer = Message::from_octets(&buffer[..len]);
        if let Ok(answer) = answer
            && answer.is_answer(&query)
        {
            if answer.header().tc() {
                let answer = ask_by_tcp(&query, server)?;
                return read(&Message::from_octets(answer.as_slice())?);
            }
            return read(&answer);
        }
        if Instant::now() >= deadline {
            return Err("only other answers came".into());
        }
    }
}

/// RFC 1035 section 4.2.2.
fn ask_by_tcp(query: &Message<Vec<u8>>, server: SocketAddr) -> Result<Vec<u8>, Unanswered> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut message = u16::try_from(query.as_slice().len())?
        .to_be_bytes()
        .to_vec();
    message.extend(query.as_slice());
    stream.write_all(&message)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer)?;
    match Message::from_octets(answer.as_slice())?.is_answer(query) {
        true => Ok(answer),
        false => Err("the answer is to another question".into()),
    }
}

fn query(name: &HostName, of: Rtype) -> Result<Message<Vec<u8>>, Unanswered> {
    let name: Name<Vec<u8>> = Name::from_chars(name.as_str().chars())?;
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty())?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(u16::from_ne_bytes(id));
    message.header_mut().set_rd(true);
    let mut question = message.question();
    question.push((name, of))?;
    Ok(question.into_message())
}

fn read(answer: &Message<&[u8]>) -> Result<Found, Unanswered> {
    let mut found = Found::default();
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => found.absent = true,
        other => return Err(other.to_string().into()),
    }
    for record in answer.answer()? {
        let record = record?;
        let ip: IpAddr = if let Some(a) = record.to_record::<A>()? {
            a.data().addr().into()
        } else if let Some(aaaa) = record.to_record::<Aaaa>()? {
            aaaa.data().addr().to_canonical()
        } else {
            continue;
        };
        found.addresses.push(ip);
        let ttl = record.ttl().as_secs();
        found.lasts_s = Some(found.lasts_s.map_or(ttl, |least| least.min(ttl)));
    }
    found.absent |= found.addresses.is_empty();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> HostName {
        HostName::parse("a.example").unwrap()
    }

    #[test]
    fn an_answer_is_read_with_the_least_that_its_records_say() {
        let query = query(&name(), Rtype::A).unwrap();
        let mut bytes = query.as_slice().to_vec();
        bytes[2] |= 0x80;
        bytes[7] = 3;
        // An alias, and two addresses.
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 4, 1, b'b', 0xc0, 12]);
        for (ttl, last) in [(90, 1), (70, 2)] {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 192, 0, 2, last]);
        }
        let answer = Message::from_octets(bytes.as_slice()).unwrap();
        assert!(answer.is_answer(&query));
        let found = read(&answer).unwrap();
        let expected = Found {
            addresses: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
            lasts_s: Some(70),
            absent: false,
        };
        assert_eq!(found, expected);
        bytes[3] |= 3;
        bytes[7] = 0;
        let answer = Message::from_octets(&bytes[..query.as_slice().len()]).unwrap();
        assert!(read(&answer).unwrap().absent);
        bytes[3] ^= 1;
        let answer = Message::from_octets(&bytes[..query.as_slice().len()]).unwrap();
        assert!(read(&answer).is_err());
    }

    #[test]
    fn nameservers_are_those_that_the_c_library_takes() {
        let text = "# ours\nnameserver 192.0.2.53 # the first\nsearch example.org\nnonsense\n\
                    nameserver x\nnameserver 0.0.0.0\nnameserver fe80::1%lo\nnameserver 192.0.2.54\n";
        let servers: Vec<String> = in_conf(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.53", "127.0.0.1", "fe80::1"]);
    }

    #[test]
    fn what_is_in_the_file_of_hosts_is_known_without_a_nameserver() {
        let localhost = HostName::parse("localhost").unwrap();
        let (_resolver, found) = Resolver::start(vec![localhost]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].addresses.iter().all(IpAddr::is_loopback),
            "{found:?}"
        );
        assert!(!found[0].addresses.is_empty(), "{found:?}");
        assert_eq!((found[0].lasts_s, &found[0].failed), (UNSAID_S, &None));
    }
}
