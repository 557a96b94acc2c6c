//! What the kernel says of a process in /proc/PID: `stat`, `status`, `cgroup`.

use crate::event::text;

/// The fields of `stat` that somebody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The name of its main thread, escaped.
    pub(crate) name: String,
    /// Of its main thread, as ps(1) has it: `R`, `S`, `D`, `T`, `t`, `Z` and so on.
    pub(crate) state: u8,
    pub(crate) parent: u32,
    /// The pid of the process that began its session; 0 when it is not to be seen from here.
    pub(crate) session: u32,
    /// `PF_*` of include/linux/sched.h.
    pub(crate) flags: u32,
    /// Since boot, in units of [`TICK_NS`].
    pub(crate) start_ticks: u64,
}

/// The kernel's unit of times in /proc/PID/stat (`USER_HZ`): a hundredth of a second on every architecture we run on.
pub(crate) const TICK_NS: u64 = 10_000_000;

/// `PF_KTHREAD`, include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

impl Stat {
    /// `None` when it is no such line.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        // The name can hold anything, also bytes that are no text, but for this its end is the last parenthesis.
        let (open, close) = (
            line.iter().position(|b| *b == b'(')?,
            line.iter().rposition(|b| *b == b')')?,
        );
        let name = line.get(open + 1..close)?;
        let fields = std::str::from_utf8(line.get(close + 2..)?).ok()?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |n: usize| fields.get(n)?.parse().ok();
        Some(Stat {
            name: text::escape(name),
            state: *fields.first()?.as_bytes().first()?,
            parent: number(1)?,
            session: number(3)?,
            flags: number(6)?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }

    pub(crate) fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

/// The real and the effective id, behind `Uid:` or `Gid:` in /proc/PID/status.
pub(crate) fn ids(status: &[u8], key: &str) -> [Option<u32>; 2] {
    let mut lines = status.split(|b| *b == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(key.as_bytes()));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut ids = line.unwrap_or_default().split_ascii_whitespace();
    let mut next = || ids.next()?.parse().ok();
    [next(), next()]
}

/// The path in the cgroup v2 tree, of /proc/PID/cgroup.
pub(crate) fn unified(cgroups: &[u8]) -> Option<&[u8]> {
    let mut lines = cgroups.split(|b| *b == b'\n');
    lines.find_map(|line| line.strip_prefix(b"0::"))
}

/// This process and those that it was started from, from the inside out, as far as they can be seen from here.
pub(crate) fn ancestry() -> Vec<u32> {
    let mut line = vec![std::process::id()];
    while let Some(parent) = line.last().and_then(|pid| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Some(Stat::parse(&stat)?.parent)
    }) {
        // 0: outside of this pid namespace, or the kernel.
        if parent == 0 || line.contains(&parent) {
            break;
        }
        line.push(parent);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let line =
            b"12 (a) b\xff) S 7 2 3 4 -1 4194560 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.name, "a) b\\xff");
        assert_eq!(
            (stat.state, stat.parent, stat.session, stat.start_ticks),
            (b'S', 7, 3, 4711)
        );
        assert!(!stat.is_kernel_thread());
        for cut in 0..line.len() - b"4711 20 21\n".len() {
            assert_eq!(Stat::parse(&line[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn ids_are_the_real_and_the_effective_one() {
        let status = b"Name:\tUid:\nUid:\t1000\t0\t0\t0\nGid:\t1000\t1000\t1000\t1000\n";
        assert_eq!(ids(status, "Uid:"), [Some(1000), Some(0)]);
        assert_eq!(ids(b"", "Uid:"), [None, None]);
    }

    #[test]
    fn our_own_line_is_read() {
        let stat = Stat::parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(!stat.is_kernel_thread());
    }
}
