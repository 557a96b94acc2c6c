//! Rules for names, and for all that is in a directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bypass;
use crate::fence::{EPERM, confined, confined_as, denials_of, text, until_ready};
use crate::harness::{Ctx, Ended, Needs, Outcome, Stockade, Test, stockade};
use crate::helper::{Done, Step, outside, results, step};
use crate::mounts::{bind, file_system, mount};
use crate::variants::running;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "all_that_is_in_a_directory_is_denied_on_tmpfs",
        Needs::Fence,
        |ctx| directory(ctx, "tmpfs"),
    ),
    Test::new(
        "all_that_is_in_a_directory_is_denied_on_ext4",
        Needs::Fence,
        |ctx| directory(ctx, "ext4"),
    ),
    Test::new(
        "all_that_is_in_a_directory_is_denied_on_btrfs",
        Needs::Fence,
        |ctx| directory(ctx, "btrfs"),
    ),
    Test::new(
        "all_that_is_in_a_directory_is_denied_on_overlay",
        Needs::Fence,
        |ctx| directory(ctx, "overlay"),
    ),
    Test::new(
        "name_stays_denied_whatever_comes_to_have_it",
        Needs::Fence,
        names,
    ),
    Test::new(
        "directory_rule_audits_the_same_and_lets_it_happen",
        Needs::Fence,
        audit,
    ),
    Test::new(
        "what_is_allowed_in_one_place_is_denied_in_all_others",
        Needs::Fence,
        allow,
    ),
    Test::new(
        "rule_that_allows_is_refused_where_it_cannot_be_kept",
        Needs::Fence,
        allow_on_overlay,
    ),
    Test::new(
        "what_is_denied_to_run_cannot_be_mapped_to_run_on_tmpfs",
        Needs::Fence,
        |ctx| exec(ctx, "tmpfs"),
    ),
    Test::new(
        "what_is_denied_to_run_cannot_be_mapped_to_run_on_ext4",
        Needs::Fence,
        |ctx| exec(ctx, "ext4"),
    ),
    Test::new(
        "what_is_denied_to_run_cannot_be_mapped_to_run_on_overlay",
        Needs::Fence,
        |ctx| exec(ctx, "overlay"),
    ),
    Test::new(
        "only_what_is_allowed_to_run_can_be_run",
        Needs::Fence,
        allow_exec,
    ),
    Test::new(
        "inode_rule_follows_the_file_and_not_its_name",
        Needs::Fence,
        inode,
    ),
    Test::new(
        "starter_policy_protects_secrets",
        Needs::Fence,
        protect_secrets,
    ),
];

/// A step, and the access that it is refused for; `None`: it works.
pub(crate) type Case = (Step, Option<&'static str>);

pub(crate) fn case(
    label: &str,
    refused: Option<&'static str>,
    words: &[&dyn AsRef<std::ffi::OsStr>],
) -> Case {
    (step(label, words), refused)
}

fn steps_of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<Step> {
    cases.into_iter().map(|(step, _)| step.clone()).collect()
}

/// Steps before and after something that is done from outside, between `ready` and `go`.
pub(crate) fn staged<'a>(
    before: impl IntoIterator<Item = &'a Case>,
    (ready, go): (&Path, &Path),
    after: impl IntoIterator<Item = &'a Case>,
) -> Vec<Step> {
    let mut steps = steps_of(before);
    steps.push(step("ready", &[&"touch", &ready]));
    steps.push(step("go", &[&"wait", &go]));
    steps.extend(steps_of(after));
    steps
}

/// A policy of these file rules, as a file.
pub(crate) fn policy(ctx: &Ctx, rules: &[String]) -> PathBuf {
    policy_of(ctx, &format!("files:\n{}", rules.join("\n")))
}

pub(crate) fn policy_of(ctx: &Ctx, sections: &str) -> PathBuf {
    policy_named(ctx, "test", sections)
}

/// The same with a name of its own; in place of what is there, as editors do.
pub(crate) fn policy_named(ctx: &Ctx, name: &str, sections: &str) -> PathBuf {
    let (path, next) = (ctx.path("policy.yaml"), ctx.path("next.yaml"));
    fs::write(&next, format!("version: 1\nname: {name}\n{sections}\n")).unwrap();
    fs::rename(&next, &path).unwrap();
    path
}

