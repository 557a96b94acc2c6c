//! What rules say about the network, in the kernel's terms: prefixes of addresses and hosts, each with ranges of ports.
//!
//! The kernel finds the longest prefix that an address has and no other. So what is said about a wider one is said once
//! more at each that is in it, and there is one place that says all about an address. Of hosts it is known by others beside
//! that, and by several at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::places::{Said, Sets, Voice};
use super::tables::Turn;
use crate::event::Transport;
use crate::policy::{Access, Addresses, Effect, HostName, NetworkRule, Selector, is_about_any};
use crate::wire::{NetPorts, NetPrefix, NetRuling};

/// The first bits of an address; IPv4 behind those that it has in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Prefix {
    first: u128,
    bits: u8,
}

const IPV4: Prefix = Prefix {
    first: 0xffff << 32,
    bits: 96,
};

impl Prefix {
    fn new(net: Option<IpNet>) -> Self {
        match net {
            None => Prefix { first: 0, bits: 0 },
            Some(IpNet::V4(net)) => Prefix {
                first: IPV4.first | u128::from(u32::from(net.network())),
                bits: 96 + net.prefix_len(),
            },
            Some(IpNet::V6(net)) => Prefix {
                first: u128::from(net.network()),
                bits: net.prefix_len(),
            },
        }
    }

    fn contains(self, other: Prefix) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits));
        other.bits >= self.bits && other.first & mask.unwrap_or(0) == self.first
    }

    fn key(self, turn: Turn) -> NetPrefix {
        NetPrefix {
            bits: u32::BITS + u32::from(self.bits),
            half: turn.half(),
            address: self.first.to_be_bytes(),
        }
    }
}

/// What carries the bytes, as the kernel half tells it apart.
const TRANSPORTS: [Option<Transport>; 3] = [Some(Transport::Tcp), Some(Transport::Udp), None];

/// From a port on: what is said, by transport.
type Ports = Vec<(u16, [Said; 3])>;

/// A rule's word about addresses.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    voice: Voice,
    rule: &'a NetworkRule,
    addresses: &'a Addresses,
}

/// Everything that is said about the network.
#[derive(Debug)]
pub(super) struct Contacts {
    /// Each prefix, and which of `all` it has.
    prefixes: Vec<(Prefix, usize)>,
    /// The same of each host that rules name.
    hosts: Vec<(HostName, usize)>,
    /// Distinct ones.
    all: Vec<Ports>,
    /// What is said about addresses that no rule names.
    pub(super) otherwise: Said,
    /// What is refused to some address.
    pub(super) refused: Said,
    /// The kinds that rules are about.
    pub(super) kinds: Access,
    /// How many addresses they name.
    pub(super) addresses: u32,
}

