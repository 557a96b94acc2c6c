//! Hosts that rules are about: the numbers that the kernel half knows them by, and the addresses that they have.
//!
//! Addresses come from two sides: we ask for them, and the kernel half reads the answers that programs get to their own
//! questions, before they get them. It alone enters them, ours as well: see `stk_host_known`.

use std::net::IpAddr;
use std::sync::Arc;

use super::hooks;
use super::pins::Former;
use super::tables::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{Attached, Loader, boot_ns};
use crate::policy::HostName;
use crate::resolver::{self, Resolved};
use crate::wire::{
    HOST_NAME, HOSTS_MAX, HostAbout, HostLabels, HostTold, HostUntil, NAMESERVERS_MAX, NetRuling,
    answer_s, bytes_of, read,
};

const ABOUT: &str = "stk_host_about";
const NAMES: &str = "stk_host_names";
const KNOWN: &str = "stk_host_known";
/// What was not said again for so long makes room: connections that stand so long after their name was last asked for
/// are refused to send.
const KEPT_S: u32 = 24 * 60 * 60;

/// Every host that a policy of this fence has named, by number: addresses that are known stay so when another policy takes
/// the place of this one.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: Vec<HostName>,
}

impl Hosts {
    /// # Errors
    ///
    /// [`ErrorKind::Policy`]: there are more than the kernel half has numbers for.
    pub(super) fn have_room<'a>(&self, names: impl Iterator<Item = &'a HostName>) -> Result<()> {
        let more = names.filter(|name| !self.known.contains(name)).count();
        let all = self.known.len() + more;
        if all <= HOSTS_MAX {
            return Ok(());
        }
        let so_far = match self.known.len() {
            0 => String::new(),
            n => format!(", of which {n} were so before"),
        };
        Err(Error::new(
            ErrorKind::Policy,
            format!("{all} hosts are named{so_far}, and one fence knows {HOSTS_MAX} of them"),
        )
        .with_hint("name fewer, or arm it anew where other policies have named them"))
    }

    /// How many have numbers.
    pub(super) fn count(&self) -> u32 {
        super::count(self.known.len())
    }

    /// Their names, by number.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.known.iter().map(HostName::shared).collect()
    }

    /// Enters what is said about hosts, in one half.
    pub(super) fn fill(
        &mut self,
        hosts: &[(&HostName, NetRuling)],
        turn: Turn,
        loader: &Loader,
    ) -> Result<()> {
        if hosts.is_empty() {
            return Ok(());
        }
        self.have_room(hosts.iter().map(|(name, _)| *name))?;
        let mut rules = Vec::new();
        let mut new = Vec::new();
        for (name, ruling) in hosts {
            let at = self.number(name).unwrap_or_else(|| {
                let next = self.count();
                self.known.push((*name).clone());
                new.push((labels(name), next));
                next
            });
            rules.push((turn.first_host(super::count(HOSTS_MAX)) + at, *ruling));
        }
        loader
            .map("stk_host_rules")?
            .set_all(&rules, "the rules of a host")?;
        loader.map(NAMES)?.set_all(&new, "the name of a host")
    }

    fn number(&self, name: &HostName) -> Option<u32> {
        self.known
            .iter()
            .position(|other| other == name)
            .map(super::count)
    }

    /// Enters which addresses hosts have, as we were told, by one of these programs, and whose answers are believed from now
    /// on. What a host had before it has until that has expired.
    pub(super) fn learn<'a>(
        &self,
        found: &[Resolved],
        programs: impl Iterator<Item = &'a Attached>,
        loader: &Loader,
    ) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        trust(loader)?;
        forget(loader)?;
        let told = told(programs)?;
        found
            .iter()
            .try_for_each(|resolved| self.enter(resolved, told))
    }

    fn enter(&self, resolved: &Resolved, told: &Attached) -> Result<()> {
        let Some(host) = self.number(&resolved.name) else {
            return Ok(());
        };
        let lasts = resolved
            .lasts_s
            .clamp(answer_s::LEAST, answer_s::MOST)
            .saturating_add(answer_s::GRACE);
        let until = now_s().saturating_add(lasts);
        for ip in &resolved.addresses {
            let ip = octets(*ip);
            told.call(bytes_of(&HostTold { ip, host, until }))?;
        }
        Ok(())
    }

    /// Adds the addresses that a fence knows of hosts that are also ours: connections that it has allowed go on.
    pub(super) fn take_over<'a>(
        &self,
        former: &Former,
        programs: impl Iterator<Item = &'a Attached>,
    ) -> Result<()> {
        let (Some(names), Some(known)) = (former.map(NAMES)?, former.map(KNOWN)?) else {
            return Ok(());
        };
        // Of another version nothing is known: it is asked for anew.
        let (_, _, value) = known.shape();
        if value as usize != size_of::<HostUntil>() {
            return Ok(());
        }
        let told = told(programs)?;
        let mut numbers = Vec::new();
        for (name, number) in names.entries()? {
            let is_it = |ours: &HostName| bytes_of(&labels(ours)) == name;
            let ours = self.known.iter().position(is_it).map(super::count);
            let theirs = read::<u32>(&number).and_then(|number| usize::try_from(number).ok());
            numbers.extend(theirs.filter(|theirs| *theirs < HOSTS_MAX).zip(ours));
        }
        for (ip, until) in known.entries()? {
            let (Ok(ip), Some(known)) = (ip.try_into(), read::<HostUntil>(&until)) else {
                continue;
            };
            for &(theirs, host) in &numbers {
                let until = known.until[theirs];
                if until > 0 {
                    told.call(bytes_of(&HostTold { ip, host, until }))?;
                }
            }
        }
        Ok(())
    }
}