/// The same with a single rule, for one file.
pub(crate) fn policy_for(ctx: &Ctx, name: &str, id: &str, deny: &str, path: &Path) -> PathBuf {
    let rule = rule(id, deny, &[text(path).to_owned()]);
    policy_named(ctx, name, &format!("files:\n{rule}"))
}

pub(crate) fn rule(id: &str, deny: &str, paths: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|p| format!("'{p}'")).collect();
    format!(
        "  - {{ id: {id}, deny: {deny}, paths: [{}] }}",
        paths.join(", ")
    )
}

/// `stockade run` of the helper with these steps under a policy.
pub(crate) fn under(
    policy: &Path,
    more: &[&str],
    out: &Path,
    steps: &[Step],
    ctx: &Ctx,
) -> Vec<String> {
    let rules = ["--policy", text(policy)].into_iter();
    confined(rules.chain(more.iter().copied()), out, steps, ctx)
}

/// What is wrong with how these cases came out.
pub(crate) fn faults(ended: &Ended, cases: &[Case], done: &[Done], rule: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((_, refused), done) in cases.iter().zip(done) {
        let events = denials_of(ended, done);
        let Some(access) = refused else {
            if done.errno != 0 || !events.is_empty() {
                wrong.push(format!("{}: errno {}, {events:?}", done.label, done.errno));
            }
            continue;
        };
        let right = |event: &&&Value| {
            let accesses = event["stockade.access"].as_array();
            event["rule.id"] == rule
                && event["stockade.verdict"] == "deny"
                && accesses.is_some_and(|all| all.iter().any(|a| a == access))
        };
        if done.errno != EPERM || !events.iter().any(|e| right(&e)) {
            wrong.push(format!(
                "{} for {access}: errno {}, {events:?}",
                done.label, done.errno
            ));
        }
    }
    if done.len() != cases.len() {
        wrong.push(format!("{} of {} steps", done.len(), cases.len()));
    }
    wrong
}

