//! Reads the two rings: on a timer that follows the load, woken early for denials and when the ring fills.
//!
//! The rings' callbacks run inside libbpf, where a panic would end the process. They copy bytes and do nothing else;
//! decoding, and whatever the caller does with an event, comes after.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use libbpf_rs::{MapCore as _, MapHandle, RingBuffer, RingBufferBuilder};
use rustix::event::epoll;

use super::refused;
use crate::error::{Error, ErrorKind, Result};

/// What one drain takes from each ring: bounds the memory, and keeps the bytes in the cache until they are decoded. The
/// last record may go beyond (an exec has up to 49 KiB).
const BATCH_RECORDS: usize = 2048;
const BATCH_BYTES: usize = 256 * 1024;
/// A callback's word for "no more": the record was taken, libbpf stops after it. Any other negative result is an error.
const FULL: i32 = -rustix::io::Errno::NOBUFS.raw_os_error();

/// Waits between two looks into the rings: at first, at most while there is work, at most when there is none.
const WAIT_FIRST: Duration = Duration::from_millis(1);
const WAIT_BUSY: Duration = Duration::from_millis(10);
const WAIT_IDLE: Duration = Duration::from_millis(50);
/// So many waits are short whatever comes: who starts a session wants to see something.
const FIRST_WAITS: u32 = 100;

/// Records, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    /// Where each one is.
    at: Vec<Range<usize>>,
    /// What `at` was, while it is put in order.
    unordered: Vec<Range<usize>>,
}

impl Records {
    pub(crate) fn push(&mut self, record: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.at.push(start..self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.at.iter().map(|at| &self.bytes[at.clone()])
    }

    /// Puts the first ones, of one ring, where they belong by their time among those of the other; each ring's own order
    /// stays.
    fn merge(&mut self, first: usize) {
        if first == 0 || first == self.at.len() {
            return;
        }
        self.unordered.clear();
        self.unordered.append(&mut self.at);
        let (one, other) = self.unordered.split_at(first);
        let time = |at: &Range<usize>| time_of(&self.bytes[at.clone()]);
        let mut one = one.iter().peekable();
        for of_other in other {
            while let Some(earlier) = one.next_if(|at| time(at) < time(of_other)) {
                self.at.push(earlier.clone());
            }
            self.at.push(of_other.clone());
        }
        self.at.extend(one.cloned());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.at.clear();
    }
}

/// Every record begins with its header, and that with its time.
fn time_of(record: &[u8]) -> u64 {
    record
        .first_chunk()
        .map_or(0, |time| u64::from_ne_bytes(*time))
}

/// Where the callbacks put what they get.
#[derive(Debug, Default)]
struct Intake {
    records: Records,
    /// Bytes that end the drain.
    limit: usize,
}

impl Intake {
    /// A drain of the next ring begins.
    fn open(&mut self) {
        self.limit = self.records.bytes.len() + BATCH_BYTES;
    }

