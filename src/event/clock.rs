//! From nanoseconds since boot to wall-clock time.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::ProcessId;

/// Relates event times to wall-clock time and names the boot they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// What to add to a time since boot to get nanoseconds since 1970.
    offset_ns: i128,
    /// First eight characters of `/proc/sys/kernel/random/boot_id`; letters and digits only, so it needs no escaping.
    boot: String,
}

impl Clock {
    /// A clock with a known offset: `realtime - boottime` in nanoseconds, and the boot id.
    #[must_use]
    pub fn new(offset_ns: i128, boot_id: &str) -> Self {
        Clock {
            offset_ns,
            boot: boot_id
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(8)
                .collect(),
        }
    }

    /// Nanoseconds since 1970 of a time since boot.
    #[must_use]
    pub fn unix_ns(&self, time_ns: u64) -> i128 {
        i128::from(time_ns) + self.offset_ns
    }

    /// Appends the time as RFC 3339 in UTC with nanoseconds.
    ///
    /// Each call looks the date up anew; a [`Sink`](crate::sink::Sink) keeps it and is ten times as fast.
    pub fn write_rfc3339(&self, out: &mut String, time_ns: u64) {
        let ns = self.unix_ns(time_ns);
        match jiff::Timestamp::from_nanosecond(ns) {
            Ok(time) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{time:.9}");
            }
            // Only a corrupt record is that far off; keep the number.
            Err(_) => {
                let _ = write!(out, "{ns}");
            }
        }
    }

    /// Appends a name for the process that is unique over reboots and pid reuse: `boot-start-pid`, in hex, hex and
    /// decimal.
    pub fn write_entity_id(&self, out: &mut String, id: ProcessId) {
        out.push_str(&self.boot);
        out.push('-');
        push_hex(out, id.start_ns);
        out.push('-');
        out.push_str(itoa::Buffer::new().format(id.pid));
    }
}

/// Lowercase without leading zeros. `core::fmt` takes several times as long.
fn push_hex(out: &mut String, mut value: u64) {
    let mut digits = [b'0'; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
        if value == 0 {
            break;
        }
    }
    // ASCII, so this never takes the other branch.
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_becomes_utc_with_nine_digits() {
        let clock = Clock::new(1_700_000_000_000_000_000, "0a1b2c3d-1111");
        let mut out = String::new();
        clock.write_rfc3339(&mut out, 5);
        assert_eq!(out, "2023-11-14T22:13:20.000000005Z");
    }

    #[test]
    fn entity_ids_are_boot_start_and_pid() {
        let clock = Clock::new(0, "0a1b2c3d-1111");
        for (start_ns, pid) in [(0, 0), (255, 7), (0x1_0000, 1), (u64::MAX, u32::MAX)] {
            let mut out = String::new();
            clock.write_entity_id(&mut out, ProcessId::new(start_ns, pid));
            assert_eq!(out, format!("0a1b2c3d-{start_ns:x}-{pid}"));
        }
        let mut out = String::new();
        Clock::new(0, "\"\n\u{1f600}ab").write_entity_id(&mut out, ProcessId::new(1, 2));
        assert_eq!(
            out, "ab-1-2",
            "a boot id is letters and digits, whatever was read"
        );
    }
}
