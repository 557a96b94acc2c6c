//! Reads the two rings: on a timer that backs off, woken early for denials and when the ring fills.

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use libbpf_rs::{MapHandle, RingBuffer, RingBufferBuilder};
use rustix::event::epoll;

use super::refused;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::wire::{Decoder, Malformed};

/// Records per drain: bounds what is held in memory at once (about 400 bytes an event).
const BATCH: usize = 2048;
/// Waits between two looks into the rings: short while there is work, long when idle.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What a drain found.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    decoder: Decoder,
    /// Records that could not be decoded: short, long, unknown.
    pub(crate) malformed: [u64; 3],
}

impl Batch {
    fn take(&mut self, bytes: &[u8]) {
        match self.decoder.decode(bytes) {
            Ok(event) => self.events.push(event),
            Err(Malformed::Short) => self.malformed[0] += 1,
            Err(Malformed::Long) => self.malformed[1] += 1,
            Err(Malformed::Unknown) => self.malformed[2] += 1,
        }
    }
}

/// The consumer of both rings.
pub(crate) struct Rings {
    // Declared before `batch`: the rings' callbacks point into it and go first.
    denials: RingBuffer<'static>,
    events: RingBuffer<'static>,
    batch: *mut Batch,
    epoll: OwnedFd,
    wait: Duration,
}

// SAFETY: `batch` is owned by this value alone, and only reached through `&mut self`.
unsafe impl Send for Rings {}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings")
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl Rings {
    pub(crate) fn new(events: &MapHandle, denials: &MapHandle, decoder: Decoder) -> Result<Self> {
        let batch = Box::into_raw(Box::new(Batch {
            events: Vec::with_capacity(BATCH),
            decoder,
            malformed: [0; 3],
        }));
        let rings = ring(events, batch).and_then(|e| Ok((e, ring(denials, batch)?)));
        let (events_ring, denials_ring) = match rings {
            Ok(rings) => rings,
            Err(e) => {
                // SAFETY: from Box::into_raw above, and both rings that could hold it are gone.
                drop(unsafe { Box::from_raw(batch) });
                return Err(e);
            }
        };
        let failed = |e: rustix::io::Errno| {
            Error::new(ErrorKind::Io, format!("epoll on the event rings: {e}")).with_source(e)
        };
        let this = Rings {
            denials: denials_ring,
            events: events_ring,
            batch,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?,
            wait: WAIT_MIN,
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

    /// Takes what is in the rings, denials first; at most [`BATCH`] observations. Returns the batch to be emptied.
    pub(crate) fn drain(&mut self) -> Result<&mut Batch> {
        for ring in [&self.denials, &self.events] {
            let n = ring.consume_raw_n(BATCH);
            if n < 0 {
                return Err(refused(
                    "reading the event ring",
                    &libbpf_rs::Error::from_raw_os_error(-n),
                    &[],
                ));
            }
        }
        // SAFETY: `batch` came from Box::into_raw and lives until drop; the callbacks that also use it run in
        // consume_raw_n only, which has returned, and `&mut self` keeps others out.
        Ok(unsafe { &mut *self.batch })
    }

    /// Takes an emptied batch back, so that its memory is used again.
    pub(crate) fn give_back(&mut self, events: Vec<Event>) {
        // SAFETY: as in `drain`.
        let batch = unsafe { &mut *self.batch };
        if batch.events.capacity() < events.capacity() && batch.events.is_empty() {
            batch.events = events;
        }
    }

    /// Sleeps until there may be something to do: a wake-up from the kernel half, or the timer. `found` is what the last
    /// drain brought: nothing makes the next wait longer.
    pub(crate) fn sleep(&mut self, found: usize, at_most: Duration) -> Result<()> {
        self.wait = if found == 0 {
            (self.wait * 2).min(WAIT_MAX)
        } else {
            WAIT_MIN
        };
        if found >= BATCH {
            return Ok(()); // there is more
        }
        let wait = self.wait.min(at_most);
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
            Err(e) => {
                Err(Error::new(ErrorKind::Io, format!("waiting for events: {e}")).with_source(e))
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        // SAFETY: from Box::into_raw in `new`; the rings drop after this body but never run a callback again.
        drop(unsafe { Box::from_raw(self.batch) });
    }
}

fn ring(map: &MapHandle, batch: *mut Batch) -> Result<RingBuffer<'static>> {
    let mut builder = RingBufferBuilder::new();
    builder
        .add(map, move |bytes| {
            // SAFETY: called from consume_raw_n in `Rings::drain` only, while nothing else refers to the batch, which
            // lives as long as the ring.
            unsafe { (*batch).take(bytes) };
            // Never negative: that would end consumption.
            0
        })
        .map_err(|e| refused("the event ring", &e, &[]))?;
    builder
        .build()
        .map_err(|e| refused("the event ring", &e, &[]))
}
