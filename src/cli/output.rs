//! Events to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use stockade::event::{Certificate, Clock};
use stockade::sink::Sink;
use stockade::{Event, Session};

use super::Format;

/// Writes are collected and go out in one piece per poll.
#[derive(Debug)]
pub(super) struct Output {
    sink: Sink,
    clock: Clock,
    buffer: Vec<u8>,
    /// The reader went away: an end like any other.
    closed: bool,
    format: Format,
    denied: u64,
}

/// Enough to write in big pieces, little enough to stay in the cache.
const FLUSH_AT: usize = 64 * 1024;

impl Output {
    pub(super) fn new(format: Format, session: &Session) -> Self {
        let sink = match format {
            Format::Text => {
                Sink::text(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            }
            Format::Json => Sink::json(),
        };
        Output {
            sink,
            clock: session.clock().clone(),
            buffer: Vec::with_capacity(FLUSH_AT * 2),
            closed: false,
            format,
            denied: 0,
        }
    }

    pub(super) fn header(&mut self) {
        self.sink.header(&mut self.buffer);
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
        if !self.closed {
            let mut out = io::stdout().lock();
            if out
                .write_all(&self.buffer)
                .and_then(|()| out.flush())
                .is_err()
            {
                self.closed = true;
            }
        }
        self.buffer.clear();
    }

    /// Nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Accesses that were refused.
    pub(super) fn denied(&self) -> u64 {
        self.denied
    }

    /// The end record: in the stream for programs, on stderr for people.
    pub(super) fn end(mut self, certificate: &Certificate) {
        match self.format {
            Format::Json => {
                self.sink
                    .certificate(certificate, &self.clock, &mut self.buffer);
                self.flush();
            }
            Format::Text => {
                self.flush();
                self.sink
                    .certificate(certificate, &self.clock, &mut self.buffer);
                // Nowhere to complain to when stderr is gone as well.
                let _ = io::stderr().write_all(&self.buffer);
            }
        }
    }
}

/// Tells what is armed before the first event.
pub(super) fn announce(session: &Session) {
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
        eprintln!(
            "stockade: fence armed: {} rules on {} files, by {} with identity {}, canary refused",
            fence.rules, fence.files, fence.mechanism, fence.identity
        );
    }
}
