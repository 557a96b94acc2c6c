//! Summaries of much at a time: what is counted is looked at before its map is full, however long the interval.
//!
//! Called as `vm --many calls|files DIR` this program does what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, number, stockade, word};
use crate::helper::in_child;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "calls_of_many_short_processes_are_all_counted",
        Needs::Watch,
        many_processes,
    ),
    Test::new(
        "files_by_the_thousand_are_all_counted",
        Needs::Watch,
        many_files,
    ),
];

/// Each makes all the [`CALLS`].
const PROCESSES: u64 = 400;
const FILES: u64 = 10_000;
/// After so many new pairs of process and call, or process and file, user space looks: `MANY` in summaries.rs.
const MANY: u64 = 2048;

macro_rules! calls {
    ($($name:ident)*) => {
        &[$((stringify!($name), libc::$name)),*]
    };
}

/// Calls that refuse a descriptor that is none and do nothing else.
const CALLS: &[(&str, libc::c_long)] = calls! {
    SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_dup
    SYS_sendfile SYS_connect SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown SYS_bind
    SYS_listen SYS_getsockname SYS_getpeername SYS_setsockopt SYS_getsockopt SYS_fcntl SYS_flock SYS_fsync
    SYS_fdatasync SYS_ftruncate SYS_fchdir SYS_fchmod SYS_fchown SYS_fstatfs SYS_readahead SYS_fallocate SYS_syncfs
    SYS_preadv SYS_pwritev SYS_flistxattr
};

/// Entry as `--many calls|files DIR`.
pub(crate) fn main(args: &[String]) -> i32 {
    let [what, dir] = args else {
        panic!("--many calls|files DIR");
    };
    if what == "files" {
        for n in 0..FILES {
            fs::write(Path::new(dir).join(n.to_string()), "").expect("a file");
        }
        return 0;
    }
    for _ in 0..PROCESSES {
        let (_, code) = in_child(|| {
            let refused = CALLS.iter().filter(|(_, number)| {
                // SAFETY: there is no such descriptor, which each of them finds before it looks at anything else.
                unsafe { libc::syscall(*number, -1, 0, 0, 0, 0, 0) == -1 }
            });
            i32::from(refused.count() != CALLS.len())
        });
        assert_eq!(code, 0, "calls were not refused");
    }
    0
}

/// The helper, watched with an interval that it does not outlive.
fn watched(ctx: &Ctx, options: &[&str], what: &str, dir: &Path) -> Ended {
    let form = ["--interval", "3600", "--format", "json", "--"];
    let command = [text(&ctx.helper), "--many", what, text(dir)];
    let ended = stockade(
        ctx,
        ["run"].iter().chain(options).chain(&form).chain(&command),
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.of("loss").find(|e| !is_skip(e)), None);
    if !ctx.host {
        ended.complete();
    }
    ended
}

fn is_skip(loss: &Value) -> bool {
    loss["stockade.loss.cause"] == "skipped"
}

/// Holds how often was looked against how much there was, with room for what comes while one look is under way.
fn check_looks(ended: &Ended, action: &str, pairs: u64) {
    let windows: BTreeSet<u64> = ended
        .of(action)
        .map(|e| number(e, "stockade.window_ns"))
        .collect();
    let looks = windows.len() as u64;
    assert!(looks >= pairs / MANY / 2, "{looks} looks at {pairs} pairs");
}

fn many_processes(ctx: &Ctx) -> Outcome {
    let ended = watched(ctx, &["--syscall=summary"], "calls", &ctx.dir);
    let mut told: BTreeMap<&str, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for event in ended.of("syscall_summary") {
        let errors = number(event, "stockade.syscall.errors");
        let (calls, processes) = told
            .entry(word(event, "stockade.syscall.name"))
            .or_default();
        *calls += errors;
        processes.insert(number(event, "process.pid"));
    }
    for (name, _) in CALLS {
        let name = name.trim_start_matches("SYS_");
        let (calls, processes) = told.get(name).unwrap_or_else(|| panic!("no {name}"));
        // The loader and the child of the child may have been refused something too.
        assert!(*calls >= PROCESSES, "{calls} of {name}");
        assert!(processes.len() as u64 >= PROCESSES, "{name}");
    }
    check_looks(&ended, "syscall_summary", PROCESSES * CALLS.len() as u64);
    Outcome::Passed
}

fn many_files(ctx: &Ctx) -> Outcome {
    let dir = ctx.path("files");
    fs::create_dir(&dir).expect("a directory");
    let options = ["--file=summary", "--path", text(&dir)];
    let ended = watched(ctx, &options, "files", &dir);
    let mut opens: BTreeMap<&str, u64> = BTreeMap::new();
    for event in ended.of("file_summary") {
        *opens.entry(word(event, "file.path")).or_default() += number(event, "stockade.file.opens");
    }
    assert!(opens.values().all(|n| *n == 1));
    let end = ended.events.last().expect("an end record");
    let skipped = number(end, "stockade.skipped_programs");
    let missing = FILES - opens.len() as u64;
    assert!(missing <= skipped, "{missing} are missing: {end}");
    check_looks(&ended, "file_summary", FILES);
    Outcome::Passed
}
