//! A fence that stood while nobody looked after it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pinned fence has refused what it had to while no monitor ran; what it has refused meanwhile is told after this, with the
/// times at which it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gap {
    /// The name that the fence is pinned under.
    pub fence: String,
    /// How long nobody looked after it, in nanoseconds; a second at most is too much.
    pub duration_ns: u64,
    /// Denials of that time that were read.
    pub denials: u64,
    /// Denials of that time that were lost, because the ring was full.
    pub lost: u64,
}

impl Gap {
    /// Of the fence with this name.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn new(fence: &str, duration_ns: u64, denials: u64, lost: u64) -> Self {
        Gap {
            fence: fence.to_owned(),
            duration_ns,
            denials,
            lost,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} stood alone for {} s: {} denials, {} lost",
            super::Quoted(&self.fence),
            self.duration_ns / 1_000_000_000,
            self.denials,
            self.lost
        )
    }
}
