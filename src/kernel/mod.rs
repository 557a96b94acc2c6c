//! The only room that knows libbpf-rs: loads objects, shares maps, attaches one program at a time, reads rings.
//!
//! Invariant: whatever was attached is owned by a [`Link`](libbpf_rs::Link) in a value that the caller drops; a start
//! that fails half way leaves nothing behind.

mod ask;
mod attached;
mod btf;
mod claim;
mod clock;
mod cpus;
mod drops;
mod foreign;
mod fork;
mod kfunc;
mod layout;
mod load;
mod log;
mod mapping;
mod perf;
mod pins;
mod ring;
pub(crate) mod seccomp;
mod settle;
mod skel;
mod stats;
mod steady;
mod symbols;
mod table;
mod tracefs;
mod trial;

pub(crate) use ask::{Asker, Seed, read_iterator};
pub(crate) use attached::{Attached, Attachments, skipped};
pub(crate) use btf::KernelBtf;
pub(crate) use claim::claim_canary;
pub(crate) use clock::{boot_ns, real_time_offset_ns};
pub(crate) use cpus::LateCpus;
pub(crate) use drops::{Drops, Losses};
pub(crate) use foreign::ForeignMap;
pub(crate) use fork::fork_canary;
#[cfg(test)]
pub(crate) use load::program_names;
pub(crate) use load::{
    Loader, MapSizes, Needs, Object, PT_REGS, Probe, ProbeReport, Program, Trial, Variant, Verdict,
    session, tracepoint,
};
pub(crate) use perf::{Change, Changes};
pub(crate) use pins::PinDirectory;
pub(crate) use ring::{Records, Rings};
pub(crate) use settle::wait_for_programs;
pub(crate) use stats::Statistics;
pub(crate) use symbols::addresses;
pub(crate) use table::OwnTable;
pub(crate) use tracefs::{securityfs_lockdown, securityfs_lsm};

use crate::error::{Error, ErrorKind};

/// Turns a libbpf error into ours; `lines` is what libbpf printed meanwhile.
pub(crate) fn refused(what: &str, error: &libbpf_rs::Error, lines: &[String]) -> Error {
    let denied = error.kind() == libbpf_rs::ErrorKind::PermissionDenied;
    // Some kernels refuse whole program types to everybody: then the rights are not what is missing.
    let kind = if denied && !has_rights() {
        ErrorKind::Permission
    } else {
        ErrorKind::Load
    };
    let mut message = format!("{what} was refused by the kernel ({}): {error}", release());
    // The verifier's verdict stands at the end; the trace before it can be megabytes.
    let tail: Vec<&str> = lines
        .iter()
        .flat_map(|l| l.lines())
        .filter(|l| !l.trim().is_empty())
        .collect();
    for line in tail.iter().skip(tail.len().saturating_sub(12)) {
        message.push_str("\n  ");
        message.push_str(line);
    }
    let error = Error::new(kind, message);
    if kind == ErrorKind::Permission {
        error.with_hint(
            "run as root, or with CAP_BPF, CAP_PERFMON and, before Linux 5.11, CAP_SYS_RESOURCE; 'stockade doctor' shows what is missing",
        )
    } else {
        error.with_hint("run 'stockade doctor' to see what this kernel can do")
    }
}

/// The capabilities that loading needs, by name and bit (include/uapi/linux/capability.h).
pub(crate) const NEEDED_RIGHTS: [(&str, u32); 2] = [("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// The effective capabilities of this process, a bit each.
pub(crate) fn rights() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|h| u64::from_str_radix(h.trim(), 16).ok())
        .unwrap_or(0)
}

fn has_rights() -> bool {
    let set = rights();
    NEEDED_RIGHTS.iter().all(|(_, bit)| set & (1 << bit) != 0)
}

pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// How many CPUs this machine can ever have.
pub(crate) fn possible_cpus() -> crate::error::Result<u32> {
    libbpf_rs::num_possible_cpus()
        .ok()
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| Error::new(ErrorKind::Load, "the number of CPUs cannot be read"))
}

/// The kernel's release, as uname(2) has it.
pub(crate) fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Whether programs on tracepoints can be preempted here: since tracepoints are guarded by SRCU (Linux 7.0). Nothing in
/// the kernel's BTF tells, so the version has to. A program that is preempted is skipped for whoever runs meanwhile.
fn preemptible_tracepoints() -> bool {
    version(&release()).is_some_and(|v| v >= (6, 19))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_what_the_release_starts_with() {
        assert_eq!(version("7.2.12+deb13-amd64"), Some((7, 2)));
        assert_eq!(version("5.10.0-33-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("6.19-rc1"), Some((6, 19)));
        assert_eq!(version("custom"), None);
    }
}
