//! Rules about system calls: by name, which is the same for 64-bit and 32-bit programs, or by number.

use std::fmt;

use serde::{Serialize, Serializer};

use super::fault::{quoted, unknown};
use super::{Access, Effect, Mode, Refusal};
use crate::event::names;

/// Numbers from here on are not told apart; Linux is far from them.
const NUMBERS: u32 = crate::wire::call_slot::NUMBERS;

/// What 32-bit programs call differently, and 64-bit programs on x86 call so. Names that only differ by a width at their
/// end are not here.
const ALIASES: [(&str, &str); 30] = [
    ("_llseek", "lseek"),
    ("_newselect", "select"),
    ("arm_fadvise64_64", "fadvise64"),
    ("arm_sync_file_range", "sync_file_range"),
    ("fadvise64_64", "fadvise64"),
    ("fstatat64", "newfstatat"),
    ("mmap2", "mmap"),
    ("nice", "setpriority"),
    ("oldfstat", "fstat"),
    ("oldlstat", "lstat"),
    ("oldolduname", "uname"),
    ("oldstat", "stat"),
    ("olduname", "uname"),
    ("readdir", "getdents"),
    ("recv", "recvfrom"),
    ("send", "sendto"),
    ("sgetmask", "rt_sigprocmask"),
    ("sigaction", "rt_sigaction"),
    ("signal", "rt_sigaction"),
    ("sigpending", "rt_sigpending"),
    ("sigprocmask", "rt_sigprocmask"),
    ("sigreturn", "rt_sigreturn"),
    ("sigsuspend", "rt_sigsuspend"),
    ("ssetmask", "rt_sigprocmask"),
    ("stime", "settimeofday"),
    ("ugetrlimit", "getrlimit"),
    ("ulimit", "setrlimit"),
    ("umount", "umount2"),
    ("waitpid", "wait4"),
    ("fstatat", "newfstatat"),
];

/// What io_uring does without the call, up to Linux 7.2 (`enum io_uring_op`).
const IN_RINGS: [&str; 85] = [
    "accept",
    "accept4",
    "bind",
    "clock_nanosleep",
    "close",
    "connect",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fadvise64",
    "fallocate",
    "fdatasync",
    "fgetxattr",
    "fsetxattr",
    "fstat",
    "fsync",
    "ftruncate",
    "futex",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "getpeername",
    "getsockname",
    "getxattr",
    "ioctl",
    "link",
    "linkat",
    "listen",
    "lstat",
    "madvise",
    "mkdir",
    "mkdirat",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "pselect6",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "select",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "getsockopt",
    "setxattr",
    "shutdown",
    "socket",
    "splice",
    "stat",
    "statx",
    "symlink",
    "symlinkat",
    "sync_file_range",
    "tee",
    "unlink",
    "unlinkat",
    "wait4",
    "waitid",
    "write",
    "writev",
];

const RINGS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// A system call, as a program makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemCall {
    /// In the table of the machine, or of its 32-bit programs.
    pub number: u32,
    /// Made as 32-bit programs make it, whatever the program.
    pub compat: bool,
    /// What it is called; empty where it has no name.
    pub name: &'static str,
    /// The call that stands for this one and others: `socketcall`, `ipc`.
    pub by: Option<&'static str>,
}

impl SystemCall {
    /// The call of this name as the machine's own programs make it, else as 32-bit programs do; `None` where neither
    /// know it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let [native, compat] = names::syscall_numbers(name);
        let native = native.map(|number| SystemCall::numbered(number, false));
        let compat = || compat.map(|number| SystemCall::numbered(number, true));
        // A name of another machine's can be one of a call that this one has.
        let elsewhere = || {
            let known = names::syscalls().find(|known| *known == name)?;
            let usual = Some(usual(known)).filter(|usual| *usual != name)?;
            SystemCall::named(usual)
        };
        native.or_else(compat).or_else(elsewhere)
    }

    /// The call of this number.
    #[must_use]
    pub fn numbered(number: u32, compat: bool) -> Self {
        SystemCall {
            number,
            compat,
            name: names::syscall(compat.into(), number),
            by: None,
        }
    }

    /// What stands for several: how many that can be, and each by its number.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn asked_by(self) -> Vec<SystemCall> {
        let asked = names::asked_of(self.compat.into(), self.name);
        asked
            .map_or(&[][..], |(names, _)| names)
            .iter()
            .map(|name| SystemCall {
                name,
                by: Some(self.name),
                ..self
            })
            .collect()
    }

    pub(super) fn usual_name(self) -> &'static str {
        usual(self.name)
    }
}