fn directory(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let (above, other) = (root.join("above"), root.join("other"));
    let dir = above.join("dir");
    let deep = dir.join("sub/deep");
    let inner = dir.join("inner");
    for path in [&deep, &other, &inner] {
        fs::create_dir_all(path).unwrap();
    }
    for file in [dir.join("file"), deep.join("file"), other.join("file")] {
        fs::write(file, "text").unwrap();
    }
    fs::write(dir.join("neighbour"), "text").unwrap();
    // Made before: a mount in it. And the way into it by another mount.
    let _inner = mount(&["-t", "tmpfs", "tmpfs"], &inner);
    fs::write(inner.join("file"), "text").unwrap();
    // And a later mount of it that is elsewhere.
    let again = ctx.path("again");
    fs::create_dir(&again).unwrap();
    let _again = bind(&inner, &again);
    let bound = ctx.path("bound");
    fs::create_dir(&bound).unwrap();
    let _bound = bind(&dir.join("sub"), &bound);
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let (file, far) = (dir.join("file"), other.join("file"));

    let mut cases = vec![
        case("dir/file", Some("read"), &[&"open", &file]),
        case(
            "dir/far-below",
            Some("read"),
            &[&"open", &deep.join("file")],
        ),
        case("dir/write", Some("write"), &[&"open-write", &file]),
        case("dir/list", Some("read"), &[&"open", &deep]),
        case("the directory itself", None, &[&"open", &dir]),
        case(
            "dir/bind-mount",
            Some("read"),
            &[&"open", &bound.join("deep/file")],
        ),
        case(
            "dir/in-a-mount",
            Some("read"),
            &[&"open", &inner.join("file")],
        ),
        case("dir/io-uring", Some("read"), &[&"uring", &file]),
        case("dir/create", Some("create"), &[&"create", &dir.join("new")]),
        case(
            "dir/create-far-below",
            Some("create"),
            &[&"create", &deep.join("new")],
        ),
        case(
            "dir/create-in-a-mount",
            Some("create"),
            &[&"create", &inner.join("new")],
        ),
        case(
            "dir/mkdir",
            Some("create"),
            &[&"make-dir", &dir.join("new")],
        ),
        case(
            "dir/symlink",
            Some("create"),
            &[&"make-symlink", &"x", &dir.join("new")],
        ),
        case(
            "dir/mknod",
            Some("create"),
            &[&"make-node", &dir.join("new"), &"fifo"],
        ),
        case(
            "dir/link-into",
            Some("create"),
            &[&"link", &far, &dir.join("new")],
        ),
        case(
            "dir/link-out",
            Some("link"),
            &[&"link", &file, &other.join("new")],
        ),
        case(
            "dir/rename-into",
            Some("create"),
            &[&"rename", &far, &dir.join("new")],
        ),
        case(
            "dir/rename-over",
            Some("replace"),
            &[&"rename-over", &far, &file],
        ),
        case(
            "dir/rename-out",
            Some("delete"),
            &[&"rename", &file, &other.join("new")],
        ),
        case("dir/unlink", Some("delete"), &[&"unlink", &file]),
        case(
            "dir/unlink-in-a-mount",
            Some("delete"),
            &[&"unlink", &inner.join("file")],
        ),
        case(
            "dir/truncate",
            Some("write"),
            &[&"truncate", &deep.join("file")],
        ),
        case("dir/chmod", Some("metadata"), &[&"chmod", &file]),
        case(
            "dir/rename-it",
            Some("delete"),
            &[&"rename", &dir, &other.join("new")],
        ),
        case(
            "dir/rename-above",
            Some("delete"),
            &[&"rename", &above, &other.join("new")],
        ),
        case("dir/mount-over", Some("mount"), &[&"mount", &dir, &"tmpfs"]),
        case("dir/mount-in", Some("mount"), &[&"mount", &deep, &"tmpfs"]),
        case("another file", None, &[&"open-rdwr", &far]),
        case("another new file", None, &[&"create", &other.join("fresh")]),
        case(
            "another rename",
            None,
            &[&"rename", &far, &other.join("moved")],
        ),
        case("another unlink", None, &[&"unlink", &other.join("fresh")]),
        case("a file above it", None, &[&"create", &above.join("beside")]),
    ];
    if kind == "ext4" {
        // Files of a tmpfs never leave the cache, and the others' mounts here are busy with what is mounted in them.
        let far_below = deep.join("file");
        let words: &[&dyn AsRef<std::ffi::OsStr>] = &[&"handle-cold", &far_below, &root];
        cases.push(case("dir/handle", Some("read"), words));
    }
    let first = cases.len();
    let later = [
        case(
            "dir/made-later",
            Some("read"),
            &[&"open", &dir.join("later")],
        ),
        case(
            "dir/directory-made-later",
            Some("read"),
            &[&"open", &dir.join("young/file")],
        ),
        case(
            "dir/mount-made-later",
            Some("read"),
            &[&"open", &other.join("dir/young/mount/file")],
        ),
        case(
            "dir/moved-elsewhere",
            Some("read"),
            &[&"open", &other.join("dir/file")],
        ),
    ];
    let steps = staged(&cases, (&ready, &go), &later);
    let out = ctx.path("results");
    let rules = [rule("closed", "all", &[format!("{}/**", text(&dir))])];
    let policy = policy(ctx, &rules);
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    fs::write(dir.join("later"), "text").unwrap();
    fs::create_dir_all(dir.join("young/mount")).unwrap();
    fs::write(dir.join("young/file"), "text").unwrap();
    let _young = mount(&["-t", "tmpfs", "tmpfs"], &dir.join("young/mount"));
    fs::write(dir.join("young/mount/file"), "text").unwrap();
    // From outside all of it works.
    let mut wrong: Vec<String> = outside(&[step("outside", &[&"open-rdwr", &file])])
        .iter()
        .filter(|done| done.errno != 0)
        .map(|done| format!("{}: errno {}", done.label, done.errno))
        .collect();
    fs::rename(&dir, other.join("dir")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("later"), "text").unwrap();
    fs::create_dir_all(dir.join("young")).unwrap();
    fs::write(dir.join("young/file"), "text").unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    wrong.extend(faults(&ended, &cases, &done[..first], "closed"));
    wrong.extend(faults(&ended, &later, &done[first + 2..], "closed"));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// The program loader, as the interpreter of a program of this system.
pub(crate) fn loader() -> PathBuf {
    let elf = fs::read("/bin/true").unwrap();
    let start = elf.windows(5).position(|w| w == b"/lib6" || w == b"/lib/");
    let name = elf[start.expect("/bin/true has an interpreter")..].split(|b| *b == 0);
    let name = String::from_utf8(name.into_iter().next().unwrap().to_vec());
    PathBuf::from(name.unwrap())
}

/// By its file, by its directory, and by what it is the interpreter of.
fn exec(ctx: &Ctx, kind: &str) -> Outcome {
    let (root, _mounted) = file_system(ctx, kind);
    let (tool, other, dir) = (root.join("tool"), root.join("other"), root.join("dir"));
    fs::create_dir(&dir).unwrap();
    let library = dir.join("library");
    for copy in [&tool, &other, &library] {
        fs::copy("/bin/true", copy).unwrap();
    }
    let (hard, script) = (root.join("hard"), root.join("script"));
    fs::hard_link(&tool, &hard).unwrap();
    fs::write(&script, format!("#!{}\n", text(&tool))).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let told = root.join("told");
    fs::write(&told, "exit 0\n").unwrap();
    fs::set_permissions(&told, fs::Permissions::from_mode(0o755)).unwrap();
    let loader = loader();
    // A mapping of overlayfs has the file of a layer, and of its identity only the name is left since 6.8.
    let by_name_only = kind == "overlay" && running() >= (6, 8);

    let mut cases = Vec::new();
    for (name, file, ruled) in [
        ("exec", &tool, true),
        ("exec-other-name", &hard, true),
        ("exec-in-directory", &library, true),
        ("another", &other, false),
    ] {
        let refused = |is: bool| is.then_some("exec");
        let mut add = |what: &str, refused, words: &[&dyn AsRef<std::ffi::OsStr>]| {
            let label = if ruled {
                format!("{name}/{what}")
            } else {
                format!("{name}: {what}")
            };
            cases.push(case(&label, refused, words));
        };
        add("execve", refused(ruled), &[&"execve", file]);
        add("loader", refused(ruled), &[&"loader", &loader, file]);
        add("map", refused(ruled), &[&"map-exec", file]);
        let later = ruled && !(by_name_only && file == &hard);
        add("mprotect", refused(later), &[&"map-then-exec", file]);
        for (what, operation) in [
            ("map to read", "map"),
            ("read", "open"),
            ("write", "open-write"),
        ] {
            let label = format!("{name}: {what}");
            cases.push(case(&label, None, &[&operation, file]));
        }
    }
    cases.push(case("exec/script", Some("exec"), &[&"execve", &script]));
    // What a rule about running leaves: a copy, and who reads it to do what it says.
    cases.push(case("exec/copy", None, &[&"execve", &other]));
    let words: &[&dyn AsRef<std::ffi::OsStr>] = &[&"loader", &"/bin/sh", &told];
    cases.push(case("exec/read-by-a-shell", None, words));
    let steps = steps_of(&cases);
    let (tool, dir) = (text(&tool), text(&dir));
    let rules = format!(
        "exec:\n  - {{ id: no-tools, deny: ['{tool}', '{dir}/**', '{}'] }}",
        text(&told)
    );
    let policy = policy_of(ctx, &rules);
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    if !ctx.has_lsm() && kind == "overlay" {
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(!out.exists(), "the command has run without a fence");
        bypass::unarmed(kind, &ended, &steps);
        return Outcome::Passed;
    }
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, mut done) = results(&out);
    for done in done.iter_mut().filter(|d| d.label.ends_with("loader")) {
        // The exit status of a loader that cannot map what it was told to.
        if done.errno == 127 {
            done.errno = EPERM;
        }
    }
    let mut wrong = faults(&ended, &cases, &done, "no-tools");
    // Told once, however many mappings a program has.
    for done in &done {
        let count = denials_of(&ended, done).len();
        if count > 1 {
            wrong.push(format!("{}: told {count} times", done.label));
        }
    }
    assert_eq!(
        ended.complete()["stockade.fence"]["mechanism"],
        ctx.mechanism.as_str()
    );
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all(kind, &ended, &done);
    Outcome::Passed
}

