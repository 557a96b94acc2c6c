//! Who is watched or fenced.
//!
//! A [`Scope`] is plain data; what it means on this machine is found out when a session starts.

#[cfg(stockade_kernel)]
mod resolve;

use std::fmt;
use std::path::PathBuf;

#[cfg(stockade_kernel)]
pub(crate) use resolve::{FOLLOW, Resolved, max_processes, no_process, open_cgroup};

use crate::event::Quoted;

/// Which processes are meant. Who: any of the trees, pids and cgroups, or the whole host. Narrowed by user ids and by
/// names, where such are given. The program that starts the session is never part of it.
///
/// ```
/// use stockade::Scope;
/// let scope = Scope::new().tree(1234).uid(1000);
/// assert!(!scope.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Scope {
    pub(crate) host: bool,
    pub(crate) grows: bool,
    pub(crate) pids: Vec<u32>,
    pub(crate) trees: Vec<u32>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) uids: Vec<u32>,
    pub(crate) comms: Vec<String>,
}

impl Scope {
    /// Nobody yet.
    pub fn new() -> Self {
        Scope::default()
    }

    /// Every process of the machine.
    pub fn host(mut self) -> Self {
        self.host = true;
        self
    }

    /// Whoever is added while the session runs ([`Session::follow`](crate::Session::follow)), who may be nobody yet.
    /// Not needed where a process or a tree is named.
    pub fn added_later(mut self) -> Self {
        self.grows = true;
        self
    }

    /// This process, without its children. In the caller's pid namespace.
    pub fn pid(mut self, pid: u32) -> Self {
        self.pids.push(pid);
        self
    }

    /// This process and all it starts from now on, and what it started that still runs under it. Children stay in it
    /// through double forks, new sessions and the death of their parents.
    pub fn tree(mut self, pid: u32) -> Self {
        self.trees.push(pid);
        self
    }

    /// This cgroup (v2) with all below it: a path under the cgroup2 mount, or one that starts at the mount's root.
    pub fn cgroup(mut self, path: impl Into<PathBuf>) -> Self {
        self.cgroups.push(path.into());
        self
    }

    /// Only processes of this real user id; more calls add more users.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    /// Only threads of this name (at most 15 bytes count); more calls add more names. A thread can rename itself: good
    /// for watching, not for fencing.
    pub fn comm(mut self, comm: impl Into<String>) -> Self {
        self.comms.push(comm.into());
        self
    }

    /// Whether nobody is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Scope::default()
    }

    /// Whether it names processes and trees and nothing else.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn is_processes(&self) -> bool {
        let named = Scope {
            pids: self.pids.clone(),
            trees: self.trees.clone(),
            ..Scope::default()
        };
        !self.is_empty() && *self == named
    }

    /// Uids and names alone narrow the whole host.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn whole_host(&self) -> bool {
        self.host
            || (!self.grows
                && self.pids.is_empty()
                && self.trees.is_empty()
                && self.cgroups.is_empty()
                && !self.is_empty())
    }
}

/// Who is meant, in words: `tree 1234, cgroup /system.slice/nginx.service; only user 1000`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut who = Vec::new();
        if self.whole_host() {
            who.push("the whole host".to_owned());
        }
        who.extend(self.pids.iter().map(|pid| format!("process {pid}")));
        who.extend(self.trees.iter().map(|pid| format!("tree {pid}")));
        let cgroups = self.cgroups.iter();
        who.extend(cgroups.map(|path| format!("cgroup {}", Quoted(&path.to_string_lossy()))));
        if self.grows {
            who.push("who is added".to_owned());
        }
        let mut only = Vec::new();
        only.extend(self.uids.iter().map(|uid| format!("user {uid}")));
        only.extend(
            self.comms
                .iter()
                .map(|name| format!("name {}", Quoted(name))),
        );
        match (who.is_empty(), only.is_empty()) {
            (true, _) => f.write_str("nobody"),
            (false, true) => f.write_str(&who.join(", ")),
            (false, false) => write!(f, "{}; only {}", who.join(", "), only.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_said_in_words() {
        let said = |scope: Scope| scope.to_string();
        assert_eq!(said(Scope::new()), "nobody");
        assert_eq!(said(Scope::new().host()), "the whole host");
        let two = Scope::new().tree(1).pid(2).cgroup("/a b");
        assert_eq!(said(two), "process 2, tree 1, cgroup \"/a b\"");
        let narrow = Scope::new().uid(1000).comm("make");
        assert_eq!(said(narrow), "the whole host; only user 1000, name make");
        assert_eq!(said(Scope::new().added_later()), "who is added");
    }

    #[test]
    fn uids_and_names_alone_narrow_the_whole_host() {
        assert!(Scope::new().uid(1).whole_host());
        assert!(Scope::new().comm("make").whole_host());
        assert!(!Scope::new().tree(1).uid(1).whole_host());
        assert!(!Scope::new().whole_host());
        assert!(!Scope::new().added_later().uid(1).whole_host());
    }
}
