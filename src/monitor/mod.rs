//! The monitors: one file each, named like its `.bpf.c`, and the one list that registers them.

#[cfg(stockade_kernel)]
mod allocation;
#[cfg(stockade_kernel)]
mod disk;
#[cfg(stockade_kernel)]
mod file;
mod filter;
mod kinds;
#[cfg(stockade_kernel)]
mod memory;
#[cfg(stockade_kernel)]
mod network;
mod paths;
#[cfg(stockade_kernel)]
mod process;
#[cfg(stockade_kernel)]
mod profile;
#[cfg(stockade_kernel)]
mod summary;
#[cfg(stockade_kernel)]
mod syscall;

use std::fmt;
use std::str::FromStr;

#[cfg(stockade_kernel)]
pub(crate) use allocation::TRIED as ALLOCATIONS;
pub use filter::Filter;
pub(crate) use kinds::Kinds;
pub(crate) use paths::Paths;
#[cfg(stockade_kernel)]
pub(crate) use process::TRACK;
#[cfg(stockade_kernel)]
pub(crate) use profile::map_sizes as profile_sizes;
#[cfg(stockade_kernel)]
pub(crate) use summary::{Flush, Summary};

use crate::error::{Error, ErrorKind, Result};
#[cfg(stockade_kernel)]
use crate::kernel::{Loader, Object, Probe};

/// How a monitor reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Each thing that happens, by itself.
    Events,
    /// What was counted in the kernel by process and object, from time to time.
    Summary,
    /// The same, of the time that threads were off the CPU instead of on it.
    OffCpu,
}

impl Form {
    const ALL: [Form; 3] = [Form::Events, Form::Summary, Form::OffCpu];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Form::Events => "events",
            Form::Summary => "summary",
            Form::OffCpu => "off-cpu",
        }
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Form::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("there is no form \"{name}\"")).with_hint(
                    "a monitor reports as events or as summary, and a profile can be off-cpu",
                )
            })
    }
}

/// What a monitor needs from the kernel half in one form.
#[cfg(stockade_kernel)]
pub(crate) struct Parts {
    pub(crate) object: Object,
    pub(crate) probes: &'static [Probe],
    /// Those of the probes, by name, that are there for some kinds of events alone, and for which.
    only_for: &'static [(&'static str, &'static [&'static str])],
    /// Writes what the programs are to choose by, once they are loaded.
    pub(crate) fill: fn(&Loader, &Filter) -> Result<()>,
    /// Reads the counters, for a summary.
    pub(crate) summary: Option<Box<dyn Summary>>,
}

#[cfg(stockade_kernel)]
impl Parts {
    /// Single events that are chosen by nothing but scope and kind.
    fn events(object: Object, probes: &'static [Probe]) -> Self {
        Parts {
            object,
            probes,
            only_for: &[],
            fill: |_, _| Ok(()),
            summary: None,
        }
    }

    /// The probes that it takes to see events of these kinds: a program that nobody needs is not attached.
    pub(crate) fn probes_for(&self, kinds: &Kinds) -> Vec<&'static Probe> {
        let is_needed = |probe: &&Probe| {
            let mut only_for = self.only_for.iter();
            only_for
                .find(|(name, _)| *name == probe.name)
                .is_none_or(|(_, events)| kinds.want_one_of(events))
        };
        self.probes.iter().filter(is_needed).collect()
    }
}

/// Registers the monitors: name on the command line, variant, module, forms with the usual one first, whether it is on
/// when nobody chooses; what it is about, which events it has, where it sees them. The command line, the doctor and the
/// README's table (`tests/docs.rs` compares it) read this list.
macro_rules! monitors {
    ($($name:literal => $variant:ident, $module:ident, [$($form:ident),+], $usual:literal:
        $what:literal, $events:literal, $through:literal;)+) => {
        /// A source of events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Monitor {
            $(#[doc = $what] $variant,)+
        }

        impl Monitor {
            /// All of them.
            pub const ALL: &'static [Monitor] = &[$(Monitor::$variant),+];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Monitor::$variant => $name,)+ }
            }

            /// What it reports, in one sentence.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Monitor::$variant => $what,)+ }
            }

            /// Its events with what they hold, in Markdown.
            #[must_use]
            pub fn events(self) -> &'static str {
                match self { $(Monitor::$variant => $events,)+ }
            }

            /// Where in the kernel it sees them, in Markdown.
            #[must_use]
            pub fn through(self) -> &'static str {
                match self { $(Monitor::$variant => $through,)+ }
            }

            /// The forms it can report in, the usual one first.
            #[must_use]
            pub fn forms(self) -> &'static [Form] {
                match self { $(Monitor::$variant => &[$(Form::$form),+],)+ }
            }

            /// Whether it is part of what is watched when nobody chooses: little noise and little cost.
            #[must_use]
            pub fn is_usual(self) -> bool {
                match self { $(Monitor::$variant => $usual,)+ }
            }

            #[cfg(stockade_kernel)]
            pub(crate) fn parts(self, form: Form) -> Parts {
                match self { $(Monitor::$variant => $module::parts(form),)+ }
            }
        }
    };
}

