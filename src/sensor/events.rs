//! Events one by one.

use super::{Sensor, WAIT};
use crate::error::Result;
use crate::event::Event;

/// The events of a sensor as they come; made by [`Sensor::events`]. Ends when a [`Stopper`](super::Stopper) says so, and
/// after an error.
#[derive(Debug)]
pub struct Events<'a> {
    sensor: &'a mut Sensor,
    failed: bool,
}

impl<'a> Events<'a> {
    pub(super) fn new(sensor: &'a mut Sensor) -> Self {
        Events {
            sensor,
            failed: false,
        }
    }

    /// The sensor, between two events.
    pub fn sensor(&mut self) -> &mut Sensor {
        self.sensor
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.sensor.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.failed || self.sensor.stopper.is_stopped() {
                return None;
            }
            let mut ready = std::mem::take(&mut self.sensor.ready);
            let polled = self
                .sensor
                .poll(WAIT, |event| ready.push_back(event.clone()));
            self.sensor.ready = ready;
            if let Err(e) = polled {
                self.failed = true;
                return Some(Err(e));
            }
        }
    }
}
