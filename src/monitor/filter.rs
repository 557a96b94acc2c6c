//! What is wanted of what the monitors could report; applied in the kernel, before a record is built.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::{Kinds, Paths, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::names;
use crate::wire::{Ports, RANGES_MAX, Range};

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
    pub(crate) paths: Paths,
    pub(crate) addresses: Vec<Range>,
    pub(crate) ports: Vec<Ports>,
    pub(crate) allocations: bool,
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
            paths: Paths::default(),
            addresses: Vec::new(),
            ports: Vec::new(),
            allocations: false,
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

    /// Of files, only what is about this path or one below it; of a rename and a link, either name counts. Links on the
    /// way to it are followed now, for paths are told as they are on the host. Can be called several times.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the path is not absolute, goes through `..`, has more than 256 bytes, or is, with
    /// links followed, the ninth.
    pub fn path(mut self, path: impl AsRef<Path>) -> Result<Self> {
        self.paths.add(path.as_ref())?;
        Ok(self)
    }

    /// Of the network, only what is about peers with this address or in this range, such as `10.0.0.0/8`; before there
    /// is a peer, the socket's own address counts. What has no address is left out. Can be called several times. IPv4
    /// addresses that a socket of IPv6 uses are those of IPv4.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): this is neither an address nor a range, or the ninth.
    pub fn address(mut self, range: &str) -> Result<Self> {
        let usage = |message: String| {
            Err(Error::new(ErrorKind::Usage, message)
                .with_hint("write an address or a range, such as 10.0.0.0/8 or 2001:db8::1"))
        };
        let parsed = range
            .parse()
            .or_else(|_| range.parse::<IpAddr>().map(IpNet::from));
        let Ok(net) = parsed else {
            return usage(format!("\"{range}\" is no range of addresses"));
        };
        if net.addr() != net.network() {
            return usage(format!(
                "\"{range}\" is an address in a range: the range is {}",
                net.trunc()
            ));
        }
        let range = match net {
            IpNet::V4(net) => Range::new(net.addr().to_ipv6_mapped(), net.prefix_len() + 96),
            IpNet::V6(net) => Range::new(net.addr(), net.prefix_len()),
        };
        if !self.addresses.contains(&range) {
            if self.addresses.len() == RANGES_MAX {
                return usage(format!(
                    "more than {RANGES_MAX} ranges of addresses are named"
                ));
            }
            self.addresses.push(range);
        }
        Ok(self)
    }

    /// Of the network, only what is about these ports, of either end. Summaries have one: that which was connected or
    /// sent to. What has no port is left out. Can be called several times.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): the first is 0 or above the last, or this is the ninth range.
    pub fn ports(mut self, range: RangeInclusive<u16>) -> Result<Self> {
        let (first, last) = (*range.start(), *range.end());
        if first == 0 || first > last {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("there are no ports from {first} to {last}"),
            )
            .with_hint("write the lower one first, from 1 to 65535"));
        }
        let ports = Ports { first, last };
        if !self.ports.contains(&ports) {
            if self.ports.len() == RANGES_MAX {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("more than {RANGES_MAX} ranges of ports are named"),
                ));
            }
            self.ports.push(ports);
        }
        Ok(self)
    }

    /// What the kernel allocates for processes, counted, and where it is not given back. Goes with the memory monitor as
    /// summary, and is a tax on every allocation of the machine: a session without that monitor does not start.
    pub fn allocations(mut self) -> Self {
        self.allocations = true;
        self
    }

    /// Refuses what none of these monitors tells.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn check(&self, watches: &[Watch]) -> Result<()> {
        self.kinds.check(watches)?;
        if self.allocations
            && !watches
                .iter()
                .any(|watch| watch.tells("memory_allocations"))
        {
            return Err(Error::new(
                ErrorKind::Usage,
                "allocations of the kernel are told by the memory monitor as summary, which is not on",
            )
            .with_hint("add --memory"));
        }
        let told = |kind: &&str| self.kinds.names(kind);
        let of = ["memory_allocations", "memory_outstanding"];
        match of.iter().copied().find(told) {
            Some(kind) if !self.allocations => Err(Error::new(
                ErrorKind::Usage,
                format!("events of the kind \"{kind}\" have to be asked for"),
            )
            .with_hint("add --allocations; it costs each allocation of the kernel")),
            _ => Ok(()),
        }
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
    use crate::monitor::{Form, Monitor};

    #[test]
    fn allocations_go_with_the_summary_of_memory() {
        let of = |filter: Filter, watch: Watch| filter.check(&[watch]).map_err(|e| e.to_string());
        let allocations = || Filter::new().allocations();
        assert_eq!(of(allocations(), Monitor::Memory.into()), Ok(()));
        let events = Monitor::Memory.form(Form::Events).unwrap();
        for watch in [events, Monitor::Disk.into()] {
            let error = of(allocations(), watch).unwrap_err();
            assert!(error.ends_with("which is not on"), "{error}");
        }
        let named = || Filter::new().event("memory_outstanding").unwrap();
        let error = of(named(), Monitor::Memory.into()).unwrap_err();
        assert!(error.contains("have to be asked for"), "{error}");
        assert_eq!(of(named().allocations(), Monitor::Memory.into()), Ok(()));
    }

    #[test]
    fn addresses_and_ports_are_ranges() {
        let filter = Filter::new()
            .address("10.0.0.0/8")
            .unwrap()
            .address("2001:db8::1")
            .unwrap()
            .ports(443..=443)
            .unwrap();
        let bytes = |halves: [u64; 2]| halves.map(u64::to_ne_bytes).concat();
        let [v4, v6] = &filter.addresses[..] else {
            panic!("{:?}", filter.addresses);
        };
        assert_eq!(
            bytes(v4.address),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0]
        );
        assert_eq!(
            bytes(v4.mask),
            [&[0xff; 13][..], &[0; 3]].concat(),
            "the 96 bits in front belong to it"
        );
        assert_eq!(bytes(v6.mask), [0xff; 16]);
        let all = Filter::new().address("::/0").unwrap();
        assert_eq!(all.addresses[0].mask, [0, 0]);
        for (wrong, why) in [
            ("ten", "no range"),
            ("10.0.0.0/33", "no range"),
            ("10.1.0.0/8", "the range is 10.0.0.0/8"),
        ] {
            let e = Filter::new().address(wrong).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.to_string().contains(why), "{e}");
        }
        assert!(Filter::new().ports(0..=1).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = Filter::new().ports(2..=1);
        assert!(reversed.is_err());
        let full = (1..=8)
            .try_fold(Filter::new(), |f, n| f.ports(n..=n))
            .unwrap();
        assert!(full.clone().ports(8..=8).is_ok());
        assert!(full.ports(9..=9).is_err());
    }

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
