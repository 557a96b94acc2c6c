//! How a fence outlives this program: its links and maps get names in the bpf file system, and stay until those are taken
//! away.
//!
//! A fence that is left takes no new policy. The next one is armed beside it, takes its followed processes and its unread
//! denials over, gets names of its own, and only then the one before is let go of: there is no moment without either, and
//! it does not matter which version has armed it.

use std::collections::{BTreeSet, HashSet};

use super::record::{self, Beat, Published, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{
    Attachments, Drops, ForeignMap, Loader, Losses, OwnTable, PinDirectory, Records, Rings,
};
use crate::wire::{TaskKey, denied_rule, kind};

/// Behind the name of a fence that is to take the place of the one with that name. Names have no `+`.
const NEXT: &str = "+next";
/// A file's name ends at 255 bytes.
const LONGEST: usize = 240;

/// Where a fence is to be pinned. Nobody else pins or unpins while this lives.
#[derive(Debug)]
pub(crate) struct Place {
    root: PinDirectory,
    name: String,
    directory: String,
}

impl Place {
    /// # Errors
    ///
    /// [`ErrorKind::NotEnforced`]: nothing can be pinned on this machine, or not under this name.
    pub(crate) fn take(name: &str) -> Result<Self> {
        let directory = encoded(name);
        if directory.is_empty() || directory.len() + NEXT.len() > LONGEST {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "a fence cannot be pinned under a name of {} bytes",
                    name.len()
                ),
            )
            .with_hint("give the policy a shorter name, of letters, digits, - and _"));
        }
        let root = PinDirectory::root()?;
        root.lock()?;
        let place = Place {
            root,
            name: name.to_owned(),
            directory,
        };
        place.mend()?;
        Ok(place)
    }

    /// Somebody was killed between two steps: of two fences the one is kept that is whole and in force.
    fn mend(&self) -> Result<()> {
        let next = self.next();
        let Some(begun) = self.root.find(&next)? else {
            return Ok(());
        };
        let before = self.root.find(&self.directory)?;
        let holds = before.as_ref().map_or(Ok(false), is_armed)?;
        // What it is comes last.
        let is_whole = record::pinned_in(&begun).is_ok_and(|about| about.is_some());
        if holds || !is_whole {
            return self.root.remove(&next);
        }
        self.root.remove(&self.directory)?;
        self.root.rename(&next, &self.directory)
    }

    /// What is there under this name. It must have nobody who looks after it.
    pub(crate) fn former(&self, alive: &HashSet<TaskKey>) -> Result<Option<Former>> {
        let Some(directory) = self.root.find(&self.directory)? else {
            return Ok(None);
        };
        // Where it cannot be read, another version has armed it.
        let about = record::pinned_in(&directory).ok().flatten();
        match &about {
            Some((record, _)) if alive.contains(&record.monitor()) => Err(Error::new(
                ErrorKind::NotEnforced,
                format!(
                    "the fence {} is looked after by process {}, which runs",
                    self.name, record.tgid
                ),
            )
            .with_hint(format!("end that first: kill {}", record.tgid))),
            _ => Ok(Some(Former { directory, about })),
        }
    }

    /// Which of these names are not there.
    pub(crate) fn missing(&self, links: &[String]) -> Result<Vec<String>> {
        let there = match self.root.find(&self.directory)? {
            Some(directory) => directory.names()?,
            None => Vec::new(),
        };
        let missing = links.iter().filter(|link| !there.contains(link));
        Ok(missing.cloned().collect())
    }

    /// Takes away what is there.
    pub(crate) fn remove(&self) -> Result<()> {
        self.root.remove(&self.directory)
    }

    fn next(&self) -> String {
        format!("{}{NEXT}", self.directory)
    }
}

/// A fence that was left by whoever had armed it.
#[derive(Debug)]
pub(crate) struct Former {
    directory: PinDirectory,
    pub(crate) about: Option<(Record, Beat)>,
}

impl Former {
    /// Whom it follows.
    pub(crate) fn tasks(&self) -> Result<Option<OwnTable>> {
        self.map("stk_tasks")
    }

    /// One of its maps.
    pub(super) fn map(&self, name: &'static str) -> Result<Option<OwnTable>> {
        self.directory.map(name)
    }

    /// Where its denials are. To be asked for before it is let go of.
    pub(crate) fn inbox(&self) -> Result<Inbox> {
        Ok(Inbox {
            rings: self.directory.rings()?,
            drops: self.directory.drops()?,
            known: self.about.as_ref().map_or(0, |(_, beat)| beat.lost),
        })
    }

    /// Has it refuse nothing any more: at once, and not when the kernel has detached everything.
    pub(crate) fn disarm(&self) -> Result<()> {
        let zero = 0u32.to_ne_bytes();
        let Some(map) = self.map(ARMED_AT)? else {
            return Ok(());
        };
        if let Some(mut now) = map.get(&zero)? {
            if let Some(which) = now.first_chunk_mut::<4>() {
                *which = zero;
            }
            map.set(&zero, &now, "taking a fence down")?;
        }
        Ok(())
    }
}

