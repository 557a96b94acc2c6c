//! The library's front door: a session with what programs around it need.
//!
//! A [`Sensor`] is built, attached, and then gives its events in one of three ways: to a callback ([`Sensor::poll`]), as
//! an iterator ([`Sensor::events`]), or, with the feature `stream`, as an asynchronous stream
//! ([`Sensor::into_stream`]). Whichever it is, subscriptions, the buffer of recent events and the counters by process
//! see the same events. It can be moved to a thread of its own; a [`Stopper`] ends it from anywhere, and dropping it
//! detaches everything.

mod counters;
mod events;
#[cfg(feature = "stream")]
mod stream;
mod subscription;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use counters::ProcessCounters;
pub use events::Events;
#[cfg(feature = "stream")]
pub use stream::EventStream;
pub use subscription::Subscription;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Certificate, Clock, Event, FenceState, LoadedProgram, ProbeState, Statistics};
use crate::launch::Held;
use crate::monitor::{Filter, Watch};
use crate::policy::RuleSet;
use crate::scope::Scope;
use crate::session::{Sampling, Session, SessionBuilder};
use counters::Counters;
use subscription::Subscribers;

/// A wait that is over before a person notices that the end was asked for.
const WAIT: Duration = Duration::from_millis(50);

/// What a sensor is to do; made by [`Sensor::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SensorBuilder {
    session: SessionBuilder,
    recent: usize,
    counters: bool,
    count_runs: bool,
}

impl SensorBuilder {
    /// Who is watched and fenced.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.session = self.session.scope(scope);
        self
    }

    /// Adds a monitor, in its usual form or as [`Monitor::form`](crate::Monitor::form) makes it.
    pub fn monitor(mut self, watch: impl Into<Watch>) -> Self {
        self.session = self.session.monitor(watch);
        self
    }

    /// What is wanted of what the monitors could report; everything where it is not set.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.session = self.session.filter(filter);
        self
    }

    /// How often summaries are told; every 10 seconds where it is not set.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.session = self.session.interval(interval);
        self
    }

    /// The scope is this command, as [`SessionBuilder::command`] has it.
    pub fn command(mut self, held: &Held) -> Self {
        self.session = self.session.command(held);
        self
    }

    /// The policy to enforce on the scope.
    pub fn policy(mut self, policy: RuleSet) -> Self {
        self.session = self.session.policy(policy);
        self
    }

    /// Size of the ring for observations in bytes, as [`SessionBuilder::ring_bytes`].
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.session = self.session.ring_bytes(bytes);
        self
    }

    /// Whom to listen to when not everybody can be heard.
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.session = self.session.sampling(sampling);
        self
    }

    /// How many events a process may send in a second, as [`SessionBuilder::process_limit`].
    pub fn process_limit(mut self, events: u32) -> Self {
        self.session = self.session.process_limit(events);
        self
    }

    /// Keeps so many of the last events for [`Sensor::recent`]; none where it is not set.
    pub fn recent(mut self, events: usize) -> Self {
        self.recent = events;
        self
    }

    /// Counts by process, for [`Sensor::processes`].
    pub fn counters(mut self) -> Self {
        self.counters = true;
        self
    }

    /// Has the kernel count the runs of programs, for [`Sensor::programs`]; see [`Session::count_runs`] for the price.
    pub fn count_runs(mut self) -> Self {
        self.count_runs = true;
        self
    }

    /// A sensor that is not attached yet.
    #[must_use]
    pub fn build(self) -> Sensor {
        Sensor {
            plan: Some(self.session),
            session: None,
            count_runs: self.count_runs,
            ears: Ears {
                subscribers: Subscribers::default(),
                recent: VecDeque::new(),
                keep: self.recent,
                counters: self.counters.then(Counters::default),
            },
            ready: VecDeque::new(),
            stopper: Stopper::default(),
        }
    }
}

/// What became of everything that was to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Every probe, by which variant it is attached or why it is not.
    pub probes: Vec<ProbeState>,
    /// The fence, as it was armed and proved.
    pub fence: Option<FenceState>,
}

impl Report {
    /// The probes that this kernel cannot have: what they would report goes unseen.
    pub fn unavailable(&self) -> impl Iterator<Item = &ProbeState> {
        self.probes
            .iter()
            .filter(|p| p.state == crate::event::Attachment::Unavailable)
    }
}

