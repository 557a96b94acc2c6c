//! From records to the caller's events.

use std::sync::Arc;

use crate::event::mechanism::{SECCOMP, TRACEPOINT};
use crate::event::{About, Ancestor, Denied, Event, Kind, KindCount, Process};
use crate::inference::{Inference, Lost};
use crate::monitor::{Kinds, Paths};
use crate::recording::{Opening, Recorder, Rules};
use crate::wire::{Decoder, Malformed, payload};

/// What the records do not say, and only the machine that they come from knows.
pub(crate) trait Surroundings {
    /// Learns from an event, and says what is known of its process.
    fn about(&mut self, event: &Event) -> Option<Arc<About>>;

    /// From whom a process descends, its parent first.
    fn ancestors(&mut self, process: &Process) -> Arc<[Ancestor]>;

    /// The host's path for a path on a file system of this device (major, minor).
    fn host_path(&mut self, device: (u32, u32), path: &str) -> Option<String>;
}

/// From records to the caller's events.
#[derive(Debug)]
pub(crate) struct Delivery<S> {
    decoder: Decoder,
    pub(crate) surroundings: S,
    inference: Inference,
    /// What followed from the record at hand.
    inferred: Vec<Event>,
    /// Whether somebody asked for forks and execs, which are followed in any case.
    tell_processes: bool,
    kinds_wanted: Kinds,
    paths_wanted: Paths,
    /// Of two policies, while one takes the place of the other.
    rules: Vec<Rules>,
    /// The hosts that rules are or were about, by number.
    hosts: Vec<Arc<str>>,
    /// What refuses what hooks are asked about, and what refuses system calls.
    mechanisms: [Arc<str>; 3],
    pub(crate) recorder: Option<Recorder>,
    pub(crate) events: u64,
    /// Seen and truncated, by kind, in the order of their first event.
    kinds: Vec<(&'static str, u64, u64)>,
    pub(crate) denials: u64,
    /// Records that could not be decoded: short, long, unknown.
    pub(crate) malformed: [u64; 3],
}

impl<S: Surroundings> Delivery<S> {
    /// `opening` says what holds for all of it, recorded or not.
    pub(crate) fn new(surroundings: S, opening: &Opening) -> Self {
        Delivery {
            decoder: Decoder::new(opening.page_bytes, opening.namespaces),
            surroundings,
            inference: Inference::new(&opening.inference),
            inferred: Vec::new(),
            tell_processes: opening.tell_processes,
            kinds_wanted: opening.kinds.clone(),
            paths_wanted: opening.paths.clone(),
            rules: vec![Rules {
                first: 0,
                names: opening.rules.clone(),
                lines: opening.lines.clone(),
                hosts: Vec::new(),
            }],
            hosts: opening.hosts.clone(),
            mechanisms: [
                Arc::clone(&opening.mechanism),
                SECCOMP.into(),
                TRACEPOINT.into(),
            ],
            recorder: None,
            events: 0,
            kinds: Vec::new(),
            denials: 0,
            malformed: [0; 3],
        }
    }

