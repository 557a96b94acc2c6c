//! What limits say, in the kernel's terms: a row for each, and which of them count what.

use super::calls::slots;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{LimitRule, Mode, Thing, place};
use crate::wire::{COUNTED_KINDS, LIMITS, LIMITS_EACH, Limit, call_slot};

/// That can have counted system calls at once, of which each has its own limit; who comes when they are all there has none
/// left. Each takes 600 bytes.
const PROCESSES: u32 = 16_384;

/// Everything that is said about how much may be done.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// By their places: those of all together, then those of each process. `rule` is a number.
    rows: Vec<(u32, Limit)>,
    /// Which of them count what, one bit for each.
    pub(super) counting: [u32; COUNTED_KINDS],
    /// Which of them count a system call, in both tables by slot.
    calls: [Vec<u32>; 2],
}

impl Limits {
    /// `first` is the number of the first rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`]: there are more than there is room for.
    pub(super) fn new(rules: &[LimitRule], first: u32) -> Result<Self> {
        let mut limits = Limits::default();
        let mut placed: Vec<(u32, &LimitRule)> = Vec::new();
        for (number, rule) in (first..).zip(rules) {
            let alike = placed.iter().filter(|(_, other)| other.each == rule.each);
            let alike = super::count(alike.count());
            if alike == LIMITS_EACH {
                return Err(too_many(rule));
            }
            let at = alike + if rule.each { LIMITS_EACH } else { 0 };
            placed.push((at, rule));
            limits.rows.push((at, row(rule, number)));
            for (mask, thing) in limits.counting.iter_mut().zip(Thing::ALL) {
                if rule.counts(thing) {
                    *mask |= 1 << at;
                }
            }
        }
        let of_call = |call: &_| {
            let counting = placed.iter().filter(|(_, rule)| rule.counts_call(call));
            counting.fold(0, |mask, (at, _)| mask | 1 << at)
        };
        let are_rules = rules.iter().any(LimitRule::counts_calls);
        limits.calls = slots(0, are_rules, of_call);
        // Numbers that no table of ours has: calls by the x32 table are among them, and stand for any.
        let any = limits
            .calls
            .iter()
            .flatten()
            .fold(0, |all, mask| all | mask);
        if let Some(others) = limits.calls[0].get_mut(call_slot::NUMBERS as usize) {
            *others = any;
        }
        Ok(limits)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether this is counted.
    pub(super) fn counts(&self, thing: Thing) -> bool {
        let mut all = self.counting.iter().zip(Thing::ALL);
        all.any(|(mask, counted)| *mask != 0 && counted == thing)
    }

    pub(super) fn counts_calls(&self) -> bool {
        self.calls.iter().flatten().any(|mask| *mask != 0)
    }

    /// Whether something is counted that hooks can refuse.
    pub(super) fn are_by_hooks(&self) -> bool {
        self.counting.iter().any(|mask| *mask != 0)
    }

    /// Whether some are of each process.
    pub(super) fn are_of_each(&self) -> bool {
        self.rows.iter().any(|(at, _)| *at >= LIMITS_EACH)
    }

    /// Processes for which there has to be room in tracepoints.
    pub(super) fn purses(&self) -> u32 {
        let each = !0 << LIMITS_EACH;
        let mut masks = self.calls.iter().flatten();
        if masks.any(|mask| mask & each != 0) {
            PROCESSES
        } else {
            1
        }
    }

    pub(super) fn count(&self) -> u32 {
        super::count(self.rows.len())
    }

    /// The rows of a half of the table, where the first rule of the policy has this number: those that are not used say
    /// nothing.
    pub(super) fn rows(&self, is_second: bool, first_rule: u32, epoch: u32) -> Vec<(u32, Limit)> {
        let base = if is_second { LIMITS } else { 0 };
        let rows = (0..LIMITS).map(|at| {
            let row = self.rows.iter().find(|(taken, _)| *taken == at);
            let row = row.map_or(NOTHING, |(_, row)| Limit {
                rule: (row.rule + first_rule) << 1,
                epoch,
                ..*row
            });
            (base + at, row)
        });
        rows.collect()
    }

    /// What there is in a half of the table of system calls; with what says nothing where there was something before.
    pub(super) fn calls(&self, is_second: bool, all: bool) -> Vec<(u32, u32)> {
        let base = if is_second { 2 * call_slot::SLOTS } else { 0 };
        let slots = (base..).zip(self.calls.iter().flatten().copied());
        slots.filter(|(_, mask)| all || *mask != 0).collect()
    }
}

/// A row that is not used.
const NOTHING: Limit = Limit {
    part: 0,
    rate: 0,
    burst: 0,
    full: 0,
    filled_ns: 0,
    epoch: 0,
    rule: 0,
    enforced: 0,
    pad: 0,
};

fn row(rule: &LimitRule, number: u32) -> Limit {
    let part = rule.period.ns();
    // A policy is read with numbers for which this fits.
    let full = rule.burst.saturating_mul(part);
    Limit {
        part,
        rate: rule.rate,
        burst: rule.burst,
        full,
        filled_ns: full.div_ceil(rule.rate),
        epoch: 0,
        rule: number,
        enforced: (rule.mode == Mode::Enforce).into(),
        pad: 0,
    }
}

fn too_many(rule: &LimitRule) -> Error {
    Error::new(
        ErrorKind::Policy,
        format!(
            "{} is one limit too many: there is room for {} of all together, and for as many of each process",
            place(rule),
            LimitRule::MAX
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Environment, RuleSet, SystemCall};

    fn limits(rules: &str) -> Limits {
        let text = format!("version: 1\nlimits:\n{rules}");
        let env = Environment::new(None, "/".into());
        let set = RuleSet::parse(&text, "p", &env).unwrap();
        Limits::new(&set.limits, 5).unwrap()
    }

    #[test]
    fn each_has_a_place_and_what_it_counts_leads_there() {
        let limits = limits(
            "- { id: a, limit: [forks, threads], per_second: 2, burst: 3 }\n\
             - { id: b, limit: forks, per_minute: 1, per: process, mode: audit }\n\
             - { id: c, syscall: [ptrace, socketpair], per_second: 1, action: kill }\n",
        );
        assert_eq!(limits.counting, [1 | 1 << 8, 1, 0, 0]);
        let rows = limits.rows(true, 100, 7);
        assert_eq!(rows.len(), 16);
        assert_eq!((rows[15].0, rows[15].1.rate), (31, 0));
        let (at, a) = rows[0];
        assert_eq!((at, a.rule, a.enforced, a.epoch), (16, 105 << 1, 1, 7));
        assert_eq!((a.full, a.filled_ns), (3_000_000_000, 1_500_000_000));
        let (at, b) = rows[8];
        assert_eq!((at, b.rule, b.enforced), (24, 106 << 1, 0));
        assert_eq!((b.part, b.full), (60_000_000_000, 60_000_000_000));
        let ptrace = SystemCall::named("ptrace").unwrap().number;
        assert!(limits.calls(false, false).contains(&(ptrace, 2)));
        assert!(
            limits
                .calls(false, false)
                .contains(&(call_slot::NUMBERS, 2))
        );
        assert!(
            limits
                .calls(true, false)
                .contains(&(2 * call_slot::SLOTS + ptrace, 2))
        );
        // Of 32-bit programs, by itself and by what stands for it.
        let of_compat = limits.calls(false, false);
        let of_compat = of_compat
            .iter()
            .filter(|(slot, _)| *slot >= call_slot::SLOTS);
        assert_eq!(
            of_compat.count(),
            if cfg!(target_arch = "x86_64") { 3 } else { 2 }
        );
    }

    #[test]
    fn as_many_fit_as_are_said_to() {
        let rule = |n: usize, each: bool| LimitRule {
            each,
            ..{
                let text =
                    format!("version: 1\nlimits: [{{ id: l{n}, limit: forks, per_second: 1 }}]");
                let env = Environment::new(None, "/".into());
                RuleSet::parse(&text, "p", &env).unwrap().limits.remove(0)
            }
        };
        let many = |n: usize| {
            (0..n)
                .flat_map(|n| [rule(n, false), rule(n, true)])
                .collect::<Vec<_>>()
        };
        let full = Limits::new(&many(LimitRule::MAX), 0).unwrap();
        assert_eq!(full.counting[0], 0xffff);
        let mut more = many(LimitRule::MAX);
        more.push(rule(99, true));
        let error = Limits::new(&more, 0).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("rule l99 (line 2) is one limit too many"),
            "{error}"
        );
    }
}
