//! What a denied file is refused, and what is left alone.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bypass;
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, number, poll, stockade, word};
use crate::helper::{Done, Step, arguments, outside, results, step};
use crate::mounts::{bind, file_system, must};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "denied_file_is_refused_in_every_way_on_tmpfs",
        Needs::Fence,
        |ctx| every_way(ctx, "tmpfs"),
    ),
    Test::new(
        "denied_file_is_refused_in_every_way_on_ext4",
        Needs::Fence,
        |ctx| every_way(ctx, "ext4"),
    ),
    Test::new(
        "denied_file_is_refused_in_every_way_on_xfs",
        Needs::Fence,
        |ctx| every_way(ctx, "xfs"),
    ),
    Test::new(
        "denied_file_is_refused_in_every_way_on_btrfs",
        Needs::Fence,
        |ctx| every_way(ctx, "btrfs"),
    ),
    Test::new(
        "denied_file_is_refused_in_every_way_on_overlay",
        Needs::Fence,
        |ctx| every_way(ctx, "overlay"),
    ),
    Test::new(
        "file_stays_denied_after_its_inode_left_the_cache_on_ext4",
        Needs::Fence,
        |ctx| evicted(ctx, "ext4"),
    ),
    Test::new(
        "file_stays_denied_after_its_inode_left_the_cache_on_xfs",
        Needs::Fence,
        |ctx| evicted(ctx, "xfs"),
    ),
    Test::new(
        "copy_in_a_btrfs_snapshot_is_told_apart_but_for_its_name",
        Needs::Fence,
        snapshot,
    ),
    Test::new(
        "reused_inode_numbers_never_deny_an_innocent_file_on_ext4",
        Needs::Fence,
        |ctx| reuse(ctx, "ext4"),
    ),
    Test::new(
        "reused_inode_numbers_never_deny_an_innocent_file_on_tmpfs",
        Needs::Fence,
        |ctx| reuse(ctx, "tmpfs"),
    ),
];

pub(crate) const EPERM: i32 = 1;

/// `stockade run` of the helper with these steps inside a fence around `denied`.
pub(crate) fn fenced(denied: &[&Path], out: &Path, steps: &[Step], ctx: &Ctx) -> Vec<String> {
    let rules = denied.iter().flat_map(|path| ["--deny-file", text(path)]);
    confined(rules, out, steps, ctx)
}

/// The same inside the fence that these arguments ask for.
pub(crate) fn confined<'a>(
    rules: impl IntoIterator<Item = &'a str>,
    out: &Path,
    steps: &[Step],
    ctx: &'a Ctx,
) -> Vec<String> {
    confined_as(rules, &[text(&ctx.helper)], out, steps)
}

/// The same, and the helper is started by this command.
pub(crate) fn confined_as<'a>(
    rules: impl IntoIterator<Item = &'a str>,
    command: &[&'a str],
    out: &Path,
    steps: &[Step],
) -> Vec<String> {
    let run = ["run", "--format", "json", "--monitor", "process"];
    let words = run.into_iter().chain(rules).chain(["--"]);
    let words = words.chain(command.iter().copied());
    let mut args: Vec<String> = words.map(str::to_owned).collect();
    args.extend(arguments(out, steps));
    args
}

/// Waits for the steps inside the fence that come before `ready`.
pub(crate) fn until_ready(run: &mut Stockade, ready: &Path) {
    poll("the steps inside the fence", || {
        if let Some(status) = run.process.0.try_wait().unwrap() {
            panic!("ended early with {status}: {}", run.stderr());
        }
        ready.exists().then_some(())
    });
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' own names are UTF-8")
}

/// The denials of a step.
pub(crate) fn denials_of<'a>(ended: &'a Ended, done: &'a Done) -> Vec<&'a Value> {
    ended
        .of("denial")
        .filter(|e| number(e, "process.pid") == done.pid)
        .collect()
}

/// What a step must be refused for, and under which name the file must be reported.
struct Refused {
    step: Step,
    access: &'static str,
    path: PathBuf,
}

