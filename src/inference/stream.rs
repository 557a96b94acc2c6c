//! DNS over TCP: messages with their length in front, in calls that end wherever they like.

use std::collections::{HashMap, VecDeque};

use super::{Line, Lost};

/// Streams that are in the middle of a message.
const STREAMS: usize = 256;
/// So much of one message is kept; answers are told up to 64 records in any case.
const KEPT: usize = 16 * 1024;

/// What one call has moved.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) bytes: &'a [u8],
    /// More than there are bytes, where the kernel half has cut them.
    pub(super) moved: usize,
}

/// A direction of a conversation.
type Key = (Line, bool);

#[derive(Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Bytes of a message that was told already.
    skip: usize,
    /// Where the next message begins is not known any more.
    astray: bool,
}

/// The streams that are in the middle of a message.
#[derive(Debug, Default)]
pub(super) struct Streams {
    of: HashMap<Key, Stream>,
    order: VecDeque<Key>,
}

impl Streams {
    /// Hands each message to `on`, and whether it is whole.
    pub(super) fn add(
        &mut self,
        key: Key,
        turn: &Turn<'_>,
        lost: &mut Lost,
        on: &mut dyn FnMut(&[u8], bool),
    ) {
        let known = self.of.remove(&key);
        if known.is_some() {
            self.order.retain(|k| *k != key);
        }
        let mut stream = known.unwrap_or_default();
        if !stream.add(turn, on) {
            *lost.entry(("dns", "parse")).or_default() += 1;
        }
        if stream.bytes.is_empty() && stream.skip == 0 && !stream.astray {
            return;
        }
        if self.of.len() == STREAMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.of.remove(&oldest);
            *lost.entry(("dns", "map")).or_default() += 1;
        }
        self.of.insert(key, stream);
        self.order.push_back(key);
    }

    pub(super) fn close(&mut self, line: Line) {
        for sent in [false, true] {
            if self.of.remove(&(line, sent)).is_some() {
                self.order.retain(|k| *k != (line, sent));
            }
        }
    }
}

impl Stream {
    /// Whether it is still known where messages begin.
    fn add(&mut self, turn: &Turn<'_>, on: &mut dyn FnMut(&[u8], bool)) -> bool {
        if self.astray {
            return true;
        }
        let skipped = self.skip.min(turn.bytes.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(&turn.bytes[skipped..]);
        let mut told = 0;
        while let Some((len, rest)) = self.bytes[told..].split_first_chunk()
            && let Some(message) = rest.get(..usize::from(u16::from_be_bytes(*len)))
        {
            on(message, true);
            told += 2 + message.len();
        }
        self.bytes.drain(..told);
        if self.bytes.len() > 2 + KEPT {
            self.tell_start(on);
        }
        let mut missing = turn.moved.saturating_sub(turn.bytes.len());
        if missing == 0 {
            return true;
        }
        self.tell_start(on);
        // What is missing may end inside the message that was told; behind it, nobody knows.
        let inside = missing.min(self.skip);
        self.skip -= inside;
        missing -= inside;
        self.astray = missing > 0 || !self.bytes.is_empty();
        if self.astray {
            self.bytes = Vec::new();
        }
        !self.astray
    }

    /// Tells as much of the message as there is, if its length is known; the rest is skipped when it comes.
    fn tell_start(&mut self, on: &mut dyn FnMut(&[u8], bool)) {
        if let Some((len, start)) = self.bytes.split_first_chunk() {
            on(start, false);
            self.skip = usize::from(u16::from_be_bytes(*len)).saturating_sub(start.len());
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ProcessId, Transport};

    fn key(port: u16) -> Key {
        let line = Line {
            process: ProcessId::new(1, 1),
            transport: Transport::Tcp,
            local_port: port,
            remote: ([127, 0, 0, 1], 53).into(),
        };
        (line, true)
    }

    fn message(len: u16, fill: u8) -> Vec<u8> {
        let mut out = len.to_be_bytes().to_vec();
        out.extend(std::iter::repeat_n(fill, usize::from(len)));
        out
    }

    #[test]
    fn of_a_message_that_was_cut_the_start_is_told_and_the_next_one_is_found() {
        let mut streams = Streams::default();
        let mut lost = Lost::new();
        let mut told = Vec::new();
        let long = message(6000, b'l');
        let short = message(3, b's');
        let mut add = |bytes: &[u8], moved, told: &mut Vec<_>| {
            let turn = Turn { bytes, moved };
            streams.add(key(1), &turn, &mut lost, &mut |m, whole| {
                told.push((m.len(), m.first().copied(), whole));
            });
        };
        // The kernel half brings 4096 of 5000 bytes; the rest and another message come later.
        add(&long[..4096], 5000, &mut told);
        let rest = [&long[5000..], &short].concat();
        add(&rest, rest.len(), &mut told);
        assert_eq!(told, [(4094, Some(b'l'), false), (3, Some(b's'), true)]);
        // More is missing than the message had: nothing more can be told, and that is counted once.
        told.clear();
        add(&short[..3], 100, &mut told);
        add(&short, short.len(), &mut told);
        assert_eq!(told, [(1, Some(b's'), false)]);
        assert_eq!(lost[&("dns", "parse")], 1);
    }

    #[test]
    fn long_messages_and_many_streams_are_bounded() {
        let mut streams = Streams::default();
        let mut lost = Lost::new();
        let mut told = Vec::new();
        let huge = message(u16::MAX, b'h');
        for part in huge.chunks(4000) {
            let turn = Turn {
                bytes: part,
                moved: part.len(),
            };
            streams.add(key(1), &turn, &mut lost, &mut |m, whole| {
                told.push((m.len(), whole))
            });
        }
        assert_eq!(told.len(), 1);
        assert!(told[0].0 < KEPT + 4000 && !told[0].1, "{told:?}");
        assert!(streams.of.is_empty());
        for port in 0..1000 {
            let turn = Turn {
                bytes: &[9],
                moved: 1,
            };
            streams.add(key(port), &turn, &mut lost, &mut |_, _| {
                panic!("no message")
            });
        }
        assert_eq!((streams.of.len(), streams.order.len()), (STREAMS, STREAMS));
        assert_eq!(lost[&("dns", "map")], 1000 - STREAMS as u64);
        streams.close(key(999).0);
        assert_eq!(streams.of.len(), STREAMS - 1);
    }
}
