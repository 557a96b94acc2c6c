//! How a rule refuses: with which errno, and whether the process survives it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::fence::{denials_of, text};
use crate::harness::{Ctx, Needs, Outcome, Test, stockade};
use crate::helper::{Step, results, step};
use crate::places::{policy_of, under};

pub(crate) const TESTS: &[Test] = &[Test::new(
    "rule_says_which_errno_is_answered_and_who_is_killed",
    Needs::Fence,
    refusals,
)];

/// A process that was ended by SIGKILL, as the helper notes it.
const KILLED: i32 = 1000 + libc::SIGKILL;

fn refusals(ctx: &Ctx) -> Outcome {
    let (gone, deadly, tried) = (ctx.path("gone"), ctx.path("deadly"), ctx.path("tried"));
    let program = ctx.path("program");
    for file in [&gone, &deadly, &tried] {
        fs::write(file, "text").unwrap();
    }
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let rules = format!(
        "files:\n\
         - {{ id: gone, deny: [read], paths: ['{}'], errno: ENOENT }}\n\
         - {{ id: deadly, deny: [read, delete], paths: ['{}'], action: kill }}\n\
         - {{ id: tried, deny: [read], paths: ['{}'], action: kill, mode: audit }}\n\
         exec:\n\
         - {{ id: program, deny: ['{}'], action: kill }}\n\
         network:\n\
         - {{ id: closed, deny: connect, to: [127.0.0.2], errno: ECONNREFUSED }}\n\
         - {{ id: trap, deny: [connect, send], to: [127.0.0.3], action: kill }}",
        text(&gone),
        text(&deadly),
        text(&tried),
        text(&program),
    );
    let policy = policy_of(ctx, &rules);
    let net = |what: &str, to: &str| step(&format!("{what} {to}"), &[&"net", &what, &to]);
    // The step, how it ends, and what is told: rule, verdict and error.
    type Told = Option<(&'static str, &'static str, Option<&'static str>)>;
    let killed: [Told; 3] =
        ["deadly", "program", "trap"].map(|rule| Some((rule, "kill", Some("EPERM"))));
    let cases: Vec<(Step, i32, Told)> = vec![
        (
            step("gone", &[&"open", &gone]),
            libc::ENOENT,
            Some(("gone", "deny", Some("ENOENT"))),
        ),
        (step("gone, to write", &[&"open-write", &gone]), 0, None),
        (step("deadly", &[&"open", &deadly]), KILLED, killed[0]),
        (
            step("deadly, by a ring", &[&"uring-async", &deadly]),
            KILLED,
            killed[0],
        ),
        (
            step("deadly, removed", &[&"unlink", &deadly]),
            KILLED,
            killed[0],
        ),
        (
            step("tried", &[&"open", &tried]),
            0,
            Some(("tried", "audit", None)),
        ),
        (step("program", &[&"execve", &program]), KILLED, killed[1]),
        (
            net("tcp", "127.0.0.2:9"),
            libc::ECONNREFUSED,
            Some(("closed", "deny", Some("ECONNREFUSED"))),
        ),
        (
            net("sendto", "127.0.0.2:9"),
            libc::ECONNREFUSED,
            Some(("closed", "deny", Some("ECONNREFUSED"))),
        ),
        (net("tcp", "127.0.0.3:9"), KILLED, killed[2]),
        (net("sendmsg", "127.0.0.3:9"), KILLED, killed[2]),
        (net("udp", "127.0.0.4:9"), 0, None),
    ];
    let steps: Vec<Step> = cases.iter().map(|(step, ..)| step.clone()).collect();
    let out = ctx.path("results");
    let ended = stockade(ctx, under(&policy, &[], &out, &steps, ctx));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, done) = results(&out);
    assert_eq!(done.len(), cases.len());
    for (done, (_, errno, told)) in done.iter().zip(&cases) {
        assert_eq!(done.errno, *errno, "{}", done.label);
        let events = denials_of(&ended, done);
        let Some((rule, verdict, code)) = told else {
            assert!(events.is_empty(), "{}: {events:?}", done.label);
            continue;
        };
        let [event] = events[..] else {
            panic!("{}: {events:?}", done.label);
        };
        let found = (&event["rule.id"], &event["stockade.verdict"]);
        assert_eq!(found, (&(*rule).into(), &(*verdict).into()), "{event}");
        assert_eq!(event["error.code"].as_str(), *code, "{event}");
    }
    assert!(deadly.exists(), "it was removed");
    ended.complete();
    Outcome::Passed
}