impl Contacts {
    /// `rules` with what they are worth.
    pub(super) fn new<'a>(rules: impl IntoIterator<Item = (Voice, &'a NetworkRule)>) -> Self {
        let mut contacts = Contacts {
            prefixes: Vec::new(),
            hosts: Vec::new(),
            all: Vec::new(),
            otherwise: Said::NOTHING,
            refused: Said::NOTHING,
            kinds: Access::default(),
            addresses: 0,
        };
        let mut words: Vec<(Prefix, Word<'_>)> = Vec::new();
        let mut of_hosts: BTreeMap<&HostName, Vec<Word<'_>>> = BTreeMap::new();
        let mut named: HashSet<&Addresses> = HashSet::new();
        for (voice, rule) in rules {
            contacts.kinds |= rule.access;
            match rule.effect {
                // Nothing is left that it could close.
                Effect::Allow if rule.is_about_all() => {}
                Effect::Allow => contacts.otherwise.add_rest(voice, rule.access),
                Effect::Deny => contacts.refused.add(voice, rule.access),
            }
            for addresses in &rule.addresses {
                named.insert(addresses);
                let word = Word {
                    voice,
                    rule,
                    addresses,
                };
                match &addresses.selector {
                    Selector::Host(name) => of_hosts.entry(name).or_default().push(word),
                    selector => words.push((Prefix::new(selector.net()), word)),
                }
            }
        }
        contacts.addresses = u32::try_from(named.len()).unwrap_or(u32::MAX);
        let mut known: HashMap<Ports, usize> = HashMap::new();
        let mut number = |all: &mut Vec<Ports>, ports: Ports| {
            let next = all.len();
            let at = *known.entry(ports.clone()).or_insert(next);
            if at == next {
                all.push(ports);
            }
            at
        };
        for (name, words) in of_hosts {
            let at = number(&mut contacts.all, ports(&words.iter().collect::<Vec<_>>()));
            contacts.hosts.push((name.clone(), at));
        }
        if words.is_empty() {
            return contacts;
        }
        words.sort_by_key(|(prefix, _)| *prefix);
        let mut prefixes: Vec<Prefix> = words.iter().map(|(prefix, _)| *prefix).collect();
        // Rules for IPv6 do not speak about IPv4, whose addresses begin with theirs.
        prefixes.push(IPV4);
        prefixes.sort_unstable();
        prefixes.dedup();

        let mut enter = |contacts: &mut Contacts, prefix, ports: Ports| {
            let at = number(&mut contacts.all, ports);
            contacts.prefixes.push((prefix, at));
        };
        // Those around the current prefix, the widest first, each with where its words begin and end.
        let mut around: Vec<(Prefix, usize, usize)> = Vec::new();
        let mut next = 0;
        for &prefix in &prefixes {
            while around
                .last()
                .is_some_and(|(wide, ..)| !wide.contains(prefix))
            {
                around.pop();
            }
            let begin = next;
            while words.get(next).is_some_and(|(of, _)| *of == prefix) {
                next += 1;
            }
            around.push((prefix, begin, next));
            let is_four = IPV4.contains(prefix);
            let about = around
                .iter()
                .flat_map(|&(_, begin, end)| &words[begin..end]);
            let about: Vec<&Word<'_>> = about
                .map(|(_, word)| word)
                .filter(|word| match word.addresses.selector.net() {
                    None => true,
                    Some(net) => matches!(net, IpNet::V4(_)) == is_four,
                })
                .collect();
            enter(&mut contacts, prefix, ports(&about));
        }
        // A socket that is bound to no address is at all of them. Nobody is reached at these: see reach() in the kernel
        // half.
        if contacts.kinds.intersects(Access::OWN) {
            for ip in [
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ] {
                let all = words.iter().map(|(_, word)| word);
                let about: Vec<&Word<'_>> = all
                    .filter(|word| is_about_any(word.rule.effect, &word.addresses.selector, ip))
                    .collect();
                let prefix = Prefix::new(Some(IpNet::from(ip)));
                contacts.prefixes.retain(|(other, _)| *other != prefix);
                enter(&mut contacts, prefix, ports(&about));
            }
        }
        contacts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.hosts.is_empty()
    }

    /// The hosts that rules name.
    pub(super) fn hosts(&self) -> impl ExactSizeIterator<Item = &HostName> {
        self.hosts.iter().map(|(name, _)| name)
    }

    pub(super) fn prefix_count(&self) -> usize {
        self.prefixes.len()
    }

    pub(super) fn range_count(&self) -> usize {
        self.all.iter().map(Vec::len).sum()
    }

    /// All that is said, for [`Sets`].
    pub(super) fn said(&self) -> impl Iterator<Item = &Said> {
        self.all.iter().flatten().flat_map(|(_, said)| said)
    }

    /// Entries of `stk_net_ranges` in their order, those of `stk_nets`, and what those of `stk_host_rules` say.
    pub(super) fn tables(&self, sets: &Sets, turn: Turn) -> NetworkTables<'_> {
        let mut ranges = Vec::new();
        let mut rulings = Vec::new();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        for ports in &self.all {
            rulings.push(NetRuling {
                epoch: turn.epoch,
                first: turn.first_range() + number(ranges.len()),
                count: number(ports.len()),
            });
            ranges.extend(ports.iter().map(|(from, [tcp, udp, other])| NetPorts {
                from: (*from).into(),
                tcp: turn.set(sets.number(tcp)),
                udp: turn.set(sets.number(udp)),
                other: turn.set(sets.number(other)),
            }));
        }
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|(prefix, at)| (prefix.key(turn), rulings[*at]));
        let hosts = self.hosts.iter().map(|(name, at)| (name, rulings[*at]));
        NetworkTables {
            ranges,
            nets: prefixes.collect(),
            hosts: hosts.collect(),
        }
    }
}

