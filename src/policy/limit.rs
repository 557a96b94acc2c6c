//! Limits: how much of something may be done in a time, and the bucket that says when it is too much.

use std::fmt;

use serde::Serialize;

use super::evaluate::{Answer, Verdict};
use super::{Called, Mode, Refusal, SystemCall};

/// Something that limits count, besides system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Thing {
    /// New processes.
    Forks,
    /// New threads.
    Threads,
    /// Connections that are begun: streams, over whatever network.
    Connections,
    /// Bytes that are handed to sockets to be sent over a network.
    Bytes,
}

impl Thing {
    /// All of them, as the kernel half numbers them.
    pub const ALL: [Thing; 4] = [
        Thing::Forks,
        Thing::Threads,
        Thing::Connections,
        Thing::Bytes,
    ];

    /// The word for it in a policy document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Thing::Forks => "forks",
            Thing::Threads => "threads",
            Thing::Connections => "connections",
            Thing::Bytes => "bytes",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Thing::ALL.into_iter().find(|thing| thing.name() == name)
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a system call makes that is counted, whatever it is asked for.
pub(super) fn made_by(call: &SystemCall) -> &'static [Thing] {
    match call.usual_name() {
        "fork" | "vfork" => &[Thing::Forks],
        "clone" | "clone3" => &[Thing::Forks, Thing::Threads],
        "connect" => &[Thing::Connections],
        "sendto" | "sendmsg" | "sendmmsg" => &[Thing::Connections, Thing::Bytes],
        "write" | "writev" | "pwritev2" | "sendfile" | "splice" => &[Thing::Bytes],
        _ => &[],
    }
}

/// What a limit counts: all of it together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Counted {
    /// Things; never empty, each once, in their order.
    Limit(Vec<Thing>),
    /// System calls; never empty.
    Syscall(Vec<Called>),
}

impl Counted {
    /// Whether some of it is done on a network.
    pub(super) fn is_of_network(&self) -> bool {
        let of_network = |thing: &Thing| matches!(thing, Thing::Connections | Thing::Bytes);
        matches!(self, Counted::Limit(things) if things.iter().any(of_network))
    }

    /// What is answered if nothing else is said: of new processes and threads EAGAIN, as where the kernel's own limits are
    /// exceeded.
    pub(super) fn errno(&self) -> u16 {
        const EAGAIN: u16 = 11;
        match self {
            Counted::Limit(_) if !self.is_of_network() => EAGAIN,
            _ => Refusal::default().errno,
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, all: &[impl fmt::Display]) -> fmt::Result {
            for (n, one) in all.iter().enumerate() {
                write!(f, "{}{one}", if n == 0 { "" } else { "," })?;
            }
            Ok(())
        }
        match self {
            Counted::Limit(things) => list(f, things),
            Counted::Syscall(calls) => list(f, calls),
        }
    }
}

/// The time in which what was done comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Period {
    /// All of them.
    pub const ALL: [Period; 3] = [Period::Second, Period::Minute, Period::Hour];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Period::Second => "second",
            Period::Minute => "minute",
            Period::Hour => "hour",
        }
    }

    /// How long it is, in nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        match self {
            Period::Second => 1_000_000_000,
            Period::Minute => 60_000_000_000,
            Period::Hour => 3_600_000_000_000,
        }
    }

    /// The most that can be counted in it: the kernel half counts in parts of nanoseconds, with one bit to spare.
    pub(super) const fn most(self) -> u64 {
        (u64::MAX >> 1) / self.ns()
    }
}

/// A rule about how much of something may be done in a time.
///
/// It is a token bucket: it holds `burst` at first and at most, what is done is taken out of it, and `rate` come back in
/// each period, evenly. What is not in it is refused and takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitRule {
    /// What the rule is called in events and messages; unique in its set.
    pub id: String,
    /// What is counted.
    pub counted: Counted,
    /// How many come back in a period; never 0.
    pub rate: u64,
    /// How long that takes.
    pub period: Period,
    /// How many can be done at once; never 0.
    pub burst: u64,
    /// Each process has a bucket of its own; else there is one for all who are fenced.
    pub each: bool,
    /// Whether the rule refuses or reports; the document's mode is already worked in.
    pub mode: Mode,
    /// How it refuses. System calls cannot be refused: whoever makes them is killed, or it is reported.
    pub refusal: Refusal,
    /// The line of the document on which the rule starts, from 1.
    pub line: u32,
}

