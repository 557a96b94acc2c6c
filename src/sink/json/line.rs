//! The parts that a line is made of.

use serde::Serialize;

use crate::event::{Clock, Histogram, ProcessId, names};
use crate::sink::day::Day;

/// The line that is being written. Keys come as [`key!`] makes them.
pub(super) struct Line<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// The errno of a failure; nothing for 0.
    pub(super) fn error(&mut self, errno: u16) {
        if errno == 0 {
            return;
        }
        match names::errno(errno) {
            Some(name) => {
                self.raw(key!("error.code"));
                self.raw(b"\"");
                self.raw(name.as_bytes());
                self.raw(b"\"");
            }
            None => self.quoted(key!("error.code"), errno),
        }
    }

    /// An array of names, which need no escaping; bits without one end it as one hex string.
    pub(super) fn flags<R: Into<u64>>(
        &mut self,
        key: &[u8],
        each_name: impl FnOnce(&mut dyn FnMut(&'static str)) -> R,
    ) {
        self.raw(key);
        self.raw(b"[");
        let mut first = true;
        let rest: u64 = each_name(&mut |name| {
            self.raw(if first { b"\"" } else { b",\"" });
            self.raw(name.as_bytes());
            self.raw(b"\"");
            first = false;
        })
        .into();
        if rest != 0 {
            self.raw(if first { b"\"" } else { b",\"" });
            self.hex(rest);
            self.raw(b"\"");
        }
        self.raw(b"]");
    }

    pub(super) fn list<'s>(&mut self, items: impl Iterator<Item = &'s str>) {
        self.raw(b"[");
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.raw(b",");
            }
            self.text(item);
        }
        self.raw(b"]");
    }

    pub(super) fn entity(
        &mut self,
        key: &[u8],
        id: ProcessId,
        clock: &Clock,
        scratch: &mut String,
    ) {
        scratch.clear();
        clock.write_entity_id(scratch, id);
        // Letters, digits and dashes only.
        self.raw(key);
        self.raw(b"\"");
        self.raw(scratch.as_bytes());
        self.raw(b"\"");
    }

    /// A value of several parts; only the end record has them.
    pub(super) fn value(&mut self, key: &[u8], value: &impl Serialize) {
        self.raw(key);
        let before = self.out.len();
        // Neither plain data nor a Vec can fail; should one, the line must still be JSON.
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.out.truncate(before);
            self.raw(b"null");
        }
    }

    pub(super) fn string(&mut self, key: &[u8], value: &str) {
        self.raw(key);
        self.text(value);
    }

    pub(super) fn number(&mut self, key: &[u8], value: impl itoa::Integer) {
        self.raw(key);
        self.digits(value);
    }

    /// Only when there is one.
    pub(super) fn optional(&mut self, key: &[u8], value: Option<impl itoa::Integer>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// A number that the schema wants as a string.
    pub(super) fn quoted(&mut self, key: &[u8], value: impl itoa::Integer) {
        self.raw(key);
        self.raw(b"\"");
        self.digits(value);
        self.raw(b"\"");
    }

    pub(super) fn boolean(&mut self, key: &[u8], value: bool) {
        self.raw(key);
        self.raw(if value { b"true".as_slice() } else { b"false" });
    }

    /// Only when it is set.
    pub(super) fn flag(&mut self, key: &[u8], value: bool) {
        if value {
            self.boolean(key, true);
        }
    }

    /// Permissions: four octal digits, as chmod(1) takes them.
    pub(super) fn mode(&mut self, key: &[u8], mode: impl Into<u32>) {
        let mode = mode.into();
        self.raw(key);
        self.raw(b"\"");
        self.raw(&[9, 6, 3, 0].map(|shift| HEX[(mode >> shift & 7) as usize]));
        self.raw(b"\"");
    }

    /// `major:minor`.
    pub(super) fn device(&mut self, key: &[u8], major: u32, minor: u32) {
        self.raw(key);
        self.raw(b"\"");
        self.digits(major);
        self.raw(b":");
        self.digits(minor);
        self.raw(b"\"");
    }

    /// A time in nanoseconds since 1970.
    pub(super) fn date(&mut self, key: &[u8], ns: impl Into<i128>, day: &mut Day) {
        self.raw(key);
        self.raw(b"\"");
        day.write(ns.into(), self.out);
        self.raw(b"\"");
    }

    pub(super) fn histogram(&mut self, key: &[u8], slots: &Histogram) {
        self.raw(key);
        for (i, count) in slots.iter().enumerate() {
            self.raw(if i == 0 { b"[" } else { b"," });
            self.digits(*count);
        }
        self.raw(b"]");
    }

    pub(super) fn text(&mut self, text: &str) {
        self.raw(b"\"");
        escape_into(self.out, text);
        self.raw(b"\"");
    }

    pub(super) fn digits(&mut self, value: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// `0x`, then lowercase without leading zeros.
    pub(super) fn hex(&mut self, value: impl Into<u64>) {
        let value = value.into();
        let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
        self.raw(b"0x");
        for place in (0..digits).rev() {
            self.out.push(HEX[(value >> (place * 4) & 0xf) as usize]);
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What JSON does not take as it is.
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends a string's inside.
pub(super) fn escape_into(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Nearly every name is clean. Without an early exit in a chunk, so that the compiler compares 16 bytes at once.
    let (chunks, rest) = bytes.as_chunks::<16>();
    let clean = |part: &[u8]| {
        !part
            .iter()
            .fold(false, |bad, byte| bad | needs_escape(*byte))
    };
    if chunks.iter().all(|chunk| clean(chunk)) && clean(rest) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut done = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        out.extend_from_slice(&bytes[done..i]);
        done = i + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
}
