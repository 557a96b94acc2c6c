//! Changes of names, attributes and mounts, held against what the helper did and what strace(1) saw.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fence::text;
use crate::harness::{Ctx, Ended, Needs, Outcome, Test, number, stockade, word};
use crate::helper::{Step, arguments, results, step};
use crate::monitor::lacks;
use crate::mounts::{Mount, bind, mount};

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "file_changes_come_with_what_was_changed",
        Needs::Watch,
        changes,
    ),
    Test::new("file_changes_have_host_paths", Needs::Watch, host_paths),
    Test::new(
        "file_changes_of_mounts_come_with_source_and_type",
        Needs::Watch,
        mounts,
    ),
    Test::new(
        "file_changes_are_those_that_strace_sees",
        Needs::Watch,
        strace,
    ),
    Test::new(
        "file_changes_on_an_overlay_come_once",
        Needs::Modules,
        overlay,
    ),
];

/// The helper's steps, watched by the file monitor.
fn helped(ctx: &Ctx, out: &Path, options: &[&str], steps: &[Step]) -> Ended {
    let mut args: Vec<String> = ["run", "--monitor", "file", "--format", "json"]
        .map(str::to_owned)
        .into();
    args.extend(options.iter().map(|&o| o.to_owned()));
    args.extend(["--".to_owned(), text(&ctx.helper).to_owned()]);
    args.extend(arguments(out, steps));
    let ended = stockade(ctx, args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if !ctx.host {
        ended.complete();
    }
    ended
}

/// What is expected of a step: its label, its errno, the event's action and some of its fields.
type Expected<'a> = (&'a str, i32, &'a str, Value);

/// What differs between the steps' events and what is expected of them. The opens of a step are not looked at.
fn differences(ended: &Ended, out: &Path, expected: &[Expected<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let done = results(out).1;
    assert_eq!(done.len(), expected.len(), "{done:#?}");
    for (done, (label, errno, action, fields)) in done.iter().zip(expected) {
        assert_eq!(done.label, *label);
        let events: Vec<&Value> = ended
            .events
            .iter()
            .filter(|e| e["process.pid"] == done.pid && e["event.action"] != "open")
            .collect();
        if done.errno != *errno {
            wrong.push(format!("{label}: errno {}, not {errno}", done.errno));
        }
        let [event] = events.as_slice() else {
            wrong.push(format!("{label}: {events:#?}"));
            continue;
        };
        let outcome = if *errno == 0 { "success" } else { "failure" };
        let same = event["event.action"] == *action
            && event["event.outcome"] == outcome
            && fields
                .as_object()
                .expect("fields")
                .iter()
                .all(|(key, value)| event[key] == *value);
        if !same {
            wrong.push(format!("{label}: {action} {outcome} {fields} is {event:#}"));
        }
    }
    wrong
}

/// A step, with what is expected of it.
type Row<'a> = (&'a str, Vec<&'a str>, i32, &'a str, Value);

/// Steps with what is expected of them, so that they stand side by side.
fn split<'a>(rows: &[Row<'a>]) -> (Vec<Step>, Vec<Expected<'a>>) {
    rows.iter()
        .map(|(label, words, errno, action, fields)| {
            let words: Vec<&dyn AsRef<std::ffi::OsStr>> = words
                .iter()
                .map(|w| w as &dyn AsRef<std::ffi::OsStr>)
                .collect();
            (
                step(label, &words),
                (*label, *errno, *action, fields.clone()),
            )
        })
        .unzip()
}

