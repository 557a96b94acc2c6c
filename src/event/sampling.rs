//! What was left out on purpose.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Quoted;

/// Events of one kind that were left out by sampling: whole processes, so that those that are heard are heard fully.
/// Execs, forks, exits, denials and kills for want of memory are never left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sampled {
    /// The kind's name.
    pub of: String,
    /// Why: `asked` (the session takes one process in so many), `ring` (the ring was filling up).
    pub reason: String,
    /// Events of this kind that were delivered meanwhile.
    pub kept: u64,
    /// Events that were left out.
    pub left_out: u64,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

impl Sampled {
    /// The part of the events that was delivered, from 0 to 1.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let all = self.kept.saturating_add(self.left_out);
        if all == 0 {
            1.0
        } else {
            self.kept as f64 / all as f64
        }
    }
}

impl fmt::Display for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} left out, {} kept ({:.1}%) in {:.1} s ({})",
            self.left_out,
            Quoted(&self.of),
            self.kept,
            self.rate() * 100.0,
            self.window_ns as f64 / 1e9,
            Quoted(&self.reason)
        )
    }
}

/// Events of one process that were left out because it had sent its share of the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Suppressed {
    /// How many.
    pub count: u64,
    /// Events that a process may send in a second.
    pub limit: u32,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "count={} limit={}/s window={:.1}s",
            self.count,
            self.limit,
            self.window_ns as f64 / 1e9
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_the_part_that_was_kept() {
        let sampled = |kept, left_out| Sampled {
            of: "open".into(),
            reason: "ring".into(),
            kept,
            left_out,
            window_ns: 1_000_000_000,
        };
        assert_eq!(sampled(1, 3).rate(), 0.25);
        assert_eq!(sampled(0, 3).rate(), 0.0);
        assert_eq!(sampled(0, 0).rate(), 1.0);
        assert_eq!(
            sampled(1, 7).to_string(),
            "7 open left out, 1 kept (12.5%) in 1.0 s (ring)"
        );
    }
}
