//! What a running session tells of itself.

use serde::Serialize;

use super::{KindCount, LossCount};

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadedProgram {
    /// Its name here, with the variant: `process_exec__raw_tp`. The kernel keeps 15 bytes of it.
    pub name: &'static str,
    /// Its number in the kernel, as `bpftool prog` shows it.
    pub id: u32,
    /// How often it ran while runs were counted ([`Session::count_runs`](crate::Session::count_runs)).
    pub runs: u64,
    /// How long all these runs took, in nanoseconds.
    pub time_ns: u64,
    /// How often the kernel skipped it because it was already running on that CPU (known from Linux 5.12 on).
    pub skipped: u64,
}

/// What a session has delivered so far, and what not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Events that were delivered, denials among them.
    pub events: u64,
    /// Denials that were delivered, those of audit mode among them.
    pub denials: u64,
    /// By kind: delivered, truncated, left out.
    pub kinds: Vec<KindCount>,
    /// What was lost, by CPU.
    pub losses: Vec<LossCount>,
    /// How often the kernel skipped a program.
    pub skipped_programs: u64,
}