/// What is refused only by the function that does the work, so that it is seen on every kernel. The paths: a file, a
/// directory that is not empty, one that does not exist, another file.
fn refused<'a>(file: &'a str, full: &'a str, no: &'a str, gone: &'a str) -> Vec<Row<'a>> {
    let acl = "system.posix_acl_access";
    vec![
        (
            "unlink denied",
            vec!["as-nobody", "unlink", gone],
            13,
            "unlink",
            json!({"file.path": gone, "error.code": "EACCES"}),
        ),
        (
            "rename denied",
            vec!["as-nobody", "rename-over", gone, no],
            13,
            "rename",
            json!({"file.path": no, "stockade.old_path": gone, "error.code": "EACCES"}),
        ),
        (
            "mkdir denied",
            vec!["as-nobody", "make-dir", no],
            13,
            "mkdir",
            json!({"file.path": no, "stockade.change.mode": "0751", "file.inode": null,
            "error.code": "EACCES"}),
        ),
        (
            "rmdir denied",
            vec!["as-nobody", "remove-dir", full],
            13,
            "rmdir",
            json!({"file.path": full, "error.code": "EACCES", "user.id": "65534"}),
        ),
        (
            "link of a directory",
            vec!["make-link", full, no],
            1,
            "link",
            json!({"file.path": no, "stockade.old_path": full, "error.code": "EPERM"}),
        ),
        (
            "symlink denied",
            vec!["as-nobody", "make-symlink", "to", no],
            13,
            "symlink",
            json!({"file.path": no, "file.target_path": "to", "file.inode": null,
            "error.code": "EACCES"}),
        ),
        (
            "fifo denied",
            vec!["as-nobody", "make-node", no, "fifo"],
            13,
            "mknod",
            json!({"file.path": no, "stockade.change.mode": "0600", "error.code": "EACCES"}),
        ),
        (
            "plain denied",
            vec!["as-nobody", "make-node", no, "file"],
            13,
            "mknod",
            json!({"file.path": no, "stockade.change.mode": "0604", "error.code": "EACCES"}),
        ),
        (
            "chmod denied",
            vec!["as-nobody", "chmod", file],
            1,
            "chmod",
            json!({"file.path": file, "stockade.change.mode": "0700", "error.code": "EPERM"}),
        ),
        (
            "chown denied",
            vec!["as-nobody", "chown", file],
            1,
            "chown",
            json!({"file.path": file, "file.uid": "0", "file.gid": "0", "error.code": "EPERM"}),
        ),
        (
            "utimens denied",
            vec!["as-nobody", "utimens", file],
            1,
            "utimes",
            json!({"file.path": file, "file.mtime": "1970-01-01T00:00:01.000000000Z",
            "error.code": "EPERM"}),
        ),
        (
            "ftruncate limited",
            vec!["resize-limited", file],
            27,
            "truncate",
            json!({"file.path": file, "file.size": 54_321, "error.code": "EFBIG"}),
        ),
        (
            "setxattr denied",
            vec!["as-nobody", "setxattr", file],
            1,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": "trusted.stockade",
            "error.code": "EPERM"}),
        ),
        (
            "removexattr of nothing",
            vec!["removexattr", file],
            61,
            "removexattr",
            json!({"file.path": file, "stockade.xattr.name": "trusted.stockade",
            "error.code": "ENODATA"}),
        ),
        (
            "set acl denied",
            vec!["as-nobody", "set-acl", file],
            1,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": acl, "error.code": "EPERM"}),
        ),
        (
            "remove acl denied",
            vec!["as-nobody", "remove-acl", file],
            1,
            "removexattr",
            json!({"file.path": file, "stockade.xattr.name": acl, "error.code": "EPERM"}),
        ),
    ]
}

/// The steps without rights must get as far as to what refuses them.
fn everyone_may_look(ctx: &Ctx) {
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755)).unwrap();
}

