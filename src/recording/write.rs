//! Writes a recording.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::{Known, MAGIC, Opening, Rules, Tag, Told, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{About, Certificate, Clock, Event, Kind, ProcessId};

/// A recording in the making.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    out: BufWriter<File>,
    /// What was said last of each process that runs.
    known: HashMap<ProcessId, Arc<About>>,
    clock: Option<Clock>,
    /// Nothing can be written any more.
    broken: Option<io::Error>,
    /// Of this many bytes a frame is made before it is written.
    json: Vec<u8>,
}

impl Recorder {
    /// Makes the file. Early: one that cannot be written must stop a session before it begins.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| unwritable(path, e))?;
        Ok(Recorder {
            path: path.to_owned(),
            out: BufWriter::with_capacity(64 * 1024, file),
            known: HashMap::new(),
            clock: None,
            broken: None,
            json: Vec::new(),
        })
    }

    pub(crate) fn open(&mut self, opening: &Opening, clock: &Clock) {
        let mut start = MAGIC.to_vec();
        start.extend(VERSION.to_le_bytes());
        let written = self.out.write_all(&start);
        self.note(written);
        self.write_json(Tag::Opening, opening);
        self.clock(clock);
    }

    /// Notes the clock where it is another one than before.
    pub(crate) fn clock(&mut self, clock: &Clock) {
        if self.clock.as_ref() != Some(clock) {
            self.write_json(Tag::Clock, clock);
            self.clock = Some(clock.clone());
        }
    }

    /// Notes what is known of an event's process where that is new, and the path that the host has for a denial. To be
    /// called before the event itself is written.
    pub(crate) fn context(&mut self, event: &Event, host_path: Option<&str>) {
        if let Some(about) = &event.process.about {
            let id = event.process.id;
            let said = self.known.get(&id);
            if said.is_none_or(|said| !Arc::ptr_eq(said, about)) {
                let about = Arc::clone(about);
                self.write_json(
                    Tag::Known,
                    &Known {
                        id,
                        about: Arc::clone(&about),
                    },
                );
                self.known.insert(id, about);
            }
        }
        if let Some(path) = host_path {
            self.write(Tag::HostPath, path.as_bytes());
        }
        if let Kind::Denial(denial) = &event.kind
            && !denial.ancestors.is_empty()
        {
            self.write_json(Tag::Ancestors, &denial.ancestors);
        }
        if matches!(event.kind, Kind::Exit(_)) {
            self.known.remove(&event.process.id);
        }
    }

    /// Notes the rules of another policy.
    pub(crate) fn rules(&mut self, rules: &Rules) {
        self.write_json(Tag::Rules, rules);
    }

    pub(crate) fn record(&mut self, record: &[u8]) {
        self.write(Tag::Record, record);
    }

    pub(crate) fn event(&mut self, event: &Event, counted: bool) {
        self.write_json(Tag::Event, &Told { counted, event });
    }

    /// Gives the file what was written so far.
    pub(crate) fn flush(&mut self) {
        let flushed = self.out.flush();
        self.note(flushed);
    }

    /// Writes the end record.
    pub(crate) fn end(mut self, certificate: &Certificate) -> Result<()> {
        self.write_json(Tag::Certificate, certificate);
        self.flush();
        match self.broken {
            None => Ok(()),
            Some(e) => Err(unwritable(&self.path, e)
                .with_hint("the recording is cut off; make room and record again")),
        }
    }

    fn write_json(&mut self, tag: Tag, value: &impl Serialize) {
        let mut json = std::mem::take(&mut self.json);
        json.clear();
        let written = serde_json::to_writer(&mut json, value).map_err(io::Error::from);
        self.note(written);
        self.write(tag, &json);
        self.json = json;
    }

    fn write(&mut self, tag: Tag, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut head = [tag.byte(); 5];
        head[1..].copy_from_slice(&len.to_le_bytes());
        let written = self
            .out
            .write_all(&head)
            .and_then(|()| self.out.write_all(bytes));
        self.note(written);
    }

    /// The first failure is the one to tell.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(e) = result {
            self.broken.get_or_insert(e);
        }
    }
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the recording {} cannot be written: {e}", path.display()),
    )
    .with_source(e)
}
