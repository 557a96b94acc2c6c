//! Puts a recording through the same pipeline as a session.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::delivery::{Delivery, Surroundings};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{About, Ancestor, Certificate, Clock, Event, Kind, Process, ProcessId};
use crate::recording::{
    Known, OLDEST, Opening, Tag, Told, Unreadable, VERSION, read_frame, read_start,
};

/// What a session was given, from a file that [`SessionBuilder::record`](crate::session::SessionBuilder::record) wrote.
/// Needs no rights, and works on every system.
///
/// ```no_run
/// let recording = stockade::Recording::open("build.stk".as_ref())?;
/// println!("recorded on Linux {}", recording.kernel());
/// let certificate = recording.replay(&mut |event, _clock| println!("{event}"))?;
/// assert!(certificate.is_complete());
/// # Ok::<(), stockade::Error>(())
/// ```
pub struct Recording {
    name: String,
    input: Box<dyn Read + Send>,
    opening: Opening,
    clock: Clock,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("name", &self.name)
            .field("opening", &self.opening)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// What was written down about the machine that was recorded.
#[derive(Debug, Default)]
struct Noted {
    known: HashMap<ProcessId, Arc<About>>,
    host_path: Option<String>,
    ancestors: Option<Arc<[Ancestor]>>,
}

impl Surroundings for Noted {
    fn about(&mut self, event: &Event) -> Option<Arc<About>> {
        let id = &event.process.id;
        // As the recorder forgets it.
        if matches!(event.kind, Kind::Exit(_)) {
            self.known.remove(id)
        } else {
            self.known.get(id).cloned()
        }
    }

    fn ancestors(&mut self, _: &Process) -> Arc<[Ancestor]> {
        self.ancestors.take().unwrap_or_default()
    }

    fn host_path(&mut self, _: (u32, u32), _: &str) -> Option<String> {
        self.host_path.take()
    }
}

impl Recording {
    /// Opens a recording and reads how it begins.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io): the file cannot be read. [`Recording`](ErrorKind::Recording): it is no recording, or one of
    /// another version.
    pub fn open(path: &Path) -> Result<Recording> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| {
            Error::new(ErrorKind::Io, format!("{name} cannot be read: {e}")).with_source(e)
        })?;
        Recording::read(BufReader::with_capacity(64 * 1024, file), &name)
    }

    /// The same from any bytes; `name` is what errors call them.
    ///
    /// # Errors
    ///
    /// As [`Recording::open`].
    pub fn read(input: impl Read + Send + 'static, name: &str) -> Result<Recording> {
        let mut input: Box<dyn Read + Send> = Box::new(input);
        let version = read_start(&mut input).map_err(|e| unreadable(name, e))?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Error::new(
                ErrorKind::Recording,
                format!(
                    "{name} is a recording of version {version}, and this stockade reads {OLDEST} to {VERSION}"
                ),
            )
            .with_hint("replay it with the stockade that recorded it"));
        }
        let mut bytes = Vec::new();
        let mut next = |tag| match read_frame(&mut input, &mut bytes) {
            Ok(Some(found)) if found == tag => Ok(std::mem::take(&mut bytes)),
            Ok(Some(_)) => Err(unreadable(name, Unreadable::Wrong("its start is missing"))),
            Ok(None) => Err(unreadable(name, Unreadable::Cut)),
            Err(e) => Err(unreadable(name, e)),
        };
        let opening = from_json(name, &next(Tag::Opening)?)?;
        let clock = from_json(name, &next(Tag::Clock)?)?;
        Ok(Recording {
            name: name.to_owned(),
            input,
            opening,
            clock,
        })
    }

    /// The release of the kernel that it comes from.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.opening.kernel
    }

    /// The architecture of the machine that it comes from.
    #[must_use]
    pub fn arch(&self) -> &str {
        &self.opening.arch
    }

    /// The clock at its start; later ones come with the events.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Hands all events to `on`, each with the clock that was right then, and returns the end record.
    ///
    /// # Errors
    ///
    /// [`Recording`](ErrorKind::Recording): it is damaged, it ends without its end record, or the end record counts other
    /// events than there are. What came before was handed over. [`Io`](ErrorKind::Io): it cannot be read.
    pub fn replay(mut self, on: &mut dyn FnMut(&Event, &Clock)) -> Result<Certificate> {
        let opening = self.opening;
        let name = &self.name;
        let mut clock = self.clock;
        let mut delivery = Delivery::new(Noted::default(), &opening);
        let mut bytes = Vec::new();
        loop {
            let tag = read_frame(&mut self.input, &mut bytes).map_err(|e| unreadable(name, e))?;
            match tag {
                Some(Tag::Record) => delivery.deliver(&bytes, &mut |event| on(event, &clock)),
                Some(Tag::Event) => {
                    let told: Told<Event> = from_json(name, &bytes)?;
                    if told.counted {
                        delivery.tell(told.event, &mut |event| on(event, &clock));
                    } else {
                        delivery.remark(&told.event, &mut |event| on(event, &clock));
                    }
                }
                Some(Tag::Known) => {
                    let known: Known = from_json(name, &bytes)?;
                    delivery.surroundings.known.insert(known.id, known.about);
                }
                Some(Tag::HostPath) => {
                    let path = String::from_utf8_lossy(&bytes).into_owned();
                    delivery.surroundings.host_path = Some(path);
                }
                Some(Tag::Clock) => clock = from_json(name, &bytes)?,
                Some(Tag::Rules) => delivery.set_rules(from_json(name, &bytes)?),
                Some(Tag::Ancestors) => {
                    delivery.surroundings.ancestors = Some(from_json(name, &bytes)?);
                }
                Some(Tag::Certificate) => {
                    let certificate: Certificate = from_json(name, &bytes)?;
                    let counted = (delivery.events, delivery.denials, delivery.kinds());
                    let recorded = (
                        certificate.events,
                        certificate.denials,
                        certificate.kinds.clone(),
                    );
                    if counted != recorded {
                        return Err(Error::new(
                            ErrorKind::Recording,
                            format!(
                                "{name} has {} events and its end record says {}: it was changed or is damaged",
                                counted.0, recorded.0
                            ),
                        ));
                    }
                    return Ok(certificate);
                }
                Some(Tag::Opening) => {
                    return Err(unreadable(name, Unreadable::Wrong("it begins twice")));
                }
                None => return Err(unreadable(name, Unreadable::Cut)),
            }
        }
    }
}