    /// From now on this is the policy whose rules have these numbers.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        if let Some(recorder) = &mut self.recorder {
            recorder.rules(&rules);
        }
        // The numbers of hosts are never given to others.
        self.hosts.clone_from(&rules.hosts);
        self.rules.retain(|other| other.first != rules.first);
        self.rules.push(rules);
    }

    /// A record that came through a ring.
    pub(crate) fn deliver(&mut self, record: &[u8], on: &mut dyn FnMut(&Event)) {
        let event = match self.read(record) {
            Ok(event) => event,
            Err(malformed) => {
                let which = match malformed {
                    Malformed::Short => 0,
                    Malformed::Long => 1,
                    Malformed::Unknown => 2,
                };
                self.malformed[which] += 1;
                None
            }
        };
        self.complete_inferred(event.as_ref());
        if let Some(recorder) = &mut self.recorder {
            recorder.record(record);
        }
        if let Some(event) = event {
            let asked = self.tell_processes || !matches!(event.kind, Kind::Exec(_) | Kind::Fork(_));
            if asked && self.wants(&event.kind) {
                self.count(&event);
                on(&event);
            }
            self.decoder.recycle(event);
        }
        for event in std::mem::take(&mut self.inferred) {
            if self.wants(&event.kind) {
                self.count(&event);
                on(&event);
            }
        }
    }

    fn wants(&self, kind: &Kind) -> bool {
        self.kinds_wanted.wants(kind) && self.paths_wanted.wants(kind)
    }

    /// The event of a record, unless it takes several to make one; what follows from it is in `inferred`.
    fn read(&mut self, record: &[u8]) -> Result<Option<Event>, Malformed> {
        let inferred = &mut self.inferred;
        if let Some(payload) = payload(record) {
            self.inference
                .payload(payload?, &mut |event| inferred.push(event));
            return Ok(None);
        }
        let mut event = self.decoder.decode(record)?;
        self.inference
            .event(&event, &mut |event| inferred.push(event));
        event.process.about = self.surroundings.about(&event);
        let found = self.complete(&mut event);
        if let Some(recorder) = &mut self.recorder {
            recorder.context(&event, found.as_deref());
        }
        Ok(Some(event))
    }

    /// Adds what is known of the processes to what follows from a record. A recording notes that before the record and
    /// has no more of it: a replay concludes it anew. So of a process one thing is known for all of them.
    fn complete_inferred(&mut self, event: Option<&Event>) {
        if self.inferred.is_empty() {
            return;
        }
        let mut known = event.map(|e| e.process.clone());
        for event in &mut self.inferred {
            event.process.about = match &known {
                Some(process) if process.id == event.process.id => process.about.clone(),
                _ => self.surroundings.about(event),
            };
            if let Some(recorder) = &mut self.recorder {
                recorder.context(event, None);
            }
            known = Some(event.process.clone());
        }
    }

    /// What was lost in reading what was said, since the start.
    pub(crate) fn lost(&self) -> &Lost {
        self.inference.lost()
    }

    /// An event that did not come through the rings.
    pub(crate) fn tell(&mut self, mut event: Event, on: &mut dyn FnMut(&Event)) {
        if !self.wants(&event.kind) {
            return;
        }
        event.process.about = self.surroundings.about(&event);
        self.count(&event);
        self.pass(&event, true, on);
    }

    /// The same of what is about the session itself: the end record has its own numbers of that.
    pub(crate) fn remark(&mut self, event: &Event, on: &mut dyn FnMut(&Event)) {
        self.pass(event, false, on);
    }

    fn pass(&mut self, event: &Event, counted: bool, on: &mut dyn FnMut(&Event)) {
        if let Some(recorder) = &mut self.recorder {
            recorder.context(event, None);
            recorder.event(event, counted);
        }
        on(event);
    }

    fn count(&mut self, event: &Event) {
        self.events += 1;
        self.denials += u64::from(matches!(event.kind, Kind::Denial(_)));
        let name = event.kind.name();
        // A few, and one of them most of the time: its name is at one place, which is sooner compared than a text.
        let same = |known: &str| std::ptr::eq(known, name) || known == name;
        let at = self.kinds.iter().position(|(known, ..)| same(known));
        let at = at.unwrap_or_else(|| {
            self.kinds.push((name, 0, 0));
            self.kinds.len() - 1
        });
        let (_, seen, truncated) = &mut self.kinds[at];
        *seen += 1;
        *truncated += u64::from(event.is_truncated());
    }

    /// How many events of these kinds were delivered.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn seen(&self, kinds: &[&str]) -> u64 {
        self.kinds
            .iter()
            .filter(|(kind, ..)| kinds.contains(kind))
            .map(|(_, seen, _)| seen)
            .sum()
    }

    /// What was delivered, by kind.
    pub(crate) fn kinds(&self) -> Vec<KindCount> {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        kinds
            .iter()
            .map(|(kind, seen, truncated)| KindCount::new(*kind, *seen, *truncated))
            .collect()
    }

    /// Adds to a denial what the kernel half cannot know: the rule's name, and the host's path where the hook knew no
    /// mount, which is returned.
    fn complete(&mut self, event: &mut Event) -> Option<String> {
        let Kind::Denial(denial) = &mut event.kind else {
            return None;
        };
        let named = self.rules.iter().find_map(|rules| {
            let number = denial.rule.checked_sub(rules.first)?;
            let at = usize::try_from(number).ok()?;
            Some((number, rules.names.get(at)?, rules.lines.get(at)))
        });
        if let Some((number, id, line)) = named {
            denial.rule = number;
            denial.rule_id.clone_from(id);
            denial.rule_line = line.copied().unwrap_or(0);
        }
        let host = usize::try_from(denial.host_number)
            .ok()
            .and_then(|n| n.checked_sub(1));
        denial.host = host.and_then(|at| self.hosts.get(at)).map(Arc::clone);
        let by = match denial.object {
            Denied::Syscall { .. } => 1,
            Denied::Limit { call: Some(_), .. } => 2,
            _ => 0,
        };
        // Some records say themselves.
        if denial.mechanism.is_empty() {
            denial.mechanism = Arc::clone(&self.mechanisms[by]);
        }
        denial.ancestors = self.surroundings.ancestors(&event.process);
        let Denied::File {
            path,
            path_in_fs,
            file,
        } = &mut denial.object
        else {
            return None;
        };
        if !*path_in_fs {
            return None;
        }
        let device = (file.major(), file.minor());
        let host_path = self.surroundings.host_path(device, &path.path)?;
        path.path.clone_from(&host_path);
        *path_in_fs = false;
        Some(host_path)
    }
}

