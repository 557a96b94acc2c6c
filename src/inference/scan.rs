//! Port scans: a process that tries many addresses and ports where nobody answers.
//!
//! Counted are distinct pairs of address and port that refused, or did not answer, in a window of time. Whoever talks to
//! one dead server again and again has one pair.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::Lost;
use crate::event::{Connect, Event, PortScan, ProcessId};

/// Processes that have failed lately.
const PROCESSES: usize = 1024;
/// Pairs that are remembered of a process at most.
const MAX_TARGETS: u32 = 256;
/// Pairs that an alert names.
const EXAMPLES: usize = 8;

/// include/uapi/asm-generic/errno.h
const EHOSTUNREACH: u16 = 113;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;
const ECANCELED: u16 = 125;

#[derive(Debug)]
struct Failed {
    time_ns: u64,
    target: SocketAddr,
    refused: bool,
}

#[derive(Debug, Default)]
struct Suspect {
    /// Distinct ones, in the order of time; never more than make a scan.
    failed: VecDeque<Failed>,
    /// One alert a window is enough.
    quiet_until_ns: u64,
    last_ns: u64,
}

#[derive(Debug)]
pub(super) struct Scans {
    /// So many pairs are a scan; 0: none ever is.
    targets: usize,
    window_ns: u64,
    suspects: HashMap<ProcessId, Suspect>,
}

impl Scans {
    pub(super) fn new(targets: u32, window_ns: u64) -> Self {
        Scans {
            targets: usize::try_from(targets.min(MAX_TARGETS)).unwrap_or(usize::MAX),
            window_ns,
            suspects: HashMap::new(),
        }
    }

    /// The alert, when this connect makes it one.
    pub(super) fn connect(
        &mut self,
        event: &Event,
        connect: &Connect,
        lost: &mut Lost,
    ) -> Option<PortScan> {
        let refused = match connect.errno {
            ECONNREFUSED => true,
            ETIMEDOUT | EHOSTUNREACH | ECANCELED => false,
            _ => return None,
        };
        if self.targets == 0 {
            return None;
        }
        let (now, target) = (event.time_ns, connect.flow.remote);
        if self.suspects.len() >= PROCESSES && !self.suspects.contains_key(&event.process.id) {
            self.forget(now, lost);
        }
        let suspect = self.suspects.entry(event.process.id).or_default();
        suspect.last_ns = now;
        let window_ns = self.window_ns;
        let old = |f: &Failed| now.saturating_sub(f.time_ns) > window_ns;
        while suspect.failed.front().is_some_and(old) {
            suspect.failed.pop_front();
        }
        if now < suspect.quiet_until_ns || suspect.failed.iter().any(|f| f.target == target) {
            return None;
        }
        suspect.failed.push_back(Failed {
            time_ns: now,
            target,
            refused,
        });
        if suspect.failed.len() < self.targets {
            return None;
        }
        suspect.quiet_until_ns = now.saturating_add(window_ns);
        let failed = std::mem::take(&mut suspect.failed);
        let refused = failed.iter().filter(|f| f.refused).count();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(PortScan {
            refused: number(refused),
            unanswered: number(failed.len() - refused),
            examples: failed.iter().take(EXAMPLES).map(|f| f.target).collect(),
            // A damaged recording has times in any order.
            window_ns: now.saturating_sub(failed.front().map_or(now, |f| f.time_ns)),
        })
    }