/// Ends a sensor's iterator or stream from another thread.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// The sensor ends within its next wait, 50 ms at most.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody has asked for the end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Who hears the events besides the caller.
#[derive(Debug)]
struct Ears {
    subscribers: Subscribers,
    recent: VecDeque<Event>,
    keep: usize,
    counters: Option<Counters>,
}

impl Ears {
    fn hear(&mut self, event: &Event) {
        self.subscribers.send(event);
        if self.keep > 0 {
            if self.recent.len() == self.keep {
                self.recent.pop_front();
            }
            self.recent.push_back(event.clone());
        }
        if let Some(counters) = &mut self.counters {
            counters.count(event);
        }
    }
}

/// Monitors and, where asked for, a fence, with everything around them; see the [module](self).
///
/// ```no_run
/// use stockade::{Monitor, Scope, Sensor};
///
/// # fn main() -> stockade::Result<()> {
/// let mut sensor = Sensor::builder()
///     .scope(Scope::new().tree(1234))
///     .monitor(Monitor::Process)
///     .monitor(Monitor::Network)
///     .recent(100)
///     .build();
/// let report = sensor.attach()?;
/// for probe in report.unavailable() {
///     eprintln!("{}: {}", probe.name, probe.reason.as_deref().unwrap_or("unavailable"));
/// }
/// for event in sensor.events() {
///     println!("{}", event?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sensor {
    /// Until it is attached.
    plan: Option<SessionBuilder>,
    session: Option<Session>,
    count_runs: bool,
    ears: Ears,
    /// Taken in, and not yet given out by the iterator.
    ready: VecDeque<Event>,
    stopper: Stopper,
}

impl Sensor {
    /// A sensor that does nothing yet.
    pub fn builder() -> SensorBuilder {
        SensorBuilder {
            session: Session::builder(),
            recent: 0,
            counters: false,
            count_runs: false,
        }
    }