#[cfg(all(test, stockade_kernel))]
mod tests {
    use super::*;
    use crate::allocations;
    use crate::enrich::Processes;
    use crate::event::sample;
    use crate::inference::Settings;
    use crate::sink::Sink;
    use crate::wire::{kind, sample as records};

    fn delivery(tell_processes: bool) -> Delivery<Processes> {
        let opening = Opening {
            kernel: String::new(),
            arch: String::new(),
            page_bytes: 4096,
            // Those of the samples: as nearly all processes of a machine share them.
            namespaces: [0, 1, 2, 3, 4, 5, 1, u32::MAX],
            tell_processes,
            kinds: Kinds::default(),
            paths: Paths::default(),
            rules: Vec::new(),
            lines: Vec::new(),
            hosts: Vec::new(),
            mechanism: Arc::default(),
            inference: Settings::default(),
        };
        Delivery::new(Processes::new(), &opening)
    }

    /// A host is named by its number, which is the same whatever policy the rule is of.
    #[test]
    fn a_denial_has_the_name_of_the_host() {
        let mut delivery = delivery(true);
        delivery.set_rules(Rules {
            hosts: vec!["a.example".into(), "b.example".into()],
            ..Rules::default()
        });
        let denials = sample::samples()
            .into_iter()
            .filter_map(|event| match event.kind {
                Kind::Denial(_) => Some(event),
                _ => None,
            });
        let mut denial = denials.last().expect("there is one");
        for (number, name) in [(0, None), (2, Some("b.example")), (3, None)] {
            if let Kind::Denial(denial) = &mut denial.kind {
                denial.host_number = number;
            }
            delivery.complete(&mut denial);
            let Kind::Denial(denial) = &denial.kind else {
                panic!("{denial:?}");
            };
            assert_eq!(denial.host.as_deref(), name);
        }
    }

    /// Of every kind one, with paths of several components.
    fn one_of_each() -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for kind in records::KINDS {
            let names = [
                b"cat\0bin\0usr\0".as_slice(),
                b"here\0tmp\0",
                b"cat\0a file\0and \xff another\0",
            ];
            out.push(records::record(kind, 0, names, 1));
        }
        out
    }

    #[test]
    fn a_steady_stream_of_events_allocates_nothing() {
        let mut delivery = delivery(true);
        let (mut sink, clock) = (Sink::json(), sample::clock());
        let (batch, mut out) = (one_of_each(), Vec::new());
        let mut round = || {
            out.clear();
            for record in &batch {
                delivery.deliver(record, &mut |event| sink.write(event, &clock, &mut out));
            }
        };
        // Strings grow to what the longest event needs of each.
        for _ in 0..20 {
            round();
        }
        assert_eq!(allocations::during(|| (0..100).for_each(|_| round())), 0);
    }

    #[test]
    fn what_is_delivered_is_counted() {
        let mut delivery = delivery(true);
        let mut batch = one_of_each();
        batch.push(records::record(kind::EXIT, 0, [b""; 3], 0)[1..].to_vec());
        batch.push(b"short".to_vec());
        let mut seen = Vec::new();
        for record in &batch {
            delivery.deliver(record, &mut |event| seen.push(event.kind.name()));
        }
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
                "unix_connect",
                "create",
                "link",
                "setxattr",
                "mount"
            ]
        );
        assert_eq!((delivery.events, delivery.denials), (12, 1));
        assert_eq!(delivery.malformed.iter().sum::<u64>(), 2);
    }

    #[test]
    fn only_kinds_that_are_wanted_are_delivered_and_counted() {
        let mut delivery = delivery(true);
        delivery.kinds_wanted.add("open").unwrap();
        let mut seen = Vec::new();
        for record in one_of_each() {
            delivery.deliver(&record, &mut |event| seen.push(event.kind.name()));
        }
        assert_eq!(seen, ["open", "denial"]);
        assert_eq!((delivery.events, delivery.denials), (2, 1));
    }

    #[test]
    fn forks_and_execs_that_nobody_asked_for_name_the_executables_of_others() {
        let mut delivery = delivery(false);
        let mut seen = Vec::new();
        for record in one_of_each() {
            delivery.deliver(&record, &mut |event| {
                let about = event.process.about.as_deref();
                let executable = about.and_then(|a| a.executable.as_deref());
                seen.push((event.kind.name(), executable.map(str::to_owned)));
            });
        }
        assert_eq!(seen.len(), 10, "{seen:?}");
        for (kind, executable) in seen {
            assert_eq!(executable.as_deref(), Some("/usr/bin/cat"), "{kind}");
        }
        assert_eq!(delivery.events, 10);
    }
}
