//! What machine this is, and what on it would falsify the figures.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::child::Generator;

/// A system call that does nothing takes less than this, unless something looks at every call (audit contexts double it).
const GETPPID_NS: f64 = 180.0;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) machine: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// Without hardware virtualisation: only ratios mean anything.
    pub(crate) emulated: bool,
    /// The clock of the emulated machine counts instructions, one a nanosecond (`VM_ICOUNT` of scripts/vm.sh).
    pub(crate) counted: bool,
    pub(crate) clocksource: String,
    pub(crate) load: String,
    pub(crate) getppid_ns: f64,
    pub(crate) foreign_programs: usize,
    /// Why the figures are not to be trusted; empty on a good machine.
    pub(crate) poisoned: Vec<String>,
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn field(text: &str, name: &str) -> String {
    text.lines()
        .find_map(|l| l.strip_prefix(name))
        .map(|l| l.trim_start_matches([' ', '\t', ':']).to_owned())
        .unwrap_or_default()
}

/// The kernel's audit subsystem is asked by netlink; `None` when it does not answer.
fn audit_enabled() -> Option<bool> {
    const AUDIT_GET: u16 = 1000;
    let mut request = [0u8; 16];
    request[0..4].copy_from_slice(&16u32.to_ne_bytes());
    request[4..6].copy_from_slice(&AUDIT_GET.to_ne_bytes());
    // NLM_F_REQUEST
    request[6..8].copy_from_slice(&1u16.to_ne_bytes());
    let mut answer = [0u8; 256];
    // SAFETY: a socket of our own; both buffers are as long as is said, and nothing is kept by the kernel.
    let got = unsafe {
        let fd = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_AUDIT,
        );
        if fd < 0 {
            return None;
        }
        let wait = libc::timeval {
            tv_sec: 0,
            tv_usec: 200_000,
        };
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const wait).cast(),
            size_of::<libc::timeval>() as u32,
        );
        let sent = libc::send(fd, request.as_ptr().cast(), request.len(), 0);
        let got = if sent < 0 {
            -1
        } else {
            libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        libc::close(fd);
        got
    };
    // struct nlmsghdr, then struct audit_status: mask, enabled (include/uapi/linux/audit.h).
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    (got >= 24 && kind == AUDIT_GET)
        .then(|| u32::from_ne_bytes([answer[20], answer[21], answer[22], answer[23]]) != 0)
}

/// BPF programs that the kernel has, but for those that systemd gives to its units.
pub(crate) fn programs() -> usize {
    libbpf_rs::query::ProgInfoIter::default()
        .filter(|p| !matches!(p.ty, libbpf_rs::ProgramType::CgroupDevice))
        .count()
}

/// How long the kernel may take to let go of programs; emulated ones take seconds.
const GONE: Duration = Duration::from_secs(60);

/// Waits until there are no more of them than before: the kernel detaches those of a session some time after its end,
/// and what is measured meanwhile is no baseline.
pub(crate) fn wait_for_programs(before: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while programs() > before {
        anyhow::ensure!(
            begin.elapsed() < GONE,
            "programs that have ended are still there"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(crate) fn look(idle: &mut Generator) -> anyhow::Result<Machine> {
    let uname = rustix::system::uname();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = field(&cpuinfo, "model name");
    let emulated = cpu.contains("QEMU") || cpu.contains("TCG");
    let mut rounds = Vec::new();
    for _ in 0..11 {
        rounds.push(idle.run("getppid", 10, "", 0)?.ns_each);
    }
    let getppid_ns = crate::stats::median(&rounds);
    let foreign_programs = programs();
    let load = read("/proc/loadavg");
    let cpus = std::thread::available_parallelism()?.get();
    let mut poisoned = Vec::new();
    if read("/proc/sys/kernel/bpf_stats_enabled")
        .parse::<u32>()
        .is_ok_and(|n| n != 0)
    {
        poisoned.push(
            "kernel.bpf_stats_enabled is set: it adds some 70 ns to every run of a program"
                .to_owned(),
        );
    }
    if foreign_programs > 0 {
        poisoned.push(format!(
            "{foreign_programs} BPF programs of others are loaded"
        ));
    }
    if audit_enabled() == Some(true) {
        poisoned
            .push("kernel auditing is on: every system call of new tasks pays for it".to_owned());
    }
    if getppid_ns > GETPPID_NS && !emulated {
        poisoned.push(format!(
            "getppid takes {getppid_ns:.0} ns: something looks at every system call (audit contexts stay after 'auditctl -e 0')"
        ));
    }
    if field(&read("/proc/self/status"), "Seccomp:") != "0" {
        poisoned.push("a seccomp filter is on this process".to_owned());
    }
    let busy: f64 = load
        .split(' ')
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(0.0);
    // A guest has just booted; its load says nothing.
    if busy > 0.5 * cpus as f64 && !emulated {
        poisoned.push(format!("the machine is busy: load {busy} on {cpus} CPUs"));
    }
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    Ok(Machine {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        cpu,
        cpus,
        memory_mib: memory
            .split(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0)
            / 1024,
        emulated,
        counted: emulated && std::env::var_os("VM_ICOUNT").is_some_and(|v| !v.is_empty()),
        clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        load,
        getppid_ns,
        foreign_programs,
        poisoned,
    })
}
