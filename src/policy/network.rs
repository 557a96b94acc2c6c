//! Rules about the network: whom a program may reach, and where it may be reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Serialize, Serializer};

use super::fault::quoted;
use super::{Access, Effect, Mode, Refusal};
use crate::event::Transport;

/// Every address, of either version.
const ANY: &str = "any";

/// Where the kernel picks a port from for who asks for port 0 (`net.ipv4.ip_local_port_range`, as it comes).
const PICKED: (u16, u16) = (32768, 60999);

/// Addresses, and ports of them. IPv4 is IPv4, also where an IPv6 socket speaks it; `::/0` is IPv6 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Addresses {
    /// The prefix that they share; `None`: all addresses of both versions.
    pub net: Option<IpNet>,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl Addresses {
    /// As it is written in a policy: `10.0.0.0/8:443`, `[2001:db8::]/32:8000-8080`, `any:53`, `::1`; the error is a
    /// sentence.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        if written.starts_with("host:") {
            return Err(format!(
                "{} (names of hosts) is not supported by this version; write addresses",
                quoted(written)
            ));
        }
        let wrong = || {
            format!(
                "{} is no address; write one as 10.0.0.1, 10.0.0.0/8:443, [2001:db8::]/32:8000-8080 or any:53",
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
        let net = if address == ANY && prefix.is_none() && !written.starts_with('[') {
            None
        } else {
            let ip: IpAddr = address.parse().map_err(|_| wrong())?;
            Some(self::net(ip, prefix).map_err(|why| format!("{}: {why}", quoted(written)))?)
        };
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
        Ok(Addresses { net, first, last })
    }

    /// Whether this port of this address is meant.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.net.is_none_or(|net| net.contains(&ip)) && self.has_port(address.port())
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
        match self.net {
            None => f.write_str(ANY)?,
            Some(net) => {
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
    /// The line of the document on which the rule starts, from 1.
    pub line: u32,
}

/// One access to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact {
    /// Whom, or where, and the port.
    pub address: SocketAddr,
    /// What carries the bytes; `None`: neither TCP nor UDP.
    pub transport: Option<Transport>,
    /// One kind or several at once; denied if one of them is.
    pub access: Access,
}

impl Contact {
    /// An access of these kinds.
    #[must_use]
    pub fn new(address: SocketAddr, transport: Option<Transport>, access: Access) -> Self {
        Contact {
            address,
            transport,
            access,
        }
    }
}

impl NetworkRule {
    /// Whether the rule says something about this one kind of access. What is to be reached at no address is oneself; who
    /// binds to no address is at all of them, which a rule that allows must all mean, and one that denies only one.
    #[must_use]
    pub fn speaks_of(&self, contact: &Contact, kind: Access) -> bool {
        self.access.contains(kind)
            && self.transport.is_none_or(|t| contact.transport == Some(t))
            && self.addresses.iter().any(|a| self.means(a, contact, kind))
    }

    fn means(&self, addresses: &Addresses, contact: &Contact, kind: Access) -> bool {
        let (ip, port) = (contact.address.ip().to_canonical(), contact.address.port());
        if Access::OWN.contains(kind) {
            let about = if ip.is_unspecified() {
                is_about_any(self.effect, addresses.net, ip)
            } else {
                addresses.net.is_none_or(|net| net.contains(&ip))
            };
            return about && addresses.has_own_port(self.effect, port);
        }
        if !ip.is_unspecified() {
            return addresses.contains(contact.address);
        }
        let reached = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        addresses.contains(SocketAddr::new(reached, port))
    }

    /// Whether it is about every address, by whatever carries the bytes.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn is_about_all(&self) -> bool {
        let all = |a: &Addresses| a.net.is_none() && (a.first, a.last) == (0, u16::MAX);
        self.transport.is_none() && self.addresses.iter().any(all)
    }
}

/// Whether a rule for these addresses is about a socket that is bound to all of its version; one of IPv6 takes IPv4, too.
pub(crate) fn is_about_any(effect: Effect, net: Option<IpNet>, unspecified: IpAddr) -> bool {
    match (effect, net, unspecified) {
        (_, None, _) | (Effect::Deny, Some(IpNet::V4(_)), _) => true,
        (Effect::Deny, Some(IpNet::V6(_)), ip) => ip.is_ipv6(),
        (Effect::Allow, Some(IpNet::V4(net)), IpAddr::V4(_)) => net.prefix_len() == 0,
        (Effect::Allow, Some(_), _) => false,
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
            "host:example.org",
            "1.2.3.4/8/9",
        ] {
            let sentence = Addresses::parse(written).expect_err(written);
            assert!(sentence.contains(&quoted(written)), "{written}: {sentence}");
        }
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