/// What 64-bit programs on x86 call it, where they have it.
fn usual(name: &'static str) -> &'static str {
    if names::is_syscall_of_x86_64(name) {
        return name;
    }
    let alias = ALIASES.iter().find(|(known, _)| *known == name);
    let narrower = ["_time64", "64", "32"]
        .iter()
        .filter_map(|width| name.strip_suffix(width))
        .find(|name| names::is_syscall_of_x86_64(name));
    alias.map(|(_, usual)| *usual).or(narrower).unwrap_or(name)
}

impl fmt::Display for SystemCall {
    /// Its name, or its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "" => write!(f, "{}", self.number)?,
            name => f.write_str(name)?,
        }
        if self.compat {
            f.write_str(" (32-bit)")?;
        }
        Ok(())
    }
}

/// How a rule calls a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Called {
    /// By a name that it has: as 64-bit programs make it and as 32-bit programs do.
    Name(&'static str),
    /// By its number in the machine's own table.
    Number(u32),
}

impl Called {
    /// As it is written in a policy; the error is a sentence.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        if !written.is_empty() && written.bytes().all(|b| b.is_ascii_digit()) {
            let number = written.parse().ok().filter(|n| *n < NUMBERS);
            return number.map(Called::Number).ok_or_else(|| {
                format!(
                    "no system call has the number {}; they are less than {NUMBERS}",
                    quoted(written)
                )
            });
        }
        let known = names::syscalls().find(|name| *name == written);
        known.map(Called::Name).ok_or_else(|| {
            let instead = "; if it is a new one, write its number";
            unknown("system call", written, names::syscalls(), instead)
        })
    }

    pub(super) fn means(self, call: &SystemCall) -> bool {
        match self {
            Called::Number(number) => !call.compat && call.number == number,
            Called::Name(name) => usual(name) == call.usual_name() || call.by == Some(name),
        }
    }

    fn is_done_in_rings(self) -> bool {
        match self {
            Called::Name(name) => IN_RINGS.contains(&usual(name)),
            Called::Number(number) => {
                IN_RINGS.contains(&SystemCall::numbered(number, false).usual_name())
            }
        }
    }
}

impl fmt::Display for Called {
    /// As it is written in a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Called::Name(name) => f.write_str(name),
            Called::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Serialize for Called {
    /// As it is written.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is done about a call that a rule refuses, of a process to which nobody can refuse it: one that runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Otherwise {
    /// The process is ended. The call is made, and nobody comes back from it.
    Kill,
    /// The call is told as one that would have been refused.
    Log,
}

impl Otherwise {
    /// Every choice.
    pub const ALL: [Otherwise; 2] = [Otherwise::Kill, Otherwise::Log];

    /// The word for it in a policy document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Otherwise::Kill => "kill",
            Otherwise::Log => "log",
        }
    }

    /// The choice of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Otherwise::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// A rule that denies system calls, or allows these alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SyscallRule {
    /// What the rule is called in events and messages; unique in its set.
    pub id: String,
    /// Whether the rule denies or allows.
    pub effect: Effect,
    /// Which calls; never empty.
    pub calls: Vec<Called>,
    /// Whether the rule refuses or reports; the document's mode is already worked in.
    pub mode: Mode,
    /// Which of two rules about the same decides, as for files.
    pub priority: i32,
    /// How it refuses.
    pub refusal: Refusal,
    /// What it does where it cannot; without it, such a policy is not armed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Otherwise>,
    /// The line of the document on which the rule starts, from 1.
    pub line: u32,
}

impl SyscallRule {
    /// The same rule for processes that run already; `None` where it does not say what is done about them.
    #[cfg(stockade_kernel)]
    pub(crate) fn of_running(&self) -> Option<SyscallRule> {
        let mut rule = self.clone();
        match (self.mode, self.otherwise) {
            (Mode::Audit, _) => {}
            (Mode::Enforce, Some(Otherwise::Log)) => rule.mode = Mode::Audit,
            (Mode::Enforce, Some(Otherwise::Kill)) => rule.refusal.kill = true,
            (Mode::Enforce, None) => return None,
        }
        Some(rule)
    }

    /// Whether the rule says something about this call. Who denies what io_uring does as well denies io_uring.
    #[must_use]
    pub fn speaks_of(&self, call: &SystemCall, kind: Access) -> bool {
        let by_ring = || {
            self.effect == Effect::Deny
                && RINGS.contains(&call.name)
                && self.calls.iter().any(|called| called.is_done_in_rings())
        };
        Access::CALL.contains(kind)
            && (self.calls.iter().any(|called| called.means(call)) || by_ring())
    }
}

