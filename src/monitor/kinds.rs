//! Which events there are, who tells them, and in which records they come.

use serde::{Deserialize, Serialize};

use super::{Form, Monitor, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Kind;
use crate::wire::kind;

use Form::{Events, OffCpu, Summary};

/// Changes of names, attributes and mounts.
pub(super) const CHANGES: &[&str] = &[
    "link",
    "symlink",
    "mkdir",
    "rmdir",
    "mknod",
    "chmod",
    "chown",
    "utimes",
    "truncate",
    "setxattr",
    "removexattr",
    "mount",
    "umount",
];

/// Who tells which events, in which forms.
const SOURCES: &[(Monitor, &[Form], &[&str])] = &[
    (Monitor::Process, &[Events], &["exec", "fork", "exit"]),
    (Monitor::Process, &[Summary], &["process_summary"]),
    (
        Monitor::File,
        &[Events],
        &["open", "create", "unlink", "rename"],
    ),
    (Monitor::File, &[Events], CHANGES),
    (Monitor::File, &[Summary], &["file_summary"]),
    (
        Monitor::Network,
        &[Events],
        &[
            "connect",
            "accept",
            "close",
            "tcp_state",
            "bind",
            "listen",
            "retransmit",
            "unix_connect",
            "dns_query",
            "dns_answer",
            "tls",
            "raw_socket",
            "port_scan",
        ],
    ),
    (Monitor::Network, &[Events, Summary], &["network_summary"]),
    (Monitor::Syscall, &[Events], &["syscall"]),
    (Monitor::Syscall, &[Summary], &["syscall_summary"]),
    (Monitor::Memory, &[Events], &["memory"]),
    (Monitor::Memory, &[Summary], &["memory_summary"]),
    (
        Monitor::Memory,
        &[Summary],
        &["memory_allocations", "memory_outstanding"],
    ),
    (Monitor::Memory, &[Summary, Events], &["oom"]),
    (Monitor::Disk, &[Events], &["disk"]),
    (Monitor::Disk, &[Summary], &["disk_summary"]),
    (Monitor::Profile, &[Summary, OffCpu], &["profile"]),
];

/// Every kind of event that a monitor tells.
pub(super) fn told() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().flat_map(|(_, _, events)| *events).copied()
}

/// The record that an event comes in, a value of `enum stk_kind`; none where it is counted.
#[cfg_attr(not(stockade_kernel), allow(dead_code))]
fn record_of(event: &str) -> Option<usize> {
    let name = match event {
        // Concluded from those that were refused or not answered.
        "port_scan" => "connect",
        // Counted, and no record of that name.
        "profile" => return None,
        _ => {
            let told_as = |(_, events): &&(_, &[&str])| events.contains(&event);
            kind::TOLD_AS.iter().find(told_as).map_or(event, |t| t.0)
        }
    };
    kind::NAMES.iter().position(|known| *known == name)
}

/// Kinds of events that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<&'static str>")]
pub(crate) struct Kinds(Vec<&'static str>);

impl Kinds {
    /// Adds one by its name.
    pub(crate) fn add(&mut self, name: &str) -> Result<()> {
        let known = told().find(|known| *known == name).ok_or_else(|| {
            let all: Vec<&str> = told().collect();
            Error::new(
                ErrorKind::Usage,
                format!("there is no monitor for events of the kind \"{name}\""),
            )
            .with_hint(format!("the kinds are {}", all.join(", ")))
        })?;
        if !self.0.contains(&known) {
            self.0.push(known);
        }
        Ok(())
    }

    /// Whether this one is wanted: all are where none was named. What tells of the session itself, of what is missing in
    /// it and of the fence is always wanted.
    pub(crate) fn wants(&self, kind: &Kind) -> bool {
        let always = || matches!(kind, Kind::Denial(_) | Kind::Suppressed(_)) || kind.is_remark();
        self.0.is_empty() || self.0.contains(&kind.name()) || always()
    }

    /// Whether this one was named.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(super) fn names(&self, kind: &str) -> bool {
        self.0.contains(&kind)
    }

    /// Whether one of these is wanted.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(super) fn want_one_of(&self, events: &[&str]) -> bool {
        self.0.is_empty() || events.iter().any(|event| self.names(event))
    }

    /// The records in which they come, a bit for each of `enum stk_kind`; 0 when all are wanted. Those of processes are
    /// always among them: the others take the names of programs from them.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn records(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let numbers = self.0.iter().filter_map(|event| record_of(event));
        let processes = [kind::EXEC, kind::FORK, kind::EXIT];
        let bits = processes.iter().fold(0, |bits, kind| bits | 1 << kind);
        numbers.fold(bits, |bits, number| bits | 1 << number)
    }

    /// Refuses a kind that none of these monitors tells.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn check(&self, watches: &[Watch]) -> Result<()> {
        for name in &self.0 {
            if !watches.iter().any(|watch| watch.tells(name)) {
                let teller = Watch::telling(name).map_or_else(String::new, |w| w.to_string());
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("none of the monitors that are on has events of the kind \"{name}\""),
                )
                .with_hint(format!("that one is the monitor {teller}")));
            }
        }
        Ok(())
    }
}

