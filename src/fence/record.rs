//! What a fence says of itself to whoever asks this machine: in a map that no program uses, under a name that all have.
//!
//! Such a record is never changed, but for the sign of life at its front: another policy gets another one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::kernel::{ForeignMap, OwnTable, PinDirectory};
use crate::recording::Rules;
use crate::wire::TaskKey;

/// What all these maps are called.
const NAME: &str = "stk_about";
/// Text is put into a map in pieces of this size, with zeros behind the last one.
const PIECE: usize = 4096;
const PIECE_BYTES: u32 = 4096;

/// A fence as it was armed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of stockade, which has armed it.
    pub(crate) version: String,
    pub(crate) policy: String,
    pub(crate) mode: String,
    pub(crate) mechanism: String,
    pub(crate) identity: String,
    /// Who is held, in words.
    pub(crate) scope: String,
    /// Who has armed it: a process in the initial pid namespace, and its user.
    pub(crate) tgid: u32,
    pub(crate) start_ns: u64,
    pub(crate) uid: u32,
    /// Since when there is the fence, and this policy: nanoseconds since boot.
    pub(crate) since_ns: u64,
    pub(crate) policy_since_ns: u64,
    pub(crate) reloads: u32,
    /// The numbers of the maps that say what is in force, and how often each rule has refused.
    pub(crate) armed_map: u32,
    pub(crate) actions_map: u32,
    pub(crate) rules: Rules,
    /// Under which name it is pinned.
    pub(crate) pinned: Option<String>,
    /// The links that have a name there.
    pub(crate) links: Vec<String>,
}

impl Record {
    /// Who looks after it, while it runs.
    pub(crate) fn monitor(&self) -> TaskKey {
        TaskKey {
            start_ns: self.start_ns,
            tgid: self.tgid.into(),
        }
    }
}

/// The sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// When the monitor last looked after it: nanoseconds since boot.
    pub(crate) alive_ns: u64,
    /// Denials that were lost until then, which it knows of.
    pub(crate) lost: u64,
}

/// A record that others can read. It is there as long as this lives, or its name in a directory.
#[derive(Debug)]
pub(crate) struct Published(OwnTable);

impl Published {
    pub(crate) fn new(record: &Record, beat: Beat) -> Result<Self> {
        let text = json(record)?;
        let pieces: Vec<&[u8]> = text.chunks(PIECE).collect();
        let entries = super::count(pieces.len()).saturating_add(1);
        let this = Published(OwnTable::array(NAME, PIECE_BYTES, entries)?);
        // The front last: what has none is not there yet.
        for (n, piece) in (1..).zip(pieces) {
            this.write(n, piece)?;
        }
        this.beat(beat)?;
        Ok(this)
    }

    /// The number of its map.
    pub(crate) fn id(&self) -> Result<u32> {
        self.0.id()
    }

    pub(crate) fn beat(&self, beat: Beat) -> Result<()> {
        self.write(0, &json(&beat)?)
    }

    fn write(&self, at: u32, piece: &[u8]) -> Result<()> {
        let mut whole = [0; PIECE];
        whole[..piece.len()].copy_from_slice(piece);
        self.0
            .set(&at.to_ne_bytes(), &whole, "what a fence says of itself")
    }

    /// Gives it its name in a directory, in place of what has it there.
    pub(crate) fn pin(&self, directory: &PinDirectory) -> Result<()> {
        let next = "stk_about_next";
        directory.unpin(next)?;
        self.0.pin(directory, next)?;
        directory.rename(next, NAME)
    }
}

/// All that there is on this machine; a record that cannot be read is left out by whoever asks.
pub(crate) fn all() -> Result<Vec<Result<(Record, Beat)>>> {
    let maps = ForeignMap::all(NAME)?;
    Ok(maps.iter().map(read).collect())
}

/// The one that has its name in a directory.
pub(crate) fn pinned_in(directory: &PinDirectory) -> Result<Option<(Record, Beat)>> {
    let map = directory.look(NAME)?;
    map.as_ref().map(read).transpose()
}

fn read(map: &ForeignMap) -> Result<(Record, Beat)> {
    let (entries, key, piece) = map.shape();
    if (key, piece) != (4, PIECE_BYTES) {
        return Err(unreadable("it has another shape"));
    }
    let mut text = Vec::new();
    for at in 1..entries {
        text.extend(map.at(at)?.unwrap_or_default());
    }
    let front = map.at(0)?.unwrap_or_default();
    Ok((parse(&text)?, parse(&front)?))
}

fn json(of: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(of).map_err(|e| {
        Error::new(
            ErrorKind::Io,
            "what a fence says of itself cannot be written",
        )
        .with_source(e)
    })
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let end = text.iter().position(|byte| *byte == 0);
    let text = &text[..end.unwrap_or(text.len())];
    serde_json::from_slice(text).map_err(|e| unreadable(&e.to_string()))
}

fn unreadable(why: &str) -> Error {
    Error::new(
        ErrorKind::NotEnforced,
        format!("what a fence says of itself cannot be read: {why}"),
    )
    .with_hint("another version of stockade may have armed it")
}