/// Whoever may run needs its loader and its libraries. The helper gets copies of its own in a new directory, because the
/// machine's lie on overlayfs, where no rule can allow. The command by which it runs there.
pub(crate) fn provision(ctx: &Ctx, directory: &Path) -> [PathBuf; 4] {
    fs::create_dir(directory).unwrap();
    let needed = std::process::Command::new("ldd").arg(&ctx.helper).output();
    let needed = String::from_utf8(needed.unwrap().stdout).unwrap();
    let libraries = needed.split_whitespace().filter(|w| w.starts_with("/lib"));
    let copy = |of: &Path| directory.join(of.file_name().unwrap());
    for file in libraries.map(Path::new).chain([&*loader(), &ctx.helper]) {
        fs::copy(file, copy(file)).unwrap();
    }
    [
        copy(&loader()),
        "--library-path".into(),
        directory.to_owned(),
        copy(&ctx.helper),
    ]
}

fn allow_exec(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let (good, other) = (root.join("good"), root.join("other"));
    let command = provision(ctx, &good);
    fs::create_dir(&other).unwrap();
    let (tool, foreign) = (good.join("true"), other.join("true"));
    for copy in [&tool, &foreign] {
        fs::copy("/bin/busybox", copy).unwrap();
    }
    let cases = [
        case("allowed", None, &[&"execve", &tool]),
        case("allowed, mapped", None, &[&"map-exec", &tool]),
        case("exec-allow/execve", Some("exec"), &[&"execve", &foreign]),
        case("exec-allow/map", Some("exec"), &[&"map-exec", &foreign]),
        case(
            "exec-allow/mprotect",
            Some("exec"),
            &[&"map-then-exec", &foreign],
        ),
        case("read", None, &[&"open", &foreign]),
    ];
    let steps = steps_of(&cases);
    let good_text = text(&good);
    let rules = format!("exec:\n  - {{ id: these, allow: ['{good_text}/**'] }}");
    let policy = policy_of(ctx, &rules);
    let out = ctx.path("results");
    let rules = ["--policy", text(&policy)];
    let args = confined_as(
        rules,
        &command.each_ref().map(|path| text(path)),
        &out,
        &steps,
    );
    let ended = stockade(ctx, args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let wrong = faults(&ended, &cases, &done, "these");
    assert!(ended.of("denial").all(|e| e["stockade.unlisted"] == true));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("ext4", &ended, &done);
    Outcome::Passed
}

fn inode(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let dir = root.join("dir");
    fs::create_dir(&dir).unwrap();
    let (file, other) = (dir.join("file"), dir.join("other"));
    let (moved, hard, link) = (dir.join("moved"), root.join("hard"), root.join("link"));
    fs::write(&file, "text").unwrap();
    fs::write(&other, "text").unwrap();
    fs::hard_link(&file, &hard).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let on = |path: &str| {
        let of_inode = rule("inode", "[read, write]", &[path.to_owned()]);
        policy(ctx, &[of_inode.replace("paths", "inodes")])
    };
    let policy = on(text(&link));
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let before = [
        case("inode/path", Some("read"), &[&"open", &file]),
        case("inode/hard-link", Some("write"), &[&"open-write", &hard]),
        case("inode/symlink", Some("read"), &[&"open", &link]),
        case("the link's own", None, &[&"rename", &link, &root.join("l")]),
        case("the directory", None, &[&"rename", &dir, &root.join("d")]),
        case("its own rename", None, &[&"rename", &file, &moved]),
    ];
    let after = [
        case("inode/moved", Some("read"), &[&"open", &moved]),
        case("in its place", None, &[&"open-rdwr", &file]),
        case("over it", None, &[&"rename-over", &other, &moved]),
        case("inode/what-replaced-it", None, &[&"open-rdwr", &moved]),
        case("inode/name-left", Some("read"), &[&"open", &hard]),
    ];
    let steps = staged(&before, (&ready, &go), &after);
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    fs::rename(&file, &moved).unwrap();
    fs::write(&file, "new").unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = faults(&ended, &before, &done[..before.len()], "inode");
    wrong.extend(faults(&ended, &after, &done[before.len() + 2..], "inode"));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("ext4", &ended, &done);

    // What is not there has no inode to follow.
    let policy = on("/no/such/file");
    let ended = stockade(ctx, under(&policy, &[], &ctx.path("none"), &steps, ctx));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("/no/such/file"), "{}", ended.stderr);
    Outcome::Passed
}

