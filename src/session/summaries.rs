//! Tells the counters of the monitors that report in summary.

use std::time::{Duration, Instant};

use crate::delivery::Delivery;
use crate::enrich::Processes;
use crate::error::Result;
use crate::event::Event;
use crate::kernel::{Asker, Drops, Loader, boot_ns};
use crate::monitor::{Flush, Summary};

/// So many new entries in all maps of counters together do not wait for the interval. A quarter of what the smallest of
/// them has room for: what comes until they are looked at needs room too.
const MANY: u64 = 2048;

/// The counters of all monitors that report in summary.
#[derive(Debug)]
pub(super) struct Summaries {
    all: Vec<Box<dyn Summary>>,
    interval: Duration,
    told: Instant,
    /// Entries that the maps had got by then.
    made: u64,
}

impl Summaries {
    pub(super) fn new(all: Vec<Box<dyn Summary>>, interval: Duration) -> Self {
        Summaries {
            all,
            interval,
            told: Instant::now(),
            made: 0,
        }
    }

    /// Whether the interval has passed, or so much was counted that the maps would be full before.
    pub(super) fn is_due(&self, now: Instant, drops: &Drops) -> bool {
        !self.all.is_empty()
            && (now.duration_since(self.told) >= self.interval || drops.made() - self.made >= MANY)
    }

    /// Why not everything is known of what was told.
    pub(super) fn shortcomings(&self) -> impl Iterator<Item = String> {
        self.all.iter().flat_map(|summary| summary.shortcomings())
    }

    /// Waits for what is on its way to the counters, while the programs are still there.
    pub(super) fn settle(&self, loader: &Loader) -> Result<()> {
        self.all
            .iter()
            .try_for_each(|summary| summary.settle(loader))
    }

    /// Tells what is new, and forgets the processes that have ended.
    pub(super) fn tell(
        &mut self,
        loader: &Loader,
        asker: &Asker,
        drops: &Drops,
        delivery: &mut Delivery<Processes>,
        is_last: bool,
        on: &mut dyn FnMut(&Event),
    ) -> Result<usize> {
        if self.all.is_empty() {
            return Ok(0);
        }
        let (now, made) = (Instant::now(), drops.made());
        // Where no monitor has such counters, there is no such map. Before the question: whoever starts counting later
        // is not among those that run, and has not ended.
        let known = loader
            .map("stk_who")
            .map(|map| map.keys())
            .unwrap_or_default();
        let alive = asker.alive()?;
        let flush = Flush {
            loader,
            known: &known,
            alive: &alive,
            time_ns: boot_ns(),
            window_ns: u64::try_from(now.duration_since(self.told).as_nanos()).unwrap_or(u64::MAX),
            is_last,
        };
        let mut told = 0;
        for summary in &mut self.all {
            summary.flush(&flush, &mut |event| {
                told += 1;
                delivery.tell(event, on);
            })?;
        }
        flush.forget_ended()?;
        (self.told, self.made) = (now, made);
        Ok(told)
    }
}
