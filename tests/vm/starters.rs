//! The policies that are delivered: what each of them refuses, and that it leaves alone what it is for.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::fence::{EPERM, denials_of, text};
use crate::harness::{Ctx, Needs, Outcome, Test, stockade};
use crate::helper::{Step, results, step};
use crate::places::under;

pub(crate) const TESTS: &[Test] = &[
    Test::new("starter_policy_for_an_agent_holds", Needs::Fence, |ctx| {
        let policy = include_str!("../../policies/ai-agent.yaml");
        holds(ctx, policy, |case| case.agent)
    }),
    Test::new("starter_policy_for_an_install_holds", Needs::Fence, |ctx| {
        let policy = include_str!("../../policies/package-install.yaml");
        holds(ctx, policy, |case| case.install)
    }),
    Test::new("starter_policy_for_a_build_holds", Needs::Fence, |ctx| {
        let policy = include_str!("../../policies/build-job.yaml");
        holds(ctx, policy, |case| case.build)
    }),
    Test::new(
        "starter_policy_for_a_workspace_that_is_only_read_holds",
        Needs::Fence,
        |ctx| {
            let policy = include_str!("../../policies/read-only-workspace.yaml");
            holds(ctx, policy, |case| case.read_only)
        },
    ),
];

/// A step, and by policy the rule that refuses it.
struct Case {
    step: Step,
    agent: Option<&'static str>,
    install: Option<&'static str>,
    build: Option<&'static str>,
    read_only: Option<&'static str>,
}

/// Where everything that runs is asked to work.
const SOCKET: &str = "/run/stockade-starters.sock";

fn cases(dir: &Path) -> Vec<Case> {
    let (home, work) = (dir.join("home"), dir.join("work"));
    let rows: [(Step, [Option<&'static str>; 4]); 11] = [
        (
            step("a key", &[&"open", &home.join(".ssh/id_ed25519")]),
            [Some("no-keys"), Some("no-keys"), Some("no-keys"), None],
        ),
        (
            step(
                "a key of a service",
                &[&"create", &home.join(".kube/config")],
            ),
            [Some("no-keys"), Some("no-keys"), Some("no-keys"), None],
        ),
        (
            step("what a shell reads", &[&"create", &home.join(".bashrc")]),
            [Some("nothing-stays"), Some("nothing-stays"), None, None],
        ),
        (
            step(
                "what the machine reads",
                &[&"create", &"/etc/stockade-starters"],
            ),
            [
                Some("nothing-stays"),
                Some("nothing-stays"),
                Some("machine-as-it-was"),
                None,
            ],
        ),
        (
            step("metadata", &[&"net", &"sendto", &"169.254.169.254:80"]),
            [
                Some("no-metadata"),
                Some("no-metadata"),
                Some("no-metadata"),
                None,
            ],
        ),
        (
            step("a service", &[&"unix", &"stream", &SOCKET]),
            [
                Some("nobody-else-works"),
                Some("nobody-else-works"),
                Some("nobody-else-works"),
                None,
            ],
        ),
        (
            step("a debugger", &[&"call", &"native", &"ptrace"]),
            [Some("no-debugging"), Some("no-debugging"), None, None],
        ),
        (
            step("a new file", &[&"create", &work.join("new")]),
            [None, None, None, Some("nothing-changes")],
        ),
        (
            step("a file's mode", &[&"chmod", &work.join("file")]),
            [None, None, None, Some("nothing-changes")],
        ),
        (step("a file", &[&"open", &work.join("file")]), [None; 4]),
        (
            step("an address", &[&"net", &"udp", &"127.0.0.1:9"]),
            [None; 4],
        ),
    ];
    rows.into_iter()
        .map(|(step, [agent, install, build, read_only])| Case {
            step,
            agent,
            install,
            build,
            read_only,
        })
        .collect()
}

/// As it is delivered, for a home and a workspace of the test's own.
fn holds(ctx: &Ctx, delivered: &str, refuses: fn(&Case) -> Option<&'static str>) -> Outcome {
    // The tests' own directory can be below /run.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory elsewhere");
    let dir = dir.path();
    let (home, work) = (dir.join("home"), dir.join("work"));
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::create_dir_all(home.join(".kube")).unwrap();
    fs::create_dir(&work).unwrap();
    fs::write(home.join(".ssh/id_ed25519"), "key").unwrap();
    fs::write(work.join("file"), "text").unwrap();
    let _ = fs::remove_file(SOCKET);
    let _service = UnixListener::bind(SOCKET).expect("a socket below /run");
    let policy = dir.join("policy.yaml");
    let here = delivered.replace("\"~/", &format!("\"{}/", text(&home)));
    let here = here.replace("\"./", &format!("\"{}/", text(&work)));
    fs::write(&policy, here).unwrap();

    let cases = cases(dir);
    // Sends to nowhere fail where there is no way, with or without a rule.
    let steps: Vec<Step> = cases
        .iter()
        .filter(|case| refuses(case).is_some() || case.step.label != "metadata")
        .map(|case| case.step.clone())
        .collect();
    let out = dir.join("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    if !ctx.has_lsm() && delivered.contains("/etc/") {
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
    assert_eq!(done.len(), steps.len());
    for done in &done {
        let case = cases.iter().find(|case| case.step.label == done.label);
        let rule = case.and_then(refuses);
        let expected = if rule.is_some() { EPERM } else { 0 };
        assert_eq!(done.errno, expected, "{}", done.label);
        let events = denials_of(&ended, done);
        let told: Vec<_> = events.iter().map(|e| e["rule.id"].as_str()).collect();
        assert_eq!(told, Vec::from_iter(rule.map(Some)), "{}", done.label);
    }
    ended.complete();
    let _ = fs::remove_file(SOCKET);
    Outcome::Passed
}