monitors! {
    "process" => Process, process, [Events, Summary], true:
        "Processes that start programs, are created and end; or their CPU time and how long they waited for a CPU.",
        "`exec` with all arguments up to 32 KiB, terminal, login and the rights that it brought; `fork`; `exit` with \
         code or signal, CPU time and memory; `process_summary`: CPU time, waits for a CPU and switches by process",
        "the scheduler's tracepoints; for the summary the kernel's own counters, read at each interval and when a \
         thread is gone";
    "file" => File, file, [Events, Summary], true:
        "Files that are opened, created, removed, renamed and changed, and mounts, with the result; or what is read and \
         written, counted.",
        "`open`, `create`, `unlink`, `rename`, `link`, `symlink`, `mkdir`, `rmdir`, `mknod`, `chmod`, \
         `chown`, `utimes`, `truncate`, `setxattr`, `removexattr` (lists of access rights too), `mount`, \
         `umount`, each with its result and the file's identity; `file_summary`: opens, reads and writes with \
         bytes, failures and histograms of their time, by process and file",
        "the kernel functions that do the work; where those cannot be traced, the system calls";
    "network" => Network, network, [Events, Summary], false:
        "TCP connections with their bytes, DNS, names of TLS servers, sockets that are bound and listen, UDP by peer.",
        "`connect`, `accept` and `close` of TCP with the bytes each way, `bind`, `listen`, `retransmit`, \
         `unix_connect`; `dns_query` and `dns_answer` with names, addresses and latency; `tls` with the \
         server's name; `raw_socket`; `port_scan`; `tcp_state`, where it is named; `network_summary`: bytes \
         and packets by process and peer, for UDP or, as summary, for all",
        "changes of state of TCP sockets, and the kernel functions behind the calls, with what they moved; \
         where those cannot be traced, the system calls";
    "syscall" => Syscall, syscall, [Summary, Events], false:
        "System calls: counts, errors and time by process and call; or single calls with their arguments.",
        "`syscall_summary`: calls, errors and time by process and call; `syscall`: single calls with their \
         arguments, those that `--syscalls` names",
        "both ends of every system call";
    "memory" => Memory, memory, [Summary, Events], false:
        "Memory: faults, mappings and sizes by process, or single mappings; and who is killed when it is short.",
        "`memory_summary`: page faults, `mmap`, `munmap` and `brk` with bytes and failures, resident, swapped \
         and virtual size by process; `memory`: single changes; always `oom`; with `--allocations` what the kernel \
         allocates for a process (`memory_allocations`) and where it is not given back (`memory_outstanding`)",
        "the kernel's own counters, read at each interval and at the end of a process; the three system calls; \
         the tracepoints of the kernel's allocators";
    "disk" => Disk, disk, [Summary, Events], false:
        "Requests to block devices: counts, bytes, errors and latencies by process and device; or single requests.",
        "`disk_summary`: requests, bytes, errors and histograms of the time in the queue and in the device, \
         by process, device and operation; `disk`: single requests with sector, flags and result",
        "where a request is made, issued and completed";
    "profile" => Profile, profile, [Summary, OffCpu], false:
        "Where processes spend their time: samples of the stacks that run, or the time that threads are off the CPU.",
        "`profile`: samples by process and stack, of the program and the kernel, with functions and source \
         lines; as `off-cpu` how long threads were waiting instead, and where",
        "a clock on each CPU; where the scheduler switches";
}

