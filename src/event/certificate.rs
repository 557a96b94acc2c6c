//! The end record of a session: what was watched, what was proved, what was lost.

use serde::{Deserialize, Serialize};

/// What a session can vouch for. It is complete when nothing that was asked for can have gone unseen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Certificate {
    /// When the session began to watch, in nanoseconds since boot.
    pub started_ns: u64,
    /// When it ended, in nanoseconds since boot.
    pub ended_ns: u64,
    /// Names of the monitors that were asked for.
    pub monitors: Vec<String>,
    /// Every probe of these monitors, and of the fence.
    pub probes: Vec<ProbeState>,
    /// The fence, when one was armed.
    pub fence: Option<FenceState>,
    /// Events that were delivered, denials among them.
    pub events: u64,
    /// Denials that were delivered, those of audit mode among them.
    pub denials: u64,
    /// What was delivered of each kind that came, by name.
    pub kinds: Vec<KindCount>,
    /// What was lost; empty when nothing was.
    pub losses: Vec<LossCount>,
    /// How often the kernel skipped a program because it was running already on that CPU (`recursion_misses`).
    pub skipped_programs: u64,
    /// Nothing can have gone unseen. Read it through [`Certificate::is_complete`].
    pub complete: bool,
    /// Why it is not complete, one sentence each.
    pub incomplete_reasons: Vec<String>,
}

impl Certificate {
    /// Whether nothing can have gone unseen. A certificate that gives a reason against it is never complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete && self.incomplete_reasons.is_empty()
    }

    /// How long the session lasted, in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.started_ns)
    }
}

/// How much was delivered of one kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KindCount {
    /// The kind's name, as in `event.action`.
    pub kind: String,
    /// Events delivered.
    pub seen: u64,
    /// Of these, those with a path or arguments that are cut off.
    pub truncated: u64,
    /// Further events that were left out by sampling, as [`Sampled`](super::Sampled) says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sampled: u64,
    /// Further events that were left out because their process had sent its share.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl KindCount {
    /// So many of this kind.
    #[must_use]
    pub fn new(kind: impl Into<String>, seen: u64, truncated: u64) -> Self {
        KindCount {
            kind: kind.into(),
            seen,
            truncated,
            sampled: 0,
            suppressed: 0,
        }
    }
}

/// One probe and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbeState {
    /// Which probe: `process_exec`.
    pub name: String,
    /// Whether it works.
    pub state: Attachment,
    /// The variant in use: `tp_btf`, `fexit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Why it is unavailable, or why a better variant is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ProbeState {
    /// A probe that works, by this variant.
    #[must_use]
    pub fn attached(name: impl Into<String>, variant: impl Into<String>) -> Self {
        ProbeState {
            name: name.into(),
            state: Attachment::Attached,
            variant: Some(variant.into()),
            reason: None,
        }
    }

    /// A probe that does not, for this reason.
    #[must_use]
    pub fn unavailable(name: impl Into<String>, reason: impl Into<String>) -> Self {
        ProbeState {
            name: name.into(),
            state: Attachment::Unavailable,
            variant: None,
            reason: Some(reason.into()),
        }
    }
}

/// Whether a probe works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attachment {
    /// One of its variants is attached.
    Attached,
    /// This kernel takes none of its variants.
    Unavailable,
}

impl Attachment {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Attachment::Attached => "attached",
            Attachment::Unavailable => "unavailable",
        }
    }
}

/// The fence as it was armed and proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FenceState {
    /// Name of the policy.
    pub policy: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What refuses: `lsm` or `fmod_ret`, `seccomp` where rules are about system calls, `tracepoint` where limits are; with `+`
    /// between them.
    pub mechanism: String,
    /// How files are recognised: `tag+key` or `key`; `none` where no rule is about files.
    pub identity: String,
    /// Rules in force.
    pub rules: u32,
    /// Files, and directories whose contents are meant, that they are about.
    pub files: u32,
    /// Addresses and hosts that they are about, each with its prefix and its ports.
    #[serde(default)]
    pub addresses: u32,
    /// System calls that they are about.
    #[serde(default)]
    pub syscalls: u32,
    /// Limits among them.
    #[serde(default)]
    pub limits: u32,
    /// Accesses that had to be refused and were.
    pub canary_proofs: u32,
    /// How often another policy took the place of the one before; this is about the last one.
    #[serde(default)]
    pub reloads: u32,
    /// The name under which it is pinned: it stands without the session, until it is unpinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
}

impl FenceState {
    /// What the rules are about: `17 paths`, `2 addresses`, `1 system call`, or several of them.
    #[must_use]
    pub fn objects(&self) -> String {
        let counted = |n: u32, one: &str| match n {
            1 => format!("1 {one}"),
            n if one.ends_with('s') => format!("{n} {one}es"),
            n => format!("{n} {one}s"),
        };
        let of = [
            (self.files, "path"),
            (self.addresses, "address"),
            (self.syscalls, "system call"),
            (self.limits, "limit"),
        ];
        let of = of.iter().filter(|(n, _)| *n > 0);
        let counted: Vec<String> = of.map(|(n, one)| counted(*n, one)).collect();
        counted.join(" and ")
    }
}

/// How much of one thing was lost for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LossCount {
    /// What: the name of a kind of event, or `scope`.
    pub of: String,
    /// Why: `ring`, `scratch`, `map` or `decode`, as in [`Loss`](super::Loss).
    pub cause: String,
    /// On which CPU, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// How many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_against_completeness_beats_the_flag() {
        let mut certificate = Certificate {
            complete: true,
            ..Certificate::default()
        };
        assert!(certificate.is_complete());
        certificate
            .incomplete_reasons
            .push("12 opens were lost".into());
        assert!(!certificate.is_complete());
        assert!(
            !Certificate::default().is_complete(),
            "what nobody vouched for is not complete"
        );
    }
}
