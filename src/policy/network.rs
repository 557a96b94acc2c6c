//! Rules about the network: whom a program may reach, and where it may be reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use serde::{Serialize, Serializer};

use super::fault::quoted;
use super::{Access, Actor, Effect, Mode, Refusal, Subject};
use crate::event::Transport;

/// Every address, of either version.
const ANY: &str = "any";

/// Where the kernel picks a port from for who asks for port 0 (`net.ipv4.ip_local_port_range`, as it comes).
const PICKED: (u16, u16) = (32768, 60999);

/// What the name of a host is introduced by.
const HOST: &str = "host:";

/// The name of a host, as the DNS has it: in small letters, without the dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Reads a name; the error is a sentence.
    ///
    /// # Errors
    ///
    /// It is none that the DNS could answer for: RFC 1035 section 2.3, with the underscores that are in use.
    pub fn parse(written: &str) -> Result<Self, String> {
        let name = written.strip_suffix('.').unwrap_or(written);
        let name = name.to_ascii_lowercase();
        let wrong = |why: &str| Err(format!("{} is no name of a host: {why}", quoted(written)));
        if !name.is_ascii() {
            return wrong("write it as the DNS has it, in letters of ASCII (xn--…)");
        }
        if name.contains('*') {
            return wrong(
                "one rule is about one name, and nobody can ask for all that a pattern stands for; write each",
            );
        }
        let is_label = |label: &str| {
            let known = label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            known
                && (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return wrong(
                "it has labels of 1 to 63 letters, digits, hyphens and underscores with dots between them, 253 characters at most",
            );
        }
        // The last label of a name is never a number: a host called so would be taken for an address.
        if name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
        {
            return wrong("it ends in a number; write an address without \"host:\"");
        }
        Ok(HostName(name.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, shared.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// A name and a port, as `host:example.org:443`; `None`: that is not what this is meant to be.
    #[must_use]
    pub fn with_port(written: &str) -> Option<Result<(Self, u16), String>> {
        let rest = written.strip_prefix(HOST)?;
        let read = match rest.split_once(':') {
            Some((name, port)) => Self::parse(name).and_then(|name| match parse_ports(port) {
                Some((first, last)) if first == last => Ok((name, first)),
                _ => Err(format!(
                    "{} is no port, in {}",
                    quoted(port),
                    quoted(written)
                )),
            }),
            None => Err(format!(
                "{} has no port; write one as host:example.org:443",
                quoted(written)
            )),
        };
        Some(read)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which addresses are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// Every one, of either version.
    Any,
    /// Those that share a prefix.
    Net(IpNet),
    /// Those that a host has, whichever these are at the time.
    Host(HostName),
}

impl Selector {
    /// The prefix, where it is one.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        match self {
            Selector::Net(net) => Some(*net),
            Selector::Any | Selector::Host(_) => None,
        }
    }

    /// The host's name, where it is one.
    #[must_use]
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Selector::Host(name) => Some(name),
            Selector::Any | Selector::Net(_) => None,
        }
    }

    /// Whether an address is meant, whatever its names are.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Selector::Any => true,
            Selector::Net(net) => net.contains(&ip),
            Selector::Host(_) => false,
        }
    }
}

