//! What is watched: monitors, their forms, what is wanted of them.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stockade::session::SessionBuilder;
use stockade::{Filter, Form, Monitor, Watch};

/// What of it is reported.
#[derive(Debug, Args)]
#[command(next_help_heading = "Watching")]
pub(super) struct WatchArgs {
    /// Processes, as events or as summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    process: Option<String>,
    /// Files, as events or as summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    file: Option<String>,
    /// The network, as events or as summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    network: Option<String>,
    /// System calls, as summary or as events of those that --syscalls names
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    syscall: Option<String>,
    /// Memory, as summary or as events
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    memory: Option<String>,
    /// Block devices, as summary or as events
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    disk: Option<String>,
    /// Where processes spend their time, as summary of what runs, or off-cpu
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    profile: Option<String>,
    /// Only events of these kinds, such as exec,connect; chooses the monitors that have them, where none is named
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    events: Vec<String>,
    /// Of files, only those at this path or below it; several are possible
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
    /// Of the network, only peers with this address or in this range, such as 10.0.0.0/8; several are possible
    #[arg(long, value_name = "RANGE")]
    address: Vec<String>,
    /// Of the network, only these ports of either end, such as 443 or 8000-8099; several are possible
    #[arg(long, value_name = "PORT", value_parser = ports)]
    port: Vec<RangeInclusive<u16>>,
    /// Single events of these system calls, such as ptrace,mount
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    syscalls: Vec<String>,
    /// Whether programs that are started have this environment variable
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// The values of these variables too, which can be secrets
    #[arg(long, requires = "env")]
    env_values: bool,
    /// With --memory: what the kernel allocates for processes, and where it is not given back
    #[arg(long)]
    allocations: bool,
    /// How often summaries are told, in seconds; sooner when there is much to keep
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    interval: Duration,
    /// How often a profile looks at each CPU, in samples a second
    #[arg(long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    freq: u32,
    /// Only operations that failed
    #[arg(long)]
    errors_only: bool,
    /// Only operations that took as long as this, such as 5ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    min_latency: Option<Duration>,
    /// Only operations that moved as many bytes as this
    #[arg(long, value_name = "BYTES")]
    min_bytes: Option<u64>,
    /// Connects to so many addresses and ports that nobody answers are a port scan; 0 for never
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=256))]
    scan_targets: u32,
    /// Within so long, such as 60s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    scan_window: Duration,
}

impl WatchArgs {
    /// The monitors that were named here or as `named`; the usual ones when there are none.
    pub(super) fn apply(
        &self,
        named: &[Vec<Watch>],
        mut builder: SessionBuilder,
    ) -> stockade::Result<SessionBuilder> {
        let mut watches: Vec<Watch> = named.concat();
        for (monitor, form) in [
            (Monitor::Process, &self.process),
            (Monitor::File, &self.file),
            (Monitor::Network, &self.network),
            (Monitor::Syscall, &self.syscall),
            (Monitor::Memory, &self.memory),
            (Monitor::Disk, &self.disk),
            (Monitor::Profile, &self.profile),
        ] {
            match form.as_deref() {
                Some("") => watches.push(monitor.into()),
                Some(form) => watches.push(monitor.form(form.parse()?)?),
                None => {}
            }
        }
        let chosen = |watches: &[Watch]| watches.iter().any(|w| w.monitor() == Monitor::Syscall);
        if !self.syscalls.is_empty() && !chosen(&watches) {
            watches.push(Monitor::Syscall.form(Form::Events)?);
        }
        let mut filter = Filter::new().frequency(self.freq)?;
        for kind in &self.events {
            filter = filter.event(kind)?;
        }
        if watches.is_empty() {
            let tellers = self.events.iter().filter_map(|kind| Watch::telling(kind));
            for watch in tellers {
                if !watches.contains(&watch) {
                    watches.push(watch);
                }
            }
        }
        if watches.is_empty() {
            let usual = Monitor::ALL.iter().copied().filter(|m| m.is_usual());
            watches.extend(usual.map(Watch::from));
        }
        if !self.env.is_empty() && !watches.iter().any(|watch| watch.tells("exec")) {
            watches.push(Monitor::Process.into());
        }
        for watch in watches {
            builder = builder.monitor(watch);
        }
        for path in &self.path {
            filter = filter.path(path)?;
        }
        for range in &self.address {
            filter = filter.address(range)?;
        }
        for range in &self.port {
            filter = filter.ports(range.clone())?;
        }
        for name in &self.syscalls {
            filter = filter.syscall(name)?;
        }
        for name in &self.env {
            filter = filter.env(name)?;
        }
        if self.env_values {
            filter = filter.env_values();
        }
        if self.allocations {
            filter = filter.allocations();
        }
        if self.errors_only {
            filter = filter.errors_only();
        }
        if let Some(latency) = self.min_latency {
            filter = filter.min_latency(latency);
        }
        if let Some(bytes) = self.min_bytes {
            filter = filter.min_bytes(bytes);
        }
        filter = filter.port_scan(self.scan_targets, self.scan_window);
        Ok(builder.filter(filter).interval(self.interval))
    }
}

/// `NAME`, `NAME=FORM` or `all`.
pub(super) fn watches(text: &str) -> Result<Vec<Watch>, String> {
    if text == "all" {
        let all = Monitor::ALL.iter().copied().map(Watch::from);
        return Ok(all.map(Watch::if_possible).collect());
    }
    text.parse::<Watch>()
        .map(|watch| vec![watch])
        .map_err(|e| match e.hint() {
            Some(hint) => format!("{e}; {hint}"),
            None => e.to_string(),
        })
}

/// `PORT` or `FIRST-LAST`.
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => Ok(first..=last),
        _ => Err("a port or a range of them, such as 443 or 8000-8099".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|s| *s >= 0.1)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "a number of seconds, 0.1 or more".to_owned())
}

/// A time with its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = number.parse().ok();
    let of = match unit {
        "ns" => Duration::from_nanos,
        "us" => Duration::from_micros,
        "ms" => Duration::from_millis,
        "s" => Duration::from_secs,
        _ => return Err("a number with its unit: ns, us, ms or s, such as 5ms".to_owned()),
    };
    number
        .map(of)
        .ok_or_else(|| "a number with its unit, such as 5ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_from_to() {
        assert_eq!(ports("443"), Ok(443..=443));
        assert_eq!(ports("8000-8099"), Ok(8000..=8099));
        for wrong in ["", "http", "65536", "1-", "-1", "1-2-3"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(time("10us"), Ok(Duration::from_micros(10)));
        for wrong in ["", "5", "ms", "5 ms", "-1s", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("0").is_err() && seconds("1e400").is_err() && seconds("x").is_err());
    }
}