fn names(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "ext4");
    let dir = root.join("above/dir");
    fs::create_dir_all(&dir).unwrap();
    let (secret, absent) = (dir.join("secret"), dir.join("absent"));
    let (spare, kept) = (dir.join("spare"), dir.join("kept"));
    for file in [&secret, &spare, &kept] {
        fs::write(file, "text").unwrap();
    }
    let closed = dir.join("closed");
    let rules = [
        rule(
            "names",
            "all",
            &[text(&secret).to_owned(), text(&absent).to_owned()],
        ),
        rule("tree", "all", &[format!("{}/**", text(&closed))]),
        rule("read", "[read]", &[text(&kept).to_owned()]),
    ];
    let policy = policy(ctx, &rules);
    let (ready, go) = (ctx.path("ready"), ctx.path("go"));
    let before = [
        case("name/path", Some("read"), &[&"open", &secret]),
        case("name/create", Some("create"), &[&"create", &absent]),
        case("name/mkdir", Some("create"), &[&"make-dir", &absent]),
        case(
            "name/symlink",
            Some("create"),
            &[&"make-symlink", &"x", &absent],
        ),
        case("name/link", Some("create"), &[&"link", &spare, &absent]),
        case("name/rename", Some("create"), &[&"rename", &spare, &absent]),
        case(
            "name/rename-over",
            Some("replace"),
            &[&"rename-over", &spare, &secret],
        ),
        case(
            "name/move-its-directory",
            Some("delete"),
            &[&"rename", &dir, &root.join("moved")],
        ),
        case("name/mount", Some("mount"), &[&"mount", &dir, &"tmpfs"]),
        case("another name", None, &[&"create", &dir.join("absent2")]),
        case("its beginning", None, &[&"create", &dir.join("absen")]),
    ];
    let after = [
        case("name/made-later", Some("read"), &[&"open", &absent]),
        case("name/replaced", Some("read"), &[&"open", &secret]),
        case(
            "name/replaced-unlink",
            Some("delete"),
            &[&"unlink", &secret],
        ),
        case(
            "name/former-file",
            Some("read"),
            &[&"open", &dir.join("former")],
        ),
    ];
    let tree = [
        case(
            "in a directory made later",
            Some("read"),
            &[&"open", &closed.join("sub/file")],
        ),
        case(
            "made in it",
            Some("create"),
            &[&"create", &closed.join("new")],
        ),
    ];
    let mut steps = staged(&before, (&ready, &go), after.iter().chain(&tree));
    // Who may change it may also move where it is; read is still refused there.
    let moved = root.join("moved");
    steps.push(step(
        "name/moved-by-others",
        &[&"open", &moved.join("kept")],
    ));
    let out = ctx.path("results");
    let mut run = Stockade::start(ctx, under(&policy, &[], &out, &steps, ctx));
    until_ready(&mut run, &ready);
    fs::write(&absent, "text").unwrap();
    fs::rename(&secret, dir.join("former")).unwrap();
    fs::write(&secret, "anew").unwrap();
    fs::create_dir_all(closed.join("sub")).unwrap();
    fs::write(closed.join("sub/file"), "text").unwrap();
    fs::create_dir(&moved).unwrap();
    fs::rename(&kept, moved.join("kept")).unwrap();
    fs::write(&go, "").unwrap();
    let ended = run.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let n = before.len();
    let mut wrong = faults(&ended, &before, &done[..n], "names");
    let rest = &done[n + 2..];
    wrong.extend(faults(&ended, &after, &rest[..after.len()], "names"));
    wrong.extend(faults(
        &ended,
        &tree,
        &rest[after.len()..after.len() + tree.len()],
        "tree",
    ));
    let last = case("name/moved-by-others", Some("read"), &[]);
    wrong.extend(faults(
        &ended,
        &[last],
        &rest[after.len() + tree.len()..],
        "read",
    ));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("ext4", &ended, &done);
    Outcome::Passed
}