/// Addresses, and ports of them. IPv4 is IPv4, also where an IPv6 socket speaks it; `::/0` is IPv6 alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Addresses {
    /// Which ones.
    pub selector: Selector,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl Addresses {
    /// As it is written in a policy: `10.0.0.0/8:443`, `[2001:db8::]/32:8000-8080`, `any:53`, `::1`,
    /// `host:example.org:443`; the error is a sentence.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        if let Some(rest) = written.strip_prefix(HOST) {
            let (name, ports) = match rest.split_once(':') {
                Some((name, ports)) => (name, Some(ports)),
                None => (rest, None),
            };
            return Self::of(Selector::Host(HostName::parse(name)?), ports, written);
        }
        let wrong = || {
            format!(
                "{} is no address; write one as 10.0.0.1, 10.0.0.0/8:443, [2001:db8::]/32:8000-8080, any:53 or host:example.org:443",
                quoted(written)
            )
        };
        // Of an IPv6 address without brackets nobody knows where it ends and the port begins: it has none.
        let (address, rest) = match written.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or_else(wrong)?,
            None if written.matches(':').count() > 1 => match written.split_once('/') {
                Some((address, _)) => (address, &written[address.len()..]),
                None => (written, ""),
            },
            None => {
                let end = written.find(['/', ':']).unwrap_or(written.len());
                written.split_at(end)
            }
        };
        let (prefix, ports) = match rest.split_once(':') {
            Some((prefix, ports)) => (prefix, Some(ports)),
            None => (rest, None),
        };
        let prefix = match prefix.strip_prefix('/') {
            Some(bits) => Some(bits.parse::<u8>().map_err(|_| wrong())?),
            None if prefix.is_empty() => None,
            None => return Err(wrong()),
        };
        let selector = if address == ANY && prefix.is_none() && !written.starts_with('[') {
            Selector::Any
        } else {
            let ip: IpAddr = address.parse().map_err(|_| wrong())?;
            Selector::Net(
                self::net(ip, prefix).map_err(|why| format!("{}: {why}", quoted(written)))?,
            )
        };
        Self::of(selector, ports, written)
    }

    fn of(selector: Selector, ports: Option<&str>, written: &str) -> Result<Self, String> {
        let (first, last) = match ports {
            Some(ports) => parse_ports(ports).ok_or_else(|| {
                format!(
                    "{} is no port, nor a range of them as 8000-8080, in {}",
                    quoted(ports),
                    quoted(written)
                )
            })?,
            None => (0, u16::MAX),
        };
        Ok(Addresses {
            selector,
            first,
            last,
        })
    }

    /// Whether this port of this address is meant, whatever its names are.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.selector.contains(address.ip().to_canonical()) && self.has_port(address.port())
    }

    pub(crate) fn has_port(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether a rule of this effect is about a port of this end: about port 0, which is one that the kernel picks, if it
    /// denies one of those, or allows all of them.
    pub(crate) fn has_own_port(&self, effect: Effect, port: u16) -> bool {
        let (first, last) = PICKED;
        match (port, effect) {
            (0, Effect::Allow) => self.first <= first && last <= self.last,
            (0, Effect::Deny) => self.first <= last && first <= self.last,
            (port, _) => self.has_port(port),
        }
    }
}

/// Host bits are a slip: nobody can tell which of the two was meant.
fn net(ip: IpAddr, prefix: Option<u8>) -> Result<IpNet, String> {
    let canonical = ip.to_canonical();
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let bits = prefix.unwrap_or(whole);
    if bits > whole {
        return Err(format!("a prefix has at most {whole} bits here"));
    }
    let net = match (ip, canonical) {
        (IpAddr::V6(_), IpAddr::V4(v4)) if bits >= 96 => {
            IpNet::V4(Ipv4Net::new(v4, bits - 96).map_err(|e| e.to_string())?)
        }
        (ip, _) => IpNet::new(ip, bits).map_err(|e| e.to_string())?,
    };
    if net.trunc() != net {
        return Err(format!(
            "the address has bits beyond its prefix; the network is {}",
            net.trunc()
        ));
    }
    Ok(net)
}

fn parse_ports(written: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (first, last) = match written.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(written)?, number(written)?),
    };
    (first <= last).then_some((first, last))
}