fn changes(ctx: &Ctx) -> Outcome {
    let out = ctx.path("results");
    let at = |name: &str| text(&ctx.path(name)).to_owned();
    let (file, dir, full, other) = (at("file"), at("dir"), at("full"), at("other"));
    let (link, sym, node, fifo, plain) =
        (at("link"), at("sym"), at("node"), at("fifo"), at("plain"));
    fs::write(&file, "file").unwrap();
    fs::write(&other, "").unwrap();
    fs::create_dir_all(ctx.path("full/inside")).unwrap();
    everyone_may_look(ctx);
    let inode = fs::metadata(&file).unwrap().ino().to_string();
    let (no, gone, moved) = (at("no"), at("gone"), at("moved"));
    for name in [&gone, &moved] {
        fs::write(name, "").unwrap();
    }
    let refused = refused(&file, &full, &no, &gone);
    let mut rows: Vec<Row<'_>> = vec![
        (
            "unlink",
            vec!["unlink", &other],
            0,
            "unlink",
            json!({"file.path": other}),
        ),
        (
            "rename",
            vec!["rename-over", &moved, &other],
            0,
            "rename",
            json!({"file.path": other, "stockade.old_path": moved}),
        ),
        (
            "unlink again",
            vec!["unlink", &other],
            0,
            "unlink",
            json!({"file.path": other}),
        ),
        (
            "create",
            vec!["create", &other],
            0,
            "create",
            json!({"file.path": other}),
        ),
        (
            "mkdir",
            vec!["make-dir", &dir],
            0,
            "mkdir",
            json!({"file.path": dir, "stockade.change.mode": "0751"}),
        ),
        (
            "rmdir",
            vec!["remove-dir", &dir],
            0,
            "rmdir",
            json!({"file.path": dir}),
        ),
        (
            "rmdir full",
            vec!["remove-dir", &full],
            39,
            "rmdir",
            json!({"file.path": full, "error.code": "ENOTEMPTY"}),
        ),
        (
            "link",
            vec!["make-link", &file, &link],
            0,
            "link",
            json!({"file.path": link, "stockade.old_path": file}),
        ),
        (
            "symlink",
            vec!["make-symlink", "to/what ever", &sym],
            0,
            "symlink",
            json!({"file.path": sym, "file.target_path": "to/what ever"}),
        ),
        (
            "node",
            vec!["make-node", &node, "char"],
            0,
            "mknod",
            json!({"file.path": node, "stockade.change.mode": "0640", "stockade.change.device": "1:3"}),
        ),
        (
            "fifo",
            vec!["make-node", &fifo, "fifo"],
            0,
            "mknod",
            json!({"file.path": fifo, "stockade.change.mode": "0600"}),
        ),
        (
            "plain",
            vec!["make-node", &plain, "file"],
            0,
            "mknod",
            json!({"file.path": plain}),
        ),
        (
            "chmod",
            vec!["chmod", &file],
            0,
            "chmod",
            json!({"file.path": file, "stockade.change.mode": "0700"}),
        ),
        (
            "fchmod",
            vec!["fchmod", &file],
            0,
            "chmod",
            json!({"file.path": file, "stockade.change.mode": "4711"}),
        ),
        (
            "chown",
            vec!["chown", &file],
            0,
            "chown",
            json!({"file.path": file, "file.uid": "0", "file.gid": "0"}),
        ),
        (
            "fchown",
            vec!["fchown", &file],
            0,
            "chown",
            json!({"file.path": file, "file.uid": null, "file.gid": "34"}),
        ),
        (
            "utimens",
            vec!["utimens", &file],
            0,
            "utimes",
            json!({"file.path": file,
            "file.accessed": "1970-01-01T00:00:01.000000000Z", "file.mtime": "1970-01-01T00:00:01.000000000Z"}),
        ),
        (
            "futimens",
            vec!["futimens", &file],
            0,
            "utimes",
            json!({"file.path": file,
            "file.accessed": null, "file.mtime": "2001-09-09T01:46:40.000000007Z"}),
        ),
        (
            "truncate",
            vec!["truncate", &file],
            0,
            "truncate",
            json!({"file.path": file, "file.size": 0}),
        ),
        (
            "ftruncate",
            vec!["resize", &file],
            0,
            "truncate",
            json!({"file.path": file, "file.size": 12_345}),
        ),
        (
            "setxattr",
            vec!["setxattr", &file],
            0,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": "trusted.stockade"}),
        ),
        (
            "fsetxattr",
            vec!["set-attribute", &file, "trusted.another"],
            0,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": "trusted.another"}),
        ),
        (
            "setxattr bad",
            vec!["set-attribute", &file, "nowhere.x"],
            95,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": "nowhere.x", "error.code": "EOPNOTSUPP"}),
        ),
        (
            "removexattr",
            vec!["removexattr", &file],
            0,
            "removexattr",
            json!({"file.path": file, "stockade.xattr.name": "trusted.stockade"}),
        ),
        (
            "set acl",
            vec!["set-acl", &file],
            0,
            "setxattr",
            json!({"file.path": file, "stockade.xattr.name": "system.posix_acl_access"}),
        ),
        (
            "remove acl",
            vec!["remove-acl", &file],
            0,
            "removexattr",
            json!({"file.path": file, "stockade.xattr.name": "system.posix_acl_access"}),
        ),
    ];
    rows.extend(refused);
    let (steps, expected) = split(&rows);
    let ended = helped(ctx, &out, &[], &steps);
    let mut wrong = differences(&ended, &out, &expected);
    // On the kernels of the table the function that does the work is seen, and so the file itself.
    for event in ended
        .events
        .iter()
        .filter(|e| !ctx.host && e["file.path"] == file.as_str() && e["event.action"] != "rename")
    {
        if event["file.inode"] != inode.as_str() || event.get("stockade.path_as_given").is_some() {
            wrong.push(format!("not the file {inode}: {event:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // What is there already is opened and not created.
    let again = [
        step("again", &[&"create", &other]),
        step("full", &[&"remove-dir", &full]),
    ];
    let ended = helped(ctx, &out, &[], &again);
    let pid = results(&out).1[0].pid;
    let opens: Vec<&Value> = ended
        .events
        .iter()
        .filter(|e| e["process.pid"] == pid)
        .collect();
    let [open] = opens.as_slice() else {
        panic!("{opens:#?}")
    };
    assert_eq!(
        (word(open, "event.action"), word(open, "file.path")),
        ("open", other.as_str())
    );

    let ended = helped(ctx, &out, &["--errors-only"], &again);
    let failed: Vec<(&str, &str)> = ended
        .events
        .iter()
        .filter(|e| e["event.category"] == json!(["file"]) && e["event.action"] != "open")
        .map(|e| (word(e, "event.action"), word(e, "event.outcome")))
        .collect();
    assert_eq!(failed, [("rmdir", "failure")]);
    assert!(ended.of("open").all(|e| e["event.outcome"] == "failure"));
    Outcome::Passed
}

fn host_paths(ctx: &Ctx) -> Outcome {
    let out = ctx.path("results");
    let (jail, bound) = (ctx.path("jail"), ctx.path("bound"));
    fs::create_dir(&jail).unwrap();
    fs::create_dir(&bound).unwrap();
    fs::write(jail.join("inside"), "").unwrap();
    let _bound = bind(&jail, &bound);
    let at = |dir: &Path, name: &str| text(&dir.join(name)).to_owned();
    let (inside, made, linked) = (at(&jail, "inside"), at(&jail, "made"), at(&bound, "linked"));
    let (bound_inside, jail) = (at(&bound, "inside"), text(&jail));
    let as_given = ctx.host.then_some(true);
    let rows: Vec<Row<'_>> = vec![
        (
            "chmod bound",
            vec!["chmod", &bound_inside],
            0,
            "chmod",
            json!({"file.path": bound_inside, "stockade.path_as_given": as_given}),
        ),
        (
            "link bound",
            vec!["make-link", &bound_inside, &linked],
            0,
            "link",
            json!({"file.path": linked, "stockade.old_path": bound_inside}),
        ),
        // The same file by two paths, and each time the one that was taken.
        (
            "ftruncate",
            vec!["resize", &inside],
            0,
            "truncate",
            json!({"file.path": inside, "stockade.path_as_given": null}),
        ),
        (
            "ftruncate bound",
            vec!["resize", &bound_inside],
            0,
            "truncate",
            json!({"file.path": bound_inside, "stockade.path_as_given": null}),
        ),
        (
            "mkdir in a root",
            vec!["in-root", jail, "make-dir", "/made"],
            0,
            "mkdir",
            // Of a system call the caller's own words are all there is.
            json!({"file.path": if ctx.host { "/made" } else { &made },
            "stockade.path_as_given": as_given}),
        ),
        (
            "rmdir in a root",
            vec!["in-root", jail, "remove-dir", "/made"],
            0,
            "rmdir",
            json!({"file.path": if ctx.host { "/made" } else { &made }}),
        ),
        (
            "relative",
            vec!["make-dir", "jail/made"],
            0,
            "mkdir",
            json!({"file.path": made, "stockade.path_as_given": as_given}),
        ),
    ];
    let (steps, expected) = split(&rows);
    let ended = helped(ctx, &out, &[], &steps);
    let wrong = differences(&ended, &out, &expected);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Outcome::Passed
}

fn mounts(ctx: &Ctx) -> Outcome {
    let out = ctx.path("results");
    let at = ctx.path("mnt");
    fs::create_dir(&at).unwrap();
    everyone_may_look(ctx);
    let (at, file) = (text(&at), ctx.path("file"));
    fs::write(&file, "").unwrap();
    let file = text(&file);
    let flags = json!(["MS_NOSUID", "MS_NODEV"]);
    let rows: Vec<Row<'_>> = vec![
        (
            "mount",
            vec!["mount", at, "tmpfs"],
            0,
            "mount",
            json!({"file.path": at, "stockade.mount.type": "tmpfs",
            "stockade.mount.source": "some source", "stockade.mount.flags": flags}),
        ),
        (
            "umount",
            vec!["umount", at],
            0,
            "umount",
            json!({"file.path": at, "stockade.mount.flags": ["MNT_DETACH"]}),
        ),
        (
            "mount nothing",
            vec!["mount", at, "no-such-fs"],
            19,
            "mount",
            json!({"file.path": at, "stockade.mount.type": "no-such-fs", "error.code": "ENODEV"}),
        ),
        (
            "umount nothing",
            vec!["umount", at],
            22,
            "umount",
            json!({"file.path": at, "error.code": "EINVAL"}),
        ),
        (
            "move",
            vec!["move-mount", at, "tmpfs"],
            0,
            "mount",
            json!({"file.path": at}),
        ),
        (
            "umount again",
            vec!["umount", at],
            0,
            "umount",
            json!({"file.path": at}),
        ),
        (
            "mount denied",
            vec!["as-nobody", "mount", at, "tmpfs"],
            1,
            "mount",
            json!({"file.path": at, "stockade.mount.type": "tmpfs", "stockade.mount.flags": flags,
            "stockade.mount.source": "some source", "error.code": "EPERM"}),
        ),
        (
            "umount denied",
            vec!["as-nobody", "umount", at],
            1,
            "umount",
            json!({"file.path": at, "stockade.mount.flags": ["MNT_DETACH"], "error.code": "EPERM"}),
        ),
        (
            "move onto a file",
            vec!["move-mount", file, "tmpfs"],
            22,
            "mount",
            json!({"file.path": file, "error.code": "EINVAL"}),
        ),
    ];
    let (steps, expected) = split(&rows);
    let ended = helped(ctx, &out, &[], &steps);
    let mut wrong = differences(&ended, &out, &expected);
    if !ctx.host {
        // What the caller did not name, and the kernel knows.
        let pids: BTreeMap<String, u64> = results(&out)
            .1
            .into_iter()
            .map(|d| (d.label, d.pid))
            .collect();
        for (label, source) in [
            ("umount", "some source"),
            ("move", "another source"),
            ("umount again", "another source"),
        ] {
            let event = ended
                .events
                .iter()
                .find(|e| e["process.pid"] == pids[label]);
            let event = event.expect("seen above");
            if event["stockade.mount.source"] != source || event["stockade.mount.type"] != "tmpfs" {
                wrong.push(format!("{label}: {event:#}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Outcome::Passed
}

/// The action of a system call, by its name without what tells its forms apart.
const CALLS: &[(&str, &str)] = &[
    ("mkdir", "mkdir"),
    ("mkdirat", "mkdir"),
    ("rmdir", "rmdir"),
    ("unlinkat", "rmdir"),
    ("mknod", "mknod"),
    ("mknodat", "mknod"),
    ("link", "link"),
    ("linkat", "link"),
    ("symlink", "symlink"),
    ("symlinkat", "symlink"),
    ("chmod", "chmod"),
    ("fchmod", "chmod"),
    ("fchmodat", "chmod"),
    ("fchmodat2", "chmod"),
    ("chown", "chown"),
    ("lchown", "chown"),
    ("fchown", "chown"),
    ("fchownat", "chown"),
    ("utimensat", "utimes"),
    ("truncate", "truncate"),
    ("ftruncate", "truncate"),
];

/// By process the actions that strace saw, in order, with the errno of those that failed.
fn truth(trace: &str) -> BTreeMap<u64, Vec<String>> {
    let mut seen: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in trace.lines() {
        let (pid, rest) = line.split_once(' ').expect("strace -f begins with the pid");
        let pid = pid.parse().expect("a pid");
        let Some((name, rest)) = rest.trim_start().split_once('(') else {
            continue;
        };
        let Some((_, action)) = CALLS.iter().find(|(call, _)| *call == name) else {
            continue;
        };
        if name == "unlinkat" && !rest.contains("AT_REMOVEDIR") {
            continue;
        }
        let (_, result) = rest.rsplit_once(" = ").expect("a result");
        let failed = result.strip_prefix("-1 ").map(|r| r.split(' ').next());
        let done = match failed.flatten() {
            Some(code) => format!("{action} {code}"),
            None => (*action).to_owned(),
        };
        seen.entry(pid).or_default().push(done);
    }
    seen
}

/// Found out before the function that does the work: not seen where that one is watched.
const EARLY: [&str; 3] = ["EEXIST", "ENOENT", "ENOSYS"];

fn strace(ctx: &Ctx) -> Outcome {
    if let Some(why) = lacks("strace") {
        return Outcome::Skipped(why);
    }
    let trace = ctx.path("trace");
    let script = "set -e; mkdir -p a/b/c; mkdir -m 700 d; echo 1 >a/f; ln a/f a/g; ln -s f a/h; ln -sf g a/h; \
        mknod a/p p; mkfifo a/q; chmod 640 a/f; chmod -R g+w a; chown 1:2 a/f; chown -h 3 a/h; touch -d @1000 a/f; \
        truncate -s 99 a/f; cp -a a e; mv e d/; rm -r d; rmdir a/b/c; mkdir a/b 2>/dev/null || :; mkdir a/b/d; rmdir a/b a/no \
        2>/dev/null || :; rm -r a";
    let args = [
        "run",
        "--monitor",
        "file",
        "--format",
        "json",
        "--",
        "strace",
        "-f",
        "-qq",
        "-o",
        text(&trace),
        "sh",
        "-c",
    ];
    let script = format!("cd {} && {script}", text(&ctx.dir));
    let ended = stockade(ctx, args.into_iter().chain([script.as_str()]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut truth = truth(&fs::read_to_string(&trace).unwrap());
    if !ctx.host {
        for done in truth.values_mut() {
            done.retain(|done| !EARLY.iter().any(|code| done.ends_with(code)));
        }
        truth.retain(|_, done| !done.is_empty());
    }
    let actions: Vec<&str> = CALLS.iter().map(|(_, action)| *action).collect();
    let mut seen: BTreeMap<u64, Vec<(String, String)>> = BTreeMap::new();
    for event in &ended.events {
        let action = event["event.action"].as_str().unwrap_or_default();
        if actions.contains(&action) {
            let done = match event["error.code"].as_str() {
                Some(code) => format!("{action} {code}"),
                None => action.to_owned(),
            };
            seen.entry(number(event, "process.pid"))
                .or_default()
                .push((word(event, "@timestamp").to_owned(), done));
        }
    }
    let seen: BTreeMap<u64, Vec<String>> = seen
        .into_iter()
        .map(|(pid, mut all)| {
            all.sort();
            (pid, all.into_iter().map(|(_, done)| done).collect())
        })
        .collect();
    let all: Vec<&String> = truth.values().flatten().collect();
    assert!(all.len() > 30, "{truth:#?}");
    assert!(
        all.iter().any(|done| *done == "rmdir ENOTEMPTY"),
        "{truth:#?}"
    );
    assert_eq!(seen, truth);
    Outcome::Passed
}

fn overlay(ctx: &Ctx) -> Outcome {
    let Some((merged, _mount)) = layers(ctx) else {
        return Outcome::Skipped("there is no overlayfs here".to_owned());
    };
    let out = ctx.path("results");
    let at = |name: &str| text(&merged.join(name)).to_owned();
    let (dir, lower, link, sym) = (at("dir"), at("lower"), at("link"), at("sym"));
    let rows: Vec<Row<'_>> = vec![
        (
            "mkdir",
            vec!["make-dir", &dir],
            0,
            "mkdir",
            json!({"file.path": dir}),
        ),
        (
            "rmdir",
            vec!["remove-dir", &dir],
            0,
            "rmdir",
            json!({"file.path": dir}),
        ),
        (
            "symlink",
            vec!["make-symlink", "x", &sym],
            0,
            "symlink",
            json!({"file.path": sym}),
        ),
        // Copies it to the upper layer.
        (
            "chmod",
            vec!["chmod", &lower],
            0,
            "chmod",
            json!({"file.path": lower, "stockade.change.mode": "0700"}),
        ),
        (
            "link",
            vec!["make-link", &lower, &link],
            0,
            "link",
            json!({"file.path": link, "stockade.old_path": lower}),
        ),
        (
            "ftruncate",
            vec!["resize", &lower],
            0,
            "truncate",
            json!({"file.path": lower, "file.size": 12_345}),
        ),
        (
            "setxattr",
            vec!["setxattr", &lower],
            0,
            "setxattr",
            json!({"file.path": lower}),
        ),
    ];
    let (steps, expected) = split(&rows);
    let ended = helped(ctx, &out, &[], &steps);
    let wrong = differences(&ended, &out, &expected);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Outcome::Passed
}

/// An overlay with the file `lower` in its lower layer.
fn layers(ctx: &Ctx) -> Option<(PathBuf, Mount)> {
    let _ = std::process::Command::new("/usr/sbin/modprobe")
        .args(["-q", "overlay"])
        .status();
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.contains("overlay") {
        return None;
    }
    for name in ["l", "u", "w", "merged"] {
        fs::create_dir(ctx.path(name)).unwrap();
    }
    fs::write(ctx.path("l/lower"), "lower").unwrap();
    let (lower, upper, work) = (ctx.path("l"), ctx.path("u"), ctx.path("w"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        text(&lower),
        text(&upper),
        text(&work)
    );
    let merged = ctx.path("merged");
    let mount = mount(&["-t", "overlay", "overlay", "-o", &options], &merged);
    Some((merged, mount))
}
