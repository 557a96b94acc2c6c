//! What is wanted of what the monitors could report; applied in the kernel, before a record is built.

use std::time::Duration;

use super::Kinds;
use crate::error::{Error, ErrorKind, Result};
use crate::event::names;

/// `STK_ENV_KEY`: room for a variable's name and its NUL.
pub(crate) const ENV_KEY: usize = 64;
/// As many as the kernel half's map has room for.
const ENV_KEYS: usize = 16;

/// What is wanted. A monitor that has no latencies or sizes takes no notice of them.
///
/// ```
/// use std::time::Duration;
/// use stockade::Filter;
/// let filter = Filter::new().syscall("ptrace")?.errors_only().min_latency(Duration::from_millis(1));
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    pub(crate) errors_only: bool,
    pub(crate) min_latency: Duration,
    pub(crate) min_bytes: u64,
    /// Numbers by table: of the machine's own calls, of 32-bit programs.
    pub(crate) syscalls: [Vec<u32>; 2],
    /// So many addresses and ports in this time are a port scan; 0: none is.
    pub(crate) scan_targets: u32,
    pub(crate) scan_window: Duration,
    pub(crate) frequency: u32,
    /// Names of environment variables.
    pub(crate) env: Vec<String>,
    pub(crate) env_values: bool,
    pub(crate) kinds: Kinds,
}

impl Default for Filter {
    fn default() -> Self {
        Filter {
            errors_only: false,
            min_latency: Duration::ZERO,
            min_bytes: 0,
            syscalls: [Vec::new(), Vec::new()],
            scan_targets: 20,
            scan_window: Duration::from_secs(60),
            frequency: 99,
            env: Vec::new(),
            env_values: false,
            kinds: Kinds::default(),
        }
    }
}

impl Filter {
    /// Everything.
    pub fn new() -> Self {
        Filter::default()
    }

    /// How often a profile looks at what each CPU runs, in samples a second; 99 where it is not set, which keeps out of
    /// step with what happens a hundred times a second.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): not from 1 to 10000.
    pub fn frequency(mut self, hz: u32) -> Result<Self> {
        if !(1..=10_000).contains(&hz) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{hz} samples a second are not possible"),
            )
            .with_hint("choose a frequency from 1 to 10000"));
        }
        self.frequency = hz;
        Ok(self)
    }

    /// Whether a program that is started has this variable in its environment. Its value is not read, unless
    /// [`Filter::env_values`] asks for it. Can be called several times.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): this is no name of a variable, or one of more than 63 bytes, or the seventeenth.
    pub fn env(mut self, name: &str) -> Result<Self> {
        let usage = |message: String| Err(Error::new(ErrorKind::Usage, message));
        if name.is_empty() || name.contains(['=', '\0']) {
            return usage(format!("\"{name}\" is no name of an environment variable"));
        }
        if name.len() >= ENV_KEY {
            return usage(format!(
                "the environment variable \"{name}\" has more than 63 bytes"
            ));
        }
        if !self.env.iter().any(|known| known == name) {
            if self.env.len() == ENV_KEYS {
                return usage(format!(
                    "more than {ENV_KEYS} environment variables are named"
                ));
            }
            self.env.push(name.to_owned());
        }
        Ok(self)
    }

    /// The values of the variables, too. They can be secrets, and stand in every output and recording.
    pub fn env_values(mut self) -> Self {
        self.env_values = true;
        self
    }

    /// Only events of this kind; can be called several times. What is about the session itself, what was lost in it,
    /// and what a fence refused comes in any case.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): no monitor has such events. A session whose monitors do not have them does not start.
    pub fn event(mut self, kind: &str) -> Result<Self> {
        self.kinds.add(kind)?;
        Ok(self)
    }

    /// Only operations that failed.
    pub fn errors_only(mut self) -> Self {
        self.errors_only = true;
        self
    }

    /// Only operations that took as long as this.
    pub fn min_latency(mut self, latency: Duration) -> Self {
        self.min_latency = latency;
        self
    }

    /// Only operations that moved as many bytes as this.
    pub fn min_bytes(mut self, bytes: u64) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// When a process is told to scan: after connects to so many distinct addresses and ports within so long that were
    /// refused or not answered; 20 within a minute where it is not set, 256 at most. 0 switches it off.
    pub fn port_scan(mut self, targets: u32, window: Duration) -> Self {
        self.scan_targets = targets;
        self.scan_window = window;
        self
    }

    /// Single events of this system call, by name; where 32-bit programs have it too, of theirs as well. Can be called
    /// several times.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): there is no such call on this architecture.
    pub fn syscall(mut self, name: &str) -> Result<Self> {
        let found = names::syscall_numbers(name);
        if found == [None, None] {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("there is no system call \"{name}\""),
            )
            .with_hint("system calls are named as in section 2 of the manual, without arguments"));
        }
        for (chosen, number) in self.syscalls.iter_mut().zip(found) {
            chosen.extend(number);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_without_value_and_not_without_end() {
        for (wrong, message) in [
            ("", "is no name"),
            ("A=b", "is no name"),
            (&"A".repeat(64), "more than 63 bytes"),
        ] {
            let e = Filter::new().env(wrong).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.to_string().contains(message), "{e}");
        }
        let mut filter = Filter::new();
        for n in 0..16 {
            filter = filter.env(&format!("A{n}")).unwrap();
        }
        // Once more the same is no more.
        let filter = filter.env("A0").unwrap();
        assert_eq!(filter.env.len(), 16);
        assert!(filter.env("B").is_err());
    }
}
