//! Reads what the kernel half counts: what is new since the last look, by process and object.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::error::Result;
use crate::event::{Event, Kind, Process};
use crate::kernel::{Attached, Loader};
use crate::wire::{Header, TaskKey, bytes_of, process_of, read};

/// A monitor's counters.
pub(crate) trait Summary: fmt::Debug + Send {
    /// Called once, when everything is attached and the scope is filled in.
    fn start(&mut self, _: &Loader, _: &[Attached]) -> Result<()> {
        Ok(())
    }

    /// Called once, before everything is detached: waits for what is on its way to the counters.
    fn settle(&self, _: &Loader) -> Result<()> {
        Ok(())
    }

    /// Why not everything is known of what was told, in sentences for the end record.
    fn shortcomings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells what has been counted since the last call.
    fn flush(&mut self, flush: &Flush<'_>, tell: &mut dyn FnMut(Event)) -> Result<()>;
}

/// One look at the counters.
#[derive(Debug)]
pub(crate) struct Flush<'a> {
    pub(crate) loader: &'a Loader,
    /// The processes that had counters before anybody asked who runs.
    pub(crate) known: &'a [Vec<u8>],
    /// The processes that ran just before: what others have counted will not change any more.
    pub(crate) alive: &'a HashSet<TaskKey>,
    pub(crate) time_ns: u64,
    /// Since the last look.
    pub(crate) window_ns: u64,
    /// Nothing is attached any more, and nobody will look again.
    pub(crate) is_last: bool,
}

impl Flush<'_> {
    /// An event about a process that has counters.
    pub(crate) fn event(&self, task: TaskKey, kind: Kind) -> Result<Event> {
        Ok(Event::new(self.time_ns, self.who(task)?, kind))
    }

    /// Forgets the processes that had ended before the counters were read.
    pub(crate) fn forget_ended(&self) -> Result<()> {
        let has_ended =
            |key: &Vec<u8>| read::<TaskKey>(key).is_some_and(|task| !self.alive.contains(&task));
        let ended: Vec<Vec<u8>> = self
            .known
            .iter()
            .filter(|k| has_ended(k))
            .cloned()
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        self.loader.map("stk_who")?.remove(&ended)
    }

    fn who(&self, task: TaskKey) -> Result<Process> {
        let found = self.loader.map("stk_who")?.get(bytes_of(&task))?;
        Ok(match found.as_deref().and_then(read::<Header>) {
            Some(header) => process_of(&header),
            // The map of processes is full: the id is known all the same.
            None => Process::own(crate::event::ProcessId::new(
                task.start_ns,
                u32::try_from(task.tgid).unwrap_or(0),
            )),
        })
    }
}

/// The counters of one map, whose keys begin with a [`TaskKey`] and whose values are 64-bit counters that only grow.
#[derive(Debug)]
pub(crate) struct Tally {
    map: &'static str,
    before: HashMap<Vec<u8>, Vec<u64>>,
}

impl Tally {
    pub(crate) fn new(map: &'static str) -> Self {
        Tally {
            map,
            before: HashMap::new(),
        }
    }

    /// What is new since the last call, in the order of the keys. Entries of processes that have ended are removed.
    pub(crate) fn news<K, V>(&mut self, flush: &Flush<'_>) -> Result<Vec<(K, V)>>
    where
        K: plain::Plain + Copy,
        V: plain::Plain + Copy,
    {
        let map = flush.loader.map(self.map)?;
        let mut news = Vec::new();
        let mut gone = Vec::new();
        for (key, value) in map.entries()? {
            let now = words(&value);
            let ended = read::<TaskKey>(&key).is_none_or(|task| !flush.alive.contains(&task));
            let before = if ended {
                gone.push(key.clone());
                self.before.remove(&key)
            } else {
                self.before.insert(key.clone(), now.clone())
            };
            let since = difference(&now, before.as_deref());
            if since.iter().all(|n| *n == 0) {
                continue;
            }
            let bytes: Vec<u8> = since.iter().flat_map(|n| n.to_ne_bytes()).collect();
            if let (Some(key), Some(value)) = (read(&key), read(&bytes)) {
                news.push((key, value));
            }
        }
        map.remove(&gone)?;
        Ok(news)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .filter_map(|w| Some(u64::from_ne_bytes(*w.first_chunk()?)))
        .collect()
}

fn difference(now: &[u64], before: Option<&[u64]>) -> Vec<u64> {
    let before = before.unwrap_or_default();
    now.iter()
        .enumerate()
        .map(|(i, n)| n.wrapping_sub(before.get(i).copied().unwrap_or(0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        assert_eq!(difference(&[5, 7], None), [5, 7]);
        assert_eq!(difference(&[5, 7], Some(&[5, 3])), [0, 4]);
    }
}
