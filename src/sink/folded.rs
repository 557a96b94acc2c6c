//! Profiles as folded stacks, which flame graphs are made of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::event::{Event, Frame, Kind, ProfileMode};

/// Adds profiles up: one line for each stack, from the process's name over the outermost function to the innermost,
/// separated by semicolons, and its weight behind a space.
///
/// The weight is samples for a profile of what ran, and microseconds for one of the time off the CPU. Functions of the
/// kernel end in `_[k]` and inlined ones in `_[i]`, as the flame graph tools have it. A function without a name is the
/// file that it is in, in brackets. The innermost of a thread that could have run is `[preempted]`.
///
/// ```
/// use stockade::event::sample;
/// use stockade::sink::Folded;
///
/// let mut folded = Folded::new();
/// for event in sample::samples() {
///     folded.add(&event);
/// }
/// assert_eq!(folded.lines().count(), 2);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Folded {
    stacks: BTreeMap<String, u64>,
}

impl Folded {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Folded::default()
    }

    /// Adds a profile; other events add nothing.
    pub fn add(&mut self, event: &Event) {
        let Kind::Profile(profile) = &event.kind else {
            return;
        };
        let mut stack = String::new();
        push(&mut stack, &event.process.comm, "");
        for frame in profile.user.iter().rev() {
            push_frame(&mut stack, frame, "");
        }
        for frame in profile.kernel.iter().rev() {
            push_frame(&mut stack, frame, "_[k]");
        }
        if profile.preempted {
            push(&mut stack, "[preempted]", "");
        }
        *self.stacks.entry(stack).or_default() += match profile.mode {
            ProfileMode::Cpu => profile.samples,
            ProfileMode::OffCpu => profile.time_ns / 1000,
        };
    }

    /// Whether there is no stack that weighs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.values().all(|weight| *weight == 0)
    }

    /// The lines, sorted.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let heavy = self.stacks.iter().filter(|(_, weight)| **weight > 0);
        heavy.map(|(stack, weight)| format!("{stack} {weight}"))
    }
}

fn push_frame(stack: &mut String, frame: &Frame, suffix: &str) {
    let suffix = if frame.inlined && suffix.is_empty() {
        "_[i]"
    } else {
        suffix
    };
    match (&frame.function, &frame.module) {
        (Some(function), _) => push(stack, function, suffix),
        // All that has no name in one file together: addresses would make a stack of each instruction.
        (None, Some(module)) => {
            let name = module.rsplit('/').next().unwrap_or(module);
            let name = name.trim_matches(['[', ']']);
            push(stack, &format!("[{name}]"), suffix);
        }
        (None, None) => push(stack, "[unknown]", suffix),
    }
}

/// A name as it can stand between semicolons, on one line.
fn push(stack: &mut String, name: &str, suffix: &str) {
    if !stack.is_empty() {
        stack.push(';');
    }
    if name.is_empty() {
        stack.push_str("[unknown]");
    }
    for c in name.chars() {
        match c {
            ';' => stack.push(':'),
            // Names of events are escaped; those that somebody else put in need not be.
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(stack, "{}", c.escape_default());
            }
            c => stack.push(c),
        }
    }
    stack.push_str(suffix);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    fn profiles() -> Vec<Event> {
        let all = sample::samples().into_iter();
        all.filter(|e| matches!(e.kind, Kind::Profile(_))).collect()
    }

    #[test]
    fn a_stack_is_a_line_from_the_outermost_function_to_the_innermost() {
        let mut folded = Folded::new();
        for event in sample::samples() {
            folded.add(&event);
        }
        let lines: Vec<String> = folded.lines().collect();
        assert_eq!(
            lines,
            [
                r#"a "b" \\c\nd\x1b[31m;__schedule_[k];[preempted] 1500000"#,
                "sh;[unknown];evaltree;evalcommand_[i];[libc.so.6];do_syscall_64_[k];vfs_read_[k] 12",
            ]
        );
    }

    #[test]
    fn equal_stacks_of_one_name_become_one_line() {
        let mut folded = Folded::new();
        let mut event = profiles().remove(0);
        folded.add(&event);
        event.process.id.pid += 1;
        folded.add(&event);
        event.process.comm = "another".into();
        folded.add(&event);
        let weights: Vec<u64> = folded.stacks.values().copied().collect();
        assert_eq!(weights, [12, 24]);
    }

    #[test]
    fn no_name_is_two_functions_or_two_lines() {
        let mut folded = Folded::new();
        let mut event = profiles().remove(0);
        event.process.comm = "a;b\nc".into();
        if let Kind::Profile(profile) = &mut event.kind {
            profile.kernel.clear();
            profile.user.truncate(1);
            profile.user[0].function = Some("f;g h".into());
        }
        folded.add(&event);
        let lines: Vec<String> = folded.lines().collect();
        assert_eq!(lines, ["a:b\\nc;f:g h 12"]);
    }

    #[test]
    fn a_stack_without_weight_is_no_stack() {
        let mut folded = Folded::new();
        assert!(folded.is_empty());
        let mut event = profiles().remove(1);
        if let Kind::Profile(profile) = &mut event.kind {
            profile.time_ns = 999;
        }
        folded.add(&event);
        assert!(folded.is_empty());
        assert_eq!(folded.lines().count(), 0);
    }
}
