//! Who is never killed.

use super::member::Member;
use crate::enrich::ancestry;
use crate::error::{Error, ErrorKind};

/// This process and those that it was started from, from the inside out.
#[derive(Debug)]
pub(super) struct Protected(Vec<u32>);

impl Protected {
    pub(super) fn find() -> Self {
        Protected(ancestry())
    }

    /// The sentence that refuses it; `what` is what it belongs to, such as "the tree of 1234".
    pub(super) fn refusal(&self, member: &Member, what: Option<&str>) -> Option<Error> {
        let (pid, name) = (member.pid, &member.stat.name);
        let (why, hint) = if pid == 1 {
            (
                "the first process of this system",
                "name the processes that are meant, and not all of them",
            )
        } else if member.stat.is_kernel_thread() {
            ("a thread of the kernel", "name a process of a program")
        } else if self.0.first() == Some(&pid) {
            (
                "this stockade itself",
                "start stockade from outside of what is to be killed",
            )
        } else if self.0.contains(&pid) {
            (
                "what this stockade was started from",
                "start stockade from outside of what is to be killed, such as from another login",
            )
        } else {
            return None;
        };
        let message = match what {
            Some(what) => format!("{what} is not killed: process {pid} ({name}) in it is {why}"),
            None => format!("process {pid} ({name}) is not killed: it is {why}"),
        };
        Some(Error::new(ErrorKind::Usage, message).with_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_and_whoever_started_us_are_refused_and_a_child_is_not() {
        let protected = Protected::find();
        let says = |pid, what| {
            let member = Member::open(pid).unwrap().unwrap();
            protected
                .refusal(&member, what)
                .map(|e| (e.kind(), e.to_string()))
        };
        let (kind, text) = says(std::process::id(), None).unwrap();
        assert_eq!(kind, ErrorKind::Usage);
        assert!(text.ends_with("it is this stockade itself"), "{text}");
        let parent = std::os::unix::process::parent_id();
        let (_, text) = says(parent, Some("the tree of 7")).unwrap();
        assert!(text.starts_with("the tree of 7 is not killed"), "{text}");
        let (_, text) = says(1, None).unwrap();
        assert!(text.contains("the first process"), "{text}");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        assert_eq!(says(child.id(), None), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
