//! What processes use of the CPUs, counted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Status;

/// What one process used of the CPUs in a while; all its threads together, without children.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessSummary {
    /// CPU time in user mode in nanoseconds.
    pub user_ns: u64,
    /// CPU time in the kernel in nanoseconds.
    pub system_ns: u64,
    /// How long its threads could have run, and others did, in nanoseconds. `None` where the kernel does not count it.
    pub run_delay_ns: Option<u64>,
    /// How often a thread gave up the CPU to wait for something.
    pub voluntary_switches: u64,
    /// How often the CPU was taken from a thread.
    pub involuntary_switches: u64,
    /// Its threads at the end of this while. `None` when it has ended.
    pub threads: Option<u32>,
    /// Exit status 0 to 255, when it has ended by itself.
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    pub signal: Option<u8>,
    /// A core was dumped.
    pub core_dumped: bool,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

impl ProcessSummary {
    /// Whether the process has ended: this is its last summary.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.threads.is_none()
    }
}

impl fmt::Display for ProcessSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(
            f,
            "user={:.1}ms system={:.1}ms",
            ms(self.user_ns),
            ms(self.system_ns)
        )?;
        if let Some(delay) = self.run_delay_ns {
            write!(f, " run_delay={:.1}ms", ms(delay))?;
        }
        write!(
            f,
            " switches={}+{}",
            self.voluntary_switches, self.involuntary_switches
        )?;
        if let Some(threads) = self.threads {
            write!(f, " threads={threads}")?;
        }
        write!(f, " in={:.1}s", self.window_ns as f64 / 1e9)?;
        if self.has_ended() {
            f.write_str(" ended ")?;
            Status(self.code, self.signal, self.core_dumped).fmt(f)?;
        }
        Ok(())
    }
}
