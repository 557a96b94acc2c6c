//! Where events go: lines of text for people, lines of JSON for programs.
//!
//! A sink writes into a buffer and knows nothing of files, so the caller decides how much is written at once and what a
//! broken pipe means. Each event is one line, whatever is in its names.
//!
//! ```
//! use stockade::event::sample;
//! use stockade::sink::Sink;
//!
//! let (mut sink, clock) = (Sink::json(), sample::clock());
//! let mut out = Vec::new();
//! for event in sample::samples() {
//!     sink.write(&event, &clock, &mut out);
//! }
//! assert!(out.starts_with(br#"{"@timestamp":"2026-03-01T"#));
//! ```

mod day;
mod folded;
mod json;
mod text;

pub use folded::Folded;
pub use json::Json;
pub use text::Text;

use crate::event::{Certificate, Clock, Event};

/// One of the forms in which events are written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Sink {
    /// One aligned line per event, for people.
    Text(Text),
    /// One object per line, for programs; docs/EVENTS.md lists the fields.
    Json(Json),
}

impl Sink {
    /// Text, with colours only when asked for: the caller knows whether it goes to a terminal.
    #[must_use]
    pub fn text(color: bool) -> Self {
        Sink::Text(Text::new(color))
    }

    /// JSON.
    #[must_use]
    pub fn json() -> Self {
        Sink::Json(Json::new())
    }

    /// Appends what stands before the first event: the column titles of text, nothing for JSON.
    pub fn header(&mut self, out: &mut Vec<u8>) {
        match self {
            Sink::Text(sink) => sink.header(out),
            Sink::Json(_) => {}
        }
    }

    /// Appends one event, with its newline.
    pub fn write(&mut self, event: &Event, clock: &Clock, out: &mut Vec<u8>) {
        match self {
            Sink::Text(sink) => sink.write(event, clock, out),
            Sink::Json(sink) => sink.write(event, clock, out),
        }
    }

    /// Appends the end record: one line of JSON, several of text.
    pub fn certificate(&mut self, certificate: &Certificate, clock: &Clock, out: &mut Vec<u8>) {
        match self {
            Sink::Text(sink) => sink.certificate(certificate, out),
            Sink::Json(sink) => sink.certificate(certificate, clock, out),
        }
    }
}
