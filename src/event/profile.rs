//! Where a process spends its time.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Quoted;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProfileMode {
    /// Samples of what ran, at a fixed frequency.
    Cpu,
    /// Every time that a thread was not running between two times that it was.
    OffCpu,
}

impl ProfileMode {
    /// Its name, as in `stockade.profile.mode`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProfileMode::Cpu => "cpu",
            ProfileMode::OffCpu => "off_cpu",
        }
    }
}

/// A function that was being executed, or that called the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frame {
    /// Address in the process or in the kernel: of the instruction, or of where a call returns to.
    pub address: u64,
    /// The function, demangled and escaped; `None` when no symbol is known.
    pub function: Option<Arc<str>>,
    /// From the start of the function in bytes; of a function that was inlined into another, from the start of that one.
    pub offset: u64,
    /// The file that the code was mapped from, escaped and as the process sees it; `[kernel]`, the name of a kernel
    /// module in brackets, or the kernel's name for memory without a file; `None` when nothing is known to be there.
    pub module: Option<Arc<str>>,
    /// Where in that file, in bytes. 0 for the kernel.
    pub module_offset: u64,
    /// Source file, escaped, where there is debug information.
    pub file: Option<Arc<str>>,
    /// Line in it.
    pub line: Option<u32>,
    /// The function has no frame of its own: it was inlined into the next one.
    pub inlined: bool,
}

impl Frame {
    /// Of an address of which nothing else is known.
    #[must_use]
    pub fn new(address: u64) -> Self {
        Frame {
            address,
            function: None,
            offset: 0,
            module: None,
            module_offset: 0,
            file: None,
            line: None,
            inlined: false,
        }
    }
}

/// How often, or how long, one process was found with one stack in a while: all its threads of one name together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Profile {
    /// What was measured.
    pub mode: ProfileMode,
    /// Samples, or times that a thread was off the CPU.
    pub samples: u64,
    /// The time they stand for, or how long threads were off the CPU, in nanoseconds.
    pub time_ns: u64,
    /// Off the CPU: the thread could have run, and another one did. Otherwise it waited.
    pub preempted: bool,
    /// The program's own functions, the innermost first. Empty for a kernel thread.
    pub user: Vec<Frame>,
    /// The kernel's functions on top of them, the innermost first. Empty when the program itself was running.
    pub kernel: Vec<Frame>,
    /// Outer frames are missing: the kernel unwinds 127, or as many as `kernel.perf_event_max_stack` says.
    pub truncated: bool,
    /// How long this was counted, in nanoseconds.
    pub window_ns: u64,
}

/// The function, or what is known instead: `libc.so.6+0x1f`, `0x7f00`.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, &self.module) {
            (Some(function), _) => f.write_str(function),
            (None, Some(module)) => {
                let name = module.rsplit('/').next().unwrap_or(module);
                write!(f, "{name}+{:#x}", self.module_offset)
            }
            (None, None) => write!(f, "{:#x}", self.address),
        }
    }
}

/// Frames, the innermost first, and whether outer ones are missing; written as calls are read, the outermost first.
pub(super) struct Calls<'a>(pub(super) &'a [Frame], pub(super) bool);

impl fmt::Display for Calls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.1 { "[... " } else { "[" })?;
        for (i, frame) in self.0.iter().rev().enumerate() {
            let separator = if i > 0 { " " } else { "" };
            write!(f, "{separator}{}", Quoted(&frame.to_string()))?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples={} time={:.3}ms",
            self.mode.name(),
            self.samples,
            self.time_ns as f64 / 1e6
        )?;
        if self.preempted {
            f.write_str(" preempted")?;
        }
        for (name, frames) in [("user", &self.user), ("kernel", &self.kernel)] {
            if !frames.is_empty() {
                write!(f, " {name}={}", Calls(frames, self.truncated))?;
            }
        }
        write!(f, " in={:.1}s", self.window_ns as f64 / 1e9)
    }
}
