//! What rules say about system calls, in the kernel's terms: a filter that refuses them, and a table that says for each
//! which rule it was.

use crate::kernel::seccomp::{CANARY, Filter};
use crate::policy::{Access, Refusal, SyscallRule, SystemCall, refusal};
use crate::wire::{RULE_CANARY, RULE_NONE, call_slot};

/// include/uapi/linux/audit.h: the machine's own calls, and those of its 32-bit programs.
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURES: [u32; 2] = [0xc000_003e, 0x4000_0003];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [u32; 2] = [0xc000_00b7, 0x4000_0028];

/// Of the third table that x86 has, x32, numbers have this bit. Kernels without it do not know these calls.
const X32: u32 = 0x4000_0000;

/// Where `struct seccomp_data` has what is asked (include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const NATIVE: usize = 0;
const COMPAT: usize = 1;

/// The strongest refusal that is enforced, and the strongest of all: as codes, or [`RULE_NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    enforced: u32,
    all: u32,
}

const FREE: Refused = Refused {
    enforced: RULE_NONE,
    all: RULE_NONE,
};

impl Refused {
    /// The stronger of each.
    fn or(self, other: Refused) -> Refused {
        Refused {
            enforced: self.enforced.min(other.enforced),
            all: self.all.min(other.all),
        }
    }

    fn codes(self) -> u64 {
        u64::from(self.enforced) << 32 | u64::from(self.all)
    }

    /// As the kernel half has it: an entry that was never written is free.
    fn word(self) -> u64 {
        self.codes() ^ FREE.codes()
    }
}

/// What is said about each call of the machine's own programs, and of its 32-bit programs, by slot. Where there are no rules,
/// nobody is asked: there are two thousand calls.
pub(super) fn slots<T: Copy>(
    free: T,
    are_rules: bool,
    said: impl Fn(&SystemCall) -> T,
) -> [Vec<T>; 2] {
    [false, true].map(|compat| {
        let mut slots = vec![free; call_slot::SLOTS as usize];
        if !are_rules {
            return slots;
        }
        for number in 0..=call_slot::NUMBERS {
            let call = SystemCall::numbered(number, compat);
            let asked = call.asked_by();
            slots[number as usize] = said(asked.first().unwrap_or(&call));
            let base = match call.name {
                "ipc" => call_slot::IPC,
                _ => call_slot::SOCKET,
            };
            for (which, call) in (base..).zip(&asked) {
                slots[which as usize] = said(call);
            }
        }
        slots
    })
}

/// Everything that is said about system calls.
#[derive(Debug)]
pub(super) struct Calls {
    /// For both tables, by slot.
    slots: [Vec<Refused>; 2],
    /// How many calls rules name.
    pub(super) named: u32,
    by: CallsBy,
}

/// What holds the rules about system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallsBy {
    /// A filter, which goes with a command from its start on.
    Filter,
    /// Nothing that refuses: whoever makes such a call is told, or killed.
    Tracepoint,
}

impl Calls {
    /// `rules` with the stronger one first; `first` is the number of the first one.
    pub(super) fn new(rules: &[&SyscallRule], first: u32, by: CallsBy) -> Self {
        let code = |call: &SystemCall, with_audit: bool| {
            let found = refusal(rules, call, Access::CALL, with_audit);
            found.map_or(RULE_NONE, |(n, unlisted)| {
                let number = first + u32::try_from(n).unwrap_or(u32::MAX);
                number << 1 | u32::from(unlisted)
            })
        };
        let refused = |call: &SystemCall| Refused {
            enforced: code(call, false),
            all: code(call, true),
        };
        let mut slots = slots(FREE, !rules.is_empty(), refused);
        if by == CallsBy::Tracepoint {
            // As no filter answers those that no table of ours has: calls by the x32 table stand for any.
            let all = slots.iter().flatten();
            let any = all.fold(FREE, |any, refused| any.or(*refused));
            if let Some(others) = slots[NATIVE].get_mut(call_slot::NUMBERS as usize) {
                *others = any;
            }
        }
        let mut named: Vec<_> = rules.iter().flat_map(|rule| &rule.calls).collect();
        named.sort_unstable_by_key(ToString::to_string);
        named.dedup();
        Calls {
            slots,
            named: u32::try_from(named.len()).unwrap_or(u32::MAX),
            by,
        }
    }