impl LimitRule {
    /// How many limits a policy has room for: so many for all together, and as many for each process.
    pub const MAX: usize = 8;

    /// Whether it counts this system call.
    #[must_use]
    pub fn counts_call(&self, call: &SystemCall) -> bool {
        match &self.counted {
            Counted::Syscall(calls) => calls.iter().any(|called| called.means(call)),
            Counted::Limit(_) => false,
        }
    }

    /// Whether it counts system calls.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn counts_calls(&self) -> bool {
        matches!(self.counted, Counted::Syscall(_))
    }

    /// Whether it counts this.
    #[must_use]
    pub fn counts(&self, thing: Thing) -> bool {
        matches!(&self.counted, Counted::Limit(things) if things.contains(&thing))
    }

    /// A full bucket.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use stockade::policy::{Environment, RuleSet, Verdict};
    ///
    /// let text = "version: 1\nlimits:\n  - { id: few, limit: forks, per_second: 10, burst: 2 }\n";
    /// let set = RuleSet::parse(text, "p.yaml", &Environment::new(None, PathBuf::from("/")))?;
    /// let mut bucket = set.limits[0].bucket();
    /// let forks = [0, 0, 0, 100_000_000].map(|ns| bucket.take(ns, 1));
    /// assert_eq!(forks, [Verdict::Allow, Verdict::Allow, Verdict::Deny, Verdict::Allow]);
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn bucket(&self) -> Bucket<'_> {
        Bucket {
            rule: self,
            parts: self.full(),
            since_ns: None,
        }
    }

    /// Whether this one lets through all that the other one does.
    pub(super) fn is_looser_than(&self, other: &LimitRule) -> bool {
        let more = |a: (u64, Period), b: (u64, Period)| {
            u128::from(a.0) * u128::from(b.1.ns()) >= u128::from(b.0) * u128::from(a.1.ns())
        };
        self.each == other.each
            && more((self.rate, self.period), (other.rate, other.period))
            && self.burst >= other.burst
            && (self.answer() == other.answer() || self.mode == Mode::Audit)
    }

    /// What becomes of what is too much.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let (verdict, refusal) = match self.mode {
            Mode::Audit => (Verdict::Audit, None),
            Mode::Enforce => (Verdict::Deny, Some(self.refusal)),
        };
        Answer {
            verdict,
            refusal,
            otherwise: None,
        }
    }

    fn full(&self) -> u128 {
        u128::from(self.burst) * u128::from(self.period.ns())
    }
}

impl fmt::Display for LimitRule {
    /// What it says, without its name: `forks: 500 per second, 1000 at once, of each process, kill`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} per {}, {} at once{}, {}",
            self.counted,
            self.rate,
            self.period.name(),
            self.burst,
            if self.each { ", of each process" } else { "" },
            self.answer()
        )
    }
}

/// What is left of a limit: the reference for what the kernel half does.
#[derive(Debug, Clone)]
pub struct Bucket<'a> {
    rule: &'a LimitRule,
    /// Each of what is counted is as many of these as its period has nanoseconds.
    parts: u128,
    /// From when on it fills; ahead of now where more was taken than there is room for.
    since_ns: Option<u64>,
}