impl fmt::Display for Addresses {
    /// As it is written in a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_ports = (self.first, self.last) == (0, u16::MAX);
        match &self.selector {
            Selector::Any => f.write_str(ANY)?,
            Selector::Host(name) => write!(f, "{HOST}{name}")?,
            Selector::Net(net) => {
                let single = net.prefix_len() == net.max_prefix_len();
                match net {
                    IpNet::V6(net) if !all_ports => write!(f, "[{}]", net.addr())?,
                    net => write!(f, "{}", net.addr())?,
                }
                if !single {
                    write!(f, "/{}", net.prefix_len())?;
                }
            }
        }
        match (self.first, self.last) {
            _ if all_ports => Ok(()),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl Serialize for Addresses {
    /// As it is written.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A rule that denies kinds of access to addresses, or allows them to these addresses alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetworkRule {
    /// What the rule is called in events and messages; unique in its set.
    pub id: String,
    /// Whether the rule denies or allows.
    pub effect: Effect,
    /// The kinds: of [`Access::OUTWARDS`] or of [`Access::OWN`], never of both.
    pub access: Access,
    /// Of the other end, or of this one, as the kinds say; never empty.
    pub addresses: Vec<Addresses>,
    /// What carries the bytes; `None`: whatever does.
    pub transport: Option<Transport>,
    /// Whether the rule refuses or reports; the document's mode is already worked in.
    pub mode: Mode,
    /// Which of two rules about the same decides, as for files.
    pub priority: i32,
    /// How it refuses.
    pub refusal: Refusal,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Subject::is_everybody")]
    pub subject: Subject,
    /// The line of the document on which the rule starts, from 1.
    pub line: u32,
}

/// One access to one address, or to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact<'a> {
    /// Whom, or where; `None`: all that is known is the name.
    pub ip: Option<IpAddr>,
    /// Which port of it.
    pub port: u16,
    /// The name that the address is known by, if it is by one.
    pub host: Option<&'a HostName>,
    /// What carries the bytes; `None`: neither TCP nor UDP.
    pub transport: Option<Transport>,
    /// One kind or several at once; denied if one of them is.
    pub access: Access,
    /// Who does it.
    pub actor: Actor<'a>,
}

impl<'a> Contact<'a> {
    /// An access of these kinds to an address that has no name in a rule.
    #[must_use]
    pub fn new(address: SocketAddr, transport: Option<Transport>, access: Access) -> Self {
        Contact {
            ip: Some(address.ip().to_canonical()),
            port: address.port(),
            host: None,
            transport,
            access,
            actor: Actor::ANYBODY,
        }
    }

    /// The same to a host, at an address of which nothing else is said.
    #[must_use]
    pub fn to_host(
        host: &'a HostName,
        port: u16,
        transport: Option<Transport>,
        access: Access,
    ) -> Self {
        Contact {
            ip: None,
            port,
            host: Some(host),
            transport,
            access,
            actor: Actor::ANYBODY,
        }
    }

    /// The same access to an address that is known by this name.
    #[must_use]
    pub fn known_as(self, host: &'a HostName) -> Self {
        Contact {
            host: Some(host),
            ..self
        }
    }

    /// The same access by this one.
    #[must_use]
    pub fn by(self, actor: Actor<'a>) -> Self {
        Contact { actor, ..self }
    }
}

impl NetworkRule {
    /// Whether the rule says something about this one kind of access, and to who asks. What is to be reached at no address is oneself; who
    /// binds to no address is at all of them, which a rule that allows must all mean, and one that denies only one.
    #[must_use]
    pub fn speaks_of(&self, contact: &Contact<'_>, kind: Access) -> bool {
        self.access.contains(kind)
            && self.subject.includes(&contact.actor)
            && self.transport.is_none_or(|t| contact.transport == Some(t))
            && self.addresses.iter().any(|a| self.means(a, contact, kind))
    }

    fn means(&self, addresses: &Addresses, contact: &Contact<'_>, kind: Access) -> bool {
        let port = contact.port;
        if let Some(name) = addresses.selector.host() {
            return contact.host == Some(name) && addresses.has_port(port);
        }
        let Some(ip) = contact.ip else {
            return addresses.selector == Selector::Any && addresses.has_port(port);
        };
        if Access::OWN.contains(kind) {
            let about = if ip.is_unspecified() {
                is_about_any(self.effect, &addresses.selector, ip)
            } else {
                addresses.selector.contains(ip)
            };
            return about && addresses.has_own_port(self.effect, port);
        }
        addresses.selector.contains(reached(ip)) && addresses.has_port(port)
    }

    /// Whether it is about every address, by whatever carries the bytes.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn is_about_all(&self) -> bool {
        let all = |a: &Addresses| a.selector == Selector::Any && (a.first, a.last) == (0, u16::MAX);
        self.transport.is_none() && self.addresses.iter().any(all)
    }
}