    /// Whether nothing refuses them.
    pub(super) fn are_traced(&self) -> bool {
        !self.is_empty() && self.by == CallsBy::Tracepoint
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named == 0
    }

    /// Whether something is told that is not refused.
    pub(super) fn audits(&self) -> bool {
        let mut all = self.slots.iter().flatten();
        all.any(|r| r.enforced == RULE_NONE && r.all != RULE_NONE)
    }

    /// The half of the table for the programs that tell, by slot; `first` is the number of the policy's first rule. What is free
    /// is in it where the half was `used` before: nothing can be removed from such a table.
    pub(super) fn table(&self, is_second: bool, first: u32, used: bool) -> Vec<(u32, u64)> {
        let from = if is_second { 2 * call_slot::SLOTS } else { 0 };
        let code = |code: u32| match code {
            RULE_NONE => RULE_NONE,
            code => code + (first << 1),
        };
        let canary = Refused {
            enforced: RULE_CANARY << 1,
            all: RULE_CANARY << 1,
        };
        let all = self.slots.iter().flatten().map(|refused| Refused {
            enforced: code(refused.enforced),
            all: code(refused.all),
        });
        (0u32..)
            .zip(all)
            .map(|(slot, refused)| match slot {
                CANARY if !self.is_empty() => (slot, canary),
                slot => (slot, refused),
            })
            .filter(|(_, refused)| used || *refused != FREE)
            .map(|(slot, refused)| (from + slot, refused.word()))
            .collect()
    }

    /// A rule that refuses this call of the machine's own, by its number.
    pub(super) fn refuses(&self, name: &str) -> Option<usize> {
        let call = SystemCall::named(name).filter(|call| !call.compat)?;
        let enforced = self.slots[NATIVE].get(call.number as usize)?.enforced;
        (enforced != RULE_NONE).then_some((enforced >> 1) as usize)
    }

    /// What refuses, with `refusals` by the numbers of their rules; `None` where nothing is refused, or not by a filter.
    pub(super) fn filter(&self, refusals: &[Refusal], secret: u64) -> Option<Filter> {
        let mut all = self.slots.iter().flatten();
        if self.by == CallsBy::Tracepoint || all.all(|refused| refused.enforced == RULE_NONE) {
            return None;
        }
        let answer = |table: usize, slot: u32| {
            let code = self.slots[table][slot as usize].enforced;
            if code == RULE_NONE {
                return libc::SECCOMP_RET_ALLOW;
            }
            let refusal = refusals.get((code >> 1) as usize).copied();
            libc::SECCOMP_RET_ERRNO | u32::from(refusal.unwrap_or_default().errno)
        };
        let by_number = |table: usize| {
            let leaf = |number: u32| {
                let call = SystemCall::numbered(number, table == COMPAT);
                let asked = u32::try_from(call.asked_by().len()).unwrap_or(0);
                if asked == 0 {
                    return Leaf::Answer(answer(table, number));
                }
                let (base, mask) = match call.name {
                    "ipc" => (call_slot::IPC, 0xffff),
                    _ => (call_slot::SOCKET, u32::MAX),
                };
                // What it does not know is as what it was not asked for.
                let answers = (0..asked).map(|n| (n, Leaf::Answer(answer(table, base + n))));
                let rest = (asked, Leaf::Answer(answer(table, base)));
                let mut code = vec![load(FIRST_ARGUMENT), and(mask)];
                code.extend(search(&merged(answers.chain([rest]))));
                Leaf::Code(code)
            };
            let leaves = (0..=call_slot::NUMBERS).map(|number| (number, leaf(number)));
            search(&merged(leaves))
        };
        let known = branch(
            libc::BPF_JEQ,
            ARCHITECTURES[NATIVE],
            with(load(NUMBER), native(by_number(NATIVE), secret)),
            branch(
                libc::BPF_JEQ,
                ARCHITECTURES[COMPAT],
                with(load(NUMBER), compat(by_number(COMPAT))),
                vec![answering(libc::SECCOMP_RET_KILL_PROCESS)],
            ),
        );
        Some(Filter {
            program: with(load(ARCHITECTURE), known),
            secret,
        })
    }
}

