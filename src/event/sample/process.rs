//! Samples of the process monitor's summaries.

use super::{event, shell};
use crate::event::{Event, Kind, ProcessSummary};

pub(super) fn samples() -> Vec<Event> {
    let plain = ProcessSummary {
        user_ns: 412_204_551,
        system_ns: 38_114_020,
        run_delay_ns: Some(96_410_300),
        voluntary_switches: 118,
        involuntary_switches: 47,
        threads: Some(3),
        window_ns: 10_000_000_000,
        ..ProcessSummary::default()
    };
    let ended = ProcessSummary {
        threads: None,
        code: Some(2),
        ..plain
    };
    let killed = ProcessSummary {
        user_ns: u64::MAX,
        run_delay_ns: None,
        threads: None,
        signal: Some(11),
        core_dumped: true,
        ..plain
    };
    [plain, ended, killed]
        .map(|summary| event(8_600_000, shell(), Kind::ProcessSummary(summary)))
        .into()
}
