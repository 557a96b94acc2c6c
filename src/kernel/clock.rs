//! The clocks that events are timed by.

use rustix::time::{ClockId, clock_gettime};

fn ns_of(clock: ClockId) -> i128 {
    let t = clock_gettime(clock);
    i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
}

/// Nanoseconds since boot, with the time that the machine slept: `bpf_ktime_get_boot_ns`.
pub(crate) fn boot_ns() -> u64 {
    u64::try_from(ns_of(ClockId::Boottime)).unwrap_or(0)
}

/// What to add to a time since boot for nanoseconds since 1970, as of now: both clocks are read as close together as a
/// process can that may be preempted.
pub(crate) fn real_time_offset_ns() -> i128 {
    (0..5)
        .map(|_| {
            let before = ns_of(ClockId::Boottime);
            let real = ns_of(ClockId::Realtime);
            let after = ns_of(ClockId::Boottime);
            (after - before, real - (before + after) / 2)
        })
        .min()
        .map_or(0, |(_, offset)| offset)
}