/// The program that enters an address.
fn told<'a>(mut programs: impl Iterator<Item = &'a Attached>) -> Result<&'a Attached> {
    let told = programs.find(|program| program.name() == hooks::TOLD);
    told.ok_or_else(|| {
        Error::new(
            ErrorKind::Load,
            "the program that enters addresses of hosts is not loaded; this is a defect",
        )
    })
}

/// How many addresses found no room.
pub(super) fn lost(loader: &Loader) -> Result<u64> {
    let about = loader.map(ABOUT)?.get(&0u32.to_ne_bytes())?;
    let about = about.as_deref().and_then(read::<HostAbout>);
    Ok(about.map_or(0, |about| about.lost))
}

/// Says from whom answers are believed that programs get: the nameservers of this machine, in this network namespace. Who
/// has another one for himself could be anybody there.
fn trust(loader: &Loader) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self/ns/net");
    let netns = own.map_or(0, |ns| u32::try_from(ns.ino()).unwrap_or(0));
    let table = loader.map(ABOUT)?;
    let zero = 0u32.to_ne_bytes();
    let before = table.get(&zero)?;
    let before = before.as_deref().and_then(read::<HostAbout>);
    let mut about = HostAbout {
        netns,
        nameservers: 0,
        lost: before.map_or(0, |before| before.lost),
        nameserver: [[0; 16]; NAMESERVERS_MAX],
    };
    let servers = resolver::nameservers();
    for (place, ip) in about.nameserver.iter_mut().zip(&servers) {
        *place = octets(*ip);
        about.nameservers += 1;
    }
    let same = before.is_some_and(|before| bytes_of(&before) == bytes_of(&about));
    match same {
        true => Ok(()),
        false => table.set(&zero, bytes_of(&about), "the nameservers"),
    }
}

/// Makes room: forgets addresses that no host has had for long.
fn forget(loader: &Loader) -> Result<()> {
    let now = now_s();
    let table = loader.map(KNOWN)?;
    let is_old = |(_, value): &(Vec<u8>, Vec<u8>)| {
        let last = read::<HostUntil>(value).and_then(|known| known.until.into_iter().max());
        last.is_some_and(|last| last.saturating_add(KEPT_S) < now)
    };
    let old: Vec<_> = table
        .entries()?
        .into_iter()
        .filter(is_old)
        .map(|(key, _)| key)
        .collect();
    match old.is_empty() {
        true => Ok(()),
        false => table.remove(&old),
    }
}

/// IPv4 as IPv6 has it.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn now_s() -> u32 {
    u32::try_from(boot_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

/// A name as it stands in messages: RFC 1035 section 3.1.
fn labels(name: &HostName) -> HostLabels {
    let mut key = HostLabels {
        labels: [0; HOST_NAME],
    };
    let mut at = 0;
    for label in name.as_str().split('.') {
        key.labels[at] = u8::try_from(label.len()).unwrap_or(0);
        key.labels[at + 1..=at + label.len()].copy_from_slice(label.as_bytes());
        at += 1 + label.len();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_labels() {
        let key = labels(&HostName::parse("www.Example.org").unwrap());
        assert_eq!(key.labels[..18], *b"\x03www\x07example\x03org\0\0");
        // The longest one.
        let longest = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ]
        .join(".");
        let key = labels(&HostName::parse(&longest).unwrap());
        assert_eq!(key.labels[252..], [b'd', b'd', 0, 0]);
    }

    #[test]
    fn one_fence_knows_so_many() {
        let name = |n: usize| HostName::parse(&format!("h{n}.example")).unwrap();
        let mut hosts = Hosts::default();
        let all: Vec<HostName> = (0..HOSTS_MAX).map(name).collect();
        assert!(hosts.have_room(all.iter()).is_ok());
        hosts.known = all;
        assert!(hosts.have_room([&name(3)].into_iter()).is_ok());
        let error = hosts
            .have_room([&name(3), &name(9999)].into_iter())
            .unwrap_err();
        assert!(error.to_string().contains("129 hosts"), "{error}");
    }
}
