//! Events to stdout or a file, everything else to stderr.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;

use stockade::event::{Certificate, Clock, FenceState};
use stockade::session::SessionBuilder;
use stockade::sink::Sink;
use stockade::{Event, Session};

use super::{Format, OutputArgs, counted};

/// Writes are collected and go out in one piece per poll.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    clock: Clock,
    buffer: Vec<u8>,
    /// Instead of stdout.
    file: Option<File>,
    /// Where the end record goes as well.
    certificate: Option<File>,
    /// Nothing can be written any more. A reader that went away is an end like any other; the rest is a failure.
    broken: Option<io::Error>,
    format: Format,
    denied: u64,
}

/// Enough to write in big pieces, little enough to stay in the cache.
const FLUSH_AT: usize = 64 * 1024;

impl Output {
    /// Starts the session and tells what is armed. The file is opened first: one that cannot be written must stop it.
    pub(super) fn begin(
        args: &OutputArgs,
        builder: SessionBuilder,
    ) -> anyhow::Result<(Session, Output)> {
        let files = (
            create(args.output.as_ref())?,
            create(args.certificate.as_ref())?,
        );
        let session = builder.start()?;
        announce(&session);
        let output = Output::new(args.format, files, session.clock().clone());
        Ok((session, output))
    }

    /// For events that have been recorded.
    pub(super) fn open(args: &OutputArgs, clock: Clock) -> anyhow::Result<Output> {
        let files = (
            create(args.output.as_ref())?,
            create(args.certificate.as_ref())?,
        );
        Ok(Output::new(args.format, files, clock))
    }

    fn new(
        format: Format,
        (file, certificate): (Option<File>, Option<File>),
        clock: Clock,
    ) -> Self {
        let terminal = match &file {
            Some(file) => file.is_terminal(),
            None => io::stdout().is_terminal(),
        };
        let sink = match format {
            Format::Text => Sink::text(terminal && colors()),
            Format::Json => Sink::json(),
        };
        let mut output = Output {
            sink,
            clock,
            buffer: Vec::with_capacity(FLUSH_AT * 2),
            file,
            certificate,
            broken: None,
            format,
            denied: 0,
        };
        output.sink.header(&mut output.buffer);
        output.flush();
        output
    }

    /// Takes the session's clock, which is corrected from time to time.
    pub(super) fn set_clock(&mut self, clock: &Clock) {
        if self.clock != *clock {
            self.clock.clone_from(clock);
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        if let stockade::event::Kind::Denial(d) = &event.kind {
            self.denied += u64::from(d.refused);
        }
        self.sink.write(event, &self.clock, &mut self.buffer);
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.broken.is_none() {
            let written = match &mut self.file {
                Some(file) => file.write_all(&self.buffer),
                None => {
                    let mut out = io::stdout().lock();
                    out.write_all(&self.buffer).and_then(|()| out.flush())
                }
            };
            self.broken = written.err();
        }
        self.buffer.clear();
    }

    /// Nobody gets the events any more.
    pub(super) fn is_closed(&self) -> bool {
        self.broken.is_some()
    }

    /// Accesses that were refused.
    pub(super) fn denied(&self) -> u64 {
        self.denied
    }

    /// The end record: in the stream for programs, on stderr for people. Fails when events could not be written.
    pub(super) fn end(mut self, certificate: &Certificate) -> anyhow::Result<()> {
        match self.format {
            Format::Json => {
                self.sink
                    .certificate(certificate, &self.clock, &mut self.buffer);
                self.flush();
            }
            Format::Text => {
                self.flush();
                let mut sink = Sink::text(io::stderr().is_terminal() && colors());
                sink.certificate(certificate, &self.clock, &mut self.buffer);
                // Nowhere to complain to when stderr is gone as well.
                let _ = io::stderr().write_all(&self.buffer);
            }
        }
        if let Some(mut file) = self.certificate.take() {
            self.buffer.clear();
            Sink::json().certificate(certificate, &self.clock, &mut self.buffer);
            file.write_all(&self.buffer)
                .context("the end record cannot be written to its file")?;
        }
        match self.broken {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(e).context("events were lost: they cannot be written")
            }
            _ => Ok(()),
        }
    }
}

fn create(path: Option<&PathBuf>) -> anyhow::Result<Option<File>> {
    path.map(|path| {
        File::create(path).with_context(|| format!("{} cannot be written", path.display()))
    })
    .transpose()
}

fn colors() -> bool {
    std::env::var_os("NO_COLOR").is_none()
}

/// Tells what is armed before the first event.
fn announce(session: &Session) {
    for probe in session.probes() {
        if probe.variant.is_none() {
            eprintln!(
                "stockade: {} is unavailable: {}",
                probe.name,
                probe.reason.as_deref().unwrap_or("unknown")
            );
        }
    }
    if let Some(fence) = session.fence() {
        announce_fence("fence armed", fence);
    }
}

/// Tells what is in force.
pub(super) fn announce_fence(what: &str, fence: &FenceState) {
    eprintln!(
        "stockade: {what}: {} on {}, by {}{}, canary refused",
        counted(fence.rules, "rule"),
        fence.objects(),
        fence.mechanism,
        match fence.identity.as_str() {
            "none" => String::new(),
            identity => format!(" with identity {identity}"),
        }
    );
}
