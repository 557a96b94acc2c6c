//! What this machine can do, found out by trying.
//!
//! Configuration, module list and lockdown level are reported, but nothing is concluded from them: kernels refuse
//! programs that all three allow. Each probe is attached to nobody and taken off again, and a fence must refuse a canary.

use serde::Serialize;

use crate::error::Result;
#[cfg(not(stockade_kernel))]
use crate::error::{Error, ErrorKind};
use crate::event::{FenceState, ProbeState};

/// One line of the examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at: `kernel`, `btf`, `canary`.
    pub name: String,
    /// Whether it is as it should be.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something.
    pub fix: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, with a limit.
    Limited,
    /// Does not work.
    Failed,
    /// Cannot be known here.
    Unknown,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Failed => "failed",
            Status::Unknown => "unknown",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Examination {
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
    /// Every probe of every monitor, with the variant that would be used.
    pub probes: Vec<ProbeState>,
    /// The fence that guarded a file of ours and refused it; `None` when none holds here.
    pub fence: Option<FenceState>,
    /// Whether every monitor can be attached, if need be by a variant that sees less.
    pub can_watch: bool,
    /// Whether a fence holds.
    pub can_fence: bool,
}

/// One way of one probe, tried by itself.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VariantTrial {
    /// What it is for: `file.open`.
    pub probe: String,
    /// The way: `fexit`.
    pub variant: String,
    /// What became of it.
    pub state: VariantState,
    /// Why it does not load.
    pub reason: Option<String>,
}

/// What became of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VariantState {
    /// The kernel takes its programs.
    Loads,
    /// The kernel lacks what it needs: it is for other kernels.
    NotApplicable,
    /// The kernel has what it needs and does not take it.
    Refused,
}

/// Loads each variant of each probe by itself, whether a session would choose it here or not. Nothing is attached.
///
/// # Errors
///
/// [`Unsupported`](crate::ErrorKind::Unsupported) on other systems than Linux, and where the kernel does not describe its
/// types.
pub fn try_every_variant() -> Result<Vec<VariantTrial>> {
    #[cfg(stockade_kernel)]
    return crate::session::variants::try_every();
    #[cfg(not(stockade_kernel))]
    Err(unsupported())
}

#[cfg(not(stockade_kernel))]
fn unsupported() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "stockade watches and fences on Linux only",
    )
}

/// Examines this machine. Needs the rights that watching and fencing need; without them it says so.
///
/// # Errors
///
/// [`Unsupported`](crate::ErrorKind::Unsupported) on other systems than Linux. What is missing on Linux is part of the
/// examination and no error.
pub fn examine() -> Result<Examination> {
    #[cfg(stockade_kernel)]
    return linux::examine();
    #[cfg(not(stockade_kernel))]
    Err(unsupported())
}

#[cfg(stockade_kernel)]
mod linux {
    use std::path::{Path, PathBuf};

    use super::{Check, Examination, Status};
    use crate::enrich::mounts;
    use crate::error::{Error, ErrorKind, Result};
    use crate::event::{Attachment, Certificate, FenceState, ProbeState};
    use crate::kernel::{
        NEEDED_RIGHTS, release, rights as rights_held, securityfs_lockdown, securityfs_lsm,
    };
    use crate::launch::Held;
    use crate::policy::{Environment, RuleSet};
    use crate::{Monitor, Scope, Session};