/// What a tracer has taken away is no call.
const TAKEN_AWAY: u32 = u32::MAX;

/// The calls of 32-bit programs: on arm some have numbers far from the others, without which no program works
/// (`__ARM_NR_BASE`: cacheflush, set_tls).
fn compat(others: Code) -> Code {
    let allow = || vec![answering(libc::SECCOMP_RET_ALLOW)];
    let all = branch(libc::BPF_JEQ, TAKEN_AWAY, allow(), others);
    if cfg!(target_arch = "aarch64") {
        return branch(libc::BPF_JGE, 0xf_0000, allow(), all);
    }
    all
}

/// A filter that refuses the canary and nothing else.
pub(super) fn canary_filter(secret: u64) -> Filter {
    let allow = vec![answering(libc::SECCOMP_RET_ALLOW)];
    let own = with(load(NUMBER), native(allow.clone(), secret));
    let known = branch(libc::BPF_JEQ, ARCHITECTURES[NATIVE], own, allow);
    Filter {
        program: with(load(ARCHITECTURE), known),
        secret,
    }
}

/// The machine's own calls: those of the third table, the canary, and the others.
fn native(others: Code, secret: u64) -> Code {
    let allow = || vec![answering(libc::SECCOMP_RET_ALLOW)];
    let refuse = |errno: i32| {
        let errno = u32::try_from(errno).unwrap_or(1);
        vec![answering(libc::SECCOMP_RET_ERRNO | errno)]
    };
    // The lower half of an argument comes first on all that is supported.
    let [low, high] = [secret & u64::from(u32::MAX), secret >> 32].map(|n| n as u32);
    let secret = with(
        load(FIRST_ARGUMENT),
        branch(
            libc::BPF_JEQ,
            low,
            with(
                load(FIRST_ARGUMENT + 4),
                branch(libc::BPF_JEQ, high, refuse(libc::EPERM), allow()),
            ),
            allow(),
        ),
    );
    let own = branch(libc::BPF_JEQ, CANARY, secret, others);
    if cfg!(target_arch = "aarch64") {
        return branch(libc::BPF_JEQ, TAKEN_AWAY, allow(), own);
    }
    let foreign = branch(libc::BPF_JEQ, TAKEN_AWAY, allow(), refuse(libc::ENOSYS));
    branch(libc::BPF_JGE, X32, foreign, own)
}

/// Instructions that end with an answer, whatever happens.
type Code = Vec<libc::sock_filter>;

/// What is to be done from a number on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Answer(u32),
    Code(Code),
}

/// Numbers in a row that are answered alike, as the first of them.
fn merged(leaves: impl IntoIterator<Item = (u32, Leaf)>) -> Vec<(u32, Leaf)> {
    let mut merged: Vec<(u32, Leaf)> = Vec::new();
    for (number, leaf) in leaves {
        if merged.last().is_none_or(|(_, last)| *last != leaf) {
            merged.push((number, leaf));
        }
    }
    merged
}

/// Finds what is to be done by halves.
fn search(leaves: &[(u32, Leaf)]) -> Code {
    match leaves {
        [] => vec![answering(libc::SECCOMP_RET_ALLOW)],
        [(_, Leaf::Answer(answer))] => vec![answering(*answer)],
        [(_, Leaf::Code(code))] => code.clone(),
        leaves => {
            let (below, above) = leaves.split_at(leaves.len() / 2);
            branch(libc::BPF_JGE, above[0].0, search(above), search(below))
        }
    }
}