fn audit(ctx: &Ctx) -> Outcome {
    let dir = ctx.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "text").unwrap();
    let rules = [rule("closed", "all", &[format!("{}/**", text(&dir))])];
    let policy = policy(ctx, &rules);
    let out = ctx.path("results");
    let steps = [
        step("open", &[&"open", &dir.join("file")]),
        step("create", &[&"create", &dir.join("new")]),
        step("unlink", &[&"unlink", &dir.join("new")]),
    ];
    let ended = stockade(ctx, under(&policy, &["--audit"], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    // Making it is one access, and opening what was made another.
    for (done, expected) in done
        .iter()
        .zip([&["read"][..], &["create", "write"], &["delete"]])
    {
        assert_eq!(done.errno, 0, "{}", done.label);
        let events = denials_of(&ended, done);
        let told: Vec<&str> = events
            .iter()
            .filter_map(|e| e["stockade.access"][0].as_str())
            .collect();
        assert_eq!(told, expected, "{}", done.label);
        assert!(events.iter().all(|e| e["stockade.verdict"] == "audit"));
    }
    ended.complete();
    Outcome::Passed
}

fn allow(ctx: &Ctx) -> Outcome {
    let work = ctx.path("work");
    let (keep, hidden, loose) = (
        work.join("keep"),
        work.join("hidden"),
        work.join("keep/loose"),
    );
    for dir in [&keep, &hidden] {
        fs::create_dir_all(dir).unwrap();
    }
    for file in [
        work.join("file"),
        loose.clone(),
        keep.join("other"),
        hidden.join("file"),
    ] {
        fs::write(file, "text").unwrap();
    }
    let outside = ctx.path("outside");
    fs::write(&outside, "text").unwrap();
    let (results_at, here) = (ctx.path("results"), |name: &str| work.join(name));
    let all = |path: &Path| format!("{}/**", text(path));
    let write = "[write, create, delete, replace]";
    let with = |rule: String, more: &str| rule.replace(" }", &format!(", {more} }}"));
    let rules = [
        rule(
            "workspace",
            write,
            &[all(&work), text(&results_at).to_owned()],
        )
        .replace("deny", "allow"),
        rule("kept", write, &[all(&keep)]),
        // Stronger than the rule against what is around it.
        with(
            rule("but", "[write]", &[text(&loose).to_owned()]).replace("deny", "allow"),
            "priority: 1",
        ),
        // Tried out: it takes nothing from the others.
        with(
            rule("tried", "[read]", &[all(&work)]).replace("deny", "allow"),
            "mode: audit",
        ),
        rule("hide", "[read]", &[all(&hidden)]),
    ];
    let policy = policy(ctx, &rules);
    let cases = [
        (
            None,
            case("in the workspace", None, &[&"open-rdwr", &here("file")]),
        ),
        (None, case("a new file", None, &[&"create", &here("new")])),
        (
            None,
            case("a new directory", None, &[&"make-dir", &here("sub")]),
        ),
        (None, case("in it", None, &[&"create", &here("sub/new")])),
        (
            None,
            case(
                "a rename",
                None,
                &[&"rename", &here("sub/new"), &here("moved")],
            ),
        ),
        (None, case("unlink", None, &[&"unlink", &here("new")])),
        (
            Some("but"),
            case("allow/write", Some("write"), &[&"open-write", &outside]),
        ),
        (
            Some("but"),
            case("allow/truncate", Some("write"), &[&"truncate", &outside]),
        ),
        (
            Some("workspace"),
            case(
                "allow/create",
                Some("create"),
                &[&"create", &ctx.path("new")],
            ),
        ),
        (
            Some("workspace"),
            case(
                "allow/rename-out",
                Some("create"),
                &[&"rename", &here("file"), &ctx.path("new")],
            ),
        ),
        (
            Some("kept"),
            case(
                "the workspace",
                Some("delete"),
                &[&"rename", &work, &ctx.path("new")],
            ),
        ),
        (
            Some("kept"),
            case("kept", Some("write"), &[&"open-write", &keep.join("other")]),
        ),
        (
            Some("kept"),
            case("moved", Some("delete"), &[&"rename", &keep, &here("away")]),
        ),
        (None, case("but", None, &[&"open-write", &loose])),
        (
            Some("kept"),
            case("its end", Some("delete"), &[&"unlink", &loose]),
        ),
        (
            Some("hide"),
            case("hidden", Some("read"), &[&"open", &hidden.join("file")]),
        ),
    ];
    let mut steps: Vec<Step> = cases.iter().map(|(_, (step, _))| step.clone()).collect();
    steps.push(step("tried", &[&"open", &outside]));
    let ended = stockade(ctx, under(&policy, &[], &results_at, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&results_at);
    let mut wrong = Vec::new();
    for ((rule, case), done) in cases.iter().zip(&done) {
        // What "tried" would refuse is told of all that is read elsewhere, and goes on.
        let (case, done) = (std::slice::from_ref(case), std::slice::from_ref(done));
        wrong.extend(faults(&ended, case, done, rule.unwrap_or_default()));
        let unlisted = denials_of(&ended, &done[0])
            .iter()
            .any(|e| e["stockade.unlisted"] == true && e["stockade.verdict"] == "deny");
        if unlisted != matches!(rule, Some("workspace" | "but")) {
            wrong.push(format!("{}: unlisted {unlisted}", done[0].label));
        }
    }
    let tried = done.last().expect("the last step");
    let events = denials_of(&ended, tried);
    let told: Vec<_> = events
        .iter()
        .map(|e| (e["rule.id"].as_str(), e["stockade.verdict"].as_str()))
        .collect();
    if tried.errno != 0 || told != [(Some("tried"), Some("audit"))] {
        wrong.push(format!("tried: errno {}, {events:?}", tried.errno));
    }
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    bypass::all("tmpfs", &ended, &done);
    Outcome::Passed
}

/// What overlayfs does in the layers below is not told from what the command does.
fn allow_on_overlay(ctx: &Ctx) -> Outcome {
    let (root, _mounted) = file_system(ctx, "overlay");
    let all = format!("{}/**", text(&root));
    let rules = [rule("work", "[write]", &[all]).replace("deny", "allow")];
    let policy = policy(ctx, &rules);
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &[], ctx));
    assert_eq!(ended.code, 40, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("rule work (line 4)") && ended.stderr.contains("is on overlayfs"),
        "{}",
        ended.stderr
    );
    assert!(!out.exists(), "the command has run without a fence");
    Outcome::Passed
}

