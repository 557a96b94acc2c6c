//! The lock-out guard: a fence around the session that arms it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::fence::{EPERM, text};
use crate::harness::{Ctx, Needs, Outcome, Stockade, Test, stockade};
use crate::helper::{outside, step};
use crate::places::{loader, policy_of};
use crate::scope::start_helper;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "fence_that_would_lock_its_operator_out_is_not_armed",
        Needs::Watch,
        refused,
    ),
    Test::new(
        "fence_is_armed_around_others_and_around_who_knows",
        Needs::Fence,
        armed,
    ),
];

fn arguments<'a>(policy: &'a Path, scope: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["enforce", "--format", "json", "--policy", text(policy)];
    all.extend(scope);
    all
}

/// A policy with one limit.
fn limit(more: &str) -> String {
    format!("limits:\n  - {{ id: x, per_second: 999, {more} }}")
}

fn refused(ctx: &Ctx) -> Outcome {
    let own = std::process::id().to_string();
    let loader = fs::canonicalize(loader()).unwrap();
    let libraries = loader.parent().unwrap().to_owned();
    let tests = fs::canonicalize(&ctx.helper).unwrap();
    let program = fs::canonicalize(&ctx.bin).unwrap();
    let (link, only) = (ctx.path("link"), ctx.path("only"));
    fs::write(&only, "").unwrap();
    std::os::unix::fs::symlink(&tests, &link).unwrap();
    let mut wrong = Vec::new();
    // What is refused, by which rule, and who would miss it.
    for (label, sections, missed, who) in [
        (
            "this session's program",
            format!("exec:\n  - {{ id: x, deny: ['{}'] }}", text(&tests)),
            &tests,
            format!("process {own}"),
        ),
        (
            "by a link",
            format!("exec:\n  - {{ id: x, deny: ['{}'] }}", text(&link)),
            &tests,
            format!("process {own}"),
        ),
        (
            "the program itself",
            format!("exec:\n  - {{ id: x, deny: ['{}'] }}", text(&program)),
            &program,
            "this program".to_owned(),
        ),
        (
            "the loader",
            format!(
                "files:\n  - {{ id: x, deny: [read], paths: ['{}'] }}",
                text(&loader)
            ),
            &loader,
            format!("process {own}"),
        ),
        (
            "all libraries",
            format!(
                "files:\n  - {{ id: x, deny: [read], paths: ['{}/**'] }}",
                text(&libraries)
            ),
            &libraries,
            format!("process {own}"),
        ),
        (
            "all but one program",
            format!("exec:\n  - {{ id: x, allow: ['{}'] }}", text(&only)),
            &tests,
            format!("process {own}"),
        ),
        (
            "killed for it",
            format!(
                "exec:\n  - {{ id: x, deny: ['{}'], action: kill }}",
                text(&tests)
            ),
            &tests,
            format!("process {own}"),
        ),
    ] {
        let policy = policy_of(ctx, &sections);
        for scope in [&["--tree", &own][..], &["--pid", &own], &["--host"]] {
            let ended = stockade(ctx, arguments(&policy, scope));
            let told = &ended.stderr;
            // Of the whole host, init or whoever else is above is named first.
            let names = scope == ["--host"] || (told.contains(&who) && told.contains(text(missed)));
            let sentence = told.contains("rule x (line 4)") && told.contains("nothing is armed");
            if ended.code != 1 || !names || !sentence || told.contains("fence armed") {
                wrong.push(format!("{label}, {scope:?}: {} {told}", ended.code));
            }
        }
    }
    // Whoever uses these up leaves nothing for that session.
    for more in ["limit: threads", "limit: connections, action: kill"] {
        let policy = policy_of(ctx, &limit(more));
        let ended = stockade(ctx, arguments(&policy, &["--tree", &own]));
        let sentence =
            "rule x (line 4) is one for all, and this fence holds the session that arms it";
        if ended.code != 1 || !ended.stderr.contains(sentence) {
            wrong.push(format!("{more}: {} {}", ended.code, ended.stderr));
        }
    }
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}

fn armed(ctx: &Ctx) -> Outcome {
    let own = std::process::id().to_string();
    // A shell between this program and the other, on a file system where files can be told apart without tags.
    let (shell, beside) = (ctx.path("sh"), ctx.path("true"));
    for (from, to) in [("/bin/sh", &shell), ("/bin/true", &beside)] {
        fs::copy(from, to).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let below_shell = Ctx {
        bin: shell.clone(),
        helper: ctx.helper.clone(),
        dir: ctx.dir.clone(),
        mechanism: ctx.mechanism.clone(),
        host: ctx.host,
    };
    let go = ctx.path("go");
    let steps = [step("go", &[&"wait", &go])];
    let mut other = start_helper(ctx, crate::helper::arguments(&ctx.path("results"), &steps));
    let pid = other.pid().to_string();

    let rule =
        |path: &Path, more: &str| format!("exec:\n  - {{ id: x, deny: ['{}']{more} }}", text(path));
    let by_shell = format!(", by: {{ exe: '{}', uid: 0 }}", text(&shell));
    let own_tree = &["--tree", &own][..];
    let i_know = &["--tree", &own, "--i-know"][..];
    let mut wrong = Vec::new();
    for (label, sections, scope, errno) in [
        ("refused", rule(&shell, ""), own_tree, None),
        ("others held", rule(&shell, ""), &["--tree", &pid], Some(0)),
        ("another file", rule(&beside, ""), own_tree, Some(0)),
        ("audit", rule(&shell, ", mode: audit"), own_tree, Some(0)),
        (
            "another user",
            rule(&shell, ", by: { uid: 7 }"),
            own_tree,
            Some(0),
        ),
        ("to itself", rule(&shell, &by_shell), own_tree, None),
        ("i know", rule(&shell, ""), i_know, Some(EPERM)),
        (
            "limit of each process",
            limit("limit: forks, per: process"),
            own_tree,
            Some(0),
        ),
        (
            "limit of connections",
            limit("limit: connections"),
            own_tree,
            Some(0),
        ),
        ("limit", limit("limit: forks"), i_know, Some(0)),
    ] {
        let policy = policy_of(ctx, &sections);
        let program = text(&ctx.bin);
        let by_shell = ["-c", "\"$@\"; exit $?", "sh", program].into_iter();
        let all = by_shell.chain(arguments(&policy, scope));
        let mut enforce = Stockade::start(&below_shell, all);
        let Some(errno) = errno else {
            let ended = enforce.wait();
            if ended.code != 1
                || !ended
                    .stderr
                    .contains(&format!("refuse exec of {}", text(&shell)))
            {
                wrong.push(format!("{label}: {} {}", ended.code, ended.stderr));
            }
            continue;
        };
        enforce.until_stderr("fence armed");
        // A mapping to be run of what is denied to run, which leaves this program as it is.
        let done = outside(&[step("map", &[&"map-exec", &shell])]);
        let parent = enforce.process.pid();
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let child = children.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(child.expect("a child of the shell"), Signal::TERM).unwrap();
        let ended = enforce.wait();
        if done[0].errno != errno || ended.code != 0 {
            let errno = done[0].errno;
            wrong.push(format!(
                "{label}: errno {errno}, {} {}",
                ended.code, ended.stderr
            ));
        }
    }
    fs::write(&go, "").unwrap();
    assert_eq!(other.wait(), 0);
    assert!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Outcome::Passed
}
