//! What each process did, as numbers.

use std::collections::HashMap;

use crate::event::{Event, Kind, Process, ProcessId};

/// So many processes are kept; what has ended gives way first.
const PROCESSES: usize = 65_536;

/// What one process did, as far as it was delivered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProcessCounters {
    /// Who it is, as of its last event.
    pub process: Process,
    /// Everything together.
    pub events: u64,
    /// System calls: single ones, and those that summaries count.
    pub syscalls: u64,
    /// Operations on files: single ones, and those that summaries count.
    pub files: u64,
    /// Operations on sockets; not what summaries count.
    pub network: u64,
    /// What the fence refused it, or would have.
    pub denials: u64,
    /// It has ended.
    pub ended: bool,
}

/// All processes that did something.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<ProcessId, ProcessCounters>);

impl Counters {
    pub(super) fn iter(&self) -> impl Iterator<Item = &ProcessCounters> {
        self.0.values()
    }

    pub(super) fn count(&mut self, event: &Event) {
        if event.kind.is_remark() {
            return;
        }
        let id = event.process.id;
        if !self.0.contains_key(&id) {
            if self.0.len() == PROCESSES {
                self.0.retain(|_, counters| !counters.ended);
            }
            if self.0.len() == PROCESSES {
                return;
            }
        }
        let counters = self.0.entry(id).or_insert_with(|| ProcessCounters {
            process: event.process.clone(),
            events: 0,
            syscalls: 0,
            files: 0,
            network: 0,
            denials: 0,
            ended: false,
        });
        if counters.process != event.process {
            counters.process.clone_from(&event.process);
        }
        counters.events += 1;
        match &event.kind {
            Kind::Open(_)
            | Kind::Create(_)
            | Kind::Unlink(_)
            | Kind::Rename(_)
            | Kind::Change(_)
            | Kind::Mount(_)
            | Kind::Umount(_) => counters.files += 1,
            Kind::FileSummary(e) => counters.files += e.opens + e.read.count + e.written.count,
            Kind::Syscall(_) => counters.syscalls += 1,
            Kind::SyscallSummary(e) => counters.syscalls += e.calls,
            Kind::Connect(_)
            | Kind::Accept(_)
            | Kind::Close(_)
            | Kind::Bind(_)
            | Kind::Listen(_)
            | Kind::UnixConnect(_)
            | Kind::RawSocket(_)
            | Kind::DnsQuery(_)
            | Kind::DnsAnswer(_)
            | Kind::Tls(_) => counters.network += 1,
            Kind::Denial(_) => counters.denials += 1,
            Kind::Exit(_) => counters.ended = true,
            Kind::Exec(_)
            | Kind::Fork(_)
            | Kind::TcpState(_)
            | Kind::Retransmit(_)
            | Kind::PortScan(_)
            | Kind::NetworkSummary(_)
            | Kind::Memory(_)
            | Kind::MemorySummary(_)
            | Kind::ProcessSummary(_)
            | Kind::MemoryAllocations(_)
            | Kind::MemoryOutstanding(_)
            | Kind::Oom(_)
            | Kind::Disk(_)
            | Kind::DiskSummary(_)
            | Kind::Loss(_)
            | Kind::Sampled(_)
            | Kind::Profile(_)
            | Kind::Suppressed(_)
            | Kind::Reload(_)
            | Kind::Gap(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn each_process_has_its_own_numbers() {
        let events = sample::samples();
        let mut counters = Counters::default();
        events.iter().for_each(|event| counters.count(event));
        for found in counters.iter() {
            let own: Vec<&Event> = events
                .iter()
                .filter(|e| e.process.id == found.process.id && !e.kind.is_remark())
                .collect();
            let of = |names: &[&str]| {
                own.iter()
                    .filter(|e| names.contains(&e.kind.name()))
                    .count() as u64
            };
            assert_eq!(found.events, own.len() as u64);
            assert!(found.files >= of(&["open", "unlink", "rename", "chmod", "mount"]));
            assert_eq!(found.denials, of(&["denial"]));
            assert_eq!(found.ended, of(&["exit"]) > 0);
        }
        assert!(counters.iter().any(|c| c.syscalls > 1 && c.network > 0));
        let events_of_processes = events.iter().filter(|e| !e.kind.is_remark()).count() as u64;
        assert_eq!(
            counters.iter().map(|c| c.events).sum::<u64>(),
            events_of_processes
        );
    }

    #[test]
    fn those_that_have_ended_give_way() {
        let exit = sample::samples()
            .into_iter()
            .find(|e| e.kind.name() == "exit")
            .unwrap();
        let mut counters = Counters::default();
        let mut event = exit.clone();
        for n in 0..PROCESSES as u64 + 1 {
            event.process.id = ProcessId::new(n, 1);
            counters.count(&event);
        }
        assert_eq!(counters.0.len(), 1);
    }
}