/// As it is delivered, for a home of the test's own.
fn protect_secrets(ctx: &Ctx) -> Outcome {
    let home = ctx.path("home");
    let at = |name: &str| home.join(name);
    fs::create_dir_all(at(".ssh")).unwrap();
    fs::write(at(".ssh/id_ed25519"), "key").unwrap();
    fs::write(at("notes"), "text").unwrap();
    let delivered = include_str!("../../policies/protect-secrets.yaml");
    let policy = ctx.path("policy.yaml");
    let here = format!("{}/", text(&home));
    fs::write(&policy, delivered.replace("~/", &here)).unwrap();
    let keys = [
        case("a key", Some("read"), &[&"open", &at(".ssh/id_ed25519")]),
        case(
            "another key",
            Some("create"),
            &[&"create", &at(".ssh/authorized_keys")],
        ),
        case("a password", Some("create"), &[&"create", &at(".netrc")]),
        case("a directory of keys", None, &[&"make-dir", &at(".aws")]),
        case(
            "a key in it",
            Some("create"),
            &[&"create", &at(".aws/credentials")],
        ),
        case("another file", None, &[&"open-rdwr", &at("notes")]),
    ];
    let passwords = [case("passwords", Some("read"), &[&"open", &"/etc/shadow"])];
    let all = keys.iter().chain(&passwords);
    let steps: Vec<Step> = all.map(|(step, _)| step.clone()).collect();
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    if !ctx.has_lsm() {
        // /etc of the test machine is an overlay, where only a tag tells files apart.
        assert_eq!(ended.code, 40, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("the same identity"),
            "{}",
            ended.stderr
        );
        assert!(!out.exists(), "the command has run without a fence");
        return Outcome::Passed;
    }
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    let mut wrong = faults(&ended, &keys, &done[..keys.len()], "no-keys");
    wrong.extend(faults(
        &ended,
        &passwords,
        &done[keys.len()..],
        "no-password-files",
    ));
    ended.complete();
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}