/// One or the other. Conditional jumps reach 255 instructions, plain ones as far as they like.
fn branch(condition: u32, k: u32, yes: Code, no: Code) -> Code {
    let over = u32::try_from(yes.len()).unwrap_or(u32::MAX);
    let mut code = vec![
        instruction(libc::BPF_JMP | condition | libc::BPF_K, k, [1, 0]),
        instruction(libc::BPF_JMP | libc::BPF_JA, over, [0, 0]),
    ];
    code.extend(yes);
    code.extend(no);
    code
}

fn with(first: libc::sock_filter, rest: Code) -> Code {
    let mut code = vec![first];
    code.extend(rest);
    code
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, [0, 0])
}

fn and(mask: u32) -> libc::sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, [0, 0])
}

fn answering(answer: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, answer, [0, 0])
}

fn instruction(code: u32, k: u32, [jt, jf]: [u8; 2]) -> libc::sock_filter {
    libc::sock_filter {
        // Codes are of one byte.
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::seccomp::MAX_INSTRUCTIONS;
    use crate::policy::{Environment, RuleSet, Verdict, evaluate_call};

    /// What a filter answers, as the kernel would run it (kernel/seccomp.c, net/core/filter.c).
    fn run(program: &[libc::sock_filter], architecture: u32, number: u32, argument: u64) -> u32 {
        let (mut at, mut a) = (0, 0u32);
        loop {
            let i = program[at];
            at += 1;
            match u32::from(i.code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    a = match i.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => argument as u32,
                        20 => (argument >> 32) as u32,
                        other => panic!("load from {other}"),
                    };
                }
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => a &= i.k,
                c if c == libc::BPF_JMP | libc::BPF_JA => at += i.k as usize,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if a == i.k { i.jt } else { i.jf });
                }
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if a >= i.k { i.jt } else { i.jf });
                }
                c if c == libc::BPF_RET | libc::BPF_K => return i.k,
                c => panic!("instruction {c:#x}"),
            }
        }
    }

    fn set(rules: &str) -> RuleSet {
        let text = format!("version: 1\nsyscalls:\n{rules}");
        RuleSet::parse(&text, "p.yaml", &Environment::new(None, "/".into())).unwrap()
    }

    fn parts(set: &RuleSet) -> (Calls, Vec<Refusal>) {
        let ranked = set.ranked_syscalls();
        let refusals = ranked.iter().map(|rule| rule.refusal).collect();
        (Calls::new(&ranked, 0, CallsBy::Filter), refusals)
    }

    const SECRET: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn the_filter_refuses_what_the_evaluator_denies_and_nothing_else() {
        for rules in [
            "  - { id: a, deny: [ptrace, setuid, connect, semop] }\n",
            "  - { id: a, allow: [read, write, exit_group, socket, shmget] }\n",
            "  - { id: a, deny: [openat] }\n  - { id: b, allow: [io_uring_setup], priority: 1 }\n",
            "  - { id: a, deny: [5, mount], errno: ENOSYS }\n  - { id: b, deny: [mount], mode: audit, priority: 9 }\n",
            "  - { id: a, deny: [socketcall], action: kill }\n",
        ] {
            let set = set(rules);
            let (calls, refusals) = parts(&set);
            let filter = calls
                .filter(&refusals, SECRET)
                .expect("something is refused");
            assert!(
                filter.program.len() <= MAX_INSTRUCTIONS,
                "{}",
                filter.program.len()
            );
            let mut refused = 0;
            for (compat, architecture) in [false, true].into_iter().zip(ARCHITECTURES) {
                for number in 0..1022 {
                    let call = SystemCall::numbered(number, compat);
                    let asked = call.asked_by();
                    let all = if asked.is_empty() { vec![call] } else { asked };
                    for (argument, call) in (0u64..).zip(&all) {
                        let decision = evaluate_call(&set, call);
                        let denied = decision.verdict == Verdict::Deny;
                        let errno = decision.rule.map_or(0, |rule| rule.refusal.errno);
                        let expected = match denied {
                            true => libc::SECCOMP_RET_ERRNO | u32::from(errno),
                            false => libc::SECCOMP_RET_ALLOW,
                        };
                        let answer = run(&filter.program, architecture, number, argument);
                        assert_eq!(answer, expected, "{rules}{call} {argument}");
                        refused += u32::from(denied);
                    }
                }
            }
            assert!(refused > 0, "{rules}");
        }
    }

    #[test]
    fn other_tables_are_closed_and_the_canary_needs_its_secret() {
        let set = set("  - { id: a, deny: [ptrace] }\n");
        let (calls, refusals) = parts(&set);
        let filter = calls.filter(&refusals, SECRET).unwrap();
        let own = |filter: &Filter, number, argument| {
            run(&filter.program, ARCHITECTURES[NATIVE], number, argument)
        };
        let eperm = libc::SECCOMP_RET_ERRNO | 1;
        for filter in [filter.clone(), canary_filter(SECRET)] {
            assert_eq!(own(&filter, CANARY, SECRET), eperm);
            for wrong in [0, SECRET + 1, SECRET ^ 1 << 63] {
                assert_eq!(own(&filter, CANARY, wrong), libc::SECCOMP_RET_ALLOW);
            }
        }
        let ptrace = SystemCall::named("ptrace").unwrap().number;
        assert_eq!(
            own(&canary_filter(SECRET), ptrace, 0),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(own(&filter, ptrace, 0), eperm);
        let foreign = run(&filter.program, 0xc000_0016, ptrace, 0);
        assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(own(&filter, X32 | 1, 0), libc::SECCOMP_RET_ERRNO | 38);
        }
        // Whatever is refused, and where nothing is allowed.
        let closed = self::set("  - { id: a, allow: [read] }\n");
        let (calls, refusals) = parts(&closed);
        let closed = calls.filter(&refusals, SECRET).unwrap();
        for architecture in ARCHITECTURES {
            let answer = run(&closed.program, architecture, u32::MAX, 0);
            assert_eq!(answer, libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn the_table_names_the_rule_of_each_call() {
        let set = set("  - { id: a, deny: [mount], mode: audit }\n  - { id: b, deny: [ptrace] }\n");
        let (calls, refusals) = parts(&set);
        assert!(calls.audits());
        assert_eq!(calls.named, 2);
        let table = calls.table(false, 0, false);
        let at = |slot: u32| {
            let found = table
                .iter()
                .find(|(s, _)| *s == slot)
                .map(|(_, word)| word ^ FREE.codes());
            found.map(|value| ((value >> 32) as u32, value as u32))
        };
        let number = |name: &str| SystemCall::named(name).unwrap().number;
        assert_eq!(at(number("mount")), Some((RULE_NONE, 0)));
        assert_eq!(at(number("ptrace")), Some((1 << 1, 1 << 1)));
        assert_eq!(at(number("read")), None);
        assert_eq!(at(CANARY), Some((RULE_CANARY << 1, RULE_CANARY << 1)));
        assert_eq!(calls.refuses("ptrace"), Some(1));
        assert_eq!(calls.refuses("mount"), None);
        let ranked = set.ranked_syscalls();
        let traced = Calls::new(&ranked, 0, CallsBy::Tracepoint);
        assert!(traced.are_traced() && traced.filter(&refusals, SECRET).is_none());
        // What no table has stands for any.
        let mut others = traced.table(false, 0, false);
        others.retain(|entry| !table.contains(entry));
        let any = Refused {
            enforced: 1 << 1,
            all: 0,
        };
        assert_eq!(others, [(call_slot::NUMBERS, any.word())]);
        // Of another policy's place in the other half, all is written over.
        let second = traced.table(true, 10, true);
        assert_eq!(second.len(), 2 * call_slot::SLOTS as usize);
        let (slot, word) = second[call_slot::NUMBERS as usize];
        let any = Refused {
            enforced: 11 << 1,
            all: 10 << 1,
        };
        let at = 2 * call_slot::SLOTS + call_slot::NUMBERS;
        assert_eq!((slot, word), (at, any.word()));
        assert_eq!(second[0], (2 * call_slot::SLOTS, 0));
        let only_audit = self::set("  - { id: a, deny: [mount], mode: audit }\n");
        assert!(parts(&only_audit).0.filter(&refusals, SECRET).is_none());
    }
}