/// Whom one reaches at an address: at none, oneself.
pub(crate) fn reached(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

/// Whether a rule for these addresses is about a socket that is bound to all of its version; one of IPv6 takes IPv4, too.
pub(crate) fn is_about_any(effect: Effect, selector: &Selector, unspecified: IpAddr) -> bool {
    let net = match selector {
        Selector::Any => return true,
        Selector::Host(_) => return false,
        Selector::Net(net) => *net,
    };
    match (effect, net, unspecified) {
        (Effect::Deny, IpNet::V4(_), _) => true,
        (Effect::Deny, IpNet::V6(_), ip) => ip.is_ipv6(),
        (Effect::Allow, IpNet::V4(net), IpAddr::V4(_)) => net.prefix_len() == 0,
        (Effect::Allow, ..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for (written, shown) in [
            ("10.0.0.0/8:443", None),
            ("10.1.2.3", None),
            ("10.1.2.3/32", Some("10.1.2.3")),
            ("10.1.2.3:1-65535", None),
            ("10.1.2.3:0-65535", Some("10.1.2.3")),
            ("[2001:db8::]/32:8000-8080", None),
            ("[2001:db8::]/32", Some("2001:db8::/32")),
            ("2001:db8::/32", None),
            ("[::1]:53", None),
            ("::", None),
            ("any", None),
            ("any:53", None),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("[::ffff:10.0.0.1]:80", Some("10.0.0.1:80")),
            ("host:example.org", None),
            ("host:Example.ORG.:443", Some("host:example.org:443")),
            ("host:localhost:8000-8080", None),
            ("host:_x.xn--bcher-kva.example", None),
        ] {
            let read = Addresses::parse(written).map(|a| a.to_string());
            assert_eq!(read.as_deref(), Ok(shown.unwrap_or(written)));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_name() {
        for written in [
            "",
            "x",
            "10.0.0",
            "10.0.0.1/33",
            "10.0.0.1/8",
            "10.0.0.1:",
            "10.0.0.1:65536",
            "10.0.0.1:9-8",
            "10.0.0.1:+5",
            "[::1",
            "[10.0.0.1]x",
            "any/8",
            "[any]",
            "::/129",
            "host:example.org:",
            "host:example.org:http",
            "1.2.3.4/8/9",
        ] {
            let sentence = Addresses::parse(written).expect_err(written);
            assert!(sentence.contains(&quoted(written)), "{written}: {sentence}");
        }
        for (written, why) in [
            ("x..y", "labels"),
            ("a..b", "labels"),
            ("-a", "labels"),
            ("a b", "labels"),
            ("*.example.org", "pattern"),
            ("bücher.example", "ASCII"),
            ("10.0.0.1", "without"),
            (&"a".repeat(64), "63"),
        ] {
            let sentence = Addresses::parse(&format!("host:{written}")).expect_err(written);
            assert!(sentence.contains(&quoted(written)), "{written}: {sentence}");
            assert!(sentence.contains(why), "{written}: {sentence}");
        }
        let longest = "a.".repeat(127);
        assert!(HostName::parse(&longest).is_ok());
        assert!(HostName::parse(&format!("a{longest}")).is_err());
        let sentence = Addresses::parse("10.1.0.0/8").expect_err("host bits");
        assert!(sentence.contains("10.0.0.0/8"), "{sentence}");
    }

    fn rule(effect: Effect, access: Access, addresses: &str) -> NetworkRule {
        NetworkRule {
            id: "a".to_owned(),
            effect,
            access,
            addresses: vec![Addresses::parse(addresses).unwrap()],
            transport: None,
            mode: Mode::Enforce,
            priority: 0,
            refusal: Refusal::default(),
            subject: Subject::default(),
            line: 0,
        }
    }

    #[track_caller]
    fn speaks(rule: &NetworkRule, address: &str, expected: bool) {
        let kind = rule.access.kinds().next().unwrap();
        let contact = Contact::new(address.parse().unwrap(), Some(Transport::Tcp), kind);
        assert_eq!(rule.speaks_of(&contact, kind), expected, "{address}");
    }

    #[test]
    fn an_ipv4_address_is_one_however_it_is_written() {
        let four = rule(Effect::Deny, Access::CONNECT, "10.0.0.0/8:80-90");
        speaks(&four, "10.1.2.3:80", true);
        speaks(&four, "[::ffff:10.1.2.3]:90", true);
        speaks(&four, "10.1.2.3:91", false);
        speaks(&four, "11.1.2.3:80", false);
        let six = rule(Effect::Deny, Access::CONNECT, "::/0");
        speaks(&six, "[2001:db8::1]:80", true);
        speaks(&six, "[::ffff:10.1.2.3]:80", false);
    }

    #[test]
    fn a_host_is_whoever_has_its_name() {
        let deny = rule(Effect::Deny, Access::CONNECT, "host:example.org:443");
        let known = HostName::parse("example.org").unwrap();
        let other = HostName::parse("www.example.org").unwrap();
        let to = |port| Contact::new(([192, 0, 2, 1], port).into(), None, Access::CONNECT);
        let speaks = |contact: Contact<'_>| deny.speaks_of(&contact, Access::CONNECT);
        assert!(speaks(to(443).known_as(&known)));
        assert!(!speaks(to(80).known_as(&known)));
        assert!(!speaks(to(443).known_as(&other)));
        assert!(!speaks(to(443)));
        // By name alone: a rule for every address is about it, and one for some may be.
        let by_name = Contact::to_host(&known, 443, None, Access::CONNECT);
        assert!(speaks(by_name));
        let all = rule(Effect::Deny, Access::CONNECT, "any");
        assert!(all.speaks_of(&by_name, Access::CONNECT));
        let some = rule(Effect::Deny, Access::CONNECT, "0.0.0.0/0");
        assert!(!some.speaks_of(&by_name, Access::CONNECT));
        assert_eq!(
            HostName::with_port("host:a.b:80"),
            Some(Ok((HostName::parse("a.b").unwrap(), 80)))
        );
        assert!(HostName::with_port("host:a.b").is_some_and(|read| read.is_err()));
        assert_eq!(HostName::with_port("a.b:80"), None);
    }

    #[test]
    fn to_no_address_is_to_oneself() {
        let loopback = rule(Effect::Deny, Access::CONNECT, "127.0.0.0/8");
        speaks(&loopback, "0.0.0.0:80", true);
        speaks(&loopback, "[::]:80", false);
        speaks(&rule(Effect::Deny, Access::CONNECT, "::1"), "[::]:80", true);
        speaks(
            &rule(Effect::Deny, Access::CONNECT, "0.0.0.0"),
            "0.0.0.0:80",
            false,
        );
    }

    #[test]
    fn at_no_address_is_at_all_of_them() {
        let deny = rule(Effect::Deny, Access::BIND, "127.0.0.1:80");
        speaks(&deny, "0.0.0.0:80", true);
        speaks(&deny, "[::]:80", true);
        speaks(&deny, "[::]:81", false);
        speaks(
            &rule(Effect::Deny, Access::BIND, "::1"),
            "0.0.0.0:80",
            false,
        );
        let allow = rule(Effect::Allow, Access::BIND, "127.0.0.0/8");
        speaks(&allow, "127.0.0.1:80", true);
        speaks(&allow, "0.0.0.0:80", false);
        speaks(
            &rule(Effect::Allow, Access::BIND, "0.0.0.0/0"),
            "0.0.0.0:80",
            true,
        );
        speaks(
            &rule(Effect::Allow, Access::BIND, "0.0.0.0/0"),
            "[::]:80",
            false,
        );
        speaks(&rule(Effect::Allow, Access::BIND, "::/0"), "[::]:80", false);
        speaks(
            &rule(Effect::Allow, Access::BIND, "any:80"),
            "[::]:80",
            true,
        );
    }

    #[test]
    fn port_0_is_one_that_the_kernel_picks() {
        let deny = |ports: &str| rule(Effect::Deny, Access::BIND, &format!("any:{ports}"));
        speaks(&deny("1-1023"), "127.0.0.1:0", false);
        speaks(&deny("50051"), "127.0.0.1:0", true);
        speaks(&deny("1024-65535"), "[::]:0", true);
        let allow = |ports: &str| rule(Effect::Allow, Access::LISTEN, &format!("any:{ports}"));
        speaks(&allow("1024-65535"), "127.0.0.1:0", true);
        speaks(&allow("50051"), "127.0.0.1:0", false);
        // To the other end it is a port like any other.
        let to = rule(Effect::Deny, Access::CONNECT, "any:50051");
        speaks(&to, "127.0.0.1:0", false);
    }
}
