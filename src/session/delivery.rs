//! From records to the caller's events.

use std::collections::{BTreeMap, HashSet};

use super::live::page_bytes;
use crate::enrich::{MANY, Processes, mounts};
use crate::event::{Event, Kind, KindCount, ProcessId};
use crate::fence::is_canary;
use crate::kernel::Records;
use crate::policy::RuleSet;
use crate::wire::{Decoder, Malformed};

/// From records to the caller's events.
#[derive(Debug)]
pub(super) struct Delivery {
    decoder: Decoder,
    processes: Processes,
    /// Whether somebody asked for forks and execs, which are followed in any case.
    tell_processes: bool,
    policy: Option<RuleSet>,
    pub(super) events: u64,
    /// Seen and truncated, by kind.
    kinds: BTreeMap<&'static str, (u64, u64)>,
    pub(super) denials: u64,
    /// Records that could not be decoded: short, long, unknown.
    pub(super) malformed: [u64; 3],
}

impl Delivery {
    pub(super) fn new(policy: Option<RuleSet>, tell_processes: bool) -> Self {
        Delivery {
            decoder: Decoder::new(page_bytes()),
            processes: Processes::new(),
            tell_processes,
            policy,
            events: 0,
            kinds: BTreeMap::new(),
            denials: 0,
            malformed: [0; 3],
        }
    }

    pub(super) fn deliver(&mut self, records: &Records, on: &mut dyn FnMut(&Event)) {
        for record in records.iter().filter(|r| !is_canary(r)) {
            match self.decoder.decode(record) {
                Ok(mut event) => {
                    self.processes.complete(&mut event);
                    if self.tell_processes || !matches!(event.kind, Kind::Exec(_) | Kind::Fork(_)) {
                        self.complete(&mut event);
                        on(&event);
                    }
                    self.decoder.recycle(event);
                }
                Err(Malformed::Short) => self.malformed[0] += 1,
                Err(Malformed::Long) => self.malformed[1] += 1,
                Err(Malformed::Unknown) => self.malformed[2] += 1,
            }
        }
    }

    /// An event that did not come through the rings.
    pub(super) fn tell(&mut self, mut event: Event, on: &mut dyn FnMut(&Event)) {
        self.processes.complete(&mut event);
        self.count(&event);
        on(&event);
    }

    fn count(&mut self, event: &Event) {
        self.events += 1;
        let (seen, truncated) = self.kinds.entry(event.kind.name()).or_default();
        *seen += 1;
        *truncated += u64::from(event.is_truncated());
    }

    /// What was delivered, by kind.
    pub(super) fn kinds(&self) -> Vec<KindCount> {
        self.kinds
            .iter()
            .map(|(kind, (seen, truncated))| KindCount::new(*kind, *seen, *truncated))
            .collect()
    }

    /// Whether so many processes were met that those that have ended should be forgotten.
    pub(super) fn is_crowded(&self) -> bool {
        self.processes.len() > MANY
    }

    /// Forgets the processes that had ended: all but these and what started later.
    pub(super) fn keep(&mut self, alive: &HashSet<ProcessId>, at_ns: u64) {
        self.processes.keep(alive, at_ns);
    }

    /// Counts, and adds what only user space knows: the rule's name, and the host path where the hook knew no mount.
    fn complete(&mut self, event: &mut Event) {
        self.count(event);
        let Kind::Denial(denial) = &mut event.kind else {
            return;
        };
        self.denials += 1;
        let rule = self
            .policy
            .as_ref()
            .zip(usize::try_from(denial.rule).ok())
            .and_then(|(p, n)| p.rules.get(n));
        if let Some(rule) = rule {
            denial.rule_id.clone_from(&rule.id);
        }
        if denial.path_in_fs {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let device = (denial.file.major(), denial.file.minor());
            if let Some(path) = mounts::host_path(&mounts::parse(&table), device, &denial.path.path)
            {
                denial.path.path = path;
                denial.path_in_fs = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocations;
    use crate::event::sample;
    use crate::sink::Sink;
    use crate::wire::{RULE_CANARY, kind, sample as records};

    /// Of every kind one, with paths of several components.
    fn one_of_each() -> Records {
        let mut out = Records::default();
        for kind in records::KINDS {
            let names = [
                b"cat\0bin\0usr\0".as_slice(),
                b"here\0tmp\0",
                b"cat\0a file\0and \xff another\0",
            ];
            out.push(&records::record(kind, 0, names, 1));
        }
        out
    }

    #[test]
    fn a_steady_stream_of_events_allocates_nothing() {
        let mut delivery = Delivery::new(None, true);
        let (mut sink, clock) = (Sink::json(), sample::clock());
        let (batch, mut out) = (one_of_each(), Vec::new());
        let mut round = || {
            out.clear();
            delivery.deliver(&batch, &mut |event| sink.write(event, &clock, &mut out));
        };
        // Strings grow to what the longest event needs of each.
        for _ in 0..20 {
            round();
        }
        assert_eq!(allocations::during(|| (0..100).for_each(|_| round())), 0);
    }

    #[test]
    fn what_is_delivered_is_counted_and_the_canary_is_not() {
        let mut delivery = Delivery::new(None, true);
        let mut batch = one_of_each();
        batch.push(&records::record(kind::DENIAL, 0, [b""; 3], RULE_CANARY));
        batch.push(&records::record(kind::EXIT, 0, [b""; 3], 0)[1..]);
        batch.push(b"short");
        let mut seen = Vec::new();
        delivery.deliver(&batch, &mut |event| seen.push(event.kind.name()));
        assert_eq!(
            seen,
            [
                "exec",
                "fork",
                "exit",
                "open",
                "unlink",
                "rename",
                "denial",
                "unix_connect"
            ]
        );
        assert_eq!((delivery.events, delivery.denials), (8, 1));
        assert_eq!(delivery.malformed.iter().sum::<u64>(), 2);
    }

    #[test]
    fn forks_and_execs_that_nobody_asked_for_name_the_executables_of_others() {
        let mut delivery = Delivery::new(None, false);
        let mut seen = Vec::new();
        delivery.deliver(&one_of_each(), &mut |event| {
            let about = event.process.about.as_deref();
            let executable = about.and_then(|a| a.executable.as_deref());
            seen.push((event.kind.name(), executable.map(str::to_owned)));
        });
        assert_eq!(seen.len(), 6, "{seen:?}");
        for (kind, executable) in seen {
            assert_eq!(executable.as_deref(), Some("/usr/bin/cat"), "{kind}");
        }
        assert_eq!(delivery.events, 6);
    }
}
