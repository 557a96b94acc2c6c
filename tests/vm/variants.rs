//! The load gate: every program that is compiled is taken by every kernel that has what it needs, whether a session would
//! choose it there or not.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Ctx, Needs, Outcome, Test};

pub(crate) const TESTS: &[Test] = &[Test {
    name: "every_variant_loads_where_its_needs_are_met",
    needs: Needs::Watch,
    run: every_variant,
}];

pub(crate) type Version = (u32, u32);

/// Probe and variant, and the kernels that they are for: from, and up to but without. What is not named here is for all.
/// On each of our kernels the list has to be right, so that no variant is for none of them unnoticed.
const FOR: &[(&str, &str, Version, Version)] = &[
    ("process.credentials", "kprobe", (7, 0), END),
    ("process.exec", "kprobe", (7, 0), END),
    ("process.fork", "kprobe", (7, 0), END),
    ("process.exit", "kprobe", (7, 0), END),
    ("process.ending", "kprobe", (7, 0), END),
    ("scope.fork", "kprobe", (7, 0), END),
    ("scope.exit", "kprobe", (7, 0), END),
    ("file.open", "fexit", START, (7, 0)),
    ("file.open", "fexit/do_file_open", (7, 0), END),
    ("file.open", "tracepoint", (5, 15), END),
    ("file.unlink", "fexit", (5, 12), END),
    ("file.unlink", "fexit/3", START, (5, 12)),
    ("file.unlink", "tracepoint", (5, 15), END),
    ("file.rename", "tracepoint", (5, 15), END),
    ("file.mkdir", "fexit/5", (6, 19), END),
    ("file.mkdir", "fexit", (5, 12), (6, 19)),
    ("file.mkdir", "fexit/3", START, (5, 12)),
    ("file.rmdir", "fexit/4", (6, 19), END),
    ("file.rmdir", "fexit/do_rmdir", START, (7, 0)),
    ("file.mknod", "fexit/6", (6, 19), END),
    ("file.mknod", "fexit", (5, 12), (6, 19)),
    ("file.mknod", "fexit/4", START, (5, 12)),
    ("file.link", "fexit", (5, 12), END),
    ("file.link", "fexit/4", START, (5, 12)),
    ("file.symlink", "fexit/5", (6, 19), END),
    ("file.symlink", "fexit", (5, 12), (6, 19)),
    ("file.symlink", "fexit/3", START, (5, 12)),
    ("file.attributes", "fexit", (5, 12), END),
    ("file.attributes", "fexit/3", START, (5, 12)),
    ("file.xattr", "fexit", (5, 12), END),
    ("file.xattr", "fexit/5", START, (5, 12)),
    ("file.acl", "fexit", (6, 2), END),
    ("file.opens", "fexit", START, (7, 0)),
    ("file.opens", "fexit/do_file_open", (7, 0), END),
    ("file.uring", "fentry", (6, 12), END),
    ("file.uring", "fentry/3", START, (6, 12)),
    ("network.connect", "tracepoint", (5, 15), END),
    ("network.accept", "fexit", (6, 10), END),
    ("network.accept", "fexit/4", START, (6, 10)),
    ("network.bind", "tracepoint", (5, 15), END),
    ("network.listen", "tracepoint", (5, 15), END),
    ("network.unix", "tracepoint", (5, 15), END),
    ("network.payload", "raw_tp", (5, 15), END),
    ("network.socket", "tracepoint", (5, 15), END),
    ("syscall.calls", "tracepoint", (7, 0), END),
    ("fence.call", "tracepoint", (7, 0), END),
    ("fence.refused_call", "tracepoint", (7, 0), END),
    ("fence.limited_call", "tracepoint", (7, 0), END),
    ("memory.mmap", "tracepoint/preemptible", (7, 0), END),
    ("memory.mmap", "tracepoint", (5, 15), END),
    ("memory.munmap", "tracepoint/preemptible", (7, 0), END),
    ("memory.munmap", "tracepoint", (5, 15), END),
    ("memory.brk", "tracepoint/preemptible", (7, 0), END),
    ("memory.brk", "tracepoint", (5, 15), END),
    ("memory.exit", "raw_tp", (6, 16), END),
    ("memory.exit", "raw_tp/about", (6, 16), END),
    ("memory.slab", "raw_tp", (6, 1), END),
    ("memory.slab", "raw_tp/node", START, (5, 19)),
    ("disk.requests", "kprobe", (7, 0), END),
    ("fence.setattr", "lsm", (6, 2), END),
    ("fence.setattr", "lsm/dentry", START, (6, 2)),
    ("fence.setxattr", "lsm", (5, 12), END),
    ("fence.setxattr", "lsm/dentry", START, (5, 12)),
    ("fence.removexattr", "lsm", (5, 12), END),
    ("fence.removexattr", "lsm/dentry", START, (5, 12)),
    ("fence.set_acl", "lsm", (6, 2), END),
    ("fence.remove_acl", "lsm", (6, 2), END),
    ("fence.file_setattr", "lsm", (6, 17), END),
    ("fence.splice", "lsm", START, (6, 5)),
    ("fence.splice", "fmod_ret", START, (6, 5)),
    ("fence.setattr", "fmod_ret", (6, 0), END),
    ("fence.setattr", "fmod_ret/dentry", START, (6, 0)),
    ("fence.setxattr", "fmod_ret", (5, 12), END),
    ("fence.setxattr", "fmod_ret/dentry", START, (5, 12)),
    ("fence.removexattr", "fmod_ret", (5, 12), END),
    ("fence.removexattr", "fmod_ret/dentry", START, (5, 12)),
    ("fence.set_acl", "fmod_ret", (6, 2), END),
    ("fence.remove_acl", "fmod_ret", (6, 2), END),
    ("fence.file_setattr", "fmod_ret", (6, 17), END),
];
const START: Version = (0, 0);
const END: Version = (u32::MAX, 0);

