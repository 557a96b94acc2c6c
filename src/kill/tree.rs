//! Who in the list of processes may belong to a tree. Only hints: whoever is named here is asked again once it is held.

use std::collections::HashSet;
use std::fs;
use std::io;

use crate::enrich::Stat;
use crate::error::{Error, ErrorKind, Result};

/// A process in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) session: u32,
    /// Its main thread has ended. Others of its threads can go on.
    pub(super) ended: bool,
}

/// Every process that can be seen from here.
pub(super) fn list() -> Result<Vec<Row>> {
    let failed = |e: io::Error| {
        Error::new(ErrorKind::Io, format!("/proc cannot be read: {e}")).with_source(e)
    };
    let mut rows = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(line) => rows.extend(Stat::parse(&line).map(|stat| Row {
                pid,
                parent: stat.parent,
                session: stat.session,
                ended: matches!(stat.state, b'Z' | b'X' | b'x'),
            })),
            // Out of descriptors: the list must not be taken for a whole one.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                return Err(failed(e));
            }
            // It has ended meanwhile, or is not ours to see.
            Err(_) => {}
        }
    }
    Ok(rows)
}

/// Those in the list who name one of `parents` as theirs, or are in one of `sessions`, and are not `known`.
pub(super) fn candidates(
    rows: &[Row],
    parents: &HashSet<u32>,
    sessions: &HashSet<u32>,
    known: &HashSet<u32>,
) -> Vec<Row> {
    rows.iter()
        .filter(|row| parents.contains(&row.parent) || sessions.contains(&row.session))
        .filter(|row| !known.contains(&row.pid))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_those_of_the_session_are_candidates_and_nobody_twice() {
        let row = |pid, parent, session| Row {
            pid,
            parent,
            session,
            ended: false,
        };
        let pids = |rows: Vec<Row>| rows.iter().map(|row| row.pid).collect::<Vec<_>>();
        let rows = [
            row(1, 0, 1),
            row(10, 1, 10),  // the root, which leads a session
            row(11, 10, 10), // its child
            row(12, 1, 10),  // left its parent, and not the session
            row(13, 11, 13), // left the session, and not its parent
            row(14, 1, 13),  // left both
            row(20, 1, 20),  // a stranger
        ];
        let set = |of: &[u32]| of.iter().copied().collect::<HashSet<u32>>();
        let found = candidates(&rows, &set(&[10]), &set(&[10]), &set(&[10]));
        assert_eq!(pids(found), [11, 12]);
        let found = candidates(&rows, &set(&[10, 11, 12]), &set(&[10]), &set(&[10, 11, 12]));
        assert_eq!(pids(found), [13]);
        // Once somebody of that session is known to lead it, the last one is found as well.
        let known = set(&[10, 11, 12, 13]);
        let found = candidates(&rows, &known, &set(&[10, 13]), &known);
        assert_eq!(pids(found), [14]);
    }

    #[test]
    fn we_are_in_the_list_with_our_parent() {
        let own = std::process::id();
        let rows = list().unwrap();
        let row = rows.iter().find(|row| row.pid == own).unwrap();
        assert_eq!(row.parent, std::os::unix::process::parent_id());
    }
}
