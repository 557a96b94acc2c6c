//! The CPUs that are online, and those that come online later.

use std::collections::BTreeSet;

/// Who watches what happens on each CPU by itself begins with those that are online. What comes online later, also what
/// was away meanwhile, is not watched.
#[derive(Debug)]
pub(crate) struct LateCpus {
    /// As of the last look.
    online: BTreeSet<u32>,
    late: BTreeSet<u32>,
}

impl LateCpus {
    /// Looks for the first time.
    pub(crate) fn new() -> Self {
        LateCpus {
            online: online(),
            late: BTreeSet::new(),
        }
    }

    /// Looks again.
    pub(crate) fn look(&mut self) {
        self.note(online());
    }

    fn note(&mut self, now: BTreeSet<u32>) {
        self.late.extend(now.difference(&self.online));
        self.online = now;
    }

    /// Those that came online since the first look.
    pub(crate) fn late(&self) -> impl Iterator<Item = u32> {
        self.late.iter().copied()
    }
}

/// Without such a file no CPU can come and go.
fn online() -> BTreeSet<u32> {
    parse(&std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default())
}

/// A list as the kernel writes it: `0-3,8`.
fn parse(list: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_understood() {
        assert_eq!(parse("0-2,8\n"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(parse("0\n"), BTreeSet::from([0]));
        assert_eq!(parse("\n"), BTreeSet::new());
    }

    #[test]
    fn what_comes_back_is_late_too() {
        let mut cpus = LateCpus {
            online: parse("0-1"),
            late: BTreeSet::new(),
        };
        cpus.note(parse("0"));
        assert_eq!(cpus.late().count(), 0);
        cpus.note(parse("0-2"));
        assert_eq!(cpus.late().collect::<Vec<_>>(), [1, 2]);
        cpus.note(parse("0"));
        assert_eq!(cpus.late().collect::<Vec<_>>(), [1, 2]);
    }
}
