//! Times as text, with the date kept from one event to the next: events come nearly in order.

const DAY_NS: u64 = 86_400 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// `HH:MM:SS.nnnnnnnnn`.
pub(super) type TimeOfDay = [u8; 18];

/// The last day seen, in UTC.
#[derive(Debug, Default)]
pub(super) struct Day {
    /// Its midnight, in nanoseconds since 1970.
    start_ns: u64,
    /// `YYYY-MM-DDT`; empty before the first event.
    date: Vec<u8>,
}

impl Day {
    /// The date as `YYYY-MM-DDT` and the time of day. `None` before 1970 and after 2554: only a corrupt record is that
    /// far off.
    pub(super) fn split(&mut self, unix_ns: i128) -> Option<(&[u8], TimeOfDay)> {
        let ns = u64::try_from(unix_ns).ok()?;
        if self.date.is_empty() || ns.wrapping_sub(self.start_ns) >= DAY_NS {
            let start_ns = ns - ns % DAY_NS;
            let midnight =
                jiff::Timestamp::from_second(i64::try_from(start_ns / SECOND_NS).ok()?).ok()?;
            let text = midnight.to_string();
            self.date = text.as_bytes().get(..11)?.to_vec();
            self.start_ns = start_ns;
        }
        Some((&self.date, time_of_day(ns - self.start_ns)))
    }

    /// Appends the time as RFC 3339 in UTC with nanoseconds; what is out of range, as a number.
    pub(super) fn write(&mut self, unix_ns: i128, out: &mut Vec<u8>) {
        match self.split(unix_ns) {
            Some((date, time)) => {
                out.extend_from_slice(date);
                out.extend_from_slice(&time);
                out.push(b'Z');
            }
            None => out.extend_from_slice(itoa::Buffer::new().format(unix_ns).as_bytes()),
        }
    }
}

/// Of a time within a day, in nanoseconds.
fn time_of_day(ns: u64) -> TimeOfDay {
    let (seconds, nanos) = (ns / SECOND_NS, ns % SECOND_NS);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let mut out = *b"00:00:00.000000000";
    two(&mut out, 0, minutes / 60);
    two(&mut out, 3, minutes % 60);
    two(&mut out, 6, second);
    two(&mut out, 9, nanos / 10_000_000);
    two(&mut out, 11, nanos / 100_000 % 100);
    two(&mut out, 13, nanos / 1_000 % 100);
    two(&mut out, 15, nanos / 10 % 100);
    out[17] = b'0' + (nanos % 10) as u8;
    out
}

/// Two digits of a number below 100.
fn two(out: &mut TimeOfDay, at: usize, value: u64) {
    out[at] = b'0' + (value / 10) as u8;
    out[at + 1] = b'0' + (value % 10) as u8;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Clock;

    fn reference(ns: i128) -> String {
        let mut out = String::new();
        Clock::new(ns, "").write_rfc3339(&mut out, 0);
        out
    }

    fn kept(day: &mut Day, ns: i128) -> String {
        let mut out = Vec::new();
        day.write(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_new_day_is_noticed_in_both_directions() {
        let mut day = Day::default();
        let midnight = 1_772_323_200_000_000_000;
        for ns in [
            0,
            midnight,
            midnight - 1,
            midnight + 1,
            midnight + 86_400_000_000_000,
            midnight - 1,
            1,
        ] {
            assert_eq!(kept(&mut day, ns), reference(ns));
        }
        assert_eq!(
            kept(&mut day, midnight - 1),
            "2026-02-28T23:59:59.999999999Z"
        );
    }

    #[test]
    fn a_time_out_of_range_is_a_number() {
        assert_eq!(kept(&mut Day::default(), -1), "-1");
        assert_eq!(kept(&mut Day::default(), i128::MAX), i128::MAX.to_string());
    }

    proptest! {
        #[test]
        fn any_time_reads_as_the_slow_way_writes_it(times in prop::collection::vec(any::<u64>(), 1..4)) {
            let mut day = Day::default();
            for ns in times {
                prop_assert_eq!(kept(&mut day, i128::from(ns)), reference(i128::from(ns)));
            }
        }
    }
}