impl Bucket<'_> {
    /// Takes so much out of it at this time, in nanoseconds: not before the last one.
    ///
    /// What is more than it ever holds, as one large message can be, is let through where it is full; it fills again once
    /// that has come back.
    pub fn take(&mut self, now_ns: u64, amount: u64) -> Verdict {
        let (rate, part) = (
            u128::from(self.rule.rate),
            u128::from(self.rule.period.ns()),
        );
        let since = self.since_ns.get_or_insert(now_ns);
        if now_ns > *since {
            let back = u128::from(now_ns - *since) * rate;
            self.parts = (self.parts + back).min(self.rule.full());
            *since = now_ns;
        }
        match amount.checked_sub(self.rule.burst) {
            None | Some(0) => {
                let cost = u128::from(amount) * part;
                if cost <= self.parts {
                    self.parts -= cost;
                    return Verdict::Allow;
                }
            }
            Some(over) if self.parts == self.rule.full() => {
                let owed = u128::from(over) * part / rate;
                *since = now_ns.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX));
                self.parts = 0;
                return Verdict::Allow;
            }
            Some(_) => {}
        }
        match self.rule.mode {
            Mode::Enforce => Verdict::Deny,
            Mode::Audit => {
                // Told once, and not for all that comes after it.
                self.parts = self.rule.full();
                Verdict::Audit
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(rate: u64, period: Period, burst: u64) -> LimitRule {
        LimitRule {
            id: "l".to_owned(),
            counted: Counted::Limit(vec![Thing::Forks]),
            rate,
            period,
            burst,
            each: false,
            mode: Mode::Enforce,
            refusal: Refusal::default(),
            line: 1,
        }
    }

    #[test]
    fn what_is_owed_comes_back_first() {
        let rule = limit(10, Period::Second, 100);
        let mut bucket = rule.bucket();
        assert_eq!(bucket.take(0, 150), Verdict::Allow);
        let second = Period::Second.ns();
        // Five seconds for the 50 that it never held, and then one in each tenth.
        assert_eq!(bucket.take(5 * second, 1), Verdict::Deny);
        assert_eq!(bucket.take(5 * second + second / 10, 1), Verdict::Allow);
        assert_eq!(bucket.take(5 * second + second / 10, 1), Verdict::Deny);
        // It takes a full bucket.
        assert_eq!(bucket.take(10 * second, 150), Verdict::Deny);
        assert_eq!(bucket.take(16 * second, 150), Verdict::Allow);
    }

    #[test]
    fn in_audit_mode_it_begins_anew() {
        let mut rule = limit(1, Period::Hour, 3);
        rule.mode = Mode::Audit;
        let mut bucket = rule.bucket();
        let told: Vec<usize> = (0..9)
            .filter(|n| bucket.take(*n, 1) == Verdict::Audit)
            .map(|n| usize::try_from(n).unwrap())
            .collect();
        assert_eq!(told, [3, 7]);
    }

    proptest! {
        /// In no time more goes through than a full bucket and what comes back meanwhile, and nothing is refused in vain.
        #[test]
        fn never_more_than_the_burst_and_what_comes_back(
            rate in 1u64..1_000_000,
            burst in 1u64..2_000,
            period in prop::sample::select(Period::ALL.to_vec()),
            steps in prop::collection::vec((0u64..2_000_000_000, 1u64..200), 1..200),
        ) {
            let rule = limit(rate, period, burst);
            let mut bucket = rule.bucket();
            let mut now = 7;
            let mut through: Vec<(u64, u64)> = Vec::new();
            for (pause, amount) in steps {
                now += pause;
                let amount = amount.min(burst);
                // As many as a bucket without memory would have to hold: the least of all times since when it was full.
                let room = |since: u64, done: u64| {
                    let back = u128::from(now - since) * u128::from(rate);
                    (u128::from(burst) * u128::from(period.ns()) + back)
                        .saturating_sub(u128::from(done) * u128::from(period.ns()))
                };
                let mut done = 0;
                let mut least = rule.full();
                for (at, amount) in through.iter().rev() {
                    done += amount;
                    least = least.min(room(*at, done));
                }
                let fits = u128::from(amount) * u128::from(period.ns()) <= least;
                let verdict = bucket.take(now, amount);
                prop_assert_eq!(verdict == Verdict::Allow, fits);
                if fits {
                    through.push((now, amount));
                }
            }
        }
    }
}