    /// The callback's work and its result.
    fn take(&mut self, record: &[u8]) -> i32 {
        self.records.push(record);
        if self.records.bytes.len() >= self.limit {
            FULL
        } else {
            0
        }
    }
}

/// Owns the [`Intake`] that the callbacks point into.
struct Shared(NonNull<Intake>);

// SAFETY: the intake is owned by this value alone and plain data; the rings' callbacks run in `Rings::drain` only, which
// has the value by `&mut`.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Self {
        Shared(NonNull::from(Box::leak(Box::default())))
    }

    fn get(&mut self) -> &mut Intake {
        // SAFETY: from a box in `new`, freed in `drop` only. The callbacks make references of their own inside
        // consume_raw_n only, during which `Rings::drain` holds none from here.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: from a box in `new`; nobody else frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// How long to wait before the next look into the rings. The kernel half wakes us when the ring of observations crosses
/// a quarter, so a wait that is too long costs its wake-up and nothing else.
#[derive(Debug)]
struct Pace {
    wait: Duration,
    /// Short waits that are left.
    first: u32,
    /// Bytes since the last wait.
    found: usize,
    /// More than this in one wait is much: an eighth of the ring, so that twice as long a wait stays below a quarter.
    much: usize,
}

impl Pace {
    fn new(ring_bytes: usize) -> Self {
        Pace {
            wait: WAIT_FIRST,
            first: FIRST_WAITS,
            found: 0,
            much: ring_bytes / 8,
        }
    }

    fn next(&mut self) -> Duration {
        let found = std::mem::take(&mut self.found);
        if self.first > 0 {
            self.first -= 1;
            return WAIT_FIRST;
        }
        self.wait = match found {
            0 => (self.wait * 2).min(WAIT_IDLE),
            n if n > self.much => (self.wait / 2).clamp(WAIT_FIRST, WAIT_BUSY),
            _ => (self.wait * 2).min(WAIT_BUSY),
        };
        self.wait
    }
}

/// The consumer of both rings.
pub(crate) struct Rings {
    // Declared before `shared`: the rings' callbacks point into it and go first.
    denials: RingBuffer<'static>,
    events: RingBuffer<'static>,
    shared: Shared,
    epoll: OwnedFd,
    pace: Pace,
    /// The last drain has left something behind.
    more: bool,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings")
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

impl Rings {
    pub(crate) fn new(events: &MapHandle, denials: &MapHandle) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let shared = Shared::new();
        let this = Rings {
            denials: ring(denials, &shared)?,
            events: ring(events, &shared)?,
            shared,
            epoll,
            pace: Pace::new(events.max_entries() as usize),
            more: false,
        };
        // Edge-triggered: level-triggered, a ring that is never empty would turn the consumer into a busy loop.
        for (fd, n) in [(events.as_fd(), 0), (denials.as_fd(), 1)] {
            epoll::add(
                &this.epoll,
                fd,
                epoll::EventData::new_u64(n),
                epoll::EventFlags::IN | epoll::EventFlags::ET,
            )
            .map_err(failed)?;
        }
        Ok(this)
    }

    /// Takes what is in the rings, in the order of time; a bounded part when there is much. It stays until the next drain.
    ///
    /// Denials are taken first, so that what led to one, such as the fork of its process, is there when it is.
    pub(crate) fn drain(&mut self) -> Result<&Records> {
        self.shared.get().records.clear();
        self.more = false;
        let mut denials = 0;
        for ring in [&self.denials, &self.events] {
            denials = self.shared.get().records.len();
            self.shared.get().open();
            let n = ring.consume_raw_n(BATCH_RECORDS);
            if n < 0 && n != FULL {
                return Err(refused(
                    "reading the event ring",
                    &libbpf_rs::Error::from_raw_os_error(-n),
                    &[],
                ));
            }
            self.more |= n == FULL || usize::try_from(n) == Ok(BATCH_RECORDS);
        }
        self.shared.get().records.merge(denials);
        let records = &self.shared.get().records;
        self.pace.found += records.bytes.len();
        Ok(records)
    }

    /// Whether the last look left something in the rings.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Sleeps until there may be something to do: a wake-up from the kernel half, or the timer, which follows what was
    /// found since the last time.
    pub(crate) fn sleep(&mut self, at_most: Duration) -> Result<()> {
        if self.more {
            return Ok(());
        }
        let wait = self.pace.next().min(at_most);
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut ready = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 4];
        match epoll::wait(&self.epoll, &mut ready, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

fn failed(e: rustix::io::Errno) -> Error {
    Error::new(ErrorKind::Io, format!("epoll on the event rings: {e}")).with_source(e)
}

fn ring(map: &MapHandle, shared: &Shared) -> Result<RingBuffer<'static>> {
    let intake = shared.0.as_ptr();
    let mut builder = RingBufferBuilder::new();
    builder
        .add(map, move |bytes| {
            // SAFETY: called from consume_raw_n in `Rings::drain` only, while nothing else refers to the intake, which
            // lives as long as the ring.
            unsafe { (*intake).take(bytes) }
        })
        .map_err(|e| refused("the event ring", &e, &[]))?;
    builder
        .build()
        .map_err(|e| refused("the event ring", &e, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_two_rings_are_put_in_the_order_of_time() {
        let mut records = Records::default();
        let push = |records: &mut Records, times: &[(u64, u8)]| {
            for (time, name) in times {
                records.push(&[&time.to_ne_bytes()[..], &[*name]].concat());
            }
        };
        let names =
            |records: &Records| -> String { records.iter().map(|r| char::from(r[8])).collect() };
        push(&mut records, &[(5, b'A'), (9, b'B'), (9, b'C')]);
        // Of one ring they stay as they came, whatever their times are.
        push(&mut records, &[(3, b'a'), (6, b'b'), (4, b'c'), (9, b'd')]);
        records.merge(3);
        assert_eq!(names(&records), "aAbcdBC");
        records.clear();
        push(&mut records, &[(5, b'A'), (4, b'B')]);
        records.merge(2);
        assert_eq!(names(&records), "AB");
        records.merge(0);
        assert_eq!(names(&records), "AB");
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let mut records = Records::default();
        for record in [b"one".as_slice(), b"", b"three"] {
            records.push(record);
        }
        assert_eq!(records.len(), 3);
        assert!(records.iter().eq([b"one".as_slice(), b"", b"three"]));
        records.clear();
        assert_eq!((records.len(), records.iter().count()), (0, 0));
    }

    #[test]
    fn a_drain_is_bounded_in_bytes_and_keeps_the_record_that_fills_it() {
        let largest = vec![7; 49 * 1024];
        let mut intake = Intake::default();
        // What the ring of denials brought leaves the other ring its full share.
        for _ in 0..2 {
            let before = intake.records.len();
            intake.open();
            let taken = (1..).find(|_| intake.take(&largest) == FULL);
            assert_eq!(taken, Some(BATCH_BYTES.div_ceil(largest.len())));
            assert_eq!(intake.records.len() - before, taken.unwrap());
        }
        assert!(intake.records.bytes.len() < 2 * (BATCH_BYTES + largest.len()));
        assert!(intake.records.iter().all(|r| r == largest));
    }

    /// The waits while each one brings so many bytes.
    fn waits(pace: &mut Pace, found: impl Iterator<Item = usize>) -> Vec<u128> {
        found
            .map(|n| {
                pace.found += n;
                pace.next().as_millis()
            })
            .collect()
    }

    #[test]
    fn the_wait_follows_the_load() {
        const RING: usize = 8 << 20;
        let mut pace = Pace::new(RING);
        let first = FIRST_WAITS as usize;
        assert!(
            waits(&mut pace, [0, RING].into_iter().cycle().take(first))
                .iter()
                .all(|ms| *ms == 1)
        );
        assert_eq!(
            waits(&mut pace, [0; 7].into_iter()),
            [2, 4, 8, 16, 32, 50, 50]
        );
        assert_eq!(waits(&mut pace, [1, 1, 0, 1].into_iter()), [10, 10, 20, 10]);
        assert_eq!(waits(&mut pace, [RING / 4; 5].into_iter()), [5, 2, 1, 1, 1]);
        assert_eq!(
            waits(&mut pace, [RING / 16; 5].into_iter()),
            [2, 4, 8, 10, 10]
        );
    }

    #[test]
    fn what_several_drains_found_counts_together() {
        let mut pace = Pace::new(1 << 20);
        pace.first = 0;
        pace.wait = WAIT_BUSY;
        pace.found += 100 << 10;
        pace.found += 100 << 10;
        assert!(pace.next() < WAIT_BUSY);
    }
}