fn unreadable(name: &str, e: Unreadable) -> Error {
    match e {
        Unreadable::Io(e) => {
            Error::new(ErrorKind::Io, format!("{name} cannot be read: {e}")).with_source(e)
        }
        Unreadable::Cut => Error::new(
            ErrorKind::Recording,
            format!("{name} is cut off: it has no end record, and what came after is not known"),
        )
        .with_hint("a recording is whole when its session has ended by itself or by Ctrl-C"),
        Unreadable::Wrong(why) => Error::new(
            ErrorKind::Recording,
            format!("{name} is no recording of stockade: {why}"),
        ),
    }
}

fn from_json<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::new(
            ErrorKind::Recording,
            format!("{name} is damaged: a part of it cannot be read: {e}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;
    use crate::event::{Loss, sample};
    use crate::inference::{Settings, said};
    use crate::monitor::{Filter, Kinds, Paths};
    use crate::recording::Recorder;
    use crate::wire::{kind, sample as records};

    /// A machine where everything is known and nothing is looked up.
    struct Machine(u32);

    impl Surroundings for Machine {
        fn about(&mut self, event: &Event) -> Option<Arc<About>> {
            // Anew each time: that of a process can change.
            self.0 += 1;
            let Event { process, .. } = event;
            Some(Arc::new(About {
                executable: Some(format!("/bin/{}-{}", process.comm, self.0).into()),
                ..About::default()
            }))
        }

        fn ancestors(&mut self, process: &Process) -> Arc<[Ancestor]> {
            let pid = process.parent.pid;
            let executable = Some("/bin/parent".into());
            [Ancestor { pid, executable }].into()
        }

        fn host_path(&mut self, _: (u32, u32), path: &str) -> Option<String> {
            Some(format!("/mnt{path}"))
        }
    }

    fn opening(tell_processes: bool) -> Opening {
        Opening {
            kernel: "6.12.0".into(),
            arch: "x86_64".into(),
            page_bytes: 4096,
            namespaces: [1; 8],
            tell_processes,
            kinds: Kinds::default(),
            paths: Paths::default(),
            rules: vec!["no-keys".into(), "no-shadow".into()],
            lines: Vec::new(),
            hosts: Vec::new(),
            mechanism: Arc::default(),
            inference: Settings::new(&Filter::new().port_scan(2, Duration::from_secs(60))),
        }
    }

    /// A recording of one record of each kind, of events that came by other ways, and of a record that is damaged; and
    /// what was delivered meanwhile.
    fn recorded(tell_processes: bool) -> (Vec<u8>, Vec<Event>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opening = opening(tell_processes);
        let mut delivery = Delivery::new(Machine(0), &opening);
        let mut recorder = Recorder::create(file.path()).unwrap();
        recorder.open(&opening, &sample::clock());
        delivery.recorder = Some(recorder);
        let mut seen = Vec::new();
        let mut on = |event: &Event| seen.push(event.clone());
        for kind in records::KINDS {
            let names = [b"cat\0bin\0".as_slice(), b"here\0tmp\0", b"a\0b \xff\0"];
            delivery.deliver(&records::record(kind, 0, names, 1), &mut on);
        }
        for (sent, bytes) in [
            (true, said::query(9, b"\x01a\x00")),
            (false, said::answer(9)),
        ] {
            delivery.deliver(&records::payload(kind::DNS, sent, &bytes), &mut on);
        }
        for part in said::greeting("a.example").chunks(50) {
            delivery.deliver(&records::payload(kind::TLS, true, part), &mut on);
        }
        for port in [1, 2] {
            delivery.deliver(&records::refused(port), &mut on);
        }
        delivery.deliver(b"short", &mut on);
        for event in sample::samples() {
            delivery.tell(event, &mut on);
        }
        let loss = Event::new(
            1,
            Process::own(ProcessId::new(0, 1)),
            Kind::Loss(Loss::new("open", "ring", 3)),
        );
        delivery.remark(&loss, &mut on);
        let certificate = Certificate {
            events: delivery.events,
            denials: delivery.denials,
            kinds: delivery.kinds(),
            complete: true,
            ..Certificate::default()
        };
        delivery.recorder.take().unwrap().end(&certificate).unwrap();
        (std::fs::read(file.path()).unwrap(), seen)
    }

    fn replayed(bytes: Vec<u8>) -> (Vec<Event>, Result<Certificate>) {
        let mut seen = Vec::new();
        let recording = match Recording::read(std::io::Cursor::new(bytes), "test.stk") {
            Ok(recording) => recording,
            Err(e) => return (seen, Err(e)),
        };
        let end = recording.replay(&mut |event, _| seen.push(event.clone()));
        (seen, end)
    }

    #[test]
    fn what_was_delivered_is_delivered_again() {
        for tell_processes in [true, false] {
            let (bytes, before) = recorded(tell_processes);
            for concluded in ["dns_query", "dns_answer", "tls", "port_scan"] {
                let count = |of: &[Event]| of.iter().filter(|e| e.kind.name() == concluded).count();
                assert_eq!(count(&before), 1 + count(&sample::samples()), "{concluded}");
            }
            let (after, end) = replayed(bytes);
            assert_eq!(after, before);
            assert!(end.unwrap().is_complete());
        }
    }

    #[test]
    fn a_recording_that_is_cut_off_gives_what_it_has_and_says_so() {
        let (bytes, all) = recorded(true);
        let (after, end) = replayed(bytes[..bytes.len() - 1].to_vec());
        assert_eq!(after, all);
        let e = end.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Recording);
        assert!(e.to_string().contains("cut off"), "{e}");
    }

    #[test]
    fn a_recording_that_lacks_an_event_does_not_match_its_end_record() {
        let (bytes, all) = recorded(true);
        // The first record's frame is taken out.
        let at = bytes
            .windows(5)
            .position(|w| w[0] == b'R' && u32::from_le_bytes([w[1], w[2], w[3], w[4]]) < 4096)
            .unwrap();
        let len = u32::from_le_bytes(*bytes[at + 1..].first_chunk().unwrap()) as usize;
        let mut cut = bytes[..at].to_vec();
        cut.extend(&bytes[at + 5 + len..]);
        let (after, end) = replayed(cut);
        assert_eq!(after.len(), all.len() - 1);
        let e = end.unwrap_err().to_string();
        assert!(e.contains("its end record says"), "{e}");
    }

    #[test]
    fn another_version_and_another_file_are_told_apart() {
        let (mut bytes, _) = recorded(true);
        bytes[8] = 99;
        let e = replayed(bytes).1.unwrap_err();
        assert_eq!(
            e.to_string(),
            "test.stk is a recording of version 99, and this stockade reads 2 to 3"
        );
        let e = replayed(b"{\"v\":1}, and more of the same".to_vec())
            .1
            .unwrap_err();
        assert!(e.to_string().contains("is no recording"), "{e}");
    }

    proptest! {
        /// Whatever is in the file: an answer, and no panic.
        #[test]
        fn damage_anywhere_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let (mut bytes, _) = recorded(true);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = replayed(bytes);
        }

        #[test]
        fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut bytes = b"stockade\x01\0\0\0".to_vec();
            bytes.extend(tail);
            prop_assert!(replayed(bytes).1.is_err());
        }
    }
}