fn every_way(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let dir = root.join("dir");
    fs::create_dir(&dir).unwrap();
    let at = |name: &str| dir.join(name);
    let (secret, tool) = (at("secret"), at("tool"));
    for (file, exe) in [("secret", "tool"), ("other", "other-tool")] {
        fs::write(at(file), file).unwrap();
        fs::set_permissions(at(file), fs::Permissions::from_mode(0o644)).unwrap();
        fs::copy("/bin/true", at(exe)).unwrap();
        let name = "trusted.stockade";
        rustix::fs::setxattr(at(file), name, b"old", rustix::fs::XattrFlags::empty()).unwrap();
        fs::hard_link(at(file), at(&format!("{file}-hard"))).unwrap();
        std::os::unix::fs::symlink(file, at(&format!("{file}-sym"))).unwrap();
    }
    fs::write(at("spare"), "spare").unwrap();
    let (bound, bound_file) = (ctx.path("bound"), ctx.path("bound-file"));
    fs::create_dir(&bound).unwrap();
    fs::write(&bound_file, "").unwrap();
    let _bound = bind(&dir, &bound);
    let _bound_file = bind(&secret, &bound_file);

    let denied = refused_steps(&dir, &bound, &bound_file, kind);
    let mut innocent = innocent_steps(&dir, kind);
    if kind == "overlay" {
        let layer = ctx.path("upper/dir/secret");
        innocent.push(step("file/lower-layer", &[&"open", &layer]));
    }
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let mut steps: Vec<Step> = denied.iter().map(|r| r.step.clone()).collect();
    steps.extend(innocent.iter().cloned());
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, fenced(&[&secret, &tool], &out, &steps, ctx));

    if !ctx.has_lsm() && ["btrfs", "overlay"].contains(&kind) {
        // Only a tag tells files apart there, and tags need BPF LSM.
        let ended = run.wait();
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("the same identity") && ended.stderr.contains(text(&secret)),
            "the reason and the file are missing: {}",
            ended.stderr
        );
        assert!(!out.exists(), "the command has run without a fence");
        bypass::unarmed(kind, &ended, &steps);
        return Outcome::Passed;
    }

    until_ready(&mut run, &ready);
    // Nothing has happened to the file.
    let mut wrong = Vec::new();
    let meta = fs::metadata(&secret).unwrap();
    let mut xattr = [0u8; 16];
    let size = rustix::fs::getxattr(&secret, "trusted.stockade", &mut xattr).unwrap();
    if fs::read(&secret).unwrap() != b"secret"
        || meta.permissions().mode() & 0o7777 != 0o644
        || meta.nlink() != 2
        || meta.mtime() == 1
        || &xattr[..size] != b"old"
        || fs::read(at("spare")).unwrap() != b"spare"
    {
        wrong.push(format!("the denied file was changed: {meta:?}"));
    }
    // The same accesses from outside, while the fence stands.
    for done in outside(&denied.iter().map(|r| r.step.clone()).collect::<Vec<_>>()) {
        if done.errno != 0 {
            wrong.push(format!(
                "outside the fence, {}: errno {}",
                done.label, done.errno
            ));
        }
    }
    fs::write(&go, "").unwrap();
    let inode = meta.ino().to_string();
    let tool_inode = fs::metadata(&tool).unwrap().ino().to_string();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let (helper, all) = results(&out);
    assert_eq!(all.len(), steps.len(), "the helper ended early");
    for (refused, done) in denied.iter().zip(&all) {
        if done.errno != EPERM {
            wrong.push(format!(
                "{}: errno {} instead of EPERM",
                done.label, done.errno
            ));
        }
        let events = denials_of(&ended, done);
        let Some(event) = events.first() else {
            wrong.push(format!("{}: no denial was reported", done.label));
            continue;
        };
        let file = if refused.path.ends_with("tool") {
            &tool
        } else {
            &secret
        };
        let in_fs = event["stockade.path_in_fs"] == true;
        let path = Path::new(word(event, "file.path"));
        // A handle names no name, so any of the file's will do.
        let path_right = if done.label == "file/handle" {
            path.parent() == refused.path.parent()
        } else if in_fs || kind == "overlay" {
            path.file_name() == refused.path.file_name()
        } else {
            path == refused.path
        };
        // The kernel asks for both directions, the other one first.
        let exchanged = done.label.starts_with("file/exchange");
        let accesses = event["stockade.access"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let right = path_right
            && event["rule.id"] == format!("deny-file:{}", text(file))
            && number(event, "process.parent.pid") == helper
            && event["stockade.verdict"] == "deny"
            && event["event.outcome"] == "failure"
            && event["error.code"] == "EPERM"
            && accesses
                .iter()
                .any(|a| a == refused.access || exchanged && (a == "delete" || a == "replace"))
            && (kind == "overlay"
                || event["file.inode"]
                    == if file == &tool {
                        tool_inode.as_str()
                    } else {
                        inode.as_str()
                    });
        if !right {
            wrong.push(format!(
                "{}: wrong denial (helper {helper}, {:?}): {event}",
                done.label, refused.path
            ));
        }
    }
    for done in &all[denied.len()..] {
        if done.errno != 0 || !denials_of(&ended, done).is_empty() {
            wrong.push(format!(
                "innocent file, {}: errno {}",
                done.label, done.errno
            ));
        }
    }
    let end = ended.complete();
    if end["stockade.fence"]["mechanism"] != ctx.mechanism.as_str() {
        wrong.push(format!("another mechanism than {}: {end}", ctx.mechanism));
    }
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &all);
    Outcome::Passed
}

