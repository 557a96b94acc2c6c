//! The lock-out guard: a fence that holds the operator's own session must leave it what it needs to go on.
//!
//! What counts are init and the processes that this one hangs below, as far as the scope holds them: their programs and the
//! libraries that those have mapped, and this program's, to be run again. Each is asked for at the tables that are about to
//! be installed, by the identity that the kernel half will find.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::identity::{Exact, Identity, Known, Opened};
use super::plan::Plan;
use super::subjects::Subjects;
use crate::enrich::{MapLine, ids};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{self, Access, FileKind, FileRule, LimitRule, SyscallRule, Thing, place};

/// A file without which the operator is locked out.
#[derive(Debug)]
pub(super) struct Vital {
    /// Who needs it.
    who: String,
    /// For what.
    access: Access,
    opened: Opened,
    /// Of who needs it.
    class: usize,
}

/// What these processes need of the file system; empty where nobody is held.
pub(super) fn vital(held: &[u32], subjects: &Subjects) -> Vec<Vital> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    if held.is_empty() {
        return all;
    }
    for pid in held.iter().copied().chain([std::process::id()]) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let who = if pid == std::process::id() {
            "this program".to_owned()
        } else {
            let name = fs::read(proc.join("comm")).unwrap_or_default();
            let name = crate::event::text::escape(name.trim_ascii_end());
            format!("process {pid} ({name})")
        };
        let program = fs::read_link(proc.join("exe")).unwrap_or_default();
        let class = class_of(&proc, subjects);
        // Behind the link lies the very file, whatever is at its name now.
        let mut needed = vec![(Access::EXEC, proc.join("exe"), program)];
        let maps = fs::read(proc.join("maps")).unwrap_or_default();
        needed.extend(libraries(&maps).map(|path| {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let by = proc.join("root").join(inside);
            (Access::READ | Access::EXEC, by, path.to_owned())
        }));
        for (access, by, path) in needed {
            // What is gone cannot be denied any more, and a process that has ended needs nothing.
            let Ok(fd) = rustix::fs::open(&by, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            else {
                continue;
            };
            let Ok(stat) = rustix::fs::fstat(&fd) else {
                continue;
            };
            if seen.insert((class, stat.st_dev, stat.st_ino)) {
                all.push(Vital {
                    who: who.clone(),
                    access,
                    opened: Opened::new(&path, fd, &stat),
                    class,
                });
            }
        }
    }
    all
}

/// Whom rules take a process for.
fn class_of(proc: &Path, subjects: &Subjects) -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let exe = fs::metadata(proc.join("exe")).ok();
    let status = fs::read(proc.join("status")).unwrap_or_default();
    let [_, uid] = ids(&status, "Uid:");
    subjects.class_of(exe.map(|exe| (exe.dev(), exe.ino())), uid)
}

/// Files that are mapped to be run, of /proc/PID/maps. The program is among them.
fn libraries(maps: &[u8]) -> impl Iterator<Item = &Path> {
    let code = MapLine::all(maps).filter(MapLine::is_code);
    let files = code
        .map(|line| line.path)
        .filter(|path| path.starts_with(b"/") && !path.ends_with(b" (deleted)"));
    files.map(|path| Path::new(OsStr::from_bytes(path)))
}

/// # Errors
///
/// [`ErrorKind::Policy`]: one of these limits can be used up by somebody, and then refuses or ends the operator's processes.
pub(super) fn spare(operators: &[u32], limits: &[LimitRule]) -> Result<()> {
    let shared = |rule: &&LimitRule| {
        let by_forks = rule.counts(Thing::Forks) || rule.counts(Thing::Threads);
        rule.mode == policy::Mode::Enforce && !rule.each && (by_forks || rule.refusal.kill)
    };
    match limits.iter().find(shared) {
        Some(rule) if !operators.is_empty() => Err(Error::new(
            ErrorKind::Policy,
            format!(
                "{} is one for all, and this fence holds the session that arms it: who uses it up leaves that without new processes, or has it killed; nothing is armed",
                place(rule)
            ),
        )
        .with_hint("leave that session out of the scope, or write \"per: process\"; --i-know arms it all the same")),
        _ => Ok(()),
    }
}

/// Calls that every program makes to go on, and a shell to start another one.
const OF_EVERYBODY: [&str; 10] = [
    "read",
    "write",
    "close",
    "mmap",
    "rt_sigaction",
    "futex",
    "clone",
    "wait4",
    "execve",
    "exit_group",
];

/// # Errors
///
/// [`ErrorKind::Policy`]: a rule ends who makes one of these calls; `by` says which.
pub(super) fn spare_calls<'a>(
    operators: &[u32],
    by: impl Fn(&str) -> Option<&'a SyscallRule>,
) -> Result<()> {
    let found = OF_EVERYBODY.iter().find_map(|name| Some((name, by(name)?)));
    match found {
        Some((name, rule)) if !operators.is_empty() => Err(Error::new(
            ErrorKind::Policy,
            format!(
                "{} would end who calls {name}, and this fence holds the session that arms it; nothing is armed",
                place(rule)
            ),
        )
        .with_hint("leave that session out of the scope, or change the rule; --i-know arms it all the same")),
        _ => Ok(()),
    }
}

impl Plan {
    /// # Errors
    ///
    /// [`ErrorKind::Policy`]: a rule refuses one of them.
    pub(super) fn spares(
        &self,
        vital: Vec<Vital>,
        known: &Known,
        rules: &[&FileRule],
        by_file: &HashMap<Exact, usize>,
    ) -> Result<()> {
        for Vital {
            who,
            access,
            opened,
            class,
        } in vital
        {
            // Too deep for the kernel half: no rule knows it, and no policy names it.
            let Some(file) = Identity::found(opened, known)? else {
                continue;
            };
            // As the kernel half will find it.
            let mut said = self.places.about(&file.key, &file.name, &file.above);
            if let Some(at) = by_file.get(&file.exact()) {
                said = said.both(&self.targets[*at].said);
            }
            for kind in access.kinds() {
                let bit = kind.bits().trailing_zeros() as usize;
                let said = match file.setuid && kind == Access::EXEC {
                    true => said.both(&self.of_kinds[FileKind::Setuid as usize]),
                    false => said.clone(),
                };
                let Some(number) = said.refused_by(&self.otherwise, class, bit) else {
                    continue;
                };
                let rule = rules.get(number as usize);
                return Err(Error::new(
                    ErrorKind::Policy,
                    format!(
                        "{} would refuse {kind} of {}, which {who} needs, and this fence holds the session that arms it; nothing is armed",
                        rule.map_or_else(|| "a rule".to_owned(), |rule| place(*rule)),
                        file.path.display(),
                    ),
                )
                .with_hint("leave that session out of the scope, or change the rule; --i-know arms it all the same"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_to_be_run() {
        let maps = b"\
55d0c0a00000-55d0c0a20000 r--p 00000000 08:01 11 /usr/bin/bash
55d0c0a20000-55d0c0b00000 r-xp 00020000 08:01 11 /usr/bin/bash
7f0000000000-7f0000001000 r-xp 00000000 08:01 12 /opt/a lib.so
7f0000002000-7f0000003000 r-xp 00000000 08:01 13 /usr/lib/old.so (deleted)
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0  [vdso]
";
        let found: Vec<_> = libraries(maps).collect();
        assert_eq!(
            found,
            [Path::new("/usr/bin/bash"), Path::new("/opt/a lib.so")]
        );
    }
}