/// `struct stk_in_force`, of which every version has the half that is in force at the front; 0 is for none.
const ARMED_AT: &str = "stk_armed_at";

fn is_armed(directory: &PinDirectory) -> Result<bool> {
    let map = directory.look(ARMED_AT)?;
    map.map_or(Ok(false), |map| says_armed(&map))
}

/// Whether such a map says that anything is in force.
pub(crate) fn says_armed(map: &ForeignMap) -> Result<bool> {
    let now = map.at(0)?.unwrap_or_default();
    Ok(now.first_chunk::<4>().is_some_and(|which| *which != [0; 4]))
}

/// What a fence has told that nobody has read.
#[derive(Debug)]
pub(crate) struct Inbox {
    rings: Option<Rings>,
    drops: Option<Drops>,
    /// Denials that were lost, of which somebody knew.
    known: u64,
}

impl Inbox {
    /// The denials.
    pub(crate) fn unread(&mut self) -> Result<Records> {
        let mut unread = Records::default();
        let Some(rings) = &mut self.rings else {
            return Ok(unread);
        };
        loop {
            let found = rings.drain()?;
            let denials = found.iter().filter(|record| denied_rule(record).is_some());
            denials.for_each(|record| unread.push(record));
            if !rings.has_more() {
                return Ok(unread);
            }
        }
    }

    /// How many denials were lost; `None` where it cannot be known.
    pub(crate) fn lost(&self) -> Option<u64> {
        let lost = lost(&self.drops.as_ref()?.read());
        Some(lost.saturating_sub(self.known))
    }
}

/// Denials among what was lost.
pub(crate) fn lost(losses: &Losses) -> u64 {
    let denials = losses.iter().filter(|((of, _, _), _)| *of == kind::DENIAL);
    denials.map(|(_, count)| count).sum()
}

/// The names that a fence has.
#[derive(Debug)]
pub(crate) struct Pins {
    place: Place,
    directory: PinDirectory,
    links: Vec<String>,
    maps: BTreeSet<String>,
}

impl Pins {
    /// Pins a fence beside what is there under its name. When this fails, nothing of it stays.
    pub(crate) fn new(place: Place, parts: &[&Attachments], loader: &Loader) -> Result<Self> {
        let mut pins = Pins {
            directory: place.root.make(&place.next())?,
            place,
            links: Vec::new(),
            maps: BTreeSet::new(),
        };
        let pinned = parts
            .iter()
            .try_for_each(|part| pins.add(part, loader).map(|_| ()));
        match pinned {
            Ok(()) => Ok(pins),
            Err(e) => {
                pins.give_up()?;
                Err(e)
            }
        }
    }

    /// Pins what a fence has got since; says under which names, for [`take_back`](Self::take_back).
    pub(crate) fn add(&mut self, links: &Attachments, loader: &Loader) -> Result<Vec<String>> {
        loader.pin(&self.directory, &mut self.maps)?;
        let names = links.pin(&self.directory)?;
        self.links.extend_from_slice(&names);
        Ok(names)
    }

    pub(crate) fn take_back(&mut self, names: &[String]) -> Result<()> {
        self.links.retain(|link| !names.contains(link));
        names.iter().try_for_each(|name| self.directory.unpin(name))
    }

    pub(crate) fn name(&self) -> &str {
        &self.place.name
    }

    pub(crate) fn directory(&self) -> &PinDirectory {
        &self.directory
    }

    pub(crate) fn links(&self) -> &[String] {
        &self.links
    }

    pub(crate) fn publish(&self, record: &Published) -> Result<()> {
        record.pin(&self.directory)
    }

    /// Takes the place of the one before, which is disarmed and let go of.
    pub(crate) fn settle(&self) -> Result<()> {
        self.place.root.remove(&self.place.directory)?;
        self.place
            .root
            .rename(&self.place.next(), &self.place.directory)?;
        self.place.root.unlock()
    }

    /// Takes the names away before they are settled.
    pub(crate) fn give_up(&self) -> Result<()> {
        self.place.root.remove(&self.place.next())?;
        self.place.root.unlock()
    }

    /// Takes them away.
    pub(crate) fn remove(self) -> Result<()> {
        self.place.root.lock()?;
        self.place.root.remove(&self.place.directory)
    }
}

/// A name as that of a directory in the bpf file system, which takes no dots.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_tell_all_names_apart() {
        assert_eq!(encoded("build-job_2"), "build-job_2");
        assert_eq!(encoded("a.b"), "a%2eb");
        assert_eq!(encoded("a/b+next"), "a%2fb%2bnext");
        assert_eq!(encoded("ä%"), "%c3%a4%25");
    }
}