fn refused_steps(dir: &Path, bound: &Path, bound_file: &Path, kind: &str) -> Vec<Refused> {
    let at = |name: &str| dir.join(name);
    let (secret, tool, spare) = (at("secret"), at("tool"), at("spare"));
    let mut all: Vec<Refused> = Vec::new();
    let mut add =
        |label: &str, access: &'static str, path: &Path, words: &[&dyn AsRef<std::ffi::OsStr>]| {
            all.push(Refused {
                step: step(label, words),
                access,
                path: path.to_owned(),
            });
        };
    add("file/path", "read", &secret, &[&"open", &secret]);
    add("file/write", "write", &secret, &[&"open-write", &secret]);
    add(
        "file/read-write",
        "write",
        &secret,
        &[&"open-rdwr", &secret],
    );
    add("file/o-creat", "write", &secret, &[&"open-creat", &secret]);
    add(
        "file/symlink",
        "read",
        &secret,
        &[&"open", &at("secret-sym")],
    );
    add(
        "file/hard-link",
        "read",
        &at("secret-hard"),
        &[&"open", &at("secret-hard")],
    );
    add(
        "file/bind-mount",
        "read",
        &bound.join("secret"),
        &[&"open", &bound.join("secret")],
    );
    add(
        "file/bind-mount-of-it",
        "read",
        bound_file,
        &[&"open", &bound_file],
    );
    add("file/proc-fd", "read", &secret, &[&"proc-fd", &secret]);
    add("file/openat2", "read", &secret, &[&"openat2", &secret]);
    add("file/io-uring", "read", &secret, &[&"uring", &secret]);
    add(
        "file/io-uring-worker",
        "read",
        &secret,
        &[&"uring-async", &secret],
    );
    // overlayfs makes no handles unless it is asked to.
    if kind != "overlay" {
        add("file/handle", "read", &secret, &[&"handle", &secret]);
    }
    add("file/execve", "exec", &tool, &[&"execve", &tool]);
    add("file/execveat", "exec", &tool, &[&"execveat", &tool]);
    add("file/o-trunc", "write", &secret, &[&"open-trunc", &secret]);
    add("file/truncate", "write", &secret, &[&"truncate", &secret]);
    add(
        "file/rename",
        "delete",
        &secret,
        &[&"rename", &secret, &at("moved")],
    );
    add(
        "file/exchange",
        "delete",
        &secret,
        &[&"exchange", &secret, &spare],
    );
    add(
        "file/exchange-from-the-other",
        "replace",
        &secret,
        &[&"exchange", &spare, &secret],
    );
    add(
        "file/link",
        "link",
        &secret,
        &[&"link", &secret, &at("linked")],
    );
    add(
        "file/link-o-path",
        "link",
        &secret,
        &[&"link-opath", &secret, &at("linked")],
    );
    add("file/chown", "metadata", &secret, &[&"chown", &secret]);
    add("file/utimens", "metadata", &secret, &[&"utimens", &secret]);
    add(
        "file/setxattr",
        "metadata",
        &secret,
        &[&"setxattr", &secret],
    );
    add(
        "file/removexattr",
        "metadata",
        &secret,
        &[&"removexattr", &secret],
    );
    add("file/chmod", "metadata", &secret, &[&"chmod", &secret]);
    // From here on the outside run does not leave the file as it was.
    add(
        "file/unlink-other-name",
        "delete",
        &at("secret-hard"),
        &[&"unlink", &at("secret-hard")],
    );
    add(
        "file/rename-over",
        "replace",
        &secret,
        &[&"rename-over", &spare, &secret],
    );
    add("file/unlink", "delete", &secret, &[&"unlink", &secret]);
    all
}

/// The same on a file that no rule names.
fn innocent_steps(dir: &Path, kind: &str) -> Vec<Step> {
    let at = |name: &str| dir.join(name);
    let other = at("other");
    let mut all = vec![
        step("open", &[&"open-rdwr", &other]),
        step("symbolic link", &[&"open", &at("other-sym")]),
        step("hard link", &[&"open", &at("other-hard")]),
        step("/proc/self/fd", &[&"proc-fd", &other]),
        step("openat2", &[&"openat2", &other]),
        step("io_uring", &[&"uring", &other]),
        step("execve", &[&"execve", &at("other-tool")]),
        step("execveat", &[&"execveat", &at("other-tool")]),
        step("O_TRUNC", &[&"open-trunc", &other]),
        step("truncate", &[&"truncate", &other]),
        step("rename", &[&"rename", &other, &at("other-moved")]),
        step("exchange", &[&"exchange", &other, &at("spare")]),
        step("link", &[&"link", &other, &at("other-linked")]),
        step("chmod", &[&"chmod", &other]),
        step("setxattr", &[&"setxattr", &other]),
        step("unlink", &[&"unlink", &other]),
    ];
    if kind != "overlay" {
        all.insert(6, step("open_by_handle_at", &[&"handle", &at("other")]));
    }
    all
}