    /// Attaches everything, once. When this fails, nothing stays behind.
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::start`]; and [`Usage`](ErrorKind::Usage) when it was attached before.
    pub fn attach(&mut self) -> Result<Report> {
        let plan = self.plan.take().ok_or_else(|| {
            Error::new(ErrorKind::Usage, "the sensor was attached before")
                .with_hint("build another one")
        })?;
        let mut session = plan.start()?;
        if self.count_runs {
            session.count_runs()?;
        }
        let report = Report {
            probes: session.probes().to_vec(),
            fence: session.fence().cloned(),
        };
        self.session = Some(session);
        Ok(report)
    }

    /// Waits up to `at_most`, and never longer than 50 ms, then lends what has arrived to `on` and returns how many
    /// events that were. Lending allocates nothing.
    ///
    /// # Errors
    ///
    /// As [`Session::poll`]; and [`Usage`](ErrorKind::Usage) when the sensor is not attached.
    pub fn poll(&mut self, at_most: Duration, mut on: impl FnMut(&Event)) -> Result<usize> {
        let session = self.session.as_mut().ok_or_else(not_attached)?;
        let ears = &mut self.ears;
        session.poll(at_most, &mut |event| {
            ears.hear(event);
            on(event);
        })
    }

    /// The events as they come, waiting for each, until a [`Stopper`] ends it.
    pub fn events(&mut self) -> Events<'_> {
        Events::new(self)
    }

    /// The events as a stream, read by a thread of its own; at most `waiting` of them wait there, then the kernel's ring
    /// fills. Dropping the stream detaches everything.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the sensor is not attached. [`Io`](ErrorKind::Io): there can be no thread.
    #[cfg(feature = "stream")]
    pub fn into_stream(self, waiting: usize) -> Result<EventStream> {
        if self.session.is_none() {
            return Err(not_attached());
        }
        EventStream::new(self, waiting)
    }

    /// What ends [`events`](Sensor::events) and the stream, from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Sends events of these kinds, from now on, to whoever holds the subscription, as long as somebody drives the
    /// sensor. At most `waiting` of them wait to be taken; what comes then is missed, and counted.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): there is no such kind; [`KINDS`](crate::event::KINDS) lists them.
    pub fn subscribe(&mut self, kinds: &[&str], waiting: usize) -> Result<Subscription> {
        self.ears.subscribers.add(kinds, waiting)
    }

    /// The last events, oldest first: as many as [`SensorBuilder::recent`] keeps.
    pub fn recent(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.ears.recent.iter()
    }

    /// What each process did, those that have ended among them: at most 65,536, of which ended ones give way first.
    /// Nothing without [`SensorBuilder::counters`].
    pub fn processes(&self) -> impl Iterator<Item = &ProcessCounters> {
        self.ears.counters.iter().flat_map(Counters::iter)
    }

    /// The programs that are attached, with their runs when those are counted.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the sensor is not attached. [`Load`](ErrorKind::Load): the kernel does not tell.
    pub fn programs(&self) -> Result<Vec<LoadedProgram>> {
        self.session.as_ref().ok_or_else(not_attached)?.programs()
    }

    /// What was delivered so far, and what not.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the sensor is not attached.
    pub fn statistics(&self) -> Result<Statistics> {
        Ok(self.session.as_ref().ok_or_else(not_attached)?.statistics())
    }

    /// Turns the events' times into wall-clock time.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the sensor is not attached.
    pub fn clock(&self) -> Result<&Clock> {
        Ok(self.session.as_ref().ok_or_else(not_attached)?.clock())
    }

    /// Takes in a process without its children; see [`Session::follow`].
    ///
    /// # Errors
    ///
    /// As [`Session::follow`]; and [`Usage`](ErrorKind::Usage) when the sensor is not attached.
    pub fn add_pid(&mut self, pid: u32) -> Result<()> {
        self.session()?.follow(Scope::new().pid(pid))
    }

    /// Takes in a process with all that it has started and will start.
    ///
    /// # Errors
    ///
    /// As [`add_pid`](Sensor::add_pid).
    pub fn add_tree(&mut self, pid: u32) -> Result<()> {
        self.session()?.follow(Scope::new().tree(pid))
    }

    /// Lets go of a process; its children stay.
    ///
    /// # Errors
    ///
    /// As [`add_pid`](Sensor::add_pid).
    pub fn remove_pid(&mut self, pid: u32) -> Result<()> {
        self.session()?.unfollow(Scope::new().pid(pid))
    }

    /// Lets go of a process and of all that hangs below it now.
    ///
    /// # Errors
    ///
    /// As [`add_pid`](Sensor::add_pid).
    pub fn remove_tree(&mut self, pid: u32) -> Result<()> {
        self.session()?.unfollow(Scope::new().tree(pid))
    }

    /// Detaches everything, hands over what the iterator has not given out and what was still in the rings, and says
    /// whether the picture is complete.
    ///
    /// # Errors
    ///
    /// As [`Session::end`]; and [`Usage`](ErrorKind::Usage) when the sensor is not attached.
    pub fn stop(mut self, mut on: impl FnMut(&Event)) -> Result<Certificate> {
        let session = self.session.take().ok_or_else(not_attached)?;
        self.ready.iter().for_each(&mut on);
        let ears = &mut self.ears;
        session.end(&mut |event| {
            ears.hear(event);
            on(event);
        })
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(not_attached)
    }
}

fn not_attached() -> Error {
    Error::new(ErrorKind::Usage, "the sensor is not attached").with_hint("call attach first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    fn sensor() -> SensorBuilder {
        Sensor::builder().scope(Scope::new().host())
    }

    #[test]
    fn sensor_can_go_to_another_thread() {
        fn goes<T: Send>() {}
        goes::<Sensor>();
        goes::<Subscription>();
    }

    #[test]
    fn what_needs_a_kernel_says_that_it_is_not_attached() {
        let mut sensor = sensor().build();
        let refusals = [
            sensor.poll(Duration::ZERO, |_| ()).map(|_| ()),
            sensor.programs().map(|_| ()),
            sensor.statistics().map(|_| ()),
            sensor.add_pid(1),
            sensor.remove_tree(1),
            sensor.events().next().expect("an answer").map(|_| ()),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(sensor.stop(|_| ()).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn recent_events_are_the_last_ones() {
        let mut sensor = sensor().recent(3).build();
        let events = sample::samples();
        events.iter().for_each(|event| sensor.ears.hear(event));
        assert_eq!(sensor.recent().len(), 3);
        assert!(sensor.recent().eq(&events[events.len() - 3..]));
    }

    #[test]
    fn nothing_is_kept_that_was_not_asked_for() {
        let mut sensor = sensor().build();
        sample::samples()
            .iter()
            .for_each(|event| sensor.ears.hear(event));
        assert_eq!((sensor.recent().len(), sensor.processes().count()), (0, 0));
    }
}
