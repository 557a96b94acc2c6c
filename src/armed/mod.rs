//! The fences that are armed on this machine: found, described, and taken down where they outlive who has armed them.
//!
//! ```no_run
//! fn main() -> stockade::Result<()> {
//!     for fence in stockade::armed::fences()? {
//!         println!("{fence}");
//!     }
//!     stockade::armed::unpin("server")
//! }
//! ```

#[cfg(stockade_kernel)]
mod live;

use std::fmt;

use serde::Serialize;

use crate::error::Result;
#[cfg(not(stockade_kernel))]
use crate::error::{Error, ErrorKind};
use crate::event::Quoted;

/// A fence that is armed on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ArmedFence {
    /// Name of the policy.
    pub policy: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What refuses, as [`FenceState::mechanism`](crate::event::FenceState::mechanism).
    pub mechanism: String,
    /// Who is held, in words.
    pub scope: String,
    /// Since when there is the fence: RFC 3339, UTC.
    pub since: String,
    /// Since when this policy is in force: the same, or later where it took the place of another one.
    pub policy_since: String,
    /// How often another policy took the place of the one before.
    pub reloads: u32,
    /// The name under which it is pinned; `None` where it ends with its monitor.
    pub pinned: Option<String>,
    /// The process that looks after it, in the initial pid namespace; `None` where that has gone.
    pub monitor: Option<u32>,
    /// The user who has armed it.
    pub user: u32,
    /// The version of stockade that has armed it.
    pub version: String,
    /// Its rules, in the order in which they are numbered.
    pub rules: Vec<RuleHits>,
    /// Why it does not refuse what its policy says; empty where it does.
    pub problems: Vec<String>,
}

/// A rule, and what it has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleHits {
    /// The rule's id.
    pub id: String,
    /// The line of the policy that it begins at.
    pub line: u32,
    /// How often it has refused, or in audit mode would have, since the policy is in force. Of system calls that seccomp
    /// refuses those are counted that are told.
    pub hits: u64,
}

impl ArmedFence {
    /// Whether it refuses what its policy says, as far as can be seen from outside.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    /// What all rules together have refused.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.rules.iter().map(|rule| rule.hits).sum()
    }
}

/// On several lines: the fence, and its rules with what they have refused.
impl fmt::Display for ArmedFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}) on {}, by {}, since {}",
            Quoted(&self.policy),
            Quoted(&self.mode),
            // Put together of quoted names.
            self.scope,
            Quoted(&self.mechanism),
            Quoted(&self.since)
        )?;
        let looked_after = match self.monitor {
            Some(pid) => format!("looked after by process {pid} of user {}", self.user),
            None => format!("nobody looks after it; armed by user {}", self.user),
        };
        write!(f, "\n  {looked_after}")?;
        if let Some(name) = &self.pinned {
            write!(f, "; pinned as {}", Quoted(name))?;
        }
        for problem in &self.problems {
            write!(f, "\n  does not hold: {problem}")?;
        }
        for rule in &self.rules {
            write!(
                f,
                "\n  {:>8}  {} (line {})",
                rule.hits,
                Quoted(&rule.id),
                rule.line
            )?;
        }
        Ok(())
    }
}

/// The fences that are armed on this machine, in the order in which they were.
///
/// # Errors
///
/// [`Permission`](crate::ErrorKind::Permission): only root can ask for them.
/// [`Unsupported`](crate::ErrorKind::Unsupported): not Linux, or a kernel without type information.
pub fn fences() -> Result<Vec<ArmedFence>> {
    #[cfg(stockade_kernel)]
    return live::fences();
    #[cfg(not(stockade_kernel))]
    Err(unsupported())
}

/// Takes a fence down that is pinned under this name and has nobody who looks after it. When this returns it refuses nothing
/// any more.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage): nothing is pinned under this name.
/// [`NotEnforced`](crate::ErrorKind::NotEnforced): its monitor runs, or its names cannot be taken away.
/// [`Permission`](crate::ErrorKind::Permission): only root can.
/// [`Unsupported`](crate::ErrorKind::Unsupported): not Linux, or a kernel without type information.
pub fn unpin(name: &str) -> Result<()> {
    #[cfg(stockade_kernel)]
    return live::unpin(name);
    #[cfg(not(stockade_kernel))]
    {
        let _ = name;
        Err(unsupported())
    }
}

#[cfg(not(stockade_kernel))]
fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "stockade fences on Linux only")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence() -> ArmedFence {
        let rule = |id: &str, line, hits| RuleHits {
            id: id.into(),
            line,
            hits,
        };
        ArmedFence {
            policy: "server".into(),
            mode: "enforce".into(),
            mechanism: "lsm".into(),
            scope: "the whole host".into(),
            since: "2026-03-01T10:00:00Z".into(),
            policy_since: "2026-03-01T10:00:00Z".into(),
            reloads: 0,
            pinned: Some("server".into()),
            monitor: None,
            user: 0,
            version: "0.1.0".into(),
            rules: vec![rule("no-keys", 4, 12), rule("a\nb", 9, 0)],
            problems: Vec::new(),
        }
    }

    #[test]
    fn a_fence_is_described_and_no_name_forges_a_line() {
        let mut fence = fence();
        assert!(fence.holds());
        assert_eq!(fence.hits(), 12);
        let text = "server (enforce) on the whole host, by lsm, since 2026-03-01T10:00:00Z\n  \
            nobody looks after it; armed by user 0; pinned as server\n        \
            12  no-keys (line 4)\n         0  \"a\\nb\" (line 9)";
        assert_eq!(fence.to_string(), text);
        fence.problems.push("it is switched off".into());
        assert!(!fence.holds());
        assert!(
            fence
                .to_string()
                .contains("\n  does not hold: it is switched off")
        );
    }

    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../docs/OPERATION.md");
        let (_, table) = page.split_once("\n## status\n").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let value = serde_json::to_value(fence()).unwrap();
        let fields = value.as_object().unwrap();
        assert_eq!(documented.len(), fields.len());
        for field in documented {
            assert!(fields.contains_key(field), "{field}");
        }
        for field in value["rules"][0].as_object().unwrap().keys() {
            assert!(table.contains(&format!("`{field}`")), "{field}");
        }
    }

    #[cfg(not(stockade_kernel))]
    #[test]
    fn elsewhere_it_answers_unsupported() {
        assert_eq!(fences().unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(unpin("x").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