/// Every call that is told apart, by the machine's own programs and by 32-bit programs; what has no name is there once for
/// all of its kind, as the last of them.
pub(crate) fn calls() -> impl Iterator<Item = SystemCall> {
    [false, true].into_iter().flat_map(|compat| {
        (0..=NUMBERS).flat_map(move |number| {
            let call = SystemCall::numbered(number, compat);
            let asked = call.asked_by();
            if asked.is_empty() { vec![call] } else { asked }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect, calls: &[&str]) -> SyscallRule {
        SyscallRule {
            id: "a".to_owned(),
            effect,
            calls: calls.iter().map(|c| Called::parse(c).unwrap()).collect(),
            mode: Mode::Enforce,
            priority: 0,
            refusal: Refusal::default(),
            otherwise: None,
            line: 0,
        }
    }

    #[track_caller]
    fn speaks(rule: &SyscallRule, call: SystemCall, expected: bool) {
        assert_eq!(rule.speaks_of(&call, Access::CALL), expected, "{call}");
    }

    fn compat(name: &str) -> SystemCall {
        let number = names::syscall_numbers(name)[1].expect("a call of 32-bit programs");
        SystemCall::numbered(number, true)
    }

    #[test]
    fn a_name_means_the_call_of_32_bit_programs_as_well() {
        let deny = rule(Effect::Deny, &["setuid", "mmap", "clock_settime", "ptrace"]);
        for name in ["setuid", "setuid32", "mmap2", "ptrace", "clock_settime64"] {
            speaks(&deny, compat(name), true);
        }
        for name in ["setgid32", "munmap", "clock_gettime64"] {
            speaks(&deny, compat(name), false);
        }
        // By whichever name.
        let umount = rule(Effect::Deny, &["umount", "setuid32"]);
        for name in ["umount2", "setuid"] {
            speaks(&umount, SystemCall::named(name).unwrap(), true);
        }
        speaks(&umount, compat("umount2"), true);
        // A call that has its own name in both tables is no other one's.
        speaks(
            &rule(Effect::Deny, &["getdents"]),
            compat("getdents64"),
            false,
        );
    }

    #[test]
    fn every_name_that_only_32_bit_programs_know_is_one_of_their_own_or_means_another() {
        let own = [
            "bdflush",
            "ftime",
            "gtty",
            "idle",
            "ipc",
            "lock",
            "mpx",
            "prof",
            "profil",
            "socketcall",
            "stty",
            "vm86",
            "vm86old",
            // As the crate writes what is a word of Rust.
            "r#break",
            "pciconfig_iobase",
            "pciconfig_read",
            "pciconfig_write",
        ];
        let of_32_bits = (0..NUMBERS).map(|number| SystemCall::numbered(number, true));
        for call in of_32_bits.filter(|call| !call.name.is_empty()) {
            let known = names::is_syscall_of_x86_64(call.usual_name());
            assert!(known != own.contains(&call.name), "{}", call.name);
        }
        assert!(
            ALIASES
                .iter()
                .all(|(_, usual)| { names::is_syscall_of_x86_64(usual) || own.contains(usual) })
        );
        assert!(
            IN_RINGS
                .iter()
                .all(|name| names::is_syscall_of_x86_64(name))
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_one_call_stands_for_is_meant_by_its_name() {
        let asked = compat("socketcall").asked_by();
        let connect = asked.iter().find(|call| call.name == "connect").unwrap();
        speaks(&rule(Effect::Deny, &["connect"]), *connect, true);
        speaks(&rule(Effect::Deny, &["socketcall"]), *connect, true);
        speaks(&rule(Effect::Deny, &["bind"]), *connect, false);
        assert!(SystemCall::named("socketcall").is_some_and(|call| call.compat));
    }

    #[test]
    fn who_denies_what_io_uring_does_denies_io_uring() {
        let ring = SystemCall::named("io_uring_setup").unwrap();
        speaks(&rule(Effect::Deny, &["openat"]), ring, true);
        speaks(&rule(Effect::Deny, &["ptrace"]), ring, false);
        speaks(&rule(Effect::Allow, &["openat"]), ring, false);
        let openat = SystemCall::named("openat").unwrap().number.to_string();
        speaks(&rule(Effect::Deny, &[&openat]), ring, true);
    }

    #[test]
    fn a_number_is_one_of_the_machines_own() {
        let ptrace = SystemCall::named("ptrace").unwrap();
        let by_number = rule(Effect::Deny, &[&ptrace.number.to_string()]);
        speaks(&by_number, ptrace, true);
        speaks(&by_number, SystemCall::numbered(ptrace.number, true), false);
        assert!(Called::parse("959").is_ok());
        for (written, said) in [
            ("960", "less than 960"),
            ("99999999999999", "less than 960"),
            ("ptrce", "did you mean \"ptrace\""),
            ("frobnicate_the_kernel", "write its number"),
            ("", "unknown system call"),
        ] {
            let sentence = Called::parse(written).expect_err(written);
            assert!(sentence.contains(said), "{written}: {sentence}");
        }
    }
}