/// The tag goes with the inode; the key brings it back.
fn evicted(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let (secret, other) = (root.join("secret"), root.join("other"));
    fs::write(&secret, "secret").unwrap();
    fs::write(&other, "other").unwrap();
    let (ready, go, out) = (ctx.path("ready"), ctx.path("go"), ctx.path("results"));
    let steps = [
        step("before", &[&"open", &secret]),
        step("ready", &[&"touch", &ready]),
        step("go", &[&"wait", &go]),
        step("file/out-of-the-cache", &[&"open", &secret]),
        step("file/out-of-the-cache-unlink", &[&"unlink", &secret]),
        step("other", &[&"open", &other]),
    ];
    let run = Stockade::start(ctx, fenced(&[&secret], &out, &steps, ctx));
    poll("the first open", || ready.exists().then_some(()));
    for _ in 0..3 {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    let (_, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|d| d.errno).collect();
    assert_eq!(
        errnos,
        [EPERM, 0, 0, EPERM, EPERM, 0],
        "{done:?} {}",
        ended.stderr
    );
    assert_eq!(ended.of("denial").count(), 3, "{:?}", ended.events);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    ended.complete();
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// On btrfs device, inode number and generation are the same in every snapshot: of files, which the tag tells apart, and
/// of directories, where it is not asked.
fn snapshot(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "btrfs");
    let (first, second) = (root.join("first"), root.join("second"));
    must("btrfs", &["-q", "subvolume", "create", text(&first)]);
    let secret = first.join("secret");
    fs::write(&secret, "secret").unwrap();
    must(
        "btrfs",
        &["-q", "subvolume", "snapshot", text(&first), text(&second)],
    );
    let copy = second.join("secret");
    assert_eq!(
        fs::metadata(&secret).unwrap().ino(),
        fs::metadata(&copy).unwrap().ino()
    );
    let renamed = second.join("renamed");
    fs::hard_link(&copy, &renamed).unwrap();
    let out = ctx.path("results");
    let steps = [
        step("original", &[&"open", &secret]),
        step("file/snapshot-other-name", &[&"open", &renamed]),
        step("unlink of the copy", &[&"unlink", &renamed]),
        step("file/snapshot", &[&"open", &copy]),
    ];
    let ended = stockade(ctx, fenced(&[&secret], &out, &steps, ctx));
    if !ctx.has_lsm() {
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(!out.exists(), "the command has run without a fence");
        bypass::unarmed("btrfs", &ended, &steps);
        return Outcome::Passed;
    }
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|d| d.errno).collect();
    assert_eq!(errnos, [EPERM, 0, 0, EPERM]);
    assert_eq!(ended.of("denial").count(), 2);
    bypass::all("btrfs", &ended, &done);
    Outcome::Passed
}

/// The denied file is deleted from outside, and its inode number comes round.
fn reuse(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let secret = root.join("secret");
    fs::write(&secret, "secret").unwrap();
    let inode = fs::metadata(&secret).unwrap().ino();
    let (ready, go, out) = (ctx.path("ready"), ctx.path("go"), ctx.path("results"));
    let steps = [
        step("before", &[&"open", &secret]),
        step("ready", &[&"touch", &ready]),
        step("go", &[&"wait", &go]),
        step("cycles", &[&"cycle", &root, &format!("{inode},10000")]),
    ];
    let run = Stockade::start(ctx, fenced(&[&secret], &out, &steps, ctx));
    poll("the first open", || ready.exists().then_some(()));
    fs::remove_file(&secret).unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    let (_, done) = results(&out);
    let errnos: Vec<i32> = done.iter().map(|d| d.errno).collect();
    assert_eq!(
        errnos,
        [EPERM, 0, 0, 0],
        "an innocent file was refused: {done:?} {:?}",
        ended.events
    );
    assert_eq!(ended.of("denial").count(), 1, "{:?}", ended.events);
    let met: u64 = fs::read_to_string(root.join("met"))
        .unwrap()
        .parse()
        .unwrap();
    // tmpfs counts on and never comes round within this many.
    assert!(
        kind == "tmpfs" || met > 0,
        "no inode number was reused, so this has tested nothing"
    );
    Outcome::Passed
}