/// What the tables about the network get.
#[derive(Debug)]
pub(super) struct NetworkTables<'a> {
    pub(super) ranges: Vec<NetPorts>,
    pub(super) nets: Vec<(NetPrefix, NetRuling)>,
    pub(super) hosts: Vec<(&'a HostName, NetRuling)>,
}

/// What these words say, port by port; never empty.
fn ports(words: &[&Word<'_>]) -> Ports {
    // Port 0 of this end is none of the others.
    let mut begins: Vec<u16> = vec![0, 1];
    for word in words {
        begins.push(word.addresses.first);
        begins.extend(word.addresses.last.checked_add(1));
    }
    begins.sort_unstable();
    begins.dedup();
    let mut ports: Ports = Vec::with_capacity(begins.len());
    for from in begins {
        let here = words.iter().filter(|word| {
            if Access::OWN.contains(word.rule.access) {
                word.addresses.has_own_port(word.rule.effect, from)
            } else {
                word.addresses.has_port(from)
            }
        });
        let mut said = TRANSPORTS.map(|_| Said::NOTHING);
        for word in here {
            for (said, transport) in said.iter_mut().zip(TRANSPORTS) {
                if word.rule.transport.is_none_or(|t| transport == Some(t)) {
                    said.add(word.voice, word.rule.access);
                }
            }
        }
        if ports.last().is_none_or(|(_, before)| *before != said) {
            ports.push((from, said));
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::policy::{Contact, Environment, RuleSet, evaluate_contact};
    use crate::wire::RULE_NONE;

    fn set(rules: &str) -> RuleSet {
        let env = Environment::new(None, "/".into());
        RuleSet::parse(&format!("version: 1\nnetwork:\n{rules}"), "p", &env).unwrap()
    }

    fn contacts(set: &RuleSet) -> Contacts {
        let ranked = (0..).zip(set.ranked_network());
        Contacts::new(ranked.map(|(n, rule)| (Voice::new(n, rule.effect, rule.mode), rule)))
    }

    /// The number of the rule that refuses, as the kernel half finds it.
    fn refusal(
        contacts: &Contacts,
        address: SocketAddr,
        transport: usize,
        kind: Access,
    ) -> Option<u32> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() && Access::OUTWARDS.contains(kind) => {
                Ipv4Addr::LOCALHOST.to_ipv6_mapped()
            }
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) if ip.is_unspecified() && Access::OUTWARDS.contains(kind) => {
                Ipv6Addr::LOCALHOST
            }
            IpAddr::V6(ip) => ip,
        };
        let key = Prefix {
            first: ip.into(),
            bits: 128,
        };
        let said = said_of(contacts, key, address.port(), transport);
        let bit = kind.bits().trailing_zeros() as usize;
        let said = said.unwrap_or(Said::NOTHING);
        let found = said.refused_by(&contacts.otherwise, 0, bit);
        found.filter(|number| *number != RULE_NONE >> 1)
    }

    fn said_of(contacts: &Contacts, key: Prefix, port: u16, transport: usize) -> Option<Said> {
        let longest = contacts.prefixes.iter().filter(|(p, _)| p.contains(key));
        longest.max_by_key(|(p, _)| p.bits).map(|(_, at)| {
            let ports = &contacts.all[*at];
            let at = ports.partition_point(|(from, _)| *from <= port);
            ports[at - 1].1[transport].clone()
        })
    }

    /// What is said of an IPv4 address of somebody else.
    fn said_at(contacts: &Contacts, address: SocketAddr, transport: usize) -> Option<Said> {
        let key = Prefix::new(Some(IpNet::from(address.ip())));
        said_of(contacts, key, address.port(), transport)
    }

    #[test]
    fn the_tables_say_what_the_evaluator_says() {
        let set = set(
            "- { id: a, deny: connect, to: ['10.0.0.0/8:80-90', '10.1.0.0/16'] }\n\
             - { id: b, allow: connect, to: ['10.1.2.0/24:443', '[2001:db8::]/32:1-79', '::/0:7'], protocol: tcp }\n\
             - { id: c, allow: [connect, send], to: ['10.1.2.3:80'], priority: 5 }\n\
             - { id: d, deny: send, to: [any:53, '::/0', '127.0.0.1'], protocol: udp }\n\
             - { id: e, deny: bind, at: ['127.0.0.1:80', '::1:81', '[::1]:82'] }\n\
             - { id: f, allow: [bind, listen], at: ['0.0.0.0/0', 'any:1024-65535'] }\n\
             - { id: g, allow: accept, at: ['::/0'] }\n",
        );
        let contacts = contacts(&set);
        let ranked = set.ranked_network();
        let ports = [
            0, 1, 7, 52, 53, 79, 80, 81, 82, 90, 91, 443, 1023, 1024, 65535,
        ];
        let addresses = [
            "0.0.0.0",
            "10.0.0.1",
            "10.1.0.1",
            "10.1.2.3",
            "10.1.2.4",
            "11.0.0.1",
            "127.0.0.1",
            "::",
            "::1",
            "2001:db8::5",
            "2001:db9::5",
            "255.255.255.255",
        ];
        let mut refused = 0;
        for address in addresses {
            for port in ports {
                let address = SocketAddr::new(address.parse().unwrap(), port);
                for (n, transport) in TRANSPORTS.into_iter().enumerate() {
                    for kind in Access::NETWORK.kinds() {
                        let contact = Contact::new(address, transport, kind);
                        let decision = evaluate_contact(&set, &contact);
                        let id = decision.rule.map(|r| r.id.as_str());
                        let found = refusal(&contacts, address, n, kind);
                        let found = found.map(|n| ranked[n as usize].id.as_str());
                        assert_eq!(found, id, "{address} {transport:?} {kind}");
                        refused += u32::from(found.is_some());
                    }
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn what_is_said_of_a_host_stands_beside_what_is_said_of_its_address() {
        let set = set(
            "- { id: a, deny: connect, to: ['10.0.0.0/8', 'host:bad.example:80-90'] }\n\
             - { id: b, allow: [connect, send], to: ['host:good.example:443', 'host:bad.example:443'], protocol: tcp }\n\
             - { id: c, deny: connect, to: ['host:good.example'], priority: -1 }\n",
        );
        let contacts = contacts(&set);
        let ranked = set.ranked_network();
        assert_eq!(contacts.addresses, 5);
        let mut refused = 0;
        for name in ["bad.example", "good.example"] {
            let name = HostName::parse(name).unwrap();
            let (_, at) = contacts
                .hosts
                .iter()
                .find(|(host, _)| *host == name)
                .unwrap();
            for (address, port) in ["10.0.0.1", "192.0.2.1"]
                .into_iter()
                .flat_map(|ip| [79, 80, 90, 91, 443].map(|port| (ip, port)))
            {
                let address = SocketAddr::new(address.parse().unwrap(), port);
                for (n, transport) in TRANSPORTS.into_iter().enumerate() {
                    for kind in Access::OUTWARDS.kinds() {
                        let contact = Contact::new(address, transport, kind).known_as(&name);
                        let decision = evaluate_contact(&set, &contact);
                        let ports = &contacts.all[*at];
                        let of_host = &ports[ports.partition_point(|(from, _)| *from <= port) - 1];
                        let said = said_at(&contacts, address, n).unwrap_or(Said::NOTHING);
                        let bit = kind.bits().trailing_zeros() as usize;
                        let found =
                            said.both(&of_host.1[n])
                                .refused_by(&contacts.otherwise, 0, bit);
                        let found = found.filter(|n| *n != RULE_NONE >> 1);
                        let found = found.map(|n| ranked[n as usize].id.as_str());
                        let id = decision.rule.map(|r| r.id.as_str());
                        assert_eq!(found, id, "{name} {address} {transport:?} {kind}");
                        refused += u32::from(found.is_some());
                    }
                }
            }
        }
        assert!(refused > 50, "{refused}");
    }

    #[test]
    fn what_is_said_alike_is_there_once() {
        let set = set("- { id: a, deny: connect, to: ['10.0.0.1', '10.0.0.2', '10.0.0.3'] }\n");
        let contacts = contacts(&set);
        // The three, and IPv4 around them, about which nothing is said.
        assert_eq!((contacts.prefix_count(), contacts.range_count()), (4, 2));
        assert_eq!(contacts.kinds, Access::CONNECT);
    }
}
