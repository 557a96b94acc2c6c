//! Events for asynchronous programs, whatever their runtime is.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use futures_core::Stream;

use super::{Sensor, Stopper, WAIT};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Certificate, Event};

/// The events of a sensor as a stream; made by [`Sensor::into_stream`]. It ends when a [`Stopper`] says so, and after an
/// error. Dropping it ends the thread that reads for it, and detaches everything.
pub struct EventStream {
    shared: Arc<Shared>,
    stopper: Stopper,
    reader: Option<JoinHandle<Result<Certificate>>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// Between the thread that reads and the task that takes.
struct Shared {
    queue: Mutex<Queue>,
    /// There is room again, or nobody takes any more.
    room: Condvar,
    waiting: usize,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Result<Event>>,
    task: Option<Waker>,
    /// Nothing comes any more.
    ended: bool,
    /// Nobody takes any more.
    deserted: bool,
}

impl Shared {
    /// Nobody panics while holding it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room; drops the event when nobody takes any more.
    fn put(&self, event: Result<Event>) {
        let full = |queue: &mut Queue| queue.events.len() >= self.waiting && !queue.deserted;
        let mut queue = self
            .room
            .wait_while(self.lock(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.deserted {
            return;
        }
        queue.events.push_back(event);
        wake(queue);
    }

    fn end(&self) {
        let mut queue = self.lock();
        queue.ended = true;
        wake(queue);
    }
}

/// Tells the task that something has come, after letting go of what it will ask for.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let task = queue.task.take();
    drop(queue);
    if let Some(task) = task {
        task.wake();
    }
}

impl EventStream {
    pub(super) fn new(sensor: Sensor, waiting: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            room: Condvar::new(),
            waiting: waiting.max(1),
        });
        let stopper = sensor.stopper();
        let to = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("stockade".into())
            .spawn(move || {
                let result = read(sensor, &to);
                to.end();
                result
            })
            .map_err(|e| Error::new(ErrorKind::Io, "a thread for the stream").with_source(e))?;
        Ok(EventStream {
            shared,
            stopper,
            reader: Some(reader),
        })
    }

    /// What ends it from anywhere: what had arrived by then still comes.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The end record of a stream that has ended. What nobody has taken yet is dropped, so take until `None` first.
    ///
    /// # Errors
    ///
    /// What the stream ended with; as [`Sensor::stop`].
    pub fn finish(mut self) -> Result<Certificate> {
        self.desert();
        match self.reader.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // The thread has panicked: a defect, and its message is on stderr.
            _ => Err(Error::new(
                ErrorKind::Io,
                "the thread of the stream has failed",
            )),
        }
    }

    fn desert(&self) {
        self.stopper.stop();
        self.shared.lock().deserted = true;
        self.shared.room.notify_all();
    }
}

fn read(mut sensor: Sensor, to: &Shared) -> Result<Certificate> {
    let stopper = sensor.stopper();
    while !stopper.is_stopped() {
        if let Err(e) = sensor.poll(WAIT, |event| to.put(Ok(event.clone()))) {
            let again = Error::new(e.kind(), e.to_string());
            to.put(Err(e));
            return Err(again);
        }
    }
    sensor.stop(|event| to.put(Ok(event.clone())))
}

impl Stream for EventStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.shared.lock();
        if let Some(event) = queue.events.pop_front() {
            drop(queue);
            self.shared.room.notify_one();
            return Poll::Ready(Some(event));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        queue.task = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.desert();
        if let Some(reader) = self.reader.take() {
            // Its end record goes with it.
            let _ = reader.join();
        }
    }
}
