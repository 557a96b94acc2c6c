//! Which events there are, who tells them, and in which records they come.

use serde::{Deserialize, Serialize};

use super::{Form, Monitor, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{KINDS, Kind};
use crate::wire::kind;

use Form::{Events, OffCpu, Summary};

/// A kind of event, and the record that it comes in; none where it is counted.
type Told = (&'static str, Option<&'static str>);

/// Who tells which, in which forms.
const SOURCES: &[(Monitor, &[Form], &[Told])] = &[
    (
        Monitor::Process,
        &[Events],
        &[
            ("exec", Some("exec")),
            ("fork", Some("fork")),
            ("exit", Some("exit")),
        ],
    ),
    (
        Monitor::File,
        &[Events],
        &[
            ("open", Some("open")),
            ("create", Some("create")),
            ("unlink", Some("unlink")),
            ("rename", Some("rename")),
            ("link", Some("link")),
            ("symlink", Some("symlink")),
            ("mkdir", Some("mkdir")),
            ("rmdir", Some("rmdir")),
            ("mknod", Some("mknod")),
            ("chmod", Some("setattr")),
            ("chown", Some("setattr")),
            ("utimes", Some("setattr")),
            ("truncate", Some("setattr")),
            ("setxattr", Some("xattr")),
            ("removexattr", Some("xattr")),
            ("mount", Some("mount")),
            ("umount", Some("mount")),
        ],
    ),
    (Monitor::File, &[Summary], &[("file_summary", None)]),
    (
        Monitor::Network,
        &[Events],
        &[
            ("connect", Some("connect")),
            ("accept", Some("accept")),
            ("close", Some("close")),
            ("bind", Some("bind")),
            ("listen", Some("listen")),
            ("retransmit", Some("retransmit")),
            ("unix_connect", Some("unix_connect")),
            ("dns_query", Some("dns")),
            ("dns_answer", Some("dns")),
            ("tls", Some("tls")),
            ("raw_socket", Some("raw_socket")),
            // Concluded from those that were refused or not answered.
            ("port_scan", Some("connect")),
        ],
    ),
    (
        Monitor::Network,
        &[Events, Summary],
        &[("network_summary", None)],
    ),
    (Monitor::Syscall, &[Events], &[("syscall", Some("syscall"))]),
    (Monitor::Syscall, &[Summary], &[("syscall_summary", None)]),
    (Monitor::Memory, &[Events], &[("memory", Some("memory"))]),
    (Monitor::Memory, &[Summary], &[("memory_summary", None)]),
    (Monitor::Memory, &[Summary, Events], &[("oom", Some("oom"))]),
    (Monitor::Disk, &[Events], &[("disk", Some("disk"))]),
    (Monitor::Disk, &[Summary], &[("disk_summary", None)]),
    (Monitor::Profile, &[Summary, OffCpu], &[("profile", None)]),
];

/// Kinds of events that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<&'static str>")]
pub(crate) struct Kinds(Vec<&'static str>);

impl Kinds {
    /// Adds one by its name.
    pub(crate) fn add(&mut self, name: &str) -> Result<()> {
        let told = |known: &&&'static str| **known == name && Watch::telling(name).is_some();
        let known = KINDS.iter().find(told).ok_or_else(|| {
            let all = SOURCES.iter().flat_map(|(_, _, events)| *events);
            let all: Vec<&str> = all.map(|(event, _)| *event).collect();
            Error::new(
                ErrorKind::Usage,
                format!("there is no monitor for events of the kind \"{name}\""),
            )
            .with_hint(format!("the kinds are {}", all.join(", ")))
        })?;
        if !self.0.contains(known) {
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

    /// The records in which they come, a bit for each of `enum stk_kind`; 0 when all are wanted. Those of processes are
    /// always among them: the others take the names of programs from them.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn records(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let all = SOURCES.iter().flat_map(|(_, _, events)| *events);
        let wanted = all.filter(|(event, _)| self.0.contains(event));
        let numbers = wanted.filter_map(|(_, record)| {
            let name = (*record)?;
            kind::NAMES.iter().position(|known| *known == name)
        });
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
        let tells = |events: &[(&str, _)]| events.iter().any(|(event, _)| *event == kind);
        let (monitor, forms, _) = SOURCES.iter().find(|(_, _, events)| tells(events))?;
        monitor.form(*forms.first()?).ok()
    }

    /// Whether it has events of this kind.
    #[must_use]
    pub fn tells(self, kind: &str) -> bool {
        SOURCES.iter().any(|(monitor, forms, events)| {
            *monitor == self.monitor()
                && forms.contains(&self.form())
                && events.iter().any(|(event, _)| *event == kind)
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
        // A record that is named here exists.
        for (_, _, events) in SOURCES {
            for (event, record) in *events {
                let known = |name| kind::NAMES.contains(&name);
                assert!(record.is_none_or(known), "{event}");
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