impl Monitor {
    /// The same monitor in another form than its usual one.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): it does not report in this form.
    pub fn form(self, form: Form) -> Result<Watch> {
        if self.forms().contains(&form) {
            return Ok(Watch {
                monitor: self,
                form,
                optional: false,
            });
        }
        let names: Vec<&str> = self.forms().iter().map(|f| f.name()).collect();
        Err(Error::new(
            ErrorKind::Usage,
            format!("the {self} monitor does not report as {}", form.name()),
        )
        .with_hint(format!("it reports as {}", names.join(" or "))))
    }
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Monitor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Monitor::ALL
            .iter()
            .copied()
            .find(|m| m.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Monitor::ALL.iter().map(|m| m.name()).collect();
                Error::new(ErrorKind::Usage, format!("there is no monitor \"{name}\""))
                    .with_hint(format!("the monitors are {}", names.join(", ")))
            })
    }
}

/// A monitor and the form it is to report in; a [`Monitor`] alone stands for its usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Watch {
    monitor: Monitor,
    form: Form,
    optional: bool,
}

impl Watch {
    /// The same where this kernel can do it: where it cannot, the session starts without it, and its end record says so.
    /// Otherwise a monitor that cannot be attached at all is an error.
    #[must_use]
    pub fn if_possible(mut self) -> Self {
        self.optional = true;
        self
    }

    /// What it needs from the kernel half, with what was asked for besides.
    #[cfg(stockade_kernel)]
    pub(crate) fn parts(self, filter: &Filter) -> Vec<Parts> {
        let mut all = vec![self.monitor.parts(self.form)];
        if filter.allocations && self.tells("memory_allocations") {
            all.push(allocation::parts());
        }
        all
    }

    #[cfg(stockade_kernel)]
    pub(crate) fn is_optional(self) -> bool {
        self.optional
    }

    /// Which monitor.
    #[must_use]
    pub fn monitor(self) -> Monitor {
        self.monitor
    }

    /// In which form.
    #[must_use]
    pub fn form(self) -> Form {
        self.form
    }
}

impl From<Monitor> for Watch {
    fn from(monitor: Monitor) -> Self {
        Watch {
            monitor,
            // Every monitor has one: the list's pattern wants it.
            form: monitor.forms()[0],
            optional: false,
        }
    }
}

/// `NAME`, or `NAME=FORM` where that is not the usual one.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.monitor.name())?;
        if self.form != self.monitor.forms()[0] {
            write!(f, "={}", self.form.name())?;
        }
        Ok(())
    }
}

/// `NAME` or `NAME=FORM`.
impl FromStr for Watch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, form)) => name.parse::<Monitor>()?.form(form.parse()?),
            None => Ok(text.parse::<Monitor>()?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_is_a_monitor_in_a_form_it_has() {
        let watch: Watch = "syscall".parse().unwrap();
        assert_eq!(
            (watch.monitor(), watch.form()),
            (Monitor::Syscall, Form::Summary)
        );
        let watch: Watch = "syscall=events".parse().unwrap();
        assert_eq!(watch.form(), Form::Events);
        for (text, message) in [
            ("nothing", "there is no monitor \"nothing\""),
            ("syscall=often", "there is no form \"often\""),
            (
                "profile=events",
                "the profile monitor does not report as events",
            ),
        ] {
            let error = text.parse::<Watch>().unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().is_some(), "{text}");
        }
    }

    /// Whatever kind is named, somebody sees it, and nobody who is there for others alone.
    #[cfg(stockade_kernel)]
    #[test]
    fn probes_are_those_that_a_kind_takes() {
        let watches = Monitor::ALL
            .iter()
            .flat_map(|m| m.forms().iter().map(|form| m.form(*form).unwrap()));
        for watch in watches {
            let parts = watch.monitor().parts(watch.form());
            for (probe, events) in parts.only_for {
                assert!(parts.probes.iter().any(|p| p.name == *probe), "{probe}");
                assert!(events.iter().all(|e| watch.tells(e)), "{probe}: {events:?}");
            }
            for event in kinds::told().filter(|event| watch.tells(event)) {
                let mut named = Kinds::default();
                named.add(event).unwrap();
                let seen_by = parts.probes_for(&named);
                assert!(!seen_by.is_empty(), "{watch}: {event}");
                assert!(parts.only_for.is_empty() || seen_by.len() < parts.probes.len());
            }
        }
    }
}
