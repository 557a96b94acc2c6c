//! Hosts that the rules of a session are about, and what is known of them.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Effect, HostName, Mode, NetworkRule, RuleSet, place};
use crate::resolver::{Failed, Resolved, Resolver};

/// Asks for them as long as it lives.
#[derive(Debug)]
pub(super) struct Hosts {
    resolver: Resolver,
    /// Those that never had an address so far, and why.
    unknown: BTreeMap<HostName, Failed>,
}

impl Hosts {
    /// Asks for the hosts of a policy, and waits for the first answers; nothing where it names none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotEnforced`]: nobody can say which addresses a host has that is to be denied.
    pub(super) fn of(rules: &RuleSet) -> Result<(Option<Self>, Vec<Resolved>)> {
        let named = || {
            let rules = rules.network.iter();
            rules.flat_map(|rule| {
                let hosts = rule.addresses.iter().filter_map(|a| a.selector.host());
                hosts.map(move |host| (rule, host))
            })
        };
        let mut names: Vec<HostName> = named().map(|(_, host)| host.clone()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok((None, Vec::new()));
        }
        let (resolver, found) = Resolver::start(names);
        let mut unknown = BTreeMap::new();
        for resolved in &found {
            let Some(why) = &resolved.failed else {
                continue;
            };
            let denies = |(rule, host): &(&NetworkRule, &HostName)| {
                let enforced = rule.effect == Effect::Deny && rule.mode == Mode::Enforce;
                enforced && **host == resolved.name
            };
            if let (Failed::Unknown(why), Some((rule, host))) = (why, named().find(denies)) {
                return Err(Error::new(
                    ErrorKind::NotEnforced,
                    format!(
                        "the {} denies host:{host}, and nobody can say which addresses that has: {why}",
                        place(rule)
                    ),
                )
                .with_hint("see that its name can be resolved here, or deny its addresses"));
            }
            unknown.insert(resolved.name.clone(), why.clone());
        }
        Ok((Some(Hosts { resolver, unknown }), found))
    }

    /// What was found out since.
    pub(super) fn next(&mut self) -> Option<Resolved> {
        let resolved = self.resolver.next()?;
        match &resolved.failed {
            None => {
                self.unknown.remove(&resolved.name);
            }
            Some(why) => {
                if let Some(known) = self.unknown.get_mut(&resolved.name) {
                    known.clone_from(why);
                }
            }
        }
        Some(resolved)
    }

    /// Why rules about them did not apply.
    pub(super) fn shortcomings(&self) -> impl Iterator<Item = String> {
        self.unknown.iter().map(|(name, why)| {
            let why = match why {
                Failed::Absent => "there is no such host, or it has no address",
                Failed::Unknown(why) => why,
            };
            format!("host:{name} has never been resolved: {why}")
        })
    }
}
