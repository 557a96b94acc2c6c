//! The same on Linux.

use std::collections::HashSet;

use super::{ArmedFence, RuleHits};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Clock;
use crate::fence::record::{self, Record};
use crate::fence::{Place, says_armed};
use crate::kernel::{Asker, ForeignMap, KernelBtf, real_time_offset_ns};
use crate::wire::{RuleAction, TaskKey, read};

pub(super) fn fences() -> Result<Vec<ArmedFence>> {
    let alive = Asker::new(&KernelBtf::read()?)?.alive()?;
    let clock = Clock::new(real_time_offset_ns(), "");
    let mut found: Vec<Record> = Vec::new();
    // One that cannot be read has just begun or is of another version, and what it says is nobody's to tell.
    for (record, _) in record::all()?.into_iter().flatten() {
        // While another policy takes its place, a fence has two.
        let same = |other: &Record| {
            (other.monitor(), other.armed_map) == (record.monitor(), record.armed_map)
        };
        match found.iter_mut().find(|other| same(other)) {
            Some(other) if other.reloads > record.reloads => {}
            Some(other) => *other = record,
            None => found.push(record),
        }
    }
    found.sort_by_key(|record| record.since_ns);
    found
        .into_iter()
        .map(|record| describe(record, &alive, &clock))
        .collect()
}

fn describe(record: Record, alive: &HashSet<TaskKey>, clock: &Clock) -> Result<ArmedFence> {
    let time = |ns: u64| {
        let mut text = String::new();
        clock.write_rfc3339(&mut text, ns);
        text
    };
    let problems = problems(&record)?;
    let monitor = alive.contains(&record.monitor()).then_some(record.tgid);
    Ok(ArmedFence {
        rules: hits(&record)?,
        since: time(record.since_ns),
        policy_since: time(record.policy_since_ns),
        policy: record.policy,
        mode: record.mode,
        mechanism: record.mechanism,
        scope: record.scope,
        reloads: record.reloads,
        pinned: record.pinned,
        monitor,
        user: record.uid,
        version: record.version,
        problems,
    })
}

fn hits(record: &Record) -> Result<Vec<RuleHits>> {
    let actions = ForeignMap::by_id(record.actions_map)?;
    let lines = record.rules.lines.iter();
    let named = record.rules.names.iter().zip(lines);
    (record.rules.first..)
        .zip(named)
        .map(|(number, (id, line))| {
            let value = match &actions {
                Some(actions) => actions.at(number)?,
                None => None,
            };
            let action = value.and_then(|value| read::<RuleAction>(&value));
            Ok(RuleHits {
                id: id.clone(),
                line: *line,
                hits: action.map_or(0, |action| action.hits),
            })
        })
        .collect()
}

/// Why a fence does not refuse what it says.
fn problems(record: &Record) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let map = ForeignMap::by_id(record.armed_map)?;
    let is_armed = map.as_ref().map_or(Ok(false), says_armed)?;
    if !is_armed {
        problems.push("it is switched off".to_owned());
    }
    let Some(name) = &record.pinned else {
        return Ok(problems);
    };
    let missing = Place::take(name)?.missing(&record.links)?;
    if !missing.is_empty() {
        problems.push(format!(
            "{} of its {} programs are gone: {}",
            missing.len(),
            record.links.len(),
            missing.join(", ")
        ));
    }
    Ok(problems)
}

pub(super) fn unpin(name: &str) -> Result<()> {
    let place = Place::take(name)?;
    let alive = Asker::new(&KernelBtf::read()?)?.alive()?;
    match place.former(&alive)? {
        Some(former) => {
            former.disarm()?;
            place.remove()
        }
        None => Err(
            Error::new(ErrorKind::Usage, format!("no fence is pinned as {name}"))
                .with_hint("'stockade status' shows those that are"),
        ),
    }
}
