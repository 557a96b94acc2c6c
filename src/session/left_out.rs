//! Tells what the kernel half left out on purpose.

use std::collections::{BTreeMap, HashMap};

use crate::delivery::Delivery;
use crate::enrich::Processes;
use crate::error::Result;
use crate::event::{Event, Kind, KindCount, Process, ProcessId, Sampled, Suppressed};
use crate::kernel::{Asker, Loader, Losses};
use crate::wire::{Rate, TaskKey, kind, loss, process_of, read};

/// So many processes can have a limit at once; who comes when they are all there has none.
pub(super) const PROCESSES: u32 = 16_384;

/// What was told so far.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// Events that a process may send in a second; 0: no limit.
    limit: u32,
    /// Delivered, by kind.
    kept: BTreeMap<&'static str, u64>,
    /// Suppressed, by process.
    suppressed: HashMap<TaskKey, u64>,
}

impl LeftOut {
    pub(super) fn new(limit: u32) -> Self {
        LeftOut {
            limit,
            kept: BTreeMap::new(),
            suppressed: HashMap::new(),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Tells of one kind how much of it was left out since the last time.
    pub(super) fn tell_sampled(
        &mut self,
        (kind, cause): (u32, u32),
        left_out: u64,
        at: (u64, u64),
        delivery: &mut Delivery<Processes>,
        on: &mut dyn FnMut(&Event),
    ) {
        let (time_ns, window_ns) = at;
        let of = kind_name(kind);
        let seen = match kind::TOLD_AS.iter().find(|(record, _)| *record == of) {
            Some((_, events)) => delivery.seen(events),
            None => delivery.seen(&[of]),
        };
        let kept = seen - self.kept.insert(of, seen).unwrap_or(0);
        let reason = match cause {
            loss::SAMPLED => "asked",
            loss::LIMITED => "limit",
            _ => "ring",
        };
        let sampled = Sampled {
            of: of.into(),
            reason: reason.into(),
            kept,
            left_out,
            window_ns,
        };
        let session = Process::own(ProcessId::new(0, std::process::id()));
        delivery.remark(&Event::new(time_ns, session, Kind::Sampled(sampled)), on);
    }

    /// Tells of each process how much of it was suppressed since the last time, and lets go of those that have ended.
    pub(super) fn tell_suppressed(
        &mut self,
        loader: &Loader,
        asker: &Asker,
        at: (u64, u64),
        delivery: &mut Delivery<Processes>,
        on: &mut dyn FnMut(&Event),
    ) -> Result<usize> {
        if self.limit == 0 {
            return Ok(0);
        }
        let (time_ns, window_ns) = at;
        let alive = asker.alive()?;
        let table = loader.map("stk_rates")?;
        let mut ended = Vec::new();
        let mut told = 0;
        for (key, value) in table.entries()? {
            let (Some(task), Some(rate)) = (read::<TaskKey>(&key), read::<Rate>(&value)) else {
                continue;
            };
            let before = if alive.contains(&task) {
                self.suppressed.insert(task, rate.suppressed)
            } else {
                ended.push(key);
                self.suppressed.remove(&task)
            };
            let count = rate.suppressed - before.unwrap_or(0);
            if count > 0 {
                let suppressed = Suppressed {
                    count,
                    limit: self.limit,
                    window_ns,
                };
                let event =
                    Event::new(time_ns, process_of(&rate.hdr), Kind::Suppressed(suppressed));
                delivery.tell(event, on);
                told += 1;
            }
        }
        table.remove(&ended)?;
        Ok(told)
    }
}

/// Enters into the counts by kind what was left out of each.
pub(super) fn enter(losses: &Losses, kinds: &mut Vec<KindCount>) {
    for ((kind, cause, _), count) in losses {
        if !is_left_out(*cause) {
            continue;
        }
        let name = kind_name(*kind);
        let at = kinds
            .iter()
            .position(|k| k.kind == name)
            .unwrap_or_else(|| {
                kinds.push(KindCount::new(name, 0, 0));
                kinds.len() - 1
            });
        if *cause == loss::LIMITED {
            kinds[at].suppressed += count;
        } else {
            kinds[at].sampled += count;
        }
    }
    kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
}

/// Whether a cause is a decision and no accident.
pub(super) fn is_left_out(cause: u32) -> bool {
    matches!(cause, loss::SAMPLED | loss::THINNED | loss::LIMITED)
}

pub(super) fn kind_name(kind: u32) -> &'static str {
    kind::NAMES.get(kind as usize).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_stands_with_its_kind() {
        const RING: u32 = 0;
        let losses = Losses::from([
            ((kind::OPEN, loss::SAMPLED, 0), 3),
            ((kind::OPEN, loss::THINNED, 1), 4),
            ((kind::OPEN, RING, 1), 100),
            ((kind::DISK, loss::LIMITED, 0), 5),
        ]);
        let mut kinds = vec![KindCount::new("exec", 1, 0), KindCount::new("open", 9, 2)];
        enter(&losses, &mut kinds);
        let told: Vec<_> = kinds
            .iter()
            .map(|k| (k.kind.as_str(), k.seen, k.sampled, k.suppressed))
            .collect();
        assert_eq!(
            told,
            [("disk", 0, 0, 5), ("exec", 1, 0, 0), ("open", 9, 7, 0)]
        );
    }
}
