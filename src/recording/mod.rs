//! What a session was given, in a file: written while it runs, replayed without privileges on any system.
//!
//! A recording holds the records as the rings delivered them, what user space alone could say about them, and the end
//! record. It begins with [`MAGIC`] and the version; frames follow, each with a byte for its sort and its length.
//! Numbers are little-endian, as the kernels are that we run on. What is rare is JSON, so that it can grow.

mod write;

use std::io::{self, Read};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use write::Recorder;

use crate::event::{About, ProcessId};
use crate::inference::Settings;
use crate::monitor::{Kinds, Paths};
use crate::wire::NAMESPACES;

const MAGIC: [u8; 8] = *b"stockade";
/// Of the file and of the records in it: one that grows or changes needs another.
pub(crate) const VERSION: u32 = 3;
/// The oldest one that is read: nothing has changed since but what there can be.
pub(crate) const OLDEST: u32 = 2;
/// No frame is longer: the longest record has 49 KiB, and what is JSON is about one process, or is the end record.
const FRAME_MAX: u32 = 16 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The [`Opening`], first of all.
    Opening,
    /// A record as the kernel half sent it.
    Record,
    /// An event that did not come through a ring, and whether the end record counts it.
    Event,
    /// A [`Known`] process: what was looked up, valid from the next frame on.
    Known,
    /// The host's path for the denial in the next frame.
    HostPath,
    /// From whom the process descends of the denial in the next frame. Since version 3.
    Ancestors,
    /// The clock, when it was set or has drifted.
    Clock,
    /// The [`Rules`] of another policy. Since version 3.
    Rules,
    /// The end record, last of all.
    Certificate,
}

impl Tag {
    const ALL: [(Tag, u8); 9] = [
        (Tag::Opening, b'O'),
        (Tag::Record, b'R'),
        (Tag::Event, b'E'),
        (Tag::Known, b'K'),
        (Tag::HostPath, b'P'),
        (Tag::Clock, b'C'),
        (Tag::Rules, b'N'),
        (Tag::Ancestors, b'A'),
        (Tag::Certificate, b'Z'),
    ];

    fn byte(self) -> u8 {
        let found = Tag::ALL.iter().find(|(tag, _)| *tag == self);
        found.map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Tag> {
        let found = Tag::ALL.iter().find(|(_, b)| *b == byte);
        found.map(|(tag, _)| *tag)
    }
}

/// What holds for a whole recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The kernel's architecture.
    pub(crate) arch: String,
    /// Bytes per page there.
    pub(crate) page_bytes: u64,
    /// Those of who recorded, in the order of the records.
    pub(crate) namespaces: [u32; NAMESPACES],
    /// Whether somebody asked for forks and execs, which are recorded in any case.
    pub(crate) tell_processes: bool,
    /// Which events somebody asked for.
    #[serde(default)]
    pub(crate) kinds: Kinds,
    /// Which paths somebody asked for.
    #[serde(default)]
    pub(crate) paths: Paths,
    /// Names of the policy's rules, by number.
    pub(crate) rules: Vec<String>,
    /// The lines that they begin at. Older recordings have none, and no mechanism.
    #[serde(default)]
    pub(crate) lines: Vec<u32>,
    /// The hosts that they are about, by number.
    #[serde(default)]
    pub(crate) hosts: Vec<Arc<str>>,
    /// What refuses what hooks are asked about.
    #[serde(default)]
    pub(crate) mechanism: Arc<str>,
    /// What events are concluded from several records. Older recordings have none.
    #[serde(default)]
    pub(crate) inference: Settings,
}

/// What is known of a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: ProcessId,
    pub(crate) about: Arc<About>,
}

/// A policy's rules.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// The number of the first one.
    pub(crate) first: u32,
    pub(crate) names: Vec<String>,
    /// The lines that they begin at.
    pub(crate) lines: Vec<u32>,
    /// The hosts that rules are about, by number.
    #[serde(default)]
    pub(crate) hosts: Vec<Arc<str>>,
}

/// An event that user space made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told<E> {
    /// Whether the end record counts it.
    pub(crate) counted: bool,
    pub(crate) event: E,
}

/// Why a frame cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Io(io::Error),
    /// It ends in the middle of a frame.
    Cut,
    /// This is no frame.
    Wrong(&'static str),
}

/// Reads what every recording begins with.
pub(crate) fn read_start(input: &mut impl Read) -> Result<u32, Unreadable> {
    let mut magic = [0; MAGIC.len()];
    let mut version = [0; 4];
    fill(input, &mut magic)?;
    if magic != MAGIC {
        return Err(Unreadable::Wrong("it does not begin like one"));
    }
    fill(input, &mut version)?;
    Ok(u32::from_le_bytes(version))
}

/// Reads the next frame into `bytes`; `None` at the end.
pub(crate) fn read_frame(
    input: &mut impl Read,
    bytes: &mut Vec<u8>,
) -> Result<Option<Tag>, Unreadable> {
    let mut head = [0; 5];
    loop {
        match input.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Unreadable::Io(e)),
        }
    }
    fill(input, &mut head[1..])?;
    let [tag, len @ ..] = head;
    let tag = Tag::of(tag).ok_or(Unreadable::Wrong("it has a part of an unknown sort"))?;
    let len = u32::from_le_bytes(len);
    if len > FRAME_MAX {
        return Err(Unreadable::Wrong("one of its parts is too long"));
    }
    bytes.clear();
    // Not allocated before it is there: a length can be a lie.
    let read = input
        .take(u64::from(len))
        .read_to_end(bytes)
        .map_err(Unreadable::Io)?;
    if read < len as usize {
        return Err(Unreadable::Cut);
    }
    Ok(Some(tag))
}

fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), Unreadable> {
    input.read_exact(bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Unreadable::Cut,
        _ => Unreadable::Io(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_has_a_byte_of_its_own() {
        for (tag, byte) in Tag::ALL {
            assert_eq!((tag.byte(), Tag::of(byte)), (byte, Some(tag)));
        }
        assert_eq!(Tag::of(0), None);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_and_not_allocated() {
        let mut bytes = Vec::new();
        let mut frame = vec![b'R'];
        frame.extend((FRAME_MAX + 1).to_le_bytes());
        let read = read_frame(&mut frame.as_slice(), &mut bytes);
        assert!(matches!(read, Err(Unreadable::Wrong(_))), "{read:?}");
        let mut frame = vec![b'R'];
        frame.extend(FRAME_MAX.to_le_bytes());
        frame.push(1);
        let read = read_frame(&mut frame.as_slice(), &mut bytes);
        assert!(matches!(read, Err(Unreadable::Cut)), "{read:?}");
        assert!(bytes.capacity() < 1 << 16);
    }
}
