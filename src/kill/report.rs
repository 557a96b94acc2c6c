//! What became of those that were to be killed.

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::event::names;

/// By what SIGKILL came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Means {
    /// `pidfd_send_signal(2)`.
    Signal,
    /// The `cgroup.kill` file of its cgroup (Linux 5.14 and later).
    CgroupKill,
}

/// How it ended, or why it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Would be killed: nothing has been done.
    Planned,
    /// It ended between SIGTERM and SIGKILL.
    Exited,
    /// It ended after SIGKILL.
    Killed(Means),
    /// It had ended before a signal that ends processes was sent to it.
    Gone,
    /// It is still there: the kernel refuses to signal it, with this errno.
    Refused(u16),
    /// It is still there some time after SIGKILL: it hangs in the kernel.
    StillThere,
    /// It is still there: the kill was cancelled before SIGKILL.
    Spared,
}

impl Outcome {
    /// As it is written in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Planned => "planned",
            Outcome::Exited => "exited",
            Outcome::Killed(_) => "killed",
            Outcome::Gone => "gone",
            Outcome::Refused(_) => "refused",
            Outcome::StillThere => "still_there",
            Outcome::Spared => "spared",
        }
    }

    /// Whether it is no more.
    #[must_use]
    pub fn is_gone(self) -> bool {
        matches!(self, Outcome::Exited | Outcome::Killed(_) | Outcome::Gone)
    }
}

/// One process that was to be killed.
///
/// [`Display`](fmt::Display) is one line for people; serialized it is a JSON object with the fields of docs/KILL.md.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fate {
    /// In the caller's pid namespace.
    pub pid: u32,
    /// The name of its main thread when it was found, escaped.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// From the first signal that could end it to its end; `None` where there was no such signal or no end.
    pub took: Option<Duration>,
}

/// What became of all that were to be killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    fates: Vec<Fate>,
}

impl Report {
    // Elsewhere nobody is killed.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(super) fn new(fates: Vec<Fate>) -> Self {
        Report { fates }
    }

    /// One for each process that was found, in the order in which they were.
    #[must_use]
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Whether nobody is left.
    #[must_use]
    pub fn all_gone(&self) -> bool {
        self.fates.iter().all(|f| f.outcome.is_gone())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Planned => f.write_str("would be killed"),
            Outcome::Exited => f.write_str("exited on SIGTERM"),
            Outcome::Killed(Means::Signal) => f.write_str("killed"),
            Outcome::Killed(Means::CgroupKill) => f.write_str("killed by cgroup.kill"),
            Outcome::Gone => f.write_str("gone before"),
            Outcome::Refused(errno) => match names::errno(*errno) {
                Some(name) => write!(f, "could not be signalled: {name}"),
                None => write!(f, "could not be signalled: errno {errno}"),
            },
            Outcome::StillThere => f.write_str("still there after SIGKILL"),
            Outcome::Spared => f.write_str("still there: cancelled"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}{:<16}{}", self.pid, self.name, self.outcome)?;
        match self.took {
            Some(took) => write!(f, " after {:.1} ms", took.as_secs_f64() * 1e3),
            None => Ok(()),
        }
    }
}

impl Serialize for Fate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &1)?;
        map.serialize_entry("event.action", "kill")?;
        if self.outcome != Outcome::Planned {
            let outcome = if self.outcome.is_gone() {
                "success"
            } else {
                "failure"
            };
            map.serialize_entry("event.outcome", outcome)?;
        }
        map.serialize_entry("process.pid", &self.pid)?;
        map.serialize_entry("process.name", &self.name)?;
        map.serialize_entry("stockade.kill.outcome", self.outcome.name())?;
        match self.outcome {
            Outcome::Killed(Means::Signal) => map.serialize_entry("stockade.kill.by", "signal")?,
            Outcome::Killed(Means::CgroupKill) => {
                map.serialize_entry("stockade.kill.by", "cgroup.kill")?;
            }
            Outcome::Refused(errno) => match names::errno(errno) {
                Some(name) => map.serialize_entry("error.code", name)?,
                None => map.serialize_entry("error.code", &errno.to_string())?,
            },
            _ => {}
        }
        if let Some(took) = self.took {
            let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            map.serialize_entry("event.duration", &ns)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(outcome: Outcome, took: Option<Duration>) -> Fate {
        Fate {
            pid: 4711,
            name: "make".to_owned(),
            outcome,
            took,
        }
    }

    #[test]
    fn a_fate_is_one_line_for_people_and_one_object_for_programs() {
        let took = Some(Duration::from_micros(3140));
        for (fate, line, object) in [
            (
                fate(Outcome::Killed(Means::CgroupKill), took),
                "4711    make            killed by cgroup.kill after 3.1 ms",
                r#"{"v":1,"event.action":"kill","event.outcome":"success","process.pid":4711,"process.name":"make","stockade.kill.outcome":"killed","stockade.kill.by":"cgroup.kill","event.duration":3140000}"#,
            ),
            (
                fate(Outcome::Refused(1), None),
                "4711    make            could not be signalled: EPERM",
                r#"{"v":1,"event.action":"kill","event.outcome":"failure","process.pid":4711,"process.name":"make","stockade.kill.outcome":"refused","error.code":"EPERM"}"#,
            ),
            (
                fate(Outcome::Planned, None),
                "4711    make            would be killed",
                r#"{"v":1,"event.action":"kill","process.pid":4711,"process.name":"make","stockade.kill.outcome":"planned"}"#,
            ),
        ] {
            assert_eq!(fate.to_string(), line);
            assert_eq!(serde_json::to_string(&fate).unwrap(), object);
        }
    }

    #[test]
    fn all_are_gone_when_none_is_left() {
        let gone = [
            Outcome::Exited,
            Outcome::Killed(Means::Signal),
            Outcome::Gone,
        ];
        let fates = |outcomes: &[Outcome]| {
            Report::new(outcomes.iter().map(|o| fate(*o, None)).collect()).all_gone()
        };
        assert!(fates(&gone));
        for left in [
            Outcome::Refused(1),
            Outcome::StillThere,
            Outcome::Spared,
            Outcome::Planned,
        ] {
            assert!(!fates(&[Outcome::Killed(Means::Signal), left]), "{left}");
        }
    }
}