/// A variant for kernels that preempt where others do not, whatever the probe.
const SESSION: Version = (7, 0);

fn is_for(trial: &Value, version: Version) -> bool {
    if trial["variant"] == "session" {
        return version >= SESSION;
    }
    FOR.iter()
        .find(|(probe, variant, ..)| trial["probe"] == *probe && trial["variant"] == *variant)
        .is_none_or(|(_, _, from, to)| (*from..*to).contains(&version))
}

fn every_variant(ctx: &Ctx) -> Outcome {
    let output = Command::new(&ctx.bin)
        .args(["doctor", "--every-variant", "--json"])
        .output()
        .expect("the program under test can be started");
    let trials: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
    });
    if ctx.host {
        // No table knows this kernel. Some refuse whole kinds of programs, or hide where variables are (no
        // CONFIG_KALLSYMS_ALL), and only what rests on these may be refused.
        for trial in trials.iter().filter(|t| t["state"] == "refused") {
            let said = |key: &str| trial[key].as_str().unwrap_or_default();
            let kind = ["lsm", "fmod_ret"]
                .iter()
                .any(|k| said("variant").starts_with(k));
            let hidden = said("reason").contains("failed to find the address for kernel symbol");
            assert!(kind || hidden, "{trial:#}");
        }
        return Outcome::Passed;
    }
    let version = running();
    let mut wrong = Vec::new();
    for trial in &trials {
        let lsm = trial["variant"]
            .as_str()
            .is_some_and(|v| v.starts_with("lsm"));
        let expected = if is_for(trial, version) && (ctx.has_lsm() || !lsm) {
            "loads"
        } else {
            "not_applicable"
        };
        if trial["state"] != expected {
            wrong.push(format!("expected {expected}: {trial:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(output.status.success(), "{output:?}");
    let stale = FOR.iter().find(|(probe, variant, ..)| {
        !trials
            .iter()
            .any(|t| t["probe"] == *probe && t["variant"] == *variant)
    });
    assert_eq!(stale, None, "there is no such variant");
    Outcome::Passed
}

pub(crate) fn running() -> Version {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|n| n.parse().ok());
    (
        numbers.next().flatten().expect("a version"),
        numbers.next().flatten().expect("a version"),
    )
}