    pub(super) fn examine() -> Result<Examination> {
        let mut checks = vec![
            kernel(),
            btf(),
            modules(),
            lockdown(),
            rights(),
            cgroups(),
            clang(),
        ];
        let mut probes = Vec::new();
        let mut can_watch = true;
        // Somebody must be in scope: a process of ours that does nothing.
        let nobody = Held::spawn(std::process::Command::new("true"))?;
        for &monitor in Monitor::ALL {
            let session = Session::builder()
                .scope(Scope::new().tree(nobody.pid()))
                .monitor(monitor)
                .start();
            match session.and_then(|s| s.end(&mut |_| {})) {
                Ok(certificate) => {
                    can_watch &= certificate
                        .probes
                        .iter()
                        .all(|p| p.state == Attachment::Attached);
                    checks.push(monitor_check(monitor, &certificate));
                    probes.extend(
                        certificate
                            .probes
                            .into_iter()
                            .filter(|p: &ProbeState| !probed(&probes, p))
                            .collect::<Vec<_>>(),
                    );
                }
                Err(e) => {
                    can_watch = false;
                    checks.push(failed(&format!("monitor {monitor}"), &e));
                }
            }
        }
        let (canary, fence) = fence(nobody.pid());
        checks.push(canary);
        if let Some((_, states)) = &fence {
            probes.extend(
                states
                    .iter()
                    .filter(|p| !probed(&probes, p))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        checks.push(seccomp());
        Ok(Examination {
            can_fence: fence.is_some(),
            fence: fence.map(|(state, _)| state),
            checks,
            probes,
            can_watch,
        })
    }

    fn probed(probes: &[ProbeState], probe: &ProbeState) -> bool {
        probes.iter().any(|p| p.name == probe.name)
    }

    fn check(name: &str, status: Status, found: impl Into<String>, fix: Option<&str>) -> Check {
        Check {
            name: name.into(),
            status,
            found: found.into(),
            fix: fix.map(Into::into),
        }
    }

    fn failed(name: &str, e: &Error) -> Check {
        // One line: what the verifier said is in the error for those who start a session.
        let text = format!("{e:#}");
        check(
            name,
            Status::Failed,
            text.lines().next().unwrap_or_default(),
            e.hint(),
        )
    }

    fn monitor_check(monitor: Monitor, certificate: &Certificate) -> Check {
        let name = format!("monitor {monitor}");
        let variants: Vec<String> = certificate
            .probes
            .iter()
            .map(|p| {
                format!(
                    "{} by {}",
                    p.name,
                    p.variant.as_deref().unwrap_or("nothing")
                )
            })
            .collect();
        if certificate.is_complete() {
            check(&name, Status::Ok, variants.join(", "), None)
        } else {
            check(
                &name,
                Status::Limited,
                certificate.incomplete_reasons.join("; "),
                Some("the probes below say why each variant was refused"),
            )
        }
    }

    fn kernel() -> Check {
        let release = release();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let found = format!("{release} {}", std::env::consts::ARCH);
        if version >= (5, 10) {
            check("kernel", Status::Ok, found, None)
        } else {
            check(
                "kernel",
                Status::Failed,
                found,
                Some("use Linux 5.10 or later"),
            )
        }
    }

    fn btf() -> Check {
        if Path::new("/sys/kernel/btf/vmlinux").exists() {
            check("btf", Status::Ok, "/sys/kernel/btf/vmlinux", None)
        } else {
            check(
                "btf",
                Status::Failed,
                "the kernel does not describe its types",
                Some("use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs"),
            )
        }
    }

    fn modules() -> Check {
        match securityfs_lsm() {
            Some(list) if list.split(',').any(|m| m == "bpf") => {
                check("lsm", Status::Ok, list, None)
            }
            Some(list) => check(
                "lsm",
                Status::Limited,
                format!("{list}: without bpf, so fences rest on fmod_ret and on file keys alone"),
                Some("add bpf to the list after lsm= on the kernel command line and reboot"),
            ),
            None => check(
                "lsm",
                Status::Unknown,
                "the list of security modules cannot be read",
                Some("run as root; mount -t securityfs securityfs /sys/kernel/security"),
            ),
        }
    }

    fn lockdown() -> Check {
        let Some(text) = securityfs_lockdown() else {
            return check(
                "lockdown",
                Status::Unknown,
                "not readable: the kernel has none, or rights are missing",
                None,
            );
        };
        let level = text.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
        if level == "confidentiality" {
            check(
                "lockdown",
                Status::Failed,
                "confidentiality: every program that reads kernel memory is refused",
                Some("boot with lockdown=integrity or without lockdown"),
            )
        } else {
            check("lockdown", Status::Ok, level, None)
        }
    }

    fn rights() -> Check {
        let set = rights_held();
        let missing: Vec<&str> = NEEDED_RIGHTS
            .iter()
            .filter(|(_, bit)| set & (1 << bit) == 0)
            .map(|(name, _)| *name)
            .collect();
        if missing.is_empty() {
            check("rights", Status::Ok, "CAP_BPF, CAP_PERFMON", None)
        } else {
            let found = format!("{} missing", missing.join(", "));
            check(
                "rights",
                Status::Failed,
                found,
                Some("run as root; before Linux 5.11 CAP_SYS_RESOURCE is needed too"),
            )
        }
    }

    /// Refuses a call of a thread of ours.
    fn seccomp() -> Check {
        match crate::fence::try_seccomp() {
            Ok(()) => check(
                "system calls",
                Status::Ok,
                "refused by seccomp, to what 'run' starts",
                None,
            ),
            Err(e) => failed("system calls", &e),
        }
    }

    /// People ask; the objects are compiled into the program.
    fn clang() -> Check {
        check("clang", Status::Ok, "not needed at run time", None)
    }

    fn cgroups() -> Check {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        match mounts::parse(&table)
            .into_iter()
            .find(|m| m.fs_type == "cgroup2")
        {
            Some(mount) => check(
                "cgroup2",
                Status::Ok,
                mount.mount_point.display().to_string(),
                None,
            ),
            None => check(
                "cgroup2",
                Status::Limited,
                "not mounted: --cgroup cannot be used",
                Some("mount -t cgroup2 none /sys/fs/cgroup"),
            ),
        }
    }

    /// Arms a fence around a process of ours and a file of ours, and takes it down again.
    fn fence(pid: u32) -> (Check, Option<(FenceState, Vec<ProbeState>)>) {
        let attempt = || -> Result<(FenceState, Vec<ProbeState>)> {
            let file = Guarded::new()?;
            let env = Environment::new(None, PathBuf::from("/"));
            let rules = RuleSet::deny_files([file.0.clone()], &env)?;
            let session = Session::builder()
                .scope(Scope::new().tree(pid))
                .policy(rules)
                .start()?;
            let certificate = session.end(&mut |_| {})?;
            let state = certificate.fence.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotEnforced,
                    "the session had no fence; this is a defect",
                )
            })?;
            Ok((state, certificate.probes))
        };
        match attempt() {
            Ok((state, probes)) => {
                let found = format!(
                    "refused by {} with identity {}",
                    state.mechanism, state.identity
                );
                (
                    check("canary", Status::Ok, found, None),
                    Some((state, probes)),
                )
            }
            Err(e) => (failed("canary", &e), None),
        }
    }

    /// A file to guard; goes with the value.
    struct Guarded(PathBuf);

    impl Guarded {
        fn new() -> Result<Self> {
            let shm = PathBuf::from("/dev/shm");
            // A tmpfs where there is one: what the temporary directory is on must not decide.
            let dir = if shm.is_dir() {
                shm
            } else {
                std::env::temp_dir()
            };
            let path = dir.join(format!("stockade-doctor-{}", std::process::id()));
            let made = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path);
            made.map(|_| Guarded(path.clone())).map_err(|e| {
                Error::new(ErrorKind::Io, format!("{}: {e}", path.display())).with_source(e)
            })
        }
    }

    impl Drop for Guarded {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
