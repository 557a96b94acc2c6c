//! Names of users and groups, from the machine's own files.
//!
//! Not through the name service switch: that can ask a server on the network, and events would wait for it. A user whom
//! only a directory service knows stays a number.

use std::collections::HashMap;

/// Names by number, as they were when the session began.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads `/etc/passwd` and `/etc/group`; what cannot be read names nobody.
    pub(crate) fn read() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Names {
            users: parse(&read("/etc/passwd")),
            groups: parse(&read("/etc/group")),
        }
    }

    pub(crate) fn user(&self, id: u32) -> Option<&str> {
        self.users.get(&id).map(String::as_str)
    }

    pub(crate) fn group(&self, id: u32) -> Option<&str> {
        self.groups.get(&id).map(String::as_str)
    }
}

/// `name:password:number:...` a line, in both files. The first name of a number counts, as for getpwuid(3).
fn parse(text: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, id) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok()));
        if let (Some(name), Some(id)) = (name, id) {
            names
                .entry(id)
                .or_insert_with(|| crate::event::text::escape(name.as_bytes()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_name_of_a_number_counts() {
        let names =
            parse("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n# no\nada:x:1000:1000:::\n");
        assert_eq!(names[&0], "root");
        assert_eq!(names[&1000], "ada");
        assert_eq!(names.len(), 2);
    }
}
