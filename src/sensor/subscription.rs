//! Events of chosen kinds, sent to other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, KINDS};

/// Events of chosen kinds; made by [`Sensor::subscribe`](super::Sensor::subscribe). As an iterator it waits for each and
/// ends when the sensor is gone.
#[derive(Debug)]
pub struct Subscription {
    events: Receiver<Arc<Event>>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// The next event, waiting at most so long; `None` when none has come, or the sensor is gone.
    #[must_use]
    pub fn next_within(&self, wait: Duration) -> Option<Arc<Event>> {
        self.events.recv_timeout(wait).ok()
    }

    /// The next event if it is there.
    #[must_use]
    pub fn try_next(&self) -> Option<Arc<Event>> {
        self.events.try_recv().ok()
    }

    /// How many events came while too many were waiting.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Iterator for Subscription {
    type Item = Arc<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.events.recv().ok()
    }
}

#[derive(Debug)]
struct Subscriber {
    kinds: Vec<&'static str>,
    events: SyncSender<Arc<Event>>,
    missed: Arc<AtomicU64>,
}

/// Everybody who holds a subscription.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Vec<Subscriber>);

impl Subscribers {
    pub(super) fn add(&mut self, kinds: &[&str], waiting: usize) -> Result<Subscription> {
        let kinds = kinds
            .iter()
            .map(|wanted| {
                let known = KINDS.iter().find(|kind| *kind == wanted);
                known.copied().ok_or_else(|| {
                    Error::new(
                        ErrorKind::Usage,
                        format!("there is no kind of event \"{wanted}\""),
                    )
                    .with_hint(format!("the kinds are {}", KINDS.join(", ")))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        // A channel without room hands over to whoever waits at that moment: nobody does.
        let (sender, receiver) = sync_channel(waiting.max(1));
        let missed = Arc::new(AtomicU64::new(0));
        self.0.push(Subscriber {
            kinds,
            events: sender,
            missed: Arc::clone(&missed),
        });
        Ok(Subscription {
            events: receiver,
            missed,
        })
    }

    pub(super) fn send(&mut self, event: &Event) {
        if self.0.is_empty() {
            return;
        }
        let name = event.kind.name();
        let mut shared: Option<Arc<Event>> = None;
        self.0.retain(|subscriber| {
            if !subscriber.kinds.contains(&name) {
                return true;
            }
            let event = shared.get_or_insert_with(|| Arc::new(event.clone()));
            match subscriber.events.try_send(Arc::clone(event)) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    subscriber.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn subscription_gets_its_kinds_in_order_and_ends_with_the_sensor() {
        let events = sample::samples();
        let mut subscribers = Subscribers::default();
        let subscription = subscribers.add(&["open", "loss"], 1000).unwrap();
        events.iter().for_each(|event| subscribers.send(event));
        drop(subscribers);
        let got: Vec<_> = subscription.map(|e| (*e).clone()).collect();
        let wanted: Vec<_> = events
            .into_iter()
            .filter(|e| ["open", "loss"].contains(&e.kind.name()))
            .collect();
        assert!(!got.is_empty());
        assert_eq!(got, wanted);
    }

    #[test]
    fn who_does_not_take_misses_and_is_told() {
        let event = sample::samples().remove(0);
        let mut subscribers = Subscribers::default();
        let subscription = subscribers.add(&[event.kind.name()], 2).unwrap();
        (0..5).for_each(|_| subscribers.send(&event));
        assert_eq!(subscription.missed(), 3);
        assert_eq!(subscription.try_next().as_deref(), Some(&event));
        assert!(subscription.next_within(Duration::ZERO).is_some());
        assert!(subscription.try_next().is_none());
        // Who has let go is forgotten.
        drop(subscription);
        subscribers.send(&event);
        assert!(subscribers.0.is_empty());
    }

    #[test]
    fn unknown_kind_is_refused_with_those_that_there_are() {
        let error = Subscribers::default()
            .add(&["exec", "opens"], 1)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint().unwrap_or_default().contains("open"), "{error}");
    }
}