    /// Makes room: first those whose window is over, else the one that has been silent longest.
    fn forget(&mut self, now: u64, lost: &mut Lost) {
        let window_ns = self.window_ns;
        self.suspects
            .retain(|_, s| now.saturating_sub(s.last_ns) <= window_ns);
        if self.suspects.len() < PROCESSES {
            return;
        }
        let silent = self.suspects.iter().min_by_key(|(id, s)| (s.last_ns, **id));
        if let Some(id) = silent.map(|(id, _)| *id) {
            self.suspects.remove(&id);
            *lost.entry(("port_scan", "map")).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Flow, Kind, Process, Transport};

    const SECOND: u64 = 1_000_000_000;

    fn connect(scans: &mut Scans, pid: u32, at_ns: u64, port: u16, errno: u16) -> Option<PortScan> {
        counted(scans, &mut Lost::new(), pid, at_ns, port, errno)
    }

    fn counted(
        scans: &mut Scans,
        lost: &mut Lost,
        pid: u32,
        at_ns: u64,
        port: u16,
        errno: u16,
    ) -> Option<PortScan> {
        let connect = Connect {
            flow: Flow {
                transport: Transport::Tcp,
                local: ([127, 0, 0, 1], 9).into(),
                remote: ([127, 0, 0, 1], port).into(),
                incoming: false,
                mapped: false,
            },
            errno,
            duration_ns: 1,
        };
        let process = Process::own(ProcessId::new(1, pid));
        let event = Event::new(at_ns, process, Kind::Connect(connect.clone()));
        scans.connect(&event, &connect, lost)
    }

    #[test]
    fn so_many_pairs_in_a_window_are_a_scan() {
        let mut scans = Scans::new(10, 60 * SECOND);
        for port in 1..10 {
            let errno = if port % 3 == 0 {
                ETIMEDOUT
            } else {
                ECONNREFUSED
            };
            // Again and again at the same one, and where somebody answers, is none.
            for errno in [errno, errno, 0, 13] {
                assert_eq!(
                    connect(&mut scans, 1, u64::from(port) * SECOND, port, errno),
                    None
                );
            }
            assert_eq!(connect(&mut scans, 2, SECOND, 1, ECONNREFUSED), None);
        }
        let scan = connect(&mut scans, 1, 10 * SECOND, 10, ECANCELED).unwrap();
        assert_eq!((scan.refused, scan.unanswered), (6, 4));
        assert_eq!(scan.window_ns, 9 * SECOND);
        assert_eq!(scan.examples.len(), EXAMPLES);
        assert_eq!(scan.examples[0].to_string(), "127.0.0.1:1");
    }

    #[test]
    fn one_alert_a_window_is_told() {
        let mut scans = Scans::new(5, 60 * SECOND);
        let mut alerts = Vec::new();
        for n in 0..1800u16 {
            let at = u64::from(n) * SECOND / 10;
            if connect(&mut scans, 1, at, n, ECONNREFUSED).is_some() {
                alerts.push(at / SECOND);
            }
        }
        assert_eq!(alerts, [0, 60, 121]);
    }

    #[test]
    fn who_is_slow_is_not_told_and_nobody_is_when_it_is_off() {
        let mut scans = Scans::new(5, 60 * SECOND);
        let mut off = Scans::new(0, 60 * SECOND);
        for n in 0..100u16 {
            let at = u64::from(n) * 16 * SECOND;
            assert_eq!(connect(&mut scans, 1, at, n, ECONNREFUSED), None);
            assert_eq!(connect(&mut off, 1, 0, n, ECONNREFUSED), None);
        }
        assert!(off.suspects.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut scans, mut lost) = (Scans::new(3, 60 * SECOND), Lost::new());
        for pid in 0..5000 {
            for port in [1, 2] {
                let at = u64::from(pid);
                counted(&mut scans, &mut lost, pid, at, port, ECONNREFUSED);
            }
        }
        assert_eq!(scans.suspects.len(), PROCESSES);
        assert_eq!(lost[&("port_scan", "map")], 5000 - PROCESSES as u64);
        assert!(!scans.suspects.contains_key(&ProcessId::new(1, 0)));
        assert!(connect(&mut scans, 4999, 5000, 3, ECONNREFUSED).is_some());
        connect(&mut scans, 6000, 100 * SECOND, 1, ECONNREFUSED);
        assert_eq!(scans.suspects.len(), 1);
        // More targets than can be remembered.
        let mut scans = Scans::new(u32::MAX, 60 * SECOND);
        let told: Vec<u16> = (0..1000)
            .filter(|port| connect(&mut scans, 1, 1, *port, ECONNREFUSED).is_some())
            .collect();
        assert_eq!(told, [255]);
    }
}