impl TryFrom<Vec<String>> for Kinds {
    type Error = Error;

    fn try_from(names: Vec<String>) -> Result<Self> {
        let mut kinds = Kinds::default();
        names.iter().try_for_each(|name| kinds.add(name))?;
        Ok(kinds)
    }
}

impl From<Kinds> for Vec<&'static str> {
    fn from(kinds: Kinds) -> Self {
        kinds.0
    }
}

impl Watch {
    /// The monitor, in its form, that has events of this kind; `None` when none has. Where several forms have them, it
    /// is the monitor's usual one.
    ///
    /// ```
    /// use stockade::{Form, Monitor, Watch};
    /// let watch = Watch::telling("connect").unwrap();
    /// assert_eq!((watch.monitor(), watch.form()), (Monitor::Network, Form::Events));
    /// ```
    #[must_use]
    pub fn telling(kind: &str) -> Option<Watch> {
        let tells = |(_, _, events): &&(_, _, &[&str])| events.contains(&kind);
        let (monitor, forms, _) = SOURCES.iter().find(tells)?;
        monitor.form(*forms.first()?).ok()
    }

    /// Whether it has events of this kind.
    #[must_use]
    pub fn tells(self, kind: &str) -> bool {
        SOURCES.iter().any(|(monitor, forms, events)| {
            *monitor == self.monitor() && forms.contains(&self.form()) && events.contains(&kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn every_event_has_a_monitor_or_is_about_the_session() {
        for event in sample::samples() {
            let name = event.kind.name();
            let mut others = Kinds::default();
            others
                .add(if name == "exec" { "open" } else { "exec" })
                .unwrap();
            let always = others.wants(&event.kind);
            assert_ne!(Watch::telling(name).is_some(), always, "{name}");
            assert!(Kinds::default().wants(&event.kind));
            let mut own = Kinds::default();
            assert_eq!(own.add(name).is_err(), always, "{name}");
            assert!(own.wants(&event.kind), "{name}");
            if let Some(watch) = Watch::telling(name) {
                assert!(watch.tells(name), "{name}");
                own.check(&[watch]).unwrap();
            }
        }
        let mut unknown = Kinds::default();
        let error = unknown.add("opens").unwrap_err();
        assert!(error.to_string().contains("\"opens\""), "{error}");
    }

    #[test]
    fn kinds_stand_for_the_records_that_they_come_in() {
        let records = |names: &[&str]| {
            let mut kinds = Kinds::default();
            names.iter().for_each(|name| kinds.add(name).unwrap());
            kinds.records()
        };
        let processes = 0b1110;
        assert_eq!(records(&[]), 0);
        assert_eq!(records(&["exec"]), processes);
        assert_eq!(records(&["syscall_summary"]), processes);
        assert_eq!(records(&["port_scan"]), processes | 1 << kind::CONNECT);
        assert_eq!(
            records(&["dns_answer", "open"]),
            processes | 1 << kind::DNS | 1 << kind::OPEN
        );
        // What is told one by one has a record, and what is counted has none.
        for (_, forms, events) in SOURCES {
            for event in *events {
                let one_by_one = forms.contains(&Events) && *event != "network_summary";
                assert_eq!(record_of(event).is_some(), one_by_one, "{event}");
            }
        }
    }

    #[test]
    fn kinds_that_nobody_tells_are_refused() {
        let mut kinds = Kinds::default();
        kinds.add("connect").unwrap();
        let error = kinds.check(&[Monitor::Process.into()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("\"connect\""), "{error}");
        // As summary, it has no connects.
        let summary = Monitor::Network.form(Form::Summary).unwrap();
        assert!(kinds.check(&[summary]).is_err());
        kinds.check(&[Monitor::Network.into()]).unwrap();
    }
}
